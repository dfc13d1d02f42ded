/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * judge_kernel.h - what the test and its kernel program tell each other.
 */
#ifndef BULKHEAD_TESTS_JUDGE_KERNEL_H
#define BULKHEAD_TESTS_JUDGE_KERNEL_H

#include "bpf/abi.h"

#define JUDGE_MAX 1024U

struct judge_request {
	__u32 n;
};

struct judge_query {
	struct bh_addr local;
	struct bh_addr remote;
	__u64 now;
	__u64 valid_until; /* answer */
	__u32 subject;
	__u32 peer;
	__u32 cell; /* answer */
	__u16 lport;
	__u16 rport;
	__u8 proto;
	__u8 direction;
	__u8 allow; /* answer */
	__u8 pad[5];
};

#endif
