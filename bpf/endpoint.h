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

#include "order.h"
#include "ticket.h"

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
static __always_inline void bh_endpoint_leave(struct bh_udp_sock *us)
{
	struct bh_endpoint_key key = {.addr = us->local, .netns = us->netns, .port = us->lport};
	struct bh_endpoint *e;

	if (__sync_lock_test_and_set(&us->registered, 0) != 1)
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
static __always_inline int bh_endpoint_move(struct bh_udp_sock *us, const struct bh_addr *bound, __u16 port,
					    const struct bh_endpoint *fresh)
{
	struct bh_endpoint_key key = {.addr = *bound, .netns = us->netns, .port = port};

	bh_endpoint_leave(us);
	if (__sync_lock_test_and_set(&us->registered, 1))
		return 0;
	us->local = *bound;
	us->lport = port;
	if (!bh_endpoint_add(&key, fresh))
		return 0;
	__sync_lock_test_and_set(&us->registered, 0);
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

/* What is known of an address. */
enum bh_known {
	BH_KNOWN_NOT,	   /* it is none of this host */
	BH_KNOWN_OWNER,	   /* of one namespace or device, or of several that have it */
	BH_KNOWN_UNLISTED, /* there was no room to say whose */
};

/* The namespace, or managed device, that holds an address: the own one on the loopback device, else as the enforcer found it.
 * 0: none, or several, or not known. */
static __always_inline __u64 bh_netns_of(const struct bh_addr *addr, __u64 own, __u32 loopback, enum bh_known *knownp)
{
	__u64 *other;

	*knownp = BH_KNOWN_OWNER;
	if (loopback || bh_addr_is_loopback(addr))
		return own;
	other = bpf_map_lookup_elem(&addresses, addr);
	if (other)
		return *other;
	*knownp = bh_addr_is_unlisted(addr) ? BH_KNOWN_UNLISTED : BH_KNOWN_NOT;
	return 0;
}

/* Where q's UDP flow goes: sets peer, proof and lowers valid_until to the peer's deadline. `loopback`: the packet is on
 * the loopback device. Returns the registration's cookie, 0 if nobody is registered there. */
BH_GLOBAL __u64 bh_peer_of_destination(struct bh_query *q, __u64 own_netns, __u32 loopback)
{
	struct bh_endpoint *e = 0;
	enum bh_known known;
	__u64 netns, cookie;
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
		q->peer = known == BH_KNOWN_NOT ? BH_ID_WORLD : netns ? BH_ID_HOST : BH_ID_UNIDENTIFIED;
		q->unlisted = known == BH_KNOWN_UNLISTED;
		return 0;
	}
	cookie = *(volatile __u64 *)&e->cookie;
	bh_barrier();
	q->peer = BH_ID_UNIDENTIFIED;
	if (e->shared)
		return cookie;
	for (i = 0; i < BH_MAX_DEPTH; i++) {
		__u64 id = e->levels[i];
		struct bh_tag tag;

		if (!id)
			break;
		if (!bh_tag_get(&tag, id, q->now))
			continue;
		q->peer = BH_ID_UNIDENTIFIED;
		if (tag.deadline_ns > q->now)
			bh_peer_take(q, id, &tag);
	}
	/* The kernel gives its memory to another at once (seal.h). It has no seal, because sockets come to it and leave it where it
	 * stands; so it is asked for again: if it was another's meanwhile, the peer is nobody. */
	bh_barrier();
	if (bh_endpoint_find(&q->remote, q->rport, netns) != e || *(volatile __u64 *)&e->cookie != cookie) {
		q->peer = BH_ID_UNIDENTIFIED;
		q->proof = BH_PROOF_NONE;
	}
	return cookie;
}

/*
 * Where q's datagram, of `segments`, comes from: sets peer, proof and ticket. Without a ticket the sender is `world`, or `host`
 * on the loopback device; but never where a managed socket stands under its address: that one would have a ticket.
 * Returns the cookie of the sender's socket, 0 without ticket.
 */
BH_GLOBAL __u64 bh_peer_of_source(struct bh_query *q, __u64 own_netns, __u32 loopback, __u32 segments)
{
	enum bh_known known;
	__u64 netns, cookie;

	if (!q)
		return 0;
	cookie = bh_ticket_take(q, loopback ? own_netns : 0, segments);
	if (cookie)
		return cookie;
	q->proof = BH_PROOF_NONE;
	netns = bh_netns_of(&q->remote, own_netns, loopback, &known);
	if (known != BH_KNOWN_NOT &&
	    (!netns || (netns & BH_DEVICE_BIT) || bh_endpoint_find(&q->remote, q->rport, netns)))
		q->peer = BH_ID_UNIDENTIFIED;
	else
		q->peer = loopback ? BH_ID_HOST : BH_ID_WORLD;
	return 0;
}

#endif
