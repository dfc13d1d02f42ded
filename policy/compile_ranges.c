/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compile_ranges.c - classes of addresses: a sweep along the line of numbers, on which networks begin and end.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/compiler.h"

struct span_event {
	address at;
	uint32_t set;
	bool end;
};

struct sweep {
	struct compiler *compiler;
	struct span_event *events;
	size_t n, capacity;
	uint32_t *open;	    /* by set: how many of its spans are open; they may overlap */
	struct list active; /* sets with an open span, sorted */
};

static void sweep_free(struct sweep *sweep)
{
	free(sweep->events);
	list_free(&sweep->active);
}

static int sweep_add(struct sweep *sweep, address first, address last, uint32_t set)
{
	if (array_grow(&sweep->events, &sweep->capacity, sweep->n, sizeof(*sweep->events)) < 0)
		return -ENOMEM;
	sweep->events[sweep->n++] = (struct span_event){first, set, false};
	/* What ends with the line needs no end. */
	if (last == ~(address)0)
		return 0;
	if (array_grow(&sweep->events, &sweep->capacity, sweep->n, sizeof(*sweep->events)) < 0)
		return -ENOMEM;
	sweep->events[sweep->n++] = (struct span_event){last + 1, set, true};
	return 0;
}

static int compare_events(const void *a, const void *b)
{
	const struct span_event *x = a, *y = b;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	if (x->set != y->set)
		return x->set < y->set ? -1 : 1;
	return x->end - y->end;
}

static int activate(struct sweep *sweep, uint32_t set, bool end)
{
	struct list *active = &sweep->active;
	size_t low = 0, high = active->n;

	if (end ? --sweep->open[set] > 0 : sweep->open[set]++ > 0)
		return 0;
	while (low < high) {
		size_t middle = (low + high) / 2;

		if (active->items[middle] < set)
			low = middle + 1;
		else
			high = middle;
	}
	if (end) {
		memmove(active->items + low, active->items + low + 1, (active->n - low - 1) * sizeof(uint32_t));
		active->n--;
		return 0;
	}
	if (list_push(active, 0) < 0)
		return -ENOMEM;
	memmove(active->items + low + 1, active->items + low, (active->n - low - 1) * sizeof(uint32_t));
	active->items[low] = set;
	return 0;
}

static int add_class(struct range_classes *ranges, struct intern *sets, const struct list *active, address at)
{
	uint32_t class;

	if (intern_list(sets, active, &class) < 0)
		return -ENOMEM;
	if (ranges->n && ranges->items[ranges->n - 1].class == class)
		return 0;
	if (array_grow(&ranges->items, &ranges->capacity, ranges->n, sizeof(*ranges->items)) < 0)
		return -ENOMEM;
	ranges->items[ranges->n++] = (struct range_class){at, class};
	return 0;
}

/* Makes the ranges of one line that begins at `first` and ends before `end`; sets are interned as classes. */
static int sweep_run(struct sweep *sweep, struct range_classes *ranges, struct intern *sets, address first, address end)
{
	struct compiler *c = sweep->compiler;
	int r = 0;

	if (sweep->n)
		qsort(sweep->events, sweep->n, sizeof(*sweep->events), compare_events);
	if (!sweep->n || sweep->events[0].at != first)
		r = add_class(ranges, sets, &sweep->active, first);
	for (size_t i = 0; i < sweep->n && r == 0;) {
		address at = sweep->events[i].at;

		for (; i < sweep->n && sweep->events[i].at == at; i++)
			if (activate(sweep, sweep->events[i].set, sweep->events[i].end) < 0)
				return -ENOMEM;
		if (end && at >= end)
			break;
		r = add_class(ranges, sets, &sweep->active, at);
		if (r == 0)
			r = compiler_spend(c, sweep->active.n + 16);
		if (r == 0 && sets->bytes > COMPILER_MAX_SET_BYTES)
			r = compiler_spend(c, COMPILER_MAX_WORK);
	}
	return r;
}

static int sweep_addresses(struct compiler *c, struct range_classes *ranges, bool v4)
{
	_cleanup_(sweep_free) struct sweep sweep = {.compiler = c};
	const struct policy *policy = c->policy;

	sweep.open = arena_array(&c->arena, policy->n_networks, sizeof(*sweep.open));
	if (!sweep.open)
		return -ENOMEM;
	for (uint32_t i = 0; i < policy->n_networks; i++) {
		const struct network *network = &policy->networks[i];

		/* A network that no rule uses tells nothing apart. */
		for (uint32_t j = 0; network->used && j < network->n_ranges; j++)
			if (network->ranges[j].v4 == v4 &&
			    sweep_add(&sweep, network->ranges[j].first, network->ranges[j].last, i) < 0)
				return -ENOMEM;
	}
	return sweep_run(&sweep, ranges, &c->address_sets, v4 ? ADDRESS_V4_FIRST : 0, v4 ? ADDRESS_V4_LAST + 1 : 0);
}

int compile_ranges(struct compiler *c)
{
	struct list none = {};
	uint32_t outside;
	int r;

	/* Set 0 is "in no network of the policy", whether or not there is such an address. */
	if (intern_list(&c->address_sets, &none, &outside) < 0)
		return -ENOMEM;
	r = sweep_addresses(c, &c->addr4, true);
	return r == 0 ? sweep_addresses(c, &c->addr6, false) : r;
}
