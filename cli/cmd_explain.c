/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/diagnostics.h"
#include "cli/policy_files.h"
#include "cli/when.h"
#include "cli/why_text.h"
#include "daemon/cleanup.h"
#include "policy/flow_space.h"
#include "policy/image.h"
#include "policy/instant.h"
#include "policy/why.h"

#define MAX_PATHS 64
#define MAX_CLOSEST 3
#define MAX_LINE 8192 /* of --batch: two SPIFFE IDs of the longest, with addresses, and a service */

struct arguments {
	char *paths[MAX_PATHS];
	size_t n_paths;
	const char *from, *to, *service;
	const char *batch;
	const char *when;
	int64_t at; /* seconds since 1970 */
};

struct explainer {
	struct policy_source *sources;
	size_t n_sources;
	struct policy *policy;
	struct policy_image *image;
};

static void explainer_free(struct explainer *explainer)
{
	policy_image_freep(&explainer->image);
	policy_freep(&explainer->policy);
	policy_files_free(explainer->sources, explainer->n_sources);
}

static const char **option_value(struct arguments *arguments, const char *name)
{
	const struct {
		const char *name;
		const char **value;
	} options[] = {
		{"--from", &arguments->from},
		{"--to", &arguments->to},
		{"--batch", &arguments->batch},
		{"--at", &arguments->when},
	};

	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		if (strcmp(options[i].name, name) == 0)
			return options[i].value;
	return NULL;
}

static int take_argument(struct arguments *arguments, char *name, char *value)
{
	const char **place = option_value(arguments, name);
	bool policy = strcmp(name, "--policy") == 0;

	if (!place && !policy)
		return cli_usage_error(&cmd_explain, "unknown option %s", name);
	if (!value)
		return cli_usage_error(&cmd_explain, "%s needs a value", name);
	if (place)
		*place = value;
	else if (arguments->n_paths == MAX_PATHS)
		return cli_usage_error(&cmd_explain, "at most %d --policy; name a directory", MAX_PATHS);
	else
		arguments->paths[arguments->n_paths++] = value;
	return CLI_OK;
}

static int parse_arguments(struct arguments *arguments, int argc, char **argv)
{
	const char *problem;
	int code = CLI_OK;

	for (int i = 1; i < argc && code == CLI_OK; i++) {
		if (argv[i][0] == '-') {
			code = take_argument(arguments, argv[i], i + 1 < argc ? argv[i + 1] : NULL);
			i++;
		} else if (arguments->service) {
			code = cli_usage_error(&cmd_explain, "one SERVICE, not also %s", argv[i]);
		} else {
			arguments->service = argv[i];
		}
	}
	if (code != CLI_OK)
		return code;
	problem = arguments->when ? cli_parse_when(arguments->when, arguments->at, &arguments->at) : NULL;
	if (problem)
		return cli_usage_error(&cmd_explain, "--at %s: %s", arguments->when, problem);
	if (arguments->batch && (arguments->from || arguments->to || arguments->service))
		return cli_usage_error(&cmd_explain, "--batch reads the flows: no --from, --to or SERVICE");
	if (!arguments->batch && (!arguments->from || !arguments->to || !arguments->service))
		return cli_usage_error(&cmd_explain, "a flow is --from X --to Y SERVICE");
	return CLI_OK;
}

/* Returns an exit code, having said why. */
static int load(struct cli *cli, struct explainer *explainer, const struct arguments *arguments)
{
	__attribute__((cleanup(policy_diagnostics_freep))) struct policy_diagnostics *diagnostics = NULL;
	__attribute__((cleanup(freep))) char *error = NULL;
	__attribute__((cleanup(freep))) void *bytes = NULL;
	const char *why = NULL;
	size_t len;
	int r;

	if (arguments->n_paths)
		r = policy_files_load(&explainer->sources, &explainer->n_sources, arguments->paths, arguments->n_paths);
	else
		r = cli_policy_in_force(cli, &explainer->sources, &explainer->n_sources);
	if (r != CLI_OK)
		return r;
	r = policy_parse(&explainer->policy, &diagnostics, explainer->sources, explainer->n_sources);
	if (r == 1)
		return cli_diagnostics_fail(cli, diagnostics);
	if (r == 0)
		r = policy_compile(explainer->policy, &bytes, &len, &error);
	if (r == 1) {
		cli_error("%s", error);
		return CLI_NO;
	}
	if (r == 0)
		r = policy_image_open(&explainer->image, bytes, len, &why);
	if (r < 0) {
		cli_error("the policy could not be compiled: %s", why ? why : strerror(-r));
		return CLI_UNREACHABLE;
	}
	return CLI_OK;
}

/* ---- one flow ---- */

#define INDENT "           "

static void print_judgement(const struct cli *cli, const struct policy *policy, const char *name,
			    const struct why_judgement *judgement)
{
	const struct flow_decision *decision = &judgement->decision;

	printf("  %-8s ", name);
	if (!judgement->judged) {
		printf("not judged: this end is not a managed workload\n");
		return;
	}
	printf("%s%s%s by %s", cli_colour(cli, decision->allow ? "green" : "red"), decision->allow ? "allow" : "deny",
	       cli_colour(cli, "reset"), decision->rule == FLOW_DEFAULT ? "" : "rule ");
	why_write_rule(policy, decision->rule, stdout);
	puts(decision->rule == FLOW_DEFAULT && !policy->has_defaults ? " (no rule decided)" : "");
	why_print_details(policy, judgement, INDENT, stdout);
}

struct closest {
	char *lines[MAX_CLOSEST];
	int n;
};

static void closest_free(struct closest *closest)
{
	for (int i = 0; i < closest->n; i++)
		free(closest->lines[i]);
}

/* The rules that nearly matched, where the default denied. */
static void find_closest(const struct explainer *explainer, const struct arguments *arguments,
			 const struct why_judgement *judgement, bool ingress, struct closest *closest)
{
	if (!judgement->judged || judgement->decision.allow || judgement->decision.rule != FLOW_DEFAULT)
		return;
	closest->n = policy_closest(explainer->policy, arguments->from, arguments->to, arguments->service, ingress,
				    arguments->at, closest->lines, MAX_CLOSEST);
	if (closest->n < 0) /* only a help is missing */
		closest->n = 0;
}

static void print_closest(const char *title, const struct closest *closest)
{
	if (closest->n > 0)
		printf("%s\n", title);
	for (int i = 0; i < closest->n; i++)
		printf("  %s\n", closest->lines[i]);
}

static bool same_lines(const struct closest *a, const struct closest *b)
{
	for (int i = 0; i < a->n && a->n == b->n; i++)
		if (strcmp(a->lines[i], b->lines[i]) != 0)
			return false;
	return a->n == b->n;
}

static void print_explanation(const struct cli *cli, const struct explainer *explainer,
			      const struct arguments *arguments, bool allow, const struct why_flow *why,
			      const struct closest closest[2])
{
	printf("%s%s%s: %s -> %s %s\n", cli_colour(cli, allow ? "green" : "red"), allow ? "allow" : "deny",
	       cli_colour(cli, "reset"), arguments->from, arguments->to, arguments->service);
	print_judgement(cli, explainer->policy, "egress", &why->egress);
	print_judgement(cli, explainer->policy, "ingress", &why->ingress);
	if (same_lines(&closest[0], &closest[1])) {
		print_closest("closest rules:", &closest[0]);
		return;
	}
	print_closest("closest rules for egress:", &closest[0]);
	print_closest("closest rules for ingress:", &closest[1]);
}

static json_t *closest_json(const struct closest *closest)
{
	json_t *list = json_array();

	for (int i = 0; i < closest->n; i++)
		json_array_append_new(list, json_string(closest->lines[i]));
	return list;
}

static json_t *explanation_json(const struct explainer *explainer, const struct arguments *arguments, bool allow,
				const struct why_flow *why, const struct closest closest[2])
{
	char at[INSTANT_TEXT_BYTES];

	instant_format(at, arguments->at);
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:{s:o, s:o}}", "verdict", allow ? "allow" : "deny",
			 "from", arguments->from, "to", arguments->to, "service", arguments->service, "at", at,
			 "egress", why_judgement_json(explainer->policy, &why->egress), "ingress",
			 why_judgement_json(explainer->policy, &why->ingress), "closest", "egress",
			 closest_json(&closest[0]), "ingress", closest_json(&closest[1]));
}

/* The tables are what the kernel asks; the reasons come from the rules. They say the same, or nothing is said. */
static bool agree(const struct policy *policy, const struct policy_judgement *tables,
		  const struct why_judgement *reasons)
{
	const char *rule;

	if (tables->judged != reasons->judged)
		return false;
	if (!tables->judged)
		return true;
	rule = reasons->decision.rule == FLOW_DEFAULT ? "default" : policy->rules[reasons->decision.rule].name;
	return tables->allow == reasons->decision.allow && tables->audit == reasons->decision.audit &&
	       strcmp(tables->rule, rule) == 0;
}

/* Whether the message says of this name that it is no end. */
static bool is_about(const char *error, const char *name)
{
	size_t len = strlen(name);

	return error[0] == '\'' && !strncmp(error + 1, name, len) && !strncmp(error + 1 + len, "' is no SPIFFE ID", 17);
}

/* Who writes a name of the policy for an end means one of many. */
static void hint_at_name(const struct policy *policy, const char *error)
{
	for (uint32_t i = 0; i < policy->n_identities; i++) {
		const struct identity *identity = &policy->identities[i];

		if (!identity->unnamed && is_about(error, identity->name))
			fprintf(stderr, "  hint: '%s' is the identity at %s:%u; write one of its SPIFFE IDs\n",
				identity->name, policy->source_names[identity->at.source], identity->at.line);
	}
	for (uint32_t i = 0; i < policy->n_networks; i++) {
		const struct network *network = &policy->networks[i];

		if (is_about(error, network->name))
			fprintf(stderr, "  hint: '%s' is the network at %s:%u; write one of its addresses\n",
				network->name, policy->source_names[network->at.source], network->at.line);
	}
}

static int explain_one(struct cli *cli, const struct explainer *explainer, const struct arguments *arguments)
{
	__attribute__((cleanup(closest_free))) struct closest egress = {}, ingress = {};
	__attribute__((cleanup(why_flow_free))) struct why_flow why = {};
	__attribute__((cleanup(freep))) char *error = NULL;
	struct policy_explanation explanation;
	struct closest both[2];

	if (policy_explain(explainer->image, arguments->from, arguments->to, arguments->service, arguments->at,
			   &explanation, &error) ||
	    why_flow_find(&why, explainer->policy, arguments->from, arguments->to, arguments->service, arguments->at,
			  &error)) {
		cli_error("%s", error ? error : "out of memory");
		if (error)
			hint_at_name(explainer->policy, error);
		return CLI_USAGE;
	}
	if (!agree(explainer->policy, &explanation.egress, &why.egress) ||
	    !agree(explainer->policy, &explanation.ingress, &why.ingress)) {
		cli_error("the compiled tables and the rules do not say the same of this flow; please report this as a "
			  "fault of policyctl, with the policy");
		return CLI_UNREACHABLE;
	}
	find_closest(explainer, arguments, &why.egress, false, &egress);
	find_closest(explainer, arguments, &why.ingress, true, &ingress);
	both[0] = egress;
	both[1] = ingress;
	if (cli->json)
		cli_print_json(explanation_json(explainer, arguments, explanation.allow, &why, both));
	else
		print_explanation(cli, explainer, arguments, explanation.allow, &why, both);
	return explanation.allow ? CLI_OK : CLI_NO;
}

/* ---- many flows ---- */

struct batch {
	const struct policy_image *image;
	int64_t at;
	size_t number; /* of the line */
	bool json;     /* one list, an element for each line */
	size_t n_elements;
};

/* Consumes the reference. */
static void print_element(struct batch *batch, json_t *element)
{
	fputs(batch->n_elements++ ? ",\n  " : "[\n  ", stdout);
	json_dumpf(element, stdout, 0);
	json_decref(element);
}

static int batch_error(struct batch *batch, const char *text)
{
	char *message;

	/* What was answered so far stands before the message also where both go to one file. */
	fflush(stdout);
	cli_error("line %zu: %s", batch->number, text);
	if (batch->json && asprintf(&message, "line %zu: %s", batch->number, text) >= 0) {
		print_element(batch, json_pack("{s:b, s:s}", "ok", 0, "error", message));
		free(message);
	}
	return CLI_USAGE;
}

static void print_answer(struct batch *batch, const struct policy_explanation *explanation)
{
	const char *verdict = explanation->allow ? "allow" : "deny";

	if (batch->json) {
		print_element(batch, json_pack("{s:s, s:s, s:s}", "verdict", verdict, "egress",
					       explanation->egress.rule, "ingress", explanation->ingress.rule));
		return;
	}
	fputs_unlocked(verdict, stdout);
	putc_unlocked('\t', stdout);
	fputs_unlocked(explanation->egress.rule, stdout);
	putc_unlocked('\t', stdout);
	fputs_unlocked(explanation->ingress.rule, stdout);
	putc_unlocked('\n', stdout);
}

static int explain_line(struct batch *batch, char *line)
{
	__attribute__((cleanup(freep))) char *error = NULL;
	struct policy_explanation explanation;
	char *to = strchr(line, '\t'), *service = to ? strchr(to + 1, '\t') : NULL;

	if (!service || strchr(service + 1, '\t'))
		return batch_error(batch, "a line is FROM<TAB>TO<TAB>SERVICE");
	*to++ = 0;
	*service++ = 0;
	if (policy_explain(batch->image, line, to, service, batch->at, &explanation, &error))
		return batch_error(batch, error ? error : "out of memory");
	print_answer(batch, &explanation);
	return CLI_OK;
}

/* Returns the length of the next line, without its end; -1 at the end of the file, MAX_LINE if it is too long. */
static ssize_t read_line(FILE *in, char line[MAX_LINE])
{
	size_t len = 0;
	int c;

	while ((c = getc_unlocked(in)) != EOF && c != '\n' && len < MAX_LINE)
		line[len++] = (char)c;
	if (len < MAX_LINE)
		line[len] = 0;
	return c == EOF && !len ? -1 : (ssize_t)len;
}

static int explain_lines(struct batch *batch, FILE *in, const char *name)
{
	char line[MAX_LINE];
	int code = CLI_OK;
	ssize_t len;

	while (code == CLI_OK && (len = read_line(in, line)) >= 0) {
		batch->number++;
		if (len == MAX_LINE)
			code = batch_error(batch, "it is too long");
		else if (memchr(line, 0, (size_t)len))
			code = batch_error(batch, "a NUL character");
		else if (len)
			code = explain_line(batch, line);
	}
	if (!ferror(in))
		return code;
	cli_error("cannot read %s: %m", name);
	return CLI_USAGE;
}

static int explain_batch(const struct cli *cli, const struct explainer *explainer, const char *path, int64_t at)
{
	struct batch batch = {.image = explainer->image, .at = at, .json = cli->json};
	bool standard = strcmp(path, "-") == 0;
	FILE *in = standard ? stdin : fopen(path, "re");
	int code;

	if (!in) {
		cli_error("cannot open %s: %m", path);
		return CLI_USAGE;
	}
	code = explain_lines(&batch, in, standard ? "standard input" : path);
	if (!standard)
		fclose(in);
	/* A failure that is no line's is the whole result. */
	if (batch.json && (code == CLI_OK || batch.n_elements)) {
		fputs(batch.n_elements ? "\n]\n" : "[]\n", stdout);
		cli_has_result();
	}
	return code;
}

static int run(struct cli *cli, int argc, char **argv)
{
	__attribute__((cleanup(explainer_free))) struct explainer explainer = {};
	struct arguments arguments = {.at = time(NULL)};
	int code = parse_arguments(&arguments, argc, argv);

	if (code == CLI_OK)
		code = load(cli, &explainer, &arguments);
	if (code != CLI_OK)
		return code;
	return arguments.batch ? explain_batch(cli, &explainer, arguments.batch, arguments.at)
			       : explain_one(cli, &explainer, &arguments);
}

const struct cli_command cmd_explain = {
	.name = "explain",
	.summary = "Says whether a flow is allowed, and which rules decide",
	.usage = "[--policy PATH] [--at TIME] --from X --to Y SERVICE | [--policy PATH] [--at TIME] --batch FILE",
	.help = "Judges a flow with the compiled policy, by the function that the kernel runs: egress at the source "
		"and\n"
		"ingress at the destination. A flow passes if both allow it; an end outside any workload judges "
		"nothing.\n"
		"\n"
		"  --policy PATH  file or directory; may be repeated. Default: the policy in force, from the daemon\n"
		"  --from, --to   SPIFFE ID, local identity of the policy, unidentified, host, world, or an address; "
		"any but\n"
		"                 the last also as X@ADDRESS\n"
		"  SERVICE        tcp/443, udp/53, icmp/echo-request\n"
		"  --at TIME      at this time instead of now: 2027-01-01T00:00:00Z (rules have an end, `until`)\n"
		"  --batch FILE   reads lines FROM<TAB>TO<TAB>SERVICE (- is stdin) and writes, for each,\n"
		"                 allow|deny<TAB>egress-rule<TAB>ingress-rule; `-` where an end judges nothing;\n"
		"                 with --json a list of objects with verdict, egress and ingress\n"
		"\n"
		"Exit codes: 0 allowed (or the batch is done), 1 denied or the policy is not valid, 2 usage, 3 no "
		"daemon.\n"
		"\n"
		"Example: policyctl explain --policy shop.yaml --from spiffe://prod.example/web \\\n"
		"           --to spiffe://prod.example/db tcp/5432\n",
	.run = run,
};
