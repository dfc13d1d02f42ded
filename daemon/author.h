/* SPDX-License-Identifier: Apache-2.0 */
/*
 * author.h - who asks for a change, beyond the uid that the control socket tells: as whom they logged in, through which
 * processes the command came, and the sockets that those processes hold, one of which is the operator's own connection.
 *
 * All is read from /proc, beginning with the pid that SO_PEERCRED told. It is there to record and to warn; nothing is
 * permitted for it: a process may call itself what it likes.
 */
#ifndef BULKHEAD_DAEMON_AUTHOR_H
#define BULKHEAD_DAEMON_AUTHOR_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define AUTHOR_NO_LOGIN UINT32_MAX

struct author {
	uid_t uid;
	pid_t pid;
	uint32_t login_uid; /* AUTHOR_NO_LOGIN: none, or the kernel keeps none */
	char via[160];	    /* "policyctl < sudo < bash < sshd"; printable ASCII */
	char from[64];	    /* the other end of their connection, "192.0.2.7:51022"; "" if it is not known */
	uint64_t *sockets;  /* inode numbers, sorted; owned */
	size_t n_sockets;
};

/* Reads what can be read; the rest is left empty. `pidfd` (-1: none) holds the process: if it has ended meanwhile, its
 * number may have been another's while it was read, and nothing of that is kept. For author_clear(). */
void author_read(struct author *author, uid_t uid, pid_t pid, int pidfd);
void author_clear(struct author *author);

#endif
