/* SPDX-License-Identifier: Apache-2.0 */
/*
 * generate_flows.c - random flows, and how they are written.
 */
#include <arpa/inet.h>
#include <string.h>

#include "tests/reference/generate.h"

static void make_end(struct ref_policy *policy, struct ref_end *end)
{
	static const enum ref_kind kinds[] = {REF_SPIFFE,	REF_SPIFFE, REF_SPIFFE, REF_LOCAL,
					      REF_UNIDENTIFIED, REF_HOST,   REF_WORLD};

	memset(end, 0, sizeof(*end));
	end->kind = kinds[ref_random(policy, 7)];
	if (end->kind == REF_LOCAL) {
		end->local = (int)ref_random(policy, (uint32_t)policy->n_identities);
		if (!policy->identities[end->local].local)
			end->kind = REF_SPIFFE;
	}
	if (end->kind == REF_SPIFFE)
		make_id(policy, end->id, false);
	end->has_address = ref_random(policy, 5);
	end->v4 = ref_random(policy, 2);
	make_address(policy, end->address, end->v4);
}

void ref_flow_make(struct ref_policy *policy, struct ref_flow *flow)
{
	static const int protocols[] = {IPPROTO_TCP,  IPPROTO_TCP,    IPPROTO_UDP, IPPROTO_SCTP,
					IPPROTO_ICMP, IPPROTO_ICMPV6, 47,	   2};
	static const int types[] = {8, 128, 0, 3, 1, 129};
	static const int rare[] = {0, 50, 254, 255};

	flow->protocol = protocols[ref_random(policy, 8)];
	if (policy->large && ref_random(policy, 12) == 0)
		flow->protocol = rare[ref_random(policy, 4)];
	switch (flow->protocol) {
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		flow->port = ref_random(policy, 2) ? types[ref_random(policy, 6)] : (int)ref_random(policy, 256);
		break;
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		flow->port = ref_random(policy, 2) ? generate_ports[ref_random(policy, GENERATE_PORTS)]
						   : 1 + (int)ref_random(policy, 65535);
		if (policy->large && ref_random(policy, 16) == 0)
			flow->port = 0; /* no rule can name it, but one about the whole protocol covers it */
		break;
	default:
		flow->port = 0;
	}
	make_end(policy, &flow->from);
	make_end(policy, &flow->to);
}

void ref_end_format(const struct ref_end *end, char *out, size_t size)
{
	char address[INET6_ADDRSTRLEN];

	switch (end->kind) {
	case REF_SPIFFE:
		snprintf(out, size, "%s", end->id);
		break;
	case REF_LOCAL:
		snprintf(out, size, "id%d", end->local);
		break;
	case REF_UNIDENTIFIED:
		snprintf(out, size, "unidentified");
		break;
	case REF_HOST:
		snprintf(out, size, "host");
		break;
	case REF_WORLD:
		snprintf(out, size, "world");
		break;
	}
	if (!end->has_address)
		return;
	inet_ntop(end->v4 ? AF_INET : AF_INET6, end->address, address, sizeof(address));
	snprintf(out + strlen(out), size - strlen(out), "@%s", address);
}

void ref_service_format(const struct ref_flow *flow, char *out, size_t size)
{
	switch (flow->protocol) {
	case IPPROTO_TCP:
		snprintf(out, size, "tcp/%d", flow->port);
		break;
	case IPPROTO_UDP:
		snprintf(out, size, "udp/%d", flow->port);
		break;
	case IPPROTO_SCTP:
		snprintf(out, size, "sctp/%d", flow->port);
		break;
	case IPPROTO_ICMP:
		snprintf(out, size, "icmp/%d", flow->port);
		break;
	case IPPROTO_ICMPV6:
		snprintf(out, size, "icmpv6/%d", flow->port);
		break;
	default:
		snprintf(out, size, "proto/%d", flow->protocol);
	}
}
