/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/graph_internal.h"
#include "policy/text.h"

#define MAX_RULES_SHOWN 12U
#define MAX_JOINED_RANGES (1U << 20)

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

static void freep(void *p)
{
	free(*(void **)p);
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
		/* More than that is not worth its memory: then all services are looked at, which finds these too. */
		everything = everything || n > MAX_JOINED_RANGES;
	}
	n = everything ? SERVICE_N_EVERYTHING : n;
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

const char *graph_take_text(struct arena *arena, FILE *out, char **textp, size_t *lenp)
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
	*textp = graph_take_text(&drawing->graph->arena, out, &text, &len);
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
	*textp = graph_take_text(&drawing->graph->arena, out, &text, &len);
	return *textp ? 0 : -ENOMEM;
}

/* What is denied is drawn where a deny rule speaks of the pair, or where the pair was asked for. */
static bool shows_denied(const struct drawing *drawing, const struct list *rules)
{
	bool shows = !rules->n;

	for (size_t i = 0; i < rules->n; i++)
		shows = shows || (rules->items[i] != FLOW_DEFAULT &&
				  drawing->policy->rules[rules->items[i]].action == RULE_DENY);
	return shows && drawing->request->denied;
}

int graph_add_edge(struct drawing *drawing, struct pair_key pair, const struct list *rules)
{
	_cleanup_(findings_free) struct findings findings = {.policy = drawing->policy};
	struct graph *graph = drawing->graph;
	struct graph_edge edge = {.from = pair.from, .to = pair.to, .denied = ""};
	struct spans passed, stopped, all, part;
	int r = judge_pair(drawing, pair, rules, &findings);

	if (r != 0)
		return r;
	if (!shows_denied(drawing, rules))
		findings.refused.n = 0;
	passed = merged(&findings.passed);
	stopped = merged(&findings.stopped);
	if (!passed.n && !findings.refused.n)
		return 0;
	if (!spans_subtract(drawing->space, &all, &passed, &stopped) ||
	    !spans_intersect(drawing->space, &part, &passed, &stopped))
		return -ENOMEM;
	r = services_text(drawing, all, &edge.all);
	if (r == 0)
		r = services_text(drawing, part, &edge.part);
	if (r == 0)
		r = services_text(drawing, merged(&findings.refused), &edge.denied);
	if (r == 0)
		r = rules_text(drawing, &findings, &edge.rules);
	if (r == 0 && array_grow(&graph->edges, &drawing->edges_capacity, graph->n_edges, sizeof(edge)) < 0)
		r = -ENOMEM;
	if (r == 0)
		graph->edges[graph->n_edges++] = edge;
	return r;
}
