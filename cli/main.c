/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "daemon/control_api.h"
#include "policy/suggestion.h"

/* In the order of a policy's life: written, tried, in force, watched. */
static const struct cli_command *const commands[] = {
	&cmd_check,   &cmd_test,     &cmd_prove,      &cmd_explain, &cmd_diff,	 &cmd_lint,
	&cmd_fmt,     &cmd_graph,    &cmd_schema,     &cmd_import,  &cmd_learn,	 &cmd_apply,
	&cmd_confirm, &cmd_rollback, &cmd_history,    &cmd_show,    &cmd_status, &cmd_attest,
	&cmd_run,     &cmd_svid,     &cmd_identities, &cmd_bundles, &cmd_revoke, &cmd_rotate_key,
	&cmd_reload,  &cmd_monitor,  &cmd_why_denied, &cmd_top,	    &cmd_ca,
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void print_help(FILE *out)
{
	fputs("Usage: policyctl [--json] [--run-dir DIR] COMMAND [ARGUMENT]...\n\n", out);
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(out, "  %-12s %s\n", commands[i]->name, commands[i]->summary);
	fputs("\n  --json         results as JSON; may also follow the command\n"
	      "  --run-dir DIR  where the daemon has its sockets (" BH_RUN_DIR "; environment: BULKHEAD_RUN_DIR)\n"
	      "  --version      version\n"
	      "  --help         this text; `policyctl COMMAND --help` for one command\n\n"
	      "Exit codes: 0 done, or yes; 1 the answer is no (denied, invalid, refused); 2 usage; 3 the daemon is\n"
	      "not reachable or failed.\n",
	      out);
}

static void print_command_help(const struct cli_command *command)
{
	printf("Usage: policyctl %s%s%s\n%s.\n", command->name, *command->usage ? " " : "", command->usage,
	       command->summary);
	if (command->help && *command->help)
		printf("\n%s%s", command->help, command->help[strlen(command->help) - 1] == '\n' ? "" : "\n");
}

static const struct cli_command *command_find(const char *name)
{
	for (size_t i = 0; i < N_COMMANDS; i++)
		if (!strcmp(commands[i]->name, name))
			return commands[i];
	return NULL;
}

static int unknown_command(const char *name)
{
	struct suggestion suggestion = {.wrong = name};
	const char *near = NULL;
	size_t len = strlen(name);

	for (size_t i = 0; i < N_COMMANDS; i++) {
		suggestion_offer(&suggestion, commands[i]->name);
		/* A beginning of a name is better than a slip. */
		if (len > 1 && !near && !strncmp(name, commands[i]->name, len))
			near = commands[i]->name;
	}
	if (!near)
		near = suggestion.best;
	if (near)
		cli_error("unknown command \"%s\"; did you mean \"%s\"?", name, near);
	else
		cli_error("unknown command \"%s\"", name);
	fputs("Try `policyctl --help`.\n", stderr);
	return CLI_USAGE;
}

/* Takes one global option at argv[i]. Returns how many arguments it took, 0 if it is none, -1 if its value is missing. */
static int global_option(struct cli *cli, int argc, char **argv, int i)
{
	if (!strcmp(argv[i], "--json")) {
		cli->json = true;
		return 1;
	}
	if (!strncmp(argv[i], "--run-dir=", 10)) {
		cli->run_dir = argv[i] + 10;
		return 1;
	}
	if (!strcmp(argv[i], "--run-dir")) {
		if (i + 1 >= argc)
			return -1;
		cli->run_dir = argv[i + 1];
		return 2;
	}
	return 0;
}

/* Runs a command with the global options taken out of its arguments. What follows "--" is not ours to look at. */
static int run_command(struct cli *cli, const struct cli_command *command, int argc, char **argv)
{
	int kept = 1;

	for (int i = 1; i < argc;) {
		int taken = 0;

		if (!strcmp(argv[i], "--")) {
			while (i < argc)
				argv[kept++] = argv[i++];
			break;
		}
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			print_command_help(command);
			return CLI_OK;
		}
		taken = global_option(cli, argc, argv, i);
		if (taken < 0)
			return cli_usage_error(command, "%s needs a value", argv[i]);
		if (!taken)
			argv[kept++] = argv[i++];
		i += taken;
	}
	argv[kept] = NULL;
	return command->run(cli, kept, argv);
}

static int run_arguments(struct cli *cli, int argc, char **argv, const struct cli_command **commandp)
{
	const struct cli_command *command;
	bool help;
	int i = 1;

	while (i < argc && argv[i][0] == '-') {
		int taken = global_option(cli, argc, argv, i);

		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			print_help(stdout);
			return CLI_OK;
		}
		if (!strcmp(argv[i], "--version")) {
			puts("policyctl " BULKHEAD_VERSION);
			return CLI_OK;
		}
		if (taken <= 0) {
			cli_error(taken ? "%s needs a value" : "unknown option %s", argv[i]);
			fputs("Try `policyctl --help`.\n", stderr);
			return CLI_USAGE;
		}
		i += taken;
	}
	help = i < argc && !strcmp(argv[i], "help");
	if (i + help >= argc) {
		print_help(help ? stdout : stderr);
		return help ? CLI_OK : CLI_USAGE;
	}
	command = command_find(argv[i + help]);
	if (!command)
		return unknown_command(argv[i + help]);
	if (help) {
		print_command_help(command);
		return CLI_OK;
	}
	*commandp = command;
	return run_command(cli, command, argc - i, argv + i);
}

int main(int argc, char **argv)
{
	const char *no_colour = getenv("NO_COLOR");
	const char *run_dir = getenv("BULKHEAD_RUN_DIR");
	bool colours = !no_colour || !*no_colour;
	struct cli cli = {
		.colour = colours && isatty(STDOUT_FILENO),
		.colour_err = colours && isatty(STDERR_FILENO),
		.run_dir = run_dir && *run_dir ? run_dir : BH_RUN_DIR,
	};
	const struct cli_command *command = NULL;
	int code = run_arguments(&cli, argc, argv, &command);

	if (cli.json && code != CLI_OK && !(command && command->streams))
		cli_print_failure();
	/* A result that could not be written is no result. */
	if (fflush(stdout) || ferror(stdout)) {
		cli_error("cannot write the result: %m");
		return CLI_UNREACHABLE;
	}
	return code;
}
