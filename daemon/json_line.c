/* SPDX-License-Identifier: Apache-2.0 */
#include "json_line.h"

#include <string.h>

static void put(struct json_line *line, const char *bytes, size_t len)
{
	if (line->full || len > line->size - line->len) {
		line->full = true;
		return;
	}
	memcpy(line->buf + line->len, bytes, len);
	line->len += len;
}

static void put_char(struct json_line *line, char c)
{
	put(line, &c, 1);
}

static void put_key(struct json_line *line, const char *key)
{
	if (line->comma)
		put_char(line, ',');
	line->comma = true;
	if (!key)
		return;
	put_char(line, '"');
	put(line, key, strlen(key));
	put(line, "\":", 2);
}

void json_line_begin(struct json_line *line, char *buf, size_t size, size_t string_max)
{
	*line = (struct json_line){.buf = buf, .size = size, .string_max = string_max};
	put_char(line, '{');
}

size_t json_line_end(struct json_line *line)
{
	put(line, "}\n", 2);
	return line->full ? 0 : line->len;
}

void json_line_object(struct json_line *line, const char *key)
{
	put_key(line, key);
	put_char(line, '{');
	line->comma = false;
}

void json_line_object_end(struct json_line *line)
{
	put_char(line, '}');
	line->comma = true;
}

void json_line_array(struct json_line *line, const char *key)
{
	put_key(line, key);
	put_char(line, '[');
	line->comma = false;
}

void json_line_array_end(struct json_line *line)
{
	put_char(line, ']');
	line->comma = true;
}

/* Length of the well-formed UTF-8 sequence of two to four bytes at `s` (Unicode table 3-7), or 0. */
static size_t utf8_sequence(const unsigned char *s, size_t len)
{
	unsigned char low = 0x80, high = 0xbf;
	size_t need;

	if (s[0] >= 0xc2 && s[0] <= 0xdf) {
		need = 2;
	} else if (s[0] >= 0xe0 && s[0] <= 0xef) {
		need = 3;
		if (s[0] == 0xe0)
			low = 0xa0; /* overlong */
		else if (s[0] == 0xed)
			high = 0x9f; /* surrogates */
	} else if (s[0] >= 0xf0 && s[0] <= 0xf4) {
		need = 4;
		if (s[0] == 0xf0)
			low = 0x90; /* overlong */
		else if (s[0] == 0xf4)
			high = 0x8f; /* above U+10FFFF */
	} else {
		return 0;
	}
	if (len < need || s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < need; i++)
		if (s[i] < 0x80 || s[i] > 0xbf)
			return 0;
	return need;
}

static size_t escape(char *out, unsigned char c)
{
	static const char hex[] = "0123456789abcdef";

	out[0] = '\\';
	switch (c) {
	case '"':
	case '\\':
		out[1] = (char)c;
		return 2;
	case '\n':
		out[1] = 'n';
		return 2;
	case '\t':
		out[1] = 't';
		return 2;
	default:
		memcpy(out + 1, "u00", 3);
		out[4] = hex[c >> 4];
		out[5] = hex[c & 15];
		return 6;
	}
}

/* Writes one character of the input as it stands in JSON (at most 6 bytes). Returns how many input bytes it took. */
static size_t encode(const unsigned char *s, size_t len, char out[6], size_t *out_len)
{
	size_t need;

	if (s[0] < 0x20 || s[0] == '"' || s[0] == '\\' || s[0] == 0x7f) {
		*out_len = escape(out, s[0]);
		return 1;
	}
	if (s[0] < 0x80) {
		out[0] = (char)s[0];
		*out_len = 1;
		return 1;
	}
	need = utf8_sequence(s, len);
	if (!need) {
		memcpy(out, "\xef\xbf\xbd", 3);
		*out_len = 3;
		return 1;
	}
	if (s[0] == 0xc2 && s[1] < 0xa0) {
		*out_len = escape(out, s[1]);
		return 2;
	}
	memcpy(out, s, need);
	*out_len = need;
	return need;
}

void json_line_bytes(struct json_line *line, const char *key, const char *value, size_t max)
{
	const unsigned char *s = (const unsigned char *)value;
	size_t len = strnlen(value, max), run, out_len, written = 0;
	char out[6];

	put_key(line, key);
	put_char(line, '"');
	for (size_t i = 0; i < len && !line->full;) {
		for (run = 0; i + run < len && s[i + run] >= 0x20 && s[i + run] < 0x7f && s[i + run] != '"' &&
			      s[i + run] != '\\' && written + run < line->string_max;)
			run++;
		put(line, value + i, run);
		i += run;
		written += run;
		if (i == len)
			break;
		run = encode(s + i, len - i, out, &out_len);
		if (written + out_len > line->string_max) {
			put(line, "\xe2\x80\xa6", 3);
			line->shortened = true;
			break;
		}
		put(line, out, out_len);
		i += run;
		written += out_len;
	}
	put_char(line, '"');
}

void json_line_string(struct json_line *line, const char *key, const char *value)
{
	json_line_bytes(line, key, value, SIZE_MAX);
}

void json_line_number(struct json_line *line, const char *key, uint64_t value)
{
	char digits[20];
	size_t at = sizeof(digits);

	if (value > INT64_MAX)
		value = INT64_MAX;
	do {
		digits[--at] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	put_key(line, key);
	put(line, digits + at, sizeof(digits) - at);
}

void json_line_bool(struct json_line *line, const char *key, bool value)
{
	put_key(line, key);
	if (value)
		put(line, "true", 4);
	else
		put(line, "false", 5);
}

void json_line_members(struct json_line *line, const char *members, size_t len)
{
	put_key(line, NULL);
	put(line, members, len);
}
