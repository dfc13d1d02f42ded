/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is said of all flows, against the flows themselves: invariants and tests of sets, of random policies, asked of the
 * library and of the reference evaluator (tests/reference).
 *
 * "Holds" must be true of every flow that is drawn; a flow that is said to break a statement must be one that the statement is
 * about, and break it, in the reference and in the compiled tables, by the rules that are named.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/flow_space.h"
#include "policy/invariant.h"
#include "policy/service.h"
#include "policy/verify.h"
#include "policy/why.h"
#include "tests/reference/compiled/compiled.h"

#ifdef __SANITIZE_ADDRESS__
#define N_POLICIES 150
#else
#define N_POLICIES 600
#endif
#define N_FLOWS 300
#define N_STATEMENTS 6

/* ---- a flow and what the reference says of it ---- */

struct judged {
	struct ref_flow flow;
	bool real; /* both ends have an address, and one of them is a workload */
	bool allow;
	int rules[2]; /* egress, ingress; from 1; 0: the default; -1: not judged */
	bool allows[2];
};

static bool is_workload(const struct ref_end *end)
{
	return end->kind != REF_HOST && end->kind != REF_WORLD;
}

static void judge(const struct ref_policy *policy, struct judged *judged)
{
	const struct ref_flow *flow = &judged->flow;

	judged->allow = true;
	judged->real =
		flow->from.has_address && flow->to.has_address && (is_workload(&flow->from) || is_workload(&flow->to));
	for (int side = 0; side < 2; side++) {
		struct ref_verdict verdict;

		judged->rules[side] = -1;
		judged->allows[side] = true;
		if (!is_workload(side ? &flow->to : &flow->from))
			continue;
		verdict = ref_judge(policy, side + 1, flow, REF_NOW);
		judged->rules[side] = verdict.rule;
		judged->allows[side] = verdict.allow;
		judged->allow = judged->allow && verdict.allow;
	}
}

static void flow_of_text(const char *from, const char *to, const char *service, struct ref_flow *flow)
{
	unsigned protocol, port;
	char *error = NULL;
	uint32_t point;

	*flow = (struct ref_flow){};
	ref_end_parse(from, &flow->from);
	ref_end_parse(to, &flow->to);
	if (flow_service_parse(&point, service, &error) != 0)
		fail_msg("%s", error);
	service_point(point, &protocol, &port);
	flow->protocol = (int)protocol;
	flow->port = (int)port;
}

static void rule_name(int rule, char out[16])
{
	snprintf(out, 16, rule ? "r%d" : "default", rule - 1);
}

static void check_decider(const struct policy_decider *decider, const struct judged *judged, int side)
{
	char name[16];

	assert_int_equal(decider->judged, judged->rules[side] >= 0);
	if (!decider->judged)
		return;
	rule_name(judged->rules[side], name);
	assert_string_equal(decider->rule, name);
	assert_int_equal(decider->allow, judged->allows[side]);
}

/* A flow that a finding gives: as the reference judges it, and the tables. */
static void check_example(const struct ref_policy *policy, const struct ref_compiled *compiled,
			  const struct policy_finding *finding, struct judged *judged)
{
	struct policy_explanation explanation;
	char *error = NULL;

	flow_of_text(finding->from, finding->to, finding->service, &judged->flow);
	judge(policy, judged);
	assert_int_equal(finding->allow, judged->allow);
	check_decider(&finding->egress, judged, 0);
	check_decider(&finding->ingress, judged, 1);
	if (policy_explain(compiled->image, finding->from, finding->to, finding->service, REF_NOW, &explanation,
			   &error) != 0)
		fail_msg("%s", error);
	assert_int_equal(explanation.allow, finding->allow);
	if (finding->egress.judged)
		assert_string_equal(explanation.egress.rule, finding->egress.rule);
	if (finding->ingress.judged)
		assert_string_equal(explanation.ingress.rule, finding->ingress.rule);
}

/* ---- invariants ---- */

struct asked {
	const struct ref_policy *policy;
	const struct ref_compiled *compiled;
	const struct judged *flows;
	const struct ref_rule *about; /* of each statement */
	size_t n;
	uint64_t seed;
	unsigned held, broken, drawn;
};

/* Is the statement about the flow? */
static bool concerns(const struct asked *asked, const struct policy_finding *finding, const struct ref_flow *flow)
{
	const struct ref_rule *about = &asked->about[asked->n];
	struct ref_flow back = *flow;

	back.from = flow->to;
	back.to = flow->from;
	return ref_rule_matches(asked->policy, about, 1, flow, REF_NOW) ||
	       (finding->invariant->kind == INVARIANT_ISOLATED &&
		ref_rule_matches(asked->policy, about, 1, &back, REF_NOW));
}

static int check_invariant(void *context, const struct policy_finding *finding)
{
	struct asked *asked = context;
	bool expected = finding->invariant->kind == INVARIANT_ALWAYS;

	if (finding->holds) {
		asked->held++;
		for (int i = 0; i < N_FLOWS; i++) {
			const struct judged *judged = &asked->flows[i];

			if (!judged->real || !concerns(asked, finding, &judged->flow))
				continue;
			asked->drawn++;
			if (judged->allow == expected && !finding->why)
				continue;
			ref_report(asked->policy, &judged->flow, asked->seed, finding->invariant->text);
			fail_msg("said to %s", finding->why ? finding->why : "hold");
		}
	} else {
		struct judged judged = {};

		asked->broken++;
		assert_true(finding->has_flow);
		check_example(asked->policy, asked->compiled, finding, &judged);
		if (!judged.real || !concerns(asked, finding, &judged.flow) || judged.allow == expected) {
			ref_report(asked->policy, &judged.flow, asked->seed, finding->invariant->text);
			fail_msg("said to break it");
		}
	}
	asked->n++;
	return 0;
}

static void draw(struct ref_policy *policy, struct judged *flows)
{
	for (int i = 0; i < N_FLOWS; i++) {
		ref_flow_make(policy, &flows[i].flow);
		judge(policy, &flows[i]);
	}
}

static void invariants_hold_for_every_flow_or_are_broken_by_the_one_given(void **state)
{
	static struct judged flows[N_FLOWS];
	struct asked asked = {.flows = flows};

	(void)state;
	for (asked.seed = 1; asked.seed <= N_POLICIES; asked.seed++) {
		struct ref_policy *policy = ref_policy_new(asked.seed);
		struct invariant invariants[N_STATEMENTS];
		struct ref_rule about[N_STATEMENTS];
		struct ref_compiled compiled;
		char *error = NULL;

		ref_compile(&compiled, policy);
		for (size_t i = 0; i < N_STATEMENTS; i++) {
			static const enum invariant_kind kinds[] = {INVARIANT_NEVER, INVARIANT_ALWAYS,
								    INVARIANT_ISOLATED};
			enum invariant_kind kind = kinds[i % 3];
			char *text;

			ref_statement_make(policy, &about[i], &text);
			if (policy_invariant_parse(&invariants[i], compiled.policy, i % 3 == 2 ? INVARIANT_NEVER : kind,
						   text, &error) != 0)
				fail_msg("%s: %s", text, error);
			/* What is between two selectors, as isolated has them, on services that it has not. */
			invariants[i].kind = kind;
			free(text);
		}
		draw(policy, flows);
		asked.policy = policy;
		asked.compiled = &compiled;
		asked.about = about;
		asked.n = 0;
		if (policy_check_invariants(compiled.policy, invariants, N_STATEMENTS, REF_NOW, check_invariant, &asked,
					    &error) != 0)
			fail_msg("seed %lu: %s", (unsigned long)asked.seed, error);
		assert_int_equal(asked.n, N_STATEMENTS);
		ref_compiled_clear(&compiled);
		ref_policy_free(policy);
	}
	/* The test has teeth only if all of it happens. */
	assert_true(asked.held > N_POLICIES / 2);
	assert_true(asked.broken > N_POLICIES);
	assert_true(asked.drawn > N_POLICIES);
}

/* ---- tests of sets ---- */

enum end_form { END_IDENTITY, END_NETWORK, END_VERIFIED, END_ANY, END_ONE };

struct ref_test_end {
	enum end_form form;
	int number;
	struct ref_end one;
	char text[300];
};

struct ref_test {
	struct ref_test_end from, to;
	int protocol, low, high;
	bool allow;
	int by; /* rule from 1; 0: default; -1: not asked */
};

static void make_test_end(struct ref_policy *policy, const struct ref_end *one, struct ref_test_end *end)
{
	end->form = (enum end_form)ref_random(policy, 5);
	end->one = *one;
	switch (end->form) {
	case END_IDENTITY:
		end->number = (int)ref_random(policy, (uint32_t)policy->n_identities);
		snprintf(end->text, sizeof(end->text), "id%d", end->number);
		break;
	case END_NETWORK:
		end->number = (int)ref_random(policy, (uint32_t)policy->n_networks);
		snprintf(end->text, sizeof(end->text), "net%d", end->number);
		break;
	case END_VERIFIED:
		strcpy(end->text, "verified");
		break;
	case END_ANY:
		strcpy(end->text, "any");
		break;
	case END_ONE:
		/* The name of a local identity alone is the set of its members; one that has IDs too is no one peer. */
		if (one->kind == REF_LOCAL && policy->identities[one->local].n_patterns)
			end->one.kind = REF_UNIDENTIFIED;
		else if (one->kind == REF_LOCAL)
			end->one.has_address = true;
		ref_end_format(&end->one, end->text, sizeof(end->text));
	}
}

static bool test_end_has(const struct ref_policy *policy, const struct ref_test_end *end, const struct ref_end *peer)
{
	switch (end->form) {
	case END_IDENTITY:
		return !peer->has_address && ref_identity_has(policy, end->number, peer);
	case END_NETWORK:
		return peer->kind == REF_WORLD && ref_network_has(&policy->networks[end->number], peer);
	case END_VERIFIED:
		return !peer->has_address && peer->kind == REF_SPIFFE;
	case END_ANY:
		return peer->has_address;
	case END_ONE:
		break;
	}
	return true; /* it is put in place of the peer */
}

/* A peer that the end may be about. */
static void place_end(const struct ref_test_end *end, struct ref_end *peer)
{
	if (end->form == END_IDENTITY || end->form == END_VERIFIED)
		peer->has_address = false;
	if (end->form == END_NETWORK)
		peer->kind = REF_WORLD;
	if (end->form == END_ONE)
		*peer = end->one;
}

static bool same_end(const struct ref_end *a, const struct ref_end *b)
{
	char x[300], y[300];

	ref_end_format(a, x, sizeof(x));
	ref_end_format(b, y, sizeof(y));
	return strcmp(x, y) == 0;
}

static bool is_about(const struct ref_policy *policy, const struct ref_test *test, const struct ref_flow *flow)
{
	return flow->protocol == test->protocol && flow->port >= test->low && flow->port <= test->high &&
	       test_end_has(policy, &test->from, &flow->from) && test_end_has(policy, &test->to, &flow->to) &&
	       (test->from.form != END_ONE || same_end(&test->from.one, &flow->from)) &&
	       (test->to.form != END_ONE || same_end(&test->to.one, &flow->to));
}

static bool satisfies(const struct ref_test *test, const struct judged *judged)
{
	if (judged->allow != test->allow)
		return false;
	for (int side = 0; side < 2 && test->by >= 0; side++)
		if (judged->rules[side] == test->by && judged->allows[side] == judged->allow)
			return true;
	return test->by < 0;
}

struct tested {
	struct ref_policy *policy;
	const struct ref_compiled *compiled;
	struct judged *flows;
	const struct ref_test *tests;
	size_t n;
	uint64_t seed;
	unsigned held, broken, drawn;
};

static void check_members(struct tested *tested, const struct ref_test *test, const struct policy_finding *finding)
{
	for (int i = 0; i < N_FLOWS; i++) {
		struct judged judged = tested->flows[i];

		place_end(&test->from, &judged.flow.from);
		place_end(&test->to, &judged.flow.to);
		judged.flow.protocol = test->protocol;
		judged.flow.port = test->low + (int)ref_random(tested->policy, (uint32_t)(test->high - test->low + 1));
		if (!is_about(tested->policy, test, &judged.flow))
			continue;
		/* Where somebody judges some of what a set holds, the test is about these. */
		if (!is_workload(&judged.flow.from) && !is_workload(&judged.flow.to))
			continue;
		judge(tested->policy, &judged);
		tested->drawn++;
		if (finding->holds && satisfies(test, &judged))
			continue;
		ref_report(tested->policy, &judged.flow, tested->seed, finding->holds ? "it holds" : finding->why);
		policy_finding_title(finding, stderr);
		fail();
	}
}

static int check_test(void *context, const struct policy_finding *finding)
{
	struct tested *tested = context;
	const struct ref_test *test = &tested->tests[tested->n++];
	struct judged judged = {};

	if (finding->holds || !finding->has_flow) {
		tested->held++;
		check_members(tested, test, finding);
		return 0;
	}
	tested->broken++;
	check_example(tested->policy, tested->compiled, finding, &judged);
	if (!is_about(tested->policy, test, &judged.flow) || satisfies(test, &judged)) {
		ref_report(tested->policy, &judged.flow, tested->seed, "said to fail the test");
		policy_finding_title(finding, stderr);
		fail();
	}
	return 0;
}

/* Half of the tests expect what a flow of theirs gets. */
static void make_test(struct ref_policy *policy, struct ref_test *test, FILE *out)
{
	static const struct {
		int protocol, low, high;
		const char *text;
	} services[] = {{6, 80, 80, "tcp/80"}, {6, 79, 81, "tcp/79-81"}, {17, 1, 65535, "udp"}, {1, 8, 8, "icmp/8"}};
	uint32_t service = ref_random(policy, 4);
	struct judged judged;
	char by[16];

	*test = (struct ref_test){
		.protocol = services[service].protocol, .low = services[service].low, .high = services[service].high};
	ref_flow_make(policy, &judged.flow);
	make_test_end(policy, &judged.flow.from, &test->from);
	make_test_end(policy, &judged.flow.to, &test->to);
	place_end(&test->from, &judged.flow.from);
	place_end(&test->to, &judged.flow.to);
	judged.flow.protocol = test->protocol;
	judged.flow.port = test->low;
	judge(policy, &judged);
	test->allow = ref_random(policy, 4) ? judged.allow : !judged.allow;
	test->by = ref_random(policy, 3) ? -1 : judged.rules[judged.allows[0] == judged.allow ? 0 : 1];
	fprintf(out, "  - {from: \"%s\", to: \"%s\", service: %s, expect: %s", test->from.text, test->to.text,
		services[service].text, test->allow ? "allow" : "deny");
	rule_name(test->by, by);
	if (test->by >= 0)
		fprintf(out, ", by: %s", by);
	fputs("}\n", out);
}

/* Adds the tests to the last file of the policy. */
static void add_tests(struct ref_policy *policy, struct ref_test *tests)
{
	char **textp = &policy->texts[policy->n_files - 1], *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	fprintf(out, "%stests:\n", *textp);
	for (int i = 0; i < N_STATEMENTS; i++)
		make_test(policy, &tests[i], out);
	fclose(out);
	free(*textp);
	*textp = text;
}

static void tests_hold_for_every_member_or_fail_for_the_one_given(void **state)
{
	static struct judged flows[N_FLOWS];
	struct tested tested = {.flows = flows};

	(void)state;
	for (tested.seed = 10001; tested.seed <= 10000 + N_POLICIES; tested.seed++) {
		struct ref_policy *policy = ref_policy_new(tested.seed);
		struct ref_test tests[N_STATEMENTS];
		struct ref_compiled compiled;
		char *error = NULL;

		add_tests(policy, tests);
		ref_compile(&compiled, policy);
		draw(policy, flows);
		tested.policy = policy;
		tested.compiled = &compiled;
		tested.tests = tests;
		tested.n = 0;
		if (policy_run_tests(compiled.policy, REF_NOW, check_test, &tested, &error) != 0)
			fail_msg("seed %lu: %s", (unsigned long)tested.seed, error);
		assert_int_equal(tested.n, N_STATEMENTS);
		ref_compiled_clear(&compiled);
		ref_policy_free(policy);
	}
	assert_true(tested.held > N_POLICIES / 2);
	assert_true(tested.broken > N_POLICIES / 2);
	assert_true(tested.drawn > N_POLICIES);
}

/* ---- what would decide otherwise ---- */

static bool has_rule(const struct list *rules, uint32_t rule)
{
	for (size_t i = 0; i < rules->n; i++)
		if (rules->items[i] == rule)
			return true;
	return false;
}

/* Takes the rules away, one by one, from the policy of the reference. */
static void check_without(struct ref_policy *policy, const struct why_judgement *why, int direction,
			  const struct ref_flow *flow)
{
	struct ref_verdict first = ref_judge(policy, direction, flow, REF_NOW), verdict = first;
	int64_t untils[REF_MAX_RULES];

	for (int i = 0; i < policy->n_rules; i++)
		untils[i] = policy->rules[i].until;
	if (!first.rule)
		assert_false(why->has_without);
	for (size_t i = 0; verdict.rule && verdict.allow == first.allow; i++) {
		assert_true(i <= why->again.n);
		if (i)
			assert_int_equal(why->again.items[i - 1], verdict.rule - 1);
		policy->rules[verdict.rule - 1].until = 1;
		verdict = ref_judge(policy, direction, flow, REF_NOW);
	}
	if (first.rule) {
		assert_true(why->has_without);
		assert_int_equal(why->without.allow, verdict.allow);
		assert_int_equal(why->without.rule == FLOW_DEFAULT ? 0 : (int)why->without.rule + 1, verdict.rule);
		assert_false(has_rule(&why->again, why->without.rule));
	}
	for (int i = 0; i < policy->n_rules; i++)
		policy->rules[i].until = untils[i];
}

static void what_decides_without_the_decider_decides_without_it(void **state)
{
	unsigned asked = 0;

	(void)state;
	for (uint64_t seed = 20001; seed <= 20000 + N_POLICIES; seed++) {
		struct ref_policy *policy = ref_policy_new(seed);
		struct ref_compiled compiled;

		ref_compile(&compiled, policy);
		for (int i = 0; i < 50; i++) {
			char from[300], to[300], service[40], *error = NULL;
			struct ref_flow flow;
			struct why_flow why;

			ref_flow_make(policy, &flow);
			ref_end_format(&flow.from, from, sizeof(from));
			ref_end_format(&flow.to, to, sizeof(to));
			ref_service_format(&flow, service, sizeof(service));
			if (why_flow_find(&why, compiled.policy, from, to, service, REF_NOW, &error) != 0)
				fail_msg("%s", error);
			if (why.egress.judged)
				check_without(policy, &why.egress, 1, &flow);
			if (why.ingress.judged)
				check_without(policy, &why.ingress, 2, &flow);
			asked += why.egress.has_without + why.ingress.has_without;
			why_flow_free(&why);
		}
		ref_compiled_clear(&compiled);
		ref_policy_free(policy);
	}
	assert_true(asked > N_POLICIES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(invariants_hold_for_every_flow_or_are_broken_by_the_one_given),
		cmocka_unit_test(tests_hold_for_every_member_or_fail_for_the_one_given),
		cmocka_unit_test(what_decides_without_the_decider_decides_without_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
