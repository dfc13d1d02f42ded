/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories that cannot be read, or not all of them: nothing is left open, the reason is the one there is, and nothing is taken for
 * gone. fdopendir(3) and readdir(3) are ours here, so that they can fail.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/bundle_store.h"
#include "daemon/cgroup_tree.h"
#include "daemon/files.h"
#include "daemon/revisions.h"

static bool no_memory;
static int entries_read = -1; /* so many, and then there is an error; -1: all */

DIR *fdopendir(int fd)
{
	DIR *(*real)(int) = (DIR * (*)(int)) dlsym(RTLD_NEXT, "fdopendir");

	if (!no_memory)
		return real(fd);
	errno = ENOMEM;
	return NULL;
}

struct dirent *readdir(DIR *dir)
{
	struct dirent *(*real)(DIR *) = (struct dirent * (*)(DIR *)) dlsym(RTLD_NEXT, "readdir");

	if (entries_read != 0) {
		entries_read -= entries_read > 0;
		return real(dir);
	}
	errno = EIO;
	return NULL;
}

/* The lowest that is free. */
static int next_descriptor(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	close(fd);
	return fd;
}

static void fail_one(void *ctx, const char *trust_domain)
{
	(void)ctx;
	fail_msg("%s", trust_domain);
}

static void a_directory_that_there_is_no_memory_for_leaves_nothing_open(void **state)
{
	char path[] = "/tmp/bulkhead-directory-XXXXXX";
	uint32_t *numbers = NULL;
	DIR *dir = NULL;
	int fd, next;
	size_t n;

	(void)state;
	assert_non_null(mkdtemp(path));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	next = next_descriptor();
	no_memory = true;
	assert_int_equal(directory_open(AT_FDCWD, path, &dir), -ENOMEM);
	assert_null(dir);
	assert_int_equal(revisions_list(fd, &numbers, &n), -ENOMEM);
	assert_int_equal(bundle_store_each(fd, fail_one, NULL), -ENOMEM);
	no_memory = false;
	assert_int_equal(next_descriptor(), next);
	assert_int_equal(directory_open(fd, ".", &dir), 0);
	closedir(dir);
	rmdir(path);
	assert_int_equal(directory_open(AT_FDCWD, path, &dir), -ENOENT);
	close(fd);
}

static void cgroups_that_there_is_no_memory_for_are_not_gone(void **state)
{
	int fd = open("/sys/fs/cgroup", O_RDONLY | O_DIRECTORY | O_CLOEXEC), next;
	struct cgroup_tree tree = {0};

	(void)state;
	if (fd < 0 || cgroup_tree_read(&tree, fd, 0) < 0 || tree.n_nodes < 2) {
		cgroup_tree_clear(&tree);
		skip();
	}
	cgroup_tree_clear(&tree);
	next = next_descriptor();
	no_memory = true;
	assert_int_equal(cgroup_tree_read(&tree, fd, 0), -ENOMEM);
	no_memory = false;
	assert_int_equal(tree.n_nodes, 0);
	assert_int_equal(next_descriptor(), next);
	close(fd);
}

static void a_directory_of_which_not_all_was_read_is_not_taken_for_shorter(void **state)
{
	char path[] = "/tmp/bulkhead-directory-XXXXXX";
	uint32_t *numbers = NULL;
	size_t n = 0;
	int fd;

	(void)state;
	assert_non_null(mkdtemp(path));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(mkdirat(fd, "00000007.rev", 0700), 0);
	/* It has three entries: also at the end there can be an error. */
	for (int read = 0; read <= 3; read++) {
		entries_read = read;
		assert_int_equal(revisions_list(fd, &numbers, &n), -EIO);
		entries_read = read;
		assert_int_equal(bundle_store_each(fd, fail_one, NULL), -EIO);
	}
	entries_read = -1;
	assert_int_equal(revisions_list(fd, &numbers, &n), 0);
	assert_int_equal(n, 1);
	free(numbers);
	unlinkat(fd, "00000007.rev", AT_REMOVEDIR);
	close(fd);
	rmdir(path);
}

static void cgroups_that_cannot_be_looked_at_are_not_gone(void **state)
{
	int fd = open("/sys/fs/cgroup", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct cgroup_tree tree = {0};
	struct rlimit before, low;

	(void)state;
	if (fd < 0 || cgroup_tree_read(&tree, fd, 0) < 0 || tree.n_nodes < 2) {
		cgroup_tree_clear(&tree);
		skip();
	}
	cgroup_tree_clear(&tree);
	entries_read = 3;
	assert_int_equal(cgroup_tree_read(&tree, fd, 0), -EIO);
	entries_read = -1;
	assert_int_equal(tree.n_nodes, 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	low = before;
	/* Enough for the root, and not for what is below. */
	low.rlim_cur = (rlim_t)next_descriptor() + 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	assert_int_equal(cgroup_tree_read(&tree, fd, 0), -EMFILE);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(tree.n_nodes, 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_directory_that_there_is_no_memory_for_leaves_nothing_open),
		cmocka_unit_test(cgroups_that_there_is_no_memory_for_are_not_gone),
		cmocka_unit_test(a_directory_of_which_not_all_was_read_is_not_taken_for_shorter),
		cmocka_unit_test(cgroups_that_cannot_be_looked_at_are_not_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
