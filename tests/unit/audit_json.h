/* SPDX-License-Identifier: Apache-2.0 */
/* Reading audit lines back, for the audit tests: with jansson, which shares no code with what wrote them. */
#ifndef BULKHEAD_TESTS_AUDIT_JSON_H
#define BULKHEAD_TESTS_AUDIT_JSON_H

#include <arpa/inet.h>
#include <jansson.h>
#include <string.h>

#include "bpf/abi.h"

/* An address as an event has it. */
static inline struct bh_addr addr(const char *text)
{
	struct bh_addr a = {{0, 0, htonl(0xffff), 0}};

	if (strchr(text, ':'))
		assert_int_equal(inet_pton(AF_INET6, text, &a), 1);
	else
		assert_int_equal(inet_pton(AF_INET, text, &a.w[3]), 1);
	return a;
}

/* Parses one line with its newline, which must be its only one. */
static inline json_t *audit_parse(const char *line, size_t len)
{
	json_error_t error;
	json_t *root;

	assert_true(len > 1 && len <= 16384);
	assert_ptr_equal(memchr(line, '\n', len), line + len - 1);
	root = json_loadb(line, len, JSON_REJECT_DUPLICATES, &error);
	if (!root)
		fail_msg("%s at %d in %.*s", error.text, error.position, (int)len, line);
	return root;
}

/* The value at a dotted path, with array indices as numbers; NULL if there is none. */
static inline json_t *audit_get(json_t *value, const char *path)
{
	char part[64];
	size_t len;

	while (value && *path) {
		len = strcspn(path, ".");
		memcpy(part, path, len);
		part[len] = '\0';
		value = json_is_array(value) ? json_array_get(value, strtoul(part, NULL, 10))
					     : json_object_get(value, part);
		path += len + (path[len] == '.');
	}
	return value;
}

#define assert_text(root, path, expected)                                                                              \
	do {                                                                                                           \
		const char *text_ = json_string_value(audit_get(root, path));                                          \
		if (!text_)                                                                                            \
			fail_msg("no text at %s", path);                                                               \
		else                                                                                                   \
			assert_string_equal(text_, expected);                                                          \
	} while (0)
#define assert_number(root, path, expected)                                                                            \
	do {                                                                                                           \
		assert_true(json_is_integer(audit_get(root, path)));                                                   \
		assert_int_equal(json_integer_value(audit_get(root, path)), expected);                                 \
	} while (0)
#define assert_absent(root, path) assert_null(audit_get(root, path))

#endif
