// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * carry.bpf.c - what is kept with sockets, carried over from the map of another layout (daemon/carry.h).
 *
 * Loaded only by a daemon that finds such a map. An iterator runs the program for each value of the old map; the program
 * makes the value of the same socket in this build's map. It runs twice, before and after the packet programs are replaced,
 * because sockets are made until then: the second time for those.
 */
#include "kernel.h"
#include "maps.h"

/*
 * One program for each map that keeps something with sockets: its name is carry_ and the map's. The value is made whole, beside the
 * stack, and put into the map at once: a program that finds it finds all of it. What is there already stays: the programs of
 * this build may have written to it. Only the daemon that holds the pins reads the iterator, so the room is its alone.
 */
#define CARRY(name, held)                                                                                              \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                                               \
		__uint(max_entries, 1);                                                                                \
		__type(key, __u32);                                                                                    \
		__type(value, held);                                                                                   \
	} made_##name SEC(".maps");                                                                                    \
                                                                                                                       \
	SEC("?iter/bpf_sk_storage_map")                                                                                \
	int carry_##name(struct bpf_iter__bpf_sk_storage_map *ctx)                                                     \
	{                                                                                                              \
		struct bpf_map *map = ctx->map;                                                                        \
		struct sock *sk = ctx->sk;                                                                             \
		void *value = ctx->value;                                                                              \
		__u32 zero = 0, bytes;                                                                                 \
		held *made;                                                                                            \
                                                                                                                       \
		if (!map || !sk || !value)                                                                             \
			return 0;                                                                                      \
		made = bpf_map_lookup_elem(&made_##name, &zero);                                                       \
		if (!made)                                                                                             \
			return 0;                                                                                      \
		__builtin_memset(made, 0, sizeof(*made));                                                              \
		bytes = map->value_size; /* read once: the verifier has to see what is compared */                     \
		asm volatile("" : "+r"(bytes));                                                                        \
		if (bytes > sizeof(*made))                                                                             \
			bytes = sizeof(*made);                                                                         \
		if (bpf_probe_read_kernel(made, bytes, value))                                                         \
			return 0;                                                                                      \
		bpf_sk_storage_get(&name, sk, made, BPF_SK_STORAGE_GET_F_CREATE);                                      \
		return 0;                                                                                              \
	}

CARRY(sockets, struct bh_sock)
CARRY(udp_sockets, struct bh_udp_sock)

char LICENSE[] SEC("license") __weak = "Dual BSD/GPL";
