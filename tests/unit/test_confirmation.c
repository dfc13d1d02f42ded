// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/confirmation.h"

static int dir_fd = -1;
static char dir[] = "/tmp/bulkhead-confirmation-XXXXXX";

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY);
	return dir_fd < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	(void)state;
	close(dir_fd);
	return rmdir(dir);
}

static void write_one(void)
{
	struct confirmation c = {.revision = 8, .previous = 7, .deadline_ns = UINT64_MAX - 1};

	assert_int_equal(confirmation_boot_id(c.boot_id), 0);
	assert_int_equal(strlen(c.boot_id), 36);
	assert_int_equal(confirmation_write(dir_fd, &c), 0);
}

static void what_waits_is_read_as_it_was_written(void **state)
{
	struct confirmation c;
	char boot_id[37];

	(void)state;
	assert_int_equal(confirmation_read(dir_fd, &c), -ENOENT);
	write_one();
	assert_int_equal(confirmation_read(dir_fd, &c), 0);
	assert_int_equal(c.revision, 8);
	assert_int_equal(c.previous, 7);
	assert_true(c.deadline_ns == UINT64_MAX - 1);
	assert_int_equal(confirmation_boot_id(boot_id), 0);
	assert_string_equal(c.boot_id, boot_id);
	assert_int_equal(confirmation_remove(dir_fd), 0);
	assert_int_equal(confirmation_remove(dir_fd), 0);
	assert_int_equal(confirmation_read(dir_fd, &c), -ENOENT);
}

static void a_write_that_fails_leaves_the_one_before(void **state)
{
	struct confirmation c = {.revision = 9};

	(void)state;
	write_one();
	assert_int_equal(mkdirat(dir_fd, "confirmation.new", 0700), 0);
	assert_true(confirmation_write(dir_fd, &c) < 0);
	assert_int_equal(unlinkat(dir_fd, "confirmation.new", AT_REMOVEDIR), 0);
	assert_int_equal(confirmation_read(dir_fd, &c), 0);
	assert_int_equal(c.revision, 8);
	assert_int_equal(confirmation_remove(dir_fd), 0);
}

static void a_damaged_record_is_refused(void **state)
{
	unsigned char bytes[128];
	struct confirmation c;
	ssize_t len;
	int fd;

	(void)state;
	write_one();
	fd = openat(dir_fd, "confirmation", O_RDWR);
	len = read(fd, bytes, sizeof(bytes));
	assert_in_range(len, 40, 100);
	for (ssize_t n = 0; n < len; n++) {
		assert_int_equal(ftruncate(fd, n), 0);
		assert_int_equal(confirmation_read(dir_fd, &c), -EBADMSG);
		assert_int_equal(c.revision, 0);
		assert_int_equal(pwrite(fd, bytes, (size_t)len, 0), len);
	}
	assert_int_equal(pwrite(fd, "x", 1, len), 1);
	assert_int_equal(confirmation_read(dir_fd, &c), -EBADMSG);
	assert_int_equal(ftruncate(fd, len), 0);
	for (ssize_t n = len - 12; n < len; n++) /* the end of the boot id, which must be a string */
		bytes[n] = 'x';
	assert_int_equal(pwrite(fd, bytes, (size_t)len, 0), len);
	assert_int_equal(confirmation_read(dir_fd, &c), -EBADMSG);
	close(fd);
	assert_int_equal(confirmation_remove(dir_fd), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_waits_is_read_as_it_was_written),
		cmocka_unit_test(a_write_that_fails_leaves_the_one_before),
		cmocka_unit_test(a_damaged_record_is_refused),
	};

	return cmocka_run_group_tests_name("confirmation", tests, setup, teardown);
}
