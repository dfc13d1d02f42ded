/* SPDX-License-Identifier: Apache-2.0 */
/*
 * federation.h - one relationship with a foreign trust domain, as it is configured (SPIFFE_Federation.md 5).
 *
 * Trust domain, URL and profile are each written down; none is ever derived from another, least of all the trust domain from the
 * host of the URL (5.1, 7.2: whoever controls an endpoint would choose whom it speaks for). Pure; both the child that reads the
 * configuration and the enforcer, which does not believe that child, come here.
 */
#ifndef BULKHEAD_DAEMON_FEDERATION_H
#define BULKHEAD_DAEMON_FEDERATION_H

#include <stddef.h>
#include <stdint.h>

#include "endpoint_url.h"

#define FEDERATION_MAX 32 /* relationships */
#define FEDERATION_PATH_MAX 1024
/* Tests of the daemon do not wait for minutes. */
#if defined(BH_LAYOUT_TEST) && BH_LAYOUT_TEST
#define FEDERATION_SECOND_USEC 10000ULL
#else
#define FEDERATION_SECOND_USEC 1000000ULL
#endif
/* The latest bundle is kept in a file of this name. */
#define FEDERATION_TRUST_DOMAIN_MAX 240

enum federation_profile {
	FEDERATION_HTTPS_WEB = 1,
	FEDERATION_HTTPS_SPIFFE,
};

struct federation {
	char trust_domain[256];
	char url[ENDPOINT_URL_MAX];
	char endpoint_spiffe_id[2049];	  /* https_spiffe, else "" */
	char endpoint_trust_domain[256];  /* of that ID; "" where it is `trust_domain`: the endpoint serves itself */
	char bundle[FEDERATION_PATH_MAX]; /* to begin with, *.pem or *.json; "": none */
	uint32_t profile;		  /* enum federation_profile */
	uint32_t pad;
};

/* Takes one `key: value`. Returns 0, or 1 with what is wrong in `why`. */
int federation_set(struct federation *entry, const char *key, const char *value, char *why, size_t size);
/* Is the entry whole, and does each part fit the others? Returns 0, or 1 with what is wrong in `why`. */
int federation_check(const struct federation *entry, char *why, size_t size);
/* All of a configuration: each whole, and no trust domain twice. The same answers. */
int federation_check_all(const struct federation *entries, size_t n, char *why, size_t size);

const char *federation_profile_name(uint32_t profile);

/* How long to wait for the next poll of a bundle that wants to be asked for again every `refresh_s` seconds: up to a tenth less,
 * by `random`, so that hosts started together do not ask together. */
uint64_t federation_wait_usec(uint32_t refresh_s, uint32_t random);
/* How long to wait for the next poll where the last one came to nothing by a fault of our own, the `failures`th in a row, from 1:
 * the endpoint was not heard, so the interval that it hints at is not due to it. From 1 to 2 s by `random`, and twice as long with
 * each failure, up to that interval. */
uint64_t federation_again_usec(unsigned failures, uint32_t refresh_s, uint32_t random);

#endif
