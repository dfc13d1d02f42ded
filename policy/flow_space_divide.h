/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow_space_divide.h - a box cut along one dimension into the parts that the same rules meet.
 *
 * What is asked of a number in that dimension is which sets of the cubes have it. Between two ends of sets the answer is the
 * same, and intervals with the same answer are one group: a part of the box, with the cubes whose set holds there and those
 * that hold in all of it. In a part no cube falls short in the dimension any more.
 */
#ifndef BULKHEAD_POLICY_FLOW_SPACE_DIVIDE_H
#define BULKHEAD_POLICY_FLOW_SPACE_DIVIDE_H

#include "policy/flow_space_internal.h"

struct judging {
	struct flow_space *space;
	const struct space_policy *policy;
	unsigned wanted; /* RULE_EGRESS | RULE_INGRESS: the ends that judge */
	char **errorp;
	flow_piece_fn piece;
	void *context;
};

struct cubes {
	uint32_t *items; /* indices, in order */
	uint32_t n;
};

struct edge {
	uint32_t at;
	uint32_t set; /* number within the division */
	bool end;
};

/* A dimension of a box, cut where a set of one of the cubes begins or ends. */
struct division {
	uint32_t *sets; /* sets that fall short, each once */
	uint32_t n_sets;
	struct grouped members; /* by set: cubes, as positions in the list */
	uint32_t *common;	/* cubes that do not fall short */
	uint32_t n_common;
	struct edge *edges;
	uint32_t n_edges;
	struct span *intervals;
	uint32_t *group_of; /* by interval */
	uint32_t n_intervals;
	struct cubes *groups; /* sets of the division that hold there */
	uint32_t n_groups;
	uint32_t *slots; /* of groups, hashed: group + 1 */
	uint32_t n_slots;
	uint64_t probes; /* of slots: the hash is no secret, so a policy may be made to collide */
};

static inline const struct spans *cube_spans(const struct judging *j, const struct cube *cube, int dimension)
{
	return &j->space->set_spans[cube->set[dimension]];
}

/* For sorting uint32_t. */
int compare_numbers(const void *a, const void *b);

/* All memory is scratch. Returns 0, 1 with the error when the budget is spent, or -ENOMEM. */
int division_make(struct judging *j, struct division *x, const struct flow_box *box, const struct cubes *cubes, int d);
/* How much is left to do in the parts. */
uint64_t division_cost(const struct division *x);
/* The spans of every group: its intervals, joined where they touch. Returns false when out of memory. */
bool division_spans(struct judging *j, const struct division *x, struct spans *out);
/* The cubes of a group, in order. `cubes`: those that were divided. Returns false when out of memory. */
bool division_cubes(struct judging *j, const struct division *x, uint32_t group, const struct cubes *cubes,
		    struct cubes *out);

#endif
