/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * tcp_state.h - what is kept for a TCP socket (struct bh_tcp), where, and by which rules.
 *
 * A socket's entry stands in the slot that its cookie names, or in the hash map if the slot is taken; a slot counts those, so that
 * where there are none nobody looks. It is made and let go without an allocation, so memory is used again at once, also while a
 * program on another CPU still holds a pointer to it. Without an entry nothing is allowed: one that is lost, or could not be made
 * because both places are full, denies.
 *
 * Life. `cookie` says whose an entry is. It goes from 0 to the cookie with BH_TCP_LEAVING (compare-and-swap: one gets the place), to
 * the cookie when the rest is written, to the cookie with BH_TCP_LEAVING (compare-and-swap: one lets go), and to 0 when nothing of
 * the former owner is left. It is made by sock_create, or where the kernel itself makes a socket by sockops; it ends when the kernel
 * destroys the socket (bh_tcp_end), and at no other time: not with its connection, after which a process may connect again. Only
 * what no process can use any more, and the kernel does not list, is let go of without being told so (BH_TCP_FORGET).
 *
 * Writing. Sockops and connect() write with the socket locked, ingress without: it marks the entry as being written, of two that
 * would one does, and writes only if the entry is still its socket's. Who lets go of an entry that is being written leaves
 * the rest to who writes; who starts the socket over meanwhile says so (BH_TCP_USE_AGAIN), and what was written is taken back.
 *
 * Order. Who reads looks at the cookie before (it was made by then) and last (it was not let go of so far); a cookie is never used
 * twice, so that shows whether what was read was the socket's. `pass` is taken away before what it stands for changes, and
 * published after that is written; it is read first. Every change of `cookie`, and of the marks in `use`, is an
 * atomic operation with a value, or bh_publish(); user space reads with acquire (datapath_tcp_slot()), and leaves the writing to a program of ours
 * (bh_keep_tcp) that keeps to these rules.
 */
#ifndef BULKHEAD_BPF_TCP_STATE_H
#define BULKHEAD_BPF_TCP_STATE_H

#include <linux/errno.h>

#include "judge.h"
#include "order.h"

/* What was read before was read before the cookie, and what is read behind, after it. */
static __always_inline __u64 bh_tcp_owner(const struct bh_tcp *t)
{
	__u64 cookie;

	bh_barrier();
	cookie = *(const volatile __u64 *)&t->cookie;
	bh_barrier();
	return cookie;
}

static __always_inline __u32 bh_tcp_use(const struct bh_tcp *t)
{
	return *(const volatile __u32 *)&t->use;
}

/* From here on no packet passes by what it says. */
static __always_inline void bh_tcp_stop(struct bh_tcp *t)
{
	*(volatile __u64 *)&t->pass = 0;
	bh_barrier();
}

static __always_inline struct bh_tcp *bh_tcp_slot(__u64 cookie)
{
	__u32 key = cookie & (BH_TCP_SLOTS - 1);

	return bpf_map_lookup_elem(&tcp_slots, &key);
}

/* May an entry of a cookie that is not the slot's own stand in the hash map? */
static __always_inline bool bh_tcp_has_more(const struct bh_tcp *slot)
{
	return bh_tcp_use(slot) >= BH_TCP_USE_ONE;
}

static __always_inline struct bh_tcp *bh_tcp_find(__u64 cookie)
{
	struct bh_tcp *t = bh_tcp_slot(cookie);

	if (t && bh_tcp_owner(t) == cookie)
		return t;
	return t && bh_tcp_has_more(t) ? bpf_map_lookup_elem(&tcp_more, &cookie) : 0;
}

/* Not on the stack, which is short where a connection is established. */
static const struct bh_tcp bh_tcp_none = {.peer = BH_ID_WORLD, .use = BH_TCP_USE_APART};

/* A place for a socket that has none; its cookie still says that it is leaving. NULL: there is no room. */
static __always_inline struct bh_tcp *bh_tcp_place(__u64 cookie)
{
	struct bh_tcp *slot = bh_tcp_slot(cookie), *apart;

	if (!slot)
		return 0;
	if (!bh_tcp_owner(slot) && __sync_val_compare_and_swap(&slot->cookie, 0, cookie | BH_TCP_LEAVING) == 0)
		return slot;
	/* Counted first: who finds the entry by another way than this one finds it by this one, too. */
	__sync_fetch_and_add(&slot->use, BH_TCP_USE_ONE);
	apart = bpf_map_update_elem(&tcp_more, &cookie, &bh_tcp_none, BPF_NOEXIST)
			? 0
			: bpf_map_lookup_elem(&tcp_more, &cookie);
	if (apart)
		return apart;
	__sync_fetch_and_sub(&slot->use, BH_TCP_USE_ONE);
	return 0;
}

/* Makes the entry of a socket that has none; `cgroup`: of the process that makes the socket, 0 if the kernel does. Returns 0,
 * or -1 if there is no room. */
static __always_inline int bh_tcp_make(__u64 cookie, __u64 netns, __u64 cgroup)
{
	struct bh_tcp *t = bh_tcp_place(cookie);

	if (!t) {
		BH_COUNT(map_full);
		return -1;
	}
	t->netns = netns;
	t->cgroup = cgroup;
	bh_publish(&t->cookie, cookie);
	return 0;
}

/* For a socket that bh_tcp_find() has not found. */
static __always_inline struct bh_tcp *bh_tcp_new(__u64 cookie, __u64 netns)
{
	return bh_tcp_make(cookie, netns, 0) ? 0 : bh_tcp_find(cookie);
}

#define BH_TCP_USE_OF_OWNER (BH_TCP_USE_LEAVING | BH_TCP_USE_CARRIED | BH_TCP_USE_COUNTED | BH_TCP_USE_AGAIN)

/* Nothing of it is for the next owner, and the place is free. What is counted of the slot stays, and the mark of one who came too
 * late: it takes that back itself. */
static __always_inline void bh_tcp_clear(struct bh_tcp *t)
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
	t->released = 0;
	t->identity = BH_ID_UNIDENTIFIED;
	t->peer = BH_ID_WORLD;
	t->peer_tag = 0;
	t->subject_tag = 0;
	if (bh_tcp_use(t) & BH_TCP_USE_OF_OWNER)
		__sync_fetch_and_and(&t->use, ~BH_TCP_USE_OF_OWNER);
	bh_publish(&t->cookie, 0);
}

/* Its key takes no stack from the rest. */
static __attribute__((noinline, unused)) int bh_tcp_apart_remove(__u64 cookie)
{
	struct bh_tcp *slot = bh_tcp_slot(cookie);

	if (slot && !bpf_map_delete_elem(&tcp_more, &cookie))
		__sync_fetch_and_sub(&slot->use, BH_TCP_USE_ONE);
	return 0;
}

/* An entry that is leaving, and that nobody writes. */
static __always_inline void bh_tcp_let_go(struct bh_tcp *t)
{
	if (bh_tcp_use(t) & BH_TCP_USE_APART)
		bh_tcp_apart_remove(*(volatile __u64 *)&t->cookie & ~BH_TCP_LEAVING);
	else
		bh_tcp_clear(t);
}

/* The socket has started over while it was written to: nothing of that counts. */
static __always_inline void bh_tcp_take_back(struct bh_tcp *t)
{
	__sync_fetch_and_and(&t->use, ~BH_TCP_USE_AGAIN);
	bh_tcp_stop(t);
	t->verdict = 0;
	t->answered = 0;
	t->asked = 0;
	t->known = 0;
	t->peer = BH_ID_WORLD;
	t->peer_tag = 0;
	t->proof = BH_PROOF_NONE;
}

/* Returns whether the entry still is its socket's. */
static __always_inline bool bh_tcp_write_end(struct bh_tcp *t)
{
	__u32 before;

	if (bh_tcp_use(t) & BH_TCP_USE_AGAIN)
		bh_tcp_take_back(t);
	before = __sync_fetch_and_and(&t->use, ~BH_TCP_USE_WRITING);
	if (before & BH_TCP_USE_AGAIN)
		bh_tcp_take_back(t);
	if (!(before & BH_TCP_USE_LEAVING))
		return true;
	bh_tcp_let_go(t);
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
	bh_tcp_write_end(t);
	return false;
}

/* Lets go of the entry of this cookie. Who writes to it does so in our place: until then its memory must not be given to another
 * socket. */
static __always_inline void bh_tcp_drop_entry(struct bh_tcp *t, __u64 cookie)
{
	if (__sync_val_compare_and_swap(&t->cookie, cookie, cookie | BH_TCP_LEAVING) != cookie)
		return;
	if (bh_tcp_use(t) & BH_TCP_USE_WRITING && __sync_fetch_and_or(&t->use, BH_TCP_USE_LEAVING) & BH_TCP_USE_WRITING)
		return;
	bh_tcp_let_go(t);
}

/* No process can use the socket any more. The kernel may still send what is left, and destroys it then. */
static __always_inline void bh_tcp_released(__u64 cookie)
{
	struct bh_tcp *t = bh_tcp_find(cookie);

	if (t)
		t->released = 1;
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
	bh_tcp_stop(t);
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
	bh_tcp_write_end(t);
}

/* Accepted by its SYN (Fast Open), and now by the peer's ACK too. */
static __always_inline void bh_tcp_accepted(struct bh_tcp *t, __u64 cookie)
{
	if (!bh_tcp_write_begin(t, cookie))
		return;
	t->kind = BH_SOCK_PASSIVE;
	bh_publish(&t->pass, t->verdict ? t->word : 0);
	bh_tcp_write_end(t);
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
	bh_barrier();
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
	bh_publish(&t->word, q->word);
	bh_tcp_write_end(t);
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
		bh_tcp_write_end(t);
		return false;
	}
	bh_tcp_stop(t);
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
	bh_publish(&t->pass, established && q->allow ? q->word : 0);
	return bh_tcp_write_end(t);
}

#endif
