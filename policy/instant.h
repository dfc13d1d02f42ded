/* SPDX-License-Identifier: Apache-2.0 */
/*
 * instant.h - moments as RFC 3339 writes them. A moment without a time zone is nobody's: it is refused, not guessed.
 */
#ifndef BULKHEAD_POLICY_INSTANT_H
#define BULKHEAD_POLICY_INSTANT_H

#include <stdint.h>

#define INSTANT_TEXT_BYTES 32U

enum instant_problem {
	INSTANT_OK,
	INSTANT_FORM,	  /* not YYYY-MM-DDThh:mm:ss with a time zone */
	INSTANT_DATE,	  /* a date without a time */
	INSTANT_NO_ZONE,  /* else right */
	INSTANT_NO_SUCH,  /* the 30th of February, 24:00:00, a leap second */
	INSTANT_FRACTION, /* parts of a second */
};

/* RFC 3339 date-time, also with a space for the T as YAML has it. *secondsp: since 1970-01-01T00:00:00Z. */
enum instant_problem instant_parse(int64_t *secondsp, const char *text);
/* Writes "2027-01-01T00:00:00Z". For what instant_parse can give. */
void instant_format(char out[INSTANT_TEXT_BYTES], int64_t seconds);

#endif
