/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/flow_space_divide.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int compare_numbers(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static int compare_edges(const void *a, const void *b)
{
	const struct edge *x = a, *y = b;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return (x->set > y->set) - (x->set < y->set);
}

/* Which sets fall short of the box, and which cubes have them. */
static int gather_sets(struct judging *j, struct division *x, const struct spans *part, const struct cubes *cubes,
		       int d)
{
	struct scratch *scratch = &j->space->scratch;
	uint32_t n = cubes->n, *set_of = scratch_alloc(scratch, n, sizeof(uint32_t));
	uint32_t *sorted = scratch_alloc(scratch, n, sizeof(uint32_t));

	x->common = scratch_alloc(scratch, n, sizeof(uint32_t));
	x->sets = scratch_alloc(scratch, n, sizeof(uint32_t));
	x->members.start = scratch_alloc(scratch, (size_t)n + 2, sizeof(uint32_t));
	x->members.items = scratch_alloc(scratch, n, sizeof(uint32_t));
	if (!set_of || !sorted || !x->common || !x->sets || !x->members.start || !x->members.items)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		sorted[i] = j->policy->cubes[cubes->items[i]].set[d];
	qsort(sorted, n, sizeof(uint32_t), compare_numbers);
	x->n_sets = x->n_common = 0;
	for (uint32_t i = 0; i < n; i++)
		if ((!i || sorted[i] != sorted[i - 1]) &&
		    spans_relation_counted(part, &j->space->set_spans[sorted[i]], &j->space->work) == PARTLY)
			x->sets[x->n_sets++] = sorted[i];
	memset(x->members.start, 0, ((size_t)x->n_sets + 2) * sizeof(uint32_t));
	for (uint32_t i = 0; i < n; i++) {
		uint32_t set = j->policy->cubes[cubes->items[i]].set[d];
		const uint32_t *at = bsearch(&set, x->sets, x->n_sets, sizeof(uint32_t), compare_numbers);

		set_of[i] = at ? (uint32_t)(at - x->sets) : UINT32_MAX;
		if (at)
			x->members.start[set_of[i] + 2]++;
		else
			x->common[x->n_common++] = i;
	}
	/* start[s + 1] counts up to the start of the next while the members of s are filled in. */
	for (uint32_t s = 0; s < x->n_sets; s++)
		x->members.start[s + 2] += x->members.start[s + 1];
	for (uint32_t i = 0; i < n; i++)
		if (set_of[i] != UINT32_MAX)
			x->members.items[x->members.start[set_of[i] + 1]++] = i;
	return space_spend(j->space, 8ULL * n, j->errorp);
}

/* The spans of a set from the first that reaches into the part to the last: what is between the spans of the part does not
 * matter, as there are no intervals. Returns the first, and how many. */
static const struct span *spans_near(const struct spans *part, const struct spans *set, uint32_t *np)
{
	uint32_t first = spans_seek(set, part->items[0].first), last = part->items[part->n - 1].last;
	uint32_t end = spans_seek(set, last);

	/* The span that ends at the last number or behind it may begin before. */
	end += end < set->n && set->items[end].first <= last;
	*np = end - first;
	return set->items + first;
}

static void add_edges(struct division *x, const struct span *spans, uint32_t n, uint32_t set)
{
	for (uint32_t i = 0; i < n; i++) {
		x->edges[x->n_edges++] = (struct edge){spans[i].first, set, false};
		x->edges[x->n_edges++] = (struct edge){spans[i].last + 1, set, true};
	}
}

static int gather_edges(struct judging *j, struct division *x, const struct spans *part)
{
	const struct spans *sets = j->space->set_spans;
	uint64_t total = part->n;
	const struct span *near;
	uint32_t n;
	int r;

	for (uint32_t s = 0; s < x->n_sets; s++) {
		spans_near(part, &sets[x->sets[s]], &n);
		total += n;
	}
	r = space_spend(j->space, 16 * total, j->errorp);
	if (r)
		return r;
	x->edges = scratch_alloc(&j->space->scratch, 2 * total, sizeof(*x->edges));
	if (!x->edges)
		return -ENOMEM;
	x->n_edges = 0;
	for (uint32_t s = 0; s < x->n_sets; s++) {
		near = spans_near(part, &sets[x->sets[s]], &n);
		add_edges(x, near, n, s);
	}
	/* The part itself is the last of the sets. */
	add_edges(x, part->items, part->n, x->n_sets);
	qsort(x->edges, x->n_edges, sizeof(*x->edges), compare_edges);
	return 0;
}

/* Keeps the list of sets that hold sorted. */
static void toggle(struct cubes *holding, uint32_t set, bool end)
{
	uint32_t low = 0, high = holding->n;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (holding->items[middle] < set)
			low = middle + 1;
		else
			high = middle;
	}
	if (end) {
		holding->n--;
		memmove(&holding->items[low], &holding->items[low + 1], (holding->n - low) * sizeof(uint32_t));
	} else {
		memmove(&holding->items[low + 1], &holding->items[low], (holding->n - low) * sizeof(uint32_t));
		holding->items[low] = set;
		holding->n++;
	}
}

/* The group of the intervals where exactly these sets hold. Returns false when out of memory. */
static bool find_group(struct judging *j, struct division *x, const struct cubes *holding, uint32_t *groupp)
{
	uint64_t hash = holding->n;
	uint32_t slot, *copy;

	for (uint32_t i = 0; i < holding->n; i++)
		hash = (hash ^ holding->items[i]) * 0x9e3779b97f4a7c15ULL, hash ^= hash >> 29;
	for (slot = (uint32_t)(hash >> 16) & (x->n_slots - 1); x->slots[slot]; slot = (slot + 1) & (x->n_slots - 1)) {
		const struct cubes *group = &x->groups[x->slots[slot] - 1];

		x->probes++;
		*groupp = x->slots[slot] - 1;
		if (group->n == holding->n &&
		    (!group->n || memcmp(group->items, holding->items, group->n * sizeof(uint32_t)) == 0))
			return true;
	}
	copy = scratch_alloc(&j->space->scratch, holding->n, sizeof(uint32_t));
	if (!copy)
		return false;
	if (holding->n)
		memcpy(copy, holding->items, holding->n * sizeof(uint32_t));
	x->groups[x->n_groups] = (struct cubes){copy, holding->n};
	*groupp = x->n_groups++;
	x->slots[slot] = x->n_groups;
	return true;
}

static int make_groups(struct judging *j, struct division *x)
{
	struct scratch *scratch = &j->space->scratch;
	struct cubes holding = {.items = scratch_alloc(scratch, (size_t)x->n_sets + 1, sizeof(uint32_t))};
	bool within = false;
	uint64_t work = 0;

	x->n_slots = 4;
	while (x->n_slots / 2 < x->n_edges)
		x->n_slots *= 2;
	x->slots = scratch_alloc(scratch, x->n_slots, sizeof(uint32_t));
	x->groups = scratch_alloc(scratch, x->n_edges, sizeof(*x->groups));
	x->intervals = scratch_alloc(scratch, x->n_edges, sizeof(*x->intervals));
	x->group_of = scratch_alloc(scratch, x->n_edges, sizeof(uint32_t));
	if (!holding.items || !x->slots || !x->groups || !x->intervals || !x->group_of)
		return -ENOMEM;
	memset(x->slots, 0, x->n_slots * sizeof(uint32_t));
	x->n_groups = x->n_intervals = 0;
	for (uint32_t i = 0; i < x->n_edges;) {
		uint32_t at = x->edges[i].at;

		for (; i < x->n_edges && x->edges[i].at == at; i++) {
			work += holding.n / 4;
			if (x->edges[i].set == x->n_sets)
				within = !within;
			else
				toggle(&holding, x->edges[i].set, x->edges[i].end);
		}
		if (!within)
			continue;
		x->intervals[x->n_intervals] = (struct span){at, x->edges[i].at - 1};
		if (!find_group(j, x, &holding, &x->group_of[x->n_intervals++]))
			return -ENOMEM;
		work += holding.n + 4 + x->probes;
		x->probes = 0;
		/* Lists of what holds are what takes memory: the budget is looked at on the way. */
		if (work > 1000000) {
			int r = space_spend(j->space, work, j->errorp);

			if (r)
				return r;
			work = 0;
		}
	}
	return space_spend(j->space, work, j->errorp);
}

bool division_spans(struct judging *j, const struct division *x, struct spans *out)
{
	struct span *items = scratch_alloc(&j->space->scratch, x->n_intervals, sizeof(*items));
	uint32_t *counts = scratch_alloc(&j->space->scratch, (size_t)x->n_groups + 1, sizeof(*counts));
	uint32_t total = 0;

	if (!items || !counts)
		return false;
	memset(counts, 0, x->n_groups * sizeof(*counts));
	for (uint32_t i = 0; i < x->n_intervals; i++)
		counts[x->group_of[i]]++;
	for (uint32_t g = 0; g < x->n_groups; g++) {
		out[g] = (struct spans){items + total, 0};
		total += counts[g];
	}
	for (uint32_t i = 0; i < x->n_intervals; i++) {
		struct spans *spans = &out[x->group_of[i]];
		struct span next = x->intervals[i];

		if (spans->n && spans->items[spans->n - 1].last + 1 == next.first)
			spans->items[spans->n - 1].last = next.last;
		else
			spans->items[spans->n++] = next;
	}
	return true;
}

bool division_cubes(struct judging *j, const struct division *x, uint32_t group, const struct cubes *cubes,
		    struct cubes *out)
{
	const struct cubes *sets = &x->groups[group];
	uint32_t n = 0, m = 0, a = 0, b = 0, *own;

	for (uint32_t i = 0; i < sets->n; i++)
		n += x->members.start[sets->items[i] + 1] - x->members.start[sets->items[i]];
	own = scratch_alloc(&j->space->scratch, n, sizeof(uint32_t));
	out->items = scratch_alloc(&j->space->scratch, (size_t)n + x->n_common, sizeof(uint32_t));
	if (!own || !out->items)
		return false;
	for (uint32_t i = 0; i < sets->n; i++)
		for (uint32_t k = x->members.start[sets->items[i]]; k < x->members.start[sets->items[i] + 1]; k++)
			own[m++] = x->members.items[k];
	if (sets->n > 1) {
		qsort(own, m, sizeof(uint32_t), compare_numbers);
		j->space->work += 8ULL * m;
	}
	for (out->n = 0; a < m || b < x->n_common;) {
		bool mine = b == x->n_common || (a < m && own[a] < x->common[b]);

		out->items[out->n++] = cubes->items[mine ? own[a++] : x->common[b++]];
	}
	return true;
}

uint64_t division_cost(const struct division *x)
{
	uint64_t cost = 0;

	for (uint32_t g = 0; g < x->n_groups; g++) {
		cost += x->n_common + 2;
		for (uint32_t i = 0; i < x->groups[g].n; i++) {
			uint32_t set = x->groups[g].items[i];

			cost += x->members.start[set + 1] - x->members.start[set];
		}
	}
	return cost;
}

int division_make(struct judging *j, struct division *x, const struct flow_box *box, const struct cubes *cubes, int d)
{
	int r = gather_sets(j, x, &box->dim[d], cubes, d);

	if (r == 0)
		r = gather_edges(j, x, &box->dim[d]);
	return r == 0 ? make_groups(j, x) : r;
}
