/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory.h - memory of the policy library: arenas, and interning of byte strings.
 *
 * What is read from a policy lives exactly as long as the policy, and what the compiler works with as long as the
 * compilation: an arena each, freed at once. A failed allocation is remembered in the arena, so that a reader may go on
 * to its end and its caller asks once.
 *
 * Interning gives equal byte strings one number, counting up in the order of first appearance. Nearly everything in the
 * compiler is a set that must be recognised when it comes up again (of patterns, networks, rules, cells); each is a
 * sorted list of numbers, interned. The hash is quick and not a cryptographic one; its seed, an address, makes it hard to write a
 * policy that collides, and one that does costs time, of which the compiler is given 20 s. As numbers follow the order of
 * appearance, the output does not depend on the seed.
 */
#ifndef BULKHEAD_POLICY_MEMORY_H
#define BULKHEAD_POLICY_MEMORY_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define _cleanup_(function) __attribute__((cleanup(function)))

struct arena_block;

struct arena {
	struct arena_block *blocks;
	bool out_of_memory; /* an allocation failed */
};

/* Zeroed, aligned for any type. Returns NULL when out of memory. */
void *arena_alloc(struct arena *arena, size_t size);
void *arena_array(struct arena *arena, size_t n, size_t item_size);   /* likewise, overflow-checked */
void *arena_copy(struct arena *arena, const void *bytes, size_t len); /* with a NUL behind */
char *arena_printf(struct arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Hands all that `other` holds over to the arena. */
void arena_join(struct arena *arena, struct arena *other);
void arena_free(struct arena *arena);

/* Numbers, growing. */
struct list {
	uint32_t *items;
	size_t n;
	size_t capacity;
};

int list_reserve(struct list *list); /* so that the next push cannot fail */
void list_sort_unique(struct list *list);
void list_free(struct list *list);

/* 0 or -ENOMEM. */
static inline int list_push(struct list *list, uint32_t item)
{
	if (list->n == list->capacity && list_reserve(list) < 0)
		return -ENOMEM;
	list->items[list->n++] = item;
	return 0;
}

/* Makes room for one more item after `n`. Returns 0 or -ENOMEM. */
int array_grow(void *itemsp, size_t *capacityp, size_t n, size_t item_size);

struct intern_entry {
	const void *bytes;
	uint32_t len;
	uint32_t hash;
};

struct intern {
	struct arena arena;
	struct intern_entry *entries;
	uint32_t n;
	size_t capacity;
	uint32_t *slots;  /* entry + 1; 0: free */
	uint32_t n_slots; /* a power of two, or 0 */
	size_t bytes;	  /* held, of all entries */
	uint64_t seed;
};

/* Sets *indexp. Returns 0 (was there), 1 (new), or -ENOMEM. */
int intern_bytes(struct intern *intern, const void *bytes, size_t len, uint32_t *indexp);
int intern_list(struct intern *intern, const struct list *list, uint32_t *indexp);
/* Returns whether it is there; sets *indexp if so. */
bool intern_find(const struct intern *intern, const void *bytes, size_t len, uint32_t *indexp);
/* The numbers of an interned list. Borrowed. */
const uint32_t *intern_get(const struct intern *intern, uint32_t index, size_t *np);
void intern_free(struct intern *intern);

#endif
