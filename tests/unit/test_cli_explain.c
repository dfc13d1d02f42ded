/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policyctl explain: what it prints. What it finds: test_policy_why.c, test_policy_explain.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "command.h"

#define WEB "spiffe://td/web"
#define DB "spiffe://td/db"
#define ASK "explain --policy p.yaml --at 2026-11-21T08:00:00Z "

static int in_a_directory(void **state)
{
	*state = command_directory_new();
	command_write(
		"p.yaml",
		"bulkhead: 1\n"
		"identities:\n"
		"  web: " WEB "\n"
		"  db: " DB "\n"
		"  ops: {unit: ops.service}\n"
		"networks: {lan: 10.0.0.0/8}\n"
		"tiers: [guardrails, app, baseline]\n"
		"rules:\n"
		"  - {name: ops-may, tier: guardrails, action: pass, from: ops, to: any, service: tcp/22}\n"
		"  - {name: no-ssh, tier: guardrails, action: deny, priority: 5, from: any, to: any, service: tcp/22}\n"
		"  - {name: web-to-db, action: allow, from: web, to: db, service: [tcp/5432, tcp/22]}\n"
		"  - {name: guest, action: allow, from: lan, to: db, service: tcp/80, until: 2027-01-01T00:00:00Z}\n"
		"  - {name: trial, action: deny, mode: audit, from: web, to: web, direction: egress}\n"
		"  - {name: ops-ssh, tier: baseline, action: allow, from: ops, to: db, service: tcp/22}\n"
		"  - {name: web-to-web, tier: baseline, action: allow, from: web, to: web}\n");
	return 0;
}

static int away_from_it(void **state)
{
	command_directory_free(*state);
	return 0;
}

static void a_deny_says_who_would_allow(void **state)
{
	(void)state;
	command_gives(1,
		      "deny: " WEB " -> " DB " tcp/22\n"
		      "  egress   deny by rule no-ssh (p.yaml:10) in tier guardrails\n"
		      "           would be allowed by web-to-db (p.yaml:11) in tier app if not denied by no-ssh "
		      "(p.yaml:10)\n"
		      "  ingress  deny by rule no-ssh (p.yaml:10) in tier guardrails\n"
		      "           would be allowed by web-to-db (p.yaml:11) in tier app if not denied by no-ssh "
		      "(p.yaml:10)\n",
		      ASK "--from " WEB " --to " DB " tcp/22");
}

static void passes_are_shown(void **state)
{
	(void)state;
	command_gives(0,
		      "allow: ops -> " DB " tcp/22\n"
		      "  egress   allow by rule ops-ssh (p.yaml:14) in tier baseline\n"
		      "           tier guardrails: pass by ops-may (p.yaml:9)\n"
		      "           without it: denied by default\n"
		      "  ingress  allow by rule ops-ssh (p.yaml:14) in tier baseline\n"
		      "           tier guardrails: pass by ops-may (p.yaml:9)\n"
		      "           without it: denied by default\n",
		      ASK "--from ops --to " DB " tcp/22");
}

static void an_end_is_foretold_and_comes(void **state)
{
	(void)state;
	command_gives(0,
		      "allow: 10.0.0.1 -> " DB " tcp/80\n"
		      "  egress   not judged: this end is not a managed workload\n"
		      "  ingress  allow by rule guest (p.yaml:12) in tier app\n"
		      "           until 2027-01-01T00:00:00Z: then denied by default\n"
		      "           without it: denied by default\n",
		      ASK "--from 10.0.0.1 --to " DB " tcp/80");
	command_gives(1,
		      "deny: 10.0.0.1 -> " DB " tcp/80\n"
		      "  egress   not judged: this end is not a managed workload\n"
		      "  ingress  deny by default (no rule decided)\n"
		      "closest rules for ingress:\n"
		      "  guest (p.yaml:12) allows it until 2027-01-01T00:00:00Z, which has passed\n"
		      "  web-to-db (p.yaml:11) allows it from web, not 10.0.0.1; on tcp/22, tcp/5432, not tcp/80\n"
		      "  ops-ssh (p.yaml:14) allows it from ops, not 10.0.0.1; on tcp/22, not tcp/80\n",
		      "explain --policy p.yaml --at 2027-01-01T00:00:00Z --from 10.0.0.1 --to " DB " tcp/80");
}

static void audit_mode_is_named_as_the_only_reason(void **state)
{
	(void)state;
	command_gives(
		0,
		"allow: " WEB " -> " WEB " tcp/80\n"
		"  egress   allow by rule trial (p.yaml:13) in tier app\n"
		"           allowed only because trial is in audit mode: would be denied\n"
		"           without it: allowed by web-to-web (p.yaml:15) in tier baseline; else denied by default\n"
		"  ingress  allow by rule web-to-web (p.yaml:15) in tier baseline\n"
		"           without it: denied by default\n",
		ASK "--from " WEB " --to " WEB " tcp/80");
}

static void json_has_all_of_it(void **state)
{
	(void)state;
	command_gives(0, NULL, ASK "--json --from ops --to " DB " tcp/22 > x.json");
	command_file_is("x.json", "{\n"
				  "  \"verdict\": \"allow\",\n"
				  "  \"from\": \"ops\",\n"
				  "  \"to\": \"spiffe://td/db\",\n"
				  "  \"service\": \"tcp/22\",\n"
				  "  \"at\": \"2026-11-21T08:00:00Z\",\n"
				  "  \"egress\": {\n"
				  "    \"tier\": \"baseline\",\n"
				  "    \"rule\": \"ops-ssh\",\n"
				  "    \"file\": \"p.yaml\",\n"
				  "    \"line\": 14,\n"
				  "    \"verdict\": \"allow\",\n"
				  "    \"audit\": false,\n"
				  "    \"passes\": [\n"
				  "      {\n"
				  "        \"tier\": \"guardrails\",\n"
				  "        \"rule\": \"ops-may\",\n"
				  "        \"file\": \"p.yaml\",\n"
				  "        \"line\": 9\n"
				  "      }\n"
				  "    ],\n"
				  "    \"without\": {\n"
				  "      \"rule\": \"default\",\n"
				  "      \"file\": null,\n"
				  "      \"verdict\": \"deny\",\n"
				  "      \"audit\": false,\n"
				  "      \"after\": []\n"
				  "    }\n"
				  "  },\n"
				  "  \"ingress\": {\n"
				  "    \"tier\": \"baseline\",\n"
				  "    \"rule\": \"ops-ssh\",\n"
				  "    \"file\": \"p.yaml\",\n"
				  "    \"line\": 14,\n"
				  "    \"verdict\": \"allow\",\n"
				  "    \"audit\": false,\n"
				  "    \"passes\": [\n"
				  "      {\n"
				  "        \"tier\": \"guardrails\",\n"
				  "        \"rule\": \"ops-may\",\n"
				  "        \"file\": \"p.yaml\",\n"
				  "        \"line\": 9\n"
				  "      }\n"
				  "    ],\n"
				  "    \"without\": {\n"
				  "      \"rule\": \"default\",\n"
				  "      \"file\": null,\n"
				  "      \"verdict\": \"deny\",\n"
				  "      \"audit\": false,\n"
				  "      \"after\": []\n"
				  "    }\n"
				  "  },\n"
				  "  \"closest\": {\n"
				  "    \"egress\": [],\n"
				  "    \"ingress\": []\n"
				  "  }\n"
				  "}\n");
}

static void a_batch_is_judged_at_the_same_time(void **state)
{
	(void)state;
	command_write("flows.tsv", "10.0.0.1\t" DB "\ttcp/80\n" WEB "\t" DB "\ttcp/22\n");
	command_gives(0, "allow\t-\tguest\ndeny\tno-ssh\tno-ssh\n", ASK "--batch flows.tsv");
	command_gives(0, "deny\t-\tdefault\ndeny\tno-ssh\tno-ssh\n",
		      "explain --policy p.yaml --at 2028-01-01T00:00:00Z --batch flows.tsv");
}

static void usage_is_told_apart_from_no(void **state)
{
	(void)state;
	command_gives(2, NULL, ASK "--from web --to " DB " tcp/22"); /* a name of IDs is no end */
	command_gives(2, NULL, ASK "--from " WEB " --to " DB);
	command_gives(2, NULL, ASK "--from " WEB " --to " DB " tcp/22 tcp/23");
	command_gives(2, NULL, ASK "--batch flows.tsv --from " WEB);
	command_gives(2, NULL, "explain --policy p.yaml --at 2026-11-21 --from " WEB " --to " DB " tcp/22");
	command_gives(2, NULL, "explain --policy p.yaml --at");
	command_gives(2, NULL, "explain --policy no-such-file --from " WEB " --to " DB " tcp/22");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, in_a_directory, away_from_it)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_deny_says_who_would_allow),  TEST(passes_are_shown),
		TEST(an_end_is_foretold_and_comes), TEST(audit_mode_is_named_as_the_only_reason),
		TEST(json_has_all_of_it),	    TEST(a_batch_is_judged_at_the_same_time),
		TEST(usage_is_told_apart_from_no),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
