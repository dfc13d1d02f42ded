/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/diagnostics.h"
#include "cli/policy_files.h"
#include "policy/lint.h"

#define MAX_DISABLED 16

struct lint {
	bool error; /* a warning is a no */
	const char *disabled[MAX_DISABLED];
	size_t n_disabled;
	size_t n_paths;
	struct policy_source *sources;
	size_t n_sources;
	struct policy_diagnostics *diagnostics;
	struct policy *policy;
};

static void lint_free(struct lint *lint)
{
	policy_freep(&lint->policy);
	policy_diagnostics_freep(&lint->diagnostics);
	policy_files_free(lint->sources, lint->n_sources);
}

/* The code as lint knows it, or NULL. */
static const char *find_code(const char *text)
{
	const char *code;

	for (size_t i = 0; (code = policy_lint_code(i)); i++)
		if (!strcmp(code, text))
			return code;
	return NULL;
}

static int disable(struct lint *lint, const char *text)
{
	const char *code = find_code(text);

	if (!code) {
		cli_usage_error(&cmd_lint, "there is no warning \"%s\"", text);
		fputs("The codes are:", stderr);
		for (size_t i = 0; (code = policy_lint_code(i)); i++)
			fprintf(stderr, " %s", code);
		fputc('\n', stderr);
		return CLI_USAGE;
	}
	if (lint->n_disabled == MAX_DISABLED)
		return cli_usage_error(&cmd_lint, "at most %d --disable", MAX_DISABLED);
	lint->disabled[lint->n_disabled++] = code;
	return CLI_OK;
}

/* Leaves the paths in argv. */
static int parse_arguments(struct lint *lint, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		int code = CLI_OK;

		if (argv[i][0] != '-' || !argv[i][1])
			argv[lint->n_paths++] = argv[i];
		else if (!strcmp(argv[i], "--error"))
			lint->error = true;
		else if (strcmp(argv[i], "--disable") != 0)
			return cli_usage_error(&cmd_lint, "unknown option %s", argv[i]);
		else if (++i == argc)
			return cli_usage_error(&cmd_lint, "--disable needs a value");
		else
			code = disable(lint, argv[i]);
		if (code != CLI_OK)
			return code;
	}
	return lint->n_paths ? CLI_OK : cli_usage_error(&cmd_lint, "which policy? Give a file or a directory");
}

static void print_json(const struct lint *lint, bool valid)
{
	const struct policy_diagnostics *diagnostics = lint->diagnostics;
	size_t warnings = policy_diagnostics_count(diagnostics, POLICY_WARNING);

	cli_print_json(json_pack("{s:b, s:I, s:I, s:I, s:o}", "ok", valid && !warnings, "errors",
				 (json_int_t)policy_diagnostics_count(diagnostics, POLICY_ERROR), "warnings",
				 (json_int_t)warnings, "notes",
				 (json_int_t)policy_diagnostics_count(diagnostics, POLICY_NOTE), "diagnostics",
				 cli_diagnostics_json(diagnostics)));
}

static void print_text(const struct cli *cli, const struct lint *lint, bool valid)
{
	size_t warnings = policy_diagnostics_count(lint->diagnostics, POLICY_WARNING);

	policy_diagnostics_print(lint->diagnostics, stdout, cli->colour);
	if (!valid)
		return;
	if (warnings)
		printf("%zu %s\n", warnings, warnings == 1 ? "warning" : "warnings");
	else
		printf("%sok%s: no warning\n", cli_colour(cli, "green"), cli_colour(cli, "reset"));
}

static int run(struct cli *cli, int argc, char **argv)
{
	__attribute__((cleanup(lint_free))) struct lint lint = {};
	int code = parse_arguments(&lint, argc, argv), r;

	if (code == CLI_OK)
		code = policy_files_load(&lint.sources, &lint.n_sources, argv, lint.n_paths);
	if (code != CLI_OK)
		return code;
	r = policy_parse(&lint.policy, &lint.diagnostics, lint.sources, lint.n_sources);
	if (r == 0)
		r = policy_lint(lint.policy, lint.sources, time(NULL), POLICY_LINT_BUDGET, lint.diagnostics);
	if (r < 0) {
		cli_error("the policy could not be checked: %s", strerror(-r));
		return CLI_UNREACHABLE;
	}
	for (size_t i = 0; i < lint.n_disabled; i++)
		policy_diagnostics_drop(lint.diagnostics, lint.disabled[i]);
	if (cli->json)
		print_json(&lint, r == 0);
	else
		print_text(cli, &lint, r == 0);
	if (r == 1)
		return CLI_NO;
	return lint.error && policy_diagnostics_count(lint.diagnostics, POLICY_WARNING) ? CLI_NO : CLI_OK;
}

const struct cli_command cmd_lint = {
	.name = "lint",
	.summary = "Warns of what a valid policy cannot mean: rules that never decide, empty sets, unused names",
	.usage = "PATH... [--error] [--disable CODE]...",
	.help = "  --error         exit 1 if there is any warning\n"
		"  --disable CODE  without the warnings of this kind; may be repeated\n"
		"\n"
		"Codes: unused        no rule uses the name\n"
		"       expired       the rule's `until` has passed\n"
		"       empty-set     nobody can be in the set, or match the rule\n"
		"       unreachable   nothing is left for the rule to decide\n"
		"       shadowed      one rule before it decides all of its flows\n"
		"       redundant     rules of the same tier, priority and action do all that the rule does\n"
		"       audit-mode    a note: the rule lets pass what is denied without it\n"
		"       incomplete    a note: the policy is too large to look at everything\n"
		"\n"
		"Each finding is exact, over every identity, address and service. Needs neither the daemon nor "
		"privileges.\n"
		"\n"
		"Exit codes: 0 looked at; 1 not valid, or with --error a warning; 2 usage or a file that cannot be "
		"read.\n"
		"\n"
		"Example: policyctl lint --error --disable unused policy.d\n",
	.run = run,
};
