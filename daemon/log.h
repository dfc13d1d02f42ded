/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.h - operational messages of the daemon, one line each to stderr with the journal's priority prefix (sd-daemon(3)).
 * What a SIEM needs goes to the audit log instead.
 */
#ifndef BULKHEAD_DAEMON_LOG_H
#define BULKHEAD_DAEMON_LOG_H

#include <stdio.h>
#include <systemd/sd-daemon.h>

#define log_error(format, ...) fprintf(stderr, SD_ERR "bulkheadd: " format "\n", ##__VA_ARGS__)
#define log_warning(format, ...) fprintf(stderr, SD_WARNING "bulkheadd: " format "\n", ##__VA_ARGS__)
#define log_info(format, ...) fprintf(stderr, SD_INFO "bulkheadd: " format "\n", ##__VA_ARGS__)

#endif
