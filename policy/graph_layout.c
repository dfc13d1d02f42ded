/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/graph_plan.h"
#include "policy/text.h"

#define ORDER_SWEEPS 16U

uint32_t graph_plan_from(const struct plan *plan, uint32_t stroke)
{
	const struct graph_edge *edge = &plan->graph->edges[plan->layout->strokes[stroke].edge];

	return plan->turned[stroke] ? edge->to : edge->from;
}

uint32_t graph_plan_to(const struct plan *plan, uint32_t stroke)
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

size_t graph_characters(const char *text)
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
		if (graph_characters(stroke->lines[i]) > most)
			most = graph_characters(stroke->lines[i]);
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
		incoming[graph_plan_to(plan, s)] += graph_plan_from(plan, s) != graph_plan_to(plan, s);
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
			if (plan->turned[s] || graph_plan_from(plan, s) != node || graph_plan_to(plan, s) == node)
				continue;
			to = graph_plan_to(plan, s);
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
			uint32_t from = graph_plan_from(plan, s), to = graph_plan_to(plan, s);

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
			if (graph_plan_from(plan, s) == graph_plan_to(plan, s))
				continue;
			reached = reached || graph_plan_to(plan, s) == node;
			if (graph_plan_from(plan, s) == node && plan->rank[graph_plan_to(plan, s)] < nearest)
				nearest = plan->rank[graph_plan_to(plan, s)];
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
		passing += plan->rank[graph_plan_to(plan, s)] - plan->rank[graph_plan_from(plan, s)];
	plan->items = arena_array(&plan->arena, n + passing + 1, sizeof(*plan->items));
	plan->links = arena_array(&plan->arena, passing + 1, sizeof(*plan->links));
	plan->first_link = arena_array(&plan->arena, (size_t)n_strokes + 1, sizeof(*plan->first_link));
	if (!plan->items || !plan->links || !plan->first_link)
		return -ENOMEM;
	for (uint32_t node = 0; node < n; node++)
		plan->items[plan->n_items++] = (struct item){.column = plan->rank[node], .height = GRAPH_NODE_HEIGHT};
	for (uint32_t s = 0; s < n_strokes; s++) {
		uint32_t last = graph_plan_from(plan, s), to = graph_plan_to(plan, s);

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

void graph_plan_means(struct plan *plan, bool left, double (*of)(const struct item *item), double *means,
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

			graph_plan_means(plan, left, place_of, means, counts);
			for (uint32_t i = 0; i < column->n; i++) {
				struct item *item = &plan->items[column->items[i]];

				item->key = counts[column->items[i]] ? means[column->items[i]] : item->at;
			}
			sort_column(plan, column);
		}
	}
	return 0;
}

static int lay_out(struct plan *plan)
{
	uint32_t n = plan->graph->n_nodes;
	int r = make_strokes(plan);

	plan->layout->nodes = arena_array(&plan->layout->arena, n, sizeof(*plan->layout->nodes));
	plan->turned = arena_array(&plan->arena, plan->layout->n_strokes, sizeof(*plan->turned));
	plan->rank = arena_array(&plan->arena, n, sizeof(*plan->rank));
	plan->layout->width = plan->layout->height = 2 * GRAPH_MARGIN;
	if (r < 0 || !plan->layout->nodes || !plan->turned || !plan->rank)
		return -ENOMEM;
	if (!n)
		return 0;
	r = turn_circles(plan);
	if (r < 0)
		return r;
	rank_nodes(plan);
	if (make_items(plan) < 0 || make_columns(plan) < 0 || order_columns(plan) < 0)
		return -ENOMEM;
	return graph_plan_place(plan);
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
