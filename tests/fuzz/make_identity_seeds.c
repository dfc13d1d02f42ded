/* SPDX-License-Identifier: Apache-2.0 */
/*
 * make_identity_seeds.c - writes what the fuzzers of identity/ begin with: every chain of the generator, its names, some that
 * the fuzzer can sign anew, IDs, and each message of an attestation.
 *
 *   make_identity_seeds DIRECTORY        files go to DIRECTORY/{spiffe_id,san,chain,attest}
 */
#include "identity/attest.h"
#include "tests/chains/chains.h"
#include "tests/fuzz/chain_input.h"

static const char *root;
static unsigned written;

static void write_seed(const char *target, const void *bytes, size_t len)
{
	char path[4096];
	FILE *out;

	snprintf(path, sizeof(path), "%s/%s/seed-%u", root, target, written++);
	out = fopen(path, "we");
	if (out == NULL || fwrite(bytes, 1, len, out) != len || fclose(out) != 0) {
		perror(path);
		exit(1);
	}
}

/* ---- chains ---- */

static void write_chain(uint8_t flags, time_t at, const struct chain_bytes *bundle, size_t n_authorities,
			const struct chain_bytes *chain, size_t n)
{
	static uint8_t bytes[CHAIN_MAX * 70000];
	size_t len = 10;

	bytes[0] = flags;
	for (int i = 0; i < 8; i++)
		bytes[1 + i] = (uint8_t)((uint64_t)at >> (8 * i));
	bytes[9] = (uint8_t)n_authorities;
	for (size_t i = 0; i < n_authorities + n; i++) {
		const struct chain_bytes *one = i < n_authorities ? &bundle[i] : &chain[i - n_authorities];

		bytes[len++] = (uint8_t)one->len;
		bytes[len++] = (uint8_t)(one->len >> 8);
		memcpy(bytes + len, one->der, one->len);
		len += one->len;
	}
	write_seed("chain", bytes, len);
}

static void write_names(const struct chain_bytes *certificate)
{
	const unsigned char *at = certificate->der;
	X509 *x509 = d2i_X509(NULL, &at, (long)certificate->len);
	int i = x509 != NULL ? X509_get_ext_by_NID(x509, NID_subject_alt_name, -1) : -1;
	GENERAL_NAMES *names = i >= 0 ? X509_get_ext_d2i(x509, NID_subject_alt_name, NULL, NULL) : NULL;

	if (i >= 0) {
		const ASN1_OCTET_STRING *value = X509_EXTENSION_get_data(X509_get_ext(x509, i));

		write_seed("san", ASN1_STRING_get0_data(value), (size_t)ASN1_STRING_length(value));
	}
	for (int n = 0; names != NULL && n < sk_GENERAL_NAME_num(names); n++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, n);

		if (name->type == GEN_URI)
			write_seed("spiffe_id", ASN1_STRING_get0_data(name->d.ia5),
				   (size_t)ASN1_STRING_length(name->d.ia5));
	}
	GENERAL_NAMES_free(names);
	X509_free(x509);
	ERR_clear_error();
}

static void write_case(const struct chain_case *c, void *userdata)
{
	(void)userdata;
	if (c->n + c->n_authorities <= CHAIN_INPUT_MAX)
		write_chain(0, c->at, c->bundle, c->n_authorities, c->chain, c->n);
	if (c->n > 0)
		write_names(&c->chain[0]);
}

static struct chain_bytes encode(const struct cert *cert)
{
	struct chain_bytes bytes = {0};

	bytes.len = (size_t)i2d_X509(cert->x509, &bytes.der);
	return bytes;
}

/* Root, two intermediates and a leaf, all with the fuzzer's key and much in them that a change can turn. */
static void write_signable(void)
{
	EVP_PKEY *key = chain_input_key();
	struct cert made[4];
	struct chain_bytes bytes[4];

	made[0] =
		certs_ca(NULL, &(struct cert_spec){.subject = "root", .key = key, .san = "URI:spiffe://prod.example"});
	made[1] = certs_ca(
		&made[0],
		&(struct cert_spec){.subject = "a",
				    .key = key,
				    .basic = "critical,CA:TRUE,pathlen:1",
				    .constraints = "critical,permitted;URI:prod.example,excluded;DNS:bad.example",
				    .more = {{NID_certificate_policies, "1.2.3.4"},
					     {NID_policy_constraints, "critical,requireExplicitPolicy:0"}}});
	made[2] = certs_ca(&made[1], &(struct cert_spec){.subject = "b",
							 .key = key,
							 .san = "URI:spiffe://other.example",
							 .more = {{NID_certificate_policies, "1.2.3.4"}}});
	made[3] = certs_leaf(&made[2], &(struct cert_spec){.key = key,
							   .san = "URI:" CERTS_ID ",DNS:good.example,email:a@b.example",
							   .more = {{NID_certificate_policies, "1.2.3.4"}}});
	for (size_t i = 0; i < 4; i++)
		bytes[3 - i] = encode(&made[i]);
	write_chain(CHAIN_INPUT_SIGN, time(NULL), &bytes[3], 1, bytes, 3);
	write_chain(CHAIN_INPUT_SIGN, time(NULL), &bytes[1], 3, bytes, 4);
	write_chain(CHAIN_INPUT_SIGN, time(NULL), &bytes[2], 1, bytes, 2);
	for (size_t i = 0; i < 4; i++) {
		OPENSSL_free(bytes[i].der);
		cert_free(&made[i]);
	}
	EVP_PKEY_free(key);
}

/* ---- messages ---- */

/* The kind, as in fuzz_attest.c, in front. */
static void write_message(uint8_t kind, const void *packet, size_t len)
{
	static uint8_t bytes[ATTEST_MAX_PACKET + 8];

	bytes[0] = kind;
	memcpy(bytes + 1, packet, len);
	write_seed("attest", bytes, len + 1);
}

/* What a fake daemon says to the client. */
static void write_answers(uint8_t flags, const void *first, size_t first_len, const void *second, size_t second_len)
{
	uint8_t bytes[4096] = {flags, (uint8_t)first_len, (uint8_t)(first_len >> 8)};

	memcpy(bytes + 3, first, first_len);
	memcpy(bytes + 3 + first_len, second, second_len);
	write_message(5, bytes, 3 + first_len + second_len);
}

static void write_messages(void)
{
	const struct attest_challenge challenge = {
		.cgroup_id = 7, .pidfd_inode = 8, .ttl_ms = ATTEST_TTL_MS, .sigalg = 0x0403};
	const struct attest_result result = {.code = 1029, .valid_until = 1, .cgroup_id = 3, .text = "leaf-no-path"},
				   good = {.code = ATTEST_OK, .valid_until = 1, .cgroup_id = 3, .text = "attested"};
	const struct attest_device device = {.name = "veth3", .n_addresses = 2};
	struct cert leaf = certs_leaf(NULL, &(struct cert_spec){0});
	char *pem = certs_pem((const struct cert *[]){&leaf}, 1);
	struct svid_chain *chain = NULL;
	struct svid_verdict verdict;
	static uint8_t packet[ATTEST_MAX_PACKET];
	uint8_t answer[1024], second[1024];
	size_t len, second_len;

	CERTS_MUST(svid_chain_parse_pem(&chain, pem, strlen(pem), &verdict) == 0);
	write_message(0, packet, attest_hello_encode(packet, sizeof(packet), chain));
	write_message(0, packet, attest_hello_encode_device(packet, sizeof(packet), chain, &device));
	len = attest_challenge_encode(answer, sizeof(answer), &challenge);
	write_message(1, answer, len);
	second_len = attest_result_encode(second, sizeof(second), &good);
	for (uint8_t flags = 0; flags < 4; flags++)
		write_answers(flags, answer, len, second, second_len);
	write_message(2, packet, attest_proof_encode(packet, sizeof(packet), 0x0403, (const uint8_t *)"signature", 9));
	len = attest_result_encode(answer, sizeof(answer), &result);
	write_message(3, answer, len);
	write_answers(0, answer, len, "", 0);
	for (uint8_t fds = 0; fds < 4; fds++)
		write_message(4, (uint8_t[]){fds, 'a', 'b', 'c'}, 4);
	svid_chain_freep(&chain);
	free(pem);
	cert_free(&leaf);
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: make_identity_seeds DIRECTORY\n");
		return 2;
	}
	root = argv[1];
	chains_visit(write_case, NULL);
	write_signable();
	write_messages();
	return 0;
}
