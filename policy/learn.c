/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/learn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/flow_rules.h"
#include "policy/flow_space.h"
#include "policy/learner.h"

#define MAX_NOTES 200U /* then they are told together */

int learn_new(struct learn **learnp, const struct learn_options *options)
{
	struct learn *learn = calloc(1, sizeof(*learn));

	*learnp = learn;
	if (!learn)
		return -ENOMEM;
	learn->options = *options;
	return 0;
}

void learn_freep(struct learn **learnp)
{
	struct learn *learn = *learnp;

	if (!learn)
		return;
	*learnp = NULL;
	for (uint32_t i = 0; i < learn->n_atoms; i++)
		list_free(&learn->atoms[i].members);
	intern_free(&learn->end_keys);
	intern_free(&learn->flow_keys);
	intern_free(&learn->place_keys);
	intern_free(&learn->note_keys);
	intern_free(&learn->names);
	intern_free(&learn->rule_names);
	free(learn->atoms);
	free(learn->ends);
	free(learn->flows);
	free(learn->places);
	free(learn->notes);
	free(learn->rules);
	arena_free(&learn->arena);
	free(learn);
}

void evidence_add(struct evidence *evidence, uint64_t count, int64_t first, int64_t last)
{
	if (!evidence->count || first < evidence->first)
		evidence->first = first;
	if (!evidence->count || last > evidence->last)
		evidence->last = last;
	if (__builtin_add_overflow(evidence->count, count, &evidence->count))
		evidence->count = UINT64_MAX;
}

/* ---- the record ---- */

bool learn_full(const struct learn *learn)
{
	return learn->full;
}

static int add_note(struct learn *learn, const char *text, uint64_t count, int64_t first, int64_t last)
{
	struct evidence evidence;
	struct learn_note *note;
	uint32_t number;
	int r;

	if (!text)
		return -ENOMEM;
	if (learn->note_keys.n >= MAX_NOTES && !intern_find(&learn->note_keys, text, strlen(text), &number))
		text = "more of the kind, about other peers";
	r = array_grow(&learn->notes, &learn->notes_capacity, learn->note_keys.n, sizeof(*learn->notes));
	if (r == 0)
		r = intern_bytes(&learn->note_keys, text, strlen(text), &number);
	if (r < 0)
		return r;
	note = &learn->notes[number];
	if (r == 1)
		*note = (struct learn_note){.text = learn->note_keys.entries[number].bytes};
	evidence = (struct evidence){note->count, note->first, note->last};
	evidence_add(&evidence, count, first, last);
	note->count = evidence.count;
	note->first = evidence.first;
	note->last = evidence.last;
	return 0;
}

int learn_place(struct learn *learn, const char *name, const char *cgroup)
{
	char *key = arena_printf(&learn->arena, "%s\n%s", name, cgroup);
	uint32_t number;
	int r;

	if (!key ||
	    array_grow(&learn->places, &learn->places_capacity, learn->place_keys.n, sizeof(*learn->places)) < 0)
		return -ENOMEM;
	r = intern_bytes(&learn->place_keys, key, strlen(key), &number);
	if (r != 1)
		return r;
	learn->places[number].name = arena_copy(&learn->arena, name, strlen(name));
	learn->places[number].cgroup = arena_copy(&learn->arena, cgroup, strlen(cgroup));
	return learn->arena.out_of_memory ? -ENOMEM : 0;
}

static int add_end(struct learn *learn, const char *text, const struct flow_end *end, const char *cgroup,
		   uint32_t *indexp)
{
	char *key;
	int r;

	if (end->kind == FLOW_END_NAME && cgroup && learn_place(learn, end->id, cgroup) < 0)
		return -ENOMEM;
	/* Who has no identity can only be told by his cgroup. */
	if (end->kind != FLOW_END_UNIDENTIFIED)
		cgroup = NULL;
	key = NULL;
	if (array_grow(&learn->ends, &learn->ends_capacity, learn->end_keys.n, sizeof(*learn->ends)) < 0 ||
	    asprintf(&key, "%s\n%s", text, cgroup ? cgroup : "") < 0)
		return -ENOMEM;
	r = intern_bytes(&learn->end_keys, key, strlen(key), indexp);
	free(key);
	if (r != 1)
		return r;
	learn->ends[*indexp] = (struct seen_end){
		.text = arena_copy(&learn->arena, text, strlen(text)),
		.cgroup = cgroup ? arena_copy(&learn->arena, cgroup, strlen(cgroup)) : NULL,
		.peer = NO_PEER,
	};
	return learn->arena.out_of_memory ? -ENOMEM : 0;
}

static int add_flow(struct learn *learn, const uint32_t key[3], const struct learn_flow *flow)
{
	struct evidence evidence;
	struct seen_flow *seen;
	uint32_t number;
	int r = array_grow(&learn->flows, &learn->flows_capacity, learn->flow_keys.n, sizeof(*learn->flows));

	if (r == 0)
		r = intern_bytes(&learn->flow_keys, key, 3 * sizeof(*key), &number);
	if (r < 0)
		return r;
	seen = &learn->flows[number];
	if (r == 1)
		*seen = (struct seen_flow){.from = key[0], .to = key[1], .point = key[2]};
	evidence = (struct evidence){seen->count[0] | seen->count[1], seen->first, seen->last};
	evidence_add(&evidence, flow->count, flow->first, flow->last);
	seen->first = evidence.first;
	seen->last = evidence.last;
	if (__builtin_add_overflow(seen->count[flow->ingress], flow->count, &seen->count[flow->ingress]))
		seen->count[flow->ingress] = UINT64_MAX;
	return 0;
}

/* The text is not kept but by the note, so what many events of a kind cost in memory is bounded by MAX_NOTES. */
static int note_doubt(struct learn *learn, const struct learn_flow *flow)
{
	char *text = NULL;
	int r = asprintf(&text, "%s to %s on %s: %s", flow->from, flow->to, flow->service,
			 flow->doubt == LEARN_UNASKED
				 ? "denied before the other end was asked who it is, so it cannot be named in a rule"
				 : "the proof of identity of the other end was false; find out who it is first");

	if (r < 0)
		return -ENOMEM;
	r = add_note(learn, text, flow->count, flow->first, flow->last);
	free(text);
	return r;
}

static bool is_workload(const struct flow_end *end)
{
	return end->kind == FLOW_END_SPIFFE || end->kind == FLOW_END_NAME || end->kind == FLOW_END_UNIDENTIFIED;
}

int learn_add(struct learn *learn, const struct learn_flow *flow, char **errorp)
{
	const char *from_cgroup = flow->ingress ? NULL : flow->cgroup, *to_cgroup = flow->ingress ? flow->cgroup : NULL;
	struct flow_end from, to;
	uint32_t key[3];

	*errorp = NULL;
	if (flow_end_parse(&from, flow->from, errorp) || flow_end_parse(&to, flow->to, errorp) ||
	    flow_service_parse(&key[2], flow->service, errorp))
		return 1;
	/* That a workload has no identity is the better thing to say. */
	if (flow->doubt == LEARN_FORGED ||
	    (flow->doubt == LEARN_UNASKED && from.kind != FLOW_END_UNIDENTIFIED && to.kind != FLOW_END_UNIDENTIFIED))
		return note_doubt(learn, flow);
	if (!is_workload(&from) && !is_workload(&to))
		return flow_error(errorp, "neither %s nor %s is a workload, so nobody judged", flow->from, flow->to);
	if (learn->flow_keys.n >= LEARN_MAX_FLOWS) {
		learn->full = true;
		return flow_error(errorp, "more than %u different flows", LEARN_MAX_FLOWS);
	}
	if (add_end(learn, flow->from, &from, from_cgroup, &key[0]) < 0 ||
	    add_end(learn, flow->to, &to, to_cgroup, &key[1]) < 0)
		return -ENOMEM;
	return add_flow(learn, key, flow);
}

/* ---- what is missing ---- */

/* Facts of the ends of one flow after the other; flows come sorted, so they are found once for each pair of ends. */
struct judge {
	struct learn *learn;
	struct arena arenas[2];
	struct flow_facts facts[2];
	uint32_t ends[2];
	struct list rules;
};

static void judge_free(struct judge *judge)
{
	arena_free(&judge->arenas[0]);
	arena_free(&judge->arenas[1]);
	list_free(&judge->rules);
}

static int judge_end(struct judge *judge, unsigned which, uint32_t index)
{
	struct flow_end end;
	char *error = NULL;

	if (judge->ends[which] == index)
		return 0;
	judge->ends[which] = index;
	arena_free(&judge->arenas[which]);
	judge->arenas[which] = (struct arena){};
	if (flow_end_parse(&end, judge->learn->ends[index].text, &error)) {
		free(error);
		return -ENOMEM; /* it was understood before */
	}
	return flow_facts_find(&judge->facts[which], judge->learn->options.against, &end, &judge->arenas[which]);
}

static uint64_t seen_count(const struct seen_flow *flow)
{
	return flow->count[0] > flow->count[1] ? flow->count[0] : flow->count[1];
}

/* No rule that allows changes what a rule denies. */
static int note_denied(struct learn *learn, const struct seen_flow *flow, const struct flow_decision *decision)
{
	const struct policy *policy = learn->options.against;
	const struct rule *rule = &policy->rules[decision->rule];
	char service[64];

	service_format(service, sizeof(service), (struct service_range){flow->point, flow->point});
	return add_note(learn,
			arena_printf(&learn->arena,
				     "%s to %s on %s is %s by %s (%s:%u): change that rule, not the rest",
				     learn->ends[flow->from].text, learn->ends[flow->to].text, service,
				     decision->audit ? "only let pass in audit mode" : "denied", rule->name,
				     policy->source_names[rule->at.source], rule->at.line),
			seen_count(flow), flow->first, flow->last);
}

static int judge_flow(struct judge *judge, struct seen_flow *flow)
{
	static const unsigned directions[] = {RULE_EGRESS, RULE_INGRESS};
	struct learn *learn = judge->learn;
	bool missing = false;

	if (judge_end(judge, 0, flow->from) < 0 || judge_end(judge, 1, flow->to) < 0)
		return -ENOMEM;
	for (unsigned i = 0; i < 2; i++) {
		struct flow_question question = {learn->options.against, &judge->facts[0],
						 &judge->facts[1],	 flow->point,
						 directions[i],		 learn->options.now};
		struct flow_decision decision;

		if (!judge->facts[i].judges)
			continue;
		judge->rules.n = 0;
		if (flow_rules_matching(&question, &judge->rules) < 0 ||
		    flow_rules_decide(question.policy, &judge->rules, &decision, NULL) < 0)
			return -ENOMEM;
		if (decision.rule != FLOW_DEFAULT && (!decision.allow || decision.audit)) {
			flow->missing = false;
			return note_denied(learn, flow, &decision);
		}
		missing |= !decision.allow;
	}
	flow->missing = missing;
	return 0;
}

static int by_ends(const void *a, const void *b)
{
	const struct seen_flow *x = a, *y = b;

	if (x->from != y->from)
		return x->from < y->from ? -1 : 1;
	if (x->to != y->to)
		return x->to < y->to ? -1 : 1;
	return (x->point > y->point) - (x->point < y->point);
}

static int find_missing(struct learn *learn)
{
	_cleanup_(judge_free) struct judge judge = {.learn = learn, .ends = {NO_PEER, NO_PEER}};

	for (uint32_t i = 0; i < learn->flow_keys.n; i++) {
		struct seen_flow *flow = &learn->flows[i];

		flow->missing = true;
		if (learn->options.against && judge_flow(&judge, flow) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* ---- peers ---- */

static bool is_local(const struct learn *learn, const char *name)
{
	const struct policy *against = learn->options.against;

	for (uint32_t i = 0; i < learn->place_keys.n; i++)
		if (strcmp(learn->places[i].name, name) == 0)
			return true;
	for (size_t i = 0; against && i < against->n_identities; i++)
		if (against->identities[i].n_places && strcmp(against->identities[i].name, name) == 0)
			return true;
	return false;
}

/* Why an end cannot be named in a rule; NULL: it can. */
static const char *end_problem(struct learn *learn, const struct seen_end *seen, const struct flow_end *end)
{
	switch (end->kind) {
	case FLOW_END_UNIDENTIFIED:
		return arena_printf(&learn->arena,
				    "the workload %s%s has no identity, so no rule can name it: attest an SVID for it "
				    "(`policyctl run`, `policyctl attest`), or give its unit or cgroup a name",
				    seen->cgroup ? "in the cgroup " : "at ",
				    seen->cgroup       ? seen->cgroup
				    : end->has_address ? strchr(seen->text, '@') + 1
						       : "an unknown address");
	case FLOW_END_WORLD:
		return end->has_address ? NULL : "a packet without an address: no rule can name its other end";
	case FLOW_END_NAME:
		if (is_local(learn, end->id))
			return NULL;
		return arena_printf(&learn->arena,
				    "the record does not say which unit or cgroup the local identity %s is: define it, "
				    "and give that policy with --against",
				    end->id);
	case FLOW_END_SPIFFE:
	case FLOW_END_HOST:
		break;
	}
	return NULL;
}

static int compare_peers(const void *a, const void *b)
{
	const struct peer *x = a, *y = b;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	if (x->kind == PEER_ADDRESS)
		return (x->address > y->address) - (x->address < y->address);
	return strcmp(x->text, y->text);
}

static int make_peer(struct learn *learn, const struct flow_end *end, struct peer *peer)
{
	static const enum peer_kind kinds[] = {
		[FLOW_END_SPIFFE] = PEER_SPIFFE,
		[FLOW_END_NAME] = PEER_LOCAL,
		[FLOW_END_HOST] = PEER_HOST,
		[FLOW_END_WORLD] = PEER_ADDRESS,
	};

	peer->kind = kinds[end->kind];
	peer->atom = NO_PEER;
	peer->address = peer->kind == PEER_ADDRESS ? end->address : 0;
	peer->text = peer->kind == PEER_ADDRESS ? "" : arena_copy(&learn->arena, end->id, strlen(end->id));
	return peer->text ? 0 : -ENOMEM;
}

/* Finds the peer of each end that can have one, and what is wrong with the others. */
static int find_peers(struct learn *learn, const char **problems)
{
	uint32_t n = learn->end_keys.n, kept = 0;
	struct peer *of_end = arena_array(&learn->arena, n, sizeof(*of_end));
	char *error = NULL;
	struct flow_end end;

	learn->peers = arena_array(&learn->arena, n, sizeof(*learn->peers));
	if (!of_end || !learn->peers)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		if (flow_end_parse(&end, learn->ends[i].text, &error)) {
			free(error);
			return -ENOMEM; /* it was understood before */
		}
		problems[i] = end_problem(learn, &learn->ends[i], &end);
		if (learn->arena.out_of_memory || (!problems[i] && make_peer(learn, &end, &of_end[i]) < 0))
			return -ENOMEM;
		if (!problems[i])
			learn->peers[kept++] = of_end[i];
	}
	if (kept)
		qsort(learn->peers, kept, sizeof(*learn->peers), compare_peers);
	for (uint32_t i = 0; i < kept; i++)
		if (!i || compare_peers(&learn->peers[learn->n_peers - 1], &learn->peers[i]) != 0)
			learn->peers[learn->n_peers++] = learn->peers[i];
	for (uint32_t i = 0; i < n; i++) {
		const struct peer *peer = problems[i] ? NULL
						      : bsearch(&of_end[i], learn->peers, learn->n_peers,
								sizeof(of_end[i]), compare_peers);

		learn->ends[i].peer = peer ? (uint32_t)(peer - learn->peers) : NO_PEER;
	}
	return 0;
}

/* ---- cells ---- */

struct weighed_cell {
	struct cover_cell cell;
	struct evidence evidence;
};

/* Sorts, and makes one of those that are equal. */
static size_t join_cells(struct weighed_cell *cells, size_t n)
{
	size_t kept = 0;

	if (n)
		qsort(cells, n, sizeof(*cells), cover_cell_compare); /* the cell comes first */
	for (size_t i = 0; i < n; i++) {
		if (kept && cover_cell_compare(&cells[kept - 1], &cells[i]) == 0)
			evidence_add(&cells[kept - 1].evidence, cells[i].evidence.count, cells[i].evidence.first,
				     cells[i].evidence.last);
		else
			cells[kept++] = cells[i];
	}
	return kept;
}

static int set_cells(struct learn *learn, struct weighed_cell *cells, size_t n)
{
	n = join_cells(cells, n);
	learn->cells = arena_array(&learn->arena, n, sizeof(*learn->cells));
	learn->evidence = arena_array(&learn->arena, n, sizeof(*learn->evidence));
	if (!learn->cells || !learn->evidence)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		learn->cells[i] = cells[i].cell;
		learn->evidence[i] = cells[i].evidence;
	}
	learn->n_cells = n;
	return 0;
}

static int note_problems(struct learn *learn, const struct seen_flow *flow, const char *const *problems)
{
	uint64_t count = seen_count(flow);

	if (problems[flow->from] && add_note(learn, problems[flow->from], count, flow->first, flow->last) < 0)
		return -ENOMEM;
	if (problems[flow->to] && problems[flow->to] != problems[flow->from])
		return add_note(learn, problems[flow->to], count, flow->first, flow->last);
	return 0;
}

static int cells_of_peers(struct learn *learn, const char *const *problems)
{
	struct weighed_cell *cells = arena_array(&learn->arena, learn->flow_keys.n, sizeof(*cells));
	struct evidence all = {};
	size_t n = 0;

	if (!cells)
		return -ENOMEM;
	for (uint32_t i = 0; i < learn->flow_keys.n; i++) {
		const struct seen_flow *flow = &learn->flows[i];
		uint32_t from = learn->ends[flow->from].peer, to = learn->ends[flow->to].peer;

		evidence_add(&all, seen_count(flow), flow->first, flow->last);
		learn->summary.n_missing += flow->missing;
		if (!flow->missing)
			continue;
		if (from == NO_PEER || to == NO_PEER) {
			if (note_problems(learn, flow, problems) < 0)
				return -ENOMEM;
			continue;
		}
		learn->summary.n_learned++;
		cells[n++] =
			(struct weighed_cell){{{from, to, flow->point}}, {seen_count(flow), flow->first, flow->last}};
	}
	learn->summary.n_flows = learn->flow_keys.n;
	learn->summary.count = all.count;
	learn->summary.first = all.first;
	learn->summary.last = all.last;
	return set_cells(learn, cells, n);
}

static int cells_of_atoms(struct learn *learn)
{
	struct weighed_cell *cells = arena_array(&learn->arena, learn->n_cells, sizeof(*cells));

	if (!cells)
		return -ENOMEM;
	for (size_t i = 0; i < learn->n_cells; i++) {
		const uint32_t *at = learn->cells[i].at;

		cells[i] = (struct weighed_cell){{{learn->peers[at[0]].atom, learn->peers[at[1]].atom, at[2]}},
						 learn->evidence[i]};
	}
	return set_cells(learn, cells, learn->n_cells);
}

static int compare_notes(const void *a, const void *b)
{
	return strcmp(((const struct learn_note *)a)->text, ((const struct learn_note *)b)->text);
}

int learn_finish(struct learn *learn)
{
	const char **problems = arena_array(&learn->arena, learn->end_keys.n, sizeof(*problems));
	struct cover_box *boxes = NULL;
	size_t n_boxes = 0;

	if (!problems)
		return -ENOMEM;
	if (learn->flow_keys.n)
		qsort(learn->flows, learn->flow_keys.n, sizeof(*learn->flows), by_ends);
	if (find_missing(learn) < 0 || find_peers(learn, problems) < 0 || cells_of_peers(learn, problems) < 0 ||
	    learn_group(learn) < 0 || cells_of_atoms(learn) < 0 || learn_name_atoms(learn) < 0 ||
	    cover_boxes(&learn->arena, learn->cells, learn->n_cells, &boxes, &n_boxes) < 0 ||
	    learn_make_rules(learn, boxes, n_boxes) < 0)
		return -ENOMEM;
	if (learn->note_keys.n)
		qsort(learn->notes, learn->note_keys.n, sizeof(*learn->notes), compare_notes);
	return 0;
}

const struct learn_summary *learn_summary(const struct learn *learn)
{
	return &learn->summary;
}

const struct learn_rule *learn_rule_get(const struct learn *learn, size_t index)
{
	return index < learn->n_rules ? &learn->rules[index] : NULL;
}

const struct learn_note *learn_note_get(const struct learn *learn, size_t index)
{
	return index < learn->note_keys.n ? &learn->notes[index] : NULL;
}
