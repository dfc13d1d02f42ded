/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/policy_files.h"
#include "policy/image.h"

#define MAX_PATHS 64
#define MAX_CLOSEST 3

struct arguments {
	char *paths[MAX_PATHS];
	size_t n_paths;
	const char *from, *to, *service;
	const char *batch;
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

static void freep(void *p)
{
	free(*(void **)p);
}

static int parse_arguments(struct arguments *arguments, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (argv[i][0] != '-') {
			if (arguments->service)
				return cli_usage_error(&cmd_explain, "one SERVICE, not also %s", argv[i]);
			arguments->service = argv[i];
			continue;
		}
		if (strcmp(argv[i], "--policy") != 0 && strcmp(argv[i], "--from") != 0 &&
		    strcmp(argv[i], "--to") != 0 && strcmp(argv[i], "--batch") != 0)
			return cli_usage_error(&cmd_explain, "unknown option %s", argv[i]);
		if (!value)
			return cli_usage_error(&cmd_explain, "%s needs a value", argv[i]);
		if (strcmp(argv[i], "--from") == 0)
			arguments->from = value;
		else if (strcmp(argv[i], "--to") == 0)
			arguments->to = value;
		else if (strcmp(argv[i], "--batch") == 0)
			arguments->batch = value;
		else if (arguments->n_paths < MAX_PATHS)
			arguments->paths[arguments->n_paths++] = argv[i + 1];
		else
			return cli_usage_error(&cmd_explain, "at most %d --policy; name a directory", MAX_PATHS);
		i++;
	}
	if (arguments->batch) {
		if (arguments->from || arguments->to || arguments->service)
			return cli_usage_error(&cmd_explain, "--batch reads the flows: no --from, --to or SERVICE");
		return CLI_OK;
	}
	if (!arguments->from || !arguments->to || !arguments->service)
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
	if (r == 1) {
		policy_diagnostics_print(diagnostics, stderr, cli->colour_err);
		return CLI_NO;
	}
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

static json_t *judgement_json(const struct policy_judgement *judgement)
{
	json_t *object;

	if (!judgement->judged)
		return json_null();
	object = json_pack("{s:s, s:s, s:s?}", "verdict", judgement->allow ? "allow" : "deny", "rule", judgement->rule,
			   "file", judgement->file);
	if (judgement->file)
		json_object_set_new(object, "line", json_integer(judgement->line));
	return object;
}

static void print_judgement(const struct cli *cli, const char *name, const struct policy_judgement *judgement)
{
	printf("  %-8s ", name);
	if (!judgement->judged) {
		printf("not judged: this end is not a managed workload\n");
		return;
	}
	printf("%s%s%s by %s", cli_colour(cli, judgement->allow ? "green" : "red"), judgement->allow ? "allow" : "deny",
	       cli_colour(cli, "reset"), strcmp(judgement->rule, "default") == 0 ? "default" : "rule ");
	if (strcmp(judgement->rule, "default") != 0)
		printf("%s", judgement->rule);
	if (judgement->file)
		printf(" (%s:%u)", judgement->file, judgement->line);
	else
		printf(" (no rule decided)");
	putchar('\n');
}

/* The rules that nearly matched, where the default denied. Returns how many, or -ENOMEM. */
static int find_closest(const struct explainer *explainer, const struct arguments *arguments,
			const struct policy_judgement *judgement, bool ingress, char *lines[MAX_CLOSEST])
{
	if (!judgement->judged || judgement->allow || strcmp(judgement->rule, "default") != 0)
		return 0;
	return policy_closest(explainer->policy, arguments->from, arguments->to, arguments->service, ingress, lines,
			      MAX_CLOSEST);
}

static void print_closest(const char *title, char *const *lines, int n)
{
	if (n > 0)
		printf("%s\n", title);
	for (int i = 0; i < n; i++)
		printf("  %s\n", lines[i]);
}

static bool same_lines(char *const *a, int n, char *const *b, int m)
{
	for (int i = 0; i < n && n == m; i++)
		if (strcmp(a[i], b[i]) != 0)
			return false;
	return n == m;
}

static void print_both_closest(const struct explainer *explainer, const struct arguments *arguments,
			       const struct policy_explanation *explanation)
{
	char *egress[MAX_CLOSEST], *ingress[MAX_CLOSEST];
	int n = find_closest(explainer, arguments, &explanation->egress, false, egress);
	int m = find_closest(explainer, arguments, &explanation->ingress, true, ingress);

	if (same_lines(egress, n, ingress, m)) {
		print_closest("closest rules:", egress, n);
	} else {
		print_closest("closest rules for egress:", egress, n);
		print_closest("closest rules for ingress:", ingress, m);
	}
	while (n > 0)
		free(egress[--n]);
	while (m > 0)
		free(ingress[--m]);
}

static json_t *closest_json(const struct explainer *explainer, const struct arguments *arguments,
			    const struct policy_judgement *judgement, bool ingress)
{
	char *lines[MAX_CLOSEST];
	int n = find_closest(explainer, arguments, judgement, ingress, lines);
	json_t *list = json_array();

	for (int i = 0; i < n; i++) {
		json_array_append_new(list, json_string(lines[i]));
		free(lines[i]);
	}
	return list;
}

static int explain_one(struct cli *cli, const struct explainer *explainer, const struct arguments *arguments)
{
	__attribute__((cleanup(freep))) char *error = NULL;
	struct policy_explanation explanation;

	if (policy_explain(explainer->image, arguments->from, arguments->to, arguments->service, time(NULL),
			   &explanation, &error)) {
		cli_error("%s", error ? error : "out of memory");
		return CLI_USAGE;
	}
	if (cli->json) {
		cli_print_json(json_pack(
			"{s:s, s:s, s:s, s:s, s:o, s:o, s:{s:o, s:o}}", "verdict", explanation.allow ? "allow" : "deny",
			"from", arguments->from, "to", arguments->to, "service", arguments->service, "egress",
			judgement_json(&explanation.egress), "ingress", judgement_json(&explanation.ingress), "closest",
			"egress", closest_json(explainer, arguments, &explanation.egress, false), "ingress",
			closest_json(explainer, arguments, &explanation.ingress, true)));
		return explanation.allow ? CLI_OK : CLI_NO;
	}
	printf("%s%s%s: %s -> %s %s\n", cli_colour(cli, explanation.allow ? "green" : "red"),
	       explanation.allow ? "allow" : "deny", cli_colour(cli, "reset"), arguments->from, arguments->to,
	       arguments->service);
	print_judgement(cli, "egress", &explanation.egress);
	print_judgement(cli, "ingress", &explanation.ingress);
	print_both_closest(explainer, arguments, &explanation);
	return explanation.allow ? CLI_OK : CLI_NO;
}

/* ---- many flows ---- */

static int batch_error(size_t number, const char *text)
{
	/* What was answered so far stands before the message also where both go to one file. */
	fflush(stdout);
	cli_error("line %zu: %s", number, text);
	return CLI_USAGE;
}

static int explain_line(const struct policy_image *image, char *line, size_t number)
{
	__attribute__((cleanup(freep))) char *error = NULL;
	struct policy_explanation explanation;
	char *to = strchr(line, '\t'), *service = to ? strchr(to + 1, '\t') : NULL;

	if (!service || strchr(service + 1, '\t'))
		return batch_error(number, "a line is FROM<TAB>TO<TAB>SERVICE");
	*to++ = 0;
	*service++ = 0;
	if (policy_explain(image, line, to, service, time(NULL), &explanation, &error))
		return batch_error(number, error ? error : "out of memory");
	fputs_unlocked(explanation.allow ? "allow\t" : "deny\t", stdout);
	fputs_unlocked(explanation.egress.rule, stdout);
	putc_unlocked('\t', stdout);
	fputs_unlocked(explanation.ingress.rule, stdout);
	putc_unlocked('\n', stdout);
	return CLI_OK;
}

static int explain_batch(const struct explainer *explainer, const char *path)
{
	__attribute__((cleanup(freep))) char *line = NULL;
	FILE *in = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
	size_t capacity = 0, number = 0;
	int code = CLI_OK;
	ssize_t len;

	if (!in) {
		cli_error("cannot read %s: %m", path);
		return CLI_USAGE;
	}
	while (code == CLI_OK && (len = getline(&line, &capacity, in)) >= 0) {
		number++;
		if (memchr(line, 0, (size_t)len))
			code = batch_error(number, "a NUL character");
		if (len && line[len - 1] == '\n')
			line[len - 1] = 0;
		if (code == CLI_OK && line[0])
			code = explain_line(explainer->image, line, number);
	}
	if (ferror(in)) {
		cli_error("cannot read %s: %m", path);
		code = CLI_USAGE;
	}
	if (in != stdin)
		fclose(in);
	return code;
}

static int run(struct cli *cli, int argc, char **argv)
{
	__attribute__((cleanup(explainer_free))) struct explainer explainer = {};
	struct arguments arguments = {};
	int code = parse_arguments(&arguments, argc, argv);

	if (code == CLI_OK)
		code = load(cli, &explainer, &arguments);
	if (code != CLI_OK)
		return code;
	return arguments.batch ? explain_batch(&explainer, arguments.batch) : explain_one(cli, &explainer, &arguments);
}

const struct cli_command cmd_explain = {
	.name = "explain",
	.summary = "Says whether a flow is allowed, and which rules decide",
	.usage = "[--policy PATH] --from X --to Y SERVICE | [--policy PATH] --batch FILE",
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
		"  --batch FILE   reads lines FROM<TAB>TO<TAB>SERVICE (- is stdin) and writes, for each,\n"
		"                 allow|deny<TAB>egress-rule<TAB>ingress-rule; `-` where an end judges nothing\n"
		"\n"
		"Exit codes: 0 allowed (or the batch is done), 1 denied or the policy is not valid, 2 usage, 3 no "
		"daemon.\n"
		"\n"
		"Example: policyctl explain --policy shop.yaml --from spiffe://prod.example/web \\\n"
		"           --to spiffe://prod.example/db tcp/5432\n",
	.run = run,
};
