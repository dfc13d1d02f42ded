/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow_space_example.c - one flow of a box, as `explain` takes it. An ID of a class is found by a search from the root of the
 * compiled patterns: the shortest one, of segments that the policies name where that is possible.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/flow_space_internal.h"

#define NO_STEP 0xffffffffU

/* A node is a state, with how many segments have been read: none, the trust domain, or more. Only then is it an ID. */
#define LEVELS 3U

struct search {
	struct flow_space *space;
	struct list queue;
};

static int reach(struct search *search, uint32_t before, uint32_t state, uint32_t segment)
{
	uint32_t level = before % LEVELS, node = state * LEVELS + (level < 2 ? level + 1 : 2);
	struct flow_space *space = search->space;

	if (space->steps[node].before != NO_STEP)
		return 0;
	space->steps[node] = (struct example_step){before, segment};
	if (node % LEVELS == 2 && space->node_of_class[space->compiler.states[state].who] == NO_STEP)
		space->node_of_class[space->compiler.states[state].who] = node;
	return list_push(&search->queue, node);
}

static int search_examples(struct search *search)
{
	const struct compiler *c = &search->space->compiler;
	uint32_t start = LEVELS; /* of state 1 */

	search->space->steps[start].before = start;
	if (list_push(&search->queue, start) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < search->queue.n; i++) {
		uint32_t node = search->queue.items[i];
		const struct image_state *state = &c->states[node / LEVELS];

		for (uint32_t e = state->first_edge; e < state->first_edge + state->n_edges; e++)
			if (reach(search, node, c->edges[e].state, c->edges[e].segment) < 0)
				return -ENOMEM;
		if (reach(search, node, state->otherwise, EXAMPLE_ANY) < 0)
			return -ENOMEM;
	}
	return 0;
}

static int find_examples(struct flow_space *space)
{
	struct search search = {.space = space};
	size_t n = space->compiler.n_states * LEVELS, n_classes = space->n_who - space->compiler.first_spiffe;
	int r;

	if (space->steps)
		return 0;
	space->steps = arena_array(&space->arena, n, sizeof(*space->steps));
	space->node_of_class = arena_array(&space->arena, n_classes, sizeof(uint32_t));
	if (!space->steps || !space->node_of_class)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		space->steps[i].before = NO_STEP;
	for (size_t i = 0; i < n_classes; i++)
		space->node_of_class[i] = NO_STEP;
	r = search_examples(&search);
	list_free(&search.queue);
	return r;
}

/* A segment that no edge of a state names. */
static void write_any(const struct flow_space *space, uint32_t node, FILE *out)
{
	const struct compiler *c = &space->compiler;
	const struct image_state *state = &c->states[node / LEVELS];
	const char *format = node % LEVELS == 0 ? "other%s%s.example" : "any%s%s";
	char text[64], number[16] = "";
	bool taken = true;

	for (unsigned i = 0; taken; i++) {
		uint32_t segment;

		if (i)
			snprintf(number, sizeof(number), "%u", i);
		snprintf(text, sizeof(text), format, i ? "-" : "", number);
		taken = false;
		if (intern_find(&c->segments, text, strlen(text), &segment))
			for (uint32_t e = state->first_edge; e < state->first_edge + state->n_edges; e++)
				taken = taken || c->edges[e].segment == segment;
	}
	fputs(text, out);
}

static int write_id(struct flow_space *space, uint32_t class, FILE *out)
{
	struct list path = {};
	uint32_t node;
	int r = find_examples(space);

	if (r)
		return r;
	for (node = space->node_of_class[class]; node != NO_STEP && space->steps[node].before != node && r == 0;
	     node = space->steps[node].before)
		r = list_push(&path, node);
	fputs("spiffe:/", out);
	for (size_t i = path.n; i-- > 0;) {
		const struct example_step *step = &space->steps[path.items[i]];
		const struct intern_entry *segments = space->compiler.segments.entries;

		fputc('/', out);
		if (step->segment == EXAMPLE_ANY)
			write_any(space, step->before, out);
		else
			fwrite(segments[step->segment].bytes, 1, segments[step->segment].len, out);
	}
	list_free(&path);
	return r;
}

/* The name by which a policy knows a place; NULL if it has none for it. */
static const char *place_name(const struct space_policy *policy, uint32_t who)
{
	for (size_t i = 0; i < policy->policy->n_identities; i++) {
		const struct identity *identity = &policy->policy->identities[i];

		if (identity->n_places && !identity->unnamed && spans_contain(&policy->identities[i], who))
			return identity->name;
	}
	return NULL;
}

static void write_place(const struct flow_space *space, size_t policy, uint32_t who, FILE *out)
{
	const char *name = place_name(&space->policies[policy], who);

	for (size_t i = 0; i < space->n_policies && !name; i++)
		name = place_name(&space->policies[i], who);
	fputs(name ? name : space->places[who - WHO_WORLD - 1].path, out);
}

int space_write_who(struct flow_space *space, size_t policy, uint32_t who, FILE *out)
{
	static const char *const names[] = {"unidentified", "host", "world"};

	if (who <= WHO_WORLD)
		fputs(names[who], out);
	else if (who < space->compiler.first_spiffe)
		write_place(space, policy, who, out);
	else
		return write_id(space, who - space->compiler.first_spiffe, out);
	return 0;
}

static char *example_end(struct flow_space *space, uint32_t who, uint32_t where)
{
	char *text = NULL, at[ADDRESS_TEXT_BYTES];
	size_t size;
	FILE *out = open_memstream(&text, &size);
	int r = 0;

	if (!out)
		return NULL;
	if (where) {
		bool v4 = address_is_v4(space->first_address[where]);

		address_format(at, space->first_address[where], v4, v4 ? 32 : 128);
		*strchrnul(at, '/') = 0;
	}
	if (who != WHO_WORLD || !where)
		r = space_write_who(space, 0, who, out);
	if (where)
		fprintf(out, "%s%s", who == WHO_WORLD ? "" : "@", at);
	if (fclose(out) != 0 || r < 0) {
		free(text);
		return NULL;
	}
	return text;
}

/* The peer that says most: an address alone, or an ID that the policy has a name for, or what there is. */
static uint32_t example_who(const struct flow_space *space, const struct spans *who, bool at_address)
{
	uint32_t spiffe = space->compiler.first_spiffe;

	if (at_address && spans_contain(who, WHO_WORLD))
		return WHO_WORLD;
	for (uint32_t i = 0; i < who->n; i++)
		if (who->items[i].last > spiffe)
			return who->items[i].first > spiffe ? who->items[i].first : spiffe + 1;
	for (uint32_t i = 0; i < who->n; i++)
		if (who->items[i].last > WHO_WORLD)
			return who->items[i].first > WHO_WORLD ? who->items[i].first : WHO_WORLD + 1;
	return who->items[0].first;
}

int flow_space_example(struct flow_space *space, const struct flow_box *box, char **fromp, char **top, char **servicep)
{
	uint32_t first[FLOW_DIMENSIONS];
	char service[SERVICE_TEXT_BYTES];

	for (int d = 0; d < FLOW_DIMENSIONS; d++)
		first[d] = box->dim[d].items[0].first;
	first[FLOW_FROM_WHO] = example_who(space, &box->dim[FLOW_FROM_WHO], first[FLOW_FROM_WHERE]);
	first[FLOW_TO_WHO] = example_who(space, &box->dim[FLOW_TO_WHO], first[FLOW_TO_WHERE]);
	service_format(service, sizeof(service), (struct service_range){first[FLOW_SERVICE], first[FLOW_SERVICE]});
	*fromp = example_end(space, first[FLOW_FROM_WHO], first[FLOW_FROM_WHERE]);
	*top = example_end(space, first[FLOW_TO_WHO], first[FLOW_TO_WHERE]);
	*servicep = strdup(service);
	if (*fromp && *top && *servicep)
		return 0;
	free(*fromp);
	free(*top);
	free(*servicep);
	*fromp = *top = *servicep = NULL;
	return -ENOMEM;
}
