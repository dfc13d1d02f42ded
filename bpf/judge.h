/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * judge.h - who the subject is, what the policy says, and the event that records it.
 *
 * A struct bh_query is one judgement: it collects the flow, the two ends, and the verdict, and is handed down to every
 * step. All hooks go through bh_judge(); nothing else decides.
 */
#ifndef BULKHEAD_BPF_JUDGE_H
#define BULKHEAD_BPF_JUDGE_H

#include "decide.h"
#include "maps.h"
#include "pair.h"
#include "parse.h"

/* What a packet hook answers. */
#define BH_DENY 0
#define BH_ALLOW 1

#define BH_SECOND 1000000000ULL

struct bh_query {
	struct bh_addr local;
	struct bh_addr remote;
	__u64 word;
	__u64 now;
	__u64 valid_until; /* in and out: earliest deadline the verdict rests on */
	__u64 subject_tag; /* cgroup that carries it; 0: none */
	__u64 peer_tag;	   /* likewise of the peer */
	__u64 cgroup;
	__u64 cookie;
	union {
		__u64 ticket;	  /* of the datagram (ticket.h); 0: none */
		__u64 peer_until; /* of a segment: see `vouched` */
	};
	__u32 subject;
	__u32 peer;
	__u32 cell;
	__u32 pid; /* 0 where no caller is known */
	__u16 lport;
	__u16 rport;
	__u8 proto;
	__u8 direction;
	__u8 allow;
	__u8 reason;
	__u8 proof;
	__u8 again;
	__u8 expired; /* the subject's tag is past its deadline */
	__u8 host;    /* the subject is no workload */
	__u8 stale;   /* the sender's end judged by another state word than this */
	__u8 vouched; /* peer and peer_tag hold under `word`, until peer_until: the sender's end has found that under it. A tag that is to
			* end sooner changes the word (daemon/datapath.h, datapath_changed()) */
	__u8 unlisted; /* the destination is of this host, and the map of addresses had no room for it */
};

/* Is it an address that the map of addresses had no room for? Only for one that it does not have. */
static __always_inline bool bh_addr_is_unlisted(const struct bh_addr *a)
{
	__u32 bit = bh_unlisted_bit(a), key = bit / 64;
	__u64 *word = bpf_map_lookup_elem(&unlisted, &key);

	return !word || (*word >> (bit % 64) & 1);
}

/*
 * A copy of the tag of cgroup or device `id`; returns whether there is one. The kernel may have given its memory to another's
 * meanwhile (seal.h): then somebody has a tag, but not which, and it is taken for one of nobody that ends at once. So
 * nothing that was judged by it is kept, and no outer cgroup's counts in its place.
 */
static __always_inline bool bh_tag_get(struct bh_tag *out, __u64 id, __u64 now)
{
	const volatile struct bh_tag *tag = bpf_map_lookup_elem(&tags, &id);

	if (!tag)
		return false;
	out->deadline_ns = tag->deadline_ns;
	out->identity = tag->identity;
	out->flags = tag->flags;
	if (tag->seal != bh_tag_seal(out, id)) {
		out->identity = BH_ID_UNIDENTIFIED;
		out->deadline_ns = now + 1;
	}
	return true;
}

/* A tag counts while its deadline lies ahead. */
static __always_inline void bh_subject_take(struct bh_query *q, __u64 cgroup, const struct bh_tag *tag)
{
	q->subject_tag = cgroup;
	q->expired = tag->deadline_ns <= q->now;
	q->subject = q->expired ? BH_ID_UNIDENTIFIED : tag->identity;
	q->valid_until = q->expired ? ~0ULL : tag->deadline_ns;
}

/* The nearest tagged group decides, from the managed subtree downwards, also when its tag has expired: a workload must
 * not fall back to the identity of what contains it. */
BH_SUBPROGRAM int bh_subject_of_skb(struct __sk_buff *skb, struct bh_query *q)
{
	q->subject = BH_ID_UNIDENTIFIED;
	q->valid_until = ~0ULL;
	q->subject_tag = 0;
	q->cgroup = bpf_skb_cgroup_id(skb);
	for (__u32 i = 0; i < BH_MAX_DEPTH; i++) {
		__u64 id = bpf_skb_ancestor_cgroup_id(skb, subtree_level + 1 + i);
		struct bh_tag tag;

		if (!id) {
			/* Directly in the root of the whole hierarchy: the kernel's own sockets and unmanaged ones. */
			q->host = i == 0 && subtree_level == 0;
			break;
		}
		if (bh_tag_get(&tag, id, q->now))
			bh_subject_take(q, id, &tag);
	}
	return 0;
}

/* The same for the calling process. A socket belongs to the cgroup of its creator, so this is only for hooks that help
 * the caller; the packet is judged by its socket. */
static __always_inline void bh_subject_of_current(struct bh_query *q)
{
	q->subject = BH_ID_UNIDENTIFIED;
	q->valid_until = ~0ULL;
	q->subject_tag = 0;
	q->cgroup = bpf_get_current_cgroup_id();
	for (__u32 i = 0; i < BH_MAX_DEPTH; i++) {
		__u64 id = bpf_get_current_ancestor_cgroup_id(subtree_level + 1 + i);
		struct bh_tag tag;

		if (!id) {
			q->host = i == 0 && subtree_level == 0;
			break;
		}
		if (bh_tag_get(&tag, id, q->now))
			bh_subject_take(q, id, &tag);
	}
}

static __always_inline __u32 bh_who(__u32 slot, __u32 identity)
{
	__u32 key = slot * BH_MAX_IDENTITIES + (identity & (BH_MAX_IDENTITIES - 1));
	__u16 *index = bpf_map_lookup_elem(&who, &key);

	return index ? *index : 0;
}

static __always_inline __u8 *bh_tables_of(__u32 slot)
{
	return bpf_map_lookup_elem(&tables, &slot);
}

static __always_inline void bh_valid_until(struct bh_query *q, __u64 deadline_ns)
{
	if (deadline_ns < q->valid_until)
		q->valid_until = deadline_ns;
}

/* The peer is who carries this tag, which is in force. */
static __always_inline void bh_peer_take(struct bh_query *q, __u64 carrier, const struct bh_tag *tag)
{
	q->peer = tag->identity;
	q->peer_tag = carrier;
	q->proof = tag->identity == BH_ID_UNIDENTIFIED ? BH_PROOF_NONE : BH_PROOF_VERIFIED;
	bh_valid_until(q, tag->deadline_ns);
}

/* Of a peer with an identity, by its tag. By itself, so that it takes nothing of the stack while the tables are searched. */
BH_GLOBAL __u32 bh_peer_by_tag(struct bh_query *q)
{
	struct bh_tag tag;

	if (!q)
		return BH_ID_UNIDENTIFIED;
	if (!bh_tag_get(&tag, q->peer_tag, q->now) || tag.deadline_ns <= q->now)
		return BH_ID_UNIDENTIFIED;
	if (tag.identity == q->peer || tag.identity == BH_ID_UNIDENTIFIED)
		bh_valid_until(q, tag.deadline_ns);
	return tag.identity == q->peer ? q->peer : BH_ID_UNIDENTIFIED;
}

/* The peer's identity as it counts now. A connection remembers the tag that gave it, not the identity alone: where that
 * tag has ended, the peer is nobody, whoever else carries the same identity. Lowers valid_until to its end. */
static __always_inline __u32 bh_peer_alive(struct bh_query *q)
{
	if (q->peer < BH_ID_FIRST)
		return q->peer;
	if (q->vouched && q->now < q->peer_until) {
		bh_valid_until(q, q->peer_until);
		return q->peer;
	}
	return bh_peer_by_tag(q);
}

/* The peer is the workload of a managed device: sets peer and proof by the device's tag, and lowers valid_until to its end. A
 * device without a tag in force is nobody. */
static __always_inline void bh_peer_by_device(struct bh_query *q, __u64 device)
{
	struct bh_tag tag;

	q->peer = BH_ID_UNIDENTIFIED;
	q->proof = BH_PROOF_NONE;
	if (bh_tag_get(&tag, device, q->now) && tag.deadline_ns > q->now)
		bh_peer_take(q, device, &tag);
}

/*
 * Services are reached by the same clients again and again, at a new connection each time: what was judged is kept, for each
 * CPU, with all that went into it. A place is written once under a state word and then stays until another word is in
 * force; so who finds the same word before and after reading has read one judgement.
 */
static __always_inline struct bh_judged *bh_judged_of(const struct bh_query *q, __u32 peer, __u16 port)
{
	__u64 h = (__u64)q->remote.w[3] << 32 | q->local.w[3];
	__u32 key;

	h ^= (__u64)q->subject << 40 ^ (__u64)peer << 24 ^ (__u64)port << 4 ^ q->direction;
	key = h * 0x9e3779b97f4a7c15ULL >> (64 - BH_JUDGED_BITS);
	return bpf_map_lookup_elem(&judged, &key);
}

/* What was judged of the same; returns whether there is anything. */
static __always_inline bool bh_judged_get(const struct bh_judged *j, struct bh_query *q, __u32 peer, __u16 port)
{
	__u64 until;

	if (!j || *(const volatile __u64 *)&j->word != q->word || j->subject != q->subject || j->peer != peer ||
	    j->port != port || j->proto != q->proto || j->direction != q->direction ||
	    !bh_addr_equal(&j->remote, &q->remote) || !bh_addr_equal(&j->local, &q->local))
		return false;
	until = j->valid_until;
	q->cell = j->cell;
	asm volatile("" ::: "memory");
	if (*(const volatile __u64 *)&j->word != q->word || q->now >= until)
		return false;
	if (until < q->valid_until)
		q->valid_until = until;
	return true;
}

/* Keeps it, where nothing of this word is kept yet. A program that interrupts this one finds the place taken. */
static __always_inline void bh_judged_put(struct bh_judged *j, const struct bh_query *q, __u32 peer, __u16 port,
					  __u64 until)
{
	__u64 before;

	if (!j)
		return;
	before = *(volatile __u64 *)&j->word;
	if (before >= q->word || before == BH_JUDGED_WRITING ||
	    __sync_val_compare_and_swap(&j->word, before, BH_JUDGED_WRITING) != before)
		return;
	j->valid_until = until;
	j->local = q->local;
	j->remote = q->remote;
	j->subject = q->subject;
	j->peer = peer;
	j->cell = q->cell;
	j->port = port;
	j->proto = q->proto;
	j->direction = q->direction;
	asm volatile("" ::: "memory");
	*(volatile __u64 *)&j->word = q->word;
}

/* By the tables. Returns until when it holds. */
BH_GLOBAL __u64 bh_judge_by_tables(struct bh_query *q, __u32 peer)
{
	__u64 until = ~0ULL;
	struct bh_flow flow;
	__u32 slot;
	__u8 *t;

	if (!q)
		return 0;
	slot = BH_WORD_SLOT(q->word);
	t = bh_tables_of(slot);
	if (!t)
		return 0;
	if (q->direction == BH_EGRESS) {
		flow.from_who = bh_who(slot, q->subject);
		flow.from_addr = bh_addr_class(t, &q->local);
		flow.to_who = bh_who(slot, peer);
		flow.to_addr = bh_addr_class(t, &q->remote);
		flow.point = bh_service_point(q->proto, q->rport);
	} else {
		flow.from_who = bh_who(slot, peer);
		flow.from_addr = bh_addr_class(t, &q->remote);
		flow.to_who = bh_who(slot, q->subject);
		flow.to_addr = bh_addr_class(t, &q->local);
		flow.point = bh_service_point(q->proto, q->lport);
	}
	q->cell = bh_decide(t, q->direction & 1, &flow, q->now, &until);
	return until;
}

/* Judges q's flow in q->direction: sets cell, allow, reason. */
BH_GLOBAL int bh_judge(struct bh_query *q)
{
	struct bh_judged *j;
	__u64 until;
	__u32 alive;
	__u16 port;

	if (!q)
		return 0;
	q->cell = 0;
	alive = bh_peer_alive(q);
	port = q->direction == BH_EGRESS ? q->rport : q->lport;
	j = bh_judged_of(q, alive, port);
	if (!bh_judged_get(j, q, alive, port)) {
		until = bh_judge_by_tables(q, alive);
		bh_judged_put(j, q, alive, port, until);
		if (until < q->valid_until)
			q->valid_until = until;
	}
	q->allow = !!(q->cell & BH_CELL_ALLOW);
	q->reason = BH_REASON_POLICY;
	if (q->allow || BH_CELL_RULE(q->cell) != 0)
		return 0;
	if (q->subject == BH_ID_UNIDENTIFIED)
		q->reason = q->expired ? BH_REASON_EXPIRED : BH_REASON_NO_IDENTITY;
	else if (alive != q->peer)
		q->reason = BH_REASON_PEER_ENDED;
	return 0;
}

/* The flow as its other end sees it; twice, as it was. */
BH_GLOBAL int bh_ends_swap(struct bh_query *q)
{
	struct bh_addr addr;
	__u32 identity;
	__u16 port;
	__u64 tag;

	if (!q)
		return 0;
	addr = q->local;
	q->local = q->remote;
	q->remote = addr;
	port = q->lport;
	q->lport = q->rport;
	q->rport = port;
	identity = q->subject;
	q->subject = q->peer;
	q->peer = identity;
	tag = q->subject_tag;
	q->subject_tag = q->peer_tag;
	q->peer_tag = tag;
	q->direction = !q->direction;
	return 0;
}

/*
 * What has arrived was judged by its sender's end under a state word that is no longer in force, or not yet in force here:
 * it passes if the word of this packet allows it at both ends. q holds this end's verdict; changes it where the other end's is
 * due and denies. Lowers valid_until. In the caller's frame, because the chain of calls below is as long as it may be.
 */
static __always_inline void bh_judge_sender(struct bh_query *q)
{
	__u32 cell = q->cell, peer = q->peer;

	/* Who shows nothing is no workload of this host, and judges nothing. */
	if (!q->allow || !q->stale || q->proof != BH_PROOF_VERIFIED)
		return;
	q->peer = bh_peer_alive(q);
	bh_ends_swap(q);
	bh_judge(q);
	bh_ends_swap(q);
	q->peer = peer;
	if (q->allow)
		q->cell = cell;
	else
		q->reason = BH_REASON_OVERTAKEN;
}

/* What is allowed, and was judged before: what bh_judge() would say of it, without a call. */
static __always_inline bool bh_judged_allowed(struct bh_query *q)
{
	__u16 port = q->direction == BH_EGRESS ? q->rport : q->lport;
	__u32 alive = bh_peer_alive(q);

	if (!bh_judged_get(bh_judged_of(q, alive, port), q, alive, port) || !(q->cell & BH_CELL_ALLOW))
		return false;
	q->allow = 1;
	q->reason = BH_REASON_POLICY;
	return true;
}

/* Judges what has just arrived: as bh_judge(), and for the sender's end where that is due. */
static __always_inline void bh_judge_arrived(struct bh_query *q)
{
	if (!bh_judged_allowed(q))
		bh_judge(q);
	bh_judge_sender(q);
}

/* By itself, so that what it needs of the stack is free again when it has returned. */
BH_GLOBAL int bh_flow_possible(const struct bh_query *q)
{
	__u32 slot;
	__u8 *t;

	if (!q)
		return 0;
	slot = BH_WORD_SLOT(q->word);
	t = bh_tables_of(slot);
	if (!t)
		return 0;
	return bh_possible(t, bh_who(slot, q->subject), bh_addr_class(t, &q->remote),
			   bh_service_point(q->proto, q->rport));
}

/* The same, if it was asked before. The answer does not depend on time, or on the local address. */
static __always_inline bool bh_possible_known(struct bh_query *q)
{
	struct bh_judged *j = bh_judged_of(q, 0, q->rport);
	__u32 cell = q->cell, possible;

	if (!bh_judged_get(j, q, 0, q->rport)) {
		q->cell = bh_flow_possible(q) ? BH_CELL_ALLOW : 0;
		bh_judged_put(j, q, 0, q->rport, ~0ULL);
	}
	/* Of no judgement yet. */
	possible = q->cell;
	q->cell = cell;
	return !!(possible & BH_CELL_ALLOW);
}

/* Can any egress rule allow q's flow, whoever answers? If not, sets the verdict that the caller is told. */
BH_GLOBAL int bh_judge_possible(struct bh_query *q)
{
	if (!q)
		return 0;
	q->direction = BH_POSSIBLE;
	q->allow = bh_possible_known(q);
	q->direction = BH_EGRESS;
	if (q->allow)
		return 0;
	/* For the log: what would be said of a peer that shows nothing. */
	q->peer = BH_ID_WORLD;
	bh_judge(q);
	q->proof = BH_PROOF_UNASKED;
	q->allow = 0;
	if (q->reason == BH_REASON_POLICY && BH_CELL_RULE(q->cell) == 0)
		q->reason = BH_REASON_IMPOSSIBLE;
	return 0;
}

/* ---- events ---- */

BH_GLOBAL int bh_event_write(const struct bh_query *q, __u32 count, __u64 first_ns)
{
	struct bh_event *e;
	__u32 zero = 0, slot;
	struct bh_state *s = bpf_map_lookup_elem(&state, &zero);

	if (!q)
		return 0;
	slot = BH_WORD_SLOT(q->word);
	BH_COUNT(events_made);
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		BH_COUNT(events_lost);
		return 0;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->time_ns = bpf_ktime_get_boot_ns();
	e->first_ns = first_ns;
	e->cgroup = q->cgroup;
	e->cookie = q->cookie;
	e->subject = q->subject;
	e->peer = q->peer;
	e->revision = s ? s->revision[slot] : 0;
	e->rule = BH_CELL_RULE(q->cell);
	e->count = count;
	if (q->direction == BH_EGRESS) {
		e->src = q->local;
		e->dst = q->remote;
		e->sport = q->lport;
		e->dport = q->rport;
	} else {
		e->src = q->remote;
		e->dst = q->local;
		e->sport = q->rport;
		e->dport = q->lport;
	}
	e->proto = q->proto;
	e->direction = q->direction;
	e->verdict = q->allow && (q->cell & BH_CELL_AUDIT) ? BH_VERDICT_WOULD_DENY : q->allow;
	e->reason = q->reason;
	e->proof = q->proof;
	e->again = q->again;
	if (q->pid) {
		e->pid = q->pid;
		bpf_get_current_comm(e->comm, sizeof(e->comm));
	}
	bpf_ringbuf_submit(e, 0);
	return 0;
}

/* Counts q's verdict for the pair of its two ends. */
static __always_inline void bh_pair_judged(const struct bh_query *q)
{
	struct bh_pair_key key = {};
	struct bh_pair *pair;

	key.subject = q->subject;
	key.peer = q->peer;
	key.direction = q->direction;
	key.proto = q->proto;
	pair = bh_pair_of(&key);
	if (!pair)
		return;
	pair->seen_ns = q->now;
	__sync_fetch_and_add(q->allow ? &pair->flows : &pair->denied, 1);
}

/* By itself, so that it takes nothing of the stack while the denial is reported. */
BH_GLOBAL int bh_pair_denied(const struct bh_query *q)
{
	if (q)
		bh_pair_judged(q);
	return 0;
}

/* A denial of the same kind within a second is counted, not reported: a flood must not cost the log its other lines. Returns how
 * many packets the event is for, 0: none is due; *first_ns is the time of the first of them. */
BH_GLOBAL __u64 bh_denial_fold(const struct bh_query *q, __u64 *first_ns)
{
	struct bh_denial_key key = {};
	struct bh_denial *d, fresh = {};
	__u64 count;

	if (!q || !first_ns)
		return 0;
	key.cgroup = q->cgroup;
	key.remote = q->remote;
	key.peer = q->peer;
	key.rule = BH_CELL_RULE(q->cell);
	key.port = q->direction == BH_EGRESS ? q->rport : q->lport;
	key.proto = q->proto;
	key.direction = q->direction;
	key.reason = q->reason;
	key.proof = q->proof;
	fresh.reported_ns = q->now;

	*first_ns = q->now;
	d = bpf_map_lookup_elem(&denials, &key);
	if (!d) {
		bpf_map_update_elem(&denials, &key, &fresh, BPF_ANY);
		return 1;
	}
	/* Signed: another CPU may have reported after our clock was read. */
	if ((__s64)(q->now - d->reported_ns) < (__s64)BH_SECOND) {
		if (__sync_fetch_and_add(&d->count, 1) == 0)
			d->first_ns = q->now;
		BH_COUNT(denials_folded);
		return 0;
	}
	d->reported_ns = q->now;
	if (d->count)
		*first_ns = d->first_ns;
	count = __sync_lock_test_and_set(&d->count, 0);
	return count + 1;
}

BH_GLOBAL int bh_report_denied(struct bh_query *q)
{
	__u64 count, first = 0;

	if (!q)
		return 0;
	BH_COUNT(packets_denied);
	BH_COUNT(denied[q->reason % 32]);
	bh_pair_denied(q);
	if (q->reason <= BH_REASON_EXPIRED || q->reason == BH_REASON_IMPOSSIBLE || q->reason == BH_REASON_PEER_ENDED) {
		if (!(q->cell & BH_CELL_LOG_DENIED))
			return 0;
	}
	count = bh_denial_fold(q, &first);
	if (count)
		bh_event_write(q, count, first);
	return 0;
}

/* Records the verdict as the cell asks. */
static __always_inline void bh_report(struct bh_query *q)
{
	if (!q->allow) {
		bh_report_denied(q);
		return;
	}
	if (!q->again) {
		BH_COUNT(flows_allowed);
		bh_pair_judged(q);
	}
	if ((q->cell & BH_CELL_LOG_ALLOWED) && (!q->again || (q->cell & BH_CELL_LOG_AGAIN)))
		bh_event_write(q, 1, q->now);
}

/* Structural refusal: no policy was asked. */
static __always_inline void bh_refuse(struct bh_query *q, __u8 reason)
{
	q->allow = 0;
	q->cell = 0;
	q->reason = reason;
	bh_report_denied(q);
}

#endif
