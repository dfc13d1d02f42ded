/* SPDX-License-Identifier: Apache-2.0 */
/*
 * closest.c - which rule did the operator have in mind? For a flow that no rule decided: the allow rules that match it
 * in all but one or two respects, with what differs.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/flow_rules.h"
#include "policy/instant.h"
#include "policy/why.h"

/* ---- sentences ---- */

#define MAX_NAMES 3U

static const char *atom_name(const struct policy *policy, uint32_t atom)
{
	static const char *const names[] = {"unidentified", "host", "world", "verified"};

	return atom < WHO_IDENTITY ? names[atom] : policy->identities[atom - WHO_IDENTITY].name;
}

static void describe_term(const struct policy *policy, const struct selector_term *term, FILE *out)
{
	for (uint32_t i = 0; i < term->n_who && i <= MAX_NAMES; i++)
		fprintf(out, "%s%s", i ? ", " : "", i < MAX_NAMES ? atom_name(policy, term->who[i]) : "...");
	if (term->n_who && term->n_networks)
		fputs(" in ", out);
	for (uint32_t i = 0; i < term->n_networks && i <= MAX_NAMES; i++)
		fprintf(out, "%s%s", i ? ", " : "", i < MAX_NAMES ? policy->networks[term->networks[i]].name : "...");
}

static void describe_selector(const struct policy *policy, const struct selector *selector, FILE *out)
{
	for (uint32_t i = 0; i < selector->n_terms; i++) {
		if (i)
			fputs(" or ", out);
		describe_term(policy, &selector->terms[i], out);
	}
}

static void describe_services(const struct rule *rule, FILE *out)
{
	char text[64];

	for (uint32_t i = 0; i < rule->n_services && i <= MAX_NAMES; i++) {
		service_format(text, sizeof(text), rule->services[i]);
		fprintf(out, "%s%s", i ? ", " : "", i < MAX_NAMES ? text : "...");
	}
}

static char *describe(const struct policy *policy, const struct rule *rule, unsigned differs, const char *from,
		      const char *to, const char *service)
{
	const char *separator = "";
	char until[INSTANT_TEXT_BYTES];
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	fprintf(out, "%s (%s:%u) allows it ", rule->name, policy->source_names[rule->at.source], rule->at.line);
	if (differs & RULE_DIFFERS_FROM) {
		fputs("from ", out);
		describe_selector(policy, &rule->from, out);
		fprintf(out, ", not %s", from);
		separator = "; ";
	}
	if (differs & RULE_DIFFERS_TO) {
		fprintf(out, "%sto ", separator);
		describe_selector(policy, &rule->to, out);
		fprintf(out, ", not %s", to);
		separator = "; ";
	}
	if (differs & RULE_DIFFERS_SERVICE) {
		fprintf(out, "%son ", separator);
		describe_services(rule, out);
		fprintf(out, ", not %s", service);
		separator = "; ";
	}
	if (differs & RULE_DIFFERS_DIRECTION) {
		fprintf(out, "%sat %s only", separator, rule->directions == RULE_EGRESS ? "egress" : "ingress");
		separator = "; ";
	}
	if (differs & RULE_DIFFERS_TIME) {
		instant_format(until, rule->until);
		fprintf(out, "%suntil %s, which has passed", separator, until);
	}
	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

static void arena_cleanup(struct arena *arena)
{
	arena_free(arena);
}

int policy_closest(const struct policy *policy, const char *from, const char *to, const char *service, bool ingress,
		   int64_t now, char **lines, size_t max)
{
	_cleanup_(arena_cleanup) struct arena arena = {};
	struct flow_facts source, destination;
	struct flow_question question = {
		.policy = policy,
		.from = &source,
		.to = &destination,
		.direction = ingress ? RULE_INGRESS : RULE_EGRESS,
		.now = now,
	};
	struct flow_end from_end, to_end;
	char *error = NULL;
	size_t n = 0;

	if (flow_end_parse(&from_end, from, &error) || flow_end_parse(&to_end, to ? to : "world", &error) ||
	    flow_service_parse(&question.point, service, &error)) {
		free(error);
		return 0;
	}
	if (flow_facts_find(&source, policy, &from_end, &arena) < 0 ||
	    flow_facts_find(&destination, policy, &to_end, &arena) < 0)
		return -ENOMEM;
	for (int wanted = 1; wanted <= 2; wanted++)
		for (uint32_t i = 0; i < policy->n_rules && n < max; i++) {
			const struct rule *rule = &policy->rules[i];
			unsigned differs;

			if (rule->action != RULE_ALLOW)
				continue;
			differs = flow_rule_differs(&question, i);
			if (!to)
				differs &= ~RULE_DIFFERS_TO;
			/* A rule about two other peers is no near miss. */
			if (__builtin_popcount(differs) != wanted ||
			    (differs & (RULE_DIFFERS_FROM | RULE_DIFFERS_TO)) == (RULE_DIFFERS_FROM | RULE_DIFFERS_TO))
				continue;
			lines[n] = describe(policy, rule, differs, from, to, service);
			if (!lines[n]) {
				while (n)
					free(lines[--n]);
				return -ENOMEM;
			}
			n++;
		}
	return (int)n;
}
