/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/mounts.h"
#include "daemon/pins.h"

static void what_is_no_bpffs_is_told_from_what_cannot_be_looked_at(void **state)
{
	char dir[] = "/tmp/bulkhead-pins-XXXXXX", below[128], file[64], long_name[2000];

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(below, sizeof(below), "%s/not/there", dir);
	snprintf(file, sizeof(file), "%s/file", dir);
	close(open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	memset(long_name, 'a', sizeof(long_name));
	long_name[0] = '/';
	long_name[sizeof(long_name) - 1] = '\0';
	assert_int_equal(pins_directory_possible(dir), 0);
	assert_int_equal(pins_directory_possible(below), 0);
	assert_int_equal(pins_directory_possible(long_name), -ENAMETOOLONG);
	snprintf(below, sizeof(below), "%s/below", file);
	assert_int_equal(pins_directory_possible(below), -ENOTDIR);
	snprintf(below, sizeof(below), "%s/pins", dir);
	if (geteuid() == 0) {
		assert_int_equal(seteuid(65534), 0);
		assert_int_equal(pins_directory_possible(below), -EACCES);
		assert_int_equal(seteuid(0), 0);
	}
	unlink(file);
	rmdir(dir);
}

static void what_is_to_be_below_a_bpffs_is_possible(void **state)
{
	char bpffs[1024], below[1100];

	(void)state;
	if (mount_find("bpf", bpffs, sizeof(bpffs), NULL, 0) < 0)
		skip();
	snprintf(below, sizeof(below), "%s/bulkhead-unit-none/deeper", bpffs);
	assert_int_equal(pins_directory_possible(below), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_no_bpffs_is_told_from_what_cannot_be_looked_at),
		cmocka_unit_test(what_is_to_be_below_a_bpffs_is_possible),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
