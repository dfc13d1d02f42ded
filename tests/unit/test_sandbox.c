/* SPDX-License-Identifier: Apache-2.0 */
/* Each case runs in a child that sandboxes itself for real; without root there is nothing to give up, so skip. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "daemon/sandbox.h"

#define EXIT_NO_SANDBOX 99

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#endif

/* Status of a child that sandboxes itself and then returns what `action` returns. */
static int run_in(enum sandbox_profile profile, int (*action)(void))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		if (role_sandbox(profile) < 0)
			_exit(EXIT_NO_SANDBOX);
		_exit(action());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void assert_killed(int status)
{
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSYS);
}

static void assert_done(int status)
{
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static int make_inet_socket(void)
{
	return socket(AF_INET, SOCK_STREAM, 0) < 0;
}

static int make_unix_socket(void)
{
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) < 0;
}

static int open_for_writing(void)
{
	return open("/tmp/bulkhead-sandbox-test", O_WRONLY | O_CREAT, 0600) < 0;
}

static int open_for_reading(void)
{
	return open("/proc/sys/kernel/osrelease", O_RDONLY) < 0;
}

static int execute(void)
{
	execl("/bin/true", "true", (char *)NULL);
	return 1;
}

static int start_process(void)
{
	return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) < 0;
}

static int send_signal(void)
{
	return kill(getppid(), 0);
}

static int make_memory_executable(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED;
}

/* What a process that was taken over would reach for; arguments do not matter, as the number alone decides. */
static const struct {
	const char *name;
	long number;
} forbidden[] = {
	{"connect", SYS_connect},
	{"bind", SYS_bind},
	{"ptrace", SYS_ptrace},
	{"bpf", SYS_bpf},
	{"process_vm_readv", SYS_process_vm_readv},
	{"pidfd_getfd", SYS_pidfd_getfd},
	{"execveat", SYS_execveat},
	{"clone3", SYS_clone3},
	{"unshare", SYS_unshare},
	{"setns", SYS_setns},
	{"mount", SYS_mount},
	{"keyctl", SYS_keyctl},
	{"perf_event_open", SYS_perf_event_open},
	{"userfaultfd", SYS_userfaultfd},
	{"io_uring_setup", SYS_io_uring_setup},
	{"memfd_create", SYS_memfd_create},
	{"unlinkat", SYS_unlinkat},
	{"renameat2", SYS_renameat2},
	{"fchmodat", SYS_fchmodat},
	{"truncate", SYS_truncate},
	{"openat2", SYS_openat2},
	{"setuid", SYS_setuid},
	{"capset", SYS_capset},
	{"prctl", SYS_prctl},
	{"init_module", SYS_init_module},
};
static size_t attempt; /* index of the one to try, for the child */

static int try_forbidden(void)
{
	syscall(forbidden[attempt].number, 0, 0, 0, 0, 0, 0);
	return 1;
}

/* Any ioctl() but the one that asks for a process's cgroup. */
static int other_ioctl(void)
{
	return (int)syscall(SYS_ioctl, 0, 0x5413 /* TIOCGWINSZ */, 0);
}

static int receive(void)
{
	char byte;

	recv(0, &byte, 1, MSG_DONTWAIT);
	return 0;
}

static int compute(void)
{
	void *big = malloc(64U << 20);
	time_t now = time(NULL);
	struct tm tm;

	if (big == NULL || gmtime_r(&now, &tm) == NULL || timegm(&tm) != now)
		return 1;
	memset(big, 1, 64U << 20);
	free(big);
	return write(STDERR_FILENO, "", 0) != 0;
}

/* Asked by raw calls that the profile allows; what it does not allow is read before. */
static int compare_ints(const void *a, const void *b)
{
	int left = *(const int *)a, right = *(const int *)b;

	return (left > right) - (left < right);
}

/* Large arrays make glibc ask how much memory there is. */
static int sort_much(void)
{
	size_t n = 1U << 20;
	int *items = malloc(n * sizeof(*items));

	if (items == NULL)
		return 1;
	for (size_t i = 0; i < n; i++)
		items[i] = (int)(n - i);
	qsort(items, n, sizeof(*items), compare_ints);
	return items[0] != 1;
}

static int raise_limit(void)
{
	struct rlimit limit = {0, 0};

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 1;
	return setrlimit(RLIMIT_NOFILE, &limit) < 0;
}

static int is_nobody(void)
{
	return getuid() != 65534 || geteuid() != 65534;
}

static int make_packet_socket(void)
{
	return socket(AF_PACKET, SOCK_DGRAM, 0) < 0;
}

static int new_namespace(void)
{
	return syscall(SYS_clone, SIGCHLD | 0x10000000 /* CLONE_NEWUSER */, 0, 0, 0, 0) < 0;
}

/* As the C library asks for when a name is looked up in an unusual way. */
static int load_a_library(void)
{
	int fd = open("/proc/self/exe", O_RDONLY);

	return fd < 0 || mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) != MAP_FAILED || errno != EACCES;
}

static int fork_and_wait(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(7);
	return pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 7;
}

/* As attestations are asked for by. */
static int make_unix_packets(void)
{
	return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0) < 0;
}

static int make_datagram_sockets(void)
{
	return socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP) < 0 ||
	       socket(AF_INET6, SOCK_DGRAM, 0) < 0;
}

static int make_raw_socket(void)
{
	return socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) < 0;
}

static int ask_for_routes(void)
{
	return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE) < 0;
}

static int netlink_family; /* to be tried, by the child */

static int make_other_netlink(void)
{
	return socket(AF_NETLINK, SOCK_RAW, netlink_family) < 0;
}

static int make_memory_file(void)
{
	return memfd_create("x", 0) < 0;
}

static int one_more_filter(void)
{
	return syscall(SYS_seccomp, 1 /* SECCOMP_SET_MODE_FILTER */, 0, NULL) < 0;
}

static int end_with_parent(void)
{
	return prctl(PR_SET_PDEATHSIG, SIGKILL) < 0;
}

static int outlive_parent(void)
{
	return prctl(PR_SET_PDEATHSIG, 0) < 0;
}

static int be_dumpable(void)
{
	return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0;
}

static int have_a_name(void)
{
	return prctl(PR_SET_NAME, "init", 0, 0, 0) < 0;
}

static void fetcher_alone_connects_and_forks(void **state)
{
	(void)state;
	assert_done(run_in(SANDBOX_FETCHER, make_inet_socket));
	assert_done(run_in(SANDBOX_FETCHER, make_unix_socket));
	assert_done(run_in(SANDBOX_FETCHER, make_datagram_sockets));
	assert_done(run_in(SANDBOX_FETCHER, ask_for_routes));
	assert_done(run_in(SANDBOX_FETCHER, end_with_parent));
	assert_done(run_in(SANDBOX_FETCHER, fork_and_wait));
	assert_done(run_in(SANDBOX_FETCHER, open_for_reading));
	assert_done(run_in(SANDBOX_FETCHER, load_a_library));
	assert_done(run_in(SANDBOX_FETCHER, compute));
	assert_done(run_in(SANDBOX_FETCHER, is_nobody));
	assert_killed(run_in(SANDBOX_FETCHER, make_packet_socket));
	assert_killed(run_in(SANDBOX_FETCHER, make_raw_socket));
	assert_killed(run_in(SANDBOX_FETCHER, make_unix_packets));
	for (netlink_family = 1; netlink_family < 24; netlink_family++)
		assert_killed(run_in(SANDBOX_FETCHER, make_other_netlink));
	assert_killed(run_in(SANDBOX_FETCHER, outlive_parent));
	assert_killed(run_in(SANDBOX_FETCHER, be_dumpable));
	assert_killed(run_in(SANDBOX_FETCHER, have_a_name));
	assert_killed(run_in(SANDBOX_FETCHER, new_namespace));
	assert_killed(run_in(SANDBOX_FETCHER, open_for_writing));
	assert_killed(run_in(SANDBOX_FETCHER, execute));
	assert_killed(run_in(SANDBOX_FETCHER, send_signal));
	assert_killed(run_in(SANDBOX_FETCHER, raise_limit));
}

/* What one fetch runs in: its parent's sandbox and a filter more. */
static int (*fetch_action)(void);

static int run_as_fetch(void)
{
	return end_with_parent() != 0 || role_sandbox_fetch() < 0 ? EXIT_NO_SANDBOX : fetch_action();
}

static int run_fetch(int (*action)(void))
{
	fetch_action = action;
	return run_in(SANDBOX_FETCHER, run_as_fetch);
}

#ifndef SANITIZED /* the sanitizer's runtime names and sets up threads by calls of its own */
static void *thread_main(void *arg)
{
	*(int *)arg = 7;
	return NULL;
}

static int start_thread(void)
{
	pthread_t thread;
	int told = 0;

	return pthread_create(&thread, NULL, thread_main, &told) != 0 || pthread_join(thread, NULL) != 0 || told != 7;
}
#endif

static void a_fetch_ends_with_the_fetcher_and_starts_no_process(void **state)
{
	(void)state;
	assert_done(run_fetch(make_inet_socket));
	assert_done(run_fetch(ask_for_routes));
	assert_done(run_fetch(compute));
#ifndef SANITIZED
	assert_done(run_fetch(start_thread));
#endif
	assert_killed(run_fetch(start_process));
	assert_killed(run_fetch(fork_and_wait));
	assert_killed(run_fetch(end_with_parent));
	assert_killed(run_fetch(outlive_parent));
	assert_killed(run_fetch(make_memory_file));
	assert_killed(run_fetch(one_more_filter));
}

static void no_profile_can_make_a_socket(void **state)
{
	(void)state;
	assert_killed(run_in(SANDBOX_IDENTITY, make_inet_socket));
	assert_killed(run_in(SANDBOX_IDENTITY, make_unix_socket));
	assert_killed(run_in(SANDBOX_METRICS, make_inet_socket));
	assert_killed(run_in(SANDBOX_AUDITOR, make_inet_socket));
	assert_killed(run_in(SANDBOX_COMPILER, make_inet_socket));
}

static void no_profile_can_open_for_writing(void **state)
{
	(void)state;
	assert_killed(run_in(SANDBOX_IDENTITY, open_for_writing));
	assert_killed(run_in(SANDBOX_METRICS, open_for_writing));
	assert_killed(run_in(SANDBOX_AUDITOR, open_for_writing));
	assert_killed(run_in(SANDBOX_COMPILER, open_for_writing));
	assert_int_equal(access("/tmp/bulkhead-sandbox-test", F_OK), -1);
}

static void auditor_alone_opens_for_reading(void **state)
{
	(void)state;
	assert_done(run_in(SANDBOX_AUDITOR, open_for_reading));
#ifndef SANITIZED /* the sanitizer's runtime reads /proc */
	assert_killed(run_in(SANDBOX_IDENTITY, open_for_reading));
	assert_killed(run_in(SANDBOX_METRICS, open_for_reading));
	assert_killed(run_in(SANDBOX_COMPILER, open_for_reading));
#endif
}

static void no_profile_can_start_a_program_or_signal_one(void **state)
{
	(void)state;
	for (int profile = SANDBOX_COMPILER; profile <= SANDBOX_AUDITOR; profile++) {
		assert_killed(run_in((enum sandbox_profile)profile, execute));
		assert_killed(run_in((enum sandbox_profile)profile, start_process));
		assert_killed(run_in((enum sandbox_profile)profile, send_signal));
		assert_killed(run_in((enum sandbox_profile)profile, make_memory_executable));
		assert_killed(run_in((enum sandbox_profile)profile, raise_limit));
	}
}

static void no_profile_reaches_beyond_itself(void **state)
{
	(void)state;
	for (int profile = SANDBOX_COMPILER; profile <= SANDBOX_AUDITOR; profile++) {
		for (attempt = 0; attempt < sizeof(forbidden) / sizeof(forbidden[0]); attempt++) {
			int status = run_in((enum sandbox_profile)profile, try_forbidden);

			if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
				fail_msg("%s in profile %d: wait status %#x", forbidden[attempt].name, profile, status);
		}
		assert_killed(run_in((enum sandbox_profile)profile, other_ioctl));
	}
}

static void compiler_receives_nothing(void **state)
{
	(void)state;
	assert_killed(run_in(SANDBOX_COMPILER, receive));
	assert_done(run_in(SANDBOX_IDENTITY, receive));
}

static void every_profile_can_compute(void **state)
{
	(void)state;
	for (int profile = SANDBOX_COMPILER; profile <= SANDBOX_AUDITOR; profile++) {
		assert_done(run_in((enum sandbox_profile)profile, compute));
		assert_done(run_in((enum sandbox_profile)profile, is_nobody));
		assert_done(run_in((enum sandbox_profile)profile, sort_much));
	}
}

static int wait_for_end(void)
{
	char byte;

	return read(STDIN_FILENO, &byte, 1) != 0;
}

/* Seen from outside, in /proc: ids, groups, capabilities, no_new_privs, seccomp. */
static void sandboxed_process_has_no_rights(void **state)
{
	char path[64], line[256];
	int pipes[2], ready[2], status;
	unsigned found = 0;
	pid_t pid;
	FILE *file;

	(void)state;
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		close(pipes[1]);
		dup2(pipes[0], STDIN_FILENO);
		if (role_sandbox(SANDBOX_IDENTITY) < 0)
			_exit(EXIT_NO_SANDBOX);
		_exit(write(ready[1], "r", 1) != 1 || wait_for_end());
	}
	assert_int_equal(read(ready[0], line, 1), 1);
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	file = fopen(path, "r");
	assert_non_null(file);
	while (fgets(line, sizeof(line), file) != NULL) {
		static const char *const expected[] = {
			"Uid:\t65534\t65534\t65534\t65534\n",
			"Gid:\t65534\t65534\t65534\t65534\n",
			"Groups:\t \n",
			"CapInh:\t0000000000000000\n",
			"CapPrm:\t0000000000000000\n",
			"CapEff:\t0000000000000000\n",
			"CapBnd:\t0000000000000000\n",
			"CapAmb:\t0000000000000000\n",
			"NoNewPrivs:\t1\n",
			"Seccomp:\t2\n",
		};

		for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
			found += strcmp(line, expected[i]) == 0;
	}
	fclose(file);
	close(pipes[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_done(status);
	assert_int_equal(found, 10);
	close(pipes[0]);
	close(ready[0]);
	close(ready[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_profile_can_make_a_socket),
		cmocka_unit_test(fetcher_alone_connects_and_forks),
		cmocka_unit_test(a_fetch_ends_with_the_fetcher_and_starts_no_process),
		cmocka_unit_test(no_profile_can_open_for_writing),
		cmocka_unit_test(auditor_alone_opens_for_reading),
		cmocka_unit_test(no_profile_can_start_a_program_or_signal_one),
		cmocka_unit_test(no_profile_reaches_beyond_itself),
		cmocka_unit_test(compiler_receives_nothing),
		cmocka_unit_test(every_profile_can_compute),
		cmocka_unit_test(sandboxed_process_has_no_rights),
	};

	if (geteuid() != 0) {
		fprintf(stderr, "skipped: needs root\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
