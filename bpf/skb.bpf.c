// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * skb.bpf.c - every packet of a managed socket, in both directions: this is what enforces.
 *
 * A TCP connection is judged in its handshake, when both ends know each other, and the verdict is kept for the socket. A
 * later packet costs the comparison of its cookie, of one word (nothing the verdict rests on has changed) and of one
 * deadline. All else has no handshake and is judged by a flow table. What fits nowhere is denied.
 */
#include "icmp.h"
#include "tcp.h"
#include "udp.h"

/* Why this socket may not send or receive a packet of this protocol, whatever the policy says; else 0. */
static __always_inline int socket_problem(struct bpf_sock *sk, const struct bh_packet *p)
{
	bool raw = sk->type == BH_SOCK_RAW;

	/* By hand it could be anybody's; and what arrives there is a copy of somebody else's. */
	if (raw && (p->proto == IPPROTO_TCP || p->proto == IPPROTO_UDP))
		return BH_REASON_RAW_SOCKET;
	return raw || sk->protocol == p->proto ? 0 : BH_REASON_PROTO;
}

/* A packet of neither TCP nor UDP. A function of its own, so that its key takes no stack from those. */
static __noinline int flow_packet_of(struct __sk_buff *skb, const struct bh_sock *ss, const struct bh_packet *p,
				     struct bh_query *q, __u32 hook)
{
	struct bh_udp_key key = {};
	int verdict;

	if (p->proto == IPPROTO_ICMP || p->proto == IPPROTO_ICMPV6)
		verdict = icmp_packet(skb, ss, p, q, &key, hook);
	else
		verdict = proto_flow(skb, ss, q, &key);
	return verdict == BH_JUDGE ? flow_packet(q, &key, 0, hook) : verdict;
}

/* A socket of which nothing is kept: opened before enforcement, or too late for the room there is. What it still may do is
 * to end: a socket that is closed with data unread, or at once, resets its peer when nothing is kept of it any more. */
static __always_inline int unknown_socket(struct bpf_sock *sk, const struct bh_packet *p, struct bh_query *q,
					  __u32 hook)
{
	__u8 reason = BH_REASON_OLD_SOCKET;

	if (sk->protocol == IPPROTO_TCP && p->proto == IPPROTO_TCP) {
		if (hook == BH_EGRESS && sk->state == BPF_TCP_CLOSE && is_bare_reset(p))
			return BH_ALLOW;
		/* Closed while this was on its way. Where nothing was known of a SYN, that was said of the SYN. */
		if (hook == BH_INGRESS && (sk->state == BPF_TCP_CLOSE || sk->state == BPF_TCP_SYN_SENT))
			return BH_DENY;
		if (bh_tcp_no_room(q->cookie))
			reason = BH_REASON_MAP_FULL;
	}
	bh_refuse(q, reason);
	return BH_DENY;
}

/* ---- hooks ---- */

/* What a parsed packet says of q's flow. */
static __always_inline void ends_of_packet(struct bh_query *q, const struct bh_packet *p, __u32 hook)
{
	q->lport = hook == BH_EGRESS ? p->sport : p->dport;
	q->rport = hook == BH_EGRESS ? p->dport : p->sport;
	q->proto = p->proto;
	q->peer = BH_ID_WORLD;
}

/* A UDP socket has `us`, one of neither UDP nor TCP `ss`; one that was there before enforcement has none. */
static __always_inline int packet(struct __sk_buff *skb, struct bh_sock *ss, struct bh_udp_sock *us, __u64 word,
				  __u64 now, __u32 hook)
{
	struct bh_query q = {.word = word, .now = now, .direction = hook};
	struct bpf_sock *sk = skb->sk;
	struct bh_packet p;
	int err;

	if (!sk)
		return BH_DENY;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return BH_DENY;

	q.cookie = bpf_get_socket_cookie(skb);
	bh_subject_of_skb(skb, &q);
	if (q.host) {
		if (ss)
			ss->host = 1;
		if (us)
			us->host = 1;
		return BH_ALLOW;
	}
	err = hook == BH_EGRESS ? bh_parse(skb, &p, &q.local, &q.remote) : bh_parse(skb, &p, &q.remote, &q.local);
	ends_of_packet(&q, &p, hook);

	if (!err && !ss && !us && is_of_kernel(sk, &p))
		return BH_ALLOW;
	if (!err)
		err = socket_problem(sk, &p);
	if (!err && ss)
		return flow_packet_of(skb, ss, &p, &q, hook);
	if (!err && us) {
		if (hook == BH_INGRESS)
			return udp_ingress(skb, us, &q, udp_payload(skb, &p));
		err = udp_source(skb, us, &q);
		if (!err)
			return udp_egress(skb, us, &q, udp_payload(skb, &p));
	}
	if (!err)
		return unknown_socket(sk, &p, &q, hook);
	bh_refuse(&q, err);
	return BH_DENY;
}

/* The same of a TCP socket. */
static __always_inline int packet_of_tcp(struct __sk_buff *skb, struct bh_tcp *t, __u64 cookie, __u64 word, __u64 now,
					 __u32 hook)
{
	struct bh_query q = {.word = word, .now = now, .cookie = cookie, .direction = hook};
	struct bh_packet p;
	int err;

	if (!bh_tcp_subject(t, &q)) {
		bh_subject_of_skb(skb, &q);
		if (q.host) {
			bh_tcp_host(t, cookie);
			return BH_ALLOW;
		}
		if (t->kind == BH_SOCK_LISTEN)
			bh_tcp_subject_note(t, &q);
	}
	err = hook == BH_EGRESS ? bh_parse_tcp(skb, &p, &q.local, &q.remote)
				: bh_parse_tcp(skb, &p, &q.remote, &q.local);
	ends_of_packet(&q, &p, hook);
	if (!err && p.proto != IPPROTO_TCP)
		err = BH_REASON_PROTO;
	if (!err)
		return tcp_packet(skb, t, &p, &q, hook);
	bh_refuse(&q, err);
	return BH_DENY;
}

/* Functions of their own, so that the way a packet usually takes does not share their stack. */
static __noinline int packet_in(struct __sk_buff *skb, struct bh_sock *ss, struct bh_udp_sock *us, __u64 word,
				__u64 now)
{
	return packet(skb, ss, us, word, now, BH_INGRESS);
}

static __noinline int packet_out(struct __sk_buff *skb, struct bh_sock *ss, struct bh_udp_sock *us, __u64 word,
				 __u64 now)
{
	return packet(skb, ss, us, word, now, BH_EGRESS);
}

static __noinline int tcp_packet_in(struct __sk_buff *skb, struct bh_tcp *t, __u64 cookie, __u64 word, __u64 now)
{
	return t ? packet_of_tcp(skb, t, cookie, word, now, BH_INGRESS) : BH_DENY;
}

static __noinline int tcp_packet_out(struct __sk_buff *skb, struct bh_tcp *t, __u64 cookie, __u64 word, __u64 now)
{
	return t ? packet_of_tcp(skb, t, cookie, word, now, BH_EGRESS) : BH_DENY;
}

static __noinline int udp_known_in(struct __sk_buff *skb, struct bh_udp_sock *us, __u64 word, __u64 now)
{
	return us ? udp_known(skb, us, word, now, BH_INGRESS) : 0;
}

static __noinline int udp_known_out(struct __sk_buff *skb, struct bh_udp_sock *us, __u64 word, __u64 now)
{
	return us ? udp_known(skb, us, word, now, BH_EGRESS) : 0;
}

/* A packet of no flow that the socket has at hand. Returns 1 allow, 0 not for here. */
static __always_inline int hook_udp(struct __sk_buff *skb, struct bh_udp_sock *us, __u64 word, __u64 now,
				    __u32 direction)
{
	if (us->host)
		return 1;
	if (!us->more)
		return 0;
	return direction == BH_EGRESS ? udp_known_out(skb, us, word, now) : udp_known_in(skb, us, word, now);
}

/* `pass` goes first, because who sees it sees the deadline, and the cookie last: it shows whose the rest was. A socket can listen
 * before we are told, and still pass what its former peer might send. */
static __always_inline bool tcp_passes(struct __sk_buff *skb, const struct bh_tcp *t, __u64 cookie, __u64 word,
				       __u64 now, __u32 direction)
{
	if (*(const volatile __u64 *)&t->pass != word)
		return false;
	bh_barrier();
	return now < *(const volatile __u64 *)&t->valid_until_ns && bh_tcp_owner(t) == cookie &&
	       (direction == BH_EGRESS || !bh_skb_listens(skb));
}

static __always_inline int tcp_hook(struct __sk_buff *skb, struct bh_tcp *t, __u64 cookie, __u64 word, __u64 now,
				    __u32 direction)
{
	if (t->kind == BH_SOCK_HOST && bh_tcp_owner(t) == cookie)
		return BH_ALLOW;
	return direction == BH_EGRESS ? tcp_packet_out(skb, t, cookie, word, now)
				      : tcp_packet_in(skb, t, cookie, word, now);
}

/* Is this a datagram, as far as one byte tells? recent_known() is for no other, else it says only where to look first. */
static __always_inline bool looks_like_udp(struct __sk_buff *skb)
{
	const __u8 *data = (const __u8 *)(long)skb->data;

	if (data + sizeof(struct iphdr) > (const __u8 *)(long)skb->data_end)
		return false;
	return data[skb->protocol == bpf_htons(ETH_P_IP) ? 9 : 6] == IPPROTO_UDP;
}

/* A packet of a socket that is not in its TCP slot. */
static __always_inline int hook_other(struct __sk_buff *skb, struct bh_udp_sock *us, __u64 word, __u64 now,
				      __u32 direction)
{
	struct bpf_sock *sk = skb->sk;
	struct bh_sock *ss = 0;

	if (!sk)
		return BH_DENY;
	if (us) {
		if (hook_udp(skb, us, word, now, direction))
			return BH_ALLOW;
	} else {
		ss = bpf_sk_storage_get(&sockets, sk, 0, 0);
		if (ss && ss->host)
			return BH_ALLOW;
	}
	return direction == BH_EGRESS ? packet_out(skb, ss, us, word, now) : packet_in(skb, ss, us, word, now);
}

/* Its key takes no stack from the rest. */
static __noinline struct bh_tcp *tcp_more_of(__u64 cookie)
{
	return bpf_map_lookup_elem(&tcp_more, &cookie);
}

static __always_inline int hook(struct __sk_buff *skb, __u32 direction)
{
	struct bpf_sock *sk = skb->sk;
	struct bh_udp_sock *us;
	__u64 word, now, cookie;
	struct bh_tcp *t;

	if (!sk)
		return BH_DENY;
	if (looks_like_udp(skb)) {
		if (recent_known(skb, direction))
			return BH_ALLOW;
		us = bpf_sk_storage_get(&udp_sockets, sk, 0, 0);
		if (us)
			return hook_other(skb, us, bh_state_word(), bh_now(), direction);
	}
	word = bh_state_word();
	now = bh_now();
	cookie = bh_skb_cookie(skb);
	if (!cookie)
		cookie = bpf_get_socket_cookie(skb);
	t = bh_tcp_slot(cookie);
	if (!t)
		return BH_DENY;
	if (*(volatile __u64 *)&t->cookie != cookie)
		t = bh_tcp_has_more(t) ? tcp_more_of(cookie) : 0;
	if (t && tcp_passes(skb, t, cookie, word, now, direction))
		return BH_ALLOW;
	if (t)
		return tcp_hook(skb, t, cookie, word, now, direction);
	us = bpf_sk_storage_get(&udp_sockets, sk, 0, 0);
	return hook_other(skb, us, word, now, direction);
}

SEC("cgroup_skb/ingress")
int bh_ingress(struct __sk_buff *skb)
{
	return hook(skb, BH_INGRESS);
}

SEC("cgroup_skb/egress")
int bh_egress(struct __sk_buff *skb)
{
	return hook(skb, BH_EGRESS);
}

char LICENSE[] SEC("license") __weak = "Dual BSD/GPL";
