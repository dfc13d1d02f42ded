/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/precedence.h"

static bool is_trial(const struct rule *rule)
{
	return rule->action == RULE_DENY && rule->audit;
}

int rule_precedence(const struct rule *a, const struct rule *b)
{
	if (a->tier != b->tier)
		return a->tier < b->tier ? -1 : 1;
	if (a->priority != b->priority)
		return a->priority < b->priority ? -1 : 1;
	if (a->action != b->action)
		return a->action < b->action ? -1 : 1;
	return is_trial(a) - is_trial(b);
}

int rule_number_precedence(const void *a, const void *b, void *context)
{
	const struct policy *policy = context;
	uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
	int order = rule_precedence(&policy->rules[i], &policy->rules[j]);

	return order ? order : (i > j) - (i < j);
}
