/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/findings.h"
#include "policy/invariant.h"

#define MAX_QUESTIONS 1000

/* --never TEXT, --always TEXT, --isolated A B */
struct question {
	enum invariant_kind kind;
	const char *a, *b;
};

struct arguments {
	char **paths;
	size_t n_paths;
	struct question *questions;
	size_t n_questions;
};

struct prover {
	struct cli *cli;
	const struct arguments *arguments;
	struct policy *policy;
	size_t n, failed;
	json_t *list;
};

/* ---- the answer ---- */

/* In single quotes where a shell would take a character for its own. */
static void print_word(const char *text)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:@-+,=";

	if (*text && strspn(text, plain) == strlen(text)) {
		fputs(text, stdout);
		return;
	}
	putchar('\'');
	for (; *text; text++) {
		if (*text == '\'')
			fputs("'\\''", stdout);
		else
			putchar(*text);
	}
	putchar('\'');
}

static void print_path(const char *path)
{
	char *printable = cli_printable(path);

	print_word(printable);
	free(printable);
}

static void print_explain(const struct prover *prover, const struct policy_finding *finding)
{
	fputs("  see: policyctl explain", stdout);
	for (size_t i = 0; i < prover->arguments->n_paths; i++) {
		fputs(" --policy ", stdout);
		print_path(prover->arguments->paths[i]);
	}
	fputs(" --from ", stdout);
	print_word(finding->from);
	fputs(" --to ", stdout);
	print_word(finding->to);
	putchar(' ');
	print_word(finding->service);
	putchar('\n');
}

static int tell(void *context, const struct policy_finding *finding)
{
	struct prover *prover = context;
	struct cli *cli = prover->cli;

	prover->n++;
	prover->failed += !finding->holds;
	if (prover->list) {
		json_array_append_new(prover->list, finding_json(prover->policy, finding));
		return 0;
	}
	printf("%s%s%s ", cli_colour(cli, finding->holds ? "green" : "red"),
	       finding->holds ? "holds:" : "does not hold:", cli_colour(cli, "reset"));
	policy_finding_title(finding, stdout);
	if (finding->invariant->at.line) {
		fputs(" (", stdout);
		policy_finding_place(prover->policy, finding, stdout);
		putchar(')');
	}
	putchar('\n');
	policy_finding_details(finding, stdout);
	if (finding->has_flow)
		print_explain(prover, finding);
	return 0;
}

/* ---- the questions ---- */

/* Reads those of the command line. Returns an exit code, having said what is wrong. */
static int read_questions(struct policy *policy, const struct arguments *arguments, struct invariant *invariants)
{
	int code = CLI_OK;

	for (size_t i = 0; i < arguments->n_questions; i++) {
		const struct question *question = &arguments->questions[i];
		char *error = NULL;
		int r = question->kind == INVARIANT_ISOLATED
				? policy_invariant_isolated(&invariants[i], policy, question->a, question->b, &error)
				: policy_invariant_parse(&invariants[i], policy, question->kind, question->a, &error);

		if (r < 0)
			return cli_findings_result(r, NULL);
		if (r) {
			cli_error_lines(error ? error : "out of memory");
			code = CLI_USAGE;
		}
		free(error);
	}
	return code;
}

static int prove(struct prover *prover, const struct invariant *invariants, size_t n)
{
	char *error = NULL;
	int code, r;

	if (prover->cli->json)
		prover->list = json_array();
	r = policy_check_invariants(prover->policy, invariants, n, time(NULL), tell, prover, &error);
	code = cli_findings_result(r, error);
	free(error);
	if (prover->list && code == CLI_OK)
		cli_print_json(json_pack("{s:b, s:O}", "holds", !prover->failed, "invariants", prover->list));
	json_decref(prover->list);
	return code == CLI_OK && prover->failed ? CLI_NO : code;
}

static int prove_policy(struct cli *cli, const struct arguments *arguments)
{
	__attribute__((cleanup(policy_freep))) struct policy *policy = NULL;
	struct prover prover = {.cli = cli, .arguments = arguments};
	struct invariant *invariants;
	int code = cli_policy_read(cli, arguments->paths, arguments->n_paths, &policy);

	if (code != CLI_OK)
		return code;
	prover.policy = policy;
	if (!arguments->n_questions && !policy->n_invariants)
		return cli_usage_error(&cmd_prove,
				       "the policy has no `invariants`; ask with --never, --always or --isolated");
	if (!arguments->n_questions)
		return prove(&prover, policy->invariants, policy->n_invariants);
	invariants = calloc(arguments->n_questions, sizeof(*invariants));
	if (!invariants)
		return cli_findings_result(-ENOMEM, NULL);
	code = read_questions(policy, arguments, invariants);
	if (code == CLI_OK)
		code = prove(&prover, invariants, arguments->n_questions);
	free(invariants);
	return code;
}

/* Returns how many arguments the option took, 0 if it is none, or -1 having said what is wrong. */
static int read_option(struct arguments *arguments, int argc, char **argv, int i)
{
	static const char *const options[] = {"--never", "--always", "--isolated"};
	static const enum invariant_kind kinds[] = {INVARIANT_NEVER, INVARIANT_ALWAYS, INVARIANT_ISOLATED};

	for (int k = 0; k < 3; k++) {
		int values = k == 2 ? 2 : 1;

		if (strcmp(argv[i], options[k]) != 0)
			continue;
		if (i + values >= argc) {
			cli_usage_error(&cmd_prove, k == 2 ? "%s needs two names" : "%s needs a value", argv[i]);
			return -1;
		}
		if (arguments->n_questions == MAX_QUESTIONS) {
			cli_usage_error(&cmd_prove, "at most %d questions", MAX_QUESTIONS);
			return -1;
		}
		arguments->questions[arguments->n_questions++] =
			(struct question){kinds[k], argv[i + 1], k == 2 ? argv[i + 2] : NULL};
		return values + 1;
	}
	return 0;
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct question questions[MAX_QUESTIONS];
	struct arguments arguments = {.paths = argv, .questions = questions};

	for (int i = 1; i < argc;) {
		int taken = read_option(&arguments, argc, argv, i);

		if (taken < 0)
			return CLI_USAGE;
		if (!taken && argv[i][0] == '-' && argv[i][1])
			return cli_usage_error(&cmd_prove, "unknown option %s", argv[i]);
		if (!taken)
			argv[arguments.n_paths++] = argv[i++];
		i += taken;
	}
	if (!arguments.n_paths)
		return cli_usage_error(&cmd_prove, "which policy? Give a file or a directory");
	return prove_policy(cli, &arguments);
}

const struct cli_command cmd_prove = {
	.name = "prove",
	.summary = "Says whether an invariant holds for every flow, or names one for which it does not",
	.usage = "PATH... [--never FLOWS] [--always FLOWS] [--isolated A B]",
	.help = "Answers for all identities, addresses and services at once, not by trying some. Without a question "
		"the\n"
		"`invariants` of the policy are proved.\n"
		"\n"
		"  --never FLOWS   no such flow passes. FLOWS is 'from: A to: B service: S', each as in a rule; "
		"without\n"
		"                  `service`, every one\n"
		"  --always FLOWS  every such flow passes\n"
		"  --isolated A B  nothing passes between A and B, either way\n"
		"\n"
		"Each may be repeated. A rule in audit mode lets pass what it denies. Rules whose `until` is over take "
		"no\n"
		"part.\n"
		"\n"
		"Exit codes: 0 all hold, 1 one does not or the policy is not valid, 2 usage.\n"
		"\n"
		"Example: policyctl prove policy.d --never 'from: internet to: db' --isolated prod staging\n",
	.run = run,
};
