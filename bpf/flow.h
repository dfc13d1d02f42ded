/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * flow.h - flows without a handshake: the first packet is judged, the others and the replies belong to its flow.
 */
#ifndef BULKHEAD_BPF_FLOW_H
#define BULKHEAD_BPF_FLOW_H

#include "judge.h"
#include "seal.h"

/* A flow without packets for this long is over. */
#define BH_FLOW_IDLE (60 * BH_SECOND)

/* Of a key, over one word that is replaced alone: a ticket. */
static __always_inline __u64 flow_ticket(const struct bh_udp_key *key, __u64 ticket)
{
	return bh_seal_key(key) ^ ticket;
}

/* By itself, so that what it needs of the stack is not there while the policy is asked. Puts the flow into the map, or in the
 * place of what the map knows of it: never through a pointer (seal.h). `flags`: of bpf_map_update_elem(). */
static __noinline int flow_put(const struct bh_query *q, const struct bh_udp_key *key, __u64 peer_cookie, __u64 flags)
{
	struct bh_udp_flow fresh = {
		.word = q->word,
		.valid_until_ns = q->valid_until,
		.seen_ns = q->now,
		.resolved_ns = q->now,
		.peer_cookie = peer_cookie,
		.peer_tag = q->peer_tag,
		.identity = q->subject,
		.peer = q->peer,
		.cell = q->cell,
		.initiator = q->direction == BH_EGRESS,
		.proof = q->proof,
		.reason = q->reason,
		.verdict = q->allow,
	};

	fresh.send_ticket = fresh.receive_ticket = flow_ticket(key, 0);
	fresh.seal = bh_udp_flow_seal(&fresh, key);
	return bpf_map_update_elem(&udp_flows, key, &fresh, flags);
}

/* A copy of what the map says of the flow, all of it of this flow. `f` is what was found, not NULL. */
static __always_inline bool flow_copy(struct bh_udp_flow *copy, const struct bh_udp_flow *f,
				      const struct bh_udp_key *key)
{
	*copy = *f;
	/* Not read again. */
	asm volatile("" ::: "memory");
	return bh_udp_flow_is_sealed(copy, key);
}

/* Signed: another CPU may have seen a packet after our clock was read. */
static __always_inline bool flow_is_over(const struct bh_udp_flow *f, __u64 now)
{
	return (__s64)(now - f->seen_ns) >= (__s64)BH_FLOW_IDLE;
}

/* What flow_recall() finds. */
struct flow_known {
	__u64 peer_cookie; /* in and out: of whom it is judged with */
	__u32 of_peer;	   /* the peer is who it was */
	__u32 stands;	   /* nothing it rests on has changed: q has its verdict */
};

/*
 * The flow that a packet belongs to, if there is one: q->direction becomes its own, and who gets an answer is who has asked.
 * A function of its own, so that its copy is not on the stack while the policy is asked.
 */
static __noinline struct bh_udp_flow *flow_recall(struct bh_query *q, struct bh_udp_key *key, struct flow_known *known,
						  __u32 hook)
{
	struct bh_udp_flow *f = bpf_map_lookup_elem(&udp_flows, key), is;

	if (!f || !flow_copy(&is, f, key) || flow_is_over(&is, q->now))
		return 0;
	q->again = 1;
	q->direction = is.initiator ? BH_EGRESS : BH_INGRESS;
	/* Our answer goes to who asked: that was proved when the question came in. */
	if (hook == BH_EGRESS && !is.initiator) {
		q->peer = is.peer;
		q->peer_tag = is.peer_tag;
		q->proof = is.proof;
		q->unlisted = 0;
		known->peer_cookie = is.peer_cookie;
	}
	known->of_peer = is.peer == q->peer && is.peer_tag == q->peer_tag;
	known->stands = known->of_peer && is.word == q->word && q->now < is.valid_until_ns &&
			is.peer_cookie == known->peer_cookie;
	if (!known->stands)
		return f;
	/* Should this be another flow's by now, then one that was put here since: it was seen, and looked up, just now. */
	f->resolved_ns = q->now;
	if (is.seen_ns != q->now)
		f->seen_ns = q->now;
	q->allow = is.verdict;
	q->valid_until = is.valid_until_ns;
	q->cell = is.cell;
	q->reason = is.reason;
	return f;
}

/*
 * One packet of a flow without handshake. q holds both ends, `hook` is the packet's direction. Replies belong to the flow of
 * the first packet. Only allowed flows are remembered. Sets q->allow, and to when that holds; returns the flow if it was
 * known, for its tickets.
 */
static __noinline struct bh_udp_flow *flow_judge(struct bh_query *q, struct bh_udp_key *key, __u64 peer_cookie,
						 __u32 hook)
{
	struct flow_known known = {.peer_cookie = peer_cookie};
	struct bh_udp_flow *f;

	q->direction = hook;
	f = flow_recall(q, key, &known, hook);
	if (f && known.stands) {
		bh_judge_sender(q);
		if (!q->allow)
			bh_report_denied(q);
		return f;
	}
	if (q->unlisted) {
		bh_refuse(q, BH_REASON_MAP_FULL);
		return 0;
	}
	bh_judge_arrived(q);
	bh_report(q);
	/* A flow that is denied keeps its direction: else the next answer would open it anew the other way round. And who is
	 * not its peer has no say in it. */
	if (q->allow)
		flow_put(q, key, known.peer_cookie, BPF_ANY);
	else if (known.of_peer)
		flow_put(q, key, known.peer_cookie, BPF_EXIST);
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
