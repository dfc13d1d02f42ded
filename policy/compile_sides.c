/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compile_sides.c - classes of sources and of destinations: peers for which the same selectors match.
 *
 * A selector is a list of terms, each asking for identities, for networks, or for both. So the terms that a peer's
 * identity satisfies and those that its address satisfies are found apart, equal ones are made one, and only the
 * distinct pairs are looked at.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/compiler.h"

struct term {
	uint32_t selector;
	bool whoever, wherever; /* asks nothing of the identity, of the address */
};

struct side_builder {
	struct compiler *compiler;
	struct side *side;
	bool to;
	struct intern selectors;
	struct term *terms;
	size_t n_terms, terms_capacity;
	struct list *terms_of_atom; /* enum who_atom */
	struct list *terms_of_network;
	size_t n_atoms;
	struct list always;		     /* selectors that match every peer */
	struct intern who_terms, addr_terms; /* sets of terms */
	uint32_t *who_key, *addr_key;
	struct list scratch;
};

static void builder_free(struct side_builder *b)
{
	for (size_t i = 0; b->terms_of_atom && i < b->n_atoms; i++)
		list_free(&b->terms_of_atom[i]);
	for (size_t i = 0; b->terms_of_network && i < b->compiler->policy->n_networks; i++)
		list_free(&b->terms_of_network[i]);
	intern_free(&b->selectors);
	intern_free(&b->who_terms);
	intern_free(&b->addr_terms);
	list_free(&b->always);
	list_free(&b->scratch);
	free(b->terms);
}

/* Equal selectors have equal numbers. */
static int selector_number(struct side_builder *b, const struct selector *selector, uint32_t *numberp)
{
	struct list *code = &b->scratch;

	code->n = 0;
	for (uint32_t i = 0; i < selector->n_terms; i++) {
		const struct selector_term *term = &selector->terms[i];

		if (list_push(code, term->n_who) < 0 || list_push(code, term->n_networks) < 0)
			return -ENOMEM;
		for (uint32_t j = 0; j < term->n_who; j++)
			if (list_push(code, term->who[j]) < 0)
				return -ENOMEM;
		for (uint32_t j = 0; j < term->n_networks; j++)
			if (list_push(code, term->networks[j]) < 0)
				return -ENOMEM;
	}
	return intern_list(&b->selectors, code, numberp);
}

static int add_terms(struct side_builder *b, const struct selector *selector, uint32_t number)
{
	for (uint32_t i = 0; i < selector->n_terms; i++) {
		const struct selector_term *term = &selector->terms[i];

		if (!term->n_who && !term->n_networks && list_push(&b->always, number) < 0)
			return -ENOMEM;
		if (array_grow(&b->terms, &b->terms_capacity, b->n_terms, sizeof(*b->terms)) < 0)
			return -ENOMEM;
		b->terms[b->n_terms] = (struct term){number, !term->n_who, !term->n_networks};
		for (uint32_t j = 0; j < term->n_who; j++)
			if (list_push(&b->terms_of_atom[term->who[j]], (uint32_t)b->n_terms) < 0)
				return -ENOMEM;
		for (uint32_t j = 0; j < term->n_networks; j++)
			if (list_push(&b->terms_of_network[term->networks[j]], (uint32_t)b->n_terms) < 0)
				return -ENOMEM;
		b->n_terms++;
	}
	return 0;
}

static int number_selectors(struct side_builder *b)
{
	const struct policy *policy = b->compiler->policy;
	struct arena *arena = &b->compiler->arena;
	struct side *side = b->side;

	b->n_atoms = WHO_IDENTITY + policy->n_identities;
	b->terms_of_atom = arena_array(arena, b->n_atoms, sizeof(struct list));
	b->terms_of_network = arena_array(arena, policy->n_networks, sizeof(struct list));
	side->selector_of_rule = arena_array(arena, policy->n_rules, sizeof(uint32_t));
	/* As many lists as there can be selectors. */
	side->rules_of_selector = arena_array(arena, policy->n_rules, sizeof(struct list));
	if (arena->out_of_memory)
		return -ENOMEM;
	for (size_t i = 0; i < policy->n_rules; i++) {
		const struct selector *selector = b->to ? &policy->rules[i].to : &policy->rules[i].from;
		uint32_t number;
		int r = selector_number(b, selector, &number);

		side->n_selectors = b->selectors.n;
		if (r < 0 || (r == 1 && add_terms(b, selector, number) < 0) ||
		    list_push(&side->rules_of_selector[number], (uint32_t)i) < 0)
			return -ENOMEM;
		side->selector_of_rule[i] = number;
	}
	return 0;
}

/* The terms that each of `n` things satisfies, by what it is made of: who by atoms, address classes by networks. */
static int key_of(struct side_builder *b, struct intern *keys, const uint32_t *parts, size_t n,
		  const struct list *terms_of, uint32_t *keyp)
{
	struct list *terms = &b->scratch;

	terms->n = 0;
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < terms_of[parts[i]].n; j++)
			if (list_push(terms, terms_of[parts[i]].items[j]) < 0)
				return -ENOMEM;
	list_sort_unique(terms);
	if (intern_list(keys, terms, keyp) < 0)
		return -ENOMEM;
	return compiler_spend(b->compiler, n + 8 * terms->n);
}

static int make_keys(struct side_builder *b)
{
	struct compiler *c = b->compiler;
	uint32_t n_addr = c->address_sets.n;
	int r = 0;

	b->who_key = arena_array(&c->arena, c->n_who, sizeof(uint32_t));
	b->addr_key = arena_array(&c->arena, n_addr, sizeof(uint32_t));
	if (!b->who_key || !b->addr_key)
		return -ENOMEM;
	for (uint32_t i = 0; i < c->n_who && r == 0; i++)
		r = key_of(b, &b->who_terms, c->who_atoms[i].items, c->who_atoms[i].n, b->terms_of_atom,
			   &b->who_key[i]);
	for (uint32_t i = 0; i < n_addr && r == 0; i++) {
		size_t n;
		const uint32_t *networks = intern_get(&c->address_sets, i, &n);

		r = key_of(b, &b->addr_terms, networks, n, b->terms_of_network, &b->addr_key[i]);
	}
	return r;
}

/* The selectors that match: those with a term that both the identity and the address satisfy. */
static int match_selectors(struct side_builder *b, uint32_t who_key, uint32_t addr_key, uint32_t *classp)
{
	size_t n_who, n_addr, i = 0, j = 0;
	const uint32_t *who = intern_get(&b->who_terms, who_key, &n_who);
	const uint32_t *addr = intern_get(&b->addr_terms, addr_key, &n_addr);
	struct list *set = &b->scratch;
	int r = 0;

	set->n = 0;
	for (size_t k = 0; k < b->always.n && r == 0; k++)
		r = list_push(set, b->always.items[k]);
	while ((i < n_who || j < n_addr) && r == 0) {
		uint32_t term = i < n_who && (j == n_addr || who[i] <= addr[j]) ? who[i] : addr[j];
		bool by_who = i < n_who && who[i] == term, by_addr = j < n_addr && addr[j] == term;

		i += by_who;
		j += by_addr;
		if ((by_who || b->terms[term].whoever) && (by_addr || b->terms[term].wherever))
			r = list_push(set, b->terms[term].selector);
	}
	list_sort_unique(set);
	if (r < 0 || intern_list(&b->side->classes, set, classp) < 0)
		return -ENOMEM;
	if (b->side->classes.bytes > COMPILER_MAX_SET_BYTES)
		return compiler_spend(b->compiler, COMPILER_MAX_WORK);
	return compiler_spend(b->compiler, n_who + n_addr + set->n + 4);
}

static int make_classes(struct side_builder *b)
{
	struct compiler *c = b->compiler;
	uint32_t n_addr = c->address_sets.n, n_keys = b->addr_terms.n, class;
	uint32_t *by_keys = arena_array(&c->arena, (size_t)b->who_terms.n * n_keys, sizeof(uint32_t));
	int r = 0;

	b->side->class_of = arena_array(&c->arena, (size_t)c->n_who * n_addr, sizeof(uint32_t));
	if (!by_keys || !b->side->class_of)
		return -ENOMEM;
	/* Keys count up in the order of peers, so classes do: the same policy has the same numbers. */
	for (uint32_t w = 0; w < b->who_terms.n; w++)
		for (uint32_t a = 0; a < n_keys && r == 0; a++) {
			r = match_selectors(b, w, a, &class);
			by_keys[(size_t)w * n_keys + a] = class;
		}
	for (uint32_t w = 0; w < c->n_who && r == 0; w++)
		for (uint32_t a = 0; a < n_addr; a++)
			b->side->class_of[(size_t)w * n_addr + a] =
				by_keys[(size_t)b->who_key[w] * n_keys + b->addr_key[a]];
	b->side->n = b->side->classes.n;
	return r;
}

static int compile_side(struct compiler *c, struct side *side, bool to)
{
	_cleanup_(builder_free) struct side_builder b = {.compiler = c, .side = side, .to = to};
	int r = number_selectors(&b);

	if (r == 0)
		r = make_keys(&b);
	return r == 0 ? make_classes(&b) : r;
}

int compile_sides(struct compiler *c)
{
	uint64_t peers = (uint64_t)c->n_who * c->address_sets.n;
	int r;

	/* The three tables by peer: source class, destination class, row of possible. */
	if (peers * 8 > BH_TABLES_BYTES)
		return compiler_too_large(c,
					  "%u classes of identities and %u of addresses need %.1f MiB of tables, the "
					  "limit is %u MiB",
					  c->n_who, c->address_sets.n, (double)peers * 8 / (1 << 20),
					  BH_TABLES_BYTES >> 20);
	r = compile_side(c, &c->from, false);
	return r == 0 ? compile_side(c, &c->to, true) : r;
}
