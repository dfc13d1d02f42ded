/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cli/cli.h"
#include "policy/schema.h"

static int run(struct cli *cli, int argc, char **argv)
{
	(void)cli;
	if (argc > 1)
		return cli_usage_error(&cmd_schema, "unknown argument %s", argv[1]);
	fputs(policy_schema(), stdout);
	return CLI_OK;
}

const struct cli_command cmd_schema = {
	.name = "schema",
	.summary = "Prints the JSON Schema of policy files, for editors",
	.usage = "",
	.help = "With it an editor completes keys and words, explains them and underlines what is wrong. It knows "
		"forms, not\n"
		"meanings: `policyctl check` has the last word.\n"
		"\n"
		"For editors with yaml-language-server (VS Code, Neovim, Emacs, Helix, ...) name it in the file:\n"
		"\n"
		"  # yaml-language-server: $schema=policy.schema.json\n"
		"\n"
		"or for all files of a directory in the editor's settings:\n"
		"\n"
		"  \"yaml.schemas\": {\"/usr/share/bulkhead/policy.schema.json\": \"/etc/bulkhead/policy.d/*.yaml\"}\n"
		"\n"
		"Example: policyctl schema > policy.schema.json\n",
	.run = run,
};
