// SPDX-License-Identifier: Apache-2.0
/* The kernel's SipHash, compiled for user space, against the vectors of the reference implementation (key 00..0f, input
 * 00, 01, ...). */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "bpf/siphash.h"

static const struct bh_key key = {0x0706050403020100ULL, 0x0f0e0d0c0b0a0908ULL};
static const __u64 input[] = {0x0706050403020100ULL, 0x0f0e0d0c0b0a0908ULL};

static void siphash_of_nothing_is_the_published_value(void **state)
{
	(void)state;
	assert_true(bh_siphash(&key, input, 0) == 0x726fdb47dd0e0e31ULL);
}

static void siphash_of_8_bytes_is_the_published_value(void **state)
{
	(void)state;
	assert_true(bh_siphash(&key, input, 1) == 0x93f5f5799a932462ULL);
}

static void siphash_of_16_bytes_is_the_published_value(void **state)
{
	(void)state;
	assert_true(bh_siphash(&key, input, 2) == 0x3f2acc7f57c29bdbULL);
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
		cmocka_unit_test(siphash_of_nothing_is_the_published_value),
		cmocka_unit_test(siphash_of_8_bytes_is_the_published_value),
		cmocka_unit_test(siphash_of_16_bytes_is_the_published_value),
		cmocka_unit_test(mac_depends_on_each_field),
	};

	return cmocka_run_group_tests_name("siphash", tests, NULL, NULL);
}
