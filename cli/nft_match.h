/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nft_match.h - what a rule of nftables matches, of the first packet of a flow: narrowed by one match after the other, as
 * `nft -j` writes them. A match that is not understood is an answer, with the reason, never a guess.
 */
#ifndef BULKHEAD_CLI_NFT_MATCH_H
#define BULKHEAD_CLI_NFT_MATCH_H

#include <jansson.h>

#include "cli/nft_sets.h"

/* States of conntrack that a packet may be in. */
enum nft_state {
	NFT_NEW = 1U,
	NFT_ESTABLISHED = 2U,
	NFT_RELATED = 4U,
	NFT_INVALID = 8U,
	NFT_UNTRACKED = 16U,
	NFT_ANY_STATE = 31U,
};

enum nft_end {
	NFT_SOURCE,
	NFT_DESTINATION,
};

/* The packets that reach a place: a product of sets. */
struct nft_box {
	struct nft_set ends[2];	  /* by enum nft_end */
	const char *set_names[2]; /* of the named set that an end is, or NULL */
	struct nft_set services;
	unsigned states;
};

struct nft_matcher {
	struct arena *arena;
	const json_t *sets; /* by "FAMILY TABLE NAME": the `set` or `map` object */
	const char *family; /* of the chain: ip, ip6, inet */
	const char *table;  /* of the chain */
	bool lo_by_address; /* an interface `lo` stands for the addresses of loopback */
};

struct nft_box nft_box_whole(enum nft_family family);
bool nft_box_is_empty(const struct nft_box *box);
bool nft_box_equal(const struct nft_box *a, const struct nft_box *b);

/* Narrows a box by a match: `left` as nft has it, `op` such as "==", and `right`. Returns NULL, or why it cannot (borrowed, a
 * literal). */
const char *nft_box_match(const struct nft_matcher *matcher, struct nft_box *box, const json_t *left, const char *op,
			  const json_t *right);
/* nft leaves out a match that the kind of a rejection implies: its answer is of one family, or of TCP. */
const char *nft_box_reject(const struct nft_matcher *matcher, struct nft_box *box, const json_t *reject);
/* The elements of a set or map: an anonymous one, or "@NAME". Returns NULL if it is none, or not known. */
const json_t *nft_elements(const struct nft_matcher *matcher, const json_t *value, const char **whyp);

#endif
