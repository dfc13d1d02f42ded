/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/audit_event.h"
#include "cli/audit_lines.h"
#include "cli/bus.h"
#include "cli/cli.h"
#include "cli/diagnostics.h"
#include "cli/policy_files.h"
#include "cli/when.h"
#include "daemon/cleanup.h"
#include "policy/learn.h"
#include "policy/memory.h"
#include "policy/verify.h"

#define MAX_PATHS 64

struct arguments {
	char *logs[MAX_PATHS];
	size_t n_logs;
	char *against[MAX_PATHS];
	size_t n_against;
	bool denied;
	bool wildcards;
	int64_t since;
	int64_t until;
};

struct learning {
	const struct arguments *arguments;
	struct policy_source *sources; /* of --against */
	size_t n_sources;
	struct policy *against;
	struct learn *learn;
	uint64_t events; /* of flows that were learned from */
	uint64_t unreadable;
	char why[512];	/* the first of them that was an event */
	char *failures; /* of the policy's own tests, with what was learned; "" */
};

static void learning_free(struct learning *learning)
{
	learn_freep(&learning->learn);
	policy_freep(&learning->against);
	policy_files_free(learning->sources, learning->n_sources);
	free(learning->failures);
}

/* ---- arguments ---- */

static int take_path(char **paths, size_t *np, char *path)
{
	if (*np == MAX_PATHS)
		return cli_usage_error(&cmd_learn, "at most %d files of a kind", MAX_PATHS);
	paths[(*np)++] = path;
	return CLI_OK;
}

static int take_time(const char *option, const char *text, int64_t *timep)
{
	const char *problem = cli_parse_when(text, time(NULL), timep);

	return problem ? cli_usage_error(&cmd_learn, "%s %s: %s", option, text, problem) : CLI_OK;
}

static int parse_arguments(struct arguments *arguments, int argc, char **argv)
{
	int code = CLI_OK;

	for (int i = 1; i < argc && code == CLI_OK; i++) {
		char *option = argv[i];

		if (option[0] != '-' || !option[1]) {
			code = take_path(arguments->logs, &arguments->n_logs, option);
			continue;
		}
		if (strcmp(option, "--denied") == 0 || strcmp(option, "--wildcards") == 0) {
			*(option[2] == 'd' ? &arguments->denied : &arguments->wildcards) = true;
			continue;
		}
		if (strcmp(option, "--against") != 0 && strcmp(option, "--since") != 0 &&
		    strcmp(option, "--until") != 0)
			return cli_usage_error(&cmd_learn, "unknown option %s", option);
		if (++i >= argc)
			return cli_usage_error(&cmd_learn, "%s needs a value", option);
		if (strcmp(option, "--against") == 0)
			code = take_path(arguments->against, &arguments->n_against, argv[i]);
		else
			code = take_time(option, argv[i], option[2] == 's' ? &arguments->since : &arguments->until);
	}
	if (code == CLI_OK && !arguments->n_logs)
		return cli_usage_error(&cmd_learn, "name the audit log, or - for standard input");
	return code;
}

/* ---- events ---- */

/* What a policy decided, or would. */
static bool is_wanted(const struct arguments *arguments, const json_t *event)
{
	static const char *const denials[] = {"DEFAULT_DENY", "IMPOSSIBLE", "NO_IDENTITY"};
	const char *action = cli_json_string(event, "event.action"), *code = cli_json_string(event, "event.code");

	if (strcmp(action, "flow-allowed") == 0 || strcmp(action, "flow-would-deny") == 0)
		return true;
	for (size_t i = 0; arguments->denied && i < sizeof(denials) / sizeof(denials[0]); i++)
		if (strcmp(code, denials[i]) == 0)
			return strcmp(action, "flow-denied") == 0;
	return false;
}

/* Does it say who an end is? What does not is not guessed at. */
static bool has_identity(const json_t *event, const char *side)
{
	static const char *const keys[] = {"spiffe_id", "local", "kind"};
	char path[64];

	for (size_t i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "zt.%s.%s", side, keys[i]);
		if (*cli_json_string(event, path))
			return true;
	}
	return false;
}

static enum learn_doubt doubt_about(const json_t *event)
{
	static const char *const false_proofs[] = {"forged", "replayed", "malformed", "stripped"};
	const char *proof = cli_json_string(event, "zt.proof");

	for (size_t i = 0; i < sizeof(false_proofs) / sizeof(false_proofs[0]); i++)
		if (strcmp(proof, false_proofs[i]) == 0)
			return LEARN_FORGED;
	if (strcmp(cli_json_string(event, "zt.source.kind"), "unknown") == 0 ||
	    strcmp(cli_json_string(event, "zt.destination.kind"), "unknown") == 0)
		return LEARN_UNASKED;
	return LEARN_NO_DOUBT;
}

static bool event_time(const json_t *event, const char *path, int64_t *secondsp)
{
	return cli_parse_timestamp(cli_json_string(event, path), secondsp);
}

static int unreadable(struct learning *learning, const char *why)
{
	if (!learning->unreadable++)
		snprintf(learning->why, sizeof(learning->why), "%s", why);
	return CLI_OK;
}

static int out_of_memory(void)
{
	cli_error("out of memory");
	return CLI_UNREACHABLE;
}

/* `flow` has the times. */
static int learn_from_flow(struct learning *learning, const json_t *event, struct learn_flow flow)
{
	__attribute__((cleanup(freep))) char *error = NULL;
	char from[AUDIT_TEXT_MAX], to[AUDIT_TEXT_MAX], service[64];
	const char *cgroup = cli_json_string(event, "zt.cgroup.path");
	int r;

	if (!has_identity(event, "source") || !has_identity(event, "destination"))
		return unreadable(learning, "an event does not say who its ends are");
	audit_event_explain_end(event, AUDIT_SOURCE, from, sizeof(from));
	audit_event_explain_end(event, AUDIT_DESTINATION, to, sizeof(to));
	audit_event_service(event, service, sizeof(service));
	flow.from = from;
	flow.to = to;
	flow.service = service;
	flow.doubt = doubt_about(event);
	flow.cgroup = *cgroup ? cgroup : NULL;
	flow.ingress = strcmp(cli_json_string(event, "network.direction"), "ingress") == 0;
	flow.count = (uint64_t)audit_event_count(event);
	r = learn_add(learning->learn, &flow, &error);
	if (r < 0)
		return out_of_memory();
	if (r == 1 && learn_full(learning->learn)) {
		cli_error("%s: learn from less at a time, with --since and --until", error ? error : "too many flows");
		return CLI_NO;
	}
	if (r == 1)
		return unreadable(learning, error ? error : "out of memory");
	learning->events++;
	return CLI_OK;
}

static int learn_from_event(void *context, const json_t *event)
{
	struct learning *learning = context;
	const char *name = cli_json_string(event, "zt.identity.local"), *action;
	struct learn_flow flow = {};

	action = cli_json_string(event, "event.action");
	if (strcmp(action, "identity-local") == 0 && *name && *cli_json_string(event, "zt.cgroup.path"))
		return learn_place(learning->learn, name, cli_json_string(event, "zt.cgroup.path")) < 0
			       ? out_of_memory()
			       : CLI_OK;
	if (!is_wanted(learning->arguments, event))
		return CLI_OK;
	if (!event_time(event, "@timestamp", &flow.last))
		return unreadable(learning, "an event has no time");
	if (!event_time(event, "event.start", &flow.first))
		flow.first = flow.last;
	if (flow.last < learning->arguments->since || flow.first > learning->arguments->until)
		return CLI_OK;
	return learn_from_flow(learning, event, flow);
}

/* ---- the result ---- */

static json_t *rules_json(const struct learn *learn)
{
	const struct learn_rule *rule;
	json_t *list = json_array();
	char first[32], last[32];

	for (size_t i = 0; (rule = learn_rule_get(learn, i)); i++) {
		cli_format_time((uint64_t)rule->first, first, sizeof(first));
		cli_format_time((uint64_t)rule->last, last, sizeof(last));
		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:I, s:s, s:s}", "name", rule->name, "from",
						      rule->from, "to", rule->to, "service", rule->service, "count",
						      (json_int_t)rule->count, "first", first, "last", last));
	}
	return list;
}

static json_t *notes_json(const struct learn *learn)
{
	const struct learn_note *note;
	json_t *list = json_array();
	char first[32], last[32];

	for (size_t i = 0; (note = learn_note_get(learn, i)); i++) {
		cli_format_time((uint64_t)note->first, first, sizeof(first));
		cli_format_time((uint64_t)note->last, last, sizeof(last));
		json_array_append_new(list, json_pack("{s:s, s:I, s:s, s:s}", "reason", note->text, "count",
						      (json_int_t)note->count, "first", first, "last", last));
	}
	return list;
}

/* Do the policy's own tests and invariants hold with what was learned? */
static int check_tests(struct learning *learning, const struct policy *policy)
{
	size_t size;
	FILE *out = open_memstream(&learning->failures, &size);
	int r;

	if (!out)
		return out_of_memory();
	r = policy_verify(policy, time(NULL), out);
	return fclose(out) != 0 || r < 0 ? out_of_memory() : CLI_OK;
}

/* A policy that would be refused is none: better to say so here than when it is applied. */
static int check(struct cli *cli, struct learning *learning, const char *text, size_t len)
{
	__attribute__((cleanup(policy_diagnostics_freep))) struct policy_diagnostics *diagnostics = NULL;
	__attribute__((cleanup(policy_freep))) struct policy *policy = NULL;
	__attribute__((cleanup(freep))) struct policy_source *sources =
		calloc(learning->n_sources + 1, sizeof(*sources));
	int r;

	if (!sources)
		return out_of_memory();
	if (learning->n_sources)
		memcpy(sources, learning->sources, learning->n_sources * sizeof(*sources));
	sources[learning->n_sources] = (struct policy_source){"learned", text, len};
	r = policy_parse(&policy, &diagnostics, sources, learning->n_sources + 1);
	if (r == 0)
		return check_tests(learning, policy);
	if (r < 0)
		return out_of_memory();
	policy_diagnostics_print(diagnostics, stderr, cli->colour_err);
	cli_error("what was learned is not a valid policy; nothing is written");
	return CLI_NO;
}

static void print_summary(const struct learning *learning)
{
	const struct learn_summary *summary = learn_summary(learning->learn);
	size_t rules = 0, notes = 0;

	while (learn_rule_get(learning->learn, rules))
		rules++;
	while (learn_note_get(learning->learn, notes))
		notes++;
	fprintf(stderr, "%" PRIu64 " event%s, %zu different flow%s", learning->events, learning->events == 1 ? "" : "s",
		summary->n_flows, summary->n_flows == 1 ? "" : "s");
	if (learning->against)
		fprintf(stderr, ", %zu missing from the policy", summary->n_missing);
	fprintf(stderr, ": %zu rule%s for %zu flow%s\n", rules, rules == 1 ? "" : "s", summary->n_learned,
		summary->n_learned == 1 ? "" : "s");
	if (notes)
		fprintf(stderr, "not everything could be learned: see %s \"Not learned\"\n",
			notes == 1 ? "the comment" : "the comments");
	if (learning->unreadable)
		fprintf(stderr, "%" PRIu64 " line%s could not be read%s%s\n", learning->unreadable,
			learning->unreadable == 1 ? "" : "s", *learning->why ? ", the first because " : "",
			learning->why);
}

static void print_result(const struct learning *learning, const char *text)
{
	const struct learn_summary *summary = learn_summary(learning->learn);

	if (learning->against && !summary->n_missing && !learn_note_get(learning->learn, 0))
		printf("# Nothing is missing: the policy allows all that was recorded (%zu different flow%s).\n",
		       summary->n_flows, summary->n_flows == 1 ? "" : "s");
	else
		fputs(text, stdout);
	print_summary(learning);
}

static int write_result(struct cli *cli, struct learning *learning)
{
	const struct learn_summary *summary = learn_summary(learning->learn);
	const char *origin = learning->arguments->logs[0];
	__attribute__((cleanup(freep))) char *text = NULL;
	char several[32];
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	int code;

	if (!out)
		return out_of_memory();
	snprintf(several, sizeof(several), "%zu files", learning->arguments->n_logs);
	learn_write(learning->learn, learning->arguments->n_logs > 1 ? several : origin, out);
	if (fclose(out) != 0)
		return out_of_memory();
	code = check(cli, learning, text, len);
	if (code != CLI_OK)
		return code;
	code = *learning->failures ? CLI_NO : CLI_OK;
	if (!cli->json) {
		print_result(learning, text);
		if (*learning->failures)
			fprintf(stderr,
				"%sthe policy forbids what was recorded: with these rules its own tests fail, and "
				"it would be refused\n",
				learning->failures);
		return code;
	}
	cli_print_json(json_pack("{s:s, s:s, s:o, s:o, s:I, s:I, s:I, s:I, s:I}", "policy", text, "failures",
				 learning->failures, "rules", rules_json(learning->learn), "not_learned",
				 notes_json(learning->learn), "events", (json_int_t)learning->events, "unreadable",
				 (json_int_t)learning->unreadable, "flows", (json_int_t)summary->n_flows, "missing",
				 (json_int_t)summary->n_missing, "learned", (json_int_t)summary->n_learned));
	return code;
}

/* ---- the command ---- */

static int load_against(struct cli *cli, struct learning *learning)
{
	__attribute__((cleanup(policy_diagnostics_freep))) struct policy_diagnostics *diagnostics = NULL;
	const struct arguments *arguments = learning->arguments;
	int r;

	if (!arguments->n_against)
		return CLI_OK;
	r = policy_files_load(&learning->sources, &learning->n_sources, (char *const *)arguments->against,
			      arguments->n_against);
	if (r != CLI_OK)
		return r;
	r = policy_parse(&learning->against, &diagnostics, learning->sources, learning->n_sources);
	if (r < 0)
		return out_of_memory();
	return r == 1 ? cli_diagnostics_fail(cli, diagnostics) : CLI_OK;
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct arguments arguments = {.since = INT64_MIN, .until = INT64_MAX};
	__attribute__((cleanup(learning_free))) struct learning learning = {.arguments = &arguments};
	struct learn_options options = {.now = time(NULL)};
	int code = parse_arguments(&arguments, argc, argv);

	if (code == CLI_OK)
		code = load_against(cli, &learning);
	if (code != CLI_OK)
		return code;
	options.against = learning.against;
	options.wildcards = arguments.wildcards;
	if (learn_new(&learning.learn, &options) < 0)
		return out_of_memory();
	for (size_t i = 0; i < arguments.n_logs && code == CLI_OK; i++)
		code = audit_lines_read(arguments.logs[i], learn_from_event, &learning, &learning.unreadable);
	if (code != CLI_OK)
		return code;
	if (learn_finish(learning.learn) < 0)
		return out_of_memory();
	if (!learning.events) {
		cli_error("no flow to learn from: allowed flows are recorded where a rule says `log: new`, denied ones "
			  "are learned from with --denied");
		print_summary(&learning);
		return CLI_NO;
	}
	return write_result(cli, &learning);
}

const struct cli_command cmd_learn = {
	.name = "learn",
	.summary = "Writes the smallest policy that allows the recorded flows",
	.usage = "AUDIT.jsonl... [--against PATH] [--denied] [--wildcards] [--since TIME] [--until TIME]",
	.help = "Reads audit logs (- is standard input) and prints a policy that allows what was allowed, and what a "
		"rule in\n"
		"audit mode would have denied; each rule says how often it was seen, first and last. No recorded peer "
		"is\n"
		"allowed what it was not seen to do.\n"
		"\n"
		"  --against PATH  only what this policy (file or directory; may be repeated) does not allow, in its "
		"names\n"
		"  --denied        also what was denied by default, or for want of an identity\n"
		"  --wildcards     IDs that differ in one path segment become a pattern with `*`, which stands for "
		"more than\n"
		"                  was recorded\n"
		"  --since TIME, --until TIME\n"
		"                  2026-11-21T08:00:00Z, or 90s, 30min, 12h, 7d ago\n"
		"\n"
		"Exit codes: 0 done, also if nothing is missing; 1 nothing to learn from, or a policy is not valid, or "
		"its "
		"tests\n"
		"forbid what was recorded; 2 usage.\n"
		"\n"
		"Example: policyctl learn /var/log/bulkhead/audit.jsonl --against /etc/bulkhead/policy.d --since 7d\n",
	.run = run,
};
