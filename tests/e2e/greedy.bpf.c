// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Somebody else's programs beside ours, with a TCP option of their own: of the 20 bytes that a usual SYN or SYN-ACK has left, one
 * takes all and one leaves four. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define FLAG_SYN 2
#define KIND 253 /* RFC 4727 */
#define ROOM 20

struct option {
	__u8 kind;
	__u8 len;
	__u8 data[ROOM - 2];
};

/* It is written, too: bytes that nobody fills, the next program may. */
static __always_inline int callback(struct bpf_sock_ops *ops, __u32 len)
{
	struct option option = {.kind = KIND, .len = len};

	switch (ops->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
		break;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		if (ops->skb_tcp_flags & FLAG_SYN)
			bpf_reserve_hdr_opt(ops, len, 0);
		break;
	case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
		if (ops->skb_tcp_flags & FLAG_SYN)
			bpf_store_hdr_opt(ops, &option, len, 0);
		break;
	default:
		break;
	}
	return 1;
}

SEC("sockops")
int takes_all(struct bpf_sock_ops *ops)
{
	return callback(ops, ROOM);
}

SEC("sockops")
int leaves_four(struct bpf_sock_ops *ops)
{
	return callback(ops, ROOM - 4);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
