/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/change.h"

#include <fcntl.h>
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

/* ---- the session ---- */

#define MAX_ANCESTORS 32
#define MAX_ENVIRONMENT (1U << 20)
#define SESSION_VARIABLE "SSH_CONNECTION"

/* Two addresses and ports in plain text; what is anything else says nothing. */
static bool is_session(const char *text)
{
	size_t len = strlen(text);

	for (size_t i = 0; i < len; i++)
		if (text[i] < ' ' || text[i] > '~')
			return false;
	return len && len < 160;
}

/* The beginning of /proc/PID/FILE, terminated. Returns its length, or 0. */
static size_t proc_read(int pid, const char *file, char *out, size_t size)
{
	char path[64];
	size_t len = 0;
	ssize_t n = 1;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && len < size - 1 && (n = read(fd, out + len, size - 1 - len)) > 0)
		len += (size_t)n;
	if (fd >= 0)
		close(fd);
	out[len] = '\0';
	return len;
}

static int parent_of(int pid)
{
	char text[512], *last;
	int parent;

	if (!proc_read(pid, "stat", text, sizeof(text)))
		return 0;
	last = strrchr(text, ')');
	return last && sscanf(last + 1, " %*c %d", &parent) == 1 ? parent : 0;
}

/* The variable in what is read from /proc/PID/environ, or NULL. */
static const char *session_in(const char *environment, size_t len)
{
	for (const char *at = environment; at < environment + len; at += strlen(at) + 1)
		if (strncmp(at, SESSION_VARIABLE "=", sizeof(SESSION_VARIABLE)) == 0 &&
		    is_session(at + sizeof(SESSION_VARIABLE)))
			return at + sizeof(SESSION_VARIABLE);
	return NULL;
}

/* sudo takes the variable away, and behind tmux no sshd is among the ancestors that the daemon sees. */
static void session_of_ancestors(char *out, size_t size)
{
	char *environment = malloc(MAX_ENVIRONMENT);
	const char *session = NULL;
	int pid = getppid();

	for (int i = 0; environment && !session && pid > 1 && i < MAX_ANCESTORS; i++) {
		session = session_in(environment, proc_read(pid, "environ", environment, MAX_ENVIRONMENT));
		pid = parent_of(pid);
	}
	if (session)
		snprintf(out, size, "%s", session);
	free(environment);
}

const char *cli_session(void)
{
	static char found[160];
	const char *session = getenv(SESSION_VARIABLE);

	if (session && is_session(session))
		return session;
	if (!*found)
		session_of_ancestors(found, sizeof(found));
	return found;
}

/* ---- the call ---- */

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

/* *would_cutp: the daemon's sentence, if it was refused for that. */
static int attempt(struct cli *cli, sd_bus *bus, bool even_if_cut, const struct cli_change_ops *ops, void *ctx,
		   struct cli_change *result, char **would_cutp)
{
	static const char *const names[] = {BH_ERROR_WOULD_CUT, BH_ERROR_INVALID, NULL};
	__attribute__((cleanup(cli_message_unrefp))) sd_bus_message *message = NULL, *reply = NULL;
	__attribute__((cleanup(cli_no_free))) struct cli_no no = {};
	const char *warnings;
	int code = ops->call(ctx, bus, even_if_cut, &message);

	if (code == CLI_OK)
		code = cli_bus_ask(cli, bus, message, ops->invalid ? names : (const char *const[]){names[0], NULL},
				   &reply, &no);
	if (no.name == names[0]) {
		*would_cutp = no.text;
		no.text = NULL;
	} else if (no.name) {
		return ops->invalid(cli, ctx, no.text);
	}
	if (code != CLI_OK)
		return code;
	if (sd_bus_message_read(reply, "uuuus", &result->revision, &result->replaced, &result->rules,
				&result->sockets_cut, &warnings) < 0)
		return cli_bus_malformed(cli, "Apply");
	if (*warnings && ops->warn)
		ops->warn(cli, ctx, warnings);
	return CLI_OK;
}

int cli_change_run(struct cli *cli, const char *what, bool yes, const struct cli_change_ops *ops, void *ctx,
		   struct cli_change *result)
{
	__attribute__((cleanup(cli_bus_closep))) sd_bus *bus = NULL;
	__attribute__((cleanup(textp_free))) char *text = NULL;
	struct cli_change_ops again = *ops;
	int code = cli_bus_open(cli, &bus);

	if (code == CLI_OK)
		code = attempt(cli, bus, yes, ops, ctx, result, &text);
	if (!text)
		return code;
	if (ops->warn)
		ops->warn(cli, ctx, NULL);
	if (!go_on(what, text))
		return CLI_NO;
	free(text);
	text = NULL;
	again.warn = NULL;
	return attempt(cli, bus, true, &again, ctx, result, &text);
}
