/* SPDX-License-Identifier: Apache-2.0 */
#include "bundle.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "certificate.h"

struct bundle_set {
	struct bundle *bundles; /* ordered by trust domain */
	size_t n;
};

static void authorities_freep(STACK_OF(X509) * *authorities)
{
	sk_X509_pop_free(*authorities, X509_free);
}

static void bio_freep(BIO **bio)
{
	BIO_free(*bio);
}

static void x509_freep(X509 **certificate)
{
	X509_free(*certificate);
}

static void freep(void *p)
{
	free(*(void **)p);
}

int bundle_set_new(struct bundle_set **setp)
{
	*setp = calloc(1, sizeof(**setp));
	return *setp != NULL ? 0 : -ENOMEM;
}

void bundle_set_freep(struct bundle_set **setp)
{
	struct bundle_set *set = *setp;

	if (set == NULL)
		return;
	for (size_t i = 0; i < set->n; i++)
		sk_X509_pop_free(set->bundles[i].authorities, X509_free);
	free(set->bundles);
	free(set);
	*setp = NULL;
}

/* Index of the first bundle whose name is not below `trust_domain`. */
static size_t bundle_set_position(const struct bundle_set *set, const char *trust_domain)
{
	size_t i = 0;

	while (i < set->n && strcmp(set->bundles[i].trust_domain, trust_domain) < 0)
		i++;
	return i;
}

const struct bundle *bundle_set_find(const struct bundle_set *set, const char *trust_domain)
{
	size_t i = bundle_set_position(set, trust_domain);

	if (i == set->n || strcmp(set->bundles[i].trust_domain, trust_domain) != 0)
		return NULL;
	return &set->bundles[i];
}

static int contains(STACK_OF(X509) * authorities, X509 *certificate)
{
	for (int i = 0; i < sk_X509_num(authorities); i++) {
		if (X509_cmp(sk_X509_value(authorities, i), certificate) == 0)
			return 1;
	}
	return 0;
}

/* Adds one entry, unless it is no CA (then 1) or there already. */
static int add_authority(STACK_OF(X509) * authorities, const uint8_t *der, size_t len, unsigned entry, char *why,
			 size_t why_size)
{
	const uint8_t *at = der;
	__attribute__((cleanup(x509_freep))) X509 *certificate = d2i_X509(NULL, &at, (long)len);
	struct svid_verdict verdict;

	ERR_clear_error();
	if (certificate == NULL || at != der + len) {
		snprintf(why, why_size, "entry %u is no DER certificate%s", entry,
			 certificate != NULL ? ", bytes follow it" : "");
		return -EINVAL;
	}
	if (certificate_check_anchor(certificate, &verdict) != 0) {
		snprintf(why, why_size, "entry %u dropped: %.100s", entry, verdict.detail);
		return 1;
	}
	if (contains(authorities, certificate))
		return 0;
	if (sk_X509_push(authorities, certificate) == 0)
		return -ENOMEM;
	certificate = NULL;
	return 0;
}

static int parse_authorities(STACK_OF(X509) * authorities, const char *pem, size_t len, unsigned *droppedp, char *why,
			     size_t why_size)
{
	__attribute__((cleanup(bio_freep))) BIO *text = len <= INT32_MAX ? BIO_new_mem_buf(pem, (int)len) : NULL;
	unsigned entries = 0, dropped = 0;

	if (text == NULL)
		return -ENOMEM;
	for (;;) {
		__attribute__((cleanup(freep))) uint8_t *der = NULL;
		size_t der_len;
		int r = certificate_pem_next(text, &der, &der_len, why, why_size);

		if (r < 0)
			return r;
		if (r == 0)
			break;
		r = add_authority(authorities, der, der_len, ++entries, why, why_size);
		if (r < 0)
			return r;
		dropped += (unsigned)r;
	}
	if (entries == 0) {
		/* An empty file is more often a failed write than a revocation of everything. */
		snprintf(why, why_size, "there is no PEM certificate in it");
		return -EINVAL;
	}
	*droppedp = dropped;
	return 0;
}

static int bundle_set_insert(struct bundle_set *set, size_t at, const char *trust_domain)
{
	struct bundle *grown = realloc(set->bundles, (set->n + 1) * sizeof(*grown));

	if (grown == NULL)
		return -ENOMEM;
	memmove(&grown[at + 1], &grown[at], (set->n - at) * sizeof(*grown));
	memset(&grown[at], 0, sizeof(grown[at]));
	snprintf(grown[at].trust_domain, sizeof(grown[at].trust_domain), "%s", trust_domain);
	set->bundles = grown;
	set->n++;
	return 0;
}

int bundle_set_load_pem(struct bundle_set *set, const char *trust_domain, const char *pem, size_t len,
			unsigned *droppedp, char *why, size_t why_size)
{
	__attribute__((cleanup(authorities_freep))) STACK_OF(X509) *authorities = sk_X509_new_null();
	size_t at = bundle_set_position(set, trust_domain);
	int rule = spiffe_trust_domain_check(trust_domain, strlen(trust_domain)), r;
	STACK_OF(X509) * former;

	*droppedp = 0;
	snprintf(why, why_size, "%s", "");
	if (rule != 0) {
		snprintf(why, why_size, "\"%.100s\" is no trust domain name (rule %d)", trust_domain, rule);
		return -EINVAL;
	}
	if (authorities == NULL)
		return -ENOMEM;
	r = parse_authorities(authorities, pem, len, droppedp, why, why_size);
	if (r < 0)
		return r;
	if (bundle_set_find(set, trust_domain) == NULL && bundle_set_insert(set, at, trust_domain) < 0)
		return -ENOMEM;
	former = set->bundles[at].authorities;
	set->bundles[at].authorities = authorities;
	set->bundles[at].dropped = *droppedp;
	authorities = former;
	return sk_X509_num(set->bundles[at].authorities);
}

void bundle_set_remove(struct bundle_set *set, const char *trust_domain)
{
	size_t at = bundle_set_position(set, trust_domain);

	if (bundle_set_find(set, trust_domain) == NULL)
		return;
	sk_X509_pop_free(set->bundles[at].authorities, X509_free);
	set->n--;
	memmove(&set->bundles[at], &set->bundles[at + 1], (set->n - at) * sizeof(set->bundles[at]));
}

int bundle_set_authorities(const struct bundle_set *set, const char *trust_domain)
{
	const struct bundle *bundle = bundle_set_find(set, trust_domain);

	return bundle != NULL ? sk_X509_num(bundle->authorities) : -ENOENT;
}

void bundle_set_names(const struct bundle_set *set, char *out, size_t size)
{
	size_t used = 0;

	out[0] = '\0';
	for (size_t i = 0; i < set->n; i++) {
		int n = snprintf(out + used, size - used, "%s%s", i > 0 ? ", " : "", set->bundles[i].trust_domain);

		if (n < 0 || (size_t)n >= size - used)
			return;
		used += (size_t)n;
	}
}
