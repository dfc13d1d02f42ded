// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * tc.bpf.c - every packet of a managed device, in both directions: what has no socket here, and what passes the cgroup hooks
 * (AF_PACKET) meets these.
 *
 * A device without identity carries nothing, not even ARP. One with identity carries what its workload may send and get, from
 * and to the addresses that it was bound with, and what the link needs: ARP and neighbour discovery for those addresses, and the
 * question for a router with its answer. Everything else is denied: tagged frames, other Ethernet protocols, fragments that do not
 * follow an allowed one.
 */
#include "device_flow.h"
#include "device_fragment.h"

/* Verdicts of the TC hook. What is allowed goes on to the next program: others may deny it still. */
#define TC_NEXT (-1)
#define TC_DROP 2

#define ND_ROUTER_SOLICITATION 133
#define ND_ROUTER_ADVERTISEMENT 134
#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT 136

struct arp_ipv4 {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_len;
	__u8 protocol_len;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender[4];
	__u8 target_mac[6];
	__u8 target[4];
} __attribute__((packed));

static __always_inline void address_of_bytes(struct bh_addr *a, const __u8 *bytes)
{
	__be32 v4;

	__builtin_memcpy(&v4, bytes, sizeof(v4));
	bh_addr_v4(a, v4);
}

/* The workload says of its own addresses where they are, and asks for others'. */
static __noinline int device_arp(struct __sk_buff *skb, const struct bh_device *dev, struct bh_query *q, __u32 hook)
{
	struct arp_ipv4 arp;

	if (!dev || bpf_skb_load_bytes(skb, dev->link_header, &arp, sizeof(arp)) || arp.hardware != bpf_htons(1) ||
	    arp.protocol != bpf_htons(ETH_P_IP) || arp.hardware_len != 6 || arp.protocol_len != 4)
		return device_deny(q, BH_REASON_PARSE);
	/* Nothing rides along: the shortest frame of Ethernet has 46 bytes of payload. */
	if (skb->len > dev->link_header + 46)
		return device_deny(q, BH_REASON_PARSE);
	if (hook == BH_INGRESS)
		return BH_ALLOW;
	address_of_bytes(&q->local, arp.sender);
	address_of_bytes(&q->remote, arp.target);
	if (q->local.w[3] ? device_has(dev, &q->local) : device_has(dev, &q->remote)) /* 0: is my address free? */
		return BH_ALLOW;
	return device_deny(q, BH_REASON_ADDRESS);
}

static __always_inline bool is_unspecified(const struct bh_addr *a)
{
	return !(a->w[0] | a->w[1] | a->w[2] | a->w[3]);
}

static __always_inline bool is_neighbour_discovery(const struct bh_packet *p)
{
	return p->proto == IPPROTO_ICMPV6 && p->icmp_type >= ND_ROUTER_SOLICITATION && p->icmp_type <= ND_ADVERTISEMENT;
}

/* A workload asks for routers, and is told of them; it is none. */
static __always_inline int device_router(const struct bh_device *dev, const struct bh_packet *p, struct bh_query *q,
					 __u32 hook)
{
	if (p->icmp_type != (hook == BH_EGRESS ? ND_ROUTER_SOLICITATION : ND_ROUTER_ADVERTISEMENT)) {
		q->rport = p->icmp_type;
		return device_deny(q, BH_REASON_PROTO);
	}
	if (hook == BH_INGRESS || is_unspecified(&q->local) || device_has(dev, &q->local))
		return BH_ALLOW;
	return device_deny(q, BH_REASON_ADDRESS);
}

/* Likewise with IPv6. */
static __noinline int device_neighbour(struct __sk_buff *skb, const struct bh_device *dev, const struct bh_packet *p,
				       struct bh_query *q, __u32 hook)
{
	struct bh_addr target;
	__u8 hops;

	/* From this link and no other. */
	if (!dev || bpf_skb_load_bytes(skb, dev->link_header + 7, &hops, 1) || hops != 255)
		return device_deny(q, BH_REASON_PARSE);
	/* Nothing rides along: an address, a link address and a nonce, and no extension headers. Routers have more to say. */
	if (p->icmp_type != ND_ROUTER_ADVERTISEMENT &&
	    (p->transport != dev->link_header + sizeof(struct ipv6hdr) || skb->len > p->transport + 48))
		return device_deny(q, BH_REASON_PARSE);
	if (p->icmp_type <= ND_ROUTER_ADVERTISEMENT)
		return device_router(dev, p, q, hook);
	if (bpf_skb_load_bytes(skb, p->transport + 8, &target, sizeof(target)))
		return device_deny(q, BH_REASON_PARSE);
	if (hook == BH_INGRESS)
		return BH_ALLOW;
	/* To all who may have it, or, to see whether it is there still, to whom it is about. */
	if (p->icmp_type == ND_SOLICITATION && device_has(dev, &q->local) &&
	    (bh_addr_is_multicast(&q->remote) || bh_addr_equal(&q->remote, &target)))
		return BH_ALLOW;
	/* Of what it says, and of what it asks from no address ("is mine free?"), it has to be the owner. */
	if ((p->icmp_type == ND_ADVERTISEMENT || is_unspecified(&q->local)) && device_has(dev, &target))
		return BH_ALLOW;
	return device_deny(q, BH_REASON_ADDRESS);
}

/* Who has no address yet asks for one (RFC 2131, 4.1): that is judged like any other datagram. */
static __always_inline bool asks_for_address(const struct bh_query *q, __u32 hook)
{
	return hook == BH_EGRESS && q->proto == IPPROTO_UDP && q->lport == 68 && q->rport == 67 &&
	       bh_addr_is_v4(&q->local) && !q->local.w[3] && bh_addr_is_v4(&q->remote) && q->remote.w[3] == 0xffffffff;
}

/* Parses a packet in q's direction; by itself, so that what that needs of the stack is free when it is judged. */
static __noinline int device_parse(struct __sk_buff *skb, __u32 link_header, __be16 protocol, struct bh_packet *p,
				   struct bh_query *q)
{
	bool out = q->direction == BH_EGRESS;

	return bh_parse_at(skb, link_header, protocol, p, out ? &q->local : &q->remote, out ? &q->remote : &q->local);
}

/* An IP packet. */
static __noinline int device_ip(struct __sk_buff *skb, const struct bh_device *dev, struct bh_query *q, __be16 protocol,
				__u32 hook)
{
	struct bh_packet p;
	int err;

	if (!dev || !q)
		return BH_DENY;
	err = device_parse(skb, dev->link_header, protocol, &p, q);
	if (err == BH_REASON_FRAGMENT)
		err = device_fragment(skb, dev, &p, q, protocol);
	if (err == FRAGMENT_FOLLOWS)
		return BH_ALLOW;
	/* The identifier of an ICMP request is no port. */
	if (p.proto == IPPROTO_ICMP || p.proto == IPPROTO_ICMPV6)
		p.sport = 0;
	q->proto = p.proto;
	q->lport = hook == BH_EGRESS ? p.sport : p.dport;
	q->rport = hook == BH_EGRESS ? p.dport : p.sport;
	if (!err && is_neighbour_discovery(&p))
		return device_neighbour(skb, dev, &p, q, hook);
	if (err)
		return device_deny(q, err);
	if (!device_has(dev, &q->local) && !(hook == BH_INGRESS && bh_addr_is_multicast(&q->local)) &&
	    !asks_for_address(q, hook))
		return device_deny(q, BH_REASON_ADDRESS);
	if (p.proto == IPPROTO_TCP)
		return device_tcp(skb, &p, q, hook);
	if (p.proto == IPPROTO_ICMP || p.proto == IPPROTO_ICMPV6) {
		if (device_is_echo(&p))
			return device_echo(skb, &p, q, hook);
		if (device_is_error(&p)) {
			err = device_error(skb, &p, q, hook);
			return err ? device_deny(q, err) : BH_ALLOW;
		}
		q->rport = p.icmp_type;
		return device_deny(q, BH_REASON_PROTO);
	}
	if (device_datagram(skb, q, hook) != BH_ALLOW)
		return BH_DENY;
	device_fragment_first(q);
	return BH_ALLOW;
}

/* Nothing passes without identity, whatever the policy says of `unidentified`. */
static __always_inline int device_nobody(struct bh_query *q)
{
	q->allow = 0;
	q->cell = BH_CELL_LOG_DENIED;
	q->reason = q->expired ? BH_REASON_EXPIRED : BH_REASON_NO_IDENTITY;
	bh_report_denied(q);
	return BH_DENY;
}

/* In the programs themselves: the verifier takes no more than eight calls deep, and the tables are the last of them. */
static __always_inline int device_packet(struct __sk_buff *skb, __u32 hook)
{
	__u32 ifindex = skb->ifindex, zero = 0;
	struct bh_device *dev = bpf_map_lookup_elem(&devices, &ifindex);
	struct bh_device_room *room = bpf_map_lookup_elem(&device_room, &zero);
	__be16 protocol = skb->protocol;
	struct bh_query *q;
	struct bh_tag *tag;

	if (!room)
		return BH_DENY;
	q = &room->q;
	__builtin_memset(q, 0, sizeof(*q));
	room->is_first = 0;
	q->now = bh_now();
	q->word = bh_state_word();
	q->direction = hook;
	q->peer = BH_ID_WORLD;
	q->cookie = BH_DEVICE_BIT | ifindex;
	q->cgroup = q->cookie;
	q->valid_until = ~0ULL;
	tag = bpf_map_lookup_elem(&tags, &q->cookie);
	if (tag)
		bh_subject_take(q, q->cookie, tag);
	if (!dev || q->subject == BH_ID_UNIDENTIFIED)
		return device_nobody(q);
	/* What the frame says of itself: for one made by hand, the socket buffer says what its maker wants. */
	if (dev->link_header && bpf_skb_load_bytes(skb, 12, &protocol, sizeof(protocol)))
		return device_deny(q, BH_REASON_PARSE);
	if (skb->vlan_present)
		return device_deny(q, BH_REASON_PROTO);
	if (protocol == bpf_htons(ETH_P_IP) || protocol == bpf_htons(ETH_P_IPV6))
		return device_ip(skb, dev, q, protocol, hook);
	if (protocol == bpf_htons(ETH_P_ARP) && dev->link_header)
		return device_arp(skb, dev, q, hook);
	return device_deny(q, BH_REASON_PROTO);
}

/* Ingress of the device: what the workload behind it sends. */
SEC("tc")
int bh_from_device(struct __sk_buff *skb)
{
	return device_packet(skb, BH_EGRESS) == BH_ALLOW ? TC_NEXT : TC_DROP;
}

/* Egress of the device: what goes to the workload. */
SEC("tc")
int bh_to_device(struct __sk_buff *skb)
{
	return device_packet(skb, BH_INGRESS) == BH_ALLOW ? TC_NEXT : TC_DROP;
}

char LICENSE[] SEC("license") __weak = "Dual BSD/GPL";
