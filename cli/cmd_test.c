/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/findings.h"
#include "policy/xml_text.h"

enum format {
	FORMAT_TEXT,
	FORMAT_TAP,
	FORMAT_JUNIT,
	FORMAT_JSON,
};

struct run {
	struct cli *cli;
	struct policy *policy;
	enum format format;
	size_t n, failed;
	json_t *list; /* FORMAT_JSON */
	FILE *cases;  /* FORMAT_JUNIT: what comes behind the counts */
};

static char *text_of(const struct policy *policy, const struct policy_finding *finding, bool details)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	if (details) {
		policy_finding_details(finding, out);
	} else {
		policy_finding_place(policy, finding, out);
		fputs(": ", out);
		policy_finding_title(finding, out);
	}
	if (fclose(out) == 0)
		return text;
	free(text);
	return NULL;
}

/* ---- text ---- */

static void tell_text(const struct run *run, const char *title, const struct policy_finding *finding)
{
	if (finding->holds)
		return;
	printf("%sfailed%s %s\n", cli_colour(run->cli, "red"), cli_colour(run->cli, "reset"), title);
	policy_finding_details(finding, stdout);
}

static void end_text(const struct run *run)
{
	const struct policy *policy = run->policy;
	const char *colour = cli_colour(run->cli, run->failed ? "red" : "green"),
		   *reset = cli_colour(run->cli, "reset");

	printf("%s%zu test%s", colour, policy->n_tests, policy->n_tests == 1 ? "" : "s");
	if (policy->n_invariants)
		printf(", %zu invariant%s", policy->n_invariants, policy->n_invariants == 1 ? "" : "s");
	printf(", %zu failed%s\n", run->failed, reset);
}

/* ---- TAP ---- */

/* A '#' would begin a directive. */
static void print_tap_text(const char *text)
{
	for (; *text; text++) {
		if (*text == '#' || *text == '\\')
			putchar('\\');
		putchar(*text);
	}
	putchar('\n');
}

static void begin_tap(const struct run *run)
{
	size_t n = run->policy->n_tests + run->policy->n_invariants;

	printf("TAP version 13\n1..%zu%s\n", n, n ? "" : " # SKIP the policy has no tests");
}

static void print_yaml(const char *key, const char *value)
{
	printf("  %s: \"", key);
	for (; *value; value++) {
		if (*value == '"' || *value == '\\')
			putchar('\\');
		putchar(*value);
	}
	puts("\"");
}

static void print_yaml_decider(const char *end, const struct policy_decider *decider)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return;
	policy_decider_text(decider, out);
	if (fclose(out) == 0)
		print_yaml(end, text);
	free(text);
}

static void tell_tap(const struct run *run, const char *title, const struct policy_finding *finding)
{
	printf("%sok %zu - ", finding->holds ? "" : "not ", run->n);
	print_tap_text(title);
	if (finding->holds)
		return;
	puts("  ---");
	if (finding->why)
		print_yaml("message", finding->why);
	if (finding->has_flow) {
		print_yaml("got", finding->allow ? "allow" : "deny");
		print_yaml("from", finding->from);
		print_yaml("to", finding->to);
		print_yaml("service", finding->service);
		print_yaml_decider("egress", &finding->egress);
		print_yaml_decider("ingress", &finding->ingress);
	}
	puts("  ...");
}

/* ---- JUnit ---- */

static void tell_junit(const struct run *run, const char *title, const char *details,
		       const struct policy_finding *finding)
{
	const struct position *at = finding->test ? &finding->test->at : &finding->invariant->at;

	fputs("    <testcase classname=\"", run->cases);
	xml_text_write(run->policy->source_names[at->source], run->cases);
	fputs("\" name=\"", run->cases);
	xml_text_write(title, run->cases);
	if (finding->holds) {
		fputs("\" time=\"0\"/>\n", run->cases);
		return;
	}
	fputs("\" time=\"0\">\n      <failure message=\"", run->cases);
	xml_text_write(finding->why	    ? finding->why
		       : !finding->has_flow ? "fails"
		       : finding->allow	    ? "got allow"
					    : "got deny",
		       run->cases);
	fputs("\">", run->cases);
	xml_text_write(details, run->cases);
	fputs("</failure>\n    </testcase>\n", run->cases);
}

static void end_junit(const struct run *run, const char *cases)
{
	printf("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"%zu\" failures=\"%zu\" errors=\"0\">\n"
	       "  <testsuite name=\"bulkhead policy\" tests=\"%zu\" failures=\"%zu\" errors=\"0\" skipped=\"0\" "
	       "time=\"0\">\n%s  </testsuite>\n</testsuites>\n",
	       run->n, run->failed, run->n, run->failed, cases);
}

/* ---- all of them ---- */

static int tell(void *context, const struct policy_finding *finding)
{
	struct run *run = context;
	char *title = text_of(run->policy, finding, false), *details = text_of(run->policy, finding, true);
	int r = title && details ? 0 : -ENOMEM;

	run->n++;
	run->failed += !finding->holds;
	if (r == 0 && run->format == FORMAT_TEXT)
		tell_text(run, title, finding);
	if (r == 0 && run->format == FORMAT_TAP)
		tell_tap(run, title, finding);
	if (r == 0 && run->format == FORMAT_JUNIT)
		tell_junit(run, title, details, finding);
	if (run->format == FORMAT_JSON)
		json_array_append_new(run->list, finding_json(run->policy, finding));
	free(title);
	free(details);
	return r;
}

static int run_all(struct run *run)
{
	const struct policy *policy = run->policy;
	int64_t now = time(NULL);
	char *error = NULL;
	int r = policy_run_tests(policy, now, tell, run, &error), code;

	if (r == 0)
		r = policy_check_invariants(policy, policy->invariants, policy->n_invariants, now, tell, run, &error);
	if (r && run->format == FORMAT_TAP)
		printf("Bail out! %s\n", error ? error : "out of memory");
	code = cli_findings_result(r, error);
	free(error);
	return code;
}

static int run_format(struct run *run)
{
	char *cases = NULL;
	size_t size;
	int code;

	if (run->format == FORMAT_TAP)
		begin_tap(run);
	if (run->format == FORMAT_JSON)
		run->list = json_array();
	if (run->format == FORMAT_JUNIT) {
		run->cases = open_memstream(&cases, &size);
		if (!run->cases)
			return cli_findings_result(-ENOMEM, NULL);
	}
	code = run_all(run);
	if (run->cases && fclose(run->cases) != 0 && code == CLI_OK)
		code = cli_findings_result(-ENOMEM, NULL);
	if (code == CLI_OK) {
		if (run->format == FORMAT_TEXT)
			end_text(run);
		if (run->format == FORMAT_JUNIT)
			end_junit(run, cases);
		if (run->format == FORMAT_JSON)
			cli_print_json(json_pack("{s:b, s:I, s:I, s:O}", "ok", !run->failed, "tests",
						 (json_int_t)run->n, "failed", (json_int_t)run->failed, "results",
						 run->list));
	}
	json_decref(run->list);
	free(cases);
	return code == CLI_OK && run->failed ? CLI_NO : code;
}

static int run(struct cli *cli, int argc, char **argv)
{
	__attribute__((cleanup(policy_freep))) struct policy *policy = NULL;
	struct run state = {.cli = cli, .format = cli->json ? FORMAT_JSON : FORMAT_TEXT};
	size_t n = 0;
	int code;

	for (int i = 1; i < argc; i++) {
		bool tap = strcmp(argv[i], "--tap") == 0;

		if (tap || strcmp(argv[i], "--junit") == 0) {
			if (state.format != FORMAT_TEXT)
				return cli_usage_error(&cmd_test, "one of --tap, --junit and --json");
			state.format = tap ? FORMAT_TAP : FORMAT_JUNIT;
		} else if (argv[i][0] == '-' && argv[i][1]) {
			return cli_usage_error(&cmd_test, "unknown option %s", argv[i]);
		} else {
			argv[n++] = argv[i];
		}
	}
	if (!n)
		return cli_usage_error(&cmd_test, "which policy? Give a file or a directory");
	code = cli_policy_read(cli, argv, n, &policy);
	state.policy = policy;
	return code == CLI_OK ? run_format(&state) : code;
}

const struct cli_command cmd_test = {
	.name = "test",
	.summary = "Runs the tests in the policy files, and checks the invariants",
	.usage = "PATH... [--tap | --junit]",
	.help = "Each test is about every flow of what it names: an identity is each ID that it can have, a network "
		"each\n"
		"address. One that fails comes with a flow for which it does, and the rules that decide it.\n"
		"\n"
		"  --tap    results in the Test Anything Protocol, version 13\n"
		"  --junit  results as JUnit XML\n"
		"\n"
		"Exit codes: 0 all pass, 1 one fails or the policy is not valid, 2 usage or a file that cannot be "
		"read.\n"
		"\n"
		"Example: policyctl test /etc/bulkhead/policy.d\n",
	.run = run,
};
