// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * skb.bpf.c - every packet of a managed socket, in both directions: this is what enforces.
 *
 * A TCP connection is judged in its handshake, when both ends know each other, and the verdict is kept for the socket. A
 * later packet costs the comparison of its cookie, of one word (nothing the verdict rests on has changed) and of one
 * deadline. UDP and ICMP echo have no handshake and are judged by a flow table. What fits nowhere is denied.
 */
#include "icmp.h"
#include "tcp.h"
#include "udp.h"

#define BH_SOCK_RAW 3

/*
 * A network namespace has sockets of the kernel's own, which belong to the cgroup of the process that made the namespace:
 * for neighbour discovery, for multicast listening, for ICMPv6 answers, for TCP segments of connections that are over. A
 * socket that a process opens has storage, so it is never taken for one. None of these carries a process's payload.
 */
static __always_inline bool is_of_kernel(struct bpf_sock *sk, const struct bh_packet *p)
{
	if (sk->type != BH_SOCK_RAW)
		return false;
	if (p->proto == IPPROTO_TCP)
		return p->payload_len == 0 && !(p->tcp_flags & BH_TCP_SYN);
	return p->proto == IPPROTO_ICMPV6 && p->icmp_type != ICMPV6_ECHO_REQUEST_TYPE;
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

/* `ss` or `t` is what is kept of the socket; neither: nothing. */
static __always_inline int packet(struct __sk_buff *skb, struct bh_sock *ss, struct bh_tcp *t, __u64 word, __u64 now,
				  __u32 hook)
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
	if (!t || !bh_tcp_subject(t, &q)) {
		bh_subject_of_skb(skb, &q);
		if (q.host) {
			if (ss)
				ss->kind = BH_SOCK_HOST;
			if (t)
				bh_tcp_host(t, q.cookie);
			return BH_ALLOW;
		}
		if (t && t->kind == BH_SOCK_LISTEN)
			bh_tcp_subject_note(t, &q);
	}
	err = hook == BH_EGRESS ? bh_parse(skb, &p, &q.local, &q.remote) : bh_parse(skb, &p, &q.remote, &q.local);
	q.lport = hook == BH_EGRESS ? p.sport : p.dport;
	q.rport = hook == BH_EGRESS ? p.dport : p.sport;
	q.proto = p.proto;
	q.peer = BH_ID_WORLD;

	if (!err && !ss && !t && is_of_kernel(sk, &p))
		return BH_ALLOW;
	if (sk->type == BH_SOCK_RAW && p.proto != IPPROTO_ICMP && p.proto != IPPROTO_ICMPV6)
		err = BH_REASON_RAW_SOCKET;
	if (err) {
		bh_refuse(&q, err);
		return BH_DENY;
	}
	if (t && p.proto == IPPROTO_TCP)
		return tcp_packet(skb, t, &p, &q, hook);
	if (!ss)
		return unknown_socket(sk, &p, &q, hook);
	if (p.proto == IPPROTO_ICMP || p.proto == IPPROTO_ICMPV6)
		return icmp_packet(skb, &p, &q, hook);
	if (p.proto == IPPROTO_UDP && sk->protocol == IPPROTO_UDP)
		return hook == BH_EGRESS ? udp_egress(skb, ss, &q) : udp_ingress(skb, ss, &q);
	bh_refuse(&q, BH_REASON_PROTO);
	return BH_DENY;
}

/* Functions of their own, so that the way a packet usually takes does not share their stack. */
static __noinline int packet_in(struct __sk_buff *skb, struct bh_sock *ss, struct bh_tcp *t, __u64 word, __u64 now)
{
	return packet(skb, ss, t, word, now, BH_INGRESS);
}

static __noinline int packet_out(struct __sk_buff *skb, struct bh_sock *ss, struct bh_tcp *t, __u64 word, __u64 now)
{
	return packet(skb, ss, t, word, now, BH_EGRESS);
}

static __noinline int udp_known_in(struct __sk_buff *skb, struct bh_sock *ss, __u64 word, __u64 now)
{
	return ss ? udp_known(skb, ss, word, now, BH_INGRESS) : 0;
}

static __noinline int udp_known_out(struct __sk_buff *skb, struct bh_sock *ss, __u64 word, __u64 now)
{
	return ss ? udp_known(skb, ss, word, now, BH_EGRESS) : 0;
}

/* The cookie goes last: it shows whose the rest was. */
static __always_inline bool tcp_passes(const struct bh_tcp *t, __u64 cookie, __u64 word, __u64 now)
{
	return *(const volatile __u64 *)&t->pass == word && now < *(const volatile __u64 *)&t->valid_until_ns &&
	       bh_tcp_owner(t) == cookie;
}

static __always_inline int tcp_hook(struct __sk_buff *skb, struct bh_tcp *t, __u64 cookie, __u64 word, __u64 now,
				    __u32 direction)
{
	if (t->kind == BH_SOCK_HOST && bh_tcp_owner(t) == cookie)
		return BH_ALLOW;
	return direction == BH_EGRESS ? packet_out(skb, 0, t, word, now) : packet_in(skb, 0, t, word, now);
}

static __always_inline int hook(struct __sk_buff *skb, __u32 direction)
{
	struct bpf_sock *sk = skb->sk;
	__u64 word, now, cookie;
	struct bh_sock *ss;
	struct bh_tcp *t;
	int known;

	if (!sk)
		return BH_DENY;
	word = bh_state_word();
	now = bh_now();
	cookie = bpf_get_socket_cookie(skb);
	t = bh_tcp_slot(cookie);
	if (!t)
		return BH_DENY;
	if (tcp_passes(t, cookie, word, now))
		return BH_ALLOW;
	if (bh_tcp_owner(t) == cookie)
		return tcp_hook(skb, t, cookie, word, now, direction);
	ss = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (ss) {
		if (ss->kind == BH_SOCK_HOST)
			return BH_ALLOW;
		/* Set when a datagram of this socket was allowed. */
		if (ss->proto == IPPROTO_UDP && ss->word == word && now < ss->valid_until_ns) {
			known = direction == BH_EGRESS ? udp_known_out(skb, ss, word, now)
						       : udp_known_in(skb, ss, word, now);
			if (known)
				return BH_ALLOW;
		}
	} else {
		t = bpf_map_lookup_elem(&tcp_more, &cookie);
		if (t && tcp_passes(t, cookie, word, now))
			return BH_ALLOW;
		if (t)
			return tcp_hook(skb, t, cookie, word, now, direction);
	}
	return direction == BH_EGRESS ? packet_out(skb, ss, 0, word, now) : packet_in(skb, ss, 0, word, now);
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
