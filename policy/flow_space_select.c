/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow_space_select.c - the flows that a selector, a test or a rule is about, as boxes that do not overlap.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/flow_space_internal.h"

#define MAX_BOXES (1U << 20)

/* Who at where: one end of boxes. */
struct end {
	struct spans who;
	struct spans where;
};

struct ends {
	struct end *items;
	size_t n, capacity;
};

static void ends_free(struct ends *ends)
{
	free(ends->items);
}

/* One that is empty is no end. */
static int ends_push(struct ends *ends, struct spans who, struct spans where)
{
	if (!who.n || !where.n)
		return 0;
	if (ends->n == MAX_BOXES || array_grow(&ends->items, &ends->capacity, ends->n, sizeof(*ends->items)) < 0)
		return -ENOMEM;
	ends->items[ends->n++] = (struct end){who, where};
	return 0;
}

/* Adds what is not there yet. */
static int ends_add(struct flow_space *space, struct ends *ends, struct spans who, struct spans where)
{
	_cleanup_(ends_free) struct ends fresh = {};
	size_t old = ends->n;
	int r = ends_push(&fresh, who, where);

	for (size_t i = 0; i < old && r == 0; i++) {
		const struct end *have = &ends->items[i];
		size_t n = fresh.n;

		for (size_t k = 0; k < n && r == 0; k++) {
			struct end end = fresh.items[k];
			struct spans both, beside, outside;

			if (spans_relation(&end.who, &have->who) == APART ||
			    spans_relation(&end.where, &have->where) == APART)
				continue;
			if (!spans_intersect(space, &both, &end.who, &have->who) ||
			    !spans_subtract(space, &beside, &end.who, &have->who) ||
			    !spans_subtract(space, &outside, &end.where, &have->where))
				return -ENOMEM;
			/* Who is not there stays wherever; who is there, only elsewhere. */
			fresh.items[k] = (struct end){beside, end.where};
			r = ends_push(&fresh, both, outside);
		}
	}
	for (size_t i = 0; i < fresh.n && r == 0; i++)
		r = ends_push(ends, fresh.items[i].who, fresh.items[i].where);
	return r;
}

/* The spans of a term outlive the call: scratch is copied. */
static int copy_spans(struct flow_space *space, struct spans *spans)
{
	spans->items = arena_copy(&space->arena, spans->items, spans->n * sizeof(*spans->items));
	return spans->items ? 0 : -ENOMEM;
}

/* In a test an end that is a set stands for peers as one writes them: an ID without an address, an address without an ID. */
enum reading {
	AS_RULE,
	AS_TEST,
};

static int add_term(struct flow_space *space, const struct space_policy *policy, const struct selector_term *term,
		    enum reading reading, struct ends *ends)
{
	static struct span nowhere = {0, 0};
	struct scratch_mark mark = scratch_mark(&space->scratch);
	struct spans who, where;
	int r = 0;

	if (!space_term_who(space, policy, term, &who) || !space_term_where(space, policy, term, &where))
		return -ENOMEM;
	if (!term->n_networks)
		where = space->real;
	if (reading == AS_TEST && term->n_who && !term->n_networks)
		where = (struct spans){&nowhere, 1};
	if (reading == AS_TEST && !term->n_who && term->n_networks)
		who = policy->atoms[WHO_WORLD];
	r = copy_spans(space, &who);
	if (r == 0)
		r = copy_spans(space, &where);
	scratch_release(&space->scratch, mark);
	return r == 0 ? ends_add(space, ends, who, where) : r;
}

static int add_selector(struct flow_space *space, const struct space_policy *policy, const struct selector *selector,
			enum reading reading, struct ends *ends)
{
	int r = 0;

	for (uint32_t i = 0; i < selector->n_terms && r == 0; i++)
		r = add_term(space, policy, &selector->terms[i], reading, ends);
	return r;
}

/* ---- boxes ---- */

struct boxes {
	struct flow_box *items;
	size_t n, capacity;
};

static int push_box(struct boxes *boxes, const struct end *from, const struct end *to, const struct spans *services)
{
	if (!from->who.n || !to->who.n)
		return 0;
	if (boxes->n == MAX_BOXES || array_grow(&boxes->items, &boxes->capacity, boxes->n, sizeof(*boxes->items)) < 0)
		return -ENOMEM;
	boxes->items[boxes->n++] = (struct flow_box){{
		[FLOW_FROM_WHO] = from->who,
		[FLOW_FROM_WHERE] = from->where,
		[FLOW_TO_WHO] = to->who,
		[FLOW_TO_WHERE] = to->where,
		[FLOW_SERVICE] = *services,
	}};
	return 0;
}

/* Nobody judges what has no managed workload at either end. */
static int push_judged(struct flow_space *space, struct boxes *boxes, const struct end *from, const struct end *to,
		       const struct spans *services)
{
	struct end managed_from = *from, other_from = *from, managed_to = *to;
	int r;

	if (!spans_intersect(space, &managed_from.who, &from->who, &space->managed) ||
	    !spans_intersect(space, &other_from.who, &from->who, &space->unmanaged) ||
	    !spans_intersect(space, &managed_to.who, &to->who, &space->managed))
		return -ENOMEM;
	r = push_box(boxes, &managed_from, to, services);
	return r == 0 ? push_box(boxes, &other_from, &managed_to, services) : r;
}

static int push_product(struct flow_space *space, struct boxes *boxes, const struct ends *from, const struct ends *to,
			const struct spans *services, bool judged)
{
	int r = 0;

	for (size_t i = 0; i < from->n && services->n; i++)
		for (size_t k = 0; k < to->n && r == 0; k++)
			r = judged ? push_judged(space, boxes, &from->items[i], &to->items[k], services)
				   : push_box(boxes, &from->items[i], &to->items[k], services);
	return r;
}

static int hand_out(struct flow_space *space, struct boxes *boxes, int r, struct flow_box **boxesp, size_t *np)
{
	*np = boxes->n;
	*boxesp = arena_copy(&space->arena, boxes->items, boxes->n * sizeof(*boxes->items));
	free(boxes->items);
	return r == 0 && !*boxesp ? -ENOMEM : r;
}

static int real_services(struct flow_space *space, const struct service_range *ranges, uint32_t n, struct spans *out)
{
	struct scratch_mark mark = scratch_mark(&space->scratch);
	struct spans services;
	bool ok = space_services(space, ranges, n, &services) && spans_intersect(space, out, &services, &space->flows);

	scratch_release(&space->scratch, mark);
	return ok ? 0 : -ENOMEM;
}

int flow_space_everything(struct flow_space *space, struct flow_box **boxesp, size_t *np)
{
	const struct end everybody = {space->all[FLOW_FROM_WHO], space->real};
	struct boxes boxes = {};

	return hand_out(space, &boxes, push_judged(space, &boxes, &everybody, &everybody, &space->flows), boxesp, np);
}

int flow_space_select(struct flow_space *space, size_t policy, const struct selector *from, const struct selector *to,
		      const struct service_range *services, uint32_t n_services, struct flow_box **boxesp, size_t *np)
{
	_cleanup_(ends_free) struct ends sources = {}, destinations = {};
	const struct space_policy *names = &space->policies[policy];
	struct boxes boxes = {};
	struct spans points;
	int r = real_services(space, services, n_services, &points);

	if (r == 0)
		r = add_selector(space, names, from, AS_RULE, &sources);
	if (r == 0)
		r = add_selector(space, names, to, AS_RULE, &destinations);
	if (r == 0)
		r = push_product(space, &boxes, &sources, &destinations, &points, true);
	return hand_out(space, &boxes, r, boxesp, np);
}

int flow_space_select_rule(struct flow_space *space, size_t policy, uint32_t rule, struct flow_box **boxesp, size_t *np)
{
	const struct rule *r = &space->policies[policy].policy->rules[rule];

	return flow_space_select(space, policy, &r->from, &r->to, r->services, r->n_services, boxesp, np);
}

/* ---- tests ---- */

/* The class of an ID, by the automaton of the compiler. */
static uint32_t classify(const struct flow_space *space, const char *id)
{
	const struct compiler *c = &space->compiler;
	const char *at = id + strlen(SPIFFE_SCHEME);
	uint32_t state = 1;

	for (bool more = true; more;) {
		size_t len = strcspn(at, "/");
		const struct image_state *s = &c->states[state];
		uint32_t segment;

		state = s->otherwise;
		if (intern_find(&c->segments, at, len, &segment))
			for (uint32_t i = s->first_edge; i < s->first_edge + s->n_edges; i++)
				if (c->edges[i].segment == segment)
					state = c->edges[i].state;
		more = at[len];
		at += len + more;
	}
	return c->first_spiffe + c->states[state].who;
}

/* Where a local identity is: only its places, as nobody attested is a name. */
static int who_of_name(struct flow_space *space, const struct space_policy *policy, const char *name, struct spans *out)
{
	const struct compiler *c = &space->compiler;
	struct span places = {WHO_WORLD + 1, c->first_spiffe - 1};
	const struct spans local = {&places, c->first_spiffe > WHO_WORLD + 1};

	for (size_t i = 0; i < policy->policy->n_identities; i++) {
		const struct identity *identity = &policy->policy->identities[i];

		if (identity->n_places && identity->name && strcmp(identity->name, name) == 0)
			return spans_intersect(space, out, &policy->identities[i], &local) ? 0 : -ENOMEM;
	}
	return 1;
}

static int who_of_end(struct flow_space *space, const struct space_policy *policy, const struct flow_end *end,
		      struct spans *out, char **errorp)
{
	struct span *span = arena_alloc(&space->arena, sizeof(*span));
	int r;

	if (!span)
		return -ENOMEM;
	*out = (struct spans){span, 1};
	switch (end->kind) {
	case FLOW_END_SPIFFE:
		span->first = span->last = classify(space, end->id);
		return 0;
	case FLOW_END_NAME:
		r = who_of_name(space, policy, end->id, out);
		return r != 1 ? r
			      : flow_error(
					errorp,
					"'%s' is no SPIFFE ID, no address, and no local identity (unit or cgroup) of "
					"the policy",
					end->id);
	case FLOW_END_UNIDENTIFIED:
		span->first = span->last = WHO_UNIDENTIFIED;
		return 0;
	case FLOW_END_HOST:
		span->first = span->last = WHO_HOST;
		return 0;
	case FLOW_END_WORLD:
		break;
	}
	span->first = span->last = WHO_WORLD;
	return 0;
}

static int add_test_end(struct flow_space *space, const struct space_policy *policy, const struct test_end *end,
			struct ends *ends, char **errorp)
{
	struct span *span;
	struct spans who;
	int r;

	if (end->is_set)
		return add_selector(space, policy, &end->set, AS_TEST, ends);
	r = who_of_end(space, policy, &end->one, &who, errorp);
	span = r == 0 ? arena_alloc(&space->arena, sizeof(*span)) : NULL;
	if (r == 0 && !span)
		return -ENOMEM;
	if (r)
		return r;
	span->first = span->last = end->one.has_address ? space_where_of(space, end->one.address) : 0;
	return ends_push(ends, who, (struct spans){span, 1});
}

int flow_space_select_test(struct flow_space *space, size_t policy, const struct policy_test *test,
			   struct flow_box **boxesp, size_t *np, char **errorp)
{
	_cleanup_(ends_free) struct ends from = {}, to = {};
	const struct space_policy *names = &space->policies[policy];
	struct boxes boxes = {};
	struct spans points;
	int r = real_services(space, test->services, test->n_services, &points);

	*errorp = NULL;
	if (r == 0)
		r = add_test_end(space, names, &test->from, &from, errorp);
	if (r == 0)
		r = add_test_end(space, names, &test->to, &to, errorp);
	if (r == 0)
		r = push_product(space, &boxes, &from, &to, &points, true);
	/* A test of a flow that nobody judges says what `explain` says: it passes. */
	if (r == 0 && !boxes.n)
		r = push_product(space, &boxes, &from, &to, &points, false);
	return hand_out(space, &boxes, r, boxesp, np);
}
