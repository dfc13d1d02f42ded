/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moments of the calendar in the kernel's clock.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bpf/abi.h"
#include "daemon/until.h"

#define SECOND 1000000000ULL
#define NOW (1800000000 * SECOND)
#define UP (5000 * SECOND + 7) /* since the host booted */

static void a_moment_keeps_its_distance_from_now(void **state)
{
	(void)state;
	assert_true(until_boottime_ns(1800000000, NOW, UP) == UP);
	assert_true(until_boottime_ns(1800000060, NOW, UP) == UP + 60 * SECOND);
	assert_true(until_boottime_ns(1799999990, NOW, UP) == UP - 10 * SECOND);
	assert_true(until_boottime_ns(1800000000, NOW + 3, UP) == UP - 3);
}

static void a_moment_before_the_host_booted_is_over(void **state)
{
	(void)state;
	assert_true(until_boottime_ns(1799990000, NOW, UP) == 0);
	assert_true(until_boottime_ns(0, NOW, UP) == 0);
	/* A host without a clock of its own begins in 1970. */
	assert_true(until_boottime_ns(0, 3 * SECOND, 5 * SECOND) == 2 * SECOND);
}

static void what_is_too_far_away_is_for_ever(void **state)
{
	(void)state;
	assert_true(until_boottime_ns(BH_FOREVER, NOW, UP) == BH_FOREVER);
	assert_true(until_boottime_ns(UINT64_MAX / SECOND + 1, NOW, UP) == BH_FOREVER);
	assert_true(until_boottime_ns(UINT64_MAX / SECOND, 0, UINT64_MAX / 2) == BH_FOREVER);
}

static void a_copy_of_tables_gets_moments_and_nothing_else(void **state)
{
	struct {
		struct bh_tables head;
		uint64_t before, untils[3], after;
	} tables = {.before = 1, .untils = {BH_FOREVER, 1, 4000000000}, .after = 2}, copy;

	(void)state;
	tables.head.until_off = offsetof(__typeof__(tables), untils);
	tables.head.until_count = 3;
	copy = tables;
	assert_true(until_write(&copy, &tables));
	assert_memory_equal(&copy.head, &tables.head, sizeof(copy.head));
	assert_true(copy.before == 1 && copy.after == 2);
	assert_true(copy.untils[0] == BH_FOREVER);
	assert_true(copy.untils[1] == 0);
	assert_true(copy.untils[2] > 0 && copy.untils[2] < BH_FOREVER);
	assert_true(until_is_copy(&copy, &tables, sizeof(tables)));
	copy.after++;
	assert_false(until_is_copy(&copy, &tables, sizeof(tables)));
	copy.after--;
	copy.head.n_who++;
	assert_false(until_is_copy(&copy, &tables, sizeof(tables)));
	tables.head.until_count = 1;
	assert_false(until_write(&copy, &tables));
}

static void the_next_moment_is_the_first_ahead(void **state)
{
	struct {
		struct bh_tables head;
		uint64_t untils[4];
	} tables = {.untils = {BH_FOREVER, 5, 20, 9}};

	(void)state;
	tables.head.until_off = offsetof(__typeof__(tables), untils);
	tables.head.until_count = 4;
	assert_true(until_next(&tables, 0) == 5);
	assert_true(until_next(&tables, 5) == 9);
	assert_true(until_next(&tables, 19) == 20);
	assert_true(until_next(&tables, 20) == BH_FOREVER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_moment_keeps_its_distance_from_now),
		cmocka_unit_test(a_moment_before_the_host_booted_is_over),
		cmocka_unit_test(what_is_too_far_away_is_for_ever),
		cmocka_unit_test(a_copy_of_tables_gets_moments_and_nothing_else),
		cmocka_unit_test(the_next_moment_is_the_first_ahead),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
