/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * abi_device.h - managed devices, and the flows of the workloads behind them.
 */
#ifndef BULKHEAD_BPF_ABI_DEVICE_H
#define BULKHEAD_BPF_ABI_DEVICE_H

#include <linux/types.h>
#include <stddef.h>

#include "abi_flow.h"
#include "abi_layout.h"
#include "seal.h"

/* What stands for a device where cgroups and sockets have ids: its tag, its datagrams, its addresses. No cgroup, socket or
 * namespace has such a number. */
#define BH_DEVICE_BIT (1ULL << 63)

/* A managed device, by its index in the daemon's network namespace. One that does not stand in the map carries nothing. */
struct bh_device {
	__u32 link_header; /* bytes before the IP header: 14 of Ethernet, 0 of a device that has none */
	__u32 n_addresses;
	struct bh_addr addresses[BH_DEVICE_ADDRESSES]; /* the workload's: it sends from no other */
	__u32 master;				       /* the bridge that it is a port of; 0: none */
	__u32 pad;
	__u64 seal; /* bh_device_seal(); 0 in a layout that had none, as in struct bh_tag */
	__u64 test[BH_LAYOUT_TEST];
};

/* Of a device's entry and its index (seal.h); never 0. */
static inline __attribute__((unused, always_inline)) __u64 bh_device_seal(const struct bh_device *device, __u32 ifindex)
{
	const bh_seal_word *w = (const bh_seal_word *)device;
	__u64 seal = BH_SEAL((__u64)ifindex, 0x428a2f98d728ae22ULL), factor = 0x7137449123ef65cdULL;

	for (__u32 i = 0; i < offsetof(struct bh_device, seal) / sizeof(*w); i++) {
		seal += BH_SEAL(w[i], factor);
		factor *= 0x9e3779b97f4a7c15ULL;
	}
	return seal | 1;
}

/* A TCP connection of a device's workload. LRU: losing one denies its packets. */
struct bh_device_key {
	__u32 ifindex;
	__u16 lport;
	__u16 rport;
	struct bh_addr local; /* the workload's end */
	struct bh_addr remote;
};

/* A datagram whose first fragment passed: the others may follow. LRU: losing one denies them. */
struct bh_fragment_key {
	__u32 ifindex;
	__u32 id;
	struct bh_addr src;
	struct bh_addr dst;
	__u32 proto;
	__u32 hook; /* BH_EGRESS: the workload sends it */
};

struct bh_fragment {
	__u64 word; /* that it was judged under */
	__u64 until_ns;
	__u32 identity; /* whose bytes are counted: subject, peer, direction of the flow */
	__u32 peer;
	__u32 direction;
	__u32 pad;
};

struct bh_device_flow {
	__u64 word; /* with a seal of the key and of all below over it (bpf/device_flow.h) */
	__u64 valid_until_ns;
	__u64 peer_tag;
	__u32 identity;
	__u32 peer;
	__u32 cell;
	__u32 isn;	/* of the SYN that opened it: only its answer may name the peer */
	__u8 initiator; /* 1: the workload sent the SYN */
	__u8 answered;	/* 1: the peer is known, and was judged */
	__u8 proof;
	__u8 reason;
	__u8 verdict;
	__u8 pad[3];
	__u64 test[BH_LAYOUT_TEST];
};

BH_ASSERT_SIZE(struct bh_device, 24 + 16 * BH_DEVICE_ADDRESSES);
BH_ASSERT_SIZE(struct bh_device_key, 40);
BH_ASSERT_SIZE(struct bh_device_flow, 48);
BH_ASSERT_SIZE(struct bh_fragment_key, 48);
BH_ASSERT_SIZE(struct bh_fragment, 32);

#endif
