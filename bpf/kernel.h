/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * kernel.h - the kernel's own types, as far as they are read here; CO-RE finds the fields.
 *
 * What a helper would answer is loaded where the kernel keeps it, wherever a packet passes: a call and its return cost more than
 * all that most helpers do, many times over with the mitigations of return prediction.
 */
#ifndef BULKHEAD_BPF_KERNEL_H
#define BULKHEAD_BPF_KERNEL_H

#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct sock_common {
	unsigned char skc_state;
	unsigned long skc_flags;
	struct sock *skc_listener;
	struct {
		__s64 counter;
	} skc_cookie;
};

struct sock {
	struct sock_common __sk_common;
};

struct inet_sock {
	struct sock sk;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u64 bytes_received;
	__u64 bytes_acked;
	__u64 bytes_sent; /* payload, each time it is sent */
	__u64 bytes_retrans;
	__u32 srtt_us;
	__u32 total_retrans;
};

struct net_device {
	unsigned int mtu;
};

struct sk_buff {
	struct sock *sk;
	struct net_device *dev;
};

struct bpf_sock_ops_kern {
	struct sock *sk;
};

struct bpf_map {
	__u32 value_size;
};

struct bpf_iter_meta;
struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

struct bpf_iter__bpf_map_elem {
	void *key;
};

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_map *map;
	struct sock *sk;
	void *value;
};
#pragma clang attribute pop

/* Both cost nothing: the verifier makes a move of each. Two, because the linker of libbpf up to 1.1 cannot join objects that name
 * the same one. */
extern void *bpf_cast_to_kern_ctx(void *context) __ksym;
extern void *bpf_rdonly_cast(void *object, __u32 btf_id) __ksym;

/* Cookie of the packet's socket; 0: it has none yet. */
static __always_inline __u64 bh_skb_cookie(struct __sk_buff *skb)
{
	struct sk_buff *kernel = bpf_cast_to_kern_ctx(skb);
	struct sock *sk = kernel->sk;

	return sk ? sk->__sk_common.skc_cookie.counter : 0;
}

/* Does the packet come to a listener? */
static __always_inline bool bh_skb_listens(struct __sk_buff *skb)
{
	struct sk_buff *kernel = bpf_cast_to_kern_ctx(skb);
	struct sock *sk = kernel->sk;

	return sk && sk->__sk_common.skc_state == BPF_TCP_LISTEN;
}

/* Is the packet longer than the link that it leaves by takes at once? */
static __always_inline bool bh_skb_is_long(struct __sk_buff *skb)
{
	struct sk_buff *kernel = bpf_cast_to_kern_ctx(skb);
	struct net_device *dev = kernel->dev;

	return dev && skb->len > dev->mtu;
}

/* Cookie of a callback's socket, which has one: it was made with the socket, or is made now. */
static __always_inline __u64 bh_ops_cookie(struct bpf_sock_ops *ops)
{
	struct bpf_sock_ops_kern *kernel = bpf_rdonly_cast(ops, bpf_core_type_id_kernel(struct bpf_sock_ops_kern));
	struct sock *sk = kernel->sk;
	__u64 cookie = sk ? sk->__sk_common.skc_cookie.counter : 0;

	return cookie ? cookie : bpf_get_socket_cookie(ops);
}

/* Cookie of the listener that the callback's request is for; 0: it is no request. */
static __always_inline __u64 bh_ops_listener(struct bpf_sock_ops *ops)
{
	struct bpf_sock_ops_kern *kernel = bpf_rdonly_cast(ops, bpf_core_type_id_kernel(struct bpf_sock_ops_kern));
	struct sock *sk = kernel->sk, *listener;

	if (!sk || sk->__sk_common.skc_state != BPF_TCP_NEW_SYN_RECV)
		return 0;
	/* In a union, of whose members the verifier takes another. */
	listener = bpf_rdonly_cast(sk->__sk_common.skc_listener, bpf_core_type_id_kernel(struct sock));
	return listener ? listener->__sk_common.skc_cookie.counter : 0;
}

#endif
