/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * pending.h - handshakes that a listener has accepted and that are not complete.
 *
 * A table of buckets in place of a hash map: a connection looks here four times, and nothing is allocated, hashed at
 * length, locked, or kept in an order of use. A place has a mark, which names its tuple and counts its changes: who writes takes
 * the mark away first, and who reads copies and then sees whether the mark is still the same. The count goes on through free
 * places, so a mark comes again only after 20,000 handshakes in one place, and nobody sees two mixed. A far bucket that is full
 * gives up its oldest: that handshake is then denied, never allowed by another's verdict, because the whole tuple is compared.
 *
 * A tuple stands in one place: as long as a near bucket overflows, what stands in the far one is written there; and when nobody
 * looks at the far one any more, what stands there has long been given up.
 */
#ifndef BULKHEAD_BPF_PENDING_H
#define BULKHEAD_BPF_PENDING_H

#include "tcp_state.h"

/* An incomplete handshake is given up by both ends after about a minute; a cookie is taken for two. */
#define BH_HANDSHAKE_TIME(now) ((__u32)((now) >> 20))
#define BH_HANDSHAKE_AGE (64U * 954)	   /* a minute */
#define BH_HANDSHAKE_SLACK 64U		   /* another CPU may have read its clock later */
#define BH_HANDSHAKE_OVERFLOW (256U * 954) /* four */

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
	return h | (BH_HANDSHAKE_SHOWN << 1); /* not that of a free place */
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

static __always_inline __u32 bh_number_near(__u64 hash)
{
	return (hash >> 32) & (BH_HANDSHAKE_NEAR - 1);
}

static __always_inline __u32 bh_number_far(__u64 hash)
{
	return BH_HANDSHAKE_NEAR + ((hash >> 32) & (BH_HANDSHAKE_FAR - 1));
}

static __always_inline struct bh_handshake_bucket *bh_bucket(__u32 number)
{
	return bpf_map_lookup_elem(&handshakes, &number);
}

static __always_inline struct bh_handshake_bucket *bh_bucket_near(__u64 hash)
{
	return bh_bucket(bh_number_near(hash));
}

static __always_inline struct bh_handshake_bucket *bh_bucket_far(__u64 hash)
{
	return bh_bucket(bh_number_far(hash));
}

static __always_inline __u32 bh_handshake_age(__u32 time, __u64 now)
{
	return BH_HANDSHAKE_TIME(now) + BH_HANDSHAKE_SLACK - time;
}

static __always_inline bool bh_bucket_overflows(const struct bh_handshake_bucket *near)
{
	return *(const volatile __u32 *)&near->overflows;
}

static __always_inline __u64 bh_mark_of(const struct bh_handshake_bucket *b, __u32 way)
{
	return *(const volatile __u64 *)&b->mark[way & (BH_HANDSHAKE_WAYS - 1)];
}

static __always_inline bool bh_mark_fits(__u64 mark, __u64 hash)
{
	return !((mark ^ hash) & BH_HANDSHAKE_HASH);
}

static __always_inline bool bh_mark_is_free(__u64 mark)
{
	return mark <= BH_HANDSHAKE_COUNT;
}

/* The count after `changes` more. */
static __always_inline __u64 bh_mark_count(__u64 mark, __u64 changes)
{
	return (mark + changes) & BH_HANDSHAKE_COUNT;
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

/* Where a handshake was found, and as what. */
struct bh_found {
	__u64 mark;
	__u32 place; /* bucket * BH_HANDSHAKE_WAYS + way */
	__u32 pad;
};

static __always_inline bool bh_found_shown(const struct bh_found *found)
{
	return found->mark & BH_HANDSHAKE_SHOWN;
}

/*
 * Handshakes that are over. On a busy machine a segment can wait on one CPU while those that were sent after it go through on
 * another, until the connection has ended: nothing is wrong with it, and nobody waits for it any more. Of those that come to the
 * same place, the last two are known.
 */
#define BH_OVER_TIMES ((__u32)~BH_HANDSHAKE_HASH) /* so many, each of 2^26 ns */
#define BH_OVER_TIME(now) ((__u32)((now) >> 26) & BH_OVER_TIMES)
#define BH_OVER_AGE 900U /* a minute */
#define BH_OVER_SLACK 2U /* another CPU may have read its clock later */

static __always_inline struct bh_handshake_over *bh_over_of(__u64 hash)
{
	__u32 key = (hash >> 32) & (BH_HANDSHAKES_OVER - 1);

	return bpf_map_lookup_elem(&handshakes_over, &key);
}

static __always_inline void bh_over_note(__u64 hash, __u64 now)
{
	struct bh_handshake_over *over = bh_over_of(hash);

	if (!over)
		return;
	*(volatile __u64 *)&over->item[1] = *(volatile __u64 *)&over->item[0];
	*(volatile __u64 *)&over->item[0] = (hash & BH_HANDSHAKE_HASH) | BH_OVER_TIME(now);
}

/* Of one bucket. */
static __always_inline bool bh_bucket_get(struct bh_handshake_bucket *b, __u32 number, __u64 hash,
					  const struct bh_tuple *tuple, struct bh_handshake *out,
					  struct bh_found *found, __u32 after)
{
	__u32 way = bh_way_of(b, hash, tuple);
	__u64 mark;

	if (way >= BH_HANDSHAKE_WAYS)
		return false;
	/* Given up by both ends long ago: in the far bucket nothing else clears it away, and the tuple may be in use again. */
	if (bh_handshake_age(*(volatile __u32 *)&b->time[way], bh_now()) >= BH_HANDSHAKE_OVERFLOW)
		return false;
	mark = bh_mark_of(b, way);
	bh_barrier();
	*out = b->item[way].handshake;
	if (!bh_tuple_equal(&b->item[way].tuple, tuple))
		return false;
	found->mark = mark;
	found->place = number * BH_HANDSHAKE_WAYS + way;
	bh_barrier();
	if (after == BH_PENDING_REMOVE) {
		/* First: who finds it gone finds that. */
		bh_over_note(hash, bh_now());
		return bh_mark_fits(mark, hash) &&
		       __sync_val_compare_and_swap(&b->mark[way], mark, bh_mark_count(mark, 1)) == mark;
	}
	return bh_mark_fits(mark, hash) && bh_mark_of(b, way) == mark;
}

/* What bh_pending_get() answers. */
#define BH_PENDING_NONE 0
#define BH_PENDING_FOUND 1
#define BH_PENDING_ELSEWHERE 2 /* the near bucket overflows: if anywhere, it stands in the far one */

/* Copies out what is known of a handshake, and forgets it if asked to. Who calls asks for the near bucket first, and where that
 * overflows for the far one: from its own frame, because what this needs of the stack is large. */
static __always_inline int bh_pending_get(const struct bh_tuple *tuple, struct bh_handshake *out,
					  struct bh_found *found, __u32 after, bool far)
{
	__u64 hash = bh_tuple_hash(tuple);
	__u32 number = far ? bh_number_far(hash) : bh_number_near(hash);
	struct bh_handshake_bucket *b = bh_bucket(number);

	if (!b)
		return BH_PENDING_NONE;
	if (bh_bucket_get(b, number, hash, tuple, out, found, after))
		return BH_PENDING_FOUND;
	return !far && bh_bucket_overflows(b) ? BH_PENDING_ELSEWHERE : BH_PENDING_NONE;
}

/* Notes of the handshake that was found there that its SYN-ACK shows who sends it. Returns 0, or -1 if it is not there any more,
 * or another change came between. */
static __always_inline int bh_pending_show(const struct bh_found *found)
{
	__u32 key = found->place / BH_HANDSHAKE_WAYS, way = found->place & (BH_HANDSHAKE_WAYS - 1);
	struct bh_handshake_bucket *b = bpf_map_lookup_elem(&handshakes, &key);
	__u64 mark = found->mark;

	return b && __sync_val_compare_and_swap(&b->mark[way], mark, mark | BH_HANDSHAKE_SHOWN) == mark ? 0 : -1;
}

static __always_inline bool bh_way_is_old(const struct bh_handshake_bucket *b, __u32 way, __u64 now)
{
	return bh_handshake_age(b->time[way & (BH_HANDSHAKE_WAYS - 1)], now) >= BH_HANDSHAKE_AGE;
}

static __always_inline bool bh_over_is(const __u64 *place, __u64 hash, __u64 now)
{
	__u64 item = *(const volatile __u64 *)place;

	return bh_mark_fits(item, hash) &&
	       ((BH_OVER_TIME(now) - (__u32)item + BH_OVER_SLACK) & BH_OVER_TIMES) < BH_OVER_AGE + BH_OVER_SLACK;
}

/* Was there a handshake of this tuple, that is over since a minute at most? */
BH_GLOBAL int bh_pending_was(const struct bh_tuple *tuple, __u64 now)
{
	struct bh_handshake_over *over;
	__u64 hash;

	if (!tuple)
		return 0;
	hash = bh_tuple_hash(tuple);
	over = bh_over_of(hash);
	bh_barrier();
	return over && (bh_over_is(&over->item[0], hash, now) || bh_over_is(&over->item[1], hash, now));
}

/* In the place of what was known of this tuple; else in a free place, or that of the oldest. `mark` is the one by which it was
 * chosen: where it is another by then, somebody else has written there. Of free places the first, which is most
 * likely in the processor's caches. */
static __always_inline __u32 bh_way_for(const struct bh_handshake_bucket *b, __u64 hash, const struct bh_tuple *tuple,
					__u64 now, __u64 *mark)
{
	__u32 best = 0;

	*mark = BH_HANDSHAKE_WRITING;
#pragma unroll
	for (__u32 i = 0; i < BH_HANDSHAKE_WAYS; i++) {
		__u64 seen = bh_mark_of(b, i);
		/* Of a free place more than of any other; to a few ms, the lowest bits say which it is. */
		__u32 age = bh_mark_is_free(seen) ? ~(i * BH_HANDSHAKE_WAYS) : bh_handshake_age(b->time[i], now) >> 1;

		age = (age & ~(BH_HANDSHAKE_WAYS - 1)) | i;
		if (bh_mark_fits(seen, hash) && bh_tuple_equal(&b->item[i].tuple, tuple)) {
			*mark = seen;
			return i;
		}
		if (!(seen & BH_HANDSHAKE_WRITING) && age >= best) {
			*mark = seen;
			best = age;
		}
	}
	return best & (BH_HANDSHAKE_WAYS - 1);
}

/* Returns 0, or -1 if another handshake is being written to the same place. */
static __always_inline int bh_way_write(struct bh_handshake_bucket *b, __u32 way, __u64 mark, __u64 hash,
					const struct bh_tuple *tuple, const struct bh_handshake *h, __u64 now,
					__u64 shown)
{
	way &= BH_HANDSHAKE_WAYS - 1;
	if (mark & BH_HANDSHAKE_WRITING ||
	    __sync_val_compare_and_swap(&b->mark[way], mark, BH_HANDSHAKE_WRITING | bh_mark_count(mark, 1)) != mark)
		return -1;
	b->time[way] = BH_HANDSHAKE_TIME(now);
	b->item[way].tuple = *tuple;
	b->item[way].handshake = *h;
	bh_publish(&b->mark[way], (hash & BH_HANDSHAKE_HASH) | shown | bh_mark_count(mark, 2));
	return 0;
}

/* The near bucket has no place, or had none a while ago. Returns as bh_near_put(), but 1. */
static __always_inline int bh_far_put(const struct bh_tuple *tuple, const struct bh_handshake *h, __u64 now,
				      __u64 shown)
{
	__u64 hash = bh_tuple_hash(tuple), mark;
	struct bh_handshake_bucket *b = bh_bucket_far(hash);
	__u32 way;

	if (!b)
		return -1;
	way = bh_way_for(b, hash, tuple, now, &mark);
	if (mark & BH_HANDSHAKE_HASH && !bh_mark_fits(mark, hash) && !bh_way_is_old(b, way, now))
		BH_COUNT(map_full);
	return bh_way_write(b, way, mark, hash, tuple, h, now, shown);
}

/* Does it stand in the far bucket already? Only as long as the near one overflows; what overflowed long ago does no more. */
static __always_inline bool bh_is_far(struct bh_handshake_bucket *near, __u64 hash, const struct bh_tuple *tuple,
				      __u64 now)
{
	struct bh_handshake_bucket *b;

	if (!bh_bucket_overflows(near))
		return false;
	if (bh_handshake_age(*(volatile __u32 *)&near->overflow, now) >= BH_HANDSHAKE_OVERFLOW) {
		*(volatile __u32 *)&near->overflows = 0;
		return false;
	}
	b = bh_bucket_far(hash);
	return b && bh_way_of(b, hash, tuple) < BH_HANDSHAKE_WAYS;
}

/* May what is new be written there? */
static __always_inline bool bh_way_has_room(const struct bh_handshake_bucket *b, __u32 way, __u64 mark, __u64 now)
{
	return bh_mark_is_free(mark) || (!(mark & BH_HANDSHAKE_WRITING) && bh_way_is_old(b, way, now));
}

/* Keeps a handshake; `shown`: BH_HANDSHAKE_SHOWN or 0. Returns 0, -1 if it is being written there just now: the segment comes again;
 * or 1 if it belongs into the far bucket. */
static __always_inline int bh_near_put(const struct bh_tuple *tuple, const struct bh_handshake *h, __u64 now,
				       __u64 shown)
{
	__u64 hash = bh_tuple_hash(tuple), mark;
	struct bh_handshake_bucket *b = bh_bucket_near(hash);
	__u32 way;
	bool far;

	if (!b)
		return -1;
	way = bh_way_for(b, hash, tuple, now, &mark);
	if (bh_mark_fits(mark, hash))
		return bh_way_write(b, way, mark, hash, tuple, h, now, shown);
	far = bh_is_far(b, hash, tuple, now);
	/* Where another handshake has come to that place just now, there may be one more. */
	for (int i = 0; i < 2 && !far && bh_way_has_room(b, way, mark, now); i++) {
		if (!bh_way_write(b, way, mark, hash, tuple, h, now, shown))
			return 0;
		way = bh_way_for(b, hash, tuple, now, &mark);
	}
	*(volatile __u32 *)&b->overflow = BH_HANDSHAKE_TIME(now);
	*(volatile __u32 *)&b->overflows = 1;
	return 1;
}

#endif
