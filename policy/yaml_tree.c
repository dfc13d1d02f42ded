/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "policy/text.h"
#include "policy/yaml_quick.h"
#include "policy/yaml_tree.h"

struct frame {
	struct node *node;
	struct node **items;
	size_t n;
	size_t capacity;
};

struct builder {
	struct arena *arena;
	struct policy_diagnostics *diagnostics;
	const struct policy_source *source;
	uint32_t index;
	size_t mark; /* bytes of a byte order mark */
	uint32_t budget;
	uint32_t weight; /* of the nodes closed so far in this file, aliases counted in full */
	struct intern anchors;
	struct list anchor_nodes; /* by anchor: index into `anchored` */
	struct node **anchored;
	size_t n_anchored, anchored_capacity;
	struct frame frames[YAML_TREE_MAX_DEPTH];
	unsigned depth;
	struct node *root;
	bool stream; /* of several documents; else one */
	struct node **documents;
	size_t n_documents, documents_capacity;
	bool failed;
};

static struct position position_of(const struct builder *b, yaml_mark_t mark)
{
	return (struct position){b->index, (uint32_t)mark.line + 1, (uint32_t)mark.column + 1};
}

static void out_of_memory(struct builder *b)
{
	b->arena->out_of_memory = true;
	b->failed = true;
}

/* Counts nodes against what is left of the budget. */
static bool spend(struct builder *b, uint32_t nodes, struct position at)
{
	if (nodes <= b->budget - b->weight) {
		b->weight += nodes;
		return true;
	}
	diagnostics_error(b->diagnostics, at, "the policy is too large: more than %u values, aliases counted in full",
			  YAML_TREE_MAX_NODES);
	b->failed = true;
	return false;
}

static void attach(struct builder *b, struct node *node)
{
	struct frame *frame;

	if (!b->depth) {
		b->root = node;
		return;
	}
	frame = &b->frames[b->depth - 1];
	if (array_grow(&frame->items, &frame->capacity, frame->n, sizeof(*frame->items)) < 0) {
		out_of_memory(b);
		return;
	}
	frame->items[frame->n++] = node;
	frame->node->weight += node->weight;
}

static void remember_anchor(struct builder *b, const yaml_char_t *anchor, struct node *node)
{
	uint32_t number;
	int r;

	if (!anchor)
		return;
	r = intern_bytes(&b->anchors, anchor, strlen((const char *)anchor), &number);
	if (r < 0 || array_grow(&b->anchored, &b->anchored_capacity, b->n_anchored, sizeof(*b->anchored)) < 0 ||
	    (r == 1 && list_push(&b->anchor_nodes, 0) < 0)) {
		out_of_memory(b);
		return;
	}
	/* YAML lets an anchor be set again; the last one before an alias counts. */
	b->anchored[b->n_anchored] = node;
	b->anchor_nodes.items[number] = (uint32_t)b->n_anchored++;
}

/* With `extra` bytes behind it. */
static struct node *node_new(struct builder *b, enum node_kind kind, const yaml_event_t *event,
			     const yaml_char_t *anchor, const yaml_char_t *tag, size_t extra)
{
	struct position at = position_of(b, event->start_mark);
	struct node *node;

	if (tag) {
		diagnostics_error(b->diagnostics, at, "YAML tags such as '%s' have no meaning in a policy",
				  (const char *)tag);
		b->failed = true;
		return NULL;
	}
	if (!spend(b, 1, at))
		return NULL;
	node = arena_alloc(b->arena, sizeof(*node) + extra);
	if (!node) {
		b->failed = true;
		return NULL;
	}
	node->kind = kind;
	node->at = at;
	node->weight = 1;
	node->self = node;
	remember_anchor(b, anchor, node);
	return b->failed ? NULL : node;
}

static void read_scalar(struct builder *b, const yaml_event_t *event)
{
	const char *text = (const char *)event->data.scalar.value;
	size_t len = event->data.scalar.length;
	struct node *node = node_new(b, NODE_SCALAR, event, event->data.scalar.anchor, event->data.scalar.tag, len + 1);

	if (!node)
		return;
	if (memchr(text, 0, len)) {
		diagnostics_error(b->diagnostics, node->at, "a NUL character in a value");
		b->failed = true;
		return;
	}
	node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	node->text = memcpy(node + 1, text, len);
	attach(b, node);
}

static void open_collection(struct builder *b, enum node_kind kind, const yaml_event_t *event)
{
	bool list = kind == NODE_LIST;
	struct node *node =
		node_new(b, kind, event, list ? event->data.sequence_start.anchor : event->data.mapping_start.anchor,
			 list ? event->data.sequence_start.tag : event->data.mapping_start.tag, 0);

	if (!node)
		return;
	if (b->depth == YAML_TREE_MAX_DEPTH) {
		diagnostics_error(b->diagnostics, node->at, "nested more than %u levels deep", YAML_TREE_MAX_DEPTH);
		b->failed = true;
		return;
	}
	node->open = true;
	b->frames[b->depth++] = (struct frame){.node = node};
}

static void close_collection(struct builder *b)
{
	struct frame frame = b->frames[--b->depth];

	frame.node->open = false;
	frame.node->n = (uint32_t)frame.n;
	frame.node->items = arena_copy(b->arena, frame.items, frame.n * sizeof(*frame.items));
	free(frame.items);
	if (!frame.node->items)
		b->failed = true;
	else
		attach(b, frame.node);
}

static void read_alias(struct builder *b, const yaml_event_t *event)
{
	const char *name = (const char *)event->data.alias.anchor;
	struct position at = position_of(b, event->start_mark);
	struct node *node;
	uint32_t number;

	if (!intern_find(&b->anchors, name, strlen(name), &number)) {
		diagnostics_error(b->diagnostics, at, "alias '*%s' names no anchor", name);
		b->failed = true;
		return;
	}
	node = b->anchored[b->anchor_nodes.items[number]];
	if (node->open) {
		diagnostics_error(b->diagnostics, at, "alias '*%s' stands within the value it names", name);
		b->failed = true;
		return;
	}
	if (spend(b, node->weight, at))
		attach(b, node);
}

static void start_document(struct builder *b, const yaml_event_t *event)
{
	if (b->root && !b->stream) {
		diagnostics_error(b->diagnostics, position_of(b, event->start_mark),
				  "a second YAML document: a file holds one");
		b->failed = true;
	}
	/* Anchors end with their document. */
	if (b->n_anchored) {
		intern_free(&b->anchors);
		b->anchors = (struct intern){};
		b->anchor_nodes.n = 0;
		b->n_anchored = 0;
	}
}

static void end_document(struct builder *b)
{
	if (!b->stream || !b->root)
		return;
	if (array_grow(&b->documents, &b->documents_capacity, b->n_documents, sizeof(*b->documents)) < 0) {
		out_of_memory(b);
		return;
	}
	b->documents[b->n_documents++] = b->root;
	b->root = NULL;
}

static void read_event(struct builder *b, const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_DOCUMENT_START_EVENT:
		start_document(b, event);
		break;
	case YAML_DOCUMENT_END_EVENT:
		end_document(b);
		break;
	case YAML_SCALAR_EVENT:
		read_scalar(b, event);
		break;
	case YAML_SEQUENCE_START_EVENT:
		open_collection(b, NODE_LIST, event);
		break;
	case YAML_MAPPING_START_EVENT:
		open_collection(b, NODE_MAP, event);
		break;
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		close_collection(b);
		break;
	case YAML_ALIAS_EVENT:
		read_alias(b, event);
		break;
	default:
		break;
	}
}

static void report_yaml_error(struct builder *b, const yaml_parser_t *parser)
{
	struct position at = position_of(b, parser->problem_mark);
	size_t offset = b->mark + parser->problem_mark.index;

	b->failed = true;
	if (parser->error == YAML_MEMORY_ERROR) {
		out_of_memory(b);
		return;
	}
	if (parser->context)
		diagnostics_error(b->diagnostics, at, "not valid YAML: %s (%s)", parser->problem, parser->context);
	else
		diagnostics_error(b->diagnostics, at, "not valid YAML: %s", parser->problem);
	/* `index` counts characters; it finds the byte only where all before are ASCII, else the hint stays away. */
	if (offset < b->source->len && b->source->text[offset] == '\t')
		diagnostics_hint(b->diagnostics, "YAML is indented with spaces, not tabs");
	else if (parser->context && parser->context_mark.line < parser->problem_mark.line)
		diagnostics_hint(b->diagnostics, "it begins at %s:%zu",
				 diagnostics_source_name(b->diagnostics, b->index), parser->context_mark.line + 1);
}

static void parser_delete(yaml_parser_t *parser)
{
	yaml_parser_delete(parser);
}

static void parse_events(struct builder *b)
{
	_cleanup_(parser_delete) yaml_parser_t parser;
	bool done = false;

	if (!yaml_parser_initialize(&parser)) {
		memset(&parser, 0, sizeof(parser));
		out_of_memory(b);
		return;
	}
	yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
	/* libyaml would count a byte order mark as a column. */
	yaml_parser_set_input_string(&parser, (const unsigned char *)b->source->text + b->mark,
				     b->source->len - b->mark);
	while (!b->failed && !done) {
		yaml_event_t event;

		if (!yaml_parser_parse(&parser, &event)) {
			report_yaml_error(b, &parser);
			return;
		}
		done = event.type == YAML_STREAM_END_EVENT;
		read_event(b, &event);
		yaml_event_delete(&event);
	}
}

/* libyaml compares each %TAG with all before it, so a file of them would cost the square of its size; and tags mean nothing
 * here anyway. Returns false if there is one. */
static bool check_directives(struct builder *b)
{
	const char *text = b->source->text, *at = text + b->mark, *end = text + b->source->len;
	struct position position = {b->index, 1, 1};

	while (at < end) {
		if (end - at >= 4 && memcmp(at, "%TAG", 4) == 0) {
			diagnostics_error(b->diagnostics, position, "YAML tags have no meaning in a policy");
			return false;
		}
		while (at < end && !text_line_break(text, b->source->len, (size_t)(at - text)))
			at++;
		at++;
		position.line++;
	}
	return true;
}

/* libyaml gives no line for a byte it cannot read, so such bytes are found first. */
static bool check_text(struct builder *b)
{
	struct position at = {b->index, 1, 1};
	const char *text = b->source->text;
	size_t len = b->source->len, bad;
	bool broken = false;

	if (len > POLICY_MAX_SOURCE_BYTES) {
		diagnostics_error(b->diagnostics, (struct position){b->index, 0, 0},
				  "the file has %zu bytes, the limit is %u", len, POLICY_MAX_SOURCE_BYTES);
		return false;
	}
	bad = text_bad_byte(text, len, &broken);
	if (bad == len)
		return check_directives(b);
	for (size_t i = b->mark; i < bad;) {
		at.column++;
		if (text_line_break(text, len, i)) {
			at.line++;
			at.column = 1;
		}
		i += text_char_len(text + i, len - i);
	}
	if (broken)
		diagnostics_error(b->diagnostics, at, "byte 0x%02x is not valid UTF-8", (unsigned char)text[bad]);
	else
		diagnostics_error(b->diagnostics, at, "a control character in the file");
	return false;
}

/* What the quick reader takes is a file as it should be: there is nothing to check. */
static bool read_quickly(struct builder *b)
{
	_cleanup_(arena_free) struct arena arena = {};

	if (b->stream || b->source->len > POLICY_MAX_SOURCE_BYTES)
		return false;
	b->root = yaml_quick_read(&arena, b->source->text + b->mark, b->source->len - b->mark, b->index, b->budget,
				  &b->weight);
	if (b->root)
		arena_join(b->arena, &arena);
	return b->root;
}

/* Reads with what the builder is set up for. */
static void build(struct builder *b, uint32_t *budgetp)
{
	b->budget = *budgetp;
	if (b->source->len >= 3 && memcmp(b->source->text, "\xef\xbb\xbf", 3) == 0)
		b->mark = 3;
	if (read_quickly(b)) {
		*budgetp -= b->weight;
		return;
	}
	if (!check_text(b)) {
		b->failed = true;
		return;
	}
	parse_events(b);
	while (b->depth)
		free(b->frames[--b->depth].items);
	intern_free(&b->anchors);
	list_free(&b->anchor_nodes);
	free(b->anchored);
	*budgetp -= b->weight;
}

void yaml_tree_read(struct node **rootp, struct arena *arena, const struct policy_source *source, uint32_t index,
		    uint32_t *budgetp, struct policy_diagnostics *diagnostics)
{
	struct builder b = {.arena = arena, .diagnostics = diagnostics, .source = source, .index = index};

	build(&b, budgetp);
	*rootp = b.failed ? NULL : b.root;
}

bool yaml_tree_read_stream(struct node ***rootsp, size_t *np, struct arena *arena, const struct policy_source *source,
			   uint32_t index, uint32_t *budgetp, struct policy_diagnostics *diagnostics)
{
	struct builder b = {
		.arena = arena, .diagnostics = diagnostics, .source = source, .index = index, .stream = true};

	build(&b, budgetp);
	*np = b.failed ? 0 : b.n_documents;
	*rootsp = arena_copy(arena, b.documents, *np * sizeof(*b.documents));
	free(b.documents);
	return !b.failed && *rootsp;
}
