/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * decide.h - the one decision function, over the tables of abi.h.
 *
 * The kernel programs and the policy library compile the same text, so what `policyctl explain` says and what a packet
 * meets cannot differ. A decision loads a constant number of words, whatever the number of rules.
 *
 * Every load masks its offset to the table: for the verifier that is the bounds check; for an image that passed
 * policy_image_open() it changes nothing.
 */
#ifndef BULKHEAD_BPF_DECIDE_H
#define BULKHEAD_BPF_DECIDE_H

#include "abi.h"

#ifdef __bpf__
#include <linux/in.h>
#include <linux/in6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#define BH_INLINE static __always_inline
/* Keeps the compiler from proving the mask away or moving it past the load, which the verifier could not follow. */
#define BH_OPAQUE(x) asm volatile("" : "+r"(x))
#define bh_be32(x) bpf_ntohl(x)
#else
#include <arpa/inet.h>
#define BH_INLINE static inline __attribute__((unused))
#define BH_OPAQUE(x) ((void)0)
#define bh_be32(x) ntohl(x)
#endif

#define BH_SVC_NONE 0xffffffffU /* no rule can name this protocol */

/* Steps of a binary search over at most 2^n items. */
#define BH_SEARCH_STEPS 18

BH_INLINE __u32 bh_load32(const __u8 *t, __u32 off)
{
	off &= BH_TABLES_BYTES - 4;
	BH_OPAQUE(off);
	return *(const __u32 *)(t + (off & (BH_TABLES_BYTES - 4)));
}

BH_INLINE __u32 bh_load16(const __u8 *t, __u32 off)
{
	off &= BH_TABLES_BYTES - 2;
	BH_OPAQUE(off);
	return *(const __u16 *)(t + (off & (BH_TABLES_BYTES - 2)));
}

BH_INLINE __u32 bh_load8(const __u8 *t, __u32 off)
{
	off &= BH_TABLES_BYTES - 1;
	BH_OPAQUE(off);
	return *(t + (off & (BH_TABLES_BYTES - 1)));
}

BH_INLINE __u64 bh_load64(const __u8 *t, __u32 off)
{
	off &= BH_TABLES_BYTES - 8;
	BH_OPAQUE(off);
	return *(const __u64 *)(t + (off & (BH_TABLES_BYTES - 8)));
}

BH_INLINE int bh_addr_is_v4(const struct bh_addr *a)
{
	return a->w[0] == 0 && a->w[1] == 0 && bh_be32(a->w[2]) == 0xffff;
}

/* Address class: the last range that begins at or before the address. */
BH_INLINE __u32 bh_addr_class(const __u8 *t, const struct bh_addr *a)
{
	const struct bh_tables *h = (const struct bh_tables *)t;
	__u32 lo = 0, n, i;

	if (bh_addr_is_v4(a)) {
		__u32 key = bh_be32(a->w[3]), off = h->addr4_off;

		n = h->addr4_count;
		for (i = 0; i < BH_SEARCH_STEPS && n > 1; i++) {
			__u32 half = n / 2;

			if (bh_load32(t, off + (lo + half) * sizeof(struct bh_range4)) <= key)
				lo += half;
			n -= half;
		}
		return bh_load32(t, off + lo * sizeof(struct bh_range4) + 4);
	}

	__u64 hi_key = (__u64)bh_be32(a->w[0]) << 32 | bh_be32(a->w[1]);
	__u64 lo_key = (__u64)bh_be32(a->w[2]) << 32 | bh_be32(a->w[3]);
	__u32 off = h->addr6_off;

	n = h->addr6_count;
	for (i = 0; i < BH_SEARCH_STEPS && n > 1; i++) {
		__u32 half = n / 2, at = off + (lo + half) * sizeof(struct bh_range6);
		__u64 hi = bh_load64(t, at);

		if (hi < hi_key || (hi == hi_key && bh_load64(t, at + 8) <= lo_key))
			lo += half;
		n -= half;
	}
	return bh_load32(t, off + lo * sizeof(struct bh_range6) + 16);
}

/* Service class of a protocol with its destination port (TCP, UDP) or type (ICMP). */
BH_INLINE __u32 bh_service_class(const __u8 *t, __u32 proto, __u32 port)
{
	const struct bh_tables *h = (const struct bh_tables *)t;
	__u32 off, n, lo = 0, i;

	switch (proto) {
	case IPPROTO_ICMP:
		return bh_load16(t, h->icmp_off + (port & 0xff) * 2);
	case IPPROTO_ICMPV6:
		return bh_load16(t, h->icmp6_off + (port & 0xff) * 2);
	case IPPROTO_TCP:
		off = h->tcp_off;
		n = h->tcp_count;
		break;
	case IPPROTO_UDP:
		off = h->udp_off;
		n = h->udp_count;
		break;
	default:
		return BH_SVC_NONE;
	}
	for (i = 0; i < BH_SEARCH_STEPS && n > 1; i++) {
		__u32 half = n / 2;

		if (bh_load16(t, off + (lo + half) * sizeof(struct bh_range_port)) <= port)
			lo += half;
		n -= half;
	}
	return bh_load16(t, off + lo * sizeof(struct bh_range_port) + 2);
}

/* One judgement of a flow: returns the cell. `who` are who indices, `addr` address classes, `svc` a service class. */
BH_INLINE __u32 bh_decide(const __u8 *t, __u32 direction, __u32 from_who, __u32 from_addr, __u32 to_who, __u32 to_addr,
			  __u32 svc)
{
	const struct bh_tables *h = (const struct bh_tables *)t;
	__u32 from = bh_load16(t, h->from_off + (from_who * h->n_addr + from_addr) * 2);
	__u32 to = bh_load16(t, h->to_off + (to_who * h->n_addr + to_addr) * 2);
	__u32 rows = direction == BH_INGRESS ? h->row_off[1] : h->row_off[0];
	__u32 row = bh_load32(t, rows + (from * h->n_to + to) * 4);

	return bh_load32(t, h->cell_off + (row * h->n_svc + svc) * 4);
}

/* Can any egress rule allow this subject to reach that address and service, whoever answers there? */
BH_INLINE __u32 bh_possible(const __u8 *t, __u32 who, __u32 to_addr, __u32 svc)
{
	const struct bh_tables *h = (const struct bh_tables *)t;
	__u32 row = bh_load32(t, h->poss_off + (who * h->n_addr + to_addr) * 4);

	return bh_load8(t, h->poss_cell_off + row * h->n_svc + svc);
}

#endif
