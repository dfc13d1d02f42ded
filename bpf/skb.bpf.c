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
	ss->peer_tag = q->peer_tag;
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
	q->peer_tag = ss->peer_tag;
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
static __always_inline int tcp_handshake_known(struct __sk_buff *skb, struct bh_tuple *tuple, const struct bh_packet *p,
					       struct bh_query *q)
{
	struct bh_handshake *h = bpf_map_lookup_elem(&handshakes, tuple);
	struct bh_tcpopt option;

	q->direction = BH_INGRESS;
	if (!h) {
		if (is_bare_reset(p))
			return BH_DENY;
		bh_refuse(q, BH_REASON_NO_FLOW);
		return BH_DENY;
	}
	q->peer = h->peer;
	q->peer_tag = h->peer_tag;
	q->proof = h->proof;
	/* A SYN-ACK that cannot say who we are would make us somebody else to the peer. */
	if ((p->tcp_flags & BH_TCP_SYN) && (bh_shows_identity(&q->remote) || skb->ifindex == 1)) {
		if (bh_option_find(skb, p, &option) != 1) {
			bh_refuse(q, BH_REASON_UNPROVEN);
			return BH_DENY;
		}
		bh_syn_ticket_put(bh_option_mac(&option), q->subject_tag, q->now);
	}
	/* The listener may be another than the one that accepted (SO_REUSEPORT): then it is judged for this one. */
	if (h->word == q->word && q->now < h->valid_until_ns && h->identity == q->subject)
		return BH_ALLOW;
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
	if (hook == BH_EGRESS || !(p->tcp_flags & BH_TCP_SYN))
		return tcp_handshake_known(skb, &tuple, p, q);
	if (p->tcp_flags & BH_TCP_ACK) { /* a listener asked nobody */
		bh_refuse(q, BH_REASON_NO_FLOW);
		return BH_DENY;
	}

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
	h.peer_tag = q->peer_tag;
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
	/* An own address that is not known yet: on the loopback device, silence would be taken for the host's. */
	if (!bh_shows_identity(&q->remote)) {
		if (skb->ifindex != 1)
			return BH_ALLOW;
		bh_refuse(q, BH_REASON_UNPROVEN);
		return BH_DENY;
	}
	/* No segment of a workload may pass for one of the host, or of the world, by leaving out who sends it. */
	if (bh_option_find(skb, p, &option) != 1) {
		bh_refuse(q, BH_REASON_UNPROVEN);
		return BH_DENY;
	}
	/* Written before a change of tag, or for another process's connect(): the retransmission says it right. */
	if (bpf_ntohl(option.identity) != q->subject)
		return BH_DENY;
	bh_syn_ticket_put(bh_option_mac(&option), q->subject_tag, q->now);
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
	ss->answered = q->allow;
	bh_report(q);
	return q->allow ? BH_ALLOW : BH_DENY;
}

static __noinline int tcp_packet(struct __sk_buff *skb, struct bh_sock *ss, const struct bh_packet *p,
				 struct bh_query *q, __u32 hook)
{
	if (!ss)
		return BH_DENY;
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

/* Checks that the socket may send from this address, and makes it findable by its peers. Returns 0 or the enum bh_reason to
 * deny with. */
static __noinline int udp_source(struct __sk_buff *skb, struct bh_sock *ss, const struct bh_query *q)
{
	struct bpf_sock *sk = skb->sk;
	struct bh_endpoint fresh = {};
	struct bh_addr bound;
	__u64 owner;

	if (!ss || !sk)
		return BH_REASON_NO_FLOW;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return BH_REASON_NO_FLOW;
	sock_bound_address(sk, &bound);
	/* The source address is the sender's to write (IP_PKTINFO), but not when it is another socket's. A socket bound to
	 * every address is the only one on its port: what is registered there has gone. */
	if ((bound.w[0] || bound.w[1] || bound.w[3]) && !bh_addr_equal(&q->local, &bound)) {
		owner = bh_endpoint_cookie(&q->local, ss->netns, q->lport);
		if (owner && owner != q->cookie)
			return BH_REASON_SOURCE;
	}
	if (ss->registered && ss->lport == q->lport && bh_addr_equal(&ss->local, &bound) &&
	    bh_endpoint_cookie(&bound, ss->netns, q->lport))
		return 0;
	fresh.refs = 1;
	fresh.cookie = q->cookie;
	for (__u32 i = 0; i < BH_MAX_DEPTH; i++) {
		fresh.levels[i] = bpf_skb_ancestor_cgroup_id(skb, subtree_level + 1 + i);
		if (!fresh.levels[i])
			break;
	}
	return bh_endpoint_move(ss, &bound, q->lport, &fresh) ? BH_REASON_MAP_FULL : 0;
}

static __always_inline void udp_flow_store(struct bh_udp_flow *f, const struct bh_query *q, __u64 peer_cookie)
{
	f->word = q->word;
	f->valid_until_ns = q->valid_until;
	f->seen_ns = q->now;
	f->resolved_ns = q->now;
	f->peer_cookie = peer_cookie;
	f->peer_tag = q->peer_tag;
	f->identity = q->subject;
	f->peer = q->peer;
	f->cell = q->cell;
	f->initiator = q->direction == BH_EGRESS;
	f->proof = q->proof;
	f->reason = q->reason;
	f->verdict = q->allow;
}

/* One packet of a flow without handshake. q holds both ends, `f` is the flow if it is known; `hook` is the packet's
 * direction. Replies belong to the flow of the first packet. Only allowed flows are remembered. */
static __noinline int flow_packet(struct bh_query *q, struct bh_udp_key *key, __u64 peer_cookie, __u32 hook)
{
	struct bh_udp_flow fresh = {}, *f = bpf_map_lookup_elem(&udp_flows, key);
	bool known = false;

	/* Signed: another CPU may have seen a packet after our clock was read. */
	if (f && (__s64)(q->now - f->seen_ns) >= (__s64)BH_UDP_IDLE)
		f = 0;
	q->direction = hook;
	if (f) {
		q->again = 1;
		q->direction = f->initiator ? BH_EGRESS : BH_INGRESS;
		/* Our answer goes to who asked: that was proved when the question came in. */
		if (hook == BH_EGRESS && !f->initiator) {
			q->peer = f->peer;
			q->peer_tag = f->peer_tag;
			q->proof = f->proof;
			peer_cookie = f->peer_cookie;
		}
		known = f->peer == q->peer && f->peer_tag == q->peer_tag;
		if (known && f->word == q->word && q->now < f->valid_until_ns && f->peer_cookie == peer_cookie) {
			f->resolved_ns = q->now;
			if ((__s64)(q->now - f->seen_ns) > (__s64)BH_SECOND)
				f->seen_ns = q->now;
			if (f->verdict)
				return BH_ALLOW;
			q->cell = f->cell;
			q->reason = f->reason;
			bh_report_denied(q);
			return BH_DENY;
		}
	}
	bh_judge(q);
	bh_report(q);
	/* A flow that is denied keeps its direction: else the next answer would open it anew the other way round. And who is
	 * not its peer has no say in it. */
	if (f && (q->allow || known))
		udp_flow_store(f, q, peer_cookie);
	if (f || !q->allow)
		return q->allow ? BH_ALLOW : BH_DENY;
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

/* Keeps who the subject is with a UDP socket: it is the same for all its flows. */
static __always_inline void udp_subject_store(struct bh_sock *ss, const struct bh_query *q)
{
	*(volatile __u64 *)&ss->word = ~0ULL;
	ss->identity = q->subject;
	ss->valid_until_ns = q->valid_until;
	ss->cgroup = q->cgroup;
	ss->peer_tag = q->subject_tag; /* a UDP socket has no one peer: the field keeps its own tag */
	ss->proto = IPPROTO_UDP;
	asm volatile("" ::: "memory");
	*(volatile __u64 *)&ss->word = q->word;
}

/* Who holds a destination's port is looked up again after this long; the receiver is judged by its own hook all the
 * same. */
#define BH_RESOLVE_NS (BH_SECOND / 100)

/*
 * A packet of a flow that was allowed, with nothing changed since: two map lookups. Anything else, also anything odd, goes
 * the whole way. Returns 1 allow, 0 not for here.
 */
static __always_inline int udp_known(struct __sk_buff *skb, struct bh_sock *ss, __u64 word, __u64 now, __u32 hook)
{
	struct bh_query q = {.word = word, .now = now, .subject = ss->identity, .subject_tag = ss->peer_tag};
	__u32 loopback = skb->ifindex == 1, segments = skb->gso_segs;
	struct bh_udp_flow *f;
	struct bh_udp_key key;
	struct bh_packet p;
	__u64 cookie;

	if (hook == BH_EGRESS ? bh_parse(skb, &p, &q.local, &q.remote) : bh_parse(skb, &p, &q.remote, &q.local))
		return 0;
	if (p.proto != IPPROTO_UDP)
		return 0;
	q.lport = hook == BH_EGRESS ? p.sport : p.dport;
	q.rport = hook == BH_EGRESS ? p.dport : p.sport;
	q.proto = p.proto;
	q.cookie = bpf_get_socket_cookie(skb);
	flow_key_of(&key, &q);
	f = bpf_map_lookup_elem(&udp_flows, &key);
	if (!f || !f->verdict || f->word != word || now >= f->valid_until_ns ||
	    (__s64)(now - f->seen_ns) >= (__s64)BH_SECOND)
		return 0;
	if (hook == BH_EGRESS) {
		if (f->initiator && (__s64)(now - f->resolved_ns) >= (__s64)BH_RESOLVE_NS)
			return 0;
		if (bh_shows_identity(&q.remote))
			bh_ticket_write(&q, loopback ? ss->netns : 0, segments ? segments : 1);
		return 1;
	}
	q.valid_until = ~0ULL;
	cookie = bh_ticket_take(&q, loopback ? ss->netns : 0);
	if (cookie && cookie == f->peer_cookie && q.peer == f->peer && q.peer_tag == f->peer_tag)
		return 1;
	if (cookie)
		bh_ticket_return(&q, loopback ? ss->netns : 0);
	return 0;
}

static __always_inline int udp_egress(struct __sk_buff *skb, struct bh_sock *ss, struct bh_query *q)
{
	__u32 loopback = skb->ifindex == 1, segments = skb->gso_segs;
	struct bh_udp_key key;
	__u64 peer_cookie;
	int err = udp_source(skb, ss, q);

	if (err) {
		bh_refuse(q, err);
		return BH_DENY;
	}
	flow_key_of(&key, q);
	peer_cookie = bh_peer_of_destination(q, ss->netns, loopback);
	if (!flow_packet(q, &key, peer_cookie, BH_EGRESS))
		return BH_DENY;
	udp_subject_store(ss, q);
	if (bh_shows_identity(&q->remote) || bh_addr_is_multicast(&q->remote))
		bh_ticket_write(q, loopback ? ss->netns : 0, segments ? segments : 1);
	return BH_ALLOW;
}

static __always_inline int udp_ingress(struct __sk_buff *skb, struct bh_sock *ss, struct bh_query *q)
{
	struct bh_udp_key key;
	__u64 peer_cookie;

	flow_key_of(&key, q);
	peer_cookie = bh_peer_of_source(q, ss->netns, skb->ifindex == 1);
	if (!flow_packet(q, &key, peer_cookie, BH_INGRESS))
		return BH_DENY;
	udp_subject_store(ss, q);
	/* Tells the sendmsg hook that this socket answers others. */
	if (!ss->verdict)
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

/* ---- hooks ---- */

static __always_inline int packet(struct __sk_buff *skb, struct bh_sock *ss, __u64 word, __u64 now, __u32 hook)
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
		return BH_ALLOW;
	}
	q.cookie = bpf_get_socket_cookie(skb);
	err = hook == BH_EGRESS ? bh_parse(skb, &p, &q.local, &q.remote) : bh_parse(skb, &p, &q.remote, &q.local);
	q.lport = hook == BH_EGRESS ? p.sport : p.dport;
	q.rport = hook == BH_EGRESS ? p.dport : p.sport;
	q.proto = p.proto;
	q.peer = BH_ID_WORLD;

	if (!err && !ss && is_of_kernel(sk, &p))
		return BH_ALLOW;
	if (sk->type == BH_SOCK_RAW && p.proto != IPPROTO_ICMP && p.proto != IPPROTO_ICMPV6)
		err = BH_REASON_RAW_SOCKET;
	else if (!err && !ss)
		err = BH_REASON_OLD_SOCKET;
	if (!err && ss) {
		if (p.proto == IPPROTO_ICMP || p.proto == IPPROTO_ICMPV6)
			return icmp_packet(skb, &p, &q, hook);
		if (p.proto == IPPROTO_TCP && sk->protocol == IPPROTO_TCP)
			return tcp_packet(skb, ss, &p, &q, hook);
		if (p.proto == IPPROTO_UDP && sk->protocol == IPPROTO_UDP && hook == BH_EGRESS)
			return udp_egress(skb, ss, &q);
		if (p.proto == IPPROTO_UDP && sk->protocol == IPPROTO_UDP)
			return udp_ingress(skb, ss, &q);
		err = BH_REASON_PROTO;
	}
	bh_refuse(&q, err);
	return BH_DENY;
}

/* Functions of their own, so that the way a packet usually takes does not share their stack. */
static __noinline int packet_in(struct __sk_buff *skb, struct bh_sock *ss, __u64 word, __u64 now)
{
	return packet(skb, ss, word, now, BH_INGRESS);
}

static __noinline int packet_out(struct __sk_buff *skb, struct bh_sock *ss, __u64 word, __u64 now)
{
	return packet(skb, ss, word, now, BH_EGRESS);
}

static __noinline int udp_known_in(struct __sk_buff *skb, struct bh_sock *ss, __u64 word, __u64 now)
{
	return ss ? udp_known(skb, ss, word, now, BH_INGRESS) : 0;
}

static __noinline int udp_known_out(struct __sk_buff *skb, struct bh_sock *ss, __u64 word, __u64 now)
{
	return ss ? udp_known(skb, ss, word, now, BH_EGRESS) : 0;
}

static __always_inline int hook(struct __sk_buff *skb, __u32 direction)
{
	struct bpf_sock *sk = skb->sk;
	struct bh_sock *ss;
	__u64 word, now;
	int known;

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
		/* Set when a datagram of this socket was allowed. */
		if (ss->proto == IPPROTO_UDP && ss->word == word && now < ss->valid_until_ns) {
			known = direction == BH_EGRESS ? udp_known_out(skb, ss, word, now)
						       : udp_known_in(skb, ss, word, now);
			if (known)
				return BH_ALLOW;
		}
	}
	return direction == BH_EGRESS ? packet_out(skb, ss, word, now) : packet_in(skb, ss, word, now);
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
