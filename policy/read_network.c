/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read_network.c - networks: blocks of addresses, less others. What is left is kept as ranges that do not overlap, so
 * nothing behind the reader knows `except`.
 */
#include <stdlib.h>
#include <string.h>

#include "policy/read.h"

struct range_list {
	struct address_range *items;
	uint32_t n;
};

static bool read_range(struct reader *reader, const struct node *node, struct address_range *range)
{
	const char *text = read_text(reader, node, "a network");
	char block[ADDRESS_TEXT_BYTES];
	unsigned prefix = 0;

	if (!text)
		return false;
	switch (address_range_parse(range, text)) {
	case ADDRESS_OK:
		return true;
	case ADDRESS_INVALID:
		reader_error(reader, node, "'%.80s' is neither an address nor a CIDR block", text);
		break;
	case ADDRESS_PREFIX:
		reader_error(reader, node, "'%.80s': the prefix length must be 0 to %u", text, range->v4 ? 32 : 128);
		break;
	case ADDRESS_HOST_BITS:
		for (address size = range->last - range->first; size; size >>= 1)
			prefix++;
		prefix = (range->v4 ? 32 : 128) - prefix;
		address_format(block, range->first, range->v4, prefix);
		reader_error(reader, node, "'%.80s' has bits set behind its prefix", text);
		reader_hint(reader, "the block is %s; a single address has no prefix", block);
		break;
	case ADDRESS_MAPPED:
		reader_error(reader, node, "'%.80s' is IPv4-mapped: write the IPv4 network", text);
		break;
	case ADDRESS_ZONE:
		reader_error(reader, node, "'%.80s': an address with a zone cannot be matched", text);
		break;
	}
	return false;
}

/* In the order of the file. Returns false after an error. */
static bool read_ranges(struct reader *reader, const struct node *node, const char *what, struct arena *arena,
			struct range_list *list)
{
	struct items items;
	bool ok = true;

	if (!read_items(reader, node, what, &items))
		return false;
	list->items = arena_array(arena, items.n, sizeof(*list->items));
	for (uint32_t i = 0; i < items.n && list->items; i++) {
		if (read_range(reader, items.items[i], &list->items[list->n]))
			list->n++;
		else
			ok = false;
	}
	return ok && list->items;
}

/* IPv4 lies within the line of IPv6, but the families are apart. */
static int compare_ranges(const void *a, const void *b)
{
	const struct address_range *x = a, *y = b;

	if (x->v4 != y->v4)
		return x->v4 ? -1 : 1;
	if (x->first != y->first)
		return x->first < y->first ? -1 : 1;
	return (x->last > y->last) - (x->last < y->last);
}

/* Sorts, and joins what overlaps or touches. */
static void normalise(struct range_list *list)
{
	uint32_t kept = 0;

	if (list->n < 2)
		return;
	qsort(list->items, list->n, sizeof(*list->items), compare_ranges);
	for (uint32_t i = 1; i < list->n; i++) {
		struct address_range *last = &list->items[kept];
		const struct address_range *next = &list->items[i];

		if (next->v4 == last->v4 && (next->first <= last->last || next->first - 1 == last->last)) {
			if (next->last > last->last)
				last->last = next->last;
		} else {
			list->items[++kept] = *next;
		}
	}
	list->n = kept + 1;
}

/* Both normalised. `out` has room for a range more than both have together. */
static void subtract(struct range_list *out, const struct range_list *from, const struct range_list *what)
{
	uint32_t k = 0;

	for (uint32_t i = 0; i < from->n; i++) {
		struct address_range rest = from->items[i];
		bool left = true;

		while (k < what->n && compare_ranges(&what->items[k], &rest) < 0 &&
		       (what->items[k].v4 != rest.v4 || what->items[k].last < rest.first))
			k++;
		/* One that reaches beyond this range may take from the next, so it is not passed. */
		for (uint32_t j = k; left && j < what->n && what->items[j].v4 == rest.v4; j++) {
			const struct address_range *hole = &what->items[j];

			if (hole->first > rest.last)
				break;
			if (hole->first > rest.first)
				out->items[out->n++] = (struct address_range){rest.first, hole->first - 1, rest.v4};
			left = hole->last < rest.last;
			if (left)
				rest.first = hole->last + 1;
		}
		if (left)
			out->items[out->n++] = rest;
	}
}

/* An exception from nothing is a mistake in one of the two. */
static void warn_of_idle(struct reader *reader, const struct node *except, const struct range_list *include)
{
	struct items items = {&except->self, 1};
	struct address_range range;

	if (except->kind == NODE_LIST)
		items = (struct items){except->items, except->n};
	for (uint32_t i = 0; i < items.n; i++) {
		uint32_t low = 0, high = include->n;

		if (address_range_parse(&range, items.items[i]->text) != ADDRESS_OK)
			continue;
		/* The first that does not end before this one begins. */
		while (low < high) {
			uint32_t middle = low + (high - low) / 2;
			const struct address_range *at = &include->items[middle];

			if ((at->v4 && !range.v4) || (at->v4 == range.v4 && at->last < range.first))
				low = middle + 1;
			else
				high = middle;
		}
		if (low < include->n && include->items[low].v4 == range.v4 && include->items[low].first <= range.last)
			continue;
		reader_warning(reader, items.items[i], "'%s' excepts nothing: no address of it is included",
			       items.items[i]->text);
	}
}

static void read_network_map(struct reader *reader, const struct node *map, struct network *network)
{
	const struct node *include = NULL, *except = NULL;
	const struct key keys[] = {{"include", &include}, {"except", &except}};
	struct range_list in = {}, out = {}, left = {};
	bool ok;

	if (!map->n) {
		reader_error(reader, map, "the network '%s' is empty", network->name);
		return;
	}
	read_keys(reader, map, "a network", keys, N_ITEMS(keys));
	if (!include) {
		if (except) {
			reader_error(reader, map, "`except` takes from what is included: `include` is missing");
			reader_hint(reader, "every address is `include: [0.0.0.0/0, \"::/0\"]`");
		}
		return;
	}
	ok = read_ranges(reader, include, "`include`", &reader->arena, &in);
	ok = (!except || read_ranges(reader, except, "`except`", &reader->arena, &out)) && ok;
	if (!ok)
		return;
	normalise(&in);
	normalise(&out);
	if (except)
		warn_of_idle(reader, except, &in);
	left.items = arena_array(&reader->policy->arena, (size_t)in.n + out.n + 1, sizeof(*left.items));
	if (!left.items)
		return;
	subtract(&left, &in, &out);
	if (!left.n)
		reader_error(reader, map, "the network '%s' is empty: `except` takes all that is included",
			     network->name);
	network->ranges = left.items;
	network->n_ranges = left.n;
}

void read_network(struct reader *reader, const struct node *key, const struct node *value)
{
	struct policy *policy = reader->policy;
	struct network network = {.at = key->at};
	struct range_list list = {};

	if (array_grow(&policy->networks, &policy->networks_capacity, policy->n_networks, sizeof(network)) < 0) {
		policy->arena.out_of_memory = true;
		return;
	}
	if (!read_name(reader, key, "a network", POLICY_MAX_NAME, &network.name) ||
	    !define_peer(reader, key, network.name, true, policy->n_networks))
		return;
	if (value->kind == NODE_MAP) {
		read_network_map(reader, value, &network);
	} else if (read_ranges(reader, value, "a network", &policy->arena, &list)) {
		normalise(&list);
		network.ranges = list.items;
		network.n_ranges = list.n;
	}
	policy->networks[policy->n_networks++] = network;
}
