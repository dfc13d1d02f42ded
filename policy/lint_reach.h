/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lint_reach.h - which rules never decide, and which rules leave them nothing?
 *
 * The flows of a rule are judged (flow_space.h) until one is found that the rule decides; if there is none, what decides
 * them instead is known too. Two things are done to the policy first. In the tier that is looked at `pass` is made to decide,
 * so that it is seen like any other rule; who gets a flow within the tier stays as it was. And everything is judged a second
 * time with the rules in reverse order: where the order within one tier, priority and action makes the difference, which it
 * does not for the verdict, a rule adds nothing to the others.
 */
#ifndef BULKHEAD_POLICY_LINT_REACH_H
#define BULKHEAD_POLICY_LINT_REACH_H

#include "policy/flow_space.h"

#define REACH_MAX_TAKERS 16U

/* What became of the flows of a rule, in one order. */
struct reach_order {
	bool decides;			   /* the rule does, of some of them */
	uint32_t takers[REACH_MAX_TAKERS]; /* else the rules that do, in order of the policy */
	uint32_t n_takers;
	bool more_takers; /* than fit */
};

struct reach {
	bool matches;		      /* some flow */
	struct reach_order orders[2]; /* as the rules stand, and in reverse */
};

/* Called for each rule that takes part, tier by tier. Returns 0 or an error that ends the search. */
typedef int (*reach_fn)(void *context, uint32_t rule, const struct reach *reach);

/* Looks at every rule. *budgetp counts down (flow_space_work). Returns 0; 1 with the reason in *errorp (owned by the caller) if it was spent,
 * or the policy is too complex; -ENOMEM; or what the callback returned. */
int reach_find(const struct policy *policy, int64_t now, uint64_t *budgetp, reach_fn found, void *context,
	       char **errorp);

#endif
