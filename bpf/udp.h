/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * udp.h - packets of UDP sockets: who sends, who is there, and the flow that both belong to.
 */
#ifndef BULKHEAD_BPF_UDP_H
#define BULKHEAD_BPF_UDP_H

#include "endpoint.h"
#include "flow.h"
#include "recent.h"

#define BH_AF_INET 2

/* The address a socket is bound to. Each field is loaded by itself: the verifier takes no pointer into a socket. */
static __always_inline void sock_bound_address(struct bpf_sock *sk, struct bh_addr *bound)
{
	__u32 v4 = sk->src_ip4;

	BH_OPAQUE(v4);
	if (sk->family == BH_AF_INET) {
		bh_addr_v4(bound, v4);
		return;
	}
	for (int i = 0; i < 4; i++)
		bound->w[i] = sk->src_ip6[i];
}

/* Checks that the socket may send from this address, and makes it findable by its peers. Returns 0 or the enum bh_reason to
 * deny with. */
static __noinline int udp_source(struct __sk_buff *skb, struct bh_udp_sock *us, const struct bh_query *q)
{
	struct bpf_sock *sk = skb->sk;
	struct bh_endpoint fresh = {};
	struct bh_addr bound;
	__u64 owner;

	if (!us || !sk)
		return BH_REASON_NO_FLOW;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return BH_REASON_NO_FLOW;
	sock_bound_address(sk, &bound);
	/* The source address is the sender's to write (IP_PKTINFO), but not when it is another socket's. A socket bound to
	 * every address is the only one on its port: what is registered there has gone. */
	if ((bound.w[0] || bound.w[1] || bound.w[3]) && !bh_addr_equal(&q->local, &bound)) {
		owner = bh_endpoint_cookie(&q->local, us->netns, q->lport);
		if (owner && owner != q->cookie)
			return BH_REASON_SOURCE;
	}
	if (us->registered && us->lport == q->lport && bh_addr_equal(&us->local, &bound) &&
	    bh_endpoint_cookie(&bound, us->netns, q->lport))
		return 0;
	fresh.refs = 1;
	fresh.cookie = q->cookie;
	for (__u32 i = 0; i < BH_MAX_DEPTH; i++) {
		fresh.levels[i] = bpf_skb_ancestor_cgroup_id(skb, subtree_level + 1 + i);
		if (!fresh.levels[i])
			break;
	}
	return bh_endpoint_move(us, &bound, q->lport, &fresh) ? BH_REASON_MAP_FULL : 0;
}

/* Until when a packet of q's flow goes without another look. The flow's time of its last packet need not be exact to more than
 * a second; who holds the destination of a flow that begins here is looked up again sooner, and so is whether it is to be
 * shown who sends. */
static __always_inline __u64 udp_send_until(const struct bh_query *q, bool answer, __u64 resolved_ns)
{
	__u64 until = answer && q->ticket != BH_TICKET_NONE ? q->now + BH_SECOND : resolved_ns + BH_RESOLVE_NS;

	return until < q->valid_until ? until : q->valid_until;
}

static __always_inline __u64 udp_receive_until(const struct bh_query *q)
{
	__u64 until = q->now + BH_SECOND;

	return until < q->valid_until ? until : q->valid_until;
}

/* In bytes: of all datagrams of a packet. */
static __always_inline __u32 udp_payload(struct __sk_buff *skb, const struct bh_packet *p)
{
	return skb->len - p->transport - sizeof(struct udphdr);
}

/*
 * A packet of a flow that was allowed, with nothing changed since, of a socket that has more of them than it keeps: one lookup.
 * Anything else, also anything odd, goes the whole way. Returns 1 allow, 0 not for here.
 */
static __always_inline int udp_known(struct __sk_buff *skb, struct bh_udp_sock *us, __u64 word, __u64 now, __u32 hook)
{
	struct bh_query q = {.word = word, .now = now};
	struct bh_udp_flow *f, is;
	struct bh_udp_recent *r;
	struct bh_udp_key key;
	struct bh_packet p;
	__u64 until;

	if (hook == BH_EGRESS ? bh_parse(skb, &p, &q.local, &q.remote) : bh_parse(skb, &p, &q.remote, &q.local))
		return 0;
	if (p.proto != IPPROTO_UDP)
		return 0;
	q.lport = hook == BH_EGRESS ? p.sport : p.dport;
	q.rport = hook == BH_EGRESS ? p.dport : p.sport;
	q.proto = p.proto;
	q.cookie = bpf_get_socket_cookie(skb);
	flow_key_of(&key, &q);
	f = bpf_map_lookup_elem(&udp_flows, &key);
	if (!f || !flow_copy(&is, f, &key) || !is.verdict || is.word != word || now >= is.valid_until_ns ||
	    (__s64)(now - is.seen_ns) >= (__s64)BH_SECOND)
		return 0;
	q.valid_until = is.valid_until_ns;
	q.subject = is.identity;
	q.peer = is.peer;
	q.direction = is.initiator ? BH_EGRESS : BH_INGRESS;
	if (hook == BH_INGRESS) {
		q.ticket = flow_ticket(&key, is.receive_ticket);
		if (!q.ticket || !bh_ticket_redeem(q.ticket, bh_segments(skb), now))
			return 0;
		until = udp_receive_until(&q);
	} else {
		q.ticket = flow_ticket(&key, is.send_ticket);
		if (!q.ticket || (is.initiator && (__s64)(now - is.resolved_ns) >= (__s64)BH_RESOLVE_NS))
			return 0;
		if (q.ticket == BH_TICKET_NONE ? bh_shows_identity(&q.remote)
					       : !bh_ticket_give(q.ticket, bh_segments(skb), now))
			return 0;
		until = udp_send_until(&q, !is.initiator, is.resolved_ns);
	}
	r = recent_keep(us, &q, skb->ifindex == 1, hook, until);
	recent_count_or_pair(r, &q, hook, udp_payload(skb, &p));
	return 1;
}

/* Of a socket that may send from where it does: see udp_source(). */
static __noinline int udp_egress(struct __sk_buff *skb, struct bh_udp_sock *us, struct bh_query *q, __u32 payload)
{
	struct bh_udp_recent *r;
	struct bh_udp_flow *f;
	struct bh_udp_key key;
	__u64 peer_cookie;

	if (!us)
		return BH_DENY;
	flow_key_of(&key, q);
	peer_cookie = bh_peer_of_destination(q, us->netns, skb->ifindex == 1);
	f = flow_judge(q, &key, peer_cookie, BH_EGRESS);
	if (!q->allow)
		return BH_DENY;
	q->ticket = BH_TICKET_NONE;
	if (bh_shows_identity(&q->remote) || bh_addr_is_multicast(&q->remote))
		q->ticket = bh_ticket_write(q, skb->ifindex == 1 ? us->netns : 0, bh_segments(skb));
	if (f)
		f->send_ticket = flow_ticket(&key, q->ticket);
	r = recent_keep(us, q, skb->ifindex == 1, BH_EGRESS, udp_send_until(q, q->direction == BH_INGRESS, q->now));
	recent_count_or_pair(r, q, BH_EGRESS, payload);
	return BH_ALLOW;
}

static __noinline int udp_ingress(struct __sk_buff *skb, struct bh_udp_sock *us, struct bh_query *q, __u32 payload)
{
	struct bh_udp_recent *r;
	struct bh_udp_flow *f;
	struct bh_udp_key key;
	__u64 peer_cookie;

	if (!us)
		return BH_DENY;
	flow_key_of(&key, q);
	peer_cookie = bh_peer_of_source(q, us->netns, skb->ifindex == 1, bh_segments(skb));
	f = flow_judge(q, &key, peer_cookie, BH_INGRESS);
	if (!q->allow)
		return BH_DENY;
	if (f)
		f->receive_ticket = flow_ticket(&key, q->ticket);
	r = recent_keep(us, q, skb->ifindex == 1, BH_INGRESS, udp_receive_until(q));
	recent_count_or_pair(r, q, BH_INGRESS, payload);
	/* Tells the sendmsg hook that this socket answers others. */
	if (!us->answers)
		us->answers = 1;
	return BH_ALLOW;
}

#endif
