/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nft_ruleset.h - the chains, rules and sets of `nft -j list ruleset`, found by name.
 */
#ifndef BULKHEAD_CLI_NFT_RULESET_H
#define BULKHEAD_CLI_NFT_RULESET_H

#include <jansson.h>

#include "cli/nft_match.h"
#include "policy/diagnostics.h"

struct nft_chain {
	const char *family;
	const char *table;
	const char *name;
	const char *hook; /* NULL: it is only jumped to */
	const char *type;
	bool drops; /* by its policy */
	const json_t **rules;
	size_t n_rules;
};

struct nft_ruleset {
	struct arena arena;
	struct policy_diagnostics *diagnostics;
	json_t *root;
	json_t *sets;	/* "FAMILY TABLE NAME": set or map */
	json_t *chains; /* "FAMILY TABLE NAME": index */
	struct nft_chain *items;
	size_t n_chains;
};

/* Reads the text; mistakes are among the diagnostics. Returns 0 or -ENOMEM. */
int nft_ruleset_read(struct nft_ruleset *ruleset, const struct policy_source *source);
void nft_ruleset_free(struct nft_ruleset *ruleset);
/* Returns NULL if there is none. */
const struct nft_chain *nft_ruleset_chain(struct nft_ruleset *ruleset, const char *family, const char *table,
					  const char *name);

#endif
