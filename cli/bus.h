/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bus.h - calls to the daemon over RUNDIR/control.sock (daemon/control_api.h).
 *
 * Every function prints its own error, once, and returns an exit code of cli.h, so that a command only passes it on:
 * the daemon cannot be reached or failed is CLI_UNREACHABLE; "no" from the daemon (invalid policy, unknown revision or
 * identity) is CLI_NO.
 */
#ifndef BULKHEAD_CLI_BUS_H
#define BULKHEAD_CLI_BUS_H

#include <systemd/sd-bus.h>

#include "cli/cli.h"
#include "policy/policy.h"

/* Does anybody listen on the control socket? Says nothing. */
bool cli_bus_is_there(const struct cli *cli);
/* Connects. *busp is for cli_bus_closep. */
int cli_bus_open(struct cli *cli, sd_bus **busp);
void cli_bus_closep(sd_bus **busp);
void cli_message_unrefp(sd_bus_message **messagep);

/* Makes a call of a method without arguments, or with those appended to it. */
int cli_bus_method(sd_bus *bus, const char *member, sd_bus_message **callp);
/* Sends it and waits; *replyp is unreferenced by the caller. */
int cli_bus_call(struct cli *cli, sd_bus *bus, sd_bus_message *call, sd_bus_message **replyp);
/* A "no" that the caller handles itself. */
struct cli_no {
	const char *name; /* one of those that were given; NULL: there was none */
	char *text;	  /* malloc()ed */
};

/* The same, but an error that is among `names`, which NULL ends, is not printed: *no says which, and CLI_NO is returned. */
int cli_bus_ask(struct cli *cli, sd_bus *bus, sd_bus_message *call, const char *const *names, sd_bus_message **replyp,
		struct cli_no *no);
void cli_no_free(struct cli_no *no);
/* Appends the files of a policy, a(say). Returns an exit code, having said why. */
int cli_bus_append_files(sd_bus_message *call, const struct policy_source *files, size_t n);
/* For a reply that is not what control_api.h promises. Returns CLI_UNREACHABLE. */
int cli_bus_malformed(struct cli *cli, const char *member);

/* Connects, calls a method without arguments that answers with JSON text, and parses it; *valuep is a new reference. */
int cli_bus_json(struct cli *cli, const char *member, json_t **valuep);

/* A command that shows a list, which one method without arguments answers with. */
struct cli_list {
	const char *member;
	const char *none; /* said of an empty list */
	void (*print)(struct cli *cli, const json_t *list);
};

/* All of such a command: takes no arguments, calls, prints. Returns an exit code. */
int cli_bus_list(struct cli *cli, int argc, char **argv, const struct cli_command *command,
		 const struct cli_list *list);

/* A revision as the daemon keeps it. */
struct cli_revision {
	uint32_t revision;
	struct policy_source *files; /* malloc()ed, with malloc()ed names and texts */
	size_t n_files;
	char *digest;
	uint64_t applied_usec;
	uint32_t uid;
	char *comment;
};

/* Fetches revision `number`; 0 is the one in force. */
int cli_bus_show(struct cli *cli, uint32_t number, struct cli_revision *out);
/* The same, but that there is none, or that its file is damaged, is not printed: *no says so, and CLI_NO is returned. */
int cli_bus_show_if(struct cli *cli, uint32_t number, struct cli_revision *out, struct cli_no *no);
void cli_revision_free(struct cli_revision *revision);

/* RFC 3339, UTC, to the second. */
void cli_format_time(uint64_t seconds, char *out, size_t size);
/* "", or text[] / number / bool at a dotted path such as "policy.revision" of a JSON object; "" and 0 if missing. */
const char *cli_json_string(const json_t *object, const char *path);
json_int_t cli_json_int(const json_t *object, const char *path);
bool cli_json_true(const json_t *object, const char *path);
json_t *cli_json_get(const json_t *object, const char *path);

#endif
