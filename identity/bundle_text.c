/* SPDX-License-Identifier: Apache-2.0 */
#include "bundle_text.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle.h"
#include "certificate.h"
#include "rules.h"

static void bio_freep(BIO **bio)
{
	BIO_free(*bio);
}

static void x509_freep(X509 **certificate)
{
	X509_free(*certificate);
}

static void general_names_freep(GENERAL_NAMES **names)
{
	GENERAL_NAMES_free(*names);
}

static void freep(void *p)
{
	free(*(void **)p);
}

/* ---- what is told ---- */

/* Texts quote what others wrote, and go to terminals and logs. */
static void make_printable(char *text)
{
	for (; *text != '\0'; text++) {
		if (*text < ' ' || *text > '~')
			*text = '?';
	}
}

int bundle_text_refuse(struct bundle_text *into, int rule, const char *format, ...)
{
	struct bundle_report *report = into->report;
	va_list args;
	int n = snprintf(report->why, sizeof(report->why), "%s (rule %d): ", svid_rule_name(rule), rule);

	va_start(args, format);
	vsnprintf(report->why + n, sizeof(report->why) - (size_t)n, format, args);
	va_end(args);
	make_printable(report->why);
	report->rule = rule;
	report->has_sequence = false;
	report->sequence = 0;
	return -EINVAL;
}

static void tell(struct bundle_text *into, unsigned index, int rule, bool dropped, const char *format, va_list args)
{
	struct bundle_report *report = into->report;
	struct bundle_entry *entry;

	report->dropped += dropped;
	if (report->n_entries == BUNDLE_MAX_TOLD)
		return;
	entry = &report->entries[report->n_entries++];
	entry->index = index;
	entry->rule = rule;
	entry->dropped = dropped;
	vsnprintf(entry->text, sizeof(entry->text), format, args);
	make_printable(entry->text);
}

int bundle_text_drop(struct bundle_text *into, unsigned index, int rule, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	tell(into, index, rule, true, format, args);
	va_end(args);
	return 0;
}

void bundle_text_note(struct bundle_text *into, unsigned index, int rule, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	tell(into, index, rule, false, format, args);
	va_end(args);
}

/* ---- one authority ---- */

/* Rule 98: its own SPIFFE ID may be of another trust domain, which somebody should know. */
static void note_other_trust_domain(struct bundle_text *into, unsigned index, X509 *certificate)
{
	__attribute__((cleanup(general_names_freep))) GENERAL_NAMES *names =
		X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
	size_t own = strlen(into->trust_domain);

	ERR_clear_error();
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		const char *uri;
		size_t len;

		if (name->type != GEN_URI)
			continue;
		uri = (const char *)ASN1_STRING_get0_data(name->d.uniformResourceIdentifier);
		len = (size_t)ASN1_STRING_length(name->d.uniformResourceIdentifier);
		if (len < 9 || memcmp(uri, "spiffe://", 9) != 0)
			continue;
		if (len >= 9 + own && memcmp(uri + 9, into->trust_domain, own) == 0 &&
		    (len == 9 + own || uri[9 + own] == '/'))
			continue;
		bundle_text_note(into, index, 98, "the authority's own ID is \"%.*s\"", (int)(len < 120 ? len : 120),
				 uri);
	}
}

static bool is_there(STACK_OF(X509) * authorities, X509 *certificate)
{
	for (int i = 0; i < sk_X509_num(authorities); i++) {
		if (X509_cmp(sk_X509_value(authorities, i), certificate) == 0)
			return true;
	}
	return false;
}

static bool number_is(const EVP_PKEY *a, const EVP_PKEY *b, const char *name)
{
	BIGNUM *of_a = NULL, *of_b = NULL;
	bool same = EVP_PKEY_get_bn_param(a, name, &of_a) == 1 && EVP_PKEY_get_bn_param(b, name, &of_b) == 1 &&
		    BN_cmp(of_a, of_b) == 0;

	BN_free(of_a);
	BN_free(of_b);
	return same;
}

/* JWK has one kind of RSA key where certificates have two (RFC 7518 6.3, RFC 4055 1.2). */
static bool is_key(const EVP_PKEY *certified, const EVP_PKEY *key)
{
	if (certified != NULL && EVP_PKEY_get_base_id(certified) == EVP_PKEY_RSA_PSS &&
	    EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA)
		return number_is(certified, key, OSSL_PKEY_PARAM_RSA_N) &&
		       number_is(certified, key, OSSL_PKEY_PARAM_RSA_E);
	return EVP_PKEY_eq(certified, key) == 1;
}

int bundle_text_add(struct bundle_text *into, unsigned index, const uint8_t *der, size_t len, int not_ca,
		    const EVP_PKEY *key)
{
	const uint8_t *at = der;
	__attribute__((cleanup(x509_freep))) X509 *certificate = d2i_X509(NULL, &at, (long)len);
	struct svid_verdict verdict;
	int same;

	ERR_clear_error();
	if (certificate == NULL) {
		into->unreadable++;
		return bundle_text_drop(into, index, not_ca == 96 ? 97 : 201, "it is no DER certificate");
	}
	if (at != der + len)
		return bundle_text_drop(into, index, 72, "%zu bytes follow the certificate", (size_t)(der + len - at));
	if (certificate_check_encoding(certificate, der, len, 0, &verdict) != 0 ||
	    certificate_check_cost(certificate, 0, &verdict) != 0)
		return bundle_text_drop(into, index, verdict.rule, "%s", verdict.detail);
	same = key == NULL || is_key(X509_get0_pubkey(certificate), key);
	ERR_clear_error();
	if (!same)
		return bundle_text_drop(into, index, 97, "the certificate's key is not the key of the entry");
	if (certificate_check_anchor(certificate, &verdict) != 0)
		return bundle_text_drop(into, index, verdict.rule == 68 ? not_ca : verdict.rule, "%s", verdict.detail);
	if (is_there(into->authorities, certificate))
		return 0;
	if (sk_X509_num(into->authorities) == BUNDLE_MAX_AUTHORITIES)
		return bundle_text_refuse(into, 211, "it has more than %d authorities", BUNDLE_MAX_AUTHORITIES);
	note_other_trust_domain(into, index, certificate);
	if (sk_X509_push(into->authorities, certificate) == 0)
		return -ENOMEM;
	certificate = NULL;
	return 0;
}

/* ---- PEM ---- */

static int parse_pem(struct bundle_text *into, const char *text, size_t len)
{
	__attribute__((cleanup(bio_freep))) BIO *bio = BIO_new_mem_buf(text, (int)len);
	unsigned entries = 0;
	char why[160];

	if (bio == NULL)
		return -ENOMEM;
	for (;;) {
		__attribute__((cleanup(freep))) uint8_t *der = NULL;
		size_t der_len;
		int r = certificate_pem_next(bio, &der, &der_len, why, sizeof(why));

		if (r == 0)
			break;
		if (r == -EINVAL)
			return bundle_text_refuse(into, 210, "entry %u: %s", entries, why);
		if (r > 0)
			r = bundle_text_add(into, entries++, der, der_len, 68, NULL);
		if (r < 0)
			return r;
	}
	/* An empty file is more often a failed write than a revocation of everything, and so is one of garbage. */
	if (entries == 0)
		return bundle_text_refuse(into, 210, "there is no PEM certificate in it");
	if (into->unreadable == entries)
		return bundle_text_refuse(into, 210, "none of its %u PEM blocks is a certificate", entries);
	return 0;
}

/* ---- DER ---- */

/* The length of the DER value that begins here, or 0 if it is none that ends within the text. */
static size_t der_length(const uint8_t *at, size_t left)
{
	const uint8_t *content = at;
	long len = 0;
	int tag, class, r;

	r = ASN1_get_object(&content, &len, &tag, &class, (long)left);
	ERR_clear_error();
	/* 0x80: an error; 1: no definite length. */
	if ((r & 0x80) != 0 || (r & 1) != 0)
		return 0;
	return (size_t)(content - at) + (size_t)len;
}

/* Where one ends the next begins: behind bytes that are none, nothing can be found. */
static int parse_der(struct bundle_text *into, const char *text, size_t len)
{
	const uint8_t *at = (const uint8_t *)text;

	for (unsigned index = 0; len > 0; index++) {
		size_t one = der_length(at, len);
		int r;

		if (one == 0 || one > len)
			return bundle_text_refuse(into, 201, "entry %u is no DER", index);
		r = bundle_text_add(into, index, at, one, 96, NULL);
		if (r < 0)
			return r;
		at += one;
		len -= one;
	}
	return 0;
}

int bundle_text_parse(struct bundle_text *into, enum bundle_format format, const char *text, size_t len)
{
	if (len > BUNDLE_MAX_BYTES)
		return bundle_text_refuse(into, 211, "it has %zu bytes, more than %u", len, BUNDLE_MAX_BYTES);
	switch (format) {
	case BUNDLE_PEM:
		return parse_pem(into, text, len);
	case BUNDLE_JWKS:
		return bundle_jwks_parse(into, text, len);
	case BUNDLE_DER:
		return parse_der(into, text, len);
	}
	return bundle_text_refuse(into, 201, "its format (%d) is not known", format);
}
