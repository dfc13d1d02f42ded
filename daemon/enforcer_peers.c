// SPDX-License-Identifier: Apache-2.0
/*
 * Who is at the other end. The identity role can ask the kernel through a pidfd, and nothing else; where the kernel does not
 * answer (Linux before 6.13), looking into /proc is left to the enforcer, and only if the operator allows it: what is read
 * there in several steps is weaker than what the kernel says in one.
 */
#include "enforcer_internal.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "privileges.h"

int enforcer_process_query(struct enforcer *e, int pidfd, struct process_facts *facts)
{
	int r = process_query(pidfd, facts);

	if (r != -EOPNOTSUPP || e->cgroup_mount_fd < 0)
		return r;
	privileges_raise(); /* /proc may be mounted with hidepid */
	r = process_query_proc(pidfd, e->cgroup_mount_fd, facts);
	privileges_lower();
	return r;
}

/* Returns a pidfd of the process that connected, or -errno. */
static int peer_open(int sock, uint64_t accepted_ns)
{
	struct ucred credentials;
	int pidfd;
	socklen_t len = sizeof(pidfd);

	if (getsockopt(sock, SOL_SOCKET, PROCESS_SO_PEERPIDFD, &pidfd, &len) == 0)
		return pidfd;
	if (errno != ENOPROTOOPT)
		return -ESRCH;
	len = sizeof(credentials);
	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &credentials, &len) < 0)
		return -errno;
	privileges_raise();
	pidfd = process_open_peer(credentials.pid, accepted_ns);
	privileges_lower();
	return pidfd;
}

void enforcer_peer_query(struct enforcer *e, const struct ipc_peer_query *query, int fd)
{
	struct ipc_peer_facts answer = {
		.h = {.type = IPC_PEER_FACTS, .len = sizeof(answer)},
		.request = query->request,
		.error = -EOPNOTSUPP,
	};
	struct process_facts facts = {};
	int pidfd = -1;

	if (e->cgroup_mount_fd >= 0) {
		pidfd = peer_open(fd, query->accepted_ns);
		answer.error = pidfd < 0 ? pidfd : enforcer_process_query(e, pidfd, &facts);
	}
	if (answer.error == 0) {
		answer.cgroup_id = facts.cgroup_id;
		answer.pid = (uint32_t)facts.pid;
		answer.uid = facts.uid;
	}
	role_send(e->identity, &answer, answer.error == 0 ? pidfd : -1);
	if (pidfd >= 0)
		close(pidfd);
}
