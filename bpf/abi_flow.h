/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * abi_flow.h - what flows of every protocol have: addresses, and a verdict with its reason.
 *
 * Addresses are always 16 bytes in network order; IPv4 is written as an IPv4-mapped address (RFC 4291, 2.5.5.2), because a flow
 * has one meaning whichever socket family carried it. Ports are in host order.
 */
#ifndef BULKHEAD_BPF_ABI_FLOW_H
#define BULKHEAD_BPF_ABI_FLOW_H

#include <linux/types.h>

#include "abi_layout.h"

struct bh_addr {
	__u32 w[4]; /* network order */
};

/*
 * Addresses of this host that the map of addresses had no room for: of each, the bit that a hash names. Who is there cannot
 * be told, and must not be taken for the world. A stranger's address can have the same bit, with a chance of one to two
 * thousand for every 512 addresses without room: it is denied as long as there is none.
 */
#define BH_UNLISTED_BITS (1U << 20)
static inline __attribute__((unused)) __u32 bh_unlisted_bit(const struct bh_addr *a)
{
	__u64 h = ((__u64)a->w[0] << 32 | a->w[1]) * 0x9e3779b97f4a7c15ULL;

	h = (h ^ h >> 32 ^ ((__u64)a->w[2] << 32 | a->w[3])) * 0x9e3779b97f4a7c15ULL;
	return h >> 44;
}

/* Why a verdict is what it is. The text of each stands in one table in user space; the numbers go to the audit log. */
enum bh_reason {
	BH_REASON_POLICY = 0,	   /* a rule or the default decided: see the rule number */
	BH_REASON_NO_IDENTITY = 1, /* the subject's cgroup carries no tag */
	BH_REASON_EXPIRED = 2,	   /* the subject's tag is past its deadline */
	BH_REASON_FRAGMENT = 3,
	BH_REASON_PARSE = 4,	  /* header malformed, truncated, or extension header chain too long */
	BH_REASON_PROTO = 5,	  /* another protocol than the socket's: wrapped or encrypted below it */
	BH_REASON_RAW_SOCKET = 6, /* TCP or UDP made by hand in a raw socket */
	BH_REASON_NO_FLOW = 7,	  /* reply or handshake packet of no flow that was allowed */
	BH_REASON_OLD_SOCKET = 8, /* socket opened before enforcement: nothing is known of its peer */
	BH_REASON_MAP_FULL = 9,
	BH_REASON_EARLY_DATA = 10,   /* payload in a SYN, before the peer has shown its identity */
	BH_REASON_IMPOSSIBLE = 11,   /* no rule can allow it, whoever the peer turns out to be */
	BH_REASON_UNPROVEN = 12,     /* the segment should show who sends it, and has no room for the option */
	BH_REASON_PEER_ENDED = 13,   /* the peer's identity has expired, or was revoked, since the flow began */
	BH_REASON_SOURCE = 14,	     /* a source address that is not the sender's */
	BH_REASON_SIMULTANEOUS = 15, /* a SYN in answer to a SYN: nobody is asked, so nobody can show who answers */
	BH_REASON_NEW_ADDRESS = 16,  /* to an own address that is not known yet */
	BH_REASON_ADDRESS = 17,	     /* the local address is not bound to the managed device */
	BH_REASON_OPTION = 18,	     /* a device's segment shows an identity that no managed socket gave it */
	BH_REASON_OVERTAKEN = 19,    /* sent under another policy; by the one in force, its sender's end denies it */
	BH_REASON_MAX
};

/* What an event says of its flow. */
enum bh_verdict {
	BH_VERDICT_DENY = 0,
	BH_VERDICT_ALLOW = 1,
	BH_VERDICT_WOULD_DENY = 2, /* let pass, by a rule that denies and is in audit mode */
};

/* What is known of the peer's identity. */
enum bh_proof {
	BH_PROOF_NONE = 0,     /* the peer showed nothing, or is not known yet */
	BH_PROOF_VERIFIED = 1, /* handshake option verified, or UDP endpoint of this host */
	BH_PROOF_FORGED = 2,   /* option present, MAC wrong */
	BH_PROOF_REPLAYED = 3, /* MAC right, but the kernel sent no such segment, or it was used already */
	BH_PROOF_MALFORMED = 4,
	BH_PROOF_UNASKED = 5,  /* denied before the peer was asked: no answer could have been allowed */
	BH_PROOF_STRIPPED = 6, /* this kernel sent the segment with an identity, and it arrived without */
	BH_PROOF_MAX
};

/* Kept with each socket that is neither TCP nor UDP (BPF_MAP_TYPE_SK_STORAGE). Nothing is cached. */
struct bh_sock {
	__u64 unused;
	__u64 netns; /* cookie of the socket's network namespace */
	__u8 host;   /* 1: of no workload, lives in the root of the hierarchy */
	__u8 pad[7];
	__u64 test[BH_LAYOUT_TEST];
};

BH_ASSERT_SIZE(struct bh_sock, 24);

#endif
