/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_internal.h - the server of the control socket in two parts: control.c moves connections and messages,
 * control_methods.c turns messages into calls of the operations, and what they return into replies.
 */
#ifndef BULKHEAD_DAEMON_CONTROL_INTERNAL_H
#define BULKHEAD_DAEMON_CONTROL_INTERNAL_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-bus.h>

#include "daemon/control.h"
#include "daemon/control_api.h"

struct connection {
	struct control *control;
	sd_bus *bus; /* NULL: free place */
	struct ucred peer;
	int pidfd;	   /* of the process that connected; -1 where the kernel gives none */
	uint64_t last_use; /* counts calls and connections of all; lowest: silent longest */
};

struct control {
	sd_event *event;
	sd_event_source *listener;
	int fd;
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	bool bound;
	const struct control_ops *ops;
	void *ctx;
	uint64_t uses;
	struct connection connections[CONTROL_MAX_CONNECTIONS];
};

extern const sd_bus_vtable control_vtable[];

#endif
