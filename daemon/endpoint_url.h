/* SPDX-License-Identifier: Apache-2.0 */
/*
 * endpoint_url.h - what a URL has to be to name a bundle endpoint (SPIFFE_Federation.md 5.2.1.1, 5.2.2.1).
 *
 * It is checked where it is configured and again at every redirect. The set of characters is narrower than that of RFC 3986,
 * so that no two readers of it, ours and the library that connects, can disagree about which host it names.
 */
#ifndef BULKHEAD_DAEMON_ENDPOINT_URL_H
#define BULKHEAD_DAEMON_ENDPOINT_URL_H

#define ENDPOINT_URL_MAX 1024 /* bytes, with the NUL */

/* Why this is no URL of a bundle endpoint ("has userinfo; ..."), to follow its text in a sentence; NULL if it is one. */
const char *endpoint_url_flaw(const char *url);

#endif
