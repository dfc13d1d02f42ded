// SPDX-License-Identifier: Apache-2.0
#include "id_index.h"

#include <errno.h>
#include <stdlib.h>

#define FIRST_SIZE 256

struct id_index_slot {
	uint64_t id; /* 0: free */
	size_t at;
};

static size_t home_of(uint64_t id, size_t size)
{
	return (size_t)((id * 0x9e3779b97f4a7c15ULL) >> 20) & (size - 1);
}

/* The slot of this id, or the free one where it would be. */
static size_t slot_of(const struct id_index_slot *slots, size_t size, uint64_t id)
{
	size_t slot = home_of(id, size);

	while (slots[slot].id && slots[slot].id != id)
		slot = (slot + 1) & (size - 1);
	return slot;
}

static int grow(struct id_index *index)
{
	size_t size = index->size ? index->size * 2 : FIRST_SIZE;
	struct id_index_slot *slots = calloc(size, sizeof(*slots));

	if (!slots)
		return -ENOMEM;
	for (size_t i = 0; i < index->size; i++)
		if (index->slots[i].id)
			slots[slot_of(slots, size, index->slots[i].id)] = index->slots[i];
	free(index->slots);
	index->slots = slots;
	index->size = size;
	return 0;
}

int id_index_put(struct id_index *index, uint64_t id, size_t at)
{
	size_t slot;

	if (2 * (index->n + 1) > index->size && grow(index) < 0)
		return -ENOMEM;
	slot = slot_of(index->slots, index->size, id);
	index->n += !index->slots[slot].id;
	index->slots[slot] = (struct id_index_slot){.id = id, .at = at};
	return 0;
}

bool id_index_get(const struct id_index *index, uint64_t id, size_t *at)
{
	size_t slot = index->size ? slot_of(index->slots, index->size, id) : 0;

	if (!index->size || !id || !index->slots[slot].id)
		return false;
	*at = index->slots[slot].at;
	return true;
}

void id_index_remove(struct id_index *index, uint64_t id)
{
	size_t hole = index->size ? slot_of(index->slots, index->size, id) : 0, next = hole;

	if (!index->size || !id || !index->slots[hole].id)
		return;
	index->n--;
	/* What comes after in the row moves up where it is searched from before the hole. */
	for (;;) {
		size_t home;

		next = (next + 1) & (index->size - 1);
		if (!index->slots[next].id)
			break;
		home = home_of(index->slots[next].id, index->size);
		if (((next - home) & (index->size - 1)) < ((next - hole) & (index->size - 1)))
			continue;
		index->slots[hole] = index->slots[next];
		hole = next;
	}
	index->slots[hole].id = 0;
}

void id_index_clear(struct id_index *index)
{
	free(index->slots);
	*index = (struct id_index){};
}
