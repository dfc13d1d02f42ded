/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/wrong_file.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <string.h>

static void bio_freep(BIO **bio)
{
	BIO_free(*bio);
}

static bool holds(const char *text, size_t len, const char *part)
{
	return memmem(text, len, part, strlen(part)) != NULL;
}

static bool is_json(const char *text, size_t len)
{
	size_t at = 0;

	while (at < len && strchr(" \t\r\n", text[at]) != NULL && text[at] != '\0')
		at++;
	return at < len && (text[at] == '{' || text[at] == '[');
}

/* Whether all of it, or its beginning, is such an object in DER. */
static bool is_der(const char *text, size_t len, const ASN1_ITEM *item)
{
	const unsigned char *at = (const unsigned char *)text;
	ASN1_VALUE *value = ASN1_item_d2i(NULL, &at, (long)len, item);
	bool is = value != NULL;

	ASN1_item_free(value, item);
	return is;
}

static bool is_der_key(const char *text, size_t len)
{
	const unsigned char *at = (const unsigned char *)text;
	EVP_PKEY *key = d2i_AutoPrivateKey(NULL, &at, (long)len);
	bool is = key != NULL;

	EVP_PKEY_free(key);
	return is;
}

static const char *der_hint(const char *text, size_t len)
{
	const char *hint = NULL;

	if (is_der(text, len, ASN1_ITEM_rptr(X509)))
		hint = "it is a certificate in DER; `openssl x509 -inform DER -in FILE -out NEW.pem` makes PEM of it";
	else if (is_der(text, len, ASN1_ITEM_rptr(PKCS12)))
		hint = "it is a PKCS#12 file; `openssl pkcs12 -in FILE -nokeys -out SVID.pem` and "
		       "`openssl pkcs12 -in FILE -nocerts -nodes -out SVID.key` take it apart";
	else if (is_der_key(text, len))
		hint = "it is a private key in DER; `openssl pkey -inform DER -in FILE -out NEW.key` makes PEM of it";
	ERR_clear_error();
	return hint;
}

/* What is the same, whatever was wanted. */
static const char *form_hint(const char *text, size_t len)
{
	const char *hint = len > 0 ? der_hint(text, len) : "the file is empty";

	if (hint != NULL)
		return hint;
	if (is_json(text, len))
		return "it is JSON; certificates and keys are wanted in PEM";
	if (holds(text, len, "-----BEGIN PKCS7-----"))
		return "it is PKCS#7; `openssl pkcs7 -print_certs -in FILE -out NEW.pem` takes out the certificates";
	if (holds(text, len, "-----BEGIN CERTIFICATE REQUEST-----"))
		return "it is a request for a certificate, which an issuer has to answer";
	if (holds(text, len, "-----BEGIN TRUSTED CERTIFICATE-----"))
		return "it is in OpenSSL's own form; `openssl x509 -in FILE -out NEW.pem` makes PEM of each "
		       "certificate";
	return holds(text, len, "-----BEGIN ") ? NULL : "nothing in it begins with -----BEGIN, as PEM does";
}

/* Whether the first certificate is a CA and a later one is none: the number of the first such, or 0. */
static int leaf_position(const char *text, size_t len)
{
	__attribute__((cleanup(bio_freep))) BIO *bio = BIO_new_mem_buf(text, (int)len);
	int found = 0;

	for (int i = 0; bio != NULL && found == 0; i++) {
		X509 *certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL);
		bool is_ca = certificate != NULL && X509_check_ca(certificate) == 1;

		X509_free(certificate);
		if (certificate == NULL || (i == 0 && !is_ca))
			break;
		found = is_ca ? 0 : i;
	}
	ERR_clear_error();
	return found;
}

const char *wrong_chain_hint(const char *text, size_t len)
{
	bool key = holds(text, len, "PRIVATE KEY-----"), certificate = holds(text, len, "-----BEGIN CERTIFICATE-----");

	if (key && certificate)
		return "certificates and private key are in one file; put each into one of its own";
	if (key)
		return "it is a private key; are the files of certificate and key mixed up?";
	if (certificate && leaf_position(text, len) > 0)
		return "the leaf is not the first certificate; its order is leaf, intermediates";
	return form_hint(text, len);
}

const char *wrong_certificates_hint(const char *text, size_t len)
{
	bool der = len > 0 && is_der(text, len, ASN1_ITEM_rptr(X509));

	ERR_clear_error();
	return der ? NULL : wrong_chain_hint(text, len);
}

const char *wrong_key_hint(const char *text, size_t len)
{
	if (holds(text, len, "-----BEGIN ENCRYPTED PRIVATE KEY-----") || holds(text, len, "Proc-Type: 4,ENCRYPTED"))
		return "the key has a passphrase, and nobody is there to type it; `openssl pkey -in FILE -out NEW.key` "
		       "takes it "
		       "off";
	if (holds(text, len, "-----BEGIN CERTIFICATE-----") && !holds(text, len, "PRIVATE KEY-----"))
		return "it is a certificate; are the files of certificate and key mixed up?";
	if (holds(text, len, "-----BEGIN PUBLIC KEY-----"))
		return "it is a public key";
	return form_hint(text, len);
}
