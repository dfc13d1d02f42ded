/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/policy_changes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/yaml_tree.h"

void policy_entries_free(struct policy_entries *entries)
{
	free(entries->items);
	arena_free(&entries->arena);
	*entries = (struct policy_entries){0};
}

/* ---- the text of a node ---- */

static int entry_order_by_key(const void *a, const void *b)
{
	const struct node *x = **(struct node ***)a, *y = **(struct node ***)b;

	return strcmp(x->kind == NODE_SCALAR ? x->text : "", y->kind == NODE_SCALAR ? y->text : "");
}

/* One text for one meaning: maps in the order of their keys, scalars with their length. The depth of a tree is bounded. */
static void node_write(const struct node *node, FILE *out)
{
	struct node ***entries;

	switch (node->kind) {
	case NODE_SCALAR:
		fprintf(out, "%zu:%s", strlen(node->text), node->text);
		break;
	case NODE_LIST:
		fputc('[', out);
		for (uint32_t i = 0; i < node->n; i++)
			node_write(node->items[i], out);
		fputc(']', out);
		break;
	case NODE_MAP:
		entries = calloc(node->n / 2 + 1, sizeof(*entries));
		fputc('{', out);
		for (uint32_t i = 0; entries && i < node->n / 2; i++)
			entries[i] = &node->items[(size_t)2 * i];
		if (entries)
			qsort(entries, node->n / 2, sizeof(*entries), entry_order_by_key);
		for (uint32_t i = 0; entries && i < node->n / 2; i++) {
			node_write(entries[i][0], out);
			node_write(entries[i][1], out);
		}
		fputc('}', out);
		free(entries);
		break;
	}
}

static int entry_add(struct policy_entries *entries, const char *section, const char *name, const struct node *node)
{
	struct policy_entry *entry;
	char *text = NULL;
	size_t len = 0;
	FILE *out;

	if (array_grow(&entries->items, &entries->room, entries->n, sizeof(*entries->items)) < 0)
		return -ENOMEM;
	out = open_memstream(&text, &len);
	if (!out)
		return -ENOMEM;
	node_write(node, out);
	if (fclose(out)) {
		free(text);
		return -ENOMEM;
	}
	entry = &entries->items[entries->n++];
	*entry = (struct policy_entry){
		.section = arena_copy(&entries->arena, section, strlen(section)),
		.name = arena_copy(&entries->arena, name, strlen(name)),
		.text = arena_copy(&entries->arena, text, len),
	};
	free(text);
	return entries->arena.out_of_memory ? -ENOMEM : 0;
}

/* ---- taking a policy apart ---- */

static const char *rule_name(const struct node *rule)
{
	for (uint32_t i = 0; rule->kind == NODE_MAP && i < rule->n; i += 2)
		if (rule->items[i]->kind == NODE_SCALAR && strcmp(rule->items[i]->text, "name") == 0 &&
		    rule->items[i + 1]->kind == NODE_SCALAR)
			return rule->items[i + 1]->text;
	return "?";
}

static int section_read(struct policy_entries *entries, const char *section, const struct node *value)
{
	int r = 0;

	if (strcmp(section, "bulkhead") == 0)
		return 0;
	if (strcmp(section, "rules") == 0 && value->kind == NODE_LIST) {
		for (uint32_t i = 0; r == 0 && i < value->n; i++)
			r = entry_add(entries, section, rule_name(value->items[i]), value->items[i]);
		entries->rules += value->n;
		return r;
	}
	if (strcmp(section, "defaults") == 0 || value->kind != NODE_MAP)
		return entry_add(entries, section, "", value);
	for (uint32_t i = 0; r == 0 && i < value->n; i += 2)
		r = entry_add(entries, section, value->items[i]->kind == NODE_SCALAR ? value->items[i]->text : "?",
			      value->items[i + 1]);
	return r;
}

static int entry_order(const struct policy_entry *a, const struct policy_entry *b)
{
	int order = strcmp(a->section, b->section);

	return order ? order : strcmp(a->name, b->name);
}

static int entry_order_with_text(const void *a, const void *b)
{
	const struct policy_entry *x = a, *y = b;
	int order = entry_order(x, y);

	return order ? order : strcmp(x->text, y->text);
}

int policy_entries_read(struct policy_entries *entries, const struct policy_source *sources, size_t n)
{
	struct policy_diagnostics *diagnostics = diagnostics_new(sources, n);
	uint32_t budget = YAML_TREE_MAX_NODES;
	struct arena arena = {0};
	int r = diagnostics ? 0 : -ENOMEM;

	*entries = (struct policy_entries){0};
	for (uint32_t i = 0; r == 0 && i < n; i++) {
		struct node *root;

		yaml_tree_read(&root, &arena, &sources[i], i, &budget, diagnostics);
		if (!root || root->kind != NODE_MAP)
			r = arena.out_of_memory ? -ENOMEM : 1;
		for (uint32_t k = 0; r == 0 && k < root->n; k += 2)
			r = root->items[k]->kind != NODE_SCALAR
				    ? 1
				    : section_read(entries, root->items[k]->text, root->items[k + 1]);
	}
	arena_free(&arena);
	policy_diagnostics_freep(&diagnostics);
	if (r)
		policy_entries_free(entries);
	else if (entries->n)
		qsort(entries->items, entries->n, sizeof(*entries->items), entry_order_with_text);
	return r;
}

/* ---- comparing ---- */

static void difference_add(json_t *changes, const char *kind, const struct policy_entry *entry)
{
	bool rule = strcmp(entry->section, "rules") == 0;
	json_t *list = json_object_get(json_object_get(changes, rule ? "rules" : "definitions"), kind);

	if (rule)
		json_array_append_new(list, json_string(entry->name));
	else
		json_array_append_new(list,
				      json_sprintf("%s%s%s", entry->section, *entry->name ? "/" : "", entry->name));
}

json_t *policy_changes_json(const struct policy_entries *old, const struct policy_entries *new)
{
	json_t *changes = json_pack("{s:{s:[], s:[], s:[]}, s:{s:[], s:[], s:[]}}", "rules", "added", "removed",
				    "changed", "definitions", "added", "removed", "changed");
	size_t i = 0, k = 0, n_old = old ? old->n : 0;

	while (i < n_old || k < new->n) {
		int order = i == n_old ? 1 : k == new->n ? -1 : entry_order(&old->items[i], &new->items[k]);

		if (order < 0) {
			difference_add(changes, "removed", &old->items[i++]);
		} else if (order > 0) {
			difference_add(changes, "added", &new->items[k++]);
		} else {
			if (strcmp(old->items[i].text, new->items[k].text) != 0)
				difference_add(changes, "changed", &new->items[k]);
			i++;
			k++;
		}
	}
	return changes;
}

char *policy_changes_text(const json_t *changes, size_t max)
{
	static const char *const groups[] = {"rules", "definitions"};
	static const struct {
		const char *name;
		char sign;
	} kinds[] = {{"added", '+'}, {"removed", '-'}, {"changed", '~'}};
	size_t n = 0, len = 0, index;
	const json_t *name;
	char *text = NULL;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return NULL;
	for (size_t g = 0; g < 2; g++)
		for (size_t i = 0; i < 3; i++)
			json_array_foreach(json_object_get(json_object_get(changes, groups[g]), kinds[i].name), index,
					   name) if (n++ < max)
				fprintf(out, "%s%c%s", n > 1 ? " " : "", kinds[i].sign, json_string_value(name));
	if (n > max)
		fprintf(out, " and %zu more", n - max);
	if (!n)
		fputs("no change", out);
	fclose(out);
	return text;
}
