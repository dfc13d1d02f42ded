/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the language means, one sentence of it per test, asked through explain.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/image.h"
#include "policy/policy.h"
#include "policy/why.h"

#define WEB "spiffe://td/web"
#define DB "spiffe://td/db"

static struct policy *policy;
static struct policy_image *image;

static void unload(void)
{
	policy_freep(&policy);
	policy_image_freep(&image);
}

/* Loads rules behind definitions that most tests share. */
static void load(const char *rules)
{
	static const char head[] = "bulkhead: 1\n"
				   "identities:\n"
				   "  web: " WEB "\n"
				   "  db: " DB "\n"
				   "  backup: {unit: backup.service}\n"
				   "networks:\n"
				   "  lan: [10.0.0.0/8, \"fd00::/8\"]\n"
				   "  six: \"::/0\"\n"
				   "services: {pg: [tcp/5432, tcp/6432-6440], gap: [tcp/10, tcp/12]}\n"
				   "rules:\n";
	struct policy_diagnostics *diagnostics;
	struct policy_source source = {.name = "p.yaml"};
	char *text, *error;
	void *bytes;
	size_t len;

	unload();
	assert_true(asprintf(&text, "%s%s", head, rules) > 0);
	source.text = text;
	source.len = strlen(text);
	if (policy_parse(&policy, &diagnostics, &source, 1) != 0) {
		policy_diagnostics_print(diagnostics, stderr, false);
		fail();
	}
	assert_int_equal(policy_compile(policy, &bytes, &len, &error), 0);
	assert_int_equal(policy_image_open(&image, bytes, len, NULL), 0);
	policy_diagnostics_freep(&diagnostics);
	free(bytes);
	free(text);
}

static struct policy_explanation explain(const char *from, const char *to, const char *service)
{
	struct policy_explanation explanation;
	char *error = NULL;

	if (policy_explain(image, from, to, service, 0, &explanation, &error) != 0)
		fail_msg("%s", error);
	return explanation;
}

static void allowed(const char *from, const char *to, const char *service)
{
	if (!explain(from, to, service).allow)
		fail_msg("%s -> %s %s is denied", from, to, service);
}

static void denied(const char *from, const char *to, const char *service)
{
	if (explain(from, to, service).allow)
		fail_msg("%s -> %s %s is allowed", from, to, service);
}

static void refused(const char *from, const char *to, const char *service, const char *reason)
{
	struct policy_explanation explanation;
	char *error = NULL;

	assert_int_equal(policy_explain(image, from, to, service, 0, &explanation, &error), 1);
	if (!strstr(error, reason))
		fail_msg("\"%s\" does not contain \"%s\"", error, reason);
	free(error);
}

static void what_no_rule_allows_is_denied(void **state)
{
	struct policy_explanation explanation;

	(void)state;
	load("  - {name: r, action: allow, from: web, to: db, service: pg}\n");
	allowed(WEB, DB, "tcp/5432");
	allowed(WEB, DB, "tcp/6440");
	denied(WEB, DB, "tcp/6441");
	denied(WEB, DB, "udp/5432");
	denied(DB, WEB, "tcp/5432");
	denied("spiffe://td/other", DB, "tcp/5432");
	denied("unidentified", DB, "tcp/5432");
	denied("10.1.1.1", DB, "tcp/5432");
	explanation = explain(WEB, DB, "tcp/1");
	assert_string_equal(explanation.egress.rule, "default");
	assert_null(explanation.egress.file);
}

static void deny_wins_wherever_it_stands(void **state)
{
	struct policy_explanation explanation;

	(void)state;
	load("  - {name: a, action: allow, from: any, to: any}\n"
	     "  - {name: b, action: deny, from: web, to: any, service: tcp/25}\n"
	     "  - {name: c, action: deny, from: any, to: db, service: tcp/25}\n");
	explanation = explain(WEB, DB, "tcp/25");
	assert_false(explanation.allow);
	assert_string_equal(explanation.egress.rule, "b");
	assert_int_equal(explanation.egress.line, 12);
	explanation = explain(WEB, DB, "tcp/26");
	assert_true(explanation.allow);
	assert_string_equal(explanation.egress.rule, "a");
}

static void each_end_judges_by_its_direction(void **state)
{
	struct policy_explanation explanation;

	(void)state;
	load("  - {name: out, action: allow, from: web, to: any, direction: egress}\n"
	     "  - {name: in, action: allow, from: any, to: db, direction: ingress, service: pg}\n");
	explanation = explain(WEB, DB, "tcp/5432");
	assert_true(explanation.allow);
	assert_string_equal(explanation.egress.rule, "out");
	assert_string_equal(explanation.ingress.rule, "in");
	explanation = explain(WEB, DB, "tcp/1");
	assert_true(explanation.egress.allow);
	assert_false(explanation.ingress.allow);
	assert_false(explanation.allow);
}

static void an_end_outside_any_workload_judges_nothing(void **state)
{
	struct policy_explanation explanation;

	(void)state;
	load("  - {name: r, action: allow, from: web, to: lan}\n");
	explanation = explain(WEB, "10.2.3.4", "tcp/1");
	assert_true(explanation.egress.judged);
	assert_false(explanation.ingress.judged);
	assert_true(explanation.allow);
	denied(WEB, "11.2.3.4", "tcp/1");
	assert_false(explain("host", "world@10.0.0.1", "tcp/1").egress.judged);
	assert_true(explain("unidentified", "host", "tcp/1").egress.judged);
	assert_true(explain("backup", "host", "tcp/1").egress.judged);
}

static void built_in_names_are_exactly_these_peers(void **state)
{
	(void)state;
	load("  - {name: r1, action: allow, from: verified, to: db, service: tcp/1}\n"
	     "  - {name: r2, action: allow, from: unidentified, to: any, service: tcp/2}\n"
	     "  - {name: r3, action: allow, from: host, to: db, service: tcp/3}\n"
	     "  - {name: r4, action: allow, from: world, to: db, service: tcp/4}\n"
	     "  - {name: r5, action: allow, from: any, to: any, service: tcp/5}\n"
	     "  - {name: r6, action: allow, from: verified, to: any, direction: egress, service: tcp/1}\n");
	allowed("spiffe://other/x", DB, "tcp/1");
	denied("backup", DB, "tcp/1"); /* a local identity shows no certificate */
	denied("world", DB, "tcp/1");
	allowed("unidentified", DB, "tcp/2");
	denied("world", DB, "tcp/2");
	allowed("host", DB, "tcp/3");
	denied("192.0.2.1", DB, "tcp/3");
	allowed("192.0.2.1", DB, "tcp/4");
	denied("host", DB, "tcp/4");
	allowed("backup", "unidentified", "tcp/5");
	allowed("192.0.2.1", DB, "tcp/5");
}

static void a_network_is_whoever_is_there(void **state)
{
	(void)state;
	load("  - {name: r, action: allow, from: lan, to: any}\n");
	allowed("10.0.0.1", DB, "tcp/1");
	allowed(WEB "@10.0.0.1", DB, "tcp/1");
	allowed("unidentified@fd00::1", DB, "tcp/1");
	allowed("::ffff:10.0.0.1", DB, "tcp/1"); /* the same flow, whichever socket carried it */
	denied("9.255.255.255", DB, "tcp/1");
	denied("11.0.0.0", DB, "tcp/1");
	denied("fe00::", DB, "tcp/1");
	denied(WEB, DB, "tcp/1"); /* without an address, in no network */
}

static void identity_and_network_must_both_match(void **state)
{
	(void)state;
	load("  - {name: r, action: allow, from: {identity: [web, backup], network: lan}, to: any}\n");
	allowed(WEB "@10.0.0.1", DB, "tcp/1");
	allowed("backup@10.0.0.1", DB, "tcp/1");
	denied(WEB "@11.0.0.1", DB, "tcp/1");
	denied(DB "@10.0.0.1", DB, "tcp/1");
	denied("10.0.0.1", DB, "tcp/1");
}

static void all_of_ipv6_is_none_of_ipv4(void **state)
{
	(void)state;
	load("  - {name: r, action: allow, from: six, to: any}\n");
	allowed("::1", DB, "tcp/1");
	allowed("::ffff:0:0:1", DB, "tcp/1");
	denied("10.0.0.1", DB, "tcp/1");
	denied("::ffff:10.0.0.1", DB, "tcp/1");
}

static void ports_between_are_not_meant(void **state)
{
	(void)state;
	load("  - {name: r, action: allow, from: any, to: any, service: gap}\n");
	allowed(WEB, DB, "tcp/10");
	denied(WEB, DB, "tcp/11");
	allowed(WEB, DB, "tcp/12");
}

static void a_rule_without_service_is_about_everything(void **state)
{
	static const char *const services[] = {"tcp/1", "tcp/65535", "udp/53", "icmp/echo-request",
					       "icmpv6/echo-request"};

	(void)state;
	load("  - {name: r, action: allow, from: web, to: db}\n");
	for (size_t i = 0; i < sizeof(services) / sizeof(services[0]); i++)
		allowed(WEB, DB, services[i]);
	load("  - {name: r, action: allow, from: web, to: db, service: icmp/echo-request}\n");
	allowed(WEB, DB, "icmp/echo-request");
	denied(WEB, DB, "icmpv6/echo-request");
}

static void what_is_not_one_flow_is_refused(void **state)
{
	(void)state;
	load("  - {name: r, action: allow, from: web, to: db}\n");
	refused("any", DB, "tcp/1", "'any' is many peers");
	refused("nobody", DB, "tcp/1", "'nobody' is no SPIFFE ID");
	refused("web", DB, "tcp/1", "'web' is no SPIFFE ID");
	refused("spiffe://td", DB, "tcp/1", "has a path");
	refused("spiffe://td/*", DB, "tcp/1", "'*'");
	refused(WEB "@x", DB, "tcp/1", "'x' is not an address");
	refused("10.0.0.0/8", DB, "tcp/1", "'10.0.0.0/8'");
	refused("10.0.0.256", DB, "tcp/1", "'10.0.0.256' is not an address");
	refused("fe80::1%lo", DB, "tcp/1", "zone");
	refused("", DB, "tcp/1", "empty");
	refused(WEB, DB, "tcp", "many services");
	refused(WEB, DB, "tcp/1-2", "many services");
	refused(WEB, DB, "tcp/0", "1 to 65535");
	refused(WEB, DB, "https", "'https' is not a service");
}

static void closest_is(const char *from, const char *to, const char *service, bool ingress, const char *expected)
{
	char *lines[3], joined[1024] = "";
	int n = policy_closest(policy, from, to, service, ingress, 0, lines, 3);

	assert_true(n >= 0);
	for (int i = 0; i < n; i++) {
		strcat(strcat(joined, lines[i]), "\n");
		free(lines[i]);
	}
	assert_string_equal(joined, expected);
}

static void the_closest_rules_say_what_differs(void **state)
{
	(void)state;
	load("  - {name: far, action: allow, from: backup, to: lan, service: tcp/1}\n"
	     "  - {name: two, action: allow, from: [backup, lan], to: db, service: tcp/1}\n"
	     "  - {name: web-to-db, action: allow, from: web, to: db, service: pg}\n"
	     "  - {name: in, action: allow, from: web, to: db, service: tcp/22, direction: ingress}\n"
	     "  - {name: no, action: deny, from: web, to: db, service: tcp/1}\n");
	closest_is(WEB, DB, "tcp/22", false,
		   "web-to-db (p.yaml:13) allows it on tcp/5432, tcp/6432-6440, not tcp/22\n"
		   "in (p.yaml:14) allows it at ingress only\n"
		   "two (p.yaml:12) allows it from backup or lan, not spiffe://td/web; on tcp/1, not tcp/22\n");
	closest_is(WEB "@11.0.0.1", "backup", "tcp/5432", true,
		   "web-to-db (p.yaml:13) allows it to db, not backup\n"
		   "in (p.yaml:14) allows it to db, not backup; on tcp/22, not tcp/5432\n");
	closest_is("nobody", DB, "https", true, "");
}

static int teardown(void **state)
{
	(void)state;
	unload();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_no_rule_allows_is_denied),
		cmocka_unit_test(deny_wins_wherever_it_stands),
		cmocka_unit_test(each_end_judges_by_its_direction),
		cmocka_unit_test(an_end_outside_any_workload_judges_nothing),
		cmocka_unit_test(built_in_names_are_exactly_these_peers),
		cmocka_unit_test(a_network_is_whoever_is_there),
		cmocka_unit_test(identity_and_network_must_both_match),
		cmocka_unit_test(all_of_ipv6_is_none_of_ipv4),
		cmocka_unit_test(ports_between_are_not_meant),
		cmocka_unit_test(a_rule_without_service_is_about_everything),
		cmocka_unit_test(what_is_not_one_flow_is_refused),
		cmocka_unit_test(the_closest_rules_say_what_differs),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
