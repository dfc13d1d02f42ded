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
	uint64_t inode;	    /* of the pidfd: unique per process within a boot */
	pid_t pid;	    /* for people */
	uid_t uid;	    /* real, in the caller's user namespace */
};

/* Asks the kernel. Returns 0; -ESRCH if the process is dead; -EOPNOTSUPP if this kernel cannot say; or -errno. */
int process_query(int pidfd, struct process_facts *facts);
/* The same of the calling process. */
int process_query_self(struct process_facts *facts);

#endif
