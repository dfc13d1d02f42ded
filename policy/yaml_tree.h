/* SPDX-License-Identifier: Apache-2.0 */
/*
 * yaml_tree.h - a YAML file as a tree of nodes with positions.
 *
 * An alias is a second pointer to the node it names, never a copy, so a file cannot blow up in memory; and each node
 * knows how many nodes a walk over it meets, so a file whose aliases multiply is refused before anyone walks it. Depth
 * and the number of nodes of all files together are bounded. Nothing here recurses.
 */
#ifndef BULKHEAD_POLICY_YAML_TREE_H
#define BULKHEAD_POLICY_YAML_TREE_H

#include "policy/diagnostics.h"
#include "policy/memory.h"

#define YAML_TREE_MAX_DEPTH 16U
#define YAML_TREE_MAX_NODES (4U << 20) /* of one policy: 100,000 rules have two million */

enum node_kind {
	NODE_SCALAR,
	NODE_LIST,
	NODE_MAP,
};

/* A policy of 100,000 rules has two million, so they are kept small. */
struct node {
	struct position at;
	enum node_kind kind:8;
	bool open;	   /* while it is read */
	bool plain;	   /* a scalar without quotes, which other languages may take for null or a number */
	uint32_t n;	   /* items of a list; of a map twice the entries: key, value, key, value */
	uint32_t weight;   /* nodes met by a walk, itself included */
	struct node *self; /* so that one value can be read as a list of one */
	union {
		const char *text; /* scalar, no NUL within; lies behind the node */
		struct node **items;
	};
};
_Static_assert(sizeof(struct node) == 40, "two million of them");

/*
 * Reads one source. *budgetp is how many nodes may still be met, over all sources. On bad input *rootp is NULL and the
 * reason is among the diagnostics. Memory that ran out is remembered in arena and diagnostics.
 */
void yaml_tree_read(struct node **rootp, struct arena *arena, const struct policy_source *source, uint32_t index,
		    uint32_t *budgetp, struct policy_diagnostics *diagnostics);
/* Likewise a source of any number of documents, an array of their roots in the arena. Returns whether it could be read. */
bool yaml_tree_read_stream(struct node ***rootsp, size_t *np, struct arena *arena, const struct policy_source *source,
			   uint32_t index, uint32_t *budgetp, struct policy_diagnostics *diagnostics);

#endif
