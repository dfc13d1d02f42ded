/* SPDX-License-Identifier: Apache-2.0 */
/*
 * graph_internal.h - a graph in the making: graph.c finds nodes and pairs, graph_edge.c judges a pair and puts it in words.
 */
#ifndef BULKHEAD_POLICY_GRAPH_INTERNAL_H
#define BULKHEAD_POLICY_GRAPH_INTERNAL_H

#include "policy/flow_space.h"
#include "policy/graph.h"

/* What a node selects: 0 asks nothing, else one more than the atom or network. Interned, so no padding. */
struct node_key {
	uint32_t who;
	uint32_t network;
};

struct pair_key {
	uint32_t from;
	uint32_t to;
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
	size_t n_joined;       /* in all of them */
	struct spans services; /* all that flows can have */
	size_t n_edges, edges_capacity;
	char **errorp;
};

/* Judges a pair, and adds an edge if something passes, or is denied and to be shown. `rules`: that join it, as in `joining`.
 * Returns 0, 1 with the reason in *drawing->errorp, or -ENOMEM. */
int graph_add_edge(struct drawing *drawing, struct pair_key pair, const struct list *rules);
/* Closes a memory stream and copies what it holds into the arena, without line ends behind, every line printable. Returns
 * NULL when out of memory. */
const char *graph_take_text(struct arena *arena, FILE *out, char **textp, size_t *lenp);

#endif
