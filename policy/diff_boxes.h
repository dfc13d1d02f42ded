/* SPDX-License-Identifier: Apache-2.0 */
/*
 * diff_boxes.h - sets of flows with the rules that decide them, joined to as few as possible.
 *
 * Judging cuts what changes into many small boxes. Two boxes that are the same in four dimensions are one box in which the
 * fifth is the union of both; this is repeated until nothing fits any more, first among boxes that the same rules decide,
 * then among all that change the same way, with the rules of both. The boxes given must not overlap; then the results do
 * not either. Sets of numbers and of rules are interned, so that comparing boxes is comparing a few numbers.
 */
#ifndef BULKHEAD_POLICY_DIFF_BOXES_H
#define BULKHEAD_POLICY_DIFF_BOXES_H

#include "policy/flow_space.h"

struct diff_box {
	uint32_t dim[FLOW_DIMENSIONS]; /* numbers in `spans` */
	uint32_t by;		       /* numbers in `rules`: what decides in the new policy */
	uint32_t before;	       /* and in the old one */
	bool allow;		       /* the verdict of the new policy */
};

struct diff_boxes {
	struct intern spans; /* struct span[] */
	struct intern rules; /* sorted rule numbers, FLOW_DEFAULT */
	struct diff_box *items;
	size_t n, capacity;
};

/* Sets of a flow box, interned. */
int diff_box_read(struct diff_boxes *boxes, struct diff_box *out, const struct flow_box *box);
/* The other way round; the sets are borrowed. */
void diff_box_write(const struct diff_boxes *boxes, struct flow_box *out, const struct diff_box *box);
/* Interns up to two rules as a set. */
int diff_rule_set(struct diff_boxes *boxes, uint32_t *setp, const uint32_t *rules, size_t n);
int diff_boxes_add(struct diff_boxes *boxes, const struct diff_box *box);
/* Joins what can be joined. Returns 0 or -ENOMEM. */
int diff_boxes_merge(struct diff_boxes *boxes);
void diff_boxes_free(struct diff_boxes *boxes);

#endif
