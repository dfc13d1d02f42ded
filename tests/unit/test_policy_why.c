/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a flow is judged as it is: the decision against the reference and against the tables over random policies, and what
 * is said beside it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/flow_space.h"
#include "policy/image.h"
#include "policy/policy.h"
#include "policy/why.h"
#include "tests/reference/reference.h"

#define WEB "spiffe://td/web"
#define DB "spiffe://td/db"
#define NEVER INT64_C(4102444800) /* 2100-01-01T00:00:00Z */

static struct policy *policy;
static struct why_flow why;

static int teardown(void **state)
{
	(void)state;
	why_flow_free(&why);
	why = (struct why_flow){};
	policy_freep(&policy);
	return 0;
}

static void load(const char *const *texts, size_t n)
{
	static const char *const names[] = {"p.yaml", "q.yaml", "r.yaml"};
	struct policy_diagnostics *diagnostics;
	struct policy_source sources[3];

	teardown(NULL);
	for (size_t i = 0; i < n; i++)
		sources[i] = (struct policy_source){names[i], texts[i], strlen(texts[i])};
	if (policy_parse(&policy, &diagnostics, sources, n) != 0) {
		policy_diagnostics_print(diagnostics, stderr, false);
		fail();
	}
	policy_diagnostics_freep(&diagnostics);
}

static void load_rules(const char *rules)
{
	char *text;

	assert_true(asprintf(&text,
			     "bulkhead: 1\n"
			     "identities: {web: " WEB ", db: " DB ", both: {any: [web, db]}, other: {not: both}}\n"
			     "networks: {lan: 10.0.0.0/8}\n"
			     "tiers: [guardrails, app, baseline]\n"
			     "rules:\n%s",
			     rules) > 0);
	load((const char *const[]){text}, 1);
	free(text);
}

static const struct why_judgement *ask(const char *from, const char *to, const char *service, int64_t now)
{
	char *error = NULL;

	why_flow_free(&why);
	if (why_flow_find(&why, policy, from, to, service, now, &error) != 0)
		fail_msg("%s", error);
	return &why.egress;
}

static const char *name_of(uint32_t rule)
{
	return rule == FLOW_DEFAULT ? "default" : policy->rules[rule].name;
}

static void decides(const struct flow_decision *decision, bool allow, const char *rule)
{
	assert_string_equal(name_of(decision->rule), rule);
	assert_int_equal(decision->allow, allow);
}

static void rules_are(const struct list *rules, const char *expected)
{
	char text[500] = "";

	for (size_t i = 0; i < rules->n; i++)
		strcat(strcat(text, i ? " " : ""), name_of(rules->items[i]));
	assert_string_equal(text, expected);
}

/* ---- against the reference ---- */

static void same_as_reference(const struct ref_policy *reference, const struct ref_flow *flow, int64_t now)
{
	char from[300], to[300], service[40], *error = NULL;
	const struct why_judgement *judgements[] = {&why.egress, &why.ingress};

	ref_end_format(&flow->from, from, sizeof(from));
	ref_end_format(&flow->to, to, sizeof(to));
	ref_service_format(flow, service, sizeof(service));
	why_flow_free(&why);
	if (why_flow_find(&why, policy, from, to, service, now, &error) != 0)
		fail_msg("%s to %s on %s: %s", from, to, service, error);
	for (int i = 0; i < 2; i++) {
		const struct flow_decision *decision = &judgements[i]->decision;
		struct ref_verdict verdict = ref_judge(reference, i + 1, flow, now);

		if (!judgements[i]->judged)
			continue;
		if (decision->allow != verdict.allow || decision->audit != verdict.audit ||
		    (decision->rule == FLOW_DEFAULT ? 0 : (int)decision->rule + 1) != verdict.rule)
			fail_msg("%s to %s on %s, %s: %d by %s, not %d by rule %d", from, to, service,
				 i ? "ingress" : "egress", decision->allow, name_of(decision->rule), verdict.allow,
				 verdict.rule);
	}
}

static void same_as_tables(const struct policy_image *image, const struct ref_flow *flow, int64_t now)
{
	const struct why_judgement *judgements[] = {&why.egress, &why.ingress};
	struct policy_explanation explanation;
	char from[300], to[300], service[40], *error = NULL;

	ref_end_format(&flow->from, from, sizeof(from));
	ref_end_format(&flow->to, to, sizeof(to));
	ref_service_format(flow, service, sizeof(service));
	if (policy_explain(image, from, to, service, now, &explanation, &error) != 0)
		fail_msg("%s to %s on %s: %s", from, to, service, error);
	for (int i = 0; i < 2; i++) {
		const struct policy_judgement *tables = i ? &explanation.ingress : &explanation.egress;
		const struct flow_decision *decision = &judgements[i]->decision;

		assert_int_equal(tables->judged, judgements[i]->judged);
		if (!tables->judged)
			continue;
		if (tables->allow != decision->allow || tables->audit != decision->audit ||
		    strcmp(tables->rule, name_of(decision->rule)) != 0)
			fail_msg("%s to %s on %s, %s: %d by %s, the tables say %d by %s", from, to, service,
				 i ? "ingress" : "egress", decision->allow, name_of(decision->rule), tables->allow,
				 tables->rule);
	}
}

static struct policy_image *compile(void)
{
	struct policy_image *image;
	char *error = NULL;
	void *bytes;
	size_t len;

	if (policy_compile(policy, &bytes, &len, &error) != 0)
		fail_msg("%s", error);
	assert_int_equal(policy_image_open(&image, bytes, len, NULL), 0);
	free(bytes);
	return image;
}

static void the_decision_is_that_of_the_reference_and_of_the_tables(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 1500; seed++) {
		struct ref_policy *reference = ref_policy_new(seed);
		struct policy_image *image;
		struct ref_flow flow;

		load((const char *const *)reference->texts, (size_t)reference->n_files);
		image = compile();
		for (int i = 0; i < 40; i++) {
			ref_flow_make(reference, &flow);
			same_as_reference(reference, &flow, REF_NOW);
			same_as_tables(image, &flow, REF_NOW);
		}
		policy_image_freep(&image);
		ref_policy_free(reference);
	}
}

/* What `changes` foretells is what the reference says then, and nothing changes before. */
static void the_change_that_is_foretold_comes(void **state)
{
	unsigned changes = 0;

	(void)state;
	for (uint64_t seed = 5000; seed < 6000; seed++) {
		struct ref_policy *reference = ref_policy_new(seed);

		load((const char *const *)reference->texts, (size_t)reference->n_files);
		for (int i = 0; i < 20; i++) {
			char from[300], to[300], service[40], *error = NULL;
			struct ref_verdict then, before, now;
			struct ref_flow flow;

			ref_flow_make(reference, &flow);
			ref_end_format(&flow.from, from, sizeof(from));
			ref_end_format(&flow.to, to, sizeof(to));
			ref_service_format(&flow, service, sizeof(service));
			why_flow_free(&why);
			assert_int_equal(why_flow_find(&why, policy, from, to, service, REF_NOW, &error), 0);
			now = ref_judge(reference, 1, &flow, REF_NOW);
			if (!why.egress.judged)
				continue;
			if (!why.egress.changes) {
				assert_int_equal(ref_judge(reference, 1, &flow, NEVER).rule, now.rule);
				continue;
			}
			changes++;
			then = ref_judge(reference, 1, &flow, why.egress.changes);
			before = ref_judge(reference, 1, &flow, why.egress.changes - 1);
			assert_int_equal(before.rule, now.rule);
			assert_int_not_equal(then.rule, now.rule);
			assert_int_equal(then.allow, why.egress.then.allow);
		}
		ref_policy_free(reference);
	}
	assert_true(changes > 100);
}

/* ---- what is said beside the verdict ---- */

static void a_deny_names_who_would_allow(void **state)
{
	const struct why_judgement *judgement;

	(void)state;
	load_rules("  - {name: yes, tier: app, action: allow, from: web, to: db}\n"
		   "  - {name: no, tier: app, action: deny, from: web, to: any, service: tcp/22}\n"
		   "  - {name: never, tier: guardrails, action: deny, from: any, to: db, service: tcp/22}\n");
	judgement = ask(WEB, DB, "tcp/22", 0);
	decides(&judgement->decision, false, "never");
	assert_true(judgement->has_without);
	rules_are(&judgement->again, "no");
	decides(&judgement->without, true, "yes");
}

static void an_allow_names_what_decides_without_it(void **state)
{
	const struct why_judgement *judgement;

	(void)state;
	load_rules("  - {name: one, tier: app, action: allow, from: web, to: db}\n"
		   "  - {name: two, tier: app, action: allow, from: both, to: db}\n"
		   "  - {name: last, tier: baseline, action: deny, from: any, to: any, service: tcp/1}\n");
	judgement = ask(WEB, DB, "tcp/1", 0);
	decides(&judgement->decision, true, "one");
	rules_are(&judgement->again, "two");
	decides(&judgement->without, false, "last");
	judgement = ask(WEB, DB, "tcp/2", 0);
	decides(&judgement->without, false, "default");
}

static void the_default_has_nothing_behind_it(void **state)
{
	const struct why_judgement *judgement;

	(void)state;
	load_rules("  - {name: one, tier: app, action: allow, from: web, to: db}\n");
	judgement = ask(DB, WEB, "tcp/1", 0);
	decides(&judgement->decision, false, "default");
	assert_false(judgement->has_without);
	assert_int_equal(judgement->changes, 0);
}

static void passes_are_told_in_the_order_of_tiers(void **state)
{
	const struct why_judgement *judgement;

	(void)state;
	load_rules("  - {name: b, tier: app, action: pass, from: web, to: any}\n"
		   "  - {name: a, tier: guardrails, action: pass, from: any, to: db}\n"
		   "  - {name: a2, tier: guardrails, action: deny, priority: 9, from: any, to: db}\n"
		   "  - {name: c, tier: baseline, action: allow, from: web, to: db}\n");
	judgement = ask(WEB, DB, "tcp/1", 0);
	rules_are(&judgement->passes, "a b");
	decides(&judgement->decision, true, "c");
	decides(&judgement->without, false, "default");
}

static void audit_mode_lets_pass_and_says_so(void **state)
{
	const struct why_judgement *judgement;

	(void)state;
	load_rules("  - {name: trial, tier: app, action: deny, mode: audit, from: web, to: db}\n");
	judgement = ask(WEB, DB, "tcp/1", 0);
	decides(&judgement->decision, true, "trial");
	assert_true(judgement->decision.audit);
	decides(&judgement->without, false, "default");
}

static void the_end_of_a_rule_is_foretold(void **state)
{
	const struct why_judgement *judgement;

	(void)state;
	load_rules("  - {name: guest, tier: app, action: allow, from: web, to: db, until: 2027-01-01T00:00:00Z}\n"
		   "  - {name: no, tier: baseline, action: deny, from: any, to: any, until: 2028-01-01T00:00:00Z}\n");
	judgement = ask(WEB, DB, "tcp/1", 0);
	decides(&judgement->decision, true, "guest");
	assert_int_equal(judgement->changes, 1798761600);
	decides(&judgement->then, false, "no");
	judgement = ask(WEB, DB, "tcp/1", 1798761600);
	decides(&judgement->decision, false, "no");
	assert_int_equal(judgement->changes, 1830297600);
	decides(&judgement->then, false, "default");
}

static void closest_is(const char *from, const char *to, const char *service, int64_t now, const char *expected)
{
	char *lines[3], joined[1024] = "";
	int n = policy_closest(policy, from, to, service, false, now, lines, 3);

	assert_true(n >= 0);
	for (int i = 0; i < n; i++) {
		strcat(strcat(joined, lines[i]), "\n");
		free(lines[i]);
	}
	assert_string_equal(joined, expected);
}

static void what_keeps_a_rule_from_matching_may_be_time_or_set_algebra(void **state)
{
	(void)state;
	load_rules("  - {name: guest, tier: app, action: allow, from: web, to: db, until: 2027-01-01T00:00:00Z}\n"
		   "  - {name: sets, tier: app, action: allow, from: {all: [both, {not: web}]}, to: other, service: "
		   "tcp/1}\n"
		   "  - {name: pass, tier: app, action: pass, from: any, to: any}\n");
	closest_is(WEB, DB, "tcp/2", 1798761600,
		   "guest (p.yaml:6) allows it until 2027-01-01T00:00:00Z, which has passed\n");
	closest_is(WEB, "spiffe://td/x", "tcp/1", 0,
		   "guest (p.yaml:6) allows it to db, not spiffe://td/x\n"
		   "sets (p.yaml:7) allows it from all [both, not web], not " WEB "\n");
	closest_is(DB, "spiffe://td/x", "tcp/2", 0, "sets (p.yaml:7) allows it on tcp/1, not tcp/2\n");
}

static void what_is_not_one_flow_is_refused(void **state)
{
	char *error = NULL;

	(void)state;
	load_rules("  - {name: one, tier: app, action: allow, from: web, to: db}\n");
	why_flow_free(&why);
	assert_int_equal(why_flow_find(&why, policy, "nobody", DB, "tcp/1", 0, &error), 1);
	assert_non_null(strstr(error, "'nobody'"));
	free(error);
	assert_int_equal(why_flow_find(&why, policy, WEB, DB, "tcp", 0, &error), 1);
	free(error);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_decision_is_that_of_the_reference_and_of_the_tables),
		cmocka_unit_test(the_change_that_is_foretold_comes),
		cmocka_unit_test(a_deny_names_who_would_allow),
		cmocka_unit_test(an_allow_names_what_decides_without_it),
		cmocka_unit_test(the_default_has_nothing_behind_it),
		cmocka_unit_test(passes_are_told_in_the_order_of_tiers),
		cmocka_unit_test(audit_mode_lets_pass_and_says_so),
		cmocka_unit_test(the_end_of_a_rule_is_foretold),
		cmocka_unit_test(what_keeps_a_rule_from_matching_may_be_time_or_set_algebra),
		cmocka_unit_test(what_is_not_one_flow_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
