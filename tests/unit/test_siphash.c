// SPDX-License-Identifier: Apache-2.0
/* The kernel's SipHash, compiled for user space, against the published values. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "bpf/siphash.h"
#include "tests/reference/siphash_vectors.h"

static const struct bh_key key = {SIPHASH_K0, SIPHASH_K1, 1};

static void siphash_of_each_length_is_the_published_value(void **state)
{
	(void)state;
	for (uint32_t len = 0; len < SIPHASH_VECTORS; len++) {
		__u64 words[8] = {};

		for (uint32_t i = 0; i < len; i++)
			((uint8_t *)words)[i] = (uint8_t)i;
		assert_true(bh_siphash(&key, words, len / 8, words[len / 8] | (__u64)len << 56) ==
			    siphash_vectors[len]);
	}
}

static void mac_is_the_published_value_of_as_many_bytes(void **state)
{
	struct bh_mac_input input;

	(void)state;
	for (size_t i = 0; i < sizeof(input); i++)
		((uint8_t *)&input)[i] = (uint8_t)i;
	assert_true(bh_mac(&key, &input) == siphash_vectors[sizeof(input)]);
}

static void mac_depends_on_each_field(void **state)
{
	struct bh_mac_input a = {
		.src = {1, 2, 3, 4}, .dst = {5, 6, 7, 8}, .sport = 9, .dport = 10, .seq = 11, .ack = 12};
	__u64 whole = bh_mac(&key, &a);

	(void)state;
	for (size_t i = 0; i < sizeof(a); i++) {
		struct bh_mac_input b = a;

		((uint8_t *)&b)[i] ^= 1;
		assert_true(bh_mac(&key, &b) != whole);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(siphash_of_each_length_is_the_published_value),
		cmocka_unit_test(mac_is_the_published_value_of_as_many_bytes),
		cmocka_unit_test(mac_depends_on_each_field),
	};

	return cmocka_run_group_tests_name("siphash", tests, NULL, NULL);
}
