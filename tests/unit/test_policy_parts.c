/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the library has of its own: instants, SHA-256, suggestions, interning.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/instant.h"
#include "policy/memory.h"
#include "policy/sha256.h"
#include "policy/suggestion.h"

static void instants_are_read_and_written(void **state)
{
	static const struct {
		const char *text;
		int64_t seconds;
	} instants[] = {
		{"1970-01-01T00:00:00Z", 0},
		{"1969-12-31T23:59:59Z", -1},
		{"2000-02-29T12:00:00Z", 951825600},
		{"2027-01-01T00:00:00Z", 1798761600},
		{"9999-12-31T23:59:59Z", 253402300799},
		{"0000-01-01T00:00:00Z", -62167219200},
	};
	char text[INSTANT_TEXT_BYTES];
	int64_t seconds;

	(void)state;
	for (size_t i = 0; i < sizeof(instants) / sizeof(instants[0]); i++) {
		assert_int_equal(instant_parse(&seconds, instants[i].text), INSTANT_OK);
		assert_int_equal(seconds, instants[i].seconds);
		instant_format(text, seconds);
		assert_string_equal(text, instants[i].text);
	}
	assert_int_equal(instant_parse(&seconds, "2027-01-01t02:30:00+02:30"), INSTANT_OK);
	assert_int_equal(seconds, 1798761600);
	assert_int_equal(instant_parse(&seconds, "2026-12-31 22:00:00-02:00"), INSTANT_OK);
	assert_int_equal(seconds, 1798761600);
	assert_int_equal(instant_parse(&seconds, "2100-02-29T00:00:00Z"), INSTANT_NO_SUCH);
	assert_int_equal(instant_parse(&seconds, "2027-01-01T00:00:60Z"), INSTANT_NO_SUCH);
	assert_int_equal(instant_parse(&seconds, "2027-01-01T00:00:00Zx"), INSTANT_FORM);
	assert_int_equal(instant_parse(&seconds, "2027-01-01T00:00:00+0200"), INSTANT_FORM);
	assert_int_equal(instant_parse(&seconds, "2027-1-1T00:00:00Z"), INSTANT_FORM);
	assert_int_equal(instant_parse(&seconds, ""), INSTANT_FORM);
}

static void check_hash(const char *text, size_t repeat, const char *expected)
{
	unsigned char hash[SHA256_BYTES];
	char hex[2 * SHA256_BYTES + 1];
	struct sha256 sha;

	sha256_begin(&sha);
	for (size_t i = 0; i < repeat; i++)
		sha256_add(&sha, text, strlen(text));
	sha256_end(&sha, hash);
	for (size_t i = 0; i < SHA256_BYTES; i++)
		sprintf(hex + 2 * i, "%02x", hash[i]);
	assert_string_equal(hex, expected);
}

/* The examples of NIST for FIPS 180-4. */
static void sha256_is_sha256(void **state)
{
	(void)state;
	check_hash("", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	check_hash("abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	check_hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
		   "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
	check_hash("aaaaaaaaaa", 100000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void a_suggestion_is_the_nearest_name(void **state)
{
	struct suggestion suggestion = {.wrong = "postgers"};

	(void)state;
	suggestion_offer(&suggestion, "mysql");
	assert_null(suggestion.best);
	suggestion_offer(&suggestion, "poster");
	assert_string_equal(suggestion.best, "poster");
	suggestion_offer(&suggestion, "postgres");
	assert_string_equal(suggestion.best, "postgres");
	assert_int_equal(suggestion.distance, 1);
	suggestion = (struct suggestion){.wrong = "guardrails-of-all"};
	suggestion_offer(&suggestion, "gaurdrials-fo-all");
	assert_int_equal(suggestion.distance, 3);
	suggestion = (struct suggestion){.wrong = "web"};
	suggestion_offer(&suggestion, "bew");
	assert_null(suggestion.best);
}

/* Equal changes to neighbouring words do not make up for each other. */
static void what_differs_in_two_words_alike_hashes_unalike(void **state)
{
	struct intern intern = {};
	uint64_t words[] = {1, 2};
	uint32_t first, second;

	(void)state;
	assert_int_equal(intern_bytes(&intern, words, sizeof(words), &first), 1);
	words[0] ^= 1ULL << 63;
	words[1] ^= 1ULL << 63;
	assert_int_equal(intern_bytes(&intern, words, sizeof(words), &second), 1);
	assert_int_not_equal(intern.entries[first].hash, intern.entries[second].hash);
	intern_free(&intern);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(instants_are_read_and_written),
		cmocka_unit_test(sha256_is_sha256),
		cmocka_unit_test(a_suggestion_is_the_nearest_name),
		cmocka_unit_test(what_differs_in_two_words_alike_hashes_unalike),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
