/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "cli/bus.h"
#include "cli/cli.h"
#include "cli/format.h"

static void identities_print(struct cli *cli, const json_t *list)
{
	struct cli_table *table = cli_table_new(5);
	size_t i, shared = 0;
	const json_t *tag;

	cli_table_row(table, (const char *[]){"IDENTITY", "CGROUP", "UNTIL", "LEFT", "PID"});
	json_array_foreach((json_t *)list, i, tag)
	{
		const char *id = cli_json_string(tag, "spiffe_id");
		const char *local = cli_json_string(tag, "local");
		const char *deadline = cli_json_string(tag, "deadline");
		json_int_t pid = cli_json_int(tag, "pid");
		char left[32] = "", number[24] = "";

		if (json_is_number(cli_json_get(tag, "seconds_left")))
			cli_format_duration((int64_t)json_number_value(cli_json_get(tag, "seconds_left")), left,
					    sizeof(left));
		if (pid)
			snprintf(number, sizeof(number), "%" JSON_INTEGER_FORMAT, pid);
		cli_table_row(table, (const char *[]){*id ? id : local, cli_json_string(tag, "cgroup"),
						      *deadline ? deadline : "for ever", left, number});
		shared += cli_json_int(tag, "shared_with") > 0;
	}
	cli_table_print(cli, table);
	if (shared)
		printf("%zu of them rest on an SVID that is in force in another place too (--json: svid_sha256)\n",
		       shared);
}

static int run(struct cli *cli, int argc, char **argv)
{
	return cli_bus_list(cli, argc, argv, &cmd_identities,
			    &(struct cli_list){.member = "Identities",
					       .none = "no workload carries an identity",
					       .print = identities_print});
}

const struct cli_command cmd_identities = {
	.name = "identities",
	.summary = "Lists the workloads that carry an identity, and until when",
	.usage = "",
	.help = "Exit codes: 0 listed; 3 the daemon is not reachable or failed.\n",
	.run = run,
};
