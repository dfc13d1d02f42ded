/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/control_internal.h"

#include <errno.h>
#include <grp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-id128.h>
#include <unistd.h>

#include "cleanup.h"
#include "daemon/log.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* since Linux 6.5 */
#endif

/* Replies that a peer left unread before we stop listening to it. policyctl has one at a time. */
#define MAX_UNREAD_REPLIES 16

/* ---- connections ---- */

static void connection_close(struct connection *c)
{
	sd_bus *bus = c->bus;

	c->bus = NULL;
	closep(&c->pidfd);
	c->pidfd = -1;
	sd_bus_detach_event(bus);
	sd_bus_close_unref(bus);
}

/* Sees every message before the methods do: the end of the connection, and peers that ask but do not read. */
static int connection_filter(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct connection *c = userdata;
	uint64_t unread = 0;

	(void)error;
	if (!c->bus)
		return 1;
	if (sd_bus_message_is_signal(m, "org.freedesktop.DBus.Local", "Disconnected")) {
		connection_close(c);
		return 1;
	}
	if (sd_bus_get_n_queued_write(c->bus, &unread) >= 0 && unread > MAX_UNREAD_REPLIES) {
		log_warning("control socket: pid %d does not read its replies, connection closed", (int)c->peer.pid);
		connection_close(c);
		return 1;
	}
	return 0;
}

static int connection_start(struct connection *c, sd_bus *bus, int fd)
{
	sd_id128_t id;
	int rc;

	rc = sd_id128_randomize(&id);
	if (rc >= 0)
		rc = sd_bus_set_fd(bus, fd, fd); /* takes the descriptor */
	if (rc < 0) {
		close(fd);
		return rc;
	}
	rc = sd_bus_set_server(bus, 1, id);
	if (rc >= 0)
		rc = sd_bus_set_anonymous(bus, 0);
	if (rc >= 0)
		rc = sd_bus_negotiate_fds(bus, 0);
	if (rc >= 0)
		rc = sd_bus_add_filter(bus, NULL, connection_filter, c);
	if (rc >= 0)
		rc = sd_bus_add_object_vtable(bus, NULL, BH_BUS_PATH, BH_BUS_INTERFACE, control_vtable, c);
	if (rc >= 0)
		rc = sd_bus_start(bus);
	if (rc >= 0)
		rc = sd_bus_attach_event(bus, c->control->event, SD_EVENT_PRIORITY_NORMAL);
	return rc < 0 ? rc : 0;
}

/* A free place; the connection that was silent longest loses its own if there is none. */
static struct connection *connection_place(struct control *control)
{
	struct connection *oldest = &control->connections[0];

	for (size_t i = 0; i < CONTROL_MAX_CONNECTIONS; i++) {
		struct connection *c = &control->connections[i];

		if (!c->bus)
			return c;
		if (c->last_use < oldest->last_use)
			oldest = c;
	}
	connection_close(oldest);
	return oldest;
}

/* Holds the process that connected: its number may be another's by the time that it is looked at, or is already. */
static int peer_pidfd(int client, pid_t *pid)
{
	socklen_t len = sizeof(int);
	int pidfd = -1;

	if (getsockopt(client, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) == 0)
		return pidfd;
	if (errno == ESRCH || errno == EINVAL || errno == ENODATA)
		*pid = 0;
	return -1;
}

static int on_connection(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct control *control = userdata;
	struct connection *c;
	struct ucred peer;
	socklen_t len = sizeof(peer);
	sd_bus *bus = NULL;
	int client, pidfd, rc;

	(void)source;
	(void)revents;
	client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (client < 0)
		return 0; /* gone already, or out of descriptors: the next event tries again */
	if (getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0) {
		close(client);
		return 0;
	}
	c = connection_place(control);
	rc = sd_bus_new(&bus);
	if (rc < 0) {
		close(client);
		return 0;
	}
	pidfd = peer_pidfd(client, &peer.pid);
	*c = (struct connection){
		.control = control,
		.bus = bus,
		.peer = peer,
		.pidfd = pidfd,
		.last_use = ++control->uses,
	};
	rc = connection_start(c, bus, client);
	if (rc < 0) {
		if (rc != -ECONNRESET && rc != -EPIPE) /* the peer has gone already */
			log_error("control socket: cannot serve pid %d: %s", (int)peer.pid, strerror(-rc));
		connection_close(c);
	}
	return 0; /* a failing event handler would be disabled by sd-event, and nobody could connect any more */
}

/* ---- socket ---- */

/* Removes a socket that nobody listens on. -EADDRINUSE if somebody does, or if it is no socket. */
static int remove_stale(const struct sockaddr_un *address)
{
	__attribute__((cleanup(closep))) int fd = -1;
	struct stat st;

	if (lstat(address->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EADDRINUSE;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* EAGAIN: somebody listens whose queue is full. */
	if (!connect(fd, (const struct sockaddr *)address, sizeof(*address)) || errno == EAGAIN)
		return -EADDRINUSE;
	return unlink(address->sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

/* Opens the socket to the group, where there is one. Until then only its owner may connect. */
static int open_to_group(const char *path)
{
	const struct group *group = getgrnam(CONTROL_GROUP);

	if (!group)
		return 0;
	if (lchown(path, (uid_t)-1, group->gr_gid) < 0)
		return -errno;
	return chmod(path, 0660) < 0 ? -errno : 0;
}

static int control_listen(struct control *control, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	mode_t mask;
	int rc;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	rc = remove_stale(&address);
	if (rc)
		return rc;
	control->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (control->fd < 0)
		return -errno;
	mask = umask(0177);
	rc = bind(control->fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
	umask(mask);
	if (rc)
		return rc;
	control->bound = true;
	strcpy(control->path, path);
	rc = open_to_group(path);
	if (rc)
		return rc;
	if (listen(control->fd, CONTROL_MAX_CONNECTIONS) < 0)
		return -errno;
	return sd_event_add_io(control->event, &control->listener, control->fd, EPOLLIN, on_connection, control);
}

int control_new(struct control **controlp, sd_event *event, const char *path, const struct control_ops *ops, void *ctx)
{
	struct control *control = calloc(1, sizeof(*control));
	int rc;

	*controlp = NULL;
	if (!control)
		return -ENOMEM;
	control->event = sd_event_ref(event);
	control->fd = -1;
	control->ops = ops;
	control->ctx = ctx;
	rc = control_listen(control, path);
	if (rc < 0) {
		log_error("cannot listen on %s: %s%s", path, strerror(-rc),
			  rc == -EADDRINUSE ? "; another bulkheadd may be running with this run directory" : "");
		control_freep(&control);
		return rc;
	}
	*controlp = control;
	return 0;
}

void control_freep(struct control **controlp)
{
	struct control *control = *controlp;

	if (!control)
		return;
	*controlp = NULL;
	for (size_t i = 0; i < CONTROL_MAX_CONNECTIONS; i++)
		if (control->connections[i].bus)
			connection_close(&control->connections[i]);
	sd_event_source_disable_unref(control->listener);
	if (control->fd >= 0)
		close(control->fd);
	if (control->bound)
		unlink(control->path);
	sd_event_unref(control->event);
	free(control);
}

unsigned control_connections(const struct control *control)
{
	unsigned n = 0;

	for (size_t i = 0; i < CONTROL_MAX_CONNECTIONS; i++)
		n += !!control->connections[i].bus;
	return n;
}
