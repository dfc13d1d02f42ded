/* SPDX-License-Identifier: Apache-2.0 */
/*
 * when.h - moments as an operator or the audit log writes them.
 */
#ifndef BULKHEAD_CLI_WHEN_H
#define BULKHEAD_CLI_WHEN_H

#include <stdbool.h>
#include <stdint.h>

/* "2026-11-21T08:00:00Z", or how long before `now`: 90s, 30min, 12h, 7d. Returns NULL, or what is wrong (a literal). */
const char *cli_parse_when(const char *text, int64_t now, int64_t *secondsp);
/* A time of the audit log, RFC 3339 with or without parts of a second, which are dropped. Returns whether it is one. */
bool cli_parse_timestamp(const char *text, int64_t *secondsp);

#endif
