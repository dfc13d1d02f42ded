/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli/bus.h"
#include "cli/cli.h"
#include "cli/format.h"

#define NUMBER "%" JSON_INTEGER_FORMAT

/* One line: a word in a column of its own, then the rest. */
static __attribute__((format(printf, 2, 3))) void line(const char *label, const char *format, ...)
{
	va_list args;

	printf("  %-12s ", label);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

/* "N what", in the colour of a warning when N should be 0. */
static void print_bad_count(struct cli *cli, const json_t *status, const char *path, const char *what)
{
	json_int_t n = cli_json_int(status, path);

	printf(", %s" NUMBER " %s%s", n ? cli_colour(cli, "yellow") : "", n, what, n ? cli_colour(cli, "reset") : "");
}

/* The first word; NULL: nothing is wrong. */
static const char *wrong_word(const json_t *status)
{
	return !cli_json_true(status, "enforcing")	   ? "NOT ENFORCING"
	       : *cli_json_string(status, "audit.problem") ? "NOT LOGGING"
							   : NULL;
}

static void print_head(struct cli *cli, const json_t *status)
{
	const char *wrong = wrong_word(status);
	char up[32];

	cli_format_duration(cli_json_int(status, "uptime_s"), up, sizeof(up));
	printf("%s%s%s  bulkheadd %s, instance %s, pid " NUMBER ", up %s%s\n", cli_colour(cli, wrong ? "red" : "green"),
	       wrong ?: "ok", cli_colour(cli, "reset"), cli_json_string(status, "version"),
	       cli_json_string(status, "instance"), cli_json_int(status, "pid"),
	       cli_json_int(status, "uptime_s") ? up : "0 s",
	       cli_json_true(status, "adopted") ? " (took over what an earlier daemon enforced)" : "");
}

static void print_audit(struct cli *cli, const json_t *status)
{
	const char *problem = cli_json_string(status, "audit.problem");

	line("audit log", "%s", cli_json_string(status, "audit_log"));
	if (*problem)
		line("", "%ssince %s %s%s", cli_colour(cli, "red"), cli_json_string(status, "audit.since"), problem,
		     cli_colour(cli, "reset"));
}

static void print_policy(struct cli *cli, const json_t *status)
{
	char used[32], max[32];

	if (!cli_json_int(status, "policy.revision")) {
		line("policy", "none: everything is denied; `policyctl apply PATH` brings one");
		return;
	}
	cli_format_bytes((uint64_t)cli_json_int(status, "policy.table_bytes"), used, sizeof(used));
	cli_format_bytes((uint64_t)cli_json_int(status, "policy.table_bytes_max"), max, sizeof(max));
	line("policy", "revision " NUMBER ", " NUMBER " rules, applied %s, tables %s of %s",
	     cli_json_int(status, "policy.revision"), cli_json_int(status, "policy.rules"),
	     cli_json_string(status, "policy.applied"), used, max);
	if (cli_json_int(status, "policy.waiting.revision"))
		line("",
		     "%swaits to be confirmed, for " NUMBER " s more: `policyctl confirm`; else revision " NUMBER
		     " comes back%s",
		     cli_colour(cli, "yellow"), cli_json_int(status, "policy.waiting.seconds_left"),
		     cli_json_int(status, "policy.waiting.previous"), cli_colour(cli, "reset"));
}

static void print_identities(const json_t *status)
{
	const char *deadline = cli_json_string(status, "identities.nearest_deadline");

	if (*deadline)
		line("identities", NUMBER " of " NUMBER "; next to end %s, %s", cli_json_int(status, "identities.tags"),
		     cli_json_int(status, "identities.max"), deadline,
		     cli_json_string(status, "identities.nearest_identity"));
	else
		line("identities", NUMBER " of " NUMBER, cli_json_int(status, "identities.tags"),
		     cli_json_int(status, "identities.max"));
}

static void print_ending(struct cli *cli, const json_t *status)
{
	const json_t *tag;
	size_t i;

	json_array_foreach(cli_json_get(status, "identities.ending"), i, tag)
		line("", "%s%s of %s ends %s, in " NUMBER " s, and is not renewed%s", cli_colour(cli, "yellow"),
		     cli_json_string(tag, "spiffe_id"), cli_json_string(tag, "cgroup"),
		     cli_json_string(tag, "deadline"), cli_json_int(tag, "seconds_left"), cli_colour(cli, "reset"));
}

static void print_svids(struct cli *cli, const json_t *status)
{
	const json_t *svid;
	size_t i;

	json_array_foreach(cli_json_get(status, "svids"), i, svid)
	{
		const char *id = cli_json_string(svid, "spiffe_id"), *problem = cli_json_string(svid, "problem");

		printf("  %-12s %s for %s: %s", i ? "" : "svids", cli_json_string(svid, "dir"),
		       cli_json_string(svid, "place"), *id ? id : "nothing proved");
		if (*problem)
			printf("; %s%s%s", cli_colour(cli, "red"), problem, cli_colour(cli, "reset"));
		putchar('\n');
	}
}

/* Those that carry something; the first of many. */
static void print_device_list(const json_t *items)
{
	const json_t *device;
	size_t i, shown = 0;

	json_array_foreach((json_t *)items, i, device)
	{
		const char *identity = cli_json_string(device, "identity"), *by = cli_json_string(device, "by_cgroup");

		if (!*identity || shown++ >= 16)
			continue;
		printf("  %-12s %s carries %s%s%s\n", "", cli_json_string(device, "name"), identity,
		       *by ? ", the identity of cgroup " : "", by);
	}
}

static void print_devices(struct cli *cli, const json_t *status)
{
	const json_t *uncovered = cli_json_get(status, "devices.uncovered"), *device;
	size_t i;

	if (!*cli_json_string(status, "devices.patterns"))
		return;
	printf("  %-12s " NUMBER " covered (%s) by %s, " NUMBER " with an identity", "devices",
	       cli_json_int(status, "devices.covered"), cli_json_string(status, "devices.patterns"),
	       !strcmp(cli_json_string(status, "devices.hook"), "clsact") ? "clsact filters" : "tcx links",
	       cli_json_int(status, "devices.bound"));
	json_array_foreach((json_t *)uncovered, i, device)
		printf("; %s%s is NOT: %s%s", cli_colour(cli, "red"), cli_json_string(device, "name"),
		       cli_json_string(device, "error"), cli_colour(cli, "reset"));
	putchar('\n');
	print_device_list(cli_json_get(status, "devices.items"));
}

/* What is in the bundle directory and is no bundle of any trust domain. */
static void print_stray_bundles(struct cli *cli, const json_t *bundles)
{
	const json_t *bundle;
	size_t i;

	json_array_foreach((json_t *)bundles, i, bundle)
	{
		if (!*cli_json_string(bundle, "trust_domain"))
			line("", "%s%s: not used: %s%s", cli_colour(cli, "red"), cli_json_string(bundle, "origin"),
			     cli_json_string(bundle, "error"), cli_colour(cli, "reset"));
	}
}

static void print_bundles(struct cli *cli, const json_t *status)
{
	const json_t *bundles = cli_json_get(status, "bundles"), *bundle;
	size_t i, n = 0;

	json_array_foreach((json_t *)bundles, i, bundle) n += *cli_json_string(bundle, "trust_domain") != '\0';
	if (!n)
		line("bundles", "%snone: no SVID can be verified%s", cli_colour(cli, "yellow"),
		     cli_colour(cli, "reset"));
	n = 0;
	json_array_foreach((json_t *)bundles, i, bundle)
	{
		const char *error = cli_json_string(bundle, "error");

		if (!*cli_json_string(bundle, "trust_domain"))
			continue;
		printf("  %-12s %s: " NUMBER " %s", n++ ? "" : "bundles", cli_json_string(bundle, "trust_domain"),
		       cli_json_int(bundle, "authorities"),
		       cli_json_int(bundle, "authorities") == 1 ? "authority" : "authorities");
		if (cli_json_int(bundle, "dropped"))
			print_bad_count(cli, bundle, "dropped", "entries unusable");
		if (*error)
			printf("; %s%s%s", cli_colour(cli, "red"), error, cli_colour(cli, "reset"));
		putchar('\n');
	}
	print_stray_bundles(cli, bundles);
}

static void print_events(struct cli *cli, const json_t *status)
{
	printf("  %-12s " NUMBER " flow verdicts made, " NUMBER " written", "events",
	       cli_json_int(status, "events.made"), cli_json_int(status, "events.written"));
	print_bad_count(cli, status, "events.lost", "lost");
	printf(", " NUMBER " denials folded\n", cli_json_int(status, "events.denials_folded"));
	printf("  %-12s " NUMBER " made, " NUMBER " written", "notices", cli_json_int(status, "events.notices_made"),
	       cli_json_int(status, "events.notices_written"));
	print_bad_count(cli, status, "events.notices_lost", "lost");
	printf("\n  %-12s " NUMBER " verified", "handshakes", cli_json_int(status, "handshakes.verified"));
	print_bad_count(cli, status, "handshakes.forged", "forged");
	print_bad_count(cli, status, "handshakes.replayed", "replayed");
	print_bad_count(cli, status, "handshakes.stripped", "stripped on the way");
	printf("; key " NUMBER " since %s", cli_json_int(status, "key.epoch"), cli_json_string(status, "key.since"));
	putchar('\n');
}

/* In the colour of a warning when nine tenths are in use: one that evicts nothing denies when it is full. */
static void print_maps(struct cli *cli, const json_t *status)
{
	const json_t *map;
	size_t i;

	printf("  %-12s", "maps");
	json_array_foreach(cli_json_get(status, "maps"), i, map)
	{
		json_int_t entries = cli_json_int(map, "entries"), max = cli_json_int(map, "max");
		bool warn = !cli_json_true(map, "evicts") && entries >= max - max / 10;

		if (i && i % 4 == 0)
			printf(",\n  %-12s", "");
		else if (i)
			putchar(',');
		printf(" %s%s " NUMBER " of " NUMBER "%s", warn ? cli_colour(cli, "yellow") : "",
		       cli_json_string(map, "name"), entries, max, warn ? cli_colour(cli, "reset") : "");
	}
	putchar('\n');
	if (cli_json_int(status, "map_full"))
		line("", "%sone was full " NUMBER " times; flows were denied for it%s", cli_colour(cli, "yellow"),
		     cli_json_int(status, "map_full"), cli_colour(cli, "reset"));
}

static void print_roles(const json_t *status)
{
	const json_t *role;
	size_t i;

	printf("  %-12s", "roles");
	json_array_foreach(cli_json_get(status, "roles"), i, role)
	{
		json_int_t restarts = cli_json_int(role, "restarts");

		printf("%s %s (pid " NUMBER "", i ? "," : "", cli_json_string(role, "role"), cli_json_int(role, "pid"));
		if (restarts)
			printf(", restarted " NUMBER "x", restarts);
		putchar(')');
	}
	putchar('\n');
}

static void print_programs(struct cli *cli, const json_t *status)
{
	const json_t *programs = cli_json_get(status, "programs"), *program;
	size_t attached = 0, i;

	json_array_foreach((json_t *)programs, i, program) attached += cli_json_true(program, "attached");
	printf("  %-12s %zu of %zu attached", "programs", attached, json_array_size(programs));
	json_array_foreach((json_t *)programs, i, program)
	{
		if (!cli_json_true(program, "attached"))
			printf("; %s%s is NOT%s", cli_colour(cli, "red"), cli_json_string(program, "name"),
			       cli_colour(cli, "reset"));
	}
	putchar('\n');
}

static void print_not_enforced(const json_t *status)
{
	const json_t *item;
	size_t i;

	json_array_foreach((json_t *)cli_json_get(status, "not_enforced"), i, item)
		line(i ? "" : "not enforced", "%s", json_string_value(item));
}

static int run(struct cli *cli, int argc, char **argv)
{
	json_t *status;
	int code;

	if (argc > 1)
		return cli_usage_error(&cmd_status, "unexpected argument %s", argv[1]);
	code = cli_bus_json(cli, "Status", &status);
	if (code != CLI_OK)
		return code;
	code = wrong_word(status) ? CLI_NO : CLI_OK;
	if (cli->json) {
		cli_print_json(status);
		return code;
	}
	print_head(cli, status);
	line("subtree", "%s of %s", cli_json_string(status, "subtree"), cli_json_string(status, "cgroup_mount"));
	print_programs(cli, status);
	print_not_enforced(status);
	print_policy(cli, status);
	print_identities(status);
	print_ending(cli, status);
	print_svids(cli, status);
	print_devices(cli, status);
	print_bundles(cli, status);
	print_events(cli, status);
	print_maps(cli, status);
	print_roles(status);
	line("pins", "%s", cli_json_string(status, "pins"));
	print_audit(cli, status);
	line("metrics", "%s", cli_json_string(status, "metrics"));
	json_decref(status);
	return code;
}

const struct cli_command cmd_status = {
	.name = "status",
	.summary = "Says whether enforcement is in place, and how the daemon is",
	.usage = "",
	.help = "The first word is `ok`, `NOT ENFORCING`, or, where it enforces and the audit log cannot be written, "
		"`NOT "
		"LOGGING`.\n\n"
		"Exit codes: 0 ok; 1 not enforcing, or not logging; 3 the daemon is not reachable or failed. Pinned "
		"programs go\n"
		"on enforcing while the daemon is away; then the answer is 3.\n",
	.run = run,
};
