/* SPDX-License-Identifier: Apache-2.0 */
/*
 * path.h - finds and validates a path from a leaf to an authority of one bundle (RFC 5280 section 6). Internal.
 *
 * The certificates of a chain may come in any order, with extra ones among them, and an authority may be cross-signed;
 * any valid path is enough (rules 66, 67). OpenSSL follows one path only and, when it fails, mostly says that an issuer
 * is missing. So the paths are enumerated here, each held to the rules of signing certificates, and each then given to
 * OpenSSL alone, in a store with that path's authority. The number of signatures looked at is bounded.
 */
#ifndef BULKHEAD_IDENTITY_PATH_H
#define BULKHEAD_IDENTITY_PATH_H

#include <openssl/x509.h>

#include "bundle.h"

/* `certificates[0]` is the leaf and has passed certificate_check_leaf(). Sets verdict->not_after (rule 74) and the anchors: every
 * authority by which the chain is valid, because any one of them may leave the bundle. Returns 0, 1
 * with the verdict filled, or -ENOMEM. */
int path_validate(X509 *const *certificates, size_t n, const struct bundle *bundle, time_t now,
		  struct svid_verdict *verdict);

#endif
