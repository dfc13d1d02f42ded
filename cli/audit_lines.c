/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/audit_lines.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WINDOW (256U << 10) /* a line of the daemon is at most 16 KiB (docs/audit.md) */

struct lines {
	char *window;
	size_t filled;
	bool skip; /* within a line that is too long */
	audit_line_fn event;
	void *context;
	uint64_t *unreadablep;
	uint64_t unreadable; /* of this file */
	bool readable;	     /* a line was an event */
};

static int give_line(struct lines *lines, const char *line, size_t len)
{
	json_t *event;
	int r;

	while (len && (line[len - 1] == '\r' || line[len - 1] == ' '))
		len--;
	if (!len)
		return 0;
	event = json_loadb(line, len, 0, NULL);
	if (!json_is_object(event)) {
		json_decref(event);
		++*lines->unreadablep;
		++lines->unreadable;
		return 0;
	}
	lines->readable = true;
	r = lines->event(lines->context, event);
	json_decref(event);
	return r;
}

/* Gives the complete lines of the window; at the end of the file the last one need not be. */
static int give_lines(struct lines *lines, bool end)
{
	char *start = lines->window, *stop = lines->window + lines->filled, *newline;
	int r = 0;

	while (r == 0 && (newline = memchr(start, '\n', (size_t)(stop - start)))) {
		if (!lines->skip)
			r = give_line(lines, start, (size_t)(newline - start));
		lines->skip = false;
		start = newline + 1;
	}
	if (r == 0 && end && !lines->skip)
		r = give_line(lines, start, (size_t)(stop - start));
	lines->filled = (size_t)(stop - start);
	memmove(lines->window, start, lines->filled);
	if (lines->filled == WINDOW) {
		*lines->unreadablep += !lines->skip;
		lines->unreadable += !lines->skip;
		lines->skip = true;
		lines->filled = 0;
	}
	return r;
}

/* A wrong file must not look like a log in which nothing happened. */
static bool is_log(const struct lines *lines, const char *path)
{
	if (lines->readable || !lines->unreadable)
		return true;
	cli_error("%s is no audit log: none of its lines is a JSON object", path);
	return false;
}

static int read_lines(struct lines *lines, int fd, const char *path)
{
	for (;;) {
		ssize_t n = read(fd, lines->window + lines->filled, WINDOW - lines->filled);
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			cli_error("cannot read %s: %s", path, strerror(errno));
			return CLI_USAGE;
		}
		lines->filled += (size_t)n;
		r = give_lines(lines, n == 0);
		if (r)
			return r;
		if ((n == 0 || lines->skip) && !is_log(lines, path))
			return CLI_USAGE;
		if (n == 0)
			return 0;
	}
}

int audit_lines_read(const char *path, audit_line_fn event, void *context, uint64_t *unreadablep)
{
	struct lines lines = {.event = event, .context = context, .unreadablep = unreadablep};
	bool standard = !strcmp(path, "-");
	int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC), code;

	if (fd < 0) {
		cli_error("cannot open %s: %s", path, strerror(errno));
		return CLI_USAGE;
	}
	lines.window = malloc(WINDOW);
	if (lines.window) {
		code = read_lines(&lines, fd, standard ? "standard input" : path);
	} else {
		cli_error("out of memory");
		code = CLI_UNREACHABLE;
	}
	free(lines.window);
	if (!standard)
		close(fd);
	return code;
}
