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

#include "svid.h"

struct bundle {
	char trust_domain[SPIFFE_TRUST_DOMAIN_MAX + 1];
	STACK_OF(X509) * authorities;
	unsigned dropped; /* entries of the text that were no CA */
};

/* NULL if the trust domain is not configured. Borrowed from the set until it changes. */
const struct bundle *bundle_set_find(const struct bundle_set *set, const char *trust_domain);

#endif
