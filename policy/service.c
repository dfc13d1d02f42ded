/* SPDX-License-Identifier: Apache-2.0 */
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/service.h"

static const struct protocol {
	const char *name;
	unsigned protocol;
	uint32_t first;
	uint32_t count;
} protocols[SERVICE_N_EVERYTHING] = {
	{"tcp", IPPROTO_TCP, SERVICE_TCP, 65536},	{"udp", IPPROTO_UDP, SERVICE_UDP, 65536},
	{"sctp", IPPROTO_SCTP, SERVICE_SCTP, 65536},	{"icmp", IPPROTO_ICMP, SERVICE_ICMP, 256},
	{"icmpv6", IPPROTO_ICMPV6, SERVICE_ICMP6, 256}, {"proto", 0, SERVICE_PROTO, 256},
};
#define N_PROTOCOLS SERVICE_N_EVERYTHING
#define PROTO (N_PROTOCOLS - 1)

/* The IANA registries, "ICMP Type Numbers" and "ICMPv6 type Numbers", in their words; where a number has two names, the
 * first is the one that is written. */
static const struct type_name {
	uint32_t protocol; /* its first point */
	unsigned type;
	const char *name;
} type_names[] = {
	{SERVICE_ICMP, 0, "echo-reply"},
	{SERVICE_ICMP, 3, "destination-unreachable"},
	{SERVICE_ICMP, 4, "source-quench"},
	{SERVICE_ICMP, 5, "redirect"},
	{SERVICE_ICMP, 8, "echo-request"},
	{SERVICE_ICMP, 9, "router-advertisement"},
	{SERVICE_ICMP, 10, "router-solicitation"},
	{SERVICE_ICMP, 11, "time-exceeded"},
	{SERVICE_ICMP, 12, "parameter-problem"},
	{SERVICE_ICMP, 13, "timestamp-request"},
	{SERVICE_ICMP, 14, "timestamp-reply"},
	{SERVICE_ICMP, 15, "information-request"},
	{SERVICE_ICMP, 16, "information-reply"},
	{SERVICE_ICMP, 17, "address-mask-request"},
	{SERVICE_ICMP, 18, "address-mask-reply"},
	{SERVICE_ICMP, 42, "extended-echo-request"},
	{SERVICE_ICMP, 43, "extended-echo-reply"},
	{SERVICE_ICMP6, 1, "destination-unreachable"},
	{SERVICE_ICMP6, 2, "packet-too-big"},
	{SERVICE_ICMP6, 3, "time-exceeded"},
	{SERVICE_ICMP6, 4, "parameter-problem"},
	{SERVICE_ICMP6, 128, "echo-request"},
	{SERVICE_ICMP6, 129, "echo-reply"},
	{SERVICE_ICMP6, 130, "multicast-listener-query"},
	{SERVICE_ICMP6, 131, "multicast-listener-report"},
	{SERVICE_ICMP6, 132, "multicast-listener-done"},
	{SERVICE_ICMP6, 133, "router-solicitation"},
	{SERVICE_ICMP6, 134, "router-advertisement"},
	{SERVICE_ICMP6, 135, "neighbor-solicitation"},
	{SERVICE_ICMP6, 135, "neighbour-solicitation"},
	{SERVICE_ICMP6, 136, "neighbor-advertisement"},
	{SERVICE_ICMP6, 136, "neighbour-advertisement"},
	{SERVICE_ICMP6, 137, "redirect"},
	{SERVICE_ICMP6, 138, "router-renumbering"},
	{SERVICE_ICMP6, 139, "node-information-query"},
	{SERVICE_ICMP6, 140, "node-information-response"},
	{SERVICE_ICMP6, 141, "inverse-neighbor-discovery-solicitation"},
	{SERVICE_ICMP6, 142, "inverse-neighbor-discovery-advertisement"},
	{SERVICE_ICMP6, 143, "multicast-listener-report-v2"},
	{SERVICE_ICMP6, 144, "home-agent-address-discovery-request"},
	{SERVICE_ICMP6, 145, "home-agent-address-discovery-reply"},
	{SERVICE_ICMP6, 146, "mobile-prefix-solicitation"},
	{SERVICE_ICMP6, 147, "mobile-prefix-advertisement"},
	{SERVICE_ICMP6, 148, "certification-path-solicitation"},
	{SERVICE_ICMP6, 149, "certification-path-advertisement"},
	{SERVICE_ICMP6, 151, "multicast-router-advertisement"},
	{SERVICE_ICMP6, 152, "multicast-router-solicitation"},
	{SERVICE_ICMP6, 153, "multicast-router-termination"},
	{SERVICE_ICMP6, 155, "rpl-control"},
	{SERVICE_ICMP6, 160, "extended-echo-request"},
	{SERVICE_ICMP6, 161, "extended-echo-reply"},
};
#define N_TYPE_NAMES (sizeof(type_names) / sizeof(type_names[0]))

static const struct protocol *protocol_named(const char *name, size_t len)
{
	for (size_t i = 0; i < N_PROTOCOLS; i++)
		if (strlen(protocols[i].name) == len && memcmp(name, protocols[i].name, len) == 0)
			return &protocols[i];
	return NULL;
}

bool service_is_protocol(const char *name)
{
	return protocol_named(name, strlen(name)) != NULL;
}

/* Digits only, no leading zero, at most five of them. */
static bool parse_number(uint32_t *numberp, const char *text, size_t len)
{
	uint32_t number = 0;

	if (!len || len > 5 || (text[0] == '0' && len > 1))
		return false;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		number = number * 10 + (uint32_t)(text[i] - '0');
	}
	*numberp = number;
	return true;
}

/* N or N-M. Returns `invalid` unless both are numbers in min..max. */
static enum service_problem parse_range(struct service_range *range, const struct protocol *protocol, const char *text,
					uint32_t min, uint32_t max, enum service_problem invalid)
{
	const char *dash = strchr(text, '-');
	uint32_t first, last;

	if (!parse_number(&first, text, dash ? (size_t)(dash - text) : strlen(text)) || first < min || first > max)
		return invalid;
	last = first;
	if (dash && (!parse_number(&last, dash + 1, strlen(dash + 1)) || last < min || last > max))
		return invalid;
	if (last < first)
		return SERVICE_REVERSED;
	*range = (struct service_range){protocol->first + first, protocol->first + last};
	return SERVICE_OK;
}

static enum service_problem parse_type(struct service_range *range, const struct protocol *protocol, const char *text)
{
	for (size_t i = 0; i < N_TYPE_NAMES; i++)
		if (type_names[i].protocol == protocol->first && strcmp(type_names[i].name, text) == 0) {
			range->first = range->last = protocol->first + type_names[i].type;
			return SERVICE_OK;
		}
	return parse_range(range, protocol, text, 0, 255, SERVICE_TYPE);
}

/* The protocol of a range of numbers that has a name, or NULL. */
static const struct protocol *named_within(struct service_range range)
{
	for (size_t i = 0; i < PROTO; i++)
		if (range.first <= SERVICE_PROTO + protocols[i].protocol &&
		    SERVICE_PROTO + protocols[i].protocol <= range.last)
			return &protocols[i];
	return NULL;
}

static enum service_problem parse_protocol(struct service_range *range, const struct protocol *protocol,
					   const char *text)
{
	enum service_problem problem = parse_range(range, protocol, text, 0, 255, SERVICE_PROTOCOL);

	return problem == SERVICE_OK && named_within(*range) ? SERVICE_HAS_A_NAME : problem;
}

enum service_problem service_parse(struct service_range *range, const char *text)
{
	const char *slash = strchr(text, '/');
	const struct protocol *protocol = protocol_named(text, slash ? (size_t)(slash - text) : strlen(text));

	if (!protocol)
		return SERVICE_NOT_INLINE;
	if (!slash) {
		*range = (struct service_range){protocol->first, protocol->first + protocol->count - 1};
		return SERVICE_OK;
	}
	if (protocol == &protocols[PROTO])
		return parse_protocol(range, protocol, slash + 1);
	if (protocol->count == 256)
		return parse_type(range, protocol, slash + 1);
	return parse_range(range, protocol, slash + 1, 1, 65535, SERVICE_PORT);
}

const char *service_problem_text(enum service_problem problem)
{
	switch (problem) {
	case SERVICE_PORT:
		return "a port is a number from 1 to 65535";
	case SERVICE_REVERSED:
		return "the range ends before it begins";
	case SERVICE_TYPE:
		return "no such ICMP type";
	case SERVICE_PROTOCOL:
		return "a protocol is a number from 0 to 255";
	case SERVICE_HAS_A_NAME:
		return "this protocol has a name of its own";
	default:
		return "not a service";
	}
}

const char *service_protocol_meant(const char *text)
{
	const struct protocol *protocol;
	struct service_range range;

	if (service_parse(&range, text) != SERVICE_HAS_A_NAME)
		return NULL;
	protocol = named_within(range);
	return protocol ? protocol->name : NULL;
}

const char *service_suggest_type(struct suggestion *suggestion, const char *text)
{
	const char *slash = strchr(text, '/');
	const struct protocol *protocol = slash ? protocol_named(text, (size_t)(slash - text)) : NULL;
	const char *other = NULL;

	if (!protocol)
		return NULL;
	suggestion->wrong = slash + 1;
	for (size_t i = 0; i < N_TYPE_NAMES; i++) {
		if (type_names[i].protocol == protocol->first)
			suggestion_offer(suggestion, type_names[i].name);
		else if (strcmp(type_names[i].name, slash + 1) == 0)
			other = type_names[i].protocol == SERVICE_ICMP ? "icmp" : "icmpv6";
	}
	return other;
}

static const struct protocol *protocol_of(uint32_t point)
{
	size_t i = N_PROTOCOLS - 1;

	while (i && point < protocols[i].first)
		i--;
	return &protocols[i];
}

void service_point(uint32_t point, unsigned *protocolp, unsigned *portp)
{
	const struct protocol *protocol = protocol_of(point);

	*protocolp = protocol == &protocols[PROTO] ? point - SERVICE_PROTO : protocol->protocol;
	*portp = protocol == &protocols[PROTO] ? 0 : point - protocol->first;
}

int service_format(char *out, size_t size, struct service_range range)
{
	const struct protocol *protocol = protocol_of(range.first);
	uint32_t first = range.first - protocol->first, last = range.last - protocol->first;

	/* No flow has port 0. */
	if (first <= (protocol->count == 65536 ? 1 : 0) && last == protocol->count - 1)
		return snprintf(out, size, "%s", protocol->name);
	if (first < last)
		return snprintf(out, size, "%s/%u-%u", protocol->name, first, last);
	for (size_t i = 0; i < N_TYPE_NAMES; i++)
		if (type_names[i].protocol == protocol->first && type_names[i].type == first)
			return snprintf(out, size, "%s/%s", protocol->name, type_names[i].name);
	return snprintf(out, size, "%s/%u", protocol->name, first);
}

void service_everything(struct service_range ranges[SERVICE_N_EVERYTHING])
{
	for (size_t i = 0; i < N_PROTOCOLS; i++)
		ranges[i] = (struct service_range){protocols[i].first, protocols[i].first + protocols[i].count - 1};
}

static int compare_ranges(const void *a, const void *b)
{
	const struct service_range *x = a, *y = b;

	if (x->first != y->first)
		return x->first < y->first ? -1 : 1;
	return (x->last > y->last) - (x->last < y->last);
}

uint32_t service_normalise(struct service_range *ranges, uint32_t n)
{
	uint32_t kept = 0;

	if (n < 2)
		return n;
	qsort(ranges, n, sizeof(*ranges), compare_ranges);
	for (uint32_t i = 1; i < n; i++) {
		struct service_range *last = &ranges[kept];

		if (ranges[i].first <= last->last + 1 && protocol_of(ranges[i].first) == protocol_of(last->first)) {
			if (ranges[i].last > last->last)
				last->last = ranges[i].last;
		} else {
			ranges[++kept] = ranges[i];
		}
	}
	return kept + 1;
}
