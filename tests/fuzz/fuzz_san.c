/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_san.c - any bytes as the alternative name of a leaf that is good otherwise: no ID, or a valid one.
 */
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "identity/certificate.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/certs.h"

/* Without an alternative name; made once. */
static X509 *bare_leaf;

/* As it comes from the wire: OpenSSL looks at extensions when a certificate is decoded. */
static X509 *leaf_with(const uint8_t *data, size_t size)
{
	ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
	X509 *edited, *leaf = NULL;
	X509_EXTENSION *extension;
	unsigned char *der = NULL;
	const unsigned char *at;
	int len;

	if (bare_leaf == NULL)
		bare_leaf = certs_leaf(NULL, &(struct cert_spec){.san = ""}).x509;
	edited = X509_dup(bare_leaf);
	ASN1_OCTET_STRING_set(value, data, (int)size);
	extension = X509_EXTENSION_create_by_NID(NULL, NID_subject_alt_name, 0, value);
	X509_add_ext(edited, extension, -1);
	len = i2d_re_X509_tbs(edited, NULL) > 0 ? i2d_X509(edited, &der) : -1;
	at = der;
	if (len > 0)
		leaf = d2i_X509(NULL, &at, len);
	OPENSSL_free(der);
	X509_EXTENSION_free(extension);
	ASN1_OCTET_STRING_free(value);
	X509_free(edited);
	return leaf;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	X509 *leaf = size <= 60000 ? leaf_with(data, size) : NULL;
	struct svid_verdict verdict = {.depth = -1};
	char text[512];

	if (leaf == NULL)
		return 0;
	if (certificate_check_leaf(leaf, &verdict) == 0) {
		if (spiffe_id_check(verdict.spiffe_id, strlen(verdict.spiffe_id)) != 0)
			abort();
	} else {
		svid_verdict_text(&verdict, text, sizeof(text));
		for (const char *c = text; *c != '\0'; c++)
			if (*c < ' ' || *c > '~')
				abort();
	}
	certificate_check_signer(leaf, 1, &verdict);
	X509_free(leaf);
	ERR_clear_error();
	return 0;
}
