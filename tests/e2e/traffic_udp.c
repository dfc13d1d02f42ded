/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "traffic.h"

#define MAX_STREAMS 64

struct stream {
	uint32_t id;
	struct reception reception;
};

static struct stream *stream_find(struct stream *all, size_t *n, uint32_t id)
{
	for (size_t i = 0; i < *n; i++) {
		if (all[i].id == id)
			return &all[i];
	}
	if (*n == MAX_STREAMS)
		return NULL;
	all[*n] = (struct stream){.id = id};
	return &all[(*n)++];
}

static void server_stat(const struct stream *all, size_t n, uint64_t strange, uint64_t echo_errors)
{
	char json[512];

	printf("{\"event\": \"stat\", \"t\": %" PRIu64 ", \"strange\": %" PRIu64 ", \"echo_errors\": %" PRIu64
	       ", \"streams\": [",
	       now_ns(), strange, echo_errors);
	for (size_t i = 0; i < n; i++)
		printf("%s{\"stream\": %u, %s}", i ? ", " : "", all[i].id,
		       reception_json(&all[i].reception, json, sizeof(json)));
	puts("]}");
	fflush(stdout);
}

/* A record that waits for its reader must not be lost for want of room: loss has to mean that it was denied. */
static void room(int fd)
{
	int bytes = 8 << 20;

	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
}

int udp_server(const struct options *options)
{
	static struct stream all[MAX_STREAMS];
	struct pollfd fds[1 + MAX_LISTEN] = {{.fd = STDIN_FILENO, .events = POLLIN}};
	uint64_t strange = 0, echo_errors = 0;
	struct command command;
	size_t n = 0;
	int on = 1;

	for (size_t i = 0; i < options->n_listen; i++) {
		int fd = socket_or_die(&options->listen[i], SOCK_DGRAM, 0);

		if (options->reuse)
			setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
		room(fd);
		bind_or_die(fd, &options->listen[i]);
		fds[1 + i] = (struct pollfd){.fd = fd, .events = POLLIN};
		emit("listening", "\"addr\": \"%s\"", options->listen[i].text);
	}
	emit("ready", "\"pid\": %d", getpid());
	for (;;) {
		if (poll(fds, 1 + options->n_listen, -1) < 0)
			continue;
		for (size_t i = 1; i <= options->n_listen; i++) {
			struct sockaddr_storage from;
			socklen_t len = sizeof(from);
			struct record record;
			ssize_t got;

			while ((got = recvfrom(fds[i].fd, &record, sizeof(record), 0, (struct sockaddr *)&from,
					       &len)) >= 0) {
				struct stream *stream;

				stream = got == (ssize_t)sizeof(record) && record.magic == RECORD_MAGIC
						 ? stream_find(all, &n, record.stream)
						 : NULL;
				if (!stream) {
					strange++;
					continue;
				}
				reception_add(&stream->reception, &record);
				if (sendto(fds[i].fd, &record, sizeof(record), 0, (struct sockaddr *)&from, len) < 0)
					echo_errors++;
				len = sizeof(from);
			}
		}
		if (!fds[0].revents)
			continue;
		command_read(&command);
		if (command.stat || command.quit)
			server_stat(all, n, strange, echo_errors);
		if (command.quit)
			return 0;
	}
}

/* ---- client ---- */

struct client {
	const struct options *options;
	int fd;
	struct pace pace;
	struct reception reception;
	uint64_t seq; /* records made; one that the kernel refused counts as made */
	uint64_t sent;
	uint64_t refused;
	int error; /* of the last refusal */
	uint64_t last_sent_ns;
};

static void client_stat(const struct client *client)
{
	char json[512];

	emit("stat", "\"made\": %" PRIu64 ", \"sent\": %" PRIu64 ", \"refused\": %" PRIu64 ", \"errno\": \"%s\", %s",
	     client->seq, client->sent, client->refused, client->error ? errno_name(client->error) : "",
	     reception_json(&client->reception, json, sizeof(json)));
}

static void client_send(struct client *client, uint64_t n)
{
	const struct options *options = client->options;
	struct record record = {.magic = RECORD_MAGIC, .stream = options->stream};

	struct sockaddr_storage to = options->to.addr;
	uint16_t *port = to.ss_family == AF_INET ? &((struct sockaddr_in *)&to)->sin_port
						 : &((struct sockaddr_in6 *)&to)->sin6_port;
	uint16_t first = ntohs(*port);

	for (; n; n--) {
		ssize_t w;

		if (options->count && client->seq == options->count)
			return;
		record.seq = ++client->seq;
		record.sent_ns = now_ns();
		if (options->spread)
			*port = htons((uint16_t)(first + record.seq % options->spread));
		if (options->connected)
			w = send(client->fd, &record, sizeof(record), 0);
		else
			w = sendto(client->fd, &record, sizeof(record), 0, (struct sockaddr *)&to, options->to.len);
		if (w < 0) {
			client->refused++;
			client->error = errno;
		} else {
			client->sent++;
			client->last_sent_ns = record.sent_ns;
		}
	}
}

static void client_receive(struct client *client)
{
	struct record record;
	ssize_t got;

	/* A connected socket reports an earlier ICMP error here; it is not the end of it. */
	while ((got = recv(client->fd, &record, sizeof(record), 0)) >= 0 || errno == ECONNREFUSED) {
		if (got == (ssize_t)sizeof(record) && record.magic == RECORD_MAGIC &&
		    record.stream == client->options->stream)
			reception_add(&client->reception, &record);
	}
}

/* Returns -1 to go on, or the exit code. */
static int client_step(struct client *client)
{
	const struct options *options = client->options;
	struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = client->fd, .events = POLLIN}};
	bool all_sent = options->count && client->seq == options->count;
	struct command command = {};
	int got = poll(fds, 2, all_sent ? (int)options->timeout_ms : pace_wait_ms(&client->pace));

	if (got < 0)
		return -1;
	client_receive(client);
	if (fds[0].revents)
		command_read(&command);
	if (command.set_rate)
		pace_set(&client->pace, command.rate);
	client_send(client, command.send + pace_due(&client->pace));
	if (command.stat || command.quit)
		client_stat(client);
	if (command.quit)
		return 0;
	if (options->count && client->reception.received >= options->count) {
		emit("done", "\"received\": %" PRIu64, client->reception.received);
		return 0;
	}
	if (all_sent && (!got || client->refused == options->count)) {
		emit("no-echo", "\"received\": %" PRIu64, client->reception.received);
		client_stat(client);
		return 1;
	}
	return -1;
}

int udp_client(const struct options *options)
{
	struct client client = {.options = options, .fd = socket_or_die(&options->to, SOCK_DGRAM, 0)};
	int rc;

	room(client.fd);
	if (options->from.len)
		bind_or_die(client.fd, &options->from);
	if (options->connected && connect(client.fd, (const struct sockaddr *)&options->to.addr, options->to.len) < 0) {
		emit("connect-failed", "\"errno\": \"%s\"", errno_name(errno));
		return 1;
	}
	emit("ready", "\"pid\": %d", getpid());
	pace_set(&client.pace, options->rate ? options->rate : options->count ? 1000000 : 0);
	do
		rc = client_step(&client);
	while (rc < 0);
	return rc;
}

/* ---- ICMP echo ---- */

static uint16_t checksum(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint32_t sum = 0;

	for (size_t i = 0; i + 1 < len; i += 2)
		sum += (uint32_t)(p[i] << 8 | p[i + 1]);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

/* One request and its reply. Returns 1 answered, 0 not, or -errno when it could not be sent. */
static int ping_once(const struct options *options, int fd, uint16_t seq)
{
	bool v6 = options->to.addr.ss_family == AF_INET6;
	struct icmphdr request = {
		.type = v6 ? ICMP6_ECHO_REQUEST : ICMP_ECHO,
		.un.echo = {.id = htons((uint16_t)getpid()), .sequence = htons(seq)},
	};
	uint64_t deadline = now_ns() + options->timeout_ms * 1000000U;
	struct sockaddr_storage addr = options->to.addr;
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	uint8_t buf[256];

	((struct sockaddr_in *)&addr)->sin_port = 0;
	if (!v6)
		request.checksum = checksum(&request, sizeof(request));
	if (sendto(fd, &request, sizeof(request), 0, (struct sockaddr *)&addr, options->to.len) < 0)
		return -errno;
	for (uint64_t now = now_ns(); now < deadline; now = now_ns()) {
		if (poll(&pfd, 1, (int)((deadline - now) / 1000000U) + 1) <= 0)
			continue;
		ssize_t n = recv(fd, buf, sizeof(buf), 0);
		size_t skip = options->raw && !v6 && n > 0 ? (size_t)(buf[0] & 15) * 4 : 0;
		struct icmphdr reply;

		if (n < (ssize_t)(skip + sizeof(reply)))
			continue;
		memcpy(&reply, buf + skip, sizeof(reply));
		if (reply.type == (v6 ? ICMP6_ECHO_REPLY : ICMP_ECHOREPLY) &&
		    reply.un.echo.sequence == request.un.echo.sequence)
			return 1;
	}
	return 0;
}

int ping(const struct options *options)
{
	int protocol = options->to.addr.ss_family == AF_INET6 ? (int)IPPROTO_ICMPV6 : (int)IPPROTO_ICMP;
	int fd = socket_or_die(&options->to, options->raw ? SOCK_RAW : SOCK_DGRAM, protocol);
	uint64_t received = 0, sent = 0;
	int error = 0;

	for (uint16_t i = 1; i <= (options->count ? options->count : 1); i++) {
		int got = ping_once(options, fd, i);

		if (got < 0)
			error = -got;
		else
			sent++;
		received += got > 0;
	}
	emit("done", "\"sent\": %" PRIu64 ", \"received\": %" PRIu64 ", \"errno\": \"%s\"", sent, received,
	     error ? errno_name(error) : "");
	return received ? 0 : 1;
}
