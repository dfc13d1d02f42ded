/* SPDX-License-Identifier: Apache-2.0 */
/*
 * roles.h - starting the roles, and starting them again.
 *
 * A role is this program executed anew with `--role`, so that nothing of the enforcer's memory is in it. It finds its
 * descriptors at fixed numbers, gives up all rights before it reads input, and talks to the enforcer over one
 * socketpair. What it does not take at once waits for it, in order (outbox.h). A role that ends is started again, at once
 * the first time and then with growing delay; enforcement does not depend on it.
 */
#ifndef BULKHEAD_DAEMON_ROLES_H
#define BULKHEAD_DAEMON_ROLES_H

#include <stddef.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

enum role_kind {
	ROLE_IDENTITY,
	ROLE_AUDITOR,
	ROLE_METRICS, /* runs only where metrics are asked for */
	ROLE_FETCHER, /* runs only where bundles come from outside */
	ROLES,
};

const char *role_name(enum role_kind kind);

/* Descriptors of a role, by number. */
#define ROLE_FD_IPC 3
#define ROLE_FD_FIRST                                                                                                  \
	4 /* identity, metrics: listening socket; auditor: ring, counters, subtree, config; compiler: compile_process.h */

struct role;

struct role_ops {
	/* The role was started (again): its socket is ready for what it needs to know. */
	void (*started)(void *ctx, enum role_kind kind, int sock, unsigned restarts, const char *why);
	/* The role ended. First `unsent` for each packet that waited for it, in order; then `ended`. What the role has to
	 * know it is told anew when it starts again. Each may be NULL. */
	void (*unsent)(void *ctx, enum role_kind kind, const void *packet);
	void (*ended)(void *ctx, enum role_kind kind);
	/* A packet came; `fd` is the callee's. */
	void (*packet)(void *ctx, enum role_kind kind, const void *packet, int type, int fd);
};

/* Starts and supervises a role. `fds` (n of them, at most 4) become ROLE_FD_FIRST and up in it; borrowed. Returns 0 or
 * -errno. */
int role_new(struct role **rolep, sd_event *event, enum role_kind kind, const int *fds, size_t n,
	     const struct role_ops *ops, void *ctx);
/* Ends the role: lets it take what waits for it, closes its socket, lets it finish for a moment, then kills it. */
void role_freep(struct role **rolep);
/* Lets the role finish and be started again with the descriptors as they are now. */
void role_renew(struct role *role);
/* Sends a packet, or keeps it until the role takes it; `fd` is borrowed. Returns 0, -ENOTCONN while the role is not
 * running, -ENOBUFS when too much waits already, or -errno. */
int role_send(struct role *role, const void *packet, int fd);
pid_t role_pid(const struct role *role);
unsigned role_restarts(const struct role *role);

/* Starts the one-shot compiler (compile_process.h), with these descriptors from ROLE_FD_IPC on; borrowed. Returns its pid or
 * -errno. */
pid_t role_spawn_compiler(const char *name, const int *fds, size_t n);
/* If argv asks for a role, runs it and returns 1 with its exit status in *statusp; else returns 0. */
int role_dispatch(int argc, char **argv, int *statusp);

#endif
