/* SPDX-License-Identifier: Apache-2.0 */
/*
 * diff.c - judging what rules that changed are about, by both policies.
 *
 * Rules overlap, but no flow may be counted twice. So every flow that changes verdict has one owner: the first of the rules
 * that decide it (new egress, new ingress, old egress, old ingress) that is not in both policies, else the default if that
 * changed. Judging the flows of a rule keeps those that it owns. What no decider explains is the work of a `pass` that came
 * or went: it is owned by the first such rule that is about it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/diff.h"
#include "policy/diff_boxes.h"
#include "policy/diff_rules.h"
#include "policy/diff_text.h"

#define OLD 0U
#define NEW 1U

/* Bounds on work: so many parts are looked at, so many that differ are kept. Far beyond what anybody reads. */
#define MAX_PARTS 2000000U
#define MAX_CHANGES 200000U
#define MAX_SET_BYTES (128U << 20)

#define NO_RULE 0xfffffffdU

/* How a policy judges a box that it judges the same everywhere. */
struct part {
	uint32_t egress, ingress; /* what decides */
	bool egress_allow, ingress_allow;
};

struct differ {
	struct flow_space *space;
	const struct policy *policies[2];
	struct diff_rules rules;
	struct diff_boxes *changes;
	size_t n_parts;
	char *why; /* the budget was spent */

	/* what is being looked at */
	size_t side;   /* policy of `rule` */
	uint32_t rule; /* FLOW_DEFAULT: where no rule decides */
	bool pass;
	struct flow_box **pass_boxes; /* of changed pass rules before it */
	size_t *n_pass_boxes;
	size_t n_pass, pass_capacity;
	const struct part *part; /* as the policy of the rule judges it */
};

static int out_of_budget(struct differ *differ)
{
	if (!differ->why)
		differ->why = strdup("they differ in too many places to list them all");
	return differ->why ? 1 : -ENOMEM;
}

/* ---- one change ---- */

static int add_change(struct differ *differ, const struct flow_box *box, const struct part *old, const struct part *new)
{
	bool allow = new->egress_allow &&new->ingress_allow;
	const struct part *denies = allow ? old : new;
	struct diff_box change;
	uint32_t by[2], before[2];
	size_t n = 0;

	if (differ->changes->n >= MAX_CHANGES)
		return out_of_budget(differ);
	/* Of interest are the ends that deny in the one policy and do not in the other. */
	if (!denies->egress_allow) {
		by[n] = new->egress;
		before[n++] = old->egress;
	}
	if (!denies->ingress_allow) {
		by[n] = new->ingress;
		before[n++] = old->ingress;
	}
	if (diff_box_read(differ->changes, &change, box) < 0 || diff_rule_set(differ->changes, &change.by, by, n) < 0 ||
	    diff_rule_set(differ->changes, &change.before, before, n) < 0)
		return -ENOMEM;
	change.allow = allow;
	return diff_boxes_add(differ->changes, &change);
}

static bool is_changed(const struct differ *differ, size_t policy, uint32_t rule)
{
	return rule < differ->policies[policy]->n_rules && differ->rules.changed[policy][rule];
}

/* The owner among the deciders; its policy in *sidep. */
static uint32_t find_owner(const struct differ *differ, const struct part *old, const struct part *new, size_t *sidep)
{
	const struct {
		size_t side;
		uint32_t rule;
	} deciders[] = {{NEW, new->egress}, {NEW, new->ingress}, {OLD, old->egress}, {OLD, old->ingress}};

	for (size_t i = 0; i < 4; i++)
		if (is_changed(differ, deciders[i].side, deciders[i].rule)) {
			*sidep = deciders[i].side;
			return deciders[i].rule;
		}
	/* The old policy's default before the new one's: where it is both, it is counted once. */
	for (size_t i = 4; i-- > 0 && differ->rules.default_changed;)
		if (deciders[i].rule == FLOW_DEFAULT) {
			*sidep = deciders[i].side;
			return FLOW_DEFAULT;
		}
	return NO_RULE;
}

/* ---- what pass rules before this one have not accounted for ---- */

/* Cuts `box` into the parts outside of `hole`, which do not overlap. Appends them. */
static int cut(struct flow_space *space, const struct flow_box *box, const struct flow_box *hole,
	       struct flow_box **outp, size_t *np, size_t *capacityp)
{
	struct flow_box rest = *box, outside;

	for (size_t d = 0; d < FLOW_DIMENSIONS; d++) {
		struct spans inside;

		if (!spans_intersect(space, &inside, &box->dim[d], &hole->dim[d]))
			return -ENOMEM;
		if (inside.n)
			continue;
		/* They do not meet. */
		if (array_grow(outp, capacityp, *np, sizeof(**outp)) < 0)
			return -ENOMEM;
		(*outp)[(*np)++] = *box;
		return 0;
	}
	for (size_t d = 0; d < FLOW_DIMENSIONS; d++) {
		outside = rest;
		if (!spans_subtract(space, &outside.dim[d], &rest.dim[d], &hole->dim[d]) ||
		    !spans_intersect(space, &rest.dim[d], &rest.dim[d], &hole->dim[d]) ||
		    array_grow(outp, capacityp, *np, sizeof(**outp)) < 0)
			return -ENOMEM;
		if (outside.dim[d].n)
			(*outp)[(*np)++] = outside;
	}
	return 0;
}

static void free_boxes(struct flow_box **boxes)
{
	free(*boxes);
}

/* Adds what of a change is in none of the boxes of pass rules that were looked at before. */
static int add_unowned(struct differ *differ, const struct flow_box *box, const struct part *old,
		       const struct part *new)
{
	_cleanup_(free_boxes) struct flow_box *left = NULL;
	size_t n = 0, capacity = 0;
	int r = 0;

	if (array_grow(&left, &capacity, 0, sizeof(*left)) < 0)
		return -ENOMEM;
	left[n++] = *box;
	for (size_t i = 0; i < differ->n_pass; i++)
		for (size_t j = 0; j < differ->n_pass_boxes[i] && n; j++) {
			_cleanup_(free_boxes) struct flow_box *next = NULL;
			size_t n_next = 0, next_capacity = 0;
			struct flow_box *swap;

			for (size_t k = 0; k < n; k++)
				if (cut(differ->space, &left[k], &differ->pass_boxes[i][j], &next, &n_next,
					&next_capacity) < 0)
					return -ENOMEM;
			differ->n_parts += n;
			if (n_next > MAX_CHANGES || differ->n_parts > MAX_PARTS)
				return out_of_budget(differ);
			swap = left;
			left = next;
			next = swap;
			n = n_next;
			capacity = next_capacity;
		}
	for (size_t i = 0; i < n && r == 0; i++)
		r = add_change(differ, &left[i], old, new);
	return r;
}

static int remember_pass(struct differ *differ, struct flow_box *boxes, size_t n)
{
	size_t capacity = differ->pass_capacity;

	if (array_grow(&differ->pass_boxes, &differ->pass_capacity, differ->n_pass, sizeof(*differ->pass_boxes)) < 0 ||
	    array_grow(&differ->n_pass_boxes, &capacity, differ->n_pass, sizeof(*differ->n_pass_boxes)) < 0)
		return -ENOMEM;
	differ->pass_boxes[differ->n_pass] = boxes;
	differ->n_pass_boxes[differ->n_pass++] = n;
	return 0;
}

/* ---- judging ---- */

static int count_part(struct differ *differ)
{
	if (++differ->n_parts > MAX_PARTS || differ->changes->spans.bytes > MAX_SET_BYTES)
		return out_of_budget(differ);
	return 0;
}

/* By the other policy: what differs, and is not counted under another rule. */
static int compare_part(void *context, const struct flow_piece *piece)
{
	struct differ *differ = context;
	struct part other = {.egress = piece->egress_rule,
			     .ingress = piece->ingress_rule,
			     .egress_allow = piece->egress_allow,
			     .ingress_allow = piece->ingress_allow};
	const struct part *old = differ->side == OLD ? differ->part : &other;
	const struct part *new = differ->side == OLD ? &other : differ->part;
	size_t side = OLD;
	uint32_t owner;
	int r = count_part(differ);

	if (r || (old->egress_allow && old->ingress_allow) == (new->egress_allow &&new->ingress_allow))
		return r;
	owner = find_owner(differ, old, new, &side);
	if (differ->pass)
		return owner == NO_RULE ? add_unowned(differ, &piece->box, old, new) : 0;
	return owner == differ->rule && side == differ->side ? add_change(differ, &piece->box, old, new) : 0;
}

/* By the policy of the rule: what the rule decides, or may change by passing it on, is judged by the other policy too. */
static int judge_part(void *context, const struct flow_piece *piece)
{
	struct differ *differ = context;
	struct part part = {.egress = piece->egress_rule,
			    .ingress = piece->ingress_rule,
			    .egress_allow = piece->egress_allow,
			    .ingress_allow = piece->ingress_allow};
	int r = count_part(differ);

	if (r || (!differ->pass && part.egress != differ->rule && part.ingress != differ->rule))
		return r;
	differ->part = &part;
	return flow_space_judge(differ->space, differ->side == OLD ? NEW : OLD, &piece->box, compare_part, differ,
				&differ->why);
}

static int judge_boxes(struct differ *differ, const struct flow_box *boxes, size_t n)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		r = flow_space_judge(differ->space, differ->side, &boxes[i], judge_part, differ, &differ->why);
	return r;
}

static int judge_rules(struct differ *differ, size_t side, bool pass)
{
	int r = 0;

	for (size_t i = 0; i < differ->policies[side]->n_rules && r == 0; i++) {
		struct flow_box *boxes;
		size_t n;

		if (!differ->rules.changed[side][i] || (differ->policies[side]->rules[i].action == RULE_PASS) != pass)
			continue;
		r = flow_space_select_rule(differ->space, side, (uint32_t)i, &boxes, &n);
		if (r)
			return r;
		differ->side = side;
		differ->rule = (uint32_t)i;
		differ->pass = pass;
		r = judge_boxes(differ, boxes, n);
		if (r == 0 && pass)
			r = remember_pass(differ, boxes, n);
	}
	return r;
}

static int judge_default(struct differ *differ)
{
	struct flow_box *boxes;
	size_t n;
	int r = flow_space_everything(differ->space, &boxes, &n);

	if (r)
		return r;
	differ->rule = FLOW_DEFAULT;
	differ->pass = false;
	/* Where it decides in the old policy; then where it does in the new one only. */
	for (differ->side = OLD; differ->side <= NEW && r == 0; differ->side++)
		r = judge_boxes(differ, boxes, n);
	return r;
}

static int judge_all(struct differ *differ)
{
	int r = judge_rules(differ, NEW, false);

	if (r == 0)
		r = judge_rules(differ, OLD, false);
	if (r == 0)
		r = judge_rules(differ, NEW, true);
	if (r == 0)
		r = judge_rules(differ, OLD, true);
	if (r == 0 && differ->rules.default_changed)
		r = judge_default(differ);
	return r;
}

static void differ_free(struct differ *differ)
{
	free(differ->why);
	free(differ->pass_boxes);
	free(differ->n_pass_boxes);
}

static int find_changes(struct policy_diff *diff, const struct policy *const policies[2], int64_t now)
{
	_cleanup_(differ_free) struct differ differ = {
		.space = diff->space, .policies = {policies[0], policies[1]}, .changes = &diff->memory->changes};
	int r = diff_rules_find(&differ.rules, diff->space, policies, now, &diff->memory->arena);

	if (r < 0)
		return r;
	diff->n_removed = differ.rules.n_changed[OLD];
	diff->n_added = differ.rules.n_changed[NEW];
	diff->defaults_differ = differ.rules.default_changed;
	r = judge_all(&differ);
	if (r < 0 || (r && !differ.why))
		return r < 0 ? r : -ENOMEM;
	diff->complete = r == 0;
	diff->why = differ.why;
	differ.why = NULL;
	return diff_boxes_merge(&diff->memory->changes);
}

/* One allocation for what is seen and what it rests on. */
struct whole {
	struct policy_diff diff;
	struct diff_memory memory;
};

int policy_diff_new(struct policy_diff **diffp, const struct policy *old, const struct policy *new, int64_t now,
		    char **errorp)
{
	const struct policy *const policies[2] = {[OLD] = old, [NEW] = new};
	_cleanup_(policy_diff_freep) struct policy_diff *diff = NULL;
	struct whole *whole = calloc(1, sizeof(*whole));
	int r;

	*diffp = NULL;
	*errorp = NULL;
	if (!whole)
		return -ENOMEM;
	diff = &whole->diff;
	diff->memory = &whole->memory;
	r = flow_space_new(&diff->space, policies, 2, now, errorp);
	if (r == 0)
		r = find_changes(diff, policies, now);
	if (r == 0)
		r = diff_write_changes(diff, policies);
	if (r)
		return r;
	*diffp = diff;
	diff = NULL;
	return 0;
}

void policy_diff_freep(struct policy_diff **diffp)
{
	struct policy_diff *diff = *diffp;

	if (!diff)
		return;
	diff_boxes_free(&diff->memory->changes);
	arena_free(&diff->memory->arena);
	flow_space_freep(&diff->space);
	free(diff->why);
	free(diff);
	*diffp = NULL;
}
