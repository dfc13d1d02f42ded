// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * parse.bpf.c - the kernel's look at one packet, on request: for BPF_PROG_TEST_RUN. bh_parse() is what the packet hooks call,
 * and bh_parse_tcp() where they expect TCP: it has to find the same.
 */
#include <linux/bpf.h>

#include "bpf/parse.h"
#include "tests/reference/parse_kernel.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct parse_result);
} result SEC(".maps");

static __always_inline bool same(const void *one, const void *other, __u32 words)
{
	const __u32 *a = one, *b = other;
	__u32 differ = 0;

	for (__u32 i = 0; i < words; i++)
		differ |= a[i] ^ b[i];
	return !differ;
}

SEC("cgroup_skb/egress")
int parse_one(struct __sk_buff *skb)
{
	struct bh_addr src = {}, dst = {}, tcp_src = {}, tcp_dst = {};
	struct parse_result *r;
	struct bh_packet p, tcp;
	__u32 zero = 0;
	int reason;

	r = bpf_map_lookup_elem(&result, &zero);
	if (!r)
		return 0;
	r->reason = bh_parse(skb, &p, &src, &dst);
	r->transport = p.transport;
	r->payload_len = p.payload_len;
	r->seq = p.seq;
	r->ack = p.ack;
	r->sport = p.sport;
	r->dport = p.dport;
	r->proto = p.proto;
	r->icmp_type = p.icmp_type;
	r->tcp_flags = p.tcp_flags;
	r->tcp_header = p.tcp_header;
	r->src = src;
	r->dst = dst;
	reason = bh_parse_tcp(skb, &tcp, &tcp_src, &tcp_dst);
	if (reason != r->reason || !same(&p, &tcp, sizeof(p) / 4) || !same(&src, &tcp_src, 4) ||
	    !same(&dst, &tcp_dst, 4))
		r->reason = PARSE_DIFFERS;
	return 1;
}
