/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/graph_layout.h"
#include "policy/text.h"

#define MARGIN 24.0
#define NODE_HEIGHT 30.0
#define PORT_HEIGHT 11.0
#define LOOP_HEIGHT 30.0
#define NODE_GAP 20.0
#define LINE_GAP 14.0 /* of an arrow that passes a column */
#define MIN_COLUMN_GAP 110.0
#define MAX_COLUMN_GAP 260.0
#define MAX_CURVES_TRIED 8U
#define ORDER_SWEEPS 16U
#define PLACE_SWEEPS 24U

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

static uint32_t from_of(const struct plan *plan, uint32_t stroke)
{
	const struct graph_edge *edge = &plan->graph->edges[plan->layout->strokes[stroke].edge];

	return plan->turned[stroke] ? edge->to : edge->from;
}

static uint32_t to_of(const struct plan *plan, uint32_t stroke)
{
	const struct graph_edge *edge = &plan->graph->edges[plan->layout->strokes[stroke].edge];

	return plan->turned[stroke] ? edge->from : edge->to;
}

const char *graph_shorten(struct arena *arena, const char *text, size_t max)
{
	size_t len = strlen(text), at = 0;

	for (size_t n = 0; at < len; n++) {
		if (n + 1 == max && at + text_char_len(text + at, len - at) < len)
			return arena_printf(arena, "%.*s…", (int)at, text);
		at += text_char_len(text + at, len - at);
	}
	return text;
}

static size_t characters(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += (*text & 0xc0) != 0x80;
	return n;
}

/* ---- strokes and their labels ---- */

static void make_label(struct arena *arena, struct graph_stroke *stroke, const char *first, const char *second)
{
	size_t most = 0;
	unsigned n = 0;

	if (*first)
		stroke->lines[n++] = graph_shorten(arena, first, GRAPH_MAX_LABEL);
	if (*second)
		stroke->lines[n++] = graph_shorten(arena, second, GRAPH_MAX_LABEL);
	for (unsigned i = 0; i < n && stroke->lines[i]; i++)
		if (characters(stroke->lines[i]) > most)
			most = characters(stroke->lines[i]);
	stroke->label.width = (double)most * GRAPH_LABEL_CHAR_WIDTH + 6;
	stroke->label.height = n * GRAPH_LABEL_LINE + 3;
}

static int make_strokes(struct plan *plan)
{
	const struct graph *graph = plan->graph;
	struct graph_layout *layout = plan->layout;
	struct arena *arena = &layout->arena;

	layout->strokes = arena_array(arena, 2 * (size_t)graph->n_edges, sizeof(*layout->strokes));
	for (uint32_t i = 0; i < graph->n_edges && layout->strokes; i++) {
		const struct graph_edge *edge = &graph->edges[i];
		struct graph_stroke stroke = {.edge = i, .loop = edge->from == edge->to};
		const char *part = *edge->part ? arena_printf(arena, "part of: %s", edge->part) : "";
		const char *denied = *edge->denied ? arena_printf(arena, "denied: %s", edge->denied) : "";

		if (!part || !denied)
			return -ENOMEM;
		if (*edge->all || *part) {
			make_label(arena, &stroke, edge->all, part);
			layout->strokes[layout->n_strokes++] = stroke;
		}
		if (!*denied)
			continue;
		stroke.denied = true;
		stroke.lines[0] = stroke.lines[1] = NULL;
		make_label(arena, &stroke, denied, "");
		layout->strokes[layout->n_strokes++] = stroke;
	}
	return arena->out_of_memory || !layout->strokes ? -ENOMEM : 0;
}

/* ---- columns ---- */

enum visit {
	VISIT_NEW,
	VISIT_OPEN,
	VISIT_DONE,
};

/* Turns what leads back to where one came from. */
static int turn_circles(struct plan *plan)
{
	uint32_t n = plan->graph->n_nodes, n_strokes = plan->layout->n_strokes;
	enum visit *visits = arena_array(&plan->arena, n, sizeof(*visits));
	uint32_t *next = arena_array(&plan->arena, n, sizeof(*next)), *path, *incoming;

	path = arena_array(&plan->arena, n, sizeof(*path));
	incoming = arena_array(&plan->arena, n, sizeof(*incoming));
	if (!visits || !next || !path || !incoming)
		return -ENOMEM;
	for (uint32_t s = 0; s < n_strokes; s++)
		incoming[to_of(plan, s)] += from_of(plan, s) != to_of(plan, s);
	/* From where nothing leads to first; what is left lies in circles. */
	for (uint32_t start = 0; start < 2 * n; start++) {
		uint32_t depth = 0;

		if (visits[start % n] != VISIT_NEW || (start < n && incoming[start]))
			continue;
		visits[start % n] = VISIT_OPEN;
		path[depth++] = start % n;
		while (depth) {
			uint32_t node = path[depth - 1], s = next[node]++, to;

			if (s >= n_strokes) {
				visits[node] = VISIT_DONE;
				depth--;
				continue;
			}
			if (plan->turned[s] || from_of(plan, s) != node || to_of(plan, s) == node)
				continue;
			to = to_of(plan, s);
			if (visits[to] == VISIT_OPEN) {
				plan->turned[s] = true;
			} else if (visits[to] == VISIT_NEW) {
				visits[to] = VISIT_OPEN;
				path[depth++] = to;
			}
		}
	}
	return 0;
}

/* The column of a node is the longest way to it; then those that nothing leads to come as near as they can. */
static void rank_nodes(struct plan *plan)
{
	uint32_t n = plan->graph->n_nodes, n_strokes = plan->layout->n_strokes;
	bool changed = true;

	for (uint32_t round = 0; round < n && changed; round++) {
		changed = false;
		for (uint32_t s = 0; s < n_strokes; s++) {
			uint32_t from = from_of(plan, s), to = to_of(plan, s);

			if (from == to || plan->rank[to] > plan->rank[from])
				continue;
			plan->rank[to] = plan->rank[from] + 1;
			changed = true;
		}
	}
	for (uint32_t node = 0; node < n; node++) {
		uint32_t nearest = UINT32_MAX;
		bool reached = false;

		for (uint32_t s = 0; s < n_strokes; s++) {
			if (from_of(plan, s) == to_of(plan, s))
				continue;
			reached = reached || to_of(plan, s) == node;
			if (from_of(plan, s) == node && plan->rank[to_of(plan, s)] < nearest)
				nearest = plan->rank[to_of(plan, s)];
		}
		if (!reached && nearest != UINT32_MAX && nearest)
			plan->rank[node] = nearest - 1;
	}
}

static int make_items(struct plan *plan)
{
	uint32_t n = plan->graph->n_nodes, n_strokes = plan->layout->n_strokes;
	size_t passing = 0;

	for (uint32_t s = 0; s < n_strokes; s++)
		passing += plan->rank[to_of(plan, s)] - plan->rank[from_of(plan, s)];
	plan->items = arena_array(&plan->arena, n + passing + 1, sizeof(*plan->items));
	plan->links = arena_array(&plan->arena, passing + 1, sizeof(*plan->links));
	plan->first_link = arena_array(&plan->arena, (size_t)n_strokes + 1, sizeof(*plan->first_link));
	if (!plan->items || !plan->links || !plan->first_link)
		return -ENOMEM;
	for (uint32_t node = 0; node < n; node++)
		plan->items[plan->n_items++] = (struct item){.column = plan->rank[node], .height = NODE_HEIGHT};
	for (uint32_t s = 0; s < n_strokes; s++) {
		uint32_t last = from_of(plan, s), to = to_of(plan, s);

		plan->first_link[s] = plan->n_links;
		for (uint32_t column = plan->rank[last] + 1; column <= plan->rank[to] && last != to; column++) {
			uint32_t item = column == plan->rank[to] ? to : plan->n_items++;

			if (item != to)
				plan->items[item] = (struct item){.column = column, .passing = true};
			plan->links[plan->n_links++] = (struct link){.left = last, .right = item, .stroke = s};
			last = item;
		}
	}
	plan->first_link[n_strokes] = plan->n_links;
	return 0;
}

static int make_columns(struct plan *plan)
{
	for (uint32_t i = 0; i < plan->n_items; i++)
		if (plan->items[i].column >= plan->n_columns)
			plan->n_columns = plan->items[i].column + 1;
	plan->columns = arena_array(&plan->arena, plan->n_columns, sizeof(*plan->columns));
	if (!plan->columns)
		return -ENOMEM;
	for (uint32_t i = 0; i < plan->n_items; i++)
		plan->columns[plan->items[i].column].n++;
	for (uint32_t c = 0; c < plan->n_columns; c++) {
		plan->columns[c].items = arena_array(&plan->arena, plan->columns[c].n, sizeof(uint32_t));
		if (!plan->columns[c].items)
			return -ENOMEM;
		plan->columns[c].n = 0;
	}
	for (uint32_t i = 0; i < plan->n_items; i++) {
		struct column *column = &plan->columns[plan->items[i].column];

		plan->items[i].at = column->n;
		column->items[column->n++] = i;
	}
	return 0;
}

/* ---- order ---- */

/* The mean of something over the neighbours on one side, by item. */
static void mean_of_neighbours(struct plan *plan, bool left, double (*of)(const struct item *item), double *means,
			       uint32_t *counts)
{
	memset(means, 0, plan->n_items * sizeof(*means));
	memset(counts, 0, plan->n_items * sizeof(*counts));
	for (uint32_t i = 0; i < plan->n_links; i++) {
		uint32_t item = left ? plan->links[i].right : plan->links[i].left;
		uint32_t neighbour = left ? plan->links[i].left : plan->links[i].right;

		means[item] += of(&plan->items[neighbour]);
		counts[item]++;
	}
	for (uint32_t i = 0; i < plan->n_items; i++)
		if (counts[i])
			means[i] /= counts[i];
}

static double place_of(const struct item *item)
{
	return item->at;
}

static double middle_of(const struct item *item)
{
	return item->y + item->height / 2;
}

/* Equal ones keep their order. */
static void sort_column(struct plan *plan, struct column *column)
{
	for (uint32_t i = 1; i < column->n; i++) {
		uint32_t item = column->items[i], k = i;

		for (; k && plan->items[column->items[k - 1]].key > plan->items[item].key; k--)
			column->items[k] = column->items[k - 1];
		column->items[k] = item;
	}
	for (uint32_t i = 0; i < column->n; i++)
		plan->items[column->items[i]].at = i;
}

static int order_columns(struct plan *plan)
{
	double *means = arena_array(&plan->arena, plan->n_items, sizeof(*means));
	uint32_t *counts = arena_array(&plan->arena, plan->n_items, sizeof(*counts));

	if (!means || !counts)
		return -ENOMEM;
	for (unsigned sweep = 0; sweep < ORDER_SWEEPS; sweep++) {
		bool left = sweep % 2 == 0;

		for (uint32_t c = 0; c < plan->n_columns; c++) {
			struct column *column = &plan->columns[left ? c : plan->n_columns - 1 - c];

			mean_of_neighbours(plan, left, place_of, means, counts);
			for (uint32_t i = 0; i < column->n; i++) {
				struct item *item = &plan->items[column->items[i]];

				item->key = counts[column->items[i]] ? means[column->items[i]] : item->at;
			}
			sort_column(plan, column);
		}
	}
	return 0;
}

/* ---- places ---- */

static bool has_loop(const struct plan *plan, uint32_t node)
{
	for (uint32_t s = 0; s < plan->layout->n_strokes; s++)
		if (plan->layout->strokes[s].loop && from_of(plan, s) == node)
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
		if (height > NODE_HEIGHT)
			plan->items[i].height = height;
		plan->layout->nodes[i].height = plan->items[i].height;
		plan->layout->nodes[i].width = (double)characters(name) * GRAPH_CHAR_WIDTH + 24;
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

			mean_of_neighbours(plan, sweep % 2 == 0, middle_of, wanted, counts);
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
		plan->items[i].y += MARGIN - top;
		if (plan->items[i].y + plan->items[i].height + MARGIN > plan->layout->height)
			plan->layout->height = plan->items[i].y + plan->items[i].height + MARGIN;
	}
	return 0;
}

/* Labels stand between the columns. */
static void place_columns(struct plan *plan)
{
	double x = MARGIN;

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
	plan->layout->width = x + MARGIN;
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
		const struct graph_place *node = &plan->layout->nodes[from_of(plan, s)];

		if (!stroke->loop) {
			place_label(plan, s);
			continue;
		}
		stroke->label.x = node->x + node->width / 2 + 14;
		stroke->label.y = node->y - LOOP_HEIGHT + (stroke->denied ? GRAPH_LABEL_LINE : 0);
		if (stroke->label.x + stroke->label.width + MARGIN > plan->layout->width)
			plan->layout->width = stroke->label.x + stroke->label.width + MARGIN;
	}
}

static int lay_out(struct plan *plan)
{
	uint32_t n = plan->graph->n_nodes;
	int r = make_strokes(plan);

	plan->layout->nodes = arena_array(&plan->layout->arena, n, sizeof(*plan->layout->nodes));
	plan->turned = arena_array(&plan->arena, plan->layout->n_strokes, sizeof(*plan->turned));
	plan->rank = arena_array(&plan->arena, n, sizeof(*plan->rank));
	plan->layout->width = plan->layout->height = 2 * MARGIN;
	if (r < 0 || !plan->layout->nodes || !plan->turned || !plan->rank)
		return -ENOMEM;
	if (!n)
		return 0;
	r = turn_circles(plan);
	if (r < 0)
		return r;
	rank_nodes(plan);
	if (make_items(plan) < 0 || make_columns(plan) < 0 || order_columns(plan) < 0 || size_items(plan) < 0 ||
	    place_items(plan) < 0)
		return -ENOMEM;
	place_columns(plan);
	if (place_ports(plan, true) < 0 || place_ports(plan, false) < 0)
		return -ENOMEM;
	r = draw_strokes(plan);
	if (r == 0)
		place_labels(plan);
	return r;
}

int graph_layout_new(struct graph_layout **layoutp, const struct graph *graph)
{
	_cleanup_(graph_layout_freep) struct graph_layout *layout = calloc(1, sizeof(*layout));
	struct plan plan = {.graph = graph, .layout = layout};
	int r = layout ? lay_out(&plan) : -ENOMEM;

	arena_free(&plan.arena);
	*layoutp = NULL;
	if (r == 0) {
		*layoutp = layout;
		layout = NULL;
	}
	return r;
}

void graph_layout_freep(struct graph_layout **layoutp)
{
	if (!*layoutp)
		return;
	arena_free(&(*layoutp)->arena);
	free(*layoutp);
	*layoutp = NULL;
}
