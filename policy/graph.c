/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/graph_internal.h"
#include "policy/suggestion.h"
#include "policy/text.h"

#define MAX_ABOUT 8U
#define MAX_CANDIDATES 2000U
#define MAX_JOINED (4U << 20)

static void freep(void *p)
{
	free(*(void **)p);
}

__attribute__((format(printf, 2, 3))) static int fail(struct drawing *drawing, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (vasprintf(drawing->errorp, format, args) < 0)
		*drawing->errorp = NULL;
	va_end(args);
	return *drawing->errorp ? 1 : -ENOMEM;
}

/* ---- nodes and pairs ---- */

/* With a name asked for, what it has nothing to do with is dropped in the end: only then the limits hold. */
static bool is_asked(const struct drawing *drawing)
{
	return drawing->request->from || drawing->request->to;
}

static int too_many(struct drawing *drawing, uint32_t limit, const char *what)
{
	return fail(drawing,
		    "there are more than %u %s to draw: draw a part, with --from NAME or --to NAME, or allow more "
		    "with --limit",
		    limit, what);
}

static int add_node(struct drawing *drawing, struct node_key key, uint32_t *numberp)
{
	uint32_t limit = is_asked(drawing) ? MAX_CANDIDATES : drawing->request->max_nodes;
	int r = intern_bytes(&drawing->nodes, &key, sizeof(key), numberp);

	if (r < 0)
		return r;
	return drawing->nodes.n > limit ? too_many(drawing, limit, "names") : 0;
}

/* `rule`: by which they are joined, FLOW_DEFAULT, or FLOW_UNJUDGED for a pair that was asked for. */
static int add_pair(struct drawing *drawing, uint32_t from, uint32_t to, uint32_t rule)
{
	struct pair_key key = {from, to};
	uint32_t number;
	int r = array_grow(&drawing->joining, &drawing->joining_capacity, drawing->pairs.n, sizeof(struct list));

	if (r == 0)
		r = intern_bytes(&drawing->pairs, &key, sizeof(key), &number);
	if (r < 0)
		return r;
	if (r == 1)
		drawing->joining[number] = (struct list){};
	if (rule != FLOW_UNJUDGED && list_push(&drawing->joining[number], rule) < 0)
		return -ENOMEM;
	if (drawing->n_joined++ == MAX_JOINED)
		return fail(drawing,
			    "the rules join names more than %u times, each name in each list counted: draw a part, "
			    "with --from NAME or --to NAME",
			    MAX_JOINED);
	if (!is_asked(drawing) && drawing->pairs.n > drawing->request->max_edges)
		return too_many(drawing, drawing->request->max_edges, "pairs of names");
	return 0;
}

/* The nodes of a selector: each identity and each network it names, or each identity at each network. */
static int selector_nodes(struct drawing *drawing, const struct selector *selector, struct list *nodes)
{
	uint32_t number;
	int r = 0;

	for (uint32_t i = 0; i < selector->n_terms; i++) {
		const struct selector_term *term = &selector->terms[i];

		for (uint32_t j = 0; j < (term->n_who ? term->n_who : 1); j++)
			for (uint32_t k = 0; k < (term->n_networks ? term->n_networks : 1); k++) {
				struct node_key key = {term->n_who ? term->who[j] + 1 : 0,
						       term->n_networks ? term->networks[k] + 1 : 0};

				r = add_node(drawing, key, &number);
				if (r == 0)
					r = list_push(nodes, number);
				if (r != 0)
					return r;
			}
	}
	return 0;
}

static int join(struct drawing *drawing, const struct list *from, const struct list *to, uint32_t rule)
{
	int r = 0;

	for (size_t i = 0; i < from->n; i++)
		for (size_t j = 0; j < to->n && r == 0; j++)
			r = add_pair(drawing, from->items[i], to->items[j], rule);
	return r;
}

static bool takes_part(const struct drawing *drawing, const struct rule *rule)
{
	return !rule->until || rule->until > drawing->request->now;
}

/* Can it let something pass, or is what it denies to be shown? */
static bool joins(const struct drawing *drawing, const struct rule *rule)
{
	return rule->action == RULE_ALLOW || (rule->action == RULE_DENY && (rule->audit || drawing->request->denied));
}

static const char *nearest_name(const struct policy *policy, const char *name)
{
	struct suggestion suggestion = {.wrong = name};

	for (uint32_t i = 0; i < policy->n_identities; i++)
		if (!policy->identities[i].unnamed)
			suggestion_offer(&suggestion, policy->identities[i].name);
	for (uint32_t i = 0; i < policy->n_networks; i++)
		suggestion_offer(&suggestion, policy->networks[i].name);
	return suggestion.best;
}

static int named_node(struct drawing *drawing, const char *option, const char *name, uint32_t *numberp)
{
	const struct policy *policy = drawing->policy;
	static const char *const builtins[] = {"unidentified", "host", "world", "verified"};
	const char *near;

	if (strcmp(name, "any") == 0)
		return add_node(drawing, (struct node_key){}, numberp);
	for (uint32_t i = 0; i < WHO_IDENTITY; i++)
		if (strcmp(name, builtins[i]) == 0)
			return add_node(drawing, (struct node_key){i + 1, 0}, numberp);
	for (uint32_t i = 0; i < policy->n_identities; i++)
		if (!policy->identities[i].unnamed && strcmp(policy->identities[i].name, name) == 0)
			return add_node(drawing, (struct node_key){WHO_IDENTITY + i + 1, 0}, numberp);
	for (uint32_t i = 0; i < policy->n_networks; i++)
		if (strcmp(policy->networks[i].name, name) == 0)
			return add_node(drawing, (struct node_key){0, i + 1}, numberp);
	near = nearest_name(policy, name);
	if (fail(drawing, "%s: no identity or network is named '%.100s'%s%s%s", option, name,
		 near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "") < 0)
		return -ENOMEM;
	return GRAPH_NO_NAME;
}

/* One name against all others. */
static int join_named(struct drawing *drawing)
{
	const struct graph_request *request = drawing->request;
	uint32_t from = 0, to = 0, n;
	int r = request->from ? named_node(drawing, "--from", request->from, &from) : 0;

	if (r == 0 && request->to)
		r = named_node(drawing, "--to", request->to, &to);
	if (r == 0 && request->from && request->to)
		return add_pair(drawing, from, to, FLOW_UNJUDGED);
	n = drawing->nodes.n;
	for (uint32_t i = 0; i < n && r == 0; i++)
		r = add_pair(drawing, request->from ? from : i, request->to ? to : i, FLOW_UNJUDGED);
	return r;
}

static int find_pairs(struct drawing *drawing)
{
	const struct policy *policy = drawing->policy;
	bool named = is_asked(drawing);
	uint32_t any;
	int r = 0;

	for (size_t i = 0; i < policy->n_rules && r == 0; i++) {
		_cleanup_(list_free) struct list from = {}, to = {};
		const struct rule *rule = &policy->rules[i];

		if (!takes_part(drawing, rule))
			continue;
		r = selector_nodes(drawing, &rule->from, &from);
		if (r == 0)
			r = selector_nodes(drawing, &rule->to, &to);
		if (r == 0 && !named && joins(drawing, rule))
			r = join(drawing, &from, &to, (uint32_t)i);
	}
	if (r == 0 && policy->default_allow) {
		r = add_node(drawing, (struct node_key){}, &any);
		if (r == 0 && !named)
			r = add_pair(drawing, any, any, FLOW_DEFAULT);
	}
	return r == 0 && named ? join_named(drawing) : r;
}

/* ---- what nodes are ---- */

static const char *atom_name(const struct policy *policy, uint32_t atom)
{
	static const char *const builtins[] = {"unidentified", "host", "world", "verified"};

	return atom < WHO_IDENTITY ? builtins[atom] : policy->identities[atom - WHO_IDENTITY].name;
}

static void write_place(const struct policy *policy, struct position at, FILE *out)
{
	if (at.line)
		fprintf(out, "%s:%u\n", policy->source_names[at.source], at.line);
}

static void write_identity(const struct policy *policy, uint32_t atom, FILE *out)
{
	static const char *const builtins[] = {"managed workloads without an identity",
					       "the kernel, and what is outside any workload",
					       "peers known by address only", "every SPIFFE identity that is proved"};
	const struct identity *identity;
	uint32_t shown = 0;

	if (atom < WHO_IDENTITY) {
		fprintf(out, "%s\n", builtins[atom]);
		return;
	}
	identity = &policy->identities[atom - WHO_IDENTITY];
	for (uint32_t i = 0; i < identity->n_patterns && shown < MAX_ABOUT; i++, shown++)
		fprintf(out, "%s\n", identity->patterns[i].text);
	for (uint32_t i = 0; i < identity->n_places && shown < MAX_ABOUT; i++, shown++)
		fprintf(out, "%s %s\n", identity->places[i].kind == POLICY_LOCAL_UNIT ? "unit" : "cgroup",
			identity->places[i].path);
	if (shown < identity->n_patterns + identity->n_places)
		fprintf(out, "and %u more\n", identity->n_patterns + identity->n_places - shown);
	for (uint32_t i = 0; i < identity->n_operands && i < MAX_ABOUT; i++)
		fprintf(out, "%s %s\n",
			i			       ? ","
			: identity->op == IDENTITY_ANY ? "any of"
			: identity->op == IDENTITY_ALL ? "in all of"
						       : "not",
			atom_name(policy, identity->operands[i]));
	write_place(policy, identity->at, out);
}

static enum graph_kind kind_of(const struct policy *policy, struct node_key key)
{
	if (key.who && key.network)
		return GRAPH_BOTH;
	if (key.network)
		return GRAPH_NETWORK;
	if (key.who <= WHO_IDENTITY)
		return GRAPH_BUILTIN;
	return policy->identities[key.who - 1 - WHO_IDENTITY].n_places ? GRAPH_LOCAL : GRAPH_IDENTITY;
}

static int make_node(struct drawing *drawing, struct node_key key, struct graph_node *node)
{
	const struct policy *policy = drawing->policy;
	const struct network *network = key.network ? &policy->networks[key.network - 1] : NULL;
	const char *who = key.who ? atom_name(policy, key.who - 1) : NULL;
	_cleanup_(freep) char *about = NULL;
	size_t len;
	FILE *out = open_memstream(&about, &len);

	if (!out)
		return -ENOMEM;
	node->kind = kind_of(policy, key);
	node->name = arena_printf(&drawing->graph->arena, "%s%s%s", who ? who : "", who && network ? " at " : "",
				  network ? network->name
				  : who	  ? ""
					  : "any");
	if (key.who)
		write_identity(policy, key.who - 1, out);
	if (network)
		write_place(policy, network->at, out);
	if (!who && !network)
		fputs("every peer\n", out);
	node->about = graph_take_text(&drawing->graph->arena, out, &about, &len);
	return node->name && node->about ? 0 : -ENOMEM;
}

static int make_nodes(struct drawing *drawing)
{
	struct graph *graph = drawing->graph;
	int r = 0;

	graph->n_nodes = drawing->nodes.n;
	graph->nodes = arena_array(&graph->arena, graph->n_nodes, sizeof(*graph->nodes));
	if (!graph->nodes)
		return -ENOMEM;
	for (uint32_t i = 0; i < graph->n_nodes && r == 0; i++) {
		struct node_key key;

		memcpy(&key, drawing->nodes.entries[i].bytes, sizeof(key));
		r = make_node(drawing, key, &graph->nodes[i]);
	}
	return r;
}

/* With a name asked for, only it and what it may talk to. */
static void drop_lonely_nodes(struct drawing *drawing)
{
	struct graph *graph = drawing->graph;
	uint32_t *number = arena_array(&graph->arena, graph->n_nodes, sizeof(*number)), n = 0;

	if (!number || !is_asked(drawing))
		return;
	for (uint32_t i = 0; i < graph->n_edges; i++)
		number[graph->edges[i].from] = number[graph->edges[i].to] = 1;
	for (uint32_t i = 0; i < drawing->pairs.n; i++) {
		struct pair_key pair;

		memcpy(&pair, drawing->pairs.entries[i].bytes, sizeof(pair));
		if (drawing->request->from)
			number[pair.from] = 1;
		if (drawing->request->to)
			number[pair.to] = 1;
	}
	for (uint32_t i = 0; i < graph->n_nodes; i++) {
		if (!number[i])
			continue;
		graph->nodes[n] = graph->nodes[i];
		number[i] = n++;
	}
	graph->n_nodes = n;
	for (uint32_t i = 0; i < graph->n_edges; i++) {
		graph->edges[i].from = number[graph->edges[i].from];
		graph->edges[i].to = number[graph->edges[i].to];
	}
}

static const char *title_of(struct drawing *drawing)
{
	const struct policy *policy = drawing->policy;
	struct arena *arena = &drawing->graph->arena;
	const char *name = policy->n_sources ? policy->source_names[0] : "";
	const char *text = policy->n_sources > 1 ? arena_printf(arena, "%s and %u more", name, policy->n_sources - 1)
						 : arena_printf(arena, "%s", name);

	return text ? text_printable(arena, text, strlen(text)) : NULL;
}

static int find_services(struct drawing *drawing)
{
	struct flow_box *boxes;
	size_t n;
	int r = flow_space_everything(drawing->space, &boxes, &n);

	for (size_t i = 0; r == 0 && i < n; i++) {
		struct spans all;

		if (!spans_unite(drawing->space, &all, &drawing->services, &boxes[i].dim[FLOW_SERVICE]))
			return -ENOMEM;
		drawing->services = all;
	}
	return r;
}

static int draw(struct drawing *drawing)
{
	int r = flow_space_new(&drawing->space, &drawing->policy, 1, drawing->request->now, drawing->errorp);

	if (r == 0)
		r = find_services(drawing);
	if (r == 0)
		r = find_pairs(drawing);
	if (r == 0)
		r = make_nodes(drawing);
	for (uint32_t i = 0; i < drawing->pairs.n && r == 0; i++) {
		struct pair_key pair;

		memcpy(&pair, drawing->pairs.entries[i].bytes, sizeof(pair));
		r = graph_add_edge(drawing, pair, &drawing->joining[i]);
	}
	if (r != 0)
		return r;
	drop_lonely_nodes(drawing);
	if (drawing->graph->n_nodes > drawing->request->max_nodes)
		return too_many(drawing, drawing->request->max_nodes, "names");
	drawing->graph->title = title_of(drawing);
	return drawing->graph->arena.out_of_memory ? -ENOMEM : 0;
}

int policy_graph(struct graph **graphp, const struct policy *policy, const struct graph_request *request, char **errorp)
{
	_cleanup_(graph_freep) struct graph *graph = calloc(1, sizeof(*graph));
	struct drawing drawing = {.policy = policy, .request = request, .graph = graph, .errorp = errorp};
	int r = graph ? draw(&drawing) : -ENOMEM;

	*graphp = NULL;
	flow_space_freep(&drawing.space);
	for (uint32_t i = 0; i < drawing.pairs.n; i++)
		list_free(&drawing.joining[i]);
	free(drawing.joining);
	intern_free(&drawing.nodes);
	intern_free(&drawing.pairs);
	if (r == 0) {
		*graphp = graph;
		graph = NULL;
	}
	return r;
}

void graph_freep(struct graph **graphp)
{
	struct graph *graph = *graphp;

	if (!graph)
		return;
	free(graph->edges);
	arena_free(&graph->arena);
	free(graph);
	*graphp = NULL;
}
