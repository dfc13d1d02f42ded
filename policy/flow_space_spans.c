/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow_space_spans.c - sets of numbers as sorted spans, and the memory that judging works in.
 */
#include <stdlib.h>
#include <string.h>

#include "policy/flow_space_internal.h"

/* ---- scratch ---- */

#define SCRATCH_BLOCK_BYTES ((size_t)256 << 10)
#define SCRATCH_ALIGN 16U

struct scratch_block {
	struct scratch_block *next;
	size_t size;
	size_t used;
	_Alignas(SCRATCH_ALIGN) unsigned char bytes[];
};

static struct scratch_block *take_block(struct scratch *scratch, size_t need)
{
	struct scratch_block **at = &scratch->spare, *block;
	size_t size = need > SCRATCH_BLOCK_BYTES ? need : SCRATCH_BLOCK_BYTES;

	while (*at && (*at)->size < need)
		at = &(*at)->next;
	block = *at;
	if (block) {
		*at = block->next;
	} else {
		block = malloc(sizeof(*block) + size);
		if (!block)
			return NULL;
		block->size = size;
	}
	block->used = 0;
	block->next = scratch->blocks;
	scratch->blocks = block;
	return block;
}

void *scratch_alloc(struct scratch *scratch, size_t n, size_t item_size)
{
	struct scratch_block *block = scratch->blocks;
	size_t need;
	void *bytes;

	if (__builtin_mul_overflow(n, item_size, &need) || need > SIZE_MAX / 2)
		return NULL;
	need = (need + SCRATCH_ALIGN - 1) & ~(size_t)(SCRATCH_ALIGN - 1);
	if (!block || block->size - block->used < need) {
		block = take_block(scratch, need);
		if (!block)
			return NULL;
	}
	bytes = block->bytes + block->used;
	block->used += need;
	return bytes;
}

struct scratch_mark scratch_mark(const struct scratch *scratch)
{
	return (struct scratch_mark){scratch->blocks, scratch->blocks ? scratch->blocks->used : 0};
}

void scratch_release(struct scratch *scratch, struct scratch_mark mark)
{
	while (scratch->blocks != mark.block) {
		struct scratch_block *block = scratch->blocks;

		scratch->blocks = block->next;
		block->next = scratch->spare;
		scratch->spare = block;
	}
	if (mark.block)
		mark.block->used = mark.used;
}

static void free_blocks(struct scratch_block *block)
{
	while (block) {
		struct scratch_block *next = block->next;

		free(block);
		block = next;
	}
}

void scratch_free(struct scratch *scratch)
{
	free_blocks(scratch->blocks);
	free_blocks(scratch->spare);
	*scratch = (struct scratch){};
}

/* ---- spans ---- */

uint32_t spans_seek(const struct spans *spans, uint32_t number)
{
	uint32_t low = 0, high = spans->n;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (spans->items[middle].last < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

bool spans_contain(const struct spans *spans, uint32_t number)
{
	uint32_t i = spans_seek(spans, number);

	return i < spans->n && spans->items[i].first <= number;
}

enum relation spans_relation_counted(const struct spans *part, const struct spans *set, uint64_t *work)
{
	bool in = false, out = false;
	uint32_t j, start;

	if (!part->n || !set->n)
		return APART;
	start = j = spans_seek(set, part->items[0].first);
	for (uint32_t i = 0; i < part->n && !(in && out); i++) {
		const struct span *span = &part->items[i];

		*work += 1;
		while (j < set->n && set->items[j].last < span->first)
			j++;
		if (j == set->n || set->items[j].first > span->last) {
			out = true;
			/* What is left of the part may be long, and the set begin behind it. */
			if (j == set->n)
				break;
			if (!in && i + 1 < part->n) {
				uint32_t next = spans_seek(part, set->items[j].first);

				i = next > i + 1 ? next - 1 : i;
			}
		} else {
			in = true;
			out = out || set->items[j].first > span->first || set->items[j].last < span->last;
		}
	}
	*work += j - start;
	return !in ? APART : out ? PARTLY : COVERED;
}

enum relation spans_relation(const struct spans *part, const struct spans *set)
{
	uint64_t work = 0;

	return spans_relation_counted(part, set, &work);
}

uint32_t spans_intersect_to(struct span *out, const struct spans *a, const struct spans *b)
{
	uint32_t n = 0, i = 0, j = 0;

	if (!a->n || !b->n)
		return 0;
	i = spans_seek(a, b->items[0].first);
	j = spans_seek(b, a->items[0].first);
	while (i < a->n && j < b->n) {
		uint32_t first = a->items[i].first > b->items[j].first ? a->items[i].first : b->items[j].first;
		uint32_t last = a->items[i].last < b->items[j].last ? a->items[i].last : b->items[j].last;

		if (first <= last)
			out[n++] = (struct span){first, last};
		if (a->items[i].last < b->items[j].last)
			i++;
		else
			j++;
	}
	return n;
}

uint32_t spans_subtract_to(struct span *out, const struct spans *a, const struct spans *b)
{
	uint32_t n = 0, j = a->n ? spans_seek(b, a->items[0].first) : 0;

	for (uint32_t i = 0; i < a->n; i++) {
		struct span rest = a->items[i];
		bool left = true;

		while (j < b->n && b->items[j].last < rest.first)
			j++;
		for (; left && j < b->n && b->items[j].first <= rest.last; j++) {
			if (b->items[j].first > rest.first)
				out[n++] = (struct span){rest.first, b->items[j].first - 1};
			/* This span of b may reach into the next of a: it stays. */
			left = b->items[j].last < rest.last;
			if (!left)
				break;
			rest.first = b->items[j].last + 1;
		}
		if (left)
			out[n++] = rest;
	}
	return n;
}

uint32_t spans_unite_to(struct span *out, const struct spans *a, const struct spans *b)
{
	uint32_t n = 0, i = 0, j = 0;

	while (i < a->n || j < b->n) {
		bool first = j == b->n || (i < a->n && a->items[i].first <= b->items[j].first);
		struct span next = first ? a->items[i++] : b->items[j++];

		if (n && (next.first <= out[n - 1].last || next.first - 1 == out[n - 1].last)) {
			if (next.last > out[n - 1].last)
				out[n - 1].last = next.last;
		} else {
			out[n++] = next;
		}
	}
	return n;
}

static bool in_space(struct flow_space *space, struct spans *out, const struct spans *a, const struct spans *b,
		     uint32_t (*operation)(struct span *, const struct spans *, const struct spans *))
{
	struct scratch_mark mark = scratch_mark(&space->scratch);
	struct span *items = scratch_alloc(&space->scratch, (size_t)a->n + b->n, sizeof(*items));
	struct spans result = {};

	if (items) {
		result.n = operation(items, a, b);
		result.items = arena_copy(&space->arena, items, result.n * sizeof(*items));
	}
	scratch_release(&space->scratch, mark);
	*out = result;
	return result.items;
}

bool spans_intersect(struct flow_space *space, struct spans *out, const struct spans *a, const struct spans *b)
{
	return in_space(space, out, a, b, spans_intersect_to);
}

bool spans_subtract(struct flow_space *space, struct spans *out, const struct spans *a, const struct spans *b)
{
	return in_space(space, out, a, b, spans_subtract_to);
}

bool spans_unite(struct flow_space *space, struct spans *out, const struct spans *a, const struct spans *b)
{
	return in_space(space, out, a, b, spans_unite_to);
}

bool spans_equal(const struct spans *a, const struct spans *b)
{
	return a->n == b->n && (!a->n || memcmp(a->items, b->items, a->n * sizeof(*a->items)) == 0);
}
