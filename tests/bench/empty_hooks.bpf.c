// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * What being called costs, at every place where Bulkhead is: programs that look at nothing. Only where the kernel asks for
 * the option of a handshake they let it write one of the same length, always the same. None at the tracepoint of the ends of
 * sockets, which is the whole system's: where a Bulkhead runs, every system beside it pays for that.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define OPTION_LEN 16
#define SYN 0x02
#define WRITE_FLAG BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG

SEC("cgroup_skb/ingress")
int hooks_ingress(struct __sk_buff *skb)
{
	(void)skb;
	return 1;
}

SEC("cgroup_skb/egress")
int hooks_egress(struct __sk_buff *skb)
{
	(void)skb;
	return 1;
}

static __always_inline void write_flag(struct bpf_sock_ops *ops, __u32 flag)
{
	bpf_sock_ops_cb_flags_set(ops, (ops->bpf_sock_ops_cb_flags & ~WRITE_FLAG) | flag);
}

SEC("sockops")
int hooks_sockops(struct bpf_sock_ops *ops)
{
	/* RFC 6994: an experimental option, with an identifier of its own. */
	__u8 option[OPTION_LEN] = {253, OPTION_LEN, 0xff, 0xff};

	switch (ops->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		write_flag(ops, WRITE_FLAG);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		write_flag(ops, 0);
		break;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		if (ops->skb_tcp_flags & SYN)
			bpf_reserve_hdr_opt(ops, OPTION_LEN, 0);
		break;
	case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
		bpf_store_hdr_opt(ops, option, sizeof(option), 0);
		break;
	default:
		break;
	}
	return 1;
}

SEC("cgroup/connect4")
int hooks_connect4(struct bpf_sock_addr *ctx)
{
	(void)ctx;
	return 1;
}

SEC("cgroup/sendmsg4")
int hooks_sendmsg4(struct bpf_sock_addr *ctx)
{
	(void)ctx;
	return 1;
}

SEC("cgroup/sock_create")
int hooks_sock_create(struct bpf_sock *ctx)
{
	(void)ctx;
	return 1;
}

SEC("cgroup/post_bind4")
int hooks_post_bind4(struct bpf_sock *ctx)
{
	(void)ctx;
	return 1;
}

SEC("cgroup/sock_release")
int hooks_sock_release(struct bpf_sock *ctx)
{
	(void)ctx;
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
