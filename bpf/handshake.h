/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * handshake.h - the identity in the TCP handshake: the option, its MAC, and the ticket that makes a SYN good for once.
 */
#ifndef BULKHEAD_BPF_HANDSHAKE_H
#define BULKHEAD_BPF_HANDSHAKE_H

#include "judge.h"
#include "siphash.h"

/* The key that protects traffic with a peer. One key per boot while all keys stay on this host; a later epoch or a key
 * shared with another host is found here, by the peer's address. */
static __always_inline struct bh_key *bh_key_of(const struct bh_addr *peer)
{
	__u32 epoch = 0;

	(void)peer;
	return bpf_map_lookup_elem(&keys, &epoch);
}

/*
 * Is a segment to this address to show who sends it? To where a workload of this host can be: loopback, the namespaces'
 * addresses, and all private ones (an address is known a moment after its namespace is; a container's is private). On the
 * public Internet nobody could check it, some would drop it, and all could read it.
 */
static __always_inline bool bh_shows_identity(const struct bh_addr *to)
{
	__u32 v4 = bpf_ntohl(to->w[3]), top = bpf_ntohl(to->w[0]);

	if (bh_addr_is_loopback(to))
		return true;
	if (bh_addr_is_v4(to)) {
		if ((v4 >> 24) == 10 || (v4 >> 20) == 0xac1 || (v4 >> 16) == 0xc0a8 || (v4 >> 22) == 0x191 ||
		    (v4 >> 16) == 0xa9fe)
			return true; /* 10/8, 172.16/12, 192.168/16, 100.64/10, 169.254/16 */
	} else if ((top >> 25) == 0x7e || (top >> 22) == 0x3fa) {
		return true; /* fc00::/7, fe80::/10 */
	}
	return bpf_map_lookup_elem(&addresses, to) != 0;
}

/* Finds the option in a parsed TCP packet. Returns 1 found, 0 absent, -1 malformed. */
BH_SUBPROGRAM int bh_option_find(struct __sk_buff *skb, const struct bh_packet *p, struct bh_tcpopt *out)
{
	__u32 off = p->transport + sizeof(struct tcphdr), end = p->transport + p->tcp_header;

	/* Our own kernel writes it last. */
	if (p->tcp_header >= sizeof(struct tcphdr) + BH_TCPOPT_LEN &&
	    !bpf_skb_load_bytes(skb, end - BH_TCPOPT_LEN, out, sizeof(*out)) && out->kind == BH_TCPOPT_KIND &&
	    out->len == BH_TCPOPT_LEN && out->exid == bpf_htons(BH_TCPOPT_EXID))
		return 1;
	/* 40 bytes of options at most, none shorter than one byte. */
	for (int i = 0; i < 40; i++) {
		__u8 kl[2];

		if (off >= end)
			return 0;
		if (bpf_skb_load_bytes(skb, off, kl, 1))
			return -1;
		if (kl[0] == 0)
			return 0;
		if (kl[0] == 1) {
			off++;
			continue;
		}
		if (off + 1 >= end || bpf_skb_load_bytes(skb, off, kl, 2) || kl[1] < 2)
			return -1;
		if (kl[0] == BH_TCPOPT_KIND && kl[1] == BH_TCPOPT_LEN) {
			if (off + BH_TCPOPT_LEN > end || bpf_skb_load_bytes(skb, off, out, sizeof(*out)))
				return -1;
			if (out->exid == bpf_htons(BH_TCPOPT_EXID))
				return 1;
		}
		off += kl[1];
	}
	return -1;
}

static __always_inline __u64 bh_option_mac(const struct bh_tcpopt *option)
{
	__u64 mac;

	__builtin_memcpy(&mac, option->mac, sizeof(mac));
	return mac;
}

static __always_inline void bh_syn_ticket_put(__u64 mac, __u64 tag, __u64 now)
{
	__u32 key = mac % BH_TICKET_SLOTS;
	struct bh_syn_ticket *slot = bpf_map_lookup_elem(&tickets, &key);

	if (slot) {
		slot->tag = tag;
		slot->time_ns = now;
		asm volatile("" ::: "memory");
		*(volatile __u64 *)&slot->mac = mac;
	}
}

/* One receiver gets it. A tag that another segment wrote into the slot meanwhile is noticed: it carries another identity,
 * or the same one. */
static __always_inline bool bh_syn_ticket_take(__u64 mac, __u64 now, __u64 *tag)
{
	__u32 key = mac % BH_TICKET_SLOTS;
	struct bh_syn_ticket *slot = bpf_map_lookup_elem(&tickets, &key);

	/* One that nobody took (the port was closed, the host is another) is void after a moment. */
	if (!slot || (__s64)(now - *(volatile __u64 *)&slot->time_ns) > (__s64)BH_SECOND)
		return false;
	*tag = *(volatile __u64 *)&slot->tag;
	return __sync_val_compare_and_swap(&slot->mac, mac, 0) == mac;
}

/* Is it under way? For who stands between sender and receiver, and leaves it to the receiver. */
static __always_inline bool bh_syn_ticket_peek(__u64 mac, __u64 now, __u64 *tag)
{
	__u32 key = mac % BH_TICKET_SLOTS;
	struct bh_syn_ticket *slot = bpf_map_lookup_elem(&tickets, &key);

	if (!slot || (__s64)(now - *(volatile __u64 *)&slot->time_ns) > (__s64)BH_SECOND)
		return false;
	*tag = *(volatile __u64 *)&slot->tag;
	return *(volatile __u64 *)&slot->mac == mac;
}

/* MAC over a segment from src to dst. */
BH_GLOBAL int bh_segment_mac(const struct bh_mac_input *input, __u64 *mac)
{
	struct bh_key *key;

	if (!input || !mac)
		return -1;
	key = bh_key_of((const struct bh_addr *)input->dst);
	if (!key)
		return -1;
	*mac = bh_mac(key, input);
	return 0;
}

/* Of a segment that arrived. */
static __always_inline void bh_mac_input_of(struct bh_mac_input *in, const struct bh_query *q,
					    const struct bh_packet *p, __be32 identity)
{
	__builtin_memcpy(in->src, q->remote.w, sizeof(in->src));
	__builtin_memcpy(in->dst, q->local.w, sizeof(in->dst));
	in->sport = bpf_htons(p->sport);
	in->dport = bpf_htons(p->dport);
	in->seq = p->seq;
	in->ack = p->tcp_flags & BH_TCP_ACK ? p->ack : 0;
	in->identity = identity;
}

/*
 * The workload of a managed device writes no option. What vouches for its SYN or SYN-ACK is a note of the device's program: a
 * ticket like those of sockets, under the MAC that the segment would have with this in the place of an identity.
 */
#define BH_NOTE_IDENTITY 0xffffffffU

/* Sets peer and proof by the note of a segment that arrived. `in` is room. Returns false if there is none. */
static __always_inline bool bh_peer_of_note(const struct bh_packet *p, struct bh_query *q, struct bh_mac_input *in,
					    bool take)
{
	__u64 mac = 0, device = 0;

	bh_mac_input_of(in, q, p, BH_NOTE_IDENTITY);
	if (bh_segment_mac(in, &mac))
		return false;
	if (take ? !bh_syn_ticket_take(mac, q->now, &device) : !bh_syn_ticket_peek(mac, q->now, &device))
		return false;
	bh_peer_by_device(q, device);
	return true;
}

/*
 * Who sent this SYN or SYN-ACK: sets peer and proof. Every managed socket of this host writes the option, also one
 * without identity, which is then verified to be `unidentified`. So a segment without it on the loopback device comes
 * from outside any workload: `host`. Elsewhere it is `world`, and so is who shows a wrong proof, wherever it came from.
 */
BH_SUBPROGRAM int bh_peer_of_segment(struct __sk_buff *skb, const struct bh_packet *p, struct bh_query *q)
{
	struct bh_tcpopt option;
	struct bh_mac_input in;
	__u64 mac = 0, shown;
	int found = bh_option_find(skb, p, &option);

	q->peer = BH_ID_WORLD;
	if (found == 0) {
		q->proof = BH_PROOF_NONE;
		if (skb->ifindex == 1)
			q->peer = BH_ID_HOST;
		else if (bh_devices_any())
			bh_peer_of_note(p, q, &in, true);
		return 0;
	}
	if (found < 0) {
		q->proof = BH_PROOF_MALFORMED;
		return 0;
	}
	bh_mac_input_of(&in, q, p, option.identity);
	shown = bh_option_mac(&option);
	if (bh_segment_mac(&in, &mac) || mac != shown ||
	    (option.identity && bpf_ntohl(option.identity) < BH_ID_FIRST)) {
		q->proof = BH_PROOF_FORGED;
		BH_COUNT(handshakes_forged);
		return 0;
	}
	if (!bh_syn_ticket_take(mac, q->now, &q->peer_tag)) {
		q->proof = BH_PROOF_REPLAYED;
		BH_COUNT(handshakes_replayed);
		return 0;
	}
	q->proof = BH_PROOF_VERIFIED;
	q->peer = bpf_ntohl(option.identity);
	BH_COUNT(handshakes_verified);
	return 0;
}

#endif
