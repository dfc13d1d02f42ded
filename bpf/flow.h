/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * flow.h - flows without a handshake: the first packet is judged, the others and the replies belong to its flow.
 *
 * An element of an LRU map has no grace period: it can hold another flow while somebody still has a pointer to what it held.
 * So a verdict goes in by its key, which the kernel compares, and what was read counts if the key leads to the same element
 * afterwards. Through a pointer go the times of the last packet, which another flow that came to be just now has as well, and the
 * numbers of tickets: one that is not its own vouches for nothing that its receiver gets.
 */
#ifndef BULKHEAD_BPF_FLOW_H
#define BULKHEAD_BPF_FLOW_H

#include "judge.h"

/* A flow without packets for this long is over. */
#define BH_FLOW_IDLE (60 * BH_SECOND)

static __always_inline void udp_flow_store(struct bh_udp_flow *f, const struct bh_query *q, __u64 peer_cookie)
{
	f->word = q->word;
	f->valid_until_ns = q->valid_until;
	f->seen_ns = q->now;
	f->resolved_ns = q->now;
	f->peer_cookie = peer_cookie;
	f->peer_tag = q->peer_tag;
	f->identity = q->subject;
	f->peer = q->peer;
	f->cell = q->cell;
	f->initiator = q->direction == BH_EGRESS;
	f->proof = q->proof;
	f->reason = q->reason;
	f->verdict = q->allow;
	f->send_ticket = 0;
	f->receive_ticket = 0;
}

/* Does the key still lead there? */
static __always_inline bool flow_is_still(const struct bh_udp_key *key, const struct bh_udp_flow *f)
{
	asm volatile("" ::: "memory");
	return bpf_map_lookup_elem(&udp_flows, key) == f;
}

/* By itself, so that what it needs of the stack is not there while the policy is asked. */
static __noinline void flow_put(const struct bh_query *q, const struct bh_udp_key *key, __u64 peer_cookie, __u64 flags)
{
	struct bh_udp_flow fresh = {};

	udp_flow_store(&fresh, q, peer_cookie);
	bpf_map_update_elem(&udp_flows, key, &fresh, flags);
}

#define FLOW_THERE 1U  /* there is an entry */
#define FLOW_KNOWN 2U  /* with this peer */
#define FLOW_STANDS 4U /* and its verdict still holds */

/*
 * One packet of a flow without handshake. q holds both ends, `hook` is the packet's direction. Replies belong to the flow of
 * the first packet. Only allowed flows are remembered. Sets q->allow, and to when that holds; returns the flow if it was
 * known, and not judged again.
 */
static __noinline struct bh_udp_flow *flow_judge(struct bh_query *q, struct bh_udp_key *key, __u64 peer_cookie,
						 __u32 hook)
{
	struct bh_udp_flow *f = bpf_map_lookup_elem(&udp_flows, key);
	__u32 found = 0;

	/* Signed: another CPU may have seen a packet after our clock was read. */
	if (f && (__s64)(q->now - f->seen_ns) >= (__s64)BH_FLOW_IDLE)
		f = 0;
	q->direction = hook;
	if (f) {
		q->again = 1;
		q->direction = f->initiator ? BH_EGRESS : BH_INGRESS;
		/* Our answer goes to who asked: that was proved when the question came in. */
		if (hook == BH_EGRESS && !f->initiator) {
			q->peer = f->peer;
			q->peer_tag = f->peer_tag;
			q->proof = f->proof;
			q->unlisted = 0;
			peer_cookie = f->peer_cookie;
		}
		found = FLOW_THERE;
		if (f->peer == q->peer && f->peer_tag == q->peer_tag)
			found |= FLOW_KNOWN;
		if (found == (FLOW_THERE | FLOW_KNOWN) && f->word == q->word && q->now < f->valid_until_ns &&
		    f->peer_cookie == peer_cookie) {
			found |= FLOW_STANDS;
			q->allow = f->verdict;
			q->valid_until = f->valid_until_ns;
			q->cell = f->cell;
			q->reason = f->reason;
		}
		if (!flow_is_still(key, f)) {
			bh_refuse(q, BH_REASON_NO_FLOW);
			return 0;
		}
		if (found & FLOW_STANDS) {
			f->resolved_ns = q->now;
			if (f->seen_ns != q->now)
				f->seen_ns = q->now;
			bh_judge_sender(q);
			if (!q->allow)
				bh_report_denied(q);
			return f;
		}
	}
	if (q->unlisted) {
		bh_refuse(q, BH_REASON_MAP_FULL);
		return 0;
	}
	bh_judge_arrived(q);
	bh_report(q);
	/* A flow that is denied keeps its direction: else the next answer would open it anew the other way round. And who is
	 * not its peer has no say in it. */
	if (q->allow || (found & FLOW_KNOWN))
		flow_put(q, key, peer_cookie, found ? BPF_EXIST : BPF_ANY);
	return 0;
}

static __always_inline int flow_packet(struct bh_query *q, struct bh_udp_key *key, __u64 peer_cookie, __u32 hook)
{
	flow_judge(q, key, peer_cookie, hook);
	return q->allow ? BH_ALLOW : BH_DENY;
}

static __always_inline void flow_key_of(struct bh_udp_key *key, const struct bh_query *q)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->cookie = q->cookie;
	key->local = q->local;
	key->remote = q->remote;
	key->lport = q->lport;
	key->rport = q->rport;
	key->proto = q->proto;
}

#endif
