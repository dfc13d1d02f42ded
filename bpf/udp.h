/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * udp.h - packets of UDP sockets: who sends, who is there, and the flow that both belong to.
 */
#ifndef BULKHEAD_BPF_UDP_H
#define BULKHEAD_BPF_UDP_H

#include "endpoint.h"
#include "flow.h"

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
static __noinline int udp_source(struct __sk_buff *skb, struct bh_sock *ss, const struct bh_query *q)
{
	struct bpf_sock *sk = skb->sk;
	struct bh_endpoint fresh = {};
	struct bh_addr bound;
	__u64 owner;

	if (!ss || !sk)
		return BH_REASON_NO_FLOW;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return BH_REASON_NO_FLOW;
	sock_bound_address(sk, &bound);
	/* The source address is the sender's to write (IP_PKTINFO), but not when it is another socket's. A socket bound to
	 * every address is the only one on its port: what is registered there has gone. */
	if ((bound.w[0] || bound.w[1] || bound.w[3]) && !bh_addr_equal(&q->local, &bound)) {
		owner = bh_endpoint_cookie(&q->local, ss->netns, q->lport);
		if (owner && owner != q->cookie)
			return BH_REASON_SOURCE;
	}
	if (ss->registered && ss->lport == q->lport && bh_addr_equal(&ss->local, &bound) &&
	    bh_endpoint_cookie(&bound, ss->netns, q->lport))
		return 0;
	fresh.refs = 1;
	fresh.cookie = q->cookie;
	for (__u32 i = 0; i < BH_MAX_DEPTH; i++) {
		fresh.levels[i] = bpf_skb_ancestor_cgroup_id(skb, subtree_level + 1 + i);
		if (!fresh.levels[i])
			break;
	}
	return bh_endpoint_move(ss, &bound, q->lport, &fresh) ? BH_REASON_MAP_FULL : 0;
}

/* Keeps who the subject is with a UDP socket: it is the same for all its flows. */
static __always_inline void udp_subject_store(struct bh_sock *ss, const struct bh_query *q)
{
	*(volatile __u64 *)&ss->word = ~0ULL;
	ss->identity = q->subject;
	ss->valid_until_ns = q->valid_until;
	ss->cgroup = q->cgroup;
	ss->peer_tag = q->subject_tag; /* a UDP socket has no one peer: the field keeps its own tag */
	ss->proto = IPPROTO_UDP;
	asm volatile("" ::: "memory");
	*(volatile __u64 *)&ss->word = q->word;
}

/* Who holds a destination's port is looked up again after this long; the receiver is judged by its own hook all the
 * same. */
#define BH_RESOLVE_NS (BH_SECOND / 100)

/*
 * A packet of a flow that was allowed, with nothing changed since: two map lookups. Anything else, also anything odd, goes
 * the whole way. Returns 1 allow, 0 not for here.
 */
static __always_inline int udp_known(struct __sk_buff *skb, struct bh_sock *ss, __u64 word, __u64 now, __u32 hook)
{
	struct bh_query q = {.word = word, .now = now, .subject = ss->identity, .subject_tag = ss->peer_tag};
	__u32 loopback = skb->ifindex == 1, segments = skb->gso_segs;
	struct bh_udp_flow *f;
	struct bh_udp_key key;
	struct bh_packet p;
	__u64 cookie;

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
	if (!f || !f->verdict || f->word != word || now >= f->valid_until_ns ||
	    (__s64)(now - f->seen_ns) >= (__s64)BH_SECOND)
		return 0;
	if (hook == BH_EGRESS) {
		if (f->initiator && (__s64)(now - f->resolved_ns) >= (__s64)BH_RESOLVE_NS)
			return 0;
		if (bh_shows_identity(&q.remote))
			bh_ticket_write(&q, loopback ? ss->netns : 0, segments ? segments : 1);
		return 1;
	}
	q.valid_until = ~0ULL;
	cookie = bh_ticket_take(&q, loopback ? ss->netns : 0);
	if (cookie && cookie == f->peer_cookie && q.peer == f->peer && q.peer_tag == f->peer_tag)
		return 1;
	if (cookie)
		bh_ticket_return(&q, loopback ? ss->netns : 0);
	return 0;
}

static __noinline int udp_egress(struct __sk_buff *skb, struct bh_sock *ss, struct bh_query *q)
{
	__u32 loopback = skb->ifindex == 1, segments = skb->gso_segs;
	struct bh_udp_key key;
	__u64 peer_cookie;
	int err = udp_source(skb, ss, q);

	if (err) {
		bh_refuse(q, err);
		return BH_DENY;
	}
	flow_key_of(&key, q);
	peer_cookie = bh_peer_of_destination(q, ss->netns, loopback);
	if (!flow_packet(q, &key, peer_cookie, BH_EGRESS))
		return BH_DENY;
	udp_subject_store(ss, q);
	if (bh_shows_identity(&q->remote) || bh_addr_is_multicast(&q->remote))
		bh_ticket_write(q, loopback ? ss->netns : 0, segments ? segments : 1);
	return BH_ALLOW;
}

static __noinline int udp_ingress(struct __sk_buff *skb, struct bh_sock *ss, struct bh_query *q)
{
	struct bh_udp_key key;
	__u64 peer_cookie;

	flow_key_of(&key, q);
	peer_cookie = bh_peer_of_source(q, ss->netns, skb->ifindex == 1);
	if (!flow_packet(q, &key, peer_cookie, BH_INGRESS))
		return BH_DENY;
	udp_subject_store(ss, q);
	/* Tells the sendmsg hook that this socket answers others. */
	if (!ss->verdict)
		ss->verdict = 1;
	return BH_ALLOW;
}

#endif
