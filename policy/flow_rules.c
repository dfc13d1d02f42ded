/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/flow_rules.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/flow_space.h"
#include "policy/precedence.h"

/* ---- ends ---- */

static bool in_base(const struct identity *identity, const struct flow_end *end, size_t len)
{
	if (end->kind == FLOW_END_NAME)
		return identity->n_places && strcmp(identity->name, end->id) == 0;
	for (uint32_t i = 0; end->kind == FLOW_END_SPIFFE && i < identity->n_patterns; i++)
		if (pattern_match(&identity->patterns[i], end->id, len))
			return true;
	return false;
}

static bool is_peer(const struct flow_facts *facts, uint32_t atom)
{
	return atom < WHO_IDENTITY ? facts->atoms[atom] : facts->identities[atom - WHO_IDENTITY];
}

static bool in_identity(const struct flow_facts *facts, const struct identity *identity, const struct flow_end *end,
			size_t len)
{
	bool proved = end->kind == FLOW_END_SPIFFE || end->kind == FLOW_END_NAME;
	uint32_t in = 0;

	for (uint32_t i = 0; i < identity->n_operands; i++)
		in += is_peer(facts, identity->operands[i]);
	switch (identity->op) {
	case IDENTITY_ANY:
		return in > 0;
	case IDENTITY_ALL:
		return proved && in == identity->n_operands;
	case IDENTITY_NOT:
		return proved && in == 0;
	case IDENTITY_BASE:
		break;
	}
	return in_base(identity, end, len);
}

bool network_has(const struct network *network, address a)
{
	for (uint32_t i = 0; i < network->n_ranges; i++) {
		const struct address_range *range = &network->ranges[i];

		if (range->v4 == address_is_v4(a) && a >= range->first && a <= range->last)
			return true;
	}
	return false;
}

int flow_facts_find(struct flow_facts *facts, const struct policy *policy, const struct flow_end *end,
		    struct arena *arena)
{
	size_t len = strlen(end->id);

	*facts = (struct flow_facts){
		.atoms = {[WHO_UNIDENTIFIED] = end->kind == FLOW_END_UNIDENTIFIED,
			  [WHO_HOST] = end->kind == FLOW_END_HOST,
			  [WHO_WORLD] = end->kind == FLOW_END_WORLD,
			  [WHO_VERIFIED] = end->kind == FLOW_END_SPIFFE},
		.judges = end->kind == FLOW_END_SPIFFE || end->kind == FLOW_END_NAME ||
			  end->kind == FLOW_END_UNIDENTIFIED,
		.known = end->kind != FLOW_END_NAME,
		.identities = arena_array(arena, policy->n_identities, sizeof(bool)),
		.networks = arena_array(arena, policy->n_networks, sizeof(bool)),
	};
	if (!facts->identities || !facts->networks)
		return -ENOMEM;
	for (size_t i = 0; i < policy->n_identities; i++) {
		uint32_t index = policy->identity_order[i]; /* operands before what is made of them */
		const struct identity *identity = &policy->identities[index];

		facts->identities[index] = in_identity(facts, identity, end, len);
		facts->known |= identity->op == IDENTITY_BASE && facts->identities[index];
	}
	for (size_t i = 0; end->has_address && i < policy->n_networks; i++)
		facts->networks[i] = network_has(&policy->networks[i], end->address);
	return 0;
}

/* ---- rules ---- */

static bool term_matches(const struct selector_term *term, const struct flow_facts *facts)
{
	bool who = !term->n_who, where = !term->n_networks;

	for (uint32_t i = 0; i < term->n_who && !who; i++)
		who = is_peer(facts, term->who[i]);
	for (uint32_t i = 0; i < term->n_networks && !where; i++)
		where = facts->networks[term->networks[i]];
	return who && where;
}

static bool selector_matches(const struct selector *selector, const struct flow_facts *facts)
{
	for (uint32_t i = 0; i < selector->n_terms; i++)
		if (term_matches(&selector->terms[i], facts))
			return true;
	return false;
}

static bool serves(const struct rule *rule, uint32_t point)
{
	uint32_t low = 0, high = rule->n_services;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (point > rule->services[middle].last)
			low = middle + 1;
		else
			high = middle;
	}
	return low < rule->n_services && point >= rule->services[low].first;
}

static bool has_ended(const struct rule *rule, int64_t now)
{
	return rule->until && rule->until <= now;
}

unsigned flow_rule_differs(const struct flow_question *question, uint32_t index)
{
	const struct rule *rule = &question->policy->rules[index];
	unsigned differs = 0;

	if (!serves(rule, question->point))
		differs |= RULE_DIFFERS_SERVICE;
	if (!selector_matches(&rule->from, question->from))
		differs |= RULE_DIFFERS_FROM;
	if (!selector_matches(&rule->to, question->to))
		differs |= RULE_DIFFERS_TO;
	if (!(rule->directions & question->direction))
		differs |= RULE_DIFFERS_DIRECTION;
	if (has_ended(rule, question->now))
		differs |= RULE_DIFFERS_TIME;
	return differs;
}

int flow_rules_matching(const struct flow_question *question, struct list *rules)
{
	const struct policy *policy = question->policy;
	size_t first = rules->n;

	for (uint32_t i = 0; i < policy->n_rules; i++) {
		const struct rule *rule = &policy->rules[i];

		/* In the order of what it costs to ask. */
		if (!(rule->directions & question->direction) || has_ended(rule, question->now) ||
		    !serves(rule, question->point) || !selector_matches(&rule->from, question->from) ||
		    !selector_matches(&rule->to, question->to))
			continue;
		if (list_push(rules, i) < 0)
			return -ENOMEM;
	}
	if (rules->n > first)
		qsort_r(rules->items + first, rules->n - first, sizeof(*rules->items), rule_number_precedence,
			(void *)policy);
	return 0;
}

int flow_rules_decide(const struct policy *policy, const struct list *rules, struct flow_decision *decision,
		      struct list *passes)
{
	for (size_t i = 0; i < rules->n;) {
		const struct rule *rule = &policy->rules[rules->items[i]];

		if (rule->action != RULE_PASS) {
			bool audit = rule->action == RULE_DENY && rule->audit;

			*decision = (struct flow_decision){rules->items[i], audit || rule->action == RULE_ALLOW, audit};
			return 0;
		}
		if (passes && list_push(passes, rules->items[i]) < 0)
			return -ENOMEM;
		while (i < rules->n && policy->rules[rules->items[i]].tier == rule->tier)
			i++;
	}
	*decision = (struct flow_decision){.rule = FLOW_DEFAULT, .allow = policy->default_allow};
	return 0;
}
