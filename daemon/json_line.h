/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json_line.h - one JSON object on one line, written straight into a buffer that its caller owns.
 *
 * The audit log is written at the rate of the traffic it describes. Building a tree of values per event (jansson) costs
 * about 16 us for a usual line and allocates some hundred times; this costs about one and allocates nothing, so its
 * memory is bounded whatever is thrown at it.
 *
 * Strings may hold any bytes: what is not UTF-8 becomes U+FFFD, control characters (C0, DEL and C1, which move the cursor
 * of a terminal that shows the log) become \u escapes. The result is always valid JSON in valid UTF-8, or
 * json_line_end() says that it did not fit.
 */
#ifndef BULKHEAD_DAEMON_JSON_LINE_H
#define BULKHEAD_DAEMON_JSON_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_line {
	char *buf;
	size_t size;
	size_t len;
	size_t string_max; /* bytes that one string may take in the output, without quotes */
	bool comma;	   /* a member or element stands before the next one */
	bool full;	   /* did not fit: the line is unusable */
	bool shortened;	   /* a string was cut at string_max; it ends with U+2026 */
};

/* Begins the outermost object in `buf`. */
void json_line_begin(struct json_line *line, char *buf, size_t size, size_t string_max);
/* Ends it and the line. Returns its length with the newline, or 0 if it did not fit. */
size_t json_line_end(struct json_line *line);

/* Keys are literals of ours and need no escape; inside an array the key is NULL. */
void json_line_object(struct json_line *line, const char *key);
void json_line_object_end(struct json_line *line);
void json_line_array(struct json_line *line, const char *key);
void json_line_array_end(struct json_line *line);
void json_line_string(struct json_line *line, const char *key, const char *value);
/* At most `max` bytes, or up to the first NUL among them. */
void json_line_bytes(struct json_line *line, const char *key, const char *value, size_t max);
/* Numbers above 2^63 - 1 are written as that: most readers refuse a line with a larger one. */
void json_line_number(struct json_line *line, const char *key, uint64_t value);
void json_line_bool(struct json_line *line, const char *key, bool value);
/* Members that were written by this module before ("a":1,"b":2), not empty. */
void json_line_members(struct json_line *line, const char *members, size_t len);

#endif
