/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/diff_boxes.h"

int diff_box_read(struct diff_boxes *boxes, struct diff_box *out, const struct flow_box *box)
{
	*out = (struct diff_box){};
	for (size_t d = 0; d < FLOW_DIMENSIONS; d++)
		if (intern_bytes(&boxes->spans, box->dim[d].items, box->dim[d].n * sizeof(struct span), &out->dim[d]) <
		    0)
			return -ENOMEM;
	return 0;
}

static struct spans spans_of(const struct diff_boxes *boxes, uint32_t set)
{
	size_t n;
	const uint32_t *numbers = intern_get(&boxes->spans, set, &n);

	return (struct spans){(struct span *)numbers, (uint32_t)(n / 2)};
}

void diff_box_write(const struct diff_boxes *boxes, struct flow_box *out, const struct diff_box *box)
{
	for (size_t d = 0; d < FLOW_DIMENSIONS; d++)
		out->dim[d] = spans_of(boxes, box->dim[d]);
}

int diff_rule_set(struct diff_boxes *boxes, uint32_t *setp, const uint32_t *rules, size_t n)
{
	_cleanup_(list_free) struct list list = {};

	for (size_t i = 0; i < n; i++)
		if (list_push(&list, rules[i]) < 0)
			return -ENOMEM;
	list_sort_unique(&list);
	return intern_list(&boxes->rules, &list, setp) < 0 ? -ENOMEM : 0;
}

int diff_boxes_add(struct diff_boxes *boxes, const struct diff_box *box)
{
	if (array_grow(&boxes->items, &boxes->capacity, boxes->n, sizeof(*box)) < 0)
		return -ENOMEM;
	boxes->items[boxes->n++] = *box;
	return 0;
}

/* ---- joining ---- */

/* What two boxes must have in common to be joined. */
struct joint {
	size_t dimension; /* that may differ */
	bool any_rules;	  /* the rules may differ too */
};

static int compare_u32(uint32_t a, uint32_t b)
{
	return (a > b) - (a < b);
}

static int compare_joint(const void *a, const void *b, void *context)
{
	const struct diff_box *x = a, *y = b;
	const struct joint *joint = context;
	int order = compare_u32(x->allow, y->allow);

	for (size_t d = 0; d < FLOW_DIMENSIONS && !order; d++)
		if (d != joint->dimension)
			order = compare_u32(x->dim[d], y->dim[d]);
	if (!order && !joint->any_rules)
		order = compare_u32(x->by, y->by);
	if (!order && !joint->any_rules)
		order = compare_u32(x->before, y->before);
	return order;
}

/* Everything that decides the order, so that the result is the same for the same boxes. */
static int compare_boxes(const void *a, const void *b, void *context)
{
	const struct diff_box *x = a, *y = b;
	const struct joint *joint = context;
	int order = compare_joint(a, b, context);

	if (!order)
		order = compare_u32(x->dim[joint->dimension], y->dim[joint->dimension]);
	if (!order)
		order = compare_u32(x->by, y->by);
	return order ? order : compare_u32(x->before, y->before);
}

static int compare_spans(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	return compare_u32(x->first, y->first);
}

/* The union of a dimension over several boxes. */
static int unite_dimension(struct diff_boxes *boxes, const struct diff_box *items, size_t n, size_t dimension,
			   uint32_t *setp)
{
	_cleanup_(list_free) struct list list = {};
	struct span *spans;
	size_t n_spans = 0, total;
	int r;

	for (size_t i = 0; i < n; i++) {
		struct spans set = spans_of(boxes, items[i].dim[dimension]);

		for (uint32_t j = 0; j < set.n; j++)
			if (list_push(&list, set.items[j].first) < 0 || list_push(&list, set.items[j].last) < 0)
				return -ENOMEM;
	}
	spans = (struct span *)list.items;
	total = list.n / 2;
	if (total)
		qsort(spans, total, sizeof(*spans), compare_spans);
	for (size_t i = 0; i < total; i++) {
		struct span *last = n_spans ? &spans[n_spans - 1] : NULL;

		if (last && (spans[i].first <= last->last || spans[i].first == last->last + 1))
			last->last = spans[i].last > last->last ? spans[i].last : last->last;
		else
			spans[n_spans++] = spans[i];
	}
	r = intern_bytes(&boxes->spans, spans, n_spans * sizeof(*spans), setp);
	return r < 0 ? r : 0;
}

static int unite_rules(struct diff_boxes *boxes, const struct diff_box *items, size_t n, bool before, uint32_t *setp)
{
	_cleanup_(list_free) struct list list = {};

	for (size_t i = 0; i < n; i++) {
		size_t count;
		uint32_t set = before ? items[i].before : items[i].by;
		const uint32_t *rules = intern_get(&boxes->rules, set, &count);

		for (size_t j = 0; j < count; j++)
			if (list_push(&list, rules[j]) < 0)
				return -ENOMEM;
	}
	list_sort_unique(&list);
	return intern_list(&boxes->rules, &list, setp) < 0 ? -ENOMEM : 0;
}

/* Joins neighbours once the boxes are sorted. Returns whether any were, or -ENOMEM. */
static int join_sorted(struct diff_boxes *boxes, struct joint *joint)
{
	size_t kept = 0, end;

	for (size_t i = 0; i < boxes->n; i = end) {
		struct diff_box *first = &boxes->items[i], joined = *first;

		end = i + 1;
		while (end < boxes->n && compare_joint(first, &boxes->items[end], joint) == 0)
			end++;
		if (end > i + 1 &&
		    (unite_dimension(boxes, first, end - i, joint->dimension, &joined.dim[joint->dimension]) < 0 ||
		     unite_rules(boxes, first, end - i, false, &joined.by) < 0 ||
		     unite_rules(boxes, first, end - i, true, &joined.before) < 0))
			return -ENOMEM;
		boxes->items[kept++] = joined;
	}
	if (kept == boxes->n)
		return 0;
	boxes->n = kept;
	return 1;
}

/* Services first, as they are what rules name most of; then who, then where. */
static int join_all(struct diff_boxes *boxes, bool any_rules)
{
	static const size_t order[FLOW_DIMENSIONS] = {FLOW_SERVICE, FLOW_FROM_WHERE, FLOW_TO_WHERE, FLOW_FROM_WHO,
						      FLOW_TO_WHO};
	size_t unchanged = 0;

	for (size_t turn = 0; unchanged < FLOW_DIMENSIONS && boxes->n > 1; turn++) {
		struct joint joint = {order[turn % FLOW_DIMENSIONS], any_rules};
		int r;

		qsort_r(boxes->items, boxes->n, sizeof(*boxes->items), compare_boxes, &joint);
		r = join_sorted(boxes, &joint);
		if (r < 0)
			return r;
		unchanged = r ? 0 : unchanged + 1;
	}
	return 0;
}

int diff_boxes_merge(struct diff_boxes *boxes)
{
	int r = join_all(boxes, false);

	return r < 0 ? r : join_all(boxes, true);
}

void diff_boxes_free(struct diff_boxes *boxes)
{
	intern_free(&boxes->spans);
	intern_free(&boxes->rules);
	free(boxes->items);
	*boxes = (struct diff_boxes){};
}
