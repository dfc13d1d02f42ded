/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chains.h - the certificates of identities in force, kept by the identity role.
 *
 * When an authority leaves a bundle, an identity that it vouched for stays only if its chain leads to another one. Which other
 * ones there were is kept with the tag; one that came later, as when an authority is issued anew with the same key, can be
 * found only by verifying the chain again. Leaves are kept one by one, the certificates above them once for all. What does
 * not fit is not kept: such an identity ends with the last authority that was known to vouch for it.
 */
#ifndef BULKHEAD_DAEMON_CHAINS_H
#define BULKHEAD_DAEMON_CHAINS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "identity/svid.h"

#define CHAINS_MAX_BYTES (32UL << 20)

struct chains;

int chains_new(struct chains **chainsp);
void chains_freep(struct chains **chainsp);
/* Keeps a copy of a verified chain for the tag `key`, instead of the one it had. Returns 0, -ENOSPC when full (then none is
 * kept for the tag), or -ENOMEM. */
int chains_keep(struct chains *chains, uint64_t key, const struct svid_chain *chain,
		const struct svid_verdict *verdict);
void chains_forget(struct chains *chains, uint64_t key);
size_t chains_count(const struct chains *chains);
/* Memory that the certificates take. */
size_t chains_bytes(const struct chains *chains);

/* A chain that is kept, `i` below chains_count(). Borrowed until the next change. */
struct chains_item {
	uint64_t key;
	const char *trust_domain;
	const struct svid_anchor *anchors;
	unsigned n_anchors;
	bool stale; /* its bundle has changed since it was verified */
};
struct chains_item chains_at(const struct chains *chains, size_t i);
/* The bundle of the trust domain has other authorities. */
void chains_mark_stale(struct chains *chains, const char *trust_domain);
/* Verifies it again. Returns as svid_verify(); where it is valid, its anchors are noted anew. */
int chains_verify(struct chains *chains, size_t i, const struct bundle_set *bundles, time_t now,
		  struct svid_verdict *verdict);

#endif
