/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * recent.h - the flows that a UDP socket has just used, in places that its cookie names (struct bh_udp_recent).
 *
 * A datagram of such a flow is compared with it field by field, straight from the packet: nothing is hashed, copied or
 * written but the credit of its ticket and the sum of its bytes. What is odd in any way (options, extension headers,
 * fragments) goes the whole way.
 * A flow leaves its place to another only when its time is over, or when nothing comes of it any more, so that a socket with more
 * flows than places does not write them in turn.
 */
#ifndef BULKHEAD_BPF_RECENT_H
#define BULKHEAD_BPF_RECENT_H

#include "account.h"
#include "order.h"
#include "ticket.h"

/* Who holds a destination's port is looked up again after this long; the receiver is judged by its own hook all the
 * same. */
#define BH_RESOLVE_NS (BH_SECOND / 100)

/*
 * The same pointer: what is loaded by it is loaded after `value` was. Where the processor does not keep loads in order (order.h), the
 * pointer is not known to it before the value is: cheaper than a barrier, but it makes one chain of all the loads of a packet,
 * which took 4 to 7 ns.
 */
#if defined(__TARGET_ARCH_x86) && !defined(BH_ORDER_TEST)
#define BH_AFTER(pointer, value)                                                                                       \
	({                                                                                                             \
		(void)(value);                                                                                         \
		bh_barrier();                                                                                          \
		(pointer);                                                                                             \
	})
#else
#define BH_AFTER(pointer, value)                                                                                       \
	({                                                                                                             \
		__u64 zero_ = (value);                                                                                 \
		asm volatile("%0 &= 0" : "+r"(zero_)::"memory");                                                       \
		(typeof(pointer))((void *)(pointer) + zero_);                                                          \
	})
#endif

static __always_inline struct bh_udp_recent *recent_of(__u64 cookie, __u32 remote, __be16 rport)
{
	__u32 hash = (remote ^ ((__u32)rport << 16 | rport)) * 0x9e3779b1U;

	return account_place(cookie, hash >> 30);
}

/* 0 if a flow of these addresses and ports stands where this packet's does: *rp, which is never NULL then. */
static __always_inline __u32 recent_differs_v4(__u64 cookie, const struct iphdr *ip, const struct udphdr *udp,
					       __u32 hook, struct bh_udp_recent **rp, __u64 *seq)
{
	struct bh_udp_recent *r = recent_of(cookie, hook == BH_EGRESS ? ip->daddr : ip->saddr,
					    hook == BH_EGRESS ? udp->dest : udp->source);

	*rp = r;
	if (!r)
		return 1;
	*seq = *(volatile __u64 *)&r->seq;
	*rp = r = BH_AFTER(r, *seq);
	return (r->local.w[3] ^ (hook == BH_EGRESS ? ip->saddr : ip->daddr)) |
	       (r->remote.w[3] ^ (hook == BH_EGRESS ? ip->daddr : ip->saddr)) |
	       (r->lport ^ (hook == BH_EGRESS ? udp->source : udp->dest)) |
	       (r->rport ^ (hook == BH_EGRESS ? udp->dest : udp->source));
}

static __always_inline __u32 recent_differs_v6(__u64 cookie, const struct ipv6hdr *ip6, const struct udphdr *udp,
					       __u32 hook, struct bh_udp_recent **rp, __u64 *seq)
{
	const __be32 *local = hook == BH_EGRESS ? ip6->saddr.s6_addr32 : ip6->daddr.s6_addr32;
	const __be32 *remote = hook == BH_EGRESS ? ip6->daddr.s6_addr32 : ip6->saddr.s6_addr32;
	__be16 lport = hook == BH_EGRESS ? udp->source : udp->dest, rport = hook == BH_EGRESS ? udp->dest : udp->source;
	struct bh_udp_recent *r = recent_of(cookie, remote[3], rport);
	__u32 differs;

	*rp = r;
	if (!r)
		return 1;
	*seq = *(volatile __u64 *)&r->seq;
	*rp = r = BH_AFTER(r, *seq);
	differs = (r->lport ^ lport) | (r->rport ^ rport);
	for (int i = 0; i < 4; i++)
		differs |= (r->local.w[i] ^ local[i]) | (r->remote.w[i] ^ remote[i]);
	return differs;
}

static __always_inline void recent_count(struct bh_udp_recent *r, __u32 hook, __u32 bytes)
{
	__sync_fetch_and_add(hook == BH_EGRESS ? &r->sent : &r->received, bytes);
}

/* A packet of a flow that the socket used a moment ago, with nothing changed since. Returns 1 allow, 0 not for here. */
static __always_inline int recent_known(struct __sk_buff *skb, __u32 hook)
{
	__u64 cookie = bh_skb_cookie(skb), word = bh_state_word(), now = bh_now();
	__u32 path, differs;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const struct ipv6hdr *ip6 = data;
	const struct iphdr *ip = data;
	__u64 seq, until, ticket, of;
	struct bh_udp_recent *r;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (data + sizeof(*ip) + sizeof(struct udphdr) > end || *(__u8 *)data != 0x45 ||
		    ip->protocol != IPPROTO_UDP || (ip->frag_off & bpf_htons(0x3fff)))
			return 0;
		differs = recent_differs_v4(cookie, ip, (struct udphdr *)(ip + 1), hook, &r, &seq);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (data + sizeof(*ip6) + sizeof(struct udphdr) > end || ip6->nexthdr != IPPROTO_UDP)
			return 0;
		differs = recent_differs_v6(cookie, ip6, (struct udphdr *)(ip6 + 1), hook, &r, &seq);
	} else {
		return 0;
	}
	if (!r)
		return 0;
	until = hook == BH_EGRESS ? r->send_until_ns : r->receive_until_ns;
	ticket = hook == BH_EGRESS ? r->send_ticket : r->receive_ticket;
	of = (r->word ^ word) | (r->cookie ^ cookie);
	path = skb->protocol == bpf_htons(ETH_P_IP) ? BH_PATH_V4 : 0;
	differs |= (r->path ^ (path | (skb->ifindex == 1 ? BH_PATH_LOOPBACK : 0))) | (seq & 1);
	r = BH_AFTER(r, until ^ ticket ^ of ^ differs);
	if (differs || of || now >= until || *(volatile __u64 *)&r->seq != seq)
		return 0;
	if (hook == BH_INGRESS ? !bh_ticket_redeem(ticket, bh_segments(skb), now)
			       : ticket != BH_TICKET_NONE && !bh_ticket_give(ticket, bh_segments(skb), now))
		return 0;
	recent_count(r, hook, skb->len - (path ? sizeof(*ip) : sizeof(*ip6)) - sizeof(struct udphdr));
	if (!r->used)
		*(volatile __u8 *)&r->used = 1;
	return 1;
}

static __always_inline bool recent_is_free(const struct bh_udp_recent *r, const struct bh_query *q)
{
	return r->word != q->word || (q->now >= r->send_until_ns && q->now >= r->receive_until_ns);
}

/* As often must another flow have wanted the place, with nothing passing by it in between. */
#define BH_RECENT_IDLE 8

/*
 * Has the flow that stands there come to an end, or to a pause? Asked by one that is not there and wants to be. Flows that come in
 * turn do not take the place from each other, and write next to nothing. It is a guess: a flow that loses its place goes the
 * longer way.
 */
static __always_inline bool recent_is_idle(struct bh_udp_recent *r)
{
	if (*(volatile __u8 *)&r->used) {
		*(volatile __u8 *)&r->used = 0;
		*(volatile __u8 *)&r->wanted = 0;
		return false;
	}
	if (*(volatile __u8 *)&r->wanted < BH_RECENT_IDLE)
		*(volatile __u8 *)&r->wanted += 1;
	return *(volatile __u8 *)&r->wanted >= BH_RECENT_IDLE;
}

static __always_inline bool recent_is_of(const struct bh_udp_recent *r, const struct bh_query *q, __u32 path)
{
	return r->cookie == q->cookie && r->path == path && r->lport == bpf_htons(q->lport) &&
	       r->rport == bpf_htons(q->rport) && bh_addr_equal(&r->local, &q->local) &&
	       bh_addr_equal(&r->remote, &q->remote);
}

static __always_inline void recent_write(struct bh_udp_recent *r, const struct bh_query *q, __u32 path)
{
	r->cookie = q->cookie;
	r->word = q->word;
	r->send_until_ns = 0;
	r->receive_until_ns = 0;
	r->local = q->local;
	r->remote = q->remote;
	r->lport = bpf_htons(q->lport);
	r->rport = bpf_htons(q->rport);
	r->path = path;
	r->wanted = 0;
}

/* Is what is counted there of q's pair? */
static __always_inline bool recent_counts(const struct bh_udp_recent *r, const struct bh_query *q)
{
	return r->identity == q->subject && r->peer == q->peer && r->direction == q->direction;
}

/* In a place that is this CPU's to write: what is counted from now on is of q's pair. */
static __always_inline void recent_account(struct bh_udp_recent *r, const struct bh_query *q)
{
	bool same = recent_counts(r, q);

	if (same && (__s64)(q->now - r->counted_ns) < (__s64)BH_ACCOUNT_NS)
		return;
	account_settle(r);
	r->counted_ns = q->now;
	if (same)
		return;
	r->identity = q->subject;
	r->peer = q->peer;
	r->direction = q->direction;
}

/*
 * Keeps q's flow, which was just allowed in the direction `hook`, for packets until `until`, if there is q->ticket. Of two CPUs
 * that come at once, one does. Returns where the bytes of its pair are counted; NULL: by the pair alone.
 */
static __noinline struct bh_udp_recent *recent_keep(struct bh_udp_sock *us, const struct bh_query *q, __u32 loopback,
						    __u32 hook, __u64 until)
{
	bool v4 = bh_addr_is_v4(&q->local) && bh_addr_is_v4(&q->remote), is_of;
	__u32 path = (loopback ? BH_PATH_LOOPBACK : 0) | (v4 ? BH_PATH_V4 : 0);
	struct bh_udp_recent *r;
	__u64 seq;

	r = recent_of(q->cookie, q->remote.w[3], bpf_htons(q->rport));
	if (!us || !r)
		return 0;
	is_of = recent_is_of(r, q, path);
	if (!is_of && !recent_is_free(r, q) && (!q->ticket || !recent_is_idle(r))) {
		if (q->ticket && !us->more)
			us->more = 1;
		return recent_counts(r, q) ? r : 0;
	}
	/* Who shows no ticket comes here with each datagram. */
	if (!q->ticket && is_of && recent_counts(r, q) && (__s64)(q->now - r->counted_ns) < (__s64)BH_ACCOUNT_NS)
		return r;
	seq = *(volatile __u64 *)&r->seq;
	if ((seq & 1) || __sync_val_compare_and_swap(&r->seq, seq, seq + 1) != seq)
		return 0;
	if (r->word != q->word || !recent_is_of(r, q, path))
		recent_write(r, q, path);
	recent_account(r, q);
	if (q->ticket && hook == BH_EGRESS) {
		r->send_until_ns = until;
		r->send_ticket = q->ticket;
	} else if (q->ticket) {
		r->receive_until_ns = until;
		r->receive_ticket = q->ticket;
	}
	__sync_lock_test_and_set(&r->seq, seq + 2);
	return r;
}

/* Counts the bytes of a packet of q's flow; `r`: as recent_keep() has returned it. */
static __always_inline void recent_count_or_pair(struct bh_udp_recent *r, const struct bh_query *q, __u32 hook,
						 __u32 bytes)
{
	if (r)
		recent_count(r, hook, bytes);
	else
		bh_pair_bytes(q->subject, q->peer, q->direction, hook == BH_EGRESS ? bytes : 0,
			      hook == BH_EGRESS ? 0 : bytes);
}

#endif
