/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "identity/spiffe_id_fault.h"

static void each_mistake_is_pointed_at(void **state)
{
	static const struct {
		const char *id;
		const char *mark; /* a '^' under the byte */
	} cases[] = {
		{"", "^"},
		{"https://td/a", "^"},
		{"spiffe:/td/a", "        ^"},
		{"spiffe:", "       ^"},
		{"spiFFe://td/a", "   ^"},
		{"spiffe://", "         ^"},
		{"spiffe:///a", "         ^"},
		{"spiffe://td/a?x?y", "             ^"},
		{"spiffe://td#", "           ^"},
		{"spiffe://user:pw@td/a", "                ^"},
		{"spiffe://td:80/a:b", "           ^"},
		{"spiffe://[::1]/a", "         ^"},
		{"spiffe://t%64/a", "          ^"},
		{"spiffe://tDx/a", "          ^"},
		{"spiffe://t!x/a", "          ^"},
		{"spiffe://td/a%2f", "             ^"},
		{"spiffe://td//a", "            ^"},
		{"spiffe://td/a//b", "              ^"},
		{"spiffe://td/a/./b", "              ^"},
		{"spiffe://td/..", "            ^"},
		{"spiffe://td/", "           ^"},
		{"spiffe://td/a/", "             ^"},
		{"spiffe://td/a~b", "             ^"},
		{"spiffe://td", "           ^"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		size_t len = strlen(cases[i].id);
		int rule = spiffe_id_check(cases[i].id, len);
		size_t at = spiffe_id_fault(cases[i].id, len, rule);

		if (rule == 0 || at != strlen(cases[i].mark) - 1)
			fail_msg("%s: rule %d at %zu", cases[i].id, rule, at);
	}
}

/* Every byte at every kind of place: it is the one pointed at, or another one is wrong without it as well. */
static void the_byte_that_makes_an_id_invalid_is_the_one_pointed_at(void **state)
{
	static const char good[] = "spiffe://td.example/ns/a/b";
	unsigned broken = 0;

	(void)state;
	for (size_t place = 0; place < sizeof(good) - 1; place++) {
		for (int byte = 1; byte < 256; byte++) {
			char id[sizeof(good)];
			size_t at;
			int rule;

			memcpy(id, good, sizeof(good));
			id[place] = (char)byte;
			rule = spiffe_id_check(id, sizeof(good) - 1);
			if (rule == 0)
				continue;
			at = spiffe_id_fault(id, sizeof(good) - 1, rule);
			/* A '/' makes its neighbour an empty segment, or the trust domain an empty one. */
			if (at != place &&
			    !(byte == '/' && (at == place + 1 || at == place - 1 || rule == 15 || rule == 2)) &&
			    !(byte == '.' && rule == 14))
				fail_msg("%s: byte %d at %zu, rule %d, pointed at %zu", id, byte, place, rule, at);
			broken++;
		}
	}
	assert_true(broken > 3000);
}

static void what_is_too_long_is_pointed_at_where_it_becomes_so(void **state)
{
	static char id[3000];

	(void)state;
	memset(id, 'a', sizeof(id));
	memcpy(id, "spiffe://", 9);
	id[9 + 256] = '/';
	assert_int_equal(spiffe_id_check(id, 300), 19);
	assert_int_equal(spiffe_id_fault(id, 300, 19), 9 + 255);
	id[9 + 256] = 'a';
	id[12] = '/';
	assert_int_equal(spiffe_id_check(id, 2049), 18);
	assert_int_equal(spiffe_id_fault(id, 2049, 18), 2048);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_mistake_is_pointed_at),
		cmocka_unit_test(the_byte_that_makes_an_id_invalid_is_the_one_pointed_at),
		cmocka_unit_test(what_is_too_long_is_pointed_at_where_it_becomes_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
