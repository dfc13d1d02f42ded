/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spiffe_id.h - SPIFFE IDs (SPIFFE-ID.md, section 2).
 *
 * An ID is a byte string that is compared byte for byte: nothing is folded, decoded or normalised, because two spellings
 * of one identity are two identities to every other tool on the host.
 */
#ifndef BULKHEAD_IDENTITY_SPIFFE_ID_H
#define BULKHEAD_IDENTITY_SPIFFE_ID_H

#include <stddef.h>

#define SPIFFE_ID_MAX 2048 /* bytes, SPIFFE-ID.md 2.3 */
#define SPIFFE_TRUST_DOMAIN_MAX 255

/* Rule numbers of the conformance table (see docs); 0 is "valid". */
int spiffe_id_check(const char *id, size_t len); /* a workload's ID: a path is required (rule 29) */
/* The ID of a signing certificate: a trust domain alone, which the specification's own example writes with a '/' (rules 52,
 * 53). */
int spiffe_signer_id_check(const char *id, size_t len);
int spiffe_trust_domain_check(const char *name, size_t len);
/* Copies the trust domain of an ID that one of them found valid. `out` has SPIFFE_TRUST_DOMAIN_MAX + 1 bytes. */
void spiffe_id_trust_domain(const char *id, char *out);

#endif
