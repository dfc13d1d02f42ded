/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * tcp.h - packets of TCP sockets: judged in the handshake, when both ends know each other; the verdict is kept with the
 * socket, and holds for as long as nothing that it rests on has changed.
 */
#ifndef BULKHEAD_BPF_TCP_H
#define BULKHEAD_BPF_TCP_H

#include "handshake.h"

static __always_inline void tuple_of(struct bh_tuple *tuple, const struct bh_query *q, __u64 netns)
{
	__builtin_memset(tuple, 0, sizeof(*tuple));
	tuple->local = q->local;
	tuple->remote = q->remote;
	tuple->netns = netns;
	tuple->lport = q->lport;
	tuple->rport = q->rport;
}

/* Keeps q's verdict with the socket. The word goes last: a reader that sees it sees the verdict. */
static __always_inline void sock_store(struct bh_sock *ss, const struct bh_query *q)
{
	*(volatile __u64 *)&ss->word = ~0ULL;
	ss->verdict = q->allow;
	ss->valid_until_ns = q->valid_until;
	ss->identity = q->subject;
	ss->peer = q->peer;
	ss->peer_tag = q->peer_tag;
	ss->cell = q->cell;
	ss->proof = q->proof;
	ss->reason = q->reason;
	ss->cgroup = q->cgroup;
	ss->proto = q->proto;
	ss->local = q->local;
	ss->remote = q->remote;
	ss->lport = q->lport;
	ss->rport = q->rport;
	asm volatile("" ::: "memory");
	*(volatile __u64 *)&ss->word = q->word;
}

/* Any packet of an established connection that the fast path did not pass. */
static __always_inline int tcp_established(struct bh_sock *ss, const struct bh_packet *p, struct bh_query *q)
{
	q->direction = ss->kind == BH_SOCK_ACTIVE ? BH_EGRESS : BH_INGRESS;
	q->peer = ss->peer;
	q->peer_tag = ss->peer_tag;
	q->proof = ss->proof;
	q->again = 1;
	if (ss->word == q->word && q->now < ss->valid_until_ns) {
		q->allow = ss->verdict;
		q->cell = ss->cell;
		q->reason = ss->reason;
	} else {
		bh_judge(q);
		sock_store(ss, q);
		if (q->allow)
			bh_report(q);
	}
	if (q->allow || is_bare_reset(p))
		return BH_ALLOW;
	bh_report_denied(q);
	return BH_DENY;
}

/* A packet of a handshake that the listener accepted before: judged again only if something changed since. */
static __always_inline int tcp_handshake_known(struct __sk_buff *skb, struct bh_tuple *tuple, const struct bh_packet *p,
					       struct bh_query *q)
{
	struct bh_handshake *h = bpf_map_lookup_elem(&handshakes, tuple);
	struct bh_tcpopt option;
	int found;

	q->direction = BH_INGRESS;
	if (!h) {
		if (is_bare_reset(p))
			return BH_DENY;
		bh_refuse(q, BH_REASON_NO_FLOW);
		return BH_DENY;
	}
	q->peer = h->peer;
	q->peer_tag = h->peer_tag;
	q->proof = h->proof;
	/* A SYN-ACK that cannot say who we are would make us somebody else to the peer. One that is a cookie comes from no
	 * socket and passes no hook: then nothing goes on from there. */
	if (!(p->tcp_flags & BH_TCP_SYN) && !h->shown && (bh_shows_identity(&q->remote) || skb->ifindex == 1)) {
		bh_refuse(q, BH_REASON_UNPROVEN);
		return BH_DENY;
	}
	if ((p->tcp_flags & BH_TCP_SYN) && (bh_shows_identity(&q->remote) || skb->ifindex == 1)) {
		found = bh_option_find(skb, p, &option);
		if (found <= 0 || bh_option_ticket(q, p, &option, found)) {
			bh_refuse(q, BH_REASON_UNPROVEN);
			return BH_DENY;
		}
		h->shown = 1;
	}
	/* The listener may be another than the one that accepted (SO_REUSEPORT): then it is judged for this one. */
	if (h->word == q->word && q->now < h->valid_until_ns && h->identity == q->subject)
		return BH_ALLOW;
	q->again = 1;
	bh_judge(q);
	bh_report(q);
	if (!q->allow) {
		bpf_map_delete_elem(&handshakes, tuple);
		return BH_DENY;
	}
	h->valid_until_ns = q->valid_until;
	h->identity = q->subject;
	h->subject_tag = q->subject_tag;
	h->cell = q->cell;
	h->word = q->word;
	return BH_ALLOW;
}

static __always_inline int tcp_listener(struct __sk_buff *skb, struct bh_sock *ss, const struct bh_packet *p,
					struct bh_query *q, __u32 hook)
{
	struct bh_handshake h = {};
	struct bh_tuple tuple;

	tuple_of(&tuple, q, ss->netns);
	if (hook == BH_EGRESS || !(p->tcp_flags & BH_TCP_SYN))
		return tcp_handshake_known(skb, &tuple, p, q);
	if (p->tcp_flags & BH_TCP_ACK) { /* a listener asked nobody */
		bh_refuse(q, BH_REASON_NO_FLOW);
		return BH_DENY;
	}

	q->direction = BH_INGRESS;
	bh_peer_of_segment(skb, p, q);
	bh_judge(q);
	bh_report(q);
	if (!q->allow)
		return BH_DENY;
	h.word = q->word;
	h.valid_until_ns = q->valid_until;
	h.identity = q->subject;
	h.subject_tag = q->subject_tag;
	h.peer = q->peer;
	h.peer_tag = q->peer_tag;
	h.cell = q->cell;
	h.proof = q->proof;
	if (bpf_map_update_elem(&handshakes, &tuple, &h, BPF_ANY)) {
		BH_COUNT(map_full);
		bh_refuse(q, BH_REASON_MAP_FULL);
		return BH_DENY;
	}
	return BH_ALLOW;
}

/*
 * Accepted by its SYN (Fast Open, RFC 7413). Its SYN-ACK must show who sends it like any other; what it sends before the peer
 * has acknowledged that, the peer does not take yet, if it is one of ours.
 */
static __always_inline int tcp_early(struct __sk_buff *skb, struct bh_sock *ss, const struct bh_packet *p,
				     struct bh_query *q, __u32 hook)
{
	struct bh_tuple tuple;

	tuple_of(&tuple, q, ss->netns);
	if (hook == BH_EGRESS && (p->tcp_flags & BH_TCP_SYN))
		return tcp_handshake_known(skb, &tuple, p, q);
	if (hook == BH_INGRESS && (p->tcp_flags & (BH_TCP_SYN | BH_TCP_ACK)) == BH_TCP_ACK) {
		ss->kind = BH_SOCK_PASSIVE;
		bpf_map_delete_elem(&handshakes, &tuple);
	}
	return tcp_established(ss, p, q);
}

/* The SYN of a connecting socket: who answers is not known yet, so it may leave if any answer could be allowed. */
static __always_inline int tcp_syn_sent(struct __sk_buff *skb, struct bh_sock *ss, const struct bh_packet *p,
					struct bh_query *q)
{
	bool by_host = ss->identity == BH_ID_HOST;
	struct bh_tcpopt option;
	int found;

	q->direction = BH_EGRESS;
	if (!(p->tcp_flags & BH_TCP_SYN))
		return p->payload_len ? BH_DENY : BH_ALLOW;
	if (p->payload_len) {
		bh_refuse(q, BH_REASON_EARLY_DATA);
		return BH_DENY;
	}
	/* For the option of a retransmission, where this one left without. */
	ss->identity = q->subject;
	ss->valid_until_ns = q->valid_until;
	ss->isn = bpf_ntohl(p->seq);
	bh_judge_possible(q);
	if (!q->allow) {
		bh_report_denied(q);
		return BH_DENY;
	}
	/* An own address that is not known yet: on the loopback device, silence would be taken for the host's. */
	if (!bh_shows_identity(&q->remote)) {
		if (skb->ifindex != 1)
			return BH_ALLOW;
		bh_refuse(q, BH_REASON_NEW_ADDRESS);
		return BH_DENY;
	}
	/* No segment of a workload may pass for one of the host, or of the world, by leaving out who sends it. Where a
	 * process outside any workload called connect(), the retransmission will show it. */
	found = bh_option_find(skb, p, &option);
	if (found <= 0) {
		if (by_host)
			return BH_DENY;
		bh_refuse(q, BH_REASON_UNPROVEN);
		return BH_DENY;
	}
	/* Written before a change of tag, or for another process's connect(): the retransmission says it right. */
	if (found == BH_OPTION_FULL && bpf_ntohl(option.identity) != q->subject)
		return BH_DENY;
	return bh_option_ticket(q, p, &option, found) ? BH_DENY : BH_ALLOW;
}

/* What answers a SYN: here the peer becomes known and egress is judged. */
static __always_inline int tcp_answer(struct __sk_buff *skb, struct bh_sock *ss, const struct bh_packet *p,
				      struct bh_query *q)
{
	q->direction = BH_EGRESS;
	if (!(p->tcp_flags & BH_TCP_SYN)) /* reset, or an old connection's ACK: carries nothing to the application */
		return p->payload_len ? BH_DENY : BH_ALLOW;
	/* Only who saw our SYN may name the peer; a SYN in answer (simultaneous open, RFC 9293 3.5) proves nothing: each end
	 * would have to judge a flow that it initiated, and that the other initiated too. */
	if (!(p->tcp_flags & BH_TCP_ACK) || bpf_ntohl(p->ack) != ss->isn + 1) {
		bh_refuse(q, p->tcp_flags & BH_TCP_ACK ? BH_REASON_NO_FLOW : BH_REASON_SIMULTANEOUS);
		return BH_DENY;
	}
	bh_peer_of_segment(skb, p, q);
	bh_judge(q);
	sock_store(ss, q);
	ss->answered = q->allow;
	bh_report(q);
	return q->allow ? BH_ALLOW : BH_DENY;
}

static __noinline int tcp_packet(struct __sk_buff *skb, struct bh_sock *ss, const struct bh_packet *p,
				 struct bh_query *q, __u32 hook)
{
	if (!ss)
		return BH_DENY;
	switch (ss->kind) {
	case BH_SOCK_ACTIVE:
	case BH_SOCK_PASSIVE:
		return tcp_established(ss, p, q);
	case BH_SOCK_EARLY:
		return tcp_early(skb, ss, p, q, hook);
	case BH_SOCK_LISTEN:
		return tcp_listener(skb, ss, p, q, hook);
	case BH_SOCK_CONNECT:
		if (hook == BH_EGRESS)
			return tcp_syn_sent(skb, ss, p, q);
		return tcp_answer(skb, ss, p, q);
	default:
		bh_refuse(q, BH_REASON_NO_FLOW);
		return BH_DENY;
	}
}

#endif
