/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lint.h - what a valid policy says that its author cannot have meant. Every finding is exact: a rule that is said to never
 * decide has no flow, of whatever identity, address and service, that it would.
 *
 *   unused       no rule uses the name (found by policy_parse)
 *   expired      the rule's `until` has passed
 *   empty-set    nobody can be in the set, or match the rule
 *   unreachable  rules before it leave nothing for the rule, or nobody judges its flows
 *   shadowed     the same, by one rule
 *   redundant    other rules of the same tier, priority and action do all that the rule does
 *   audit-mode   a note: the rule lets pass what would be denied without the rules in audit mode
 *   incomplete   a note: the policy is too large to look at everything within the budget
 */
#ifndef BULKHEAD_POLICY_LINT_H
#define BULKHEAD_POLICY_LINT_H

#include "policy/policy.h"

/* Work (flow_space_work) to be done: some seconds. 10,000 rules need a fiftieth of it. */
#define POLICY_LINT_BUDGET 1000000000U
/* For a look on the side, as `check` takes it. */
#define POLICY_LINT_QUICK_BUDGET 30000000U

/* The codes, to list them and to check those that somebody wants disabled; NULL past the end. */
const char *policy_lint_code(size_t index);

/*
 * Adds warnings and notes, as of `now` (seconds since 1970), to the diagnostics that policy_parse made of the same sources.
 * Returns 0 or -ENOMEM.
 */
int policy_lint(const struct policy *policy, const struct policy_source *sources, int64_t now, uint64_t budget,
		struct policy_diagnostics *diagnostics);

#endif
