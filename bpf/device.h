/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * device.h - who is at the two ends of a managed device.
 *
 * A managed device is this host's end of a veth, tap or tun: what comes in on it was sent by the workload behind it, what goes
 * out goes to that workload. The workload has no socket here, so the device stands for it, with a tag of its own. For what
 * it sends, the device's program leaves the same tickets that sockets of managed workloads leave: the receiver, a socket or
 * another device, knows by them who sent it.
 */
#ifndef BULKHEAD_BPF_DEVICE_H
#define BULKHEAD_BPF_DEVICE_H

#include "endpoint.h"
#include "handshake.h"
#include "tcp_state.h"

#define BH_PF_INET 2
#define BH_PF_INET6 10
#define BH_PF_PACKET 17

/* The packet that an ICMP error is about, as the sender of the error quotes it. */
struct bh_device_quote {
	struct bh_addr src;
	struct bh_addr dst;
	__u16 sport;
	__u16 dport;
	__u8 proto;
	__u8 icmp_type;
};

/* Room beyond the 512 bytes of a program's stack. Neither of the two hooks is entered again on a CPU before it has ended: they
 * run with softirqs off. */
struct bh_device_room {
	struct bh_query q;
	struct bh_query about; /* somebody else: who sends to the workload, or the flow that an ICMP error tells of */
	struct bh_fragment_key fragment;
	__u64 is_first; /* the packet is the first fragment of `fragment` */
	struct bh_device_key key;
	__u64 zero;		    /* a seal is made of six words of a key */
	struct bh_device_flow flow; /* of `key`: a copy (device_flow.h) */
	struct bh_udp_key udp_key;
	struct bh_packet packet;
	struct bh_device_quote quote; /* what an ICMP error tells of */
	struct bpf_fib_lookup route;
	struct bh_device device; /* a copy */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bh_device_room);
} device_room __weak SEC(".maps");

static __always_inline struct bh_device_room *device_room_of(struct bh_query *q)
{
	return (struct bh_device_room *)q;
}

static __always_inline struct bh_query *device_about(struct bh_query *q)
{
	return &device_room_of(q)->about;
}

/* Family of the socket that the packet still belongs to, if it was sent on this host and not routed since; 0: none. */
static __always_inline __u32 device_sender(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	return sk ? sk->family : 0;
}

/* Is it a socket of this host that belongs to no workload? Those of workloads are all known. */
static __always_inline bool device_sender_is_host(struct __sk_buff *skb, struct bpf_sock *sk)
{
	struct bh_udp_sock *us = bpf_sk_storage_get(&udp_sockets, sk, 0, 0);
	struct bh_sock *ss;
	struct bh_tcp *t;

	if (us)
		return us->host;
	ss = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (ss)
		return ss->host;
	t = bh_tcp_find(bpf_get_socket_cookie(skb));
	return !t || t->kind == BH_SOCK_HOST;
}

/* What is known of a sender that proved nothing, by the socket that the packet still belongs to: a managed workload's has the
 * identity of its cgroup (it sends without proof where the protocol has none), any other of this host is `host`. Leaves q as it
 * is if there is none. */
static __noinline int device_peer_by_socket(struct __sk_buff *skb, struct bh_query *q, struct bh_query *about)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk || (sk->family != BH_PF_INET && sk->family != BH_PF_INET6))
		return 0;
	if (device_sender_is_host(skb, sk)) {
		q->peer = BH_ID_HOST;
		return 0;
	}
	about->now = q->now;
	bh_subject_of_skb(skb, about);
	q->peer = about->subject;
	q->peer_tag = about->subject_tag;
	if (about->subject != BH_ID_UNIDENTIFIED)
		q->proof = BH_PROOF_VERIFIED;
	if (about->valid_until < q->valid_until)
		q->valid_until = about->valid_until;
	return 0;
}

/* Is it an address that the device was bound with? */
static __always_inline bool device_has(const struct bh_device *dev, const struct bh_addr *a)
{
	for (__u32 i = 0; i < BH_DEVICE_ADDRESSES; i++)
		if (i < dev->n_addresses && bh_addr_equal(&dev->addresses[i], a))
			return true;
	return false;
}

/* Leaves a note for who gets this SYN or SYN-ACK of the device's workload. */
static __always_inline int device_note(const struct bh_packet *p, const struct bh_query *q)
{
	struct bh_mac_input in;
	__u64 mac = 0;

	bh_mac_input_of(&in, p, &q->local, &q->remote, BH_NOTE_IDENTITY);
	if (bh_segment_mac(&in, &mac))
		return -1;
	bh_syn_ticket_put(&in, mac, q->subject_tag, q->valid_until, q->word, q->now);
	return 0;
}

/* The option that this segment carries, if it is a socket's: its MAC is right, and its ticket is still there. Of `in`, the
 * identity is still to be set. */
static __always_inline int device_option_check(const struct bh_packet *p, struct bh_query *q, struct bh_mac_input *in,
					       struct bh_tcpopt *option, int found)
{
	__u64 shown;

	if (found == BH_OPTION_SHORT && !bh_option_lengthen(p, option, q->now))
		return BH_PROOF_REPLAYED;
	in->identity = option->identity;
	shown = bh_option_mac(option);
	if (!bh_identity_can_be(option->identity))
		return BH_PROOF_FORGED;
	if (bh_syn_ticket_peek(p, in, shown, q))
		return BH_PROOF_VERIFIED;
	return bh_segment_verify(in, shown) ? BH_PROOF_REPLAYED : BH_PROOF_FORGED;
}

/*
 * A SYN or SYN-ACK that the workload sends: it shows an identity of its own only where a managed socket behind the device
 * wrote it; else the device vouches for it. Returns 0 or the enum bh_reason to deny with.
 */
static __noinline int device_vouch(struct __sk_buff *skb, const struct bh_packet *p, struct bh_query *q)
{
	struct bh_tcpopt option;
	struct bh_mac_input in;
	__u64 peer_tag = q->peer_tag;
	int found = bh_option_find(skb, p, &option), proof;

	if (found < 0)
		return BH_REASON_PARSE;
	if (found == 0)
		return device_note(p, q) ? BH_REASON_MAP_FULL : 0;
	bh_mac_input_of(&in, p, &q->local, &q->remote, 0);
	proof = device_option_check(p, q, &in, &option, found);
	q->peer_tag = peer_tag;
	q->stale = 0;
	return proof == BH_PROOF_VERIFIED ? 0 : BH_REASON_OPTION;
}

/* Who sent this SYN or SYN-ACK to the workload: sets peer and proof, as bh_peer_of_segment() does for a socket, but leaves the
 * ticket to a socket that may be behind the device. */
static __noinline int device_peer_of_segment(struct __sk_buff *skb, const struct bh_packet *p, struct bh_query *q,
					     struct bh_query *about)
{
	__u32 sender = device_sender(skb);
	struct bh_tcpopt option;
	struct bh_mac_input in;
	int found;

	q->peer = BH_ID_WORLD;
	q->proof = BH_PROOF_NONE;
	/* Made by hand, whatever it shows. */
	if (sender == BH_PF_PACKET)
		return 0;
	found = bh_option_find(skb, p, &option);
	if (found == 0) {
		if (!bh_syn_ticket_out(p, q->now))
			device_peer_by_socket(skb, q, about);
		else if (!bh_peer_of_note(p, q, &in, false))
			q->proof = BH_PROOF_STRIPPED;
		return 0;
	}
	if (found < 0) {
		q->proof = BH_PROOF_MALFORMED;
		return 0;
	}
	bh_mac_input_of(&in, p, &q->remote, &q->local, 0);
	q->proof = device_option_check(p, q, &in, &option, found);
	if (q->proof == BH_PROOF_VERIFIED)
		q->peer = bpf_ntohl(option.identity);
	return 0;
}

/* Who sent this datagram (or ICMP echo, with ports 0) to the workload, likewise. Returns the cookie of the sender's socket or
 * device, 0 if nothing vouches for it. */
static __noinline __u64 device_peer_of_datagram(struct __sk_buff *skb, struct bh_query *q, struct bh_query *about)
{
	__u64 cookie;

	if (device_sender(skb) != BH_PF_PACKET) {
		cookie = bh_ticket_look(q, q->rport, q->lport);
		if (cookie)
			return cookie;
	}
	q->proof = BH_PROOF_NONE;
	q->peer = BH_ID_WORLD;
	device_peer_by_socket(skb, q, about);
	return 0;
}

/* Leaves a ticket for who gets this datagram of the workload. One that a managed socket behind the device left says more. */
static __noinline int device_ticket(struct __sk_buff *skb, struct bh_query *q)
{
	__u32 sender = device_sender(skb), segments = bh_segments(skb);
	struct bh_tuple key;
	struct bh_ticket *t;
	__u64 word, ticket;

	if (!bh_shows_identity(&q->remote) && !bh_addr_is_multicast(&q->remote))
		return 0;
	if (sender == BH_PF_INET || sender == BH_PF_INET6) {
		bh_ticket_key(&key, &q->local, q->lport, &q->remote, q->rport, 0);
		ticket = bh_ticket_of(&key);
		t = ticket ? bh_ticket_slot(ticket) : 0;
		word = t ? bh_ticket_word(t) : 0;
		if (t && BH_TICKET_NUMBER(word) == BH_TICKET_NUMBER(ticket) && BH_TICKET_CREDITS(word) &&
		    !(t->cookie & BH_DEVICE_BIT) && !bh_ticket_is_void(t, q->now))
			return 0;
	}
	/* A virtual machine does not say how many. */
	if (!segments)
		segments = skb->len / skb->gso_size + 1;
	bh_ticket_write(q, 0, segments < BH_TICKET_SEGMENTS_MAX ? segments : BH_TICKET_SEGMENTS_MAX);
	return 0;
}

#endif
