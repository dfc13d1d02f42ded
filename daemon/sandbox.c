/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/netlink.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "roles.h"

#define NOBODY 65534
#define FETCHER_PROCESSES 1024

/* PIDFD_GET_INFO for its first published structure of 64 bytes, the only request identity has to make. */
#define REQUEST_PIDFD_GET_INFO _IOC(_IOC_READ | _IOC_WRITE, 0xFF, 11, 64)

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#if SANITIZED
/* The leak check at exit traces its own process from a thread, which no profile allows. It asks here first; there is
 * no way to hand it a context. */
static int sandboxed;
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
	return sandboxed;
}
#endif

static void filter_freep(scmp_filter_ctx *filter)
{
	seccomp_release(*filter);
}

static const int core_calls[] = {
	SCMP_SYS(read),	       SCMP_SYS(readv),	       SCMP_SYS(pread64),	SCMP_SYS(write),
	SCMP_SYS(writev),      SCMP_SYS(pwrite64),     SCMP_SYS(close),		SCMP_SYS(fstat),
	SCMP_SYS(lseek),       SCMP_SYS(munmap),       SCMP_SYS(mremap),	SCMP_SYS(brk),
	SCMP_SYS(madvise),     SCMP_SYS(futex),	       SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday),
	SCMP_SYS(getrandom),   SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigaction),	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(sigaltstack), SCMP_SYS(exit),	       SCMP_SYS(exit_group),	SCMP_SYS(getpid),
	SCMP_SYS(gettid),      SCMP_SYS(getuid),       SCMP_SYS(geteuid),	SCMP_SYS(restart_syscall),
};

/* What glibc and OpenSSL ask for only when there is much to do: qsort() of a large array asks how much memory there is,
 * malloc() how many processors, a lock spins. None tells more than /proc does, and none reaches beyond the process. */
static const int library_calls[] = {
	SCMP_SYS(sysinfo), SCMP_SYS(sched_getaffinity), SCMP_SYS(sched_yield), SCMP_SYS(getrusage),
	SCMP_SYS(times),   SCMP_SYS(clock_getres),	SCMP_SYS(getcpu),      SCMP_SYS(getrlimit),
};

static const int loop_calls[] = {
	SCMP_SYS(recvmsg),	 SCMP_SYS(recvfrom),	   SCMP_SYS(sendmsg),	      SCMP_SYS(sendto),
	SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl),	   SCMP_SYS(epoll_wait),      SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_pwait2),	 SCMP_SYS(timerfd_create), SCMP_SYS(timerfd_settime), SCMP_SYS(poll),
	SCMP_SYS(ppoll),
};

static const int server_calls[] = {
	SCMP_SYS(accept4), SCMP_SYS(accept), SCMP_SYS(shutdown), SCMP_SYS(getsockopt), SCMP_SYS(setsockopt),
};

static const int auditor_calls[] = {
	SCMP_SYS(newfstatat), SCMP_SYS(statx), SCMP_SYS(getdents64), SCMP_SYS(fsync), SCMP_SYS(fdatasync),
};

/* Connecting, looking up names, one process for each fetch. */
static const int fetcher_calls[] = {
	SCMP_SYS(connect),	   SCMP_SYS(bind),	  SCMP_SYS(shutdown),	     SCMP_SYS(getsockopt),
	SCMP_SYS(setsockopt),	   SCMP_SYS(getsockname), SCMP_SYS(getpeername),     SCMP_SYS(sendmmsg),
	SCMP_SYS(eventfd2),	   SCMP_SYS(pipe2),	  SCMP_SYS(memfd_create),    SCMP_SYS(newfstatat),
	SCMP_SYS(statx),	   SCMP_SYS(access),	  SCMP_SYS(getdents64),	     SCMP_SYS(uname),
	SCMP_SYS(getppid),	   SCMP_SYS(getgid),	  SCMP_SYS(getegid),	     SCMP_SYS(wait4),
	SCMP_SYS(waitid),	   SCMP_SYS(setitimer),	  SCMP_SYS(alarm),	     SCMP_SYS(close_range),
	SCMP_SYS(set_robust_list), SCMP_SYS(rseq),	  SCMP_SYS(set_tid_address),
};

/* What AddressSanitizer's runtime asks for, mostly while it writes a report. */
static const int sanitizer_calls[] = {SCMP_SYS(readlink)};

static int allow_all(scmp_filter_ctx filter, const int *calls, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0);

		if (r < 0)
			return r;
	}
	return 0;
}

#define ALLOW(filter, calls) allow_all(filter, calls, sizeof(calls) / sizeof((calls)[0]))

static int allow_if(scmp_filter_ctx filter, int call, struct scmp_arg_cmp condition)
{
	return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, 1, &condition);
}

/* Memory is never made executable; fstat() may come as newfstatat() with an empty path. */
static int allow_core(scmp_filter_ctx filter)
{
	static const int fcntl_commands[] = {F_GETFD, F_SETFD, F_GETFL, F_SETFL};
	int r = ALLOW(filter, core_calls);

	if (r == 0)
		r = ALLOW(filter, library_calls);
	/* Limits are read, never set. */
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 2, SCMP_A0(SCMP_CMP_EQ, 0, 0),
				     SCMP_A2(SCMP_CMP_EQ, 0, 0));
	if (r == 0)
		r = allow_if(filter, SCMP_SYS(mmap), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (r == 0)
		r = allow_if(filter, SCMP_SYS(mprotect), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (r == 0)
		r = allow_if(filter, SCMP_SYS(newfstatat), SCMP_A3(SCMP_CMP_EQ, AT_EMPTY_PATH, 0));
	for (size_t i = 0; r == 0 && i < sizeof(fcntl_commands) / sizeof(fcntl_commands[0]); i++)
		r = allow_if(filter, SCMP_SYS(fcntl), SCMP_A1(SCMP_CMP_EQ, (scmp_datum_t)fcntl_commands[i], 0));
	return r;
}

/* O_TMPFILE needs an access mode for writing, so the mode and O_CREAT, O_TRUNC are all there is to look at. */
static int allow_open_for_reading(scmp_filter_ctx filter)
{
	return allow_if(filter, SCMP_SYS(openat), SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY));
}

/* A new process or thread, but no new namespace. clone3() has its flags in memory, where no filter sees them; the C library
 * then uses clone(). */
static int allow_fork(scmp_filter_ctx filter)
{
	static const unsigned namespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
					   CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWTIME;
	/* Nor may they be anybody else's children. */
	int r = allow_if(filter, SCMP_SYS(clone), SCMP_A0(SCMP_CMP_MASKED_EQ, namespaces | CLONE_PARENT, 0));

	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	/* The children end with their parent, and cannot choose otherwise. */
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 2,
				     SCMP_A0(SCMP_CMP_EQ, PR_SET_PDEATHSIG, 0), SCMP_A1(SCMP_CMP_EQ, SIGKILL, 0));
	return r;
}

/* Streams, and datagrams to ask for names. Of netlink only what the C library sorts addresses by: its routes. */
static int allow_sockets(scmp_filter_ctx filter)
{
	static const int families[] = {AF_INET, AF_INET6, AF_UNIX}, types[] = {SOCK_STREAM, SOCK_DGRAM};
	const scmp_datum_t mask = UINT32_MAX & ~(scmp_datum_t)(SOCK_CLOEXEC | SOCK_NONBLOCK);
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(families) / sizeof(families[0]); i++)
		for (size_t j = 0; r == 0 && j < sizeof(types) / sizeof(types[0]); j++)
			r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2,
					     SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families[i], 0),
					     SCMP_A1(SCMP_CMP_MASKED_EQ, mask, (scmp_datum_t)types[j]));
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 3, SCMP_A0(SCMP_CMP_EQ, AF_NETLINK, 0),
				     SCMP_A1(SCMP_CMP_MASKED_EQ, mask, SOCK_RAW),
				     SCMP_A2(SCMP_CMP_EQ, NETLINK_ROUTE, 0));
	if (r == 0)
		r = allow_if(filter, SCMP_SYS(socketpair), SCMP_A0(SCMP_CMP_EQ, AF_UNIX, 0));
	return r;
}

/* Looking up a name may load a library: that is refused, not punished, and then the ways that the C library has in itself are left,
 * files and DNS. */
static int allow_fetcher(scmp_filter_ctx filter)
{
	int r = ALLOW(filter, fetcher_calls);

	if (r == 0)
		r = allow_sockets(filter);
	/* A filter upon this one only narrows: role_sandbox_fetch(). */
	if (r == 0)
		r = allow_if(filter, SCMP_SYS(seccomp), SCMP_A0(SCMP_CMP_EQ, SECCOMP_SET_MODE_FILTER, 0));
	if (r == 0)
		r = allow_if(filter, SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, FIONREAD, 0));
	if (r == 0)
		r = allow_if(filter, SCMP_SYS(fcntl), SCMP_A1(SCMP_CMP_EQ, F_ADD_SEALS, 0));
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(mmap), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC));
	return r == 0 ? allow_fork(filter) : r;
}

static int allow_profile(scmp_filter_ctx filter, enum sandbox_profile profile)
{
	int r = allow_core(filter);

	if (r == 0 && profile != SANDBOX_COMPILER)
		r = ALLOW(filter, loop_calls);
	if (r == 0 && (profile == SANDBOX_IDENTITY || profile == SANDBOX_METRICS))
		r = ALLOW(filter, server_calls);
	if (r == 0 && profile == SANDBOX_IDENTITY)
		r = allow_if(filter, SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, REQUEST_PIDFD_GET_INFO, 0));
	if (r == 0 && profile == SANDBOX_AUDITOR)
		r = ALLOW(filter, auditor_calls);
	if (r == 0 && profile == SANDBOX_FETCHER)
		r = allow_fetcher(filter);
	if (r == 0 && (profile == SANDBOX_AUDITOR || profile == SANDBOX_FETCHER || SANITIZED))
		r = allow_open_for_reading(filter);
	if (r == 0 && SANITIZED)
		r = ALLOW(filter, sanitizer_calls);
	return r;
}

static int load_filter(enum sandbox_profile profile)
{
	__attribute__((cleanup(filter_freep))) scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r;

	if (filter == NULL)
		return -ENOMEM;
	r = allow_profile(filter, profile);
	return r < 0 ? r : seccomp_load(filter);
}

/* The number of processes is that of all of nobody's. */
static int limit_resources(enum sandbox_profile profile)
{
	static const struct rlimit none = {0, 0}, some = {FETCHER_PROCESSES, FETCHER_PROCESSES};

	if (setrlimit(RLIMIT_CORE, &none) < 0 ||
	    setrlimit(RLIMIT_NPROC, profile == SANDBOX_FETCHER ? &some : &none) < 0)
		return -errno;
	return 0;
}

/* Bounding set and groups first, while the right to change them is there. */
static int drop_ids_and_capabilities(void)
{
	bool may_bound, may_set_ids;

	if (capng_get_caps_process() != 0)
		return -EPERM;
	may_bound = capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP);
	may_set_ids = capng_have_capability(CAPNG_EFFECTIVE, CAP_SETUID);
	capng_clear(CAPNG_SELECT_BOTH);
	if (may_bound && capng_apply(CAPNG_SELECT_BOUNDS) != 0)
		return -EPERM;
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return -errno;
	if ((may_set_ids || geteuid() == 0) &&
	    (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0))
		return -errno;
	capng_clear(CAPNG_SELECT_BOTH);
	if (capng_apply(CAPNG_SELECT_CAPS) != 0 || capng_get_caps_process() != 0 ||
	    capng_have_capabilities(CAPNG_SELECT_CAPS) != CAPNG_NONE)
		return -EPERM;
	return 0;
}

/* The compiler does not look at its socket while it works. A change of ids takes the signal back, so it is asked for after that; whose
 * parent ended before has nobody at the other end. */
static int end_with_parent(void)
{
	struct pollfd p = {.fd = ROLE_FD_IPC};

	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return -errno;
	return poll(&p, 1, 0) > 0 && p.revents & POLLHUP ? -ESRCH : 0;
}

int role_sandbox(enum sandbox_profile profile)
{
	int r;

	tzset(); /* gmtime() and timegm() would open /etc/localtime when first used */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	r = drop_ids_and_capabilities();
	if (r == 0)
		r = limit_resources(profile);
	if (r == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		r = -errno;
	if (r == 0 && profile == SANDBOX_COMPILER)
		r = end_with_parent();
	if (r == 0)
		r = load_filter(profile);
#if SANITIZED
	sandboxed = 1;
#endif
	return r;
}

int role_sandbox_fetch(void)
{
	static const int gone[] = {SCMP_SYS(prctl), SCMP_SYS(seccomp), SCMP_SYS(memfd_create)};
	__attribute__((cleanup(filter_freep))) scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	/* no_new_privs is set, and setting it takes the prctl() that is not there. */
	int r = filter == NULL ? -ENOMEM : seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0);

	/* Threads are the library's way to look up names; another process would outlive the role. */
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, SCMP_SYS(clone), 1,
				     SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0));
	for (size_t i = 0; r == 0 && i < sizeof(gone) / sizeof(gone[0]); i++)
		r = seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, gone[i], 0);
	return r < 0 ? r : seccomp_load(filter);
}
