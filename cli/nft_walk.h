/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nft_walk.h - the rules of one base chain, in the order in which packets meet them, written as rules of a policy. Jumps are
 * followed where they stand, with the packets that take them; what is not understood is reported and the walk goes on, to
 * find all of it.
 */
#ifndef BULKHEAD_CLI_NFT_WALK_H
#define BULKHEAD_CLI_NFT_WALK_H

#include "cli/nft_match.h"
#include "cli/nft_ruleset.h"
#include "policy/import_draft.h"

/* What the walks of one import share. */
struct nft_import {
	const char *source; /* name of the file */
	struct nft_ruleset ruleset;
	struct draft *draft;
	const char **subjects;
	size_t n_subjects;
	unsigned steps;
};

struct nft_walk {
	struct nft_import *importer;
	const struct nft_chain *base;
	struct nft_matcher matcher;
	const char *tier;
	enum rule_action accept; /* allow, or pass to the next chain */
	bool ingress;
	int32_t priority;   /* of the next rule */
	bool keeps_replies; /* a rule accepts what is established */
};

/* Walks the base chain with the packets of `box`, up to its policy. */
void nft_walk_chain(struct nft_walk *walk, struct nft_box box);
/* Writes what happens to a box of first packets. */
void nft_walk_write(struct nft_walk *walk, const char *name, const char *origin, const struct nft_box *box,
		    enum rule_action action);

#endif
