// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * tc.bpf.c - every packet of a managed device, in both directions: what has no socket here, and what passes the cgroup hooks
 * (AF_PACKET) meets these.
 *
 * A device without identity carries nothing, not even ARP. One with identity carries what its workload may send and get, from
 * and to the addresses that it was bound with, and what the link needs and does not leave it: ARP and neighbour discovery for
 * those addresses, and the question for a router with its answer. Everything else is denied: tagged frames, other Ethernet protocols, fragments that do not
 * follow an allowed one.
 */
#include "device_flow.h"
#include "device_fragment.h"

/* Verdicts of the TC hook. What is allowed goes on to the next program: others may deny it still. */
#define TC_NEXT (-1)
#define TC_DROP 2

#define ARP_REQUEST 1
#define ARP_REPLY 2

#define ND_ROUTER_SOLICITATION 133
#define ND_ROUTER_ADVERTISEMENT 134
#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT 136

/* Groups ff02::N. */
#define ALL_NODES 1
#define ALL_ROUTERS 2

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
	    arp.protocol != bpf_htons(ETH_P_IP) || arp.hardware_len != 6 || arp.protocol_len != 4 ||
	    (arp.operation != bpf_htons(ARP_REQUEST) && arp.operation != bpf_htons(ARP_REPLY)))
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

/* Addresses that no router passes on (RFC 4291, 2.5.6 and 2.7.1). */
static __always_inline bool is_link_local(const struct bh_addr *a)
{
	return (a->w[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* ff02::N */
static __always_inline bool is_link_group(const struct bh_addr *a, __u32 n)
{
	return a->w[0] == bpf_htonl(0xff020000) && !(a->w[1] | a->w[2]) && a->w[3] == bpf_htonl(n);
}

/* Who may have the address `target` listens there (RFC 4291, 2.7.1). */
static __always_inline bool is_solicited_node(const struct bh_addr *a, const struct bh_addr *target)
{
	return a->w[0] == bpf_htonl(0xff020000) && !a->w[1] && a->w[2] == bpf_htonl(1) &&
	       a->w[3] == (target->w[3] | bpf_htonl(0xff000000));
}

/* Has the workload an address whose first 64 bits are those of this one? That is how IPv6 gives addresses to a link. */
static __always_inline bool is_of_its_network(const struct bh_device *dev, const struct bh_addr *a)
{
	for (__u32 i = 0; i < BH_DEVICE_ADDRESSES; i++)
		if (i < dev->n_addresses && a->w[0] && dev->addresses[i].w[0] == a->w[0] &&
		    dev->addresses[i].w[1] == a->w[1])
			return true;
	return false;
}

/*
 * Does what the workload sends to q's unicast address stay on the device's link? This host would make of neighbour discovery
 * with another destination what it makes of any packet, and route it (with one hop less, which the receiver's kernel notices, but
 * nobody in between, nor a raw socket): a way off the link that no rule allowed. So the routes are asked that the host has for
 * what comes in there.
 */
static __noinline int device_on_link(struct __sk_buff *skb, const struct bh_device *dev, struct bh_query *q)
{
	struct bpf_fib_lookup *route;
	__u32 ifindex, link;
	long r;

	if (!dev || !q)
		return 0;
	if (is_link_local(&q->remote))
		return 1;
	ifindex = skb->ifindex;
	link = dev->master ? dev->master : ifindex;
	route = &device_room_of(q)->route;
	__builtin_memset(route, 0, sizeof(*route));
	route->family = BH_PF_INET6;
	route->ifindex = link;
	__builtin_memcpy(route->ipv6_src, q->local.w, sizeof(route->ipv6_src));
	__builtin_memcpy(route->ipv6_dst, q->remote.w, sizeof(route->ipv6_dst));
	r = bpf_fib_lookup(skb, route, sizeof(*route), 0);
	/* A router would stand in the place of the destination. */
	if (r == BPF_FIB_LKUP_RET_SUCCESS || r == BPF_FIB_LKUP_RET_NO_NEIGH)
		return (route->ifindex == link || route->ifindex == ifindex) &&
		       bh_addr_equal((const struct bh_addr *)route->ipv6_dst, &q->remote);
	/* One of the host's own, or none that it passes on. A bridge hands it on all the same, perhaps to a router. */
	if (r == BPF_FIB_LKUP_RET_NOT_FWDED || r == BPF_FIB_LKUP_RET_FWD_DISABLED || r == BPF_FIB_LKUP_RET_BLACKHOLE ||
	    r == BPF_FIB_LKUP_RET_UNREACHABLE || r == BPF_FIB_LKUP_RET_PROHIBIT)
		return !dev->master || is_of_its_network(dev, &q->remote);
	return 0;
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
	if (hook == BH_INGRESS)
		return BH_ALLOW;
	if ((is_unspecified(&q->local) || device_has(dev, &q->local)) &&
	    (is_link_group(&q->remote, ALL_ROUTERS) || is_link_local(&q->remote)))
		return BH_ALLOW;
	q->rport = p->icmp_type;
	return device_deny(q, BH_REASON_ADDRESS);
}

/* The workload asks where `target` is: all who may have it, or, to see whether it is there still, whom it is about; from an own
 * address, or from none whether its own is free. */
static __always_inline bool device_may_solicit(struct __sk_buff *skb, const struct bh_device *dev, struct bh_query *q,
					       const struct bh_addr *target)
{
	if (is_unspecified(&q->local))
		return device_has(dev, target) && is_solicited_node(&q->remote, target);
	if (!device_has(dev, &q->local))
		return false;
	return is_solicited_node(&q->remote, target) ||
	       (bh_addr_equal(&q->remote, target) && device_on_link(skb, dev, q));
}

/* The workload says that `target` is here: it has to be the owner of that, and of the address that it says it from. */
static __always_inline bool device_may_advertise(struct __sk_buff *skb, const struct bh_device *dev, struct bh_query *q,
						 const struct bh_addr *target)
{
	return device_has(dev, target) && device_has(dev, &q->local) &&
	       (is_link_group(&q->remote, ALL_NODES) || device_on_link(skb, dev, q));
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
	if (p->icmp_type == ND_SOLICITATION ? device_may_solicit(skb, dev, q, &target)
					    : device_may_advertise(skb, dev, q, &target))
		return BH_ALLOW;
	q->rport = p->icmp_type;
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
	struct bh_packet *p;
	int err;

	if (!dev || !q)
		return BH_DENY;
	p = &device_room_of(q)->packet;
	err = device_parse(skb, dev->link_header, protocol, p, q);
	if (err == BH_REASON_FRAGMENT)
		err = device_fragment(skb, dev, p, q, protocol);
	if (err == FRAGMENT_FOLLOWS)
		return BH_ALLOW;
	/* The identifier of an ICMP request is no port. */
	if (p->proto == IPPROTO_ICMP || p->proto == IPPROTO_ICMPV6)
		p->sport = 0;
	q->proto = p->proto;
	q->lport = hook == BH_EGRESS ? p->sport : p->dport;
	q->rport = hook == BH_EGRESS ? p->dport : p->sport;
	if (!err && is_neighbour_discovery(p))
		return device_neighbour(skb, dev, p, q, hook);
	if (err)
		return device_deny(q, err);
	if (!device_has(dev, &q->local) && !(hook == BH_INGRESS && bh_addr_is_multicast(&q->local)) &&
	    !asks_for_address(q, hook))
		return device_deny(q, BH_REASON_ADDRESS);
	if (p->proto == IPPROTO_TCP)
		return device_tcp(skb, p, q, hook);
	if (p->proto == IPPROTO_ICMP || p->proto == IPPROTO_ICMPV6) {
		if (device_is_echo(p))
			return device_echo(skb, p, q, hook);
		if (device_is_error(p)) {
			err = device_error(skb, p, q, hook);
			return err ? device_deny(q, err) : BH_ALLOW;
		}
		q->rport = p->icmp_type;
		return device_deny(q, BH_REASON_PROTO);
	}
	if (device_datagram(skb, q, hook) != BH_ALLOW)
		return BH_DENY;
	device_fragment_first(q);
	device_account(skb, p, q, hook);
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

/* Copies what is known of the device to room->device. Returns whether anything is. */
static __always_inline bool device_get(struct bh_device_room *room, __u32 ifindex)
{
	struct bh_device *dev = bpf_map_lookup_elem(&devices, &ifindex);

	if (!dev)
		return false;
	room->device = *dev;
	/* Not read again: the kernel may have given it to another (seal.h). */
	asm volatile("" ::: "memory");
	return room->device.seal == bh_device_seal(&room->device, ifindex);
}

/* Begins a judgement. Returns the device, or NULL if it carries nothing. By itself, so that what it needs of the stack is free when
 * the packet is judged. */
static __noinline struct bh_device *device_begin(struct __sk_buff *skb, struct bh_query *q, __u32 hook)
{
	__u32 ifindex = skb->ifindex;
	struct bh_device_room *room;
	struct bh_tag tag;

	if (!q)
		return 0;
	__builtin_memset(q, 0, sizeof(*q));
	room = device_room_of(q);
	room->is_first = 0;
	q->now = bh_now();
	q->word = bh_state_word();
	q->direction = hook;
	q->peer = BH_ID_WORLD;
	q->cookie = BH_DEVICE_BIT | ifindex;
	q->cgroup = q->cookie;
	q->valid_until = ~0ULL;
	if (bh_tag_get(&tag, q->cookie, q->now))
		bh_subject_take(q, q->cookie, &tag);
	if (q->subject == BH_ID_UNIDENTIFIED || !device_get(room, ifindex))
		return 0;
	return &room->device;
}

/* In the programs themselves: the verifier takes no more than eight calls deep, and the tables are the last of them. */
static __always_inline int device_packet(struct __sk_buff *skb, __u32 hook)
{
	__u32 zero = 0;
	struct bh_device_room *room = bpf_map_lookup_elem(&device_room, &zero);
	__be16 protocol = skb->protocol;
	struct bh_device *dev;
	struct bh_query *q;

	if (!room)
		return BH_DENY;
	q = &room->q;
	dev = device_begin(skb, q, hook);
	if (!dev)
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
