/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compile_possible.c - the rules of the judgements.
 *
 * Egress and ingress have those of the policy. The third judgement asks: can any egress rule allow this subject to reach that
 * address and service, whoever answers there? The connect hooks answer EPERM at once where it says no, so it must never say
 * no to what a packet might be allowed. Known are the subject's identity, and the destination's address. So what asks for
 * more, the source's address or the destination's identity, may match: a rule that allows counts as if it did. One that denies
 * counts only where it must match, for ever, and nothing may have left its tier before it. A pass counts for nothing.
 */
#include <errno.h>
#include <string.h>

#include "policy/compiler.h"

int compile_candidates(struct compiler *c)
{
	const struct policy *policy = c->policy;
	struct judgements *verdicts = &c->verdicts;
	int r = 0;

	*verdicts = (struct judgements){
		.n = 2,
		.candidates = arena_array(&c->arena, policy->n_rules, sizeof(struct candidate)),
		.n_candidates = policy->n_rules,
		.from = &c->sides[BH_SIDE_FROM],
		.to = &c->sides[BH_SIDE_TO],
	};
	if (!verdicts->candidates)
		return -ENOMEM;
	verdicts->from->n_who = verdicts->to->n_who = c->n_who;
	for (uint32_t rank = 0; rank < policy->n_rules && r == 0; rank++) {
		const struct rule *rule = &policy->rules[c->rule_of_rank[rank]];
		struct candidate *candidate = &verdicts->candidates[rank];

		candidate->rank = rank;
		r = side_select(c, verdicts->from, &rule->from, candidate->from);
		if (r == 0)
			r = side_select(c, verdicts->to, &rule->to, candidate->to);
	}
	return r;
}

/* What a selector says when only who, or only the address is known (`keep_who`). `may`: the rest is taken to match; else
 * terms that ask for more are left out. Its terms stand in `out`, as long as the selector's. */
static void project(struct selector *out, const struct selector *selector, bool keep_who, bool may)
{
	out->n_terms = 0;
	for (uint32_t i = 0; i < selector->n_terms; i++) {
		struct selector_term term = selector->terms[i];

		if (!may && (keep_who ? term.n_networks : term.n_who))
			continue;
		if (keep_who)
			term.n_networks = 0;
		else
			term.n_who = 0;
		if (keep_who ? !term.n_who : !term.n_networks) {
			/* It asks nothing any more. */
			out->terms[0] = term;
			out->n_terms = 1;
			return;
		}
		out->terms[out->n_terms++] = term;
	}
}

/* Can the rule be left out of the judgement? */
static bool counts(const struct compiler *c, uint32_t rank, bool passed)
{
	const struct rule *rule = &c->policy->rules[c->rule_of_rank[rank]];

	if (!(rule->directions & RULE_EGRESS) || rule->action == RULE_PASS)
		return false;
	return c->ranks[rank].cell & BH_CELL_ALLOW || (!rule->until && !passed);
}

static size_t longest_selector(const struct policy *policy)
{
	size_t longest = 0;

	for (size_t i = 0; i < policy->n_rules; i++) {
		if (policy->rules[i].from.n_terms > longest)
			longest = policy->rules[i].from.n_terms;
		if (policy->rules[i].to.n_terms > longest)
			longest = policy->rules[i].to.n_terms;
	}
	return longest;
}

static int add_candidate(struct compiler *c, uint32_t rank, struct selector *scratch)
{
	struct judgements *possible = &c->possible;
	struct candidate *candidate = &possible->candidates[possible->n_candidates];
	const struct rule *rule = &c->policy->rules[c->rule_of_rank[rank]];
	bool may = c->ranks[rank].cell & BH_CELL_ALLOW;
	int r;

	candidate->rank = rank;
	project(scratch, &rule->from, true, may);
	if (!scratch->n_terms)
		return 0;
	r = side_select(c, possible->from, scratch, candidate->from);
	if (r)
		return r;
	project(scratch, &rule->to, false, may);
	if (!scratch->n_terms)
		return 0;
	r = side_select(c, possible->to, scratch, candidate->to);
	if (r == 0)
		possible->n_candidates++;
	return r;
}

int compile_possible(struct compiler *c)
{
	const struct policy *policy = c->policy;
	struct judgements *possible = &c->possible;
	struct selector scratch = {
		.terms = arena_array(&c->arena, longest_selector(policy) + 1, sizeof(struct selector_term))};
	uint32_t passed_tier = NO_PART;
	int r = 0;

	*possible = (struct judgements){
		.n = 1,
		.first_only = true,
		.candidates = arena_array(&c->arena, policy->n_rules, sizeof(struct candidate)),
		.from = &c->sides[BH_SIDE_POSSIBLE_FROM],
		.to = &c->sides[BH_SIDE_POSSIBLE_TO],
	};
	if (!possible->candidates || !scratch.terms)
		return -ENOMEM;
	possible->from->n_who = c->n_who;
	/* Nobody in particular. */
	possible->to->n_who = 1;
	for (uint32_t rank = 0; rank < policy->n_rules && r == 0; rank++) {
		const struct rule *rule = &policy->rules[c->rule_of_rank[rank]];

		if (rule->action == RULE_PASS && rule->directions & RULE_EGRESS)
			passed_tier = rule->tier;
		if (counts(c, rank, passed_tier == rule->tier))
			r = add_candidate(c, rank, &scratch);
	}
	return r;
}
