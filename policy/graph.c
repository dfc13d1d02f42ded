/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/flow_space.h"
#include "policy/graph.h"
#include "policy/text.h"

#define MAX_RULES_SHOWN 12U
#define MAX_ABOUT 8U

/* What a node selects: 0 asks nothing, else one more than the atom or network. Interned, so no padding. */
struct node_key {
	uint32_t who;
	uint32_t network;
};

struct pair_key {
	uint32_t from;
	uint32_t to;
};

struct span_list {
	struct span *items;
	size_t n, capacity;
};

/* What was found about a pair. */
struct findings {
	struct span_list passed, stopped,
		refused;   /* services: some flow passes; some does not; a deny rule denies some */
	struct list rules; /* that let flows pass: rule << 1 | ingress */
	struct list deniers;
	bool by_default;
	const struct policy *policy;
	int error;
};

struct drawing {
	const struct policy *policy;
	const struct graph_request *request;
	struct flow_space *space;
	struct graph *graph;
	struct intern nodes;  /* struct node_key */
	struct intern pairs;  /* struct pair_key */
	struct list *joining; /* by pair: the rules that join it, or FLOW_DEFAULT; none: asked for by name */
	size_t joining_capacity;
	struct spans services; /* all that flows can have */
	size_t n_edges, edges_capacity;
	char **errorp;
};

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

static int add_node(struct drawing *drawing, struct node_key key, uint32_t *numberp)
{
	int r = intern_bytes(&drawing->nodes, &key, sizeof(key), numberp);

	if (r < 0)
		return r;
	if (drawing->nodes.n <= drawing->request->max_nodes)
		return 0;
	return fail(drawing,
		    "the rules speak of more than %u names: draw a part, with --from NAME or --to NAME, or allow more "
		    "with --limit",
		    drawing->request->max_nodes);
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
	if (drawing->pairs.n <= drawing->request->max_edges)
		return 0;
	return fail(
		drawing,
		"the rules join more than %u pairs of names: draw a part, with --from NAME or --to NAME, or allow more "
		"with --limit",
		drawing->request->max_edges);
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

static int named_node(struct drawing *drawing, const char *option, const char *name, uint32_t *numberp)
{
	const struct policy *policy = drawing->policy;
	static const char *const builtins[] = {"unidentified", "host", "world", "verified"};

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
	return fail(drawing, "%s: no identity or network of the policy is named '%.100s'", option, name);
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
	bool named = drawing->request->from || drawing->request->to;
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

static const char *take_text(struct arena *arena, FILE *out, char **textp, size_t *lenp)
{
	const char *text;

	fclose(out);
	while (*lenp && (*textp)[*lenp - 1] == '\n')
		--*lenp;
	/* Lines stay; names of files can hold anything else. */
	text = *textp ? arena_copy(arena, *textp, *lenp) : NULL;
	for (char *at = (char *)text, *line; at && *at; at = *line ? line + 1 : line) {
		char *clean;

		line = at + strcspn(at, "\n");
		clean = text_printable(arena, at, (size_t)(line - at));
		if (!clean)
			return NULL;
		/* A byte or a character is replaced by one byte at most. */
		memcpy(at, clean, strlen(clean));
		memmove(at + strlen(clean), line, strlen(line) + 1);
		line = at + strlen(clean);
	}
	return text;
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
	node->about = take_text(&drawing->graph->arena, out, &about, &len);
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

/* ---- judging a pair ---- */

static int add_spans(struct span_list *list, const struct spans *spans)
{
	for (uint32_t i = 0; i < spans->n; i++) {
		if (array_grow(&list->items, &list->capacity, list->n, sizeof(*list->items)) < 0)
			return -ENOMEM;
		list->items[list->n++] = spans->items[i];
	}
	return 0;
}

static int compare_spans(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	return (x->first > y->first) - (x->first < y->first);
}

static struct spans merged(struct span_list *list)
{
	size_t n = 0;

	if (list->n)
		qsort(list->items, list->n, sizeof(*list->items), compare_spans);
	for (size_t i = 0; i < list->n; i++) {
		if (n && list->items[i].first <= list->items[n - 1].last + 1) {
			if (list->items[i].last > list->items[n - 1].last)
				list->items[n - 1].last = list->items[i].last;
		} else {
			list->items[n++] = list->items[i];
		}
	}
	list->n = n;
	return (struct spans){list->items, (uint32_t)n};
}

static int add_rule(struct findings *findings, struct list *rules, uint32_t rule, bool ingress)
{
	if (rule == FLOW_DEFAULT)
		findings->by_default = true;
	if (rule == FLOW_DEFAULT || rule == FLOW_UNJUDGED)
		return 0;
	/* Pieces come in their thousands, from few rules. */
	for (size_t i = rules->n; i > 0 && i + 8 > rules->n; i--)
		if (rules->items[i - 1] == (rule << 1 | ingress))
			return 0;
	return list_push(rules, rule << 1 | ingress);
}

static bool denies(const struct findings *findings, uint32_t rule, bool allow)
{
	return !allow && rule != FLOW_DEFAULT && rule != FLOW_UNJUDGED &&
	       findings->policy->rules[rule].action == RULE_DENY;
}

static int note_piece(void *context, const struct flow_piece *piece)
{
	struct findings *findings = context;
	const struct spans *services = &piece->box.dim[FLOW_SERVICE];
	bool egress = denies(findings, piece->egress_rule, piece->egress_allow);
	bool ingress = denies(findings, piece->ingress_rule, piece->ingress_allow);
	int r;

	/* What no end judges is no business of the policy. */
	if (piece->egress_rule == FLOW_UNJUDGED && piece->ingress_rule == FLOW_UNJUDGED)
		return 0;
	r = add_spans(piece->allow ? &findings->passed : &findings->stopped, services);
	if (r == 0 && piece->allow)
		r = add_rule(findings, &findings->rules, piece->egress_rule, false);
	if (r == 0 && piece->allow)
		r = add_rule(findings, &findings->rules, piece->ingress_rule, true);
	if (r == 0 && (egress || ingress))
		r = add_spans(&findings->refused, services);
	if (r == 0 && egress)
		r = add_rule(findings, &findings->deniers, piece->egress_rule, false);
	if (r == 0 && ingress)
		r = add_rule(findings, &findings->deniers, piece->ingress_rule, true);
	findings->error = r;
	return r;
}

static void findings_free(struct findings *findings)
{
	free(findings->passed.items);
	free(findings->stopped.items);
	free(findings->refused.items);
	list_free(&findings->rules);
	list_free(&findings->deniers);
}

static struct selector_term term_of(struct node_key *key)
{
	struct selector_term term = {};

	if (key->who) {
		key->who--;
		term.who = &key->who;
		term.n_who = 1;
	}
	if (key->network) {
		key->network--;
		term.networks = &key->network;
		term.n_networks = 1;
	}
	return term;
}

/* The services of the rules that join a pair, or everything. malloc()ed. */
static int joining_services(const struct drawing *drawing, const struct list *rules, struct service_range **rangesp,
			    uint32_t *np)
{
	size_t n = SERVICE_N_EVERYTHING, at = 0;
	bool everything = !rules->n;

	for (size_t i = 0; i < rules->n; i++) {
		everything = everything || rules->items[i] == FLOW_DEFAULT;
		if (!everything)
			n += drawing->policy->rules[rules->items[i]].n_services;
	}
	*rangesp = calloc(n, sizeof(**rangesp));
	if (!*rangesp)
		return -ENOMEM;
	if (everything) {
		service_everything(*rangesp);
		*np = SERVICE_N_EVERYTHING;
		return 0;
	}
	for (size_t i = 0; i < rules->n; i++) {
		const struct rule *rule = &drawing->policy->rules[rules->items[i]];

		memcpy(*rangesp + at, rule->services, rule->n_services * sizeof(**rangesp));
		at += rule->n_services;
	}
	*np = service_normalise(*rangesp, (uint32_t)at);
	return 0;
}

static int judge_pair(struct drawing *drawing, struct pair_key pair, const struct list *rules,
		      struct findings *findings)
{
	_cleanup_(freep) struct service_range *services = NULL;
	uint32_t n_services;
	struct node_key keys[2];
	struct selector_term terms[2];
	struct selector from = {&terms[0], 1}, to = {&terms[1], 1};
	struct flow_box *boxes;
	size_t n;
	int r;

	memcpy(&keys[0], drawing->nodes.entries[pair.from].bytes, sizeof(keys[0]));
	memcpy(&keys[1], drawing->nodes.entries[pair.to].bytes, sizeof(keys[1]));
	terms[0] = term_of(&keys[0]);
	terms[1] = term_of(&keys[1]);
	r = joining_services(drawing, rules, &services, &n_services);
	if (r == 0)
		r = flow_space_select(drawing->space, 0, &from, &to, services, n_services, &boxes, &n);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = flow_space_judge(drawing->space, 0, &boxes[i], note_piece, findings, drawing->errorp);
	return findings->error ? findings->error : r;
}

/* ---- in words ---- */

/* Takes from a set of services those that the policy names and that are whole within it. `out`: where the names go. */
static int take_named_services(struct drawing *drawing, struct spans *set, FILE *out)
{
	struct flow_space *space = drawing->space;
	const char *comma = "";

	for (size_t i = 0; i < drawing->policy->n_services && set->n; i++) {
		const struct service *service = &drawing->policy->services[i];
		struct spans wanted = {(struct span *)service->ranges, service->n_ranges}, inner, beside, left;
		_Static_assert(sizeof(struct span) == sizeof(struct service_range), "the same two numbers");

		if (!spans_intersect(space, &inner, &wanted, &drawing->services) ||
		    !spans_subtract(space, &beside, &inner, set) || !spans_subtract(space, &left, set, &inner))
			return -ENOMEM;
		if (!inner.n || beside.n)
			continue;
		fprintf(out, "%s%s", comma, service->name);
		comma = ", ";
		*set = left;
	}
	return 0;
}

/* "any except tcp/22" is shorter than what is in it. */
static int is_nearly_everything(struct drawing *drawing, const struct spans *set, bool *nearlyp)
{
	struct spans rest;

	if (!spans_subtract(drawing->space, &rest, &drawing->services, set))
		return -ENOMEM;
	*nearlyp = rest.n < set->n;
	return 0;
}

static int write_services(struct drawing *drawing, const struct spans *set, FILE *out)
{
	_cleanup_(freep) char *names = NULL;
	struct flow_box box = {.dim[FLOW_SERVICE] = *set};
	size_t len;
	FILE *named = open_memstream(&names, &len);
	bool nearly;
	int r = named ? take_named_services(drawing, &box.dim[FLOW_SERVICE], named) : -ENOMEM;

	if (named)
		fclose(named);
	if (r == 0)
		r = is_nearly_everything(drawing, &box.dim[FLOW_SERVICE], &nearly);
	if (r == 0 && !nearly)
		r = is_nearly_everything(drawing, set, &nearly);
	if (r < 0)
		return r;
	if (nearly)
		box.dim[FLOW_SERVICE] = *set;
	else if (len)
		fprintf(out, "%s%s", names, box.dim[FLOW_SERVICE].n ? ", " : "");
	if (box.dim[FLOW_SERVICE].n)
		flow_space_describe_services(drawing->space, 0, &box, out);
	return 0;
}

static int services_text(struct drawing *drawing, struct spans set, const char **textp)
{
	_cleanup_(freep) char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	int r;

	if (!out)
		return -ENOMEM;
	r = set.n ? write_services(drawing, &set, out) : 0;
	*textp = take_text(&drawing->graph->arena, out, &text, &len);
	return r == 0 && !*textp ? -ENOMEM : r;
}

/* A rule that decides at both ends is one line. */
static void write_rules(const struct drawing *drawing, struct list *rules, const char *what, FILE *out)
{
	const struct policy *policy = drawing->policy;
	uint32_t shown = 0, left = 0;

	list_sort_unique(rules);
	for (size_t i = 0; i < rules->n; i++) {
		const struct rule *rule = &policy->rules[rules->items[i] >> 1];
		bool both = i + 1 < rules->n && rules->items[i + 1] == (rules->items[i] | 1) && !(rules->items[i] & 1);
		bool ingress = rules->items[i] & 1;

		i += both;
		if (shown++ >= MAX_RULES_SHOWN) {
			left++;
			continue;
		}
		fprintf(out, "%s %s (%s:%u)%s\n", what, rule->name, policy->source_names[rule->at.source],
			rule->at.line,
			both	  ? ""
			: ingress ? ", at the destination"
				  : ", at the source");
	}
	if (left)
		fprintf(out, "and %u more\n", left);
}

static int rules_text(struct drawing *drawing, struct findings *findings, const char **textp)
{
	_cleanup_(freep) char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return -ENOMEM;
	write_rules(drawing, &findings->rules, "allowed by", out);
	if (findings->by_default && drawing->policy->default_allow)
		fputs("allowed by default\n", out);
	write_rules(drawing, &findings->deniers, "denied by", out);
	*textp = take_text(&drawing->graph->arena, out, &text, &len);
	return *textp ? 0 : -ENOMEM;
}

static int make_edge(struct drawing *drawing, struct pair_key pair, const struct list *rules)
{
	_cleanup_(findings_free) struct findings findings = {.policy = drawing->policy};
	struct graph *graph = drawing->graph;
	struct graph_edge edge = {.from = pair.from, .to = pair.to, .denied = ""};
	struct spans passed, stopped, all, part;
	int r = judge_pair(drawing, pair, rules, &findings);

	if (r != 0)
		return r;
	passed = merged(&findings.passed);
	stopped = merged(&findings.stopped);
	if (!passed.n && !(drawing->request->denied && findings.refused.n))
		return 0;
	if (!spans_subtract(drawing->space, &all, &passed, &stopped) ||
	    !spans_intersect(drawing->space, &part, &passed, &stopped))
		return -ENOMEM;
	r = services_text(drawing, all, &edge.all);
	if (r == 0)
		r = services_text(drawing, part, &edge.part);
	if (r == 0 && drawing->request->denied)
		r = services_text(drawing, merged(&findings.refused), &edge.denied);
	if (r == 0)
		r = rules_text(drawing, &findings, &edge.rules);
	if (r == 0 && array_grow(&graph->edges, &drawing->edges_capacity, graph->n_edges, sizeof(edge)) < 0)
		r = -ENOMEM;
	if (r == 0)
		graph->edges[graph->n_edges++] = edge;
	return r;
}

/* With a name asked for, only it and what it may talk to. */
static void drop_lonely_nodes(struct drawing *drawing)
{
	struct graph *graph = drawing->graph;
	uint32_t *number = arena_array(&graph->arena, graph->n_nodes, sizeof(*number)), n = 0;

	if (!number || (!drawing->request->from && !drawing->request->to))
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
		r = make_edge(drawing, pair, &drawing->joining[i]);
	}
	if (r != 0)
		return r;
	drop_lonely_nodes(drawing);
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
