/* SPDX-License-Identifier: Apache-2.0 */
/*
 * graph_plan.h - a layout in the making: graph_layout.c gives nodes their columns and the columns their order,
 * graph_place.c everything its place.
 */
#ifndef BULKHEAD_POLICY_GRAPH_PLAN_H
#define BULKHEAD_POLICY_GRAPH_PLAN_H

#include "policy/graph_layout.h"

#define GRAPH_MARGIN 24.0
#define GRAPH_NODE_HEIGHT 30.0

/* A node, or the place of an arrow in a column that it passes. */
struct item {
	uint32_t column;
	uint32_t at; /* in its column */
	double key;  /* by which the column is ordered */
	double y, height;
	bool passing;
};

/* From a column to the next. */
struct link {
	uint32_t left, right; /* items */
	uint32_t stroke;
	double left_y, right_y;
};

struct column {
	uint32_t *items;
	uint32_t n;
	double x, width, gap;
};

struct plan {
	const struct graph *graph;
	struct graph_layout *layout;
	struct arena arena;
	bool *turned; /* by stroke */
	uint32_t *rank;
	struct item *items;
	uint32_t n_items;
	struct link *links; /* those of a stroke follow each other, left to right */
	uint32_t n_links;
	uint32_t *first_link; /* by stroke */
	struct column *columns;
	uint32_t n_columns;
};

/* The ends of a stroke, the left one first: turned if the stroke is. */
uint32_t graph_plan_from(const struct plan *plan, uint32_t stroke);
uint32_t graph_plan_to(const struct plan *plan, uint32_t stroke);
size_t graph_characters(const char *text);
/* The mean of something over the neighbours of each item on one side; `counts`: how many it has. */
void graph_plan_means(struct plan *plan, bool left, double (*of)(const struct item *item), double *means,
		      uint32_t *counts);
/* Gives places to nodes, strokes and labels. Returns 0 or -ENOMEM. */
int graph_plan_place(struct plan *plan);

#endif
