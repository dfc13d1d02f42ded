/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/canonical.h"
#include "policy/canonical_write.h"

#define AT_FILE ((struct position){0, 0, 0})

static void freep(void *p)
{
	free(*(void **)p);
}

/* ---- is it the same? ---- */

struct pair {
	const struct node *key, *value;
	uint32_t index;
};

static int compare_pairs(const void *a, const void *b)
{
	const struct pair *x = a, *y = b;
	int order = strcmp(x->key->text, y->key->text);

	/* A key given twice is an error of the policy, but not one to be hidden by a change of order. */
	return order ? order : (x->index > y->index) - (x->index < y->index);
}

static struct pair *sorted_pairs(const struct node *map)
{
	struct pair *pairs = calloc(map->n / 2 + 1, sizeof(*pairs));

	for (uint32_t i = 0; pairs && i < map->n / 2; i++)
		pairs[i] = (struct pair){map->items[2 * i], map->items[2 * i + 1], i};
	if (pairs)
		qsort(pairs, map->n / 2, sizeof(*pairs), compare_pairs);
	return pairs;
}

static int same_tree(const struct node *a, const struct node *b);

static int same_map(const struct node *a, const struct node *b)
{
	_cleanup_(freep) struct pair *x = sorted_pairs(a);
	_cleanup_(freep) struct pair *y = sorted_pairs(b);
	int r = x && y ? 1 : -ENOMEM;

	for (uint32_t i = 0; i < a->n / 2 && r == 1; i++)
		r = strcmp(x[i].key->text, y[i].key->text) == 0 ? same_tree(x[i].value, y[i].value) : 0;
	return r;
}

/* Returns 1 (same), 0, or -ENOMEM. Goes no deeper than a tree may be, and meets no more nodes than it weighs. */
static int same_tree(const struct node *a, const struct node *b)
{
	int r = 1;

	if (a->kind != b->kind || a->weight != b->weight || (a->kind != NODE_SCALAR && a->n != b->n))
		return 0;
	if (a->kind == NODE_SCALAR)
		return strcmp(a->text, b->text) == 0;
	if (a->kind == NODE_MAP)
		return same_map(a, b);
	for (uint32_t i = 0; i < a->n && r == 1; i++)
		r = same_tree(a->items[i], b->items[i]);
	return r;
}

static int compare_comments(const void *a, const void *b)
{
	const struct comment *x = a, *y = b;
	int order = memcmp(x->text, y->text, x->len < y->len ? x->len : y->len);

	return order ? order : (x->len > y->len) - (x->len < y->len);
}

/* Are there the same comments, wherever they stand? Sorts both. */
static bool same_comments(struct comment *a, size_t n_a, struct comment *b, size_t n_b)
{
	if (n_a != n_b)
		return false;
	qsort(a, n_a, sizeof(*a), compare_comments);
	qsort(b, n_b, sizeof(*b), compare_comments);
	for (size_t i = 0; i < n_a; i++)
		if (compare_comments(&a[i], &b[i]) != 0)
			return false;
	return true;
}

/* Returns 1, 0, or -ENOMEM. */
static int same_file(const struct node *root, struct commented_file *file, const struct policy_source *out)
{
	_cleanup_(policy_diagnostics_freep) struct policy_diagnostics *diagnostics = diagnostics_new(out, 1);
	_cleanup_(arena_free) struct arena arena = {};
	uint32_t budget = YAML_TREE_MAX_NODES;
	struct comment *comments;
	struct node *again;
	size_t n;
	int r;

	if (!diagnostics)
		return -ENOMEM;
	yaml_tree_read(&again, &arena, out, 0, &budget, diagnostics);
	if (arena.out_of_memory || diagnostics_finish(diagnostics) < 0)
		return -ENOMEM;
	r = again ? same_tree(root, again) : 0;
	if (r == 1)
		r = yaml_comments_find(&comments, &n, &arena, out) < 0
			    ? -ENOMEM
			    : same_comments(file->comments, file->n_comments, comments, n);
	return r;
}

/* ---- can it be formatted? ---- */

/* Keys that are lists or maps have no place in a policy, nor in its form. */
static void check_keys(const struct node *node, struct policy_diagnostics *diagnostics)
{
	if (node->kind == NODE_SCALAR)
		return;
	for (uint32_t i = 0; i < node->n; i++) {
		const struct node *item = node->items[i];

		if (node->kind == NODE_MAP && i % 2 == 0 && item->kind != NODE_SCALAR)
			diagnostics_error(diagnostics, item->at, "a key must be a string");
		else
			check_keys(item, diagnostics);
	}
}

static const struct node *read_tree(struct arena *arena, const struct policy_source *source,
				    struct policy_diagnostics *diagnostics)
{
	uint32_t budget = YAML_TREE_MAX_NODES;
	struct node *root;

	yaml_tree_read(&root, arena, source, 0, &budget, diagnostics);
	if (!root) {
		if (!policy_diagnostics_count(diagnostics, POLICY_ERROR))
			diagnostics_error(diagnostics, AT_FILE,
					  "the file is empty: `bulkhead: 1`, the language version, is required");
		return NULL;
	}
	if (root->kind != NODE_MAP)
		diagnostics_error(diagnostics, root->at, "a policy file must be a map, not %s",
				  root->kind == NODE_LIST ? "a list" : "a string");
	else if (!root->n)
		diagnostics_error(diagnostics, root->at,
				  "the file is empty: `bulkhead: 1`, the language version, is required");
	else
		check_keys(root, diagnostics);
	return policy_diagnostics_count(diagnostics, POLICY_ERROR) ? NULL : root;
}

/* One pass. Returns 0, 1 (not the same any more), or -ENOMEM. */
static int write_form(char **textp, size_t *lenp, const struct node *root, const struct policy_source *source)
{
	_cleanup_(arena_free) struct arena arena = {};
	_cleanup_(freep) char *text = NULL;
	struct policy_source out = {.name = source->name};
	struct commented_file file;
	int r = commented_yaml_read(&file, &arena, source);

	if (r == 0)
		r = canonical_write(&text, &out.len, &arena, &file);
	if (r < 0)
		return r;
	out.text = text;
	r = same_file(root, &file, &out);
	if (r < 0)
		return r;
	*textp = text;
	*lenp = out.len;
	text = NULL;
	return r ? 0 : 1;
}

/* Where a comment moves out of a list, the list may fit a line thereafter; so the form is what does not change any more. */
#define MAX_PASSES 20

static int settle(char **textp, size_t *lenp, const struct node *root, const struct policy_source *source)
{
	struct policy_source last = *source;
	int r = 1;

	*textp = NULL;
	if (last.len >= 3 && memcmp(last.text, "\xef\xbb\xbf", 3) == 0) {
		last.text += 3; /* a byte order mark, which libyaml would count as a column */
		last.len -= 3;
	}
	for (unsigned pass = 0; pass < MAX_PASSES; pass++) {
		_cleanup_(freep) char *before = *textp;

		*textp = NULL;
		r = write_form(textp, lenp, root, &last);
		if (r != 0 || (last.len == *lenp && memcmp(last.text, *textp, *lenp) == 0))
			return r;
		last.text = *textp;
		last.len = *lenp;
	}
	return 1;
}

static int format(char **textp, size_t *lenp, const struct policy_source *source,
		  struct policy_diagnostics *diagnostics)
{
	_cleanup_(arena_free) struct arena arena = {};
	const struct node *root = read_tree(&arena, source, diagnostics);
	int r;

	if (!root)
		return arena.out_of_memory ? -ENOMEM : 1;
	r = settle(textp, lenp, root, source);
	if (r == 0)
		return 0;
	free(*textp);
	*textp = NULL;
	if (r == 1) {
		diagnostics_error(
			diagnostics, AT_FILE,
			"cannot be written in canonical form without a change of its meaning or its comments");
		diagnostics_hint(diagnostics, "a key of more than 1000 bytes is what can cause this");
	}
	return r;
}

int policy_canonical(char **textp, size_t *lenp, struct policy_diagnostics **diagnosticsp,
		     const struct policy_source *source)
{
	_cleanup_(policy_diagnostics_freep) struct policy_diagnostics *diagnostics = diagnostics_new(source, 1);
	int r;

	*textp = NULL;
	*lenp = 0;
	*diagnosticsp = NULL;
	if (!diagnostics)
		return -ENOMEM;
	r = format(textp, lenp, source, diagnostics);
	if (r < 0 || diagnostics_finish(diagnostics) < 0) {
		free(*textp);
		*textp = NULL;
		return -ENOMEM;
	}
	*diagnosticsp = diagnostics;
	diagnostics = NULL;
	return r;
}
