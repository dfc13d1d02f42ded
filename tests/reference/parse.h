/* SPDX-License-Identifier: Apache-2.0 */
/*
 * parse.h - what the packet parser is to find, written a second time and plainly; and packets to try it with.
 *
 * A packet is what stands from the IP header on. It was received under an Ethernet type, which need not agree with it.
 */
#ifndef BULKHEAD_TESTS_REFERENCE_PARSE_H
#define BULKHEAD_TESTS_REFERENCE_PARSE_H

#include <stddef.h>
#include <stdint.h>

#include "tests/reference/parse_kernel.h"

#define REF_PACKET_MAX 512

struct ref_packet {
	uint16_t ethertype; /* host order */
	size_t len;
	uint8_t bytes[REF_PACKET_MAX];
};

/* What there is to know of a packet. */
struct parse_result ref_parse(const struct ref_packet *packet);
/* An IPv6 header whose next header is `next`; ref_packet_extension() and ref_packet_append() go on from there. */
void ref_packet_ipv6(struct ref_packet *packet, uint8_t next);
/* An IPv4 header. */
void ref_packet_ipv4(struct ref_packet *packet, uint8_t protocol);
/* An extension header of `units` * 8 bytes, padded as RFC 8200 says. */
void ref_packet_extension(struct ref_packet *packet, uint8_t kind, uint8_t next, unsigned units);
/* A transport header with 4 bytes of payload; of what has none known here, 12 bytes. */
void ref_packet_transport(struct ref_packet *packet, uint8_t protocol);
/* Writes the length into the IP header. */
void ref_packet_finish(struct ref_packet *packet);
/* Random, mostly near to what is valid; the same for the same seed. */
void ref_packet_random(struct ref_packet *packet, uint64_t *seed);

#endif
