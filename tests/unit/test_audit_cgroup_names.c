/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <fcntl.h>
#include <mntent.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/cgroup_names.h"

#define SECOND 1000000000ULL

static char base[512]; /* a cgroup of our own, or "" where none can be made */

static int make_tree(void **state)
{
	FILE *mounts = setmntent("/proc/self/mounts", "r");
	struct mntent *mount;

	(void)state;
	while (mounts && (mount = getmntent(mounts)))
		if (!strcmp(mount->mnt_type, "cgroup2") && !base[0])
			snprintf(base, sizeof(base), "%s/bulkhead-names-%d", mount->mnt_dir, getpid());
	if (mounts)
		endmntent(mounts);
	if (base[0] && mkdir(base, 0755) < 0)
		base[0] = '\0';
	return 0;
}

static int remove_tree(void **state)
{
	(void)state;
	return base[0] ? rmdir(base) : 0;
}

static uint64_t make(const char *path)
{
	char full[1024];
	struct stat st;

	snprintf(full, sizeof(full), "%s%s", base, path);
	if (path[0])
		assert_int_equal(mkdir(full, 0755), 0);
	assert_int_equal(stat(full, &st), 0);
	return st.st_ino;
}

static void drop(const char *path)
{
	char full[1024];

	snprintf(full, sizeof(full), "%s%s", base, path);
	assert_int_equal(rmdir(full), 0);
}

static void cgroups_are_found_by_their_id(void **state)
{
	struct cgroup_names *names;
	uint64_t root, a, b, c;
	int fd;

	(void)state;
	if (!base[0])
		skip();
	fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(cgroup_names_new(&names, fd), 0);
	root = make("");
	a = make("/a");
	b = make("/a/b.service");
	assert_string_equal(cgroup_names_path(names, b, SECOND), "/a/b.service");
	assert_string_equal(cgroup_names_path(names, a, SECOND), "/a");
	assert_string_equal(cgroup_names_path(names, root, SECOND), "/");
	assert_null(cgroup_names_path(names, 1ULL << 60, SECOND));

	/* New ones are found by the next walk, which does not come before its time. */
	c = make("/a/c");
	assert_null(cgroup_names_path(names, c, SECOND + SECOND / 100));
	assert_string_equal(cgroup_names_path(names, c, 2 * SECOND), "/a/c");

	/* The dead are still known: their last events are yet to be read. */
	drop("/a/c");
	drop("/a/b.service");
	drop("/a");
	assert_null(cgroup_names_path(names, 1ULL << 60, 3 * SECOND));
	assert_string_equal(cgroup_names_path(names, b, 3 * SECOND), "/a/b.service");

	/* One of the same name is another cgroup. */
	a = make("/a");
	assert_string_equal(cgroup_names_path(names, a, 5 * SECOND), "/a");
	drop("/a");
	cgroup_names_freep(&names);
	close(fd);
}

/* More than there is room for: that costs nothing but the names. */
static void a_name_from_elsewhere_needs_no_walk(void **state)
{
	struct cgroup_names *names;
	clock_t start = clock();
	char path[32];

	(void)state;
	assert_int_equal(cgroup_names_new(&names, -1), 0);
	for (uint64_t id = 0; id < 70000; id++) {
		snprintf(path, sizeof(path), "/%llu", (unsigned long long)id);
		cgroup_names_add(names, id << 32 | id, path);
	}
	for (uint64_t id = 0; id < 60000; id++) {
		snprintf(path, sizeof(path), "/%llu", (unsigned long long)id);
		assert_string_equal(cgroup_names_path(names, id << 32 | id, SECOND), path);
	}
	cgroup_names_freep(&names);
	assert_true(clock() - start < CLOCKS_PER_SEC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cgroups_are_found_by_their_id),
		cmocka_unit_test(a_name_from_elsewhere_needs_no_walk),
	};

	return cmocka_run_group_tests(tests, make_tree, remove_tree);
}
