/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow_space_rules.c - the rules of a policy as cubes in their order of precedence, and who they are about.
 */
#include <errno.h>
#include <stdlib.h>

#include "policy/flow_space_internal.h"
#include "policy/precedence.h"

#define MAX_CUBES (4U << 20)
#define MAX_WHO_INDEX (8U << 20)

static bool takes_part(const struct rule *rule, int64_t now)
{
	return !rule->until || rule->until > now;
}

static int term_sets(struct flow_space *space, const struct space_policy *policy, const struct selector_term *term,
		     uint32_t *whop, uint32_t *wherep)
{
	struct spans who, where;

	if (!space_term_who(space, policy, term, &who) || !space_term_where(space, policy, term, &where) ||
	    space_intern(space, &who, whop) < 0 || space_intern(space, &where, wherep) < 0)
		return -ENOMEM;
	return 0;
}

static int add_cube(struct flow_space *space, struct space_policy *policy, const struct cube *cube, char **errorp)
{
	/* What can match nobody never decides. */
	for (int d = 0; d < FLOW_DIMENSIONS; d++)
		if (!space->set_spans[cube->set[d]].n)
			return 0;
	if (policy->n_cubes == MAX_CUBES)
		return flow_error(errorp,
				  "the policy is too complex for an exact answer: its rules pair more than %u lists",
				  MAX_CUBES);
	if (array_grow(&policy->cubes, &policy->cubes_capacity, policy->n_cubes, sizeof(*cube)) < 0)
		return -ENOMEM;
	policy->cubes[policy->n_cubes++] = *cube;
	return 0;
}

static int add_rule(struct flow_space *space, struct space_policy *policy, uint32_t index, char **errorp)
{
	const struct rule *rule = &policy->policy->rules[index];
	struct cube cube = {
		.rule = index,
		.tier = rule->tier,
		.directions = (uint8_t)rule->directions,
		.pass = rule->action == RULE_PASS,
	};
	struct spans services;
	int r = 0;

	if (!space_services(space, rule->services, rule->n_services, &services) ||
	    space_intern(space, &services, &cube.set[FLOW_SERVICE]) < 0)
		return -ENOMEM;
	for (uint32_t i = 0; i < rule->from.n_terms && r == 0; i++) {
		r = term_sets(space, policy, &rule->from.terms[i], &cube.set[FLOW_FROM_WHO],
			      &cube.set[FLOW_FROM_WHERE]);
		for (uint32_t j = 0; j < rule->to.n_terms && r == 0; j++) {
			r = term_sets(space, policy, &rule->to.terms[j], &cube.set[FLOW_TO_WHO],
				      &cube.set[FLOW_TO_WHERE]);
			if (r == 0)
				r = add_cube(space, policy, &cube, errorp);
		}
	}
	return r;
}

static int add_rules(struct flow_space *space, struct space_policy *policy, char **errorp)
{
	const struct policy *rules = policy->policy;
	uint32_t *ranked = arena_array(&space->arena, rules->n_rules, sizeof(*ranked));
	size_t n = 0;
	int r = 0;

	if (!ranked)
		return -ENOMEM;
	for (uint32_t i = 0; i < rules->n_rules; i++) {
		const struct rule *rule = &rules->rules[i];

		if (takes_part(rule, space->now))
			ranked[n++] = i;
	}
	if (n)
		qsort_r(ranked, n, sizeof(*ranked), rule_number_precedence, (void *)rules);
	for (size_t i = 0; i < n && r == 0; i++) {
		struct scratch_mark mark = scratch_mark(&space->scratch);

		r = add_rule(space, policy, ranked[i], errorp);
		/* Sets that are all different take memory, the others are one. */
		if (r == 0)
			r = space_spend(space, space->sets.bytes > COMPILER_MAX_SET_BYTES ? UINT64_MAX / 2 : 1, errorp);
		scratch_release(&space->scratch, mark);
	}
	return r;
}

/* ---- indices ---- */

static bool grouped_new(struct flow_space *space, struct grouped *grouped, size_t n, const uint32_t *counts)
{
	size_t total = 0;

	grouped->start = arena_array(&space->arena, n + 1, sizeof(uint32_t));
	for (size_t i = 0; i < n && grouped->start; i++) {
		grouped->start[i] = (uint32_t)total;
		total += counts[i];
	}
	if (grouped->start)
		grouped->start[n] = (uint32_t)total;
	grouped->items = arena_array(&space->arena, total, sizeof(uint32_t));
	return grouped->start && grouped->items;
}

static int index_cubes(struct flow_space *space, struct space_policy *policy, int side)
{
	enum flow_dimension d = side ? FLOW_TO_WHO : FLOW_FROM_WHO;
	struct grouped *grouped = &policy->cubes_of_set[side];
	uint32_t n = space->sets.n, *counts = scratch_alloc(&space->scratch, n, sizeof(*counts));

	if (!counts)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		counts[i] = 0;
	for (size_t i = 0; i < policy->n_cubes; i++)
		counts[policy->cubes[i].set[d]]++;
	for (uint32_t i = 0; i < n; i++)
		if (counts[i] && list_push(&policy->who_sets[side], i) < 0)
			return -ENOMEM;
	if (!grouped_new(space, grouped, n, counts))
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		counts[i] = grouped->start[i];
	for (size_t i = 0; i < policy->n_cubes; i++)
		grouped->items[counts[policy->cubes[i].set[d]]++] = (uint32_t)i;
	return 0;
}

static int index_who(struct flow_space *space, struct space_policy *policy, int side)
{
	const struct list *sets = &policy->who_sets[side];
	struct grouped *grouped = &policy->sets_of_who[side];
	uint32_t *counts = scratch_alloc(&space->scratch, space->n_who, sizeof(*counts));
	uint64_t total = 0;

	if (!counts)
		return -ENOMEM;
	for (uint32_t i = 0; i < space->n_who; i++)
		counts[i] = 0;
	for (size_t i = 0; i < sets->n; i++) {
		const struct spans *spans = &space->set_spans[sets->items[i]];

		for (uint32_t j = 0; j < spans->n; j++) {
			total += spans->items[j].last - spans->items[j].first + 1;
			if (total > MAX_WHO_INDEX)
				return 0;
			for (uint32_t who = spans->items[j].first; who <= spans->items[j].last; who++)
				counts[who]++;
		}
	}
	if (!grouped_new(space, grouped, space->n_who, counts))
		return -ENOMEM;
	for (uint32_t i = 0; i < space->n_who; i++)
		counts[i] = grouped->start[i];
	for (size_t i = 0; i < sets->n; i++) {
		const struct spans *spans = &space->set_spans[sets->items[i]];

		for (uint32_t j = 0; j < spans->n; j++)
			for (uint32_t who = spans->items[j].first; who <= spans->items[j].last; who++)
				grouped->items[counts[who]++] = sets->items[i];
	}
	return 0;
}

int space_prepare_rules(struct flow_space *space, struct space_policy *policy, char **errorp)
{
	struct scratch_mark mark = scratch_mark(&space->scratch);
	int r = add_rules(space, policy, errorp);

	for (int side = 0; side < 2 && r == 0; side++) {
		r = index_cubes(space, policy, side);
		if (r == 0)
			r = index_who(space, policy, side);
	}
	scratch_release(&space->scratch, mark);
	return r;
}
