// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * parse.bpf.c - the kernel's look at one packet, on request: for BPF_PROG_TEST_RUN. bh_parse() is what the packet hooks call.
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

SEC("cgroup_skb/egress")
int parse_one(struct __sk_buff *skb)
{
	struct bh_addr src = {}, dst = {};
	struct parse_result *r;
	struct bh_packet p;
	__u32 zero = 0;

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
	return 1;
}
