/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/learn_cover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MANY_SEEDS 64U
/* Lookups of points; behind them a box grows from one point only each time. A second or so. */
#define BUDGET (20U << 20)
#define BUDGET_OF_BOX (1U << 20) /* for one box: a large one is good enough wherever it grew from */

/* The points that differ from a point in one axis only. */
struct line {
	uint32_t first; /* in `order` of that axis */
	uint32_t n;
};

struct cover {
	struct arena *arena;
	const struct cover_cell *cells;
	size_t n;
	struct intern index; /* a point has its own number */
	uint32_t *order[COVER_AXES];
	struct line *lines[COVER_AXES]; /* by point */
	uint32_t *held;			/* by point: by how many boxes */
	uint64_t spent;
};

static void cover_free(struct cover *cover)
{
	intern_free(&cover->index);
}

int cover_cell_compare(const void *a, const void *b)
{
	const struct cover_cell *x = a, *y = b;

	for (unsigned axis = 0; axis < COVER_AXES; axis++)
		if (x->at[axis] != y->at[axis])
			return x->at[axis] < y->at[axis] ? -1 : 1;
	return 0;
}

static bool same_line(const struct cover_cell *a, const struct cover_cell *b, unsigned axis)
{
	return a->at[(axis + 1) % 3] == b->at[(axis + 1) % 3] && a->at[(axis + 2) % 3] == b->at[(axis + 2) % 3];
}

struct ordering {
	const struct cover_cell *cells;
	unsigned axis;
};

static int by_line(const void *a, const void *b, void *context)
{
	const struct ordering *ordering = context;
	const struct cover_cell *x = &ordering->cells[*(const uint32_t *)a];
	const struct cover_cell *y = &ordering->cells[*(const uint32_t *)b];

	for (unsigned i = 1; i <= COVER_AXES; i++) {
		unsigned axis = (ordering->axis + i) % COVER_AXES;

		if (x->at[axis] != y->at[axis])
			return x->at[axis] < y->at[axis] ? -1 : 1;
	}
	return 0;
}

static int find_lines(struct cover *cover, unsigned axis)
{
	struct ordering ordering = {cover->cells, axis};
	uint32_t *order = arena_array(cover->arena, cover->n, sizeof(*order));
	struct line *lines = arena_array(cover->arena, cover->n, sizeof(*lines));

	if (!order || !lines)
		return -ENOMEM;
	for (uint32_t i = 0; i < cover->n; i++)
		order[i] = i;
	qsort_r(order, cover->n, sizeof(*order), by_line, &ordering);
	for (uint32_t i = 0, end; i < cover->n; i = end) {
		for (end = i + 1; end < cover->n; end++)
			if (!same_line(&cover->cells[order[i]], &cover->cells[order[end]], axis))
				break;
		for (uint32_t j = i; j < end; j++)
			lines[order[j]] = (struct line){i, end - i};
	}
	cover->order[axis] = order;
	cover->lines[axis] = lines;
	return 0;
}

static int prepare(struct cover *cover)
{
	uint32_t number;

	for (size_t i = 0; i < cover->n; i++)
		if (intern_bytes(&cover->index, &cover->cells[i], sizeof(*cover->cells), &number) < 0)
			return -ENOMEM;
	for (unsigned axis = 0; axis < COVER_AXES; axis++)
		if (find_lines(cover, axis) < 0)
			return -ENOMEM;
	cover->held = arena_array(cover->arena, cover->n, sizeof(*cover->held));
	return cover->held ? 0 : -ENOMEM;
}

static bool find_point(struct cover *cover, struct cover_cell point, uint32_t *indexp)
{
	cover->spent++;
	return intern_find(&cover->index, &point, sizeof(point), indexp);
}

/* ---- growing ---- */

struct growing {
	struct list items[COVER_AXES];
};

static void growing_free(struct growing *growing)
{
	for (unsigned axis = 0; axis < COVER_AXES; axis++)
		list_free(&growing->items[axis]);
}

/* Is every point of the product there, with `axis` held at `value`? */
static bool slice_is_there(struct cover *cover, const struct growing *growing, unsigned axis, uint32_t value)
{
	const struct list *a = &growing->items[(axis + 1) % 3], *b = &growing->items[(axis + 2) % 3];
	struct cover_cell point;
	uint32_t index;

	point.at[axis] = value;
	for (size_t i = 0; i < a->n; i++)
		for (size_t j = 0; j < b->n; j++) {
			point.at[(axis + 1) % 3] = a->items[i];
			point.at[(axis + 2) % 3] = b->items[j];
			if (!find_point(cover, point, &index))
				return false;
		}
	return true;
}

/* From one point along one axis after the other, as far as every point is there. */
static int grow(struct cover *cover, struct growing *growing, uint32_t seed, const unsigned axes[COVER_AXES])
{
	for (unsigned i = 0; i < COVER_AXES; i++) {
		growing->items[i].n = 0;
		if (list_push(&growing->items[i], cover->cells[seed].at[i]) < 0)
			return -ENOMEM;
	}
	for (unsigned i = 0; i < COVER_AXES; i++) {
		unsigned axis = axes[i];
		struct line line = cover->lines[axis][seed];
		struct list *items = &growing->items[axis];

		for (uint32_t j = 0; j < line.n; j++) {
			uint32_t value = cover->cells[cover->order[axis][line.first + j]].at[axis];

			if (value == cover->cells[seed].at[axis] || !slice_is_there(cover, growing, axis, value))
				continue;
			if (list_push(items, value) < 0)
				return -ENOMEM;
		}
		list_sort_unique(items);
	}
	return 0;
}

/* ---- boxes ---- */

/* Adds `by` to how often each point of a slice of the box is held. Returns how many are held by none but it. */
static uint64_t slice_hold(struct cover *cover, const struct cover_box *box, unsigned axis, uint32_t value, int by)
{
	unsigned a = (axis + 1) % 3, b = (axis + 2) % 3;
	struct cover_cell point;
	uint64_t alone = 0;
	uint32_t index;

	point.at[axis] = value;
	for (uint32_t i = 0; i < box->n[a]; i++)
		for (uint32_t j = 0; j < box->n[b]; j++) {
			point.at[a] = box->items[a][i];
			point.at[b] = box->items[b][j];
			if (!find_point(cover, point, &index))
				continue;
			alone += cover->held[index] == (by > 0 ? 0 : 1);
			cover->held[index] = (uint32_t)((int64_t)cover->held[index] + by);
		}
	return alone;
}

static uint64_t count_new(struct cover *cover, const struct growing *growing)
{
	struct cover_box box;
	uint64_t alone = 0;

	for (unsigned axis = 0; axis < COVER_AXES; axis++) {
		box.items[axis] = growing->items[axis].items;
		box.n[axis] = (uint32_t)growing->items[axis].n;
	}
	for (uint32_t i = 0; i < box.n[0]; i++) {
		alone += slice_hold(cover, &box, 0, box.items[0][i], 1);
		slice_hold(cover, &box, 0, box.items[0][i], -1);
	}
	return alone;
}

static int take_box(struct cover *cover, struct cover_box *box, const struct growing *growing)
{
	for (unsigned axis = 0; axis < COVER_AXES; axis++) {
		const struct list *items = &growing->items[axis];

		box->n[axis] = (uint32_t)items->n;
		box->items[axis] = arena_copy(cover->arena, items->items, items->n * sizeof(uint32_t));
		if (!box->items[axis])
			return -ENOMEM;
	}
	for (uint32_t i = 0; i < box->n[0]; i++)
		slice_hold(cover, box, 0, box->items[0][i], 1);
	return 0;
}

static void swap_growing(struct growing *a, struct growing *b)
{
	struct growing c = *a;

	*a = *b;
	*b = c;
}

/* The best of the boxes that grow from one point, if it adds more than the best so far. */
static int try_seed(struct cover *cover, uint32_t seed, struct growing *best, uint64_t *most)
{
	static const unsigned orders[][COVER_AXES] = {{0, 1, 2}, {1, 0, 2}, {0, 2, 1}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
	_cleanup_(growing_free) struct growing growing = {};

	for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
		uint64_t adds;

		if (grow(cover, &growing, seed, orders[i]) < 0)
			return -ENOMEM;
		adds = count_new(cover, &growing);
		if (adds <= *most)
			continue;
		*most = adds;
		swap_growing(best, &growing);
	}
	return 0;
}

/* Some of the points that no box holds, evenly spread, the first one among them. */
static int find_box(struct cover *cover, const struct list *open, struct growing *best)
{
	size_t seeds = cover->spent < BUDGET ? MANY_SEEDS : 1, step = (open->n + seeds - 1) / seeds;
	uint64_t most = 0, started = cover->spent;

	for (size_t i = 0; i < open->n && cover->spent - started < BUDGET_OF_BOX; i += step)
		if (try_seed(cover, open->items[i], best, &most) < 0)
			return -ENOMEM;
	return 0;
}

static void drop_held(struct cover *cover, struct list *open)
{
	size_t kept = 0;

	for (size_t i = 0; i < open->n; i++)
		if (!cover->held[open->items[i]])
			open->items[kept++] = open->items[i];
	open->n = kept;
}

/* ---- cutting down ---- */

static bool slice_is_held_twice(struct cover *cover, const struct cover_box *box, unsigned axis, uint32_t value)
{
	bool twice = !slice_hold(cover, box, axis, value, -1);

	if (!twice)
		slice_hold(cover, box, axis, value, 1);
	return twice;
}

/* Takes out of the box what others hold too; all of it, perhaps. */
static void trim(struct cover *cover, struct cover_box *box)
{
	for (unsigned i = 0; i < COVER_AXES; i++) {
		unsigned axis = COVER_AXES - 1 - i; /* services first: a rule about fewer is the better read */
		uint32_t kept = 0;

		for (uint32_t j = 0; j < box->n[axis]; j++)
			if (!slice_is_held_twice(cover, box, axis, box->items[axis][j]))
				box->items[axis][kept++] = box->items[axis][j];
		box->n[axis] = kept;
		if (!kept)
			return;
	}
}

static int box_compare(const void *a, const void *b)
{
	const struct cover_box *x = a, *y = b;

	for (unsigned i = 0; i < COVER_AXES; i++) {
		unsigned axis = (i + 1) % COVER_AXES; /* by destination, then service, then source */

		for (uint32_t j = 0; j < x->n[axis] && j < y->n[axis]; j++)
			if (x->items[axis][j] != y->items[axis][j])
				return x->items[axis][j] < y->items[axis][j] ? -1 : 1;
		if (x->n[axis] != y->n[axis])
			return x->n[axis] < y->n[axis] ? -1 : 1;
	}
	return 0;
}

static void list_cleanup(struct list *list)
{
	list_free(list);
}

int cover_boxes(struct arena *arena, const struct cover_cell *cells, size_t n, struct cover_box **boxesp,
		size_t *n_boxesp)
{
	_cleanup_(cover_free) struct cover cover = {.arena = arena, .cells = cells, .n = n};
	_cleanup_(growing_free) struct growing best = {};
	_cleanup_(list_cleanup) struct list open = {};
	struct cover_box *boxes = arena_array(arena, n, sizeof(*boxes));
	size_t n_boxes = 0, kept = 0;

	if (!boxes || prepare(&cover) < 0)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		if (list_push(&open, i) < 0)
			return -ENOMEM;
	while (open.n) {
		if (find_box(&cover, &open, &best) < 0 || take_box(&cover, &boxes[n_boxes++], &best) < 0)
			return -ENOMEM;
		drop_held(&cover, &open);
	}
	/* The first boxes are the large ones: what they hold, the later need not. */
	for (size_t i = n_boxes; i-- > 0;)
		trim(&cover, &boxes[i]);
	for (size_t i = 0; i < n_boxes; i++)
		if (boxes[i].n[0] && boxes[i].n[1] && boxes[i].n[2])
			boxes[kept++] = boxes[i];
	qsort(boxes, kept, sizeof(*boxes), box_compare);
	*boxesp = boxes;
	*n_boxesp = kept;
	return 0;
}
