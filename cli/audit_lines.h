/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit_lines.h - recorded events, from files of JSON lines: the audit log, or what was kept of it. A line that is no event
 * (cut off, another format, longer than the daemon writes) is counted and passed over.
 */
#ifndef BULKHEAD_CLI_AUDIT_LINES_H
#define BULKHEAD_CLI_AUDIT_LINES_H

#include "cli/cli.h"

/* Called for each event; a value other than 0 ends the reading and is returned. */
typedef int (*audit_line_fn)(void *context, const json_t *event);

/* Reads a file, or "-" for standard input. Adds the lines that are no events to *unreadablep. Returns CLI_OK, what the
 * callback returned, or CLI_USAGE having said why the file cannot be read. */
int audit_lines_read(const char *path, audit_line_fn event, void *context, uint64_t *unreadablep);

#endif
