/* SPDX-License-Identifier: Apache-2.0 */
/*
 * graph_layout.h - where the parts of a graph stand in a picture: columns from left to right, so that arrows lead to the
 * right as far as they do not lead in circles.
 *
 * After K. Sugiyama, S. Tagawa and M. Toda, "Methods for Visual Understanding of Hierarchical System Structures" (1981):
 * arrows that close a circle are turned, nodes get the column of their longest way, an arrow over several columns has a
 * place in each, and each column is ordered by where its neighbours stand. The same graph gives the same picture.
 */
#ifndef BULKHEAD_POLICY_GRAPH_LAYOUT_H
#define BULKHEAD_POLICY_GRAPH_LAYOUT_H

#include "policy/graph.h"

#define GRAPH_CHAR_WIDTH 7.3 /* of names; those of labels are smaller */
#define GRAPH_LABEL_CHAR_WIDTH 6.1
#define GRAPH_LABEL_LINE 13.0
#define GRAPH_MAX_NAME 30U  /* characters shown of a name */
#define GRAPH_MAX_LABEL 32U /* and of a line of a label */

struct graph_point {
	double x;
	double y;
};

/* Where the box of a node is. */
struct graph_place {
	double x;
	double y;
	double width;
	double height;
};

/* An arrow. One edge has two if something is denied: that has its own. */
struct graph_stroke {
	uint32_t edge;
	bool denied;
	bool loop; /* from a node to itself: no points, but a label */
	uint32_t n_points;
	struct graph_point *points; /* from its beginning to its end: curves from 0 to 1, 2 to 3, ..., lines between */
	struct graph_place label;
	const char *lines[2]; /* of the label; NULL: none */
};

struct graph_layout {
	struct arena arena;
	struct graph_place *nodes;
	struct graph_stroke *strokes;
	uint32_t n_strokes;
	double width;
	double height;
};

/* Returns 0 or -ENOMEM. */
int graph_layout_new(struct graph_layout **layoutp, const struct graph *graph);
void graph_layout_freep(struct graph_layout **layoutp);

/* At most `max` characters of a text, the rest as "…"; in the arena. */
const char *graph_shorten(struct arena *arena, const char *text, size_t max);

#endif
