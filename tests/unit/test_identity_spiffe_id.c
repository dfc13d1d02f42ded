/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "identity/spiffe_id.h"

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

static void lengths_up_to_the_limits_are_accepted(void **state)
{
	char id[2060], name[300];

	(void)state;
	memset(id, 'a', sizeof(id));
	memcpy(id, "spiffe://td/", 12);
	assert_int_equal(spiffe_id_check(id, 2048), 0);
	assert_int_equal(spiffe_id_check(id, 2049), 18);
	memset(name, 'd', sizeof(name));
	assert_int_equal(spiffe_trust_domain_check(name, 255), 0);
	assert_int_equal(spiffe_trust_domain_check(name, 256), 19);
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
		cmocka_unit_test(lengths_up_to_the_limits_are_accepted),
		cmocka_unit_test(trust_domain_is_what_stands_before_the_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
