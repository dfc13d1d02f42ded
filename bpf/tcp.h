/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * tcp.h - packets of TCP sockets: judged in the handshake, when both ends know each other; the verdict is kept with the
 * socket, and holds for as long as nothing that it rests on has changed.
 */
#ifndef BULKHEAD_BPF_TCP_H
#define BULKHEAD_BPF_TCP_H

#include "handshake.h"
#include "pending.h"

static __always_inline void tuple_of(struct bh_tuple *tuple, const struct bh_query *q, __u64 netns)
{
	__builtin_memset(tuple, 0, sizeof(*tuple));
	tuple->local = q->local;
	tuple->remote = q->remote;
	tuple->netns = netns;
	tuple->lport = q->lport;
	tuple->rport = q->rport;
}

/* Any packet of an established connection that the fast path did not pass. */
static __always_inline int tcp_established(struct bh_tcp *t, const struct bh_packet *p, struct bh_query *q)
{
	q->direction = t->kind == BH_SOCK_ACTIVE ? BH_EGRESS : BH_INGRESS;
	q->peer = t->peer;
	q->peer_tag = t->peer_tag;
	q->proof = t->proof;
	q->again = 1;
	if (t->word == q->word && q->now < t->valid_until_ns) {
		q->allow = t->verdict;
		q->cell = t->cell;
		q->reason = t->reason;
		if (bh_tcp_owner(t) != q->cookie)
			return BH_DENY;
	} else {
		bh_judge(q);
		/* Another CPU may be keeping the same of another packet; then this one's verdict is for itself. */
		if (!bh_tcp_store(t, q, false) && bh_tcp_owner(t) != q->cookie)
			return BH_DENY;
		if (q->allow)
			bh_report(q);
	}
	if (q->allow || is_bare_reset(p))
		return BH_ALLOW;
	bh_report_denied(q);
	return BH_DENY;
}

/*
 * The handshakes of a listener. What is kept of one is read, and written, by functions of their own: while the policy is asked, all
 * of it stands in the query, and what they need of the stack is free.
 */

static __always_inline void handshake_of(struct bh_handshake *h, const struct bh_query *q)
{
	__builtin_memset(h, 0, sizeof(*h));
	h->word = q->word;
	h->valid_until_ns = q->valid_until;
	h->identity = q->subject;
	h->subject_tag = q->subject_tag;
	h->peer = q->peer;
	h->peer_tag = q->peer_tag;
	h->cell = q->cell;
	h->proof = q->proof;
}

BH_GLOBAL int handshake_keep_near(const struct bh_query *q, __u64 netns, __u64 shown)
{
	struct bh_handshake h;
	struct bh_tuple tuple;

	if (!q)
		return -1;
	tuple_of(&tuple, q, netns);
	handshake_of(&h, q);
	return bh_near_put(&tuple, &h, q->now, shown);
}

BH_GLOBAL int handshake_keep_far(const struct bh_query *q, __u64 netns, __u64 shown)
{
	struct bh_handshake h;
	struct bh_tuple tuple;

	if (!q)
		return -1;
	tuple_of(&tuple, q, netns);
	handshake_of(&h, q);
	return bh_far_put(&tuple, &h, q->now, shown);
}

/* Keeps q's handshake, which was allowed. Returns 0, or -1 if it cannot be: the segment comes again. */
static __always_inline int handshake_keep(const struct bh_query *q, __u64 netns, __u64 shown)
{
	int r = handshake_keep_near(q, netns, shown);

	return r > 0 ? handshake_keep_far(q, netns, shown) : r;
}

BH_GLOBAL int handshake_forget_in(const struct bh_query *q, __u64 netns, int far)
{
	struct bh_handshake h;
	struct bh_found found;
	struct bh_tuple tuple;

	if (!q)
		return BH_PENDING_NONE;
	tuple_of(&tuple, q, netns);
	return bh_pending_get(&tuple, &h, &found, BH_PENDING_REMOVE, far);
}

static __always_inline void handshake_forget(const struct bh_query *q, __u64 netns)
{
	if (handshake_forget_in(q, netns, false) == BH_PENDING_ELSEWHERE)
		handshake_forget_in(q, netns, true);
}

/* Does this SYN-ACK show who sends it? Then its ticket is made. */
static __always_inline bool handshake_shows(struct __sk_buff *skb, const struct bh_packet *p, const struct bh_query *q)
{
	struct bh_tcpopt option;
	int found;

	if (!bh_option_fits(skb))
		return false;
	found = bh_option_find(skb, p, &option);
	/* Written for another listener, or before a change of tag: what is sent again says it right. */
	if (found == BH_OPTION_FULL && bpf_ntohl(option.identity) != q->subject)
		return false;
	return found > 0 && !bh_option_ticket(q, p, &option, found);
}

/* What handshake_look() answers. Below 0: the reason to refuse the packet for; 0: not for anybody to know. */
#define HANDSHAKE_KNOWN 1
#define HANDSHAKE_JUDGE 2     /* something has changed since it was judged */
#define HANDSHAKE_ELSEWHERE 3 /* as BH_PENDING_ELSEWHERE */

/* A handshake that the listener accepted before: takes over what is kept of it. */
BH_GLOBAL int handshake_look(__u64 netns, const struct bh_packet *p, struct bh_query *q, struct bh_found *found,
			     int far)
{
	struct bh_handshake h;
	struct bh_tuple tuple;
	int got;

	if (!p || !q || !found)
		return 0;
	tuple_of(&tuple, q, netns);
	got = bh_pending_get(&tuple, &h, found, BH_PENDING_KEEP, far);
	if (got == BH_PENDING_ELSEWHERE)
		return HANDSHAKE_ELSEWHERE;
	if (got == BH_PENDING_NONE) {
		if (is_bare_reset(p) || (!p->payload_len && bh_pending_was(&tuple, q->now)))
			return 0;
		return -BH_REASON_NO_FLOW;
	}
	q->peer = h.peer;
	q->peer_tag = h.peer_tag;
	q->proof = h.proof;
	/* The listener may be another than the one that accepted (SO_REUSEPORT): then it is judged for this one. */
	if (h.word != q->word || q->now >= h.valid_until_ns || h.identity != q->subject ||
	    h.subject_tag != q->subject_tag)
		return HANDSHAKE_JUDGE;
	bh_valid_until(q, h.valid_until_ns);
	q->cell = h.cell;
	return HANDSHAKE_KNOWN;
}

/* A packet of a handshake that the listener accepted before: judged again only if something changed since. */
static __always_inline int tcp_handshake_known(struct __sk_buff *skb, __u64 netns, const struct bh_packet *p,
					       struct bh_query *q)
{
	bool syn = p->tcp_flags & BH_TCP_SYN, show, shown;
	struct bh_found found = {};
	int known;

	q->direction = BH_INGRESS;
	known = handshake_look(netns, p, q, &found, false);
	if (known == HANDSHAKE_ELSEWHERE)
		known = handshake_look(netns, p, q, &found, true);
	if (known < 0)
		bh_refuse(q, -known);
	if (known != HANDSHAKE_KNOWN && known != HANDSHAKE_JUDGE)
		return BH_DENY;
	/* A SYN-ACK has to say who we are, or we would be somebody else to the peer. One that is a cookie comes from no socket and
	 * passes no hook: then nothing goes on from there. */
	shown = bh_found_shown(&found);
	show = (syn || !shown) && (bh_shows_identity(&q->remote) || skb->ifindex == 1);
	if (show && !(syn && handshake_shows(skb, p, q))) {
		bh_refuse(q, BH_REASON_UNPROVEN);
		return BH_DENY;
	}
	if (known == HANDSHAKE_JUDGE) {
		q->again = 1;
		bh_judge(q);
		bh_report(q);
		if (!q->allow) {
			handshake_forget(q, netns);
			return BH_DENY;
		}
		return handshake_keep(q, netns, show || shown ? BH_HANDSHAKE_SHOWN : 0) ? BH_DENY : BH_ALLOW;
	}
	if (!show || shown || !bh_pending_show(&found))
		return BH_ALLOW;
	return handshake_keep(q, netns, BH_HANDSHAKE_SHOWN) ? BH_DENY : BH_ALLOW;
}

static __always_inline int tcp_listener(struct __sk_buff *skb, __u64 netns, const struct bh_packet *p,
					struct bh_query *q, __u32 hook)
{
	if (hook == BH_EGRESS || !(p->tcp_flags & BH_TCP_SYN))
		return tcp_handshake_known(skb, netns, p, q);
	if (p->tcp_flags & BH_TCP_ACK) { /* a listener asked nobody */
		bh_refuse(q, BH_REASON_NO_FLOW);
		return BH_DENY;
	}

	q->direction = BH_INGRESS;
	bh_peer_of_segment(skb, p, q);
	bh_judge_arrived(q);
	bh_report(q);
	if (!q->allow)
		return BH_DENY;
	return handshake_keep(q, netns, 0) ? BH_DENY : BH_ALLOW;
}

/* Has connect() asked the same already? */
static __always_inline bool is_asked(const struct bh_tcp *t, const struct bh_query *q)
{
	return t->asked && t->word == q->word && t->identity == q->subject && t->rport == q->rport &&
	       bh_addr_equal(&t->remote, &q->remote) && bh_tcp_owner(t) == q->cookie;
}

/* The peer's ACK has come: nothing more of the handshake is to be sent. */
static __noinline int tcp_early_over(struct bh_tcp *t, __u64 netns, const struct bh_query *q)
{
	if (!t || !q)
		return 0;
	bh_tcp_accepted(t, q->cookie);
	handshake_forget(q, netns);
	return 0;
}

/* Accepted by its SYN (Fast Open, RFC 7413). What it sends before the peer has acknowledged its SYN-ACK, the peer does not
 * take yet, if it is one of ours. */
static __always_inline int tcp_early(struct bh_tcp *t, __u64 netns, const struct bh_packet *p, struct bh_query *q,
				     __u32 hook)
{
	if (hook == BH_INGRESS && (p->tcp_flags & (BH_TCP_SYN | BH_TCP_ACK)) == BH_TCP_ACK)
		tcp_early_over(t, netns, q);
	return tcp_established(t, p, q);
}

/* The SYN of a connecting socket: who answers is not known yet, so it may leave if any answer could be allowed. */
static __always_inline int tcp_syn_sent(struct __sk_buff *skb, struct bh_tcp *t, const struct bh_packet *p,
					struct bh_query *q)
{
	bool by_host = t->identity == BH_ID_HOST;
	struct bh_tcpopt option;
	bool asked = is_asked(t, q);
	int found;

	q->direction = BH_EGRESS;
	if (!(p->tcp_flags & BH_TCP_SYN))
		return p->payload_len ? BH_DENY : BH_ALLOW;
	if (p->payload_len) {
		bh_refuse(q, BH_REASON_EARLY_DATA);
		return BH_DENY;
	}
	/* For the answer; also for the option of a retransmission, where this one left without. */
	if (!t->known || t->word != q->word || t->valid_until_ns != q->valid_until)
		bh_tcp_subject_note(t, q);
	t->isn = bpf_ntohl(p->seq);
	if (!asked) {
		bh_judge_possible(q);
		if (!q->allow) {
			bh_report_denied(q);
			return BH_DENY;
		}
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
	if (found <= 0 || !bh_option_fits(skb)) {
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
static __always_inline int tcp_answer(struct __sk_buff *skb, struct bh_tcp *t, const struct bh_packet *p,
				      struct bh_query *q)
{
	q->direction = BH_EGRESS;
	if (!(p->tcp_flags & BH_TCP_SYN)) /* reset, or an old connection's ACK: carries nothing to the application */
		return p->payload_len ? BH_DENY : BH_ALLOW;
	/* Only who saw our SYN may name the peer; a SYN in answer (simultaneous open, RFC 9293 3.5) proves nothing: each end
	 * would have to judge a flow that it initiated, and that the other initiated too. */
	if (!(p->tcp_flags & BH_TCP_ACK) || bpf_ntohl(p->ack) != t->isn + 1) {
		bh_refuse(q, p->tcp_flags & BH_TCP_ACK ? BH_REASON_NO_FLOW : BH_REASON_SIMULTANEOUS);
		return BH_DENY;
	}
	bh_peer_of_segment(skb, p, q);
	bh_judge_arrived(q);
	if (!bh_tcp_store(t, q, true))
		return BH_DENY;
	bh_report(q);
	return q->allow ? BH_ALLOW : BH_DENY;
}

static __always_inline int tcp_packet(struct __sk_buff *skb, struct bh_tcp *t, const struct bh_packet *p,
				      struct bh_query *q, __u32 hook)
{
	__u64 netns = t->netns;
	__u8 kind;

	kind = *(volatile __u8 *)&t->kind;
	if (bh_tcp_owner(t) != q->cookie) /* closed meanwhile */
		return BH_DENY;
	/* It listens, which we have not been told yet: what is known is of a connection that it had before. */
	if (hook == BH_INGRESS && kind != BH_SOCK_LISTEN && kind != BH_SOCK_NEW && bh_skb_listens(skb))
		return BH_DENY;
	switch (kind) {
	case BH_SOCK_ACTIVE:
	case BH_SOCK_PASSIVE:
		return tcp_established(t, p, q);
	case BH_SOCK_EARLY:
		/* Its SYN-ACK must show who sends it like any other. */
		if (hook == BH_EGRESS && (p->tcp_flags & BH_TCP_SYN))
			return tcp_listener(skb, netns, p, q, hook);
		return tcp_early(t, netns, p, q, hook);
	case BH_SOCK_LISTEN:
		return tcp_listener(skb, netns, p, q, hook);
	case BH_SOCK_CONNECT:
		return hook == BH_EGRESS ? tcp_syn_sent(skb, t, p, q) : tcp_answer(skb, t, p, q);
	default:
		bh_refuse(q, BH_REASON_NO_FLOW);
		return BH_DENY;
	}
}

#endif
