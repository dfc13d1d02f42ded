/* SPDX-License-Identifier: Apache-2.0 */
/*
 * graph.h - who may talk to whom, as a picture: nodes are the identities, networks and built-in names that rules speak of,
 * an arrow is traffic that passes.
 *
 * Arrows are drawn from verdicts, not from rules: each pair of names that rules join is judged in the space of flows, on
 * the services of these rules, by both ends and with every rule that has a say. Where all members of both ends may talk the
 * service is in `all`, where only some of them may, in `part`. What no rule joins by name has no arrow of its own: web has
 * those of a set that it is in. With `from` or `to` one name is judged against all others, on all services, whoever names
 * it.
 */
#ifndef BULKHEAD_POLICY_GRAPH_H
#define BULKHEAD_POLICY_GRAPH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "policy/memory.h"
#include "policy/policy.h"

enum graph_kind {
	GRAPH_IDENTITY, /* by SPIFFE ID, or made of others */
	GRAPH_LOCAL,	/* by unit or cgroup */
	GRAPH_NETWORK,
	GRAPH_BOTH, /* an identity at a network */
	GRAPH_BUILTIN,
};

struct graph_node {
	const char *name;
	const char *about; /* lines: what it is, where it is defined; or "" */
	enum graph_kind kind;
};

struct graph_edge {
	uint32_t from;
	uint32_t to;
	const char *all;    /* services on which every flow from one to the other passes; "" if there is none */
	const char *part;   /* on which some pass and some do not; likewise */
	const char *denied; /* on which a deny rule denies some; only if asked for */
	const char *rules;  /* that decide, a line each: "NAME (FILE:LINE), egress" */
};

struct graph {
	struct arena arena;
	const char *title;
	struct graph_node *nodes;
	uint32_t n_nodes;
	struct graph_edge *edges;
	uint32_t n_edges;
};

struct graph_request {
	const char *from; /* NULL: as the rules say */
	const char *to;
	bool denied; /* also what deny rules deny */
	int64_t now; /* seconds since 1970 */
	uint32_t max_nodes;
	uint32_t max_edges;
};

#define GRAPH_NO_NAME 2

/* Returns 0; with the reason in *errorp (owned by the caller) GRAPH_NO_NAME if the request names what the policy does not
 * define, or 1: too many nodes or edges, too complex; or -ENOMEM. */
int policy_graph(struct graph **graphp, const struct policy *policy, const struct graph_request *request,
		 char **errorp);
void graph_freep(struct graph **graphp);

/* ---- on paper ---- */

/* In the language of Graphviz. */
void graph_write_dot(const struct graph *graph, FILE *out);
/* A flowchart of Mermaid. */
void graph_write_mermaid(const struct graph *graph, FILE *out);
/* A picture laid out here. Returns 0 or -ENOMEM. */
int graph_write_svg(const struct graph *graph, FILE *out);
/* The same within one page that needs nothing else: it searches, and shows what stands behind an arrow. */
int graph_write_html(const struct graph *graph, FILE *out);

#endif
