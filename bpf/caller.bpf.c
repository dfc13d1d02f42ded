// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * caller.bpf.c - hooks on the system calls of a workload: they answer EPERM at once where no rule can allow what is asked,
 * and note what the packet hooks cannot see (the creator, the bind).
 *
 * They run for the caller's sake; what enforces is skb.bpf.c. So where they do not know better they let pass.
 */
#include "account.h"
#include "endpoint.h"
#include "tcp_state.h"

#define BH_AF_INET 2
#define BH_AF_INET6 10
#define BH_SOCK_STREAM 1
#define BH_SOCK_DGRAM 2

#define BH_REFUSE 0
#define BH_PROCEED 1

/* The subject of the calling process, if the socket, made in `cgroup` (0: not known), is its own. Returns false if this hook
 * cannot tell. */
static __always_inline bool caller_subject(__u64 cgroup, struct bh_query *q)
{
	q->word = bh_state_word();
	q->now = bh_now();
	bh_subject_of_current(q);
	/* A further subflow of MPTCP: made by the kernel, and connected by one of its threads. */
	if (!cgroup && !bpf_get_current_ancestor_cgroup_id(subtree_level + 1))
		return false;
	return !q->host && (!cgroup || cgroup == q->cgroup);
}

/* 0.0.0.0 and :: stand for this host. The kernel has not chosen yet which of its addresses the packets will have. */
static __always_inline bool is_unspecified(const struct bh_addr *a)
{
	return (a->w[0] | a->w[1] | a->w[3]) == 0 && (a->w[2] == 0 || a->w[2] == bpf_htonl(0xffff));
}

static __always_inline int caller_asks(struct bpf_sock_addr *ctx, struct bh_query *q)
{
	if (is_unspecified(&q->remote))
		return BH_PROCEED;
	bh_judge_possible(q);
	if (q->allow)
		return BH_PROCEED;
	q->pid = bpf_get_current_pid_tgid() >> 32;
	q->cookie = bpf_get_socket_cookie(ctx);
	bh_report_denied(q);
	return BH_REFUSE;
}

/* TCP: also resolves the identity that the SYN's option will carry. A UDP connect() sends nothing (resolvers use it to
 * learn their source address), so it is never refused: the first datagram is. */
static __always_inline int on_connect(struct bpf_sock_addr *ctx, const struct bh_addr *remote)
{
	struct bh_query q = {.proto = IPPROTO_TCP, .remote = *remote, .rport = bpf_ntohs(ctx->user_port)};
	struct bh_tcp *t;
	int r;

	if (ctx->type != BH_SOCK_STREAM || ctx->protocol != IPPROTO_TCP)
		return BH_PROCEED;
	q.cookie = bpf_get_socket_cookie(ctx);
	t = bh_tcp_find(q.cookie);
	if (!t)
		t = bh_tcp_new(q.cookie, bpf_get_netns_cookie(ctx));
	if (!t)
		return BH_PROCEED;
	/* It had a connection before: nothing of that counts, also before the kernel tells that it begins another. */
	if (t->kind != BH_SOCK_NEW)
		bh_tcp_begin(t, BH_SOCK_CONNECT);
	t->asked = 0;
	t->known = 0;
	t->identity = BH_ID_UNIDENTIFIED;
	if (!caller_subject(t->cgroup, &q)) {
		if (q.host)
			t->identity = BH_ID_HOST;
		return BH_PROCEED;
	}
	t->identity = q.subject;
	t->valid_until_ns = q.valid_until;
	r = caller_asks(ctx, &q);
	if (r != BH_PROCEED)
		return r;
	if (!is_unspecified(remote)) {
		t->remote = *remote;
		t->rport = q.rport;
		t->asked = 1;
	}
	/* A socket belongs to the cgroup that created it: this one. */
	t->subject_tag = q.subject_tag;
	t->known = t->cgroup && !q.expired;
	t->word = q.word;
	return r;
}

static __always_inline int on_sendmsg(struct bpf_sock_addr *ctx, const struct bh_addr *remote)
{
	struct bh_query q = {.proto = IPPROTO_UDP, .remote = *remote, .rport = bpf_ntohs(ctx->user_port)};
	struct bpf_sock *sk = ctx->sk;
	struct bh_udp_sock *us;

	if (!sk || ctx->protocol != IPPROTO_UDP)
		return BH_PROCEED;
	us = bpf_sk_storage_get(&udp_sockets, sk, 0, 0);
	if (!us || us->host)
		return BH_PROCEED;
	/* Replies of a server are not for egress to judge: only a socket that never received may be told no here. */
	if (us->answers)
		return BH_PROCEED;
	if (!caller_subject(us->cgroup, &q))
		return BH_PROCEED;
	return caller_asks(ctx, &q);
}

SEC("cgroup/connect4")
int bh_connect4(struct bpf_sock_addr *ctx)
{
	struct bh_addr remote;

	bh_addr_v4(&remote, ctx->user_ip4);
	return on_connect(ctx, &remote);
}

SEC("cgroup/connect6")
int bh_connect6(struct bpf_sock_addr *ctx)
{
	struct bh_addr remote = {.w = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]}};

	return on_connect(ctx, &remote);
}

SEC("cgroup/sendmsg4")
int bh_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct bh_addr remote;

	bh_addr_v4(&remote, ctx->user_ip4);
	return on_sendmsg(ctx, &remote);
}

SEC("cgroup/sendmsg6")
int bh_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct bh_addr remote = {.w = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]}};

	return on_sendmsg(ctx, &remote);
}

SEC("cgroup/sock_create")
int bh_sock_create(struct bpf_sock *ctx)
{
	struct bh_udp_sock *us;
	struct bh_sock *ss;

	if (ctx->family != BH_AF_INET && ctx->family != BH_AF_INET6)
		return BH_PROCEED;
	/* A raw socket may have this protocol too, and never comes to TCP's end. */
	if (ctx->type == BH_SOCK_STREAM && ctx->protocol == IPPROTO_TCP) {
		if (bh_tcp_make(bpf_get_socket_cookie(ctx), bpf_get_netns_cookie(ctx), bpf_get_current_cgroup_id()))
			return BH_REFUSE;
		return BH_PROCEED;
	}
	if (ctx->type == BH_SOCK_DGRAM && ctx->protocol == IPPROTO_UDP) {
		us = bpf_sk_storage_get(&udp_sockets, ctx, 0, BPF_SK_STORAGE_GET_F_CREATE);
		if (!us)
			return BH_REFUSE;
		us->netns = bpf_get_netns_cookie(ctx);
		us->cgroup = bpf_get_current_cgroup_id();
		return BH_PROCEED;
	}
	ss = bpf_sk_storage_get(&sockets, ctx, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!ss)
		return BH_REFUSE;
	ss->netns = bpf_get_netns_cookie(ctx);
	return BH_PROCEED;
}

/* A UDP socket that binds can be found by its peers from now on, before it has sent anything. */
static __always_inline int on_bind(struct bpf_sock *ctx, const struct bh_addr *bound)
{
	struct bh_endpoint fresh = {.refs = 1};
	struct bh_udp_sock *us;

	if (ctx->protocol != IPPROTO_UDP)
		return BH_PROCEED;
	us = bpf_sk_storage_get(&udp_sockets, ctx, 0, 0);
	/* Bound by another than its creator: it is registered when it sends, under its own cgroup. */
	if (!us || us->cgroup != bpf_get_current_cgroup_id())
		return BH_PROCEED;
	for (__u32 i = 0; i < BH_MAX_DEPTH; i++) {
		fresh.levels[i] = bpf_get_current_ancestor_cgroup_id(subtree_level + 1 + i);
		if (!fresh.levels[i])
			break;
	}
	fresh.cookie = bpf_get_socket_cookie(ctx);
	bh_endpoint_move(us, bound, ctx->src_port, &fresh);
	return BH_PROCEED;
}

SEC("cgroup/post_bind4")
int bh_post_bind4(struct bpf_sock *ctx)
{
	struct bh_addr bound;

	bh_addr_v4(&bound, ctx->src_ip4);
	return on_bind(ctx, &bound);
}

SEC("cgroup/post_bind6")
int bh_post_bind6(struct bpf_sock *ctx)
{
	struct bh_addr bound = {.w = {ctx->src_ip6[0], ctx->src_ip6[1], ctx->src_ip6[2], ctx->src_ip6[3]}};

	return on_bind(ctx, &bound);
}

SEC("cgroup/sock_release")
int bh_sock_release(struct bpf_sock *ctx)
{
	struct bh_udp_sock *us;

	if (ctx->type == BH_SOCK_STREAM && ctx->protocol == IPPROTO_TCP) {
		bh_tcp_released(bpf_get_socket_cookie(ctx));
		return BH_PROCEED;
	}
	us = bpf_sk_storage_get(&udp_sockets, ctx, 0, 0);
	if (us) {
		bh_endpoint_leave(us);
		account_close(bpf_get_socket_cookie(ctx));
	}
	return BH_PROCEED;
}

char LICENSE[] SEC("license") __weak = "Dual BSD/GPL";
