/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "identity/spiffe_id.h"
#include "tests/reference/spiffe_id_reference.h"

struct id_case {
	const char *id;
	int rule;
};

static void check_all(const struct id_case *cases, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int rule = spiffe_id_check(cases[i].id, strlen(cases[i].id));

		if (rule != cases[i].rule)
			fail_msg("%s: rule %d, expected %d", cases[i].id, rule, cases[i].rule);
	}
}

static void ids_with_a_path_are_accepted(void **state)
{
	static const struct id_case cases[] = {
		{"spiffe://prod.example/web", 0}, {"spiffe://prod.example/ns/shop/sa/web", 0},
		{"spiffe://10.0.0.1/a", 0},	  {"spiffe://a_b.x/a", 0},
		{"spiffe://example..org/a", 0},	  {"spiffe://-x.org/a", 0},
		{"spiffe://td/...", 0},		  {"spiffe://td/.x", 0},
		{"spiffe://td/..x/A-Z_0.9", 0},
	};

	(void)state;
	check_all(cases, sizeof(cases) / sizeof(cases[0]));
}

static void each_malformed_id_names_its_rule(void **state)
{
	static const struct id_case cases[] = {
		{"", 1},
		{"https://td/a", 1},
		{"spiffe:/td/a", 1},
		{"spiffe:td", 1},
		{"xspiffe://td/a", 1},
		{"spiffe://", 2},
		{"spiffe:///a", 2},
		{"spiffe://td/a?x=y", 3},
		{"spiffe://td/a?", 3},
		{"spiffe://td/a#f", 4},
		{"spiffe://td#", 4},
		{"spiffe://user@td/a", 5},
		{"spiffe://user:pw@td/a", 5},
		{"spiffe://td:80/a", 6},
		{"spiffe://td:/a", 6},
		{"spiffe://TD/a", 7},
		{"SPIFFE://td/a", 8},
		{"spiffe://[::1]/a", 9},
		{"spiffe://t d/a", 9},
		{"spiffe://t%64/a", 10},
		{"spiffe://td/%61", 12},
		{"spiffe://td/a%2fb", 12},
		{"spiffe://td//a", 13},
		{"spiffe://td/a//b", 13},
		{"spiffe://td/.", 14},
		{"spiffe://td/a/../b", 14},
		{"spiffe://td/a/", 15},
		{"spiffe://td/", 15},
		{"spiffe://td/~a", 16},
		{"spiffe://td/a:b", 16},
		{"spiffe://td/a@b", 16},
		{"spiffe://td/*", 16},
		{"spiffe://td/a b", 16},
		{"spiffe://td/\xc3\xa9", 16},
		{"spiffe://td", 29},
	};

	(void)state;
	check_all(cases, sizeof(cases) / sizeof(cases[0]));
}

static void nul_is_outside_the_charset_wherever_it_stands(void **state)
{
	static const char in_path[] = "spiffe://td/a\0b", in_td[] = "spiffe://t\0d/a", at_end[] = "spiffe://td/a\0";

	(void)state;
	assert_int_equal(spiffe_id_check(in_path, sizeof(in_path) - 1), 16);
	assert_int_equal(spiffe_id_check(in_td, sizeof(in_td) - 1), 9);
	assert_int_equal(spiffe_id_check(at_end, sizeof(at_end) - 1), 16);
}

static void every_byte_outside_the_charsets_is_refused(void **state)
{
	char id[] = "spiffe://t_d/p_q";

	(void)state;
	for (int c = 0; c < 256; c++) {
		int td_ok = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_' ||
			    c == '/';
		int path_ok = td_ok || (c >= 'A' && c <= 'Z');

		id[10] = (char)c;
		assert_int_equal(spiffe_id_check(id, 16) == 0, td_ok);
		id[10] = '_';
		id[14] = (char)c;
		assert_int_equal(spiffe_id_check(id, 16) == 0, path_ok);
		id[14] = '_';
	}
}

/* The rule is 0 where no rule is broken, else one of those that are. */
static void compare(const char *id, size_t len)
{
	uint64_t broken = ref_spiffe_id(id, len);
	int rule = spiffe_id_check(id, len);

	if (broken == 0 ? rule != 0 : rule <= 0 || rule > 63 || !(broken & REF_RULE(rule)))
		fail_msg("%.*s (%zu bytes): rule %d, but these are broken: 0x%llx", (int)len, id, len, rule,
			 (unsigned long long)broken);
}

/* Each byte value in place of each byte, and before each: so at every kind of position there is. Twice at once too, for what
 * two of them make together: "..", "//", "%2", a second '@'. */
static void every_byte_at_every_position_is_judged_as_by_the_reference(void **state)
{
	static const char *const ids[] = {
		"spiffe://td/a/b",
		"spiffe://t.d-x_9/Aa0._-/b/cc",
		"spiffe://td",
		"spiffe://td/",
		"spiffe://",
		"spiffe://td/../a",
		"spiffe://td/./a/..",
		"spiffe://td/...",
		"spiffe:///a",
		"",
		"spiffe://u@td:80/%61",
		"spiffe://td/a//b",
		"spiffe://td?q#f",
	};
	char id[80];

	(void)state;
	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
		size_t len = strlen(ids[i]);

		for (size_t at = 0; at <= len; at++) {
			for (int c = 0; c < 256; c++) {
				memcpy(id, ids[i], at);
				memcpy(id + at + 1, ids[i] + at, len - at);
				id[at] = (char)c;
				compare(id, len + 1);
				if (at == len)
					continue;
				memcpy(id, ids[i], len);
				id[at] = (char)c;
				compare(id, len);
			}
		}
	}
}

static void every_two_bytes_are_judged_as_by_the_reference(void **state)
{
	static const char *const ids[] = {"spiffe://td/a/b", "spiffe://.", "spiffe://td/.", "spiffe://td/a"};
	char id[80];

	(void)state;
	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
		size_t len = strlen(ids[i]);

		for (size_t at = 8; at <= len; at++) {
			for (int both = 0; both < 65536; both++) {
				memcpy(id, ids[i], at);
				id[at] = (char)(both >> 8);
				id[at + 1] = (char)both;
				memcpy(id + at + 2, ids[i] + at, len - at);
				compare(id, len + 2);
			}
		}
	}
}

/* An ID of `len` bytes with a trust domain of `td_len`, in a buffer of exactly this length. */
static int check_length(size_t td_len, size_t len)
{
	char *id = malloc(len);
	int rule;

	memset(id, 'p', len);
	memcpy(id, "spiffe://", 9);
	memset(id + 9, 'd', td_len);
	id[9 + td_len] = '/';
	compare(id, len);
	rule = spiffe_id_check(id, len);
	free(id);
	return rule;
}

static void lengths_up_to_the_limits_are_accepted(void **state)
{
	char name[300];

	(void)state;
	assert_int_equal(check_length(2, 2047), 0);
	assert_int_equal(check_length(2, 2048), 0);
	assert_int_equal(check_length(255, 2048), 0);
	assert_int_equal(check_length(2, 2049), 18);
	assert_int_equal(check_length(256, 2049), 18);
	for (size_t td_len = 254; td_len <= 256; td_len++)
		assert_int_equal(check_length(td_len, 9 + td_len + 2), td_len <= 255 ? 0 : 19);
	for (size_t len = 20; len <= 2100; len++)
		check_length(8, len);
	memset(name, 'd', sizeof(name));
	assert_int_equal(spiffe_trust_domain_check(name, 254), 0);
	assert_int_equal(spiffe_trust_domain_check(name, 255), 0);
	assert_int_equal(spiffe_trust_domain_check(name, 256), 19);
}

static void id_of_a_signer_is_a_trust_domain_alone(void **state)
{
	static const struct id_case cases[] = {
		{"spiffe://td", 0},    {"spiffe://td/", 0},  {"spiffe://td/a", 52}, {"spiffe://td//", 52},
		{"spiffe://", 2},      {"spiffe://td:1", 6}, {"spiffe://TD", 7},    {"SPIFFE://td", 8},
		{"spiffe://u@td/", 5}, {"spiffe://td?", 3},  {"spiffe://td/#", 4},  {"https://td", 1},
		{"spiffe://t%64", 10}, {"spiffe://t~d", 9},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(spiffe_signer_id_check(cases[i].id, strlen(cases[i].id)), cases[i].rule);
}

static void trust_domain_is_what_stands_before_the_path(void **state)
{
	char name[SPIFFE_TRUST_DOMAIN_MAX + 1];

	(void)state;
	spiffe_id_trust_domain("spiffe://prod.example/ns/x", name);
	assert_string_equal(name, "prod.example");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ids_with_a_path_are_accepted),
		cmocka_unit_test(each_malformed_id_names_its_rule),
		cmocka_unit_test(nul_is_outside_the_charset_wherever_it_stands),
		cmocka_unit_test(every_byte_outside_the_charsets_is_refused),
		cmocka_unit_test(every_byte_at_every_position_is_judged_as_by_the_reference),
		cmocka_unit_test(every_two_bytes_are_judged_as_by_the_reference),
		cmocka_unit_test(id_of_a_signer_is_a_trust_domain_alone),
		cmocka_unit_test(lengths_up_to_the_limits_are_accepted),
		cmocka_unit_test(trust_domain_is_what_stands_before_the_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
