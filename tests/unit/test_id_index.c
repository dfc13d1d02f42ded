// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/id_index.h"

#define IDS 3000

static void an_empty_index_holds_nothing(void **state)
{
	struct id_index index = {};
	size_t at;

	(void)state;
	assert_false(id_index_get(&index, 1, &at));
	id_index_remove(&index, 1);
	id_index_clear(&index);
}

static void what_was_put_last_is_found(void **state)
{
	struct id_index index = {};
	size_t at;

	(void)state;
	assert_int_equal(id_index_put(&index, 7, 1), 0);
	assert_int_equal(id_index_put(&index, 7, 2), 0);
	assert_true(id_index_get(&index, 7, &at));
	assert_int_equal(at, 2);
	assert_int_equal(index.n, 1);
	assert_false(id_index_get(&index, 0, &at));
	id_index_clear(&index);
}

/* Against an array, over many random changes: what is removed leaves every other where it is found. */
static void it_agrees_with_an_array_over_random_changes(void **state)
{
	static size_t truth[IDS]; /* 0: not in it */
	struct id_index index = {};
	size_t at, n = 0;

	(void)state;
	memset(truth, 0, sizeof(truth));
	srandom(1);
	for (size_t step = 1; step < 200000; step++) {
		/* Ids that lie close together, as the kernel gives them, and far apart. */
		size_t i = (size_t)random() % IDS;
		uint64_t id = i % 2 ? 1 + i : (uint64_t)(1 + i) << 40;

		if (random() % 3) {
			assert_int_equal(id_index_put(&index, id, step), 0);
			n += !truth[i];
			truth[i] = step;
		} else {
			id_index_remove(&index, id);
			n -= !!truth[i];
			truth[i] = 0;
		}
	}
	for (size_t i = 0; i < IDS; i++) {
		uint64_t id = i % 2 ? 1 + i : (uint64_t)(1 + i) << 40;

		assert_int_equal(id_index_get(&index, id, &at), !!truth[i]);
		if (truth[i])
			assert_int_equal(at, truth[i]);
	}
	assert_int_equal(index.n, n);
	id_index_clear(&index);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_index_holds_nothing),
		cmocka_unit_test(what_was_put_last_is_found),
		cmocka_unit_test(it_agrees_with_an_array_over_random_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
