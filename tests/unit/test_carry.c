// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <bpf/libbpf.h>
#include <string.h>

#include "bulkhead.skel.h"
#include "daemon/carry.h"

/* A map that was forgotten would be empty after an upgrade that changes it. */
static void every_pinned_map_says_how_it_is_carried(void **state)
{
	LIBBPF_OPTS(bpf_object_open_opts, options, .pin_root_path = "/nowhere");
	struct bulkhead *skeleton = bulkhead__open_opts(&options);
	const struct bpf_map *map;
	size_t n = 0;

	(void)state;
	assert_non_null(skeleton);
	bpf_object__for_each_map(map, skeleton->obj)
	{
		if (!bpf_map__pin_path(map))
			continue;
		n++;
		if (!carry_layout(bpf_map__name(map)))
			fail_msg("the map %s has no row in daemon/carry.c", bpf_map__name(map));
	}
	assert_true(n > 10);
	bulkhead__destroy(skeleton);
}

/* One store makes a policy the one in force: for all of its maps at once. */
static void maps_that_are_switched_together_have_one_number(void **state)
{
	(void)state;
	assert_int_equal(carry_layout("state"), carry_layout("tables"));
	assert_int_equal(carry_layout("state"), carry_layout("who"));
	assert_int_equal(carry_layout("no_such_map"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_pinned_map_says_how_it_is_carried),
		cmocka_unit_test(maps_that_are_switched_together_have_one_number),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
