/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bundle.h - the authorities of one trust domain, as the verifier sees them. Internal to the library.
 *
 * Bundles of different trust domains are never merged, not even for one lookup: an authority of one trust domain that
 * signs an ID of another must find no way in (rules 44 and 107).
 */
#ifndef BULKHEAD_IDENTITY_BUNDLE_H
#define BULKHEAD_IDENTITY_BUNDLE_H

#include <openssl/x509.h>

#include "bundle_text.h"
#include "svid.h"

struct bundle {
	char trust_domain[SPIFFE_TRUST_DOMAIN_MAX + 1];
	STACK_OF(X509) * authorities;
	unsigned dropped; /* entries of the text that could not be used */
	bool has_sequence;
	uint64_t sequence;
};

/* NULL if the trust domain is not configured. Borrowed from the set until it changes. */
const struct bundle *bundle_set_find(const struct bundle_set *set, const char *trust_domain);

/* What is being read from a text. */
struct bundle_text {
	const char *trust_domain;
	STACK_OF(X509) * authorities;
	struct bundle_report *report;
	unsigned unreadable; /* entries that are no certificate */
};

/* Each returns 0, -EINVAL with the report's rule and why filled, or -ENOMEM. */
int bundle_text_parse(struct bundle_text *into, enum bundle_format format, const char *text, size_t len);
int bundle_jwks_parse(struct bundle_text *into, const char *text, size_t len);

/* The whole text is refused. Returns -EINVAL. */
int bundle_text_refuse(struct bundle_text *into, int rule, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* One entry is dropped. Returns 0. */
int bundle_text_drop(struct bundle_text *into, unsigned index, int rule, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/* One entry is used, and needs a word. */
void bundle_text_note(struct bundle_text *into, unsigned index, int rule, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/* Adds a certificate, unless it is there already. Drops one that is no certificate, or no CA (rule `not_ca`). `key`, if not
 * NULL, is the key that the entry says it has (rule 97). */
int bundle_text_add(struct bundle_text *into, unsigned index, const uint8_t *der, size_t len, int not_ca,
		    const EVP_PKEY *key);

#endif
