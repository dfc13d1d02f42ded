/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * device_flow.h - flows of a managed device's workload, judged as those of a socket are: TCP in its handshake, in a table of
 * its own; what has no handshake in the table that sockets use. `hook` is the packet's direction as the workload sees it:
 * what it sends is egress.
 *
 * The table is an LRU map, whose elements have no grace period: one can hold another flow while somebody still has a
 * pointer to what it held. So
 * - nothing of a verdict is written through a pointer. A flow that is judged again goes in by its key (BPF_EXIST), which the
 *   kernel compares under the bucket's lock, as a new element that is whole before it can be found: what stands in the table of a
 *   flow does not change as long as it stands there;
 * - what is read is copied. The word that it was judged under has a seal over it, of the key and of all else that it says
 *   (seal.h): where it is the word in force, all of it is this flow's. Where it is not, an older one or another flow's, it counts if
 *   the key leads to the same element afterwards. Else the flow is not known, its packet is denied, and TCP sends it again.
 */
#ifndef BULKHEAD_BPF_DEVICE_FLOW_H
#define BULKHEAD_BPF_DEVICE_FLOW_H

#include "device.h"
#include "flow.h"

static __always_inline void device_key_of(struct bh_device_key *key, const struct bh_query *q)
{
	key->ifindex = (__u32)q->cookie;
	key->lport = q->lport;
	key->rport = q->rport;
	key->local = q->local;
	key->remote = q->remote;
}

/* Of room->key and all of room->flow but its word. */
static __always_inline __u64 device_flow_seal(const struct bh_device_room *room)
{
	const bh_seal_word *w = (const bh_seal_word *)&room->flow;

	return bh_seal_key(&room->key) + BH_SEAL(w[1], 0x923f82a4af194f9bULL) + BH_SEAL(w[2], 0xab1c5ed5da6d8118ULL) +
	       BH_SEAL(w[3], 0xd807aa98a3030242ULL) + BH_SEAL(w[4], 0x12835b0145706fbeULL) +
	       BH_SEAL(w[5], 0x243185be4ee4b28cULL);
}

/* Copies what is known of the flow room->key to room->flow. Returns whether anything is. */
static __noinline int device_flow_get(struct bh_device_room *room)
{
	struct bh_device_flow *f;

	if (!room)
		return 0;
	f = bpf_map_lookup_elem(&device_flows, &room->key);
	if (!f)
		return 0;
	room->flow = *f;
	asm volatile("" ::: "memory");
	room->flow.word ^= device_flow_seal(room);
	return room->flow.word == room->q.word || bpf_map_lookup_elem(&device_flows, &room->key) == f;
}

/* Puts it back, with the verdict of room->q. Returns whether it could: a flow that is not there (BPF_EXIST) has been evicted. */
static __noinline int device_flow_put(struct bh_device_room *room, __u64 flags)
{
	const struct bh_query *q;
	struct bh_device_flow *f;

	if (!room)
		return 0;
	q = &room->q;
	f = &room->flow;
	f->valid_until_ns = q->valid_until;
	f->peer_tag = q->peer_tag;
	f->identity = q->subject;
	f->peer = q->peer;
	f->cell = q->cell;
	f->proof = q->proof;
	f->reason = q->reason;
	f->verdict = q->allow;
	f->word = q->word ^ device_flow_seal(room);
	return bpf_map_update_elem(&device_flows, &room->key, f, flags) == 0;
}

/* A flow begins with this SYN. Returns whether it could be noted. */
static __always_inline bool device_flow_begin(struct bh_query *q, const struct bh_packet *p, __u8 initiator)
{
	struct bh_device_room *room = device_room_of(q);

	__builtin_memset(&room->flow, 0, sizeof(room->flow));
	room->flow.initiator = initiator;
	room->flow.answered = !initiator;
	room->flow.isn = bpf_ntohl(p->seq);
	return device_flow_put(room, BPF_ANY);
}

static __always_inline int device_deny(struct bh_query *q, __u8 reason)
{
	bh_refuse(q, reason);
	return BH_DENY;
}

/* The workload opens a connection: who answers is not known yet, so it may leave if any answer could be allowed. */
static __always_inline int device_syn_out(struct __sk_buff *skb, const struct bh_packet *p, struct bh_query *q)
{
	int err;

	if (p->payload_len)
		return device_deny(q, BH_REASON_EARLY_DATA);
	bh_judge_possible(q);
	if (!q->allow) {
		bh_report_denied(q);
		return BH_DENY;
	}
	err = device_vouch(skb, p, q);
	if (err)
		return device_deny(q, err);
	if (!device_flow_begin(q, p, 1)) {
		BH_COUNT(map_full);
		return device_deny(q, BH_REASON_MAP_FULL);
	}
	return BH_ALLOW;
}

/* Somebody opens a connection to the workload. */
static __always_inline int device_syn_in(struct __sk_buff *skb, const struct bh_packet *p, struct bh_query *q)
{
	struct bh_device_room *room = device_room_of(q);

	device_peer_of_segment(skb, p, q, device_about(q));
	/* Sent again: the flow is judged already. */
	q->again = device_flow_get(room) && !room->flow.initiator && room->flow.isn == bpf_ntohl(p->seq);
	bh_judge_arrived(q);
	bh_report(q);
	if (!q->allow)
		return BH_DENY;
	if (!device_flow_begin(q, p, 0)) {
		BH_COUNT(map_full);
		return device_deny(q, BH_REASON_MAP_FULL);
	}
	return BH_ALLOW;
}

/* Any packet of a flow whose peer is known. */
static __always_inline int device_established(const struct bh_packet *p, struct bh_query *q)
{
	struct bh_device_flow *f = &device_room_of(q)->flow;

	q->direction = f->initiator ? BH_EGRESS : BH_INGRESS;
	q->peer = f->peer;
	q->peer_tag = f->peer_tag;
	q->proof = f->proof;
	q->again = 1;
	if (f->word == q->word && q->now < f->valid_until_ns) {
		q->allow = f->verdict;
		q->cell = f->cell;
		q->reason = f->reason;
	} else {
		bh_judge(q);
		device_flow_put(device_room_of(q), BPF_EXIST);
		if (q->allow)
			bh_report(q);
	}
	if (q->allow || is_bare_reset(p))
		return BH_ALLOW;
	bh_report_denied(q);
	return BH_DENY;
}

/* What answers the workload's SYN: here the peer becomes known and egress is judged. */
static __always_inline int device_answered(struct __sk_buff *skb, const struct bh_packet *p, struct bh_query *q)
{
	struct bh_device_room *room = device_room_of(q);

	if (bpf_ntohl(p->ack) != room->flow.isn + 1)
		return device_deny(q, BH_REASON_NO_FLOW);
	q->direction = BH_EGRESS;
	device_peer_of_segment(skb, p, q, device_about(q));
	bh_judge_arrived(q);
	room->flow.answered = q->allow;
	device_flow_put(room, BPF_EXIST);
	bh_report(q);
	return q->allow ? BH_ALLOW : BH_DENY;
}

/* The workload answers a SYN. */
static __always_inline int device_answers(struct __sk_buff *skb, const struct bh_packet *p, struct bh_query *q)
{
	int err;

	if (!device_established(p, q))
		return BH_DENY;
	err = device_vouch(skb, p, q);
	return err ? device_deny(q, err) : BH_ALLOW;
}

static __noinline int device_tcp(struct __sk_buff *skb, const struct bh_packet *p, struct bh_query *q, __u32 hook)
{
	struct bh_device_room *room = device_room_of(q);
	struct bh_device_flow *f = &room->flow;

	device_key_of(&room->key, q);
	if ((p->tcp_flags & (BH_TCP_SYN | BH_TCP_ACK)) == BH_TCP_SYN)
		return hook == BH_EGRESS ? device_syn_out(skb, p, q) : device_syn_in(skb, p, q);
	if (!device_flow_get(room)) {
		if (is_bare_reset(p))
			return BH_DENY;
		return device_deny(q, BH_REASON_NO_FLOW);
	}
	if (p->tcp_flags & BH_TCP_SYN) {
		/* Only who was asked answers: simultaneous open is not for devices. */
		if (hook == BH_EGRESS && !f->initiator)
			return device_answers(skb, p, q);
		if (hook == BH_INGRESS && f->initiator && !f->answered)
			return device_answered(skb, p, q);
		if (hook == BH_INGRESS && f->initiator)
			return device_established(p, q);
		return device_deny(q, BH_REASON_NO_FLOW);
	}
	if (f->answered)
		return device_established(p, q);
	/* A reset, or the ACK of an old connection: it carries nothing. */
	return p->payload_len ? device_deny(q, BH_REASON_NO_FLOW) : BH_ALLOW;
}

/* UDP, and protocols that are judged by their number, or by SCTP's ports. */
static __noinline int device_datagram(struct __sk_buff *skb, struct bh_query *q, __u32 hook)
{
	struct bh_udp_key *key = &device_room_of(q)->udp_key;
	__u64 peer;

	flow_key_of(key, q);
	peer = hook == BH_EGRESS ? bh_peer_of_destination(q, 0, 0) : device_peer_of_datagram(skb, q, device_about(q));
	if (!flow_packet(q, key, peer, hook))
		return BH_DENY;
	if (hook == BH_EGRESS)
		device_ticket(skb, q);
	return BH_ALLOW;
}

/* An echo flow, by who asks: each end may ask the other. */
static __always_inline void device_echo_key(struct bh_udp_key *key, const struct bh_query *q, __u32 asks)
{
	flow_key_of(key, q);
	key->lport = asks == BH_EGRESS ? 1 : 2;
	key->rport = 0;
}

static __noinline int device_echo(struct __sk_buff *skb, const struct bh_packet *p, struct bh_query *q, __u32 hook)
{
	bool v6 = p->proto == IPPROTO_ICMPV6;
	__u16 request = v6 ? ICMPV6_ECHO_REQUEST_TYPE : ICMP_ECHO_REQUEST;
	__u32 asks = p->icmp_type == request ? hook : !hook;
	struct bh_udp_key *key = &device_room_of(q)->udp_key;
	__u64 peer;

	device_echo_key(key, q, asks);
	if (asks != hook && !bpf_map_lookup_elem(&udp_flows, key))
		return device_deny(q, BH_REASON_NO_FLOW);
	/* Who is there is asked, and told, under port 0. */
	peer = hook == BH_EGRESS ? bh_peer_of_destination(q, 0, 0) : device_peer_of_datagram(skb, q, device_about(q));
	if (asks == BH_EGRESS)
		q->rport = request;
	else
		q->lport = request;
	if (!flow_packet(q, key, peer, hook))
		return BH_DENY;
	q->lport = 0;
	q->rport = 0;
	if (hook == BH_EGRESS)
		device_ticket(skb, q);
	return BH_ALLOW;
}

static __always_inline int device_quote_read(struct __sk_buff *skb, __u32 off, bool v6, struct bh_device_quote *quote)
{
	__be16 ports[2];

	if (v6) {
		struct ipv6hdr ip6;

		if (bpf_skb_load_bytes(skb, off, &ip6, sizeof(ip6)))
			return -1;
		bh_addr_v6(&quote->src, ip6.saddr.s6_addr32);
		bh_addr_v6(&quote->dst, ip6.daddr.s6_addr32);
		quote->proto = ip6.nexthdr; /* behind an extension header nobody looks: then no flow fits */
		off += sizeof(ip6);
	} else {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl != 5 ||
		    (ip.frag_off & bpf_htons(0x1fff)))
			return -1;
		bh_addr_v4(&quote->src, ip.saddr);
		bh_addr_v4(&quote->dst, ip.daddr);
		quote->proto = ip.protocol;
		off += sizeof(ip);
	}
	if (bpf_skb_load_bytes(skb, off, ports, sizeof(ports)))
		return -1;
	quote->sport = bpf_ntohs(ports[0]);
	quote->dport = bpf_ntohs(ports[1]);
	quote->icmp_type = quote->sport >> 8;
	return 0;
}

/* Was the quoted packet of a flow that is allowed now? q names the quoted flow's ends. */
static __always_inline bool device_flow_lives(struct bh_device_room *room, const struct bh_query *q,
					      const struct bh_device_quote *quote, __u32 sent)
{
	const struct bh_device_flow *tcp = &room->flow;
	struct bh_udp_key *key = &room->udp_key;
	struct bh_udp_flow *f;

	if (quote->proto == IPPROTO_TCP) {
		device_key_of(&room->key, q);
		return device_flow_get(room) && tcp->verdict && tcp->word == q->word && q->now < tcp->valid_until_ns;
	}
	if (quote->proto == IPPROTO_ICMP || quote->proto == IPPROTO_ICMPV6) {
		bool request = quote->icmp_type == ICMP_ECHO_REQUEST || quote->icmp_type == ICMPV6_ECHO_REQUEST_TYPE;

		device_echo_key(key, q, request ? sent : !sent);
	} else {
		flow_key_of(key, q);
	}
	f = bpf_map_lookup_elem(&udp_flows, key);
	return f && f->verdict && f->word == q->word && q->now < f->valid_until_ns &&
	       (__s64)(q->now - f->seen_ns) < (__s64)BH_FLOW_IDLE && bpf_map_lookup_elem(&udp_flows, key) == f;
}

/* An error belongs to the flow that it tells of; whoever sends it. Returns 0 or the enum bh_reason to deny with. */
static __noinline int device_error(struct __sk_buff *skb, const struct bh_packet *p, struct bh_query *q, __u32 hook)
{
	struct bh_query *about = device_about(q);
	struct bh_device_quote *quote = &device_room_of(q)->quote;
	/* What the workload is told of, it sent itself. */
	__u32 sent = !hook;

	if (device_quote_read(skb, p->transport + 8, p->proto == IPPROTO_ICMPV6, quote))
		return BH_REASON_PARSE;
	about->word = q->word;
	about->now = q->now;
	about->cookie = q->cookie;
	about->local = sent == BH_EGRESS ? quote->src : quote->dst;
	about->remote = sent == BH_EGRESS ? quote->dst : quote->src;
	about->lport = sent == BH_EGRESS ? quote->sport : quote->dport;
	about->rport = sent == BH_EGRESS ? quote->dport : quote->sport;
	about->proto = quote->proto;
	/* What the workload tells of, it tells who sent it: else an error could carry anything anywhere. A router in between may
	 * tell the workload. */
	if (hook == BH_EGRESS && !bh_addr_equal(&about->remote, &q->remote))
		return BH_REASON_NO_FLOW;
	if (bh_addr_equal(&about->local, &q->local) && device_flow_lives(device_room_of(q), about, quote, sent))
		return 0;
	return BH_REASON_NO_FLOW;
}

static __always_inline bool device_is_error(const struct bh_packet *p)
{
	if (p->proto == IPPROTO_ICMPV6)
		return p->icmp_type >= 1 && p->icmp_type <= 4;
	return p->icmp_type == 3 || p->icmp_type == 11 || p->icmp_type == 12;
}

static __always_inline bool device_is_echo(const struct bh_packet *p)
{
	if (p->proto == IPPROTO_ICMPV6)
		return p->icmp_type == ICMPV6_ECHO_REQUEST_TYPE || p->icmp_type == ICMPV6_ECHO_REPLY_TYPE;
	return p->icmp_type == ICMP_ECHO_REQUEST || p->icmp_type == ICMP_ECHO_REPLY;
}

#endif
