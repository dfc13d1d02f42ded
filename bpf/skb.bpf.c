// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * skb.bpf.c - every packet of a managed socket, in both directions: this is what enforces.
 *
 * A TCP connection is judged in its handshake, when both ends know each other, and the verdict is kept with the socket.
 * A later packet costs the comparison of one word (nothing the verdict rests on has changed) and of one deadline. UDP and
 * ICMP echo have no handshake and are judged by a flow table. What fits nowhere is denied.
 */
#include "endpoint.h"
#include "handshake.h"

#define BH_DENY 0
#define BH_ALLOW 1

#define BH_AF_INET 2
#define BH_SOCK_RAW 3

/* A UDP or ICMP flow without packets for this long is over. */
#define BH_UDP_IDLE (60 * BH_SECOND)

#define ICMP_ECHO_REQUEST 8
#define ICMP_ECHO_REPLY 0
#define ICMPV6_ECHO_REQUEST_TYPE 128
#define ICMPV6_ECHO_REPLY_TYPE 129

/* ---- TCP ---- */

static __always_inline void tuple_of(struct bh_tuple *tuple, const struct bh_query *q, __u64 netns)
{
	__builtin_memset(tuple, 0, sizeof(*tuple));
	tuple->local = q->local;
	tuple->remote = q->remote;
	tuple->netns = netns;
	tuple->lport = q->lport;
	tuple->rport = q->rport;
}

/* Keeps q's verdict with the socket. The word goes last: a reader that sees it sees the verdict. */
static __always_inline void sock_store(struct bh_sock *ss, const struct bh_query *q)
{
	*(volatile __u64 *)&ss->word = ~0ULL;
	ss->verdict = q->allow;
	ss->valid_until_ns = q->valid_until;
	ss->identity = q->subject;
	ss->peer = q->peer;
	ss->cell = q->cell;
	ss->proof = q->proof;
	ss->reason = q->reason;
	ss->cgroup = q->cgroup;
	ss->proto = q->proto;
	ss->local = q->local;
	ss->remote = q->remote;
	ss->lport = q->lport;
	ss->rport = q->rport;
	asm volatile("" ::: "memory");
	*(volatile __u64 *)&ss->word = q->word;
}

/* A reset without payload ends a flow that was allowed once: it may pass, so that both ends learn of the cut. */
static __always_inline bool is_bare_reset(const struct bh_packet *p)
{
	return (p->tcp_flags & BH_TCP_RST) && p->payload_len == 0;
}

/* Any packet of an established connection that the fast path did not pass. */
static __always_inline int tcp_established(struct bh_sock *ss, const struct bh_packet *p, struct bh_query *q)
{
	q->direction = ss->kind == BH_SOCK_ACTIVE ? BH_EGRESS : BH_INGRESS;
	q->peer = ss->peer;
	q->proof = ss->proof;
	q->again = 1;
	if (ss->word == q->word && q->now < ss->valid_until_ns) {
		q->allow = ss->verdict;
		q->cell = ss->cell;
		q->reason = ss->reason;
	} else {
		bh_judge(q);
		sock_store(ss, q);
		if (q->allow)
			bh_report(q);
	}
	if (q->allow || is_bare_reset(p))
		return BH_ALLOW;
	bh_report_denied(q);
	return BH_DENY;
}

/* A packet of a handshake that the listener accepted before: judged again only if something changed since. */
static __always_inline int tcp_handshake_known(struct bh_tuple *tuple, const struct bh_packet *p, struct bh_query *q)
{
	struct bh_handshake *h = bpf_map_lookup_elem(&handshakes, tuple);

	q->direction = BH_INGRESS;
	if (!h) {
		if (is_bare_reset(p))
			return BH_DENY;
		bh_refuse(q, BH_REASON_NO_FLOW);
		return BH_DENY;
	}
	if (h->word == q->word && q->now < h->valid_until_ns)
		return BH_ALLOW;
	q->peer = h->peer;
	q->proof = h->proof;
	q->again = 1;
	bh_judge(q);
	bh_report(q);
	if (!q->allow) {
		bpf_map_delete_elem(&handshakes, tuple);
		return BH_DENY;
	}
	h->valid_until_ns = q->valid_until;
	h->identity = q->subject;
	h->cell = q->cell;
	h->word = q->word;
	return BH_ALLOW;
}

static __always_inline int tcp_listener(struct __sk_buff *skb, struct bh_sock *ss, const struct bh_packet *p,
					struct bh_query *q, __u32 hook)
{
	struct bh_handshake h = {};
	struct bh_tuple tuple;

	tuple_of(&tuple, q, ss->netns);
	if (hook == BH_EGRESS || (p->tcp_flags & (BH_TCP_SYN | BH_TCP_ACK)) != BH_TCP_SYN)
		return tcp_handshake_known(&tuple, p, q);

	q->direction = BH_INGRESS;
	bh_peer_of_segment(skb, p, q);
	bh_judge(q);
	bh_report(q);
	if (!q->allow)
		return BH_DENY;
	h.word = q->word;
	h.valid_until_ns = q->valid_until;
	h.identity = q->subject;
	h.peer = q->peer;
	h.cell = q->cell;
	h.proof = q->proof;
	if (bpf_map_update_elem(&handshakes, &tuple, &h, BPF_ANY)) {
		BH_COUNT(map_full);
		bh_refuse(q, BH_REASON_MAP_FULL);
		return BH_DENY;
	}
	return BH_ALLOW;
}

/* The SYN of a connecting socket: who answers is not known yet, so it may leave if any answer could be allowed. */
static __always_inline int tcp_syn_sent(struct __sk_buff *skb, struct bh_sock *ss, const struct bh_packet *p,
					struct bh_query *q)
{
	struct bh_tcpopt option;
	__u32 one = 1;
	__u64 mac;

	q->direction = BH_EGRESS;
	if (!(p->tcp_flags & BH_TCP_SYN))
		return p->payload_len ? BH_DENY : BH_ALLOW;
	if (p->payload_len) {
		bh_refuse(q, BH_REASON_EARLY_DATA);
		return BH_DENY;
	}
	/* For the option of a retransmission, where this one left without. */
	ss->identity = q->subject;
	ss->valid_until_ns = q->valid_until;
	ss->isn = bpf_ntohl(p->seq);
	bh_judge_possible(q);
	if (!q->allow) {
		bh_report_denied(q);
		return BH_DENY;
	}
	if (bh_option_find(skb, p, &option) == 1) {
		/* Written before a change of tag: the retransmission says it right. */
		if (bpf_ntohl(option.identity) != q->subject)
			return BH_DENY;
		mac = bh_option_mac(&option);
		bpf_map_update_elem(&tickets, &mac, &one, BPF_ANY);
	}
	return BH_ALLOW;
}

/* What answers a SYN: here the peer becomes known and egress is judged. */
static __always_inline int tcp_answer(struct __sk_buff *skb, struct bh_sock *ss, const struct bh_packet *p,
				      struct bh_query *q)
{
	q->direction = BH_EGRESS;
	if (!(p->tcp_flags & BH_TCP_SYN)) /* reset, or an old connection's ACK: carries nothing to the application */
		return p->payload_len ? BH_DENY : BH_ALLOW;
	/* Only who saw our SYN may name the peer; a SYN in answer (simultaneous open) proves nothing. */
	if (!(p->tcp_flags & BH_TCP_ACK) || bpf_ntohl(p->ack) != ss->isn + 1) {
		bh_refuse(q, BH_REASON_NO_FLOW);
		return BH_DENY;
	}
	bh_peer_of_segment(skb, p, q);
	bh_judge(q);
	sock_store(ss, q);
	bh_report(q);
	return q->allow ? BH_ALLOW : BH_DENY;
}

static __always_inline int tcp_packet(struct __sk_buff *skb, struct bh_sock *ss, const struct bh_packet *p,
				      struct bh_query *q, __u32 hook)
{
	switch (ss->kind) {
	case BH_SOCK_ACTIVE:
	case BH_SOCK_PASSIVE:
		return tcp_established(ss, p, q);
	case BH_SOCK_LISTEN:
		return tcp_listener(skb, ss, p, q, hook);
	case BH_SOCK_CONNECT:
		if (hook == BH_EGRESS)
			return tcp_syn_sent(skb, ss, p, q);
		return tcp_answer(skb, ss, p, q);
	default:
		bh_refuse(q, BH_REASON_NO_FLOW);
		return BH_DENY;
	}
}

/* ---- UDP and ICMP echo ---- */

/* The address a socket is bound to. Each field is loaded by itself: the verifier takes no pointer into a socket. */
static __always_inline void sock_bound_address(struct bpf_sock *sk, struct bh_addr *bound)
{
	__u32 v4 = sk->src_ip4;

	BH_OPAQUE(v4);
	if (sk->family == BH_AF_INET) {
		bh_addr_v4(bound, v4);
		return;
	}
	for (int i = 0; i < 4; i++)
		bound->w[i] = sk->src_ip6[i];
}

/* Makes the socket findable by its peers. */
static __noinline int udp_register(struct __sk_buff *skb, struct bh_sock *ss, const struct bh_addr *bound, __u16 port)
{
	struct bh_endpoint_key key = {.addr = *bound, .netns = ss->netns, .port = port};
	struct bh_endpoint fresh = {.refs = 1};

	if (ss->registered) {
		struct bh_endpoint_key old = {.addr = ss->local, .netns = ss->netns, .port = ss->lport};

		bh_endpoint_drop(&old);
		ss->registered = 0;
	}
	fresh.cookie = bpf_get_socket_cookie(skb);
	for (__u32 i = 0; i < BH_MAX_DEPTH; i++) {
		fresh.levels[i] = bpf_skb_ancestor_cgroup_id(skb, subtree_level + 1 + i);
		if (!fresh.levels[i])
			break;
	}
	if (bh_endpoint_add(&key, &fresh))
		return -1;
	ss->local = *bound;
	ss->lport = port;
	ss->registered = 1;
	return 0;
}

static __always_inline void udp_flow_store(struct bh_udp_flow *f, const struct bh_query *q, __u64 peer_cookie)
{
	f->word = q->word;
	f->valid_until_ns = q->valid_until;
	f->seen_ns = q->now;
	f->peer_cookie = peer_cookie;
	f->identity = q->subject;
	f->peer = q->peer;
	f->cell = q->cell;
	f->initiator = q->direction == BH_EGRESS;
	f->proof = q->proof;
	f->reason = q->reason;
	f->verdict = q->allow;
}

/* One packet of a flow without handshake. q holds both ends; `hook` is the packet's direction. Replies belong to the flow
 * of the first packet. Only allowed flows are remembered. */
static __noinline int flow_packet(struct bh_query *q, struct bh_udp_key *key, __u64 peer_cookie, __u32 hook)
{
	struct bh_udp_flow fresh = {}, *f = bpf_map_lookup_elem(&udp_flows, key);

	if (f && q->now - f->seen_ns >= BH_UDP_IDLE)
		f = 0;
	q->direction = hook;
	if (f) {
		q->again = 1;
		q->direction = f->initiator ? BH_EGRESS : BH_INGRESS;
		if (f->word == q->word && q->now < f->valid_until_ns && f->peer == q->peer &&
		    f->peer_cookie == peer_cookie) {
			if (q->now - f->seen_ns > BH_SECOND)
				f->seen_ns = q->now;
			return BH_ALLOW;
		}
	}
	bh_judge(q);
	bh_report(q);
	if (!q->allow) {
		bpf_map_delete_elem(&udp_flows, key);
		return BH_DENY;
	}
	if (f) {
		udp_flow_store(f, q, peer_cookie);
		return BH_ALLOW;
	}
	udp_flow_store(&fresh, q, peer_cookie);
	bpf_map_update_elem(&udp_flows, key, &fresh, BPF_ANY);
	return BH_ALLOW;
}

static __always_inline void flow_key_of(struct bh_udp_key *key, const struct bh_query *q)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->cookie = q->cookie;
	key->local = q->local;
	key->remote = q->remote;
	key->lport = q->lport;
	key->rport = q->rport;
	key->proto = q->proto;
}

static __always_inline int udp_packet(struct __sk_buff *skb, struct bpf_sock *sk, struct bh_sock *ss,
				      struct bh_query *q, __u32 hook)
{
	struct bh_udp_key key;
	__u64 peer_cookie;

	if (hook == BH_EGRESS && (!ss->registered || ss->lport != q->lport)) {
		struct bh_addr bound;

		sock_bound_address(sk, &bound);
		if (udp_register(skb, ss, &bound, q->lport)) {
			bh_refuse(q, BH_REASON_MAP_FULL);
			return BH_DENY;
		}
	}
	flow_key_of(&key, q);
	peer_cookie = bh_peer_of_endpoint(q, ss->netns, skb->ifindex == 1);
	if (!flow_packet(q, &key, peer_cookie, hook))
		return BH_DENY;
	/* Tells the sendmsg hook that this socket answers others. */
	if (hook == BH_INGRESS && !ss->verdict)
		ss->verdict = 1;
	return BH_ALLOW;
}

/* Echo: the request opens a flow, the reply belongs to it. A raw socket also gets copies of what others sent; they are
 * not its traffic and are dropped without a word. */
static __always_inline int icmp_packet(struct __sk_buff *skb, const struct bh_packet *p, struct bh_query *q, __u32 hook)
{
	bool v6 = p->proto == IPPROTO_ICMPV6;
	__u16 request = v6 ? ICMPV6_ECHO_REQUEST_TYPE : ICMP_ECHO_REQUEST;
	__u16 reply = v6 ? ICMPV6_ECHO_REPLY_TYPE : ICMP_ECHO_REPLY;
	struct bh_udp_key key;

	q->direction = hook;
	q->lport = 0;
	q->rport = 0;
	flow_key_of(&key, q);
	if (hook == BH_EGRESS && p->icmp_type != request) {
		q->rport = p->icmp_type;
		bh_refuse(q, BH_REASON_PROTO);
		return BH_DENY;
	}
	if (hook == BH_INGRESS && (p->icmp_type != reply || !bpf_map_lookup_elem(&udp_flows, &key)))
		return BH_DENY;
	q->rport = request;
	q->peer = skb->ifindex == 1 || bpf_map_lookup_elem(&addresses, &q->remote) ? BH_ID_HOST : BH_ID_WORLD;
	return flow_packet(q, &key, 0, hook);
}

/* ---- hooks ---- */

static __always_inline int packet(struct __sk_buff *skb, struct bpf_sock *sk, struct bh_sock *ss, __u64 word, __u64 now,
				  __u32 hook)
{
	struct bh_query q = {.word = word, .now = now, .direction = hook};
	struct bh_packet p;
	int err;

	bh_subject_of_skb(skb, &q);
	if (q.host) {
		if (ss)
			ss->kind = BH_SOCK_HOST;
		return BH_ALLOW;
	}
	q.cookie = bpf_get_socket_cookie(skb);
	err = bh_parse(skb, &p);
	q.local = hook == BH_EGRESS ? p.src : p.dst;
	q.remote = hook == BH_EGRESS ? p.dst : p.src;
	q.lport = hook == BH_EGRESS ? p.sport : p.dport;
	q.rport = hook == BH_EGRESS ? p.dport : p.sport;
	q.proto = p.proto;
	q.peer = BH_ID_WORLD;

	if (sk->type == BH_SOCK_RAW && p.proto != IPPROTO_ICMP && p.proto != IPPROTO_ICMPV6)
		err = BH_REASON_RAW_SOCKET;
	else if (!err && !ss)
		err = BH_REASON_OLD_SOCKET;
	if (!err && ss) {
		if (p.proto == IPPROTO_ICMP || p.proto == IPPROTO_ICMPV6)
			return icmp_packet(skb, &p, &q, hook);
		if (p.proto == IPPROTO_TCP && sk->protocol == IPPROTO_TCP)
			return tcp_packet(skb, ss, &p, &q, hook);
		if (p.proto == IPPROTO_UDP && sk->protocol == IPPROTO_UDP)
			return udp_packet(skb, sk, ss, &q, hook);
		err = BH_REASON_PROTO;
	}
	bh_refuse(&q, err);
	return BH_DENY;
}

static __always_inline int hook(struct __sk_buff *skb, __u32 direction)
{
	struct bpf_sock *sk = skb->sk;
	struct bh_sock *ss;
	__u64 word, now;

	if (!sk)
		return BH_DENY;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return BH_DENY;
	word = bh_state_word();
	now = bpf_ktime_get_boot_ns();
	ss = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (ss) {
		if ((ss->kind == BH_SOCK_ACTIVE || ss->kind == BH_SOCK_PASSIVE) && ss->word == word && ss->verdict &&
		    now < ss->valid_until_ns)
			return BH_ALLOW;
		if (ss->kind == BH_SOCK_HOST)
			return BH_ALLOW;
	}
	return packet(skb, sk, ss, word, now, direction);
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
