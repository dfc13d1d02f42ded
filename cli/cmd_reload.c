/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cli/bus.h"
#include "cli/cli.h"

static int run(struct cli *cli, int argc, char **argv)
{
	__attribute__((cleanup(cli_bus_closep))) sd_bus *bus = NULL;
	__attribute__((cleanup(cli_message_unrefp))) sd_bus_message *call = NULL, *reply = NULL;
	int code;

	if (argc > 1)
		return cli_usage_error(&cmd_reload, "unexpected argument %s", argv[1]);
	code = cli_bus_open(cli, &bus);
	if (code == CLI_OK)
		code = cli_bus_method(bus, "Reload", &call);
	if (code == CLI_OK)
		code = cli_bus_call(cli, bus, call, &reply);
	if (code != CLI_OK)
		return code;
	if (cli->json)
		cli_print_json(json_pack("{s:b}", "reloaded", 1));
	else
		puts("trust bundles read again, audit log opened again");
	return CLI_OK;
}

const struct cli_command cmd_reload = {
	.name = "reload",
	.summary = "Makes the daemon read its trust bundles again and open its audit log again",
	.usage = "",
	.help = "The policy is not read again: that is what `policyctl apply` does.\n\n"
		"Exit codes: 0 done; 3 the daemon is not reachable or failed.\n",
	.run = run,
};
