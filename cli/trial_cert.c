/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/trial_cert.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "daemon/cleanup.h"

#define ORGANIZATION "Bulkhead trial CA (not for production)"
#define SERIAL_BYTES 16

static const char *const key_names[TRIAL_KEYS] = {
	[TRIAL_P256] = "p256", [TRIAL_P384] = "p384", [TRIAL_RSA2048] = "rsa2048", [TRIAL_ED25519] = "ed25519"};

static void bio_freep(BIO **bio)
{
	BIO_free(*bio);
}

static void bn_freep(BIGNUM **bn)
{
	BN_free(*bn);
}

const char *trial_key_name(enum trial_key kind)
{
	return key_names[kind];
}

enum trial_key trial_key_of(const char *name)
{
	enum trial_key kind = 0;

	while (kind < TRIAL_KEYS && strcmp(name, key_names[kind]) != 0)
		kind++;
	return kind;
}

void trial_cert_free(struct trial_cert *cert)
{
	X509_free(cert->x509);
	EVP_PKEY_free(cert->key);
	*cert = (struct trial_cert){0};
}

/* ---- making ---- */

static EVP_PKEY *key_make(enum trial_key kind)
{
	switch (kind) {
	case TRIAL_P256:
		return EVP_EC_gen("P-256");
	case TRIAL_P384:
		return EVP_EC_gen("P-384");
	case TRIAL_RSA2048:
		return EVP_RSA_gen(2048);
	case TRIAL_ED25519:
		return EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	case TRIAL_KEYS:
		break;
	}
	return NULL;
}

/* The digest that fits the signer's key; Ed25519 has its own. */
static const EVP_MD *digest_for(const EVP_PKEY *signer)
{
	if (EVP_PKEY_get_base_id(signer) == EVP_PKEY_ED25519)
		return NULL;
	return EVP_PKEY_get_bits(signer) == 384 ? EVP_sha384() : EVP_sha256();
}

static bool set_serial(X509 *x509)
{
	uint8_t bytes[SERIAL_BYTES];
	BIGNUM *serial;
	bool ok;

	if (RAND_bytes(bytes, sizeof(bytes)) != 1)
		return false;
	bytes[0] &= 0x7f; /* positive */
	bytes[0] |= 0x40;
	serial = BN_bin2bn(bytes, sizeof(bytes), NULL);
	ok = serial != NULL && BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(x509)) != NULL;
	BN_free(serial);
	return ok;
}

static bool name_add(X509_NAME *name, const char *field, const char *value)
{
	return X509_NAME_add_entry_by_txt(name, field, MBSTRING_ASC, (const unsigned char *)value, -1, -1, 0) == 1;
}

/* The number in the subject tells two authorities of one name apart: a path is looked for by names first. */
static bool set_subject(X509 *x509, const char *common_name)
{
	X509_NAME *name = X509_get_subject_name(x509);
	uint8_t random[8];
	char hex[17];

	if (RAND_bytes(random, sizeof(random)) != 1)
		return false;
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(hex + 2 * i, 3, "%02x", random[i]);
	return name_add(name, "O", ORGANIZATION) && name_add(name, "CN", common_name) &&
	       name_add(name, "serialNumber", hex);
}

static bool add_extension(X509 *x509, X509 *issuer, int nid, const char *value)
{
	X509_EXTENSION *extension;
	X509V3_CTX ctx;
	bool ok;

	X509V3_set_ctx(&ctx, issuer, x509, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	ok = extension != NULL && X509_add_ext(x509, extension, -1) == 1;
	X509_EXTENSION_free(extension);
	return ok;
}

/* Not by add_extension(), which reads a language where a comma is the end of a name. */
static bool add_uri(X509 *x509, const char *uri)
{
	GENERAL_NAMES *names = GENERAL_NAMES_new();
	GENERAL_NAME *name = GENERAL_NAME_new();
	ASN1_IA5STRING *value = ASN1_IA5STRING_new();
	bool ok = false;

	if (names != NULL && name != NULL && value != NULL && ASN1_STRING_set(value, uri, -1) == 1 &&
	    sk_GENERAL_NAME_push(names, name) > 0) {
		GENERAL_NAME_set0_value(name, GEN_URI, value);
		name = NULL;
		value = NULL;
		ok = X509_add1_ext_i2d(x509, NID_subject_alt_name, names, 0, X509V3_ADD_APPEND) == 1;
	}
	ASN1_IA5STRING_free(value);
	GENERAL_NAME_free(name);
	GENERAL_NAMES_free(names);
	return ok;
}

static bool add_extensions(X509 *x509, X509 *issuer, const struct trial_request *request)
{
	bool ca = request->path_len >= 0;
	char basic[48] = "critical,CA:FALSE";

	if (ca)
		snprintf(basic, sizeof(basic), "critical,CA:TRUE,pathlen:%d", request->path_len);
	return add_extension(x509, issuer, NID_basic_constraints, basic) &&
	       add_extension(x509, issuer, NID_key_usage,
			     ca ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature") &&
	       (ca || add_extension(x509, issuer, NID_ext_key_usage, "serverAuth,clientAuth")) &&
	       add_uri(x509, request->uri) && add_extension(x509, issuer, NID_subject_key_identifier, "hash") &&
	       (issuer == x509 || add_extension(x509, issuer, NID_authority_key_identifier, "keyid"));
}

int trial_cert_make(struct trial_cert *cert, const struct trial_request *request)
{
	X509 *x509 = X509_new();
	EVP_PKEY *key = key_make(request->key);
	const struct trial_cert *issuer = request->issuer;
	EVP_PKEY *signer = issuer != NULL ? issuer->key : key;
	X509 *above = issuer != NULL ? issuer->x509 : x509;

	cert->x509 = x509;
	cert->key = key;
	if (x509 != NULL && key != NULL && X509_set_version(x509, X509_VERSION_3) == 1 && set_serial(x509) &&
	    ASN1_TIME_set(X509_getm_notBefore(x509), request->from) != NULL &&
	    ASN1_TIME_set(X509_getm_notAfter(x509), request->until) != NULL && set_subject(x509, request->name) &&
	    X509_set_issuer_name(x509, X509_get_subject_name(above)) == 1 && X509_set_pubkey(x509, key) == 1 &&
	    add_extensions(x509, above, request) && X509_sign(x509, signer, digest_for(signer)) > 0)
		return 0;
	cli_error("cannot make the certificate of %s: %s", request->uri,
		  ERR_reason_error_string(ERR_peek_last_error()) ?: "OpenSSL says no reason");
	ERR_clear_error();
	trial_cert_free(cert);
	return -EIO;
}

/* ---- PEM ---- */

static char *text_of(BIO *bio)
{
	char *bytes;
	long len = BIO_get_mem_data(bio, &bytes);

	return len > 0 ? strndup(bytes, (size_t)len) : NULL;
}

char *trial_cert_pem(X509 *x509)
{
	__attribute__((cleanup(bio_freep))) BIO *bio = BIO_new(BIO_s_mem());

	return bio != NULL && PEM_write_bio_X509(bio, x509) == 1 ? text_of(bio) : NULL;
}

char *trial_key_pem(EVP_PKEY *key)
{
	__attribute__((cleanup(bio_freep))) BIO *bio = BIO_new(BIO_s_secmem());

	return bio != NULL && PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1 ? text_of(bio)
												      : NULL;
}

X509 *trial_cert_read(const char *pem)
{
	__attribute__((cleanup(bio_freep))) BIO *bio = BIO_new_mem_buf(pem, -1);
	X509 *x509 = bio != NULL ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;

	ERR_clear_error();
	return x509;
}

/* Nobody is asked for a passphrase. */
static int no_passphrase(char *buffer, int size, int writing, void *userdata)
{
	(void)buffer;
	(void)size;
	(void)writing;
	(void)userdata;
	return -1;
}

EVP_PKEY *trial_key_read(const char *pem)
{
	__attribute__((cleanup(bio_freep))) BIO *bio = BIO_new_mem_buf(pem, -1);
	EVP_PKEY *key = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;

	ERR_clear_error();
	return key;
}

/* ---- JWK ---- */

static char *base64(const uint8_t *bytes, size_t len)
{
	char *text = malloc(4 * ((len + 2) / 3) + 1);

	if (text != NULL)
		EVP_EncodeBlock((unsigned char *)text, bytes, (int)len);
	return text;
}

/* RFC 7515 2: of another alphabet, without padding. */
static json_t *base64url(const uint8_t *bytes, size_t len)
{
	__attribute__((cleanup(freep))) char *text = base64(bytes, len);

	if (text == NULL)
		return NULL;
	for (char *c = text; *c != '\0'; c++)
		*c = *c == '+' ? '-' : *c == '/' ? '_' : *c == '=' ? '\0' : *c;
	return json_string(text);
}

/* A number of the public key in at least `width` bytes (RFC 7518 2, 6.2.1.2); 0: as many as it takes. */
static json_t *number_of(const EVP_PKEY *key, const char *name, int width)
{
	__attribute__((cleanup(bn_freep))) BIGNUM *number = NULL;
	uint8_t bytes[512];
	int len;

	if (EVP_PKEY_get_bn_param(key, name, &number) != 1)
		return NULL;
	len = width > 0 ? width : BN_num_bytes(number);
	if (len > (int)sizeof(bytes) || BN_bn2binpad(number, bytes, len) != len)
		return NULL;
	return base64url(bytes, (size_t)len);
}

static json_t *key_members(const EVP_PKEY *key)
{
	uint8_t raw[64];
	size_t len = sizeof(raw);
	int bits = EVP_PKEY_get_bits(key);

	switch (EVP_PKEY_get_base_id(key)) {
	case EVP_PKEY_EC:
		return json_pack("{s:s, s:s, s:o, s:o}", "kty", "EC", "crv", bits == 384 ? "P-384" : "P-256", "x",
				 number_of(key, OSSL_PKEY_PARAM_EC_PUB_X, bits / 8), "y",
				 number_of(key, OSSL_PKEY_PARAM_EC_PUB_Y, bits / 8));
	case EVP_PKEY_RSA:
		return json_pack("{s:s, s:o, s:o}", "kty", "RSA", "n", number_of(key, OSSL_PKEY_PARAM_RSA_N, 0), "e",
				 number_of(key, OSSL_PKEY_PARAM_RSA_E, 0));
	case EVP_PKEY_ED25519:
		if (EVP_PKEY_get_raw_public_key(key, raw, &len) != 1)
			return NULL;
		return json_pack("{s:s, s:s, s:o}", "kty", "OKP", "crv", "Ed25519", "x", base64url(raw, len));
	default:
		return NULL;
	}
}

json_t *trial_cert_jwk(X509 *x509)
{
	__attribute__((cleanup(freep))) char *x5c = NULL;
	json_t *jwk = key_members(X509_get0_pubkey(x509));
	uint8_t *der = NULL;
	int len = i2d_X509(x509, &der);

	if (len > 0)
		x5c = base64(der, (size_t)len);
	OPENSSL_free(der);
	/* "kid" is not to be set (X509-SVID 6.1). */
	if (jwk == NULL || x5c == NULL || json_object_set_new(jwk, "use", json_string("x509-svid")) < 0 ||
	    json_object_set_new(jwk, "x5c", json_pack("[s]", x5c)) < 0) {
		json_decref(jwk);
		return NULL;
	}
	return jwk;
}
