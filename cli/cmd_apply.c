/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bus.h"
#include "cli/cli.h"
#include "cli/policy_files.h"

#define MAX_COMMENT 500

struct loaded {
	struct policy_source *files;
	size_t n;
};

static void loaded_free(struct loaded *loaded)
{
	policy_files_free(loaded->files, loaded->n);
}

static void diagnostics_freep(struct policy_diagnostics **diagnosticsp)
{
	policy_diagnostics_freep(diagnosticsp);
}

/* Here, with colours and without a daemon; the daemon checks again what it is given. */
static int check(struct cli *cli, const struct loaded *loaded)
{
	__attribute__((cleanup(diagnostics_freep))) struct policy_diagnostics *diagnostics = NULL;
	__attribute__((cleanup(policy_freep))) struct policy *policy = NULL;
	int rc = policy_parse(&policy, &diagnostics, loaded->files, loaded->n);
	size_t errors;

	if (rc < 0) {
		cli_error("cannot check the policy: %s", strerror(-rc));
		return CLI_UNREACHABLE;
	}
	policy_diagnostics_print(diagnostics, stderr, cli->colour_err);
	if (!rc)
		return CLI_OK;
	errors = policy_diagnostics_count(diagnostics, POLICY_ERROR);
	cli_error("%zu error%s; the policy was not applied, what was in force stays", errors, errors == 1 ? "" : "s");
	return CLI_NO;
}

static int append_files(sd_bus_message *call, const struct loaded *loaded, const char *comment)
{
	int rc = sd_bus_message_open_container(call, 'a', "(say)");

	for (size_t i = 0; rc >= 0 && i < loaded->n; i++) {
		rc = sd_bus_message_open_container(call, 'r', "say");
		if (rc >= 0)
			rc = sd_bus_message_append(call, "s", loaded->files[i].name);
		if (rc >= 0)
			rc = sd_bus_message_append_array(call, 'y', loaded->files[i].text, loaded->files[i].len);
		if (rc >= 0)
			rc = sd_bus_message_close_container(call);
	}
	if (rc >= 0)
		rc = sd_bus_message_close_container(call);
	return rc < 0 ? rc : sd_bus_message_append(call, "s", comment);
}

static int apply(struct cli *cli, const struct loaded *loaded, const char *comment)
{
	__attribute__((cleanup(cli_bus_closep))) sd_bus *bus = NULL;
	__attribute__((cleanup(cli_message_unrefp))) sd_bus_message *call = NULL, *reply = NULL;
	uint32_t revision, sockets;
	const char *warnings; /* shown already by our own check */
	int code;

	code = cli_bus_open(cli, &bus);
	if (code == CLI_OK)
		code = cli_bus_method(bus, "Apply", &call);
	if (code != CLI_OK)
		return code;
	if (append_files(call, loaded, comment) < 0)
		return cli_usage_error(&cmd_apply, "names of files and the comment must be valid UTF-8");
	code = cli_bus_call(cli, bus, call, &reply);
	if (code != CLI_OK)
		return code;
	if (sd_bus_message_read(reply, "usu", &revision, &warnings, &sockets) < 0)
		return cli_bus_malformed(cli, "Apply");
	if (cli->json)
		cli_print_json(
			json_pack("{s:I, s:I}", "revision", (json_int_t)revision, "sockets_cut", (json_int_t)sockets));
	else
		printf("revision %" PRIu32 " in force, %" PRIu32 " socket%s cut\n", revision, sockets,
		       sockets == 1 ? "" : "s");
	return CLI_OK;
}

static int run(struct cli *cli, int argc, char **argv)
{
	__attribute__((cleanup(loaded_free))) struct loaded loaded = {0};
	const char *comment = "";
	size_t n = 0;
	int code;

	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "--confirm", 9) || !strcmp(argv[i], "--dry-run"))
			return cli_usage_error(&cmd_apply, "%s is not supported yet by this version", argv[i]);
		if (!strcmp(argv[i], "--comment") && i + 1 < argc)
			comment = argv[++i];
		else if (argv[i][0] == '-' && argv[i][1])
			return cli_usage_error(&cmd_apply, "unexpected option %s, or its value is missing", argv[i]);
		else
			argv[n++] = argv[i];
	}
	if (!n)
		return cli_usage_error(&cmd_apply, "which policy?");
	if (strlen(comment) > MAX_COMMENT)
		return cli_usage_error(&cmd_apply, "the comment is longer than %d bytes", MAX_COMMENT);
	code = policy_files_load(&loaded.files, &loaded.n, argv, n);
	if (code == CLI_OK)
		code = check(cli, &loaded);
	return code == CLI_OK ? apply(cli, &loaded, comment) : code;
}

const struct cli_command cmd_apply = {
	.name = "apply",
	.summary = "Makes a policy the one in force",
	.usage = "PATH... [--comment TEXT]",
	.help = "  PATH             policy file, directory (its *.yaml in name order), or - for standard input; all of "
		"them\n"
		"                   together are the policy\n"
		"  --comment TEXT   kept with the revision and in the audit log\n\n"
		"All packets are judged by the old policy or by the new one, never by a mixture. Connections that the "
		"new\n"
		"one does not allow are cut.\n\n"
		"Exit codes: 0 in force; 1 the policy is not valid, nothing changed; 3 the daemon is not reachable or\n"
		"failed.\n",
	.run = run,
};
