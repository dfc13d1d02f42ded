/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "certs.h"
#include "identity/attest.h"

static struct svid_chain *make_chain(size_t n)
{
	struct cert root = certs_ca(NULL, &(struct cert_spec){0});
	const struct cert *certs[SVID_MAX_CERTIFICATES];
	struct svid_chain *chain = NULL;
	struct svid_verdict verdict;
	char *pem;

	for (size_t i = 0; i < n; i++)
		certs[i] = &root;
	pem = certs_pem(certs, n);
	assert_int_equal(svid_chain_parse_pem(&chain, pem, strlen(pem), &verdict), 0);
	free(pem);
	cert_free(&root);
	return chain;
}

static void hello_carries_the_chain(void **state)
{
	struct svid_chain *chain = make_chain(3);
	static uint8_t packet[ATTEST_MAX_PACKET];
	size_t len = attest_hello_encode(packet, sizeof(packet), chain), n, der_len[SVID_MAX_CERTIFICATES],
	       expected_len;
	const uint8_t *der[SVID_MAX_CERTIFICATES], *expected = svid_chain_der(chain, 2, &expected_len);

	(void)state;
	assert_memory_equal(packet, "ZTA1\1\0\0\0", 8);
	assert_int_equal(packet[8] | packet[9] << 8, len - 12);
	assert_int_equal(attest_hello_decode(packet, len, der, der_len, &n), 0);
	assert_int_equal(n, 3);
	assert_int_equal(der_len[2], expected_len);
	assert_memory_equal(der[2], expected, expected_len);
	assert_int_equal(attest_hello_encode(packet, len - 1, chain), 0);
	svid_chain_freep(&chain);
}

static void hello_carries_a_device(void **state)
{
	struct attest_device device = {.name = "veth3", .n_addresses = 2, .addresses = {{1}, {[15] = 2}}}, got;
	size_t n, der_len[SVID_MAX_CERTIFICATES], len, at;
	const uint8_t *der[SVID_MAX_CERTIFICATES];
	struct svid_chain *chain = make_chain(2);
	static uint8_t packet[ATTEST_MAX_PACKET];

	(void)state;
	len = attest_hello_encode_device(packet, sizeof(packet), chain, &device);
	assert_int_equal(attest_hello_decode_device(packet, len, der, der_len, &n, &got), 0);
	assert_int_equal(n, 2);
	assert_memory_equal(&got, &device, sizeof(got));
	/* Who does not ask for a device gets none. */
	assert_int_equal(attest_hello_decode(packet, len, der, der_len, &n), -EBADMSG);
	/* Name and addresses stand at the end. */
	at = len - 1 - 5 - 1 - 32;
	assert_int_equal(packet[at], 5);
	for (size_t cut = at; cut < len; cut++)
		assert_int_equal(attest_hello_decode_device(packet, cut, der, der_len, &n, &got), -EBADMSG);
	packet[at + 1] = '/';
	assert_int_equal(attest_hello_decode_device(packet, len, der, der_len, &n, &got), -EBADMSG);
	packet[at + 1] = '\0';
	assert_int_equal(attest_hello_decode_device(packet, len, der, der_len, &n, &got), -EBADMSG);
	packet[at + 1] = 'v';
	packet[at + 6] = ATTEST_MAX_ADDRESSES + 1;
	assert_int_equal(attest_hello_decode_device(packet, len, der, der_len, &n, &got), -EBADMSG);
	len = attest_hello_encode(packet, sizeof(packet), chain);
	assert_int_equal(attest_hello_decode_device(packet, len, der, der_len, &n, &got), 0);
	assert_string_equal(got.name, "");
	svid_chain_freep(&chain);
}

static const struct attest_challenge challenge = {
	.nonce = {1, 2, 3},
	.boot_id = {4, 5},
	.cgroup_id = 0x1122334455667788,
	.pidfd_inode = 42,
	.leaf_sha256 = {6},
	.issued_ns = 7,
	.ttl_ms = ATTEST_TTL_MS,
	.sigalg = 0x0403,
};

static void challenge_survives_the_wire(void **state)
{
	uint8_t packet[256];
	size_t len = attest_challenge_encode(packet, sizeof(packet), &challenge);
	struct attest_challenge decoded;

	(void)state;
	assert_int_equal(len, 12 + 110);
	assert_int_equal(packet[12 + 48], 0x88); /* little-endian */
	assert_int_equal(attest_challenge_decode(packet, len, &decoded), 0);
	assert_memory_equal(decoded.nonce, challenge.nonce, 32);
	assert_memory_equal(decoded.boot_id, challenge.boot_id, 16);
	assert_memory_equal(decoded.leaf_sha256, challenge.leaf_sha256, 32);
	assert_true(decoded.cgroup_id == challenge.cgroup_id && decoded.pidfd_inode == 42 && decoded.issued_ns == 7);
	assert_true(decoded.ttl_ms == ATTEST_TTL_MS && decoded.sigalg == 0x0403);
}

static void result_survives_the_wire(void **state)
{
	struct attest_result result = {.code = 1029, .valid_until = 1, .renew_after = 2, .cgroup_id = 3}, decoded;
	uint8_t packet[1024];
	size_t len;

	(void)state;
	memset(result.text, 'x', sizeof(result.text) - 1);
	len = attest_result_encode(packet, sizeof(packet), &result);
	assert_int_equal(attest_result_decode(packet, len, &decoded), 0);
	assert_memory_equal(&decoded, &result, sizeof(result));
	packet[len - 1] = '\0';
	assert_int_equal(attest_result_decode(packet, len, &decoded), -EBADMSG);
}

/* A copy of exactly this length, so that AddressSanitizer sees a read behind it. */
static int decode_any(int type, const uint8_t *packet, size_t len)
{
	const uint8_t *der[SVID_MAX_CERTIFICATES], *sig;
	size_t der_len[SVID_MAX_CERTIFICATES], n;
	struct attest_challenge c;
	struct attest_result result;
	uint16_t sigalg;
	uint8_t *copy = malloc(len > 0 ? len : 1);
	int r;

	memcpy(copy, packet, len);
	if (type == ATTEST_HELLO)
		r = attest_hello_decode(copy, len, der, der_len, &n);
	else if (type == ATTEST_CHALLENGE)
		r = attest_challenge_decode(copy, len, &c);
	else if (type == ATTEST_PROOF)
		r = attest_proof_decode(copy, len, &sigalg, &sig, &n);
	else
		r = attest_result_decode(copy, len, &result);
	free(copy);
	return r;
}

static size_t encode_any(int type, uint8_t *packet, size_t size)
{
	const struct attest_result result = {.code = 1, .text = "text"};
	struct svid_chain *chain;
	size_t len;

	if (type == ATTEST_CHALLENGE)
		return attest_challenge_encode(packet, size, &challenge);
	if (type == ATTEST_PROOF)
		return attest_proof_encode(packet, size, 0x0403, (const uint8_t *)"signature", 9);
	if (type == ATTEST_RESULT)
		return attest_result_encode(packet, size, &result);
	chain = make_chain(1);
	len = attest_hello_encode(packet, size, chain);
	svid_chain_freep(&chain);
	return len;
}

static void packet_of_any_other_length_is_refused(void **state)
{
	uint8_t packet[4096] = {0};

	(void)state;
	for (int type = ATTEST_HELLO; type <= ATTEST_RESULT; type++) {
		size_t len = encode_any(type, packet, sizeof(packet) - 1);

		assert_true(len > 12);
		assert_int_equal(decode_any(type, packet, len), 0);
		for (size_t cut = 0; cut < len; cut++)
			assert_int_equal(decode_any(type, packet, cut), -EBADMSG);
		assert_int_equal(decode_any(type, packet, len + 1), -EBADMSG);
		packet[8]++; /* a header that agrees with the length does not help */
		assert_int_equal(decode_any(type, packet, len + 1), -EBADMSG);
	}
}

static void other_magic_type_flag_or_version_is_refused(void **state)
{
	uint8_t packet[4096];

	(void)state;
	for (int type = ATTEST_HELLO; type <= ATTEST_RESULT; type++) {
		size_t len = encode_any(type, packet, sizeof(packet));

		for (size_t i = 0; i < 12; i++) {
			packet[i] ^= 0x10;
			assert_int_equal(decode_any(type, packet, len), -EBADMSG);
			packet[i] ^= 0x10;
		}
		assert_int_equal(decode_any(type % 4 + 1, packet, len), -EBADMSG);
	}
	assert_true(encode_any(ATTEST_HELLO, packet, sizeof(packet)) > 0);
	packet[12] = 2;
	assert_int_equal(decode_any(ATTEST_HELLO, packet, sizeof(packet)), -EBADMSG);
}

static void random_packets_do_no_harm(void **state)
{
	uint8_t packet[4096];

	(void)state;
	for (int type = ATTEST_HELLO; type <= ATTEST_RESULT; type++) {
		size_t len = encode_any(type, packet, sizeof(packet));

		for (unsigned i = 0; i < 20000; i++) {
			uint8_t random[4], former;
			size_t at;

			RAND_bytes(random, sizeof(random));
			at = 12 + (random[0] | random[1] << 8) % (len - 12);
			former = packet[at];
			packet[at] = random[2];
			decode_any(type, packet, len);
			packet[at] = former;
		}
	}
}

struct signer {
	EVP_PKEY *key;
	uint16_t sigalg;
};

static void signature_is_bound_to_both_messages_and_the_key(void **state)
{
	struct signer signers[] = {{certs_key("P-256"), 0x0403},
				   {certs_key("P-384"), 0x0503},
				   {certs_key("P-521"), 0x0603},
				   {EVP_RSA_gen(2048), 0x0804},
				   {EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"), 0x0807}};
	const uint8_t hello[] = "hello", other[] = "hallo";

	(void)state;
	for (size_t i = 0; i < 5; i++) {
		EVP_PKEY *key = signers[i].key;
		uint16_t sigalg = attest_sigalg_for(key);
		uint8_t sig[1024];
		size_t len = sizeof(sig);

		assert_int_equal(sigalg, signers[i].sigalg);
		assert_int_equal(attest_sign(key, sigalg, hello, 5, hello, 5, sig, &len), 0);
		assert_int_equal(attest_verify(key, sigalg, hello, 5, hello, 5, sig, len), 0);
		assert_int_equal(attest_verify(key, sigalg, other, 5, hello, 5, sig, len), -EKEYREJECTED);
		assert_int_equal(attest_verify(key, sigalg, hello, 5, other, 5, sig, len), -EKEYREJECTED);
		assert_int_equal(attest_verify(key, sigalg, hello, 5, hello, 5, sig, len - 1), -EKEYREJECTED);
		assert_int_equal(attest_verify(key, sigalg ^ 1, hello, 5, hello, 5, sig, len), -EKEYREJECTED);
		assert_int_equal(attest_verify(signers[(i + 1) % 5].key, sigalg, hello, 5, hello, 5, sig, len),
				 -EKEYREJECTED);
		sig[len / 2] ^= 1;
		assert_int_equal(attest_verify(key, sigalg, hello, 5, hello, 5, sig, len), -EKEYREJECTED);
	}
	for (size_t i = 0; i < 5; i++)
		EVP_PKEY_free(signers[i].key);
}

/* The text is fixed here byte by byte, so that another implementation can be written from it. */
static void signed_text_is_as_documented(void **state)
{
	static const char context[] = "Bulkhead SVID attest v1, workload proof";
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	uint8_t text[64 + sizeof(context) + 32], sig[64];
	size_t len = sizeof(sig);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();

	(void)state;
	memset(text, 0x20, 64);
	memcpy(text + 64, context, sizeof(context));
	assert_int_equal(EVP_Digest("HELLOCHALLENGE", 14, text + 64 + sizeof(context), NULL, EVP_sha256(), NULL), 1);
	assert_int_equal(
		attest_sign(key, 0x0807, (const uint8_t *)"HELLO", 5, (const uint8_t *)"CHALLENGE", 9, sig, &len), 0);
	assert_int_equal(EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key), 1);
	assert_int_equal(EVP_DigestVerify(ctx, sig, len, text, sizeof(text)), 1);
	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(key);
}

static void keys_of_other_kinds_have_no_algorithm(void **state)
{
	EVP_PKEY *keys[] = {EVP_RSA_gen(1024), EVP_EC_gen("secp256k1"), EVP_PKEY_Q_keygen(NULL, NULL, "ED448"),
			    EVP_PKEY_Q_keygen(NULL, NULL, "X25519")};

	(void)state;
	assert_int_equal(attest_sigalg_for(NULL), 0);
	for (size_t i = 0; i < 4; i++) {
		assert_non_null(keys[i]);
		assert_int_equal(attest_sigalg_for(keys[i]), 0);
		EVP_PKEY_free(keys[i]);
	}
}

static void codes_have_stable_names(void **state)
{
	(void)state;
	assert_string_equal(attest_code_name(ATTEST_E_BINDING), "binding");
	assert_string_equal(attest_code_name(ATTEST_E_CGROUP_DELEGATED), "cgroup-delegated");
	assert_string_equal(attest_code_name(ATTEST_E_SVID + 29), "leaf-no-path");
	assert_string_equal(attest_code_name(500), "unknown");
}

static void client_says_when_nobody_serves(void **state)
{
	struct svid_chain *chain = make_chain(1);
	struct attest_result result;
	char why[256];

	(void)state;
	assert_int_equal(attest_client("/nonexistent/attest.sock", chain, NULL, &result, NULL, why, sizeof(why)),
			 -ENOENT);
	assert_non_null(strstr(why, "/nonexistent/attest.sock"));
	svid_chain_freep(&chain);
}

/* Anyone may bind one, in any container on the host's network: there is no way to make the client ask there. */
static void no_abstract_name_is_asked(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct svid_chain *chain = make_chain(1);
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct attest_result result;
	char why[256], name[64];

	(void)state;
	snprintf(name, sizeof(name), "@bulkhead-test-%d", getpid());
	strcpy(address.sun_path + 1, name + 1);
	assert_int_equal(bind(sock, (struct sockaddr *)&address,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))),
			 0);
	assert_int_equal(listen(sock, 1), 0);
	assert_int_equal(attest_client(name, chain, NULL, &result, NULL, why, sizeof(why)), -ENOENT);
	assert_int_equal(attest_client(address.sun_path, chain, NULL, &result, NULL, why, sizeof(why)), -ENAMETOOLONG);
	close(sock);
	svid_chain_freep(&chain);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hello_carries_the_chain),
		cmocka_unit_test(hello_carries_a_device),
		cmocka_unit_test(challenge_survives_the_wire),
		cmocka_unit_test(result_survives_the_wire),
		cmocka_unit_test(packet_of_any_other_length_is_refused),
		cmocka_unit_test(other_magic_type_flag_or_version_is_refused),
		cmocka_unit_test(random_packets_do_no_harm),
		cmocka_unit_test(signature_is_bound_to_both_messages_and_the_key),
		cmocka_unit_test(signed_text_is_as_documented),
		cmocka_unit_test(keys_of_other_kinds_have_no_algorithm),
		cmocka_unit_test(codes_have_stable_names),
		cmocka_unit_test(client_says_when_nobody_serves),
		cmocka_unit_test(no_abstract_name_is_asked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
