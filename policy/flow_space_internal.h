/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow_space_internal.h - how a space is held, for the files that make it, judge in it and put it in words.
 *
 * A rule is one cube for each pair of a term of `from` and a term of `to`: five sets, of which equal ones are one. The
 * cubes of a policy stand in the order in which they decide, so a judgement is the first cube that matches, and a `pass`
 * goes on behind its tier.
 */
#ifndef BULKHEAD_POLICY_FLOW_SPACE_INTERNAL_H
#define BULKHEAD_POLICY_FLOW_SPACE_INTERNAL_H

#include "policy/compiler.h"
#include "policy/flow_space.h"

/* Memory in the order of a stack: what was taken since a mark is given back at once. Blocks are kept. */
struct scratch_block;

struct scratch {
	struct scratch_block *blocks; /* the one in use first */
	struct scratch_block *spare;
};

struct scratch_mark {
	struct scratch_block *block;
	size_t used;
};

void *scratch_alloc(struct scratch *scratch, size_t n, size_t item_size); /* not zeroed; NULL when out of memory */
struct scratch_mark scratch_mark(const struct scratch *scratch);
void scratch_release(struct scratch *scratch, struct scratch_mark mark);
void scratch_free(struct scratch *scratch);

/* Each writes at most a->n + b->n spans and returns how many. `out` is neither of them. */
uint32_t spans_intersect_to(struct span *out, const struct spans *a, const struct spans *b);
uint32_t spans_subtract_to(struct span *out, const struct spans *a, const struct spans *b);
uint32_t spans_unite_to(struct span *out, const struct spans *a, const struct spans *b);

/* The first span that does not end before a number. */
uint32_t spans_seek(const struct spans *spans, uint32_t number);

enum relation {
	APART,
	PARTLY,
	COVERED,
};

/* What a set is to a part of a box: no number in common, some, or all of the part. */
enum relation spans_relation(const struct spans *part, const struct spans *set);
/* The same; adds how many spans were looked at. */
enum relation spans_relation_counted(const struct spans *part, const struct spans *set, uint64_t *work);
bool spans_contain(const struct spans *spans, uint32_t number);

struct cube {
	uint32_t rule;
	uint32_t tier;
	uint32_t set[FLOW_DIMENSIONS]; /* numbers of interned sets */
	uint8_t directions;
	bool pass;
};

/* Lists by number, all in one array. */
struct grouped {
	uint32_t *start; /* n + 1 */
	uint32_t *items;
};

struct space_policy {
	const struct policy *policy;
	struct spans atoms[WHO_IDENTITY]; /* who, of the built-ins */
	struct spans known;		  /* who, verified or local: what `not` is the rest of */
	struct spans *identities;	  /* who, by identity */
	struct spans *networks;		  /* where, by network */

	struct cube *cubes;
	size_t n_cubes, cubes_capacity;
	struct grouped cubes_of_set[2]; /* by set, of FLOW_FROM_WHO and of FLOW_TO_WHO */
	struct grouped sets_of_who[2];	/* by who class; start is NULL where that would be too much */
	struct list who_sets[2];	/* the sets that there are */
};

#define EXAMPLE_ANY 0xffffffffU /* a segment that no pattern names */

/* How one ID of a who class is spelled. */
struct example_step {
	uint32_t before;  /* node, or itself at the start */
	uint32_t segment; /* of compiler->segments, or EXAMPLE_ANY */
};

/* The IDs of a list of patterns, as a policy writes it. */
struct pattern_set {
	const char *text;
	struct spans whos;
};

struct flow_space {
	struct arena arena;
	struct scratch scratch;
	int64_t now;
	uint64_t work, max_work;
	uint64_t set_bytes; /* of identities that are made of others */

	struct policy joint; /* places and patterns of every policy, each an identity; all networks */
	struct compiler compiler;
	struct place *places; /* by joint identity; those with patterns follow */
	uint32_t n_places;
	uint32_t n_who, n_where;
	address *first_address;		   /* by where class */
	uint32_t *where_of_set;		   /* by address set of the compiler; 0: no address is in it */
	struct spans all[FLOW_DIMENSIONS]; /* every class, also `no address` */
	struct spans real;		   /* where, all addresses */
	struct spans managed, unmanaged;   /* who */
	struct spans flows;		   /* services that a flow can have */

	struct intern sets; /* spans */
	struct spans *set_spans;
	size_t sets_capacity;

	struct pattern_set *patterns; /* NULL until it is asked for */
	size_t n_patterns;

	struct example_step *steps; /* by node of the search; NULL until it is asked for */
	uint32_t *node_of_class;    /* by SPIFFE class */

	struct space_policy policies[2];
	size_t n_policies;
};

/* While a space is made. */
struct joining {
	struct flow_space *space;
	struct intern keys;    /* of places */
	uint32_t *owners[2];   /* by policy and place: identity, or NO_OWNER */
	uint32_t *patterns[2]; /* by policy and identity: joint identity, or NO_OWNER */
};

#define NO_OWNER 0xffffffffU

/* Makes the places of a space, and finds whose they are to every policy. Returns 0 or -ENOMEM. */
int space_join_places(struct joining *joining);
/* Counts work. Returns 0, or 1 with *errorp when the budget is spent. */
int space_spend(struct flow_space *space, uint64_t work, char **errorp);
/* The number of a set of spans. Returns 0 or -ENOMEM. */
int space_intern(struct flow_space *space, const struct spans *spans, uint32_t *setp);
/* The where class of an address. */
uint32_t space_where_of(const struct flow_space *space, address a);
/* Who, and where, a term is about: all of them where it asks nothing. Memory: scratch. Return false when out of memory. */
bool space_term_who(struct flow_space *space, const struct space_policy *policy, const struct selector_term *term,
		    struct spans *out);
bool space_term_where(struct flow_space *space, const struct space_policy *policy, const struct selector_term *term,
		      struct spans *out);
/* Services as spans. Memory: scratch. */
bool space_services(struct flow_space *space, const struct service_range *ranges, uint32_t n, struct spans *out);
/* Writes a peer as `explain` takes it, in the words of a policy where it has some. Returns 0, or -ENOMEM. */
int space_write_who(struct flow_space *space, size_t policy, uint32_t who, FILE *out);
/* Makes cubes and indices. Returns 0, 1 with *errorp, or -ENOMEM. */
int space_prepare_rules(struct flow_space *space, struct space_policy *policy, char **errorp);

#endif
