/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow_rules.h - one flow asked of the model: which rules are about it, and in which order they have their say.
 *
 * The compiled tables know who decides, and nothing else. Whoever wants to know what would decide otherwise, or how near
 * a rule came, asks here: every rule is looked at, as the language defines it.
 */
#ifndef BULKHEAD_POLICY_FLOW_RULES_H
#define BULKHEAD_POLICY_FLOW_RULES_H

#include "policy/flow_end.h"
#include "policy/model.h"

/* One end of a flow in the words of a policy. */
struct flow_facts {
	bool atoms[WHO_IDENTITY];
	bool *identities; /* by index: is it in this one? */
	bool *networks;
	bool judges; /* a workload: its end has a judgement */
	bool known;  /* false: the name of a local identity that the policy does not have */
};

/* `arena` holds what is found. Returns 0 or -ENOMEM. */
int flow_facts_find(struct flow_facts *facts, const struct policy *policy, const struct flow_end *end,
		    struct arena *arena);

bool network_has(const struct network *network, address a);

#define RULE_DIFFERS_FROM 1U
#define RULE_DIFFERS_TO 2U
#define RULE_DIFFERS_SERVICE 4U
#define RULE_DIFFERS_DIRECTION 8U
#define RULE_DIFFERS_TIME 16U /* its `until` has passed */

struct flow_question {
	const struct policy *policy;
	const struct flow_facts *from;
	const struct flow_facts *to;
	uint32_t point;	    /* service.h */
	unsigned direction; /* RULE_EGRESS or RULE_INGRESS: the judgement */
	int64_t now;	    /* seconds since 1970 */
};

/* What keeps a rule from being about the flow; 0: nothing does. */
unsigned flow_rule_differs(const struct flow_question *question, uint32_t rule);
/* Appends the indices of all rules about the flow, in order of precedence. Returns 0 or -ENOMEM. */
int flow_rules_matching(const struct flow_question *question, struct list *rules);

struct flow_decision {
	uint32_t rule; /* index, or FLOW_DEFAULT (flow_space.h) */
	bool allow;
	bool audit; /* allowed only because the deny is in audit mode */
};

/* Who decides among rules in order of precedence. If `passes` is not NULL, the rules that leave it to the next tier on the
 * way are appended to it. Returns 0 or -ENOMEM. */
int flow_rules_decide(const struct policy *policy, const struct list *rules, struct flow_decision *decision,
		      struct list *passes);

#endif
