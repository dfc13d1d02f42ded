/* SPDX-License-Identifier: Apache-2.0 */
/*
 * change.h - what `apply` and `rollback` share: a call that brings another policy into force.
 *
 * The daemon refuses one that would end the connection that it was asked over. An operator at a terminal is asked then;
 * anybody else must have said --yes.
 */
#ifndef BULKHEAD_CLI_CHANGE_H
#define BULKHEAD_CLI_CHANGE_H

#include <systemd/sd-bus.h>

#include "cli/cli.h"

struct cli_change {
	uint32_t revision;
	uint32_t replaced;
	uint32_t rules;
	uint32_t sockets_cut;
};

/* Makes the call, to be applied even if it cuts the session if `even_if_cut`. Returns an exit code, having said why. */
typedef int (*cli_change_call)(void *ctx, sd_bus *bus, bool even_if_cut, sd_bus_message **callp);

struct cli_change_ops {
	cli_change_call call;
	/* The daemon says that the policy is not valid, and why. Says so, and returns an exit code. NULL: its text is shown. */
	int (*invalid)(struct cli *cli, void *ctx, const char *text);
	/* Shows the warnings of a policy, before a question about it is asked (text NULL), or when it is in force. NULL: they
	 * have been seen. */
	void (*warn)(struct cli *cli, void *ctx, const char *text);
};

/* `what` as in "Apply all the same?". Returns an exit code, having said why. */
int cli_change_run(struct cli *cli, const char *what, bool yes, const struct cli_change_ops *ops, void *ctx,
		   struct cli_change *result);
/* SSH_CONNECTION, of ours or else of the nearest process that we were started by and that has it; or "". */
const char *cli_session(void);

#endif
