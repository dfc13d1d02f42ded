/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/audit_log.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/bus.h"

#define WINDOW (1U << 20) /* a line that is longer than this is none of the daemon's */
#define LOOK_MS 1000	  /* without a notification, for file systems that send none */

struct audit_log {
	char *path;
	int fd;	       /* -1: not there yet */
	off_t end;     /* read up to here */
	char *buffer;  /* WINDOW + 1 bytes */
	size_t filled; /* beginning of a line that is not complete yet */
	bool skip;     /* within a line that is too long */
};

int audit_log_path(struct cli *cli, char **pathp)
{
	json_t *status;
	int code = cli_bus_json(cli, "Status", &status);

	*pathp = NULL;
	if (code != CLI_OK)
		return code;
	if (*cli_json_string(status, "audit_log"))
		*pathp = strdup(cli_json_string(status, "audit_log"));
	json_decref(status);
	return *pathp ? CLI_OK : cli_bus_malformed(cli, "Status");
}

static int cannot_read(const char *path, int error)
{
	cli_error("cannot read the audit log %s: %s", path, strerror(error));
	return CLI_UNREACHABLE;
}

int audit_log_open(struct audit_log **logp, const char *path)
{
	struct audit_log *log = calloc(1, sizeof(*log));

	*logp = NULL;
	if (log) {
		log->fd = -1;
		log->path = strdup(path);
		log->buffer = malloc(WINDOW + 1);
	}
	if (!log || !log->path || !log->buffer) {
		audit_log_closep(&log);
		return cannot_read(path, ENOMEM);
	}
	log->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (log->fd < 0 && errno != ENOENT) {
		int error = errno;

		audit_log_closep(&log);
		return cannot_read(path, error);
	}
	*logp = log;
	return CLI_OK;
}

void audit_log_closep(struct audit_log **logp)
{
	struct audit_log *log = *logp;

	if (!log)
		return;
	*logp = NULL;
	if (log->fd >= 0)
		close(log->fd);
	free(log->path);
	free(log->buffer);
	free(log);
}

static json_t *parse_line(const char *line, size_t len)
{
	json_t *event = json_loadb(line, len, 0, NULL);

	if (json_is_object(event))
		return event;
	json_decref(event);
	return NULL;
}

/* ---- the last events ---- */

struct last {
	audit_match_fn match;
	void *ctx;
	char **lines; /* newest first */
	size_t n, max;
};

static void last_free(struct last *last)
{
	for (size_t i = 0; i < last->n; i++)
		free(last->lines[i]);
	free(last->lines);
}

static int last_take(struct last *last, const char *line, size_t len)
{
	json_t *event = parse_line(line, len);
	int rc = 0;

	if (!event)
		return 0;
	if (last->match(last->ctx, event)) {
		last->lines[last->n] = strndup(line, len);
		if (last->lines[last->n])
			last->n++;
		else
			rc = -ENOMEM;
	}
	json_decref(event);
	return rc;
}

/* Takes the complete lines of `text` from its end on. Returns where the first one, which is not known to be complete,
 * ends; or -ENOMEM. */
static ssize_t take_backwards(struct last *last, const char *text, size_t len)
{
	while (len && last->n < last->max) {
		const char *newline = memrchr(text, '\n', len);
		size_t start;

		if (!newline)
			break;
		start = (size_t)(newline - text) + 1;
		if (start < len && last_take(last, text + start, len - start))
			return -ENOMEM;
		len = start - 1;
	}
	return (ssize_t)len;
}

static int collect(struct audit_log *log, struct last *last)
{
	off_t end = log->end;

	while (end > 0 && last->n < last->max) {
		size_t len = end < (off_t)WINDOW ? (size_t)end : WINDOW;
		ssize_t n = pread(log->fd, log->buffer, len, end - (off_t)len), left;

		if (n < 0)
			return -errno;
		if ((size_t)n < len)
			return 0; /* it was cut while we read */
		left = take_backwards(last, log->buffer, len);
		if (left < 0)
			return (int)left;
		if (end == (off_t)len) {
			/* The beginning of the file begins a line. */
			return last->n < last->max && left ? last_take(last, log->buffer, (size_t)left) : 0;
		}
		end -= left && (size_t)left < len ? (off_t)(len - (size_t)left) : (off_t)len;
	}
	return 0;
}

int audit_log_last(struct audit_log *log, size_t n, audit_match_fn match, audit_event_fn event, void *ctx)
{
	__attribute__((cleanup(last_free))) struct last last = {.match = match, .ctx = ctx, .max = n};
	struct stat st;
	int rc;

	if (log->fd < 0)
		return CLI_OK;
	if (fstat(log->fd, &st) < 0)
		return cannot_read(log->path, errno);
	log->end = st.st_size;
	last.lines = calloc(n ? n : 1, sizeof(*last.lines));
	rc = last.lines ? collect(log, &last) : -ENOMEM;
	if (rc)
		return cannot_read(log->path, -rc);
	for (size_t i = last.n; i-- > 0;) {
		json_t *value = parse_line(last.lines[i], strlen(last.lines[i]));

		if (value)
			event(ctx, value, last.lines[i]);
		json_decref(value);
	}
	return CLI_OK;
}

/* ---- following ---- */

static void give_line(char *line, size_t len, audit_match_fn match, audit_event_fn event, void *ctx)
{
	json_t *value = parse_line(line, len);

	line[len] = '\0';
	if (value && match(ctx, value))
		event(ctx, value, line);
	json_decref(value);
}

static void give_lines(struct audit_log *log, audit_match_fn match, audit_event_fn event, void *ctx)
{
	char *start = log->buffer, *newline;

	while ((newline = memchr(start, '\n', log->filled - (size_t)(start - log->buffer)))) {
		if (!log->skip)
			give_line(start, (size_t)(newline - start), match, event, ctx);
		log->skip = false;
		start = newline + 1;
	}
	log->filled -= (size_t)(start - log->buffer);
	memmove(log->buffer, start, log->filled);
	if (log->filled == WINDOW) {
		log->skip = true;
		log->filled = 0;
	}
}

/* Reads to the end of the open file. */
static int drain(struct audit_log *log, audit_match_fn match, audit_event_fn event, void *ctx)
{
	struct stat st;
	ssize_t n;

	if (log->fd < 0)
		return 0;
	if (!fstat(log->fd, &st) && st.st_size < log->end) { /* cut: what is there now is new */
		log->end = 0;
		log->filled = 0;
		log->skip = false;
	}
	while ((n = pread(log->fd, log->buffer + log->filled, WINDOW - log->filled, log->end)) > 0) {
		log->end += n;
		log->filled += (size_t)n;
		give_lines(log, match, event, ctx);
	}
	return n < 0 ? -errno : 0;
}

/* Opens the file that the path leads to, if it is another than the open one and the daemon writes to it already: after
 * a rotation it goes on with the old one until it is told. Returns the descriptor, or -1. */
static int next_file(const struct audit_log *log)
{
	struct stat now, old;

	if (stat(log->path, &now) < 0 || !now.st_size)
		return -1;
	if (log->fd >= 0 && !fstat(log->fd, &old) && old.st_ino == now.st_ino && old.st_dev == now.st_dev)
		return -1;
	return open(log->path, O_RDONLY | O_CLOEXEC);
}

/* Waits until something happens in the directory of the log. The notification itself does not matter. */
static void wait_for_news(struct pollfd *notify)
{
	char events[4096];

	if (poll(notify, 1, LOOK_MS) > 0)
		while (read(notify->fd, events, sizeof(events)) > 0)
			;
}

int audit_log_follow(struct audit_log *log, audit_match_fn match, audit_event_fn event, void *ctx)
{
	struct pollfd notify = {.fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC), .events = POLLIN};
	char *copy = strdup(log->path);
	int rc;

	if (notify.fd >= 0 && copy)
		inotify_add_watch(notify.fd, dirname(copy), IN_MODIFY | IN_CREATE | IN_MOVED_TO);
	free(copy);
	for (;;) {
		int next = next_file(log);

		rc = drain(log, match, event, ctx); /* to the end of the old one */
		if (rc)
			break;
		if (next < 0) {
			wait_for_news(&notify);
			continue;
		}
		if (log->fd >= 0)
			close(log->fd);
		log->fd = next;
		log->end = 0;
		log->filled = 0;
		log->skip = false;
	}
	if (notify.fd >= 0)
		close(notify.fd);
	return cannot_read(log->path, -rc);
}
