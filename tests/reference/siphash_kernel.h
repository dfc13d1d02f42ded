/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* siphash_kernel.h - what siphash_kernel asks of siphash.bpf.c. */
#ifndef BULKHEAD_TESTS_SIPHASH_KERNEL_H
#define BULKHEAD_TESTS_SIPHASH_KERNEL_H

#include <linux/types.h>

/* Context of a BPF_PROG_TEST_RUN, in and out. */
struct siphash_request {
	__u64 words[8]; /* the input, 00 behind its end */
	__u64 shown;	/* siphash_verify: a MAC */
	__u64 result;
	__u32 len;
	__s32 r;
};

#endif
