/* SPDX-License-Identifier: Apache-2.0 */
/*
 * import_selector.c - label selectors, and the workloads of a cluster that they select.
 */
#include <string.h>

#include "policy/import_map.h"

enum label_operator {
	LABEL_IN,
	LABEL_NOT_IN,
	LABEL_EXISTS,
	LABEL_ABSENT,
};

struct requirement {
	const char *key;
	enum label_operator op;
	const char **values;
	uint32_t n_values;
};

struct label_selector {
	struct requirement *items; /* all of them must hold; none: everything matches */
	uint32_t n;
};

/* ---- reading ---- */

static bool read_values(struct reader *reader, const struct node *expression, const struct node *node,
			struct requirement *requirement)
{
	bool wanted = requirement->op == LABEL_IN || requirement->op == LABEL_NOT_IN;
	struct items items = {};

	if (node && !import_list(reader, node, "`values`", &items))
		return false;
	if (wanted != (items.n > 0)) {
		reader_error(reader, node ? node : expression,
			     wanted ? "In and NotIn need `values`" : "Exists and DoesNotExist have no `values`");
		return false;
	}
	requirement->values = arena_array(&reader->arena, items.n, sizeof(*requirement->values));
	for (uint32_t i = 0; i < items.n && requirement->values; i++) {
		if (items.items[i]->kind != NODE_SCALAR || import_is_null(items.items[i])) {
			reader_error(reader, items.items[i], "a value of a label must be a string");
			return false;
		}
		requirement->values[requirement->n_values++] = items.items[i]->text;
	}
	return requirement->values;
}

static bool read_expression(struct reader *reader, const struct node *node, struct requirement *requirement)
{
	static const char *const operators[] = {"In", "NotIn", "Exists", "DoesNotExist"};
	const struct node *key = NULL, *op = NULL, *values = NULL;
	const struct key keys[] = {{"key", &key}, {"operator", &op}, {"values", &values}};
	int word;

	if (!import_fields(reader, node, "an item of `matchExpressions`", keys, 3))
		return false;
	if (!key || !op) {
		reader_error(reader, node, "an item of `matchExpressions` needs `key` and `operator`");
		return false;
	}
	requirement->key = read_text(reader, key, "`key`");
	word = read_word(reader, op, "`operator`", operators, 4);
	if (!requirement->key || word < 0)
		return false;
	requirement->op = (enum label_operator)word;
	return read_values(reader, node, values, requirement);
}

static bool read_match_labels(struct reader *reader, const struct node *node, struct label_selector *selector)
{
	bool ok = true;

	for (uint32_t i = 0; i < node->n; i += 2) {
		const struct node *key = node->items[i], *value = node->items[i + 1];
		struct requirement *requirement = &selector->items[selector->n++];

		if (key->kind != NODE_SCALAR || value->kind != NODE_SCALAR || import_is_null(value)) {
			reader_error(reader, key, "`matchLabels` must be a map of strings");
			ok = false;
			continue;
		}
		*requirement = (struct requirement){.key = key->text, .op = LABEL_IN, .n_values = 1};
		requirement->values = arena_array(&reader->arena, 1, sizeof(*requirement->values));
		if (requirement->values)
			requirement->values[0] = value->text;
		for (uint32_t j = 0; j < i; j += 2)
			if (node->items[j]->kind == NODE_SCALAR && strcmp(node->items[j]->text, key->text) == 0) {
				reader_error(reader, key, "duplicate key '%s' in `matchLabels`", key->text);
				return false;
			}
	}
	return ok;
}

/* Kubernetes has no limit but the size of an object; this one keeps the search for duplicates cheap. */
#define MAX_REQUIREMENTS 100U

const struct label_selector *label_selector_read(struct reader *reader, const struct node *node)
{
	const struct node *labels = NULL, *expressions = NULL;
	const struct key keys[] = {{"matchLabels", &labels}, {"matchExpressions", &expressions}};
	struct label_selector *selector = arena_alloc(&reader->arena, sizeof(*selector));
	struct items items = {};
	bool ok = true;

	if (!selector || !import_fields(reader, node, "a label selector", keys, 2))
		return NULL;
	if (labels && labels->kind != NODE_MAP) {
		reader_error(reader, labels, "`matchLabels` must be a map of strings");
		return NULL;
	}
	if (expressions && !import_list(reader, expressions, "`matchExpressions`", &items))
		return NULL;
	if ((labels && labels->n > 2 * MAX_REQUIREMENTS) || items.n > MAX_REQUIREMENTS) {
		reader_error(reader, node, "a selector with more than %u requirements", MAX_REQUIREMENTS);
		return NULL;
	}
	selector->items =
		arena_array(&reader->arena, (labels ? labels->n / 2 : 0) + (size_t)items.n, sizeof(*selector->items));
	if (!selector->items)
		return NULL;
	if (labels)
		ok = read_match_labels(reader, labels, selector);
	for (uint32_t i = 0; i < items.n; i++)
		ok &= read_expression(reader, items.items[i], &selector->items[selector->n++]);
	return ok ? selector : NULL;
}

/* ---- matching ---- */

static const char *find_label(const struct labels *labels, const char *key)
{
	uint32_t low = 0, high = labels->n;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		int order = strcmp(labels->items[middle].key, key);

		if (order == 0)
			return labels->items[middle].value;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/* As labels.Requirement in Kubernetes: NotIn holds also where there is no such label. */
static bool requirement_holds(const struct requirement *requirement, const struct labels *labels, uint64_t *work)
{
	const char *value = find_label(labels, requirement->key);
	bool listed = false;

	*work += 1 + requirement->n_values;
	for (uint32_t i = 0; value && !listed && i < requirement->n_values; i++)
		listed = strcmp(value, requirement->values[i]) == 0;
	switch (requirement->op) {
	case LABEL_IN:
		return listed;
	case LABEL_NOT_IN:
		return !listed;
	case LABEL_EXISTS:
		return value;
	case LABEL_ABSENT:
		return !value;
	}
	return false;
}

static bool selector_matches(const struct label_selector *selector, const struct labels *labels, uint64_t *work)
{
	*work += 1;
	for (uint32_t i = 0; selector && i < selector->n; i++)
		if (!requirement_holds(&selector->items[i], labels, work))
			return false;
	return true;
}

struct selection cluster_select(struct cluster *cluster, struct reader *reader, const struct node *node,
				uint32_t namespace, const struct label_selector *namespaces,
				const struct label_selector *pods)
{
	_cleanup_(list_free) struct list found = {};
	bool *in = cluster->selected;
	struct selection selection = {};

	if (cluster->work > IMPORT_MAX_WORK || !in)
		return selection;
	for (uint32_t i = 0; i < cluster->n_namespaces && namespace == EVERY_NAMESPACE; i++)
		in[i] = selector_matches(namespaces, &cluster->namespaces[i].labels, &cluster->work);
	for (uint32_t i = 0; i < cluster->n_workloads && cluster->work <= IMPORT_MAX_WORK; i++)
		if ((namespace == EVERY_NAMESPACE ? in[cluster->workloads[i].namespace]
						  : cluster->workloads[i].namespace == namespace) &&
		    selector_matches(pods, &cluster->workloads[i].labels, &cluster->work) && list_push(&found, i) < 0)
			reader->arena.out_of_memory = true;
	if (cluster->work > IMPORT_MAX_WORK)
		reader_error(reader, node, "the import is too large: too many selectors for so many workloads");
	selection.items = arena_copy(&reader->arena, found.items, found.n * sizeof(*found.items));
	selection.n = selection.items ? (uint32_t)found.n : 0;
	return selection;
}
