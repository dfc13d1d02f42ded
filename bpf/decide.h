/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * decide.h - the one decision function, over the tables of abi.h.
 *
 * The kernel programs and the policy library compile the same text, so what `policyctl explain` says and what a packet
 * meets cannot differ. Moments (`now`, valid_until) are in the unit of the tables' `until`: seconds since 1970 in an image,
 * CLOCK_BOOTTIME nanoseconds in the kernel.
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
#define BH_SUBROUTINE static __attribute__((noinline, unused))
#define BH_NO_UNROLL _Pragma("clang loop unroll(disable)")
/* Keeps the compiler from proving the mask away or moving it past the load, which the verifier could not follow. */
#define BH_OPAQUE(x) asm volatile("" : "+r"(x))
#define bh_be32(x) bpf_ntohl(x)
#else
#include <arpa/inet.h>
#include <stddef.h>
#define BH_INLINE static inline __attribute__((unused))
#define BH_SUBROUTINE static __attribute__((noinline, unused))
#define BH_NO_UNROLL
#define BH_OPAQUE(x) ((void)0)
#define bh_be32(x) ntohl(x)
#endif

/* Steps of a binary search over at most 2^n items. */
#define BH_SEARCH_STEPS 18

#define BH_NO_RANK 0xffffffffU
/* Drops of every link, and a look at every head in each round; a round ends in a pass, so there is one for each tier. */
#define BH_WALK_STEPS (BH_MAX_PARTS * BH_MAX_CHAIN + (BH_MAX_PARTS + 1) * (BH_MAX_TIERS + 1))

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

/* The point of a protocol with its destination port (TCP, UDP, SCTP) or type (ICMP): policy/service.h. */
BH_INLINE __u32 bh_service_point(__u32 proto, __u32 port)
{
	switch (proto) {
	case IPPROTO_TCP:
		return BH_POINT_TCP + (port & 0xffff);
	case IPPROTO_UDP:
		return BH_POINT_UDP + (port & 0xffff);
	case IPPROTO_SCTP:
		return BH_POINT_SCTP + (port & 0xffff);
	case IPPROTO_ICMP:
		return BH_POINT_ICMP + (port & 0xff);
	case IPPROTO_ICMPV6:
		return BH_POINT_ICMP6 + (port & 0xff);
	default:
		return BH_POINT_PROTO + (proto & 0xff);
	}
}

/* One flow to judge. */
struct bh_flow {
	__u32 from_who, from_addr; /* who index, address class */
	__u32 to_who, to_addr;
	__u32 point;
};

/* Item of a grid; the grid stands at `off`. */
BH_INLINE __u32 bh_grid_item(const __u8 *t, __u32 off, __u32 row, __u32 column)
{
	__u32 shift = bh_load32(t, off + offsetof(struct bh_grid, shift)) & 31;
	__u32 at = row * bh_load32(t, off + offsetof(struct bh_grid, width)) + (column >> shift);
	__u32 block = bh_load32(t, bh_load32(t, off + offsetof(struct bh_grid, index_off)) + at * 4);
	__u32 item = (block << shift) + (column & ((1U << shift) - 1));

	return bh_load32(t, bh_load32(t, off + offsetof(struct bh_grid, block_off)) + item * 4);
}

/* Class of one end, by view. */
BH_INLINE void bh_side_classes(const __u8 *t, __u32 number, __u32 who, __u32 addr, __u32 class[BH_VIEWS])
{
	__u32 off = offsetof(struct bh_tables, side) + number * sizeof(struct bh_side);
	__u32 grid = off + offsetof(struct bh_side, addr);

	class[BH_VIEW_BROAD] = bh_load16(t, bh_load32(t, off + offsetof(struct bh_side, who_off)) + who * 2);
	class[BH_VIEW_WHO] = bh_load16(t, bh_load32(t, off + offsetof(struct bh_side, who_off) + 4) + who * 2);
	class[BH_VIEW_ADDR] = 0;
	if (bh_load32(t, grid + offsetof(struct bh_grid, width)))
		class[BH_VIEW_ADDR] = bh_grid_item(t, grid, who, addr);
}

/* Chain of a row at a point. */
BH_INLINE __u32 bh_row_chain(const __u8 *t, __u32 row, __u32 point)
{
	const struct bh_tables *h = (const struct bh_tables *)t;
	__u32 off = h->row_off + row * sizeof(struct bh_span), lo = 0, i;
	__u32 n = bh_load32(t, off) & ~BH_ROW;

	for (i = 0; i < BH_SEARCH_STEPS && n > 1; i++) {
		__u32 half = n / 2;

		if (bh_load32(t, off + (lo + half) * sizeof(struct bh_span)) <= point)
			lo += half;
		n -= half;
	}
	return bh_load32(t, off + lo * sizeof(struct bh_span) + offsetof(struct bh_span, chain));
}

/* The first rank of a chain. */
BH_INLINE __u32 bh_chain_rank(const __u8 *t, __u32 chain)
{
	if (chain & BH_CHAIN_RANK)
		return chain & ~BH_CHAIN_RANK;
	if (!chain)
		return BH_NO_RANK;
	return bh_load32(t, ((const struct bh_tables *)t)->chain_off + chain * sizeof(struct bh_link));
}

BH_INLINE __u32 bh_chain_next(const __u8 *t, __u32 chain)
{
	if (!chain || chain & BH_CHAIN_RANK)
		return 0;
	return bh_load32(t, ((const struct bh_tables *)t)->chain_off + chain * sizeof(struct bh_link) +
				    offsetof(struct bh_link, next));
}

BH_INLINE __u32 bh_rank_off(const __u8 *t, __u32 rank)
{
	return ((const struct bh_tables *)t)->rank_off + rank * sizeof(struct bh_rank);
}

BH_INLINE __u64 bh_rank_until(const __u8 *t, __u32 rank)
{
	__u32 index = bh_load32(t, bh_rank_off(t, rank) + offsetof(struct bh_rank, until));

	return bh_load64(t, ((const struct bh_tables *)t)->until_off + index * 8);
}

/* One judgement under way. */
struct bh_decision {
	__u64 now;	   /* in */
	__u64 valid_until; /* out: until then the same flow is judged the same; lowered, never raised */
	__u32 n;	   /* parts */
	__u32 chain[16];   /* by part; a power of two, so that a mask bounds the index */
};

/* Finds the chain of each part, and of them the lowest rank. */
BH_INLINE __u32 bh_find_chains(const __u8 *t, __u32 judgement, const struct bh_flow *flow, struct bh_decision *d)
{
	__u32 off = offsetof(struct bh_tables, parts) + judgement * sizeof(struct bh_parts), i;
	__u32 sides = judgement == BH_POSSIBLE ? BH_SIDE_POSSIBLE_FROM : BH_SIDE_FROM;
	__u32 from[BH_VIEWS + 1] = {}, to[BH_VIEWS + 1] = {}, best = BH_NO_RANK;

	d->n = bh_load32(t, off);
	bh_side_classes(t, sides, flow->from_who, flow->from_addr, from);
	bh_side_classes(t, sides + 1, flow->to_who, flow->to_addr, to);
	off += offsetof(struct bh_parts, part);
	BH_NO_UNROLL
	for (i = 0; i < BH_MAX_PARTS && i < d->n; i++, off += sizeof(struct bh_part)) {
		__u32 from_view = bh_load32(t, off) & BH_VIEWS, to_view = bh_load32(t, off + 4) & BH_VIEWS;
		__u32 row = bh_grid_item(t, off + offsetof(struct bh_part, grid), from[from_view], to[to_view]);
		__u32 rank;

		d->chain[i] = 0;
		if (!row)
			continue;
		d->chain[i] = bh_row_chain(t, row, flow->point);
		rank = bh_chain_rank(t, d->chain[i]);
		if (rank < best)
			best = rank;
	}
	return best;
}

/* Goes down the chains where the lowest rank does not decide: it has expired, or it is a pass. Each step looks at the head of
 * one chain: what has expired or was passed is dropped; when no head is left to drop, the lowest of them decides. */
BH_SUBROUTINE __u32 bh_walk_chains(const __u8 *t, struct bh_decision *d)
{
	__u32 zero = ((const struct bh_tables *)t)->zero;
	__u32 floor = 0, best = BH_NO_RANK, at = 0, i;

	BH_NO_UNROLL
	for (i = 0; i < BH_WALK_STEPS; i++) {
		__u32 part, chain, rank, cell;
		__u64 until;

		/* Were `at` known to the verifier, it would follow every value of it through every step. */
		at += zero;
		part = at & 15;
		if (at < d->n) {
			chain = d->chain[part];
			rank = bh_chain_rank(t, chain);
			if (rank == BH_NO_RANK) {
				at++;
			} else if (rank < floor || bh_rank_until(t, rank) <= d->now) {
				d->chain[part] = bh_chain_next(t, chain);
			} else {
				best = rank < best ? rank : best;
				at++;
			}
			continue;
		}
		if (best == BH_NO_RANK)
			return ((const struct bh_tables *)t)->default_cell;
		until = bh_rank_until(t, best);
		if (until < d->valid_until)
			d->valid_until = until;
		cell = bh_load32(t, bh_rank_off(t, best));
		if (!(cell & BH_CELL_PASS))
			return cell;
		floor = bh_load32(t, bh_rank_off(t, best) + offsetof(struct bh_rank, end));
		best = BH_NO_RANK;
		at = 0;
	}
	/* Not reached with the tables of an image: a denial that names no rule. */
	return 0;
}

/* One judgement of a flow: returns the cell. Lowers *valid_until to when that may change with nothing but time. */
BH_INLINE __u32 bh_decide(const __u8 *t, __u32 judgement, const struct bh_flow *flow, __u64 now, __u64 *valid_until)
{
	struct bh_decision d = {.now = now, .valid_until = *valid_until};
	__u32 rank = bh_find_chains(t, judgement, flow, &d), cell;
	__u64 until;

	if (rank == BH_NO_RANK)
		return ((const struct bh_tables *)t)->default_cell;
	cell = bh_load32(t, bh_rank_off(t, rank));
	until = bh_rank_until(t, rank);
	if (until <= now || cell & BH_CELL_PASS) {
		cell = bh_walk_chains(t, &d);
		until = d.valid_until;
	}
	if (until < *valid_until)
		*valid_until = until;
	return cell;
}

/* Can any egress rule allow this subject to reach that address and service, whoever answers there? Errs on the side of yes. */
BH_INLINE __u32 bh_possible(const __u8 *t, __u32 who, __u32 to_addr, __u32 point)
{
	struct bh_flow flow = {.from_who = who, .to_addr = to_addr, .point = point};
	struct bh_decision d = {};
	__u32 rank = bh_find_chains(t, BH_POSSIBLE, &flow, &d);
	__u32 cell = ((const struct bh_tables *)t)->default_cell;

	if (rank != BH_NO_RANK)
		cell = bh_load32(t, bh_rank_off(t, rank));
	return !!(cell & BH_CELL_ALLOW);
}

#endif
