/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * decide.h - the one decision function, over the tables of abi_policy.h.
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
/* Verified by itself, whoever calls it: as one piece it would be too much. Weak, as each object brings its copy. */
#define BH_FUNCTION __attribute__((noinline, weak))
#define BH_NO_UNROLL _Pragma("clang loop unroll(disable)")
/* The instruction may_goto (since 6.9): the kernel ends the loop after millions of rounds, so the verifier need not go through
 * each to see that it ends. That it ends much sooner, the check of an image has seen. */
#define BH_MAY_LOOP                                                                                                    \
	({                                                                                                             \
		__label__ l_break, l_continue;                                                                         \
		__u32 may = 1;                                                                                         \
		asm volatile goto("1: .byte 0xe5; .byte 0; .long ((%l[l_break] - 1b - 8) / 8) & 0xffff; .short 0"      \
				  :                                                                                    \
				  :                                                                                    \
				  :                                                                                    \
				  : l_break);                                                                          \
		goto l_continue;                                                                                       \
	l_break:                                                                                                       \
		may = 0;                                                                                               \
	l_continue:;                                                                                                   \
		may;                                                                                                   \
	})
/* Keeps the compiler from proving the mask away or moving it past the load, which the verifier could not follow. */
#define BH_OPAQUE(x) asm volatile("" : "+r"(x))
#define bh_be32(x) bpf_ntohl(x)
#else
#include <arpa/inet.h>
#include <stddef.h>
#define BH_INLINE static inline __attribute__((unused))
#define BH_FUNCTION static inline __attribute__((unused))
#define BH_NO_UNROLL
#define BH_MAY_LOOP 1
#define BH_OPAQUE(x) ((void)0)
#define bh_be32(x) ntohl(x)
#endif

/* Steps of a binary search over at most 2^n items. */
#define BH_SEARCH_STEPS 18

#define BH_NO_RANK 0xffffffffU

/* What a function that is verified by itself knows of the tables: how large they are. */
struct bh_memory {
	__u8 bytes[BH_TABLES_BYTES];
};

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
BH_FUNCTION __u32 bh_memory_addr_class(const struct bh_memory *m, const struct bh_addr *a)
{
	const __u8 *t = (const __u8 *)m;
	const struct bh_tables *h = (const struct bh_tables *)t;
	__u32 lo = 0, n, i;

	if (!m || !a)
		return 0;
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

BH_INLINE __u32 bh_addr_class(const __u8 *t, const struct bh_addr *a)
{
	return bh_memory_addr_class((const struct bh_memory *)t, a);
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

/* One flow to judge. Small, as are all that stand on the stack: the kernel gives 512 bytes to a chain of calls. */
struct bh_flow {
	__u16 from_who, to_who;	  /* who index */
	__u32 from_addr, to_addr; /* address class */
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

/* Class of one end in one view. */
BH_INLINE __u32 bh_side_class(const __u8 *t, __u32 number, __u32 view, __u32 who, __u32 addr)
{
	__u32 off = offsetof(struct bh_tables, side) + number * sizeof(struct bh_side);
	__u32 grid = off + offsetof(struct bh_side, addr);

	if (view < BH_VIEW_ADDR)
		return bh_load16(t, bh_load32(t, off + offsetof(struct bh_side, who_off) + view * 4) + who * 2);
	return bh_grid_item(t, grid, who, addr);
}

/* Chain of a row at a point. */
BH_FUNCTION __u32 bh_row_chain(const struct bh_memory *m, __u32 row, __u32 point)
{
	const __u8 *t = (const __u8 *)m;
	__u32 off, n, lo = 0, i;

	if (!m)
		return 0;
	off = ((const struct bh_tables *)t)->row_off + row * sizeof(struct bh_span);
	n = bh_load32(t, off) & ~BH_ROW;
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
	__u32 at;	   /* part whose chain is looked at next */
	__u32 chain[BH_MAX_PARTS];
};

/* Row of a flow in one part, which stands at `off`. */
BH_FUNCTION __u32 bh_part_row(const struct bh_memory *m, __u32 off, __u32 judgement, const struct bh_flow *flow)
{
	__u32 sides = judgement == BH_POSSIBLE ? BH_SIDE_POSSIBLE_FROM : BH_SIDE_FROM, from, to;
	const __u8 *t = (const __u8 *)m;

	if (!m || !flow)
		return 0;
	from = bh_side_class(t, sides, bh_load32(t, off), flow->from_who, flow->from_addr);
	to = bh_side_class(t, sides + 1, bh_load32(t, off + 4), flow->to_who, flow->to_addr);
	return bh_grid_item(t, off + offsetof(struct bh_part, grid), from, to);
}

/* Finds the chain of each part (d->chain: all 0), and of them the lowest rank. */
BH_FUNCTION __u32 bh_find_chains(const struct bh_memory *m, __u32 judgement, const struct bh_flow *flow,
				 struct bh_decision *d)
{
	__u32 off = offsetof(struct bh_tables, parts) + (judgement & 3) * sizeof(struct bh_parts), best = BH_NO_RANK;
	__u32 n, i;

	if (!m || !flow || !d)
		return BH_NO_RANK;
	n = bh_load32((const __u8 *)m, off);
	off += offsetof(struct bh_parts, part);
	BH_NO_UNROLL
	for (i = 0; i < BH_MAX_PARTS && i < n; i++, off += sizeof(struct bh_part)) {
		__u32 row = bh_part_row(m, off, judgement, flow), chain = 0, rank;

		if (row)
			chain = bh_row_chain(m, row, flow->point);
		d->chain[i] = chain;
		rank = bh_chain_rank((const __u8 *)m, chain);
		if (rank < best)
			best = rank;
	}
	return best;
}

/* Goes down the chains where the lowest rank does not decide: it has expired, or it is a pass. Each step looks at the head of
 * one chain: what has expired or was passed is dropped; when no head is left to drop, the lowest of them decides. */
BH_FUNCTION __u32 bh_walk_chains(const struct bh_memory *m, struct bh_decision *d)
{
	const __u8 *t = (const __u8 *)m;
	__u32 floor = 0, best = BH_NO_RANK;

	if (!m || !d)
		return 0;
	d->at = 0;
	while (BH_MAY_LOOP) {
		/* Kept where the verifier does not follow it: it would go through the loop with every value of it. */
		__u32 at = d->at, chain, rank, cell;
		__u64 until;

		if (at < BH_MAX_PARTS) {
			chain = d->chain[at];
			rank = bh_chain_rank(t, chain);
			if (rank != BH_NO_RANK && (rank < floor || bh_rank_until(t, rank) <= d->now)) {
				d->chain[at] = bh_chain_next(t, chain);
				continue;
			}
			best = rank < best ? rank : best;
			d->at = at + 1;
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
		d->at = 0;
	}
	/* Not reached with the tables of an image: a denial that names no rule. */
	return 0;
}

/* One judgement of a flow: returns the cell. Lowers *valid_until to when that may change with nothing but time. */
BH_INLINE __u32 bh_decide(const __u8 *t, __u32 judgement, const struct bh_flow *flow, __u64 now, __u64 *valid_until)
{
	const struct bh_memory *m = (const struct bh_memory *)t;
	struct bh_decision d = {.now = now, .valid_until = *valid_until};
	__u32 rank = bh_find_chains(m, judgement, flow, &d), cell;
	__u64 until;

	if (rank == BH_NO_RANK)
		return ((const struct bh_tables *)t)->default_cell;
	cell = bh_load32(t, bh_rank_off(t, rank));
	until = bh_rank_until(t, rank);
	if (until <= now || cell & BH_CELL_PASS) {
		cell = bh_walk_chains(m, &d);
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
	__u32 rank = bh_find_chains((const struct bh_memory *)t, BH_POSSIBLE, &flow, &d);
	__u32 cell = ((const struct bh_tables *)t)->default_cell;

	if (rank != BH_NO_RANK)
		cell = bh_load32(t, bh_rank_off(t, rank));
	return !!(cell & BH_CELL_ALLOW);
}

#endif
