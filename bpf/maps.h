/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * maps.h - every map, once. All are pinned, so that a daemon that dies leaves enforcement as it is and the next one
 * adopts it.
 *
 * Kinds follow one rule: where losing an entry could allow something, the map is a plain hash or array, and a full map
 * denies. LRU is used only where a lost entry denies or costs another lookup.
 *
 * Pins carry the number of the layout (abi_layout.h); how each map is taken over from another layout stands in daemon/carry.c.
 */
#ifndef BULKHEAD_BPF_MAPS_H
#define BULKHEAD_BPF_MAPS_H

#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

/* Verified by itself, once, whoever calls it: what keeps loading fast. Its pointers may be NULL for all the verifier
 * knows. Weak, because each object brings its copy and the linker keeps one. */
#define BH_GLOBAL __attribute__((noinline, weak))
/* Not inlined, but verified with each caller: for arguments that a global function cannot take. Not every object uses
 * each. */
#define BH_SUBPROGRAM static __attribute__((noinline, unused))

/* Set before loading: where the managed subtree stands in the hierarchy. */
const volatile __u32 subtree_level __weak = 0;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct bh_state);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} state __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, BH_TABLES_BYTES);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} tables __weak SEC(".maps");

/* Who index by slot and identity number. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * BH_MAX_IDENTITIES);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u16);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} who __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, BH_MAX_TAGS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct bh_tag);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} tags __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, BH_MAX_TAGS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct bh_vouchers);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} vouchers __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, BH_MAX_IDENTITIES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct bh_name);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} names __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BH_KEY_SLOTS);
	__type(key, __u32);
	__type(value, struct bh_key);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} keys __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct bh_sock);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} sockets __weak SEC(".maps");

/* Mapped by user space, and so at the beginning of a page: an item is two cache lines. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BH_TCP_SLOTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct bh_tcp);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} tcp_slots __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, BH_TCP_MORE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct bh_tcp);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} tcp_more __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct bh_udp_sock);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} udp_sockets __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BH_UDP_RECENT_OF *BH_UDP_RECENT);
	__type(key, __u32);
	__type(value, struct bh_udp_recent);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} udp_recent __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BH_HANDSHAKE_NEAR + BH_HANDSHAKE_FAR);
	__type(key, __u32);
	__type(value, struct bh_handshake_bucket);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} handshakes __weak SEC(".maps");

/* Those that are over, by hash: what came late of one is told from what never had one (pending.h). */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BH_HANDSHAKES_OVER);
	__type(key, __u32);
	__type(value, struct bh_handshake_over);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} handshakes_over __weak SEC(".maps");

/* A SYN or SYN-ACK that this kernel sent for a managed socket, taken by the first receiver. What is replayed finds no ticket;
 * what lost its far place to others under way is sent again, a second later. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BH_TICKET_NEAR / BH_TICKET_WAYS + BH_TICKET_FAR_BUCKETS);
	__type(key, __u32);
	__type(value, struct bh_syn_tickets);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} tickets __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, BH_MAX_ENDPOINTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct bh_endpoint_key);
	__type(value, struct bh_endpoint);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} endpoints __weak SEC(".maps");

/* Network namespace of each address that a workload's namespace on this host has, or the managed device that it is bound to;
 * 0: several have it. Kept by the enforcer. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, BH_MAX_ADDRESSES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct bh_addr);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} addresses __weak SEC(".maps");

/* Bits of the addresses that found no room there (bh_unlisted_bit()). Kept by the enforcer. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BH_UNLISTED_BITS / 64);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} unlisted __weak SEC(".maps");

/* The ticket of each flow, by its number, sealed (seal.h): where both ends find it that do not know it yet. `local` is the
 * source; netns is 0 unless it is on a loopback device. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, BH_UDP_SLOTS);
	__type(key, struct bh_tuple);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} udp_tickets __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BH_UDP_SLOTS);
	__type(key, __u32);
	__type(value, struct bh_ticket);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} udp_slots __weak SEC(".maps");

/* The last number that was given to a ticket. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} udp_serial __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, BH_MAX_UDP_FLOWS);
	__type(key, struct bh_udp_key);
	__type(value, struct bh_udp_flow);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} udp_flows __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, BH_MAX_DEVICES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct bh_device);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} devices __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, BH_MAX_DEVICE_FLOWS);
	__type(key, struct bh_device_key);
	__type(value, struct bh_device_flow);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} device_flows __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, BH_MAX_DENIALS);
	__type(key, struct bh_denial_key);
	__type(value, struct bh_denial);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} denials __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, BH_EVENTS_BYTES);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} events __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct bh_counters);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} counters __weak SEC(".maps");

/* Counted per pair of identities; and how much of a live TCP socket was counted before it ended. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, BH_MAX_PAIRS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct bh_pair_key);
	__type(value, struct bh_pair);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pairs __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct bh_counted);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} counted __weak SEC(".maps");

/* The clock as it was read last on this CPU, and in which tick. */
struct bh_clock {
	__u64 tick;
	__u64 now_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bh_clock);
} clock __weak SEC(".maps");

/* A judgement, with all that went into it. */
struct bh_judged {
	__u64 word; /* under which it holds; 0: none, 1: being written */
	__u64 valid_until;
	struct bh_addr local;
	struct bh_addr remote;
	__u32 subject;
	__u32 peer;
	__u32 cell;
	__u16 port;
	__u8 proto;
	__u8 direction;
};
#define BH_JUDGED_WRITING 1ULL
#define BH_JUDGED_BITS 10U

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1 << BH_JUDGED_BITS);
	__type(key, __u32);
	__type(value, struct bh_judged);
} judged __weak SEC(".maps");

static __always_inline struct bh_counters *bh_counters(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&counters, &zero);
}

#define BH_COUNT(field)                                                                                                \
	do {                                                                                                           \
		struct bh_counters *counters_ = bh_counters();                                                         \
		if (counters_)                                                                                         \
			__sync_fetch_and_add(&counters_->field, 1);                                                    \
	} while (0)

/*
 * CLOCK_BOOTTIME in ns, to a tick of the kernel (1 to 10 ms). Reading the hardware clock waits for the stores of the packet
 * at hand, 50 to 80 ns, which is more than all else that an established flow costs here; once a tick is enough for a
 * deadline. The tick is stored last: who is interrupted in between leaves a pair that nobody matches.
 */
static __always_inline __u64 bh_now(void)
{
	__u64 tick = bpf_jiffies64(), now;
	__u32 zero = 0;
	struct bh_clock *c = bpf_map_lookup_elem(&clock, &zero);

	if (!c)
		return ~0ULL; /* past every deadline */
	if (*(volatile __u64 *)&c->tick == tick)
		return *(volatile __u64 *)&c->now_ns;
	now = bpf_ktime_get_boot_ns();
	*(volatile __u64 *)&c->now_ns = now;
	*(volatile __u64 *)&c->tick = tick;
	return now;
}

static __always_inline __u64 bh_state_word(void)
{
	__u32 zero = 0;
	struct bh_state *s = bpf_map_lookup_elem(&state, &zero);

	return s ? *(volatile __u64 *)&s->word : 0;
}

#endif
