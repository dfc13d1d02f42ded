/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compiler.h - from the model to tables, in steps that each shrink the world to classes. What the tables are: abi_policy.h.
 *
 *   who        what a peer can be by proof: built-ins, local identities, and every set of identities that some SPIFFE ID
 *              can be in (compile_who.c: the automaton)
 *   ranges     addresses, cut into intervals, and intervals in the same networks made one class (compile_ranges.c)
 *   ranks      the order in which rules decide (compile_ranks.c)
 *   candidates the rules of a judgement, with what each asks of both ends; `possible` is a judgement with rules made for
 *              it (compile_possible.c)
 *   sides      who and address -> by view, the set of selectors that match: the classes (compile_sides.c)
 *   parts      from class and to class -> the rules that match, and from them a row; classes that behave alike are made
 *              one (compile_parts.c)
 *   rows       the rules that match -> by service the ranks that can decide (compile_rows.c)
 *   grids      a matrix stored as blocks, each once (compile_grid.c)
 *   image      the bytes (compile_image.c)
 *
 * Each step works on interned sets, so its cost follows what the policy can tell apart, not the number of rules. What a
 * policy might still blow up (states, overlaps, pairs) is bounded by one budget of work.
 *
 * The views WHO and BROAD are the same kind of thing. A small policy has no use for BROAD: one part less to ask is faster.
 * In a large one, selectors that fit many identities meet selectors that fit few, and every pair of them would be a
 * verdict of its own: so it is compiled again with the two kept apart.
 */
#ifndef BULKHEAD_POLICY_COMPILER_H
#define BULKHEAD_POLICY_COMPILER_H

#include "bpf/abi.h"
#include "policy/image_format.h"
#include "policy/model.h"

#define COMPILER_MAX_WORK (1ULL << 30) /* some five seconds */
#define COMPILER_MAX_SET_BYTES ((size_t)96 << 20)
#define COMPILER_MAX_ITEMS (8U << 20)		/* of a matrix, where it is held as a whole */
#define COMPILER_JOINED_BYTES ((size_t)1 << 20) /* of rows and lines: more, and BROAD is kept apart from WHO */

#define NO_PART 0xffffffffU

struct range_class {
	address first;
	uint32_t class;
};

struct range_classes {
	struct range_class *items;
	size_t n, capacity;
};

/* A term that asks for an address. */
struct address_term {
	uint32_t selector; /* number in its view */
	bool whoever;
};

/* The selectors of one view of one side. */
struct view {
	struct list *members; /* by selector: who; not of BH_VIEW_ADDR */
	size_t n_selectors, capacity;
	struct intern classes; /* sets of selectors */
	struct list *classes_of_selector;
	uint32_t *class_of; /* by who; BH_VIEW_ADDR: by who key and address class */
	uint32_t n;	    /* classes, after merging */
};

struct side {
	uint32_t n_who;
	struct view view[BH_VIEWS];
	struct intern who_codes, address_codes; /* of selectors: equal ones have one number */
	struct list view_of_code, selector_of_code;
	struct address_term *terms;
	size_t n_terms, terms_capacity;
	struct list *terms_of_network;
	struct list *terms_of_who;
	struct intern address_keys; /* sets of terms, that an address satisfies */
	uint32_t *key_of_set;	    /* by set of networks */
	uint32_t *key_of_addr;	    /* by address class */
	struct intern who_keys;	    /* sets of terms, that a who satisfies */
	uint32_t *who_key;	    /* by who */
	struct list scratch;
};

/* A rule in one judgement. */
struct candidate {
	uint32_t rank;
	uint32_t from[BH_VIEWS]; /* selector by view, or NO_PART */
	uint32_t to[BH_VIEWS];
};

/* What of a rule the rows ask for, again and again and in the order of ranks: it lies together, in that order. */
struct ranked_rule {
	const struct service_range *services; /* `only`, where it is one */
	struct service_range only;
	uint32_t n_services;
	uint32_t tier;
	enum rule_action action:8;
	unsigned directions:8;
	bool until;
};

/* A matrix: each row is a line, each line a list of (column, item) in order; what is not listed is 0. */
struct matrix {
	uint32_t rows, columns;
	const uint32_t *line_of_row;
	const struct intern *lines;
};

struct grid {
	uint32_t *index;
	uint32_t rows, width, shift;
	uint32_t *blocks;
	uint32_t n_blocks;
};

/* A pair of views. */
struct part {
	uint32_t from_view, to_view;
	struct intern lines[2]; /* by judgement; see struct matrix */
	uint32_t *line_of[2];	/* by source class */
	uint32_t *open_until;	/* by judgement and tier: lowest rank of a pass that another part may have */
	bool one_line;		/* both judgements are the same */
	struct grid grid[2];
};

struct judgements {
	unsigned n;	 /* egress and ingress, or one */
	bool first_only; /* the lowest rank decides, whatever it is */
	struct candidate *candidates;
	size_t n_candidates;
	struct side *from, *to;
	struct part parts[BH_MAX_PARTS];
	uint32_t n_parts;
};

struct compiler {
	const struct policy *policy;
	struct arena arena;
	uint64_t work;
	char *error;
	bool split; /* BROAD is kept apart */

	/* who */
	uint32_t n_who, first_spiffe;
	uint32_t *local_who; /* by identity; 0: not local */
	struct list *
		whos_of_identity; /* by identity that is used: who, sorted; a SPIFFE class is first_spiffe and its number */
	struct intern spiffe_classes; /* sets of identities */
	struct image_state *states;   /* edges name segments by number in `segments` */
	size_t n_states, states_capacity;
	struct image_edge *edges;
	size_t n_edges, edges_capacity;
	struct intern segments;

	/* ranges */
	struct intern address_sets; /* sets of networks */
	struct range_classes addr4, addr6;
	uint32_t n_addr;

	/* ranks */
	uint32_t *rule_of_rank, *rank_of_rule;
	struct ranked_rule *ranked;
	struct bh_rank *ranks;
	uint64_t *untils;
	uint32_t n_untils;

	/* verdicts */
	struct side sides[BH_SIDES];
	struct judgements verdicts, possible;
	struct intern rows;  /* struct bh_span */
	struct list row_at;  /* by row: number of its first span */
	struct intern links; /* struct bh_link; 0 is not used */
	struct grid side_grids[BH_SIDES];
};

/* All return 0, 1 (does not fit; the reason is in compiler->error), 2 (try again with `split`), or -ENOMEM. */
int compiler_too_large(struct compiler *compiler, const char *format, ...) __attribute__((format(printf, 2, 3)));
int compiler_spend(struct compiler *compiler, uint64_t work);
/* Needs policy->identities, n_identities and identity_order only. Afterwards who is 0 to n_who, of which the built-ins
 * have their enum who_atom, the local identities local_who, and the SPIFFE classes the numbers from first_spiffe on. */
int compile_who(struct compiler *compiler);
/* All steps, with `policy` and `split` given. */
int compiler_run(struct compiler *compiler, void **imagep, size_t *lenp);
/* Frees all that a step made. */
void compiler_free(struct compiler *compiler);
int compile_ranges(struct compiler *compiler);
int compile_ranks(struct compiler *compiler);
int compile_candidates(struct compiler *compiler);
int compile_possible(struct compiler *compiler);
int compile_sides(struct compiler *compiler);
int compile_parts(struct compiler *compiler);
uint32_t compile_log_bits(enum rule_log log);
int compile_image(struct compiler *compiler, void **imagep, size_t *lenp);

/* Numbers a selector of a side, by view; NO_PART where it has no term of that view. */
int side_select(struct compiler *compiler, struct side *side, const struct selector *selector,
		uint32_t numbers[BH_VIEWS]);

/* Rows of one part and judgement. */
struct row_maker;
int row_maker_new(struct row_maker **makerp, struct compiler *compiler);
void row_maker_free(struct row_maker *maker);
/* The row (struct bh_span, by the number of its first) of rules given as ranks in order. `open_until` by tier: a pass of
 * another part may leave that tier before a rule of this rank or a higher one. NULL: the lowest rank decides. */
int row_make(struct row_maker *maker, const uint32_t *ranks, size_t n, const uint32_t *open_until, uint32_t *rowp);

/* Stores a matrix as blocks of the size that makes it smallest. */
int grid_make(struct compiler *compiler, struct grid *grid, const struct matrix *matrix);
size_t grid_bytes(const struct grid *grid);

#endif
