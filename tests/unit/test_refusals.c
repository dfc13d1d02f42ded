/* SPDX-License-Identifier: Apache-2.0 */
/* Which refusals are told one by one, and that the sum of what is told is exact. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "daemon/refusals.h"
#include "identity/attest.h"

#define SECOND 1000000000ULL

static int setup(void **state)
{
	return refusals_new((struct refusals **)state);
}

static int teardown(void **state)
{
	refusals_freep((struct refusals **)state);
	return 0;
}

static struct ipc_tag_request refusal_of(uint32_t uid, uint64_t cgroup_id, uint32_t code)
{
	struct ipc_tag_request refusal = {.h = {IPC_ATTEST_REFUSED, sizeof(refusal)}};

	refusal.uid = uid;
	refusal.cgroup_id = cgroup_id;
	refusal.code = code;
	snprintf(refusal.text, sizeof(refusal.text), "no %u", code);
	return refusal;
}

static void hold(struct refusals *refusals, uint32_t uid, uint64_t cgroup_id, uint32_t code)
{
	struct ipc_tag_request refusal = refusal_of(uid, cgroup_id, code);

	refusals_hold(refusals, &refusal);
}

static unsigned turns(struct refusals *refusals, uint32_t uid, uint64_t cgroup_id, uint64_t now_ns, unsigned tries)
{
	unsigned n = 0;

	while (tries-- > 0)
		n += refusals_take_turn(refusals, uid, cgroup_id, now_ns);
	return n;
}

static void each_user_in_each_cgroup_has_its_turns(void **state)
{
	struct refusals *refusals = *state;

	assert_int_equal(turns(refusals, 1, 10, SECOND, 100), REFUSALS_BURST);
	assert_int_equal(turns(refusals, 2, 10, SECOND, 100), REFUSALS_BURST);
	assert_int_equal(turns(refusals, 1, 11, SECOND, 100), REFUSALS_BURST);
	assert_int_equal(turns(refusals, 1, 10, 2 * SECOND, 100), REFUSALS_PER_S);
	assert_int_equal(turns(refusals, 1, 10, 4 * SECOND, 100), 2 * REFUSALS_PER_S);
	assert_int_equal(turns(refusals, 1, 10, 1000 * SECOND, 100), REFUSALS_BURST);
	assert_int_equal(turns(refusals, 1, 10, 999 * SECOND, 100), 0); /* a clock that goes back gives nothing */
}

static void who_has_many_cgroups_has_no_more_turns_than_all_together(void **state)
{
	struct refusals *refusals = *state;
	unsigned n = 0;

	for (unsigned i = 0; i < 1000; i++)
		n += turns(refusals, 1, 10 + i, SECOND, 2);
	assert_int_equal(n, REFUSALS_ALL_BURST);
	for (unsigned i = 0; i < 1000; i++)
		n += turns(refusals, 1, 10 + i, 2 * SECOND, 2);
	assert_int_equal(n, REFUSALS_ALL_BURST + REFUSALS_ALL_PER_S);
}

static void one_that_is_held_is_told_as_it_is(void **state)
{
	struct refusals *refusals = *state;
	struct ipc_tag_request told;

	assert_false(refusals_next(refusals, &told));
	hold(refusals, 1, 10, ATTEST_E_SIGNATURE);
	assert_int_equal(refusals_held(refusals), 1);
	assert_true(refusals_next(refusals, &told));
	assert_int_equal(told.count, 1);
	assert_string_equal(told.text, "no 8");
	assert_int_equal(told.cgroup_id, 10);
	refusals_told(refusals);
	assert_int_equal(refusals_held(refusals), 0);
	assert_false(refusals_next(refusals, &told));
}

static void those_alike_are_told_together_in_the_order_of_the_first(void **state)
{
	struct refusals *refusals = *state;
	struct ipc_tag_request told;

	for (unsigned i = 0; i < 1235; i++) {
		hold(refusals, 1, 10, ATTEST_E_SIGNATURE);
		if (i < 2)
			hold(refusals, 1, 10, ATTEST_E_FULL);
	}
	assert_true(refusals_next(refusals, &told));
	assert_int_equal(told.code, ATTEST_E_SIGNATURE);
	assert_int_equal(told.count, 1235);
	assert_string_equal(told.text, "no 8; and 1234 more like it");
	/* Until it is told it goes on counting. */
	hold(refusals, 1, 10, ATTEST_E_SIGNATURE);
	assert_true(refusals_next(refusals, &told));
	assert_int_equal(told.count, 1236);
	refusals_told(refusals);
	assert_true(refusals_next(refusals, &told));
	assert_int_equal(told.code, ATTEST_E_FULL);
	assert_int_equal(told.count, 2);
	refusals_told(refusals);
	assert_int_equal(refusals_held(refusals), 0);
}

static void what_has_no_entry_is_counted_all_the_same(void **state)
{
	struct refusals *refusals = *state;
	struct ipc_tag_request told;
	unsigned sum = 0, packets = 0;

	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < 1000; i++)
			hold(refusals, i, 10 + i % 7, ATTEST_E_PROTOCOL + i % 3);
		assert_int_equal(refusals_held(refusals), 1000);
		for (; refusals_next(refusals, &told); refusals_told(refusals)) {
			sum += told.count;
			packets++;
		}
		assert_int_equal(told.code, ATTEST_E_MANY); /* the last one */
		assert_int_equal(told.cgroup_id, 0);
		assert_int_equal(told.count, 1000 - REFUSALS_ENTRIES);
	}
	assert_int_equal(sum, 2000);
	assert_int_equal(packets, 2 * (REFUSALS_ENTRIES + 1));
}

/* The rest is told before entries that came later, and may come again behind them. */
static void the_rest_keeps_its_place_in_the_order(void **state)
{
	struct refusals *refusals = *state;
	struct ipc_tag_request told;
	unsigned sum = 0;

	for (unsigned i = 0; i < REFUSALS_ENTRIES + 3; i++)
		hold(refusals, i, 10, ATTEST_E_PROTOCOL);
	for (unsigned i = 0; i < REFUSALS_ENTRIES; i++) {
		assert_true(refusals_next(refusals, &told));
		assert_int_equal(told.uid, i);
		sum += told.count;
		refusals_told(refusals);
	}
	hold(refusals, 7, 11, ATTEST_E_PROTOCOL);
	for (; refusals_next(refusals, &told); refusals_told(refusals))
		sum += told.count;
	assert_int_equal(told.cgroup_id, 11);
	assert_int_equal(sum, REFUSALS_ENTRIES + 4);
}

static void what_is_held_at_the_end_is_freed(void **state)
{
	struct refusals *refusals = *state;

	for (unsigned i = 0; i < 2 * REFUSALS_ENTRIES; i++)
		hold(refusals, i, 10, ATTEST_E_PROTOCOL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(each_user_in_each_cgroup_has_its_turns),
		TEST(who_has_many_cgroups_has_no_more_turns_than_all_together),
		TEST(one_that_is_held_is_told_as_it_is),
		TEST(those_alike_are_told_together_in_the_order_of_the_first),
		TEST(what_has_no_entry_is_counted_all_the_same),
		TEST(the_rest_keeps_its_place_in_the_order),
		TEST(what_is_held_at_the_end_is_freed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
