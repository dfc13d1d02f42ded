/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compiler.h - from the model to tables, in steps that each shrink the world to classes.
 *
 *   who        what a peer can be by proof: built-ins, local identities, and every set of identities that some SPIFFE ID
 *              can be in (compile_who.c: the automaton)
 *   ranges     addresses and services, cut into intervals, and intervals in the same networks or rules made one class
 *              (compile_ranges.c)
 *   sides      who and address together -> the set of rules whose `from` (or `to`) matches: the from and to classes
 *              (compile_sides.c)
 *   rows       from class and to class -> for each service class the cell (compile_rows.c)
 *   image      the bytes (compile_image.c)
 *
 * Each step works on interned sets, so its cost follows what the policy can tell apart, not the number of rules. What a
 * policy might still blow up (states, overlaps, pairs) is bounded by one budget of work.
 */
#ifndef BULKHEAD_POLICY_COMPILER_H
#define BULKHEAD_POLICY_COMPILER_H

#include "bpf/abi.h"
#include "policy/image_format.h"
#include "policy/model.h"

#define COMPILER_MAX_WORK (2ULL << 30)
#define COMPILER_MAX_SET_BYTES ((size_t)256 << 20)
#define COMPILER_MAX_PAIRS (4U << 20)

struct range_class {
	address first;
	uint32_t class;
};

struct range_classes {
	struct range_class *items;
	size_t n, capacity;
};

/* One end of flows: which rules' selectors match. */
struct side {
	uint32_t *selector_of_rule;
	uint32_t n_selectors;
	struct list *rules_of_selector;
	uint32_t *class_of;    /* n_who * n_addr */
	struct intern classes; /* sets of selectors */
	uint32_t n;	       /* classes, after merging */
};

struct compiler {
	const struct policy *policy;
	struct arena arena;
	uint64_t work;
	char *error;

	/* who */
	uint32_t n_who, first_spiffe;
	struct list *who_atoms; /* by who: enum who_atom, sorted */
	uint32_t *local_who;	/* by identity; 0: not local */
	struct list *
		whos_of_identity; /* by identity that is used: who, sorted; a SPIFFE class is first_spiffe and its number */
	struct intern spiffe_classes; /* sets of identities */
	struct image_state *states;   /* edges name segments by number in `segments` */
	size_t n_states, states_capacity;
	struct image_edge *edges;
	size_t n_edges, edges_capacity;
	struct intern segments;

	/* ranges */
	struct intern address_sets; /* sets of networks, by address class */
	struct range_classes addr4, addr6;
	struct intern service_lists; /* sets of ranges, as they stand in rules */
	uint32_t *service_of_rule;
	struct intern service_sets;	 /* sets of service lists, by service class */
	struct list *classes_of_service; /* by service list */
	struct range_classes tcp, udp, icmp, icmp6;
	uint32_t n_svc; /* after merging */

	/* sides and rows */
	struct side from, to;
	uint32_t *row_of[2];	 /* by judgement: from.n * to.n */
	struct intern rows;	 /* of cells */
	uint32_t *poss_row;	 /* n_who * n_addr */
	struct intern poss_rows; /* of bits, by service class */
};

/* All return 0, 1 (does not fit; the reason is in compiler->error), or -ENOMEM. */
int compiler_too_large(struct compiler *compiler, const char *format, ...) __attribute__((format(printf, 2, 3)));
int compiler_spend(struct compiler *compiler, uint64_t work);
/* Needs policy->identities, n_identities and identity_order only. Afterwards who is 0 to n_who, of which the built-ins have
 * their enum who_atom, the local identities local_who, and the SPIFFE classes the numbers from first_spiffe on. */
int compile_who(struct compiler *compiler);
/* Frees all that a step made. */
void compiler_free(struct compiler *compiler);
int compile_ranges(struct compiler *compiler);
int compile_sides(struct compiler *compiler);
int compile_rows(struct compiler *compiler);
int compile_possible(struct compiler *compiler);
int compile_image(struct compiler *compiler, void **imagep, size_t *lenp);

#endif
