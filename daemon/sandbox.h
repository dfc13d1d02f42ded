/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox.h - how a role gives up its rights before it reads anything that others wrote.
 *
 * Afterwards the process is nobody without groups and capabilities, can gain nothing by executing (it cannot execute),
 * leaves no core with keys or policies in it, cannot be traced by its own uid, and has a list of system calls: a call
 * outside the list kills it, and the enforcer starts the role again. No profile can open a file for writing, and
 * only the fetcher's can make a socket: a role works with the descriptors that it was given.
 */
#ifndef BULKHEAD_DAEMON_SANDBOX_H
#define BULKHEAD_DAEMON_SANDBOX_H

enum sandbox_profile {
	SANDBOX_COMPILER, /* reads and writes given descriptors; ends with its parent */
	SANDBOX_IDENTITY, /* accepts and serves connections on a given socket, in an event loop; opens nothing */
	SANDBOX_METRICS,  /* likewise */
	SANDBOX_AUDITOR,  /* event loop; opens files and directories for reading; writes and syncs given ones */
	SANDBOX_FETCHER,  /* event loop; connects to others and forks; opens files for reading; makes memfds */
};

/* For good. Call it once, single-threaded, with all descriptors, event loops and libraries set up. A process that has
 * neither root's uid nor CAP_SETUID keeps its uid. Returns 0, or -errno with the process in an undefined state: end it. */
int role_sandbox(enum sandbox_profile profile);
/* For a child of a fetcher, which has asked to end with its parent: it can start no process, and change nothing about that. Returns 0
 * or -errno. */
int role_sandbox_fetch(void);

#endif
