/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli.h - what the commands of policyctl share.
 *
 * A command is one file, cmd_NAME.c, with one function of type cli_run_fn; main.c finds it in the table of commands.
 * Commands print results to stdout and everything else to stderr, and return one of the exit codes below.
 */
#ifndef BULKHEAD_CLI_CLI_H
#define BULKHEAD_CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum cli_exit {
	CLI_OK = 0, /* done, or the answer is yes */
	CLI_NO = 1, /* the answer is no: denied, invalid, refused */
	CLI_USAGE = 2,
	CLI_UNREACHABLE = 3, /* the daemon is not reachable, or failed */
};

struct cli {
	bool json;	     /* --json */
	bool colour;	     /* stdout is a terminal and NO_COLOR is not set */
	bool colour_err;     /* likewise stderr */
	const char *run_dir; /* --run-dir, BULKHEAD_RUN_DIR, or BH_RUN_DIR */
};

struct cli_command {
	const char *name;
	const char *summary;				    /* one line, for the list of commands */
	const char *usage;				    /* arguments, one line */
	const char *help;				    /* the rest of `--help`: options, exit codes, an example */
	int (*run)(struct cli *cli, int argc, char **argv); /* argv[0] is the command's name */
	bool streams; /* its stdout is a stream of lines, or another program's: a failure is told on stderr only */
};

/* One per command, defined in its cmd_NAME.c. */
extern const struct cli_command cmd_check, cmd_test, cmd_prove, cmd_explain, cmd_diff, cmd_lint, cmd_fmt, cmd_graph,
	cmd_schema, cmd_import, cmd_learn, cmd_apply, cmd_confirm, cmd_rollback, cmd_history, cmd_show, cmd_status,
	cmd_attest, cmd_run, cmd_svid, cmd_identities, cmd_bundles, cmd_revoke, cmd_rotate_key, cmd_reload, cmd_monitor,
	cmd_why_denied, cmd_top, cmd_ca;

/* Prints "policyctl NAME: MESSAGE" and a pointer to --help; returns CLI_USAGE. */
int cli_usage_error(const struct cli_command *command, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints "policyctl: MESSAGE" to stderr. */
void cli_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Likewise a text of several lines. In both, what could steer a terminal is shown as '?'. */
void cli_error_lines(const char *text);
/* For --json: the command has written a result by other means than cli_print_json. */
void cli_has_result(void);
/* For --json: the first of these messages as a result, unless a result was printed. */
void cli_print_failure(void);
/* A copy of a text from outside, such as a file name, that is UTF-8 and cannot steer a terminal; malloc()ed, never NULL. */
char *cli_printable(const char *text);
/* Escape sequence for a colour ("red", "green", "yellow", "bold", "dim", "reset"), or "" if colour is off. */
const char *cli_colour(const struct cli *cli, const char *name);
/* Prints a JSON value, indented, with a newline; consumes the reference. */
void cli_print_json(json_t *value);

/* Aligned columns for people: the first row is the head. Cells are copied. */
struct cli_table;
struct cli_table *cli_table_new(size_t columns);
void cli_table_row(struct cli_table *table, const char *const *cells);
void cli_table_print(const struct cli *cli, struct cli_table *table); /* prints and frees */

/* Reads a file, or "-" for stdin, of at most `max` bytes into malloc()ed memory with a NUL behind. On failure prints why
 * and returns -errno. */
int cli_read_file(const char *path, size_t max, char **textp, size_t *lenp);

#endif
