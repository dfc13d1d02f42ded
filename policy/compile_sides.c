/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compile_sides.c - classes of sources and of destinations: peers for which the same selectors match, by view.
 *
 * A selector is a list of terms. Its terms that ask only who are one selector of the view WHO or BROAD, those that ask for
 * an address, alone or with who, one of the view ADDR. In the last, the terms that a peer's who satisfies and those that
 * its address satisfies are found apart, equal ones are made one, and only where both meet is looked further.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/compiler.h"

#define ANYBODY 0xffffffffU /* in place of atoms */

/* ---- selectors ---- */

static int push_all(struct list *list, const uint32_t *items, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (list_push(list, items[i]) < 0)
			return -ENOMEM;
	return 0;
}

static int push_range(struct list *list, uint32_t first, uint32_t end)
{
	for (uint32_t i = first; i < end; i++)
		if (list_push(list, i) < 0)
			return -ENOMEM;
	return 0;
}

static int expand_atom(const struct compiler *c, const struct side *side, uint32_t atom, struct list *whos)
{
	const struct list *members;

	if (atom == ANYBODY)
		return push_range(whos, 0, side->n_who);
	if (atom == WHO_VERIFIED)
		return push_range(whos, c->first_spiffe, c->n_who);
	if (atom < WHO_IDENTITY)
		return list_push(whos, atom);
	members = &c->whos_of_identity[atom - WHO_IDENTITY];
	return push_all(whos, members->items, members->n);
}

static int expand_atoms(struct compiler *c, const struct side *side, const uint32_t *atoms, size_t n, struct list *whos)
{
	size_t all;

	for (size_t i = 0; i < n; i++)
		if (expand_atom(c, side, atoms[i], whos) < 0)
			return -ENOMEM;
	/* Identities overlap: what is sorted is more than what is left. */
	all = whos->n;
	list_sort_unique(whos);
	return compiler_spend(c, 8 * all + 8);
}

static int view_add(struct view *view, uint32_t *numberp)
{
	if (array_grow(&view->members, &view->capacity, view->n_selectors, sizeof(*view->members)) < 0)
		return -ENOMEM;
	view->members[view->n_selectors] = (struct list){};
	*numberp = (uint32_t)view->n_selectors++;
	return 0;
}

/* Does a selector of so many fit many? */
static bool is_broad(const struct compiler *c, size_t n)
{
	return c->split && n > 16 && (uint64_t)n * n > c->n_who;
}

static int who_selector(struct compiler *c, struct side *side, uint32_t code)
{
	struct list whos = {};
	size_t n;
	const uint32_t *atoms = intern_get(&side->who_codes, code, &n);
	uint32_t view, number;
	int r = expand_atoms(c, side, atoms, n, &whos);

	view = is_broad(c, whos.n) ? BH_VIEW_BROAD : BH_VIEW_WHO;
	if (r == 0 && (view_add(&side->view[view], &number) < 0 || list_push(&side->view_of_code, view) < 0 ||
		       list_push(&side->selector_of_code, number) < 0))
		r = -ENOMEM;
	if (r == 0)
		side->view[view].members[number] = whos;
	else
		list_free(&whos);
	return r;
}

static int select_who(struct compiler *c, struct side *side, const struct selector *selector,
		      uint32_t numbers[BH_VIEWS])
{
	struct list *code = &side->scratch;
	bool anybody = false;
	uint32_t number;
	int r;

	code->n = 0;
	for (uint32_t i = 0; i < selector->n_terms; i++) {
		const struct selector_term *term = &selector->terms[i];

		if (term->n_networks)
			continue;
		anybody |= !term->n_who;
		if (push_all(code, term->who, term->n_who) < 0)
			return -ENOMEM;
	}
	if (anybody) {
		code->n = 0;
		if (list_push(code, ANYBODY) < 0)
			return -ENOMEM;
	}
	if (!code->n)
		return 0;
	list_sort_unique(code);
	r = intern_list(&side->who_codes, code, &number);
	if (r == 1)
		r = who_selector(c, side, number);
	if (r == 0)
		numbers[side->view_of_code.items[number]] = side->selector_of_code.items[number];
	return r;
}

static int add_term(struct compiler *c, struct side *side, uint32_t selector, const struct selector_term *term)
{
	struct list whos = {};
	uint32_t number = (uint32_t)side->n_terms;
	int r = 0;

	if (array_grow(&side->terms, &side->terms_capacity, side->n_terms, sizeof(*side->terms)) < 0)
		return -ENOMEM;
	side->terms[side->n_terms++] = (struct address_term){selector, !term->n_who};
	for (uint32_t i = 0; i < term->n_networks; i++)
		if (list_push(&side->terms_of_network[term->networks[i]], number) < 0)
			return -ENOMEM;
	r = expand_atoms(c, side, term->who, term->n_who, &whos);
	for (size_t i = 0; i < whos.n && r == 0; i++)
		r = list_push(&side->terms_of_who[whos.items[i]], number);
	list_free(&whos);
	return r;
}

static int select_address(struct compiler *c, struct side *side, const struct selector *selector,
			  uint32_t numbers[BH_VIEWS])
{
	struct list *code = &side->scratch;
	uint32_t number;
	int r;

	code->n = 0;
	for (uint32_t i = 0; i < selector->n_terms; i++) {
		const struct selector_term *term = &selector->terms[i];

		if (term->n_networks && (list_push(code, term->n_who) < 0 || list_push(code, term->n_networks) < 0 ||
					 push_all(code, term->who, term->n_who) < 0 ||
					 push_all(code, term->networks, term->n_networks) < 0))
			return -ENOMEM;
	}
	if (!code->n)
		return 0;
	/* Codes count up as selectors do. */
	r = intern_list(&side->address_codes, code, &number);
	if (r < 0)
		return r;
	numbers[BH_VIEW_ADDR] = number;
	if (r == 0)
		return 0;
	side->view[BH_VIEW_ADDR].n_selectors = number + 1;
	for (uint32_t i = 0; i < selector->n_terms; i++)
		if (selector->terms[i].n_networks) {
			r = add_term(c, side, number, &selector->terms[i]);
			if (r)
				return r;
		}
	return 0;
}

int side_select(struct compiler *c, struct side *side, const struct selector *selector, uint32_t numbers[BH_VIEWS])
{
	int r;

	for (uint32_t view = 0; view < BH_VIEWS; view++)
		numbers[view] = NO_PART;
	if (!side->terms_of_network) {
		side->terms_of_network = arena_array(&c->arena, c->policy->n_networks, sizeof(struct list));
		side->terms_of_who = arena_array(&c->arena, side->n_who, sizeof(struct list));
		if (!side->terms_of_network || !side->terms_of_who)
			return -ENOMEM;
	}
	r = select_who(c, side, selector, numbers);
	return r == 0 ? select_address(c, side, selector, numbers) : r;
}

/* ---- classes by who ---- */

static int add_class(struct compiler *c, struct view *view, struct list *set, uint32_t *classp)
{
	list_sort_unique(set);
	if (intern_list(&view->classes, set, classp) < 0)
		return -ENOMEM;
	if (view->classes.bytes > COMPILER_MAX_SET_BYTES)
		return compiler_spend(c, COMPILER_MAX_WORK);
	return compiler_spend(c, set->n + 4);
}

/* Class 0 is "no selector matches". */
static int add_empty_class(struct compiler *c, struct view *view)
{
	struct list none = {};
	uint32_t class;

	return add_class(c, view, &none, &class);
}

static void lists_drop(struct list **listsp)
{
	free(*listsp);
}

static int who_classes(struct compiler *c, struct side *side, struct view *view)
{
	_cleanup_(lists_drop) struct list *sets = calloc(side->n_who, sizeof(*sets));
	int r = add_empty_class(c, view);

	view->class_of = arena_array(&c->arena, side->n_who, sizeof(uint32_t));
	if (!sets || !view->class_of)
		return -ENOMEM;
	for (uint32_t i = 0; i < view->n_selectors && r == 0; i++) {
		for (size_t j = 0; j < view->members[i].n && r == 0; j++)
			r = list_push(&sets[view->members[i].items[j]], i);
		if (r == 0)
			r = compiler_spend(c, 4 * view->members[i].n);
	}
	for (uint32_t who = 0; who < side->n_who; who++) {
		if (r == 0)
			r = add_class(c, view, &sets[who], &view->class_of[who]);
		list_free(&sets[who]);
	}
	view->n = view->classes.n;
	return r;
}

/* ---- classes by address ---- */

/* The terms that each set of networks satisfies. */
static int address_keys(struct compiler *c, struct side *side)
{
	struct list *terms = &side->scratch;
	int r = 0;

	side->key_of_set = arena_array(&c->arena, c->address_sets.n, sizeof(uint32_t));
	if (!side->key_of_set)
		return -ENOMEM;
	for (uint32_t i = 0; i < c->address_sets.n && r == 0; i++) {
		size_t n, all;
		const uint32_t *networks = intern_get(&c->address_sets, i, &n);

		terms->n = 0;
		for (size_t j = 0; j < n && side->terms_of_network; j++) {
			const struct list *more = &side->terms_of_network[networks[j]];

			if (push_all(terms, more->items, more->n) < 0)
				return -ENOMEM;
		}
		all = terms->n;
		list_sort_unique(terms);
		if (intern_list(&side->address_keys, terms, &side->key_of_set[i]) < 0)
			return -ENOMEM;
		r = compiler_spend(c, n + 8 * all + 4);
		if (r == 0 && side->address_keys.bytes > COMPILER_MAX_SET_BYTES)
			r = compiler_spend(c, COMPILER_MAX_WORK);
	}
	return r;
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

static void intern_drop(struct intern *intern)
{
	intern_free(intern);
}

/* Sets of networks that satisfy the same terms everywhere are one address class. */
static int merge_addresses(struct compiler *c)
{
	_cleanup_(intern_drop) struct intern alike = {};
	uint32_t *class = arena_array(&c->arena, c->address_sets.n, sizeof(*class)), keys[BH_SIDES];

	for (uint32_t s = 0; s < BH_SIDES; s++) {
		c->sides[s].key_of_addr = arena_array(&c->arena, c->address_sets.n, sizeof(uint32_t));
		if (!c->sides[s].key_of_addr || !class)
			return -ENOMEM;
	}
	for (uint32_t i = 0; i < c->address_sets.n; i++) {
		for (uint32_t s = 0; s < BH_SIDES; s++)
			keys[s] = c->sides[s].key_of_set[i];
		if (intern_bytes(&alike, keys, sizeof(keys), &class[i]) < 0)
			return -ENOMEM;
		for (uint32_t s = 0; s < BH_SIDES; s++)
			c->sides[s].key_of_addr[class[i]] = keys[s];
	}
	c->n_addr = alike.n;
	renumber(&c->addr4, class);
	renumber(&c->addr6, class);
	return 0;
}

/* The pairs of who and network that each who satisfies the first half of. */
static int who_keys(struct compiler *c, struct side *side)
{
	struct list none = {};
	uint32_t key;

	side->who_key = arena_array(&c->arena, side->n_who, sizeof(uint32_t));
	if (!side->who_key || intern_list(&side->who_keys, &none, &key) < 0)
		return -ENOMEM;
	for (uint32_t who = 0; who < side->n_who && side->terms_of_who; who++) {
		/* Terms were added in order. */
		if (intern_list(&side->who_keys, &side->terms_of_who[who], &side->who_key[who]) < 0)
			return -ENOMEM;
		list_free(&side->terms_of_who[who]);
		if (side->who_keys.bytes > COMPILER_MAX_SET_BYTES)
			return compiler_spend(c, COMPILER_MAX_WORK);
	}
	return 0;
}

/* The class of an address and a who that satisfies `n_who` pairs' first half. */
static int address_class(struct compiler *c, struct side *side, uint32_t addr, const uint32_t *who, size_t n_who,
			 uint32_t *classp)
{
	struct list *set = &side->scratch;
	size_t n, j = 0;
	const uint32_t *terms = intern_get(&side->address_keys, side->key_of_addr[addr], &n);

	set->n = 0;
	for (size_t i = 0; i < n; i++) {
		while (j < n_who && who[j] < terms[i])
			j++;
		if ((side->terms[terms[i]].whoever || (j < n_who && who[j] == terms[i])) &&
		    list_push(set, side->terms[terms[i]].selector) < 0)
			return -ENOMEM;
	}
	if (compiler_spend(c, n + n_who))
		return 1;
	return add_class(c, &side->view[BH_VIEW_ADDR], set, classp);
}

/* Which addresses each pair's second half fits. */
static int addresses_of_terms(struct compiler *c, struct side *side, struct list *addresses)
{
	for (uint32_t addr = 0; addr < c->n_addr; addr++) {
		size_t n;
		const uint32_t *terms = intern_get(&side->address_keys, side->key_of_addr[addr], &n);

		for (size_t i = 0; i < n; i++)
			if (!side->terms[terms[i]].whoever && list_push(&addresses[terms[i]], addr) < 0)
				return -ENOMEM;
	}
	return 0;
}

/* One line of classes for each who key: that of nobody, changed where a pair fits. */
static int address_line(struct compiler *c, struct side *side, uint32_t key, const struct list *addresses,
			uint32_t *line)
{
	struct list touched = {};
	size_t n;
	const uint32_t *terms = intern_get(&side->who_keys, key, &n);
	int r = 0;

	memcpy(line, side->view[BH_VIEW_ADDR].class_of, c->n_addr * sizeof(*line));
	for (size_t i = 0; i < n && r == 0; i++)
		r = push_all(&touched, addresses[terms[i]].items, addresses[terms[i]].n);
	if (r == 0)
		list_sort_unique(&touched);
	for (size_t i = 0; i < touched.n && r == 0; i++)
		r = address_class(c, side, touched.items[i], terms, n, &line[touched.items[i]]);
	list_free(&touched);
	return r;
}

static int address_classes(struct compiler *c, struct side *side)
{
	struct view *view = &side->view[BH_VIEW_ADDR];
	uint64_t items = (uint64_t)side->who_keys.n * c->n_addr;
	struct list *addresses = calloc(side->n_terms + 1, sizeof(*addresses));
	int r = add_empty_class(c, view);

	if (items > COMPILER_MAX_ITEMS && r == 0)
		r = compiler_too_large(c,
				       "the selectors of identity and network together tell %u identities and %u "
				       "networks apart: %lu pairs, the limit is %u",
				       side->who_keys.n, c->n_addr, (unsigned long)items, COMPILER_MAX_ITEMS);
	view->class_of = r == 0 ? arena_array(&c->arena, items, sizeof(uint32_t)) : NULL;
	if (r == 0 && (!addresses || !view->class_of || addresses_of_terms(c, side, addresses) < 0))
		r = -ENOMEM;
	for (uint32_t addr = 0; addr < c->n_addr && r == 0; addr++)
		r = address_class(c, side, addr, NULL, 0, &view->class_of[addr]);
	for (uint32_t key = 1; key < side->who_keys.n && r == 0; key++)
		r = address_line(c, side, key, addresses, view->class_of + (size_t)key * c->n_addr);
	for (size_t i = 0; addresses && i < side->n_terms; i++)
		list_free(&addresses[i]);
	free(addresses);
	view->n = view->classes.n;
	return r;
}

/* ---- all ---- */

static int invert_classes(struct compiler *c, struct view *view)
{
	view->classes_of_selector = arena_array(&c->arena, view->n_selectors, sizeof(struct list));
	if (!view->classes_of_selector)
		return -ENOMEM;
	for (uint32_t i = 0; i < view->classes.n; i++) {
		size_t n;
		const uint32_t *selectors = intern_get(&view->classes, i, &n);

		for (size_t j = 0; j < n; j++)
			if (list_push(&view->classes_of_selector[selectors[j]], i) < 0)
				return -ENOMEM;
	}
	return 0;
}

static int compile_side(struct compiler *c, struct side *side)
{
	int r = who_classes(c, side, &side->view[BH_VIEW_BROAD]);

	if (r == 0)
		r = who_classes(c, side, &side->view[BH_VIEW_WHO]);
	if (r == 0)
		r = who_keys(c, side);
	if (r == 0)
		r = address_classes(c, side);
	for (uint32_t view = 0; view < BH_VIEWS && r == 0; view++)
		r = invert_classes(c, &side->view[view]);
	return r;
}

int compile_sides(struct compiler *c)
{
	int r = 0;

	for (uint32_t s = 0; s < BH_SIDES && r == 0; s++)
		r = address_keys(c, &c->sides[s]);
	if (r == 0)
		r = merge_addresses(c);
	for (uint32_t s = 0; s < BH_SIDES && r == 0; s++)
		r = compile_side(c, &c->sides[s]);
	return r;
}
