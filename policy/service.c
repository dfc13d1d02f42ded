/* SPDX-License-Identifier: Apache-2.0 */
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/service.h"

#define ECHO_REQUEST_4 8U
#define ECHO_REQUEST_6 128U

static const struct {
	const char *name;
	unsigned protocol;
	uint32_t first;
	uint32_t count;
} protocols[] = {
	{"tcp", IPPROTO_TCP, SERVICE_TCP, 65536},
	{"udp", IPPROTO_UDP, SERVICE_UDP, 65536},
	{"icmp", IPPROTO_ICMP, SERVICE_ICMP, 256},
	{"icmpv6", IPPROTO_ICMPV6, SERVICE_ICMP6, 256},
};
#define N_PROTOCOLS (sizeof(protocols) / sizeof(protocols[0]))

bool service_is_protocol(const char *name)
{
	for (size_t i = 0; i < N_PROTOCOLS; i++)
		if (strcmp(name, protocols[i].name) == 0)
			return true;
	return strcmp(name, "sctp") == 0 || strcmp(name, "proto") == 0;
}

/* Digits only, 1 to 65535. */
static bool parse_port(uint32_t *portp, const char *text, size_t len)
{
	uint32_t port = 0;

	if (!len || len > 5 || text[0] == '0')
		return false;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		port = port * 10 + (uint32_t)(text[i] - '0');
	}
	*portp = port;
	return port <= 65535;
}

static enum service_problem parse_ports(struct service_range *range, uint32_t base, const char *text)
{
	const char *dash = strchr(text, '-');
	uint32_t first, last;

	if (!parse_port(&first, text, dash ? (size_t)(dash - text) : strlen(text)))
		return SERVICE_PORT;
	last = first;
	if (dash && !parse_port(&last, dash + 1, strlen(dash + 1)))
		return SERVICE_PORT;
	if (last < first)
		return SERVICE_REVERSED;
	*range = (struct service_range){base + first, base + last};
	return SERVICE_OK;
}

static enum service_problem parse_type(struct service_range *range, size_t protocol, const char *text)
{
	static const char *const later[] = {
		"echo-reply",
		"destination-unreachable",
		"redirect",
		"time-exceeded",
		"parameter-problem",
		"timestamp-request",
		"timestamp-reply",
		"packet-too-big",
		"router-solicitation",
		"router-advertisement",
		"neighbor-solicitation",
		"neighbor-advertisement",
		"neighbour-solicitation",
		"neighbour-advertisement",
	};
	bool v6 = protocols[protocol].protocol == IPPROTO_ICMPV6;
	uint32_t point = protocols[protocol].first + (v6 ? ECHO_REQUEST_6 : ECHO_REQUEST_4);

	if (strcmp(text, "echo-request") == 0) {
		*range = (struct service_range){point, point};
		return SERVICE_OK;
	}
	for (size_t i = 0; i < sizeof(later) / sizeof(later[0]); i++)
		if (strcmp(text, later[i]) == 0)
			return SERVICE_UNSUPPORTED;
	return *text && strspn(text, "0123456789") == strlen(text) ? SERVICE_UNSUPPORTED : SERVICE_TYPE;
}

enum service_problem service_parse(struct service_range *range, const char *text)
{
	const char *slash = strchr(text, '/');
	size_t len = slash ? (size_t)(slash - text) : strlen(text);

	if ((len == 4 && memcmp(text, "sctp", 4) == 0) || (len == 5 && memcmp(text, "proto", 5) == 0))
		return SERVICE_UNSUPPORTED;
	for (size_t i = 0; i < N_PROTOCOLS; i++) {
		if (strlen(protocols[i].name) != len || memcmp(text, protocols[i].name, len) != 0)
			continue;
		if (!slash) {
			*range =
				(struct service_range){protocols[i].first, protocols[i].first + protocols[i].count - 1};
			return SERVICE_OK;
		}
		if (protocols[i].count == 256)
			return parse_type(range, i, slash + 1);
		return parse_ports(range, protocols[i].first, slash + 1);
	}
	return SERVICE_NOT_INLINE;
}

static size_t protocol_of(uint32_t point)
{
	size_t i = N_PROTOCOLS - 1;

	while (i && point < protocols[i].first)
		i--;
	return i;
}

void service_point(uint32_t point, unsigned *protocolp, unsigned *portp)
{
	size_t i = protocol_of(point);

	*protocolp = protocols[i].protocol;
	*portp = point - protocols[i].first;
}

int service_format(char *out, size_t size, struct service_range range)
{
	size_t i = protocol_of(range.first);
	uint32_t first = range.first - protocols[i].first, last = range.last - protocols[i].first;

	if (first <= 1 && last == protocols[i].count - 1)
		return snprintf(out, size, "%s", protocols[i].name);
	if (protocols[i].count == 256)
		return snprintf(out, size, "%s/%s", protocols[i].name, "echo-request");
	if (first == last)
		return snprintf(out, size, "%s/%u", protocols[i].name, first);
	return snprintf(out, size, "%s/%u-%u", protocols[i].name, first, last);
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
