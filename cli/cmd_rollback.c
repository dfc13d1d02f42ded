/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/bus.h"
#include "cli/change.h"
#include "cli/cli.h"
#include "cli/format.h"

static int rollback_call(void *ctx, sd_bus *bus, bool even_if_cut, sd_bus_message **callp)
{
	const uint32_t *revision = ctx;
	int code = cli_bus_method(bus, "Rollback", callp);

	if (code == CLI_OK && sd_bus_message_append(*callp, "usb", *revision, cli_session(), (int)even_if_cut) < 0) {
		cli_error("SSH_CONNECTION in the environment is not valid UTF-8");
		return CLI_USAGE;
	}
	return code;
}

/* What was in force once has been warned of. */
static const struct cli_change_ops ops = {.call = rollback_call};

static int run(struct cli *cli, int argc, char **argv)
{
	struct cli_change result;
	unsigned long number = 0;
	uint32_t revision;
	bool yes = false;
	int code;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--yes"))
			yes = true;
		else if (argv[i][0] == '-')
			return cli_usage_error(&cmd_rollback, "unknown option %s", argv[i]);
		else if (number)
			return cli_usage_error(&cmd_rollback, "unexpected argument %s", argv[i]);
		else if (cli_parse_count(argv[i], UINT32_MAX, &number))
			return cli_usage_error(&cmd_rollback, "\"%s\" is not a revision number", argv[i]);
	}
	revision = (uint32_t)number;
	code = cli_change_run(cli, "Roll back", yes, &ops, &revision, &result);
	if (code != CLI_OK)
		return code;
	if (cli->json)
		cli_print_json(json_pack("{s:I, s:I, s:I, s:I}", "revision", (json_int_t)result.revision, "replaced",
					 (json_int_t)result.replaced, "rules", (json_int_t)result.rules, "sockets_cut",
					 (json_int_t)result.sockets_cut));
	else
		printf("revision %" PRIu32 " in force, rolled back from %" PRIu32 ": %" PRIu32 " rule%s, %" PRIu32
		       " socket%s cut\n",
		       result.revision, result.replaced, result.rules, result.rules == 1 ? "" : "s", result.sockets_cut,
		       result.sockets_cut == 1 ? "" : "s");
	return CLI_OK;
}

const struct cli_command cmd_rollback = {
	.name = "rollback",
	.summary = "Makes an earlier policy the one in force again",
	.usage = "[REV] [--yes]",
	.help = "  REV     the revision to go back to (see `policyctl history`); without it, the one before the one in "
		"force, or,\n"
		"          while a revision waits to be confirmed, the one that was in force before that\n"
		"  --yes   also if it cuts the connection that you came through\n\n"
		"The sources of that revision are compiled again and come into force as a new revision. A second "
		"rollback\n"
		"goes back one further.\n\n"
		"Exit codes: 0 in force; 1 no such revision, not valid any more, or it would cut your session: nothing "
		"changed;\n"
		"3 the daemon is not reachable or failed.\n",
	.run = run,
};
