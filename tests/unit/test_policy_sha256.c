/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 (FIPS 180-4), with and without the processor's instructions for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/sha256.h"

static void assert_hash(const char *text, size_t times, const char *expected)
{
	for (int plainly = 0; plainly < 2; plainly++) {
		unsigned char hash[SHA256_BYTES];
		char hex[2 * SHA256_BYTES + 1];
		struct sha256 sha;

		if (plainly)
			sha256_begin_plainly(&sha);
		else
			sha256_begin(&sha);
		for (size_t i = 0; i < times; i++)
			sha256_add(&sha, text, strlen(text));
		sha256_end(&sha, hash);
		for (size_t i = 0; i < SHA256_BYTES; i++)
			snprintf(hex + 2 * i, 3, "%02x", hash[i]);
		assert_string_equal(hex, expected);
	}
}

/* NIST, "Examples with Intermediate Values", SHA-256; and the million of FIPS 180-2, B.3. */
static void the_published_vectors_come_out(void **state)
{
	(void)state;
	assert_hash("", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	assert_hash("abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	assert_hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
		    "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
	assert_hash("a", 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

/* Of every length around the blocks, in pieces of every kind, as OpenSSL has it. */
static void pieces_of_any_length_make_one_hash(void **state)
{
	unsigned char bytes[400], expected[SHA256_BYTES], hash[SHA256_BYTES];

	(void)state;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)(i * 167 + 13);
	for (size_t len = 0; len <= sizeof(bytes); len++) {
		SHA256(bytes, len, expected);
		for (size_t piece = 1; piece <= 200; piece += 9) {
			for (int plainly = 0; plainly < 2; plainly++) {
				struct sha256 sha;

				if (plainly)
					sha256_begin_plainly(&sha);
				else
					sha256_begin(&sha);
				for (size_t at = 0; at < len; at += piece)
					sha256_add(&sha, bytes + at, len - at < piece ? len - at : piece);
				sha256_end(&sha, hash);
				assert_memory_equal(hash, expected, SHA256_BYTES);
			}
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_published_vectors_come_out),
		cmocka_unit_test(pieces_of_any_length_make_one_hash),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
