// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * carry.bpf.c - what is kept with sockets, carried over from the map of another layout (daemon/carry.h).
 *
 * Loaded only by a daemon that finds such a map. An iterator runs the program for each value of the old map; the program
 * makes the value of the same socket in this build's map. It runs twice, before and after the packet programs are replaced,
 * because the old ones go on writing until then: the second time, what the new ones have touched stays.
 */
#include "maps.h"

struct bpf_map {
	__u32 value_size;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_map *map;
	struct sock *sk;
	void *value;
} __attribute__((preserve_access_index));

#define WORD_BYTES sizeof(__u64)

/*
 * Copies the common part of a value, but not its word, which says who has touched it: the marks are set by exchange. A program
 * that begins a connection on the socket meanwhile sets the word first. Then half of what stands there may be of the
 * connection before, so the value goes, and the socket with it: denied, not mistaken.
 */
static __always_inline int value_copy(__u64 *to, __u32 to_bytes, const void *from, __u32 from_bytes)
{
	__u32 bytes = from_bytes < to_bytes ? from_bytes : to_bytes;
	__u64 found = *(volatile __u64 *)to;

	/* 0: just made. Programs of this build store a word that is never 0, or BH_WORD_NONE. */
	if (found != 0 && found != BH_WORD_CARRIED)
		return 0;
	if (__sync_val_compare_and_swap(to, found, BH_WORD_CARRYING) != found)
		return 0;
	if (bytes < WORD_BYTES || bytes > to_bytes)
		return -1;
	if (bpf_probe_read_kernel((void *)to + WORD_BYTES, bytes - WORD_BYTES, from + WORD_BYTES))
		return -1;
	return __sync_val_compare_and_swap(to, BH_WORD_CARRYING, BH_WORD_CARRIED) == BH_WORD_CARRYING ? 0 : -1;
}

/* One program for each map that keeps something with sockets: its name is carry_ and the map's. */
#define CARRY(name, type)                                                                                              \
	SEC("?iter/bpf_sk_storage_map")                                                                                \
	int carry_##name(struct bpf_iter__bpf_sk_storage_map *ctx)                                                     \
	{                                                                                                              \
		struct bpf_map *map = ctx->map;                                                                        \
		struct sock *sk = ctx->sk;                                                                             \
		void *value = ctx->value;                                                                              \
		type *to;                                                                                              \
                                                                                                                       \
		if (!map || !sk || !value)                                                                             \
			return 0;                                                                                      \
		to = bpf_sk_storage_get(&name, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);                                    \
		if (to && value_copy((__u64 *)to, sizeof(*to), value, map->value_size))                                \
			bpf_sk_storage_delete(&name, sk);                                                              \
		return 0;                                                                                              \
	}

CARRY(sockets, struct bh_sock)

char LICENSE[] SEC("license") __weak = "Dual BSD/GPL";
