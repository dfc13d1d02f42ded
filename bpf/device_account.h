/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * device_account.h - bytes of UDP that a device's workload sends and gets, counted for the pair of identities that they pass between.
 *
 * There is no socket to sum them up with (account.h), so each datagram adds to its pair when it passes; one in fragments, as far
 * as it passes. A frame may be padded behind its packet, and that is not counted.
 */
#ifndef BULKHEAD_BPF_DEVICE_ACCOUNT_H
#define BULKHEAD_BPF_DEVICE_ACCOUNT_H

#include "account.h"
#include "device.h"

static __always_inline int device_bytes(__u32 subject, __u32 peer, __u32 direction, __u32 hook, __u32 bytes)
{
	return bh_pair_bytes(subject, peer, direction, hook == BH_EGRESS ? bytes : 0, hook == BH_EGRESS ? 0 : bytes);
}

/* A datagram that was allowed, or its first fragment. */
static __noinline int device_account(struct __sk_buff *skb, const struct bh_packet *p, const struct bh_query *q,
				     __u32 hook)
{
	struct udphdr udp;
	__u32 there, said;

	if (!p || !q || p->proto != IPPROTO_UDP || bpf_skb_load_bytes(skb, p->transport, &udp, sizeof(udp)))
		return 0;
	there = skb->len - p->transport;
	/* That of all fragments; 0 in a packet of several datagrams beyond 64 KiB. */
	said = bpf_ntohs(udp.len);
	if (said >= sizeof(udp) && said < there)
		there = said;
	return device_bytes(q->subject, q->peer, q->direction, hook, there - sizeof(udp));
}

#endif
