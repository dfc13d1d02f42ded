/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * flow.h - flows without a handshake: the first packet is judged, the others and the replies belong to its flow.
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

/* By itself, so that what it needs of the stack is not there while the policy is asked. */
static __noinline void flow_add(const struct bh_query *q, const struct bh_udp_key *key, __u64 peer_cookie)
{
	struct bh_udp_flow fresh = {};

	udp_flow_store(&fresh, q, peer_cookie);
	bpf_map_update_elem(&udp_flows, key, &fresh, BPF_ANY);
}

/*
 * One packet of a flow without handshake. q holds both ends, `hook` is the packet's direction. Replies belong to the flow of
 * the first packet. Only allowed flows are remembered. Sets q->allow, and to when that holds; returns the flow if it was
 * known.
 */
static __noinline struct bh_udp_flow *flow_judge(struct bh_query *q, struct bh_udp_key *key, __u64 peer_cookie,
						 __u32 hook)
{
	struct bh_udp_flow *f = bpf_map_lookup_elem(&udp_flows, key);
	bool known = false;

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
		known = f->peer == q->peer && f->peer_tag == q->peer_tag;
		if (known && f->word == q->word && q->now < f->valid_until_ns && f->peer_cookie == peer_cookie) {
			f->resolved_ns = q->now;
			if (f->seen_ns != q->now)
				f->seen_ns = q->now;
			q->allow = f->verdict;
			q->valid_until = f->valid_until_ns;
			q->cell = f->cell;
			q->reason = f->reason;
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
	/* The verifier has to see the pointer compared, not what the compiler remembers of an earlier comparison. */
	BH_OPAQUE(f);
	if (!f) {
		if (q->allow)
			flow_add(q, key, peer_cookie);
		return 0;
	}
	/* A flow that is denied keeps its direction: else the next answer would open it anew the other way round. And who is
	 * not its peer has no say in it. */
	if (q->allow || known)
		udp_flow_store(f, q, peer_cookie);
	return f;
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
