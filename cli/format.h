/* SPDX-License-Identifier: Apache-2.0 */
/*
 * format.h - values as people read them.
 */
#ifndef BULKHEAD_CLI_FORMAT_H
#define BULKHEAD_CLI_FORMAT_H

#include <stddef.h>
#include <stdint.h>

/* "3 d 4 h", "2 h 5 min", "12 s", "expired". */
void cli_format_duration(int64_t seconds, char *out, size_t size);
/* "512 B", "3.4 KiB", "12 MiB". */
void cli_format_bytes(uint64_t bytes, char *out, size_t size);
/* A count of 1 up from text that is a number and nothing else. Returns 0, or -1. */
int cli_parse_count(const char *text, unsigned long max, unsigned long *out);

/* "60s", "5m", "1h", "1d": a number and its unit. Returns 0 with seconds from `min` to `max`, or -1. */
int cli_parse_duration(const char *text, unsigned long min, unsigned long max, unsigned long *seconds);

#endif
