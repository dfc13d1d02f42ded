/* SPDX-License-Identifier: Apache-2.0 */
/*
 * why.h - why a flow is judged as it is: who decided, on what way, and what would be if he did not.
 *
 * The verdict itself is the tables' (policy_explain()); these answers come from the model and agree with it.
 */
#ifndef BULKHEAD_POLICY_WHY_H
#define BULKHEAD_POLICY_WHY_H

#include "policy/flow_rules.h"

/* Other verdicts for the same flow, one judgement of it. */
struct why_judgement {
	bool judged; /* false: this end is outside any managed workload, nothing else is set */
	struct flow_decision decision;
	struct list passes; /* rules that left it to the next tier, in order */
	struct list again;  /* rules that would decide the same in turn, if those before them were not there */
	bool has_without;
	struct flow_decision without; /* what decides if neither the deciding rule nor those of `again` were there */
	int64_t changes;	      /* when a rule's `until` changes the decision; 0: it stays */
	struct flow_decision then;
};

struct why_flow {
	struct why_judgement egress;
	struct why_judgement ingress;
};

/* Returns 0; 1 with the reason in *errorp (owned by the caller) if an end or the service cannot be understood; or
 * -ENOMEM. */
int why_flow_find(struct why_flow *why, const struct policy *policy, const char *from, const char *to,
		  const char *service, int64_t now, char **errorp);
void why_flow_free(struct why_flow *why);

/*
 * For a flow that no rule decided: the allow rules that come closest in the given judgement and what keeps each from
 * matching, at most `max`, best first, as sentences such as
 *   "web-to-db (shop.yaml:12) allows it on tcp/5432, not tcp/22".
 * `to` NULL: the destination is not known, so it keeps no rule from matching. Written into `lines` (each owned by the
 * caller); returns how many, or -ENOMEM.
 */
int policy_closest(const struct policy *policy, const char *from, const char *to, const char *service, bool ingress,
		   int64_t now, char **lines, size_t max);

#endif
