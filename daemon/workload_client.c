/* SPDX-License-Identifier: Apache-2.0 */
#include "workload_client.h"

#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "identity/spiffe_id.h"
#include "workload.pb-c.h"

#define PREFIX_BYTES 5 /* gRPC: one byte of flags, four of length, big-endian */
#define GRPC_PERMISSION_DENIED 7
#define SPIFFE_SCHEME "spiffe://"

struct workload_client {
	sd_event *event;
	const struct workload_ops *ops;
	void *ctx;
	char path[108];
	int fd; /* -1: not connected */
	sd_event_source *io;
	sd_event_source *again;
	struct backoff backoff;
	nghttp2_session *session;
	int32_t stream;
	bool ended; /* the stream, or trust in it; the connection is closed when nghttp2 has returned */
	int http_status, grpc_status; /* -1: none came */
	char grpc_message[200];
	char why[400];
	uint8_t *bytes; /* of the message that is coming, with its prefix */
	size_t len, room;
};

static __attribute__((format(printf, 2, 3))) void broken(struct workload_client *c, const char *format, ...)
{
	va_list args;

	if (c->ended)
		return;
	va_start(args, format);
	vsnprintf(c->why, sizeof(c->why), format, args);
	va_end(args);
	c->ended = true;
}

/* ---- messages ---- */

/* The name in a key. Returns whether it is one. */
static bool key_read(const ProtobufCBinaryData *key, char name[SPIFFE_TRUST_DOMAIN_MAX + 1])
{
	const size_t scheme = strlen(SPIFFE_SCHEME);
	size_t len = key->len - scheme;

	if (key->len <= scheme || len > SPIFFE_TRUST_DOMAIN_MAX || memcmp(key->data, SPIFFE_SCHEME, scheme) != 0 ||
	    spiffe_trust_domain_check((const char *)key->data + scheme, len) != 0)
		return false;
	memcpy(name, key->data + scheme, len);
	name[len] = '\0';
	return true;
}

/* All or nothing: of a state that is half understood, what is missing would be taken for gone. */
static bool message_bundles(struct workload_client *c, const Bulkhead__X509BundlesResponse *message,
			    struct workload_bundle *bundles, char (*names)[SPIFFE_TRUST_DOMAIN_MAX + 1])
{
	for (size_t i = 0; i < message->n_bundles; i++) {
		const Bulkhead__X509BundlesResponse__Bundle *bundle = message->bundles[i];

		if (!key_read(&bundle->trust_domain, names[i])) {
			broken(c, "bundle %zu of a message is of no SPIFFE trust domain", i);
			return false;
		}
		for (size_t j = 0; j < i; j++)
			if (strcmp(names[i], names[j]) == 0) {
				broken(c, "a message has two bundles of %.100s", names[i]);
				return false;
			}
		bundles[i] = (struct workload_bundle){names[i], bundle->authorities.data, bundle->authorities.len};
	}
	return true;
}

static void message_take(struct workload_client *c, const uint8_t *bytes, size_t len)
{
	Bulkhead__X509BundlesResponse *message = bulkhead__x509_bundles_response__unpack(NULL, len, bytes);
	char(*names)[SPIFFE_TRUST_DOMAIN_MAX + 1] = NULL;
	struct workload_bundle *bundles = NULL;

	if (!message) {
		broken(c, "a message of %zu bytes cannot be read", len);
		return;
	}
	if (message->n_bundles > WORKLOAD_MAX_BUNDLES) {
		broken(c, "a message has %zu bundles, more than %d", message->n_bundles, WORKLOAD_MAX_BUNDLES);
	} else {
		names = calloc(message->n_bundles + 1, sizeof(*names));
		bundles = calloc(message->n_bundles + 1, sizeof(*bundles));
		if (!names || !bundles) {
			broken(c, "out of memory");
		} else if (message_bundles(c, message, bundles, names)) {
			/* A server says it once: what was not taken comes again with a new stream only. */
			if (c->ops->state(c->ctx, WORKLOAD_COMPLETE, bundles, message->n_bundles, ""))
				backoff_reset(&c->backoff);
			else
				broken(c, "the bundles that came could not be handed over");
		}
	}
	free(names);
	free(bundles);
	bulkhead__x509_bundles_response__free_unpacked(message, NULL);
}

/* Takes the messages that are complete. */
static void messages_take(struct workload_client *c)
{
	size_t at = 0;

	while (!c->ended && c->len - at >= PREFIX_BYTES) {
		const uint8_t *prefix = c->bytes + at;
		size_t len = (size_t)prefix[1] << 24 | (size_t)prefix[2] << 16 | (size_t)prefix[3] << 8 | prefix[4];

		if (prefix[0]) {
			broken(c, "a message is compressed, which nobody asked for");
			return;
		}
		if (len > WORKLOAD_MAX_BYTES) {
			broken(c, "a message has %zu bytes, more than %u", len, WORKLOAD_MAX_BYTES);
			return;
		}
		if (c->len - at - PREFIX_BYTES < len)
			break;
		message_take(c, prefix + PREFIX_BYTES, len);
		at += PREFIX_BYTES + len;
	}
	c->len -= at;
	if (at && c->len)
		memmove(c->bytes, c->bytes + at, c->len);
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *bytes, size_t len,
		   void *context)
{
	struct workload_client *c = context;

	(void)session;
	(void)flags;
	if (stream != c->stream || c->ended)
		return 0;
	if (c->http_status != 200) {
		broken(c, "data came with HTTP status %d", c->http_status);
		return 0;
	}
	if (c->room - c->len < len) {
		uint8_t *more = realloc(c->bytes, c->len + len);

		if (!more) {
			broken(c, "out of memory");
			return 0;
		}
		c->bytes = more;
		c->room = c->len + len;
	}
	memcpy(c->bytes + c->len, bytes, len);
	c->len += len;
	messages_take(c);
	return 0;
}

/* ---- headers ---- */

static int number_of(const uint8_t *text, size_t len)
{
	int number = 0;

	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9' || i == 4)
			return -1;
		number = number * 10 + (text[i] - '0');
	}
	return len ? number : -1;
}

static bool is_name(const uint8_t *name, size_t len, const char *expected)
{
	return len == strlen(expected) && memcmp(name, expected, len) == 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
		     const uint8_t *value, size_t value_len, uint8_t flags, void *context)
{
	struct workload_client *c = context;

	(void)session;
	(void)flags;
	if (frame->hd.stream_id != c->stream)
		return 0;
	if (is_name(name, name_len, ":status"))
		c->http_status = number_of(value, value_len);
	else if (is_name(name, name_len, "grpc-status"))
		c->grpc_status = number_of(value, value_len);
	else if (is_name(name, name_len, "grpc-message"))
		snprintf(c->grpc_message, sizeof(c->grpc_message), "%.*s", (int)value_len, (const char *)value);
	else if (c->http_status == 200 && is_name(name, name_len, "content-type") &&
		 (value_len < 16 || strncasecmp((const char *)value, "application/grpc", 16) != 0))
		broken(c, "it answers with something other than gRPC");
	return 0;
}

static void stream_over(struct workload_client *c, const char *how)
{
	if (c->grpc_status > 0)
		broken(c, "gRPC status %d%s%.150s", c->grpc_status, c->grpc_message[0] ? ": " : "", c->grpc_message);
	else if (c->http_status > 0 && c->http_status != 200)
		broken(c, "HTTP status %d", c->http_status);
	else
		broken(c, "%s", how);
}

static int on_stream_close(nghttp2_session *session, int32_t stream, uint32_t code, void *context)
{
	struct workload_client *c = context;
	char how[100];

	(void)session;
	if (stream != c->stream)
		return 0;
	snprintf(how, sizeof(how), "the server ended the stream%s%s", code ? ": " : "",
		 code ? nghttp2_http2_strerror(code) : "");
	stream_over(c, how);
	return 0;
}

/* ---- the connection ---- */

static void connection_close(struct workload_client *c)
{
	c->io = sd_event_source_disable_unref(c->io);
	nghttp2_session_del(c->session);
	c->session = NULL;
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	free(c->bytes);
	c->bytes = NULL;
	c->len = c->room = 0;
}

/* Tells what happened, and plans the next attempt. */
static void connection_lost(struct workload_client *c)
{
	enum workload_state state = c->grpc_status == GRPC_PERMISSION_DENIED ? WORKLOAD_DENIED : WORKLOAD_LOST;
	uint32_t random = 0;

	connection_close(c);
	c->ops->state(c->ctx, state, NULL, 0, c->why);
	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
		random = 512;
	sd_event_source_set_time_relative(c->again, backoff_spread(backoff_next(&c->backoff), random));
	sd_event_source_set_enabled(c->again, SD_EVENT_ONESHOT);
}

static void write_out(struct workload_client *c)
{
	const uint8_t *bytes;
	ssize_t len, n;

	while (!c->ended && nghttp2_session_want_write(c->session)) {
		len = nghttp2_session_mem_send(c->session, &bytes);
		if (len < 0)
			broken(c, "HTTP/2: %s", nghttp2_strerror((int)len));
		if (len <= 0)
			return;
		/* What we send in all is a few hundred bytes: a socket that does not take them is not read from either. */
		n = send(c->fd, bytes, (size_t)len, MSG_NOSIGNAL);
		if (n != len)
			broken(c, "cannot send: %s", n < 0 ? strerror(errno) : "the socket is full");
	}
}

static void read_in(struct workload_client *c)
{
	uint8_t bytes[16384];
	ssize_t n = recv(c->fd, bytes, sizeof(bytes), 0), taken;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		stream_over(c, n == 0 ? "the server closed the connection" : strerror(errno));
		return;
	}
	taken = nghttp2_session_mem_recv(c->session, bytes, (size_t)n);
	if (taken < 0)
		broken(c, "HTTP/2: %s", nghttp2_strerror((int)taken));
}

static int on_socket(sd_event_source *source, int fd, uint32_t events, void *context)
{
	struct workload_client *c = context;

	(void)source;
	(void)fd;
	(void)events;
	read_in(c);
	if (!c->ended)
		write_out(c);
	if (!c->ended && !nghttp2_session_want_read(c->session) && !nghttp2_session_want_write(c->session))
		stream_over(c, "the HTTP/2 session ended");
	if (c->ended)
		connection_lost(c);
	return 0;
}

/* ---- the request ---- */

/* An empty X509BundlesRequest: a prefix that says 0 bytes. */
static ssize_t on_body(nghttp2_session *session, int32_t stream, uint8_t *into, size_t size, uint32_t *flags,
		       nghttp2_data_source *source, void *context)
{
	(void)session;
	(void)stream;
	(void)source;
	(void)context;
	if (size < PREFIX_BYTES)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	memset(into, 0, PREFIX_BYTES);
	*flags |= NGHTTP2_DATA_FLAG_EOF;
	return PREFIX_BYTES;
}

#define HEADER(name, value)                                                                                            \
	{                                                                                                              \
		(uint8_t *)(name), (uint8_t *)(value), sizeof(name) - 1, sizeof(value) - 1, NGHTTP2_NV_FLAG_NONE       \
	}

static int request_submit(struct workload_client *c)
{
	static const nghttp2_nv headers[] = {
		HEADER(":method", "POST"),
		HEADER(":scheme", "http"),
		HEADER(":path", "/SpiffeWorkloadAPI/FetchX509Bundles"),
		HEADER(":authority", "localhost"),
		HEADER("content-type", "application/grpc"),
		HEADER("te", "trailers"),
		HEADER("user-agent", "bulkhead/" BULKHEAD_VERSION),
		/* Without it a server refuses: so that nobody is made to ask by a URL (SPIFFE_Workload_Endpoint.md 3). */
		HEADER("workload.spiffe.io", "true"),
	};
	static const nghttp2_settings_entry settings[] = {
		{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, 16384},
	};
	nghttp2_data_provider body = {.read_callback = on_body};
	int r = nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings,
					sizeof(settings) / sizeof(settings[0]));

	if (r == 0)
		r = nghttp2_submit_request(c->session, NULL, headers, sizeof(headers) / sizeof(headers[0]), &body,
					   NULL);
	if (r < 0)
		return r;
	c->stream = r;
	return 0;
}

static int session_new(struct workload_client *c)
{
	nghttp2_session_callbacks *callbacks;
	int r = nghttp2_session_callbacks_new(&callbacks);

	if (r < 0)
		return r;
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
	r = nghttp2_session_client_new(&c->session, callbacks, c);
	nghttp2_session_callbacks_del(callbacks);
	return r < 0 ? r : request_submit(c);
}

static void connection_open(struct workload_client *c)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int r;

	c->ended = false;
	c->stream = -1;
	c->http_status = c->grpc_status = -1;
	c->grpc_message[0] = c->why[0] = '\0';
	strcpy(address.sun_path, c->path);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		broken(c, "cannot connect to %s: %s", c->path, strerror(errno));
		return;
	}
	r = session_new(c);
	if (r < 0) {
		broken(c, "HTTP/2: %s", nghttp2_strerror(r));
		return;
	}
	r = sd_event_add_io(c->event, &c->io, c->fd, EPOLLIN, on_socket, c);
	if (r < 0)
		broken(c, "cannot wait for an answer: %s", strerror(-r));
	else
		write_out(c);
}

static int on_again(sd_event_source *source, uint64_t usec, void *context)
{
	struct workload_client *c = context;

	(void)source;
	(void)usec;
	connection_open(c);
	if (c->ended)
		connection_lost(c);
	return 0;
}

int workload_client_new(struct workload_client **clientp, sd_event *event, const char *path,
			const struct workload_ops *ops, void *ctx)
{
	struct workload_client *c;
	int r;

	if (strlen(path) >= sizeof(c->path))
		return -ENAMETOOLONG;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->event = event;
	c->ops = ops;
	c->ctx = ctx;
	c->fd = -1;
	c->backoff = WORKLOAD_BACKOFF;
	strcpy(c->path, path);
	r = sd_event_add_time_relative(event, &c->again, CLOCK_MONOTONIC, 0, 1000, on_again, c);
	if (r < 0) {
		free(c);
		return r;
	}
	*clientp = c;
	return 0;
}

void workload_client_freep(struct workload_client **clientp)
{
	struct workload_client *c = *clientp;

	if (!c)
		return;
	connection_close(c);
	sd_event_source_disable_unref(c->again);
	free(c);
	*clientp = NULL;
}
