/* SPDX-License-Identifier: Apache-2.0 */
/* `policyctl test`, `prove` and `check` on policies with tests and invariants: output and exit codes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

static const char good[] =
	"bulkhead: 1\n"
	"identities:\n"
	"  web: spiffe://prod.example/web\n"
	"  db: spiffe://prod.example/db\n"
	"networks: {internet: [192.0.2.0/24]}\n"
	"rules:\n"
	"  - {name: web-db, action: allow, from: web, to: db, service: tcp/5432}\n"
	"  - {name: open, action: allow, from: internet, to: db, service: tcp/22, direction: ingress}\n"
	"tests:\n"
	"  - {name: \"a #1\", from: web, to: db, service: tcp/5432, expect: allow, by: web-db}\n"
	"  - {from: db, to: web, service: tcp/5432, expect: deny}\n";
static const char failing[] = "  - {from: web, to: db, service: tcp/22, expect: allow}\n"
			      "invariants:\n"
			      "  - never: {from: db, to: web}\n"
			      "  - never: {from: internet, to: db}\n";

struct fixture {
	char dir[64];
	char *output;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	snprintf(f->dir, sizeof(f->dir), "/tmp/bulkhead-test-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char path[128];

	snprintf(path, sizeof(path), "%s/p.yaml", f->dir);
	unlink(path);
	rmdir(f->dir);
	free(f->output);
	free(f);
	return 0;
}

static void write_policy(const struct fixture *f, const char *a, const char *b)
{
	char path[128];
	FILE *out;

	snprintf(path, sizeof(path), "%s/p.yaml", f->dir);
	out = fopen(path, "w");
	assert_non_null(out);
	fputs(a, out);
	fputs(b, out);
	assert_int_equal(fclose(out), 0);
}

/* Runs policyctl in the directory; stdout and stderr together. Returns the exit code. */
static int run(struct fixture *f, const char *arguments)
{
	char command[4096], buffer[4096];
	size_t n, size;
	FILE *in, *out;
	int status;

	snprintf(command, sizeof(command), "cd %s && NO_COLOR=1 %s %s 2>&1", f->dir, POLICYCTL, arguments);
	in = popen(command, "r");
	assert_non_null(in);
	free(f->output);
	out = open_memstream(&f->output, &size);
	while ((n = fread(buffer, 1, sizeof(buffer), in)) > 0)
		fwrite(buffer, 1, n, out);
	fclose(out);
	status = pclose(in);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void assert_run(struct fixture *f, const char *arguments, int code, const char *output)
{
	int got = run(f, arguments);

	assert_string_equal(f->output, output);
	assert_int_equal(got, code);
}

static void assert_says(struct fixture *f, const char *arguments, int code, const char *part)
{
	int got = run(f, arguments);

	if (!strstr(f->output, part))
		print_error("%s\nlacks\n%s\n", f->output, part);
	assert_non_null(strstr(f->output, part));
	assert_int_equal(got, code);
}

static void tests_that_pass_are_counted(void **state)
{
	struct fixture *f = *state;

	write_policy(f, good, "");
	assert_run(f, "test p.yaml", 0, "2 tests, 0 failed\n");
	assert_run(f, "test .", 0, "2 tests, 0 failed\n");
	assert_says(f, "check p.yaml", 0, "ok");
}

static void a_failed_test_is_shown_with_its_rules(void **state)
{
	struct fixture *f = *state;

	write_policy(f, good, failing);
	assert_run(f, "test p.yaml", 1,
		   "failed p.yaml:12: web -> db tcp/22: allow\n"
		   "  expected allow, got deny\n"
		   "  flow     spiffe://prod.example/web -> spiffe://prod.example/db tcp/22\n"
		   "  egress   deny by default\n"
		   "  ingress  deny by default\n"
		   "failed p.yaml:15: never: {from: internet, to: db}\n"
		   "  flow     192.0.2.0 -> spiffe://prod.example/db@198.51.100.1 tcp/22\n"
		   "  egress   not judged: no managed workload\n"
		   "  ingress  allow by open (p.yaml:8)\n"
		   "3 tests, 2 invariants, 2 failed\n");
	assert_says(f, "check p.yaml", 1, "p.yaml:12:5: error: the test fails: web -> db tcp/22: allow\n");
	assert_says(f, "check --json p.yaml", 1, "\"ok\": false");
}

static void tap_numbers_every_test(void **state)
{
	struct fixture *f = *state;

	write_policy(f, good, failing);
	assert_run(f, "test --tap p.yaml", 1,
		   "TAP version 13\n1..5\n"
		   "ok 1 - p.yaml:10: a \\#1: web -> db tcp/5432: allow by web-db\n"
		   "ok 2 - p.yaml:11: db -> web tcp/5432: deny\n"
		   "not ok 3 - p.yaml:12: web -> db tcp/22: allow\n"
		   "  ---\n"
		   "  got: \"deny\"\n"
		   "  from: \"spiffe://prod.example/web\"\n"
		   "  to: \"spiffe://prod.example/db\"\n"
		   "  service: \"tcp/22\"\n"
		   "  egress: \"deny by default\"\n"
		   "  ingress: \"deny by default\"\n"
		   "  ...\n"
		   "ok 4 - p.yaml:14: never: {from: db, to: web}\n"
		   "not ok 5 - p.yaml:15: never: {from: internet, to: db}\n"
		   "  ---\n"
		   "  got: \"allow\"\n"
		   "  from: \"192.0.2.0\"\n"
		   "  to: \"spiffe://prod.example/db@198.51.100.1\"\n"
		   "  service: \"tcp/22\"\n"
		   "  egress: \"not judged: no managed workload\"\n"
		   "  ingress: \"allow by open (p.yaml:8)\"\n"
		   "  ...\n");
	write_policy(f, "bulkhead: 1\n", "");
	assert_run(f, "test --tap p.yaml", 0, "TAP version 13\n1..0 # SKIP the policy has no tests\n");
}

static void junit_escapes_what_it_quotes(void **state)
{
	struct fixture *f = *state;

	write_policy(f, good, failing);
	assert_says(
		f, "test --junit p.yaml", 1,
		"<testsuites tests=\"5\" failures=\"2\" errors=\"0\">\n"
		"  <testsuite name=\"bulkhead policy\" tests=\"5\" failures=\"2\" errors=\"0\" skipped=\"0\" "
		"time=\"0\">\n"
		"    <testcase classname=\"p.yaml\" name=\"p.yaml:10: a #1: web -&gt; db tcp/5432: allow by web-db\" "
		"time=\"0\"/>\n");
	assert_says(f, "test --junit p.yaml", 1,
		    "      <failure message=\"got deny\">  expected allow, got deny\n"
		    "  flow     spiffe://prod.example/web -&gt; spiffe://prod.example/db tcp/22\n");
}

static void json_has_every_finding(void **state)
{
	struct fixture *f = *state;
	json_t *result, *finding;

	write_policy(f, good, failing);
	assert_int_equal(run(f, "test --json p.yaml"), 1);
	result = json_loads(f->output, 0, NULL);
	assert_non_null(result);
	assert_true(json_is_false(json_object_get(result, "ok")));
	assert_int_equal(json_integer_value(json_object_get(result, "tests")), 5);
	assert_int_equal(json_integer_value(json_object_get(result, "failed")), 2);
	finding = json_array_get(json_object_get(result, "results"), 4);
	assert_string_equal(json_string_value(json_object_get(finding, "kind")), "invariant");
	assert_string_equal(json_string_value(json_object_get(json_object_get(finding, "flow"), "from")), "192.0.2.0");
	assert_string_equal(json_string_value(json_object_get(json_object_get(finding, "ingress"), "rule")), "open");
	json_decref(result);
}

static void prove_names_a_flow_that_explain_judges_alike(void **state)
{
	struct fixture *f = *state;
	char command[1024], *see;

	write_policy(f, good, "");
	assert_run(
		f, "prove p.yaml --never 'from: internet to: db' --isolated web internet", 1,
		"does not hold: never: {from: internet, to: db}\n"
		"  flow     192.0.2.0 -> spiffe://prod.example/db@198.51.100.1 tcp/22\n"
		"  egress   not judged: no managed workload\n"
		"  ingress  allow by open (p.yaml:8)\n"
		"  see: policyctl explain --policy p.yaml --from 192.0.2.0 --to spiffe://prod.example/db@198.51.100.1 "
		"tcp/22\n"
		"does not hold: isolated: [web, internet]\n"
		"  flow     spiffe://prod.example/web@198.51.100.1 -> spiffe://prod.example/db@192.0.2.0 tcp/5432\n"
		"  egress   allow by web-db (p.yaml:7)\n"
		"  ingress  allow by web-db (p.yaml:7)\n"
		"  see: policyctl explain --policy p.yaml --from spiffe://prod.example/web@198.51.100.1 --to "
		"spiffe://prod.example/db@192.0.2.0 tcp/5432\n");
	run(f, "prove p.yaml --never 'from: internet to: db'");
	see = strstr(f->output, "policyctl explain");
	assert_non_null(see);
	snprintf(command, sizeof(command), "%s", see + strlen("policyctl "));
	command[strcspn(command, "\n")] = 0;
	assert_says(f, command, 0, "open");
}

static void prove_asks_the_policy_where_nothing_is_asked(void **state)
{
	struct fixture *f = *state;

	write_policy(f, good, "invariants: [{always: {from: web, to: db, service: tcp/5432}}]\n");
	assert_run(f, "prove p.yaml", 0, "holds: always: {from: web, to: db, service: tcp/5432} (p.yaml:12)\n");
	assert_run(f, "prove p.yaml --never 'from: {not: web} to: db service: udp'", 0,
		   "holds: never: {from: {not: web}, to: db, service: udp}\n");
	write_policy(f, good, "");
	assert_says(f, "prove p.yaml", 2, "the policy has no `invariants`");
}

static void what_cannot_be_asked_is_a_usage_error(void **state)
{
	struct fixture *f = *state;

	write_policy(f, good, "");
	assert_says(f, "prove p.yaml --never 'from: wbe to: db'", 2, "wbe");
	assert_says(f, "prove p.yaml --isolated web", 2, "--isolated needs two names");
	assert_says(f, "prove p.yaml --never", 2, "--never needs a value");
	assert_says(f, "prove p.yaml --sometimes x", 2, "unknown option");
	assert_says(f, "prove", 2, "which policy?");
	assert_says(f, "test", 2, "which policy?");
	assert_says(f, "test --tap --junit p.yaml", 2, "one of --tap");
	assert_says(f, "test --tip p.yaml", 2, "unknown option");
	write_policy(f, "bulkhead: 1\nrules: [{}]\n", "");
	assert_says(f, "test p.yaml", 1, "error");
}

/* The figure that is promised: 2 s, here also with what slows a test build. */
static void ten_thousand_rules_are_proved_in_time(void **state)
{
	struct fixture *f = *state;
	char path[128];
	struct timespec begin, end;
	FILE *out;

	snprintf(path, sizeof(path), "%s/p.yaml", f->dir);
	out = fopen(path, "w");
	fputs("bulkhead: 1\nidentities:\n", out);
	for (int i = 0; i < 1000; i++)
		fprintf(out, "  id%d: spiffe://prod.example/ns/n%d/sa/s%d\n", i, i % 20, i);
	fputs("  all: spiffe://prod.example/**\nnetworks: {net: [10.0.0.0/8]}\nrules:\n", out);
	for (int i = 0; i < 10000; i++)
		fprintf(out, "  - {name: r%d, action: allow, from: id%d, to: id%d, service: tcp/%d}\n", i, i * 7 % 1000,
			i * 13 % 1000, i + 1);
	fclose(out);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	assert_says(f, "prove p.yaml --never 'from: all to: all service: udp' --never 'from: net to: all'", 1,
		    "holds: never: {from: all, to: all, service: udp}\ndoes not hold");
	clock_gettime(CLOCK_MONOTONIC, &end);
	assert_true(end.tv_sec - begin.tv_sec < 10);
}

static void what_is_too_complex_says_why(void **state)
{
	struct fixture *f = *state;
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

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
	write_policy(f, text, "");
	free(text);
	assert_says(f, "prove p.yaml --never 'from: any to: any'", 1, "patterns overlap in too many ways");
}

/* Every rule meets every other in each dimension, and leaves out a little of each: sets of many pieces everywhere. */
static void what_overlaps_too_much_is_given_up_in_time(void **state)
{
	struct fixture *f = *state;
	struct timespec start, end;
	const int n = 3000;
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	fputs("bulkhead: 1\nidentities:\n", out);
	for (int i = 0; i < n; i++)
		fprintf(out, "  i%d: spiffe://t.example/%d\n  x%d: {not: {any: [i%d, i%d]}}\n", i, i, i, i,
			(i * 7 + 3) % n);
	fputs("networks:\n", out);
	for (int i = 0; i < n; i++)
		fprintf(out, "  n%d: {include: [0.0.0.0/0], except: [10.%d.%d.0/24]}\n", i, i >> 8, i & 255);
	fputs("rules:\n", out);
	for (int i = 0; i < n; i++)
		fprintf(out,
			"  - {name: r%d, action: %s, from: {identity: x%d, network: n%d}, to: {identity: x%d, network: "
			"n%d}, "
			"service: [tcp/1-%d, tcp/%d-65535]}\n",
			i, i % 2 ? "allow" : "deny", i, i * 3 % n, (i * 5 + 1) % n, (i * 11 + 2) % n, i * 7 + 3,
			i * 7 + 5);
	fclose(out);
	write_policy(f, text, "");
	free(text);
	clock_gettime(CLOCK_MONOTONIC, &start);
	assert_says(f, "prove p.yaml --never 'from: any to: any service: tcp/70-7000'", 1,
		    "too many of its rules overlap");
	clock_gettime(CLOCK_MONOTONIC, &end);
	assert_true(end.tv_sec - start.tv_sec < 60);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(tests_that_pass_are_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(a_failed_test_is_shown_with_its_rules, setup, teardown),
		cmocka_unit_test_setup_teardown(tap_numbers_every_test, setup, teardown),
		cmocka_unit_test_setup_teardown(junit_escapes_what_it_quotes, setup, teardown),
		cmocka_unit_test_setup_teardown(json_has_every_finding, setup, teardown),
		cmocka_unit_test_setup_teardown(prove_names_a_flow_that_explain_judges_alike, setup, teardown),
		cmocka_unit_test_setup_teardown(prove_asks_the_policy_where_nothing_is_asked, setup, teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be_asked_is_a_usage_error, setup, teardown),
		cmocka_unit_test_setup_teardown(ten_thousand_rules_are_proved_in_time, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_too_complex_says_why, setup, teardown),
		cmocka_unit_test_setup_teardown(what_overlaps_too_much_is_given_up_in_time, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
