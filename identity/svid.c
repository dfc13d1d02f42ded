/* SPDX-License-Identifier: Apache-2.0 */
#include "svid.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle.h"
#include "certificate.h"
#include "path.h"
#include "rules.h"

struct svid_chain {
	size_t n;
	X509 *certificates[SVID_MAX_CERTIFICATES];
	uint8_t *der[SVID_MAX_CERTIFICATES]; /* into `bytes` */
	size_t len[SVID_MAX_CERTIFICATES];
	uint8_t bytes[];
};

static void bio_freep(BIO **bio)
{
	BIO_free(*bio);
}

static void verdict_reset(struct svid_verdict *verdict)
{
	memset(verdict, 0, sizeof(*verdict));
	verdict->depth = -1;
}

void svid_chain_freep(struct svid_chain **chainp)
{
	struct svid_chain *chain = *chainp;

	if (chain == NULL)
		return;
	for (size_t i = 0; i < chain->n; i++)
		X509_free(chain->certificates[i]);
	free(chain);
	*chainp = NULL;
}

static int check_limits(const size_t *len, size_t n, size_t *totalp, struct svid_verdict *verdict)
{
	*totalp = 0;
	if (n == 0)
		return verdict_refuse(verdict, 201, -1, "the chain has no certificate");
	if (n > SVID_MAX_CERTIFICATES)
		return verdict_refuse(verdict, 202, -1, "the chain has more than %d certificates",
				      SVID_MAX_CERTIFICATES);
	for (size_t i = 0; i < n; i++) {
		if (len[i] > SVID_MAX_CHAIN_BYTES - *totalp)
			return verdict_refuse(verdict, 202, -1, "the chain has more than %d bytes",
					      SVID_MAX_CHAIN_BYTES);
		*totalp += len[i];
	}
	return 0;
}

int svid_chain_parse_der(struct svid_chain **chainp, const uint8_t *const *der, const size_t *len, size_t n,
			 struct svid_verdict *verdict)
{
	__attribute__((cleanup(svid_chain_freep))) struct svid_chain *chain = NULL;
	uint8_t *into;
	size_t total;

	verdict_reset(verdict);
	if (check_limits(len, n, &total, verdict) != 0)
		return 1;
	chain = calloc(1, sizeof(*chain) + total);
	if (chain == NULL)
		return -ENOMEM;
	into = chain->bytes;
	for (size_t i = 0; i < n; i++) {
		const uint8_t *at = der[i];
		X509 *certificate = d2i_X509(NULL, &at, (long)len[i]);

		ERR_clear_error();
		if (certificate == NULL)
			return verdict_refuse(verdict, 201, (int)i,
					      "certificate %zu of the chain is no DER certificate", i);
		chain->certificates[chain->n++] = certificate;
		if (at != der[i] + len[i])
			return verdict_refuse(verdict, 72, (int)i, "%zu bytes follow certificate %zu of the chain",
					      (size_t)(der[i] + len[i] - at), i);
		if (certificate_check_encoding(certificate, der[i], len[i], (int)i, verdict) != 0 ||
		    certificate_check_cost(certificate, (int)i, verdict) != 0)
			return 1;
		memcpy(into, der[i], len[i]);
		chain->der[i] = into;
		chain->len[i] = len[i];
		into += len[i];
	}
	*chainp = chain;
	chain = NULL;
	return 0;
}

struct der_list {
	uint8_t *der[SVID_MAX_CERTIFICATES + 1]; /* one more than allowed, so that the excess is seen */
	size_t len[SVID_MAX_CERTIFICATES + 1];
	size_t n;
};

static void der_list_free(struct der_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->der[i]);
}

int svid_chain_parse_pem(struct svid_chain **chainp, const char *pem, size_t len, struct svid_verdict *verdict)
{
	__attribute__((cleanup(bio_freep))) BIO *text = len <= INT32_MAX ? BIO_new_mem_buf(pem, (int)len) : NULL;
	__attribute__((cleanup(der_list_free))) struct der_list list = {0};

	verdict_reset(verdict);
	if (text == NULL)
		return -ENOMEM;
	while (list.n <= SVID_MAX_CERTIFICATES) {
		char why[160];
		int r = certificate_pem_next(text, &list.der[list.n], &list.len[list.n], why, sizeof(why));

		if (r == -EINVAL)
			return verdict_refuse(verdict, 201, (int)list.n, "%s", why);
		if (r < 0)
			return r;
		if (r == 0)
			break;
		list.n++;
	}
	return svid_chain_parse_der(chainp, (const uint8_t *const *)list.der, list.len, list.n, verdict);
}

size_t svid_chain_count(const struct svid_chain *chain)
{
	return chain->n;
}

const uint8_t *svid_chain_der(const struct svid_chain *chain, size_t i, size_t *lenp)
{
	*lenp = chain->len[i];
	return chain->der[i];
}

EVP_PKEY *svid_chain_leaf_key(const struct svid_chain *chain)
{
	return X509_get0_pubkey(chain->certificates[0]);
}

/* What the audit log says of the leaf, whatever the verdict. */
static int describe_leaf(const struct svid_chain *chain, struct svid_verdict *verdict)
{
	X509 *leaf = chain->certificates[0];
	BIGNUM *serial = ASN1_INTEGER_to_BN(X509_get0_serialNumber(leaf), NULL);
	char *hex = serial != NULL ? BN_bn2hex(serial) : NULL;

	snprintf(verdict->serial, sizeof(verdict->serial), "%s", hex != NULL ? hex : "");
	OPENSSL_free(hex);
	BN_free(serial);
	certificate_name(X509_get_issuer_name(leaf), verdict->issuer, sizeof(verdict->issuer));
	verdict->not_before = certificate_not_before(leaf);
	verdict->not_after = certificate_not_after(leaf);
	SHA256(chain->der[0], chain->len[0], verdict->leaf_sha256);
	return hex != NULL ? 0 : -ENOMEM;
}

int svid_verify(const struct svid_chain *chain, const struct bundle_set *bundles, time_t now,
		struct svid_verdict *verdict)
{
	const struct bundle *bundle;

	verdict_reset(verdict);
	if (describe_leaf(chain, verdict) < 0)
		return -ENOMEM;
	if (certificate_check_leaf(chain->certificates[0], verdict) != 0)
		return 1;
	bundle = bundle_set_find(bundles, verdict->trust_domain);
	if (bundle == NULL) {
		char names[200];

		bundle_set_names(bundles, names, sizeof(names));
		return verdict_refuse(verdict, 75, -1, "there is no bundle for trust domain %.60s; there is %s",
				      verdict->trust_domain, names[0] != '\0' ? names : "none at all");
	}
	if (sk_X509_num(bundle->authorities) == 0)
		return verdict_refuse(verdict, 21, -1,
				      "the bundle of %.100s has no authority (%u entries dropped as no CA)",
				      bundle->trust_domain, bundle->dropped);
	return path_validate(chain->certificates, chain->n, bundle, now, verdict);
}

static const char *place_name(const struct svid_verdict *verdict)
{
	return verdict->depth == 0 ? " (leaf)" : verdict->at_authority ? " (authority of the bundle)" : "";
}

void svid_verdict_text(const struct svid_verdict *verdict, char *out, size_t size)
{
	char where[60] = "";

	if (verdict->depth >= 0)
		snprintf(where, sizeof(where), "; certificate %d%s", verdict->depth, place_name(verdict));
	snprintf(out, size, "%s (rule %d): %s%s", svid_rule_name(verdict->rule), verdict->rule, verdict->detail, where);
}

void svid_refusal_text(int rule, const char *detail, char *out, size_t size)
{
	struct svid_verdict verdict;

	verdict_reset(&verdict);
	verdict_refuse(&verdict, rule, -1, "%s", detail);
	svid_verdict_text(&verdict, out, size);
}
