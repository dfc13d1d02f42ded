/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load.h - both ends of the benchmark's traffic.
 *
 *   load server --address ADDR --port PORT [--cpu N] [--spare-cpu N]
 *   load client --address ADDR --port PORT [--cpu N] [--spare-cpu N]
 *
 * A server and a client live through a whole run and sleep between samples, so that a sample starts at once and systems
 * can be measured in turn: what a process is subject to is decided by the cgroup and the network namespace it was
 * started in. Ports from PORT on: new connections, request/response, stream, UDP. Both print {"event": "ready"}.
 *
 * The client reads commands from stdin, `WORKLOAD MILLISECONDS`, and answers each with one JSON line:
 *   crr         connect, one byte each way, close
 *   rr          one byte each way on one connection
 *   stream      one TCP stream, 128 KiB writes
 *   udp         datagrams of 64 bytes on a connected socket, 32 per system call
 *   udpto       the same on an unconnected one
 * The server answers `stat` with what it received, for which there is no other witness than the receiver.
 *
 * Both tell the CPU time they used: on a machine that does other things beside this it says more than a rate. What the
 * kernel does for a packet on the way to the other end is charged to who sent it, as far as it runs in his context.
 *
 * crr and rr run with both ends on --cpu: then the CPU is what limits, and every nanosecond of a filter shows. stream and
 * udp send from --spare-cpu to --cpu.
 */
#ifndef BULKHEAD_TESTS_BENCH_LOAD_H
#define BULKHEAD_TESTS_BENCH_LOAD_H

#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>

#define LOAD_UDP_BATCH 32
#define LOAD_UDP_BYTES 64
#define LOAD_STREAM_BYTES (128 * 1024)

/* Offsets from --port. */
enum load_port {
	LOAD_CRR = 0,
	LOAD_RR = 1,
	LOAD_STREAM = 2,
	LOAD_UDP = 3,
};

struct load {
	const char *address;
	uint16_t port;
	int cpu;
	int spare_cpu;
};

int load_server(const struct load *load);
int load_client(const struct load *load);

uint64_t load_now_ns(void);
/* CPU time of the process so far. */
uint64_t load_cpu_ns(void);
void load_pin(int cpu);
struct sockaddr_storage load_endpoint(const struct load *load, enum load_port port, socklen_t *len);
/* Of the endpoint's family; leaves with a message if there is none. */
int load_socket(const struct sockaddr_storage *to, int type);
void load_die(const char *what) __attribute__((noreturn));

#endif
