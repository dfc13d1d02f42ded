/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "policy/yaml_quick.h"

/* libyaml takes longer keys; they must stay below its limit of 1,024. */
#define MAX_KEY_BYTES 512
#define POOL_NODES 1024U
#define END_OF_TEXT (-1)

struct quick {
	struct arena *arena;
	char *at;   /* the text is a copy: scalars are ended with a NUL where they stand */
	char *end;  /* of the text; a NUL */
	char *line; /* the beginning of this one */
	uint32_t line_number;
	int indent;	  /* column of what begins at `at`, in block context; or END_OF_TEXT */
	char *unfinished; /* the end of the scalar read last: its NUL waits until what stands there has been looked at */
	uint32_t source;
	uint32_t n_nodes, max_nodes;
	unsigned depth;
	struct node *pool;
	uint32_t n_pool;
	struct node **open; /* items of the collections that are open */
	size_t n_open, open_capacity;
};

static void quick_free(struct quick *q)
{
	free(q->open);
}

/* ---- characters ---- */

#define FIRST 1U /* may begin a plain scalar, whatever follows */
#define WORD 2U	 /* within one, whatever follows */

static const uint8_t classes[256] = {
	['0' ... '9'] = WORD | FIRST,
	['A' ... 'Z'] = WORD | FIRST,
	['a' ... 'z'] = WORD | FIRST,
	['_'] = WORD | FIRST,
	['/'] = WORD | FIRST,
	['+'] = WORD | FIRST,
	['.'] = WORD, /* "..." ends a document */
	['-'] = WORD,
	['@'] = WORD,
	['*'] = WORD,
};

static bool is(char c, unsigned class)
{
	return classes[(unsigned char)c] & class;
}

static bool is_shown(char c)
{
	return c >= ' ' && c <= '~';
}

static bool is_blank_or_end(char c)
{
	return c == ' ' || c == '\n' || c == '\0';
}

static bool is_comment(const struct quick *q)
{
	return *q->at == '#' && (q->at == q->line || q->at[-1] == ' ');
}

static bool is_dash(const struct quick *q)
{
	return q->at[0] == '-' && q->at[1] == ' ';
}

static void skip_spaces(struct quick *q)
{
	while (*q->at == ' ')
		q->at++;
}

static void skip_comment(struct quick *q)
{
	while (is_shown(*q->at))
		q->at++;
}

static void begin_line(struct quick *q)
{
	q->line = ++q->at;
	q->line_number++;
}

/* From the end of a value, or from the beginning, to the next line on which something stands. */
static bool next_line(struct quick *q, bool begun)
{
	for (;;) {
		skip_spaces(q);
		if (is_comment(q))
			skip_comment(q);
		else if (begun && *q->at != '\n' && *q->at != '\0')
			break;
		if (*q->at == '\0') {
			q->indent = END_OF_TEXT;
			return q->at == q->end;
		}
		if (*q->at != '\n')
			return false;
		begin_line(q);
		begun = true;
	}
	q->indent = (int)(q->at - q->line);
	return true;
}

/* Within a flow collection: to what comes next, on this line or another. */
static bool skip_to_item(struct quick *q)
{
	for (;;) {
		skip_spaces(q);
		if (is_comment(q))
			skip_comment(q);
		if (*q->at != '\n')
			return *q->at != '#' && q->at != q->end;
		begin_line(q);
	}
}

/* ---- nodes ---- */

static struct node *node_new(struct quick *q, enum node_kind kind)
{
	struct node *node;

	if (q->n_nodes == q->max_nodes)
		return NULL;
	if (!q->n_pool) {
		q->pool = arena_array(q->arena, POOL_NODES, sizeof(*q->pool));
		if (!q->pool)
			return NULL;
		q->n_pool = POOL_NODES;
	}
	node = q->pool++;
	q->n_pool--;
	q->n_nodes++;
	node->at = (struct position){q->source, q->line_number, (uint32_t)(q->at - q->line) + 1};
	node->kind = kind;
	node->weight = 1;
	node->self = node;
	return node;
}

static bool push(struct quick *q, struct node *node)
{
	if (!node || array_grow(&q->open, &q->open_capacity, q->n_open, sizeof(struct node *)) < 0)
		return false;
	q->open[q->n_open++] = node;
	return true;
}

static struct node *open_collection(struct quick *q, enum node_kind kind)
{
	struct node *node = q->depth < YAML_TREE_MAX_DEPTH ? node_new(q, kind) : NULL;

	q->depth += node != NULL;
	return node;
}

/* Its items are those from `first` on. */
static struct node *close_collection(struct quick *q, struct node *node, size_t first)
{
	size_t n = q->n_open - first;

	node->items = arena_copy(q->arena, q->open + first, n * sizeof(struct node *));
	if (!node->items)
		return NULL;
	node->n = (uint32_t)n;
	for (size_t i = 0; i < n; i++)
		node->weight += node->items[i]->weight;
	q->n_open = first;
	q->depth--;
	return node;
}

/* ---- scalars ---- */

/* Where the plain scalar that begins here ends; NULL: there is none, or it is not for this reader. */
static char *plain_end(char *at)
{
	char *end;

	if (!is(*at, FIRST) && !(*at == '-' && at[1] >= '0' && at[1] <= '9'))
		return NULL;
	for (;;) {
		while (is(*at, WORD))
			at++;
		if (*at == ':' && (is(at[1], WORD) || at[1] == ':')) {
			at++;
			continue;
		}
		if (*at != ' ')
			return at;
		for (end = at; *at == ' '; at++)
			;
		if (!is(*at, WORD))
			return end;
	}
}

/* The closing quote of the scalar that begins here, or NULL. */
static char *quoted_end(char *at)
{
	char quote = *at++;

	while (is_shown(*at) && *at != quote && *at != '\\')
		at++;
	return *at == quote && at[1] != quote ? at : NULL;
}

static struct node *scalar(struct quick *q)
{
	bool plain = *q->at != '"' && *q->at != '\'';
	char *end = plain ? plain_end(q->at) : quoted_end(q->at);
	struct node *node = end ? node_new(q, NODE_SCALAR) : NULL;

	if (!node)
		return NULL;
	if (q->unfinished)
		*q->unfinished = '\0';
	q->unfinished = end;
	node->plain = plain;
	node->text = plain ? q->at : q->at + 1;
	q->at = plain ? end : end + 1;
	return node;
}

/* A scalar and the colon behind it. */
static bool push_key(struct quick *q)
{
	const char *begin = q->at;

	if (!push(q, scalar(q)) || q->at - begin > MAX_KEY_BYTES || *q->at != ':' || !is_blank_or_end(q->at[1]))
		return false;
	q->at++;
	return true;
}

/* ---- flow collections ---- */

static struct node *flow(struct quick *q);

/* NOLINTNEXTLINE(misc-no-recursion): as deep as YAML_TREE_MAX_DEPTH */
static bool push_flow_items(struct quick *q, bool map, char close)
{
	for (;;) {
		if (map && (!push_key(q) || !skip_to_item(q)))
			return false;
		if (!push(q, flow(q)) || !skip_to_item(q))
			return false;
		if (*q->at == close)
			return true;
		if (*q->at != ',')
			return false;
		q->at++;
		if (!skip_to_item(q))
			return false;
	}
}

/* A value on its line: a scalar or a flow collection. NOLINTNEXTLINE(misc-no-recursion) */
static struct node *flow(struct quick *q)
{
	bool map = *q->at == '{';
	char close = map ? '}' : ']';
	size_t first = q->n_open;
	struct node *node;

	if (!map && *q->at != '[')
		return scalar(q);
	node = open_collection(q, map ? NODE_MAP : NODE_LIST);
	q->at++;
	if (!node || !skip_to_item(q) || (*q->at != close && !push_flow_items(q, map, close)))
		return NULL;
	q->at++;
	return close_collection(q, node, first);
}

/* ---- block collections ---- */

static struct node *block(struct quick *q);

/* Does a key of a block map begin here? */
static bool is_key(const struct quick *q)
{
	bool quoted = *q->at == '"' || *q->at == '\'';
	const char *end = quoted ? quoted_end(q->at) : plain_end(q->at);

	return end && end[quoted] == ':' && is_blank_or_end(end[quoted + 1]);
}

/* The value of a key, or of a dash, in a collection that stands in the column `indent`. Ends on the line behind it, which must
 * not be a part of it. NOLINTNEXTLINE(misc-no-recursion) */
static struct node *value_on_line(struct quick *q, int indent)
{
	struct node *node = flow(q);

	/* A plain scalar would go on there. */
	return node && next_line(q, false) && q->indent <= indent ? node : NULL;
}

/* NOLINTNEXTLINE(misc-no-recursion) */
static struct node *block_list(struct quick *q)
{
	struct node *node = open_collection(q, NODE_LIST), *item;
	size_t first = q->n_open;
	int indent = q->indent;

	while (node && q->indent == indent && is_dash(q)) {
		q->at++;
		skip_spaces(q);
		q->indent = (int)(q->at - q->line);
		item = is_dash(q) || is_key(q) ? block(q) : value_on_line(q, indent);
		if (!push(q, item) || q->indent > indent)
			return NULL;
	}
	return node ? close_collection(q, node, first) : NULL;
}

/* NOLINTNEXTLINE(misc-no-recursion) */
static struct node *block_value(struct quick *q, int indent)
{
	skip_spaces(q);
	if (*q->at != '\n' && !is_comment(q))
		return value_on_line(q, indent);
	if (!next_line(q, false))
		return NULL;
	if (q->indent > indent)
		return block(q);
	/* A list may stand in the column of its key. */
	return q->indent == indent && is_dash(q) ? block_list(q) : NULL;
}

/* NOLINTNEXTLINE(misc-no-recursion) */
static struct node *block_map(struct quick *q)
{
	struct node *node = open_collection(q, NODE_MAP);
	size_t first = q->n_open;
	int indent = q->indent;

	while (node && q->indent == indent)
		if (!push_key(q) || !push(q, block_value(q, indent)) || q->indent > indent)
			return NULL;
	return node ? close_collection(q, node, first) : NULL;
}

/* What begins here, in the column q->indent. NOLINTNEXTLINE(misc-no-recursion) */
static struct node *block(struct quick *q)
{
	return is_dash(q) ? block_list(q) : block_map(q);
}

struct node *yaml_quick_read(struct arena *arena, const char *text, size_t len, uint32_t source, uint32_t max_nodes,
			     uint32_t *nodesp)
{
	_cleanup_(quick_free) struct quick q = {
		.arena = arena, .line_number = 1, .source = source, .max_nodes = max_nodes};
	struct node *root;

	q.at = q.line = arena_copy(arena, text, len);
	if (!q.at)
		return NULL;
	q.end = q.at + len;
	if (!next_line(&q, true) || q.indent == END_OF_TEXT)
		return NULL;
	root = block(&q);
	if (!root || q.indent != END_OF_TEXT)
		return NULL;
	if (q.unfinished)
		*q.unfinished = '\0';
	*nodesp = q.n_nodes;
	return root;
}
