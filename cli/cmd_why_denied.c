/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/audit_event.h"
#include "cli/audit_log.h"
#include "cli/bus.h"
#include "cli/cli.h"
#include "cli/format.h"
#include "cli/why_text.h"
#include "policy/flow_space.h"

#define DEFAULT_LAST 5
#define MAX_LAST 10000U
#define MAX_CLOSEST 3

struct why {
	struct cli *cli;
	json_t *result; /* with --json */
	size_t shown;
	/* the policy in force, fetched when first needed */
	bool asked;
	struct cli_revision revision;
	struct policy *policy;
};

static void why_free(struct why *why)
{
	policy_freep(&why->policy);
	cli_revision_free(&why->revision);
	json_decref(why->result);
}

static void diagnostics_freep(struct policy_diagnostics **diagnosticsp)
{
	policy_diagnostics_freep(diagnosticsp);
}

static const struct policy *policy_in_force(struct why *why)
{
	__attribute__((cleanup(diagnostics_freep))) struct policy_diagnostics *diagnostics = NULL;

	if (why->asked)
		return why->policy;
	why->asked = true;
	if (cli_bus_show(why->cli, 0, &why->revision) == CLI_OK)
		policy_parse(&why->policy, &diagnostics, why->revision.files, why->revision.n_files);
	return why->policy;
}

/* What the policy in force says of a denial. */
struct reasons {
	char *lines[MAX_CLOSEST]; /* the rules that would nearly have allowed it, where no rule decided */
	int n;
	struct why_flow why;
	const struct why_judgement *judgement; /* of the end that denied, where a rule decided; or NULL */
};

static void reasons_free(struct reasons *reasons)
{
	for (int i = 0; i < reasons->n; i++)
		free(reasons->lines[i]);
	why_flow_free(&reasons->why);
}

/* Only where the policy in force still has the rule that denied. */
static void find_judgement(const struct policy *policy, const char *rule, const char *from, const char *to,
			   const char *service, bool ingress, struct reasons *out)
{
	const struct why_judgement *judgement = ingress ? &out->why.ingress : &out->why.egress;
	char *error = NULL;

	if (why_flow_find(&out->why, policy, from, to, service, time(NULL), &error)) {
		free(error); /* a local identity that is no longer there, or a packet that says too little */
		return;
	}
	if (judgement->judged && judgement->decision.rule != FLOW_DEFAULT &&
	    strcmp(policy->rules[judgement->decision.rule].name, rule) == 0)
		out->judgement = judgement;
}

static void find_reasons(struct why *why, const json_t *event, struct reasons *out)
{
	const char *code = cli_json_string(event, "event.code");
	const char *rule = cli_json_string(event, "rule.name");
	bool by_default = !strcmp(code, "DEFAULT_DENY") || !strcmp(code, "IMPOSSIBLE") || !strcmp(rule, "default");
	bool ingress = !strcmp(cli_json_string(event, "network.direction"), "ingress");
	bool unasked = !strcmp(cli_json_string(event, "zt.proof"), "unasked");
	char from[AUDIT_TEXT_MAX], to[AUDIT_TEXT_MAX], service[64];
	const struct policy *policy = by_default || *rule ? policy_in_force(why) : NULL;

	if (!policy)
		return;
	audit_event_explain_end(event, AUDIT_SOURCE, from, sizeof(from));
	audit_event_explain_end(event, AUDIT_DESTINATION, to, sizeof(to));
	audit_event_service(event, service, sizeof(service));
	if (!by_default) {
		find_judgement(policy, rule, from, to, service, ingress, out);
		return;
	}
	/* Refused before the peer was asked: it is not who keeps a rule from matching. */
	out->n = policy_closest(policy, from, unasked ? NULL : to, service, ingress, time(NULL), out->lines,
				MAX_CLOSEST);
	if (out->n < 0)
		out->n = 0;
}

/* The revision that judged is not the one in force, from which the suggestion comes. */
static bool judged_by_another(const struct why *why, const json_t *event, char *out, size_t size)
{
	audit_event_text(event, "rule.version", out, size);
	return *out && why->policy && strtoul(out, NULL, 10) != why->revision.revision;
}

static void print_denial(struct why *why, const json_t *event, const struct reasons *reasons)
{
	const struct cli *cli = why->cli;
	char when[64], from[AUDIT_TEXT_MAX], to[AUDIT_TEXT_MAX], reason[AUDIT_TEXT_MAX], service[64], direction[16];
	char process[64], version[32];
	bool would = !strcmp(cli_json_string(event, "event.action"), "flow-would-deny");
	json_int_t count = audit_event_count(event), pid = cli_json_int(event, "process.pid");

	audit_event_time(event, when, sizeof(when));
	audit_event_end(event, AUDIT_SOURCE, from, sizeof(from));
	audit_event_end(event, AUDIT_DESTINATION, to, sizeof(to));
	audit_event_service(event, service, sizeof(service));
	audit_event_reason(event, reason, sizeof(reason));
	audit_event_text(event, "network.direction", direction, sizeof(direction));
	audit_event_text(event, "process.name", process, sizeof(process));
	printf("%s%s%s %s%s%s %s %s", why->shown ? "\n" : "", cli_colour(cli, "bold"), when, cli_colour(cli, "red"),
	       would ? "would be denied" : "denied", cli_colour(cli, "reset"), direction, service);
	if (count > 1)
		printf(", %" JSON_INTEGER_FORMAT " times", count);
	printf("\n  from     %s\n  to       %s\n", from, to);
	if (pid || *process)
		printf("  process  %s%s%" JSON_INTEGER_FORMAT "\n", process, *process ? ", pid " : "pid ", pid);
	printf("  because  %s\n", reason);
	if (reasons->judgement)
		why_print_details(why->policy, reasons->judgement, "           ", stdout);
	for (int i = 0; i < reasons->n; i++)
		printf("  %s  %s\n", i ? "       " : "closest", reasons->lines[i]);
	if ((reasons->n || reasons->judgement) && judged_by_another(why, event, version, sizeof(version)))
		printf("           (judged by revision %s; revision %" PRIu32 " is in force now)\n", version,
		       why->revision.revision);
}

static json_t *denial_json(const struct why *why, const json_t *event, const struct reasons *reasons)
{
	char service[64], from[AUDIT_TEXT_MAX], to[AUDIT_TEXT_MAX];
	json_t *list = json_array();

	for (int i = 0; i < reasons->n; i++)
		json_array_append_new(list, json_string(reasons->lines[i]));
	audit_event_service(event, service, sizeof(service));
	audit_event_explain_end(event, AUDIT_SOURCE, from, sizeof(from));
	audit_event_explain_end(event, AUDIT_DESTINATION, to, sizeof(to));
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:s, s:s, s:I, s:s, s:s, s:o, s:o}", "time",
			 cli_json_string(event, "@timestamp"), "verdict", cli_json_string(event, "event.action"),
			 "from", from, "to", to, "service", service, "direction",
			 cli_json_string(event, "network.direction"), "rule", cli_json_string(event, "rule.name"),
			 "file", cli_json_string(event, "zt.rule.file"), "line", cli_json_int(event, "zt.rule.line"),
			 "code", cli_json_string(event, "event.code"), "reason", cli_json_string(event, "event.reason"),
			 "count", audit_event_count(event), "cgroup", cli_json_string(event, "zt.cgroup.path"),
			 "revision", cli_json_string(event, "rule.version"), "closest", list, "judgement",
			 reasons->judgement ? why_judgement_json(why->policy, reasons->judgement) : json_null());
}

static bool is_denial(void *ctx, const json_t *event)
{
	(void)ctx;
	return audit_event_is_denial(event);
}

static void show(void *ctx, const json_t *event, const char *line)
{
	__attribute__((cleanup(reasons_free))) struct reasons reasons = {0};
	struct why *why = ctx;

	(void)line;
	find_reasons(why, event, &reasons);
	if (why->result)
		json_array_append_new(why->result, denial_json(why, event, &reasons));
	else
		print_denial(why, event, &reasons);
	why->shown++;
}

static void free_path(char **pathp)
{
	free(*pathp);
}

static int run(struct cli *cli, int argc, char **argv)
{
	__attribute__((cleanup(audit_log_closep))) struct audit_log *log = NULL;
	__attribute__((cleanup(free_path))) char *path = NULL;
	__attribute__((cleanup(why_free))) struct why why = {.cli = cli};
	unsigned long last = DEFAULT_LAST;
	int code;

	if (argc != 1 && (argc != 3 || strcmp(argv[1], "--last")))
		return cli_usage_error(&cmd_why_denied, "unexpected argument %s, or its value is missing", argv[1]);
	if (argc == 3 && cli_parse_count(argv[2], MAX_LAST, &last))
		return cli_usage_error(&cmd_why_denied, "--last %s: a number from 1 to %u", argv[2], MAX_LAST);
	code = audit_log_path(cli, &path);
	if (code == CLI_OK)
		code = audit_log_open(&log, path);
	if (code != CLI_OK)
		return code;
	why.result = cli->json ? json_array() : NULL;
	code = audit_log_last(log, last, is_denial, show, &why);
	if (code != CLI_OK)
		return code;
	if (why.result) {
		cli_print_json(why.result);
		why.result = NULL;
	} else if (!why.shown) {
		printf("no denial in %s\n", path);
	}
	return CLI_OK;
}

const struct cli_command cmd_why_denied = {
	.name = "why-denied",
	.summary = "Shows the last denials: who, to whom, what, which rule, and what would allow it",
	.usage = "[--last N]",
	.help = "  --last N   how many (5)\n\n"
		"`closest` names the rules of the policy in force that come nearest to allowing it, and what keeps "
		"them\n"
		"from it. Of a denial by a rule it says what would decide without that rule.\n\n"
		"Exit codes: 0 shown; 3 the daemon is not reachable, or its log cannot be read.\n",
	.run = run,
};
