/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/audit_event.h"
#include "cli/audit_log.h"
#include "cli/bus.h"
#include "cli/cli.h"
#include "cli/format.h"

#define MAX_LAST 100000U

struct monitor {
	struct cli *cli;
	const char *identity;
	const char *verdict; /* "allow" or "deny" */
	unsigned long port;
	bool all;
};

static bool matches(void *ctx, const json_t *event)
{
	const struct monitor *m = ctx;
	bool flow = audit_event_is_flow(event);

	if (!flow && (!m->all || m->verdict || m->port))
		return false;
	if (m->identity && !audit_event_concerns(event, m->identity))
		return false;
	if (m->verdict && audit_event_is_denial(event) != !strcmp(m->verdict, "deny"))
		return false;
	return !m->port || cli_json_int(event, "destination.port") == (json_int_t)m->port ||
	       cli_json_int(event, "source.port") == (json_int_t)m->port;
}

static void print_flow(const struct monitor *m, const json_t *event)
{
	char when[64], from[AUDIT_TEXT_MAX], to[AUDIT_TEXT_MAX], reason[AUDIT_TEXT_MAX], service[64];
	const char *action = cli_json_string(event, "event.action");
	bool deny = !strcmp(action, "flow-denied"), would = !strcmp(action, "flow-would-deny");
	json_int_t count = audit_event_count(event);
	char direction[16];

	audit_event_time(event, when, sizeof(when));
	audit_event_end(event, AUDIT_SOURCE, from, sizeof(from));
	audit_event_end(event, AUDIT_DESTINATION, to, sizeof(to));
	audit_event_service(event, service, sizeof(service));
	audit_event_reason(event, reason, sizeof(reason));
	audit_event_text(event, "network.direction", direction, sizeof(direction));
	printf("%s %s%-5s%s %-7s %-9s %s -> %s: %s", when,
	       cli_colour(m->cli, deny	  ? "red"
				  : would ? "yellow"
					  : "green"),
	       deny    ? "DENY"
	       : would ? "WOULD"
		       : "allow",
	       cli_colour(m->cli, "reset"), direction, service, from, to, reason);
	if (count > 1)
		printf(" x%" JSON_INTEGER_FORMAT, count);
	putchar('\n');
}

/* Whom an event that is no flow is about: the workload's identity, who applied a policy, or whose bundle it is. */
static void event_subject(const json_t *event, char *out, size_t size)
{
	static const char *const places[] = {"zt.identity.spiffe_id", "zt.identity.local", "user.id",
					     "zt.bundle.trust_domain"};

	*out = '\0';
	for (size_t i = 0; !*out && i < sizeof(places) / sizeof(places[0]); i++)
		audit_event_text(event, places[i], out, size);
}

static void print_other(const struct monitor *m, const json_t *event)
{
	char when[64], action[64], who[2100], cgroup[1100], revision[32], reason[AUDIT_TEXT_MAX];
	bool bad = !strcmp(cli_json_string(event, "event.outcome"), "failure");

	audit_event_time(event, when, sizeof(when));
	audit_event_text(event, "event.action", action, sizeof(action));
	event_subject(event, who, sizeof(who));
	audit_event_text(event, "zt.cgroup.path", cgroup, sizeof(cgroup));
	audit_event_text(event, "rule.version", revision, sizeof(revision));
	audit_event_reason(event, reason, sizeof(reason));
	printf("%s %s%s%s", when, cli_colour(m->cli, bad ? "red" : "bold"), *action ? action : "event",
	       cli_colour(m->cli, "reset"));
	if (*revision)
		printf(" revision %s", revision);
	if (*who)
		printf(" %s%s", *revision ? "by uid " : "", who);
	if (*cgroup)
		printf(" (cgroup %s)", cgroup);
	if (*reason)
		printf(": %s", reason);
	if (audit_event_count(event) > 1)
		printf(" x%" JSON_INTEGER_FORMAT, audit_event_count(event));
	putchar('\n');
}

static void show(void *ctx, const json_t *event, const char *line)
{
	const struct monitor *m = ctx;

	if (m->cli->json)
		puts(line);
	else if (audit_event_is_flow(event))
		print_flow(m, event);
	else
		print_other(m, event);
	fflush(stdout);
	/* Whoever read us has gone. */
	if (ferror(stdout))
		exit(CLI_OK);
}

static void free_path(char **pathp)
{
	free(*pathp);
}

static int run(struct cli *cli, int argc, char **argv)
{
	__attribute__((cleanup(audit_log_closep))) struct audit_log *log = NULL;
	__attribute__((cleanup(free_path))) char *path = NULL;
	struct monitor m = {.cli = cli};
	unsigned long last = 0;
	int code;

	for (int i = 1; i < argc; i++) {
		const char *option = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (!strcmp(option, "--all")) {
			m.all = true;
			continue;
		}
		if (!strcmp(option, "--since-start")) {
			last = MAX_LAST;
			continue;
		}
		if (!value || strncmp(option, "--", 2))
			return cli_usage_error(&cmd_monitor, "unexpected argument %s, or its value is missing", option);
		i++;
		if (!strcmp(option, "--identity"))
			m.identity = value;
		else if (!strcmp(option, "--verdict") && (!strcmp(value, "allow") || !strcmp(value, "deny")))
			m.verdict = value;
		else if (!strcmp(option, "--port") && !cli_parse_count(value, 65535, &m.port))
			continue;
		else if (!strcmp(option, "--last") && (!strcmp(value, "0") || !cli_parse_count(value, MAX_LAST, &last)))
			continue;
		else
			return cli_usage_error(&cmd_monitor, "%s %s cannot be understood", option, value);
	}
	code = audit_log_path(cli, &path);
	if (code == CLI_OK)
		code = audit_log_open(&log, path);
	if (code == CLI_OK)
		code = audit_log_last(log, last, matches, show, &m);
	return code == CLI_OK ? audit_log_follow(log, matches, show, &m) : code;
}

const struct cli_command cmd_monitor = {
	.name = "monitor",
	.summary = "Follows the audit log: one line per verdict",
	.usage = "[--identity ID] [--verdict allow|deny] [--port N] [--all] [--last N | --since-start]",
	.help = "  --identity ID    only events in which this identity takes part\n"
		"  --verdict V      only `allow`, or only `deny`\n"
		"  --port N         only flows from or to this port\n"
		"  --all            also events of identities, policy and the daemon\n"
		"  --last N         first the last N events that match (0)\n"
		"  --since-start    first all that the log holds, up to 100000\n"
		"  --json           the lines of the log as they are\n\n"
		"Goes on until it is interrupted, also through a rotation of the log.\n\n"
		"Exit codes: 3 the daemon is not reachable, or its log cannot be read.\n",
	.run = run,
	.streams = true,
};
