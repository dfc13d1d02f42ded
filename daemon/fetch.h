/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fetch.h - one bundle from one endpoint, over HTTPS (SPIFFE_Federation.md 5.2).
 *
 * Whom the server has to be depends on the profile. https_web: whom the host in the URL names, by a certificate of a CA that this
 * host trusts. https_spiffe: exactly one SPIFFE ID, by an X.509-SVID that our own verifier accepts against the bundle of
 * that ID's trust domain; the name in the URL then means nothing. A redirect is followed to another URL that could have been
 * configured, with the same checks, and forgotten with the fetch: also a 301 or 308 (5.2.1.4, 5.2.2.4).
 *
 * What comes is not looked at here, but for its size.
 */
#ifndef BULKHEAD_DAEMON_FETCH_H
#define BULKHEAD_DAEMON_FETCH_H

#include <stddef.h>

#include "identity/bundle_text.h"

#define FETCH_MAX_BYTES (4U << 20)
#define FETCH_MAX_REDIRECTS 5
#define FETCH_CONNECT_SECONDS 10
#define FETCH_SECONDS 30 /* with all redirects */

struct fetch_job {
	const char *url;
	const char *ca_file;		/* https_web: PEM; "": the system's */
	const char *endpoint_spiffe_id; /* "": https_web */
	const char *bundle;		/* https_spiffe: of the ID's trust domain */
	size_t bundle_len;
	enum bundle_format format; /* of the bundle */
};

/* Blocks. The process has called fetch_init() once. Returns 0 with *bodyp malloc()ed, or -errno with a sentence. */
int fetch_bundle(const struct fetch_job *job, char **bodyp, size_t *lenp, char *why, size_t why_size);
/* Loads what the libraries load when first used. Returns 0 or -EIO. */
int fetch_init(void);

#endif
