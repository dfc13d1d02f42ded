/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * account.h - bytes of UDP, counted for the pair of identities that they pass between.
 *
 * A datagram adds to a sum that stands beside the flow that lets it pass (struct bh_udp_recent), where few others write. From there
 * it goes to the pair: within a second of the next datagram, when the place is given to another pair, when the socket is closed,
 * and whenever somebody asks. So all that passed is counted, once. One thing is not exact, and cannot be without a lock that each
 * datagram would wait for: one that passes on one processor while another gives its flow's place to another pair may be counted
 * for that one.
 */
#ifndef BULKHEAD_BPF_ACCOUNT_H
#define BULKHEAD_BPF_ACCOUNT_H

#include "order.h"
#include "pair.h"

#define BH_ACCOUNT_NS 1000000000ULL
/* Each failure means that another CPU writes to the place just now. */
#define BH_ACCOUNT_TRIES 16

BH_GLOBAL int bh_pair_bytes(__u32 subject, __u32 peer, __u32 direction, __u64 sent, __u64 received)
{
	struct bh_pair_key key = {.subject = subject, .peer = peer, .direction = direction, .proto = IPPROTO_UDP};
	struct bh_pair *pair = bh_pair_of(&key);

	if (!pair)
		return 0;
	pair->seen_ns = bh_now();
	if (sent)
		__sync_fetch_and_add(&pair->sent, sent);
	if (received)
		__sync_fetch_and_add(&pair->received, received);
	return 0;
}

/* One of the places of a socket (struct bh_udp_recent). */
static __always_inline struct bh_udp_recent *account_place(__u64 cookie, __u32 way)
{
	__u32 key = (cookie & (BH_UDP_RECENT_OF - 1)) * BH_UDP_RECENT + (way & (BH_UDP_RECENT - 1));

	return bpf_map_lookup_elem(&udp_recent, &key);
}

/* Adds to the pair what was counted in a place that is this CPU's to write. */
static __always_inline void account_settle(struct bh_udp_recent *r)
{
	__u64 sent = __sync_lock_test_and_set(&r->sent, 0), received = __sync_lock_test_and_set(&r->received, 0);

	if (sent || received)
		bh_pair_bytes(r->identity, r->peer, r->direction, sent, received);
}

/* The same for a place that anybody may write to just now; `cookie`: only if it is of this socket, whose flow ends; 0: of whichever
 * it is. */
BH_SUBPROGRAM int account_settle_place(struct bh_udp_recent *r, __u64 cookie)
{
#pragma clang loop unroll(disable)
	for (int n = 0; n < BH_ACCOUNT_TRIES; n++) {
		__u64 seq = *(volatile __u64 *)&r->seq;

		if ((seq & 1) || __sync_val_compare_and_swap(&r->seq, seq, seq + 1) != seq)
			continue;
		if (!cookie || r->cookie == cookie)
			account_settle(r);
		if (cookie && r->cookie == cookie)
			r->word = 0;
		__sync_lock_test_and_set(&r->seq, seq + 2);
		break;
	}
	return 0;
}

/* The socket is closed. */
static __always_inline void account_close(__u64 cookie)
{
	for (__u32 i = 0; i < BH_UDP_RECENT; i++) {
		struct bh_udp_recent *r = account_place(cookie, i);

		if (r && r->cookie == cookie)
			account_settle_place(r, cookie);
	}
}

#endif
