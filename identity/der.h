/* SPDX-License-Identifier: Apache-2.0 */
/*
 * der.h - whether bytes are DER (X.690 section 10), and not only BER that a lenient decoder takes for it. Internal.
 *
 * In BER one value has many encodings: lengths with leading zeros or without an end known beforehand, strings in pieces,
 * TRUE as any byte but zero. OpenSSL decodes most of them. Two readers that decode differently see two certificates where one
 * was signed, so we take the one encoding that X.509 asks for and refuse the rest.
 *
 * Checked are tags, lengths, and the contents of the types that X.690 section 11 pins down and that need no schema: booleans,
 * integers, bit strings, object identifiers, null, the order in sets. Not refused is a DEFAULT value that is written out
 * (11.5): it takes a schema to see, issuers exist that do it, and it cannot be read in two ways.
 */
#ifndef BULKHEAD_IDENTITY_DER_H
#define BULKHEAD_IDENTITY_DER_H

#include <stddef.h>
#include <stdint.h>

struct der_fault {
	size_t at; /* byte, from 0 */
	const char *what;
};

/* Whether `bytes` are one element in DER and nothing behind it. Returns 0, or 1 with `fault` filled. */
int der_check(const uint8_t *bytes, size_t len, struct der_fault *fault);

#endif
