/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * handshake.h - the identity in the TCP handshake: the option, its MAC, and the ticket that makes a SYN good for once.
 */
#ifndef BULKHEAD_BPF_HANDSHAKE_H
#define BULKHEAD_BPF_HANDSHAKE_H

#include "judge.h"
#include "siphash.h"

static __always_inline struct bh_key *bh_key_at(__u64 epoch)
{
	__u32 slot = epoch % BH_KEY_SLOTS;
	struct bh_key *key = bpf_map_lookup_elem(&keys, &slot);

	return key && key->since_ns ? key : 0;
}

/*
 * The key that protects traffic with a peer: the one in use, or the one before it as long as what it signed counts. The
 * clock that closes its window is read here, so a daemon that is gone keeps no key alive. All peers share the keys of this
 * host; keys shared with another host are to be found here, by the peer's address.
 */
static __always_inline struct bh_key *bh_key_of(const struct bh_addr *peer, bool before)
{
	__u32 zero = 0;
	struct bh_state *s = bpf_map_lookup_elem(&state, &zero);
	struct bh_key *key;
	__u64 epoch;

	(void)peer;
	if (!s)
		return 0;
	epoch = *(volatile __u64 *)&s->key_epoch;
	key = bh_key_at(epoch);
	if (!key || !before)
		return key;
	if (bpf_ktime_get_boot_ns() - key->since_ns >= BH_KEY_WINDOW_NS)
		return 0;
	return bh_key_at(epoch - 1);
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
	return bpf_map_lookup_elem(&addresses, to) || bh_addr_is_unlisted(to);
}

enum bh_option_found {
	BH_OPTION_MALFORMED = -1,
	BH_OPTION_NONE = 0,
	BH_OPTION_FULL = 1,
	BH_OPTION_SHORT = 2, /* of *out, only kind, len and exid are set */
};

/* Finds the option in a parsed TCP packet: enum bh_option_found. */
BH_SUBPROGRAM int bh_option_find(struct __sk_buff *skb, const struct bh_packet *p, struct bh_tcpopt *out)
{
	__u32 off = p->transport + sizeof(struct tcphdr), end = p->transport + p->tcp_header;

	/* Our own kernel writes it last. */
	if (p->tcp_header >= sizeof(struct tcphdr) + BH_TCPOPT_LEN &&
	    !bpf_skb_load_bytes(skb, end - BH_TCPOPT_LEN, out, sizeof(*out)) && out->kind == BH_TCPOPT_KIND &&
	    out->len == BH_TCPOPT_LEN && out->exid == bpf_htons(BH_TCPOPT_EXID))
		return BH_OPTION_FULL;
	/* 40 bytes of options at most, none shorter than one byte. */
	for (int i = 0; i < 40; i++) {
		__u8 kl[2];

		if (off >= end)
			return BH_OPTION_NONE;
		if (bpf_skb_load_bytes(skb, off, kl, 1))
			return BH_OPTION_MALFORMED;
		if (kl[0] == 0)
			return BH_OPTION_NONE;
		if (kl[0] == 1) {
			off++;
			continue;
		}
		if (off + 1 >= end || bpf_skb_load_bytes(skb, off, kl, 2) || kl[1] < 2)
			return BH_OPTION_MALFORMED;
		if (kl[0] == BH_TCPOPT_KIND && kl[1] == BH_TCPOPT_LEN) {
			if (off + BH_TCPOPT_LEN > end || bpf_skb_load_bytes(skb, off, out, sizeof(*out)))
				return BH_OPTION_MALFORMED;
			if (out->exid == bpf_htons(BH_TCPOPT_EXID))
				return BH_OPTION_FULL;
		}
		if (kl[0] == BH_TCPOPT_KIND && kl[1] == BH_TCPOPT_SHORT_LEN) {
			if (off + BH_TCPOPT_SHORT_LEN > end || bpf_skb_load_bytes(skb, off, out, BH_TCPOPT_SHORT_LEN))
				return BH_OPTION_MALFORMED;
			if (out->exid == bpf_htons(BH_TCPOPT_EXID))
				return BH_OPTION_SHORT;
		}
		off += kl[1];
	}
	return BH_OPTION_MALFORMED;
}

static __always_inline __u64 bh_option_mac(const struct bh_tcpopt *option)
{
	__u64 mac;

	__builtin_memcpy(&mac, option->mac, sizeof(mac));
	return mac;
}

static __always_inline __be32 bh_ack_of(const struct bh_packet *p)
{
	return p->tcp_flags & BH_TCP_ACK ? p->ack : 0;
}

/* Initial sequence numbers are the kernel's own secret hash of the connection, and spread by themselves. */
static __always_inline struct bh_syn_tickets *bh_syn_tickets_of(__be32 seq)
{
	__u32 bucket = bpf_ntohl(seq) % BH_TICKET_BUCKETS;

	return bpf_map_lookup_elem(&tickets, &bucket);
}

/* One that nobody took (the port was closed, the host is another) is void after a moment. The clock of another CPU may be a
 * little ahead of ours. */
static __always_inline bool bh_syn_ticket_is_fresh(const struct bh_syn_ticket *ticket, __u64 now)
{
	const __u32 ahead = 32, lasts = BH_SECOND / BH_SYN_TICKET_NS;

	return (__u32)(now / BH_SYN_TICKET_NS) - *(const volatile __u32 *)&ticket->time + ahead <= lasts + ahead;
}

/* Where a segment that is about to leave is noted: in its own place if it is sent again, else in one that is free, else in that
 * of the oldest, which is most likely one that nobody here will take. */
static __always_inline __u32 bh_syn_ticket_way(const struct bh_syn_tickets *t, __be32 seq, __be32 ack, __u32 time)
{
	__u32 best = 0, oldest = 0;

#pragma unroll
	for (__u32 i = 0; i < BH_TICKET_WAYS; i++) {
		const struct bh_syn_ticket *ticket = &t->way[i];
		__u32 age = *(const volatile __u64 *)&ticket->mac ? time - *(const volatile __u32 *)&ticket->time : ~0U;

		if (*(const volatile __be32 *)&ticket->seq == seq && *(const volatile __be32 *)&ticket->ack == ack)
			return i;
		if (age > oldest) {
			oldest = age;
			best = i;
		}
	}
	return best;
}

/* Notes a segment that is about to leave. `ack` is 0 in a SYN. */
static __always_inline void bh_syn_ticket_put(__be32 seq, __be32 ack, __u64 mac, __u64 tag, __u64 word, __u64 now)
{
	struct bh_syn_tickets *t = bh_syn_tickets_of(seq);
	__u32 time = now / BH_SYN_TICKET_NS;
	struct bh_syn_ticket *ticket;

	if (!t)
		return;
	ticket = &t->way[bh_syn_ticket_way(t, seq, ack, time) & (BH_TICKET_WAYS - 1)];
	ticket->tag = tag;
	ticket->time = time;
	ticket->state = word;
	ticket->seq = seq;
	ticket->ack = ack;
	asm volatile("" ::: "memory");
	*(volatile __u64 *)&ticket->mac = mac;
}

/* The ticket of this very segment, if this kernel sent it with an identity, and it was not received yet; else NULL. It
 * stays: the genuine segment may still come, and this one be a copy that an onlooker made. */
static __always_inline struct bh_syn_ticket *bh_syn_ticket_out(const struct bh_packet *p, __u64 now)
{
	struct bh_syn_tickets *t = bh_syn_tickets_of(p->seq);
	__be32 ack = bh_ack_of(p);

	if (!t)
		return 0;
#pragma unroll
	for (__u32 i = 0; i < BH_TICKET_WAYS; i++) {
		struct bh_syn_ticket *ticket = &t->way[i];

		if (*(volatile __u64 *)&ticket->mac && *(volatile __be32 *)&ticket->seq == p->seq &&
		    *(volatile __be32 *)&ticket->ack == ack)
			return bh_syn_ticket_is_fresh(ticket, now) ? ticket : 0;
	}
	return 0;
}

/* What a ticket says beside who may take it: by which tag its sender has its identity, and whether that end judged it under
 * another state word. */
static __always_inline void bh_syn_ticket_read(const struct bh_syn_ticket *ticket, struct bh_query *q)
{
	q->peer_tag = *(const volatile __u64 *)&ticket->tag;
	q->stale = *(const volatile __u32 *)&ticket->state != (__u32)q->word;
}

/* One receiver gets it. A tag that another segment wrote into the place meanwhile is noticed: it carries another identity,
 * or the same one. Sets peer_tag and stale. */
static __always_inline bool bh_syn_ticket_take(const struct bh_packet *p, __u64 mac, struct bh_query *q)
{
	struct bh_syn_ticket *ticket = bh_syn_ticket_out(p, q->now);

	if (!ticket)
		return false;
	bh_syn_ticket_read(ticket, q);
	return __sync_val_compare_and_swap(&ticket->mac, mac, 0) == mac;
}

/* Is it under way? For who stands between sender and receiver, and leaves it to the receiver. Likewise. */
static __always_inline bool bh_syn_ticket_peek(const struct bh_packet *p, __u64 mac, struct bh_query *q)
{
	struct bh_syn_ticket *ticket = bh_syn_ticket_out(p, q->now);

	if (!ticket)
		return false;
	bh_syn_ticket_read(ticket, q);
	return *(volatile __u64 *)&ticket->mac == mac;
}

/* MAC over a segment from src to dst that is sent now. */
BH_GLOBAL int bh_segment_mac(const struct bh_mac_input *input, __u64 *mac)
{
	struct bh_key *key;

	if (!input || !mac)
		return -1;
	key = bh_key_of((const struct bh_addr *)input->dst, false);
	if (!key)
		return -1;
	*mac = bh_mac(key, input);
	return 0;
}

/* Does this MAC belong to a segment that arrived? 1: yes. */
BH_GLOBAL int bh_segment_verify(const struct bh_mac_input *input, __u64 shown)
{
	struct bh_key *key;

	if (!input)
		return 0;
	key = bh_key_of((const struct bh_addr *)input->src, false);
	if (!key)
		return 0;
	if (bh_mac(key, input) == shown)
		return 1;
	key = bh_key_of((const struct bh_addr *)input->src, true);
	return key && bh_mac(key, input) == shown;
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
	in->ack = bh_ack_of(p);
	in->identity = identity;
}

/* The ticket of a segment that q's socket sends with the option `found`; a short one says there what it has no room for. A
 * full one has been compared with the subject. Returns 0, or -1 without a key. */
BH_SUBPROGRAM int bh_option_ticket(const struct bh_query *q, const struct bh_packet *p, const struct bh_tcpopt *option,
				   int found)
{
	struct bh_mac_input in;
	__u64 mac;

	if (found == BH_OPTION_FULL) {
		mac = bh_option_mac(option);
	} else {
		__builtin_memcpy(in.src, q->local.w, sizeof(in.src));
		__builtin_memcpy(in.dst, q->remote.w, sizeof(in.dst));
		in.sport = bpf_htons(p->sport);
		in.dport = bpf_htons(p->dport);
		in.seq = p->seq;
		in.ack = bh_ack_of(p);
		in.identity = bpf_htonl(q->subject);
		if (bh_segment_mac(&in, &mac))
			return -1;
	}
	bh_syn_ticket_put(p->seq, bh_ack_of(p), mac, q->subject_tag, q->word, q->now);
	return 0;
}

/* Fills in what a short option leaves to the ticket: from then on it is judged like a full one. Returns false without
 * ticket. */
static __always_inline bool bh_option_lengthen(const struct bh_packet *p, struct bh_tcpopt *option, __u64 now)
{
	struct bh_syn_ticket *ticket = bh_syn_ticket_out(p, now);
	struct bh_tag *tag;
	__u64 cgroup, mac;

	if (!ticket)
		return false;
	mac = *(volatile __u64 *)&ticket->mac;
	cgroup = *(volatile __u64 *)&ticket->tag;
	tag = bpf_map_lookup_elem(&tags, &cgroup);
	option->identity = tag ? bpf_htonl(tag->identity) : BH_ID_UNIDENTIFIED;
	__builtin_memcpy(option->mac, &mac, sizeof(mac));
	return true;
}

/*
 * The workload of a managed device writes no option. What vouches for its SYN or SYN-ACK is a note of the device's program: a
 * ticket like those of sockets, under the MAC that the segment would have with this in the place of an identity.
 */
#define BH_NOTE_IDENTITY 0xffffffffU

/* Sets peer and proof by the note of a segment that arrived without option, and whose ticket is out. `in` is room. Returns
 * false if that is no note. */
static __always_inline bool bh_peer_of_note(const struct bh_packet *p, struct bh_query *q, struct bh_mac_input *in,
					    bool take)
{
	struct bh_syn_ticket *ticket = bh_syn_ticket_out(p, q->now);
	__u64 mac;

	if (!ticket)
		return false;
	mac = *(volatile __u64 *)&ticket->mac;
	bh_mac_input_of(in, q, p, BH_NOTE_IDENTITY);
	if (!bh_segment_verify(in, mac))
		return false;
	if (take ? !bh_syn_ticket_take(p, mac, q) : !bh_syn_ticket_peek(p, mac, q))
		return false;
	bh_peer_by_device(q, q->peer_tag);
	return true;
}

/*
 * Who sent this SYN or SYN-ACK: sets peer and proof. Every managed socket of this host writes the option, also one
 * without identity, which is then verified to be `unidentified`. So a segment without it on the loopback device comes
 * from outside any workload: `host`. Elsewhere it is `world`, and so is who shows a wrong proof, wherever it came from, or
 * whose proof something on the way has removed: what that was could as well have changed the segment.
 */
BH_SUBPROGRAM int bh_peer_of_segment(struct __sk_buff *skb, const struct bh_packet *p, struct bh_query *q)
{
	struct bh_tcpopt option;
	struct bh_mac_input in;
	__u64 shown;
	int found = bh_option_find(skb, p, &option);

	q->peer = BH_ID_WORLD;
	if (found == 0) {
		q->proof = BH_PROOF_NONE;
		/* What is under way is a device's note, or the ticket of an option that something has removed. */
		if (bh_syn_ticket_out(p, q->now)) {
			if (bh_peer_of_note(p, q, &in, true))
				return 0;
			q->proof = BH_PROOF_STRIPPED;
			BH_COUNT(handshakes_stripped);
		} else if (skb->ifindex == 1) {
			q->peer = BH_ID_HOST;
		}
		return 0;
	}
	if (found < 0) {
		q->proof = BH_PROOF_MALFORMED;
		return 0;
	}
	if (found == BH_OPTION_SHORT && !bh_option_lengthen(p, &option, q->now)) {
		q->proof = BH_PROOF_REPLAYED;
		BH_COUNT(handshakes_replayed);
		return 0;
	}
	bh_mac_input_of(&in, q, p, option.identity);
	shown = bh_option_mac(&option);
	if (!bh_segment_verify(&in, shown) || (option.identity && bpf_ntohl(option.identity) < BH_ID_FIRST)) {
		q->proof = BH_PROOF_FORGED;
		BH_COUNT(handshakes_forged);
		return 0;
	}
	if (!bh_syn_ticket_take(p, shown, q)) {
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
