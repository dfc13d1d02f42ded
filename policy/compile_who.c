/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compile_who.c - what a peer can be by proof.
 *
 * The patterns are made one deterministic automaton over the segments of an ID, by subset construction: a state is the
 * set of places in patterns that an ID read so far may stand at. The identities accepted in a reachable state are a set
 * that some ID can really be in, so each such set becomes a class, and no other does.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/compiler.h"

#define MAX_STATES (256U << 10)
#define MAX_EDGES (1U << 20)

/* A place in a pattern: `read` segments of it have been read. */
struct place_in_pattern {
	const struct pattern *pattern;
	uint32_t identity;
	uint32_t read;
	uint32_t segment; /* number of the literal that comes next; ANY_SEGMENT, or NO_SEGMENT at the end */
};

#define ANY_SEGMENT 0xffffffffU
#define NO_SEGMENT 0xfffffffeU

struct edge {
	uint32_t segment;
	uint32_t place; /* index, after it */
};

struct construction {
	struct compiler *compiler;
	struct place_in_pattern *places;
	uint32_t n_places;
	struct list starts;
	struct intern sets; /* of places, by state */
	struct list wild, next, accepted;
	struct edge *literal;
	size_t n_literal, literal_capacity;
};

static void construction_free(struct construction *x)
{
	intern_free(&x->sets);
	list_free(&x->starts);
	list_free(&x->wild);
	list_free(&x->next);
	list_free(&x->accepted);
	free(x->literal);
}

/* Does the policy need to know this identity of SPIFFE IDs? One that no rule names and that binds nothing makes no class. */
static bool matters(const struct identity *identity)
{
	return identity->n_patterns && (identity->used || identity->n_only);
}

static int add_pattern(struct construction *x, const struct pattern *pattern, uint32_t identity)
{
	struct place_in_pattern place = {.pattern = pattern, .identity = identity};

	if (list_push(&x->starts, x->n_places) < 0)
		return -ENOMEM;
	for (; place.read < pattern->n_segments; place.read++) {
		const struct segment *segment = &pattern->segments[place.read];

		place.segment = ANY_SEGMENT;
		if (segment->text &&
		    intern_bytes(&x->compiler->segments, segment->text, segment->len, &place.segment) < 0)
			return -ENOMEM;
		x->places[x->n_places++] = place;
	}
	place.segment = pattern->rest ? ANY_SEGMENT : NO_SEGMENT;
	x->places[x->n_places++] = place;
	if (pattern->rest) {
		place.read++;
		x->places[x->n_places++] = place;
	}
	return 0;
}

static int add_patterns(struct construction *x)
{
	const struct policy *policy = x->compiler->policy;
	size_t n = 0;

	for (size_t i = 0; i < policy->n_identities; i++)
		for (uint32_t j = 0; matters(&policy->identities[i]) && j < policy->identities[i].n_patterns; j++)
			n += policy->identities[i].patterns[j].n_segments + 2;
	if (n > UINT32_MAX / 2)
		return compiler_too_large(x->compiler, "the identities have too many patterns");
	x->places = arena_array(&x->compiler->arena, n, sizeof(*x->places));
	if (!x->places)
		return -ENOMEM;
	for (size_t i = 0; i < policy->n_identities; i++)
		for (uint32_t j = 0; matters(&policy->identities[i]) && j < policy->identities[i].n_patterns; j++)
			if (add_pattern(x, &policy->identities[i].patterns[j], (uint32_t)i) < 0)
				return -ENOMEM;
	return 0;
}

static bool at_end(const struct place_in_pattern *place)
{
	return place->read == place->pattern->n_segments + place->pattern->rest;
}

/* Where each place of a state goes: on any segment, or on one. */
static int gather_successors(struct construction *x, uint32_t state)
{
	size_t n;
	const uint32_t *set = intern_get(&x->sets, state, &n);

	x->wild.n = x->accepted.n = x->n_literal = 0;
	for (size_t i = 0; i < n; i++) {
		const struct place_in_pattern *place = &x->places[set[i]];
		/* Behind the first segment of a `**` the place stays where it is. */
		uint32_t after = place->pattern->rest && at_end(place) ? set[i] : set[i] + 1;

		if (at_end(place) && list_push(&x->accepted, place->identity) < 0)
			return -ENOMEM;
		if (place->segment == NO_SEGMENT)
			continue;
		if (place->segment == ANY_SEGMENT) {
			if (list_push(&x->wild, after) < 0)
				return -ENOMEM;
			continue;
		}
		if (array_grow(&x->literal, &x->literal_capacity, x->n_literal, sizeof(*x->literal)) < 0)
			return -ENOMEM;
		x->literal[x->n_literal++] = (struct edge){place->segment, after};
	}
	list_sort_unique(&x->wild);
	list_sort_unique(&x->accepted);
	return compiler_spend(x->compiler, 4 * n + 1);
}

static int compare_edges(const void *a, const void *b)
{
	const struct edge *x = a, *y = b;

	if (x->segment != y->segment)
		return x->segment < y->segment ? -1 : 1;
	return (x->place > y->place) - (x->place < y->place);
}

static int add_edge(struct construction *x, uint32_t segment)
{
	struct compiler *c = x->compiler;
	uint32_t state;

	list_sort_unique(&x->next);
	if (intern_list(&x->sets, &x->next, &state) < 0 ||
	    array_grow(&c->edges, &c->edges_capacity, c->n_edges, sizeof(*c->edges)) < 0)
		return -ENOMEM;
	c->edges[c->n_edges++] = (struct image_edge){segment, state};
	if (x->sets.n > MAX_STATES || c->n_edges > MAX_EDGES || x->sets.bytes > COMPILER_MAX_SET_BYTES)
		return compiler_too_large(c,
					  "the SPIFFE ID patterns overlap in too many ways: more than %u states or %u "
					  "transitions; use fewer '*'",
					  MAX_STATES, MAX_EDGES);
	return compiler_spend(c, 4 * x->next.n);
}

static int add_edges(struct construction *x)
{
	int r = 0;

	if (x->n_literal)
		qsort(x->literal, x->n_literal, sizeof(*x->literal), compare_edges);
	for (size_t i = 0; i < x->n_literal && r == 0;) {
		uint32_t segment = x->literal[i].segment;

		x->next.n = 0;
		for (size_t j = 0; j < x->wild.n; j++)
			if (list_push(&x->next, x->wild.items[j]) < 0)
				return -ENOMEM;
		for (; i < x->n_literal && x->literal[i].segment == segment; i++)
			if (list_push(&x->next, x->literal[i].place) < 0)
				return -ENOMEM;
		r = add_edge(x, segment);
	}
	return r;
}

static int add_state(struct construction *x, uint32_t number)
{
	struct compiler *c = x->compiler;
	struct image_state state = {.first_edge = (uint32_t)c->n_edges};
	int r = gather_successors(x, number);

	if (r)
		return r;
	if (intern_list(&c->spiffe_classes, &x->accepted, &state.who) < 0 ||
	    intern_list(&x->sets, &x->wild, &state.otherwise) < 0 ||
	    array_grow(&c->states, &c->states_capacity, c->n_states, sizeof(*c->states)) < 0)
		return -ENOMEM;
	r = add_edges(x);
	state.n_edges = (uint32_t)c->n_edges - state.first_edge;
	c->states[c->n_states++] = state;
	return r;
}

static int build_automaton(struct compiler *c)
{
	_cleanup_(construction_free) struct construction x = {.compiler = c};
	struct list none = {};
	uint32_t dead, start, empty;
	int r = add_patterns(&x);

	if (r)
		return r;
	/* The class of IDs in no identity comes first, as does the state that nothing leads out of. */
	if (intern_list(&c->spiffe_classes, &none, &empty) < 0 || intern_list(&x.sets, &none, &dead) < 0 ||
	    intern_list(&x.sets, &x.starts, &start) < 0)
		return -ENOMEM;
	for (uint32_t i = 0; i < x.sets.n && r == 0; i++)
		r = add_state(&x, i);
	/* Without patterns the start is the dead state; it still has its own place. */
	if (r == 0 && start == dead)
		r = add_state(&x, dead);
	return r;
}

/* Numbers every "who": the built-ins, the local identities, the classes of SPIFFE IDs. */
static int number_who(struct compiler *c)
{
	const struct policy *policy = c->policy;
	uint32_t who = WHO_WORLD + 1;

	c->local_who = arena_array(&c->arena, policy->n_identities, sizeof(*c->local_who));
	if (!c->local_who)
		return -ENOMEM;
	for (size_t i = 0; i < policy->n_identities; i++)
		if (policy->identities[i].n_places)
			c->local_who[i] = who++;
	c->first_spiffe = who;
	c->n_who = who + c->spiffe_classes.n;
	return 0;
}

/* ---- the members of each identity ---- */

/* Bits by who, with room for those that an operator names and those that it makes. */
struct members {
	struct compiler *compiler;
	uint64_t *made, *named;
	size_t words;
};

static void set_bits(uint64_t *bits, const uint32_t *items, size_t n)
{
	for (size_t i = 0; i < n; i++)
		bits[items[i] / 64] |= 1ULL << items[i] % 64;
}

static void set_range(uint64_t *bits, uint32_t first, uint32_t end)
{
	for (uint32_t i = first; i < end; i++)
		bits[i / 64] |= 1ULL << i % 64;
}

static void name_operand(struct members *m, uint32_t atom)
{
	struct compiler *c = m->compiler;
	const struct list *list;

	memset(m->named, 0, m->words * sizeof(*m->named));
	if (atom == WHO_VERIFIED) {
		set_range(m->named, c->first_spiffe, c->n_who);
		return;
	}
	list = &c->whos_of_identity[atom - WHO_IDENTITY];
	set_bits(m->named, list->items, list->n);
}

static int combine_operands(struct members *m, const struct identity *identity)
{
	struct compiler *c = m->compiler;
	bool all = identity->op == IDENTITY_ALL, not = identity->op == IDENTITY_NOT;

	memset(m->made, 0, m->words * sizeof(*m->made));
	if (all || not )
		set_range(m->made, WHO_WORLD + 1, c->n_who);
	for (uint32_t i = 0; i < identity->n_operands; i++) {
		name_operand(m, identity->operands[i]);
		for (size_t w = 0; w < m->words; w++) {
			if (not )
				m->made[w] &= ~m->named[w];
			else
				m->made[w] = all ? m->made[w] & m->named[w] : m->made[w] | m->named[w];
		}
	}
	return compiler_spend(c, (identity->n_operands + 1) * (2 * m->words + 8));
}

static int list_members(struct members *m, struct list *list)
{
	for (size_t w = 0; w < m->words; w++)
		for (uint64_t bits = m->made[w]; bits; bits &= bits - 1)
			if (list_push(list, (uint32_t)(w * 64 + (unsigned)__builtin_ctzll(bits))) < 0)
				return -ENOMEM;
	return compiler_spend(m->compiler, list->n);
}

/* What a pattern or a place names; the others are made of these. */
static int list_base_members(struct compiler *c)
{
	const struct policy *policy = c->policy;

	for (uint32_t i = 0; i < policy->n_identities; i++)
		if (c->local_who[i] && list_push(&c->whos_of_identity[i], c->local_who[i]) < 0)
			return -ENOMEM;
	for (uint32_t i = 0; i < c->spiffe_classes.n; i++) {
		size_t n;
		const uint32_t *set = intern_get(&c->spiffe_classes, i, &n);

		for (size_t j = 0; j < n; j++)
			if (list_push(&c->whos_of_identity[set[j]], c->first_spiffe + i) < 0)
				return -ENOMEM;
	}
	return 0;
}

static int list_whos(struct compiler *c)
{
	const struct policy *policy = c->policy;
	struct members m = {.compiler = c, .words = (c->n_who + 63) / 64};
	int r = 0;

	c->whos_of_identity = arena_array(&c->arena, policy->n_identities, sizeof(*c->whos_of_identity));
	m.made = arena_array(&c->arena, m.words, sizeof(*m.made));
	m.named = arena_array(&c->arena, m.words, sizeof(*m.named));
	if (!c->whos_of_identity || !m.made || !m.named || list_base_members(c) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < policy->n_identities && r == 0; i++) {
		size_t number = policy->identity_order ? policy->identity_order[i] : i;
		const struct identity *identity = &policy->identities[number];

		if (identity->op == IDENTITY_BASE || !identity->used)
			continue;
		r = combine_operands(&m, identity);
		if (r == 0)
			r = list_members(&m, &c->whos_of_identity[number]);
	}
	return r;
}

int compile_who(struct compiler *c)
{
	int r = build_automaton(c);

	if (r == 0)
		r = number_who(c);
	return r == 0 ? list_whos(c) : r;
}
