/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policyctl diff and lint: what they print, and their exit codes. What changes and what is warned of: test_policy_diff.c,
 * test_policy_lint.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "command.h"

#define HEAD                                                                                                           \
	"bulkhead: 1\n"                                                                                                \
	"identities:\n"                                                                                                \
	"  web: spiffe://td/web\n"                                                                                     \
	"  db: spiffe://td/db\n"                                                                                       \
	"  ops: spiffe://td/ops\n"                                                                                     \
	"  backup: {unit: backup.service}\n"                                                                           \
	"rules:\n"
#define OPS "  - {name: ops, action: allow, from: ops, to: [web, backup], service: tcp/22}\n"
#define WEB_TO_DB "  - {name: web-to-db, action: allow, from: web, to: db, service: tcp/5432}\n"
#define BACKUP "  - {name: save, action: allow, from: backup, to: db, service: tcp/5432}\n"

#define EVENT(time, action, code, direction, from, to, port, rest)                                                     \
	"{\"@timestamp\":\"2026-11-21T" time ".120004711Z\",\"event\":{\"action\":\"" action "\",\"code\":\"" code     \
	"\"},\"source\":{\"ip\":\"10.0.0.1\",\"port\":43210},\"destination\":{\"ip\":\"10.0.0.2\",\"port\":" port      \
	"},\"network\":{\"transport\":\"tcp\",\"direction\":\"" direction "\"},\"zt\":{\"source\":" from               \
	",\"destination\":" to rest "}}\n"
#define WEB "{\"spiffe_id\":\"spiffe://td/web\"}"
#define DB "{\"spiffe_id\":\"spiffe://td/db\"}"
#define LOCAL "{\"local\":\"backup\"}"
#define WORLD "{\"kind\":\"world\"}"

static int in_a_directory(void **state)
{
	*state = command_directory_new();
	command_write("old.yaml", HEAD OPS WEB_TO_DB BACKUP);
	command_write("new.yaml",
		      HEAD OPS BACKUP "  - {name: web-to-db, action: allow, from: web, to: db, service: tcp/5433}\n");
	command_write("same.yaml", HEAD BACKUP WEB_TO_DB OPS);
	command_write("wrong.yaml", HEAD "  - {name: x, action: allow, from: wbe, to: db}\n");
	return 0;
}

static int away_from_it(void **state)
{
	command_directory_free(*state);
	return 0;
}

static void what_changes_is_listed_with_its_rules(void **state)
{
	(void)state;
	command_gives(1,
		      "+ allow  web -> db  tcp/5433  by web-to-db (new.yaml:10); before: default deny\n"
		      "- deny   web -> db  tcp/5432  by default deny; before: web-to-db (old.yaml:9)\n"
		      "2 changes: 1 now allowed, 1 now denied\n",
		      "diff old.yaml new.yaml");
}

static void json_has_examples_that_explain_takes(void **state)
{
	struct command_result result = command_run("--json diff old.yaml new.yaml");

	(void)state;
	assert_int_equal(result.code, 1);
	assert_non_null(strstr(result.out, "\"differs\": true"));
	assert_non_null(strstr(result.out, "\"verdict\": \"allow\""));
	assert_non_null(strstr(result.out, "\"service\": \"tcp/5433\""));
	assert_non_null(strstr(result.out, "\"from\": \"spiffe://td/web@"));
	assert_non_null(strstr(result.out, "\"file\": \"new.yaml\""));
	free(result.out);
}

static void policies_that_mean_the_same_do_not_differ(void **state)
{
	(void)state;
	command_gives(0, "no verdict changes; the texts differ\n", "diff old.yaml same.yaml");
	command_gives(0, "no change: the policies are the same\n", "diff old.yaml old.yaml");
}

static void a_policy_that_is_not_valid_is_not_compared(void **state)
{
	struct command_result result = command_run("diff old.yaml wrong.yaml");

	(void)state;
	assert_int_equal(result.code, 1);
	assert_non_null(strstr(result.out, "wrong.yaml:8:"));
	assert_null(strstr(result.out, "changes"));
	free(result.out);
}

static void a_mistake_in_the_arguments_is_said(void **state)
{
	static const char *const wrong[] = {"diff",
					    "diff old.yaml new.yaml same.yaml",
					    "diff --at tomorrow old.yaml new.yaml",
					    "diff --flows",
					    "diff old.yaml new.yaml --flows none.jsonl",
					    "diff @x old.yaml",
					    "diff old.yaml none",
					    "lint",
					    "lint old.yaml --disable nonsense",
					    "lint --wrong old.yaml"};

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		command_gives(2, NULL, "%s", wrong[i]);
}

static void without_a_daemon_there_is_no_policy_in_force(void **state)
{
	(void)state;
	command_gives(3, NULL, "--run-dir . diff new.yaml");
}

static void time_decides_about_rules_that_end(void **state)
{
	(void)state;
	command_write("ends.yaml", HEAD OPS BACKUP "  - {name: web-to-db, action: allow, from: web, to: db,"
						   " service: tcp/5432, until: 2030-01-01T00:00:00Z}\n");
	command_gives(0, NULL, "diff old.yaml ends.yaml --at 2029-12-31T23:59:59Z");
	command_gives(1,
		      "- deny   web -> db  tcp/5432  by default deny; before: web-to-db (old.yaml:9)\n"
		      "1 change: 0 now allowed, 1 now denied\n",
		      "diff old.yaml ends.yaml --at 2030-01-01T00:00:00Z");
}

/* ---- recorded flows ---- */

static void recorded_flows_that_would_change_are_counted(void **state)
{
	(void)state;
	command_write("audit.jsonl",
		      EVENT("08:00:05", "flow-allowed", "POLICY_ALLOW", "egress", WEB, DB, "5432",
			    "") EVENT("08:00:05", "flow-allowed", "POLICY_ALLOW", "ingress", WEB, DB, "5432", "")
			      EVENT("09:00:05", "flow-allowed", "POLICY_ALLOW", "egress", WEB, DB, "5432",
				    "") EVENT("10:00:05", "flow-denied", "DEFAULT_DENY", "ingress", WEB, DB, "5433", "")
				      EVENT("10:00:06", "flow-denied", "DEFAULT_DENY", "ingress", WORLD, DB, "22", ""));
	command_gives(1,
		      "- deny   spiffe://td/web -> spiffe://td/db  tcp/5432  2 connections, 2026-11-21T08:00:05Z to "
		      "2026-11-21T09:00:05Z  by default deny; before: web-to-db (old.yaml:9)\n"
		      "+ allow  spiffe://td/web -> spiffe://td/db  tcp/5433  1 connection, 2026-11-21T10:00:05Z  by "
		      "web-to-db (new.yaml:10); before: default deny\n"
		      "2 connections would now be denied\n"
		      "1 connection would now be allowed\n"
		      "5 recorded flows compared, 2026-11-21T08:00:05Z to 2026-11-21T10:00:06Z\n",
		      "diff old.yaml new.yaml --flows audit.jsonl");
	command_gives(0, NULL, "diff old.yaml same.yaml --flows audit.jsonl");
}

static void what_cannot_be_compared_is_counted_too(void **state)
{
	(void)state;
	command_write("odd.jsonl", "{\"torn\n"
				   "{\"event\":{\"action\":\"policy-applied\"}}\n" EVENT(
					   "08:00:00", "flow-denied", "EXPIRED", "egress", WEB, DB, "5432", "")
					   EVENT("08:00:00", "flow-denied", "IMPOSSIBLE", "egress", WEB,
						 "{\"kind\":\"unknown\"}", "5432", ",\"proof\":\"unasked\"")
						   EVENT("08:00:00", "flow-allowed", "POLICY_ALLOW", "egress",
							 "{\"spiffe_id\":\"spiffe://TD/web\"}", DB, "5432", ""));
	command_gives(0, NULL, "diff old.yaml new.yaml --flows odd.jsonl");
	struct command_result result = command_run("--json diff old.yaml new.yaml --flows - < odd.jsonl");

	assert_int_equal(result.code, 0);
	assert_non_null(strstr(result.out, "\"compared\": 0"));
	assert_non_null(strstr(result.out, "\"not_policy\": 1"));
	assert_non_null(strstr(result.out, "\"unknown_peer\": 1"));
	assert_non_null(strstr(result.out, "\"not_judged\": 1"));
	assert_non_null(strstr(result.out, "\"unreadable\": 1"));
	free(result.out);
}

static void a_workload_has_the_identity_that_a_policy_gives_its_cgroup(void **state)
{
	(void)state;
	command_write("local.jsonl",
		      EVENT("08:00:00", "flow-allowed", "POLICY_ALLOW", "egress", LOCAL, DB, "5432",
			    ",\"cgroup\":{\"path\":\"/system.slice/backup.service\"}")
			      EVENT("08:00:01", "flow-allowed", "POLICY_ALLOW", "egress", LOCAL, DB, "5432",
				    ",\"cgroup\":{\"path\":\"/system.slice/backup.service/worker\"}"));
	/* Under another name it is the same cgroup; without any it is `unidentified`. */
	command_write("renamed.yaml", "bulkhead: 1\n"
				      "identities: {db: spiffe://td/db, saver: {unit: backup.service}}\n"
				      "rules: [{name: s, action: allow, from: saver, to: db, service: tcp/5432}]\n");
	command_write("gone.yaml", "bulkhead: 1\n"
				   "identities: {db: spiffe://td/db}\n"
				   "rules: [{name: v, action: allow, from: verified, to: db}]\n");
	command_gives(0, NULL, "diff old.yaml renamed.yaml --flows local.jsonl");
	command_gives(1,
		      "- deny   backup -> spiffe://td/db  tcp/5432  2 connections, 2026-11-21T08:00:00Z to "
		      "2026-11-21T08:00:01Z  by default deny; before: save (old.yaml:10)\n"
		      "2 connections would now be denied\n"
		      "2 recorded flows compared, 2026-11-21T08:00:00Z to 2026-11-21T08:00:01Z\n",
		      "diff old.yaml gone.yaml --flows local.jsonl");
}

/* ---- lint ---- */

#define TWICE HEAD WEB_TO_DB OPS BACKUP "  - {name: again, action: allow, from: web, to: db, service: tcp/5432}\n"

static void lint_exits_with_one_only_when_asked(void **state)
{
	(void)state;
	command_write("twice.yaml", TWICE);
	command_gives(0,
		      "twice.yaml:11:5: warning: rule 'again' adds nothing: 'web-to-db' allows all of its flows "
		      "[redundant]\n"
		      "    - {name: again, action: allow, from: web, to: db, service: tcp/5432}\n"
		      "      ^\n"
		      "  hint: 'web-to-db' at twice.yaml:8\n"
		      "1 warning\n",
		      "lint twice.yaml");
	command_gives(1, NULL, "lint --error twice.yaml");
	command_gives(0, "ok: no warning\n", "lint --error --disable redundant twice.yaml");
	command_gives(0, "ok: no warning\n", "lint --error old.yaml");
	command_gives(1, NULL, "lint wrong.yaml");
}

static void lint_tells_programs_the_code(void **state)
{
	struct command_result result = command_run("--json lint twice.yaml");

	(void)state;
	assert_int_equal(result.code, 0);
	assert_non_null(strstr(result.out, "\"code\": \"redundant\""));
	assert_non_null(strstr(result.out, "\"line\": 11"));
	assert_non_null(strstr(result.out, "\"warnings\": 1"));
	free(result.out);
}

static void check_shows_what_lint_finds(void **state)
{
	struct command_result result = command_run("check twice.yaml");

	(void)state;
	assert_int_equal(result.code, 0);
	assert_non_null(strstr(result.out, "[redundant]"));
	assert_non_null(strstr(result.out, "ok: 1 file"));
	free(result.out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_changes_is_listed_with_its_rules),
		cmocka_unit_test(json_has_examples_that_explain_takes),
		cmocka_unit_test(policies_that_mean_the_same_do_not_differ),
		cmocka_unit_test(a_policy_that_is_not_valid_is_not_compared),
		cmocka_unit_test(a_mistake_in_the_arguments_is_said),
		cmocka_unit_test(without_a_daemon_there_is_no_policy_in_force),
		cmocka_unit_test(time_decides_about_rules_that_end),
		cmocka_unit_test(recorded_flows_that_would_change_are_counted),
		cmocka_unit_test(what_cannot_be_compared_is_counted_too),
		cmocka_unit_test(a_workload_has_the_identity_that_a_policy_gives_its_cgroup),
		cmocka_unit_test(lint_exits_with_one_only_when_asked),
		cmocka_unit_test(lint_tells_programs_the_code),
		cmocka_unit_test(check_shows_what_lint_finds),
	};

	return cmocka_run_group_tests(tests, in_a_directory, away_from_it);
}
