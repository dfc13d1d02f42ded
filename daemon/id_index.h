/* SPDX-License-Identifier: Apache-2.0 */
/*
 * id_index.h - where in an array the item of a cgroup stands. A subtree may hold tens of thousands of groups, each with a tag,
 * and a sweep asks for every one of them.
 */
#ifndef BULKHEAD_DAEMON_ID_INDEX_H
#define BULKHEAD_DAEMON_ID_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All 0: empty. */
struct id_index {
	struct id_index_slot *slots;
	size_t size; /* a power of two, at most half full */
	size_t n;
};

/* Notes that the item of `id`, which is not 0, stands at `at`, whatever was noted before. Returns 0 or -ENOMEM. */
int id_index_put(struct id_index *index, uint64_t id, size_t at);
bool id_index_get(const struct id_index *index, uint64_t id, size_t *at);
void id_index_remove(struct id_index *index, uint64_t id);
void id_index_clear(struct id_index *index);

#endif
