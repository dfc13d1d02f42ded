/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - the server of the control socket (control_api.h): D-Bus without a bus, over RUNDIR/control.sock.
 *
 * Who may connect is decided by the mode and the group of the socket, as the kernel checks it; nothing said inside the
 * protocol can widen that. Who called is what SO_PEERCRED tells, never what a message claims. The server only moves
 * messages: every answer comes from the operations below. No peer can stop the event loop: sockets do not block, the
 * number of connections and of replies that nobody reads is bounded, and when all places are taken the connection that
 * has been silent longest gives way.
 */
#ifndef BULKHEAD_DAEMON_CONTROL_H
#define BULKHEAD_DAEMON_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "policy/policy.h"

#define CONTROL_MAX_CONNECTIONS 32
#define CONTROL_GROUP "bulkhead"

/* What an operation answers when nothing failed. A negative errno is a fault. */
enum control_answer {
	CONTROL_DONE = 0,
	CONTROL_INVALID, /* apply: the policy is not valid; nothing changed */
	CONTROL_NO_REVISION,
	CONTROL_NO_IDENTITY,
	CONTROL_WOULD_CUT,   /* apply, rollback: it would end the session that asks; nothing changed */
	CONTROL_WAITING,     /* apply: a revision waits to be confirmed; nothing changed */
	CONTROL_NOT_WAITING, /* confirm: none does */
};

/* Who asks. */
struct control_caller {
	uid_t uid;
	pid_t pid;
	int pidfd;	     /* of it, borrowed; -1 where the kernel gives none */
	const char *session; /* what the caller says of its connection, as sshd(8) writes SSH_CONNECTION; "": nothing */
};

struct control_change {
	const struct policy_source *files;
	size_t n;
	const char *comment;
	uint32_t confirm_s; /* 0: for good */
	bool even_if_cut;   /* also if it ends the session that asks */
};

struct control_change_result {
	uint32_t revision;
	uint32_t replaced; /* in force before; 0: the built-in policy */
	uint32_t rules;
	uint32_t sockets_cut;
};

struct control_preview {
	uint32_t sockets_cut; /* that it would cut */
	bool session_cut;     /* one of them is the caller's: *textp says which, and by which rule */
};

struct control_revision {
	uint32_t revision;
	struct policy_source *files; /* array, names and texts malloc()ed; freed by the server */
	size_t n_files;
	char digest[65];       /* SHA-256, hex */
	uint64_t applied_usec; /* CLOCK_REALTIME */
	uid_t uid;	       /* who applied it */
	char *comment;	       /* malloc()ed, or NULL */
};

struct control_revoke_result {
	uint32_t tags;
	uint32_t sockets_cut;
};

/*
 * The operations. Each returns an enum control_answer or a negative errno. `*textp` is NULL on entry; an operation may
 * set it to a malloc()ed text, which the server frees: warnings (apply, done), diagnostics (apply, invalid), or the
 * sentence for the operator (any other answer, any fault). Sources are borrowed for the call.
 */
struct control_ops {
	int (*apply)(void *ctx, const struct control_change *change, const struct control_caller *caller,
		     struct control_change_result *out, char **textp);
	int (*preview)(void *ctx, const struct policy_source *files, size_t n, const struct control_caller *caller,
		       struct control_preview *out, char **textp);
	/* revision 0: the one before the one in force; while one waits to be confirmed, the one before that. */
	int (*rollback)(void *ctx, uint32_t revision, bool even_if_cut, const struct control_caller *caller,
			struct control_change_result *out, char **textp);
	int (*confirm)(void *ctx, const struct control_caller *caller, uint32_t *revision, char **textp);
	int (*show)(void *ctx, uint32_t revision, struct control_revision *out, char **textp);
	/* *textp: the JSON text when done. */
	int (*status)(void *ctx, char **textp);
	int (*identities)(void *ctx, char **textp);
	int (*bundles)(void *ctx, char **textp);
	int (*history)(void *ctx, char **textp);
	int (*top)(void *ctx, char **textp);
	int (*revoke)(void *ctx, const char *identity, uid_t uid, pid_t pid, struct control_revoke_result *out,
		      char **textp);
	int (*rotate_key)(void *ctx, uid_t uid, pid_t pid, uint64_t *epoch, char **textp);
	int (*reload)(void *ctx, uid_t uid, pid_t pid, char **textp);
};

struct control;

/*
 * Binds `path` (mode 0660, group `bulkhead` if the system has it; else 0600), and serves it on `event`. A socket that
 * is there but answers nobody is replaced. `ops` and `ctx` are borrowed until control_freep. Returns 0, -EADDRINUSE if
 * another daemon answers on `path`, or another -errno; a fault is logged.
 */
int control_new(struct control **controlp, sd_event *event, const char *path, const struct control_ops *ops, void *ctx);
/* Closes all connections and removes the socket. */
void control_freep(struct control **controlp);
/* Connections open now. */
unsigned control_connections(const struct control *control);

#endif
