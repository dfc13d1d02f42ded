// SPDX-License-Identifier: Apache-2.0
/* How long is waited after failures in a row: of the Workload API's client, and wherever else something is tried for ever. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "daemon/backoff.h"
#include "daemon/workload_client.h"

static void each_failure_in_a_row_doubles_the_wait_up_to_the_limit(void **state)
{
	static const uint64_t waits[] = {3, 6, 12, 24, 40, 40, 40};
	struct backoff backoff = {.min_usec = 3, .max_usec = 40};

	(void)state;
	for (size_t i = 0; i < sizeof(waits) / sizeof(waits[0]); i++)
		assert_int_equal(backoff_next(&backoff), waits[i]);
}

static void what_worked_once_begins_anew(void **state)
{
	struct backoff backoff = {.min_usec = 3, .max_usec = 40};

	(void)state;
	backoff_next(&backoff);
	backoff_next(&backoff);
	backoff_reset(&backoff);
	assert_int_equal(backoff_next(&backoff), 3);
	assert_int_equal(backoff_next(&backoff), 6);
}

static void no_limit_is_passed_however_large(void **state)
{
	struct backoff backoff = {.min_usec = 1, .max_usec = UINT64_MAX};
	uint64_t last = 0;

	(void)state;
	for (int i = 0; i < 64; i++) {
		uint64_t next = backoff_next(&backoff);

		assert_true(next > last);
		last = next;
	}
	assert_int_equal(backoff_next(&backoff), UINT64_MAX);
	assert_int_equal(backoff_next(&backoff), UINT64_MAX);
	backoff = (struct backoff){.min_usec = 7, .max_usec = 7};
	assert_int_equal(backoff_next(&backoff), 7);
	assert_int_equal(backoff_next(&backoff), 7);
}

static void chance_moves_a_wait_by_a_quarter_and_no_more(void **state)
{
	uint64_t least = UINT64_MAX, most = 0;

	(void)state;
	for (uint32_t random = 0; random < 5000; random++) {
		uint64_t usec = backoff_spread(1000000, random * 2654435761U);

		least = usec < least ? usec : least;
		most = usec > most ? usec : most;
		assert_true(usec >= 750000 && usec <= 1250000);
	}
	assert_true(least < 760000 && most > 1240000);
	assert_int_equal(backoff_spread(1000000, 0), 750000);
	assert_int_equal(backoff_spread(1000000, UINT32_MAX), 1250000);
}

/* Whatever chance says, no wait but those at the limit is shorter than the one before it. */
static void a_workload_api_is_asked_after_half_a_second_and_at_last_each_half_minute(void **state)
{
	static const uint64_t ms[] = {500, 1000, 2000, 4000, 8000, 16000, 30000, 30000};
	struct backoff backoff = WORKLOAD_BACKOFF;
	uint64_t longest_before = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(ms) / sizeof(ms[0]); i++) {
		uint64_t usec = backoff_next(&backoff);

		assert_int_equal(usec, ms[i] * 1000);
		assert_true(usec == backoff.max_usec || backoff_spread(usec, 0) > longest_before);
		longest_before = backoff_spread(usec, UINT32_MAX);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_failure_in_a_row_doubles_the_wait_up_to_the_limit),
		cmocka_unit_test(what_worked_once_begins_anew),
		cmocka_unit_test(no_limit_is_passed_however_large),
		cmocka_unit_test(chance_moves_a_wait_by_a_quarter_and_no_more),
		cmocka_unit_test(a_workload_api_is_asked_after_half_a_second_and_at_last_each_half_minute),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
