/* SPDX-License-Identifier: Apache-2.0 */
#include "der.h"

#include <stdbool.h>
#include <string.h>

/* A certificate nests about ten deep. */
#define DEPTH_MAX 32

#define CLASS 0xc0
#define CONSTRUCTED 0x20
#define NUMBER 0x1f

enum {
	BOOLEAN = 1,
	INTEGER = 2,
	BIT_STRING = 3,
	NULL_VALUE = 5,
	OBJECT_IDENTIFIER = 6,
	ENUMERATED = 10,
	SEQUENCE = 16,
	SET = 17,
};

struct element {
	uint8_t tag;
	const uint8_t *content;
	size_t len;
};

/* These return what is wrong, or NULL. */

/* X.690 8.1.2, 8.1.3, 10.1. */
static const char *header_read(const uint8_t *at, size_t left, struct element *element)
{
	size_t header = 2, len;

	if (left < 2)
		return "an element is cut off";
	if ((at[0] & NUMBER) == NUMBER)
		return "a tag has a number above 30, which no part of a certificate has";
	len = at[1];
	if (len == 0x80)
		return "an element has no definite length";
	if (len > 0x80) {
		size_t bytes = len & 0x7f;

		if (bytes > 4 || bytes > left - 2)
			return "a length is too large";
		len = 0;
		for (size_t i = 0; i < bytes; i++)
			len = len << 8 | at[2 + i];
		header += bytes;
		if (len < 0x80 || len >> (8 * (bytes - 1)) == 0)
			return "a length takes more bytes than it needs";
	}
	if (len > left - header)
		return "an element is longer than what holds it";
	*element = (struct element){.tag = at[0], .content = at + header, .len = len};
	return NULL;
}

/* 8.3.2. */
static const char *integer_check(const uint8_t *content, size_t len)
{
	if (len == 0)
		return "an integer is empty";
	if (len > 1 && ((content[0] == 0 && content[1] < 0x80) || (content[0] == 0xff && content[1] >= 0x80)))
		return "an integer takes more bytes than it needs";
	return NULL;
}

/* 8.6.2, 11.2.1. */
static const char *bit_string_check(const uint8_t *content, size_t len)
{
	unsigned unused;

	if (len == 0)
		return "a bit string is empty";
	unused = content[0];
	if (unused > 7 || (len == 1 && unused != 0))
		return "a bit string has an impossible number of unused bits";
	if (content[len - 1] & ((1U << unused) - 1) && len > 1)
		return "the unused bits of a bit string are not zero";
	return NULL;
}

/* 8.19.2. */
static const char *identifier_check(const uint8_t *content, size_t len)
{
	if (len == 0 || content[len - 1] >= 0x80)
		return "an object identifier is empty or cut off";
	for (size_t i = 0; i < len; i++)
		if (content[i] == 0x80 && (i == 0 || content[i - 1] < 0x80))
			return "an object identifier takes more bytes than it needs";
	return NULL;
}

static const char *primitive_check(const struct element *element)
{
	switch (element->tag) {
	case BOOLEAN:
		if (element->len != 1 || (element->content[0] != 0 && element->content[0] != 0xff))
			return "a boolean is neither 00 nor FF";
		return NULL;
	case INTEGER:
	case ENUMERATED:
		return integer_check(element->content, element->len);
	case BIT_STRING:
		return bit_string_check(element->content, element->len);
	case NULL_VALUE:
		return element->len == 0 ? NULL : "a null has a content";
	case OBJECT_IDENTIFIER:
		return identifier_check(element->content, element->len);
	default:
		return NULL;
	}
}

/* 8.9.1, 8.11.1, 10.2: sequences and sets are made of parts, everything else is in one piece. */
static const char *form_check(uint8_t tag)
{
	unsigned number = tag & NUMBER;
	bool constructed = tag & CONSTRUCTED;

	if (tag & CLASS)
		return NULL;
	if (number == 0)
		return "an element has the tag of an end marker";
	if (number == SEQUENCE || number == SET)
		return constructed ? NULL : "a sequence or set is in one piece";
	return constructed ? "a string is in pieces" : NULL;
}

/* 11.6: as if the shorter one were padded with zeros. */
static bool is_in_order(const uint8_t *before, size_t before_len, const uint8_t *after, size_t after_len)
{
	int r = memcmp(before, after, before_len < after_len ? before_len : after_len);

	return r < 0 || (r == 0 && before_len <= after_len);
}

/* One element at `at`, of which *totalp bytes were used. Returns what is wrong at *faultp, or NULL. */
static const char *element_check(const uint8_t *at, size_t left, unsigned depth, size_t *totalp, const uint8_t **faultp)
{
	struct element element = {0};
	const char *what = header_read(at, left, &element);
	const uint8_t *former = NULL;
	size_t former_len = 0, part_len;

	*faultp = at;
	if (what == NULL)
		what = form_check(element.tag);
	if (what == NULL && !(element.tag & CONSTRUCTED))
		what = primitive_check(&element);
	if (what == NULL && depth == 0)
		what = "elements are nested too deep";
	if (what != NULL)
		return what;
	*totalp = (size_t)(element.content - at) + element.len;
	if (!(element.tag & CONSTRUCTED))
		return NULL;
	for (size_t done = 0; done < element.len; done += part_len) {
		const uint8_t *part = element.content + done;

		what = element_check(part, element.len - done, depth - 1, &part_len, faultp);
		if (what != NULL)
			return what;
		*faultp = part;
		if (element.tag == (SET | CONSTRUCTED) && former != NULL &&
		    !is_in_order(former, former_len, part, part_len))
			return "the parts of a set are not in order";
		former = part;
		former_len = part_len;
	}
	return NULL;
}

int der_check(const uint8_t *bytes, size_t len, struct der_fault *fault)
{
	const uint8_t *at = bytes;
	size_t total = 0;
	const char *what = element_check(bytes, len, DEPTH_MAX, &total, &at);

	if (what == NULL && total != len) {
		what = "bytes follow an element";
		at = bytes + total;
	}
	if (what == NULL)
		return 0;
	*fault = (struct der_fault){.at = (size_t)(at - bytes), .what = what};
	return 1;
}
