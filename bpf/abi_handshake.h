/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * abi_handshake.h - how an identity travels in SYN and SYN-ACK: the option, its key, and what this host notes of the segments.
 */
#ifndef BULKHEAD_BPF_ABI_HANDSHAKE_H
#define BULKHEAD_BPF_ABI_HANDSHAKE_H

#include <linux/types.h>

#include "abi_flow.h"
#include "abi_layout.h"

/* The TCP option that carries an identity in SYN and SYN-ACK (RFC 6994 experiment). */
#define BH_TCPOPT_KIND 254U
#define BH_TCPOPT_LEN 16U
#define BH_TCPOPT_EXID 0x4248U /* "BH" */
/*
 * Where other options leave no room for it (MPTCP, Fast Open, TCP-MD5), its first four bytes alone, with this length: a
 * workload of this host sent the segment. Who, and the MAC, the receiver finds in the segment's ticket. Another host finds
 * none: to it the sender is `world`.
 */
#define BH_TCPOPT_SHORT_LEN 4U

struct bh_tcpopt {
	__u8 kind;
	__u8 len;
	__be16 exid;
	__be32 identity; /* identity number of the sender */
	__u8 mac[8];	 /* SipHash-2-4 over struct bh_mac_input, little endian */
} __attribute__((packed));

/* What the MAC covers. `ack` is 0 in a SYN and the acknowledgement number in a SYN-ACK, so that neither can stand for
 * the other and a captured SYN-ACK answers no other SYN. */
struct bh_mac_input {
	__u32 src[4];
	__u32 dst[4];
	__be16 sport;
	__be16 dport;
	__be32 seq;
	__be32 ack;
	__be32 identity;
} __attribute__((aligned(8)));

/*
 * Key of the handshake MAC. An epoch's key stands in slot epoch % BH_KEY_SLOTS; bh_state.key_epoch, one 8-byte store, makes
 * it the one in use after all of it is written. Segments are signed by the key in use, and one signed by the key before it
 * counts for BH_KEY_WINDOW_NS more: so none that was under way when the key changed is refused. The
 * slots of neither hold noise, not old keys.
 */
struct bh_key {
	__u64 k0, k1;
	__u64 since_ns; /* CLOCK_BOOTTIME: when it came into use; 0: no key */
};
#define BH_KEY_SLOTS 4U /* a power of two: no division */
#define BH_KEY_WINDOW_NS 120000000000ULL

/* A connection of which the SYN was accepted, seen from the listener. */
struct bh_tuple {
	struct bh_addr local;
	struct bh_addr remote;
	__u64 netns;
	__u16 lport;
	__u16 rport;
	__u32 pad;
};

struct bh_handshake {
	__u64 word;
	__u64 valid_until_ns;
	__u64 peer_tag;
	__u32 identity; /* subject: the listener's */
	__u32 peer;
	__u32 cell;
	__u8 proof;
	__u8 pad[3];
	__u64 subject_tag; /* cgroup whose tag gave the listener its identity */
};

/*
 * Handshakes under way, in the bucket that a hash of the tuple names. `mark` is the upper bits of the hash, or nothing of it
 * in a free place and in one that is being written, and in the lower bits BH_HANDSHAKE_SHOWN, and a count of
 * what has become of the place.
 *
 * There are few near buckets, so that they stay in the processor's caches, and as many far ones as a flood needs. Who finds no
 * place in a near bucket notes there that it overflows, and goes to the far one; there the oldest makes room: losing one
 * denies the connection. Of a near bucket that has not overflowed for a while, nobody looks at the far one.
 */
#define BH_HANDSHAKE_NEAR 64U /* powers of two */
#define BH_HANDSHAKE_FAR 4096U
#define BH_HANDSHAKE_WAYS 4U
#define BH_HANDSHAKES_OVER 16384U /* a power of two; of two each */
#define BH_HANDSHAKE_COUNT 0xffffULL
#define BH_HANDSHAKE_WRITING 0x10000ULL
#define BH_HANDSHAKE_SHOWN 0x20000ULL /* a SYN-ACK was sent that shows who sends it, or need not */
#define BH_HANDSHAKE_HASH (~(BH_HANDSHAKE_COUNT | BH_HANDSHAKE_WRITING | BH_HANDSHAKE_SHOWN))
struct bh_handshake_over {
	__u64 item[2]; /* the upper bits of a hash, and below them when it was; the later one first */
};
struct bh_handshake_item {
	struct bh_tuple tuple;
	struct bh_handshake handshake;
};
struct bh_handshake_bucket { /* whole cache lines */
	__u64 mark[BH_HANDSHAKE_WAYS];
	__u32 time[BH_HANDSHAKE_WAYS]; /* in 2^20 ns, about a millisecond; wraps */
	__u32 overflow;		       /* likewise: when a handshake of this bucket was last written to the far one */
	__u32 overflows;	       /* 1: it was, a while ago at most */
	__u32 pad[2];
	struct bh_handshake_item item[BH_HANDSHAKE_WAYS];
};

/*
 * A SYN or SYN-ACK under way between two sockets of this host, in a place that its sequence number names: that is also there
 * when the option was lost on the way. There are few near places, so that they stay in the processor's caches; a segment that
 * finds its own taken has one in a far bucket.
 */
struct bh_syn_ticket {
	__u64 mac;		     /* 0: received; BH_TICKET_WRITING: being written */
	__u64 tag;		     /* cgroup whose tag gave the sender its identity; 0: none */
	__u64 until;		     /* to when that holds at least; BOOTTIME ns */
	__u32 time;		     /* when it was sent, in BH_SYN_TICKET_NS */
	__u32 state;		     /* the state word under which its sender judged it, lower half */
	struct bh_mac_input segment; /* what the MAC covers */
};
#define BH_SYN_TICKET_NS (1U << 20) /* about a millisecond; a ticket is void long before its time comes round */
#define BH_TICKET_WRITING 1ULL

#define BH_TICKET_WAYS 4U  /* a power of two */
#define BH_TICKET_NEAR 64U /* likewise */
#define BH_TICKET_FAR_BUCKETS 5120U

/* The first buckets hold the near places, the others are the far ones. */
struct bh_syn_tickets {
	struct bh_syn_ticket way[BH_TICKET_WAYS];
};

BH_ASSERT_SIZE(struct bh_tcpopt, BH_TCPOPT_LEN);
BH_ASSERT_SIZE(struct bh_mac_input, 48);
BH_ASSERT_SIZE(struct bh_key, 24);
BH_ASSERT_SIZE(struct bh_tuple, 48);
BH_ASSERT_SIZE(struct bh_handshake, 48);
BH_ASSERT_SIZE(struct bh_handshake_bucket, 448);
BH_ASSERT_SIZE(struct bh_handshake_over, 16);
BH_ASSERT_SIZE(struct bh_syn_ticket, 80);
BH_ASSERT_SIZE(struct bh_syn_tickets, 80 * BH_TICKET_WAYS);

#endif
