/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/flow_changes.h"
#include "cli/policy_diff.h"
#include "cli/when.h"

#define MAX_FILES 256

struct arguments {
	const char *sides[2];
	size_t n_sides;
	char *flows[MAX_FILES];
	size_t n_flows;
	int64_t now;
};

static int parse_option(struct arguments *arguments, const char *option, char *value)
{
	if (strcmp(option, "--flows") != 0 && strcmp(option, "--at") != 0)
		return cli_usage_error(&cmd_diff, "unknown option %s", option);
	if (!value)
		return cli_usage_error(&cmd_diff, "%s needs a value", option);
	if (!strcmp(option, "--at")) {
		const char *wrong = cli_parse_when(value, time(NULL), &arguments->now);

		return wrong ? cli_usage_error(&cmd_diff, "--at %s: %s", value, wrong) : CLI_OK;
	}
	if (arguments->n_flows == MAX_FILES)
		return cli_usage_error(&cmd_diff, "at most %d --flows", MAX_FILES);
	arguments->flows[arguments->n_flows++] = value;
	return CLI_OK;
}

static int parse_arguments(struct arguments *arguments, int argc, char **argv)
{
	bool options = true;

	for (int i = 1; i < argc; i++) {
		int code;

		if (options && !strcmp(argv[i], "--")) {
			options = false;
		} else if (options && argv[i][0] == '-' && argv[i][1]) {
			code = parse_option(arguments, argv[i], i + 1 < argc ? argv[i + 1] : NULL);
			if (code != CLI_OK)
				return code;
			i++;
		} else if (arguments->n_sides == 2) {
			return cli_usage_error(&cmd_diff, "two policies, not also %s; name a directory", argv[i]);
		} else {
			arguments->sides[arguments->n_sides++] = argv[i];
		}
	}
	if (!arguments->n_sides)
		return cli_usage_error(&cmd_diff, "which policies? Give the old and the new one");
	if (arguments->n_sides == 1) {
		/* What would change by applying it? */
		arguments->sides[1] = arguments->sides[0];
		arguments->sides[0] = "@";
	}
	if (!strcmp(arguments->sides[0], "-") && !strcmp(arguments->sides[1], "-"))
		return cli_usage_error(&cmd_diff, "standard input can be one policy, not both");
	return CLI_OK;
}

static int run(struct cli *cli, int argc, char **argv)
{
	__attribute__((cleanup(policy_side_free))) struct policy_side old = {}, new = {};
	struct arguments arguments = {.now = time(NULL)};
	int code = parse_arguments(&arguments, argc, argv);

	if (code == CLI_OK)
		code = policy_side_load(cli, &old, arguments.sides[0]);
	if (code == CLI_OK)
		code = policy_side_load(cli, &new, arguments.sides[1]);
	if (code != CLI_OK)
		return code;
	if (arguments.n_flows)
		return flow_changes_print(cli, old.policy, new.policy, arguments.now, arguments.flows,
					  arguments.n_flows);
	return policy_sides_diff(cli, &old, &new, arguments.now);
}

const struct cli_command cmd_diff = {
	.name = "diff",
	.summary = "Which flows change verdict between two policies, and by which rules",
	.usage = "[OLD] NEW [--at TIME] [--flows AUDIT.jsonl]...",
	.help = "  OLD, NEW      a policy: a file, a directory, - for standard input, @ for the policy in force, or\n"
		"                @N for a revision of the daemon. Without OLD: the policy in force\n"
		"  --at TIME     as of this time (2027-01-01T00:00:00Z), which counts for rules with `until`\n"
		"  --flows FILE  instead, the recorded flows of this audit log that would change; may be repeated\n"
		"\n"
		"The comparison is exact, over every identity, address and service, not over samples: a line begins\n"
		"with `+ allow` for flows that pass now and did not, with `- deny` for those that do not any more.\n"
		"What is not a verdict (log, bindings of identities to cgroups) is not compared.\n"
		"\n"
		"Exit codes: 0 the same verdicts; 1 some differ, or a policy is not valid; 2 usage, or a file that\n"
		"cannot be read; 3 the daemon is not reachable, or it could not be found out.\n"
		"\n"
		"Example: policyctl diff @ policy.d --flows /var/log/bulkhead/audit.jsonl\n",
	.run = run,
};
