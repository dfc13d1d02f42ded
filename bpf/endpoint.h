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

static __always_inline void bh_endpoint_drop(const struct bh_endpoint_key *key)
{
	struct bh_endpoint *e = bpf_map_lookup_elem(&endpoints, key);

	if (e && __sync_fetch_and_add(&e->refs, -1) == 1)
		bpf_map_delete_elem(&endpoints, key);
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

/*
 * Finds the peer of q's UDP flow: sets peer, proof and lowers valid_until to the peer's deadline. `loopback`: the packet
 * is on the loopback device. Returns the registration's cookie, 0 if the peer is known by address only.
 */
BH_GLOBAL __u64 bh_peer_of_endpoint(struct bh_query *q, __u64 netns, __u32 loopback)
{
	struct bh_endpoint *e = 0;
	__u64 *other, cookie;
	__u32 i;

	if (!q)
		return 0;
	q->proof = BH_PROOF_NONE;
	q->peer = BH_ID_HOST;
	if (!loopback && !bh_addr_is_loopback(&q->remote)) {
		other = bpf_map_lookup_elem(&addresses, &q->remote);
		if (!other) {
			q->peer = BH_ID_WORLD;
			return 0;
		}
		netns = *other;
	}
	if (netns)
		e = bh_endpoint_find(&q->remote, q->rport, netns);
	if (!e)
		return 0;

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
			q->peer = tag->identity;
			q->proof = BH_PROOF_VERIFIED;
			if (tag->deadline_ns < q->valid_until)
				q->valid_until = tag->deadline_ns;
		}
	}
	return cookie;
}

#endif
