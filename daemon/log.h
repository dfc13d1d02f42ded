/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.h - operational messages of the daemon, one line each to stderr. Where that is the journal, each begins with its priority
 * (sd-daemon(3)). What a SIEM needs goes to the audit log instead.
 */
#ifndef BULKHEAD_DAEMON_LOG_H
#define BULKHEAD_DAEMON_LOG_H

#include <stdio.h>
#include <systemd/sd-daemon.h>

/* To be called first, and by the process that starts the others: JOURNAL_STREAM stays in the environment only if stderr is the
 * stream that it names. */
void log_start(void);
/* What a message of that priority begins with. */
const char *log_prefix(const char *priority);

#define log_line(priority, format, ...)                                                                                \
	fprintf(stderr, "%sbulkheadd: " format "\n", log_prefix(priority), ##__VA_ARGS__)
#define log_error(format, ...) log_line(SD_ERR, format, ##__VA_ARGS__)
#define log_warning(format, ...) log_line(SD_WARNING, format, ##__VA_ARGS__)
#define log_info(format, ...) log_line(SD_INFO, format, ##__VA_ARGS__)

#endif
