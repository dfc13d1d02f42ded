/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json_member.h - an integer member of a JSON object as it is written. Internal to the library.
 *
 * jansson's integers end at 2^63 - 1, and beyond that it has doubles only. A sequence of 64 bits read as a double is equal
 * to its neighbours, and then an older bundle passes for the same one (rule 78).
 */
#ifndef BULKHEAD_IDENTITY_JSON_MEMBER_H
#define BULKHEAD_IDENTITY_JSON_MEMBER_H

#include <stddef.h>
#include <stdint.h>

enum json_integer {
	JSON_INTEGER_OK,
	JSON_INTEGER_NEGATIVE,	/* *value is 0 */
	JSON_INTEGER_TOO_LARGE, /* *value is UINT64_MAX */
	JSON_INTEGER_NONE,	/* no member of this name, or no integer: 1.0 and 1e3 are none */
};

/* The member `name` of the object that `text` is. The text must have passed a JSON parser that refuses duplicates. */
enum json_integer json_member_integer(const char *text, size_t len, const char *name, uint64_t *value);

#endif
