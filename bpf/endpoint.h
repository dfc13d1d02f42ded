/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * endpoint.h - who holds a UDP address and port on this host.
 *
 * UDP has no handshake that could carry an identity, so both ends of a flow on this host find each other's socket in a
 * map kept by the hooks that see every bind and every first packet. An endpoint remembers the cgroup and its ancestors,
 * not an identity: the tags are read when it is looked up, so a tag that came or went since counts at once.
 */
#ifndef BULKHEAD_BPF_ENDPOINT_H
#define BULKHEAD_BPF_ENDPOINT_H

#include "judge.h"

/* Adds one socket to the endpoint `key`. Returns 0, or -1 if the map is full. */
BH_GLOBAL int bh_endpoint_add(const struct bh_endpoint_key *key, const struct bh_endpoint *fresh)
{
	struct bh_endpoint *e;

	if (!key || !fresh)
		return -1;
	e = bpf_map_lookup_elem(&endpoints, key);
	if (!e) {
		if (!bpf_map_update_elem(&endpoints, key, fresh, BPF_NOEXIST))
			return 0;
		e = bpf_map_lookup_elem(&endpoints, key); /* lost a race, or the map is full */
		if (!e) {
			BH_COUNT(map_full);
			return -1;
		}
	}
	__sync_fetch_and_add(&e->refs, 1);
	for (int i = 0; i < (int)BH_MAX_DEPTH; i++) {
		if (e->levels[i] != fresh->levels[i])
			e->shared = 1;
		if (!fresh->levels[i])
			break;
	}
	return 0;
}

/* The socket no longer stands in the map. Of two that ask, one does it. */
static __always_inline void bh_endpoint_leave(struct bh_sock *ss)
{
	struct bh_endpoint_key key = {.addr = ss->local, .netns = ss->netns, .port = ss->lport};
	struct bh_endpoint *e;

	if (__sync_lock_test_and_set(&ss->registered, 0) != 1)
		return;
	e = bpf_map_lookup_elem(&endpoints, &key);
	if (e && __sync_fetch_and_add(&e->refs, -1) == 1)
		bpf_map_delete_elem(&endpoints, &key);
}

/* Cookie of who is registered at exactly this address; 0: nobody. */
BH_GLOBAL __u64 bh_endpoint_cookie(const struct bh_addr *addr, __u64 netns, __u16 port)
{
	struct bh_endpoint_key key = {};
	struct bh_endpoint *e;

	if (!addr)
		return 0;
	key.addr = *addr;
	key.netns = netns;
	key.port = port;
	e = bpf_map_lookup_elem(&endpoints, &key);
	return e ? e->cookie : 0;
}

/* Registers the socket under the address and port it is bound to now, whatever it had before. Of two threads that send
 * first at once, one registers. What goes stale all the same (a disconnected socket has lost its port, and no hook tells
 * of it) is removed by the enforcer, and made again by the next packet if it was not stale. */
static __always_inline int bh_endpoint_move(struct bh_sock *ss, const struct bh_addr *bound, __u16 port,
					    const struct bh_endpoint *fresh)
{
	struct bh_endpoint_key key = {.addr = *bound, .netns = ss->netns, .port = port};

	bh_endpoint_leave(ss);
	if (__sync_lock_test_and_set(&ss->registered, 1))
		return 0;
	ss->local = *bound;
	ss->lport = port;
	if (!bh_endpoint_add(&key, fresh))
		return 0;
	__sync_lock_test_and_set(&ss->registered, 0);
	return -1;
}

static __always_inline struct bh_endpoint *bh_endpoint_find(const struct bh_addr *addr, __u16 port, __u64 netns)
{
	struct bh_endpoint_key key = {.addr = *addr, .netns = netns, .port = port};
	struct bh_endpoint *e = bpf_map_lookup_elem(&endpoints, &key);

	if (e)
		return e;
	if (bh_addr_is_v4(addr)) {
		key.addr.w[3] = 0;
		e = bpf_map_lookup_elem(&endpoints, &key);
		if (e)
			return e;
	}
	__builtin_memset(&key.addr, 0, sizeof(key.addr));
	return bpf_map_lookup_elem(&endpoints, &key);
}

/* The namespace, or managed device, that holds an address: the own one on the loopback device, else as the enforcer found it.
 * 0: none, or several. *knownp: it is an address of this host. */
static __always_inline __u64 bh_netns_of(const struct bh_addr *addr, __u64 own, __u32 loopback, bool *knownp)
{
	__u64 *other;

	*knownp = true;
	if (loopback || bh_addr_is_loopback(addr))
		return own;
	other = bpf_map_lookup_elem(&addresses, addr);
	*knownp = other != 0;
	return other ? *other : 0;
}

/* Where q's UDP flow goes: sets peer, proof and lowers valid_until to the peer's deadline. `loopback`: the packet is on
 * the loopback device. Returns the registration's cookie, 0 if nobody is registered there. */
BH_GLOBAL __u64 bh_peer_of_destination(struct bh_query *q, __u64 own_netns, __u32 loopback)
{
	struct bh_endpoint *e = 0;
	__u64 netns, cookie;
	bool known;
	__u32 i;

	if (!q)
		return 0;
	q->proof = BH_PROOF_NONE;
	netns = bh_netns_of(&q->remote, own_netns, loopback, &known);
	if (netns & BH_DEVICE_BIT) {
		bh_peer_by_device(q, netns);
		return netns;
	}
	if (netns)
		e = bh_endpoint_find(&q->remote, q->rport, netns);
	if (!e) {
		/* Of an address that several namespaces have, nobody knows who is meant. */
		q->peer = !known ? BH_ID_WORLD : netns ? BH_ID_HOST : BH_ID_UNIDENTIFIED;
		return 0;
	}
	cookie = e->cookie;
	q->peer = BH_ID_UNIDENTIFIED;
	if (e->shared)
		return cookie;
	for (i = 0; i < BH_MAX_DEPTH; i++) {
		__u64 id = e->levels[i];
		struct bh_tag *tag;

		if (!id)
			break;
		tag = bpf_map_lookup_elem(&tags, &id);
		if (!tag)
			continue;
		q->peer = BH_ID_UNIDENTIFIED;
		if (tag->deadline_ns > q->now) {
			q->peer_tag = id;
			q->peer = tag->identity;
			q->proof = BH_PROOF_VERIFIED;
			if (tag->deadline_ns < q->valid_until)
				q->valid_until = tag->deadline_ns;
		}
	}
	return cookie;
}

/* A datagram is under way this long at most; later its ticket is void. */
#define BH_TICKET_NS BH_SECOND
#define BH_TICKET_CREDITS_MAX 4096

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

/* Notes that `segments` datagrams of q's flow leave this socket. */
BH_GLOBAL int bh_ticket_write(struct bh_query *q, __u64 netns, __u32 segments)
{
	struct bh_ticket fresh = {}, *t;
	struct bh_tuple key;

	if (!q)
		return 0;
	bh_ticket_key(&key, &q->local, q->lport, &q->remote, q->rport, netns);
	t = bpf_map_lookup_elem(&udp_tickets, &key);
	if (t && t->cookie == q->cookie && t->identity == q->subject && t->tag == q->subject_tag &&
	    (__s64)(q->now - t->time_ns) < (__s64)BH_TICKET_NS) {
		t->time_ns = q->now;
		/* What is lost on the way leaves its credit; a few are enough for what can be under way. */
		if (t->credits < BH_TICKET_CREDITS_MAX)
			__sync_fetch_and_add(&t->credits, segments);
		return 0;
	}
	fresh.time_ns = q->now;
	fresh.tag = q->subject_tag;
	fresh.cookie = q->cookie;
	fresh.identity = q->subject;
	fresh.credits = (__s32)segments;
	bpf_map_update_elem(&udp_tickets, &key, &fresh, BPF_ANY);
	return 0;
}

static __always_inline bool bh_addr_is_multicast(const struct bh_addr *a)
{
	if (bh_addr_is_v4(a))
		return (bpf_ntohl(a->w[3]) >> 28) == 0xe || a->w[3] == 0xffffffff;
	return (bpf_ntohl(a->w[0]) >> 24) == 0xff;
}

/* Never below none: what finds no credit must not cost the next datagram its own. */
static __always_inline bool bh_credit_take(struct bh_ticket *t)
{
	for (int i = 0; i < 8; i++) {
		__s32 credits = *(volatile __s32 *)&t->credits;

		if (credits <= 0)
			return false;
		if (__sync_val_compare_and_swap(&t->credits, credits, credits - 1) == credits)
			return true;
	}
	return false;
}

/* Takes the ticket of q's datagram: sets peer and proof. Returns the cookie of the sender's socket, 0 if
 * there is none: no managed socket of this host sent it. */
BH_GLOBAL __u64 bh_ticket_take(struct bh_query *q, __u64 netns)
{
	struct bh_ticket *t;
	struct bh_tuple key;

	if (!q)
		return 0;
	bh_ticket_key(&key, &q->remote, q->rport, &q->local, q->lport, netns);
	t = bpf_map_lookup_elem(&udp_tickets, &key);
	if (!t || (__s64)(q->now - t->time_ns) >= (__s64)BH_TICKET_NS)
		return 0;
	/* To a group, one datagram arrives many times. */
	if (!bh_addr_is_multicast(&q->local) && !bh_credit_take(t))
		return 0;
	q->proof = BH_PROOF_VERIFIED;
	q->peer = t->identity;
	q->peer_tag = t->tag;
	return t->cookie;
}

/* Gives back what was taken by a look that decided nothing. */
static __always_inline void bh_ticket_return(struct bh_query *q, __u64 netns)
{
	struct bh_ticket *t;
	struct bh_tuple key;

	bh_ticket_key(&key, &q->remote, q->rport, &q->local, q->lport, netns);
	t = bpf_map_lookup_elem(&udp_tickets, &key);
	if (t)
		__sync_fetch_and_add(&t->credits, 1);
}

/*
 * Where q's datagram comes from: sets peer and proof. Without a ticket the sender is `world`, or `host`
 * on the loopback device; but never where a managed socket stands under its address: that one would have a ticket.
 * Returns the cookie of the sender's socket, 0 without ticket.
 */
BH_GLOBAL __u64 bh_peer_of_source(struct bh_query *q, __u64 own_netns, __u32 loopback)
{
	__u64 netns, cookie;
	bool known;

	if (!q)
		return 0;
	cookie = bh_ticket_take(q, loopback ? own_netns : 0);
	if (cookie)
		return cookie;
	q->proof = BH_PROOF_NONE;
	netns = bh_netns_of(&q->remote, own_netns, loopback, &known);
	if (known && (!netns || (netns & BH_DEVICE_BIT) || bh_endpoint_find(&q->remote, q->rport, netns)))
		q->peer = BH_ID_UNIDENTIFIED;
	else
		q->peer = loopback ? BH_ID_HOST : BH_ID_WORLD;
	return 0;
}

#endif
