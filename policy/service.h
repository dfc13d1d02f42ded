/* SPDX-License-Identifier: Apache-2.0 */
/*
 * service.h - protocols with ports or types. All that a rule can name lies on one line of numbers, protocol after
 * protocol: TCP, UDP and SCTP ports, ICMP and ICMPv6 types, then the numbers of all protocols, for those without ports or
 * types; a service is a set of ranges on it.
 */
#ifndef BULKHEAD_POLICY_SERVICE_H
#define BULKHEAD_POLICY_SERVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SERVICE_TCP 0U
#define SERVICE_UDP 65536U
#define SERVICE_SCTP 131072U
#define SERVICE_ICMP 196608U
#define SERVICE_ICMP6 (SERVICE_ICMP + 256U)
#define SERVICE_PROTO (SERVICE_ICMP6 + 256U)
#define SERVICE_END (SERVICE_PROTO + 256U)

struct service_range {
	uint32_t first;
	uint32_t last;
};

enum service_problem {
	SERVICE_OK,
	SERVICE_NOT_INLINE,  /* no protocol: a name, or a mistake */
	SERVICE_UNSUPPORTED, /* of the language, but not yet */
	SERVICE_PORT,	     /* not a number, or not in 1..65535 */
	SERVICE_REVERSED,    /* the range ends before it begins */
	SERVICE_TYPE,	     /* not an ICMP type */
};

/* An inline service such as tcp/443, udp, icmp/echo-request. */
enum service_problem service_parse(struct service_range *range, const char *text);
/* Is this the name of a protocol, of now or later? Such a name cannot be given to a service. */
bool service_is_protocol(const char *name);
/* IP protocol, and port or type, of a point. */
void service_point(uint32_t point, unsigned *protocolp, unsigned *portp);
/* Writes a range as it is written in a policy. Returns like snprintf. */
int service_format(char *out, size_t size, struct service_range range);
/* Sorts, and joins what overlaps or touches within a protocol. Returns how many are left. */
uint32_t service_normalise(struct service_range *ranges, uint32_t n);

#endif
