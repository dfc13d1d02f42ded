/* SPDX-License-Identifier: Apache-2.0 */
/*
 * yaml_comments.c - where the comments of a YAML text are: what is no token.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "policy/commented_yaml.h"

struct finder {
	struct yaml_cursor cursor;
	struct comment *comments;
	size_t n, capacity;
	bool leads; /* the last token is about what follows it */
	bool failed;
};

static bool is_break(char c)
{
	return c == '\n' || c == '\r';
}

static size_t line_begin(const char *text, size_t at)
{
	while (at && !is_break(text[at - 1]))
		at--;
	return at;
}

static bool only_white(const char *text, size_t from, size_t to)
{
	while (from < to && (text[from] == ' ' || text[from] == '\t'))
		from++;
	return from == to;
}

size_t yaml_cursor_seek(struct yaml_cursor *cursor, size_t index)
{
	while (cursor->index < index && cursor->byte < cursor->len) {
		do
			cursor->byte++;
		while (cursor->byte < cursor->len && (cursor->text[cursor->byte] & 0xc0) == 0x80);
		cursor->index++;
	}
	while (cursor->index > index) {
		do
			cursor->byte--;
		while ((cursor->text[cursor->byte] & 0xc0) == 0x80);
		cursor->index--;
	}
	return cursor->byte;
}

bool yaml_blank_above(const char *text, size_t len, size_t at)
{
	size_t begin = line_begin(text, at < len ? at : len), end;

	if (!begin)
		return false;
	end = begin - 1;
	if (end && text[end] == '\n' && text[end - 1] == '\r')
		end--;
	return only_white(text, line_begin(text, end), end);
}

size_t yaml_column(const char *text, size_t at)
{
	size_t column = 0;

	for (size_t i = line_begin(text, at); i < at; i++)
		column += (text[i] & 0xc0) != 0x80;
	return column;
}

/* Adds the comment that begins here and returns its end. */
static size_t add_comment(struct finder *finder, size_t start)
{
	const char *text = finder->cursor.text;
	size_t len = finder->cursor.len, end = start, begin = line_begin(text, start), kept;
	struct comment *comment;

	while (end < len && !is_break(text[end]))
		end++;
	for (kept = end; text[kept - 1] == ' ' || text[kept - 1] == '\t';)
		kept--;
	if (array_grow(&finder->comments, &finder->capacity, finder->n, sizeof(*comment)) < 0) {
		finder->failed = true;
		return end;
	}
	comment = &finder->comments[finder->n++];
	*comment = (struct comment){
		.text = text + start,
		.len = (uint32_t)(kept - start),
		.start = (uint32_t)start,
		.blank = yaml_blank_above(text, len, start),
		.alone = only_white(text, begin, start),
		.leads = finder->leads,
	};
	return end;
}

static void search(struct finder *finder, size_t from, size_t to)
{
	while (from < to && !finder->failed)
		from = finder->cursor.text[from] == '#' ? add_comment(finder, from) : from + 1;
}

/* "key: | # comment": libyaml takes it for a part of the scalar. */
static void search_header(struct finder *finder, size_t from, size_t to)
{
	const char *text = finder->cursor.text;

	while (from < to && !is_break(text[from]) && text[from] != '#')
		from++;
	if (from < to && text[from] == '#')
		add_comment(finder, from);
}

static bool token_leads(yaml_token_type_t type)
{
	switch (type) {
	case YAML_BLOCK_ENTRY_TOKEN:
	case YAML_FLOW_ENTRY_TOKEN:
	case YAML_KEY_TOKEN:
	case YAML_ANCHOR_TOKEN:
	case YAML_STREAM_START_TOKEN:
	case YAML_VERSION_DIRECTIVE_TOKEN:
	case YAML_DOCUMENT_START_TOKEN:
		return true;
	default:
		return false;
	}
}

static void parser_delete(yaml_parser_t *parser)
{
	yaml_parser_delete(parser);
}

static int find(struct finder *finder)
{
	_cleanup_(parser_delete) yaml_parser_t parser;
	size_t end = 0;
	bool done = false;

	if (!yaml_parser_initialize(&parser)) {
		memset(&parser, 0, sizeof(parser));
		return -ENOMEM;
	}
	yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&parser, (const unsigned char *)finder->cursor.text, finder->cursor.len);
	while (!done && !finder->failed) {
		yaml_token_t token;
		size_t from, to;

		if (!yaml_parser_scan(&parser, &token))
			return -ENOMEM;
		from = yaml_cursor_seek(&finder->cursor, token.start_mark.index);
		to = yaml_cursor_seek(&finder->cursor, token.end_mark.index);
		search(finder, end, from);
		if (token.type == YAML_SCALAR_TOKEN && (token.data.scalar.style == YAML_LITERAL_SCALAR_STYLE ||
							token.data.scalar.style == YAML_FOLDED_SCALAR_STYLE))
			search_header(finder, from, to);
		end = to > end ? to : end;
		done = token.type == YAML_STREAM_END_TOKEN;
		finder->leads = token_leads(token.type);
		yaml_token_delete(&token);
	}
	search(finder, end, finder->cursor.len);
	return finder->failed ? -ENOMEM : 0;
}

int yaml_comments_find(struct comment **commentsp, size_t *np, struct arena *arena, const struct policy_source *source)
{
	struct finder finder = {.cursor = {.text = source->text, .len = source->len}};
	int r = find(&finder);

	if (r == 0) {
		*np = finder.n;
		*commentsp = arena_copy(arena, finder.comments, finder.n * sizeof(*finder.comments));
		r = *commentsp ? 0 : -ENOMEM;
	}
	free(finder.comments);
	return r;
}
