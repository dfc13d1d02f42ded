/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "cli/bus.h"
#include "cli/cli.h"

static int run(struct cli *cli, int argc, char **argv)
{
	__attribute__((cleanup(cli_bus_closep))) sd_bus *bus = NULL;
	__attribute__((cleanup(cli_message_unrefp))) sd_bus_message *call = NULL, *reply = NULL;
	uint32_t tags, sockets;
	int code;

	if (argc != 2)
		return cli_usage_error(&cmd_revoke, argc < 2 ? "which identity?" : "one identity at a time");
	if (argv[1][0] == '-')
		return cli_usage_error(&cmd_revoke, "unknown option %s", argv[1]);
	code = cli_bus_open(cli, &bus);
	if (code == CLI_OK)
		code = cli_bus_method(bus, "Revoke", &call);
	if (code == CLI_OK && sd_bus_message_append(call, "s", argv[1]) < 0)
		return cli_usage_error(&cmd_revoke, "the identity is not valid UTF-8");
	if (code == CLI_OK)
		code = cli_bus_call(cli, bus, call, &reply);
	if (code != CLI_OK)
		return code;
	if (sd_bus_message_read(reply, "uu", &tags, &sockets) < 0)
		return cli_bus_malformed(cli, "Revoke");
	if (cli->json)
		cli_print_json(json_pack("{s:s, s:I, s:I}", "identity", argv[1], "tags", (json_int_t)tags,
					 "sockets_cut", (json_int_t)sockets));
	else
		printf("revoked %s: %" PRIu32 " tag%s taken away, %" PRIu32 " socket%s cut\n", argv[1], tags,
		       tags == 1 ? "" : "s", sockets, sockets == 1 ? "" : "s");
	return CLI_OK;
}

const struct cli_command cmd_revoke = {
	.name = "revoke",
	.summary = "Takes an identity away from the workloads that carry it, and cuts their connections",
	.usage = "ID",
	.help = "  ID   a SPIFFE ID, or the name of a local identity of the policy\n\n"
		"The SVIDs in use are refused from now on; a workload comes back with a newly issued one.\n\n"
		"Exit codes: 0 revoked; 1 nobody carries it; 3 the daemon is not reachable or failed.\n",
	.run = run,
};
