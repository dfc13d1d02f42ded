/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "policy/commented_yaml.h"

/* A list or map that is not closed yet. */
struct frame {
	struct commented_node *node;
	struct commented_entry *entries;
	size_t n, capacity;
	size_t column; /* of its entries */
	bool flow;
};

enum event_kind {
	EVENT_NONE,
	EVENT_SCALAR, /* or an alias */
	EVENT_START,
	EVENT_END, /* of a flow collection: that of a block has no place of its own */
};

struct reader {
	struct arena *arena;
	struct yaml_cursor cursor;
	struct commented_file *file;
	size_t next_comment;
	size_t next_token;	 /* first byte behind the last comment looked at that is neither comment nor white */
	struct comments pending; /* for what comes next */
	bool gap_leads;		 /* a comment of this gap is pending: those behind it follow it */
	size_t gap_column;	 /* of the comment before, in this gap */
	enum event_kind last;
	size_t last_end;
	struct frame frames[YAML_TREE_MAX_DEPTH];
	unsigned depth;
	bool failed;
};

static void comments_add(struct comments *list, struct comment *comment)
{
	comment->next = NULL;
	if (list->last)
		list->last->next = comment;
	else
		list->first = comment;
	list->last = comment;
}

static void comments_move(struct comments *to, struct comments *from)
{
	if (!from->first)
		return;
	if (to->last)
		to->last->next = from->first;
	else
		to->first = from->first;
	to->last = from->last;
	*from = (struct comments){};
}

static struct commented_entry *last_entry(struct frame *frame)
{
	return frame && frame->n ? &frame->entries[frame->n - 1] : NULL;
}

static bool awaits_value(struct frame *frame)
{
	struct commented_entry *entry = last_entry(frame);

	return entry && frame->node->kind == COMMENTED_MAP && !entry->value;
}

/* ---- comments ---- */

static bool same_line(const char *text, size_t from, size_t to)
{
	while (from < to && text[from] != '\n' && text[from] != '\r')
		from++;
	return from >= to;
}

/* The place of what follows a comment, or the length of the text. */
static size_t find_next_token(struct reader *reader, size_t at)
{
	const char *text = reader->cursor.text;
	size_t len = reader->cursor.len;

	if (reader->next_token > at)
		return reader->next_token;
	while (at < len && strchr(" \t\r\n#", text[at])) {
		if (text[at] == '#')
			while (at < len && text[at] != '\n' && text[at] != '\r')
				at++;
		else
			at++;
	}
	return reader->next_token = at;
}

/* Is this comment deeper than what follows? Then it ends what stands above it. */
static bool ends_what_is_above(struct reader *reader, const struct comment *comment, size_t column)
{
	const char *text = reader->cursor.text;
	size_t len = reader->cursor.len, next = find_next_token(reader, comment->start), next_column;

	if (next >= len)
		return true;
	next_column = yaml_column(text, next);
	if (!next_column && len - next >= 3 && (memcmp(text + next, "...", 3) == 0))
		return true;
	return column > next_column;
}

static void end_what_is_above(struct reader *reader, struct comment *comment, size_t column)
{
	unsigned k = reader->depth - 1;
	struct frame *frame;

	while (k > 0 && reader->frames[k].column > column)
		k--;
	frame = &reader->frames[k];
	if (column <= frame->column || (k + 1 == reader->depth && !frame->n))
		comments_add(&frame->node->tail, comment);
	else if (k + 1 < reader->depth)
		comments_add(&reader->frames[k + 1].node->tail, comment);
	else
		comments_add(&last_entry(frame)->foot, comment);
}

/* A comment behind something on its line. Returns whether it was given away. */
static bool give_behind(struct reader *reader, struct comment *comment)
{
	struct frame *top = reader->depth ? &reader->frames[reader->depth - 1] : NULL;
	struct commented_entry *entry = last_entry(top), *holder;
	bool within = comment->start < reader->last_end;

	if (!within && !same_line(reader->cursor.text, reader->last_end, comment->start))
		return false;
	if (reader->last == EVENT_START) {
		holder = reader->depth > 1 ? last_entry(&reader->frames[reader->depth - 2]) : NULL;
		if (!holder || (!within && !top->flow))
			return false;
		comments_add(&holder->at_key, comment);
		return true;
	}
	if (!entry || reader->last == EVENT_NONE)
		return false;
	comments_add(awaits_value(top) ? &entry->at_key : &entry->behind, comment);
	return true;
}

static void give_comment(struct reader *reader, struct comment *comment)
{
	struct frame *top = reader->depth ? &reader->frames[reader->depth - 1] : NULL;
	size_t column = yaml_column(reader->cursor.text, comment->start);

	if (!comment->alone && give_behind(reader, comment))
		return;
	if (reader->last == EVENT_SCALAR && comment->start < reader->last_end && last_entry(top)) {
		comments_add(&last_entry(top)->head, comment); /* between an anchor and its scalar */
		return;
	}
	if (column > reader->gap_column)
		column = reader->gap_column;
	reader->gap_column = column;
	if (!top || top->flow || comment->leads || awaits_value(top) || reader->gap_leads ||
	    !ends_what_is_above(reader, comment, column)) {
		reader->gap_leads = true;
		comments_add(&reader->pending, comment);
	} else {
		end_what_is_above(reader, comment, column);
	}
}

static void give_comments_before(struct reader *reader, size_t at)
{
	while (reader->next_comment < reader->file->n_comments) {
		struct comment *comment = &reader->file->comments[reader->next_comment];

		if (comment->start >= at)
			return;
		give_comment(reader, comment);
		reader->next_comment++;
	}
}

/* ---- nodes ---- */

/* Where the line of an item begins to count: at its dash, which libyaml does not tell. */
static size_t item_start(const struct reader *reader, const struct frame *frame, size_t at)
{
	const char *text = reader->cursor.text;
	size_t dash = at;

	if (frame->flow || frame->node->kind != COMMENTED_LIST)
		return at;
	while (dash && strchr(" \t\r\n", text[dash - 1]))
		dash--;
	return dash && text[dash - 1] == '-' ? dash - 1 : at;
}

static void add_entry(struct reader *reader, struct frame *frame, struct commented_node *node, size_t at)
{
	struct commented_entry *entry;

	if (array_grow(&frame->entries, &frame->capacity, frame->n, sizeof(*entry)) < 0) {
		reader->failed = true;
		return;
	}
	entry = &frame->entries[frame->n++];
	*entry = (struct commented_entry){};
	*(frame->node->kind == COMMENTED_MAP ? &entry->key : &entry->value) = node;
	comments_move(&entry->head, &reader->pending);
	at = item_start(reader, frame, at);
	entry->blank = !frame->flow && yaml_blank_above(reader->cursor.text, reader->cursor.len, at);
	if (entry->head.first) {
		entry->blank_below_head = entry->blank;
		entry->blank = entry->head.first->blank;
	}
}

static void place(struct reader *reader, struct commented_node *node, size_t at, bool block_start)
{
	struct frame *frame = reader->depth ? &reader->frames[reader->depth - 1] : NULL;

	if (!frame) {
		reader->file->root = node;
		return;
	}
	if (!awaits_value(frame)) {
		add_entry(reader, frame, node, at);
		return;
	}
	/* What stands between a key and its block belongs to the first entry of the block. */
	if (!block_start)
		comments_move(&last_entry(frame)->head, &reader->pending);
	last_entry(frame)->value = node;
}

static struct commented_node *add_node(struct reader *reader, enum commented_kind kind, const yaml_char_t *anchor,
				       size_t at, bool block_start)
{
	struct commented_node *node = arena_alloc(reader->arena, sizeof(*node));

	if (!node) {
		reader->failed = true;
		return NULL;
	}
	node->kind = kind;
	if (anchor) {
		node->anchor = arena_copy(reader->arena, anchor, strlen((const char *)anchor));
		node->tied = true;
		reader->failed = !node->anchor;
	}
	place(reader, node, at, block_start);
	return reader->failed ? NULL : node;
}

static void read_scalar(struct reader *reader, const yaml_event_t *event, size_t at)
{
	struct commented_node *node = add_node(reader, COMMENTED_SCALAR, event->data.scalar.anchor, at, false);

	if (!node)
		return;
	node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
	node->text = arena_copy(reader->arena, event->data.scalar.value, event->data.scalar.length);
	reader->failed = !node->text;
}

static void read_alias(struct reader *reader, const yaml_event_t *event, size_t at)
{
	const char *name = (const char *)event->data.alias.anchor;
	struct commented_node *node = add_node(reader, COMMENTED_ALIAS, NULL, at, false);

	if (!node)
		return;
	node->tied = true;
	node->text = arena_copy(reader->arena, name, strlen(name));
	reader->failed = !node->text;
}

/* The column of the entries of a block collection, which an anchor may stand before. */
static size_t block_column(struct reader *reader, const yaml_char_t *anchor, size_t at)
{
	const char *text = reader->cursor.text;

	if (anchor)
		at += 1 + strlen((const char *)anchor);
	while (at < reader->cursor.len && strchr(" \t\r\n#", text[at])) {
		if (text[at] == '#')
			while (at < reader->cursor.len && text[at] != '\n' && text[at] != '\r')
				at++;
		else
			at++;
	}
	return yaml_column(text, at);
}

static void open_collection(struct reader *reader, enum commented_kind kind, const yaml_char_t *anchor, bool flow,
			    size_t at)
{
	struct commented_node *node;
	size_t column = flow ? 0 : block_column(reader, anchor, at);

	if (reader->depth == YAML_TREE_MAX_DEPTH) {
		reader->failed = true;
		return;
	}
	node = add_node(reader, kind, anchor, at, !flow);
	if (node)
		reader->frames[reader->depth++] = (struct frame){.node = node, .column = column, .flow = flow};
}

static bool entry_has_comments(const struct commented_entry *entry)
{
	return entry->head.first || entry->at_key.first || entry->behind.first || entry->foot.first ||
	       (entry->value && entry->value->has_comments);
}

static void close_collection(struct reader *reader)
{
	struct frame frame = reader->frames[--reader->depth];
	struct commented_node *node = frame.node;

	if (frame.flow)
		comments_move(&node->tail, &reader->pending);
	node->has_comments = node->tail.first;
	for (size_t i = 0; i < frame.n; i++) {
		const struct commented_entry *entry = &frame.entries[i];

		node->has_comments = node->has_comments || entry_has_comments(entry);
		node->tied = node->tied || (entry->key && entry->key->tied) || (entry->value && entry->value->tied);
	}
	node->n = (uint32_t)frame.n;
	node->entries = arena_copy(reader->arena, frame.entries, frame.n * sizeof(*frame.entries));
	free(frame.entries);
	reader->failed = reader->failed || !node->entries;
}

static void read_event(struct reader *reader, const yaml_event_t *event)
{
	size_t at = yaml_cursor_seek(&reader->cursor, event->start_mark.index);
	bool flow = false;

	give_comments_before(reader, at);
	switch (event->type) {
	case YAML_SCALAR_EVENT:
		read_scalar(reader, event, at);
		break;
	case YAML_ALIAS_EVENT:
		read_alias(reader, event, at);
		break;
	case YAML_SEQUENCE_START_EVENT:
		flow = event->data.sequence_start.style == YAML_FLOW_SEQUENCE_STYLE;
		open_collection(reader, COMMENTED_LIST, event->data.sequence_start.anchor, flow, at);
		break;
	case YAML_MAPPING_START_EVENT:
		flow = event->data.mapping_start.style == YAML_FLOW_MAPPING_STYLE;
		open_collection(reader, COMMENTED_MAP, event->data.mapping_start.anchor, flow, at);
		break;
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		flow = reader->frames[reader->depth - 1].flow;
		close_collection(reader);
		if (flow)
			break;
		return;
	default:
		return;
	}
	reader->last = event->type == YAML_SCALAR_EVENT || event->type == YAML_ALIAS_EVENT ? EVENT_SCALAR
		       : event->type == YAML_SEQUENCE_START_EVENT || event->type == YAML_MAPPING_START_EVENT
			       ? EVENT_START
			       : EVENT_END;
	reader->last_end = yaml_cursor_seek(&reader->cursor, event->end_mark.index);
	reader->gap_leads = false;
	reader->gap_column = SIZE_MAX;
}

static void parser_delete(yaml_parser_t *parser)
{
	yaml_parser_delete(parser);
}

static int read_events(struct reader *reader)
{
	_cleanup_(parser_delete) yaml_parser_t parser;
	bool done = false;

	if (!yaml_parser_initialize(&parser)) {
		memset(&parser, 0, sizeof(parser));
		return -ENOMEM;
	}
	yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&parser, (const unsigned char *)reader->cursor.text, reader->cursor.len);
	while (!done && !reader->failed) {
		yaml_event_t event;

		if (!yaml_parser_parse(&parser, &event))
			return -ENOMEM;
		done = event.type == YAML_STREAM_END_EVENT;
		read_event(reader, &event);
		yaml_event_delete(&event);
	}
	return reader->failed ? -ENOMEM : 0;
}

/* ---- the head of the file ---- */

static bool begins(const struct comment *comment, const char *with)
{
	size_t n = strlen(with);

	return comment->len >= n && memcmp(comment->text, with, n) == 0;
}

/* Lines that speak of the file, to tools. */
static bool is_about_the_file(const struct comment *comment)
{
	return begins(comment, "# SPDX-") || begins(comment, "# yaml-language-server:") || begins(comment, "# vim:") ||
	       begins(comment, "# -*-") || begins(comment, "#!");
}

/* Comments before the first key belong to the file as far as an empty line, or a line for tools, sets them apart. */
static void split_header(struct commented_file *file)
{
	struct commented_entry *first = file->root->n ? &file->root->entries[0] : NULL;
	struct comment *last = NULL;

	if (!first)
		return;
	if (first->blank_below_head)
		last = first->head.last;
	for (struct comment *c = first->head.first; c && !first->blank_below_head; c = c->next)
		if (is_about_the_file(c) || (c->next && c->next->blank))
			last = c;
	if (!last)
		return;
	file->header = (struct comments){first->head.first, last};
	first->head.first = last->next;
	first->head.last = last->next ? first->head.last : NULL;
	first->blank = first->head.first ? first->head.first->blank : first->blank_below_head;
	first->blank_below_head = first->head.first && first->blank_below_head;
	file->blank_below_header = first->blank;
	last->next = NULL;
}

int commented_yaml_read(struct commented_file *file, struct arena *arena, const struct policy_source *source)
{
	struct reader reader = {
		.arena = arena,
		.cursor = {.text = source->text, .len = source->len},
		.file = file,
		.gap_column = SIZE_MAX,
	};
	int r;

	*file = (struct commented_file){};
	r = yaml_comments_find(&file->comments, &file->n_comments, arena, source);
	if (r == 0)
		r = read_events(&reader);
	while (reader.depth)
		free(reader.frames[--reader.depth].entries);
	if (r < 0 || !file->root)
		return r < 0 ? r : -ENOMEM;
	give_comments_before(&reader, SIZE_MAX);
	comments_move(&file->root->tail, &reader.pending);
	split_header(file);
	return 0;
}
