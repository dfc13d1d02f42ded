/* SPDX-License-Identifier: Apache-2.0 */
#include "json_member.h"

#include <jansson.h>
#include <stdbool.h>
#include <string.h>

struct scan {
	const char *at;
	const char *end;
};

static void skip_space(struct scan *scan)
{
	while (scan->at < scan->end && strchr(" \t\r\n", *scan->at) != NULL)
		scan->at++;
}

static bool take(struct scan *scan, char c)
{
	skip_space(scan);
	if (scan->at == scan->end || *scan->at != c)
		return false;
	scan->at++;
	return true;
}

/* Behind a string whose opening quote stands at scan->at. */
static void skip_string(struct scan *scan)
{
	for (scan->at++; scan->at < scan->end && *scan->at != '"'; scan->at++) {
		if (*scan->at == '\\')
			scan->at++;
	}
	scan->at = scan->at < scan->end ? scan->at + 1 : scan->end;
}

/* Behind a value, on the comma or brace that ends it. */
static void skip_value(struct scan *scan)
{
	for (size_t depth = 0; scan->at < scan->end;) {
		char c = *scan->at;

		if (c == '"') {
			skip_string(scan);
			continue;
		}
		if (depth == 0 && (c == ',' || c == '}'))
			return;
		if (c == '{' || c == '[')
			depth++;
		else if (c == '}' || c == ']')
			depth--;
		scan->at++;
	}
}

/* A name may be written with escapes: jansson reads it as it read it before. */
static bool is_named(const char *token, size_t len, const char *name)
{
	json_t *value = json_loadb(token, len, JSON_DECODE_ANY, NULL);
	bool is = json_is_string(value) && strcmp(json_string_value(value), name) == 0;

	json_decref(value);
	return is;
}

static enum json_integer integer_of(const char *token, size_t len, uint64_t *value)
{
	bool negative = len > 0 && token[0] == '-', too_large = false;

	*value = 0;
	while (len > 0 && strchr(" \t\r\n", token[len - 1]) != NULL)
		len--;
	if (len == (negative ? 1U : 0U))
		return JSON_INTEGER_NONE;
	for (size_t i = negative ? 1 : 0; i < len; i++) {
		unsigned digit = (unsigned char)token[i] - '0';

		if (digit > 9)
			return JSON_INTEGER_NONE;
		too_large |= __builtin_mul_overflow(*value, 10, value) || __builtin_add_overflow(*value, digit, value);
	}
	if (negative) {
		*value = 0;
		return JSON_INTEGER_NEGATIVE;
	}
	if (too_large)
		*value = UINT64_MAX;
	return too_large ? JSON_INTEGER_TOO_LARGE : JSON_INTEGER_OK;
}

enum json_integer json_member_integer(const char *text, size_t len, const char *name, uint64_t *value)
{
	struct scan scan = {text, text + len};

	*value = 0;
	if (!take(&scan, '{'))
		return JSON_INTEGER_NONE;
	do {
		const char *token, *found;
		size_t token_len;

		skip_space(&scan);
		if (scan.at == scan.end || *scan.at != '"')
			return JSON_INTEGER_NONE;
		token = scan.at;
		skip_string(&scan);
		token_len = (size_t)(scan.at - token);
		if (!take(&scan, ':'))
			return JSON_INTEGER_NONE;
		skip_space(&scan);
		found = scan.at;
		skip_value(&scan);
		if (is_named(token, token_len, name))
			return integer_of(found, (size_t)(scan.at - found), value);
	} while (take(&scan, ','));
	return JSON_INTEGER_NONE;
}
