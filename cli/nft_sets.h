/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nft_sets.h - sets of addresses and of services, exactly: what a rule of nftables matches is a product of three of them
 * (source, destination, service), narrowed match by match.
 *
 * An address is a number of 128 bits, IPv4 in ::ffff:0:0/96 (address.h); a service is a point (service.h). Sets are sorted
 * spans that do not touch, in an arena; an empty set matches nothing.
 */
#ifndef BULKHEAD_CLI_NFT_SETS_H
#define BULKHEAD_CLI_NFT_SETS_H

#include "policy/address.h"
#include "policy/memory.h"
#include "policy/service.h"

struct nft_span {
	address first;
	address last;
};

struct nft_set {
	const struct nft_span *items;
	size_t n;
};

enum nft_family {
	NFT_BOTH,
	NFT_V4,
	NFT_V6,
};

/* Every address of a family, every service. Static. */
struct nft_set nft_set_addresses(enum nft_family family);
struct nft_set nft_set_services(void);
/* Sorts and joins; `spans` becomes the set's. */
struct nft_set nft_set_of(struct nft_span *spans, size_t n);
/* Results are in the arena; empty when out of memory, which the arena remembers. */
struct nft_set nft_set_intersect(struct arena *arena, struct nft_set a, struct nft_set b);
struct nft_set nft_set_subtract(struct arena *arena, struct nft_set a, struct nft_set b);
bool nft_set_equal(struct nft_set a, struct nft_set b);

/* As CIDR blocks. Returns how many; *rangesp is NULL when out of memory. */
size_t nft_set_blocks(struct arena *arena, struct nft_set set, struct address_range **rangesp);
/* As ranges of a rule. Port 0, which no flow has, is left out. */
uint32_t nft_set_ranges(struct arena *arena, struct nft_set set, struct service_range **rangesp);

#endif
