/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow_space_judge.c - boxes into pieces on which the verdict is the same everywhere.
 *
 * The cubes that meet a box are looked at in their order. One that covers it decides it. One that falls short in a single
 * dimension decides its part, and the rest goes on. Where one falls short in several, the box is divided along one of them
 * into the parts that the same cubes meet; there no cube falls short in that dimension any more, so this happens at most
 * once for each dimension, and a rule costs only the parts that it is about. Rules that differ in their services are best
 * divided by service, rules between many peers by peer: the dimension that leaves least to do is found by trying.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/flow_space_divide.h"

/* So many cubes that it pays to look for the best way to divide. */
#define MANY_CUBES 12U

/* ---- the cubes that meet a box ---- */

static bool meets(const struct judging *j, const struct cube *cube, const struct flow_box *box)
{
	if (!(cube->directions & j->wanted))
		return false;
	for (int d = 0; d < FLOW_DIMENSIONS; d++)
		if (spans_relation_counted(&box->dim[d], cube_spans(j, cube, d), &j->space->work) == APART)
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
			if (spans_relation_counted(who, &space->set_spans[all->items[i]], &space->work) != APART)
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
		qsort(found->items, found->n, sizeof(uint32_t), compare_numbers);
	return space_spend(space, n[side] + 1, j->errorp);
}

/* ---- judging ---- */

/*
 * Both judgements look at one list of cubes, in which each sees those of its direction. Where the box is divided for
 * egress it is divided for ingress, and what egress has decided goes on to ingress with the list of its part. What a
 * judgement has behind it is told by the index of the first cube that it has not: cubes are numbered in their order.
 */
struct frame {
	struct cubes cubes;
	unsigned direction;   /* RULE_EGRESS or RULE_INGRESS */
	uint32_t first;	      /* index of a cube */
	uint32_t egress_rule; /* of a box that is judged for ingress */
};

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

/* The position of the first cube from an index on. */
static uint32_t position_of(const struct cubes *cubes, uint32_t index)
{
	uint32_t low = 0, high = cubes->n;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (cubes->items[middle] < index)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static uint32_t behind_tier(const struct judging *j, const struct cubes *cubes, uint32_t i)
{
	uint32_t tier = j->policy->cubes[cubes->items[i]].tier;

	while (i < cubes->n && j->policy->cubes[cubes->items[i]].tier == tier)
		i++;
	return i;
}

static int judge_cubes(struct judging *j, const struct flow_box *box, const struct frame *frame);

static bool allows(const struct judging *j, uint32_t rule)
{
	const struct policy *policy = j->policy->policy;

	if (rule == FLOW_UNJUDGED)
		return true;
	if (rule == FLOW_DEFAULT)
		return policy->default_allow;
	return policy->rules[rule].action == RULE_ALLOW || policy->rules[rule].audit;
}

static int tell_piece(struct judging *j, const struct flow_box *box, uint32_t egress_rule, uint32_t ingress_rule)
{
	struct flow_piece piece = {
		.box = *box,
		.egress_allow = allows(j, egress_rule),
		.ingress_allow = allows(j, ingress_rule),
		.egress_rule = egress_rule,
		.ingress_rule = ingress_rule,
	};

	piece.allow = piece.egress_allow && piece.ingress_allow;
	return j->piece(j->context, &piece);
}

static int judge_ingress(struct judging *j, const struct flow_box *box, const struct cubes *cubes, uint32_t egress_rule)
{
	const struct frame frame = {*cubes, RULE_INGRESS, 0, egress_rule};
	struct scratch_mark mark = scratch_mark(&j->space->scratch);
	int r;

	if (!(j->wanted & RULE_INGRESS))
		return tell_piece(j, box, egress_rule, FLOW_UNJUDGED);
	r = judge_cubes(j, box, &frame);
	scratch_release(&j->space->scratch, mark);
	return r;
}

static int decided(struct judging *j, const struct flow_box *box, const struct frame *frame, uint32_t rule)
{
	if (frame->direction == RULE_INGRESS)
		return tell_piece(j, box, frame->egress_rule, rule);
	return judge_ingress(j, box, &frame->cubes, rule);
}

/* Which directions need no more cubes, now and in the tier at hand. */
struct closing {
	unsigned closed, tier_closed;
	unsigned passed; /* a part went on to the next tier by a rule of this one */
	uint32_t tier;
};

static void close_directions(struct closing *closing, const struct cube *cube, unsigned directions, bool covers)
{
	if (covers) {
		closing->tier_closed |= directions;
		/* What a part passes before goes on behind the tier all the same. */
		if (!cube->pass)
			closing->closed |= directions & ~closing->passed;
	}
	if (cube->pass)
		closing->passed |= directions;
}

/* Those of the cubes that meet the box, without those that others leave nothing to. */
static int keep_meeting(struct judging *j, const struct flow_box *box, const struct frame *frame, struct cubes *kept)
{
	unsigned mask = frame->direction == RULE_EGRESS ? j->wanted : RULE_INGRESS;
	const struct cubes *cubes = &frame->cubes;
	struct closing closing = {};

	kept->n = 0;
	kept->items = scratch_alloc(&j->space->scratch, cubes->n, sizeof(uint32_t));
	if (!kept->items)
		return -ENOMEM;
	for (uint32_t i = 0; i < cubes->n && closing.closed != mask; i++) {
		const struct cube *cube = &j->policy->cubes[cubes->items[i]];
		unsigned directions = cube->directions & mask;
		enum relation relation = COVERED;
		bool covers = true;

		if (cube->tier != closing.tier)
			closing = (struct closing){.closed = closing.closed, .tier = cube->tier};
		if (cubes->items[i] < frame->first)
			directions &= ~frame->direction;
		directions &= ~(closing.closed | closing.tier_closed);
		if (!directions)
			continue;
		for (int d = 0; d < FLOW_DIMENSIONS && relation != APART; d++) {
			relation = spans_relation_counted(&box->dim[d], cube_spans(j, cube, d), &j->space->work);
			covers = covers && relation == COVERED;
		}
		if (relation == APART)
			continue;
		kept->items[kept->n++] = cubes->items[i];
		close_directions(&closing, cube, directions, covers);
	}
	return space_spend(j->space, 4ULL * cubes->n + 1, j->errorp);
}

/* Along which of several dimensions to divide: the one that leaves least to do. */
static int choose_dimension(struct judging *j, const struct flow_box *box, const struct cubes *cubes, int bits, int *dp)
{
	static const int order[] = {FLOW_FROM_WHO, FLOW_TO_WHO, FLOW_SERVICE, FLOW_FROM_WHERE, FLOW_TO_WHERE};
	uint64_t least = UINT64_MAX;

	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		struct scratch_mark mark = scratch_mark(&j->space->scratch);
		struct division x = {};
		int r;

		if (!(bits & 1 << order[i]))
			continue;
		if (cubes->n < MANY_CUBES || bits == 1 << order[i]) {
			*dp = order[i];
			return 0;
		}
		r = division_make(j, &x, box, cubes, order[i]);
		if (r)
			return r;
		if (division_cost(&x) < least) {
			least = division_cost(&x);
			*dp = order[i];
		}
		scratch_release(&j->space->scratch, mark);
	}
	return 0;
}

/* Divides the box along a dimension and judges the parts. */
static int judge_parts(struct judging *j, const struct flow_box *box, const struct frame *frame, int bits)
{
	struct scratch *scratch = &j->space->scratch;
	struct frame inner = *frame;
	struct division x = {};
	struct cubes kept;
	struct flow_box part = *box;
	struct spans *spans;
	int r = keep_meeting(j, box, frame, &kept), d = 0;

	if (r == 0)
		r = choose_dimension(j, box, &kept, bits, &d);
	if (r == 0)
		r = division_make(j, &x, box, &kept, d);
	if (r)
		return r;
	spans = scratch_alloc(scratch, x.n_groups, sizeof(*spans));
	if (!spans || !division_spans(j, &x, spans))
		return -ENOMEM;
	for (uint32_t g = 0; g < x.n_groups && r == 0; g++) {
		struct scratch_mark mark = scratch_mark(scratch);

		part.dim[d] = spans[g];
		if (!division_cubes(j, &x, g, &kept, &inner.cubes))
			return -ENOMEM;
		r = space_spend(j->space, inner.cubes.n + 1, j->errorp);
		if (r == 0)
			r = judge_cubes(j, &part, &inner);
		scratch_release(scratch, mark);
	}
	return r;
}

/* What a cube takes of what remains, in the one dimension in which it falls short. */
static int judge_taken(struct judging *j, const struct flow_box *rest, const struct frame *frame, uint32_t i, int d)
{
	const struct cube *cube = &j->policy->cubes[frame->cubes.items[i]];
	const struct spans *set = cube_spans(j, cube, d), *part = &rest->dim[d];
	struct frame later = *frame;
	struct flow_box taken = *rest;

	taken.dim[d].items = scratch_alloc(&j->space->scratch, (size_t)part->n + set->n, sizeof(struct span));
	if (!taken.dim[d].items)
		return -ENOMEM;
	taken.dim[d].n = spans_intersect_to(taken.dim[d].items, part, set);
	if (!cube->pass)
		return decided(j, &taken, frame, cube->rule);
	i = behind_tier(j, &frame->cubes, i);
	later.first = i < frame->cubes.n ? frame->cubes.items[i] : UINT32_MAX;
	return judge_cubes(j, &taken, &later);
}

/* In which dimensions a cube falls short of a box, as bits; negative if it does not meet it. */
static int shortfall(const struct judging *j, const struct flow_box *box, const struct cube *cube)
{
	int bits = 0;

	for (int d = 0; d < FLOW_DIMENSIONS; d++)
		switch (spans_relation_counted(&box->dim[d], cube_spans(j, cube, d), &j->space->work)) {
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

/* Do many cubes fall short in this one dimension, and none in another? Then one by one would cost their square. */
static bool one_dimension_left(struct judging *j, const struct flow_box *box, const struct cubes *cubes, uint32_t i,
			       int bits)
{
	if (cubes->n - i < MANY_CUBES)
		return false;
	j->space->work += cubes->n - i;
	for (; i < cubes->n; i++) {
		int other = shortfall(j, box, &j->policy->cubes[cubes->items[i]]);

		if (other > 0 && other & ~bits)
			return false;
	}
	return true;
}

static int judge_cubes(struct judging *j, const struct flow_box *box, const struct frame *frame)
{
	const struct cubes *cubes = &frame->cubes;
	struct remainder rest = {.box = *box};
	struct frame later = *frame;
	bool looked = false;
	int r = 0;

	for (uint32_t i = position_of(cubes, frame->first); i < cubes->n && r == 0;) {
		const struct cube *cube = &j->policy->cubes[cubes->items[i]];
		int bits = cube->directions & frame->direction ? shortfall(j, &rest.box, cube) : -1;
		struct scratch_mark mark;

		r = space_spend(j->space, 4, j->errorp);
		if (r)
			return r;
		if (bits < 0) {
			i++;
			continue;
		}
		if (!bits && !cube->pass)
			return decided(j, &rest.box, frame, cube->rule);
		if (!bits) {
			i = behind_tier(j, cubes, i);
			continue;
		}
		later.first = cubes->items[i];
		if (bits & (bits - 1))
			return judge_parts(j, &rest.box, &later, bits);
		if (!looked && one_dimension_left(j, &rest.box, cubes, i, bits))
			return judge_parts(j, &rest.box, &later, bits);
		looked = true;
		mark = scratch_mark(&j->space->scratch);
		r = judge_taken(j, &rest.box, frame, i, __builtin_ctz((unsigned)bits));
		scratch_release(&j->space->scratch, mark);
		if (r == 0)
			r = space_spend(j->space, rest.box.dim[__builtin_ctz((unsigned)bits)].n, j->errorp);
		if (r == 0 && !take_away(j, &rest, __builtin_ctz((unsigned)bits),
					 cube_spans(j, cube, __builtin_ctz((unsigned)bits))))
			r = -ENOMEM;
		i++;
	}
	return r ? r : decided(j, &rest.box, frame, FLOW_DEFAULT);
}

/* ---- boxes ---- */

static bool box_is_empty(const struct flow_box *box)
{
	for (int d = 0; d < FLOW_DIMENSIONS; d++)
		if (!box->dim[d].n)
			return true;
	return false;
}

/* The part of a box whose one end is in a set of who. Returns false when out of memory. */
static bool narrow(struct judging *j, struct flow_box *box, int d, const struct spans *who)
{
	const struct spans *part = &box->dim[d];
	struct span *items = scratch_alloc(&j->space->scratch, (size_t)part->n + who->n, sizeof(*items));

	if (!items)
		return false;
	box->dim[d] = (struct spans){items, spans_intersect_to(items, part, who)};
	return true;
}

/* The part of a box at which the ends that judge are these. */
static int judge_wanted(struct judging *j, const struct flow_box *whole, unsigned wanted)
{
	const struct flow_space *space = j->space;
	struct frame frame = {.direction = RULE_EGRESS};
	struct flow_box box = *whole;
	int r;

	if (!narrow(j, &box, FLOW_FROM_WHO, wanted & RULE_EGRESS ? &space->managed : &space->unmanaged) ||
	    !narrow(j, &box, FLOW_TO_WHO, wanted & RULE_INGRESS ? &space->managed : &space->unmanaged))
		return -ENOMEM;
	if (box_is_empty(&box))
		return 0;
	if (!wanted)
		return tell_piece(j, &box, FLOW_UNJUDGED, FLOW_UNJUDGED);
	j->wanted = wanted;
	r = find_cubes(j, &box, &frame.cubes);
	if (r)
		return r;
	if (wanted & RULE_EGRESS)
		return judge_cubes(j, &box, &frame);
	return judge_ingress(j, &box, &frame.cubes, FLOW_UNJUDGED);
}

int flow_space_judge(struct flow_space *space, size_t policy, const struct flow_box *box, flow_piece_fn piece,
		     void *context, char **errorp)
{
	static const unsigned ends[] = {RULE_EGRESS | RULE_INGRESS, RULE_EGRESS, RULE_INGRESS, 0};
	struct judging judging = {
		.space = space,
		.policy = &space->policies[policy],
		.errorp = errorp,
		.piece = piece,
		.context = context,
	};
	int r = 0;

	*errorp = NULL;
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]) && r == 0; i++) {
		struct scratch_mark mark = scratch_mark(&space->scratch);

		r = judge_wanted(&judging, box, ends[i]);
		scratch_release(&space->scratch, mark);
	}
	return r;
}
