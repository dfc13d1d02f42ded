/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/why.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/flow_space.h"

static void list_cleanup(struct list *list)
{
	list_free(list);
}

static void arena_cleanup(struct arena *arena)
{
	arena_free(arena);
}

static void remove_rule(struct list *rules, uint32_t rule)
{
	size_t kept = 0;

	for (size_t i = 0; i < rules->n; i++)
		if (rules->items[i] != rule)
			rules->items[kept++] = rules->items[i];
	rules->n = kept;
}

/* What if the deciding rule were not there? And if the next one that says the same were not there either? */
static int find_without(struct why_judgement *judgement, const struct policy *policy, struct list *rules)
{
	struct flow_decision decision = judgement->decision;

	while (decision.rule != FLOW_DEFAULT && decision.allow == judgement->decision.allow) {
		remove_rule(rules, decision.rule);
		if (flow_rules_decide(policy, rules, &decision, NULL) < 0)
			return -ENOMEM;
		judgement->has_without = true;
		if (decision.rule != FLOW_DEFAULT && decision.allow == judgement->decision.allow &&
		    list_push(&judgement->again, decision.rule) < 0)
			return -ENOMEM;
	}
	judgement->without = decision;
	return 0;
}

/* The rules that are left at a moment. */
static int keep_until(const struct policy *policy, const struct list *rules, int64_t now, struct list *left)
{
	left->n = 0;
	for (size_t i = 0; i < rules->n; i++) {
		const struct rule *rule = &policy->rules[rules->items[i]];

		if ((!rule->until || rule->until > now) && list_push(left, rules->items[i]) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* No rule begins later, so only the ends of those that match now can change anything. */
static int find_change(struct why_judgement *judgement, const struct policy *policy, const struct list *rules,
		       int64_t now)
{
	_cleanup_(list_cleanup) struct list left = {};

	for (;;) {
		int64_t next = 0;

		for (size_t i = 0; i < rules->n; i++) {
			int64_t until = policy->rules[rules->items[i]].until;

			if (until > now && (!next || until < next))
				next = until;
		}
		if (!next)
			return 0;
		now = next;
		if (keep_until(policy, rules, now, &left) < 0 ||
		    flow_rules_decide(policy, &left, &judgement->then, NULL) < 0)
			return -ENOMEM;
		if (judgement->then.rule != judgement->decision.rule) {
			judgement->changes = now;
			return 0;
		}
	}
}

static int judge(struct why_judgement *judgement, const struct flow_question *question, bool judged)
{
	_cleanup_(list_cleanup) struct list rules = {};

	judgement->judged = judged;
	if (!judged)
		return 0;
	if (flow_rules_matching(question, &rules) < 0 ||
	    flow_rules_decide(question->policy, &rules, &judgement->decision, &judgement->passes) < 0 ||
	    find_change(judgement, question->policy, &rules, question->now) < 0)
		return -ENOMEM;
	return find_without(judgement, question->policy, &rules);
}

int why_flow_find(struct why_flow *why, const struct policy *policy, const char *from, const char *to,
		  const char *service, int64_t now, char **errorp)
{
	_cleanup_(arena_cleanup) struct arena arena = {};
	struct flow_facts source, destination;
	struct flow_question question = {.policy = policy, .from = &source, .to = &destination, .now = now};
	struct flow_end from_end, to_end;

	*why = (struct why_flow){};
	*errorp = NULL;
	if (flow_end_parse(&from_end, from, errorp) || flow_end_parse(&to_end, to, errorp) ||
	    flow_service_parse(&question.point, service, errorp))
		return 1;
	if (flow_facts_find(&source, policy, &from_end, &arena) < 0 ||
	    flow_facts_find(&destination, policy, &to_end, &arena) < 0)
		return -ENOMEM;
	if (!source.known || !destination.known)
		return flow_error(errorp, "'%s' is no local identity (unit or cgroup) of the policy",
				  source.known ? to_end.id : from_end.id);
	question.direction = RULE_EGRESS;
	if (judge(&why->egress, &question, source.judges) < 0)
		return -ENOMEM;
	question.direction = RULE_INGRESS;
	return judge(&why->ingress, &question, destination.judges);
}

void why_flow_free(struct why_flow *why)
{
	list_free(&why->egress.passes);
	list_free(&why->egress.again);
	list_free(&why->ingress.passes);
	list_free(&why->ingress.again);
}
