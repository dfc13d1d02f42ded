/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * icmp.h - ICMP and ICMPv6 of a workload: ping sockets and raw sockets.
 *
 * A request opens a flow; its reply belongs to that flow and to no other: it carries the same identifier, and comes to the
 * socket that asked. What has no reply is judged by its type, each direction by itself. An error belongs to the flow whose
 * packet it quotes. A raw socket also gets copies of what is meant for others: of those, replies and the own requests come
 * back are dropped without a word.
 *
 * Errors for TCP and UDP, and what the kernel itself answers, are no socket's traffic and are not seen here.
 */
#ifndef BULKHEAD_BPF_ICMP_H
#define BULKHEAD_BPF_ICMP_H

#include "proto.h"

#define ICMP_NONE 0x1ff /* no such type */

/* Which end opened the flow stands in its key, beside the type: both ends may ask each other with the same identifier. */
#define ICMP_OPENED_HERE 0x200
#define ICMP_OPENED_THERE 0x400

/* The type of the request that a reply answers, or ICMP_NONE. */
static __always_inline __u32 icmp_request_of(bool v6, __u32 type)
{
	if (v6)
		return type == 129 || type == 161 ? type - 1 : ICMP_NONE;
	if (type == 0)
		return ICMP_ECHO_REQUEST;
	return type == 14 || type == 16 || type == 18 || type == 43 ? type - 1 : ICMP_NONE;
}

/* Requests that are answered, with an identifier where echo has its own. */
static __always_inline bool icmp_is_request(bool v6, __u32 type)
{
	if (v6)
		return type == 128 || type == 160;
	return type == 8 || type == 13 || type == 15 || type == 17 || type == 42;
}

static __always_inline bool icmp_is_error(bool v6, __u32 type)
{
	return v6 ? type >= 1 && type <= 4 : type == 3 || type == 4 || type == 11 || type == 12;
}

/* The flow `key`, if it is in force as it is. */
static __noinline bool icmp_flow_stands(const struct bh_udp_key *key, const struct bh_query *q)
{
	struct bh_udp_flow *f = bpf_map_lookup_elem(&udp_flows, key), is;

	return f && flow_copy(&is, f, key) && !flow_is_over(&is, q->now);
}

/* The addresses of the packet that stands at offset *at, if it is ICMP's; *at becomes that of its message. A function of its own,
 * so that the headers do not take stack from what comes after. */
static __noinline bool icmp_quoted_addresses(struct __sk_buff *skb, struct bh_udp_key *key, __u32 *at, __u8 proto)
{
	if (proto == IPPROTO_ICMPV6) {
		struct ipv6hdr ip6;

		if (bpf_skb_load_bytes(skb, *at, &ip6, sizeof(ip6)) || ip6.version != 6 ||
		    ip6.nexthdr != IPPROTO_ICMPV6)
			return false;
		bh_addr_v6(&key->local, ip6.saddr.s6_addr32);
		bh_addr_v6(&key->remote, ip6.daddr.s6_addr32);
		*at += sizeof(ip6);
	} else {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, *at, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl != 5 ||
		    ip.protocol != IPPROTO_ICMP)
			return false;
		bh_addr_v4(&key->local, ip.saddr);
		bh_addr_v4(&key->remote, ip.daddr);
		*at += sizeof(ip);
	}
	return true;
}

/* Is the flow `key` allowed as things are? */
static __noinline bool icmp_flow_is_allowed(const struct bh_udp_key *key, const struct bh_query *q)
{
	struct bh_udp_flow *f = bpf_map_lookup_elem(&udp_flows, key), is;

	return f && flow_copy(&is, f, key) && is.verdict && is.word == q->word && q->now < is.valid_until_ns &&
	       !flow_is_over(&is, q->now);
}

/* The flow of this socket that an error quotes a request of. Returns whether it quotes one. */
static __noinline bool icmp_quoted(struct __sk_buff *skb, const struct bh_packet *p, const struct bh_query *q,
				   struct bh_udp_key *key)
{
	__u32 at = p->transport + 8, type;
	__u8 head[8];

	if (!icmp_quoted_addresses(skb, key, &at, p->proto) || !bh_addr_equal(&key->local, &q->local) ||
	    bpf_skb_load_bytes(skb, at, head, sizeof(head)))
		return false;
	type = head[0];
	if (!icmp_is_request(p->proto == IPPROTO_ICMPV6, type))
		return false;
	key->cookie = q->cookie;
	key->lport = (__u16)head[4] << 8 | head[5];
	key->rport = type | ICMP_OPENED_HERE;
	key->proto = p->proto;
	return true;
}

/* Does this error quote a request of a flow that this socket opened, and that is allowed as things are? */
static __noinline int icmp_quotes_flow(struct __sk_buff *skb, const struct bh_packet *p, const struct bh_query *q)
{
	struct bh_udp_key key = {};

	return icmp_quoted(skb, p, q, &key) && icmp_flow_is_allowed(&key, q);
}

/* q->direction is the packet's. */
static __noinline int icmp_flow(struct __sk_buff *skb, const struct bh_sock *ss, const struct bh_packet *p,
				struct bh_query *q, struct bh_udp_key *key)
{
	bool v6 = p->proto == IPPROTO_ICMPV6;
	__u32 hook = q->direction, type = p->icmp_type, request = icmp_request_of(v6, type);
	bool reply = request != ICMP_NONE, opened_here = (hook == BH_EGRESS) != reply, own;
	int verdict;

	/* The service is the type that opened the flow, at the end that did not open it. */
	q->lport = opened_here ? 0 : reply ? request : type;
	q->rport = opened_here ? reply ? request : type : 0;
	/* Echo has no more than its address to lie about, and must not wait until the address is known. */
	if (hook == BH_EGRESS && type == (v6 ? ICMPV6_ECHO_REQUEST_TYPE : ICMP_ECHO_REQUEST)) {
		peer_by_address(skb, q, 0, 0);
		flow_key_of(key, q);
	} else {
		verdict = proto_flow(skb, ss, q, key);
		if (verdict != BH_JUDGE)
			return verdict;
	}
	key->lport = reply || icmp_is_request(v6, type) ? p->sport : 0;
	key->rport = (reply ? request : type) | (opened_here ? ICMP_OPENED_HERE : ICMP_OPENED_THERE);
	/* The kernel answers requests for every address of this host; behind a device, another does. */
	if (q->peer == BH_ID_UNIDENTIFIED && opened_here && (reply || icmp_is_request(v6, type)) && !peer_device(q))
		q->peer = BH_ID_HOST;
	if (reply) {
		if (icmp_flow_stands(key, q))
			return BH_JUDGE;
		if (hook == BH_EGRESS)
			bh_refuse(q, BH_REASON_NO_FLOW);
		return BH_DENY;
	}
	if (hook == BH_EGRESS)
		return BH_JUDGE;
	/* A message to an own address comes back as a copy. */
	key->rport ^= ICMP_OPENED_HERE ^ ICMP_OPENED_THERE;
	own = bh_addr_equal(&q->local, &q->remote) && icmp_flow_stands(key, q);
	key->rport ^= ICMP_OPENED_HERE ^ ICMP_OPENED_THERE;
	return own ? BH_DENY : BH_JUDGE;
}

/* A packet of ICMP. Its own flow, and that which an error quotes, are looked at from the caller's frame, so that only one of them is
 * on the stack. */
static __always_inline int icmp_packet(struct __sk_buff *skb, const struct bh_sock *ss, const struct bh_packet *p,
				       struct bh_query *q, struct bh_udp_key *key, __u32 hook)
{
	int verdict = icmp_flow(skb, ss, p, q, key);

	if (verdict != BH_JUDGE || hook == BH_EGRESS || !icmp_is_error(p->proto == IPPROTO_ICMPV6, p->icmp_type))
		return verdict;
	return icmp_quotes_flow(skb, p, q) ? BH_ALLOW : BH_JUDGE;
}

#endif
