/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * parse.h - headers of one packet, as cgroup_skb sees it (from the IP header on), or from an offset on, as a device does.
 *
 * The protocol comes from the packet, never from the socket: an IPv4 packet to a dual-stack socket is IPv4. What cannot
 * be understood with certainty is refused: a fragment, IPv4 options, a route with segments left, a chain of extension
 * headers longer than BH_MAX_EXTENSIONS or in an order that no sender makes, a length that is not the packet's. What is
 * not known as an extension header is the packet's protocol: a rule can name it by its number, AH and ESP too.
 */
#ifndef BULKHEAD_BPF_PARSE_H
#define BULKHEAD_BPF_PARSE_H

#include <linux/bpf.h>
#include <stdbool.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "decide.h"

#define BH_MAX_EXTENSIONS 8

/* Processors for which the verifier takes loads from a packet that are not aligned. */
#ifdef __TARGET_ARCH_x86
#define BH_READS_IN_PLACE
#endif

#define ICMP_ECHO_REQUEST 8
#define ICMP_ECHO_REPLY 0
#define ICMPV6_ECHO_REQUEST_TYPE 128
#define ICMPV6_ECHO_REPLY_TYPE 129

struct bh_packet {
	__u32 transport;   /* offset of the transport header */
	__u32 payload_len; /* TCP: bytes behind the header */
	__be32 seq;
	__be32 ack;
	__u16 sport; /* TCP, UDP, SCTP; of ICMP the identifier of a request and its reply */
	__u16 dport;
	__u8 proto;
	__u8 icmp_type;
	__u8 tcp_flags;	 /* as byte 13 of the header */
	__u8 tcp_header; /* bytes */
};

#define BH_TCP_FIN 0x01
#define BH_TCP_SYN 0x02
#define BH_TCP_RST 0x04
#define BH_TCP_ACK 0x10

/* A reset without payload ends a flow that was allowed once: it may pass, so that both ends learn of the cut. */
static __always_inline bool is_bare_reset(const struct bh_packet *p)
{
	return (p->tcp_flags & BH_TCP_RST) && p->payload_len == 0;
}

static __always_inline void bh_addr_v4(struct bh_addr *a, __be32 v4)
{
	a->w[0] = 0;
	a->w[1] = 0;
	a->w[2] = bpf_htonl(0xffff);
	a->w[3] = v4;
}

static __always_inline void bh_addr_v6(struct bh_addr *a, const __u32 *v6)
{
	a->w[0] = v6[0];
	a->w[1] = v6[1];
	a->w[2] = v6[2];
	a->w[3] = v6[3];
}

static __always_inline bool bh_addr_equal(const struct bh_addr *a, const struct bh_addr *b)
{
	return a->w[0] == b->w[0] && a->w[1] == b->w[1] && a->w[2] == b->w[2] && a->w[3] == b->w[3];
}

static __always_inline bool bh_addr_is_loopback(const struct bh_addr *a)
{
	if (bh_addr_is_v4(a))
		return (a->w[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return a->w[0] == 0 && a->w[1] == 0 && a->w[2] == 0 && a->w[3] == bpf_htonl(1);
}

/* Walks the extension headers that a host may send through a socket: hop-by-hop, routing, destination options. */
static __always_inline int bh_parse_v6(struct __sk_buff *skb, __u32 net, struct bh_packet *p, struct bh_addr *src,
				       struct bh_addr *dst, __u32 *end)
{
	struct ipv6hdr ip6;
	__u32 off = net + sizeof(ip6);
	__u8 next;

	if (bpf_skb_load_bytes(skb, net, &ip6, sizeof(ip6)) || ip6.version != 6)
		return BH_REASON_PARSE;
	bh_addr_v6(src, ip6.saddr.s6_addr32);
	bh_addr_v6(dst, ip6.daddr.s6_addr32);
	*end = net + sizeof(ip6) + bpf_ntohs(ip6.payload_len);
	next = ip6.nexthdr;

	for (int i = 0; i <= BH_MAX_EXTENSIONS; i++) {
		__u8 ext[8];

		if (next == IPPROTO_FRAGMENT)
			return BH_REASON_FRAGMENT;
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS) {
			p->proto = next;
			p->transport = off;
			return 0;
		}
		if (i == BH_MAX_EXTENSIONS || bpf_skb_load_bytes(skb, off, ext, sizeof(ext)))
			return BH_REASON_PARSE;
		/* Anywhere but in the first place a receiver takes it for an unknown protocol. */
		if (next == IPPROTO_HOPOPTS && i)
			return BH_REASON_PARSE;
		/* With segments left, the destination stands in the routing header, not where it is judged. */
		if (next == IPPROTO_ROUTING && ext[3])
			return BH_REASON_PARSE;
		next = ext[0];
		off += ((__u32)ext[1] + 1) * 8;
	}
	return BH_REASON_PARSE;
}

static __always_inline int bh_read_v4(const struct iphdr *ip, __u32 net, struct bh_packet *p, struct bh_addr *src,
				      struct bh_addr *dst, __u32 *end)
{
	/* No options: with a source route among them the header names the first hop, not the destination. */
	if (ip->version != 4 || ip->ihl != 5)
		return BH_REASON_PARSE;
	if (ip->frag_off & bpf_htons(0x3fff))
		return BH_REASON_FRAGMENT;
	bh_addr_v4(src, ip->saddr);
	bh_addr_v4(dst, ip->daddr);
	p->proto = ip->protocol;
	p->transport = net + sizeof(*ip);
	*end = net + bpf_ntohs(ip->tot_len);
	return 0;
}

static __always_inline int bh_parse_v4(struct __sk_buff *skb, __u32 net, struct bh_packet *p, struct bh_addr *src,
				       struct bh_addr *dst, __u32 *end)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, net, &ip, sizeof(ip)))
		return BH_REASON_PARSE;
	return bh_read_v4(&ip, net, p, src, dst, end);
}

static __always_inline int bh_read_tcp(struct __sk_buff *skb, const struct tcphdr *tcp, struct bh_packet *p, __u32 end)
{
	const __u8 *bytes = (const __u8 *)tcp + 12; /* data offset and flags, without bit fields */

	p->sport = bpf_ntohs(tcp->source);
	p->dport = bpf_ntohs(tcp->dest);
	p->seq = tcp->seq;
	p->ack = tcp->ack_seq;
	p->tcp_flags = bytes[1];
	p->tcp_header = (bytes[0] >> 4) * 4;
	if (p->tcp_header < sizeof(*tcp))
		return BH_REASON_PARSE;
	/* A GSO packet beyond 64 KiB writes 0 as its length (BIG TCP): it has payload. */
	if (end > p->transport + p->tcp_header)
		p->payload_len = end - p->transport - p->tcp_header;
	else if (end < p->transport + p->tcp_header) {
		if (skb->len <= 65535)
			return BH_REASON_PARSE;
		p->payload_len = 1;
	}
	return 0;
}

/* TCP and UDP are checked by the kernel that made them, or they are refused as made by hand. Of the others, a length that is
 * not the packet's (a jumbogram has 0) would leave open what the receiver takes for their payload. */
static __always_inline int bh_parse_other(struct __sk_buff *skb, __u32 net, __be16 protocol, struct bh_packet *p,
					  __u32 end)
{
	__u8 head[8];

	/* A frame may be padded behind its packet: its receiver cuts that off. */
	if (p->transport > end || (net ? end > skb->len : end != skb->len))
		return BH_REASON_PARSE;
	switch (p->proto) {
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		/* Each has its own version of IP; a receiver could be fooled with the other. */
		if ((p->proto == IPPROTO_ICMPV6) != (protocol == bpf_htons(ETH_P_IPV6)))
			return BH_REASON_PARSE;
		if (bpf_skb_load_bytes(skb, p->transport, head, sizeof(head)))
			return BH_REASON_PARSE;
		p->icmp_type = head[0];
		p->sport = (__u16)head[4] << 8 | head[5];
		return 0;
	case IPPROTO_SCTP:
		if (end - p->transport < 12 || bpf_skb_load_bytes(skb, p->transport, head, sizeof(head)))
			return BH_REASON_PARSE;
		p->sport = (__u16)head[0] << 8 | head[1];
		p->dport = (__u16)head[2] << 8 | head[3];
		return 0;
	case IPPROTO_NONE: /* no header follows: nobody has a use for it */
		return BH_REASON_PARSE;
	default:
		return 0;
	}
}

/* A packet of `protocol` whose IP header stands at offset `net`. Fills *p and the addresses. Returns 0 or the enum bh_reason to
 * deny with; what was read until then stays. */
static __always_inline int bh_parse_at(struct __sk_buff *skb, __u32 net, __be16 protocol, struct bh_packet *p,
				       struct bh_addr *src, struct bh_addr *dst)
{
	__u32 end = 0;
	int err;

	__builtin_memset(p, 0, sizeof(*p));
	if (protocol == bpf_htons(ETH_P_IP))
		err = bh_parse_v4(skb, net, p, src, dst, &end);
	else if (protocol == bpf_htons(ETH_P_IPV6))
		err = bh_parse_v6(skb, net, p, src, dst, &end);
	else
		err = BH_REASON_PROTO;
	if (err)
		return err;

	switch (p->proto) {
	case IPPROTO_TCP: {
		struct tcphdr tcp;

		if (bpf_skb_load_bytes(skb, p->transport, &tcp, sizeof(tcp)))
			return BH_REASON_PARSE;
		return bh_read_tcp(skb, &tcp, p, end);
	}
	case IPPROTO_UDP: {
		struct udphdr udp;

		if (bpf_skb_load_bytes(skb, p->transport, &udp, sizeof(udp)))
			return BH_REASON_PARSE;
		p->sport = bpf_ntohs(udp.source);
		p->dport = bpf_ntohs(udp.dest);
		return 0;
	}
	default:
		return bh_parse_other(skb, net, protocol, p, end);
	}
}

/* One as a socket has it. */
static __attribute__((noinline, unused)) int bh_parse(struct __sk_buff *skb, struct bh_packet *p, struct bh_addr *src,
						      struct bh_addr *dst)
{
	return bh_parse_at(skb, 0, skb->protocol, p, src, dst);
}

/* The same for what is most likely TCP over IPv4, with its headers where the kernel itself has made or pulled them: read in
 * place, which takes two calls less. Anything else goes the usual way. */
static __always_inline int bh_parse_tcp(struct __sk_buff *skb, struct bh_packet *p, struct bh_addr *src,
					struct bh_addr *dst)
{
#ifdef BH_READS_IN_PLACE
	const struct iphdr *ip = (const struct iphdr *)(long)skb->data;
	const struct tcphdr *tcp = (const struct tcphdr *)(ip + 1);
	__u32 end = 0;
	int err;

	if (skb->protocol != bpf_htons(ETH_P_IP) || (const void *)(tcp + 1) > (const void *)(long)skb->data_end ||
	    ip->protocol != IPPROTO_TCP)
		return bh_parse(skb, p, src, dst);
	__builtin_memset(p, 0, sizeof(*p));
	err = bh_read_v4(ip, 0, p, src, dst, &end);
	return err ? err : bh_read_tcp(skb, tcp, p, end);
#else
	return bh_parse(skb, p, src, dst);
#endif
}

#endif
