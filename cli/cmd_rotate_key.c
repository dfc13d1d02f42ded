/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "cli/bus.h"
#include "cli/cli.h"

static int run(struct cli *cli, int argc, char **argv)
{
	__attribute__((cleanup(cli_bus_closep))) sd_bus *bus = NULL;
	__attribute__((cleanup(cli_message_unrefp))) sd_bus_message *call = NULL, *reply = NULL;
	uint64_t epoch;
	int code;

	if (argc > 1)
		return cli_usage_error(&cmd_rotate_key, "unexpected argument %s", argv[1]);
	code = cli_bus_open(cli, &bus);
	if (code == CLI_OK)
		code = cli_bus_method(bus, "RotateKey", &call);
	if (code == CLI_OK)
		code = cli_bus_call(cli, bus, call, &reply);
	if (code != CLI_OK)
		return code;
	if (sd_bus_message_read(reply, "t", &epoch) < 0)
		return cli_bus_malformed(cli, "RotateKey");
	if (cli->json)
		cli_print_json(json_pack("{s:I}", "epoch", (json_int_t)epoch));
	else
		printf("identities in handshakes are signed by key %" PRIu64 " from now on\n", epoch);
	return CLI_OK;
}

const struct cli_command cmd_rotate_key = {
	.name = "rotate-key",
	.summary = "Has identities in TCP handshakes signed by a new key",
	.usage = "",
	.help = "The daemon does it by itself after the hours that its configuration sets (key_hours). What was signed "
		"by "
		"the\nkey before it counts for two minutes more, so no connection is refused or cut.\n\n"
		"Exit codes: 0 done; 3 the daemon is not reachable or failed.\n",
	.run = run,
};
