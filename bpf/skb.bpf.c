// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * skb.bpf.c - every packet of a managed socket, in both directions: this is what enforces.
 *
 * A TCP connection is judged in its handshake, when both ends know each other, and the verdict is kept with the socket.
 * A later packet costs the comparison of one word (nothing the verdict rests on has changed) and of one deadline. All else
 * has no handshake and is judged by a flow table. What fits nowhere is denied.
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
		verdict = icmp_flow(skb, ss, p, q, &key);
	else
		verdict = proto_flow(skb, ss, q, &key);
	return verdict == BH_JUDGE ? flow_packet(q, &key, 0, hook) : verdict;
}

/* ---- hooks ---- */

/* A socket has `ss` or, for UDP, `us`; one that was there before enforcement has neither. */
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

	bh_subject_of_skb(skb, &q);
	if (q.host) {
		if (ss)
			ss->kind = BH_SOCK_HOST;
		if (us)
			us->host = 1;
		return BH_ALLOW;
	}
	q.cookie = bpf_get_socket_cookie(skb);
	err = hook == BH_EGRESS ? bh_parse(skb, &p, &q.local, &q.remote) : bh_parse(skb, &p, &q.remote, &q.local);
	q.lport = hook == BH_EGRESS ? p.sport : p.dport;
	q.rport = hook == BH_EGRESS ? p.dport : p.sport;
	q.proto = p.proto;
	q.peer = BH_ID_WORLD;

	if (!err && !ss && !us && is_of_kernel(sk, &p))
		return BH_ALLOW;
	if (!err)
		err = socket_problem(sk, &p);
	if (!err && ss) {
		if (p.proto == IPPROTO_TCP)
			return tcp_packet(skb, ss, &p, &q, hook);
		return flow_packet_of(skb, ss, &p, &q, hook);
	}
	if (!err && us) {
		if (p.proto == IPPROTO_UDP && hook == BH_INGRESS)
			return udp_ingress(skb, us, &q);
		err = p.proto == IPPROTO_UDP ? udp_source(skb, us, &q) : BH_REASON_PROTO;
		if (!err)
			return udp_egress(skb, us, &q);
	}
	bh_refuse(&q, err ? err : BH_REASON_OLD_SOCKET);
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

static __noinline int udp_known_in(struct __sk_buff *skb, struct bh_udp_sock *us, __u64 word, __u64 now)
{
	return us ? udp_known(skb, us, word, now, BH_INGRESS) : 0;
}

static __noinline int udp_known_out(struct __sk_buff *skb, struct bh_udp_sock *us, __u64 word, __u64 now)
{
	return us ? udp_known(skb, us, word, now, BH_EGRESS) : 0;
}

static __noinline int recent_known_in(struct __sk_buff *skb, struct bh_udp_sock *us, __u64 word, __u64 now)
{
	return us ? recent_known(skb, us, word, now, BH_INGRESS) : 0;
}

static __noinline int recent_known_out(struct __sk_buff *skb, struct bh_udp_sock *us, __u64 word, __u64 now)
{
	return us ? recent_known(skb, us, word, now, BH_EGRESS) : 0;
}

/* Returns 1 allow, 0 not for here. */
static __always_inline int hook_udp(struct __sk_buff *skb, struct bh_udp_sock *us, __u64 word, __u64 now,
				    __u32 direction)
{
	if (us->host)
		return 1;
	if (direction == BH_EGRESS)
		return recent_known_out(skb, us, word, now) || (us->more && udp_known_out(skb, us, word, now));
	return recent_known_in(skb, us, word, now) || (us->more && udp_known_in(skb, us, word, now));
}

static __always_inline int hook(struct __sk_buff *skb, __u32 direction)
{
	struct bpf_sock *sk = skb->sk;
	struct bh_udp_sock *us = 0;
	struct bh_sock *ss;
	__u64 word, now;

	if (!sk)
		return BH_DENY;
	word = bh_state_word();
	now = bh_now();
	ss = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (ss) {
		if ((ss->kind == BH_SOCK_ACTIVE || ss->kind == BH_SOCK_PASSIVE) && ss->word == word && ss->verdict &&
		    now < ss->valid_until_ns)
			return BH_ALLOW;
		if (ss->kind == BH_SOCK_HOST)
			return BH_ALLOW;
	} else {
		us = bpf_sk_storage_get(&udp_sockets, sk, 0, 0);
		if (us && hook_udp(skb, us, word, now, direction))
			return BH_ALLOW;
	}
	return direction == BH_EGRESS ? packet_out(skb, ss, us, word, now) : packet_in(skb, ss, us, word, now);
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
