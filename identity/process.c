/* SPDX-License-Identifier: Apache-2.0 */
#include "process.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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

int process_query_self(struct process_facts *facts)
{
	int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0), r;

	if (pidfd < 0)
		return -errno;
	r = process_query(pidfd, facts);
	close(pidfd);
	return r;
}
