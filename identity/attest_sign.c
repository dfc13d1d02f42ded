/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The signature of a PROOF. The signed text has the shape of a TLS 1.3 CertificateVerify (RFC 8446 4.4.3) with another
 * context: a key that also serves TLS can be made to sign neither in place of the other, and the 64 spaces keep it off a
 * TLS 1.2 ServerKeyExchange.
 */
#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <string.h>

#include "attest.h"

#define CONTEXT "Bulkhead SVID attest v1, workload proof"
#define DIGEST_BYTES 32
#define SIGNED_BYTES (64 + sizeof(CONTEXT) + DIGEST_BYTES) /* sizeof counts the separating zero */

enum {
	ECDSA_SECP256R1_SHA256 = 0x0403,
	ECDSA_SECP384R1_SHA384 = 0x0503,
	ECDSA_SECP521R1_SHA512 = 0x0603,
	RSA_PSS_RSAE_SHA256 = 0x0804,
	ED25519 = 0x0807,
};

static void md_ctx_freep(EVP_MD_CTX **ctx)
{
	EVP_MD_CTX_free(*ctx);
}

uint16_t attest_sigalg_for(EVP_PKEY *key)
{
	char curve[64];

	if (key == NULL)
		return 0;
	switch (EVP_PKEY_get_base_id(key)) {
	case EVP_PKEY_ED25519:
		return ED25519;
	case EVP_PKEY_RSA:
		return EVP_PKEY_get_bits(key) >= 2048 ? RSA_PSS_RSAE_SHA256 : 0;
	case EVP_PKEY_EC:
		if (EVP_PKEY_get_utf8_string_param(key, OSSL_PKEY_PARAM_GROUP_NAME, curve, sizeof(curve), NULL) != 1)
			return 0;
		if (strcmp(curve, SN_X9_62_prime256v1) == 0)
			return ECDSA_SECP256R1_SHA256;
		if (strcmp(curve, SN_secp384r1) == 0)
			return ECDSA_SECP384R1_SHA384;
		if (strcmp(curve, SN_secp521r1) == 0)
			return ECDSA_SECP521R1_SHA512;
		return 0;
	default:
		return 0;
	}
}

static const EVP_MD *digest_of(uint16_t sigalg)
{
	switch (sigalg) {
	case ECDSA_SECP384R1_SHA384:
		return EVP_sha384();
	case ECDSA_SECP521R1_SHA512:
		return EVP_sha512();
	case ED25519:
		return NULL; /* hashes for itself */
	default:
		return EVP_sha256();
	}
}

static int signed_text(uint8_t text[SIGNED_BYTES], const uint8_t *hello, size_t hello_len, const uint8_t *challenge,
		       size_t challenge_len)
{
	__attribute__((cleanup(md_ctx_freep))) EVP_MD_CTX *ctx = EVP_MD_CTX_new();

	memset(text, ' ', 64);
	memcpy(text + 64, CONTEXT, sizeof(CONTEXT));
	if (ctx == NULL || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1 ||
	    EVP_DigestUpdate(ctx, hello, hello_len) != 1 || EVP_DigestUpdate(ctx, challenge, challenge_len) != 1 ||
	    EVP_DigestFinal_ex(ctx, text + 64 + sizeof(CONTEXT), NULL) != 1)
		return -EKEYREJECTED;
	return 0;
}

static int set_padding(EVP_PKEY_CTX *ctx, uint16_t sigalg)
{
	if (sigalg != RSA_PSS_RSAE_SHA256)
		return 1;
	return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) == 1 &&
	       EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) == 1;
}

int attest_sign(EVP_PKEY *key, uint16_t sigalg, const uint8_t *hello, size_t hello_len, const uint8_t *challenge,
		size_t challenge_len, uint8_t *sig, size_t *sig_len)
{
	__attribute__((cleanup(md_ctx_freep))) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	uint8_t text[SIGNED_BYTES];
	EVP_PKEY_CTX *key_ctx;

	if (ctx == NULL || sigalg == 0 || sigalg != attest_sigalg_for(key) ||
	    signed_text(text, hello, hello_len, challenge, challenge_len) < 0)
		return -EKEYREJECTED;
	if (EVP_DigestSignInit(ctx, &key_ctx, digest_of(sigalg), NULL, key) != 1 || !set_padding(key_ctx, sigalg) ||
	    EVP_DigestSign(ctx, sig, sig_len, text, sizeof(text)) != 1) {
		ERR_clear_error();
		return -EKEYREJECTED;
	}
	return 0;
}

int attest_verify(EVP_PKEY *key, uint16_t sigalg, const uint8_t *hello, size_t hello_len, const uint8_t *challenge,
		  size_t challenge_len, const uint8_t *sig, size_t sig_len)
{
	__attribute__((cleanup(md_ctx_freep))) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	uint8_t text[SIGNED_BYTES];
	EVP_PKEY_CTX *key_ctx;
	int r;

	/* The algorithm follows from the key: the prover has no choice that could be a weaker one. */
	if (ctx == NULL || sigalg == 0 || sigalg != attest_sigalg_for(key) ||
	    signed_text(text, hello, hello_len, challenge, challenge_len) < 0)
		return -EKEYREJECTED;
	r = EVP_DigestVerifyInit(ctx, &key_ctx, digest_of(sigalg), NULL, key) == 1 && set_padding(key_ctx, sigalg) &&
	    EVP_DigestVerify(ctx, sig, sig_len, text, sizeof(text)) == 1;
	ERR_clear_error();
	return r ? 0 : -EKEYREJECTED;
}
