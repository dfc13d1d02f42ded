/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policyctl learn: from lines of the audit log to a policy, and what is said of lines that are none. What is learned:
 * test_policy_learn.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "command.h"

#define WEB "{\"spiffe_id\":\"spiffe://td/web\"}"
#define DB "{\"spiffe_id\":\"spiffe://td/db\"}"
#define LINE(time, action, code, from, to, network, port, rest)                                                        \
	"{\"@timestamp\":\"2026-11-21T" time ".120004711Z\",\"event\":{\"action\":\"" action "\",\"code\":\"" code     \
	"\"},\"source\":{\"ip\":\"10.0.0.1\",\"port\":43210},\"destination\":{\"ip\":\"10.0.0.2\",\"port\":" port      \
	"},\"network\":{" network ",\"direction\":\"egress\"},\"zt\":{\"source\":" from ",\"destination\":" to rest    \
	"}}\n"
#define TCP "\"transport\":\"tcp\",\"iana_number\":\"6\""
#define ALLOWED(time, from, to, port) LINE(time, "flow-allowed", "POLICY_ALLOW", from, to, TCP, port, "")
#define NOTHING_SAID "2>/dev/null"

#define POLICY                                                                                                         \
	"bulkhead: 1\n"                                                                                                \
	"identities: {front: spiffe://td/web, db: spiffe://td/db}\n"                                                   \
	"rules:\n"                                                                                                     \
	"  - {name: front-to-db, action: allow, from: front, to: db, service: tcp/5432}\n"

static int in_a_directory(void **state)
{
	*state = command_directory_new();
	command_write("audit.jsonl",
		      ALLOWED("08:00:05", WEB, DB, "5432") ALLOWED("09:00:05", WEB, DB, "5432") "{\"torn\n" LINE(
			      "10:00:00", "flow-would-deny", "POLICY_DENY", WEB, DB, TCP, "80", ",\"count\":3")
			      LINE("11:00:00", "flow-denied", "DEFAULT_DENY", DB, WEB, TCP, "22", "")
				      LINE("11:00:00", "flow-denied", "POLICY_DENY", DB, WEB, TCP, "23", "")
					      LINE("11:00:00", "flow-denied", "FRAGMENT", DB, WEB, TCP, "24", ""));
	command_write("policy.yaml", POLICY);
	return 0;
}

static int away_from_it(void **state)
{
	command_directory_free(*state);
	return 0;
}

#define HEAD                                                                                                           \
	"bulkhead: 1\n"                                                                                                \
	"identities:\n"                                                                                                \
	"  db: spiffe://td/db\n"                                                                                       \
	"  web: spiffe://td/web\n"                                                                                     \
	"defaults: {action: deny, log: denied}\n"                                                                      \
	"rules:\n"

static void what_was_allowed_or_would_have_been_denied_is_learned(void **state)
{
	(void)state;
	command_gives(
		0,
		"# Learned from audit.jsonl: 2 different flows, 5 times, first 2026-11-21T08:00:05Z, last "
		"2026-11-21T10:00:00Z.\n" HEAD "  # 5 times, first 2026-11-21T08:00:05Z, last 2026-11-21T10:00:00Z\n"
		"  - name: web-to-db\n    action: allow\n    from: web\n    to: db\n    service: [tcp/80, tcp/5432]\n",
		"learn audit.jsonl " NOTHING_SAID);
	command_gives(0,
		      "3 events, 2 different flows: 1 rule for 2 flows\n"
		      "1 line could not be read\n",
		      "learn audit.jsonl 2>&1 >/dev/null");
}

static void of_denials_only_those_by_default_and_only_when_asked(void **state)
{
	struct command_result result = command_run("learn --denied audit.jsonl");

	(void)state;
	assert_int_equal(result.code, 0);
	assert_non_null(strstr(result.out, "service: tcp/22\n"));
	assert_null(strstr(result.out, "23"));
	assert_null(strstr(result.out, "tcp/24"));
	free(result.out);
}

static void time_bounds_what_is_learned_from(void **state)
{
	(void)state;
	command_gives(0,
		      "# Learned from audit.jsonl: 1 different flow, once, 2026-11-21T09:00:05Z.\n" HEAD
		      "  # once, 2026-11-21T09:00:05Z\n"
		      "  - name: web-to-db\n    action: allow\n    from: web\n    to: db\n    service: tcp/5432\n",
		      "learn audit.jsonl --since 2026-11-21T08:30:00Z --until 2026-11-21T10:30:00+01:00 " NOTHING_SAID);
	command_gives(2, NULL, "learn audit.jsonl --since 2026-11-21T08:30:00");
	command_gives(2, NULL, "learn audit.jsonl --since yesterday");
	command_gives(1, NULL, "learn audit.jsonl --until 2000d");
}

static void what_is_missing_is_a_file_to_add(void **state)
{
	(void)state;
	command_gives(0, NULL, "learn audit.jsonl --against policy.yaml " NOTHING_SAID " > more.yaml");
	command_file_is(
		"more.yaml",
		"# Learned from audit.jsonl: 2 different flows, 5 times, first 2026-11-21T08:00:05Z, last "
		"2026-11-21T10:00:00Z.\n"
		"# 1 of them is not allowed by the policy that this is against.\n"
		"bulkhead: 1\n"
		"rules:\n"
		"  # 3 times, first 2026-11-21T10:00:00Z, last 2026-11-21T10:00:00Z\n"
		"  - name: front-to-db-2\n    action: allow\n    from: front\n    to: db\n    service: tcp/80\n");
	command_gives(0, NULL, "check policy.yaml more.yaml");
	command_gives(0, "# Nothing is missing: the policy allows all that was recorded (2 different flows).\n",
		      "learn audit.jsonl --against policy.yaml --against more.yaml " NOTHING_SAID);
}

static void what_the_policys_tests_forbid_is_told(void **state)
{
	struct command_result result;

	(void)state;
	command_write("tested.yaml", POLICY "tests:\n"
					    "  - {from: front, to: db, service: tcp/80, expect: deny}\n");
	result = command_run("learn audit.jsonl --against tested.yaml");
	assert_int_equal(result.code, 1);
	assert_non_null(strstr(result.out, "tested.yaml:6"));
	assert_non_null(strstr(result.out, "the policy forbids what was recorded"));
	free(result.out);
	command_gives(0, NULL, "learn audit.jsonl --until 2026-11-21T09:30:00Z --against tested.yaml");
}

static void json_has_rules_and_numbers(void **state)
{
	struct command_result result = command_run("--json learn audit.jsonl");

	(void)state;
	assert_int_equal(result.code, 0);
	assert_non_null(strstr(result.out, "\"unreadable\": 1"));
	assert_non_null(strstr(result.out, "\"service\": \"[tcp/80, tcp/5432]\""));
	assert_non_null(strstr(result.out, "\"count\": 5"));
	free(result.out);
}

static void protocols_have_the_names_of_the_language(void **state)
{
	(void)state;
	command_write("gre.jsonl",
		      "{\"@timestamp\":\"2026-11-21T08:00:00Z\",\"event\":{\"action\":\"flow-allowed\"},"
		      "\"source\":{\"ip\":\"10.0.0.1\"},\"destination\":{\"ip\":\"10.0.0.2\"},"
		      "\"network\":{\"transport\":\"gre\",\"iana_number\":\"47\",\"direction\":\"egress\"},"
		      "\"zt\":{\"source\":" WEB ",\"destination\":" DB "}}\n"
		      "{\"@timestamp\":\"2026-11-21T08:00:00Z\",\"event\":{\"action\":\"flow-allowed\"},"
		      "\"source\":{\"ip\":\"fd00::1\"},\"destination\":{\"ip\":\"fd00::2\"},"
		      "\"network\":{\"transport\":\"ipv6-icmp\",\"iana_number\":\"58\",\"direction\":\"egress\"},"
		      "\"zt\":{\"source\":" WEB ",\"destination\":" DB ",\"icmp\":{\"type\":128}}}\n");
	command_gives(0, "    service: [icmpv6/echo-request, proto/47]\n",
		      "learn gre.jsonl 2>/dev/null | grep service");
}

static void an_event_that_does_not_say_who_is_not_guessed_at(void **state)
{
	(void)state;
	command_write("who.jsonl", ALLOWED("08:00:00", WEB, "{}", "1"));
	command_gives(1, NULL, "learn who.jsonl");
	command_gives(1, NULL, "learn /dev/null");
	command_gives(2, NULL, "learn no-such-file");
	command_gives(2, NULL, "learn");
	command_gives(2, NULL, "learn audit.jsonl --against no-such-file");
	command_write("wrong.yaml", "bulkhead: 1\nrules: [{name: x}]\n");
	command_gives(1, NULL, "learn audit.jsonl --against wrong.yaml");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, in_a_directory, away_from_it)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_was_allowed_or_would_have_been_denied_is_learned),
		TEST(of_denials_only_those_by_default_and_only_when_asked),
		TEST(time_bounds_what_is_learned_from),
		TEST(what_is_missing_is_a_file_to_add),
		TEST(what_the_policys_tests_forbid_is_told),
		TEST(json_has_rules_and_numbers),
		TEST(protocols_have_the_names_of_the_language),
		TEST(an_event_that_does_not_say_who_is_not_guessed_at),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
