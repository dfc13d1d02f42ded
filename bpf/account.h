/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * account.h - bytes of UDP, counted for the pair of identities that they pass between.
 *
 * A datagram adds to a sum that stands with its socket, beside the flow that lets it pass (struct bh_udp_recent), where no other
 * socket writes. From there it goes to the pair: within a second of the next datagram, when the place is given to another pair,
 * when the socket is closed, and whenever somebody asks. So all that passed is counted, once. Two things are not exact, and
 * cannot be without a lock that each datagram would wait for: one that passes on one processor while another gives its flow's
 * place to another pair of the same socket may be counted for that one; and what passes while the socket is being closed may not
 * be counted.
 */
#ifndef BULKHEAD_BPF_ACCOUNT_H
#define BULKHEAD_BPF_ACCOUNT_H

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

/* Adds to the pair what was counted in a place that is this CPU's to write. */
static __always_inline void account_settle(struct bh_udp_recent *r)
{
	__u64 sent = __sync_lock_test_and_set(&r->sent, 0), received = __sync_lock_test_and_set(&r->received, 0);

	if (sent || received)
		bh_pair_bytes(r->identity, r->peer, r->direction, sent, received);
}

/* The same for each place of a socket, but one that another CPU writes to all the while. */
BH_SUBPROGRAM int account_settle_all(struct bh_udp_sock *us)
{
	for (__u32 i = 0; i < BH_UDP_RECENT; i++) {
		struct bh_udp_recent *r = &us->recent[i];

#pragma clang loop unroll(disable)
		for (int n = 0; n < BH_ACCOUNT_TRIES; n++) {
			__u64 seq = *(volatile __u64 *)&r->seq;

			if ((seq & 1) || __sync_val_compare_and_swap(&r->seq, seq, seq + 1) != seq)
				continue;
			account_settle(r);
			__sync_lock_test_and_set(&r->seq, seq + 2);
			break;
		}
	}
	return 0;
}

#endif
