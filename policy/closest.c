/* SPDX-License-Identifier: Apache-2.0 */
/*
 * closest.c - which rule did the operator have in mind? For a flow that no rule decided: the allow rules that match it
 * in all but one or two respects, with what differs.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/flow_end.h"
#include "policy/model.h"

#define DIFFERS_FROM 1U
#define DIFFERS_TO 2U
#define DIFFERS_SERVICE 4U
#define DIFFERS_DIRECTION 8U

/* What one end is: the atoms and networks that match it. */
struct matches {
	bool atoms[WHO_IDENTITY];
	bool *identities;
	bool *networks;
};

static void find_identities(const struct policy *policy, const struct flow_end *end, struct matches *matches)
{
	size_t len = strlen(end->id);

	for (size_t i = 0; i < policy->n_identities; i++) {
		const struct identity *identity = &policy->identities[i];

		if (end->kind == FLOW_END_NAME)
			matches->identities[i] = identity->n_places && strcmp(identity->name, end->id) == 0;
		for (uint32_t j = 0; end->kind == FLOW_END_SPIFFE && j < identity->n_patterns; j++)
			matches->identities[i] |= pattern_match(&identity->patterns[j], end->id, len);
	}
}

static int matches_find(const struct policy *policy, const struct flow_end *end, struct arena *arena,
			struct matches *matches)
{
	matches->identities = arena_array(arena, policy->n_identities, sizeof(bool));
	matches->networks = arena_array(arena, policy->n_networks, sizeof(bool));
	if (!matches->identities || !matches->networks)
		return -ENOMEM;
	matches->atoms[WHO_UNIDENTIFIED] = end->kind == FLOW_END_UNIDENTIFIED;
	matches->atoms[WHO_HOST] = end->kind == FLOW_END_HOST;
	matches->atoms[WHO_WORLD] = end->kind == FLOW_END_WORLD;
	matches->atoms[WHO_VERIFIED] = end->kind == FLOW_END_SPIFFE;
	find_identities(policy, end, matches);
	for (size_t i = 0; end->has_address && i < policy->n_networks; i++)
		for (uint32_t j = 0; j < policy->networks[i].n_ranges; j++) {
			const struct address_range *range = &policy->networks[i].ranges[j];

			matches->networks[i] |= range->v4 == address_is_v4(end->address) &&
						end->address >= range->first && end->address <= range->last;
		}
	return 0;
}

static bool term_matches(const struct selector_term *term, const struct matches *matches)
{
	bool who = !term->n_who, where = !term->n_networks;

	for (uint32_t i = 0; i < term->n_who && !who; i++)
		who = term->who[i] < WHO_IDENTITY ? matches->atoms[term->who[i]]
						  : matches->identities[term->who[i] - WHO_IDENTITY];
	for (uint32_t i = 0; i < term->n_networks && !where; i++)
		where = matches->networks[term->networks[i]];
	return who && where;
}

static bool selector_matches(const struct selector *selector, const struct matches *matches)
{
	for (uint32_t i = 0; i < selector->n_terms; i++)
		if (term_matches(&selector->terms[i], matches))
			return true;
	return false;
}

static unsigned differences(const struct rule *rule, const struct matches *from, const struct matches *to,
			    uint32_t point, unsigned direction)
{
	unsigned differs = DIFFERS_SERVICE;

	for (uint32_t i = 0; i < rule->n_services; i++)
		if (point >= rule->services[i].first && point <= rule->services[i].last)
			differs = 0;
	if (!selector_matches(&rule->from, from))
		differs |= DIFFERS_FROM;
	if (!selector_matches(&rule->to, to))
		differs |= DIFFERS_TO;
	if (!(rule->directions & direction))
		differs |= DIFFERS_DIRECTION;
	return differs;
}

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
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	fprintf(out, "%s (%s:%u) allows it ", rule->name, policy->source_names[rule->at.source], rule->at.line);
	if (differs & DIFFERS_FROM) {
		fputs("from ", out);
		describe_selector(policy, &rule->from, out);
		fprintf(out, ", not %s", from);
		separator = "; ";
	}
	if (differs & DIFFERS_TO) {
		fprintf(out, "%sto ", separator);
		describe_selector(policy, &rule->to, out);
		fprintf(out, ", not %s", to);
		separator = "; ";
	}
	if (differs & DIFFERS_SERVICE) {
		fprintf(out, "%son ", separator);
		describe_services(rule, out);
		fprintf(out, ", not %s", service);
		separator = "; ";
	}
	if (differs & DIFFERS_DIRECTION)
		fprintf(out, "%sat %s only", separator, rule->directions == RULE_EGRESS ? "egress" : "ingress");
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
		   char **lines, size_t max)
{
	_cleanup_(arena_cleanup) struct arena arena = {};
	struct matches source = {}, destination = {};
	struct flow_end from_end, to_end;
	uint32_t point;
	char *error = NULL;
	size_t n = 0;

	if (flow_end_parse(&from_end, from, &error) || flow_end_parse(&to_end, to ? to : "world", &error) ||
	    flow_service_parse(&point, service, &error)) {
		free(error);
		return 0;
	}
	if (matches_find(policy, &from_end, &arena, &source) < 0 ||
	    matches_find(policy, &to_end, &arena, &destination) < 0)
		return -ENOMEM;
	for (int wanted = 1; wanted <= 2; wanted++)
		for (size_t i = 0; i < policy->n_rules && n < max; i++) {
			const struct rule *rule = &policy->rules[i];
			unsigned differs = rule->action == RULE_ALLOW
						   ? differences(rule, &source, &destination, point,
								 ingress ? RULE_INGRESS : RULE_EGRESS)
						   : 0;

			if (!to)
				differs &= ~DIFFERS_TO;
			/* A rule about two other peers is no near miss. */
			if (__builtin_popcount(differs) != wanted ||
			    (differs & (DIFFERS_FROM | DIFFERS_TO)) == (DIFFERS_FROM | DIFFERS_TO))
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
