/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/diagnostics.h"
#include "cli/policy_files.h"
#include "daemon/cleanup.h"
#include "policy/graph.h"

/* What a picture can hold and be read; and what a language that others lay out can. */
#define PICTURE_NODES 60U
#define TEXT_NODES 400U
#define MAX_PICTURE_NODES 200U
#define MAX_TEXT_NODES 2000U

struct arguments {
	char **paths;
	size_t n_paths;
	const char *format;
	struct graph_request request;
};

static int write_dot(const struct graph *graph, FILE *out)
{
	graph_write_dot(graph, out);
	return 0;
}

static int write_mermaid(const struct graph *graph, FILE *out)
{
	graph_write_mermaid(graph, out);
	return 0;
}

static const struct format {
	const char *name;
	uint32_t max_nodes;
	uint32_t limit; /* of what can be asked for */
	int (*write)(const struct graph *graph, FILE *out);
} formats[] = {
	{"dot", TEXT_NODES, MAX_TEXT_NODES, write_dot},
	{"mermaid", TEXT_NODES, MAX_TEXT_NODES, write_mermaid},
	{"html", PICTURE_NODES, MAX_PICTURE_NODES, graph_write_html},
	{"svg", PICTURE_NODES, MAX_PICTURE_NODES, graph_write_svg},
};

static const struct format *format_named(const char *name)
{
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
		if (!strcmp(formats[i].name, name))
			return &formats[i];
	return NULL;
}

static int parse_limit(struct arguments *arguments, const char *text)
{
	char *end;
	unsigned long limit = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || !limit || limit > MAX_TEXT_NODES)
		return cli_usage_error(&cmd_graph, "--limit is a number from 1 to %u, not %s", MAX_TEXT_NODES, text);
	arguments->request.max_nodes = (uint32_t)limit;
	return CLI_OK;
}

/* Takes an option with its value. */
static int take_option(struct arguments *arguments, const char *option, const char *value)
{
	if (!strcmp(option, "--format")) {
		if (!format_named(value))
			return cli_usage_error(&cmd_graph, "--format is dot, mermaid, html or svg, not %s", value);
		arguments->format = value;
	} else if (!strcmp(option, "--from")) {
		arguments->request.from = value;
	} else if (!strcmp(option, "--to")) {
		arguments->request.to = value;
	} else {
		return parse_limit(arguments, value);
	}
	return CLI_OK;
}

static int parse_arguments(struct arguments *arguments, int argc, char **argv)
{
	static const char *const options[] = {"--format", "--from", "--to", "--limit"};
	int code = CLI_OK;

	arguments->paths = argv + 1;
	for (int i = 1; i < argc && code == CLI_OK; i++) {
		bool known = false;

		for (size_t k = 0; k < sizeof(options) / sizeof(options[0]); k++)
			known = known || !strcmp(argv[i], options[k]);
		if (known && i + 1 >= argc)
			return cli_usage_error(&cmd_graph, "%s needs a value", argv[i]);
		if (known) {
			code = take_option(arguments, argv[i], argv[i + 1]);
			i++;
		} else if (!strcmp(argv[i], "--denied")) {
			arguments->request.denied = true;
		} else if (argv[i][0] == '-' && argv[i][1]) {
			return cli_usage_error(&cmd_graph, "unknown option %s", argv[i]);
		} else {
			arguments->paths[arguments->n_paths++] = argv[i];
		}
	}
	if (code == CLI_OK && !arguments->n_paths)
		return cli_usage_error(&cmd_graph, "which policy? Give a file or a directory");
	return code;
}

static void print_json(const struct graph *graph)
{
	static const char *const kinds[] = {[GRAPH_IDENTITY] = "identity",
					    [GRAPH_LOCAL] = "local",
					    [GRAPH_NETWORK] = "network",
					    [GRAPH_BOTH] = "identity-at-network",
					    [GRAPH_BUILTIN] = "built-in"};
	json_t *nodes = json_array(), *edges = json_array();

	for (uint32_t i = 0; i < graph->n_nodes; i++)
		json_array_append_new(nodes, json_pack("{s:s, s:s}", "name", graph->nodes[i].name, "kind",
						       kinds[graph->nodes[i].kind]));
	for (uint32_t i = 0; i < graph->n_edges; i++) {
		const struct graph_edge *edge = &graph->edges[i];

		json_array_append_new(edges,
				      json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "from", graph->nodes[edge->from].name,
						"to", graph->nodes[edge->to].name, "all", edge->all, "part", edge->part,
						"denied", edge->denied, "rules", edge->rules));
	}
	cli_print_json(json_pack("{s:o, s:o}", "nodes", nodes, "edges", edges));
}

/* Returns an exit code, having said why. */
static int draw(struct cli *cli, const struct arguments *arguments, const struct policy *policy)
{
	__attribute__((cleanup(graph_freep))) struct graph *graph = NULL;
	__attribute__((cleanup(freep))) char *error = NULL;
	int r = policy_graph(&graph, policy, &arguments->request, &error);

	if (r == 0 && cli->json)
		print_json(graph);
	else if (r == 0)
		r = format_named(arguments->format)->write(graph, stdout);
	if (r > 0)
		cli_error("%s", error);
	else if (r < 0)
		cli_error("the policy could not be drawn: %s", strerror(-r));
	if (r == GRAPH_NO_NAME)
		return CLI_USAGE;
	return r == 0 ? CLI_OK : r == 1 ? CLI_NO : CLI_UNREACHABLE;
}

static int run(struct cli *cli, int argc, char **argv)
{
	__attribute__((cleanup(policy_diagnostics_freep))) struct policy_diagnostics *diagnostics = NULL;
	__attribute__((cleanup(policy_freep))) struct policy *policy = NULL;
	struct arguments arguments = {.format = "dot", .request.now = time(NULL)};
	const struct format *format;
	struct policy_source *sources;
	size_t n;
	int r, code = parse_arguments(&arguments, argc, argv);

	if (code == CLI_OK)
		code = policy_files_load(&sources, &n, arguments.paths, arguments.n_paths);
	if (code != CLI_OK)
		return code;
	format = format_named(arguments.format);
	if (!arguments.request.max_nodes)
		arguments.request.max_nodes = format->max_nodes;
	if (arguments.request.max_nodes > format->limit)
		arguments.request.max_nodes = format->limit;
	arguments.request.max_edges = 8 * arguments.request.max_nodes;
	r = policy_parse(&policy, &diagnostics, sources, n);
	if (r == 1)
		cli_diagnostics_fail(cli, diagnostics);
	else if (r < 0)
		cli_error("the policy could not be read: %s", strerror(-r));
	code = r == 0 ? draw(cli, &arguments, policy) : r == 1 ? CLI_NO : CLI_UNREACHABLE;
	policy_files_free(sources, n);
	return code;
}

const struct cli_command cmd_graph = {
	.name = "graph",
	.summary = "Draws who may talk to whom",
	.usage = "[--format dot|mermaid|html|svg] [--from NAME] [--to NAME] [--denied] [--limit N] PATH...",
	.help = "Nodes are the identities, networks and built-in names that the rules speak of. An arrow is traffic "
		"that\n"
		"passes: each pair that a rule joins is judged exactly, by both ends and with all rules. Its services "
		"are\n"
		"those on which every member of one end may talk to every member of the other; behind \"part of\" "
		"(dashed\n"
		"if there are no others) stand those on which only some may.\n"
		"An arrow holds for all within its ends: what a set may do is not drawn again for its members.\n"
		"\n"
		"  --format F   dot (the default, for Graphviz), mermaid, svg, or html: one page that needs nothing "
		"else\n"
		"  --from NAME  what NAME may reach on any service, also through rules that name it only as part of a "
		"set\n"
		"  --to NAME    who may reach NAME, likewise; both: one pair\n"
		"  --denied     also what deny rules deny, dotted\n"
		"  --limit N    refuse to draw more than N names (60 for html and svg, at most 200; 400 for dot and\n"
		"               mermaid, at most 2000)\n"
		"\n"
		"Exit codes: 0 drawn, 1 the policy is not valid or too large to draw, 2 usage.\n"
		"\n"
		"Example: policyctl graph --format html /etc/bulkhead/policy.d > policy.html\n",
	.run = run,
};
