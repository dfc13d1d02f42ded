/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * abi_tcp.h - what is kept for a TCP socket.
 */
#ifndef BULKHEAD_BPF_ABI_TCP_H
#define BULKHEAD_BPF_ABI_TCP_H

#include <linux/types.h>

#include "abi_flow.h"
#include "abi_layout.h"

enum bh_sock_kind {
	BH_SOCK_NEW = 0, /* created under enforcement, nothing judged yet */
	BH_SOCK_LISTEN = 1,
	BH_SOCK_CONNECT = 2, /* SYN sent, peer not yet known */
	BH_SOCK_ACTIVE = 3,  /* established, this end initiated */
	BH_SOCK_PASSIVE = 4, /* established, the peer initiated */
	BH_SOCK_HOST = 5,    /* of no workload: lives in the root of the hierarchy */
	BH_SOCK_EARLY = 6,   /* accepted by its SYN (Fast Open), not yet by the peer's ACK */
};

/*
 * Kept for each TCP socket, by its cookie: storage in the socket would cost two allocations a connection, which is more than
 * all else that a short connection costs here. The kernel programs make it when a socket is made or becomes established, and
 * let it go when the kernel destroys the socket; a cookie is never used twice. How it is read and written: bpf/tcp_state.h. The
 * first 64 bytes are what a packet of an established connection, and the end of one, look at. The enforcer reads it to find
 * the connections that a change has cut off.
 */
struct bh_tcp {
	__u64 cookie;	      /* of the socket; 0: nobody's */
	__u64 pass;	      /* established and allowed: the state word under which that was found; else 0 */
	__u64 valid_until_ns; /* earliest deadline that the verdict, or the identity, rests on */
	__u64 word;	      /* the state word of what is cached: the verdict, or before there is one the subject */
	__u8 kind;	      /* enum bh_sock_kind */
	__u8 proof;	      /* enum bh_proof, of the peer */
	__u8 reason;	      /* enum bh_reason, of the cached verdict */
	__u8 verdict;	      /* 1 allow */
	__u8 answered;	      /* the SYN was answered by a peer that is allowed: may become established */
	__u8 asked;	      /* under `word` some rule can allow `identity` to reach `remote`, `rport` */
	__u8 known;	   /* `identity`, `subject_tag`, `cgroup` are the socket's under `word`: a packet showed it */
	__u8 released;	   /* 1: no process can use it any more */
	__u32 identity;	   /* subject */
	__u32 peer;	   /* identity number of the peer */
	__u64 peer_tag;	   /* cgroup whose tag gave the peer its identity */
	__u64 subject_tag; /* likewise of the subject */
	__u64 netns;	   /* cookie of the socket's network namespace */
	__u64 cgroup;	   /* of the creator, where the creation was seen; else 0 */
	__u32 cell;	   /* the cached verdict */
	__u32 isn;	   /* of the SYN sent: only its answer may name the peer */
	__u16 lport;
	__u16 rport;
	__u32 use; /* bits of BH_TCP_USE_ */
	struct bh_addr local;
	struct bh_addr remote;
	__u64 test[BH_LAYOUT_TEST];
};

#define BH_TCP_LEAVING                                                                                                 \
	(1ULL << 63) /* beside the cookie: not to be looked at. No kernel has counted its cookies so far */

#define BH_TCP_USE_WRITING 1U /* by a program that does not hold the socket's lock */
#define BH_TCP_USE_LEAVING 2U /* to be let go, by whoever writes just now */
#define BH_TCP_USE_CARRIED 4U /* another build had it, too: see bpf/end.bpf.c */
#define BH_TCP_USE_COUNTED 8U /* of what it has done, some is counted: the map `counted` says how much */
#define BH_TCP_USE_AGAIN 16U  /* it started over while it was being written */
#define BH_TCP_USE_APART 32U  /* stands in the hash map */
#define BH_TCP_USE_ONE                                                                                                 \
	256U /* of a slot: one more stands in the hash map because this slot was taken; counted from here up */

/* The place of a TCP socket is named by its cookie. Cookies count up, so sockets of one time do not meet but where one lives
 * long; the later one then stands in a hash map. */
#define BH_TCP_SLOTS 32768U /* a power of two */
#define BH_TCP_MORE 131072U

/* What the enforcer asks of a program that keeps to the rules of these entries (bh_keep_tcp); it answers 0, or 1 where there is no
 * room. */
enum bh_tcp_wish {
	BH_TCP_ADD = 0,	   /* `tcp`, if there is none */
	BH_TCP_RENEW = 1,  /* as `tcp`, if there is one */
	BH_TCP_REMOVE = 2, /* the kernel has told its end to others */
	BH_TCP_FORGET = 3, /* its end was not told: only if it may be gone (daemon/connections.c) */
};

struct bh_tcp_request {
	__u32 wish;
	__u32 pad;
	struct bh_tcp tcp; /* BH_TCP_REMOVE, BH_TCP_FORGET: its cookie */
};

BH_ASSERT_SIZE(struct bh_tcp, 128);

#endif
