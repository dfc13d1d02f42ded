/* SPDX-License-Identifier: Apache-2.0 */
/* What policyctl says when it cannot do what is asked: on a terminal, and with --json. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>

#include "command.h"

#define VALID                                                                                                          \
	"bulkhead: 1\nidentities: {web: spiffe://prod.example/web}\nrules:\n"                                          \
	"  - {name: r, action: allow, from: web, to: web, service: tcp/1}\n"

static const char *const reading[] = {
	"check %s",
	"test %s",
	"prove %s --never 'from: any to: any'",
	"lint %s",
	"fmt --check %s",
	"graph %s",
	"diff valid.yaml %s",
	"explain --policy %s --from 192.0.2.1 --to 192.0.2.2 tcp/1",
	"learn --against %s /dev/null",
	"import nftables %s",
	"explain --policy valid.yaml --batch %s",
	"diff valid.yaml valid.yaml --flows %s",
};

#define N_READING (sizeof(reading) / sizeof(reading[0]))

static int enter(void **state)
{
	*state = command_directory_new();
	command_write("valid.yaml", VALID);
	command_write("invalid.yaml", "bulkhead: 1\nrules: [{}]\n");
	return 0;
}

static int leave(void **state)
{
	command_directory_free(*state);
	return 0;
}

static char *with_file(const char *arguments, const char *file)
{
	const char *place = strstr(arguments, "%s");
	char *text;

	assert_true(asprintf(&text, "%.*s%s%s", (int)(place - arguments), arguments, file, place + 2) > 0);
	return text;
}

static void assert_has_no_escape(const char *arguments)
{
	struct command_result result = command_run("%s", arguments);

	if (strchr(result.out, '\033'))
		print_error("%s: %s\n", arguments, result.out);
	assert_null(strchr(result.out, '\033'));
	free(result.out);
}

static void no_name_reaches_the_terminal_as_it_is(void **state)
{
	static const char *const others[] = {
		"\"$(printf 'ch\\033[31m')\"",
		"--\"$(printf '\\033[31m')\"",
		"check --\"$(printf '\\033[31m')\"",
		"lint valid.yaml --disable \"$(printf '\\033[31m')\"",
		"graph valid.yaml --from \"$(printf '\\033[31m')\"",
		"explain --policy valid.yaml --from \"$(printf '\\033[31m')\" --to 192.0.2.1 tcp/1",
	};

	(void)state;
	for (size_t i = 0; i < N_READING; i++) {
		char *missing = with_file(reading[i], "\"$(printf 'no\\033[31m')\"");
		char *present = with_file(reading[i], "\"$(printf 'a\\033[31m.yaml')\"");

		assert_has_no_escape(missing);
		command_write("a\033[31m.yaml", VALID);
		assert_has_no_escape(present);
		command_write("a\033[31m.yaml", "bulkhead: 1\nrules: [{}]\n");
		assert_has_no_escape(present);
		free(missing);
		free(present);
	}
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		assert_has_no_escape(others[i]);
}

/* The one JSON value on stdout. */
static json_t *json_of(const char *arguments, int code)
{
	struct command_result result = command_run("--json %s 2>/dev/null", arguments);
	json_error_t error;
	json_t *value = json_loads(result.out, 0, &error);

	if (!value || result.code != code)
		print_error("%s: exit %d, %s\n%s\n", arguments, result.code, value ? "JSON" : error.text, result.out);
	assert_non_null(value);
	assert_int_equal(result.code, code);
	free(result.out);
	return value;
}

static void a_failure_is_json_too(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_READING; i++) {
		char *arguments = with_file(reading[i], "missing.yaml");
		json_t *value = json_of(arguments, 2);

		assert_true(json_is_false(json_object_get(value, "ok")));
		assert_string_equal(json_string_value(json_object_get(value, "error")),
				    "cannot open missing.yaml: No such file or directory");
		json_decref(value);
		free(arguments);
	}
	json_decref(json_of("chekc", 2));
	json_decref(json_of("check --bogus", 2));
	json_decref(json_of("explain --run-dir nowhere --from 192.0.2.1 --to 192.0.2.2 tcp/1", 3));
}

static void an_option_that_does_not_exist_is_named(void **state)
{
	static const char *const commands[] = {
		"check",
		"test",
		"prove",
		"explain",
		"diff",
		"lint",
		"fmt",
		"graph",
		"schema",
		"import kubernetes",
		"import nftables",
		"learn",
		"apply",
		"confirm",
		"rollback",
		"history",
		"show",
		"status",
		"attest",
		"run",
		"svid verify",
		"svid show",
		"svid id check",
		"svid id check spiffe://prod.example/web",
		"identities",
		"bundles",
		"revoke",
		"rotate-key",
		"reload",
		"monitor",
		"why-denied",
		"top",
		"ca init",
		"ca issue",
		"ca bundle",
		"ca rotate",
		"ca remove",
		"ca show",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		struct command_result result = command_run("--run-dir nowhere %s --bogus", commands[i]);

		if (result.code != 2 || !strstr(result.out, "--bogus"))
			print_error("%s: exit %d, %s\n", commands[i], result.code, result.out);
		assert_int_equal(result.code, 2);
		assert_non_null(strstr(result.out, "--bogus"));
		free(result.out);
	}
}

static void what_follows_two_dashes_is_no_option(void **state)
{
	static const struct {
		const char *arguments, *told;
		int code;
	} cases[] = {
		{"svid id check -- --bogus", "invalid --bogus", 1},
		{"svid id check spiffe://prod.example/web -- --bogus --", "invalid --bogus", 1},
		{"svid id check spiffe://prod.example/web --", "spiffe://prod.example/web", 0},
		{"svid id check --", "which IDs", 2},
		{"show --bogus", "unknown option --bogus", 2},
		{"show -3", "unknown option -3", 2},
		{"show -- -3", "\"-3\" is not a revision number", 2},
		{"show -- 3", "nowhere", 3},
		{"show --", "nowhere", 3},
		{"show 3 --bogus", "unexpected argument --bogus", 2},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct command_result result = command_run("--run-dir nowhere %s", cases[i].arguments);

		if (result.code != cases[i].code || !strstr(result.out, cases[i].told))
			print_error("%s: exit %d, %s\n", cases[i].arguments, result.code, result.out);
		assert_int_equal(result.code, cases[i].code);
		assert_non_null(strstr(result.out, cases[i].told));
		free(result.out);
	}
}

static void an_invalid_policy_is_told_with_its_diagnostics(void **state)
{
	static const char *const commands[] = {
		"check %s",
		"test %s",
		"prove %s --never 'from: any to: any'",
		"lint %s",
		"graph %s",
		"diff valid.yaml %s",
		"explain --policy %s --from 192.0.2.1 --to 192.0.2.2 tcp/1",
		"learn --against %s /dev/null",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		char *arguments = with_file(commands[i], "invalid.yaml");
		json_t *value = json_of(arguments, 1),
		       *first = json_array_get(json_object_get(value, "diagnostics"), 0);

		assert_true(json_is_false(json_object_get(value, "ok")));
		assert_string_equal(json_string_value(json_object_get(first, "file")), "invalid.yaml");
		assert_int_equal(json_integer_value(json_object_get(first, "line")), 2);
		json_decref(value);
		free(arguments);
	}
}

static void a_batch_is_one_list(void **state)
{
	json_t *value;

	(void)state;
	command_write("flows", "192.0.2.1\t192.0.2.2\ttcp/1\n\nspiffe://prod.example/web\t192.0.2.2\ttcp/2");
	value = json_of("explain --policy valid.yaml --batch flows", 0);
	assert_int_equal(json_array_size(value), 2);
	assert_string_equal(json_string_value(json_object_get(json_array_get(value, 1), "verdict")), "deny");
	assert_string_equal(json_string_value(json_object_get(json_array_get(value, 1), "egress")), "default");
	assert_string_equal(json_string_value(json_object_get(json_array_get(value, 1), "ingress")), "-");
	json_decref(value);
	command_write("flows", "192.0.2.1\t192.0.2.2\ttcp/1\nnobody\t192.0.2.2\ttcp/2\n");
	value = json_of("explain --policy valid.yaml --batch flows", 2);
	assert_int_equal(json_array_size(value), 2);
	assert_non_null(
		strstr(json_string_value(json_object_get(json_array_get(value, 1), "error")), "line 2: 'nobody'"));
	json_decref(value);
	value = json_of("explain --policy valid.yaml --batch /dev/null", 0);
	assert_int_equal(json_array_size(value), 0);
	json_decref(value);
}

/* It costs no memory, and no more time than its first bytes. */
static void a_line_without_end_is_refused(void **state)
{
	(void)state;
	command_gives(2, "policyctl: line 1: it is too long\n", "explain --policy valid.yaml --batch /dev/zero");
}

static void what_is_no_log_is_refused(void **state)
{
	(void)state;
	command_gives(2, "policyctl: valid.yaml is no audit log: none of its lines is a JSON object\n",
		      "learn valid.yaml");
	command_gives(2, "policyctl: valid.yaml is no audit log: none of its lines is a JSON object\n",
		      "diff valid.yaml valid.yaml --flows valid.yaml");
	command_gives(2, "policyctl: /dev/zero is no audit log: none of its lines is a JSON object\n",
		      "learn /dev/zero");
	command_gives(0, "no recorded flow changes verdict\n0 recorded flows compared\n",
		      "diff valid.yaml valid.yaml --flows /dev/null");
	/* A log that was cut is still one. */
	command_write("log", "bled\":1}\n{\"event\":{}}\n");
	command_gives(0, NULL, "diff valid.yaml valid.yaml --flows log");
}

/* As a pipe from a kubectl that failed. */
static void no_kubernetes_object_is_not_a_cluster_without_policies(void **state)
{
	(void)state;
	command_write("map.yaml",
		      "namespaces: {shop: }\nworkloads:\n"
		      "  - {name: web, namespace: shop, labels: {app: web}, identity: spiffe://prod.example/web}\n");
	command_gives(1, "<stdin>: error: no Kubernetes object: where there is no policy, give a List without items\n",
		      "import kubernetes --map map.yaml - </dev/null");
	command_write("none.yaml", "---\n# nothing\n---\n");
	command_gives(1, NULL, "import kubernetes --map map.yaml none.yaml");
	command_write("list.yaml", "{apiVersion: v1, kind: List, items: []}\n");
	command_gives(0, NULL, "import kubernetes --map map.yaml none.yaml list.yaml");
}

static void a_name_that_does_not_fit_is_usage_with_a_hint(void **state)
{
	(void)state;
	command_gives(2, "policyctl: --from: no identity or network is named 'wbe' (did you mean 'web'?)\n",
		      "graph valid.yaml --from wbe");
	command_gives(2,
		      "policyctl: no identity or network is named 'wbe' (did you mean 'web'?)\n"
		      "no identity or network is named 'wbb' (did you mean 'web'?)\n",
		      "prove valid.yaml --never 'from: wbe to: wbb'");
	command_gives(
		2,
		"policyctl: 'web' is no SPIFFE ID, no address, and no local identity (unit or cgroup) of the policy\n"
		"  hint: 'web' is the identity at valid.yaml:2; write one of its SPIFFE IDs\n",
		"explain --policy valid.yaml --from 192.0.2.1 --to web tcp/1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(no_name_reaches_the_terminal_as_it_is, enter, leave),
		cmocka_unit_test_setup_teardown(a_failure_is_json_too, enter, leave),
		cmocka_unit_test_setup_teardown(an_option_that_does_not_exist_is_named, enter, leave),
		cmocka_unit_test_setup_teardown(what_follows_two_dashes_is_no_option, enter, leave),
		cmocka_unit_test_setup_teardown(an_invalid_policy_is_told_with_its_diagnostics, enter, leave),
		cmocka_unit_test_setup_teardown(a_batch_is_one_list, enter, leave),
		cmocka_unit_test_setup_teardown(a_line_without_end_is_refused, enter, leave),
		cmocka_unit_test_setup_teardown(what_is_no_log_is_refused, enter, leave),
		cmocka_unit_test_setup_teardown(no_kubernetes_object_is_not_a_cluster_without_policies, enter, leave),
		cmocka_unit_test_setup_teardown(a_name_that_does_not_fit_is_usage_with_a_hint, enter, leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
