/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compile_ranks.c - the order in which rules decide, and what each says.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/compiler.h"
#include "policy/precedence.h"

uint32_t compile_log_bits(enum rule_log log)
{
	switch (log) {
	case RULE_LOG_NEW:
		return BH_CELL_LOG_ALLOWED | BH_CELL_LOG_DENIED;
	case RULE_LOG_DENIED:
		return BH_CELL_LOG_DENIED;
	case RULE_LOG_ALL:
		return BH_CELL_LOG_ALLOWED | BH_CELL_LOG_DENIED | BH_CELL_LOG_AGAIN;
	case RULE_LOG_NONE:
		break;
	}
	return 0;
}

static uint32_t cell_of_rule(const struct policy *policy, uint32_t number)
{
	const struct rule *rule = &policy->rules[number];
	uint32_t cell = (number + 1) | compile_log_bits(rule->log);

	switch (rule->action) {
	case RULE_ALLOW:
		return cell | BH_CELL_ALLOW;
	case RULE_PASS:
		return cell | BH_CELL_PASS;
	case RULE_DENY:
		break;
	}
	if (!rule->audit)
		return cell;
	/* What passes only by way of trial is told of, unless nothing at all is to be told. */
	if (rule->log != RULE_LOG_NONE)
		cell |= BH_CELL_LOG_ALLOWED | BH_CELL_LOG_DENIED;
	return cell | BH_CELL_ALLOW | BH_CELL_AUDIT;
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Before 1970 is as good as 1970. */
static uint64_t until_of(const struct rule *rule)
{
	return rule->until ? rule->until < 0 ? 0 : (uint64_t)rule->until : BH_FOREVER;
}

static int list_untils(struct compiler *c)
{
	const struct policy *policy = c->policy;
	uint32_t n = 1;

	c->untils = arena_array(&c->arena, policy->n_rules + 1, sizeof(*c->untils));
	if (!c->untils)
		return -ENOMEM;
	for (size_t i = 0; i < policy->n_rules; i++)
		if (policy->rules[i].until)
			c->untils[n++] = until_of(&policy->rules[i]);
	qsort(c->untils + 1, n - 1, sizeof(*c->untils), compare_u64);
	c->untils[0] = BH_FOREVER;
	c->n_untils = 1;
	for (uint32_t i = 1; i < n; i++)
		if (c->n_untils == 1 || c->untils[c->n_untils - 1] != c->untils[i])
			c->untils[c->n_untils++] = c->untils[i];
	return 0;
}

static uint32_t until_index(const struct compiler *c, const struct rule *rule)
{
	uint64_t until = until_of(rule), *found;

	if (!rule->until)
		return 0;
	found = bsearch(&until, c->untils + 1, c->n_untils - 1, sizeof(until), compare_u64);
	return (uint32_t)(found - c->untils);
}

static void rank_rule(struct ranked_rule *ranked, const struct rule *rule)
{
	*ranked = (struct ranked_rule){
		.services = rule->services,
		.n_services = rule->n_services,
		.tier = rule->tier,
		.action = rule->action,
		.directions = rule->directions,
		.until = rule->until,
	};
	if (rule->n_services != 1)
		return;
	ranked->only = rule->services[0];
	ranked->services = &ranked->only;
}

int compile_ranks(struct compiler *c)
{
	const struct policy *policy = c->policy;
	size_t n = policy->n_rules;

	if (policy->n_tiers > BH_MAX_TIERS)
		return compiler_too_large(c, "the policy has %u tiers, the limit is %u", policy->n_tiers, BH_MAX_TIERS);
	c->rule_of_rank = arena_array(&c->arena, n, sizeof(*c->rule_of_rank));
	c->rank_of_rule = arena_array(&c->arena, n, sizeof(*c->rank_of_rule));
	c->ranks = arena_array(&c->arena, n, sizeof(*c->ranks));
	c->ranked = arena_array(&c->arena, n, sizeof(*c->ranked));
	if (c->arena.out_of_memory || list_untils(c) < 0)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		c->rule_of_rank[i] = i;
	if (n)
		qsort_r(c->rule_of_rank, n, sizeof(*c->rule_of_rank), rule_number_precedence, (void *)policy);
	for (size_t i = n; i-- > 0;) {
		const struct rule *rule = &policy->rules[c->rule_of_rank[i]];
		bool last = i + 1 == n || policy->rules[c->rule_of_rank[i + 1]].tier != rule->tier;

		rank_rule(&c->ranked[i], rule);
		c->rank_of_rule[c->rule_of_rank[i]] = (uint32_t)i;
		c->ranks[i] = (struct bh_rank){
			.cell = cell_of_rule(policy, c->rule_of_rank[i]),
			.until = until_index(c, rule),
			.end = last ? (uint32_t)i + 1 : c->ranks[i + 1].end,
		};
	}
	return 0;
}
