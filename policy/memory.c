/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/memory.h"

#define ARENA_BLOCK_BYTES 65536U
#define ARENA_ALIGN 16U

struct arena_block {
	struct arena_block *next;
	size_t size;
	size_t used;
	_Alignas(ARENA_ALIGN) unsigned char bytes[];
};

void *arena_alloc(struct arena *arena, size_t size)
{
	struct arena_block *block = arena->blocks;
	size_t need, block_size;
	void *bytes;

	if (size > SIZE_MAX / 2) {
		arena->out_of_memory = true;
		return NULL;
	}
	need = (size + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
	if (!block || block->size - block->used < need) {
		block_size = need > ARENA_BLOCK_BYTES / 4 ? need : ARENA_BLOCK_BYTES;
		block = calloc(1, sizeof(*block) + block_size);
		if (!block) {
			arena->out_of_memory = true;
			return NULL;
		}
		block->size = block_size;
		/* A large item has a block of its own, behind the one that still has room. */
		if (block_size == need && arena->blocks) {
			block->next = arena->blocks->next;
			arena->blocks->next = block;
		} else {
			block->next = arena->blocks;
			arena->blocks = block;
		}
	}
	bytes = block->bytes + block->used;
	block->used += need;
	return bytes;
}

void *arena_array(struct arena *arena, size_t n, size_t item_size)
{
	size_t size;

	if (__builtin_mul_overflow(n, item_size, &size)) {
		arena->out_of_memory = true;
		return NULL;
	}
	return arena_alloc(arena, size);
}

void *arena_copy(struct arena *arena, const void *bytes, size_t len)
{
	char *copy = arena_alloc(arena, len + 1);

	if (copy && len)
		memcpy(copy, bytes, len);
	return copy;
}

char *arena_printf(struct arena *arena, const char *format, ...)
{
	va_list args;
	char *text = NULL, *copy;
	int len;

	va_start(args, format);
	len = vasprintf(&text, format, args);
	va_end(args);
	if (len < 0) {
		arena->out_of_memory = true;
		return NULL;
	}
	copy = arena_copy(arena, text, (size_t)len);
	free(text);
	return copy;
}

void arena_join(struct arena *arena, struct arena *other)
{
	struct arena_block **lastp = &other->blocks;

	while (*lastp)
		lastp = &(*lastp)->next;
	/* Behind the one that still has room. */
	if (arena->blocks) {
		*lastp = arena->blocks->next;
		arena->blocks->next = other->blocks;
	} else {
		arena->blocks = other->blocks;
	}
	arena->out_of_memory |= other->out_of_memory;
	*other = (struct arena){};
}

void arena_free(struct arena *arena)
{
	while (arena->blocks) {
		struct arena_block *next = arena->blocks->next;

		free(arena->blocks);
		arena->blocks = next;
	}
}

int array_grow(void *itemsp, size_t *capacityp, size_t n, size_t item_size)
{
	void **items = itemsp;
	size_t capacity, size;
	void *grown;

	if (n < *capacityp)
		return 0;
	capacity = *capacityp ? *capacityp * 2 : 16;
	if (__builtin_mul_overflow(capacity, item_size, &size))
		return -ENOMEM;
	grown = realloc(*items, size);
	if (!grown)
		return -ENOMEM;
	*items = grown;
	*capacityp = capacity;
	return 0;
}

int list_reserve(struct list *list)
{
	return array_grow(&list->items, &list->capacity, list->n, sizeof(*list->items));
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

void list_sort_unique(struct list *list)
{
	bool sorted = true;
	size_t n = 0;

	for (size_t i = 1; i < list->n && sorted; i++)
		sorted = list->items[i - 1] < list->items[i];
	if (sorted)
		return;
	qsort(list->items, list->n, sizeof(*list->items), compare_u32);
	for (size_t i = 0; i < list->n; i++)
		if (!n || list->items[n - 1] != list->items[i])
			list->items[n++] = list->items[i];
	list->n = n;
}

void list_free(struct list *list)
{
	free(list->items);
	*list = (struct list){};
}

static uint32_t hash_bytes(const struct intern *intern, const void *bytes, size_t len)
{
	const unsigned char *p = bytes;
	uint64_t h = intern->seed ^ len, other = ~intern->seed, word;

	/* In two strands: each step waits for the one before it. */
	for (; len >= 16; p += 16, len -= 16) {
		memcpy(&word, p, 8);
		h = (h ^ word) * 0xff51afd7ed558ccdULL;
		h ^= h >> 32;
		memcpy(&word, p + 8, 8);
		other = (other ^ word) * 0x9fb21c651e98df25ULL;
		other ^= other >> 32;
	}
	/* Unalike: the same change to both would be none. */
	h = (h ^ (other << 29 | other >> 35)) * 0xff51afd7ed558ccdULL;
	h ^= h >> 32;
	if (len >= 8) {
		memcpy(&word, p, 8);
		h = (h ^ word) * 0xff51afd7ed558ccdULL;
		h ^= h >> 32;
		p += 8;
		len -= 8;
	}
	word = 0;
	if (len)
		memcpy(&word, p, len);
	h = (h ^ word) * 0xff51afd7ed558ccdULL;
	h ^= h >> 29;
	h *= 0xc4ceb9fe1a85ec53ULL;
	return (uint32_t)(h >> 32);
}

/* The slot that holds the bytes, or the free one where they belong. */
static uint32_t intern_slot(const struct intern *intern, const void *bytes, size_t len, uint32_t hash)
{
	uint32_t mask = intern->n_slots - 1, slot = hash & mask;

	for (; intern->slots[slot]; slot = (slot + 1) & mask) {
		const struct intern_entry *entry = &intern->entries[intern->slots[slot] - 1];

		if (entry->hash == hash && entry->len == len && (!len || memcmp(entry->bytes, bytes, len) == 0))
			break;
	}
	return slot;
}

static int intern_rehash(struct intern *intern)
{
	uint32_t n_slots = intern->n_slots ? intern->n_slots * 2 : 64;
	uint32_t *slots;

	if (n_slots < intern->n_slots)
		return -ENOMEM;
	slots = calloc(n_slots, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	if (!intern->slots)
		intern->seed = (uintptr_t)slots * 0x9e3779b97f4a7c15ULL;
	free(intern->slots);
	intern->slots = slots;
	intern->n_slots = n_slots;
	for (uint32_t i = 0; i < intern->n; i++) {
		uint32_t slot = intern->entries[i].hash & (n_slots - 1);

		while (slots[slot])
			slot = (slot + 1) & (n_slots - 1);
		slots[slot] = i + 1;
	}
	return 0;
}

int intern_bytes(struct intern *intern, const void *bytes, size_t len, uint32_t *indexp)
{
	uint32_t hash, slot;
	void *copy;

	if (len > UINT32_MAX)
		return -ENOMEM;
	if (intern->n_slots / 2 <= intern->n && intern_rehash(intern) < 0)
		return -ENOMEM;
	hash = hash_bytes(intern, bytes, len);
	slot = intern_slot(intern, bytes, len, hash);
	if (intern->slots[slot]) {
		*indexp = intern->slots[slot] - 1;
		return 0;
	}
	copy = arena_copy(&intern->arena, bytes, len);
	if (!copy || array_grow(&intern->entries, &intern->capacity, intern->n, sizeof(*intern->entries)) < 0)
		return -ENOMEM;
	intern->entries[intern->n] = (struct intern_entry){.bytes = copy, .len = (uint32_t)len, .hash = hash};
	intern->bytes += len;
	*indexp = intern->n++;
	intern->slots[slot] = intern->n;
	return 1;
}

int intern_list(struct intern *intern, const struct list *list, uint32_t *indexp)
{
	return intern_bytes(intern, list->items, list->n * sizeof(*list->items), indexp);
}

bool intern_find(const struct intern *intern, const void *bytes, size_t len, uint32_t *indexp)
{
	uint32_t slot;

	if (!intern->n_slots || len > UINT32_MAX)
		return false;
	slot = intern_slot(intern, bytes, len, hash_bytes(intern, bytes, len));
	if (!intern->slots[slot])
		return false;
	*indexp = intern->slots[slot] - 1;
	return true;
}

const uint32_t *intern_get(const struct intern *intern, uint32_t index, size_t *np)
{
	if (np)
		*np = intern->entries[index].len / sizeof(uint32_t);
	return intern->entries[index].bytes;
}

void intern_free(struct intern *intern)
{
	arena_free(&intern->arena);
	free(intern->entries);
	free(intern->slots);
	*intern = (struct intern){};
}
