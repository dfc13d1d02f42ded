/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/why_text.h"

#include <string.h>

#include "policy/flow_space.h"
#include "policy/instant.h"

#define MAX_AGAIN 3U /* of the rules that would decide the same */

/* ---- for people ---- */

static void write_place(const struct policy *policy, struct position at, FILE *out)
{
	fprintf(out, " (%s:%u)", policy->source_names[at.source], at.line);
}

static void write_rule(const struct policy *policy, uint32_t number, FILE *out)
{
	bool by_default = number == FLOW_DEFAULT;

	fputs(by_default ? "default" : policy->rules[number].name, out);
	if (!by_default || policy->has_defaults)
		write_place(policy, by_default ? policy->defaults_at : policy->rules[number].at, out);
}

void why_write_rule(const struct policy *policy, uint32_t number, FILE *out)
{
	write_rule(policy, number, out);
	if (number != FLOW_DEFAULT && policy->n_tiers > 1)
		fprintf(out, " in tier %s", policy->tiers[policy->rules[number].tier].name);
}

static void write_decision(const struct policy *policy, const struct flow_decision *decision, FILE *out)
{
	fputs(decision->allow ? "allowed by " : "denied by ", out);
	why_write_rule(policy, decision->rule, out);
	if (decision->audit)
		fputs(", a deny in audit mode", out);
}

/* "X and Y", "X, Y, Z and 4 more" */
static void write_rules(const struct policy *policy, const uint32_t *rules, size_t n, FILE *out)
{
	size_t shown = n <= MAX_AGAIN ? n : MAX_AGAIN;

	for (size_t i = 0; i < shown; i++) {
		if (i)
			fputs(i + 1 == n ? " and " : ", ", out);
		why_write_rule(policy, rules[i], out);
	}
	if (n > shown)
		fprintf(out, " and %zu more", n - shown);
}

/* Of a deny that a rule made: "would be allowed by X if not denied by Y". */
static void print_without_deny(const struct policy *policy, const struct why_judgement *judgement, const char *indent,
			       FILE *out)
{
	if (!judgement->without.allow) {
		fprintf(out, "%swithout it: denied by ", indent);
		why_write_rule(policy, judgement->without.rule, out);
		if (judgement->again.n) {
			fputs(", after ", out);
			write_rules(policy, judgement->again.items, judgement->again.n, out);
		}
		fputc('\n', out);
		return;
	}
	fprintf(out, "%swould be ", indent);
	write_decision(policy, &judgement->without, out);
	fputs(" if not denied by ", out);
	write_rule(policy, judgement->decision.rule, out);
	if (judgement->again.n) {
		fputs(", nor by ", out);
		write_rules(policy, judgement->again.items, judgement->again.n, out);
	}
	fputc('\n', out);
}

static void print_without_allow(const struct policy *policy, const struct why_judgement *judgement, const char *indent,
				FILE *out)
{
	fprintf(out, "%swithout it: ", indent);
	if (judgement->again.n) {
		fputs("allowed by ", out);
		write_rules(policy, judgement->again.items, judgement->again.n, out);
		fputs("; else ", out);
	}
	write_decision(policy, &judgement->without, out);
	fputc('\n', out);
}

void why_print_details(const struct policy *policy, const struct why_judgement *judgement, const char *indent,
		       FILE *out)
{
	char text[INSTANT_TEXT_BYTES];

	for (size_t i = 0; i < judgement->passes.n; i++) {
		const struct rule *rule = &policy->rules[judgement->passes.items[i]];

		fprintf(out, "%stier %s: pass by %s", indent, policy->tiers[rule->tier].name, rule->name);
		write_place(policy, rule->at, out);
		fputc('\n', out);
	}
	if (judgement->decision.audit)
		fprintf(out, "%sallowed only because %s is in audit mode: would be denied\n", indent,
			policy->rules[judgement->decision.rule].name);
	if (judgement->changes) {
		instant_format(text, judgement->changes);
		fprintf(out, "%suntil %s: then ", indent, text);
		write_decision(policy, &judgement->then, out);
		fputc('\n', out);
	}
	if (!judgement->has_without)
		return;
	if (judgement->decision.allow)
		print_without_allow(policy, judgement, indent, out);
	else
		print_without_deny(policy, judgement, indent, out);
}

/* ---- for programs ---- */

static json_t *rule_json(const struct policy *policy, uint32_t number)
{
	const struct rule *rule;

	if (number == FLOW_DEFAULT && !policy->has_defaults)
		return json_pack("{s:s, s:n}", "rule", "default", "file");
	if (number == FLOW_DEFAULT)
		return json_pack("{s:s, s:s, s:i}", "rule", "default", "file",
				 policy->source_names[policy->defaults_at.source], "line",
				 (int)policy->defaults_at.line);
	rule = &policy->rules[number];
	return json_pack("{s:s, s:s, s:s, s:i}", "tier", policy->tiers[rule->tier].name, "rule", rule->name, "file",
			 policy->source_names[rule->at.source], "line", (int)rule->at.line);
}

static json_t *rules_json(const struct policy *policy, const struct list *rules)
{
	json_t *list = json_array();

	for (size_t i = 0; i < rules->n; i++)
		json_array_append_new(list, rule_json(policy, rules->items[i]));
	return list;
}

static json_t *decision_json(const struct policy *policy, const struct flow_decision *decision)
{
	json_t *object = rule_json(policy, decision->rule);

	json_object_set_new(object, "verdict", json_string(decision->allow ? "allow" : "deny"));
	json_object_set_new(object, "audit", json_boolean(decision->audit));
	return object;
}

json_t *why_judgement_json(const struct policy *policy, const struct why_judgement *judgement)
{
	char text[INSTANT_TEXT_BYTES];
	json_t *object, *part;

	if (!judgement->judged)
		return json_null();
	object = decision_json(policy, &judgement->decision);
	json_object_set_new(object, "passes", rules_json(policy, &judgement->passes));
	if (judgement->has_without) {
		part = decision_json(policy, &judgement->without);
		json_object_set_new(part, "after", rules_json(policy, &judgement->again));
		json_object_set_new(object, "without", part);
	}
	if (judgement->changes) {
		instant_format(text, judgement->changes);
		part = decision_json(policy, &judgement->then);
		json_object_set_new(part, "at", json_string(text));
		json_object_set_new(object, "changes", part);
	}
	return object;
}
