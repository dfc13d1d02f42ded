/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow_space_judge.c - boxes into pieces on which the verdict is the same everywhere.
 *
 * The cubes that meet a box are looked at in their order. One that covers it decides it. One that falls short in a single
 * dimension decides its part, and the rest goes on. Where one falls short in several, the box is divided along one of them
 * into the parts that the same cubes meet; there no cube falls short in that dimension any more, so this happens at most
 * four times for one flow, and a rule costs only the parts that it is about.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/flow_space_internal.h"

/* Beyond so many classes in a part of a box it is as cheap to look at every set. */
#define FEW_CLASSES 16U

struct judging {
	struct flow_space *space;
	const struct space_policy *policy;
	unsigned direction;
	int (*decided)(struct judging *judging, const struct flow_box *box, uint32_t rule);
	char **errorp;
	/* what the callers want */
	flow_piece_fn piece;
	void *context;
	uint32_t egress_rule; /* of the box that is judged for ingress */
};

struct cubes {
	uint32_t *items; /* indices, in order */
	uint32_t n;
};

static const struct spans *cube_spans(const struct judging *j, const struct cube *cube, int dimension)
{
	return &j->space->set_spans[cube->set[dimension]];
}

/* ---- the cubes that meet a box ---- */

static bool meets(const struct judging *j, const struct cube *cube, const struct flow_box *box)
{
	if (!(cube->directions & j->direction))
		return false;
	for (int d = 0; d < FLOW_DIMENSIONS; d++)
		if (spans_relation(&box->dim[d], cube_spans(j, cube, d)) == APART)
			return false;
	return true;
}

static uint32_t spans_size(const struct spans *spans, uint32_t enough)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < spans->n && n < enough; i++)
		n += spans->items[i].last - spans->items[i].first + 1;
	return n;
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* The who sets that meet a box on one side, and how many cubes have one of them. Memory: scratch. */
static int find_sets(struct judging *j, const struct spans *who, int side, struct cubes *sets, uint64_t *n_cubes)
{
	const struct space_policy *policy = j->policy;
	const struct grouped *of_who = &policy->sets_of_who[side], *cubes = &policy->cubes_of_set[side];
	const struct list *all = &policy->who_sets[side];
	struct flow_space *space = j->space;
	uint32_t n = 0;

	sets->n = 0;
	*n_cubes = 0;
	sets->items = scratch_alloc(&space->scratch, all->n, sizeof(uint32_t));
	if (!sets->items)
		return -ENOMEM;
	if (of_who->start && spans_size(who, 2) == 1) {
		uint32_t class = who->items[0].first;

		for (uint32_t i = of_who->start[class]; i < of_who->start[class + 1]; i++)
			sets->items[sets->n++] = of_who->items[i];
	} else {
		for (size_t i = 0; i < all->n; i++, n++)
			if (spans_relation(who, &space->set_spans[all->items[i]]) != APART)
				sets->items[sets->n++] = all->items[i];
	}
	for (uint32_t i = 0; i < sets->n; i++)
		*n_cubes += cubes->start[sets->items[i] + 1] - cubes->start[sets->items[i]];
	return space_spend(space, n + sets->n + 1, j->errorp);
}

/* Memory: scratch. */
static int find_cubes(struct judging *j, const struct flow_box *box, struct cubes *found)
{
	struct flow_space *space = j->space;
	struct cubes sets[2];
	uint64_t n[2];
	const struct grouped *grouped;
	int r = find_sets(j, &box->dim[FLOW_FROM_WHO], 0, &sets[0], &n[0]), side;

	if (r == 0)
		r = find_sets(j, &box->dim[FLOW_TO_WHO], 1, &sets[1], &n[1]);
	if (r)
		return r;
	side = n[1] < n[0];
	grouped = &j->policy->cubes_of_set[side];
	found->n = 0;
	found->items = scratch_alloc(&space->scratch, n[side], sizeof(uint32_t));
	if (!found->items)
		return -ENOMEM;
	for (uint32_t i = 0; i < sets[side].n; i++)
		for (uint32_t k = grouped->start[sets[side].items[i]]; k < grouped->start[sets[side].items[i] + 1]; k++)
			if (meets(j, &j->policy->cubes[grouped->items[k]], box))
				found->items[found->n++] = grouped->items[k];
	if (sets[side].n > 1 && found->n > 1)
		qsort(found->items, found->n, sizeof(uint32_t), compare_u32);
	return space_spend(space, 4 * n[side] + 1, j->errorp);
}

/* ---- dividing along one dimension ---- */

struct edge {
	uint32_t at;
	uint32_t set; /* number within the division */
	bool end;
};

/* A dimension of a box, cut where a set of one of the cubes begins or ends. */
struct division {
	uint32_t *sets; /* sets that fall short, each once */
	uint32_t n_sets;
	struct grouped members; /* by set: cubes, as positions in the list */
	uint32_t *common;	/* cubes that do not fall short */
	uint32_t n_common;
	struct edge *edges;
	uint32_t n_edges;
	struct span *intervals;
	uint32_t *group_of; /* by interval */
	uint32_t n_intervals;
	struct cubes *groups; /* sets of the division that hold there */
	uint32_t n_groups;
	uint32_t *slots; /* of groups, hashed: group + 1 */
	uint32_t n_slots;
};

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
	qsort(sorted, n, sizeof(uint32_t), compare_u32);
	x->n_sets = x->n_common = 0;
	for (uint32_t i = 0; i < n; i++)
		if ((!i || sorted[i] != sorted[i - 1]) &&
		    spans_relation(part, &j->space->set_spans[sorted[i]]) == PARTLY)
			x->sets[x->n_sets++] = sorted[i];
	memset(x->members.start, 0, ((size_t)x->n_sets + 2) * sizeof(uint32_t));
	for (uint32_t i = 0; i < n; i++) {
		uint32_t set = j->policy->cubes[cubes->items[i]].set[d];
		const uint32_t *at = bsearch(&set, x->sets, x->n_sets, sizeof(uint32_t), compare_u32);

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

static int gather_edges(struct judging *j, struct division *x, const struct spans *part)
{
	uint64_t n = 2ULL * part->n;

	for (uint32_t s = 0; s < x->n_sets; s++)
		n += 2ULL * (j->space->set_spans[x->sets[s]].n + part->n);
	if (n > UINT32_MAX / 4)
		return space_spend(j->space, UINT64_MAX / 2, j->errorp);
	x->edges = scratch_alloc(&j->space->scratch, n, sizeof(*x->edges));
	if (!x->edges)
		return -ENOMEM;
	x->n_edges = 0;
	for (uint32_t s = 0; s <= x->n_sets; s++) {
		struct scratch_mark mark = scratch_mark(&j->space->scratch);
		struct spans cut = *part;

		/* The part itself is the last of the sets. */
		if (s < x->n_sets) {
			const struct spans *set = &j->space->set_spans[x->sets[s]];

			cut.items = scratch_alloc(&j->space->scratch, (size_t)set->n + part->n, sizeof(struct span));
			if (!cut.items)
				return -ENOMEM;
			cut.n = spans_intersect_to(cut.items, part, set);
		}
		for (uint32_t i = 0; i < cut.n; i++) {
			x->edges[x->n_edges++] = (struct edge){cut.items[i].first, s, false};
			x->edges[x->n_edges++] = (struct edge){cut.items[i].last + 1, s, true};
		}
		scratch_release(&j->space->scratch, mark);
	}
	qsort(x->edges, x->n_edges, sizeof(*x->edges), compare_edges);
	return space_spend(j->space, 8ULL * x->n_edges, j->errorp);
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
		work += holding.n + 4;
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

/* The intervals of every group, joined where they touch: spans by group, in memory of scratch. */
static bool group_spans(struct judging *j, const struct division *x, struct spans *out)
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

/* The cubes of a group, in order: those whose set holds there, and those that never fall short. */
static bool group_cubes(struct judging *j, const struct division *x, uint32_t group, const struct cubes *cubes,
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
	if (sets->n > 1)
		qsort(own, m, sizeof(uint32_t), compare_u32);
	for (out->n = 0; a < m || b < x->n_common;) {
		bool mine = b == x->n_common || (a < m && own[a] < x->common[b]);

		out->items[out->n++] = cubes->items[mine ? own[a++] : x->common[b++]];
	}
	return true;
}

/* ---- judging ---- */

/* A box that is being used up: its parts are rewritten as rules take theirs. */
struct remainder {
	struct flow_box box;
	struct span *buffers[FLOW_DIMENSIONS][2]; /* in turn */
	uint32_t capacities[FLOW_DIMENSIONS][2];
	int next[FLOW_DIMENSIONS];
};

/* Takes a set away from one part of what remains. Returns false when out of memory. */
static bool take_away(struct judging *j, struct remainder *rest, int d, const struct spans *set)
{
	struct spans *part = &rest->box.dim[d];
	int which = rest->next[d];
	uint64_t need = (uint64_t)part->n + set->n;

	if (need > rest->capacities[d][which]) {
		if (need > UINT32_MAX / 2)
			return false;
		rest->capacities[d][which] = (uint32_t)need * 2;
		rest->buffers[d][which] = scratch_alloc(&j->space->scratch, need * 2, sizeof(struct span));
		if (!rest->buffers[d][which])
			return false;
	}
	*part = (struct spans){rest->buffers[d][which], spans_subtract_to(rest->buffers[d][which], part, set)};
	rest->next[d] = !which;
	return true;
}

static uint32_t behind_tier(const struct judging *j, const struct cubes *cubes, uint32_t i)
{
	uint32_t tier = j->policy->cubes[cubes->items[i]].tier;

	while (i < cubes->n && j->policy->cubes[cubes->items[i]].tier == tier)
		i++;
	return i;
}

static int judge_cubes(struct judging *j, const struct flow_box *box, const struct cubes *cubes);

/* Those of the cubes that meet the box, up to the one that leaves nothing. */
static int keep_meeting(struct judging *j, const struct flow_box *box, const struct cubes *cubes, uint32_t first,
			struct cubes *kept)
{
	uint32_t i = first, tier = 0;
	bool passed = false; /* by a rule of this tier that is kept */

	kept->n = 0;
	kept->items = scratch_alloc(&j->space->scratch, cubes->n - first, sizeof(uint32_t));
	if (!kept->items)
		return -ENOMEM;
	while (i < cubes->n) {
		const struct cube *cube = &j->policy->cubes[cubes->items[i]];
		bool apart = false, covers = true;

		for (int d = 0; d < FLOW_DIMENSIONS && !apart; d++) {
			enum relation relation = spans_relation(&box->dim[d], cube_spans(j, cube, d));

			apart = relation == APART;
			covers = covers && relation == COVERED;
		}
		if (apart) {
			i++;
			continue;
		}
		if (cube->tier != tier)
			passed = false;
		tier = cube->tier;
		kept->items[kept->n++] = cubes->items[i];
		/* What a part passes before goes on behind the tier all the same. */
		if (covers && !cube->pass && !passed)
			break;
		passed = passed || cube->pass;
		i = covers ? behind_tier(j, cubes, i) : i + 1;
	}
	return space_spend(j->space, 4ULL * (i - first) + 1, j->errorp);
}

/* Divides the box along one dimension and judges the parts. */
static int judge_parts(struct judging *j, const struct flow_box *box, const struct cubes *cubes, uint32_t first, int d)
{
	struct scratch *scratch = &j->space->scratch;
	struct division x = {};
	struct cubes kept, group;
	struct flow_box part = *box;
	struct spans *spans;
	int r = keep_meeting(j, box, cubes, first, &kept);

	if (r == 0)
		r = gather_sets(j, &x, &box->dim[d], &kept, d);
	if (r == 0)
		r = gather_edges(j, &x, &box->dim[d]);
	if (r == 0)
		r = make_groups(j, &x);
	if (r)
		return r;
	spans = scratch_alloc(scratch, x.n_groups, sizeof(*spans));
	if (!spans || !group_spans(j, &x, spans))
		return -ENOMEM;
	for (uint32_t g = 0; g < x.n_groups && r == 0; g++) {
		struct scratch_mark mark = scratch_mark(scratch);

		part.dim[d] = spans[g];
		r = group_cubes(j, &x, g, &kept, &group) ? space_spend(j->space, group.n + 1, j->errorp) : -ENOMEM;
		if (r == 0)
			r = judge_cubes(j, &part, &group);
		scratch_release(scratch, mark);
	}
	return r;
}

/* What a cube takes of what remains, in the one dimension in which it falls short. */
static int judge_taken(struct judging *j, const struct remainder *rest, const struct cubes *cubes, uint32_t i, int d)
{
	const struct cube *cube = &j->policy->cubes[cubes->items[i]];
	const struct spans *set = cube_spans(j, cube, d), *part = &rest->box.dim[d];
	struct flow_box taken = rest->box;
	struct cubes later;

	taken.dim[d].items = scratch_alloc(&j->space->scratch, (size_t)part->n + set->n, sizeof(struct span));
	if (!taken.dim[d].items)
		return -ENOMEM;
	taken.dim[d].n = spans_intersect_to(taken.dim[d].items, part, set);
	if (!cube->pass)
		return j->decided(j, &taken, cube->rule);
	i = behind_tier(j, cubes, i);
	later = (struct cubes){cubes->items + i, cubes->n - i};
	return judge_cubes(j, &taken, &later);
}

/* In which dimensions a cube falls short of a box, as bits; negative if it does not meet it. */
static int shortfall(const struct judging *j, const struct flow_box *box, const struct cube *cube)
{
	int bits = 0;

	for (int d = 0; d < FLOW_DIMENSIONS; d++)
		switch (spans_relation(&box->dim[d], cube_spans(j, cube, d))) {
		case APART:
			return -1;
		case PARTLY:
			bits |= 1 << d;
			break;
		case COVERED:
			break;
		}
	return bits;
}

/* Along which of several dimensions to divide: who is what most rules differ in. */
static int dimension_to_divide(int bits)
{
	static const int order[] = {FLOW_FROM_WHO, FLOW_TO_WHO, FLOW_FROM_WHERE, FLOW_TO_WHERE};

	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		if (bits & 1 << order[i])
			return order[i];
	return FLOW_SERVICE;
}

static int judge_cubes(struct judging *j, const struct flow_box *box, const struct cubes *cubes)
{
	struct remainder rest = {.box = *box};
	int r = 0;

	for (uint32_t i = 0; i < cubes->n && r == 0;) {
		const struct cube *cube = &j->policy->cubes[cubes->items[i]];
		int bits = shortfall(j, &rest.box, cube), d = __builtin_ffs(bits) - 1;
		struct scratch_mark mark;

		r = space_spend(j->space, 4, j->errorp);
		if (r)
			return r;
		if (bits < 0) {
			i++;
			continue;
		}
		if (!bits && !cube->pass)
			return j->decided(j, &rest.box, cube->rule);
		if (!bits) {
			i = behind_tier(j, cubes, i);
			continue;
		}
		if (bits & (bits - 1))
			return judge_parts(j, &rest.box, cubes, i, dimension_to_divide(bits));
		mark = scratch_mark(&j->space->scratch);
		r = judge_taken(j, &rest, cubes, i, d);
		scratch_release(&j->space->scratch, mark);
		if (r == 0)
			r = space_spend(j->space, rest.box.dim[d].n + cube_spans(j, cube, d)->n, j->errorp);
		if (r == 0 && !take_away(j, &rest, d, cube_spans(j, cube, d)))
			r = -ENOMEM;
		i++;
	}
	return r ? r : j->decided(j, &rest.box, FLOW_DEFAULT);
}

static int judge_box(struct judging *j, const struct flow_box *box)
{
	struct scratch_mark mark = scratch_mark(&j->space->scratch);
	struct cubes cubes;
	int r = find_cubes(j, box, &cubes);

	if (r == 0)
		r = judge_cubes(j, box, &cubes);
	scratch_release(&j->space->scratch, mark);
	return r;
}

/* ---- both judgements ---- */

static bool allows(const struct judging *j, uint32_t rule)
{
	const struct policy *policy = j->policy->policy;

	if (rule == FLOW_UNJUDGED)
		return true;
	if (rule == FLOW_DEFAULT)
		return policy->default_allow;
	return policy->rules[rule].action == RULE_ALLOW || policy->rules[rule].audit;
}

static int ingress_decided(struct judging *j, const struct flow_box *box, uint32_t rule)
{
	struct flow_piece piece = {
		.box = *box,
		.egress_allow = allows(j, j->egress_rule),
		.ingress_allow = allows(j, rule),
		.egress_rule = j->egress_rule,
		.ingress_rule = rule,
	};

	piece.allow = piece.egress_allow && piece.ingress_allow;
	return j->piece(j->context, &piece);
}

static bool box_is_empty(const struct flow_box *box)
{
	for (int d = 0; d < FLOW_DIMENSIONS; d++)
		if (!box->dim[d].n)
			return true;
	return false;
}

/* The part of a box whose one end is in a set of who. Returns false when out of memory. */
static bool narrow(struct judging *j, struct flow_box *out, const struct flow_box *box, int d, const struct spans *who)
{
	const struct spans *part = &box->dim[d];
	struct span *items = scratch_alloc(&j->space->scratch, (size_t)part->n + who->n, sizeof(*items));

	if (!items)
		return false;
	*out = *box;
	out->dim[d] = (struct spans){items, spans_intersect_to(items, part, who)};
	return true;
}

/* Judges the managed part of a box by rules; what the rest says needs no rule. */
static int judge_end(struct judging *j, const struct flow_box *box, int d)
{
	struct flow_box managed, unmanaged;
	int r = 0;

	if (!narrow(j, &managed, box, d, &j->space->managed) || !narrow(j, &unmanaged, box, d, &j->space->unmanaged))
		return -ENOMEM;
	if (!box_is_empty(&managed))
		r = judge_box(j, &managed);
	if (r == 0 && !box_is_empty(&unmanaged))
		r = j->decided(j, &unmanaged, FLOW_UNJUDGED);
	return r;
}

static int egress_decided(struct judging *j, const struct flow_box *box, uint32_t rule)
{
	struct judging ingress = *j;
	struct scratch_mark mark = scratch_mark(&j->space->scratch);
	int r;

	ingress.direction = RULE_INGRESS;
	ingress.decided = ingress_decided;
	ingress.egress_rule = rule;
	r = judge_end(&ingress, box, FLOW_TO_WHO);
	scratch_release(&j->space->scratch, mark);
	return r;
}

int flow_space_judge(struct flow_space *space, size_t policy, const struct flow_box *box, flow_piece_fn piece,
		     void *context, char **errorp)
{
	struct judging judging = {
		.space = space,
		.policy = &space->policies[policy],
		.direction = RULE_EGRESS,
		.decided = egress_decided,
		.errorp = errorp,
		.piece = piece,
		.context = context,
	};
	struct scratch_mark mark = scratch_mark(&space->scratch);
	int r;

	*errorp = NULL;
	if (box_is_empty(box))
		return 0;
	r = judge_end(&judging, box, FLOW_FROM_WHO);
	scratch_release(&space->scratch, mark);
	return r;
}
