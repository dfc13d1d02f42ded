/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics_listen.h - where metrics are told: nowhere, on a Unix socket, or on a TCP port of the loopback interface.
 *
 * Metrics name every identity and what it does, so no address that another host could reach is taken.
 */
#ifndef BULKHEAD_DAEMON_METRICS_LISTEN_H
#define BULKHEAD_DAEMON_METRICS_LISTEN_H

#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#define METRICS_OFF "off"

union metrics_address {
	struct sockaddr any;
	struct sockaddr_un un;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

/* Reads METRICS_OFF, the absolute path of a socket, 127.X.Y.Z:PORT or [::1]:PORT. Returns the length of the address, 0 for
 * METRICS_OFF, or -1 for anything else. Pure. */
int metrics_address_read(const char *text, union metrics_address *out);

/* Listens there. A Unix socket is for root and `group` (if the system has it). Returns 0 with the descriptor in *fdp, which
 * is -1 for METRICS_OFF, or -errno with the sentence logged. */
int metrics_listen(int *fdp, const char *text, const char *group);

#endif
