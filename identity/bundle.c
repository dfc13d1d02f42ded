/* SPDX-License-Identifier: Apache-2.0 */
#include "bundle.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>
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

/* Every authority of the one is one of the other. */
static bool includes(const STACK_OF(X509) * all, const STACK_OF(X509) * some)
{
	for (int i = 0; i < sk_X509_num(some); i++) {
		int at = 0;

		while (at < sk_X509_num(all) && X509_cmp(sk_X509_value(all, at), sk_X509_value(some, i)) != 0)
			at++;
		if (at >= sk_X509_num(all))
			return false;
	}
	return true;
}

/* Rules 79, 80. Order and spelling of a text are no content: the authorities are compared. */
static int check_sequence(const struct bundle *former, struct bundle_text *text)
{
	const struct bundle_report *report = text->report;

	if (former == NULL || !former->has_sequence || !report->has_sequence)
		return 0;
	if (report->sequence < former->sequence)
		return bundle_text_refuse(text, 79, "its sequence is %llu, and the bundle that is there has %llu",
					  (unsigned long long)report->sequence, (unsigned long long)former->sequence);
	if (report->sequence == former->sequence && report->changed)
		return bundle_text_refuse(text, 80, "its sequence is %llu as before, and its authorities are others",
					  (unsigned long long)report->sequence);
	return 0;
}

static int check_name(struct bundle_text *text)
{
	int rule = spiffe_trust_domain_check(text->trust_domain, strlen(text->trust_domain));

	if (rule != 0)
		return bundle_text_refuse(text, rule, "\"%.100s\" is no trust domain name", text->trust_domain);
	return 0;
}

int bundle_set_load(struct bundle_set *set, const char *trust_domain, enum bundle_format format, const char *text,
		    size_t len, struct bundle_report *report)
{
	__attribute__((cleanup(authorities_freep))) STACK_OF(X509) *authorities = sk_X509_new_null();
	struct bundle_text into = {.trust_domain = trust_domain, .authorities = authorities, .report = report};
	size_t at = bundle_set_position(set, trust_domain);
	const struct bundle *former = bundle_set_find(set, trust_domain);
	STACK_OF(X509) * old;
	int r;

	memset(report, 0, sizeof(*report));
	report->refresh_s = BUNDLE_REFRESH_USUAL_S;
	if (authorities == NULL)
		return -ENOMEM;
	r = check_name(&into);
	if (r == 0)
		r = bundle_text_parse(&into, format, text, len);
	if (r < 0)
		return r;
	report->total = (unsigned)sk_X509_num(authorities);
	report->changed = former == NULL || !includes(former->authorities, authorities) ||
			  !includes(authorities, former->authorities);
	r = check_sequence(former, &into);
	if (r < 0)
		return r;
	if (former == NULL && bundle_set_insert(set, at, trust_domain) < 0)
		return -ENOMEM;
	old = set->bundles[at].authorities;
	set->bundles[at].authorities = authorities;
	set->bundles[at].dropped = report->dropped;
	set->bundles[at].has_sequence = report->has_sequence;
	set->bundles[at].sequence = report->sequence;
	authorities = old;
	return (int)report->total;
}

int bundle_set_load_pem(struct bundle_set *set, const char *trust_domain, const char *pem, size_t len,
			unsigned *droppedp, char *why, size_t why_size)
{
	struct bundle_report report;
	int r = bundle_set_load(set, trust_domain, BUNDLE_PEM, pem, len, &report);

	*droppedp = r < 0 ? 0 : report.dropped;
	snprintf(why, why_size, "%s", r < 0 ? report.why : "");
	if (r >= 0 && report.n_entries > 0)
		snprintf(why, why_size, "entry %u dropped: %.180s", report.entries[report.n_entries - 1].index + 1,
			 report.entries[report.n_entries - 1].text);
	return r;
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

/* Subject key identifier, or the beginning of the SHA-256 of the key. */
static void key_id(X509 *certificate, char *out, size_t size)
{
	const ASN1_OCTET_STRING *given = X509_get0_subject_key_id(certificate);
	const uint8_t *bytes = given != NULL ? ASN1_STRING_get0_data(given) : NULL;
	size_t len = given != NULL ? (size_t)ASN1_STRING_length(given) : 0;
	uint8_t digest[SHA256_DIGEST_LENGTH];
	unsigned digest_len = 0;

	if (len == 0 && X509_pubkey_digest(certificate, EVP_sha256(), digest, &digest_len) == 1) {
		bytes = digest;
		len = 20;
	}
	out[0] = '\0';
	for (size_t i = 0; i < len && 2 * i + 2 < size; i++)
		snprintf(out + 2 * i, size - 2 * i, "%02x", bytes[i]);
}

bool bundle_set_authority(const struct bundle_set *set, const char *trust_domain, size_t i,
			  struct bundle_authority_info *info)
{
	const struct bundle *bundle = bundle_set_find(set, trust_domain);
	X509 *certificate;

	memset(info, 0, sizeof(*info));
	if (bundle == NULL || i >= (size_t)sk_X509_num(bundle->authorities))
		return false;
	certificate = sk_X509_value(bundle->authorities, (int)i);
	if (X509_digest(certificate, EVP_sha256(), info->id, NULL) != 1)
		return false;
	certificate_name(X509_get_subject_name(certificate), info->subject, sizeof(info->subject));
	key_id(certificate, info->key_id, sizeof(info->key_id));
	info->not_after = certificate_not_after(certificate);
	return true;
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
