/* SPDX-License-Identifier: Apache-2.0 */
/*
 * process.h - what the kernel says of the process behind a pidfd.
 *
 * A pid is a name that is reused; a pidfd is the process. Both ends of an attestation ask the kernel the same question
 * about the same process, one through SO_PEERPIDFD and one about itself, and compare the answers. The constants are
 * spelled out because the answer needs Linux 6.13, and headers are often older than kernels.
 */
#ifndef BULKHEAD_IDENTITY_PROCESS_H
#define BULKHEAD_IDENTITY_PROCESS_H

#include <stdint.h>
#include <sys/types.h>

/* Socket options and control message of Linux 6.5. */
#define PROCESS_SO_PASSPIDFD 76
#define PROCESS_SO_PEERPIDFD 77
#define PROCESS_SCM_PIDFD 4

struct process_facts {
	uint64_t cgroup_id; /* cgroup v2 */
	uint64_t inode;	    /* of the pidfd: unique per process within a boot; 0 from /proc, where it may not be */
	pid_t pid;	    /* for people */
	uid_t uid;	    /* real, in the caller's user namespace */
};

/* Asks the kernel. Returns 0; -ESRCH if the process is dead; -EOPNOTSUPP if this kernel cannot say; or -errno. */
int process_query(int pidfd, struct process_facts *facts);
/*
 * The same for kernels that lack PIDFD_GET_INFO, from /proc, where each fact is read on its own: the process's start time
 * and cgroup are read twice and must agree, and it must be alive after that, so they were of one process in one cgroup.
 * A process that moves away and back between the reads goes unseen: this is weaker than asking the kernel at once.
 * `cgroup_fd` is the mount point of cgroup2. Returns also -EXDEV: the cgroup lies outside of what that mount shows.
 */
int process_query_proc(int pidfd, int cgroup_fd, struct process_facts *facts);
/* A pidfd of who connected, where the kernel only says SO_PEERCRED (Linux before 6.5). A pid may be another process's by
 * now; one that started after `accepted_ns` (CLOCK_BOOTTIME) did not connect. Returns the pidfd, -ESRCH, or -errno. */
int process_open_peer(pid_t pid, uint64_t accepted_ns);
/* Has it ended? 0, -ESRCH, or -errno. */
int process_alive(int pidfd);
/* The facts of the calling process, from /proc where the kernel does not tell them otherwise: nobody lies to a process
 * about itself who could not also control it. */
int process_query_self(struct process_facts *facts);

#endif
