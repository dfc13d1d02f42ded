/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "traffic.h"

struct connection {
	int fd; /* -1: over */
	struct endpoint peer;
	uint32_t stream;
	struct reception reception;
	uint8_t partial[sizeof(struct record)];
	size_t n_partial;
	int error; /* why it is over; 0: the peer closed it */
	uint64_t ended_ns;
	uint64_t echoes_lost; /* the send buffer was full */
};

static uint32_t retransmissions(int fd)
{
	struct tcp_info info = {};
	socklen_t len = sizeof(info);

	getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len);
	return info.tcpi_total_retrans;
}

/* Reads what is there; calls back per record. Returns false once the connection is over. */
static bool connection_read(struct connection *c, void (*each)(struct connection *, const struct record *))
{
	uint8_t buf[64 * sizeof(struct record)];
	struct record record;

	for (;;) {
		ssize_t n = read(c->fd, buf, sizeof(buf));
		size_t at = 0;

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return true;
		if (n <= 0) {
			if (n < 0)
				c->error = errno;
			c->ended_ns = now_ns();
			return false;
		}
		while (at < (size_t)n) {
			size_t want = sizeof(record) - c->n_partial, have = (size_t)n - at;
			size_t take = want < have ? want : have;

			memcpy(c->partial + c->n_partial, buf + at, take);
			c->n_partial += take;
			at += take;
			if (c->n_partial < sizeof(record))
				continue;
			memcpy(&record, c->partial, sizeof(record));
			c->n_partial = 0;
			c->stream = record.stream;
			reception_add(&c->reception, &record);
			if (each)
				each(c, &record);
		}
	}
}

static void connection_echo(struct connection *c, const struct record *record)
{
	ssize_t n = write(c->fd, record, sizeof(*record));

	if (n == (ssize_t)sizeof(*record))
		return;
	/* A socket tells its error once: who reads after that is told of an end like any other. */
	if (n < 0 && errno != EAGAIN && errno != EPIPE)
		c->error = errno;
	c->echoes_lost++;
}

static void server_stat(const struct connection *all, size_t n, uint64_t accepted)
{
	size_t first = n > 64 ? n - 64 : 0;
	char json[512];

	printf("{\"event\": \"stat\", \"t\": %" PRIu64 ", \"accepted\": %" PRIu64 ", \"connections\": [", now_ns(),
	       accepted);
	for (size_t i = first; i < n; i++) {
		const struct connection *c = &all[i];

		printf("%s{\"peer\": \"%s\", \"stream\": %u, \"open\": %s, \"ended\": \"%s\", \"ended_ns\": %" PRIu64
		       ", \"echoes_lost\": %" PRIu64 ", %s}",
		       i > first ? ", " : "", c->peer.text, c->stream, c->fd >= 0 ? "true" : "false",
		       c->fd >= 0      ? ""
		       : c->error == 0 ? "EOF"
				       : errno_name(c->error),
		       c->ended_ns, c->echoes_lost, reception_json(&c->reception, json, sizeof(json)));
	}
	puts("]}");
	fflush(stdout);
}

static void server_accept(int listener, struct connection *all, size_t *n, uint64_t *accepted)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);
	int fd = accept4(listener, (struct sockaddr *)&addr, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct connection *c;

	if (fd < 0)
		return;
	(*accepted)++;
	/* The table is full of old ones: the oldest that is over makes room. */
	for (size_t i = 0; *n == MAX_CONNECTIONS && i < *n; i++) {
		if (all[i].fd < 0) {
			memmove(&all[i], &all[i + 1], (*n - i - 1) * sizeof(*all));
			(*n)--;
		}
	}
	if (*n == MAX_CONNECTIONS) {
		close(fd);
		return;
	}
	c = &all[(*n)++];
	*c = (struct connection){.fd = fd};
	endpoint_from(&c->peer, (struct sockaddr *)&addr, len);
	emit("accepted", "\"peer\": \"%s\"", c->peer.text);
}

static void server_listen(const struct options *options, struct pollfd *fds)
{
	int on = 1;

	for (size_t i = 0; i < options->n_listen; i++) {
		int fd = socket_or_die(&options->listen[i], SOCK_STREAM, 0);

		if (options->reuse)
			setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
		bind_or_die(fd, &options->listen[i]);
		if (listen(fd, 512) < 0) {
			emit("listen-failed", "\"errno\": \"%s\"", errno_name(errno));
			exit(1);
		}
		fds[i] = (struct pollfd){.fd = fd, .events = POLLIN};
		emit("listening", "\"addr\": \"%s\"", options->listen[i].text);
	}
}

int tcp_server(const struct options *options)
{
	static struct connection all[MAX_CONNECTIONS];
	static struct pollfd fds[1 + MAX_LISTEN + MAX_CONNECTIONS] = {{.fd = STDIN_FILENO, .events = POLLIN}};
	size_t n = 0, base = 1 + options->n_listen;
	uint64_t accepted = 0;
	struct command command;

	server_listen(options, fds + 1);
	emit("ready", "\"pid\": %d", getpid());
	for (;;) {
		size_t polled = n;

		for (size_t i = 0; i < n; i++)
			fds[base + i] = (struct pollfd){.fd = all[i].fd, .events = POLLIN};
		if (poll(fds, base + n, -1) < 0)
			continue;
		for (size_t i = 0; i < polled; i++) {
			struct connection *c = &all[i];

			if (c->fd < 0 || !fds[base + i].revents || connection_read(c, connection_echo))
				continue;
			emit("ended", "\"peer\": \"%s\", \"stream\": %u, \"errno\": \"%s\"", c->peer.text, c->stream,
			     c->error ? errno_name(c->error) : "EOF");
			close(c->fd);
			c->fd = -1;
		}
		for (size_t i = 0; i < options->n_listen; i++) {
			if (fds[1 + i].revents)
				server_accept(fds[1 + i].fd, all, &n, &accepted);
		}
		if (!fds[0].revents)
			continue;
		command_read(&command);
		if (command.stat || command.quit)
			server_stat(all, n, accepted);
		if (command.quit)
			return 0;
	}
}

/* ---- client ---- */

struct client {
	const struct options *options;
	struct connection c;
	struct pace pace;
	uint64_t sent;
	uint64_t blocked; /* records not taken: send buffer full */
	uint64_t started_ns;
	uint64_t quiet_since_ns; /* all is sent, echoes are missing */
};

static void client_stat(const struct client *client)
{
	char json[512];

	emit("stat", "\"sent\": %" PRIu64 ", \"blocked\": %" PRIu64 ", \"retransmissions\": %u, %s", client->sent,
	     client->blocked, retransmissions(client->c.fd), reception_json(&client->c.reception, json, sizeof(json)));
}

static int client_connect(struct client *client)
{
	const struct options *options = client->options;
	int fd = client->c.fd, error = 0;
	socklen_t len = sizeof(error);
	struct pollfd pfd = {.fd = fd, .events = POLLOUT};
	int got;

	client->started_ns = now_ns();
	if (connect(fd, (const struct sockaddr *)&options->to.addr, options->to.len) < 0 && errno != EINPROGRESS)
		return errno;
	do
		got = poll(&pfd, 1, (int)options->timeout_ms);
	while (got < 0 && errno == EINTR);
	if (!got)
		return ETIMEDOUT;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
	return error;
}

/* Sends up to `n` records. A record that the buffer does not take whole is counted, not sent in part. */
static int client_send(struct client *client, uint64_t n)
{
	struct record record = {.magic = RECORD_MAGIC, .stream = client->options->stream};

	for (uint64_t i = 0; i < n; i++) {
		if (client->options->count && client->sent == client->options->count)
			return 0;
		record.seq = client->sent + 1;
		record.sent_ns = now_ns();
		ssize_t w = send(client->c.fd, &record, sizeof(record), MSG_NOSIGNAL);

		if (w == (ssize_t)sizeof(record)) {
			client->sent++;
		} else if (w < 0 && errno == EAGAIN) {
			client->blocked++;
			return 0;
		} else {
			return w < 0 ? errno : EIO;
		}
	}
	return 0;
}

/* Returns -1 to go on, or the exit code. */
static int client_step(struct client *client)
{
	const struct options *options = client->options;
	struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = client->c.fd, .events = POLLIN}};
	bool all_sent = options->count && client->sent == options->count;
	int wait = all_sent ? (int)options->timeout_ms : pace_wait_ms(&client->pace), error = 0;
	struct command command = {};

	if (poll(fds, 2, wait) < 0)
		return -1;
	if (fds[1].revents && !connection_read(&client->c, NULL)) {
		emit("ended", "\"errno\": \"%s\"", client->c.error ? errno_name(client->c.error) : "EOF");
		client_stat(client);
		return 1;
	}
	if (fds[0].revents)
		command_read(&command);
	if (command.set_rate)
		pace_set(&client->pace, command.rate);
	error = client_send(client, command.send + pace_due(&client->pace));
	if (error) {
		emit("ended", "\"errno\": \"%s\"", errno_name(error));
		client_stat(client);
		return 1;
	}
	if (command.stat || command.quit)
		client_stat(client);
	if (command.quit)
		return 0;
	if (options->count && client->c.reception.received >= options->count) {
		emit("done", "\"received\": %" PRIu64, client->c.reception.received);
		return 0;
	}
	if (!all_sent)
		client->quiet_since_ns = now_ns();
	else if (now_ns() - client->quiet_since_ns > options->timeout_ms * 1000000U) {
		emit("no-echo", "\"received\": %" PRIu64, client->c.reception.received);
		client_stat(client);
		return 1;
	}
	return -1;
}

int tcp_client(const struct options *options)
{
	struct client client = {.options = options, .c.fd = socket_or_die(&options->to, SOCK_STREAM, 0)};
	int error, on = 1, rc;

	setsockopt(client.c.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (options->from.len)
		bind_or_die(client.c.fd, &options->from);
	error = client_connect(&client);
	if (error) {
		emit("connect-failed", "\"errno\": \"%s\", \"ms\": %" PRIu64, errno_name(error),
		     (now_ns() - client.started_ns) / 1000000U);
		return 1;
	}
	struct sockaddr_storage addr;
	struct endpoint local = {.len = sizeof(addr)};

	getsockname(client.c.fd, (struct sockaddr *)&addr, &local.len);
	endpoint_from(&local, (struct sockaddr *)&addr, local.len);
	emit("connected", "\"local\": \"%s\"", local.text);
	/* With a count and no rate, all of it goes out at once. */
	pace_set(&client.pace, options->rate ? options->rate : options->count ? 1000000 : 0);
	client.quiet_since_ns = now_ns();
	do
		rc = client_step(&client);
	while (rc < 0);
	return rc;
}

/* ---- connection flood ---- */

#define FLOOD_OPEN 256

int tcp_flood(const struct options *options)
{
	static struct pollfd open_fds[FLOOD_OPEN];
	struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
	uint64_t tried = 0, connected = 0, refused = 0;
	struct command command;
	struct pace pace;

	for (size_t i = 0; i < FLOOD_OPEN; i++)
		open_fds[i] = (struct pollfd){.fd = -1, .events = POLLOUT};
	pace_set(&pace, options->rate);
	emit("ready", "\"pid\": %d", getpid());
	for (;;) {
		if (poll(&in, 1, pace_wait_ms(&pace)) > 0) {
			command_read(&command);
			if (command.stat || command.quit)
				emit("stat",
				     "\"tried\": %" PRIu64 ", \"connected\": %" PRIu64 ", \"refused\": %" PRIu64, tried,
				     connected, refused);
			if (command.quit)
				return 0;
			if (command.set_rate)
				pace_set(&pace, command.rate);
		}
		for (uint64_t due = pace_due(&pace); due; due--) {
			struct pollfd *slot = &open_fds[tried++ % FLOOD_OPEN];

			/* The one that had this slot had its time: see what became of it. */
			if (slot->fd >= 0) {
				if (poll(slot, 1, 0) > 0 && !(slot->revents & (POLLERR | POLLHUP)))
					connected++;
				close(slot->fd);
			}
			slot->fd = socket_or_die(&options->to, SOCK_STREAM, 0);
			if (connect(slot->fd, (const struct sockaddr *)&options->to.addr, options->to.len) == 0) {
				connected++;
			} else if (errno != EINPROGRESS) {
				refused++;
			} else {
				continue;
			}
			close(slot->fd);
			slot->fd = -1;
		}
	}
}
