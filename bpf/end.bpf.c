// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * end.bpf.c - the end of a TCP socket: what its connection did is counted for its pair, and what was kept for it is let go.
 *
 * The kernel destroys each TCP socket in one place, whatever made or ended it: closed, reset, never accepted, refused by another
 * program before the process had it. Connections that go on in TIME_WAIT have no socket then, and send through no hook. The
 * tracepoint is the whole system's: a socket that is not ours costs the look at one slot.
 */
#include "tcp_state.h"

/* While one build takes over from another, the programs of both are told of each end. The connections that both know, the other one
 * counts until it is gone; set by the daemon. */
volatile __u32 bh_end_told_twice = 0;

/* Its connection, if it had one, has ended. */
static __always_inline void pair_end(struct sock *sk, const struct bh_tcp *t)
{
	struct bh_counted *before = 0;
	struct bh_pair_key key = {};
	struct tcp_sock *tp;

	if (!bh_pair_of_sock(&key, t))
		return;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return;
	/* What another build counted, it did not note here. */
	if (bh_tcp_use(t) & (BH_TCP_USE_COUNTED | BH_TCP_USE_CARRIED))
		before = bpf_sk_storage_get(&counted, sk, 0, 0);
	bh_pair_tcp(tp, &key, before, true);
}

SEC("tp_btf/tcp_destroy_sock")
int bh_tcp_end(__u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	__u64 cookie = sk->__sk_common.skc_cookie.counter;
	struct bh_tcp *t;

	if (!cookie)
		return 0;
	t = bh_tcp_find(cookie);
	if (!t)
		return 0;
	if (!bh_end_told_twice || !(bh_tcp_use(t) & BH_TCP_USE_CARRIED))
		pair_end(sk, t);
	bh_tcp_drop_entry(t, cookie);
	return 0;
}

char LICENSE[] SEC("license") __weak = "Dual BSD/GPL";
