/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * pair.h - what is counted for two identities: flows and denials where they are judged, and what TCP itself knows.
 *
 * A packet of an established flow counts nothing. TCP keeps bytes, retransmits and the round-trip time of each connection
 * anyway, so they are read from the socket: once, at its end, and of a connection that lives whenever somebody asks. Each
 * time the difference to what was read before is added, with the socket locked, so nothing is counted twice and the sums
 * only grow, whoever asks how often.
 */
#ifndef BULKHEAD_BPF_PAIR_H
#define BULKHEAD_BPF_PAIR_H

#include <linux/in.h>
#include <stdbool.h>

#include "kernel.h"
#include "maps.h"

#define BH_SOCK_DONE 2UL /* 1 << SOCK_DONE of enum sock_flags: the peer's FIN has come */

/* Not on the stack, which is short where denials are reported. */
static const struct bh_pair bh_pair_none;

/* The pair under which this one is counted, made if it is not there. Where there is no room, `key` becomes that of the
 * others. */
static __always_inline struct bh_pair *bh_pair_of(struct bh_pair_key *key)
{
	struct bh_pair *pair = bpf_map_lookup_elem(&pairs, key);

	if (pair)
		return pair;
	bpf_map_update_elem(&pairs, key, &bh_pair_none, BPF_NOEXIST);
	pair = bpf_map_lookup_elem(&pairs, key);
	if (pair)
		return pair;
	key->subject = BH_ID_OTHER;
	key->peer = BH_ID_OTHER;
	key->proto = 0;
	return bpf_map_lookup_elem(&pairs, key);
}

static __always_inline __u64 bh_above(__u64 a, __u64 b)
{
	return a > b ? a - b : 0;
}

/* The pair of a connection, by what is kept for its socket. Returns false if it never was established. */
static __always_inline bool bh_pair_of_sock(struct bh_pair_key *key, const struct bh_tcp *t)
{
	if (!t || (t->kind != BH_SOCK_ACTIVE && t->kind != BH_SOCK_PASSIVE))
		return false;
	key->subject = t->identity;
	key->peer = t->peer;
	key->direction = t->kind == BH_SOCK_ACTIVE ? BH_EGRESS : BH_INGRESS;
	key->proto = IPPROTO_TCP;
	return true;
}

/*
 * Adds what a TCP socket has done since it was counted last. `before`: what was counted; NULL: nothing. TCP counts sequence
 * numbers, among them our SYN and FIN, and the peer's FIN. The peer acknowledges our FIN after all that was sent; so where more is
 * acknowledged than was sent, that is the FIN.
 */
static __always_inline void bh_pair_tcp(const struct tcp_sock *tp, struct bh_pair_key *key, struct bh_counted *before,
					bool end)
{
	__u64 acked = bh_above(tp->bytes_acked, key->direction == BH_EGRESS);
	__u64 payload = bh_above(tp->bytes_sent, tp->bytes_retrans);
	struct bh_counted now = {
		.sent = acked < payload ? acked : payload,
		.received = bh_above(tp->bytes_received,
				     !!(tp->inet_conn.icsk_inet.sk.__sk_common.skc_flags & BH_SOCK_DONE)),
		.retransmits = tp->total_retrans,
	};
	struct bh_pair *pair = bh_pair_of(key);

	if (!pair)
		return;
	__sync_fetch_and_add(&pair->sent, bh_above(now.sent, before ? before->sent : 0));
	__sync_fetch_and_add(&pair->received, bh_above(now.received, before ? before->received : 0));
	if (now.retransmits)
		__sync_fetch_and_add(&pair->retransmits, bh_above(now.retransmits, before ? before->retransmits : 0));
	/* Where TCP has forgotten it (close() without linger, connect() to AF_UNSPEC), nothing was measured. */
	if (tp->srtt_us) {
		__sync_fetch_and_add(&pair->rtt_us, tp->srtt_us >> 3);
		__sync_fetch_and_add(&pair->rtt_samples, 1);
	}
	/* A socket that has ended can begin another connection. */
	if (before)
		*before = end ? (struct bh_counted){} : now;
}

#endif
