/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carry_entries.h - what one map holds, copied to another of the same keys whose values may be longer or shorter: the common
 * part is kept, the rest is 0. Both may be in use meanwhile.
 */
#ifndef BULKHEAD_DAEMON_CARRY_ENTRIES_H
#define BULKHEAD_DAEMON_CARRY_ENTRIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bpf_map_info;
struct bpf_program;

/* Makes of an entry of another layout what this build reads: what cannot be 0 in a field that is new. */
typedef void (*carry_complete_fn)(const void *key, void *value);
/* Copies a hash or an array. What is in the hash already stays. complete: of each entry, or NULL. *leftp: entries that did not fit. Returns 0 or -errno. */
int carry_entries(int from_fd, const struct bpf_map_info *from, int to_fd, uint32_t to_value_bytes,
		  uint32_t to_max_entries, carry_complete_fn complete, size_t *leftp);
/* Adds the 64-bit sums of a one-entry array, which can be mapped, to those of another. *takenp (NULL at first, malloc()ed):
 * what was added before; only what has come since is. `whole`: the first time, everything. Returns 0 or -errno. */
int carry_sums(int from_fd, const struct bpf_map_info *from, int to_fd, uint32_t to_value_bytes, bool whole,
	       uint64_t **takenp);
/* Runs the iterator program over a map of values kept with sockets. Returns 0 or -errno. */
int carry_sockets(const struct bpf_program *program, int from_fd);
/* How many records stand unread in a ring that nobody writes to any more. Returns the number or -errno. */
int64_t carry_ring_unread(int ring_fd);
/* Calls `entry` with a copy of each entry of a hash or an array, until it returns something else than 0. Returns that, or
 * -errno. */
typedef int (*carry_entry_fn)(void *ctx, const void *key, const void *value);
int carry_each(int fd, uint32_t key_bytes, uint32_t value_bytes, carry_entry_fn entry, void *ctx);
/* How many entries a hash holds. Returns the number or -errno. */
int64_t carry_entries_count(int fd);

#endif
