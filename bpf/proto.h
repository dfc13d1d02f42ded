/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * proto.h - protocols whose packets any socket may get: what raw sockets, UDP-Lite and SCTP sockets send and receive.
 *
 * They are judged by their protocol number (SCTP: by its ports) as flows. Nothing in them shows who sent them, and no port
 * says who gets them: each raw socket of a namespace has its copy. So the peer is known by its address alone, and of an
 * address of this host not even that, since any workload may stand there: it is `unidentified`. Behind a managed device there
 * is one workload, and the device's program leaves a ticket for what it sends. A socket gets what belongs
 * to a flow that it opened itself, or what the policy lets its workload receive; a copy of what others talk does neither.
 */
#ifndef BULKHEAD_BPF_PROTO_H
#define BULKHEAD_BPF_PROTO_H

#include "flow.h"
#include "ticket.h"

#define BH_SOCK_RAW 3
#define BH_AF_INET6 10

/*
 * A network namespace has sockets of the kernel's own, which belong to the cgroup of the process that made the namespace:
 * for neighbour discovery, for multicast listening, for ICMPv6 answers, for TCP segments of connections that are over. A
 * socket that a process opens has storage, so it is never taken for one. None of these carries a process's payload.
 */
static __always_inline bool is_of_kernel(struct bpf_sock *sk, const struct bh_packet *p)
{
	if (sk->type != BH_SOCK_RAW || sk->family != BH_AF_INET6 || sk->protocol != p->proto)
		return false;
	if (p->proto == IPPROTO_TCP)
		return p->payload_len == 0 && !(p->tcp_flags & BH_TCP_SYN);
	return p->proto == IPPROTO_ICMPV6 && p->icmp_type != ICMPV6_ECHO_REQUEST_TYPE;
}

/* A raw socket writes what source address it likes, and rules ask for addresses: it has to be one of its namespace's. */
static __always_inline bool is_own_source(struct __sk_buff *skb, const struct bh_sock *ss, const struct bh_query *q)
{
	__u64 *netns;

	if (bh_addr_is_loopback(&q->local))
		return skb->ifindex == 1;
	netns = bpf_map_lookup_elem(&addresses, &q->local);
	return netns && (!*netns || *netns == ss->netns);
}

/* The managed device that q's remote address is bound to; 0: none. */
static __always_inline __u64 peer_device(const struct bh_query *q)
{
	__u64 *owner = bpf_map_lookup_elem(&addresses, &q->remote);

	return owner && (*owner & BH_DEVICE_BIT) ? *owner : 0;
}

/* Sets peer and proof. What arrives must have come through the device: anybody can write its address. `sport` and `dport`:
 * what the device's program notes it under. */
static __always_inline void peer_by_address(struct __sk_buff *skb, struct bh_query *q, __u16 sport, __u16 dport)
{
	__u64 *owner;

	q->peer = BH_ID_UNIDENTIFIED;
	if (skb->ifindex == 1)
		return;
	owner = bpf_map_lookup_elem(&addresses, &q->remote);
	if (!owner && bh_addr_is_unlisted(&q->remote))
		q->unlisted = q->direction == BH_EGRESS;
	else if (!owner)
		q->peer = BH_ID_WORLD;
	else if (!(*owner & BH_DEVICE_BIT))
		return;
	else if (q->direction == BH_EGRESS)
		bh_peer_by_device(q, *owner);
	else
		bh_ticket_look(q, sport, dport);
}

/* What the functions that find a packet's flow answer, besides BH_DENY and BH_ALLOW. They do not judge it themselves: on
 * top of theirs, the stack would not suffice. */
#define BH_JUDGE 2

/* q->direction is the packet's. */
static __noinline int proto_flow(struct __sk_buff *skb, const struct bh_sock *ss, struct bh_query *q,
				 struct bh_udp_key *key)
{
	struct bpf_sock *sk = skb->sk;

	if (!ss || !sk)
		return BH_DENY;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return BH_DENY;
	if (sk->type == BH_SOCK_RAW && q->direction == BH_EGRESS && !is_own_source(skb, ss, q)) {
		bh_refuse(q, BH_REASON_SOURCE);
		return BH_DENY;
	}
	flow_key_of(key, q);
	peer_by_address(skb, q, q->proto == IPPROTO_SCTP ? q->rport : 0, q->proto == IPPROTO_SCTP ? q->lport : 0);
	return BH_JUDGE;
}

#endif
