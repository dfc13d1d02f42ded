/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * abi_event.h - what the kernel programs tell: events of verdicts, and what they count.
 */
#ifndef BULKHEAD_BPF_ABI_EVENT_H
#define BULKHEAD_BPF_ABI_EVENT_H

#include <linux/types.h>

#include "abi_flow.h"
#include "abi_layout.h"

/* One verdict, as the programs write it to the ring buffer. `src` is always the flow's source. */
#define BH_EVENT_BYTES_MIN 120U /* of any build */
struct bh_event {
	__u64 time_ns;	/* CLOCK_BOOTTIME */
	__u64 first_ns; /* time of the first packet folded into this event */
	__u64 cgroup;	/* subject's cgroup, or BH_DEVICE_BIT with its device */
	__u64 cookie;	/* subject's socket */
	__u32 subject;	/* identity number */
	__u32 peer;
	__u32 revision; /* policy revision that judged */
	__u32 rule;	/* number within that revision; 0: default */
	__u32 count;	/* packets folded into this event */
	__u32 pid;	/* where the caller is known (connect, sendmsg), else 0 */
	struct bh_addr src;
	struct bh_addr dst;
	__u16 sport;
	__u16 dport; /* ICMP: the type */
	__u8 proto;
	__u8 direction; /* enum bh_direction: which judgement */
	__u8 verdict;	/* enum bh_verdict */
	__u8 reason;	/* enum bh_reason */
	__u8 proof;	/* enum bh_proof */
	__u8 again;	/* 1: an established flow judged again */
	__u8 pad[2];
	char comm[16]; /* where the caller is known */
};

/* Repeated denials of one kind are folded: the first is an event, then one event a second with the count. */
struct bh_denial_key {
	__u64 cgroup;
	struct bh_addr remote;
	__u32 peer;
	__u32 rule;
	__u16 port; /* the service's */
	__u8 proto;
	__u8 direction;
	__u8 reason;
	__u8 proof;
	__u8 pad[2];
};

struct bh_denial {
	__u64 reported_ns;
	__u64 first_ns; /* of those not yet reported */
	__u64 count;	/* not yet reported */
	__u64 test[BH_LAYOUT_TEST];
};

/* Event accounting, exact and across restarts: made = written + lost (+ what still stands in the ring). One pinned
 * value that the kernel programs, the enforcer and the auditor each add to. "Events" are flow verdicts from the ring,
 * "notices" are what the daemon itself reports (identity, policy, enforcement). */
struct bh_counters {
	__u64 events_made;
	__u64 events_lost; /* the ring was full */
	__u64 events_written;
	__u64 notices_made;
	__u64 notices_lost;
	__u64 notices_written;
	__u64 denials_folded; /* packets counted into a later event instead of making one */
	__u64 handshakes_verified;
	__u64 handshakes_forged;
	__u64 handshakes_replayed;
	__u64 map_full;
	__u64 flows_allowed;
	__u64 packets_denied;
	__u64 events_lost_reported; /* of events_lost, told in the audit log */
	__u64 handshakes_stripped;
	__u64 denied[32]; /* packets_denied, by enum bh_reason */
	__u64 test[BH_LAYOUT_TEST];
};
_Static_assert(BH_REASON_MAX <= 32, "struct bh_counters has no room for a reason");

/* What two identities have to do with each other, as counted at one end: `subject` is that end, so a flow between two
 * workloads of this host is counted at its source as egress, and at its destination as ingress. A map that is full counts
 * the others under BH_ID_OTHER, protocol 0. */
struct bh_pair_key {
	__u32 subject;
	__u32 peer;
	__u8 direction; /* enum bh_direction: the subject is the flow's source, or its destination */
	__u8 proto;
	__u8 pad[2];
};

/* All of it only grows. What is of TCP alone is taken from the kernel's own tcp_info: when a connection ends, and of those
 * that live whenever somebody asks (struct bh_counted). Bytes of UDP come from where they are counted with the flow: within a
 * second of the next datagram, when the socket is closed, and whenever somebody asks (struct bh_udp_recent). */
struct bh_pair {
	__u64 seen_ns; /* when a flow, a denial or bytes of UDP were counted last */
	__u64 flows;   /* judged and allowed */
	__u64 denied;  /* packets and calls denied */
	__u64 sent; /* payload in bytes; TCP: that the peer has acknowledged; UDP: that left the socket, and was allowed */
	__u64 received;	   /* likewise; UDP: that was allowed to the socket */
	__u64 retransmits; /* TCP: segments sent again */
	__u64 rtt_us;	   /* TCP: sum of smoothed round-trip times */
	__u64 rtt_samples; /* one of each connection at its end, and one whenever somebody asked while it lived */
};

/* How much of a TCP socket stands in its pair already (BPF_MAP_TYPE_SK_STORAGE; only of sockets that were asked of while
 * they lived). */
struct bh_counted {
	__u64 sent;
	__u64 received;
	__u64 retransmits;
};

BH_ASSERT_SIZE(struct bh_event, 120);
BH_ASSERT_SIZE(struct bh_denial_key, 40);
BH_ASSERT_SIZE(struct bh_denial, 24);
BH_ASSERT_SIZE(struct bh_counters, 120 + 8 * 32 + 8 * BH_LAYOUT_TEST);
BH_ASSERT_SIZE(struct bh_pair_key, 12);
BH_ASSERT_SIZE(struct bh_pair, 64);
BH_ASSERT_SIZE(struct bh_counted, 24);

#endif
