/* SPDX-License-Identifier: Apache-2.0 */
/*
 * traffic.h - one tool that plays every end of a connection in the e2e tests.
 *
 * Servers and clients exchange numbered records that carry the time they were sent, so that a test can say exactly what
 * arrived and when it had left. Everything that happens is one JSON line on stdout; a test asks for counters by writing
 * a command line to stdin:
 *
 *   stat      print {"event": "stat", ...}
 *   send N    (clients) send N records now
 *   rate N    (clients) go on with N records a second
 *   quit      print a last stat and leave
 *
 * Times are CLOCK_MONOTONIC nanoseconds: the same clock in every process of the host.
 */
#ifndef BULKHEAD_TESTS_E2E_TRAFFIC_H
#define BULKHEAD_TESTS_E2E_TRAFFIC_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

#define RECORD_MAGIC 0x52544842U
#define MAX_LISTEN 16
#define MAX_CONNECTIONS 1024

/* What travels: fixed size, host byte order (both ends run on one host). */
struct record {
	uint32_t magic;
	uint32_t stream; /* which client sent it */
	uint64_t seq;	 /* from 1 */
	uint64_t sent_ns;
};

struct endpoint {
	struct sockaddr_storage addr;
	socklen_t len;
	char text[80];
};

struct options {
	struct endpoint listen[MAX_LISTEN];
	size_t n_listen;
	struct endpoint to;
	struct endpoint from; /* len 0: any */
	uint32_t stream;
	uint64_t rate;	     /* records (or connections) a second; 0: only on command */
	uint64_t count;	     /* leave when so many were echoed; 0: never */
	uint16_t spread;     /* UDP: records go to so many ports in turn, from that of `to` on */
	uint64_t timeout_ms; /* for connect, and for echoes once all is sent */
	bool connected;	     /* UDP: connect() the socket */
	bool raw;	     /* ping: raw socket instead of a ping socket */
	bool reuse;	     /* SO_REUSEPORT */
	bool sqpoll;	     /* io_uring: a thread of the kernel submits */
	const char *text;    /* what uring-* and udp-mmsg send */
	const char *root;    /* churn: where the cgroups are made */
};

/* What a receiver knows of one stream of records. */
struct reception {
	uint64_t received;
	uint64_t last_seq;
	uint64_t out_of_order; /* records that do not follow their predecessor */
	uint64_t last_sent_ns; /* latest time of sending among those received */
	uint64_t last_ns;      /* when the last one was received */
	uint64_t max_gap_ns;   /* longest time between two of them */
};

/* Which commands came in on stdin since the last call. */
struct command {
	bool stat;
	bool quit;
	bool set_rate;
	uint64_t send;
	uint64_t rate;
};

int tcp_server(const struct options *options);
int tcp_client(const struct options *options);
int tcp_flood(const struct options *options);
int udp_server(const struct options *options);
int udp_client(const struct options *options);
int ping(const struct options *options);
int uring_tcp(const struct options *options);
int uring_udp(const struct options *options);
int udp_mmsg(const struct options *options);
int churn(const struct options *options);

uint64_t now_ns(void);
/* Prints one JSON line: {"event": EVENT, "t": now, ...}; `format` gives the rest. */
void emit(const char *event, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *errno_name(int error);
void endpoint_from(struct endpoint *endpoint, const struct sockaddr *addr, socklen_t len);
/* Socket of the endpoint's family, non-blocking; leaves with a message if there is none. */
int socket_or_die(const struct endpoint *endpoint, int type, int protocol);
void bind_or_die(int fd, const struct endpoint *endpoint);
void reception_add(struct reception *reception, const struct record *record);
/* Formats the counters as JSON members. */
const char *reception_json(const struct reception *reception, char *out, size_t size);
/* Reads stdin after poll() said POLLIN or POLLHUP. End of file means quit: the test is gone. */
void command_read(struct command *command);

/* Sends on a schedule: tells how many records are due, given how many were sent since `start_ns`. */
struct pace {
	uint64_t start_ns;
	uint64_t rate;
	uint64_t done;
};

void pace_set(struct pace *pace, uint64_t rate);
uint64_t pace_due(struct pace *pace);
/* Milliseconds until the next record is due; -1 if none ever is. */
int pace_wait_ms(const struct pace *pace);

#endif
