/* SPDX-License-Identifier: Apache-2.0 */
/*
 * svid.h - verification of an X.509-SVID chain against the trust bundle of the ID's own trust domain (X509-SVID.md
 * section 5, RFC 5280 section 6).
 *
 * The ID is read from the leaf first, the bundle chosen by its trust domain, and only then is the path validated, in a
 * store that holds this one trust domain's authorities. What OpenSSL does not check, we check ourselves and before it,
 * so that the reason of a refusal is the rule that was broken and not a side effect of it.
 */
#ifndef BULKHEAD_IDENTITY_SVID_H
#define BULKHEAD_IDENTITY_SVID_H

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "spiffe_id.h"

#define SVID_MAX_CERTIFICATES 8
#define SVID_MAX_CHAIN_BYTES 65536

/* A trust bundle set: authorities by trust domain. */
struct bundle_set;

int bundle_set_new(struct bundle_set **setp);
void bundle_set_freep(struct bundle_set **setp);
/* Replaces the authorities of one trust domain by the certificates of a PEM text. Entries that are no CA are dropped
 * and counted in *droppedp (rule 68). A text without usable authority leaves the domain with none: nobody verifies
 * (rule 86). Returns the number of authorities, -EINVAL for a text that is not PEM certificates (the set is unchanged;
 * `why` says what is wrong), or -ENOMEM. */
int bundle_set_load_pem(struct bundle_set *set, const char *trust_domain, const char *pem, size_t len,
			unsigned *droppedp, char *why, size_t why_size);
void bundle_set_remove(struct bundle_set *set, const char *trust_domain);
/* Number of authorities, or -ENOENT for a trust domain that is not configured. */
int bundle_set_authorities(const struct bundle_set *set, const char *trust_domain);
/* Writes the configured trust domains, comma-separated, for messages. */
void bundle_set_names(const struct bundle_set *set, char *out, size_t size);

struct svid_chain; /* parsed, not yet verified */

/* An authority that a chain is valid by. */
#define SVID_MAX_ANCHORS 4
struct svid_anchor {
	uint8_t id[16];	   /* beginning of the SHA-256 of its certificate */
	int64_t not_after; /* UTC seconds: earliest on the path to it */
};

/* Result of a verification. */
struct svid_verdict {
	int rule;	   /* 0: valid; else the rule that was broken */
	int depth;	   /* certificate it was found in: 0 leaf; -1 the chain or bundle as a whole */
	bool at_authority; /* that certificate is the bundle's authority, which need not be in the chain */
	char detail[320];  /* one sentence: what was found */
	char note[160];	   /* valid, but worth a line in the log (rule 54); else "" */
	char spiffe_id[SPIFFE_ID_MAX + 1]; /* "" if none could be read */
	char trust_domain[SPIFFE_TRUST_DOMAIN_MAX + 1];
	time_t not_after; /* earliest notAfter on the validated path (rule 74); of several paths, the last one to end */
	time_t not_before; /* of the leaf */
	char serial[64];   /* leaf, hex */
	char issuer[256];  /* leaf, RFC 2253 */
	uint8_t leaf_sha256[32];
	unsigned n_anchors; /* the chain is valid by each of them; more than there is room for are left out */
	struct svid_anchor anchors[SVID_MAX_ANCHORS];
};

/* Parses DER certificates, leaf first. Refuses trailing bytes (rule 72), too many or too large. Returns 0, 1 with
 * `verdict` filled (the rule), or -ENOMEM. */
int svid_chain_parse_der(struct svid_chain **chainp, const uint8_t *const *der, const size_t *len, size_t n,
			 struct svid_verdict *verdict);
int svid_chain_parse_pem(struct svid_chain **chainp, const char *pem, size_t len, struct svid_verdict *verdict);
void svid_chain_freep(struct svid_chain **chainp);
size_t svid_chain_count(const struct svid_chain *chain);
/* DER of certificate i; borrowed. */
const uint8_t *svid_chain_der(const struct svid_chain *chain, size_t i, size_t *lenp);
/* Public key of the leaf; borrowed. */
EVP_PKEY *svid_chain_leaf_key(const struct svid_chain *chain);

/* Verifies at time `now` (seconds, UTC). Returns 0 valid, 1 refused (both with `verdict` filled), or -ENOMEM. */
int svid_verify(const struct svid_chain *chain, const struct bundle_set *bundles, time_t now,
		struct svid_verdict *verdict);

/* The sentence of a refusal, the same wherever it is told: in the answer to the workload, in the audit log and by `policyctl
 * svid verify`: "NAME (rule N): DETAIL; certificate D (leaf)". */
void svid_verdict_text(const struct svid_verdict *verdict, char *out, size_t size);
/* The same for a rule that something else than a verification found broken. */
void svid_refusal_text(int rule, const char *detail, char *out, size_t size);

#endif
