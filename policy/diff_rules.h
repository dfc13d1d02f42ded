/* SPDX-License-Identifier: Apache-2.0 */
/*
 * diff_rules.h - which rules of two policies are not in both?
 *
 * Rules are compared by meaning: the flows that they are about, in the classes that both policies share, their tier,
 * priority, action, directions and mode. Names, order, spelling and log do not count, and a rule that has ended is not
 * there. Two different keys may mean the same (a set of flows can be cut into boxes in several ways); that costs time, not
 * truth, because what follows compares verdicts.
 */
#ifndef BULKHEAD_POLICY_DIFF_RULES_H
#define BULKHEAD_POLICY_DIFF_RULES_H

#include "policy/flow_space.h"

struct diff_rules {
	bool *changed[2]; /* by policy and rule */
	size_t n_changed[2];
	bool default_changed; /* the default actions differ */
};

/* Memory is of the arena. Returns 0 or -ENOMEM. */
int diff_rules_find(struct diff_rules *rules, struct flow_space *space, const struct policy *const policies[2],
		    int64_t now, struct arena *arena);
/* Does the rule take part at that time? */
static inline bool diff_rule_is_active(const struct rule *rule, int64_t now)
{
	return !rule->until || rule->until > now;
}

#endif
