/* SPDX-License-Identifier: Apache-2.0 */
/*
 * role_process.h - what is the same in the process of every role that waits for packets of the enforcer and for others.
 *
 * The enforcer decides when a role ends, by closing its end of the socket: signals that reach the role do not. Its pings, which
 * ask whether the role still comes to its socket, are answered here. Packets go before everything else that is waited for.
 */
#ifndef BULKHEAD_DAEMON_ROLE_PROCESS_H
#define BULKHEAD_DAEMON_ROLE_PROCESS_H

#include <stdbool.h>
#include <systemd/sd-event.h>

struct role_process {
	const char *name;     /* of the role, for log lines */
	int ipc_fd;	      /* borrowed */
	sd_event *event;      /* made by role_process_open() */
	sd_event_source *ipc; /* the socket's; likewise */
	bool over;	      /* the enforcer has closed its end: the role is about to end */
	/* A packet came that ipc_receive() checked. Returns false if the role knows no such type. What came beside it, *fdp or -1, is
	 * closed afterwards; who keeps it sets *fdp to -1. */
	bool (*packet)(void *ctx, int type, const void *packet, int *fdp);
	void (*room)(void *ctx); /* the socket takes more; for who sets EPOLLOUT in `ipc`, else NULL */
	void *ctx;
};

/* Ignores signals, makes the socket non-blocking and begins to wait for packets; the other fields are set already. Before
 * role_sandbox(). Returns 0 or -errno. */
int role_process_open(struct role_process *process);
/* Tells the enforcer that the role is ready, and runs until that closes its end. `set_up`: 0, or -errno for what could not be
 * set up. Returns the exit status. */
int role_process_run(struct role_process *process, int set_up);
void role_process_close(struct role_process *process);
/* Tells the enforcer something that it counts on, with `fd` beside it unless it is -1 (not closed): waits for room, as the enforcer
 * reads all the time and its pings end a role that it does not hear of. Where the enforcer is gone, so is the role, in order and
 * without a word. Returns 0 or -errno, logged unless `over`. */
int role_process_tell(struct role_process *process, const void *packet, int fd);

#endif
