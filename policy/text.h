/* SPDX-License-Identifier: Apache-2.0 */
/*
 * text.h - characters: UTF-8, lines, and what may go to a terminal.
 */
#ifndef BULKHEAD_POLICY_TEXT_H
#define BULKHEAD_POLICY_TEXT_H

#include <stdbool.h>
#include <stddef.h>

struct arena;

/* Bytes of the character that begins here; 1 where the bytes are no valid UTF-8 (RFC 3629). `len` is at least 1. */
size_t text_char_len(const char *text, size_t len);
/* Does a line end with this byte? "\n", "\r" and "\r\n" end lines, as they do for YAML. */
bool text_line_break(const char *text, size_t len, size_t at);
/* Copies text with every control character and every byte that is not UTF-8 replaced by '?'; tabs stay. */
char *text_printable(struct arena *arena, const char *text, size_t len);
/* The first byte that a policy may not have: broken UTF-8, or a control character. Returns `len` if there is none. */
size_t text_bad_byte(const char *text, size_t len, bool *brokenp);

#endif
