/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * device_fragment.h - UDP datagrams that are larger than a packet.
 *
 * Only the first fragment has ports. It is judged as the datagram, and leaves a note under which the others follow: same
 * addresses, protocol and identification, through the same hook, within a second and under the same tables and tags. One that
 * comes before its first is denied: a device keeps the order, so its datagram was denied, or it was made by hand. No fragment
 * can change what was judged: a second first one is judged again, and the ports are within the 8 bytes below which no other
 * can begin. TCP cuts its segments itself, so fragments of it are made by hand; those of other protocols nobody needs.
 */
#ifndef BULKHEAD_BPF_DEVICE_FRAGMENT_H
#define BULKHEAD_BPF_DEVICE_FRAGMENT_H

#include "device_account.h"

/* Returned instead of a reason: the packet belongs to a datagram that was allowed. */
#define FRAGMENT_FOLLOWS (-1)

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, BH_MAX_FRAGMENTS);
	__type(key, struct bh_fragment_key);
	__type(value, struct bh_fragment);
} fragments __weak SEC(".maps");

struct ipv6_fragment {
	__u8 next;
	__u8 reserved;
	__be16 offset; /* in units of 8 bytes << 3, and bit 0: more follow */
	__be32 id;
};

/* Reads which datagram it belongs to, and where. Returns its offset in bytes, or -1 if it is none that is understood. */
static __always_inline int fragment_read(struct __sk_buff *skb, __u32 net, __be16 protocol, struct bh_packet *p,
					 struct bh_fragment_key *key)
{
	if (protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;
		__u16 offset;

		if (bpf_skb_load_bytes(skb, net, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl != 5)
			return -1;
		offset = bpf_ntohs(ip.frag_off);
		bh_addr_v4(&key->src, ip.saddr);
		bh_addr_v4(&key->dst, ip.daddr);
		key->id = ip.id;
		key->proto = ip.protocol;
		p->transport = net + sizeof(ip);
		p->payload_len = bpf_ntohs(ip.tot_len) - sizeof(ip);
		return (offset & 0x1fff) * 8;
	} else {
		struct ipv6hdr ip6;
		struct ipv6_fragment f;

		if (bpf_skb_load_bytes(skb, net, &ip6, sizeof(ip6)) || ip6.version != 6 ||
		    ip6.nexthdr != IPPROTO_FRAGMENT || bpf_skb_load_bytes(skb, net + sizeof(ip6), &f, sizeof(f)))
			return -1;
		bh_addr_v6(&key->src, ip6.saddr.s6_addr32);
		bh_addr_v6(&key->dst, ip6.daddr.s6_addr32);
		key->id = f.id;
		key->proto = f.next;
		p->transport = net + sizeof(ip6) + sizeof(f);
		p->payload_len = bpf_ntohs(ip6.payload_len) - sizeof(f);
		return bpf_ntohs(f.offset) & 0xfff8;
	}
}

/* Returns 0 for the first fragment of a datagram, with its ports in p and its addresses in q; FRAGMENT_FOLLOWS for one that may
 * follow; or the reason to deny with. */
static __noinline int device_fragment(struct __sk_buff *skb, const struct bh_device *dev, struct bh_packet *p,
				      struct bh_query *q, __be16 protocol)
{
	struct bh_device_room *room = (struct bh_device_room *)q;
	struct bh_fragment_key *key = &room->fragment;
	struct bh_fragment *note;
	struct udphdr udp;
	__u32 there;
	int offset;

	if (!dev || !q || !p)
		return BH_REASON_FRAGMENT;
	offset = fragment_read(skb, dev->link_header, protocol, p, key);
	if (offset < 0)
		return BH_REASON_FRAGMENT;
	q->local = q->direction == BH_EGRESS ? key->src : key->dst;
	q->remote = q->direction == BH_EGRESS ? key->dst : key->src;
	p->proto = key->proto;
	key->ifindex = (__u32)q->cookie;
	key->hook = q->direction;
	if (key->proto != IPPROTO_UDP)
		return BH_REASON_FRAGMENT;
	if (offset) {
		note = bpf_map_lookup_elem(&fragments, key);
		/* Asked twice, because it may have become another datagram's while it was read (device_flow.h). */
		if (!note || note->word != q->word || q->now >= note->until_ns ||
		    bpf_map_lookup_elem(&fragments, key) != note)
			return BH_REASON_FRAGMENT;
		there = skb->len - p->transport;
		device_bytes(note->identity, note->peer, note->direction, key->hook,
			     p->payload_len < there ? p->payload_len : there);
		return FRAGMENT_FOLLOWS;
	}
	if (bpf_skb_load_bytes(skb, p->transport, &udp, sizeof(udp)))
		return BH_REASON_PARSE;
	p->sport = bpf_ntohs(udp.source);
	p->dport = bpf_ntohs(udp.dest);
	room->is_first = 1;
	return 0;
}

/* The datagram is allowed. Without a note its other fragments are denied. By itself, so that what it needs of the stack is free
 * when the packet is judged. */
static __noinline int device_fragment_first(const struct bh_query *q)
{
	const struct bh_device_room *room = (const struct bh_device_room *)q;
	struct bh_fragment note = {};

	if (!q)
		return 0;
	note.word = q->word;
	note.until_ns = q->now + BH_SECOND;
	note.identity = q->subject;
	note.peer = q->peer;
	note.direction = q->direction;

	if (!room->is_first)
		return 0;
	if (q->valid_until < note.until_ns)
		note.until_ns = q->valid_until;
	return bpf_map_update_elem(&fragments, &room->fragment, &note, BPF_ANY);
}

#endif
