/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * handshake.h - the identity in the TCP handshake: the option, its MAC, and the ticket that makes a SYN good for once.
 */
#ifndef BULKHEAD_BPF_HANDSHAKE_H
#define BULKHEAD_BPF_HANDSHAKE_H

#include "judge.h"
#include "kernel.h"
#include "order.h"
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

/* In place, where it can be. */
static __always_inline bool bh_option_load(struct __sk_buff *skb, __u32 off, struct bh_tcpopt *out)
{
#ifdef BH_READS_IN_PLACE
	const __u32 *from;
	__u32 *to = (__u32 *)out;

	from = (const __u32 *)(long)skb->data + (off & 0xfff) / 4;
	if (!(off & ~0xffcU) && (const void *)(from + BH_TCPOPT_LEN / 4) <= (const void *)(long)skb->data_end) {
#pragma unroll
		for (__u32 i = 0; i < BH_TCPOPT_LEN / 4; i++)
			to[i] = from[i];
		return true;
	}
#endif
	return !bpf_skb_load_bytes(skb, off, out, sizeof(*out));
}

/* Looks for it among all options. */
BH_SUBPROGRAM int bh_option_search(struct __sk_buff *skb, const struct bh_packet *p, struct bh_tcpopt *out)
{
	__u32 off = p->transport + sizeof(struct tcphdr), end = p->transport + p->tcp_header;

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

/* Our own kernel writes it last. */
static __always_inline bool bh_option_at_end(struct __sk_buff *skb, const struct bh_packet *p, struct bh_tcpopt *out)
{
	return p->tcp_header >= sizeof(struct tcphdr) + BH_TCPOPT_LEN &&
	       bh_option_load(skb, p->transport + p->tcp_header - BH_TCPOPT_LEN, out) && out->kind == BH_TCPOPT_KIND &&
	       out->len == BH_TCPOPT_LEN && out->exid == bpf_htons(BH_TCPOPT_EXID);
}

/* Finds the option in a parsed TCP packet: enum bh_option_found. */
static __always_inline int bh_option_find(struct __sk_buff *skb, const struct bh_packet *p, struct bh_tcpopt *out)
{
	return bh_option_at_end(skb, p, out) ? BH_OPTION_FULL : bh_option_search(skb, p, out);
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

/* One that nobody took (the port was closed, the host is another) is void after a moment. TCP sends again after a second at the
 * soonest (RFC 6298, 2.1): so of one segment there is one ticket. The clock of another CPU may be a little ahead of ours. */
static __always_inline bool bh_syn_ticket_is_fresh(const struct bh_syn_ticket *ticket, __u64 now)
{
	const __u32 ahead = 32, lasts = BH_SECOND / 10 * 9 / BH_SYN_TICKET_NS;

	return (__u32)(now / BH_SYN_TICKET_NS) - *(const volatile __u32 *)&ticket->time + ahead <= lasts + ahead;
}

/* Initial sequence numbers are the kernel's own secret hash of the connection, and spread by themselves. */
static __always_inline struct bh_syn_ticket *bh_syn_ticket_near(__be32 seq)
{
	__u32 place = bpf_ntohl(seq) & (BH_TICKET_NEAR - 1), bucket = place / BH_TICKET_WAYS;
	struct bh_syn_tickets *t = bpf_map_lookup_elem(&tickets, &bucket);

	return t ? &t->way[place & (BH_TICKET_WAYS - 1)] : 0;
}

static __always_inline struct bh_syn_tickets *bh_syn_tickets_far(__be32 seq)
{
	__u32 bucket = BH_TICKET_NEAR / BH_TICKET_WAYS + (bpf_ntohl(seq) / BH_TICKET_NEAR) % BH_TICKET_FAR_BUCKETS;

	return bpf_map_lookup_elem(&tickets, &bucket);
}

static __always_inline __u64 bh_syn_ticket_mac(const struct bh_syn_ticket *ticket)
{
	return *(const volatile __u64 *)&ticket->mac;
}

static __always_inline bool bh_syn_ticket_names(const struct bh_syn_ticket *ticket, __be32 seq, __be32 ack)
{
	return *(const volatile __be32 *)&ticket->segment.seq == seq &&
	       *(const volatile __be32 *)&ticket->segment.ack == ack;
}

/* Of two that would write to one place, one does. */
static __always_inline bool bh_syn_ticket_claim(struct bh_syn_ticket *ticket, __u64 before)
{
	return before != BH_TICKET_WRITING &&
	       __sync_val_compare_and_swap(&ticket->mac, before, BH_TICKET_WRITING) == before;
}

/* In a far bucket a segment is noted in its own place if it is sent again, else in one that is free, else in that of the oldest,
 * which is most likely one that nobody here will take. Returns NULL if somebody else writes there just now. */
static __noinline struct bh_syn_ticket *bh_syn_ticket_far(__be32 seq, __be32 ack, __u32 time)
{
	struct bh_syn_tickets *t = bh_syn_tickets_far(seq);
	__u32 best = 0, oldest = 0;
	__u64 before = 0;

	if (!t)
		return 0;
#pragma unroll
	for (__u32 i = 0; i < BH_TICKET_WAYS; i++) {
		__u64 mac = bh_syn_ticket_mac(&t->way[i]);
		__u32 age = mac ? (time - *(const volatile __u32 *)&t->way[i].time) >> 1 : ~0U;

		if (bh_syn_ticket_names(&t->way[i], seq, ack))
			return bh_syn_ticket_claim(&t->way[i], mac) ? &t->way[i] : 0;
		if (age >= oldest) {
			oldest = age;
			best = i;
			before = mac;
		}
	}
	return bh_syn_ticket_claim(&t->way[best & (BH_TICKET_WAYS - 1)], before) ? &t->way[best & (BH_TICKET_WAYS - 1)]
										 : 0;
}

/* A place for it, marked as being written. A near one is taken from nobody whose segment may be under way. */
static __always_inline struct bh_syn_ticket *bh_syn_ticket_for(__be32 seq, __be32 ack, __u64 now)
{
	struct bh_syn_ticket *near = bh_syn_ticket_near(seq);
	__u64 before;

	if (!near)
		return 0;
	before = bh_syn_ticket_mac(near);
	if ((!before || bh_syn_ticket_names(near, seq, ack) || !bh_syn_ticket_is_fresh(near, now)) &&
	    bh_syn_ticket_claim(near, before))
		return near;
	return bh_syn_ticket_far(seq, ack, now / BH_SYN_TICKET_NS);
}

/* The segment that it is for stands there. Its sender, judged under `word`, has its identity by `tag`, to `until` at least. */
static __always_inline void bh_syn_ticket_publish(struct bh_syn_ticket *ticket, __u64 mac, __u64 tag, __u64 until,
						  __u64 word, __u64 now)
{
	ticket->tag = tag;
	ticket->until = until;
	ticket->time = now / BH_SYN_TICKET_NS;
	ticket->state = word;
	bh_publish(&ticket->mac, mac);
}

/* Notes a segment that is about to leave. */
static __always_inline void bh_syn_ticket_put(const struct bh_mac_input *segment, __u64 mac, __u64 tag, __u64 until,
					      __u64 word, __u64 now)
{
	struct bh_syn_ticket *ticket = bh_syn_ticket_for(segment->seq, segment->ack, now);

	if (!ticket)
		return;
	ticket->segment = *segment;
	bh_syn_ticket_publish(ticket, mac, tag, until, word, now);
}

/* The ticket of this very segment, if this kernel sent it with an identity, and it was not received yet; else NULL. It
 * stays: the genuine segment may still come, and this one be a copy that an onlooker made. */
static __always_inline struct bh_syn_ticket *bh_syn_ticket_out(const struct bh_packet *p, __u64 now)
{
	struct bh_syn_ticket *ticket = bh_syn_ticket_near(p->seq);
	__be32 ack = bh_ack_of(p);
	struct bh_syn_tickets *t;

	if (ticket && bh_syn_ticket_mac(ticket) && bh_syn_ticket_names(ticket, p->seq, ack))
		return bh_syn_ticket_is_fresh(ticket, now) ? ticket : 0;
	t = bh_syn_tickets_far(p->seq);
	if (!t)
		return 0;
#pragma unroll
	for (__u32 i = 0; i < BH_TICKET_WAYS; i++) {
		ticket = &t->way[i];
		if (bh_syn_ticket_mac(ticket) && bh_syn_ticket_names(ticket, p->seq, ack))
			return bh_syn_ticket_is_fresh(ticket, now) ? ticket : 0;
	}
	return 0;
}

/* Is it this very segment's? Addresses, ports, sequence numbers and identity are compared, so a MAC that an onlooker saw does
 * not vouch for anything else; and who shows it need not be asked for another proof. */
static __always_inline bool bh_syn_ticket_is_of(const struct bh_syn_ticket *ticket, const struct bh_mac_input *segment,
						__u64 mac)
{
	const __u64 *x = (const __u64 *)&ticket->segment, *y = (const __u64 *)segment;
	__u64 differ = bh_syn_ticket_mac(ticket) ^ mac;

#pragma unroll
	for (__u32 i = 0; i < sizeof(*segment) / 8; i++)
		differ |= x[i] ^ y[i];
	return !differ && mac > BH_TICKET_WRITING;
}

/* What a ticket says beside who may take it: by which tag its sender has its identity, until when, and whether that end judged
 * it under another state word. */
static __always_inline void bh_syn_ticket_read(const struct bh_syn_ticket *ticket, struct bh_query *q)
{
	q->peer_tag = *(const volatile __u64 *)&ticket->tag;
	q->peer_until = *(const volatile __u64 *)&ticket->until;
	q->stale = *(const volatile __u32 *)&ticket->state != (__u32)q->word;
}

/* Is it under way? For who stands between sender and receiver, and leaves it to the receiver. Sets peer_tag, peer_until, stale. */
static __always_inline struct bh_syn_ticket *
bh_syn_ticket_peek(const struct bh_packet *p, const struct bh_mac_input *segment, __u64 mac, struct bh_query *q)
{
	struct bh_syn_ticket *ticket = bh_syn_ticket_out(p, q->now);

	if (!ticket || !bh_syn_ticket_is_of(ticket, segment, mac))
		return 0;
	bh_syn_ticket_read(ticket, q);
	return ticket;
}

/* Is it of the segment `p` that has arrived at q's socket, from a sender of this identity? The same without a copy, which would stand
 * on the stack while the policy is asked. The MAC first: what is read behind it, and stays until the ticket is taken by it, was
 * written before it. */
static __always_inline bool bh_syn_ticket_is_of_arrived(const struct bh_syn_ticket *ticket, const struct bh_packet *p,
							const struct bh_query *q, __be32 identity, __u64 mac)
{
	const struct bh_mac_input *s = &ticket->segment;
	__u32 differ;

	_Static_assert(sizeof(*s) == 2 * sizeof(struct bh_addr) + 16, "all of it is compared");
	if (bh_syn_ticket_mac(ticket) != mac || mac <= BH_TICKET_WRITING)
		return false;
	bh_barrier();
	differ = (s->seq ^ p->seq) | (s->ack ^ bh_ack_of(p)) | (s->identity ^ identity) |
		 (s->sport ^ bpf_htons(p->sport)) | (s->dport ^ bpf_htons(p->dport));
#pragma unroll
	for (__u32 i = 0; i < 4; i++)
		differ |= (s->src[i] ^ q->remote.w[i]) | (s->dst[i] ^ q->local.w[i]);
	return !differ;
}

/* One receiver gets it; none does if another segment was written to its place meanwhile. Sets what peek does. */
static __always_inline bool bh_syn_ticket_take(const struct bh_packet *p, struct bh_query *q, __be32 identity,
					       __u64 mac)
{
	struct bh_syn_ticket *ticket = bh_syn_ticket_out(p, q->now);

	if (!ticket || !bh_syn_ticket_is_of_arrived(ticket, p, q, identity, mac))
		return false;
	bh_syn_ticket_read(ticket, q);
	return __sync_val_compare_and_swap(&ticket->mac, mac, 0) == mac;
}

/* MAC over a segment from src to dst that is sent now. */
static __always_inline int bh_segment_mac(const struct bh_mac_input *input, __u64 *mac)
{
	struct bh_key *key = bh_key_of((const struct bh_addr *)input->dst, false);

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

/* Of a segment from src to dst. */
static __always_inline void bh_mac_input_of(struct bh_mac_input *in, const struct bh_packet *p,
					    const struct bh_addr *src, const struct bh_addr *dst, __be32 identity)
{
	__builtin_memcpy(in->src, src->w, sizeof(in->src));
	__builtin_memcpy(in->dst, dst->w, sizeof(in->dst));
	in->sport = bpf_htons(p->sport);
	in->dport = bpf_htons(p->dport);
	in->seq = p->seq;
	in->ack = bh_ack_of(p);
	in->identity = identity;
}

/* May a packet that is longer than its link takes be taken apart? */
BH_SUBPROGRAM int bh_may_be_cut(struct __sk_buff *skb)
{
	__be16 flags;

	return skb->protocol == bpf_htons(ETH_P_IP) &&
	       !bpf_skb_load_bytes(skb, offsetof(struct iphdr, frag_off), &flags, sizeof(flags)) &&
	       !(flags & bpf_htons(0x4000));
}

/* Can a segment leave with its option? Else the kernel drops it behind our hook without a word. */
static __always_inline bool bh_option_fits(struct __sk_buff *skb)
{
	return !bh_skb_is_long(skb) || bh_may_be_cut(skb);
}

BH_SUBPROGRAM int bh_option_ticket_short(const struct bh_query *q, const struct bh_packet *p)
{
	struct bh_mac_input in;
	__u64 mac;

	bh_mac_input_of(&in, p, &q->local, &q->remote, bpf_htonl(q->subject));
	if (bh_segment_mac(&in, &mac))
		return -1;
	bh_syn_ticket_put(&in, mac, q->subject_tag, q->valid_until, q->word, q->now);
	return 0;
}

/* The ticket of a segment that q's socket sends with the option `found`; a short one says there what it has no room for. A
 * full one has been compared with the subject. Returns 0, or -1 without a key. */
static __always_inline int bh_option_ticket(const struct bh_query *q, const struct bh_packet *p,
					    const struct bh_tcpopt *option, int found)
{
	struct bh_syn_ticket *ticket;

	if (found != BH_OPTION_FULL)
		return bh_option_ticket_short(q, p);
	ticket = bh_syn_ticket_for(p->seq, bh_ack_of(p), q->now);
	if (!ticket)
		return 0;
	bh_mac_input_of(&ticket->segment, p, &q->local, &q->remote, option->identity);
	bh_syn_ticket_publish(ticket, bh_option_mac(option), q->subject_tag, q->valid_until, q->word, q->now);
	return 0;
}

/* What vouches for the SYN or SYN-ACK of a managed device's workload, in the place of an identity (below). */
#define BH_NOTE_IDENTITY 0xffffffffU

/* Fills in what a short option leaves to the ticket: from then on it is judged like a full one. Returns false without
 * ticket. */
static __always_inline bool bh_option_lengthen(const struct bh_packet *p, struct bh_tcpopt *option, __u64 now)
{
	struct bh_syn_ticket *ticket = bh_syn_ticket_out(p, now);
	__u64 mac;

	if (!ticket)
		return false;
	mac = bh_syn_ticket_mac(ticket);
	option->identity = *(volatile __be32 *)&ticket->segment.identity;
	__builtin_memcpy(option->mac, &mac, sizeof(mac));
	return option->identity != BH_NOTE_IDENTITY;
}

/*
 * The workload of a managed device writes no option. What vouches for its SYN or SYN-ACK is a note of the device's program: a
 * ticket like those of sockets, under the MAC that the segment would have with this in the place of an identity.
 */
/* Sets peer and proof by the note of a segment that arrived without option, and whose ticket is out. `in` is room. Returns
 * false if that is no note. */
static __always_inline bool bh_peer_of_note(const struct bh_packet *p, struct bh_query *q, struct bh_mac_input *in,
					    bool take)
{
	struct bh_syn_ticket *ticket = bh_syn_ticket_out(p, q->now);
	__u64 mac;

	if (!ticket)
		return false;
	mac = bh_syn_ticket_mac(ticket);
	bh_mac_input_of(in, p, &q->remote, &q->local, BH_NOTE_IDENTITY);
	if (take ? !bh_syn_ticket_take(p, q, BH_NOTE_IDENTITY, mac) : !bh_syn_ticket_peek(p, in, mac, q))
		return false;
	bh_peer_by_device(q, q->peer_tag);
	return true;
}

/* Of an option: that of a workload, or of one without. */
static __always_inline bool bh_identity_can_be(__be32 identity)
{
	return !identity || bpf_ntohl(identity) >= BH_ID_FIRST;
}

/* Is it the option that a managed socket of this host wrote, of which the ticket is out? Then sets peer and proof. */
static __always_inline bool bh_peer_by_option(const struct bh_packet *p, const struct bh_tcpopt *option,
					      struct bh_query *q)
{
	if (!bh_identity_can_be(option->identity) || !bh_syn_ticket_take(p, q, option->identity, bh_option_mac(option)))
		return false;
	q->proof = BH_PROOF_VERIFIED;
	q->peer = bpf_ntohl(option->identity);
	q->vouched = !q->stale;
	BH_COUNT(handshakes_verified);
	return true;
}

/* Any other than an option at the end with its ticket: the same from the beginning. */
BH_SUBPROGRAM int bh_peer_unproven(struct __sk_buff *skb, const struct bh_packet *p, struct bh_query *q)
{
	struct bh_tcpopt option;
	struct bh_mac_input in;
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
	if (bh_peer_by_option(p, &option, q))
		return 0;
	bh_mac_input_of(&in, p, &q->remote, &q->local, option.identity);
	if (bh_identity_can_be(option.identity) && bh_segment_verify(&in, bh_option_mac(&option))) {
		q->proof = BH_PROOF_REPLAYED;
		BH_COUNT(handshakes_replayed);
	} else {
		q->proof = BH_PROOF_FORGED;
		BH_COUNT(handshakes_forged);
	}
	return 0;
}

/*
 * Who sent this SYN or SYN-ACK: sets peer and proof. Every managed socket of this host writes the option, also one
 * without identity, which is then verified to be `unidentified`. So a segment without it on the loopback device comes
 * from outside any workload: `host`. Elsewhere it is `world`, and so is who shows a wrong proof, wherever it came from, or
 * whose proof something on the way has removed: what that was could as well have changed the segment.
 */
static __always_inline void bh_peer_of_segment(struct __sk_buff *skb, const struct bh_packet *p, struct bh_query *q)
{
	struct bh_tcpopt option;

	if (!bh_option_at_end(skb, p, &option) || !bh_peer_by_option(p, &option, q))
		bh_peer_unproven(skb, p, q);
}

#endif
