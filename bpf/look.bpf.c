// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * look.bpf.c - what the daemon runs when somebody asks: nothing here is on the way of a packet.
 */
#include "account.h"
#include "tcp_state.h"

/* Of each TCP socket of the namespace that the reader is in. The kernel holds its lock here, as it does when it ends. */
SEC("iter/tcp")
int bh_look_tcp(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct bh_pair_key key = {};
	struct bh_counted *before;
	struct tcp_sock *tp;
	struct bh_tcp *t;
	int state;

	if (!skc)
		return 0;
	tp = bpf_skc_to_tcp_sock(skc);
	if (!tp)
		return 0;
	state = tp->inet_conn.icsk_inet.sk.__sk_common.skc_state;
	if (state == BPF_TCP_CLOSE)
		return 0;
	t = bh_tcp_find(bpf_get_socket_cookie(tp));
	if (!t || !bh_pair_of_sock(&key, t))
		return 0;
	/* Without a place to remember it, it is counted when it ends. */
	before = bpf_sk_storage_get(&counted, tp, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!before)
		return 0;
	__sync_fetch_and_or(&t->use, BH_TCP_USE_COUNTED);
	bh_pair_tcp(tp, &key, before, false);
	return 0;
}

/* Of each place of a flow of UDP. */
SEC("iter/bpf_map_elem")
int bh_look_udp(struct bpf_iter__bpf_map_elem *ctx)
{
	__u32 *key = ctx->key, place;
	struct bh_udp_recent *r;

	if (!key)
		return 0;
	place = *key;
	r = bpf_map_lookup_elem(&udp_recent, &place);
	if (r)
		account_settle_place(r, 0);
	return 0;
}

char LICENSE[] SEC("license") __weak = "Dual BSD/GPL";
