// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * judge.bpf.c - the kernel's judgement on request: for BPF_PROG_TEST_RUN.
 *
 * bh_judge() is what every hook calls; here it is called for flows that a test wrote into a map, on the tables that the test
 * wrote, so that what the kernel says can be compared with what the language means, flow by flow.
 */
#include <linux/bpf.h>

#include "bpf/judge.h"
#include "tests/reference/judge_kernel.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, JUDGE_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct judge_query);
} queries SEC(".maps");

static long judge_one(__u32 index, void *context)
{
	struct judge_query *query = bpf_map_lookup_elem(&queries, &index);
	struct bh_query q = {};

	(void)context;
	if (!query)
		return 1;
	q.local = query->local;
	q.remote = query->remote;
	q.subject = query->subject;
	q.peer = query->peer;
	q.peer_tag = query->peer;
	q.now = query->now;
	q.valid_until = ~0ULL;
	q.lport = query->lport;
	q.rport = query->rport;
	q.proto = query->proto;
	q.direction = query->direction;
	bh_judge(&q);
	query->cell = q.cell;
	query->allow = q.allow;
	query->valid_until = q.valid_until;
	return 0;
}

SEC("syscall")
int judge_all(const struct judge_request *request)
{
	__u32 n = request->n;

	bpf_loop(n < JUDGE_MAX ? n : JUDGE_MAX, judge_one, 0, 0);
	return 0;
}
