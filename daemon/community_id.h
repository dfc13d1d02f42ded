/* SPDX-License-Identifier: Apache-2.0 */
/*
 * community_id.h - Community ID flow hash, version 1, seed 0: the same text for the same flow in every tool that sees it
 * (Zeek, Suricata, Elastic), so that a verdict can be joined with what the network saw.
 */
#ifndef BULKHEAD_DAEMON_COMMUNITY_ID_H
#define BULKHEAD_DAEMON_COMMUNITY_ID_H

#include <stdbool.h>
#include <stdint.h>

#include "bpf/abi.h"

#define COMMUNITY_ID_SIZE 31 /* "1:", 28 characters of base64, NUL */

/* Holds the digest, which OpenSSL takes long to look up. SHA-1 is what the specification asks for; nothing here rests on
 * its strength. */
struct community_id;

int community_id_new(struct community_id **cidp);
void community_id_freep(struct community_id **cidp);

/*
 * Addresses as in abi.h. For ICMP `sport` is the type; the code is not known, so only types that have a counterpart
 * (echo, timestamp, solicitations) get an ID. Returns false where there is none.
 */
bool community_id_format(struct community_id *cid, char out[COMMUNITY_ID_SIZE], const struct bh_addr *src,
			 const struct bh_addr *dst, uint8_t proto, uint16_t sport, uint16_t dport);

#endif
