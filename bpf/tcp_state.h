/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * tcp_state.h - what is kept for a TCP socket (struct bh_tcp), and where.
 *
 * A socket's entry stands in the slot that its cookie names, or in the hash map if the slot is taken. It is made and let go
 * without an allocation, so memory is used again at once, also while a program on another CPU still holds a pointer to it.
 * Therefore: who writes where the socket is not locked (ingress) marks the entry as being written, writes only if it is still
 * its socket's, and lets go of it if the socket closed meanwhile; and who reads looks at the cookie last. A cookie is never
 * used twice, so that shows whether what was read was the socket's.
 *
 * Without an entry nothing is allowed: one that is lost, or could not be made because both places are full, denies.
 */
#ifndef BULKHEAD_BPF_TCP_STATE_H
#define BULKHEAD_BPF_TCP_STATE_H

#include <linux/errno.h>

#include "judge.h"

static __always_inline __u64 bh_tcp_owner(const struct bh_tcp *t)
{
	return *(const volatile __u64 *)&t->cookie;
}

static __always_inline struct bh_tcp *bh_tcp_slot(__u64 cookie)
{
	__u32 key = cookie & (BH_TCP_SLOTS - 1);

	return bpf_map_lookup_elem(&tcp_slots, &key);
}

static __always_inline struct bh_tcp *bh_tcp_find(__u64 cookie)
{
	struct bh_tcp *t = bh_tcp_slot(cookie);

	if (t && bh_tcp_owner(t) == cookie)
		return t;
	return bpf_map_lookup_elem(&tcp_more, &cookie);
}

/* Not on the stack, which is short where a connection is established. */
static const struct bh_tcp bh_tcp_none;

/* Makes the entry of a socket that has none; `cgroup`: of the process that makes the socket, 0 if the kernel does. Returns 0,
 * or -1 if there is no room. */
BH_GLOBAL int bh_tcp_make(__u64 cookie, __u64 netns, __u64 cgroup)
{
	struct bh_tcp *t = bh_tcp_slot(cookie);

	if (t && !bh_tcp_owner(t) && __sync_val_compare_and_swap(&t->cookie, 0, cookie) == 0) {
		t->netns = netns;
		t->cgroup = cgroup;
		if (cgroup)
			__sync_fetch_and_or(&t->use, BH_TCP_USE_HELD);
		return 0;
	}
	t = bpf_map_update_elem(&tcp_more, &cookie, &bh_tcp_none, BPF_NOEXIST)
		    ? 0
		    : bpf_map_lookup_elem(&tcp_more, &cookie);
	if (!t) {
		BH_COUNT(map_full);
		return -1;
	}
	t->netns = netns;
	t->cgroup = cgroup;
	t->use = cgroup ? BH_TCP_USE_HELD : 0;
	*(volatile __u64 *)&t->cookie = cookie;
	return 0;
}

/* For a socket that bh_tcp_find() has not found. */
static __always_inline struct bh_tcp *bh_tcp_new(__u64 cookie, __u64 netns)
{
	return bh_tcp_make(cookie, netns, 0) ? 0 : bh_tcp_find(cookie);
}

/* Nothing of it is for the next owner. */
static __always_inline void bh_tcp_let_go(struct bh_tcp *t)
{
	*(volatile __u64 *)&t->pass = 0;
	t->valid_until_ns = 0;
	t->word = 0;
	t->kind = BH_SOCK_NEW;
	t->proof = BH_PROOF_NONE;
	t->reason = 0;
	t->verdict = 0;
	t->answered = 0;
	t->asked = 0;
	t->known = 0;
	t->identity = BH_ID_UNIDENTIFIED;
	t->peer = BH_ID_WORLD;
	t->peer_tag = 0;
	t->subject_tag = 0;
	/* Not the mark of one who came too late: it takes that back itself. */
	__sync_fetch_and_and(&t->use, BH_TCP_USE_WRITING);
	*(volatile __u64 *)&t->cookie = 0;
}

/* The socket has started over while it was written to: nothing of that counts. */
static __always_inline void bh_tcp_take_back(struct bh_tcp *t)
{
	__sync_fetch_and_and(&t->use, ~BH_TCP_USE_AGAIN);
	*(volatile __u64 *)&t->pass = 0;
	t->verdict = 0;
	t->answered = 0;
	t->asked = 0;
	t->known = 0;
	t->peer = BH_ID_WORLD;
	t->peer_tag = 0;
	t->proof = BH_PROOF_NONE;
}

/* Returns whether the entry, which is that of `cookie`, still is. */
static __always_inline bool bh_tcp_write_end(struct bh_tcp *t, __u64 cookie)
{
	__u32 before;

	if (*(volatile __u32 *)&t->use & BH_TCP_USE_AGAIN)
		bh_tcp_take_back(t);
	before = __sync_fetch_and_and(&t->use, ~BH_TCP_USE_WRITING);
	if (before & BH_TCP_USE_AGAIN)
		bh_tcp_take_back(t);
	if (!(before & BH_TCP_USE_LEAVING))
		return true;
	bh_tcp_let_go(t);
	/* If it stands there. */
	bpf_map_delete_elem(&tcp_more, &cookie);
	return false;
}

/* Of two that would write at once, one does. */
static __always_inline bool bh_tcp_write_begin(struct bh_tcp *t, __u64 cookie)
{
	__u32 before = __sync_fetch_and_or(&t->use, BH_TCP_USE_WRITING);

	if (before & BH_TCP_USE_WRITING)
		return false;
	/* Somebody lets go of it already. */
	if (before & BH_TCP_USE_LEAVING) {
		__sync_fetch_and_and(&t->use, ~BH_TCP_USE_WRITING);
		return false;
	}
	if (bh_tcp_owner(t) == cookie)
		return true;
	bh_tcp_write_end(t, cookie);
	return false;
}

/* Nothing more comes of the socket. */
BH_GLOBAL int bh_tcp_drop(__u64 cookie)
{
	struct bh_tcp *t = bh_tcp_slot(cookie);
	bool more = t && bh_tcp_owner(t) != cookie;

	if (more)
		t = bpf_map_lookup_elem(&tcp_more, &cookie);
	if (!t || __sync_val_compare_and_swap(&t->cookie, cookie, BH_TCP_LEAVING) != cookie)
		return 0;
	/* Who writes lets go of it: until then its memory must not be given to another socket. */
	if (__sync_fetch_and_or(&t->use, BH_TCP_USE_LEAVING) & BH_TCP_USE_WRITING)
		return 0;
	bh_tcp_let_go(t);
	if (more)
		bpf_map_delete_elem(&tcp_more, &cookie);
	return 0;
}

/* Its connection is over, or it no longer listens. A process may still hold it, and connect again. */
static __always_inline void bh_tcp_done(__u64 cookie)
{
	struct bh_tcp *t = bh_tcp_find(cookie);

	if (t && !(__sync_fetch_and_or(&t->use, BH_TCP_USE_DONE) & BH_TCP_USE_HELD))
		bh_tcp_drop(cookie);
}

/* No process holds it any more. `over`: it has no connection, and none is under way. */
static __always_inline void bh_tcp_released(__u64 cookie, bool over)
{
	struct bh_tcp *t = bh_tcp_find(cookie);

	if (t && ((__sync_fetch_and_and(&t->use, ~BH_TCP_USE_HELD) & BH_TCP_USE_DONE) || over))
		bh_tcp_drop(cookie);
}

/* A packet of a socket without entry: is it that there was no room for one? */
BH_GLOBAL int bh_tcp_no_room(__u64 cookie)
{
	struct bh_tcp *t = bh_tcp_slot(cookie);
	int r;

	if (t && !bh_tcp_owner(t))
		return 0;
	r = bpf_map_update_elem(&tcp_more, &cookie, &bh_tcp_none, BPF_NOEXIST);
	if (!r)
		bpf_map_delete_elem(&tcp_more, &cookie);
	return r && r != -EEXIST;
}

/* A socket starts over: nothing of a connection that it had before counts. What connect() noted stays: bh_tcp_store() takes back
 * what it says of the subject. */
static __always_inline void bh_tcp_begin(struct bh_tcp *t, __u8 kind)
{
	if (t->use & BH_TCP_USE_DONE)
		__sync_fetch_and_and(&t->use, ~BH_TCP_USE_DONE);
	*(volatile __u64 *)&t->pass = 0;
	t->verdict = 0;
	t->answered = 0;
	if (kind != BH_SOCK_CONNECT)
		t->known = 0;
	t->peer = BH_ID_WORLD;
	t->peer_tag = 0;
	t->proof = BH_PROOF_NONE;
	t->isn = 0;
	t->kind = kind;
	/* Who writes just now, on another CPU, writes of the connection before: it takes that back. */
	if (!(__sync_fetch_and_or(&t->use, BH_TCP_USE_AGAIN) & BH_TCP_USE_WRITING))
		__sync_fetch_and_and(&t->use, ~BH_TCP_USE_AGAIN);
}

/* Of no workload. */
static __always_inline void bh_tcp_host(struct bh_tcp *t, __u64 cookie)
{
	if (!bh_tcp_write_begin(t, cookie))
		return;
	t->kind = BH_SOCK_HOST;
	bh_tcp_write_end(t, cookie);
}

/* Accepted by its SYN (Fast Open), and now by the peer's ACK too. */
static __always_inline void bh_tcp_accepted(struct bh_tcp *t, __u64 cookie)
{
	if (!bh_tcp_write_begin(t, cookie))
		return;
	t->kind = BH_SOCK_PASSIVE;
	asm volatile("" ::: "memory");
	*(volatile __u64 *)&t->pass = t->verdict ? t->word : 0;
	bh_tcp_write_end(t, cookie);
}

/* Who the subject is: the same for all packets of a listener, and for the answer to a SYN. */
static __always_inline bool bh_tcp_subject(const struct bh_tcp *t, struct bh_query *q)
{
	if (!t->known || (t->kind != BH_SOCK_LISTEN && t->kind != BH_SOCK_CONNECT) || t->word != q->word ||
	    q->now >= t->valid_until_ns)
		return false;
	q->subject = t->identity;
	q->subject_tag = t->subject_tag;
	q->valid_until = t->valid_until_ns;
	q->cgroup = t->cgroup;
	return *(volatile __u64 *)&t->word == q->word && bh_tcp_owner(t) == q->cookie;
}

/* Found by the socket's cgroup. */
static __always_inline void bh_tcp_subject_note(struct bh_tcp *t, const struct bh_query *q)
{
	if (!bh_tcp_write_begin(t, q->cookie))
		return;
	/* What was asked under another policy, or for another identity, was not asked. */
	if (t->word != q->word || t->identity != q->subject)
		t->asked = 0;
	t->identity = q->subject;
	t->subject_tag = q->subject_tag;
	t->valid_until_ns = q->valid_until;
	t->cgroup = q->cgroup;
	t->known = !q->expired;
	asm volatile("" ::: "memory");
	*(volatile __u64 *)&t->word = q->word;
	bh_tcp_write_end(t, q->cookie);
}

/* Keeps q's verdict with the socket, which is `connecting` or is connected. `pass` goes last: who sees it sees the deadline.
 * Returns whether it is kept: not where the socket has closed or started over, or another CPU keeps the verdict on another
 * packet just now. */
static __always_inline bool bh_tcp_store(struct bh_tcp *t, const struct bh_query *q, bool connecting)
{
	bool established;
	__u8 kind;

	if (!bh_tcp_write_begin(t, q->cookie))
		return false;
	kind = *(volatile __u8 *)&t->kind;
	established = kind == BH_SOCK_ACTIVE || kind == BH_SOCK_PASSIVE;
	if (connecting ? kind != BH_SOCK_CONNECT : !established && kind != BH_SOCK_EARLY) {
		bh_tcp_write_end(t, q->cookie);
		return false;
	}
	*(volatile __u64 *)&t->pass = 0;
	t->verdict = q->allow;
	t->answered = q->allow;
	t->valid_until_ns = q->valid_until;
	t->identity = q->subject;
	t->subject_tag = q->subject_tag;
	t->peer = q->peer;
	t->peer_tag = q->peer_tag;
	t->cell = q->cell;
	t->proof = q->proof;
	t->reason = q->reason;
	t->cgroup = q->cgroup;
	t->local = q->local;
	t->remote = q->remote;
	t->lport = q->lport;
	t->rport = q->rport;
	t->known = 0;
	t->asked = 0;
	t->word = q->word;
	asm volatile("" ::: "memory");
	*(volatile __u64 *)&t->pass = established && q->allow ? q->word : 0;
	return bh_tcp_write_end(t, q->cookie);
}

#endif
