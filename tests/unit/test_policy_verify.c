/* SPDX-License-Identifier: Apache-2.0 */
/* Tests and invariants of a policy, answered; and sets of flows in words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/flow_space.h"
#include "policy/verify.h"

#define NOW 1800000000 /* 2027-01-15 */

static const char base[] =
	"bulkhead: 1\n"
	"identities:\n"
	"  web: spiffe://prod.example/ns/shop/sa/web\n"
	"  db: [spiffe://prod.example/ns/shop/sa/postgres, spiffe://prod.example/ns/*/sa/bouncer]\n"
	"  shop: {any: [web, db]}\n"
	"  nobody: {all: [web, db]}\n"
	"  backup: {unit: backup.service}\n"
	"networks:\n"
	"  office: [192.0.2.0/24]\n"
	"  internet: {include: [0.0.0.0/0, \"::/0\"], except: [10.0.0.0/8]}\n"
	"services:\n"
	"  pg: [tcp/5432, tcp/6432-6440]\n"
	"tiers: [guardrails, app]\n"
	"defaults: {action: deny}\n"
	"rules:\n"
	"  - {name: no-telnet, tier: guardrails, action: deny, from: any, to: any, service: tcp/23}\n"
	"  - {name: web-db, tier: app, action: allow, from: web, to: db, service: pg}\n"
	"  - {name: office, tier: app, action: allow, from: office, to: web, service: tcp/443}\n"
	"  - {name: old, tier: app, action: allow, from: backup, to: db, service: tcp/22, "
	"until: \"2027-01-01T00:00:00Z\"}\n"
	"  - {name: trial, tier: app, action: deny, from: backup, to: web, service: tcp/80, mode: audit}\n"
	"  - {name: out, tier: app, action: allow, from: backup, to: db, service: udp/9, "
	"direction: egress}\n";

static struct policy *policy_of(const char *more)
{
	char *text = NULL;
	struct policy_source source = {.name = "p.yaml"};
	struct policy_diagnostics *diagnostics;
	struct policy *policy;

	assert_true(asprintf(&text, "%s%s", base, more) > 0);
	source.text = text;
	source.len = strlen(text);
	if (policy_parse(&policy, &diagnostics, &source, 1) != 0) {
		policy_diagnostics_print(diagnostics, stderr, false);
		fail();
	}
	policy_diagnostics_freep(&diagnostics);
	free(text);
	return policy;
}

/* Everything that does not hold, as `apply` shows it. */
static void assert_verified(const char *more, int expected, const char *report)
{
	struct policy *policy = policy_of(more);
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	int r = policy_verify(policy, NOW, out);

	fclose(out);
	assert_string_equal(text, report);
	assert_int_equal(r, expected);
	free(text);
	policy_freep(&policy);
}

static void what_holds_says_nothing(void **state)
{
	(void)state;
	assert_verified("", 0, "");
	assert_verified("tests:\n"
			"  - {from: web, to: db, service: pg, expect: allow, by: web-db}\n"
			"  - {from: db, to: web, service: pg, expect: deny, by: default}\n"
			"  - {from: shop, to: shop, service: tcp/23, expect: deny, by: no-telnet}\n"
			"  - {from: office, to: web, service: tcp/443, expect: allow, by: office}\n"
			"  - {from: 192.0.2.1, to: web, service: tcp/443, expect: allow}\n"
			"  - {from: 192.0.3.1, to: web, service: tcp/443, expect: deny}\n"
			"  - {from: backup, to: db, service: tcp/22, expect: deny, by: default}\n"
			"  - {from: backup, to: web, service: tcp/80, expect: deny, by: default}\n"
			"  - {from: any, to: any, service: tcp/23, expect: deny, by: no-telnet}\n"
			"invariants:\n"
			"  - never: {from: any, to: any, service: tcp/23}\n"
			"  - never: {from: {not: web}, to: db}\n"
			"  - always: {from: web, to: db, service: tcp/5432}\n"
			"  - isolated: [backup, db]\n"
			"  - always: {from: nobody, to: any}\n",
			1, /* the audited rule: see below */
			"p.yaml:30:5: error: the test fails: backup -> web tcp/80: deny by default\n"
			"  expected deny by default, got allow\n"
			"  flow     backup -> spiffe://prod.example/ns/shop/sa/web tcp/80\n"
			"  egress   allow by trial (p.yaml:20), which in audit mode lets pass what it denies\n"
			"  ingress  allow by trial (p.yaml:20), which in audit mode lets pass what it denies\n");
}

static void a_failed_test_comes_with_a_flow_and_its_rules(void **state)
{
	(void)state;
	assert_verified("tests:\n"
			"  - {from: web, to: db, service: tcp/22, expect: allow}\n"
			"  - {name: by, from: web, to: db, service: pg, expect: allow, by: office}\n"
			"  - {from: world, to: web, service: tcp/443, expect: allow}\n",
			1,
			"p.yaml:23:5: error: the test fails: web -> db tcp/22: allow\n"
			"  expected allow, got deny\n"
			"  flow     spiffe://prod.example/ns/shop/sa/web -> spiffe://prod.example/ns/shop/sa/postgres "
			"tcp/22\n"
			"  egress   deny by default (p.yaml:14)\n"
			"  ingress  deny by default (p.yaml:14)\n"
			"p.yaml:24:5: error: the test fails: by: web -> db pg: allow by office\n"
			"  expected allow by office, got allow, decided by another rule\n"
			"  flow     spiffe://prod.example/ns/shop/sa/web -> spiffe://prod.example/ns/shop/sa/postgres "
			"tcp/5432\n"
			"  egress   allow by web-db (p.yaml:17)\n"
			"  ingress  allow by web-db (p.yaml:17)\n"
			"p.yaml:25:5: error: the test fails: world -> web tcp/443: allow\n"
			"  expected allow, got deny\n"
			"  flow     world -> spiffe://prod.example/ns/shop/sa/web tcp/443\n"
			"  egress   not judged: no managed workload\n"
			"  ingress  deny by default (p.yaml:14)\n");
}

static void by_is_the_rule_of_the_end_that_decides(void **state)
{
	(void)state;
	/* Allowed by `out` at egress, denied by default at ingress: only the latter decides. */
	assert_verified("tests:\n"
			"  - {from: backup, to: db, service: udp/9, expect: deny, by: default}\n"
			"  - {from: backup, to: db, service: udp/9, expect: deny, by: out}\n",
			1,
			"p.yaml:24:5: error: the test fails: backup -> db udp/9: deny by out\n"
			"  expected deny by out, got deny, decided by another rule\n"
			"  flow     backup -> spiffe://prod.example/ns/shop/sa/postgres udp/9\n"
			"  egress   allow by out (p.yaml:21)\n"
			"  ingress  deny by default (p.yaml:14)\n");
}

static void a_test_of_nobody_fails(void **state)
{
	(void)state;
	assert_verified("tests: [{from: nobody, to: db, service: pg, expect: allow}]\n", 1,
			"p.yaml:22:9: error: the test fails: nobody -> db pg: allow\n"
			"  it is about no flow: nobody, or no address, is what it names\n");
}

static void an_invariant_that_does_not_hold_comes_with_a_flow(void **state)
{
	(void)state;
	assert_verified("invariants:\n"
			"  - {name: closed, never: {from: internet, to: web}}\n"
			"  - always: {from: web, to: db}\n"
			"  - isolated: [db, web]\n",
			1,
			"p.yaml:23:5: error: the invariant does not hold: closed: never: {from: internet, to: web}\n"
			"  flow     192.0.2.0 -> spiffe://prod.example/ns/shop/sa/web@10.0.0.0 tcp/443\n"
			"  egress   not judged: no managed workload\n"
			"  ingress  allow by office (p.yaml:18)\n"
			"p.yaml:24:5: error: the invariant does not hold: always: {from: web, to: db}\n"
			"  flow     spiffe://prod.example/ns/shop/sa/web@10.0.0.0 -> "
			"spiffe://prod.example/ns/shop/sa/postgres@10.0.0.0 tcp/23\n"
			"  egress   deny by no-telnet (p.yaml:16)\n"
			"  ingress  deny by no-telnet (p.yaml:16)\n"
			"p.yaml:25:5: error: the invariant does not hold: isolated: [db, web]\n"
			"  flow     spiffe://prod.example/ns/shop/sa/postgres@192.0.2.0 -> "
			"spiffe://prod.example/ns/shop/sa/web@10.0.0.0 tcp/443\n"
			"  egress   allow by office (p.yaml:18)\n"
			"  ingress  allow by office (p.yaml:18)\n");
}

static int stop(void *context, const struct policy_finding *finding)
{
	(void)finding;
	++*(int *)context;
	return 7;
}

static void a_caller_can_stop(void **state)
{
	struct policy *policy = policy_of("tests:\n"
					  "  - {from: web, to: db, service: pg, expect: allow}\n"
					  "  - {from: web, to: db, service: pg, expect: allow}\n"
					  "invariants: [{never: {from: office, to: db}}, {isolated: [office, db]}]\n");
	char *error;
	int n = 0;

	(void)state;
	assert_int_equal(policy_run_tests(policy, NOW, stop, &n, &error), 7);
	assert_int_equal(policy_check_invariants(policy, policy->invariants, 2, NOW, stop, &n, &error), 7);
	assert_int_equal(n, 2);
	policy_freep(&policy);
}

/* Rules between addresses that overlap at both ends and in their ports, in no order. */
static void what_is_too_complex_is_not_verified(void **state)
{
	char *text = NULL, *report = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	struct policy_source source = {.name = "p.yaml"};
	struct policy_diagnostics *diagnostics;
	struct policy *policy;
	uint32_t x = 1;

	(void)state;
	fputs("bulkhead: 1\nnetworks:\n", out);
	for (int i = 0; i < 100; i++) {
		fprintf(out, "  a%d: [10.0.0.0/32", i);
		for (int k = 0; k < 256; k++) {
			x = x * 1664525 + 1013904223;
			if (x >> 31)
				fprintf(out, ", 10.%d.0.0/16", k);
		}
		fputs("]\n", out);
	}
	fputs("rules:\n", out);
	for (int i = 0; i < 2000; i++) {
		x = x * 1664525 + 1013904223;
		fprintf(out, "  - {name: r%d, action: allow, from: a%u, to: a%u, service: tcp/%u-%u}\n", i,
			x >> 10 & 63, x >> 20 & 63, ((x >> 16) & 32767) + 1, 60000 - (x >> 18));
	}
	fputs("  - {name: rest, action: allow, from: any, to: any}\n"
	      "invariants: [{always: {from: any, to: any}}]\n",
	      out);
	fclose(out);
	source.text = text;
	source.len = size;
	assert_int_equal(policy_parse(&policy, &diagnostics, &source, 1), 0);
	out = open_memstream(&report, &size);
	assert_int_equal(policy_verify(policy, NOW, out), 1);
	fclose(out);
	assert_string_equal(report,
			    "error: the tests and invariants cannot be answered: the policy is too complex for an "
			    "exact answer: too many of its rules overlap\n");
	free(report);
	free(text);
	policy_diagnostics_freep(&diagnostics);
	policy_freep(&policy);
}

/* ---- words ---- */

static const struct selector everybody = {&(struct selector_term){}, 1};

static char *words_of(struct flow_space *space, const struct flow_box *box, bool to)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	flow_space_describe_end(space, 0, box, to, out);
	fclose(out);
	return text;
}

/* What a rule's `from` is called. */
static void assert_words(const char *from, const char *expected)
{
	char more[512], *error, *text;
	struct policy *policy;
	struct flow_space *space;
	struct flow_box *boxes;
	size_t n;

	snprintf(more, sizeof(more), "  - {name: asked, tier: app, action: allow, from: %s, to: web, service: tcp/1}\n",
		 from);
	policy = policy_of(more);
	assert_int_equal(flow_space_new(&space, (const struct policy *const[]){policy}, 1, NOW, &error), 0);
	/* To a workload nothing is left out of the source: one box but for the world, which then comes second. */
	assert_int_equal(flow_space_select(space, 0, &policy->rules[policy->n_rules - 1].from, &everybody,
					   policy->rules[policy->n_rules - 1].services, 1, &boxes, &n),
			 0);
	text = words_of(space, &boxes[0], false);
	assert_string_equal(text, expected);
	free(text);
	flow_space_freep(&space);
	policy_freep(&policy);
}

static void sets_are_described_in_the_names_of_the_policy(void **state)
{
	(void)state;
	assert_words("web", "web");
	assert_words("shop", "shop");
	assert_words("[web, backup]", "web, backup");
	assert_words("verified", "verified");
	assert_words("{all: [verified, {not: web}]}", "verified except web");
	assert_words("{identity: web, network: office}", "web at office");
	assert_words("{identity: web, network: internet}", "web at internet");
	assert_words("any", "any workload");
	assert_words("office", "any workload at office");
	assert_words("{not: {any: [web, db]}}", "any workload except shop, unidentified");
}

static void assert_services(const char *service, const char *expected)
{
	char more[256], *error, *text = NULL;
	struct policy *policy;
	struct flow_space *space;
	struct flow_box *boxes;
	size_t n, size;
	FILE *out;

	snprintf(more, sizeof(more), "  - {name: asked, tier: app, action: allow, from: web, to: web%s%s}\n",
		 *service ? ", service: " : "", service);
	policy = policy_of(more);
	assert_int_equal(flow_space_new(&space, (const struct policy *const[]){policy}, 1, NOW, &error), 0);
	assert_int_equal(flow_space_select_rule(space, 0, (uint32_t)policy->n_rules - 1, &boxes, &n), 0);
	assert_int_equal(n, 1);
	out = open_memstream(&text, &size);
	flow_space_describe_services(space, 0, &boxes[0], out);
	fclose(out);
	assert_string_equal(text, expected);
	free(text);
	flow_space_freep(&space);
	policy_freep(&policy);
}

static void services_are_described_by_name_or_port(void **state)
{
	(void)state;
	assert_services("", "any");
	assert_services("pg", "pg");
	assert_services("[pg, tcp/22]", "tcp/22, tcp/5432, tcp/6432-6440");
	assert_services("tcp", "tcp");
	assert_services("[udp, icmp/echo-request, proto/47]", "udp, icmp/echo-request, proto/47");
	assert_services("[icmp, icmpv6]", "icmp, icmpv6");
}

static void every_end_of_a_space_has_an_example(void **state)
{
	struct policy *policy = policy_of("");
	struct flow_space *space;
	struct flow_box *boxes;
	char *error, *from, *to, *service;
	size_t n;

	(void)state;
	assert_int_equal(flow_space_new(&space, (const struct policy *const[]){policy}, 1, NOW, &error), 0);
	assert_int_equal(flow_space_select_rule(space, 0, 1, &boxes, &n), 0);
	assert_int_equal(flow_space_example(space, &boxes[0], &from, &to, &service), 0);
	assert_string_equal(from, "spiffe://prod.example/ns/shop/sa/web@10.0.0.0");
	assert_string_equal(to, "spiffe://prod.example/ns/shop/sa/postgres@10.0.0.0");
	assert_string_equal(service, "tcp/5432");
	free(from);
	free(to);
	free(service);
	flow_space_freep(&space);
	policy_freep(&policy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_holds_says_nothing),
		cmocka_unit_test(a_failed_test_comes_with_a_flow_and_its_rules),
		cmocka_unit_test(by_is_the_rule_of_the_end_that_decides),
		cmocka_unit_test(a_test_of_nobody_fails),
		cmocka_unit_test(an_invariant_that_does_not_hold_comes_with_a_flow),
		cmocka_unit_test(a_caller_can_stop),
		cmocka_unit_test(what_is_too_complex_is_not_verified),
		cmocka_unit_test(sets_are_described_in_the_names_of_the_policy),
		cmocka_unit_test(services_are_described_by_name_or_port),
		cmocka_unit_test(every_end_of_a_space_has_an_example),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
