/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_chain.c - any bytes as a chain and a bundle: refused by a rule that has a name, or an identity that keeps all promises.
 */
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>

#include "identity/rules.h"
#include "identity/svid.h"
#include "tests/fuzz/chain_input.h"
#include "tests/fuzz/fuzz.h"

struct input {
	uint8_t flags;
	time_t at;
	size_t n_authorities, n;
	uint8_t *der[CHAIN_INPUT_MAX];
	size_t len[CHAIN_INPUT_MAX];
};

/* Header and content of the element at `at`, or 0. Long lengths of at most two bytes. */
static size_t element_bytes(const uint8_t *at, size_t left, size_t *headerp)
{
	size_t len;

	if (left < 4)
		return 0;
	*headerp = at[1] < 0x80 ? 2 : at[1] == 0x81 ? 3 : at[1] == 0x82 ? 4 : 0;
	len = at[1] < 0x80 ? at[1] : at[1] == 0x81 ? at[2] : (size_t)at[2] << 8 | at[3];
	return *headerp != 0 && len <= left - *headerp ? *headerp + len : 0;
}

/* The signature is the last 64 bytes, if it is one of Ed25519. */
static void sign_anew(uint8_t *der, size_t len)
{
	size_t header, ignored, tbs, sig_len = 64;
	EVP_MD_CTX *ctx;
	EVP_PKEY *key;

	if (len == 0 || element_bytes(der, len, &header) != len)
		return;
	tbs = element_bytes(der + header, len - header, &ignored);
	if (tbs == 0 || len - header - tbs < 64)
		return;
	key = chain_input_key();
	ctx = EVP_MD_CTX_new();
	if (EVP_DigestSignInit(ctx, NULL, NULL, NULL, key) == 1)
		EVP_DigestSign(ctx, der + len - 64, &sig_len, der + header, tbs);
	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(key);
}

static int input_read(struct input *input, const uint8_t *data, size_t size)
{
	size_t done = 10;

	if (size < done)
		return -1;
	input->flags = data[0];
	input->n_authorities = data[9];
	for (int i = 0; i < 8; i++)
		input->at |= (time_t)((uint64_t)data[1 + i] << (8 * i));
	for (; input->n < CHAIN_INPUT_MAX && size - done >= 2; input->n++) {
		size_t len = data[done] | (size_t)data[done + 1] << 8;

		done += 2;
		if (len > size - done)
			break;
		/* A copy of exactly this length, so that AddressSanitizer sees a read behind it. */
		input->der[input->n] = malloc(len);
		if (len > 0)
			memcpy(input->der[input->n], data + done, len);
		input->len[input->n] = len;
		if (input->flags & CHAIN_INPUT_SIGN)
			sign_anew(input->der[input->n], len);
		done += len;
	}
	return input->n_authorities <= input->n ? 0 : -1;
}

static void bundle_load(struct bundle_set *bundles, const struct input *input)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *pem, why[256];
	unsigned dropped;
	long len;

	for (size_t i = 0; i < input->n_authorities; i++)
		PEM_write_bio(bio, PEM_STRING_X509, "", input->der[i], (long)input->len[i]);
	len = BIO_get_mem_data(bio, &pem);
	bundle_set_load_pem(bundles, CHAIN_INPUT_TRUST_DOMAIN, pem, (size_t)len, &dropped, why, sizeof(why));
	BIO_free(bio);
}

static void expect(int holds)
{
	if (!holds)
		abort();
}

static void check_verdict(const struct svid_verdict *verdict, int r, time_t at)
{
	char text[512];

	if (r == 0) {
		expect(verdict->rule == 0 && spiffe_id_check(verdict->spiffe_id, strlen(verdict->spiffe_id)) == 0);
		expect(strcmp(verdict->trust_domain, CHAIN_INPUT_TRUST_DOMAIN) == 0);
		expect(verdict->not_before <= at && at < verdict->not_after);
		return;
	}
	svid_verdict_text(verdict, text, sizeof(text));
	expect(verdict->rule != 0 && strcmp(svid_rule_name(verdict->rule), "unknown-rule") != 0);
	for (const char *c = text; *c != '\0'; c++)
		expect(*c >= ' ' && *c <= '~');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bundle_set *bundles = NULL;
	struct svid_chain *chain = NULL;
	struct svid_verdict verdict = {0};
	struct input input = {0};
	int r;

	if (bundle_set_new(&bundles) == 0 && input_read(&input, data, size) == 0) {
		bundle_load(bundles, &input);
		r = svid_chain_parse_der(&chain, (const uint8_t *const *)&input.der[input.n_authorities],
					 &input.len[input.n_authorities], input.n - input.n_authorities, &verdict);
		if (r == 0)
			r = svid_verify(chain, bundles, input.at, &verdict);
		check_verdict(&verdict, r, input.at);
	}
	for (size_t i = 0; i < input.n; i++)
		free(input.der[i]);
	svid_chain_freep(&chain);
	bundle_set_freep(&bundles);
	ERR_clear_error();
	return 0;
}
