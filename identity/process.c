/* SPDX-License-Identifier: Apache-2.0 */
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

/* struct pidfd_info of linux/pidfd.h, first published size (64 bytes): the size is part of the ioctl's number, and later
 * kernels accept this one. */
struct pidfd_info_v0 {
	uint64_t mask;
	uint64_t cgroupid;
	uint32_t pid;
	uint32_t tgid;
	uint32_t ppid;
	uint32_t ruid;
	uint32_t rgid;
	uint32_t euid;
	uint32_t egid;
	uint32_t suid;
	uint32_t sgid;
	uint32_t fsuid;
	uint32_t fsgid;
	int32_t exit_code;
};
_Static_assert(sizeof(struct pidfd_info_v0) == 64, "PIDFD_INFO_SIZE_VER0");

#define GET_INFO _IOWR(0xFF, 11, struct pidfd_info_v0)
#define INFO_PID (1U << 0)
#define INFO_CREDS (1U << 1)
#define INFO_CGROUPID (1U << 2)

/*
 * A dead process is told in three ways: an error, a mask without the pid (a surviving holder of its socket can keep the
 * pidfd answering, measured on 6.18), and a pidfd that polls readable. Poll comes last: alive after the facts were read
 * means alive while they were.
 */
int process_query(int pidfd, struct process_facts *facts)
{
	struct pidfd_info_v0 info = {.mask = INFO_PID | INFO_CREDS | INFO_CGROUPID};
	struct pollfd dead = {.fd = pidfd, .events = POLLIN};
	struct stat st;

	if (ioctl(pidfd, GET_INFO, &info) < 0)
		return errno == ENOTTY || errno == EINVAL ? -EOPNOTSUPP : -errno;
	if (!(info.mask & INFO_PID) || info.tgid == 0)
		return -ESRCH;
	if (fstat(pidfd, &st) < 0)
		return -errno;
	if (poll(&dead, 1, 0) != 0)
		return -ESRCH;
	if (!(info.mask & INFO_CGROUPID) || info.cgroupid == 0)
		return -EOPNOTSUPP;
	facts->cgroup_id = info.cgroupid;
	facts->inode = st.st_ino;
	facts->pid = (pid_t)info.tgid;
	facts->uid = info.ruid;
	return 0;
}

/* ---- the same from /proc ---- */

#define PROC_MAGIC 0x9fa0
#define CGROUP2_MAGIC 0x63677270
#define CGROUP_PATH_MAX 4096

static void fd_closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static void freep(void *p)
{
	free(*(void **)p);
}

/* A whole small file of /proc, in malloc()ed memory with a NUL behind. A process that is gone: -ESRCH. */
static int proc_read(const char *path, char **textp)
{
	__attribute__((cleanup(fd_closep))) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	__attribute__((cleanup(freep))) char *text = NULL;
	size_t size = 2 * CGROUP_PATH_MAX, len = 0;
	struct statfs fs;

	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	/* What is mounted over it says what it likes. */
	if (fstatfs(fd, &fs) < 0 || fs.f_type != PROC_MAGIC)
		return -EOPNOTSUPP;
	text = malloc(size);
	if (text == NULL)
		return -ENOMEM;
	for (;;) {
		ssize_t n = read(fd, text + len, size - 1 - len);

		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
		if (len == size - 1)
			return -EFBIG;
	}
	text[len] = '\0';
	*textp = text;
	text = NULL;
	return 0;
}

static int proc_read_of(pid_t pid, const char *file, char **textp)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	return proc_read(path, textp);
}

/* The number behind `key` at the start of a line; false if there is none. */
static bool number_of(const char *text, const char *key, long long *numberp)
{
	size_t len = strlen(key);

	for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, len) == 0)
			return sscanf(line + len, "%lld", numberp) == 1;
	}
	return false;
}

/* The kernel says -1 of a process that is gone, and 0 of one in a pid namespace that is not ours. */
static int pid_of(int pidfd, pid_t *pidp)
{
	__attribute__((cleanup(freep))) char *text = NULL;
	char path[64];
	long long pid;
	int r;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	r = proc_read(path, &text);
	if (r < 0)
		return r;
	if (!number_of(text, "Pid:", &pid))
		return -EBADF;
	if (pid < 0)
		return -ESRCH;
	if (pid == 0)
		return -EOPNOTSUPP;
	*pidp = (pid_t)pid;
	return 0;
}

/* Field 22 of stat, in clock ticks since boot. The name of the command, in parentheses, may contain anything. */
static int start_of(pid_t pid, unsigned long long *ticksp)
{
	__attribute__((cleanup(freep))) char *text = NULL;
	const char *at;
	int r = proc_read_of(pid, "stat", &text);

	if (r < 0)
		return r;
	at = strrchr(text, ')');
	for (int field = 2; at != NULL && field < 22; field++)
		at = strchr(at + 1, ' ');
	return at != NULL && sscanf(at, "%llu", ticksp) == 1 ? 0 : -EBADMSG;
}

/* The cgroup2 line; cgroup1 hierarchies have others beside it. */
static int cgroup_path_of(pid_t pid, char out[CGROUP_PATH_MAX])
{
	__attribute__((cleanup(freep))) char *text = NULL;
	const char *line = NULL;
	size_t len;
	int r = proc_read_of(pid, "cgroup", &text);

	if (r < 0)
		return r;
	for (const char *at = text; at != NULL; at = strchr(at, '\n')) {
		at += *at == '\n';
		if (strncmp(at, "0::/", 4) == 0)
			line = at + 4;
	}
	if (line == NULL)
		return -EOPNOTSUPP;
	len = strcspn(line, "\n");
	if (len >= CGROUP_PATH_MAX)
		return -ENAMETOOLONG;
	/* "/../x": above the root of our cgroup namespace. */
	if (strncmp(line, "..", 2) == 0 && (line[2] == '/' || len == 2))
		return -EXDEV;
	memcpy(out, line, len);
	out[len] = '\0';
	return 0;
}

/* A cgroup's file handle is its id: 8 bytes (kernfs). */
static int cgroup_id_at(int cgroup_fd, const char *path, uint64_t *idp)
{
	union {
		struct file_handle handle;
		uint8_t bytes[sizeof(struct file_handle) + 8];
	} u = {.handle = {.handle_bytes = 8}};
	struct statfs fs;
	int mount;

	if (fstatfs(cgroup_fd, &fs) < 0 || fs.f_type != CGROUP2_MAGIC)
		return -EOPNOTSUPP;
	if (name_to_handle_at(cgroup_fd, path, &u.handle, &mount, path[0] ? 0 : AT_EMPTY_PATH) < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	if (u.handle.handle_bytes != 8)
		return -EOPNOTSUPP;
	memcpy(idp, u.handle.f_handle, 8);
	return 0;
}

int process_alive(int pidfd)
{
	struct pollfd dead = {.fd = pidfd, .events = POLLIN};
	int n = poll(&dead, 1, 0);

	return n < 0 ? -errno : n > 0 ? -ESRCH : 0;
}

int process_query_proc(int pidfd, int cgroup_fd, struct process_facts *facts)
{
	char path[CGROUP_PATH_MAX], again[CGROUP_PATH_MAX];
	__attribute__((cleanup(freep))) char *status = NULL;
	unsigned long long start, start_again;
	uint64_t cgroup_id = 0;
	long long uid;
	pid_t pid;
	int r = pid_of(pidfd, &pid);

	if (r == 0)
		r = start_of(pid, &start);
	if (r == 0)
		r = cgroup_path_of(pid, path);
	if (r == 0)
		r = cgroup_id_at(cgroup_fd, path, &cgroup_id);
	if (r == 0)
		r = proc_read_of(pid, "status", &status);
	if (r == 0)
		r = cgroup_path_of(pid, again);
	if (r == 0)
		r = start_of(pid, &start_again);
	/* Last: alive now, the pid was its own all the while. */
	if (r == 0)
		r = process_alive(pidfd);
	if (r < 0)
		return r;
	if (!number_of(status, "Uid:", &uid))
		return -EBADMSG;
	if (start != start_again || strcmp(path, again) != 0 || cgroup_id == 0)
		return -ESRCH;
	*facts = (struct process_facts){.cgroup_id = cgroup_id, .pid = pid, .uid = (uid_t)uid};
	return 0;
}

int process_open_peer(pid_t pid, uint64_t accepted_ns)
{
	__attribute__((cleanup(fd_closep))) int pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
	unsigned long long ticks, per_s = (unsigned long long)sysconf(_SC_CLK_TCK);
	int r, opened;

	if (pid <= 0)
		return -ESRCH;
	if (pidfd < 0)
		/* A thread's number, which newer kernels tell by ENOENT: not who connected. */
		return errno == EINVAL || errno == ENOENT ? -ESRCH : -errno;
	r = start_of(pid, &ticks);
	if (r == 0)
		r = process_alive(pidfd);
	if (r < 0)
		return r;
	if (ticks * (1000000000U / per_s) > accepted_ns)
		return -ESRCH;
	opened = pidfd;
	pidfd = -1;
	return opened;
}

static int cgroup_mount_open(void)
{
	static const char *const places[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
	struct statfs fs;

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		if (statfs(places[i], &fs) == 0 && fs.f_type == CGROUP2_MAGIC)
			return open(places[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return -1;
}

int process_query_self(struct process_facts *facts)
{
	__attribute__((cleanup(fd_closep))) int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0), cgroup = -1;
	int r;

	if (pidfd < 0)
		return -errno;
	r = process_query(pidfd, facts);
	if (r != -EOPNOTSUPP)
		return r;
	cgroup = cgroup_mount_open();
	return cgroup < 0 ? r : process_query_proc(pidfd, cgroup, facts);
}
