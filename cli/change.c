/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/change.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/bus.h"
#include "daemon/control_api.h"

static void textp_free(char **textp)
{
	free(*textp);
}

const char *cli_session(void)
{
	const char *session = getenv("SSH_CONNECTION");

	return session ? session : "";
}

static bool ask(const char *what)
{
	char answer[16] = "";

	fprintf(stderr, "%s all the same? [y/N] ", what);
	fflush(stderr);
	return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

/* The operator decides, where there is one. */
static bool go_on(const char *what, const char *text)
{
	cli_error_lines(text);
	if (isatty(STDIN_FILENO) && isatty(STDERR_FILENO)) {
		if (ask(what))
			return true;
		cli_error("nothing was changed");
		return false;
	}
	cli_error(
		"nothing was changed; --yes does it all the same, best with --confirm 60s, which undoes it if you are "
		"locked out");
	return false;
}

static int attempt(struct cli *cli, sd_bus *bus, bool even_if_cut, cli_change_call call, void *ctx,
		   struct cli_change *result, char **textp)
{
	__attribute__((cleanup(cli_message_unrefp))) sd_bus_message *message = NULL, *reply = NULL;
	const char *warnings; /* shown already by our own check */
	int code = call(ctx, bus, even_if_cut, &message);

	if (code == CLI_OK)
		code = cli_bus_ask(cli, bus, message, BH_ERROR_WOULD_CUT, &reply, textp);
	if (code != CLI_OK)
		return code;
	if (sd_bus_message_read(reply, "uuuus", &result->revision, &result->replaced, &result->rules,
				&result->sockets_cut, &warnings) < 0)
		return cli_bus_malformed(cli, "Apply");
	return CLI_OK;
}

int cli_change_run(struct cli *cli, const char *what, bool yes, cli_change_call call, void *ctx,
		   struct cli_change *result)
{
	__attribute__((cleanup(cli_bus_closep))) sd_bus *bus = NULL;
	__attribute__((cleanup(textp_free))) char *text = NULL;
	int code = cli_bus_open(cli, &bus);

	if (code == CLI_OK)
		code = attempt(cli, bus, yes, call, ctx, result, &text);
	if (!text)
		return code;
	if (!go_on(what, text))
		return CLI_NO;
	free(text);
	text = NULL;
	return attempt(cli, bus, true, call, ctx, result, &text);
}
