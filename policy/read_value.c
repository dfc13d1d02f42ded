/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read_value.c - single values of a policy: maps taken apart, words, names, lists.
 */
#include <stdlib.h>
#include <string.h>

#include "policy/read.h"
#include "policy/text.h"

#define MAX_NODE_TEXT 400U /* of a value in a message */

const char *node_kind_name(const struct node *node)
{
	static const char *const names[] = {[NODE_SCALAR] = "a string", [NODE_LIST] = "a list", [NODE_MAP] = "a map"};

	return names[node->kind];
}

const struct node *node_value(const struct node *map, const char *name)
{
	for (uint32_t i = 0; map->kind == NODE_MAP && i < map->n; i += 2)
		if (map->items[i]->kind == NODE_SCALAR && strcmp(map->items[i]->text, name) == 0)
			return map->items[i + 1];
	return NULL;
}

void reader_merge_key(struct reader *reader, const struct node *key)
{
	reader_error(reader, key, "merge keys (`<<`) are no part of the language");
	reader_hint(reader, "an anchor may name a whole value: `to: &dbs [db, cache]`, then `from: *dbs`");
}

static void report_key(struct reader *reader, const struct node *node, const char *what, const struct key *keys,
		       size_t n)
{
	struct suggestion suggestion = {.wrong = node->text};

	if (strcmp(node->text, "<<") == 0) {
		reader_merge_key(reader, node);
		return;
	}
	reader_error(reader, node, "unknown key '%.100s' in %s", node->text, what);
	if (!diagnostics_may_suggest(reader->diagnostics, n))
		return;
	for (size_t i = 0; i < n; i++)
		suggestion_offer(&suggestion, keys[i].name);
	if (suggestion.best)
		reader_hint(reader, "did you mean '%s'?", suggestion.best);
}

bool read_keys(struct reader *reader, const struct node *map, const char *what, const struct key *keys, size_t n)
{
	if (map->kind != NODE_MAP) {
		reader_error(reader, map, "%s must be a map, not %s", what, node_kind_name(map));
		return false;
	}
	for (uint32_t i = 0; i < map->n; i += 2) {
		const struct node *key = map->items[i];
		size_t k = 0;

		if (key->kind != NODE_SCALAR) {
			reader_error(reader, key, "a key must be a string, not %s", node_kind_name(key));
			continue;
		}
		while (k < n && (keys[k].name[0] != key->text[0] || strcmp(keys[k].name, key->text) != 0))
			k++;
		if (k == n) {
			report_key(reader, key, what, keys, n);
		} else if (*keys[k].value) {
			reader_error(reader, key, "duplicate key '%s' in %s", key->text, what);
			reader_hint(reader, "first given at %s", reader_where(reader, (*keys[k].value)->at));
		} else {
			*keys[k].value = map->items[i + 1];
		}
	}
	return true;
}

const char *read_text(struct reader *reader, const struct node *node, const char *what)
{
	if (node->kind != NODE_SCALAR) {
		reader_error(reader, node, "%s must be a string, not %s", what, node_kind_name(node));
		return NULL;
	}
	if (!node->text[0]) {
		reader_error(reader, node, "%s has no value", what);
		return NULL;
	}
	return node->text;
}

static void report_word(struct reader *reader, const struct node *node, const char *what, const char *const *words,
			int n)
{
	struct suggestion suggestion = {.wrong = node->text};
	char list[128] = "";

	for (int i = 0; i < n; i++) {
		const char *between = i == 0 ? "" : i == n - 1 ? " or " : ", ";

		snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", between, words[i]);
	}
	reader_error(reader, node, "%s must be %s, not '%.100s'", what, list, node->text);
	if (!diagnostics_may_suggest(reader->diagnostics, (size_t)n))
		return;
	for (int i = 0; i < n; i++)
		suggestion_offer(&suggestion, words[i]);
	if (suggestion.best)
		reader_hint(reader, "did you mean '%s'?", suggestion.best);
}

int read_word(struct reader *reader, const struct node *node, const char *what, const char *const *words, int n)
{
	const char *text = read_text(reader, node, what);

	if (!text)
		return -1;
	for (int i = 0; i < n; i++)
		if (strcmp(text, words[i]) == 0)
			return i;
	report_word(reader, node, what, words, n);
	return -1;
}

bool read_items(struct reader *reader, const struct node *node, const char *what, struct items *items)
{
	if (node->kind != NODE_LIST) {
		*items = (struct items){&node->self, 1};
		return true;
	}
	*items = (struct items){node->items, node->n};
	if (node->n)
		return true;
	reader_error(reader, node, "%s is an empty list", what);
	reader_hint(reader, "an empty list never means everything; leave it out or name something");
	return false;
}

static bool is_name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
	       c == '-';
}

bool read_name(struct reader *reader, const struct node *node, const char *kind, size_t max, const char **namep)
{
	const char *text;
	size_t len, good;

	if (node->kind != NODE_SCALAR) {
		reader_error(reader, node, "the name of %s must be a string, not %s", kind, node_kind_name(node));
		return false;
	}
	text = node->text;
	len = strlen(text);
	good = 0;
	while (is_name_char(text[good]))
		good++;
	if (!len || len > max || good < len || text[0] == '-' || text[0] == '.' || text[0] == '_') {
		reader_error(reader, node, "'%.*s' cannot name %s", (int)(len > 80 ? 80 : len), text, kind);
		reader_hint(reader,
			    "a name has 1 to %zu letters, digits, '_', '.' and '-', and begins with a letter or digit",
			    max);
		return false;
	}
	*namep = reader_keep(reader, text);
	return true;
}

void read_label(struct reader *reader, const struct node *node, const char **labelp)
{
	const char *text = read_text(reader, node, "`name`");

	if (!text)
		return;
	if (strlen(text) > POLICY_MAX_RULE_NAME || strpbrk(text, "\t\n\r"))
		reader_error(reader, node, "`name` must be one line of at most %u bytes", POLICY_MAX_RULE_NAME);
	else
		*labelp = text_printable(&reader->policy->arena, text, strlen(text));
}

const char *reader_where(struct reader *reader, struct position at)
{
	const char *text = NULL;

	/* Not for the millionth error: the name of a file may be long. */
	if (diagnostics_may_hint(reader->diagnostics))
		text = arena_printf(&reader->arena, "%s:%u", diagnostics_source_name(reader->diagnostics, at.source),
				    at.line);
	return text ? text : "";
}

const char *reader_keep(struct reader *reader, const char *text)
{
	const char *kept = arena_copy(&reader->policy->arena, text, strlen(text));

	return kept ? kept : "";
}

void reader_push(struct reader *reader, struct list *list, uint32_t item)
{
	if (list_push(list, item) < 0)
		reader->arena.out_of_memory = true;
}

/* ---- a value as text ---- */

struct line {
	char text[MAX_NODE_TEXT + 4];
	size_t len;
};

/* Returns false once the line is full. */
static bool line_put(struct line *line, const char *text)
{
	size_t len = strlen(text);

	if (len > MAX_NODE_TEXT - line->len) {
		memcpy(line->text + line->len, "...", 4);
		line->len = MAX_NODE_TEXT + 1;
		return false;
	}
	memcpy(line->text + line->len, text, len + 1);
	line->len += len;
	return true;
}

/* The depth of the tree bounds the recursion, and the length of the line what aliases can make of it. */
static bool line_put_node(struct line *line, const struct node *node)
{
	bool map = node->kind == NODE_MAP;

	if (node->kind == NODE_SCALAR)
		return line_put(line, node->text);
	if (!line_put(line, map ? "{" : "["))
		return false;
	for (uint32_t i = 0; i < node->n; i++) {
		const char *between = i == 0 ? "" : map && i % 2 ? ": " : ", ";

		if (!line_put(line, between) || !line_put_node(line, node->items[i]))
			return false;
	}
	return line_put(line, map ? "}" : "]");
}

const char *reader_node_text(struct reader *reader, const struct node *node)
{
	struct line line = {};
	const char *text;

	line_put_node(&line, node);
	text = text_printable(&reader->policy->arena, line.text, strlen(line.text));
	return text ? text : "";
}
