/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include <string.h>

#include "policy/memory.h"
#include "policy/text.h"

/* Length of the valid character at `text`, or 0. */
static size_t utf8_len(const char *text, size_t len, uint32_t *charp)
{
	const unsigned char *p = (const unsigned char *)text;
	uint32_t c;
	size_t n;

	if (p[0] < 0x80) {
		*charp = p[0];
		return 1;
	}
	if (p[0] >= 0xc2 && p[0] < 0xe0) {
		n = 2;
		c = p[0] & 0x1f;
	} else if (p[0] >= 0xe0 && p[0] < 0xf0) {
		n = 3;
		c = p[0] & 0x0f;
	} else if (p[0] >= 0xf0 && p[0] < 0xf5) {
		n = 4;
		c = p[0] & 0x07;
	} else {
		return 0;
	}
	if (len < n)
		return 0;
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	if ((n == 3 && c < 0x800) || (n == 4 && c < 0x10000) || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	*charp = c;
	return n;
}

size_t text_char_len(const char *text, size_t len)
{
	uint32_t c;
	size_t n = utf8_len(text, len, &c);

	return n ? n : 1;
}

bool text_line_break(const char *text, size_t len, size_t at)
{
	return text[at] == '\n' || (text[at] == '\r' && !(at + 1 < len && text[at + 1] == '\n'));
}

/* Control characters, and those that turn the direction of the text around them. */
static bool is_printable(uint32_t c)
{
	return c >= 0x20 && !(c >= 0x7f && c < 0xa0) && !(c >= 0x202a && c <= 0x202e) &&
	       !(c >= 0x2066 && c <= 0x2069) && c != 0x2028 && c != 0x2029 && c != 0xfeff;
}

char *text_printable(struct arena *arena, const char *text, size_t len)
{
	char *out = arena_alloc(arena, len + 1);
	size_t to = 0;

	if (!out)
		return NULL;
	for (size_t at = 0; at < len;) {
		uint32_t c = 0;
		size_t n = utf8_len(text + at, len - at, &c);

		if (n && (c == '\t' || is_printable(c))) {
			memcpy(out + to, text + at, n);
			to += n;
		} else {
			out[to++] = '?';
		}
		at += n ? n : 1;
	}
	return out;
}

size_t text_bad_byte(const char *text, size_t len, bool *brokenp)
{
	for (size_t at = 0; at < len;) {
		uint32_t c = 0;
		size_t n = utf8_len(text + at, len - at, &c);

		*brokenp = n == 0;
		if (!n)
			return at;
		if (c != '\t' && c != '\n' && c != '\r' && !is_printable(c) && !(at == 0 && c == 0xfeff))
			return at;
		at += n;
	}
	return len;
}
