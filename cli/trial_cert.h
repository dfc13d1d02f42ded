/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trial_cert.h - certificates of SPIFFE for trials and tests: authorities, intermediates and X.509-SVIDs.
 *
 * In production an issuer such as SPIRE makes them, whose keys nobody can copy. These here are files of whoever runs
 * policyctl, so each certificate says in its subject that it is for trials. Otherwise they are what X509-SVID asks for,
 * to the letter: they are to show what verification does with a good certificate. Nothing here reads or writes files.
 */
#ifndef BULKHEAD_CLI_TRIAL_CERT_H
#define BULKHEAD_CLI_TRIAL_CERT_H

#include <jansson.h>
#include <openssl/x509.h>
#include <time.h>

enum trial_key {
	TRIAL_P256,
	TRIAL_P384,
	TRIAL_RSA2048,
	TRIAL_ED25519,
	TRIAL_KEYS,
};

/* "p256" and so on. */
const char *trial_key_name(enum trial_key kind);
/* TRIAL_KEYS for a name that is none. */
enum trial_key trial_key_of(const char *name);

struct trial_cert {
	X509 *x509;
	EVP_PKEY *key;
};

void trial_cert_free(struct trial_cert *cert);

struct trial_request {
	const struct trial_cert *issuer; /* NULL: signs itself */
	const char *name;		 /* common name */
	const char *uri;		 /* SPIFFE ID, or of an authority spiffe://TRUSTDOMAIN */
	int path_len;			 /* of an authority or intermediate: how many may follow; -1: an SVID */
	enum trial_key key;
	time_t from, until;
};

/* Makes key and certificate. Returns 0, or -EIO with OpenSSL's reason on stderr. */
int trial_cert_make(struct trial_cert *cert, const struct trial_request *request);

/* In PEM, malloc()ed; the key as PKCS #8 without passphrase. NULL without memory. */
char *trial_cert_pem(X509 *x509);
char *trial_key_pem(EVP_PKEY *key);
/* Each of the whole text; NULL for anything else. */
X509 *trial_cert_read(const char *pem);
EVP_PKEY *trial_key_read(const char *pem);

/* The JWK of an authority as a SPIFFE bundle has it (X509-SVID 6.2; RFC 7517, RFC 7518 6, RFC 8037 2): x5c and the members
 * of its public key. NULL without memory. */
json_t *trial_cert_jwk(X509 *x509);

#endif
