/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bpf/abi.h"
#include "cli/cli.h"
#include "cli/diagnostics.h"
#include "cli/findings.h"
#include "cli/policy_files.h"
#include "policy/image.h"
#include "policy/lint.h"

struct check {
	struct policy_source *sources;
	size_t n_sources;
	struct policy_diagnostics *diagnostics;
	struct policy *policy;
	struct policy_image *image;
	void *bytes;
	char *error;	/* why the tables do not fit, or the image is refused */
	int64_t now;	/* when its tests are run */
	char *failures; /* tests that fail and invariants that do not hold */
};

static void check_free(struct check *check)
{
	policy_image_freep(&check->image);
	policy_freep(&check->policy);
	policy_diagnostics_freep(&check->diagnostics);
	policy_files_free(check->sources, check->n_sources);
	free(check->bytes);
	free(check->error);
	free(check->failures);
}

static size_t tables_size(const struct check *check)
{
	size_t len;

	policy_image_tables(check->image, &len);
	return len;
}

/* The policy's own tests and invariants. Returns as policy_verify. */
static int check_tests(struct check *check)
{
	size_t size;
	FILE *out = open_memstream(&check->failures, &size);
	int r;

	if (!out)
		return -ENOMEM;
	r = policy_verify(check->policy, check->now, out);
	return fclose(out) == 0 ? r : -ENOMEM;
}

/* Returns 0, 1 (invalid), or -errno. */
static int check_sources(struct check *check)
{
	const char *why;
	size_t len;
	int r = policy_parse(&check->policy, &check->diagnostics, check->sources, check->n_sources);

	if (r == 0)
		r = policy_lint(check->policy, check->sources, check->now, POLICY_LINT_QUICK_BUDGET,
				check->diagnostics);
	if (r == 0)
		r = policy_compile(check->policy, &check->bytes, &len, &check->error);
	if (r == 0)
		r = policy_image_open(&check->image, check->bytes, len, &why);
	return r == 0 ? check_tests(check) : r;
}

struct failures {
	const struct policy *policy;
	json_t *list;
};

static int add_failure(void *context, const struct policy_finding *finding)
{
	struct failures *failures = context;

	if (!finding->holds)
		json_array_append_new(failures->list, finding_json(failures->policy, finding));
	return 0;
}

static json_t *failures_json(const struct check *check)
{
	struct failures failures = {check->policy, json_array()};
	char *error = NULL;

	if (check->failures && check->failures[0] &&
	    policy_run_tests(check->policy, check->now, add_failure, &failures, &error) == 0)
		policy_check_invariants(check->policy, check->policy->invariants, check->policy->n_invariants,
					check->now, add_failure, &failures, &error);
	if (error)
		json_array_append_new(failures.list, json_pack("{s:s}", "why", error));
	free(error);
	return failures.list;
}

static void print_json(const struct check *check, bool ok)
{
	json_t *result = json_object();

	json_object_set_new(result, "ok", json_boolean(ok));
	json_object_set_new(result, "files", json_integer((json_int_t)check->n_sources));
	cli_diagnostics_set(result, check->diagnostics);
	if (check->error)
		json_object_set_new(result, "error", json_string(check->error));
	json_object_set_new(result, "failures", failures_json(check));
	if (check->image) {
		json_object_set_new(result, "identities",
				    json_integer((json_int_t)policy_identity_count(check->policy)));
		json_object_set_new(result, "rules", json_integer((json_int_t)policy_rule_count(check->policy)));
		json_object_set_new(result, "tables_bytes", json_integer((json_int_t)tables_size(check)));
		json_object_set_new(result, "tables_limit", json_integer(BH_TABLES_BYTES));
		json_object_set_new(result, "digest", json_string(policy_image_digest(check->image)));
	}
	cli_print_json(result);
}

static const char *plural(size_t n, const char *one, const char *many)
{
	return n == 1 ? one : many;
}

static void print_text(const struct cli *cli, const struct check *check, bool ok)
{
	size_t identities, rules;

	policy_diagnostics_print(check->diagnostics, stderr, cli->colour_err);
	if (check->error)
		cli_error("%s", check->error);
	if (check->failures)
		fputs(check->failures, stderr);
	if (!ok)
		return;
	identities = policy_identity_count(check->policy);
	rules = policy_rule_count(check->policy);
	printf("%sok%s: %zu %s, %zu %s, %zu %s, tables %.1f KiB of %u MiB\n", cli_colour(cli, "green"),
	       cli_colour(cli, "reset"), check->n_sources, plural(check->n_sources, "file", "files"), identities,
	       plural(identities, "identity", "identities"), rules, plural(rules, "rule", "rules"),
	       (double)tables_size(check) / 1024, BH_TABLES_BYTES >> 20);
}

static int run(struct cli *cli, int argc, char **argv)
{
	__attribute__((cleanup(check_free))) struct check check = {.now = time(NULL)};
	int code, r;

	for (int i = 1; i < argc; i++)
		if (argv[i][0] == '-' && argv[i][1])
			return cli_usage_error(&cmd_check, "unknown option %s", argv[i]);
	if (argc < 2)
		return cli_usage_error(&cmd_check, "which policy? Give a file or a directory");
	code = policy_files_load(&check.sources, &check.n_sources, argv + 1, (size_t)argc - 1);
	if (code != CLI_OK)
		return code;
	r = check_sources(&check);
	if (r < 0) {
		cli_error("the policy could not be checked: %s", strerror(-r));
		return CLI_UNREACHABLE;
	}
	if (cli->json)
		print_json(&check, r == 0);
	else
		print_text(cli, &check, r == 0);
	return r == 0 ? CLI_OK : CLI_NO;
}

const struct cli_command cmd_check = {
	.name = "check",
	.summary = "Checks policy files: every mistake, with its place and what to do",
	.usage = "PATH...",
	.help = "Reads the files, and of directories the *.yaml files in name order, as one policy, and checks it,\n"
		"also that its tests pass and its invariants hold.\n"
		"Errors and warnings go to stderr. Needs neither the daemon nor privileges.\n"
		"\n"
		"Exit codes: 0 valid, 1 not valid, 2 usage or a file that cannot be read.\n"
		"\n"
		"Example: policyctl check /etc/bulkhead/policy.d\n",
	.run = run,
};
