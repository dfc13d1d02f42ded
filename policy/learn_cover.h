/* SPDX-License-Identifier: Apache-2.0 */
/*
 * learn_cover.h - a set of points in three dimensions as few boxes, each a product of three sets, that hold these points
 * and no other.
 *
 * The fewest is hard to find (it is set cover); so the box that adds most is taken again and again, among the largest
 * boxes that grow from points not yet held, and in the end each box is cut down to what no other one holds. The same
 * points give the same boxes.
 */
#ifndef BULKHEAD_POLICY_LEARN_COVER_H
#define BULKHEAD_POLICY_LEARN_COVER_H

#include <stddef.h>
#include <stdint.h>

#include "policy/memory.h"

#define COVER_AXES 3U

struct cover_cell {
	uint32_t at[COVER_AXES];
};

struct cover_box {
	uint32_t *items[COVER_AXES]; /* sorted */
	uint32_t n[COVER_AXES];
};

/* `cells` are sorted and different. Boxes are in the arena. Returns 0 or -ENOMEM. */
int cover_boxes(struct arena *arena, const struct cover_cell *cells, size_t n, struct cover_box **boxesp,
		size_t *n_boxesp);
int cover_cell_compare(const void *a, const void *b);

#endif
