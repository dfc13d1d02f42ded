/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/control.h"

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

#include "daemon/control_api.h"
#include "daemon/log.h"

/* Replies that a peer left unread before we stop listening to it. policyctl has one at a time. */
#define MAX_UNREAD_REPLIES 16

struct connection {
	struct control *control;
	sd_bus *bus; /* NULL: free place */
	struct ucred peer;
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

static void closep(int *fdp)
{
	if (*fdp >= 0)
		close(*fdp);
}

static void textp_free(char **textp)
{
	free(*textp);
}

static void message_unrefp(sd_bus_message **mp)
{
	sd_bus_message_unref(*mp);
}

/* D-Bus closes the connection of a sender whose strings are not UTF-8, and diagnostics quote what an operator's file
 * holds. Bytes that belong to no valid sequence become '?'. */
static void make_utf8(char *text)
{
	unsigned char *p = (unsigned char *)text;

	while (*p) {
		unsigned n = *p < 0x80		       ? 0
			     : *p >= 0xc2 && *p < 0xe0 ? 1
			     : (*p & 0xf0) == 0xe0     ? 2
			     : *p >= 0xf0 && *p < 0xf5 ? 3
						       : 9;
		bool valid = n != 9;

		for (unsigned i = 1; valid && i <= n; i++)
			valid = (p[i] & 0xc0) == 0x80;
		/* overlong forms, surrogates, beyond U+10FFFF */
		if (valid && ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) ||
			      (*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f)))
			valid = false;
		if (valid) {
			p += n + 1;
			continue;
		}
		*p++ = '?';
	}
}

/* ---- calls ---- */

/* Turns what an operation returned into a D-Bus error. Never 0. */
static int answer_error(sd_bus_error *error, int answer, char *text)
{
	const char *name = BH_ERROR_FAILED;

	if (text)
		make_utf8(text);
	if (answer < 0)
		return sd_bus_error_set(error, name, text ? text : strerror(-answer));
	switch (answer) {
	case CONTROL_INVALID:
		name = BH_ERROR_INVALID;
		break;
	case CONTROL_NO_REVISION:
		name = BH_ERROR_NO_REVISION;
		break;
	case CONTROL_NO_IDENTITY:
		name = BH_ERROR_NO_IDENTITY;
		break;
	}
	return sd_bus_error_set(error, name, text ? text : "no");
}

struct source_list {
	struct policy_source *items;
	size_t n;
	size_t bytes;
};

static void source_list_free(struct source_list *list)
{
	free(list->items);
}

/* Reads a(say). The sources point into the message. */
static int read_sources(sd_bus_message *m, struct source_list *list, sd_bus_error *error)
{
	size_t room = 0;
	int rc = sd_bus_message_enter_container(m, 'a', "(say)");

	if (rc < 0)
		return rc;
	while ((rc = sd_bus_message_enter_container(m, 'r', "say")) > 0) {
		struct policy_source source = {0};
		const void *text;

		rc = sd_bus_message_read(m, "s", &source.name);
		if (rc >= 0)
			rc = sd_bus_message_read_array(m, 'y', &text, &source.len);
		if (rc >= 0)
			rc = sd_bus_message_exit_container(m);
		if (rc < 0)
			return rc;
		source.text = source.len ? text : "";
		list->bytes += source.len;
		if (list->n == POLICY_MAX_SOURCES || list->bytes > POLICY_MAX_SOURCE_BYTES)
			return sd_bus_error_setf(error, BH_ERROR_INVALID,
						 "the policy is larger than %u files or %u bytes", POLICY_MAX_SOURCES,
						 POLICY_MAX_SOURCE_BYTES);
		if (list->n == room) {
			struct policy_source *items;

			room = room ? 2 * room : 16;
			items = reallocarray(list->items, room, sizeof(*items));
			if (!items)
				return -ENOMEM;
			list->items = items;
		}
		list->items[list->n++] = source;
	}
	return rc < 0 ? rc : sd_bus_message_exit_container(m);
}

static struct connection *touch(void *userdata)
{
	struct connection *c = userdata;

	c->last_use = ++c->control->uses;
	return c;
}

static int method_apply(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	__attribute__((cleanup(source_list_free))) struct source_list list = {0};
	__attribute__((cleanup(textp_free))) char *text = NULL;
	struct connection *c = touch(userdata);
	struct control_apply_result out = {0};
	const char *comment;
	int rc;

	rc = read_sources(m, &list, error);
	if (rc < 0)
		return rc;
	rc = sd_bus_message_read(m, "s", &comment);
	if (rc < 0)
		return rc;
	rc = c->control->ops->apply(c->control->ctx, list.items, list.n, comment, c->peer.uid, c->peer.pid, &out,
				    &text);
	if (rc)
		return answer_error(error, rc, text);
	if (text)
		make_utf8(text);
	return sd_bus_reply_method_return(m, "usu", out.revision, text ? text : "", out.sockets_cut);
}

static void revision_free(struct control_revision *r)
{
	for (size_t i = 0; i < r->n_files; i++) {
		free((char *)r->files[i].name);
		free((char *)r->files[i].text);
	}
	free(r->files);
	free(r->comment);
}

static int append_revision(sd_bus_message *reply, struct control_revision *r)
{
	int rc = sd_bus_message_append(reply, "u", r->revision);

	if (rc >= 0)
		rc = sd_bus_message_open_container(reply, 'a', "(say)");
	for (size_t i = 0; rc >= 0 && i < r->n_files; i++) {
		make_utf8((char *)r->files[i].name);
		rc = sd_bus_message_open_container(reply, 'r', "say");
		if (rc >= 0)
			rc = sd_bus_message_append(reply, "s", r->files[i].name);
		if (rc >= 0)
			rc = sd_bus_message_append_array(reply, 'y', r->files[i].text, r->files[i].len);
		if (rc >= 0)
			rc = sd_bus_message_close_container(reply);
	}
	if (rc >= 0)
		rc = sd_bus_message_close_container(reply);
	if (r->comment)
		make_utf8(r->comment);
	if (rc >= 0)
		rc = sd_bus_message_append(reply, "stus", r->digest, r->applied_usec, (uint32_t)r->uid,
					   r->comment ? r->comment : "");
	return rc;
}

static int method_show(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	__attribute__((cleanup(revision_free))) struct control_revision revision = {0};
	__attribute__((cleanup(message_unrefp))) sd_bus_message *reply = NULL;
	__attribute__((cleanup(textp_free))) char *text = NULL;
	struct connection *c = touch(userdata);
	uint32_t number;
	int rc;

	rc = sd_bus_message_read(m, "u", &number);
	if (rc < 0)
		return rc;
	rc = c->control->ops->show(c->control->ctx, number, &revision, &text);
	if (rc)
		return answer_error(error, rc, text);
	rc = sd_bus_message_new_method_return(m, &reply);
	if (rc >= 0)
		rc = append_revision(reply, &revision);
	return rc < 0 ? rc : sd_bus_send(NULL, reply, NULL);
}

/* A method without arguments whose answer is a JSON text. */
static int reply_json(sd_bus_message *m, struct connection *c, int (*op)(void *, char **), sd_bus_error *error)
{
	__attribute__((cleanup(textp_free))) char *text = NULL;
	int rc = op(c->control->ctx, &text);

	if (!rc && !text)
		rc = -ENODATA;
	if (rc)
		return answer_error(error, rc, text);
	make_utf8(text);
	return sd_bus_reply_method_return(m, "s", text);
}

static int method_status(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct connection *c = touch(userdata);

	return reply_json(m, c, c->control->ops->status, error);
}

static int method_identities(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct connection *c = touch(userdata);

	return reply_json(m, c, c->control->ops->identities, error);
}

static int method_revoke(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	__attribute__((cleanup(textp_free))) char *text = NULL;
	struct connection *c = touch(userdata);
	struct control_revoke_result out = {0};
	const char *identity;
	int rc;

	rc = sd_bus_message_read(m, "s", &identity);
	if (rc < 0)
		return rc;
	rc = c->control->ops->revoke(c->control->ctx, identity, c->peer.uid, c->peer.pid, &out, &text);
	if (rc)
		return answer_error(error, rc, text);
	return sd_bus_reply_method_return(m, "uu", out.tags, out.sockets_cut);
}

static int method_reload(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	__attribute__((cleanup(textp_free))) char *text = NULL;
	struct connection *c = touch(userdata);
	int rc = c->control->ops->reload(c->control->ctx, c->peer.uid, c->peer.pid, &text);

	if (rc)
		return answer_error(error, rc, text);
	return sd_bus_reply_method_return(m, "");
}

/* UNPRIVILEGED: sd-bus would otherwise ask for CAP_SYS_ADMIN, but the mode of the socket is what decides here. */
static const sd_bus_vtable vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_METHOD("Apply", "a(say)s", "usu", method_apply, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("Show", "u", "ua(say)stus", method_show, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("Status", "", "s", method_status, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("Identities", "", "s", method_identities, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("Revoke", "s", "uu", method_revoke, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("Reload", "", "", method_reload, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_VTABLE_END,
};

/* ---- connections ---- */

static void connection_close(struct connection *c)
{
	sd_bus *bus = c->bus;

	c->bus = NULL;
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
		rc = sd_bus_add_object_vtable(bus, NULL, BH_BUS_PATH, BH_BUS_INTERFACE, vtable, c);
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

static int on_connection(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct control *control = userdata;
	struct connection *c;
	struct ucred peer;
	socklen_t len = sizeof(peer);
	sd_bus *bus = NULL;
	int client, rc;

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
	*c = (struct connection){.control = control, .bus = bus, .peer = peer, .last_use = ++control->uses};
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
