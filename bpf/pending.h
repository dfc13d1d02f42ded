/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * pending.h - handshakes that a listener has accepted and that are not complete.
 *
 * A table of buckets in place of a hash map: a connection looks here five times, and nothing is allocated, hashed at
 * length, locked, or kept in an order of use. A place has a mark, which names its tuple and the writing: who writes takes the
 * mark away first, and who reads copies and then sees whether the mark is still the same, so nobody sees two handshakes
 * mixed. A bucket that is full gives up its oldest: that handshake is then denied, never allowed by another's verdict,
 * because the whole tuple is compared.
 */
#ifndef BULKHEAD_BPF_PENDING_H
#define BULKHEAD_BPF_PENDING_H

#include "tcp_state.h"

/* An incomplete handshake is given up by both ends after about a minute. */
#define BH_HANDSHAKE_NS (64 * BH_SECOND)

/* Seeded: from outside nobody can tell who shares a bucket with whom. */
static __always_inline __u64 bh_tuple_hash(const struct bh_tuple *tuple)
{
	const __u64 *w = (const __u64 *)tuple;
	__u32 zero = 0;
	struct bh_state *s = bpf_map_lookup_elem(&state, &zero);
	__u64 h = s ? s->seed : 0;

#pragma unroll
	for (__u32 i = 0; i < sizeof(*tuple) / 8; i++) {
		h = (h ^ w[i]) * 0x9e3779b97f4a7c15ULL;
		h ^= h >> 29;
	}
	return h | (BH_HANDSHAKE_COUNT + 1); /* neither free nor being written */
}

static __always_inline bool bh_tuple_equal(const struct bh_tuple *a, const struct bh_tuple *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;
	__u64 differ = 0;

#pragma unroll
	for (__u32 i = 0; i < sizeof(*a) / 8; i++)
		differ |= x[i] ^ y[i];
	return !differ;
}

static __always_inline struct bh_handshake_bucket *bh_bucket_of(__u64 hash)
{
	__u32 key = (hash >> 32) & (BH_HANDSHAKE_BUCKETS - 1);

	return bpf_map_lookup_elem(&handshakes, &key);
}

static __always_inline __u64 bh_mark_of(const struct bh_handshake_bucket *b, __u32 way)
{
	return *(const volatile __u64 *)&b->mark[way & (BH_HANDSHAKE_WAYS - 1)];
}

static __always_inline bool bh_mark_fits(__u64 mark, __u64 hash)
{
	return !((mark ^ hash) & ~BH_HANDSHAKE_COUNT);
}

/* Its place in the bucket, or BH_HANDSHAKE_WAYS. */
static __always_inline __u32 bh_way_of(const struct bh_handshake_bucket *b, __u64 hash, const struct bh_tuple *tuple)
{
#pragma unroll
	for (__u32 i = 0; i < BH_HANDSHAKE_WAYS; i++)
		if (bh_mark_fits(bh_mark_of(b, i), hash) && bh_tuple_equal(&b->item[i].tuple, tuple))
			return i;
	return BH_HANDSHAKE_WAYS;
}

enum bh_pending_after {
	BH_PENDING_KEEP = 0,
	BH_PENDING_REMOVE = 1,
};

/* Copies out what is known of a handshake, and forgets it if asked to. Returns whether there was anything. */
BH_GLOBAL int bh_pending_get(const struct bh_tuple *tuple, struct bh_handshake *out, __u32 after)
{
	struct bh_handshake_bucket *b;
	__u64 hash, mark;
	__u32 way;

	if (!tuple || !out)
		return 0;
	hash = bh_tuple_hash(tuple);
	b = bh_bucket_of(hash);
	if (!b)
		return 0;
	way = bh_way_of(b, hash, tuple);
	if (way >= BH_HANDSHAKE_WAYS)
		return 0;
	mark = bh_mark_of(b, way);
	asm volatile("" ::: "memory");
	*out = b->item[way].handshake;
	if (!bh_tuple_equal(&b->item[way].tuple, tuple))
		return 0;
	asm volatile("" ::: "memory");
	if (after == BH_PENDING_REMOVE)
		return bh_mark_fits(mark, hash) && __sync_val_compare_and_swap(&b->mark[way], mark, 0) == mark;
	return bh_mark_fits(mark, hash) && bh_mark_of(b, way) == mark;
}

/*
 * Was there a handshake of this tuple, that is over? On a busy machine a segment can wait on one CPU while those that were sent
 * after it go through on another, until the connection has ended: nothing is wrong with it, nobody waits for it any more. Its
 * place is free, and says so until others have taken it.
 */
BH_GLOBAL int bh_pending_was(const struct bh_tuple *tuple, __u64 now)
{
	struct bh_handshake_bucket *b;

	if (!tuple)
		return 0;
	b = bh_bucket_of(bh_tuple_hash(tuple));
	if (!b)
		return 0;
#pragma unroll
	for (__u32 i = 0; i < BH_HANDSHAKE_WAYS; i++)
		if (!bh_mark_of(b, i) && bh_tuple_equal(&b->item[i].tuple, tuple) &&
		    now - b->time_ns[i] < BH_HANDSHAKE_NS)
			return 1;
	return 0;
}

/* In the place of what was known of this tuple; else in a free place, or that of the oldest. `mark` is the one by which it was
 * chosen: where it is another by then, somebody else has written there. Of free places that which is free longest, for
 * bh_pending_was(). */
#define BH_TAKEN (1ULL << 63) /* beyond any time: taken places come last */
static __always_inline __u32 bh_way_for(const struct bh_handshake_bucket *b, __u64 hash, const struct bh_tuple *tuple,
					__u64 *mark)
{
	__u64 oldest = ~0ULL;
	__u32 best = 0;

	*mark = BH_HANDSHAKE_WRITING;
#pragma unroll
	for (__u32 i = 0; i < BH_HANDSHAKE_WAYS; i++) {
		__u64 seen = bh_mark_of(b, i), time = b->time_ns[i] | (seen ? BH_TAKEN : 0);

		if (bh_mark_fits(seen, hash) && bh_tuple_equal(&b->item[i].tuple, tuple)) {
			*mark = seen;
			return i;
		}
		if (seen != BH_HANDSHAKE_WRITING && time < oldest) {
			oldest = time;
			*mark = seen;
			best = i;
		}
	}
	return best;
}

/* Returns 0, or -1 if another handshake is being written to the same place: the segment comes again. */
BH_GLOBAL int bh_pending_put(const struct bh_tuple *tuple, const struct bh_handshake *h, __u64 now)
{
	struct bh_handshake_bucket *b;
	__u64 hash, mark;
	__u32 way;

	if (!tuple || !h)
		return -1;
	hash = bh_tuple_hash(tuple);
	b = bh_bucket_of(hash);
	if (!b)
		return -1;
	way = bh_way_for(b, hash, tuple, &mark) & (BH_HANDSHAKE_WAYS - 1);
	if (mark == BH_HANDSHAKE_WRITING ||
	    __sync_val_compare_and_swap(&b->mark[way], mark, BH_HANDSHAKE_WRITING) != mark)
		return -1;
	if (mark && !bh_mark_fits(mark, hash) && now - b->time_ns[way] < BH_HANDSHAKE_NS)
		BH_COUNT(map_full);
	b->time_ns[way] = now;
	b->item[way].tuple = *tuple;
	b->item[way].handshake = *h;
	asm volatile("" ::: "memory");
	*(volatile __u64 *)&b->mark[way] = (hash & ~BH_HANDSHAKE_COUNT) | ((mark + 1) & BH_HANDSHAKE_COUNT);
	return 0;
}

#endif
