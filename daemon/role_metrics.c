/* SPDX-License-Identifier: Apache-2.0 */
#include "role_metrics.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <systemd/sd-event.h>
#include <time.h>
#include <unistd.h>

#include "http_request.h"
#include "ipc.h"
#include "log.h"
#include "metrics_text.h"
#include "role_process.h"
#include "sandbox.h"

#define MAX_CLIENTS 16
#define PATH "/metrics"
/* From accepting to the last byte. */
#define CLIENT_USEC 5000000ULL
/* An exposition is told to all who come within this time. */
#define FRESH_USEC 1000000ULL
/* The enforcer answers in milliseconds; after this it has other things to do. */
#define ANSWER_USEC 3000000ULL
#define ACCEPT_PAUSE_USEC 100000ULL

/* A text that several clients may be reading. */
struct page {
	unsigned refs;
	size_t len;
	char *text;
};

enum client_state {
	CLIENT_FREE,
	CLIENT_READS,  /* its request */
	CLIENT_WAITS,  /* for the enforcer */
	CLIENT_WRITES, /* our answer */
	CLIENT_LEAVES, /* everything is sent: what it says is thrown away until it closes */
};

struct role;

struct client {
	struct role *role;
	enum client_state state;
	int fd;
	sd_event_source *io;
	sd_event_source *timer;
	uint64_t number; /* of the connection: lowest came first */
	enum metrics_format format;
	size_t len;
	char request[HTTP_MAX_REQUEST];
	char head[256];
	size_t head_len, sent; /* of head and page together */
	struct page *page;
};

struct role {
	struct role_process process;
	bool local; /* listens on a TCP port */
	sd_event_source *listener;
	sd_event_source *pause;
	sd_event_source *overdue;
	bool asked;
	struct metrics *snapshot;
	uint64_t snapshot_usec; /* when it came */
	struct page *pages[METRICS_FORMATS];
	uint64_t connections;
	struct client clients[MAX_CLIENTS];
};

static uint64_t now_usec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000ULL + (uint64_t)ts.tv_nsec / 1000;
}

/* ---- pages ---- */

static struct page *page_unref(struct page *page)
{
	if (page && --page->refs == 0) {
		free(page->text);
		free(page);
	}
	return NULL;
}

/* Takes over the text. */
static struct page *page_new(char *text, size_t len)
{
	struct page *page = text ? malloc(sizeof(*page)) : NULL;

	if (!page) {
		free(text);
		return NULL;
	}
	*page = (struct page){.refs = 1, .len = len, .text = text};
	return page;
}

static void pages_drop(struct role *role)
{
	for (size_t i = 0; i < METRICS_FORMATS; i++)
		role->pages[i] = page_unref(role->pages[i]);
	free(role->snapshot);
	role->snapshot = NULL;
}

/* The snapshot as text, made when it is asked for first; NULL if there is none. */
static struct page *page_of(struct role *role, enum metrics_format format)
{
	char *text = NULL;
	size_t len = 0;

	if (!role->pages[format] && role->snapshot && metrics_text(role->snapshot, format, &text, &len) == 0)
		role->pages[format] = page_new(text, len);
	return role->pages[format];
}

/* ---- clients ---- */

static void client_close(struct client *client)
{
	client->io = sd_event_source_disable_unref(client->io);
	client->timer = sd_event_source_disable_unref(client->timer);
	client->page = page_unref(client->page);
	close(client->fd);
	client->state = CLIENT_FREE;
}

/* What is to be sent next: the rest of the head, then of the page. */
static struct iovec client_rest(const struct client *client)
{
	size_t at;

	if (client->sent < client->head_len)
		return (struct iovec){(char *)client->head + client->sent, client->head_len - client->sent};
	at = client->sent - client->head_len;
	if (!client->page)
		return (struct iovec){0};
	return (struct iovec){client->page->text + at, client->page->len - at};
}

static void client_write(struct client *client)
{
	struct iovec rest;
	ssize_t n;

	while ((rest = client_rest(client)).iov_len) {
		n = send(client->fd, rest.iov_base, rest.iov_len, MSG_NOSIGNAL);
		if (n >= 0) {
			client->sent += (size_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno == EAGAIN)
			sd_event_source_set_io_events(client->io, EPOLLOUT);
		else
			client_close(client);
		return;
	}
	/* Closed at once, a socket with unread bytes would reset the connection, and take our answer with it. */
	client->state = CLIENT_LEAVES;
	shutdown(client->fd, SHUT_WR);
	sd_event_source_set_io_events(client->io, EPOLLIN);
}

static void client_answer(struct client *client, int status, struct page *page)
{
	size_t len = page ? page->len : 0;
	int n;

	if (page)
		page->refs++;
	client->page = page;
	n = snprintf(client->head, sizeof(client->head),
		     "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%sConnection: close\r\n\r\n", status,
		     http_reason(status), status == 200 ? metrics_content_type(client->format) : "text/plain", len,
		     status == 405 ? "Allow: GET\r\n" : "");
	client->head_len = (size_t)n;
	client->state = CLIENT_WRITES;
	client_write(client);
}

static void waiting_answer(struct role *role)
{
	role->asked = false;
	sd_event_source_set_enabled(role->overdue, SD_EVENT_OFF);
	for (size_t i = 0; i < MAX_CLIENTS; i++) {
		struct client *client = &role->clients[i];
		struct page *page;

		if (client->state != CLIENT_WAITS)
			continue;
		page = page_of(role, client->format);
		client_answer(client, page ? 200 : 503, page);
	}
}

static void client_serve(struct client *client)
{
	struct ipc_header ask = {.type = IPC_METRICS_ASK, .len = sizeof(ask)};
	struct role *role = client->role;
	struct page *page;

	if (role->snapshot && now_usec() - role->snapshot_usec < FRESH_USEC) {
		page = page_of(role, client->format);
		client_answer(client, page ? 200 : 503, page);
		return;
	}
	client->state = CLIENT_WAITS;
	sd_event_source_set_io_events(client->io, 0);
	if (role->asked)
		return;
	if (ipc_send(role->process.ipc_fd, &ask, -1) < 0) {
		client_answer(client, 503, NULL);
		return;
	}
	role->asked = true;
	sd_event_source_set_time_relative(role->overdue, ANSWER_USEC);
	sd_event_source_set_enabled(role->overdue, SD_EVENT_ONESHOT);
}

static void client_read(struct client *client)
{
	struct http_request request;
	ssize_t n = recv(client->fd, client->request + client->len, sizeof(client->request) - client->len, 0);
	int status;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		client_close(client);
		return;
	}
	client->len += (size_t)n;
	status = http_request_read(client->request, client->len, PATH, client->role->local, &request);
	if (status == HTTP_MORE)
		return;
	client->format = request.plain ? METRICS_PROMETHEUS : METRICS_OPENMETRICS;
	if (status == 200)
		client_serve(client);
	else
		client_answer(client, status, NULL);
}

static void client_drain(struct client *client)
{
	ssize_t n = recv(client->fd, client->request, sizeof(client->request), 0);

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		client_close(client);
}

static int on_client(sd_event_source *source, int fd, uint32_t events, void *context)
{
	struct client *client = context;

	(void)source;
	(void)fd;
	switch (client->state) {
	case CLIENT_READS:
		client_read(client);
		break;
	case CLIENT_WRITES:
		client_write(client);
		break;
	case CLIENT_LEAVES:
		client_drain(client);
		break;
	default:
		if (events & (EPOLLHUP | EPOLLERR))
			client_close(client);
	}
	return 0;
}

static int on_client_late(sd_event_source *source, uint64_t usec, void *context)
{
	(void)source;
	(void)usec;
	client_close(context);
	return 0;
}

/* A free place; if there is none, that of who has been there longest. */
static struct client *client_place(struct role *role)
{
	struct client *oldest = &role->clients[0];

	for (size_t i = 0; i < MAX_CLIENTS; i++) {
		struct client *client = &role->clients[i];

		if (client->state == CLIENT_FREE)
			return client;
		if (client->number < oldest->number)
			oldest = client;
	}
	client_close(oldest);
	return oldest;
}

static void client_new(struct role *role, int fd)
{
	struct client *client = client_place(role);
	int r;

	client->role = role;
	client->fd = fd;
	client->number = ++role->connections;
	client->len = 0;
	client->sent = 0;
	client->page = NULL;
	client->io = NULL;
	client->timer = NULL;
	client->state = CLIENT_READS;
	r = sd_event_add_io(role->process.event, &client->io, fd, EPOLLIN, on_client, client);
	if (r >= 0)
		r = sd_event_add_time_relative(role->process.event, &client->timer, CLOCK_MONOTONIC, CLIENT_USEC, 0,
					       on_client_late, client);
	if (r < 0)
		client_close(client);
}

static int on_connection(sd_event_source *source, int listen_fd, uint32_t events, void *context)
{
	struct role *role = context;
	int fd = 0;

	(void)source;
	(void)events;
	for (int i = 0; i < MAX_CLIENTS && fd >= 0; i++) {
		fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0)
			client_new(role, fd);
	}
	if (fd < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
		/* Out of descriptors or memory the socket stays readable: look away for a moment instead of spinning. */
		sd_event_source_set_enabled(role->listener, SD_EVENT_OFF);
		sd_event_source_set_time_relative(role->pause, ACCEPT_PAUSE_USEC);
		sd_event_source_set_enabled(role->pause, SD_EVENT_ONESHOT);
	}
	return 0;
}

static int on_pause_over(sd_event_source *source, uint64_t usec, void *context)
{
	struct role *role = context;

	(void)source;
	(void)usec;
	return sd_event_source_set_enabled(role->listener, SD_EVENT_ON);
}

/* ---- the enforcer ---- */

static int on_overdue(sd_event_source *source, uint64_t usec, void *context)
{
	struct role *role = context;

	(void)source;
	(void)usec;
	pages_drop(role);
	waiting_answer(role);
	return 0;
}

static void snapshot_take(struct role *role, int fd)
{
	void *bytes = NULL;
	size_t len = 0;
	int r = ipc_memfd_read(fd, METRICS_MAX_BYTES, &bytes, &len);

	pages_drop(role);
	if (r == 0 && metrics_check(bytes, len)) {
		role->snapshot = bytes;
		role->snapshot_usec = now_usec();
	} else {
		log_error("metrics: the enforcer's snapshot cannot be read: %s", r ? strerror(-r) : "malformed");
		free(bytes);
	}
	waiting_answer(role);
}

static bool on_packet(void *ctx, int type, const void *packet, int *fdp)
{
	(void)packet;
	if (type != IPC_METRICS)
		return false;
	snapshot_take(ctx, *fdp);
	return true;
}

/* ---- the process ---- */

static void role_freep(struct role **rolep)
{
	struct role *role = *rolep;

	if (!role)
		return;
	for (size_t i = 0; i < MAX_CLIENTS; i++)
		if (role->clients[i].state != CLIENT_FREE)
			client_close(&role->clients[i]);
	pages_drop(role);
	sd_event_source_disable_unref(role->listener);
	sd_event_source_disable_unref(role->pause);
	sd_event_source_disable_unref(role->overdue);
	role_process_close(&role->process);
	free(role);
}

static int add_timer(struct role *role, sd_event_source **timer, sd_event_time_handler_t handler)
{
	int r = sd_event_add_time_relative(role->process.event, timer, CLOCK_MONOTONIC, 0, 0, handler, role);

	return r < 0 ? r : sd_event_source_set_enabled(*timer, SD_EVENT_OFF);
}

static int add_sources(struct role *role, int listen_fd)
{
	int r = sd_event_add_io(role->process.event, &role->listener, listen_fd, EPOLLIN, on_connection, role);

	if (r >= 0)
		r = add_timer(role, &role->pause, on_pause_over);
	if (r >= 0)
		r = add_timer(role, &role->overdue, on_overdue);
	return r;
}

static int set_up(struct role *role, int listen_fd)
{
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);
	int r = role_process_open(&role->process);

	if (r == 0 && getsockname(listen_fd, (struct sockaddr *)&address, &len) < 0)
		r = -errno;
	if (r < 0)
		return r;
	role->local = address.ss_family != AF_UNIX;
	r = add_sources(role, listen_fd);
	return r < 0 ? r : role_sandbox(SANDBOX_METRICS);
}

int role_metrics_main(int ipc_fd, int listen_fd)
{
	__attribute__((cleanup(role_freep))) struct role *role = calloc(1, sizeof(*role));

	if (!role) {
		log_error("metrics: cannot start: %s", strerror(ENOMEM));
		return EXIT_FAILURE;
	}
	role->process = (struct role_process){.name = "metrics", .ipc_fd = ipc_fd, .packet = on_packet, .ctx = role};
	return role_process_run(&role->process, set_up(role, listen_fd));
}
