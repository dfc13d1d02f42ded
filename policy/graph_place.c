/* SPDX-License-Identifier: Apache-2.0 */
/*
 * graph_place.c - places in a picture, once the columns are in order.
 */
#include <errno.h>

#include "policy/graph_plan.h"

#define PORT_HEIGHT 11.0
#define LOOP_HEIGHT 30.0
#define NODE_GAP 20.0
#define LINE_GAP 14.0 /* of an arrow that passes a column */
#define MIN_COLUMN_GAP 110.0
#define MAX_COLUMN_GAP 260.0
#define MAX_CURVES_TRIED 8U
#define PLACE_SWEEPS 24U

static double middle_of(const struct item *item)
{
	return item->y + item->height / 2;
}

static bool has_loop(const struct plan *plan, uint32_t node)
{
	for (uint32_t s = 0; s < plan->layout->n_strokes; s++)
		if (plan->layout->strokes[s].loop && graph_plan_from(plan, s) == node)
			return true;
	return false;
}

/* A node is as high as its arrows need. */
static int size_items(struct plan *plan)
{
	uint32_t *left = arena_array(&plan->arena, plan->n_items, sizeof(*left));
	uint32_t *right = arena_array(&plan->arena, plan->n_items, sizeof(*right));

	if (!left || !right)
		return -ENOMEM;
	for (uint32_t i = 0; i < plan->n_links; i++) {
		right[plan->links[i].left]++;
		left[plan->links[i].right]++;
	}
	for (uint32_t i = 0; i < plan->graph->n_nodes; i++) {
		uint32_t ports = left[i] > right[i] ? left[i] : right[i];
		double height = (ports + 1) * PORT_HEIGHT;
		const char *name = graph_shorten(&plan->arena, plan->graph->nodes[i].name, GRAPH_MAX_NAME);
		struct column *column = &plan->columns[plan->items[i].column];

		if (!name)
			return -ENOMEM;
		if (height > GRAPH_NODE_HEIGHT)
			plan->items[i].height = height;
		plan->layout->nodes[i].height = plan->items[i].height;
		plan->layout->nodes[i].width = (double)graph_characters(name) * GRAPH_CHAR_WIDTH + 24;
		if (plan->layout->nodes[i].width > column->width)
			column->width = plan->layout->nodes[i].width;
		if (has_loop(plan, i))
			plan->items[i].height += LOOP_HEIGHT;
	}
	return 0;
}

static double distance(const struct item *above, const struct item *below)
{
	return above->height + (above->passing && below->passing ? LINE_GAP : NODE_GAP);
}

/* Moves the items of a column to where they want to be as far as they leave each other room: the middle between all that
 * push down and all that push up. */
static void settle_column(struct plan *plan, struct column *column, const double *wanted, double *down, double *up)
{
	for (uint32_t i = 0; i < column->n; i++) {
		uint32_t item = column->items[i];

		down[i] = wanted[item];
		if (i) {
			double least = down[i - 1] + distance(&plan->items[column->items[i - 1]], &plan->items[item]);

			down[i] = down[i] > least ? down[i] : least;
		}
	}
	for (uint32_t i = column->n; i-- > 0;) {
		uint32_t item = column->items[i];

		up[i] = wanted[item];
		if (i + 1 < column->n) {
			double most = up[i + 1] - distance(&plan->items[item], &plan->items[column->items[i + 1]]);

			up[i] = up[i] < most ? up[i] : most;
		}
	}
	for (uint32_t i = 0; i < column->n; i++)
		plan->items[column->items[i]].y = (down[i] + up[i]) / 2;
}

static int place_items(struct plan *plan)
{
	double *wanted = arena_array(&plan->arena, plan->n_items, sizeof(*wanted)), *down, *up, top = 0;
	uint32_t *counts = arena_array(&plan->arena, plan->n_items, sizeof(*counts));

	down = arena_array(&plan->arena, plan->n_items, sizeof(*down));
	up = arena_array(&plan->arena, plan->n_items, sizeof(*up));
	if (!wanted || !counts || !down || !up)
		return -ENOMEM;
	for (unsigned sweep = 0; sweep <= PLACE_SWEEPS; sweep++) {
		for (uint32_t c = 0; c < plan->n_columns; c++) {
			struct column *column = &plan->columns[sweep % 2 ? plan->n_columns - 1 - c : c];

			graph_plan_means(plan, sweep % 2 == 0, middle_of, wanted, counts);
			for (uint32_t i = 0; i < column->n; i++) {
				struct item *item = &plan->items[column->items[i]];

				if (counts[column->items[i]] && sweep)
					wanted[column->items[i]] -= item->height / 2;
				else
					wanted[column->items[i]] = item->y;
			}
			settle_column(plan, column, wanted, down, up);
		}
	}
	for (uint32_t i = 0; i < plan->n_items; i++)
		top = !i || plan->items[i].y < top ? plan->items[i].y : top;
	for (uint32_t i = 0; i < plan->n_items; i++) {
		plan->items[i].y += GRAPH_MARGIN - top;
		if (plan->items[i].y + plan->items[i].height + GRAPH_MARGIN > plan->layout->height)
			plan->layout->height = plan->items[i].y + plan->items[i].height + GRAPH_MARGIN;
	}
	return 0;
}

/* Labels stand between the columns. */
static void place_columns(struct plan *plan)
{
	double x = GRAPH_MARGIN;

	for (uint32_t i = 0; i < plan->n_links; i++) {
		struct column *column = &plan->columns[plan->items[plan->links[i].left].column];
		double wanted = plan->layout->strokes[plan->links[i].stroke].label.width + 50;

		if (wanted > column->gap)
			column->gap = wanted;
	}
	for (uint32_t c = 0; c < plan->n_columns; c++) {
		struct column *column = &plan->columns[c];

		column->gap = column->gap < MIN_COLUMN_GAP ? MIN_COLUMN_GAP : column->gap;
		column->gap = column->gap > MAX_COLUMN_GAP ? MAX_COLUMN_GAP : column->gap;
		column->x = x;
		x += column->width + (c + 1 < plan->n_columns ? column->gap : 0);
	}
	plan->layout->width = x + GRAPH_MARGIN;
	for (uint32_t i = 0; i < plan->graph->n_nodes; i++) {
		struct graph_place *place = &plan->layout->nodes[i];
		const struct column *column = &plan->columns[plan->items[i].column];

		place->x = column->x + (column->width - place->width) / 2;
		place->y = plan->items[i].y + plan->items[i].height - place->height;
	}
}

/* ---- arrows ---- */

/* The links of each item on one side, item after item. */
struct sides {
	uint32_t *start; /* by item, and the end */
	uint32_t *links;
};

static uint32_t own_item(const struct link *link, bool left_side)
{
	return left_side ? link->right : link->left;
}

static int list_sides(struct plan *plan, bool left_side, struct sides *sides)
{
	sides->start = arena_array(&plan->arena, (size_t)plan->n_items + 2, sizeof(uint32_t));
	sides->links = arena_array(&plan->arena, plan->n_links, sizeof(uint32_t));
	if (!sides->start || !sides->links)
		return -ENOMEM;
	for (uint32_t i = 0; i < plan->n_links; i++)
		sides->start[own_item(&plan->links[i], left_side) + 2]++;
	for (uint32_t i = 2; i < plan->n_items + 2; i++)
		sides->start[i] += sides->start[i - 1];
	for (uint32_t i = 0; i < plan->n_links; i++)
		sides->links[sides->start[own_item(&plan->links[i], left_side) + 1]++] = i;
	return 0;
}

/* Arrows leave and reach a node side by side, in the order of where they come from and go to. */
static int place_ports(struct plan *plan, bool left_side)
{
	struct sides sides;

	if (list_sides(plan, left_side, &sides) < 0)
		return -ENOMEM;
	for (uint32_t i = 0; i < plan->n_links; i++) {
		struct link *link = &plan->links[i];
		uint32_t own = own_item(link, left_side), above = 0;
		uint32_t all = sides.start[own + 1] - sides.start[own];
		double other = middle_of(&plan->items[own_item(link, !left_side)]), y;

		for (uint32_t k = sides.start[own]; k < sides.start[own + 1]; k++) {
			uint32_t rival = sides.links[k];
			double theirs = middle_of(&plan->items[own_item(&plan->links[rival], !left_side)]);

			above += theirs < other || (theirs == other && rival < i);
		}
		y = plan->items[own].passing ? middle_of(&plan->items[own])
					     : plan->layout->nodes[own].y + plan->layout->nodes[own].height *
										    (above + 1) / (double)(all + 1);
		*(left_side ? &link->right_y : &link->left_y) = y;
	}
	return 0;
}

/* Where a link leaves and reaches: at the box of a node, or at the edge of the column that it passes. */
static double left_x(const struct plan *plan, const struct link *link)
{
	const struct column *column = &plan->columns[plan->items[link->left].column];
	const struct graph_place *node = &plan->layout->nodes[link->left];

	return plan->items[link->left].passing ? column->x + column->width : node->x + node->width;
}

static double right_x(const struct plan *plan, const struct link *link)
{
	return plan->items[link->right].passing ? plan->columns[plan->items[link->right].column].x
						: plan->layout->nodes[link->right].x;
}

static int draw_strokes(struct plan *plan)
{
	for (uint32_t s = 0; s < plan->layout->n_strokes; s++) {
		struct graph_stroke *stroke = &plan->layout->strokes[s];
		uint32_t n = plan->first_link[s + 1] - plan->first_link[s];
		struct graph_point *points = arena_array(&plan->layout->arena, 2 * (size_t)n + 1, sizeof(*points));

		if (!points)
			return -ENOMEM;
		for (uint32_t i = 0; i < n; i++) {
			const struct link *link = &plan->links[plan->first_link[s] + i];
			uint32_t at = plan->turned[s] ? 2 * (n - 1 - i) : 2 * i;

			points[at + plan->turned[s]] = (struct graph_point){left_x(plan, link), link->left_y};
			points[at + !plan->turned[s]] = (struct graph_point){right_x(plan, link), link->right_y};
		}
		stroke->points = points;
		stroke->n_points = 2 * n;
	}
	return 0;
}

/* ---- labels ---- */

static bool overlaps(const struct graph_place *a, const struct graph_place *b)
{
	return a->x < b->x + b->width && b->x < a->x + a->width && a->y < b->y + b->height && b->y < a->y + a->height;
}

/* How many boxes and labels of the strokes before are in the way? */
static uint32_t obstacles(const struct plan *plan, const struct graph_place *label, uint32_t stroke)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < plan->graph->n_nodes; i++)
		n += overlaps(label, &plan->layout->nodes[i]);
	for (uint32_t i = 0; i < stroke; i++)
		n += overlaps(label, &plan->layout->strokes[i].label);
	return n;
}

/* A point of the curve between two points with level ends: the cubic Bezier curve that svg draws. */
static struct graph_point curve_at(struct graph_point a, struct graph_point b, double t)
{
	double rise = t * t * (3 - 2 * t), u = 1 - t;
	double middle = (a.x + b.x) / 2;

	return (struct graph_point){u * u * u * a.x + 3 * u * u * t * middle + 3 * u * t * t * middle + t * t * t * b.x,
				    a.y + (b.y - a.y) * rise};
}

static void place_label(struct plan *plan, uint32_t s)
{
	static const double spots[] = {0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74, 0.18, 0.82};
	struct graph_stroke *stroke = &plan->layout->strokes[s];
	uint32_t curves = stroke->n_points / 2, least = UINT32_MAX;
	struct graph_place best = stroke->label;

	for (uint32_t k = 0; k < curves && k < MAX_CURVES_TRIED && least; k++) {
		const struct graph_point *points = &stroke->points[2 * ((curves / 2 + k) % curves)];

		for (size_t i = 0; i < sizeof(spots) / sizeof(spots[0]) && least; i++) {
			struct graph_point point = curve_at(points[0], points[1], spots[i]);
			struct graph_place label = stroke->label;
			uint32_t n;

			label.x = point.x - label.width / 2;
			label.y = point.y - label.height / 2;
			n = obstacles(plan, &label, s);
			if (n < least) {
				least = n;
				best = label;
			}
		}
	}
	stroke->label = best;
}

static void place_labels(struct plan *plan)
{
	for (uint32_t s = 0; s < plan->layout->n_strokes; s++) {
		struct graph_stroke *stroke = &plan->layout->strokes[s];
		const struct graph_place *node = &plan->layout->nodes[graph_plan_from(plan, s)];

		if (!stroke->loop) {
			place_label(plan, s);
			continue;
		}
		stroke->label.x = node->x + node->width / 2 + 14;
		stroke->label.y = node->y - LOOP_HEIGHT + (stroke->denied ? GRAPH_LABEL_LINE : 0);
		if (stroke->label.x + stroke->label.width + GRAPH_MARGIN > plan->layout->width)
			plan->layout->width = stroke->label.x + stroke->label.width + GRAPH_MARGIN;
	}
}

int graph_plan_place(struct plan *plan)
{
	int r;

	if (size_items(plan) < 0 || place_items(plan) < 0)
		return -ENOMEM;
	place_columns(plan);
	if (place_ports(plan, true) < 0 || place_ports(plan, false) < 0)
		return -ENOMEM;
	r = draw_strokes(plan);
	if (r == 0)
		place_labels(plan);
	return r;
}
