/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/precedence.h"
#include "policy/lint_reach.h"

#define DECIDES 2 /* what the callback of a judging returns to end it */

struct search {
	const struct policy *policy;
	int64_t now;
	uint64_t *budgetp;
	char **errorp;
	struct flow_space *space; /* of the policy in both orders */
	uint32_t n_rules;

	/* what is being looked at */
	uint32_t rule;	     /* in the policy */
	size_t order;	     /* 0: as they stand; 1: in reverse */
	unsigned directions; /* of the rule */
	struct reach reach;
};

static uint32_t number_in(const struct search *search, size_t order, uint32_t rule)
{
	return order ? search->n_rules - 1 - rule : rule;
}

static int add_taker(struct reach_order *order, uint32_t rule)
{
	uint32_t at = 0;

	while (at < order->n_takers && order->takers[at] < rule)
		at++;
	if (at < order->n_takers && order->takers[at] == rule)
		return 0;
	if (order->n_takers == REACH_MAX_TAKERS) {
		order->more_takers = true;
		return 0;
	}
	memmove(&order->takers[at + 1], &order->takers[at], (order->n_takers - at) * sizeof(uint32_t));
	order->takers[at] = rule;
	order->n_takers++;
	return 0;
}

/* A judgement in which the rule takes part. */
static int look_at(struct search *search, uint32_t decider)
{
	if (decider >= search->n_rules) /* FLOW_UNJUDGED; no default, as the rule matches */
		return 0;
	decider = number_in(search, search->order, decider);
	if (decider == search->rule) {
		search->reach.orders[search->order].decides = true;
		return DECIDES;
	}
	return add_taker(&search->reach.orders[search->order], decider);
}

static int look_at_piece(void *context, const struct flow_piece *piece)
{
	struct search *search = context;
	int r = 0;

	if (search->directions & RULE_EGRESS)
		r = look_at(search, piece->egress_rule);
	if (r == 0 && search->directions & RULE_INGRESS)
		r = look_at(search, piece->ingress_rule);
	return r;
}

static int look_at_order(struct search *search, size_t order)
{
	struct flow_box *boxes;
	size_t n;
	int r = flow_space_select_rule(search->space, order, number_in(search, order, search->rule), &boxes, &n);

	search->order = order;
	search->reach.matches = n > 0;
	for (size_t i = 0; i < n && r == 0; i++)
		r = flow_space_judge(search->space, order, &boxes[i], look_at_piece, search, search->errorp);
	return r == DECIDES ? 0 : r;
}

static int look_at_rule(struct search *search, uint32_t rule, reach_fn found, void *context)
{
	int r;

	search->rule = rule;
	search->directions = search->policy->rules[rule].directions;
	search->reach = (struct reach){};
	r = look_at_order(search, 0);
	if (r == 0)
		r = look_at_order(search, 1);
	return r ? r : found(context, rule, &search->reach);
}

/* ---- the policy as it is judged ---- */

static int compare_levels(const void *a, const void *b, void *context)
{
	const struct rule *rules = context;

	return rule_precedence(&rules[*(const uint32_t *)a], &rules[*(const uint32_t *)b]);
}

/* Makes every rule of a tier decide, at a priority of its own for each priority, action and mode that there is. */
static int make_deciding(struct rule *rules, size_t n, uint32_t tier, struct arena *arena)
{
	uint32_t *members = arena_array(arena, n, sizeof(*members));
	size_t n_members = 0;
	int32_t *levels = arena_array(arena, n, sizeof(*levels)), level = 0;

	if (!members || !levels)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (rules[i].tier == tier)
			members[n_members++] = (uint32_t)i;
	if (n_members)
		qsort_r(members, n_members, sizeof(*members), compare_levels, rules);
	for (size_t i = 0; i < n_members; i++) {
		level += i && compare_levels(&members[i - 1], &members[i], rules) != 0;
		levels[members[i]] = level;
	}
	for (size_t i = 0; i < n_members; i++) {
		rules[members[i]].priority = levels[members[i]];
		rules[members[i]].action = RULE_DENY;
		rules[members[i]].audit = false;
	}
	return 0;
}

static struct rule *copy_rules(const struct policy *policy, bool reverse, struct arena *arena)
{
	struct rule *rules = arena_array(arena, policy->n_rules, sizeof(*rules));

	for (size_t i = 0; i < policy->n_rules && rules; i++)
		rules[reverse ? policy->n_rules - 1 - i : i] = policy->rules[i];
	return rules;
}

static bool has_pass(const struct policy *policy, uint32_t tier)
{
	for (size_t i = 0; i < policy->n_rules; i++)
		if (policy->rules[i].tier == tier && policy->rules[i].action == RULE_PASS)
			return true;
	return false;
}

static void arena_cleanup(struct arena *arena)
{
	arena_free(arena);
}

/* Looks at the rules of one tier, or, without one, of every tier that has no `pass`. */
static int look_at_tier(struct search *search, const uint32_t *tier, const bool *passing, reach_fn found, void *context)
{
	_cleanup_(arena_cleanup) struct arena arena = {};
	_cleanup_(flow_space_freep) struct flow_space *space = NULL;
	const struct policy *policy = search->policy;
	struct policy orders[2] = {*policy, *policy};
	const struct policy *const policies[] = {&orders[0], &orders[1]};
	uint64_t work;
	int r = 0;

	for (size_t i = 0; i < 2 && r == 0; i++) {
		orders[i].rules = copy_rules(policy, i == 1, &arena);
		if (!orders[i].rules)
			return -ENOMEM;
		if (tier)
			r = make_deciding(orders[i].rules, policy->n_rules, *tier, &arena);
	}
	if (r == 0)
		r = flow_space_new(&space, policies, 2, search->now, search->errorp);
	if (r)
		return r;
	flow_space_limit(space, *search->budgetp);
	search->space = space;
	for (uint32_t i = 0; i < policy->n_rules && r == 0; i++) {
		const struct rule *rule = &policy->rules[i];

		if ((rule->until && rule->until <= search->now) || (tier ? rule->tier != *tier : passing[rule->tier]))
			continue;
		r = look_at_rule(search, i, found, context);
	}
	work = flow_space_work(space);
	*search->budgetp -= work < *search->budgetp ? work : *search->budgetp;
	return r;
}

int reach_find(const struct policy *policy, int64_t now, uint64_t *budgetp, reach_fn found, void *context,
	       char **errorp)
{
	_cleanup_(arena_cleanup) struct arena arena = {};
	struct search search = {.policy = policy,
				.now = now,
				.budgetp = budgetp,
				.errorp = errorp,
				.n_rules = (uint32_t)policy->n_rules};
	bool *passing = arena_array(&arena, policy->n_tiers, sizeof(bool));
	int r = 0;

	*errorp = NULL;
	if (!passing)
		return -ENOMEM;
	for (uint32_t tier = 0; tier < policy->n_tiers; tier++)
		passing[tier] = has_pass(policy, tier);
	r = look_at_tier(&search, NULL, passing, found, context);
	for (uint32_t tier = 0; tier < policy->n_tiers && r == 0; tier++)
		if (passing[tier])
			r = look_at_tier(&search, &tier, passing, found, context);
	return r;
}
