// SPDX-License-Identifier: Apache-2.0
/*
 * Real processes: one that holds a socket and has a strange name, and below it the one that asks, which holds none.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/author.h"

struct family {
	pid_t inner;
	uint64_t socket; /* of the outer one */
};

static pid_t outer;
static struct family family;

static void wait_for_the_end(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		pause();
}

/* In the outer process. The inner one tells when it has its name, the outer one then who it is. */
static void family_make(int out)
{
	int sock = socket(AF_INET, SOCK_STREAM, 0), fds[2];
	struct family f = {};
	struct stat st;
	char byte;

	prctl(PR_SET_NAME, "a) b\n(c");
	if (sock < 0 || fstat(sock, &st) < 0 || pipe(fds) < 0)
		_exit(1);
	f.socket = st.st_ino;
	f.inner = fork();
	if (f.inner == 0) {
		prctl(PR_SET_NAME, "policyctl");
		close(sock);
		if (write(fds[1], "x", 1) == 1)
			wait_for_the_end();
		_exit(1);
	}
	if (read(fds[0], &byte, 1) != 1 || write(out, &f, sizeof(f)) != sizeof(f))
		_exit(1);
	wait_for_the_end();
}

static int setup(void **state)
{
	int fds[2];

	(void)state;
	if (pipe(fds) < 0)
		return -1;
	outer = fork();
	if (outer == 0)
		family_make(fds[1]);
	close(fds[1]);
	if (read(fds[0], &family, sizeof(family)) != sizeof(family))
		return -1;
	close(fds[0]);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	kill(outer, SIGKILL); /* the inner one dies with it */
	waitpid(outer, NULL, 0);
	return 0;
}

static int holds(const struct author *author, uint64_t inode)
{
	for (size_t i = 0; i < author->n_sockets; i++)
		if (author->sockets[i] == inode)
			return 1;
	return 0;
}

static void the_way_and_the_sockets_of_all_ancestors_are_known(void **state)
{
	struct author author;

	(void)state;
	author_read(&author, 12, family.inner, -1);
	assert_int_equal(author.uid, 12);
	assert_int_equal(author.pid, family.inner);
	assert_ptr_equal(strstr(author.via, "policyctl < a) b?(c < test_author"), author.via);
	assert_true(holds(&author, family.socket));
	for (size_t i = 1; i < author.n_sockets; i++)
		assert_true(author.sockets[i - 1] <= author.sockets[i]);
	assert_string_equal(author.from, "");
	author_clear(&author);
	assert_int_equal(author.n_sockets, 0);
}

static void sockets_of_descendants_are_not_the_operators(void **state)
{
	struct author author;

	(void)state;
	author_read(&author, 0, getpid(), -1);
	assert_false(holds(&author, family.socket));
	author_clear(&author);
}

static void a_process_that_is_gone_leaves_its_uid_only(void **state)
{
	struct author author;
	pid_t gone = fork();

	(void)state;
	if (gone == 0)
		_exit(0);
	waitpid(gone, NULL, 0);
	author_read(&author, 12, gone, -1);
	assert_int_equal(author.uid, 12);
	assert_int_equal(author.login_uid, AUTHOR_NO_LOGIN);
	assert_string_equal(author.via, "");
	assert_int_equal(author.n_sockets, 0);
	author_clear(&author);
}

/* Whoever asked and ended could have left its number to somebody else: here, to what is left of itself. */
static void nothing_is_told_of_a_number_whose_process_has_ended(void **state)
{
	struct author author;
	siginfo_t info;
	pid_t child = fork();
	int pidfd;

	(void)state;
	if (child == 0) {
		pause();
		_exit(0);
	}
	pidfd = pidfd_open(child, 0);
	assert_true(pidfd >= 0);
	author_read(&author, 12, child, pidfd);
	assert_string_not_equal(author.via, "");
	author_clear(&author);
	kill(child, SIGKILL);
	assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
	author_read(&author, 12, child, -1);
	assert_string_not_equal(author.via, "");
	author_clear(&author);
	author_read(&author, 12, child, pidfd);
	assert_string_equal(author.via, "");
	assert_int_equal(author.login_uid, AUTHOR_NO_LOGIN);
	assert_int_equal(author.n_sockets, 0);
	assert_int_equal(author.uid, 12);
	assert_int_equal(author.pid, child);
	author_clear(&author);
	close(pidfd);
	waitpid(child, NULL, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_way_and_the_sockets_of_all_ancestors_are_known),
		cmocka_unit_test(sockets_of_descendants_are_not_the_operators),
		cmocka_unit_test(a_process_that_is_gone_leaves_its_uid_only),
		cmocka_unit_test(nothing_is_told_of_a_number_whose_process_has_ended),
	};

	return cmocka_run_group_tests_name("author", tests, setup, teardown);
}
