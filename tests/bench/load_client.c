/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "load.h"

/* What a workload did: `ops` in `ns`; `failed` says why it ended early, 0 if it did not. */
struct sample {
	uint64_t ops;
	uint64_t ns;
	int failed;
};

static int connect_to(const struct load *load, enum load_port port)
{
	struct timeval patience = {.tv_sec = 2};
	socklen_t len;
	struct sockaddr_storage to = load_endpoint(load, port, &len);
	int fd = load_socket(&to, port == LOAD_UDP ? SOCK_DGRAM : SOCK_STREAM), error;

	/* Where the path is blocked, a sample must fail and not hang. */
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (!connect(fd, (struct sockaddr *)&to, len))
		return fd;
	error = errno;
	close(fd);
	return -error;
}

static int exchange(int fd)
{
	char byte = 'x';

	return send(fd, &byte, 1, 0) == 1 && recv(fd, &byte, 1, 0) == 1 ? 0 : errno ? errno : EPIPE;
}

static struct sample run_crr(const struct load *load, uint64_t end_ns)
{
	struct sample sample = {0};
	uint64_t start = load_now_ns(), now = start;

	for (; now < end_ns && !sample.failed; now = load_now_ns()) {
		int fd = connect_to(load, LOAD_CRR);

		if (fd < 0) {
			sample.failed = -fd;
			break;
		}
		sample.failed = exchange(fd);
		close(fd);
		sample.ops++;
	}
	sample.ns = now - start;
	return sample;
}

static struct sample run_rr(const struct load *load, uint64_t end_ns)
{
	struct sample sample = {0};
	int fd = connect_to(load, LOAD_RR), one = 1;
	uint64_t start = load_now_ns(), now = start;

	if (fd < 0)
		return (struct sample){.failed = -fd};
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	for (; now < end_ns && !sample.failed; now = load_now_ns()) {
		sample.failed = exchange(fd);
		sample.ops++;
	}
	sample.ns = now - start;
	close(fd);
	return sample;
}

/* In bytes. */
static struct sample run_stream(const struct load *load, uint64_t end_ns)
{
	static char buffer[LOAD_STREAM_BYTES];
	struct sample sample = {0};
	int fd = connect_to(load, LOAD_STREAM);
	uint64_t start = load_now_ns(), now = start;

	if (fd < 0)
		return (struct sample){.failed = -fd};
	for (; now < end_ns; now = load_now_ns()) {
		ssize_t n = send(fd, buffer, sizeof(buffer), 0);

		if (n < 0) {
			sample.failed = errno;
			break;
		}
		sample.ops += (uint64_t)n;
	}
	sample.ns = now - start;
	close(fd);
	return sample;
}

/* In datagrams handed to the kernel. */
static struct sample run_udp(const struct load *load, uint64_t end_ns, int connected)
{
	static char payload[LOAD_UDP_BYTES];
	struct iovec iov = {.iov_base = payload, .iov_len = sizeof(payload)};
	struct mmsghdr messages[LOAD_UDP_BATCH] = {0};
	struct sample sample = {0};
	socklen_t len;
	struct sockaddr_storage to = load_endpoint(load, LOAD_UDP, &len);
	int fd = connected ? connect_to(load, LOAD_UDP) : load_socket(&to, SOCK_DGRAM);
	uint64_t start, now;

	if (fd < 0)
		return (struct sample){.failed = -fd};
	for (size_t i = 0; i < LOAD_UDP_BATCH; i++) {
		messages[i].msg_hdr = (struct msghdr){.msg_iov = &iov, .msg_iovlen = 1};
		if (!connected) {
			messages[i].msg_hdr.msg_name = &to;
			messages[i].msg_hdr.msg_namelen = len;
		}
	}
	start = now = load_now_ns();
	for (; now < end_ns; now = load_now_ns()) {
		int n = sendmmsg(fd, messages, LOAD_UDP_BATCH, 0);

		if (n < 0) {
			sample.failed = errno;
			break;
		}
		sample.ops += (uint64_t)n;
	}
	sample.ns = now - start;
	close(fd);
	return sample;
}

static struct sample run(const struct load *load, const char *workload, uint64_t ms)
{
	uint64_t end_ns = load_now_ns() + ms * 1000000U;

	if (!strcmp(workload, "crr") || !strcmp(workload, "rr")) {
		load_pin(load->cpu);
		return *workload == 'c' ? run_crr(load, end_ns) : run_rr(load, end_ns);
	}
	load_pin(load->spare_cpu);
	if (!strcmp(workload, "stream"))
		return run_stream(load, end_ns);
	if (!strcmp(workload, "udp") || !strcmp(workload, "udpto"))
		return run_udp(load, end_ns, workload[3] == '\0');
	return (struct sample){.failed = EINVAL};
}

int load_client(const struct load *load)
{
	char line[64], workload[16];
	unsigned int ms;

	printf("{\"event\": \"ready\"}\n");
	while (fgets(line, sizeof(line), stdin) && sscanf(line, "%15s %u", workload, &ms) == 2) {
		uint64_t cpu_ns = load_cpu_ns();
		struct sample sample = run(load, workload, ms);

		printf("{\"event\": \"sample\", \"ops\": %" PRIu64 ", \"ns\": %" PRIu64 ", \"cpu_ns\": %" PRIu64
		       ", \"failed\": \"%s\"}\n",
		       sample.ops, sample.ns, load_cpu_ns() - cpu_ns,
		       sample.failed ? strerrorname_np(sample.failed) : "");
	}
	return 0;
}
