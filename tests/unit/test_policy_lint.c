/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Warnings word for word, and that each is true: of random policies, with every feature of the language, no flow is decided by
 * a rule that is said to never decide, and a rule that is said to add nothing can be taken away without changing a verdict.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/diff.h"
#include "policy/lint.h"
#include "policy/model.h"
#include "tests/reference/reference.h"

#define N_POLICIES 1500
#define N_FLOWS 200

struct linted {
	struct policy *policy;
	struct policy_diagnostics *diagnostics;
};

static void lint_files(struct linted *linted, char *const *texts, size_t n, uint64_t budget)
{
	static const char *const names[] = {"a.yaml", "b.yaml", "c.yaml"};
	struct policy_source sources[REF_MAX_FILES];

	for (size_t i = 0; i < n; i++)
		sources[i] = (struct policy_source){names[i], texts[i], strlen(texts[i])};
	if (policy_parse(&linted->policy, &linted->diagnostics, sources, n) != 0) {
		policy_diagnostics_print(linted->diagnostics, stderr, false);
		fail_msg("the policy is not valid");
	}
	assert_int_equal(policy_lint(linted->policy, sources, REF_NOW, budget, linted->diagnostics), 0);
}

static void linted_free(struct linted *linted)
{
	policy_diagnostics_freep(&linted->diagnostics);
	policy_freep(&linted->policy);
}

/* ---- word for word ---- */

static const char head[] =
	"bulkhead: 1\n"
	"identities:\n"
	"  web: spiffe://prod.example/web\n"
	"  db: spiffe://prod.example/db\n"
	"  all-of-it: spiffe://prod.example/**\n"
	"tiers: [guard, app]\n"
	"rules:\n"
	"  - {name: use, action: allow, from: [web, all-of-it], to: db, service: udp/9, priority: -9}\n";

/* What is said about the rules behind the one of `head`, without the source lines; malloc()ed. */
static char *said_of(const char *rules, uint64_t budget)
{
	struct linted linted;
	const struct policy_diagnostic *d;
	char *text, *out_text = NULL;
	size_t size;
	FILE *out = open_memstream(&out_text, &size);

	if (asprintf(&text, "%s%s", head, rules) < 0)
		abort();
	lint_files(&linted, &text, 1, budget);
	for (size_t i = 0; (d = policy_diagnostics_get(linted.diagnostics, i)); i++)
		fprintf(out, "%u %s: %s%s%s [%s]\n", d->line, policy_severity_name(d->severity), d->text,
			d->hint ? " -- " : "", d->hint ? d->hint : "", d->code ? d->code : "-");
	fclose(out);
	linted_free(&linted);
	free(text);
	return out_text;
}

static void expect(const char *rules, const char *expected)
{
	char *text = said_of(rules, POLICY_LINT_BUDGET);

	assert_string_equal(text, expected);
	free(text);
}

static void a_policy_that_means_what_it_says_has_no_warning(void **state)
{
	(void)state;
	expect("  - {name: a, action: allow, from: web, to: db, service: tcp/5432}\n"
	       "  - {name: b, action: deny, from: web, to: any, service: tcp/5432}\n"
	       "  - {name: c, action: pass, tier: guard, from: web, to: db, service: tcp/5432}\n"
	       "  - {name: d, action: deny, tier: guard, from: any, to: db, service: tcp/5432, priority: 1}\n",
	       "9 warning: rule 'a' can never allow anything: 'b', which comes before it, denies all of its flows"
	       " -- 'b' at a.yaml:10 [shadowed]\n");
}

static void a_rule_behind_a_wider_one_is_shadowed(void **state)
{
	(void)state;
	expect("  - {name: wide, action: allow, from: all-of-it, to: db, priority: 1}\n"
	       "  - {name: narrow, action: allow, from: web, to: db, service: tcp/5432, priority: 2}\n"
	       "  - {name: no, action: deny, from: web, to: db, service: tcp/22, priority: 2}\n",
	       "10 warning: rule 'narrow' never decides: 'wide', which comes before it, allows all of its flows already"
	       " -- 'wide' at a.yaml:9 [shadowed]\n"
	       "11 warning: rule 'no' can never deny anything: 'wide', which comes before it, allows all of its flows"
	       " -- 'wide' at a.yaml:9 [shadowed]\n");
}

static void rules_that_together_leave_nothing_are_named(void **state)
{
	(void)state;
	expect("  - {name: low, action: deny, from: any, to: db, service: tcp/1-1000}\n"
	       "  - {name: high, action: deny, from: any, to: db, service: tcp/1001-65535}\n"
	       "  - {name: never, action: allow, from: web, to: db, service: tcp}\n",
	       "11 warning: rule 'never' never decides: rules before it decide all of its flows"
	       " -- 'low' at a.yaml:9, 'high' at a.yaml:10 [unreachable]\n");
}

static void a_rule_with_one_direction_left_is_reached(void **state)
{
	(void)state;
	expect("  - {name: out, action: deny, from: any, to: db, service: tcp/1, direction: egress}\n"
	       "  - {name: both, action: allow, from: web, to: db, service: tcp/1}\n",
	       "");
}

static void a_pass_that_no_flow_reaches_is_shadowed_too(void **state)
{
	(void)state;
	expect("  - {name: stop, action: deny, tier: guard, from: any, to: db, service: tcp/1}\n"
	       "  - {name: on, action: pass, tier: guard, from: web, to: db, service: tcp/1, priority: 5}\n",
	       "10 warning: rule 'on' can never pass on anything: 'stop', which comes before it, denies all of its "
	       "flows"
	       " -- 'stop' at a.yaml:9 [shadowed]\n");
}

static void a_pass_shadows_within_its_tier(void **state)
{
	(void)state;
	expect("  - {name: on, action: pass, tier: guard, from: any, to: db, service: tcp/1, priority: -1}\n"
	       "  - {name: stop, action: deny, tier: guard, from: web, to: db, service: tcp/1}\n"
	       "  - {name: open, action: allow, from: web, to: db, service: tcp/1}\n",
	       "10 warning: rule 'stop' can never deny anything: 'on', which comes before it, passes on all of its "
	       "flows"
	       " -- 'on' at a.yaml:9 [shadowed]\n");
}

static void of_two_rules_that_say_the_same_one_is_redundant(void **state)
{
	(void)state;
	expect("  - {name: one, action: allow, from: web, to: db, service: tcp/1}\n"
	       "  - {name: two, action: allow, from: web, to: db, service: tcp/1}\n",
	       "10 warning: rule 'two' adds nothing: 'one' allows all of its flows -- 'one' at a.yaml:9 [redundant]\n");
}

static void order_does_not_matter_for_what_is_redundant(void **state)
{
	(void)state;
	expect("  - {name: part, action: allow, from: web, to: db, service: tcp/1}\n"
	       "  - {name: whole, action: allow, from: web, to: db, service: tcp/1-2}\n",
	       "9 warning: rule 'part' adds nothing: 'whole' allows all of its flows"
	       " -- 'whole' at a.yaml:10 [redundant]\n");
	expect("  - {name: whole, action: allow, from: web, to: db, service: tcp/1-2}\n"
	       "  - {name: part, action: allow, from: web, to: db, service: tcp/1}\n",
	       "10 warning: rule 'part' adds nothing: 'whole' allows all of its flows"
	       " -- 'whole' at a.yaml:9 [redundant]\n");
}

static void what_a_rule_that_ends_takes_is_not_lost(void **state)
{
	(void)state;
	expect("  - {name: now, action: allow, from: web, to: db, service: tcp/1, until: 2099-01-01T00:00:00Z}\n"
	       "  - {name: ever, action: allow, from: web, to: db, service: tcp/1}\n",
	       "9 warning: rule 'now' adds nothing: 'ever' allows all of its flows -- 'ever' at a.yaml:10 "
	       "[redundant]\n");
	expect("  - {name: now, action: deny, from: web, to: db, service: tcp/1, until: 2099-01-01T00:00:00Z}\n"
	       "  - {name: ever, action: allow, from: web, to: db, service: tcp/1}\n",
	       "");
}

static void a_rule_whose_time_is_over_is_expired(void **state)
{
	(void)state;
	expect("  - {name: old, action: allow, from: web, to: db, service: tcp/1, until: 2020-01-01T00:00:00Z}\n",
	       "9 warning: rule 'old' has ended: it was `until` 2020-01-01T00:00:00Z [expired]\n");
}

static void a_rule_that_nobody_judges_is_unreachable(void **state)
{
	(void)state;
	expect("  - {name: h, action: allow, from: host, to: db, service: tcp/1, direction: egress}\n"
	       "  - {name: w, action: allow, from: host, to: world, service: tcp/1}\n",
	       "9 warning: rule 'h' never decides: no workload is at the end where it is judged"
	       " -- `direction: egress` is judged at the source, and its `from` is no workload [unreachable]\n"
	       "10 warning: rule 'w' never decides: no workload is at the end where it is judged"
	       " -- neither its `from` nor its `to` is a workload [unreachable]\n");
}

static void a_set_that_nobody_can_be_in_is_empty(void **state)
{
	(void)state;
	expect("  - {name: both, action: allow, from: {all: [web, db]}, to: db, service: tcp/1}\n",
	       "9 warning: rule 'both' matches no flow: nobody can be in its `from` [empty-set]\n"
	       "9 warning: 'all [web, db]' is an empty set: no identity can be in it [empty-set]\n");
}

static void a_rule_in_audit_mode_is_noted_where_it_opens(void **state)
{
	(void)state;
	expect("  - {name: trial, action: deny, mode: audit, from: any, to: db, service: tcp/1}\n",
	       "9 note: rule 'trial' is in audit mode: it lets pass flows that are denied without it [audit-mode]\n");
	expect("  - {name: trial, action: deny, mode: audit, from: web, to: db, service: tcp/1, direction: egress}\n"
	       "  - {name: open, action: allow, from: web, to: any, service: tcp}\n",
	       "");
}

static void a_search_without_budget_says_so(void **state)
{
	char *text = said_of("  - {name: wide, action: allow, from: any, to: db}\n"
			     "  - {name: narrow, action: allow, from: web, to: db, service: tcp/1, priority: 2}\n",
			     1);

	(void)state;
	assert_non_null(strstr(text, "note: not all rules were looked at"));
	assert_null(strstr(text, "warning"));
	free(text);
}

/* Patterns that no automaton of bounded size tells apart. */
static void patterns_that_overlap_too_much_are_not_looked_at_and_said_to_be(void **state)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	struct linted linted;
	bool said = false;

	(void)state;
	fputs("bulkhead: 1\nidentities:\n", out);
	for (int i = 0; i < 300; i++) {
		fprintf(out, "  i%d: spiffe://t.example", i);
		for (int k = 0; k < 8; k++)
			fprintf(out, k == i % 8 ? "/s%d" : "/*", i);
		fputc('\n', out);
	}
	fputs("rules:\n", out);
	for (int i = 0; i < 300; i++)
		fprintf(out, "  - {name: r%d, action: allow, from: i%d, to: any}\n", i, i);
	fclose(out);
	lint_files(&linted, &text, 1, POLICY_LINT_BUDGET);
	for (size_t i = 0; policy_diagnostics_get(linted.diagnostics, i); i++) {
		const struct policy_diagnostic *d = policy_diagnostics_get(linted.diagnostics, i);

		said = said || (d->code && strcmp(d->code, "incomplete") == 0 && strstr(d->text, "overlap"));
	}
	assert_true(said);
	linted_free(&linted);
	free(text);
}

static void unused_names_have_a_code_and_can_be_dropped(void **state)
{
	struct linted linted;
	char *text;

	(void)state;
	if (asprintf(&text, "%snetworks: {office: [192.0.2.0/24]}\n", head) < 0)
		abort();
	lint_files(&linted, &text, 1, POLICY_LINT_BUDGET);
	assert_int_equal(policy_diagnostics_count(linted.diagnostics, POLICY_WARNING), 1);
	assert_string_equal(policy_diagnostics_get(linted.diagnostics, 0)->code, "unused");
	policy_diagnostics_drop(linted.diagnostics, "unused");
	assert_int_equal(policy_diagnostics_count(linted.diagnostics, POLICY_WARNING), 0);
	assert_null(policy_diagnostics_get(linted.diagnostics, 0));
	linted_free(&linted);
	free(text);
}

/* ---- true ---- */

/* The rule that a warning is about, or -1. */
static int rule_of(const struct policy_diagnostic *d)
{
	int number;

	return sscanf(d->text, "rule 'r%d'", &number) == 1 ? number : -1;
}

/* Rules that say they do nothing can be taken away, each for itself. */
static void check_removal(uint64_t seed, const struct policy *policy, int rule)
{
	struct policy without = *policy;
	struct policy_diff *diff;
	char *error = NULL;

	without.rules = malloc(policy->n_rules * sizeof(*without.rules));
	assert_non_null(without.rules);
	memcpy(without.rules, policy->rules, policy->n_rules * sizeof(*without.rules));
	without.rules[rule].until = 1;
	assert_int_equal(policy_diff_new(&diff, policy, &without, REF_NOW, &error), 0);
	assert_true(diff->complete);
	if (diff->n_changes)
		fail_msg("seed %llu: without rule r%d, %s -> %s %s changes", (unsigned long long)seed, rule,
			 diff->changes[0].example_from, diff->changes[0].example_to, diff->changes[0].example_service);
	policy_diff_freep(&diff);
	free(without.rules);
}

static void every_warning_is_true(void **state)
{
	unsigned idle = 0, redundant = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= N_POLICIES; seed++) {
		struct ref_policy *ref = ref_policy_new(seed);
		const struct policy_diagnostic *d;
		bool never[REF_MAX_RULES] = {};
		struct linted linted;

		lint_files(&linted, ref->texts, (size_t)ref->n_files, POLICY_LINT_BUDGET);
		for (size_t i = 0; (d = policy_diagnostics_get(linted.diagnostics, i)); i++) {
			int rule = d->severity == POLICY_WARNING ? rule_of(d) : -1;

			if (rule < 0 || !d->code)
				continue;
			check_removal(seed, linted.policy, rule);
			never[rule] = strcmp(d->code, "redundant") != 0;
			redundant += !never[rule];
			idle += never[rule];
		}
		for (int i = 0; i < N_FLOWS; i++) {
			struct ref_flow flow;

			ref_flow_make(ref, &flow);
			for (int direction = 1; direction <= 2; direction++) {
				const struct ref_end *judge = direction == 1 ? &flow.from : &flow.to;
				struct ref_verdict verdict = ref_judge(ref, direction, &flow, REF_NOW);

				if (judge->kind == REF_HOST || judge->kind == REF_WORLD || !flow.from.has_address ||
				    !flow.to.has_address)
					continue;
				if (verdict.rule && never[verdict.rule - 1])
					fail_msg("seed %llu: r%d decides", (unsigned long long)seed, verdict.rule - 1);
			}
		}
		linted_free(&linted);
		ref_policy_free(ref);
	}
	/* The test has teeth only if there was something to say. */
	assert_true(idle > N_POLICIES / 4);
	assert_true(redundant > N_POLICIES / 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_policy_that_means_what_it_says_has_no_warning),
		cmocka_unit_test(a_rule_behind_a_wider_one_is_shadowed),
		cmocka_unit_test(rules_that_together_leave_nothing_are_named),
		cmocka_unit_test(a_rule_with_one_direction_left_is_reached),
		cmocka_unit_test(a_pass_that_no_flow_reaches_is_shadowed_too),
		cmocka_unit_test(a_pass_shadows_within_its_tier),
		cmocka_unit_test(of_two_rules_that_say_the_same_one_is_redundant),
		cmocka_unit_test(order_does_not_matter_for_what_is_redundant),
		cmocka_unit_test(what_a_rule_that_ends_takes_is_not_lost),
		cmocka_unit_test(a_rule_whose_time_is_over_is_expired),
		cmocka_unit_test(a_rule_that_nobody_judges_is_unreachable),
		cmocka_unit_test(a_set_that_nobody_can_be_in_is_empty),
		cmocka_unit_test(a_rule_in_audit_mode_is_noted_where_it_opens),
		cmocka_unit_test(a_search_without_budget_says_so),
		cmocka_unit_test(patterns_that_overlap_too_much_are_not_looked_at_and_said_to_be),
		cmocka_unit_test(unused_names_have_a_code_and_can_be_dropped),
		cmocka_unit_test(every_warning_is_true),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
