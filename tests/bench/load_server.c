/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "load.h"

/* One service is one blocking thread: no event loop between the packet and its answer. */
struct service {
	const struct load *load;
	enum load_port port;
	void (*serve)(struct service *service, int fd);
	int listener;
	_Atomic uint64_t received; /* datagrams, or bytes of the stream */
};

static void serve_crr(struct service *service, int listener)
{
	char byte;

	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			continue;
		if (recv(fd, &byte, 1, 0) == 1 && send(fd, &byte, 1, 0) == 1)
			atomic_fetch_add_explicit(&service->received, 1, memory_order_relaxed);
		close(fd);
	}
}

static void serve_rr(struct service *service, int listener)
{
	int one = 1;
	char byte;

	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			continue;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		while (recv(fd, &byte, 1, 0) == 1 && send(fd, &byte, 1, 0) == 1)
			atomic_fetch_add_explicit(&service->received, 1, memory_order_relaxed);
		close(fd);
	}
}

static void serve_stream(struct service *service, int listener)
{
	char *buffer = malloc(LOAD_STREAM_BYTES);

	if (!buffer)
		load_die("malloc");
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		ssize_t n;

		if (fd < 0)
			continue;
		while ((n = recv(fd, buffer, LOAD_STREAM_BYTES, 0)) > 0)
			atomic_fetch_add_explicit(&service->received, (uint64_t)n, memory_order_relaxed);
		close(fd);
	}
}

static void serve_udp(struct service *service, int fd)
{
	static char buffers[LOAD_UDP_BATCH][LOAD_UDP_BYTES];
	struct mmsghdr messages[LOAD_UDP_BATCH] = {0};
	struct iovec iov[LOAD_UDP_BATCH];

	for (size_t i = 0; i < LOAD_UDP_BATCH; i++) {
		iov[i] = (struct iovec){.iov_base = buffers[i], .iov_len = LOAD_UDP_BYTES};
		messages[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
	}
	for (;;) {
		int n = recvmmsg(fd, messages, LOAD_UDP_BATCH, MSG_WAITFORONE, NULL);

		if (n > 0)
			atomic_fetch_add_explicit(&service->received, (uint64_t)n, memory_order_relaxed);
	}
}

static void service_open(struct service *service)
{
	int one = 1, type = service->port == LOAD_UDP ? SOCK_DGRAM : SOCK_STREAM;
	socklen_t len;
	struct sockaddr_storage at = load_endpoint(service->load, service->port, &len);

	service->listener = load_socket(&at, type);
	setsockopt(service->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(service->listener, (struct sockaddr *)&at, len))
		load_die("bind");
	if (type == SOCK_STREAM && listen(service->listener, 512))
		load_die("listen");
}

static void *service_main(void *arg)
{
	struct service *service = arg;

	load_pin(service->load->cpu);
	service->serve(service, service->listener);
	return NULL;
}

int load_server(const struct load *load)
{
	static struct service services[] = {
		[LOAD_CRR] = {.port = LOAD_CRR, .serve = serve_crr},
		[LOAD_RR] = {.port = LOAD_RR, .serve = serve_rr},
		[LOAD_STREAM] = {.port = LOAD_STREAM, .serve = serve_stream},
		[LOAD_UDP] = {.port = LOAD_UDP, .serve = serve_udp},
	};
	char line[64];

	for (size_t i = 0; i < sizeof(services) / sizeof(*services); i++) {
		pthread_t thread;

		services[i].load = load;
		service_open(&services[i]);
		if (pthread_create(&thread, NULL, service_main, &services[i]))
			load_die("pthread_create");
	}
	printf("{\"event\": \"ready\"}\n");
	while (fgets(line, sizeof(line), stdin)) {
		if (strcmp(line, "stat\n"))
			break;
		printf("{\"event\": \"stat\", \"crr\": %" PRIu64 ", \"rr\": %" PRIu64 ", \"stream\": %" PRIu64
		       ", \"udp\": %" PRIu64 ", \"cpu_ns\": %" PRIu64 "}\n",
		       services[LOAD_CRR].received, services[LOAD_RR].received, services[LOAD_STREAM].received,
		       services[LOAD_UDP].received, load_cpu_ns());
	}
	exit(0); /* with the threads */
}
