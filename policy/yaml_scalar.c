/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "policy/memory.h"
#include "policy/text.h"
#include "policy/yaml_scalar.h"

/* Would another reader of YAML take it for something else than a string? Asked of what was quoted, so too often is well. */
static bool looks_typed(const char *text)
{
	static const char *const words[] = {"null", "true", "false", "yes",  "no", "on", "off",	 "y",
					    "n",    "~",    ".inf",  ".nan", "=",  "<<", "-.inf"};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strcasecmp(text, words[i]) == 0)
			return true;
	/* Numbers of any base, floats, base 60, days; but no addresses. */
	if (!strchr("0123456789+-.", text[0]) || strstr(text, "::"))
		return false;
	if (strncasecmp(text, "0x", 2) == 0)
		return true;
	return strspn(text, "0123456789+-._:eEoO") == strlen(text) && strchr(text, '.') == strrchr(text, '.');
}

/* A ':' within flow: readers differ but for "://". */
static bool colon_is_safe(const char *text, const char *at, bool flow)
{
	if (!at[1] || at[1] == ' ')
		return false;
	return !flow || (at > text && at[1] == '/' && at[2] == '/');
}

static bool may_be_plain(const char *text, bool flow)
{
	if (!text[0] || strchr("!&*?|>'\"%@`#,[]{}: ", text[0]))
		return false;
	if (text[0] == '-' && (!text[1] || strchr(" -,[]{}", text[1])))
		return false;
	if (strncmp(text, "...", 3) == 0)
		return false;
	for (const char *at = text; *at; at++) {
		if (flow && strchr(",[]{}?", *at))
			return false;
		if (*at == ':' && !colon_is_safe(text, at, flow))
			return false;
		if (*at == ' ' && (!at[1] || at[1] == '#'))
			return false;
	}
	return true;
}

static bool is_one_printable_line(const char *text)
{
	bool broken;
	size_t len = strlen(text);

	return text_bad_byte(text, len, &broken) == len && !strpbrk(text, "\t\n\r") && !strstr(text, "\xef\xbb\xbf");
}

static char *single_quoted(struct arena *arena, const char *text)
{
	char *out = arena_alloc(arena, 2 * strlen(text) + 3), *to = out;

	if (!out)
		return NULL;
	*to++ = '\'';
	for (; *text; text++) {
		*to++ = *text;
		if (*text == '\'')
			*to++ = '\'';
	}
	*to++ = '\'';
	return out;
}

static char *escaped(char *to, const char *text, size_t n)
{
	unsigned c = (unsigned char)text[0];

	if (n == 2)
		c = (c & 0x1fU) << 6 | (text[1] & 0x3fU);
	else if (n == 3)
		c = (c & 0x0fU) << 12 | (text[1] & 0x3fU) << 6 | (text[2] & 0x3fU);
	return to + sprintf(to, c < 0x100 ? "\\x%02x" : "\\u%04x", c);
}

static char *double_quoted(struct arena *arena, const char *text)
{
	/* No character takes more than six for each of its bytes. */
	char *out = arena_alloc(arena, 6 * strlen(text) + 3), *to = out;
	bool broken;

	if (!out)
		return NULL;
	*to++ = '"';
	while (*text) {
		static const char from[] = "\"\\\n\t\r", as[] = "\"\\ntr";
		size_t n = text_char_len(text, strlen(text) < 4 ? strlen(text) : 4);
		const char *simple = n == 1 ? strchr(from, *text) : NULL;

		if (simple) {
			*to++ = '\\';
			*to++ = as[simple - from];
		} else if (text_bad_byte(text, n, &broken) < n || memcmp(text, "\xef\xbb\xbf", n) == 0) {
			to = escaped(to, text, n);
		} else {
			memcpy(to, text, n);
			to += n;
		}
		text += n;
	}
	*to++ = '"';
	return out;
}

const char *yaml_scalar_write(struct arena *arena, const char *text, unsigned flags)
{
	if (!is_one_printable_line(text))
		return double_quoted(arena, text);
	if (may_be_plain(text, flags & YAML_SCALAR_FLOW) && !((flags & YAML_SCALAR_QUOTED) && looks_typed(text)))
		return text;
	return strpbrk(text, "\"\\") ? single_quoted(arena, text) : double_quoted(arena, text);
}
