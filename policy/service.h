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

#include "policy/suggestion.h"

#define SERVICE_TCP 0U
#define SERVICE_UDP 65536U
#define SERVICE_SCTP 131072U
#define SERVICE_ICMP 196608U
#define SERVICE_ICMP6 (SERVICE_ICMP + 256U)
#define SERVICE_PROTO (SERVICE_ICMP6 + 256U)
#define SERVICE_END (SERVICE_PROTO + 256U)

#define SERVICE_TEXT_BYTES 64U /* enough for service_format */
#define SERVICE_N_EVERYTHING 6U

struct service_range {
	uint32_t first;
	uint32_t last;
};

enum service_problem {
	SERVICE_OK,
	SERVICE_NOT_INLINE, /* no protocol: a name, or a mistake */
	SERVICE_PORT,	    /* not a number, or not in 1..65535 */
	SERVICE_REVERSED,   /* the range ends before it begins */
	SERVICE_TYPE,	    /* neither the name of a type of this protocol nor a number in 0..255 */
	SERVICE_PROTOCOL,   /* not a number in 0..255 */
	SERVICE_HAS_A_NAME, /* proto/6 is tcp */
};

/* An inline service such as tcp/443, udp, icmp/echo-request, icmpv6/133-137, proto/47. */
enum service_problem service_parse(struct service_range *range, const char *text);
/* What is wrong with the text that service_parse found a problem in (not SERVICE_NOT_INLINE), for behind the text. */
const char *service_problem_text(enum service_problem problem);
/* Of SERVICE_HAS_A_NAME: the protocol that was meant, such as "tcp". Else NULL. */
const char *service_protocol_meant(const char *text);
/* Offers the names that an ICMP type could have had. Returns the protocol that does have this type, or NULL. */
const char *service_suggest_type(struct suggestion *suggestion, const char *text);
/* Is this the name of a protocol? Such a name cannot be given to a service. */
bool service_is_protocol(const char *name);
/* IP protocol, and port or type, of a point. */
void service_point(uint32_t point, unsigned *protocolp, unsigned *portp);
/* Writes a range of one protocol as it is written in a policy. Returns like snprintf. */
int service_format(char *out, size_t size, struct service_range range);
/* Every service: a range for each protocol. */
void service_everything(struct service_range ranges[SERVICE_N_EVERYTHING]);
/* Sorts, and joins what overlaps or touches within a protocol. Returns how many are left. */
uint32_t service_normalise(struct service_range *ranges, uint32_t n);

#endif
