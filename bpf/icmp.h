/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * icmp.h - ICMP echo of a workload. Errors are the kernel's own, and no socket's traffic.
 */
#ifndef BULKHEAD_BPF_ICMP_H
#define BULKHEAD_BPF_ICMP_H

#include "flow.h"

#define ICMP_ECHO_REQUEST 8
#define ICMP_ECHO_REPLY 0
#define ICMPV6_ECHO_REQUEST_TYPE 128
#define ICMPV6_ECHO_REPLY_TYPE 129

/* Echo: the request opens a flow, the reply belongs to it. A raw socket also gets copies of what others sent; they are
 * not its traffic and are dropped without a word. */
static __always_inline int icmp_packet(struct __sk_buff *skb, const struct bh_packet *p, struct bh_query *q, __u32 hook)
{
	bool v6 = p->proto == IPPROTO_ICMPV6;
	__u16 request = v6 ? ICMPV6_ECHO_REQUEST_TYPE : ICMP_ECHO_REQUEST;
	__u16 reply = v6 ? ICMPV6_ECHO_REPLY_TYPE : ICMP_ECHO_REPLY;
	struct bh_udp_key key;
	__u64 *owner;

	q->direction = hook;
	q->lport = 0;
	q->rport = 0;
	flow_key_of(&key, q);
	if (hook == BH_EGRESS && p->icmp_type != request) {
		q->rport = p->icmp_type;
		bh_refuse(q, BH_REASON_PROTO);
		return BH_DENY;
	}
	if (hook == BH_INGRESS && (p->icmp_type != reply || !bpf_map_lookup_elem(&udp_flows, &key)))
		return BH_DENY;
	q->rport = request;
	owner = bpf_map_lookup_elem(&addresses, &q->remote);
	if (owner && (*owner & BH_DEVICE_BIT))
		bh_peer_by_device(q, *owner);
	else
		q->peer = skb->ifindex == 1 || owner ? BH_ID_HOST : BH_ID_WORLD;
	return flow_packet(q, &key, 0, hook);
}

#endif
