/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * abi_udp.h - what is kept for a UDP socket, for its flows, and for the datagrams that are under way on this host. Flows of
 * all other protocols but TCP are kept as those of UDP.
 */
#ifndef BULKHEAD_BPF_ABI_UDP_H
#define BULKHEAD_BPF_ABI_UDP_H

#include <linux/types.h>
#include <stdbool.h>

#include "abi_flow.h"
#include "abi_layout.h"
#include "seal.h"

/*
 * A flow of a UDP socket that was allowed a moment ago, both ways: what a packet needs that changes nothing. It is read
 * without a lock; who writes makes `seq` odd first, and one that was even and the same before and after was read whole.
 *
 * It stands in one of four places that the socket's cookie names, and a hash of the remote end. Storage in the socket would be
 * its alone, and is found by a call, which takes longer than all else that a datagram costs here. Sockets that have the same
 * places go the longer way with a flow whose place is in use.
 */
struct bh_udp_recent {
	__u64 seq;
	__u64 cookie; /* of the socket */
	__u64 word;
	__u64 send_until_ns;	/* from then on, or if the word is another, a packet goes the whole way */
	__u64 receive_until_ns; /* likewise of what arrives */
	__u64 send_ticket;	/* BH_TICKET_NONE: what is sent needs none */
	__u64 receive_ticket;	/* what arrives must have a credit there */
	struct bh_addr local;
	struct bh_addr remote;
	__be16 lport;
	__be16 rport;
	__u32 identity;
	/* Payload in bytes of the pair `identity`, `peer`, `direction`, since it was last added there (account.h). */
	__u64 sent;
	__u64 received;
	__u64 counted_ns; /* when that was */
	__u32 peer;
	__u8 direction;
	__u8 path;   /* BH_PATH_* */
	__u8 used;   /* 1: a packet has passed by it since another flow wanted its place */
	__u8 wanted; /* how often another wanted it since */
};
#define BH_PATH_LOOPBACK 1U /* on the loopback device */
#define BH_PATH_V4 2U
#define BH_UDP_RECENT 4U       /* two bits of a hash of the remote end say which one */
#define BH_UDP_RECENT_OF 1024U /* sockets that have places of their own; a power of two */

/* Kept with each UDP socket (BPF_MAP_TYPE_SK_STORAGE). */
struct bh_udp_sock {
	__u64 netns;	  /* cookie of the socket's network namespace */
	__u64 cgroup;	  /* of the creator */
	__u32 registered; /* 1 while it stands in the endpoint map under `local`, `lport` */
	__u16 lport;
	__u8 host;    /* 1: of no workload, lives in the root of the hierarchy */
	__u8 answers; /* 1: it was allowed to receive: what it sends may be an answer */
	struct bh_addr local;
	__u32 more; /* 1: it had more flows at a time than there was room for in its places */
	__u32 pad;
	/* In layouts up to 4 the flows in use stood here, 512 bytes: a field that comes next has to begin behind them. */
	__u64 test[BH_LAYOUT_TEST];
};

/* UDP sockets of managed workloads, so that both ends of a flow on this host know each other. A socket bound to every
 * address stands under `::` or `::ffff:0.0.0.0`. */
struct bh_endpoint_key {
	struct bh_addr addr;
	__u64 netns;
	__u16 port;
	__u16 pad[3];
};

struct bh_endpoint {
	__u64 cookie;		    /* of the socket that registered first: names this registration */
	__u32 refs;		    /* sockets on it (SO_REUSEPORT) */
	__u32 shared;		    /* 1: of several cgroups, so it is nobody's */
	__u64 levels[BH_MAX_DEPTH]; /* cgroup ids from below the managed subtree downwards; 0 ends */
	__u64 test[BH_LAYOUT_TEST];
};

/*
 * Datagrams under way between two sockets of this host. The sender's egress gives a credit for each, the receiver's ingress
 * takes one: so an identity belongs to packets that this kernel sent for it, not to an address that anybody could write.
 *
 * `word` is the number of the ticket << BH_TICKET_BITS | credits. A number is given once, and stands for one flow (addresses,
 * ports, device), one socket that sends and the identity it has; it also says which slot it is in. Both ends keep the
 * number with their flow, so nothing has to be searched; a slot that another flow has got meanwhile has another number.
 *
 * `state` says under which state word the sender's end last allowed the flow. A receiver that judges by another one judges
 * for the sender's end, too: a datagram that is under way while the policy is replaced is not judged by a half of each.
 */
struct bh_ticket {
	__u64 word;
	__u64 time_ns; /* of the last credit; a moment later all are void */
	__u64 tag;     /* cgroup whose tag gave the sender its identity; 0: none */
	__u64 cookie;  /* of the sender's socket */
	__u32 identity;
	__u32 state; /* BH_TICKET_STATE() */
};
#define BH_TICKET_BITS 20
#define BH_TICKET_CREDITS(word) ((__u32)((word) & ((1ULL << BH_TICKET_BITS) - 1)))
#define BH_TICKET_NUMBER(word) ((word) >> BH_TICKET_BITS)
#define BH_TICKET_NONE 1ULL /* no number: nothing is to be shown. As the word of a slot: being written */
#define BH_UDP_SLOTS 32768U /* a power of two */
/* A state word and the number of a ticket, so that one written late, into a slot that has got another number meanwhile, says
 * nothing of that one. */
#define BH_TICKET_STATE(ticket, word) ((__u32)(word) ^ (__u32)(BH_TICKET_NUMBER(ticket) / BH_UDP_SLOTS) << 20)

/* One flow of anything but TCP, seen from one socket; of ICMP the ports hold identifier and type (icmp.h). LRU: losing one
 * means the next packet is judged as a new flow. */
struct bh_udp_key {
	__u64 cookie;
	struct bh_addr local;
	struct bh_addr remote;
	__u16 lport;
	__u16 rport;
	__u8 proto;
	__u8 pad[3];
};

struct bh_udp_flow {
	__u64 word;
	__u64 valid_until_ns;
	__u64 seen_ns;	   /* last packet, to a second */
	__u64 resolved_ns; /* when it was last looked up who is there */
	__u64 peer_cookie; /* of the peer's socket on this host; 0: none */
	__u64 peer_tag;
	__u32 identity;
	__u32 peer;
	__u32 cell;
	__u8 initiator; /* 1: this end sent the first packet */
	__u8 proof;
	__u8 reason;
	__u8 verdict;
	__u64 send_ticket; /* as in struct bh_udp_recent, with bh_seal_key() of the key over it; 0 there: not known */
	__u64 receive_ticket;
	__u64 seal; /* bh_udp_flow_seal(); 0: as a build left it that had none */
	__u64 test[BH_LAYOUT_TEST];
};

/* Of a flow and all that a verdict rests on (seal.h); never 0. What is not in it changes while the flow lasts. */
static inline __attribute__((unused, always_inline)) __u64 bh_udp_flow_seal(const struct bh_udp_flow *f,
									    const struct bh_udp_key *key)
{
	__u64 ends = (__u64)f->identity << 32 | f->peer;
	__u64 is = (__u64)f->cell << 32 | (__u32)f->initiator << 24 | f->proof << 16 | f->reason << 8 | f->verdict;
	__u64 seal = bh_seal_key(key) + BH_SEAL(f->word, 0x923f82a4af194f9bULL) +
		     BH_SEAL(f->valid_until_ns, 0xab1c5ed5da6d8118ULL) +
		     BH_SEAL(f->peer_cookie, 0xd807aa98a3030242ULL) + BH_SEAL(f->peer_tag, 0x12835b0145706fbeULL) +
		     BH_SEAL(ends, 0x243185be4ee4b28cULL) + BH_SEAL(is, 0x550c7dc3d5ffb4e2ULL);

	return seal | 1;
}

static inline __attribute__((unused, always_inline)) bool bh_udp_flow_is_sealed(const struct bh_udp_flow *f,
										const struct bh_udp_key *key)
{
	return !f->seal || f->seal == bh_udp_flow_seal(f, key);
}

BH_ASSERT_SIZE(struct bh_endpoint_key, 32);
BH_ASSERT_SIZE(struct bh_endpoint, 16 + 8 * BH_MAX_DEPTH);
BH_ASSERT_SIZE(struct bh_ticket, 40);
BH_ASSERT_SIZE(struct bh_udp_key, 48);
BH_ASSERT_SIZE(struct bh_udp_flow, 88);
BH_ASSERT_SIZE(struct bh_udp_recent, 128);
BH_ASSERT_SIZE(struct bh_udp_sock, 48);

#endif
