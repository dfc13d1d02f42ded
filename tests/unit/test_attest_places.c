/* SPDX-License-Identifier: Apache-2.0 */
/* Who gets a place for an attestation, and who loses it to whom. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "daemon/attest_places.h"

#define CGROUP 1000 /* and up */
#define UID 500

static struct attest_places places;
static struct attest_place *last; /* that was given */
static void *evicted;
static char holders[4 * ATTEST_PLACES]; /* each of them somebody */
static unsigned n_holders;

static int setup(void **state)
{
	(void)state;
	memset(&places, 0, sizeof(places));
	n_holders = 0;
	return 0;
}

static enum attest_place_answer take(uid_t uid, uint64_t cgroup_id)
{
	return attest_place_take(&places, uid, cgroup_id, &holders[n_holders++], &last, &evicted);
}

static void take_some(uid_t uid, uint64_t cgroup_id, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(take(uid, cgroup_id), ATTEST_PLACE_TAKEN);
		assert_null(evicted);
	}
}

/* What the holder of that number has lost its place to. */
static void expect_evicted(unsigned holder)
{
	assert_ptr_equal(evicted, &holders[holder]);
}

static void a_cgroup_has_so_many_whoever_runs_in_it(void **state)
{
	(void)state;
	take_some(0, CGROUP, ATTEST_PLACES_CGROUP - 1);
	take_some(UID, CGROUP, 1);
	assert_int_equal(take(0, CGROUP), ATTEST_PLACE_CGROUP_FULL);
	assert_int_equal(take(UID + 1, CGROUP), ATTEST_PLACE_CGROUP_FULL);
	attest_place_give_back(&places, last);
	assert_int_equal(places.taken, ATTEST_PLACES_CGROUP - 1);
	take_some(UID + 1, CGROUP, 1);
}

static void a_user_has_so_many_and_root_is_not_limited(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ATTEST_PLACES_UID; i++)
		take_some(UID, CGROUP + i / ATTEST_PLACES_CGROUP, 1);
	/* Its own cgroups only; the one that has as many as any gets none. */
	assert_int_equal(take(UID, CGROUP + 9), ATTEST_PLACE_TAKEN);
	expect_evicted(0);
	assert_int_equal(places.taken, ATTEST_PLACES_UID);
	for (unsigned i = 0; i < ATTEST_PLACES - ATTEST_PLACES_UID; i++)
		take_some(0, 2 * CGROUP + i, 1);
	assert_int_equal(places.taken, ATTEST_PLACES);
}

static void a_cgroup_grows_until_it_has_as_many_as_the_others_of_its_user(void **state)
{
	unsigned got = 0;

	(void)state;
	for (unsigned i = 0; i < ATTEST_PLACES_UID; i++)
		take_some(UID, CGROUP + i / ATTEST_PLACES_CGROUP, 1);
	while (take(UID, CGROUP + 9) == ATTEST_PLACE_TAKEN) {
		assert_non_null(evicted);
		got++;
	}
	assert_null(evicted);
	assert_int_equal(got, ATTEST_PLACES_UID / 5 + 1); /* the fifth of five */
	assert_int_equal(places.taken, ATTEST_PLACES_UID);
}

static void who_has_none_gets_one_from_the_user_with_the_most(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3; i++)
		for (unsigned k = 0; k < 4; k++)
			take_some(UID + i, CGROUP + 4 * i + k, ATTEST_PLACES_CGROUP);
	take_some(0, 2 * CGROUP, 16);
	for (unsigned i = 1; i < 49; i++)
		take_some(0, 2 * CGROUP + i, 1); /* 64, as each of the others */
	take(UID + 9, 3 * CGROUP);
	assert_non_null(evicted);
	/* Of its own, while nobody has more than it. */
	assert_int_equal(take(0, 3 * CGROUP), ATTEST_PLACE_TAKEN);
	assert_non_null(evicted);
	assert_int_equal(places.taken, ATTEST_PLACES);
}

/* Somebody has as many users and cgroups as there are places, and one place each. Then it is the order that counts: nobody is shut
 * out, and a place is kept until all the others have been taken again. */
static void where_all_have_one_the_oldest_goes(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ATTEST_PLACES; i++)
		take_some(UID + i, CGROUP + i, 1);
	for (unsigned i = 0; i < ATTEST_PLACES; i++) {
		assert_int_equal(take(2 * UID + i, 2 * CGROUP + i), ATTEST_PLACE_TAKEN);
		assert_non_null(evicted);
	}
	for (unsigned i = 0; i < ATTEST_PLACES; i++)
		assert_true(places.places[i].uid >= 2 * UID);
}

static void root_with_a_cgroup_for_each_place_shuts_out_neither_root_nor_others(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ATTEST_PLACES; i++)
		take_some(0, CGROUP + i, 1);
	assert_int_equal(take(0, 2 * CGROUP), ATTEST_PLACE_TAKEN);
	expect_evicted(0);
	assert_int_equal(take(UID, 3 * CGROUP), ATTEST_PLACE_TAKEN);
	expect_evicted(1);
	/* Who has one already has as many as any. */
	assert_int_equal(take(0, 2 * CGROUP), ATTEST_PLACE_ALL_FULL);
	assert_null(evicted);
}

static void a_place_whose_proof_is_there_is_kept(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ATTEST_PLACES; i++) {
		take_some(0, CGROUP + i, 1);
		last->kept = i != 7;
	}
	assert_int_equal(take(UID, 2 * CGROUP), ATTEST_PLACE_TAKEN);
	expect_evicted(7);
	last->kept = true;
	assert_int_equal(take(UID + 1, 3 * CGROUP), ATTEST_PLACE_ALL_FULL);
}

/* On an older kernel the cgroup comes later. */
static void a_cgroup_that_becomes_known_later_counts_then(void **state)
{
	struct attest_place *place;

	(void)state;
	take_some(UID, 0, ATTEST_PLACES_CGROUP + 2);
	for (unsigned i = 0; i < ATTEST_PLACES_CGROUP; i++)
		assert_int_equal(attest_place_settle(&places, &places.places[i], CGROUP), ATTEST_PLACE_TAKEN);
	place = &places.places[ATTEST_PLACES_CGROUP];
	assert_int_equal(attest_place_settle(&places, place, CGROUP), ATTEST_PLACE_CGROUP_FULL);
	attest_place_give_back(&places, place);
	assert_int_equal(places.taken, ATTEST_PLACES_CGROUP + 1);
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_cgroup_has_so_many_whoever_runs_in_it),
		TEST(a_user_has_so_many_and_root_is_not_limited),
		TEST(a_cgroup_grows_until_it_has_as_many_as_the_others_of_its_user),
		TEST(who_has_none_gets_one_from_the_user_with_the_most),
		TEST(where_all_have_one_the_oldest_goes),
		TEST(root_with_a_cgroup_for_each_place_shuts_out_neither_root_nor_others),
		TEST(a_place_whose_proof_is_there_is_kept),
		TEST(a_cgroup_that_becomes_known_later_counts_then),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
