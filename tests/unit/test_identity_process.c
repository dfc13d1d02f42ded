/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel and /proc say of a process, asked about real ones: in cgroups of their own, dead, renamed, in other namespaces, and
 * while they move. Namespaces, mounts and filters are those of one thread, so the other tests know nothing of them.
 */
#include "role_world.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "identity/process.h"

#define IOCTL_PIDFD_GET_INFO 0xff0bU /* type and number */
#define NS_PER_S 1000000000ULL
#define TICK_NS 10000000ULL /* of start times, at 100 per second */

struct child {
	pid_t pid;
	int pidfd;
};

struct child_spec {
	const char *cgroup; /* to go to; NULL: where it is */
	const char *name;   /* of its command */
	uid_t ruid;
};

/* One that does nothing until it is ended. */
static struct child child_start(const struct child_spec *spec)
{
	struct child child;
	int ready[2];
	char byte;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	child.pid = fork();
	if (child.pid == 0) {
		bool well = prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 &&
			    (spec->cgroup == NULL || cgroup_enter(spec->cgroup) == 0) &&
			    (spec->name == NULL || prctl(PR_SET_NAME, spec->name) == 0) &&
			    setresuid(spec->ruid, 0, 0) == 0;

		if (well && write(ready[1], "r", 1) == 1)
			pause();
		_exit(1);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	child.pidfd = (int)syscall(SYS_pidfd_open, child.pid, 0);
	assert_true(child.pidfd >= 0);
	return child;
}

static void child_kill(const struct child *child)
{
	siginfo_t info;

	kill(child->pid, SIGKILL);
	assert_int_equal(waitid(P_PID, (id_t)child->pid, &info, WEXITED | WNOWAIT), 0);
}

static void child_end(struct child *child)
{
	child_kill(child);
	waitpid(child->pid, NULL, 0);
	close(child->pidfd);
}

static int mount_open(void)
{
	int fd = open(cgroup2(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static int query_proc(int pidfd, struct process_facts *facts)
{
	int cgroup = mount_open();
	int r = process_query_proc(pidfd, cgroup, facts);

	close(cgroup);
	return r;
}

static uint64_t boottime_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* Runs it in a thread that ends with it. */
static int in_thread(void *(*act)(void *), void *arg)
{
	pthread_t thread;
	void *r;

	assert_int_equal(pthread_create(&thread, NULL, act, arg), 0);
	assert_int_equal(pthread_join(thread, &r), 0);
	return (int)(intptr_t)r;
}

#define RETURN(r) return (void *)(intptr_t)(r)

/* ---- the living ---- */

static void proc_says_what_the_kernel_says(void **state)
{
	struct process_facts kernel, proc;
	struct child child;
	struct stat st;
	char cgroup[128];

	(void)state;
	cgroup_make(cgroup, sizeof(cgroup), 0);
	child = child_start(&(struct child_spec){.cgroup = cgroup, .ruid = 1234});
	assert_int_equal(process_query(child.pidfd, &kernel), 0);
	assert_int_equal(query_proc(child.pidfd, &proc), 0);
	assert_int_equal(stat(cgroup, &st), 0);
	assert_int_equal(kernel.cgroup_id, st.st_ino);
	assert_int_equal(kernel.pid, child.pid);
	assert_int_equal(kernel.uid, 1234);
	assert_int_equal(fstat(child.pidfd, &st), 0);
	assert_int_equal(kernel.inode, st.st_ino);
	assert_int_equal(proc.inode, 0);
	proc.inode = kernel.inode;
	assert_memory_equal(&proc, &kernel, sizeof(proc));
	assert_int_equal(process_alive(child.pidfd), 0);
	child_end(&child);
	assert_int_equal(cgroup_remove(cgroup), 0);
}

static void a_process_in_the_root_cgroup_is_in_a_cgroup(void **state)
{
	struct child child = child_start(&(struct child_spec){.cgroup = cgroup2()});
	struct process_facts facts;
	struct stat st;

	(void)state;
	assert_int_equal(stat(cgroup2(), &st), 0);
	assert_int_equal(query_proc(child.pidfd, &facts), 0);
	assert_int_equal(facts.cgroup_id, st.st_ino);
	child_end(&child);
}

/* Whoever names its command as if the line went on gets no other start time by it. */
static void the_name_of_a_command_is_not_taken_for_what_follows_it(void **state)
{
	static const char *const names[] = {") S 1 1 1 1 1 1", "a) R 0 (b", "((((", "))))", " "};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		uint64_t before = boottime_ns();
		struct child child = child_start(&(struct child_spec){.name = names[i]});
		struct process_facts facts;
		int peer = process_open_peer(child.pid, boottime_ns());

		assert_true(peer >= 0);
		close(peer);
		assert_int_equal(process_open_peer(child.pid, before - TICK_NS), -ESRCH);
		assert_int_equal(query_proc(child.pidfd, &facts), 0);
		assert_int_equal(facts.pid, child.pid);
		child_end(&child);
	}
}

static void a_peer_is_who_had_the_pid_when_it_connected(void **state)
{
	uint64_t before = boottime_ns();
	struct child child = child_start(&(struct child_spec){0});
	struct process_facts facts;
	int peer = process_open_peer(child.pid, boottime_ns());

	(void)state;
	assert_true(peer >= 0);
	assert_int_equal(process_query(peer, &facts), 0);
	assert_int_equal(facts.pid, child.pid);
	close(peer);
	assert_int_equal(process_open_peer(child.pid, before - TICK_NS), -ESRCH);
	assert_int_equal(process_open_peer(0, boottime_ns()), -ESRCH);
	assert_int_equal(process_open_peer(-1, boottime_ns()), -ESRCH);
	child_kill(&child);
	assert_int_equal(process_open_peer(child.pid, boottime_ns()), -ESRCH);
	child_end(&child);
	assert_int_equal(process_open_peer(child.pid, boottime_ns()), -ESRCH);
}

static void *open_thread(void *arg)
{
	(void)arg;
	RETURN(process_open_peer((pid_t)syscall(SYS_gettid), boottime_ns()));
}

static void a_thread_is_nobody_who_connects(void **state)
{
	(void)state;
	assert_int_equal(in_thread(open_thread, NULL), -ESRCH);
}

/* ---- the dead ---- */

static void the_dead_are_not_described(void **state)
{
	struct child child = child_start(&(struct child_spec){0});
	struct process_facts facts;

	(void)state;
	for (int reaped = 0; reaped < 2; reaped++) {
		if (reaped == 0)
			child_kill(&child);
		else
			waitpid(child.pid, NULL, 0);
		assert_int_equal(process_query(child.pidfd, &facts), -ESRCH);
		assert_int_equal(query_proc(child.pidfd, &facts), -ESRCH);
		assert_int_equal(process_alive(child.pidfd), -ESRCH);
	}
	close(child.pidfd);
}

/* ---- what is no answer ---- */

static void what_is_no_pidfd_is_nobody(void **state)
{
	struct process_facts facts;
	int pair[2];

	(void)state;
	assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
	assert_int_equal(process_query(pair[0], &facts), -EOPNOTSUPP);
	assert_int_equal(query_proc(pair[0], &facts), -EBADF);
	close(pair[0]);
	close(pair[1]);
	assert_int_equal(process_query(pair[0], &facts), -EBADF);
	assert_int_equal(process_query(-1, &facts), -EBADF);
	assert_int_equal(query_proc(-1, &facts), -ESRCH);
}

static void what_is_no_cgroup_mount_names_no_cgroup(void **state)
{
	struct child child = child_start(&(struct child_spec){0});
	struct process_facts facts;
	int tmp = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	(void)state;
	assert_int_equal(process_query_proc(child.pidfd, tmp, &facts), -EOPNOTSUPP);
	assert_int_equal(process_query_proc(child.pidfd, -1, &facts), -EOPNOTSUPP);
	close(tmp);
	child_end(&child);
}

/* A /proc of files that say what their author likes. */
static void *query_under_lies(void *arg)
{
	const struct child *child = arg;
	struct process_facts facts;
	int cgroup = open(cgroup2(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char path[64];
	FILE *lie;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", child->pidfd);
	if (cgroup < 0 || unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("lies", "/proc", "tmpfs", 0, NULL) < 0 || mkdir("/proc/self", 0755) < 0 ||
	    mkdir("/proc/self/fdinfo", 0755) < 0)
		RETURN(-errno);
	lie = fopen(path, "we");
	if (lie == NULL || fprintf(lie, "Pid:\t1\n") < 0 || fclose(lie) != 0)
		RETURN(-EIO);
	RETURN(process_query_proc(child->pidfd, cgroup, &facts));
}

static void what_is_mounted_over_proc_is_not_believed(void **state)
{
	struct child child = child_start(&(struct child_spec){0});
	struct process_facts facts;

	(void)state;
	assert_int_equal(in_thread(query_under_lies, &child), -EOPNOTSUPP);
	assert_int_equal(query_proc(child.pidfd, &facts), 0);
	child_end(&child);
}

static void *query_from_cgroup_namespace(void *arg)
{
	const struct child *child = arg;
	struct process_facts facts;
	int cgroup = open(cgroup2(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (cgroup < 0 || unshare(CLONE_NEWCGROUP) < 0)
		RETURN(-errno);
	RETURN(process_query_proc(child->pidfd, cgroup, &facts));
}

/* Its path begins with "/..", and below the root that we see there may be another cgroup of that name. */
static void a_cgroup_outside_of_our_namespace_has_no_name(void **state)
{
	struct child outside = child_start(&(struct child_spec){0});
	char before[512] = "", cgroup[128];
	int r;

	(void)state;
	own_cgroup(before, sizeof(before));
	cgroup_make(cgroup, sizeof(cgroup), 0);
	assert_int_equal(cgroup_enter(cgroup), 0);
	r = in_thread(query_from_cgroup_namespace, &outside);
	assert_int_equal(cgroup_enter(before), 0);
	assert_int_equal(r, -EXDEV);
	child_end(&outside);
	assert_int_equal(cgroup_remove(cgroup), 0);
}

/* In a pid namespace with its own /proc, about a process that is not in it. */
static int query_from_pid_namespace(int pidfd)
{
	struct process_facts facts;
	int cgroup = open(cgroup2(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (cgroup < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("proc", "/proc", "proc", 0, NULL) < 0)
		return -errno;
	return process_query_proc(pidfd, cgroup, &facts);
}

static void a_process_outside_of_our_pid_namespace_cannot_be_looked_up(void **state)
{
	struct child child = child_start(&(struct child_spec){0});
	int status = 0;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		if (unshare(CLONE_NEWPID | CLONE_NEWNS) < 0)
			_exit(1);
		pid = fork();
		if (pid == 0)
			_exit(query_from_pid_namespace(child.pidfd) == -EOPNOTSUPP ? 77 : 1);
		_exit(waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 77);
	child_end(&child);
}

/* ---- one that moves ---- */

struct mover {
	const char *cgroups[2];
	pid_t pid;
	atomic_bool stop;
};

static void *keep_moving(void *arg)
{
	struct mover *mover = arg;
	int r = 0;

	for (unsigned i = 0; r == 0 && !mover->stop; i++) {
		char procs[160];
		FILE *file;

		snprintf(procs, sizeof(procs), "%s/cgroup.procs", mover->cgroups[i % 2]);
		file = fopen(procs, "we");
		if (file == NULL || fprintf(file, "%d", mover->pid) < 0)
			r = -EIO;
		if (file != NULL && fclose(file) != 0)
			r = -errno;
	}
	RETURN(r);
}

/* Either it was in one of the two while it was looked at, or there is no answer. */
static void one_that_moves_meanwhile_is_in_no_cgroup(void **state)
{
	char cgroups[2][128];
	struct mover mover = {.cgroups = {cgroups[0], cgroups[1]}};
	uint64_t until = boottime_ns() + WAIT_MS * 1000000ULL;
	unsigned answered = 0, refused = 0;
	int cgroup = mount_open();
	struct child child;
	struct stat st[2];
	pthread_t thread;
	void *moved;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		cgroup_make(cgroups[i], sizeof(cgroups[i]), i);
		assert_int_equal(stat(cgroups[i], &st[i]), 0);
	}
	child = child_start(&(struct child_spec){.cgroup = cgroups[0]});
	mover.pid = child.pid;
	assert_int_equal(pthread_create(&thread, NULL, keep_moving, &mover), 0);
	while ((answered < 20 || refused < 2) && boottime_ns() < until) {
		struct process_facts facts;
		int r = process_query_proc(child.pidfd, cgroup, &facts);

		assert_true(r == 0 || r == -ESRCH);
		if (r == 0)
			assert_true(facts.cgroup_id == st[0].st_ino || facts.cgroup_id == st[1].st_ino);
		answered += r == 0;
		refused += r == -ESRCH;
	}
	mover.stop = true;
	assert_int_equal(pthread_join(thread, &moved), 0);
	assert_null(moved);
	assert_true(answered >= 20 && refused >= 2);
	child_end(&child);
	close(cgroup);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(cgroup_remove(cgroups[i]), 0);
}

/* ---- older kernels ---- */

/* From here on, this thread's kernel has never heard of PIDFD_GET_INFO (Linux 6.13). */
static int make_kernel_old(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	int r = filter != NULL ? seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0) : -ENOMEM;

	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOTTY), SCMP_SYS(ioctl), 1,
				     SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffff, IOCTL_PIDFD_GET_INFO));
	if (r == 0)
		r = seccomp_load(filter);
	seccomp_release(filter);
	return r;
}

struct old_answers {
	int asked, self;
	struct process_facts facts;
};

static void *ask_old_kernel(void *arg)
{
	struct old_answers *answers = arg;
	int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0), r = make_kernel_old();

	answers->asked = process_query(pidfd, &answers->facts);
	answers->self = process_query_self(&answers->facts);
	close(pidfd);
	RETURN(r);
}

static void on_an_older_kernel_a_process_learns_of_itself_from_proc(void **state)
{
	struct old_answers old = {0};
	struct process_facts self;

	(void)state;
	assert_int_equal(process_query_self(&self), 0);
	assert_int_equal(in_thread(ask_old_kernel, &old), 0);
	assert_int_equal(old.asked, -EOPNOTSUPP);
	assert_int_equal(old.self, 0);
	assert_int_equal(old.facts.cgroup_id, self.cgroup_id);
	assert_int_equal(old.facts.pid, getpid());
	assert_int_equal(old.facts.uid, self.uid);
	assert_int_equal(old.facts.inode, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(proc_says_what_the_kernel_says),
		cmocka_unit_test(a_process_in_the_root_cgroup_is_in_a_cgroup),
		cmocka_unit_test(the_name_of_a_command_is_not_taken_for_what_follows_it),
		cmocka_unit_test(a_peer_is_who_had_the_pid_when_it_connected),
		cmocka_unit_test(a_thread_is_nobody_who_connects),
		cmocka_unit_test(the_dead_are_not_described),
		cmocka_unit_test(what_is_no_pidfd_is_nobody),
		cmocka_unit_test(what_is_no_cgroup_mount_names_no_cgroup),
		cmocka_unit_test(what_is_mounted_over_proc_is_not_believed),
		cmocka_unit_test(a_cgroup_outside_of_our_namespace_has_no_name),
		cmocka_unit_test(a_process_outside_of_our_pid_namespace_cannot_be_looked_up),
		cmocka_unit_test(one_that_moves_meanwhile_is_in_no_cgroup),
		cmocka_unit_test(on_an_older_kernel_a_process_learns_of_itself_from_proc),
	};

	if (!world_can_run())
		return 0;
	if (cgroup2() == NULL) {
		fprintf(stderr, "skipped: there is no cgroup2 mount\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
