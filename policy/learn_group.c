/* SPDX-License-Identifier: Apache-2.0 */
/*
 * learn_group.c - peers that did the same to the same become one name.
 *
 * A name that the policy `against` has is used only if all recorded peers that it stands for did the same: then a rule
 * with that name allows no recorded peer what he was not seen to do.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/flow_rules.h"
#include "policy/learner.h"

/* ---- who did the same ---- */

/* One flow of a peer, seen from him. */
struct deed {
	uint32_t peer;
	uint32_t role; /* 0: source, 1: destination */
	uint32_t other;
	uint32_t point;
};

static int compare_deeds(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct deed)); /* any order will do, if it is one order, and peers stay together */
}

#define NO_HABIT 0xffffffffU /* of a peer all of whose flows are allowed already */

struct grouping {
	struct learn *learn;
	struct intern habits;	  /* what a peer did, all of it */
	uint32_t *habit;	  /* by peer */
	struct list order;	  /* peers in cells, those of one kind and habit together */
	struct intern blanks;	  /* IDs with one segment left out */
	struct list blank_counts; /* how many recorded IDs are so */
	bool *taken;		  /* by peer, while the atoms of a set are made */
	size_t capacity;
};

static void grouping_free(struct grouping *grouping)
{
	intern_free(&grouping->habits);
	intern_free(&grouping->blanks);
	list_free(&grouping->order);
	list_free(&grouping->blank_counts);
}

static int find_habits(struct grouping *grouping)
{
	struct learn *learn = grouping->learn;
	struct deed *deeds = arena_array(&learn->arena, 2 * learn->n_cells, sizeof(*deeds));
	struct list habit = {};
	int r = 0;

	grouping->habit = arena_array(&learn->arena, learn->n_peers, sizeof(uint32_t));
	grouping->taken = arena_array(&learn->arena, learn->n_peers, sizeof(bool));
	if (!deeds || !grouping->habit || !grouping->taken)
		return -ENOMEM;
	for (uint32_t i = 0; i < learn->n_peers; i++)
		grouping->habit[i] = NO_HABIT;
	for (size_t i = 0; i < learn->n_cells; i++) {
		const uint32_t *at = learn->cells[i].at;

		deeds[2 * i] = (struct deed){at[0], 0, at[1], at[2]};
		deeds[2 * i + 1] = (struct deed){at[1], 1, at[0], at[2]};
	}
	if (learn->n_cells)
		qsort(deeds, 2 * learn->n_cells, sizeof(*deeds), compare_deeds);
	for (size_t i = 0, end; i < 2 * learn->n_cells && r >= 0; i = end) {
		habit.n = 0;
		for (end = i; end < 2 * learn->n_cells && deeds[end].peer == deeds[i].peer && r >= 0; end++) {
			r = list_push(&habit, deeds[end].role);
			r = r < 0 ? r : list_push(&habit, deeds[end].other);
			r = r < 0 ? r : list_push(&habit, deeds[end].point);
		}
		r = r < 0 ? r : intern_list(&grouping->habits, &habit, &grouping->habit[deeds[i].peer]);
		r = r < 0 ? r : list_push(&grouping->order, deeds[i].peer);
	}
	list_free(&habit);
	return r < 0 ? r : 0;
}

static int by_habit(const void *a, const void *b, void *context)
{
	const struct grouping *grouping = context;
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	enum peer_kind kind = grouping->learn->peers[x].kind, other = grouping->learn->peers[y].kind;

	if (kind != other)
		return kind < other ? -1 : 1;
	if (grouping->habit[x] != grouping->habit[y])
		return grouping->habit[x] < grouping->habit[y] ? -1 : 1;
	return (x > y) - (x < y);
}

/* ---- atoms ---- */

static struct atom *add_atom(struct grouping *grouping, enum peer_kind kind)
{
	struct learn *learn = grouping->learn;

	if (array_grow(&learn->atoms, &grouping->capacity, learn->n_atoms, sizeof(*learn->atoms)) < 0)
		return NULL;
	learn->atoms[learn->n_atoms] = (struct atom){.kind = kind};
	return &learn->atoms[learn->n_atoms++];
}

static int add_member(struct grouping *grouping, struct atom *atom, uint32_t peer)
{
	grouping->taken[peer] = true;
	return list_push(&atom->members, peer);
}

/* ---- names of the policy `against` ---- */

/* What a name of the policy stands for, among all recorded peers of its kind. */
struct candidate {
	uint32_t index;	   /* identity or network */
	uint32_t wide;	   /* 0: for nothing that was not recorded */
	address size;	   /* of a network */
	struct list peers; /* empty if it cannot be used */
};

struct candidates {
	struct candidate *items;
	size_t n, capacity;
};

static void candidates_free(struct candidates *candidates)
{
	for (size_t i = 0; i < candidates->n; i++)
		list_free(&candidates->items[i].peers);
	free(candidates->items);
}

/* A pattern that ends in `**`, and set algebra, say too little about whom they are for. */
static bool is_plain(const struct identity *identity)
{
	if (identity->op != IDENTITY_BASE || !identity->n_patterns || identity->n_places)
		return false;
	for (uint32_t i = 0; i < identity->n_patterns; i++)
		if (identity->patterns[i].rest)
			return false;
	return true;
}

static bool is_literal(const struct pattern *pattern)
{
	for (uint32_t i = 0; i < pattern->n_segments; i++)
		if (!pattern->segments[i].text)
			return false;
	return !pattern->rest;
}

static int identity_candidate(const struct learn *learn, const struct identity *identity, struct candidate *candidate)
{
	uint32_t literal = 0;

	for (uint32_t p = 0; p < learn->n_peers && learn->peers[p].kind == PEER_SPIFFE; p++) {
		const char *id = learn->peers[p].text;
		bool in = false;

		for (uint32_t i = 0; i < identity->n_patterns && !in; i++)
			in = pattern_match(&identity->patterns[i], id, strlen(id));
		if (in && list_push(&candidate->peers, p) < 0)
			return -ENOMEM;
	}
	for (uint32_t i = 0; i < identity->n_patterns; i++)
		literal += is_literal(&identity->patterns[i]);
	candidate->wide = literal != identity->n_patterns || literal != candidate->peers.n;
	return 0;
}

static int network_candidate(const struct learn *learn, const struct network *network, struct candidate *candidate)
{
	for (uint32_t i = 0; i < network->n_ranges; i++) {
		address size = network->ranges[i].last - network->ranges[i].first;

		candidate->size = size > candidate->size ? size : candidate->size;
	}
	for (uint32_t p = 0; p < learn->n_peers; p++) {
		const struct peer *peer = &learn->peers[p];

		if (peer->kind == PEER_ADDRESS && network_has(network, peer->address) &&
		    list_push(&candidate->peers, p) < 0)
			return -ENOMEM;
	}
	candidate->wide = candidate->size != 0 || network->n_ranges != candidate->peers.n;
	return 0;
}

/* Names that mean exactly what was recorded first; then those for more peers of the record, networks the narrow first. */
static int compare_candidates(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->wide != y->wide)
		return x->wide < y->wide ? -1 : 1;
	if (x->size != y->size)
		return x->size < y->size ? -1 : 1;
	if (x->peers.n != y->peers.n)
		return x->peers.n > y->peers.n ? -1 : 1;
	return (x->index > y->index) - (x->index < y->index);
}

static int find_candidates(const struct learn *learn, enum peer_kind kind, struct candidates *candidates)
{
	const struct policy *against = learn->options.against;
	size_t n = !against ? 0 : kind == PEER_SPIFFE ? against->n_identities : against->n_networks;
	int r = 0;

	for (uint32_t i = 0; i < n && r == 0; i++) {
		struct candidate *candidate;

		if (kind == PEER_SPIFFE && !is_plain(&against->identities[i]))
			continue;
		r = array_grow(&candidates->items, &candidates->capacity, candidates->n, sizeof(*candidates->items));
		if (r < 0)
			return r;
		candidate = &candidates->items[candidates->n++];
		*candidate = (struct candidate){.index = i};
		r = kind == PEER_SPIFFE ? identity_candidate(learn, &against->identities[i], candidate)
					: network_candidate(learn, &against->networks[i], candidate);
	}
	if (candidates->n)
		qsort(candidates->items, candidates->n, sizeof(*candidates->items), compare_candidates);
	return r;
}

/* Can the name stand for these and no other recorded peer? */
static bool fits(const struct grouping *grouping, const struct candidate *candidate, uint32_t habit)
{
	for (size_t i = 0; i < candidate->peers.n; i++) {
		uint32_t peer = candidate->peers.items[i];

		if (grouping->taken[peer] || grouping->habit[peer] != habit)
			return false;
	}
	return candidate->peers.n > 0;
}

static int take_candidates(struct grouping *grouping, enum peer_kind kind, const struct candidates *candidates,
			   const uint32_t *peers, size_t n)
{
	const struct policy *against = grouping->learn->options.against;
	uint32_t habit = grouping->habit[peers[0]];

	for (size_t i = 0; i < candidates->n; i++) {
		const struct candidate *candidate = &candidates->items[i];
		struct atom *atom;

		/* All of one set or none: the first one tells. */
		if (candidate->peers.n > n || !fits(grouping, candidate, habit))
			continue;
		atom = add_atom(grouping, kind);
		if (!atom)
			return -ENOMEM;
		atom->defined = true;
		atom->wide = candidate->wide;
		atom->index = candidate->index;
		atom->name = kind == PEER_SPIFFE ? against->identities[candidate->index].name
						 : against->networks[candidate->index].name;
		for (size_t j = 0; j < candidate->peers.n; j++)
			if (add_member(grouping, atom, candidate->peers.items[j]) < 0)
				return -ENOMEM;
	}
	return 0;
}

/* ---- IDs ---- */

const char *spiffe_segment(const char *id, uint32_t index, size_t *lenp)
{
	const char *at = id + strlen(SPIFFE_SCHEME);

	for (; index; index--) {
		at = strchr(at, '/');
		if (!at)
			return NULL;
		at++;
	}
	*lenp = strcspn(at, "/");
	return at;
}

uint32_t spiffe_segments(const char *id)
{
	uint32_t n = 1;

	for (const char *at = id + strlen(SPIFFE_SCHEME); *at; at++)
		n += *at == '/';
	return n;
}

/* The ID as a pattern, with `*` for one segment. `out` has room for it. */
static void blank(char *out, const char *id, uint32_t segment)
{
	size_t len = 0;
	const char *at = spiffe_segment(id, segment, &len);

	snprintf(out, PATTERN_MAX_BYTES + 2, "%.*s*%s", (int)(at - id), id, at + len);
}

static int count_blanks(struct grouping *grouping)
{
	const struct learn *learn = grouping->learn;
	char text[PATTERN_MAX_BYTES + 2];
	uint32_t number;

	for (uint32_t p = 0; p < learn->n_peers && learn->peers[p].kind == PEER_SPIFFE; p++) {
		uint32_t n = spiffe_segments(learn->peers[p].text);

		for (uint32_t s = 1; s < n; s++) {
			int r;

			blank(text, learn->peers[p].text, s);
			r = intern_bytes(&grouping->blanks, text, strlen(text), &number);
			if (r < 0 || (r == 1 && list_push(&grouping->blank_counts, 0) < 0))
				return -ENOMEM;
			grouping->blank_counts.items[number]++;
		}
	}
	return 0;
}

static bool is_free(const struct grouping *grouping, uint32_t peer)
{
	return !grouping->taken[peer];
}

static bool has_blank(const char *id, uint32_t segment, const char *pattern)
{
	char text[PATTERN_MAX_BYTES + 2];

	if (spiffe_segments(id) <= segment)
		return false;
	blank(text, id, segment);
	return strcmp(text, pattern) == 0;
}

/* In which segment do most others of the set differ from this one, and in no other? */
static uint32_t varying_segment(const struct grouping *grouping, const uint32_t *peers, size_t n, const char *id)
{
	const struct peer *known = grouping->learn->peers;
	uint32_t best = 0, segments = spiffe_segments(id);
	char text[PATTERN_MAX_BYTES + 2];
	size_t most = 1;

	for (uint32_t s = 1; s < segments; s++) {
		uint32_t number;
		size_t same = 0;

		blank(text, id, s);
		if (!intern_find(&grouping->blanks, text, strlen(text), &number) ||
		    grouping->blank_counts.items[number] <= most)
			continue;
		for (size_t i = 0; i < n; i++)
			same += is_free(grouping, peers[i]) && has_blank(known[peers[i]].text, s, text);
		if (same > most) {
			most = same;
			best = s;
		}
	}
	return best;
}

/* Is every recorded ID that the pattern matches in the atom? */
static bool is_closed(const struct grouping *grouping, const struct atom *atom, const char *pattern)
{
	uint32_t number;

	return intern_find(&grouping->blanks, pattern, strlen(pattern), &number) &&
	       grouping->blank_counts.items[number] == atom->members.n;
}

static int group_id(struct grouping *grouping, const uint32_t *peers, size_t n, uint32_t first)
{
	struct learn *learn = grouping->learn;
	const char *id = learn->peers[first].text;
	uint32_t varies = varying_segment(grouping, peers, n, id);
	struct atom *atom = add_atom(grouping, PEER_SPIFFE);
	char text[PATTERN_MAX_BYTES + 2];

	if (!atom)
		return -ENOMEM;
	atom->varies = varies;
	if (!varies)
		return add_member(grouping, atom, first);
	blank(text, id, varies);
	for (size_t i = 0; i < n; i++)
		if (is_free(grouping, peers[i]) && has_blank(learn->peers[peers[i]].text, varies, text) &&
		    add_member(grouping, atom, peers[i]) < 0)
			return -ENOMEM;
	if (!learn->options.wildcards || !is_closed(grouping, atom, text))
		return 0;
	atom->wide = true;
	atom->pattern = arena_copy(&learn->arena, text, strlen(text));
	return atom->pattern ? 0 : -ENOMEM;
}

/* ---- sets ---- */

/* Peers of one kind that did the same. */
static int group_set(struct grouping *grouping, const struct candidates *candidates, const uint32_t *peers, size_t n)
{
	enum peer_kind kind = grouping->learn->peers[peers[0]].kind;
	struct atom *atom = NULL;

	if ((kind == PEER_SPIFFE || kind == PEER_ADDRESS) &&
	    take_candidates(grouping, kind, &candidates[kind == PEER_ADDRESS], peers, n) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		if (!is_free(grouping, peers[i]))
			continue;
		if (kind == PEER_SPIFFE) {
			if (group_id(grouping, peers, n, peers[i]) < 0)
				return -ENOMEM;
			continue;
		}
		if (kind != PEER_ADDRESS || !atom)
			atom = add_atom(grouping, kind);
		if (!atom || add_member(grouping, atom, peers[i]) < 0)
			return -ENOMEM;
	}
	return 0;
}

static int by_first_member(const void *a, const void *b)
{
	const struct atom *x = a, *y = b;

	return (x->members.items[0] > y->members.items[0]) - (x->members.items[0] < y->members.items[0]);
}

static int make_atoms(struct grouping *grouping, const struct candidates *candidates)
{
	struct learn *learn = grouping->learn;
	struct list *order = &grouping->order;

	if (order->n)
		qsort_r(order->items, order->n, sizeof(*order->items), by_habit, grouping);
	for (size_t i = 0, end; i < order->n; i = end) {
		uint32_t peer = order->items[i];

		for (end = i + 1; end < order->n; end++)
			if (learn->peers[order->items[end]].kind != learn->peers[peer].kind ||
			    grouping->habit[order->items[end]] != grouping->habit[peer])
				break;
		if (group_set(grouping, candidates, &order->items[i], end - i) < 0)
			return -ENOMEM;
	}
	for (uint32_t i = 0; i < learn->n_atoms; i++)
		list_sort_unique(&learn->atoms[i].members);
	if (learn->n_atoms)
		qsort(learn->atoms, learn->n_atoms, sizeof(*learn->atoms), by_first_member);
	for (uint32_t i = 0; i < learn->n_atoms; i++)
		for (size_t j = 0; j < learn->atoms[i].members.n; j++)
			learn->peers[learn->atoms[i].members.items[j]].atom = i;
	return 0;
}

/* ---- networks that others live in ---- */

static int compare_address(const void *key, const void *item)
{
	const struct peer *peer = item;
	const address *a = key;

	if (peer->kind != PEER_ADDRESS)
		return 1;
	return (*a > peer->address) - (*a < peer->address);
}

static void mark_networks(struct learn *learn, address a)
{
	const struct peer *peer = bsearch(&a, learn->peers, learn->n_peers, sizeof(*peer), compare_address);

	if (peer && peer->atom != NO_PEER)
		learn->atoms[peer->atom].world_only = true;
	for (uint32_t i = 0; i < learn->n_atoms; i++) {
		struct atom *atom = &learn->atoms[i];

		if (atom->kind == PEER_ADDRESS && atom->defined && !atom->world_only)
			atom->world_only = network_has(&learn->options.against->networks[atom->index], a);
	}
}

/* A network in a rule is whoever is there. Where one with an identity was seen there too, only the world is meant. */
static int find_neighbours(struct learn *learn)
{
	struct flow_end end;
	char *error = NULL;

	for (uint32_t i = 0; i < learn->end_keys.n; i++) {
		if (flow_end_parse(&end, learn->ends[i].text, &error)) {
			free(error);
			return -ENOMEM; /* it was understood before */
		}
		if (end.kind != FLOW_END_WORLD && end.has_address)
			mark_networks(learn, end.address);
	}
	return 0;
}

int learn_group(struct learn *learn)
{
	_cleanup_(grouping_free) struct grouping grouping = {.learn = learn};
	_cleanup_(candidates_free) struct candidates identities = {}, networks = {};
	struct candidates both[2];

	if (find_habits(&grouping) < 0 || count_blanks(&grouping) < 0 ||
	    find_candidates(learn, PEER_SPIFFE, &identities) < 0 || find_candidates(learn, PEER_ADDRESS, &networks) < 0)
		return -ENOMEM;
	both[0] = identities;
	both[1] = networks;
	return make_atoms(&grouping, both) < 0 ? -ENOMEM : find_neighbours(learn);
}
