/* SPDX-License-Identifier: Apache-2.0 */
/*
 * certificate.h - one certificate, held to the rules that concern it alone.
 *
 * These checks run before OpenSSL validates the path. OpenSSL would accept more than half of what they refuse, and it
 * reports much of the rest as a missing issuer. Internal to the library.
 */
#ifndef BULKHEAD_IDENTITY_CERTIFICATE_H
#define BULKHEAD_IDENTITY_CERTIFICATE_H

#include <openssl/bio.h>
#include <openssl/x509.h>

#include "svid.h"

/* Fills rule, depth and detail, with anything but printable ASCII made '?': the text goes to terminals and logs, and
 * names in it come from whoever asked. Returns 1. */
int verdict_refuse(struct svid_verdict *verdict, int rule, int depth, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* Each returns 0, or 1 with `verdict` filled. */
/* Rule 205: `der` is what `certificate` was decoded from. */
int certificate_check_encoding(X509 *certificate, const uint8_t *der, size_t len, int depth,
			       struct svid_verdict *verdict);
/* Rule 202: the key of a stranger's certificate may not be one that keeps us busy. */
int certificate_check_cost(X509 *certificate, int depth, struct svid_verdict *verdict);
/* Rule 70, as far as it concerns the key. */
int certificate_check_key(X509 *certificate, int depth, struct svid_verdict *verdict);
/* Sets spiffe_id and trust_domain. */
int certificate_check_leaf(X509 *leaf, struct svid_verdict *verdict);
/* Reads verdict->trust_domain, the leaf's, and may set the note (rule 54). */
int certificate_check_signer(X509 *signer, int depth, struct svid_verdict *verdict);
int certificate_check_time(X509 *certificate, int depth, time_t now, struct svid_verdict *verdict);
/* In FIPS mode, that the module has the kind of key. */
int certificate_check_approved(X509 *certificate, int depth, struct svid_verdict *verdict);
/* Rule 68: whether a certificate may be an authority of a bundle. */
int certificate_check_anchor(X509 *anchor, struct svid_verdict *verdict);

/* Rule 73: inner and outer signature algorithm are not the same. */
int certificate_algorithms_differ(X509 *certificate);
/* -1 if it cannot be read. */
time_t certificate_not_before(X509 *certificate);
time_t certificate_not_after(X509 *certificate);
/* RFC 2253. */
void certificate_name(const X509_NAME *name, char *out, size_t size);

/* The next PEM block, which has to be a certificate, as malloc()ed DER. Returns 1, 0 at the end of the text, -EINVAL
 * with `why`, or -ENOMEM. */
int certificate_pem_next(BIO *text, uint8_t **derp, size_t *lenp, char *why, size_t why_size);

#endif
