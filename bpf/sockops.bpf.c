// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * sockops.bpf.c - TCP's own milestones: which kind a socket is, the identity option in SYN and SYN-ACK, and the moment a
 * connection is established. How it ends: end.bpf.c.
 */
#include "handshake.h"
#include "pending.h"

#define BH_AF_INET6 10

/* The callbacks that write the option are only wanted until the handshake is over. None that tell of a change of state: there are
 * seven to a connection, and of its end another program is told (end.bpf.c). Where one was asked for them, by another's program
 * or by a build before this, they go on. */
#define WRITE_FLAG BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG

static __always_inline void flags_set(struct bpf_sock_ops *ops, __u32 on)
{
	__u32 before = ops->bpf_sock_ops_cb_flags, after = (before & ~WRITE_FLAG) | on;

	if (after != before)
		bpf_sock_ops_cb_flags_set(ops, after);
}

/* The fields of IPv4 are loaded apart from those of IPv6: merged, the loads would go through a modified context pointer. */
static __always_inline void ops_remote(struct bpf_sock_ops *ops, struct bh_addr *remote)
{
	__u32 remote4 = ops->remote_ip4;

	BH_OPAQUE(remote4);
	bh_addr_v4(remote, remote4);
	if (ops->family == BH_AF_INET6)
		for (int i = 0; i < 4; i++)
			remote->w[i] = ops->remote_ip6[i];
}

static __always_inline void ops_local(struct bpf_sock_ops *ops, struct bh_addr *local)
{
	__u32 local4 = ops->local_ip4;

	BH_OPAQUE(local4);
	bh_addr_v4(local, local4);
	if (ops->family == BH_AF_INET6)
		for (int i = 0; i < 4; i++)
			local->w[i] = ops->local_ip6[i];
}

static __always_inline void ops_addresses(struct bpf_sock_ops *ops, struct bh_tuple *t)
{
	ops_local(ops, &t->local);
	ops_remote(ops, &t->remote);
	t->lport = ops->local_port;
	t->rport = bpf_ntohl(ops->remote_port);
	t->pad = 0;
}

/* What kept handshakes are found by. */
static __always_inline void ops_tuple(struct bpf_sock_ops *ops, struct bh_tuple *t)
{
	ops_addresses(ops, t);
	t->netns = bpf_get_netns_cookie(ops);
}

/* What is kept for the socket of this callback; MPTCP subflows are made by the kernel and get theirs here. */
static __always_inline struct bh_tcp *ops_sock(struct bpf_sock_ops *ops)
{
	__u64 cookie = bh_ops_cookie(ops);
	struct bh_tcp *t = bh_tcp_find(cookie);

	return t ? t : bh_tcp_new(cookie, bpf_get_netns_cookie(ops));
}

/* Room in SYN and SYN-ACK. What is not used is filled with padding. */
static __always_inline int option_reserve(struct bpf_sock_ops *ops)
{
	struct bh_addr remote;

	if (!(ops->skb_tcp_flags & BH_TCP_SYN)) {
		/* Where the handshake went on after the socket was accepted (Fast Open), it is over now. */
		if (ops->skb_tcp_flags)
			flags_set(ops, 0);
		return 0;
	}
	ops_remote(ops, &remote);
	if (bh_shows_identity(&remote) && bpf_reserve_hdr_opt(ops, BH_TCPOPT_LEN, 0))
		bpf_reserve_hdr_opt(ops, BH_TCPOPT_SHORT_LEN, 0);
	return 0;
}

/* What the packets of a listener have shown of it, if nothing has changed since. Where it has meanwhile, the packet hook sees
 * that the option is another's. */
static __always_inline bool listener_identity(__u64 cookie, __u64 now, __u32 *identity)
{
	struct bh_tcp *t = cookie ? bh_tcp_find(cookie) : 0;

	if (!t || !t->known || t->kind != BH_SOCK_LISTEN || t->word != bh_state_word() || now >= t->valid_until_ns)
		return false;
	*identity = t->identity;
	return bh_tcp_owner(t) == cookie;
}

BH_GLOBAL int handshake_get_far(const struct bh_tuple *tuple, struct bh_handshake *h, struct bh_found *found,
				__u32 after)
{
	return tuple && h && found ? bh_pending_get(tuple, h, found, after, true) : BH_PENDING_NONE;
}

static __always_inline bool handshake_get(const struct bh_tuple *tuple, struct bh_handshake *h, struct bh_found *found,
					  __u32 after)
{
	int got = bh_pending_get(tuple, h, found, after, false);

	return (got == BH_PENDING_ELSEWHERE ? handshake_get_far(tuple, h, found, after) : got) == BH_PENDING_FOUND;
}

/* The listener's, as it was when it accepted. Where its packets do not show it. */
static __noinline int accepted_identity(const struct bh_tuple *tuple, __u64 now, __u32 *identity)
{
	struct bh_handshake h;
	struct bh_found found;

	if (!tuple || !identity || !handshake_get(tuple, &h, &found, BH_PENDING_KEEP))
		return 0;
	*identity = now < h.valid_until_ns ? h.identity : BH_ID_UNIDENTIFIED;
	return 1;
}

/* Who this end is in the handshake under way: the connecting socket's subject, or the listener's that accepted. Returns
 * false where no option is wanted. */
static __always_inline bool own_identity(struct bpf_sock_ops *ops, struct bh_tuple *tuple, __u32 *identity)
{
	__u64 now = bh_now();
	struct bh_tcp *t;

	if (ops->skb_tcp_flags & BH_TCP_ACK) {
		if (listener_identity(bh_ops_listener(ops), now, identity))
			return true;
		tuple->netns = bpf_get_netns_cookie(ops);
		return accepted_identity(tuple, now, identity);
	}
	t = bh_tcp_find(bh_ops_cookie(ops));
	/* Who called connect() is outside any workload; whether the socket is, its first packet tells. */
	if (!t || t->kind != BH_SOCK_CONNECT || t->identity == BH_ID_HOST)
		return false;
	*identity = now < t->valid_until_ns ? t->identity : BH_ID_UNIDENTIFIED;
	return true;
}

/* A SYN-ACK that is a cookie belongs to no socket, so the packet hook, which notes the others, does not see it. */
BH_GLOBAL int cookie_sent(const struct bh_tuple *tuple, const struct bh_mac_input *in, __u64 mac)
{
	struct bh_handshake h;
	struct bh_found found;

	if (!tuple || !in || !handshake_get(tuple, &h, &found, BH_PENDING_KEEP))
		return 0;
	bh_syn_ticket_put(in, mac, h.subject_tag, h.valid_until_ns, h.word, bh_now());
	if (bh_pending_show(&found) && bh_near_put(tuple, &h, bh_now(), BH_HANDSHAKE_SHOWN) > 0)
		bh_far_put(tuple, &h, bh_now(), BH_HANDSHAKE_SHOWN);
	return 0;
}

static __always_inline int option_write(struct bpf_sock_ops *ops)
{
	struct bh_tcpopt option = {.kind = BH_TCPOPT_KIND, .len = BH_TCPOPT_LEN, .exid = bpf_htons(BH_TCPOPT_EXID)};
	struct tcphdr *th = ops->skb_data;
	struct bh_mac_input in = {};
	struct bh_tuple t;
	__u32 identity;
	__u64 mac;

	if ((void *)(th + 1) > ops->skb_data_end)
		return 0;
	in.seq = th->seq;
	in.ack = ops->skb_tcp_flags & BH_TCP_ACK ? th->ack_seq : 0;
	ops_addresses(ops, &t);
	if (!own_identity(ops, &t, &identity))
		return 0;
	option.identity = bpf_htonl(identity);
	in.identity = option.identity;
	__builtin_memcpy(in.src, t.local.w, sizeof(in.src));
	__builtin_memcpy(in.dst, t.remote.w, sizeof(in.dst));
	in.sport = bpf_htons(t.lport);
	in.dport = bpf_htons(t.rport);
	if (bh_segment_mac(&in, &mac))
		return 0;
	__builtin_memcpy(option.mac, &mac, sizeof(option.mac));
	if (bpf_store_hdr_opt(ops, &option, sizeof(option), 0)) {
		option.len = BH_TCPOPT_SHORT_LEN;
		if (bpf_store_hdr_opt(ops, &option, BH_TCPOPT_SHORT_LEN, 0))
			return 0;
	}
	if (ops->args[0] == BPF_WRITE_HDR_TCP_SYNACK_COOKIE) {
		t.netns = bpf_get_netns_cookie(ops);
		cookie_sent(&t, &in, mac);
	}
	return 0;
}

/* The accepted socket takes over what its listener's handshake found out. */
static __always_inline int passive_established(struct bpf_sock_ops *ops)
{
	/* Fast Open: its SYN-ACK is still to be written. */
	bool early = ops->skb_tcp_flags & BH_TCP_SYN;
	__u64 cookie = bh_ops_cookie(ops);
	struct bh_handshake h;
	struct bh_found found;
	struct bh_tuple tuple;
	struct bh_tcp *t;

	flags_set(ops, early ? WRITE_FLAG : 0);
	ops_tuple(ops, &tuple);
	t = bh_tcp_find(cookie);
	if (t)
		bh_tcp_begin(t, BH_SOCK_NEW);
	else
		t = bh_tcp_new(cookie, tuple.netns);
	if (!t)
		return 0;
	if (!handshake_get(&tuple, &h, &found, early ? BH_PENDING_KEEP : BH_PENDING_REMOVE))
		return 0;
	t->local = tuple.local;
	t->remote = tuple.remote;
	t->lport = tuple.lport;
	t->rport = tuple.rport;
	t->identity = h.identity;
	t->peer = h.peer;
	t->peer_tag = h.peer_tag;
	t->cell = h.cell;
	t->proof = h.proof;
	t->valid_until_ns = h.valid_until_ns;
	t->verdict = 1;
	t->word = h.word;
	t->kind = early ? BH_SOCK_EARLY : BH_SOCK_PASSIVE;
	if (!early)
		bh_publish(&t->pass, h.word);
	return 0;
}

/* A socket can be made established without a handshake (TCP_REPAIR): nobody judged that. */
static __always_inline void active_established(struct bpf_sock_ops *ops)
{
	struct bh_tcp *t = ops_sock(ops);

	flags_set(ops, 0);
	if (!t || t->kind != BH_SOCK_CONNECT)
		return;
	t->kind = t->answered ? BH_SOCK_ACTIVE : BH_SOCK_NEW;
	bh_publish(&t->pass, t->answered ? t->word : 0);
}

SEC("sockops")
int bh_sockops(struct bpf_sock_ops *ops)
{
	struct bh_tcp *t;

	switch (ops->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		flags_set(ops, WRITE_FLAG);
		t = ops_sock(ops);
		if (t)
			bh_tcp_begin(t, BH_SOCK_CONNECT);
		break;
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		flags_set(ops, WRITE_FLAG);
		t = ops_sock(ops);
		if (t)
			bh_tcp_begin(t, BH_SOCK_LISTEN);
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
	default:
		break;
	}
	return 1;
}

char LICENSE[] SEC("license") __weak = "Dual BSD/GPL";
