/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "cli/bus.h"
#include "cli/cli.h"
#include "cli/format.h"

#define NONE "there is no trust bundle: no SVID can be verified"

/* A file of the bundle directory that is none of any trust domain. */
static bool is_stray(const json_t *bundle)
{
	return !*cli_json_string(bundle, "trust_domain");
}

/* One line for each authority; what belongs to the bundle stands in the first one. */
static void bundle_rows(struct cli_table *table, const json_t *bundle)
{
	const json_t *authorities = cli_json_get(bundle, "authorities");
	char source[640], age[32] = "never";
	size_t n = json_array_size(authorities);

	snprintf(source, sizeof(source), "%s %s", cli_json_string(bundle, "source"), cli_json_string(bundle, "origin"));
	if (json_is_number(cli_json_get(bundle, "age_s")))
		cli_format_duration(cli_json_int(bundle, "age_s") + 1, age, sizeof(age));
	for (size_t i = 0; i < n || i == 0; i++) {
		const json_t *authority = json_array_get(authorities, i);

		cli_table_row(table, (const char *[]){
					     i ? "" : cli_json_string(bundle, "trust_domain"),
					     i ? "" : source,
					     i ? "" : cli_json_string(bundle, "sequence"),
					     i ? "" : age,
					     authority ? cli_json_string(authority, "subject") : "none",
					     authority ? cli_json_string(authority, "key_id") : "",
					     authority ? cli_json_string(authority, "not_after") : "",
				     });
	}
}

/* What is wrong with a bundle, below the table: it is longer than a column. */
static void bundle_troubles(struct cli *cli, const json_t *bundle)
{
	const json_t *entries = cli_json_get(bundle, "entries"), *entry;
	const char *trust_domain = cli_json_string(bundle, "trust_domain"), *error = cli_json_string(bundle, "error");
	size_t i;

	if (is_stray(bundle)) {
		printf("%s%s: not used: %s%s\n", cli_colour(cli, "red"), cli_json_string(bundle, "origin"), error,
		       cli_colour(cli, "reset"));
		return;
	}
	if (!json_array_size(cli_json_get(bundle, "authorities")))
		printf("%s%s: no authority: nobody of this trust domain is verified%s\n", cli_colour(cli, "yellow"),
		       trust_domain, cli_colour(cli, "reset"));
	json_array_foreach((json_t *)entries, i, entry)
	{
		bool dropped = json_is_true(cli_json_get(entry, "dropped"));

		printf("%s%s: entry %" JSON_INTEGER_FORMAT "%s: %s (%s, rule %" JSON_INTEGER_FORMAT ")%s\n",
		       cli_colour(cli, "yellow"), trust_domain, cli_json_int(entry, "index"),
		       dropped ? " is not used" : "", cli_json_string(entry, "text"),
		       cli_json_string(entry, "rule_name"), cli_json_int(entry, "rule"), cli_colour(cli, "reset"));
	}
	if (*error)
		printf("%s%s: the last attempt failed at %s: %s%s\n", cli_colour(cli, "red"), trust_domain,
		       cli_json_string(bundle, "tried"), error, cli_colour(cli, "reset"));
}

static void bundles_print(struct cli *cli, const json_t *list)
{
	struct cli_table *table = NULL;
	const json_t *bundle;
	size_t i;

	json_array_foreach((json_t *)list, i, bundle)
	{
		if (is_stray(bundle))
			continue;
		if (!table) {
			table = cli_table_new(7);
			cli_table_row(table, (const char *[]){"TRUST DOMAIN", "SOURCE", "SEQUENCE", "AGE", "AUTHORITY",
							      "KEY ID", "NOT AFTER"});
		}
		bundle_rows(table, bundle);
	}
	if (table)
		cli_table_print(cli, table);
	else
		puts(NONE);
	json_array_foreach((json_t *)list, i, bundle) bundle_troubles(cli, bundle);
}

static int run(struct cli *cli, int argc, char **argv)
{
	return cli_bus_list(cli, argc, argv, &cmd_bundles,
			    &(struct cli_list){.member = "Bundles", .none = NONE, .print = bundles_print});
}

const struct cli_command cmd_bundles = {
	.name = "bundles",
	.summary = "Lists the trust bundles: authorities, source, sequence, age, and the last error",
	.usage = "",
	.help = "Shows for each trust domain where its bundle comes from, its sequence if it has one, for how long it "
		"has\n"
		"been in force, and the authorities that SVIDs are verified by. Entries that could not be used and "
		"the\n"
		"reason why the last attempt to replace a bundle failed stand below, and what is in the bundle "
		"directory and is\n"
		"no bundle of any trust domain (with --json: trust_domain is null, and error says why).\n\n"
		"Exit codes: 0 listed; 3 the daemon is not reachable or failed.\n",
	.run = run,
};
