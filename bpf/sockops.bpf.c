// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * sockops.bpf.c - TCP's own milestones: which kind a socket is, the identity option in SYN and SYN-ACK, and the moment a
 * connection is established.
 */
#include "handshake.h"

#define BH_AF_INET6 10

/* The callbacks that write the option; only wanted until the handshake is over. */
#define HANDSHAKE_FLAGS BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG
/* The callback at its end; a socket that begins another connection keeps it. */
#define CONNECTION_FLAGS BPF_SOCK_OPS_STATE_CB_FLAG

static __always_inline void flags_set(struct bpf_sock_ops *ops, __u32 on)
{
	bpf_sock_ops_cb_flags_set(ops, (ops->bpf_sock_ops_cb_flags & ~HANDSHAKE_FLAGS) | on);
}

static __always_inline void ops_addresses(struct bpf_sock_ops *ops, struct bh_tuple *t)
{
	__u32 local4 = ops->local_ip4, remote4 = ops->remote_ip4;

	/* Loaded apart from the IPv6 fields: merged, the loads would go through a modified context pointer. */
	BH_OPAQUE(local4);
	BH_OPAQUE(remote4);
	__builtin_memset(t, 0, sizeof(*t));
	bh_addr_v4(&t->local, local4);
	bh_addr_v4(&t->remote, remote4);
	if (ops->family == BH_AF_INET6) {
		for (int i = 0; i < 4; i++) {
			t->local.w[i] = ops->local_ip6[i];
			t->remote.w[i] = ops->remote_ip6[i];
		}
	}
	t->lport = ops->local_port;
	t->rport = bpf_ntohl(ops->remote_port);
	t->netns = bpf_get_netns_cookie(ops);
}

/* The socket of this callback, with its storage; MPTCP subflows are made by the kernel and get theirs here. */
static __always_inline struct bh_sock *ops_sock(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	struct bh_sock *ss;

	if (!sk)
		return 0;
	ss = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (ss)
		ss->netns = bpf_get_netns_cookie(ops);
	return ss;
}

/* Who this end is in the handshake under way: the connecting socket's subject, or the listener's that accepted. Returns
 * false where no option is wanted. */
static __always_inline bool own_identity(struct bpf_sock_ops *ops, const struct bh_tuple *t, __u32 *identity)
{
	__u64 now = bh_now();
	struct bh_handshake *h;
	struct bpf_sock *sk;
	struct bh_sock *ss;

	if (!(ops->skb_tcp_flags & BH_TCP_SYN) || !bh_shows_identity(&t->remote))
		return false;
	if (ops->skb_tcp_flags & BH_TCP_ACK) {
		h = bpf_map_lookup_elem(&handshakes, t);
		*identity = h && now < h->valid_until_ns ? h->identity : BH_ID_UNIDENTIFIED;
		return h != 0;
	}
	sk = ops->sk;
	if (!sk)
		return false;
	ss = bpf_sk_storage_get(&sockets, sk, 0, 0);
	*identity = ss && now < ss->valid_until_ns ? ss->identity : BH_ID_UNIDENTIFIED;
	/* Who called connect() is outside any workload; whether the socket is, its first packet tells. */
	return ss && ss->kind == BH_SOCK_CONNECT && ss->identity != BH_ID_HOST;
}

static __always_inline void option_reserve(struct bpf_sock_ops *ops)
{
	struct bh_tuple t;
	__u32 identity;

	/* Where the handshake went on after the socket was accepted (Fast Open), it is over now. */
	if (ops->skb_tcp_flags && !(ops->skb_tcp_flags & BH_TCP_SYN)) {
		flags_set(ops, 0);
		return;
	}
	ops_addresses(ops, &t);
	if (own_identity(ops, &t, &identity) && bpf_reserve_hdr_opt(ops, BH_TCPOPT_LEN, 0))
		bpf_reserve_hdr_opt(ops, BH_TCPOPT_SHORT_LEN, 0);
}

/* A SYN-ACK that is a cookie belongs to no socket, so the packet hook, which notes the others, does not see it. */
static __always_inline void cookie_sent(struct bpf_sock_ops *ops, const struct bh_tuple *t,
					const struct bh_mac_input *in, __u64 mac)
{
	struct bh_handshake *h;

	if (ops->args[0] != BPF_WRITE_HDR_TCP_SYNACK_COOKIE)
		return;
	h = bpf_map_lookup_elem(&handshakes, t);
	if (!h)
		return;
	bh_syn_ticket_put(in->seq, in->ack, mac, h->subject_tag, bh_now());
	h->shown = 1;
}

static __always_inline void option_write(struct bpf_sock_ops *ops)
{
	struct bh_tcpopt option = {.kind = BH_TCPOPT_KIND, .len = BH_TCPOPT_LEN, .exid = bpf_htons(BH_TCPOPT_EXID)};
	struct tcphdr *th = ops->skb_data;
	struct bh_mac_input in = {};
	struct bh_tuple t;
	__u32 identity;
	__u64 mac;

	if ((void *)(th + 1) > ops->skb_data_end)
		return;
	in.seq = th->seq;
	in.ack = ops->skb_tcp_flags & BH_TCP_ACK ? th->ack_seq : 0;
	ops_addresses(ops, &t);
	if (!own_identity(ops, &t, &identity))
		return;
	option.identity = bpf_htonl(identity);
	in.identity = option.identity;
	__builtin_memcpy(in.src, t.local.w, sizeof(in.src));
	__builtin_memcpy(in.dst, t.remote.w, sizeof(in.dst));
	in.sport = bpf_htons(t.lport);
	in.dport = bpf_htons(t.rport);
	if (bh_segment_mac(&in, &mac))
		return;
	__builtin_memcpy(option.mac, &mac, sizeof(option.mac));
	if (bpf_store_hdr_opt(ops, &option, sizeof(option), 0)) {
		option.len = BH_TCPOPT_SHORT_LEN;
		if (bpf_store_hdr_opt(ops, &option, BH_TCPOPT_SHORT_LEN, 0))
			return;
	}
	cookie_sent(ops, &t, &in, mac);
}

/* A socket starts over: nothing of a connection that it had before counts. */
static __always_inline void sock_begin(struct bh_sock *ss, __u8 kind)
{
	ss->word = ~0ULL;
	ss->verdict = 0;
	ss->answered = 0;
	ss->peer = BH_ID_WORLD;
	ss->proof = BH_PROOF_NONE;
	ss->isn = 0;
	ss->kind = kind;
}

/* The accepted socket takes over what its listener's handshake found out. */
static __always_inline void passive_established(struct bpf_sock_ops *ops)
{
	/* Fast Open: its SYN-ACK is still to be written. */
	bool early = ops->skb_tcp_flags & BH_TCP_SYN;
	struct bh_sock *ss = ops_sock(ops);
	struct bh_handshake *h;
	struct bh_tuple t;

	if (!early)
		flags_set(ops, 0);
	if (!ss)
		return;
	ops_addresses(ops, &t);
	h = bpf_map_lookup_elem(&handshakes, &t);
	if (!h) {
		ss->kind = BH_SOCK_NEW;
		return;
	}
	ss->local = t.local;
	ss->remote = t.remote;
	ss->lport = t.lport;
	ss->rport = t.rport;
	ss->proto = IPPROTO_TCP;
	ss->identity = h->identity;
	ss->peer = h->peer;
	ss->peer_tag = h->peer_tag;
	ss->cell = h->cell;
	ss->proof = h->proof;
	ss->valid_until_ns = h->valid_until_ns;
	ss->verdict = 1;
	ss->word = h->word;
	ss->kind = early ? BH_SOCK_EARLY : BH_SOCK_PASSIVE;
	if (!early)
		bpf_map_delete_elem(&handshakes, &t);
	flags_set(ops, early ? HANDSHAKE_FLAGS | CONNECTION_FLAGS : CONNECTION_FLAGS);
}

/* A socket can be made established without a handshake (TCP_REPAIR): nobody judged that. */
static __always_inline void active_established(struct bpf_sock_ops *ops)
{
	struct bh_sock *ss = ops_sock(ops);

	if (ss && ss->kind == BH_SOCK_CONNECT)
		ss->kind = ss->answered ? BH_SOCK_ACTIVE : BH_SOCK_NEW;
	flags_set(ops, ss && ss->kind == BH_SOCK_ACTIVE ? CONNECTION_FLAGS : 0);
}

/* A connection has ended: what it did is counted for its pair. */
static __noinline int pair_end(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	struct bh_pair_key key = {};
	struct bh_counted *before;
	struct tcp_sock *tp;

	if (!sk || !bh_pair_of_sock(&key, bpf_sk_storage_get(&sockets, sk, 0, 0)))
		return 0;
	before = bpf_sk_storage_get(&counted, sk, 0, 0);
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp)
		bh_pair_tcp(tp, &key, before, ops->args[0], true);
	return 0;
}

SEC("sockops")
int bh_sockops(struct bpf_sock_ops *ops)
{
	struct bh_sock *ss;

	switch (ops->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		ss = ops_sock(ops);
		if (ss) {
			sock_begin(ss, BH_SOCK_CONNECT);
			flags_set(ops, HANDSHAKE_FLAGS);
		}
		break;
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		ss = ops_sock(ops);
		if (ss) {
			sock_begin(ss, BH_SOCK_LISTEN);
			flags_set(ops, HANDSHAKE_FLAGS);
		}
		break;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		option_reserve(ops);
		break;
	case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
		option_write(ops);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		active_established(ops);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		passive_established(ops);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ops->args[1] == BPF_TCP_CLOSE && ops->args[0] != BPF_TCP_CLOSE)
			pair_end(ops);
		break;
	default:
		break;
	}
	return 1;
}

char LICENSE[] SEC("license") __weak = "Dual BSD/GPL";
