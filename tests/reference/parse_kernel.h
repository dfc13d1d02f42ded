/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* parse_kernel.h - what parse.bpf.c found in a packet. */
#ifndef BULKHEAD_TESTS_REFERENCE_PARSE_KERNEL_H
#define BULKHEAD_TESTS_REFERENCE_PARSE_KERNEL_H

#include "bpf/abi.h"

#define PARSE_DIFFERS 255 /* what expects TCP finds another thing */

struct parse_result {
	__s32 reason; /* 0 understood, PARSE_DIFFERS, else enum bh_reason; then the rest means nothing */
	__u32 transport;
	__u32 payload_len;
	__be32 seq;
	__be32 ack;
	__u16 sport;
	__u16 dport;
	__u8 proto;
	__u8 icmp_type;
	__u8 tcp_flags;
	__u8 tcp_header;
	struct bh_addr src;
	struct bh_addr dst;
};

#endif
