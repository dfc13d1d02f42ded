/* SPDX-License-Identifier: Apache-2.0 */
/*
 * judge.c - one flow, one policy, every rule in turn.
 */
#include <string.h>

#include "tests/reference/reference.h"

/* Does an ID match a pattern? By taking both apart at their first slash. */
static bool pattern_matches(const char *pattern, const char *id)
{
	const char *pattern_rest = strchr(pattern, '/'), *id_rest = strchr(id, '/');
	size_t n = pattern_rest ? (size_t)(pattern_rest - pattern) : strlen(pattern);
	size_t m = id_rest ? (size_t)(id_rest - id) : strlen(id);

	if (n == 2 && strncmp(pattern, "**", 2) == 0)
		return true;
	if (!(n == 1 && pattern[0] == '*') && !(n == m && strncmp(pattern, id, n) == 0))
		return false;
	if (!pattern_rest || !id_rest)
		return !pattern_rest && !id_rest;
	return pattern_matches(pattern_rest + 1, id_rest + 1);
}

static bool id_matches(const char *pattern, const struct ref_end *end)
{
	return end->kind == REF_SPIFFE && pattern_matches(pattern + strlen("spiffe://"), end->id + strlen("spiffe://"));
}

static bool set_has(const struct ref_policy *policy, const struct ref_set *set, const struct ref_end *end)
{
	switch (set->op) {
	case REF_PATTERN:
		return id_matches(set->pattern, end);
	case REF_NAME:
		return ref_identity_has(policy, set->identity, end);
	case REF_VERIFIED:
		return end->kind == REF_SPIFFE;
	case REF_ANY_OF:
		for (int i = 0; i < set->n; i++)
			if (set_has(policy, set->operands[i], end))
				return true;
		return false;
	case REF_ALL_OF:
		for (int i = 0; i < set->n; i++)
			if (!set_has(policy, set->operands[i], end))
				return false;
		return true;
	case REF_NOT:
		return (end->kind == REF_SPIFFE || end->kind == REF_LOCAL) && !set_has(policy, set->operands[0], end);
	}
	return false;
}

bool ref_identity_has(const struct ref_policy *policy, int number, const struct ref_end *end)
{
	const struct ref_identity *identity = &policy->identities[number];

	if (identity->set)
		return set_has(policy, identity->set, end);
	if (end->kind == REF_LOCAL)
		return end->local == number;
	for (int i = 0; i < identity->n_patterns; i++)
		if (id_matches(identity->patterns[i], end))
			return true;
	return false;
}

static bool cidr_has(const struct ref_cidr *cidr, const struct ref_end *end)
{
	if (cidr->v4 != end->v4)
		return false;
	for (int bit = 0; bit < cidr->prefix; bit++)
		if ((cidr->bytes[bit / 8] ^ end->address[bit / 8]) >> (7 - bit % 8) & 1)
			return false;
	return true;
}

bool ref_network_has(const struct ref_network *network, const struct ref_end *end)
{
	if (!end->has_address)
		return false;
	for (int i = 0; i < network->n_except; i++)
		if (cidr_has(&network->except[i], end))
			return false;
	for (int i = 0; i < network->n; i++)
		if (cidr_has(&network->cidrs[i], end))
			return true;
	return false;
}

static bool peer_has(const struct ref_policy *policy, const struct ref_peer *peer, const struct ref_end *end)
{
	switch (peer->kind) {
	case REF_PEER_IDENTITY:
		return ref_identity_has(policy, peer->index, end);
	case REF_PEER_NETWORK:
		return ref_network_has(&policy->networks[peer->index], end);
	case REF_PEER_SET:
		return set_has(policy, peer->set, end);
	case REF_PEER_BUILTIN:
		break;
	}
	switch (peer->index) {
	case REF_BUILTIN_ANY:
		return true;
	case REF_BUILTIN_VERIFIED:
		return end->kind == REF_SPIFFE;
	case REF_BUILTIN_UNIDENTIFIED:
		return end->kind == REF_UNIDENTIFIED;
	case REF_BUILTIN_HOST:
		return end->kind == REF_HOST;
	default:
		return end->kind == REF_WORLD;
	}
}

static bool selector_has(const struct ref_policy *policy, const struct ref_selector *selector,
			 const struct ref_end *end)
{
	bool who = false, where = false, asks_who = false, asks_where = false;

	for (int i = 0; i < selector->n; i++) {
		bool network = selector->peers[i].kind == REF_PEER_NETWORK;
		bool has = peer_has(policy, &selector->peers[i], end);

		*(network ? &where : &who) |= has;
		*(network ? &asks_where : &asks_who) = true;
	}
	if (!selector->pair)
		return who || where;
	return (who || !asks_who) && (where || !asks_where);
}

static bool service_has(const struct ref_service *service, const struct ref_flow *flow)
{
	return service->protocol == flow->protocol &&
	       (service->low < 0 || (flow->port >= service->low && flow->port <= service->high));
}

static bool rule_has_service(const struct ref_policy *policy, const struct ref_rule *rule, const struct ref_flow *flow)
{
	for (int i = 0; i < rule->n_services; i++)
		if (service_has(&rule->services[i], flow))
			return true;
	for (int i = 0; i < rule->n_service_names; i++) {
		const struct ref_service_name *name = &policy->services[rule->service_names[i]];

		for (int j = 0; j < name->n; j++)
			if (service_has(&name->items[j], flow))
				return true;
	}
	return !rule->n_services && !rule->n_service_names;
}

bool ref_rule_matches(const struct ref_policy *policy, const struct ref_rule *rule, int direction,
		      const struct ref_flow *flow, int64_t now)
{
	return (rule->direction & direction) && (!rule->until || now < rule->until) &&
	       rule_has_service(policy, rule, flow) && selector_has(policy, &rule->from, &flow->from) &&
	       selector_has(policy, &rule->to, &flow->to);
}

/* The rule of a tier that decides: of those with the lowest priority number the first that denies, else passes,
 * else allows. A denial that is enforced comes before one on trial. */
static int decide_tier(const struct ref_policy *policy, int tier, int direction, const struct ref_flow *flow,
		       int64_t now)
{
	int best = -1;

	for (int i = 0; i < policy->n_rules; i++) {
		const struct ref_rule *rule = &policy->rules[i], *other = best < 0 ? NULL : &policy->rules[best];

		if (rule->tier != tier || !ref_rule_matches(policy, rule, direction, flow, now))
			continue;
		if (!other || rule->priority < other->priority ||
		    (rule->priority == other->priority &&
		     (rule->action < other->action ||
		      (rule->action == REF_DENY && other->action == REF_DENY && !rule->audit && other->audit))))
			best = i;
	}
	return best;
}

struct ref_verdict ref_judge(const struct ref_policy *policy, int direction, const struct ref_flow *flow, int64_t now)
{
	struct ref_verdict verdict = {.allow = policy->default_allow, .log = policy->default_log};
	int64_t until = 0;

	for (int tier = 0; tier < policy->n_tiers; tier++) {
		int number = decide_tier(policy, tier, direction, flow, now);
		const struct ref_rule *rule = &policy->rules[number < 0 ? 0 : number];

		if (number < 0)
			continue;
		if (rule->until && (!until || rule->until < until))
			until = rule->until;
		if (rule->action == REF_PASS)
			continue;
		verdict.rule = number + 1;
		verdict.audit = rule->action == REF_DENY && rule->audit;
		verdict.allow = rule->action == REF_ALLOW || verdict.audit;
		if (rule->log != REF_LOG_UNSAID)
			verdict.log = rule->log;
		break;
	}
	verdict.until = until;
	return verdict;
}
