/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit_log.h - reads the daemon's audit log: JSON lines, appended to by one writer, rotated by renaming.
 *
 * The last events are found from the end, so that the size of the log does not matter. Lines that are no JSON object
 * (torn by a crash) are passed over.
 */
#ifndef BULKHEAD_CLI_AUDIT_LOG_H
#define BULKHEAD_CLI_AUDIT_LOG_H

#include "cli/cli.h"

/* An event, and its line without the newline; both borrowed for the call. */
typedef bool (*audit_match_fn)(void *ctx, const json_t *event);
typedef void (*audit_event_fn)(void *ctx, const json_t *event, const char *line);

/* Where the daemon writes: asks Status. *pathp is malloc()ed. Returns an exit code, having said why. */
int audit_log_path(struct cli *cli, char **pathp);

struct audit_log;

/* Opens the log. One that is not there yet is empty. Returns an exit code, having said why. */
int audit_log_open(struct audit_log **logp, const char *path);
void audit_log_closep(struct audit_log **logp);
/* Calls `event` for the last `n` events that match, oldest first. Puts the reader at the end of the log. */
int audit_log_last(struct audit_log *log, size_t n, audit_match_fn match, audit_event_fn event, void *ctx);
/* Calls `event` for each event that matches from where the reader is, for ever, into the new file after a rotation.
 * Returns an exit code when it cannot go on, having said why. */
int audit_log_follow(struct audit_log *log, audit_match_fn match, audit_event_fn event, void *ctx);

#endif
