/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "cli/bus.h"
#include "cli/cli.h"

static int run(struct cli *cli, int argc, char **argv)
{
	__attribute__((cleanup(cli_bus_closep))) sd_bus *bus = NULL;
	__attribute__((cleanup(cli_message_unrefp))) sd_bus_message *call = NULL, *reply = NULL;
	uint32_t revision;
	int code;

	if (argc > 1)
		return cli_usage_error(&cmd_confirm, "unexpected argument %s", argv[1]);
	code = cli_bus_open(cli, &bus);
	if (code == CLI_OK)
		code = cli_bus_method(bus, "Confirm", &call);
	if (code == CLI_OK)
		code = cli_bus_call(cli, bus, call, &reply);
	if (code != CLI_OK)
		return code;
	if (sd_bus_message_read(reply, "u", &revision) < 0)
		return cli_bus_malformed(cli, "Confirm");
	if (cli->json)
		cli_print_json(json_pack("{s:I}", "revision", (json_int_t)revision));
	else
		printf("revision %" PRIu32 " is confirmed and stays in force\n", revision);
	return CLI_OK;
}

const struct cli_command cmd_confirm = {
	.name = "confirm",
	.summary = "Keeps the policy that was applied with --confirm",
	.usage = "",
	.help = "Call it from a session that you opened after the apply: that shows that you still can.\n\n"
		"Exit codes: 0 it stays; 1 nothing waits to be confirmed; 3 the daemon is not reachable or failed.\n",
	.run = run,
};
