/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The digest that names the sources of a policy.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "identity/digest.h"

struct text {
	const char *name;
	const char *text;
};

static void digest_of(char out[65], const struct text *texts, size_t n)
{
	struct digest *digest;

	assert_int_equal(digest_new(&digest), 0);
	for (size_t i = 0; i < n; i++)
		digest_add(digest, texts[i].name, texts[i].text, strlen(texts[i].text));
	assert_int_equal(digest_finish(digest, out), 0);
	digest_freep(&digest);
}

static void nothing_has_the_digest_of_nothing(void **state)
{
	char digest[65];

	(void)state;
	digest_of(digest, NULL, 0);
	assert_string_equal(digest, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

static void the_digest_covers_names_and_texts_and_where_they_end(void **state)
{
	static const struct text lists[][2] = {
		{{"a", "x"}, {"b", "y"}}, {{"a", "x"}, {"c", "y"}}, {{"a", "xx"}, {"b", "y"}},
		{{"ax", ""}, {"b", "y"}}, {{"a", "xb"}, {"", "y"}}, {{"b", "y"}, {"a", "x"}},
	};
	char seen[6][65];

	(void)state;
	for (int i = 0; i < 6; i++) {
		digest_of(seen[i], lists[i], 2);
		assert_int_equal(strspn(seen[i], "0123456789abcdef"), 64);
		for (int j = 0; j < i; j++)
			assert_string_not_equal(seen[i], seen[j]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_has_the_digest_of_nothing),
		cmocka_unit_test(the_digest_covers_names_and_texts_and_where_they_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
