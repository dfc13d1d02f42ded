/* SPDX-License-Identifier: Apache-2.0 */
/*
 * certs.h - makes keys, authorities and leaves for tests, good by default, with knobs that break one thing at a time.
 *
 * Nothing is read from files and nothing outlives the test program's run: certificates expire, so they are made when they are
 * needed. A `struct cert_spec` of zeros is a good certificate of its kind.
 */
#ifndef BULKHEAD_TESTS_UNIT_CERTS_H
#define BULKHEAD_TESTS_UNIT_CERTS_H

#include <openssl/evp.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CERTS_ID "spiffe://prod.example/ns/shop/sa/web"
#define CERTS_DAY 86400

/* Not assert(): it must also be evaluated in a release build. */
#define CERTS_MUST(condition)                                                                                          \
	do {                                                                                                           \
		if (!(condition)) {                                                                                    \
			ERR_print_errors_fp(stderr);                                                                   \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                \
			abort();                                                                                       \
		}                                                                                                      \
	} while (0)

/* NULL or 0: the good value of the kind. "" for an extension: leave it out. */
struct cert_spec {
	const char *subject;	 /* common name; "" is an empty subject */
	const char *san;	 /* extension text: "URI:spiffe://..." */
	const char *san_raw_uri; /* one URI of these bytes, NUL allowed */
	size_t san_raw_len;
	const char *basic;	 /* "critical,CA:TRUE" */
	const char *usage;	 /* "critical,digitalSignature" */
	const char *extended;	 /* "serverAuth,clientAuth" */
	const char *constraints; /* nameConstraints */
	int twice;		 /* NID of an extension that appears twice */
	bool unknown_critical;
	bool no_key_identifiers;
	long version;	      /* 1 for X.509 v1; 0 is v3 */
	long from;	      /* seconds from now; 0: an hour ago */
	long until;	      /* seconds from now; 0: a day (leaf), ten days (authority) */
	time_t base;	      /* what `from` and `until` count from; 0: now */
	const EVP_MD *digest; /* SHA-256 */
	EVP_PKEY *key;	      /* a new P-256 key */
	EVP_PKEY *signer;     /* signs in place of the issuer's key */
	const char *issuer;   /* common name of the issuer in place of its real one */
	struct {
		int nid;
		const char *value; /* extension text */
	} more[2];		   /* further extensions */
};

struct cert {
	X509 *x509;
	EVP_PKEY *key;
};

__attribute__((unused)) static EVP_PKEY *certs_key(const char *curve)
{
	EVP_PKEY *key = EVP_EC_gen(curve);

	CERTS_MUST(key != NULL);
	return key;
}

__attribute__((unused)) static EVP_PKEY *certs_key_rsa_pss(void)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA-PSS", NULL);
	EVP_PKEY *key = NULL;

	CERTS_MUST(EVP_PKEY_keygen_init(ctx) == 1 && EVP_PKEY_CTX_set_rsa_keygen_bits(ctx, 2048) == 1 &&
		   EVP_PKEY_keygen(ctx, &key) == 1);
	EVP_PKEY_CTX_free(ctx);
	return key;
}

static void certs_add_extension(X509 *x509, X509 *issuer, int nid, const char *value)
{
	CONF *config = NCONF_new(NULL);
	X509V3_CTX ctx;
	X509_EXTENSION *extension;

	X509V3_set_ctx(&ctx, issuer, x509, NULL, NULL, 0);
	X509V3_set_nconf(&ctx, config); /* an empty one; policies are not made without */
	extension = X509V3_EXT_nconf_nid(config, &ctx, nid, value);
	CERTS_MUST(extension != NULL);
	CERTS_MUST(X509_add_ext(x509, extension, -1) == 1);
	X509_EXTENSION_free(extension);
	NCONF_free(config);
}

static void certs_add_raw_uri(X509 *x509, const char *bytes, size_t len)
{
	GENERAL_NAMES *names = GENERAL_NAMES_new();
	GENERAL_NAME *name = GENERAL_NAME_new();
	ASN1_IA5STRING *uri = ASN1_IA5STRING_new();

	CERTS_MUST(ASN1_STRING_set(uri, bytes, (int)len) == 1);
	GENERAL_NAME_set0_value(name, GEN_URI, uri);
	sk_GENERAL_NAME_push(names, name);
	CERTS_MUST(X509_add1_ext_i2d(x509, NID_subject_alt_name, names, 0, X509V3_ADD_APPEND) == 1);
	GENERAL_NAMES_free(names);
}

static void certs_add_unknown_critical(X509 *x509)
{
	ASN1_OBJECT *oid = OBJ_txt2obj("1.3.6.1.4.1.99999.1", 1);
	ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
	X509_EXTENSION *extension;

	ASN1_OCTET_STRING_set(value, (const unsigned char *)"\x05\x00", 2);
	extension = X509_EXTENSION_create_by_OBJ(NULL, oid, 1, value);
	CERTS_MUST(X509_add_ext(x509, extension, -1) == 1);
	X509_EXTENSION_free(extension);
	ASN1_OCTET_STRING_free(value);
	ASN1_OBJECT_free(oid);
}

static void certs_add_twice(X509 *x509, int nid)
{
	int at = X509_get_ext_by_NID(x509, nid, -1);

	CERTS_MUST(at >= 0);
	CERTS_MUST(X509_add_ext(x509, X509_get_ext(x509, at), -1) == 1);
}

static const char *certs_or(const char *given, const char *usual)
{
	return given != NULL ? given : usual;
}

static void certs_add_extensions(X509 *x509, X509 *issuer, const struct cert_spec *spec, bool ca)
{
	const char *basic = certs_or(spec->basic, ca ? "critical,CA:TRUE" : "CA:FALSE");
	const char *usage = certs_or(spec->usage, ca ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature");
	const char *extended = certs_or(spec->extended, ca ? "" : "serverAuth,clientAuth");
	const char *san = certs_or(spec->san, ca ? "" : "URI:" CERTS_ID);

	if (basic[0] != '\0')
		certs_add_extension(x509, issuer, NID_basic_constraints, basic);
	if (usage[0] != '\0')
		certs_add_extension(x509, issuer, NID_key_usage, usage);
	if (extended[0] != '\0')
		certs_add_extension(x509, issuer, NID_ext_key_usage, extended);
	if (spec->constraints != NULL)
		certs_add_extension(x509, issuer, NID_name_constraints, spec->constraints);
	if (spec->san_raw_uri != NULL)
		certs_add_raw_uri(x509, spec->san_raw_uri, spec->san_raw_len);
	else if (san[0] != '\0')
		certs_add_extension(x509, issuer, NID_subject_alt_name, san);
	if (!spec->no_key_identifiers) {
		certs_add_extension(x509, issuer, NID_subject_key_identifier, "hash");
		if (X509_get_ext_by_NID(issuer, NID_subject_key_identifier, -1) >= 0)
			certs_add_extension(x509, issuer, NID_authority_key_identifier, "keyid");
	}
	for (size_t i = 0; i < 2 && spec->more[i].nid != 0; i++)
		certs_add_extension(x509, issuer, spec->more[i].nid, spec->more[i].value);
	if (spec->unknown_critical)
		certs_add_unknown_critical(x509);
	if (spec->twice != 0)
		certs_add_twice(x509, spec->twice);
}

static void certs_set_name(X509_NAME *name, const char *common_name)
{
	if (common_name[0] != '\0')
		CERTS_MUST(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)common_name, -1,
						      -1, 0) == 1);
}

static void certs_set_issuer(X509 *x509, const X509 *issuer, const char *common_name)
{
	X509_NAME *name = common_name != NULL ? X509_NAME_new() : X509_NAME_dup(X509_get_subject_name(issuer));

	if (common_name != NULL)
		certs_set_name(name, common_name);
	CERTS_MUST(X509_set_issuer_name(x509, name) == 1);
	X509_NAME_free(name);
}

/* Keys that bring their own digest take none. */
static const EVP_MD *certs_digest(const EVP_PKEY *key, const EVP_MD *wanted)
{
	int kind = EVP_PKEY_get_base_id(key);

	if (kind == EVP_PKEY_ED25519 || kind == EVP_PKEY_ED448)
		return NULL;
	return wanted != NULL ? wanted : EVP_sha256();
}

/* Makes a certificate, signed by `issuer`, or by itself if that is NULL. */
static struct cert certs_make(const struct cert *issuer, const struct cert_spec *spec, bool ca)
{
	struct cert cert = {.x509 = X509_new(), .key = spec->key};
	const char *subject = certs_or(spec->subject, ca ? "authority" : "workload");
	time_t base = spec->base != 0 ? spec->base : time(NULL);
	EVP_PKEY *signer;
	int serial;

	if (cert.key == NULL)
		cert.key = certs_key("P-256");
	else
		EVP_PKEY_up_ref(cert.key);
	CERTS_MUST(RAND_bytes((unsigned char *)&serial, sizeof(serial)) == 1);
	X509_set_version(cert.x509, spec->version == 1 ? X509_VERSION_1 : X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(cert.x509), serial & 0x7fffffff);
	X509_time_adj_ex(X509_getm_notBefore(cert.x509), 0, spec->from != 0 ? spec->from : -3600, &base);
	X509_time_adj_ex(X509_getm_notAfter(cert.x509), 0, spec->until != 0 ? spec->until : (ca ? 10 : 1) * CERTS_DAY,
			 &base);
	certs_set_name(X509_get_subject_name(cert.x509), subject);
	certs_set_issuer(cert.x509, issuer != NULL ? issuer->x509 : cert.x509, spec->issuer);
	X509_set_pubkey(cert.x509, cert.key);
	if (spec->version != 1)
		certs_add_extensions(cert.x509, issuer != NULL ? issuer->x509 : cert.x509, spec, ca);
	signer = spec->signer != NULL ? spec->signer : issuer != NULL ? issuer->key : cert.key;
	CERTS_MUST(X509_sign(cert.x509, signer, certs_digest(signer, spec->digest)) > 0);
	return cert;
}

__attribute__((unused)) static struct cert certs_ca(const struct cert *issuer, const struct cert_spec *spec)
{
	return certs_make(issuer, spec, true);
}

__attribute__((unused)) static struct cert certs_leaf(const struct cert *issuer, const struct cert_spec *spec)
{
	return certs_make(issuer, spec, false);
}

__attribute__((unused)) static void cert_free(struct cert *cert)
{
	X509_free(cert->x509);
	EVP_PKEY_free(cert->key);
	cert->x509 = NULL;
	cert->key = NULL;
}

/* Concatenated PEM of n certificates; free() it. */
__attribute__((unused)) static char *certs_pem(const struct cert *const *certs, size_t n)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *bytes, *text;
	long len;

	for (size_t i = 0; i < n; i++)
		CERTS_MUST(PEM_write_bio_X509(bio, certs[i]->x509) == 1);
	len = BIO_get_mem_data(bio, &bytes);
	text = strndup(bytes, (size_t)len);
	BIO_free(bio);
	return text;
}

#endif
