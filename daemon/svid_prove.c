/* SPDX-License-Identifier: Apache-2.0 */
#include "svid_prove.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "attest_session.h"
#include "identity/attest.h"
#include "tag_request.h"

struct body {
	void *bytes;
	size_t len;
	const char *chain, *key;
	size_t chain_len, key_len;
};

static void body_clear(struct body *body)
{
	if (body->bytes != NULL)
		OPENSSL_cleanse(body->bytes, body->len);
	free(body->bytes);
}

static void key_freep(EVP_PKEY **keyp)
{
	EVP_PKEY_free(*keyp);
}

static void bio_freep(BIO **biop)
{
	BIO_free(*biop);
}

__attribute__((format(printf, 3, 4))) static void refuse(struct ipc_tag_request *out, uint32_t code, const char *format,
							 ...)
{
	va_list args;

	out->code = code;
	va_start(args, format);
	vsnprintf(out->text, sizeof(out->text), format, args);
	va_end(args);
}

static int body_read(struct body *body, int fd)
{
	uint32_t chain_len;
	int r = ipc_memfd_read(fd, SVID_FILES_MAX_BYTES, &body->bytes, &body->len);

	if (r < 0)
		return r;
	if (body->len < sizeof(chain_len))
		return -EBADMSG;
	memcpy(&chain_len, body->bytes, sizeof(chain_len));
	if (chain_len > body->len - sizeof(chain_len))
		return -EBADMSG;
	body->chain = (const char *)body->bytes + sizeof(chain_len);
	body->chain_len = chain_len;
	body->key = body->chain + chain_len;
	body->key_len = body->len - sizeof(chain_len) - chain_len;
	return 0;
}

/* Nobody is there to type a passphrase. */
static int no_passphrase(char *buf, int size, int rwflag, void *u)
{
	(void)buf, (void)size, (void)rwflag, (void)u;
	return 0;
}

static EVP_PKEY *key_read(const struct body *body)
{
	__attribute__((cleanup(bio_freep))) BIO *bio = BIO_new_mem_buf(body->key, (int)body->key_len);
	EVP_PKEY *key = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;

	ERR_clear_error();
	return key;
}

static bool key_is_of(EVP_PKEY *key, EVP_PKEY *leaf_key, uint16_t sigalg)
{
	uint8_t nonce[32], sig[1024];
	size_t sig_len = sizeof(sig);

	return RAND_bytes(nonce, sizeof(nonce)) == 1 &&
	       attest_sign(key, sigalg, nonce, sizeof(nonce), NULL, 0, sig, &sig_len) == 0 &&
	       attest_verify(leaf_key, sigalg, nonce, sizeof(nonce), NULL, 0, sig, sig_len) == 0;
}

static void prove_possession(const struct body *body, struct svid_chain *chain, struct ipc_tag_request *out)
{
	__attribute__((cleanup(key_freep))) EVP_PKEY *key = key_read(body);
	EVP_PKEY *leaf_key = svid_chain_leaf_key(chain);
	uint16_t sigalg = attest_sigalg_for(leaf_key);

	if (sigalg == 0)
		refuse(out, ATTEST_E_SIGNATURE, "the leaf's key is none of P-256, P-384, P-521, RSA and Ed25519");
	else if (key == NULL)
		refuse(out, ATTEST_E_SIGNATURE, "no private key in PEM without a passphrase found in the key file");
	else if (!key_is_of(key, leaf_key, sigalg))
		refuse(out, ATTEST_E_SIGNATURE, "the key in the key file is not that of the certificate");
}

static void prove(const struct bundle_set *bundles, int fd, struct ipc_tag_request *out)
{
	__attribute__((cleanup(body_clear))) struct body body = {0};
	__attribute__((cleanup(svid_chain_freep))) struct svid_chain *chain = NULL;
	struct svid_verdict verdict = {.depth = -1};
	uint64_t number = out->request;
	int r = body_read(&body, fd);

	if (r == 0)
		r = svid_chain_parse_pem(&chain, body.chain, body.chain_len, &verdict);
	if (r == 0)
		r = svid_verify(chain, bundles, time(NULL), &verdict);
	tag_request_begin(out, IPC_SVID_PROVED, &verdict);
	out->request = number;
	if (r < 0) {
		refuse(out, ATTEST_E_INTERNAL, "cannot verify the chain: %s", strerror(-r));
		return;
	}
	if (r > 0) {
		svid_verdict_text(&verdict, out->text, sizeof(out->text));
		out->code = ATTEST_E_SVID + (uint32_t)verdict.rule;
		return;
	}
	out->deadline_ns = tag_request_deadline(out->not_after);
	if (out->deadline_ns == 0) {
		svid_refusal_text(62, "the path expired during the attestation", out->text, sizeof(out->text));
		out->code = ATTEST_E_SVID + 62;
		return;
	}
	memcpy(out->text, verdict.note, sizeof(verdict.note));
	attest_vouchers(&verdict, out->vouchers);
	prove_possession(&body, chain, out);
}

void svid_prove(const struct bundle_set *bundles, const struct ipc_svid_files *files, int fd,
		struct ipc_tag_request *out)
{
	memset(out, 0, sizeof(*out));
	out->request = files->number;
	prove(bundles, fd, out);
}
