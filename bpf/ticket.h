/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * ticket.h - which socket of this host sent a datagram (struct bh_ticket).
 *
 * The way that most datagrams take needs no search: both ends know the number of the ticket, and change its credits with
 * one compare-and-swap of number and credits together. So a credit is never given to, or taken from, a flow that has got the
 * slot meanwhile: what does not find its number goes the whole way.
 */
#ifndef BULKHEAD_BPF_TICKET_H
#define BULKHEAD_BPF_TICKET_H

#include "judge.h"
#include "seal.h"

/* A datagram is under way this long at most; later its credit is void. */
#define BH_TICKET_NS BH_SECOND
/* What is lost on the way leaves its credit; these are enough for what can be under way. */
#define BH_TICKET_CREDITS_MAX 4096U
/* Of one packet; more than UDP_MAX_SEGMENTS. With every CPU at once it does not reach the number beside the credits. */
#define BH_TICKET_SEGMENTS_MAX 256U

/* Each failure means that another CPU has had its way. */
#define BH_TICKET_TRIES 16
/* Slots that are looked at for one that nobody needs. */
#define BH_TICKET_PROBES 8

/* Datagrams in a packet of a socket. 0: it does not say how many, which no socket of this host makes. */
static __always_inline __u32 bh_segments(struct __sk_buff *skb)
{
	return skb->gso_size ? skb->gso_segs : 1;
}

static __always_inline struct bh_ticket *bh_ticket_slot(__u64 ticket)
{
	__u32 slot = BH_TICKET_NUMBER(ticket) & (BH_UDP_SLOTS - 1);

	return bpf_map_lookup_elem(&udp_slots, &slot);
}

static __always_inline __u64 bh_ticket_word(struct bh_ticket *t)
{
	return *(volatile __u64 *)&t->word;
}

/* Signed: another CPU may have given a credit after our clock was read. */
static __always_inline bool bh_ticket_is_void(struct bh_ticket *t, __u64 now)
{
	return (__s64)(now - *(volatile __u64 *)&t->time_ns) >= (__s64)BH_TICKET_NS;
}

/* `segments` datagrams leave. Returns false if this is not the ticket of anything any more, or its credits are void. */
static __always_inline bool bh_ticket_give(__u64 ticket, __u32 segments, __u64 now)
{
	struct bh_ticket *t = bh_ticket_slot(ticket);

	if (!t || segments - 1 >= BH_TICKET_SEGMENTS_MAX || bh_ticket_is_void(t, now))
		return false;
#pragma clang loop unroll(disable)
	for (int i = 0; i < BH_TICKET_TRIES; i++) {
		__u64 word = bh_ticket_word(t);

		if (BH_TICKET_NUMBER(word) != BH_TICKET_NUMBER(ticket))
			return false;
		if (t->time_ns != now)
			*(volatile __u64 *)&t->time_ns = now;
		if (BH_TICKET_CREDITS(word) >= BH_TICKET_CREDITS_MAX)
			return true;
		if (__sync_val_compare_and_swap(&t->word, word, word + segments) == word)
			return true;
	}
	return false;
}

/* `segments` datagrams have arrived. Returns false if they, or some of them, have no credit. */
static __always_inline bool bh_ticket_redeem(__u64 ticket, __u32 segments, __u64 now)
{
	struct bh_ticket *t = bh_ticket_slot(ticket);

	if (!t || !segments || bh_ticket_is_void(t, now))
		return false;
#pragma clang loop unroll(disable)
	for (int i = 0; i < BH_TICKET_TRIES; i++) {
		__u64 word = bh_ticket_word(t);

		if (BH_TICKET_NUMBER(word) != BH_TICKET_NUMBER(ticket) || BH_TICKET_CREDITS(word) < segments)
			return false;
		if (__sync_val_compare_and_swap(&t->word, word, word - segments) == word)
			return true;
	}
	return false;
}

static __always_inline void bh_ticket_key(struct bh_tuple *key, const struct bh_addr *src, __u16 sport,
					  const struct bh_addr *dst, __u16 dport, __u64 netns)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->local = *src;
	key->remote = *dst;
	key->netns = netns;
	key->lport = sport;
	key->rport = dport;
}

/* The ticket that stands under `key`, which is sealed: what is another flow's by now names none. 0: there is none. */
static __always_inline __u64 bh_ticket_of(const struct bh_tuple *key)
{
	__u64 *found = bpf_map_lookup_elem(&udp_tickets, key);

	return found ? *(volatile __u64 *)found ^ bh_seal_key(key) : 0;
}

/* Puts it there. Returns 0 or a negative errno. */
static __always_inline long bh_ticket_put(const struct bh_tuple *key, __u64 ticket, __u64 flags)
{
	__u64 sealed = ticket ^ bh_seal_key(key);

	return bpf_map_update_elem(&udp_tickets, key, &sealed, flags);
}

/* Takes a slot for q's flow: one whose credits are void, else the last one looked at, whose flow then gets another. Returns
 * the ticket, without credits; 0 if all were being written. */
static __always_inline __u64 bh_ticket_new(const struct bh_query *q)
{
	__u32 zero = 0;
	__u64 *serial = bpf_map_lookup_elem(&udp_serial, &zero);

	if (!serial)
		return 0;
#pragma clang loop unroll(disable)
	for (int i = 0; i < BH_TICKET_PROBES; i++) {
		__u64 ticket = (__sync_fetch_and_add(serial, 1) + 1) << BH_TICKET_BITS, word;
		struct bh_ticket *t = bh_ticket_slot(ticket);

		if (!t)
			return 0;
		word = bh_ticket_word(t);
		if (word == BH_TICKET_NONE || (word && i < BH_TICKET_PROBES - 1 && !bh_ticket_is_void(t, q->now)))
			continue;
		if (__sync_val_compare_and_swap(&t->word, word, BH_TICKET_NONE) != word)
			continue;
		t->time_ns = q->now;
		t->tag = q->subject_tag;
		t->cookie = q->cookie;
		t->identity = q->subject;
		t->state = BH_TICKET_STATE(ticket, q->word);
		/* Who sees the number sees what it stands for. */
		__sync_lock_test_and_set(&t->word, ticket);
		return ticket;
	}
	return 0;
}

/* Is this the ticket of q's sender, as it is now? */
static __always_inline bool bh_ticket_is_of(struct bh_ticket *t, __u64 ticket, const struct bh_query *q)
{
	return BH_TICKET_NUMBER(bh_ticket_word(t)) == BH_TICKET_NUMBER(ticket) && t->cookie == q->cookie &&
	       t->identity == q->subject && t->tag == q->subject_tag;
}

/* A ticket that is nobody's any more. */
static __always_inline void bh_ticket_end(__u64 ticket)
{
	struct bh_ticket *t = bh_ticket_slot(ticket);
	__u64 word;

	if (!t)
		return;
	word = bh_ticket_word(t);
	if (BH_TICKET_NUMBER(word) == BH_TICKET_NUMBER(ticket))
		__sync_val_compare_and_swap(&t->word, word, 0);
}

/* Gives credits to the ticket that stands in the map, if it is q's. Those that are void do not come back with it. */
static __always_inline bool bh_ticket_go_on(__u64 ticket, const struct bh_query *q, __u32 segments)
{
	struct bh_ticket *t = bh_ticket_slot(ticket);
	__u64 word;

	if (!t || !bh_ticket_is_of(t, ticket, q))
		return false;
	if (t->state != BH_TICKET_STATE(ticket, q->word))
		*(volatile __u32 *)&t->state = BH_TICKET_STATE(ticket, q->word);
	if (!bh_ticket_is_void(t, q->now))
		return bh_ticket_give(ticket, segments, q->now);
	word = bh_ticket_word(t);
	if (BH_TICKET_NUMBER(word) != BH_TICKET_NUMBER(ticket) ||
	    __sync_val_compare_and_swap(&t->word, word, word - BH_TICKET_CREDITS(word)) != word)
		return false;
	t->time_ns = q->now;
	return bh_ticket_give(ticket, segments, q->now);
}

/* Notes that `segments` datagrams of q's flow leave this socket: the whole way. Returns the ticket; 0: there is none, and who
 * receives them will not know who sent them. */
BH_GLOBAL __u64 bh_ticket_write(const struct bh_query *q, __u64 netns, __u32 segments)
{
	__u64 ticket, before;
	struct bh_tuple key;

	if (!q)
		return 0;
	bh_ticket_key(&key, &q->local, q->lport, &q->remote, q->rport, netns);
	before = ticket = bh_ticket_of(&key);
	if (ticket) {
		if (bh_ticket_go_on(ticket, q, segments))
			return ticket;
		/* Of another socket of the same addresses and ports, or of who this one was before. */
		bh_ticket_end(ticket);
	}
	ticket = bh_ticket_new(q);
	if (!ticket || !bh_ticket_give(ticket, segments, q->now))
		return 0;
	if (!bh_ticket_put(&key, ticket, before ? BPF_ANY : BPF_NOEXIST))
		return ticket;
	/* Another CPU was first, with the same socket's. */
	bh_ticket_end(ticket);
	ticket = bh_ticket_of(&key);
	return ticket && bh_ticket_go_on(ticket, q, segments) ? ticket : 0;
}

static __always_inline bool bh_addr_is_multicast(const struct bh_addr *a)
{
	if (bh_addr_is_v4(a))
		return (bpf_ntohl(a->w[3]) >> 28) == 0xe || a->w[3] == 0xffffffff;
	return (bpf_ntohl(a->w[0]) >> 24) == 0xff;
}

/* Who sent q's datagram, for who does not use up its credit: whoever stands between sender and receiver, and where each of
 * several receivers has its copy. Sets peer and proof, and returns the cookie of the sender's socket or device; 0 without
 * ticket. Ports of their own, because what has none is noted under 0. */
BH_GLOBAL __u64 bh_ticket_look(struct bh_query *q, __u16 sport, __u16 dport)
{
	__u64 ticket, word, cookie, tag;
	struct bh_ticket *t;
	struct bh_tuple key;
	__u32 identity, state;

	if (!q)
		return 0;
	bh_ticket_key(&key, &q->remote, sport, &q->local, dport, 0);
	ticket = bh_ticket_of(&key);
	if (!ticket)
		return 0;
	t = bh_ticket_slot(ticket);
	if (!t)
		return 0;
	word = __sync_fetch_and_add(&t->word, 0);
	if (BH_TICKET_NUMBER(word) != BH_TICKET_NUMBER(ticket) || !BH_TICKET_CREDITS(word) ||
	    bh_ticket_is_void(t, q->now))
		return 0;
	cookie = t->cookie;
	identity = t->identity;
	tag = t->tag;
	state = *(volatile __u32 *)&t->state;
	if (BH_TICKET_NUMBER(__sync_fetch_and_add(&t->word, 0)) != BH_TICKET_NUMBER(ticket))
		return 0;
	q->proof = BH_PROOF_VERIFIED;
	q->peer = identity;
	q->peer_tag = tag;
	q->stale = state != BH_TICKET_STATE(ticket, q->word);
	return cookie;
}

/* Takes the credits of q's packet: sets peer, proof, and, where the next packet may use it, ticket. Returns the cookie of
 * the sender's socket, 0 if there is none: no managed socket of this host sent it. */
BH_GLOBAL __u64 bh_ticket_take(struct bh_query *q, __u64 netns, __u32 segments)
{
	bool multicast;
	struct bh_ticket *t;
	struct bh_tuple key;
	__u64 ticket, cookie, tag;
	__u32 identity, state;

	if (!q)
		return 0;
	q->ticket = 0;
	bh_ticket_key(&key, &q->remote, q->rport, &q->local, q->lport, netns);
	ticket = bh_ticket_of(&key);
	if (!ticket)
		return 0;
	t = bh_ticket_slot(ticket);
	/* Read with the barrier that an atomic operation is: what the number stands for is there when the number is. */
	if (!t || BH_TICKET_NUMBER(__sync_fetch_and_add(&t->word, 0)) != BH_TICKET_NUMBER(ticket))
		return 0;
	cookie = t->cookie;
	identity = t->identity;
	tag = t->tag;
	state = *(volatile __u32 *)&t->state;
	/* To a group, one datagram arrives many times. */
	multicast = bh_addr_is_multicast(&q->local);
	if (multicast && (bh_ticket_is_void(t, q->now) ||
			  BH_TICKET_NUMBER(__sync_fetch_and_add(&t->word, 0)) != BH_TICKET_NUMBER(ticket)))
		return 0;
	if (!multicast && !bh_ticket_redeem(ticket, segments, q->now))
		return 0;
	q->proof = BH_PROOF_VERIFIED;
	q->peer = identity;
	q->peer_tag = tag;
	q->stale = state != BH_TICKET_STATE(ticket, q->word);
	q->ticket = multicast ? 0 : ticket;
	return cookie;
}

#endif
