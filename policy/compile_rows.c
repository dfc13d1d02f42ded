/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compile_rows.c - the verdicts: for each pair of a source and a destination class the rules that match, and from them a
 * row of cells by service class. Then classes that behave alike are made one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/compiler.h"

struct row_builder {
	struct compiler *compiler;
	struct list *classes_of_selector; /* destination classes, by `to` selector */
	struct list *matching;		  /* rules in order, by destination class */
	struct list rules;		  /* of one source class */
	struct intern rule_lists;
	struct list row_of_list;
	uint32_t *cells;	/* of one row */
	uint32_t *deny, *allow; /* by service class: number of the first such rule, or 0 */
};

static void builder_free(struct row_builder *b)
{
	for (size_t i = 0; b->classes_of_selector && i < b->compiler->to.n_selectors; i++)
		list_free(&b->classes_of_selector[i]);
	for (size_t i = 0; b->matching && i < b->compiler->to.classes.n; i++)
		list_free(&b->matching[i]);
	list_free(&b->rules);
	intern_free(&b->rule_lists);
	list_free(&b->row_of_list);
}

static uint32_t log_bits(enum rule_log log)
{
	switch (log) {
	case RULE_LOG_NEW:
		return BH_CELL_LOG_ALLOWED | BH_CELL_LOG_DENIED;
	case RULE_LOG_DENIED:
		return BH_CELL_LOG_DENIED;
	case RULE_LOG_ALL:
		return BH_CELL_LOG_ALLOWED | BH_CELL_LOG_DENIED | BH_CELL_LOG_AGAIN;
	case RULE_LOG_NONE:
		break;
	}
	return 0;
}

static uint32_t cell_of(const struct policy *policy, uint32_t number)
{
	bool allow = number ? policy->rules[number - 1].action == RULE_ALLOW : policy->default_allow;
	enum rule_log log = number ? policy->rules[number - 1].log : policy->default_log;

	return number | (allow ? BH_CELL_ALLOW : 0) | log_bits(log);
}

static int make_row(struct row_builder *b, const struct list *rules, uint32_t *rowp)
{
	struct compiler *c = b->compiler;
	uint64_t work = c->n_svc;

	memset(b->deny, 0, c->n_svc * sizeof(*b->deny));
	memset(b->allow, 0, c->n_svc * sizeof(*b->allow));
	for (size_t i = 0; i < rules->n; i++) {
		uint32_t rule = rules->items[i];
		const struct list *classes = &c->classes_of_service[c->service_of_rule[rule]];
		uint32_t *first = c->policy->rules[rule].action == RULE_ALLOW ? b->allow : b->deny;

		for (size_t j = 0; j < classes->n; j++)
			if (!first[classes->items[j]])
				first[classes->items[j]] = rule + 1;
		work += classes->n;
	}
	for (uint32_t i = 0; i < c->n_svc; i++)
		b->cells[i] = cell_of(c->policy, b->deny[i] ? b->deny[i] : b->allow[i]);
	if (intern_bytes(&c->rows, b->cells, c->n_svc * sizeof(*b->cells), rowp) < 0)
		return -ENOMEM;
	if (c->rows.bytes > COMPILER_MAX_SET_BYTES || b->rule_lists.bytes > COMPILER_MAX_SET_BYTES)
		return compiler_spend(c, COMPILER_MAX_WORK);
	return compiler_spend(c, work);
}

/* Sorts the rules of one source class to the destinations they are about. */
static int match_rules(struct row_builder *b, uint32_t from, unsigned direction)
{
	struct compiler *c = b->compiler;
	size_t n;
	const uint32_t *selectors = intern_get(&c->from.classes, from, &n);
	uint64_t work = 0;

	b->rules.n = 0;
	for (size_t i = 0; i < n; i++) {
		const struct list *rules = &c->from.rules_of_selector[selectors[i]];

		for (size_t j = 0; j < rules->n; j++)
			if (c->policy->rules[rules->items[j]].directions & direction &&
			    list_push(&b->rules, rules->items[j]) < 0)
				return -ENOMEM;
	}
	list_sort_unique(&b->rules);
	for (uint32_t i = 0; i < c->to.n; i++)
		b->matching[i].n = 0;
	for (size_t i = 0; i < b->rules.n; i++) {
		const struct list *classes = &b->classes_of_selector[c->to.selector_of_rule[b->rules.items[i]]];

		for (size_t j = 0; j < classes->n; j++)
			if (list_push(&b->matching[classes->items[j]], b->rules.items[i]) < 0)
				return -ENOMEM;
		work += classes->n;
	}
	return compiler_spend(c, 4 * work + 8 * b->rules.n + c->to.n);
}

static int make_rows(struct row_builder *b, unsigned judgement)
{
	struct compiler *c = b->compiler;
	int r = 0;

	for (uint32_t f = 0; f < c->from.n && r == 0; f++) {
		r = match_rules(b, f, judgement == BH_EGRESS ? RULE_EGRESS : RULE_INGRESS);
		for (uint32_t t = 0; t < c->to.n && r == 0; t++) {
			uint32_t list, row;
			int new = intern_list(&b->rule_lists, &b->matching[t], &list);

			if (new < 0)
				return -ENOMEM;
			if (new) {
				r = make_row(b, &b->matching[t], &row);
				if (r)
					return r;
				if (list_push(&b->row_of_list, row) < 0)
					return -ENOMEM;
			}
			c->row_of[judgement][(size_t)f * c->to.n + t] = b->row_of_list.items[list];
		}
	}
	return r;
}

static int invert_destinations(struct row_builder *b)
{
	struct compiler *c = b->compiler;

	for (uint32_t i = 0; i < c->to.n; i++) {
		size_t n;
		const uint32_t *selectors = intern_get(&c->to.classes, i, &n);

		for (size_t j = 0; j < n; j++)
			if (list_push(&b->classes_of_selector[selectors[j]], i) < 0)
				return -ENOMEM;
	}
	return 0;
}

static void interns_free(struct intern *intern)
{
	intern_free(intern);
}

static void scratch_free(struct list *list)
{
	list_free(list);
}

/* Makes source classes one that have the same rows against every destination, in both judgements. */
static int merge_sources(struct compiler *c)
{
	_cleanup_(interns_free) struct intern alike = {};
	_cleanup_(scratch_free) struct list rows = {};
	size_t peers = (size_t)c->n_who * c->address_sets.n;
	uint32_t *class = arena_array(&c->arena, c->from.n, sizeof(*class));

	if (!class)
		return -ENOMEM;
	for (uint32_t f = 0; f < c->from.n; f++) {
		int r;

		rows.n = 0;
		for (uint32_t t = 0; t < 2 * c->to.n; t++)
			if (list_push(&rows, c->row_of[t / c->to.n][(size_t)f * c->to.n + t % c->to.n]) < 0)
				return -ENOMEM;
		r = intern_list(&alike, &rows, &class[f]);
		if (r < 0)
			return r;
		for (uint32_t d = 0; d < 2 && r == 1; d++)
			memmove(c->row_of[d] + (size_t) class[f] * c -> to.n, c->row_of[d] + (size_t)f * c->to.n,
				c->to.n * sizeof(uint32_t));
	}
	for (size_t i = 0; i < peers; i++)
		c->from.class_of[i] = class[c->from.class_of[i]];
	c->from.n = alike.n;
	return 0;
}

/* Likewise destinations. */
static int merge_destinations(struct compiler *c)
{
	_cleanup_(interns_free) struct intern alike = {};
	_cleanup_(scratch_free) struct list rows = {};
	size_t peers = (size_t)c->n_who * c->address_sets.n;
	uint32_t *class = arena_array(&c->arena, c->to.n, sizeof(*class)), old = c->to.n;

	if (!class)
		return -ENOMEM;
	for (uint32_t t = 0; t < old; t++) {
		rows.n = 0;
		for (uint32_t f = 0; f < 2 * c->from.n; f++)
			if (list_push(&rows, c->row_of[f / c->from.n][(size_t)(f % c->from.n) * old + t]) < 0)
				return -ENOMEM;
		if (intern_list(&alike, &rows, &class[t]) < 0)
			return -ENOMEM;
	}
	c->to.n = alike.n;
	for (uint32_t d = 0; d < 2; d++)
		for (uint32_t f = 0; f < c->from.n; f++)
			for (uint32_t t = 0; t < old; t++)
				c->row_of[d][(size_t)f * c->to.n + class[t]] = c->row_of[d][(size_t)f * old + t];
	for (size_t i = 0; i < peers; i++)
		c->to.class_of[i] = class[c->to.class_of[i]];
	return 0;
}

static void renumber(struct range_classes *ranges, const uint32_t *class)
{
	size_t n = 0;

	for (size_t i = 0; i < ranges->n; i++) {
		struct range_class range = {ranges->items[i].first, class[ranges->items[i].class]};

		if (!n || ranges->items[n - 1].class != range.class)
			ranges->items[n++] = range;
	}
	ranges->n = n;
}

/* Makes service classes one that have the same cell in every row. */
static int merge_services(struct compiler *c)
{
	_cleanup_(interns_free) struct intern alike = {}, rows = {};
	_cleanup_(scratch_free) struct list cells = {};
	uint32_t *class = arena_array(&c->arena, c->n_svc, sizeof(*class));
	uint32_t *kept = arena_array(&c->arena, c->n_svc, sizeof(*kept)), row;

	if (!class || !kept)
		return -ENOMEM;
	for (uint32_t s = 0; s < c->n_svc; s++) {
		cells.n = 0;
		for (uint32_t i = 0; i < c->rows.n; i++)
			if (list_push(&cells, intern_get(&c->rows, i, NULL)[s]) < 0)
				return -ENOMEM;
		if (intern_list(&alike, &cells, &class[s]) < 0)
			return -ENOMEM;
		kept[class[s]] = s;
	}
	for (uint32_t i = 0; i < c->rows.n; i++) {
		const uint32_t *old = intern_get(&c->rows, i, NULL);

		cells.n = 0;
		for (uint32_t s = 0; s < alike.n; s++)
			if (list_push(&cells, old[kept[s]]) < 0)
				return -ENOMEM;
		/* Rows that differed still differ, so they keep their numbers. */
		if (intern_list(&rows, &cells, &row) < 0)
			return -ENOMEM;
	}
	c->n_svc = alike.n;
	intern_free(&c->rows);
	c->rows = rows;
	rows = (struct intern){};
	renumber(&c->tcp, class);
	renumber(&c->udp, class);
	renumber(&c->icmp, class);
	renumber(&c->icmp6, class);
	return 0;
}

int compile_rows(struct compiler *c)
{
	_cleanup_(builder_free) struct row_builder b = {.compiler = c};
	size_t pairs = (size_t)c->from.n * c->to.n;
	struct arena *arena = &c->arena;
	int r;

	if (pairs > COMPILER_MAX_PAIRS)
		return compiler_too_large(
			c,
			"the rules tell %u sources and %u destinations apart: %zu pairs, the limit is "
			"%u",
			c->from.n, c->to.n, pairs, COMPILER_MAX_PAIRS);
	b.classes_of_selector = arena_array(arena, c->to.n_selectors, sizeof(struct list));
	b.matching = arena_array(arena, c->to.n, sizeof(struct list));
	b.cells = arena_array(arena, c->n_svc, sizeof(uint32_t));
	b.deny = arena_array(arena, c->n_svc, sizeof(uint32_t));
	b.allow = arena_array(arena, c->n_svc, sizeof(uint32_t));
	c->row_of[0] = arena_array(arena, pairs, sizeof(uint32_t));
	c->row_of[1] = arena_array(arena, pairs, sizeof(uint32_t));
	if (arena->out_of_memory || invert_destinations(&b) < 0)
		return -ENOMEM;
	r = make_rows(&b, BH_EGRESS);
	if (r == 0)
		r = make_rows(&b, BH_INGRESS);
	if (r == 0)
		r = merge_sources(c);
	if (r == 0)
		r = merge_destinations(c);
	return r == 0 ? merge_services(c) : r;
}
