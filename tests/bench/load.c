/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

void load_die(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	exit(1);
}

uint64_t load_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000U + (uint64_t)ts.tv_nsec;
}

uint64_t load_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000U + (uint64_t)ts.tv_nsec;
}

/* The calling thread. */
void load_pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		load_die("sched_setaffinity");
}

struct sockaddr_storage load_endpoint(const struct load *load, enum load_port port, socklen_t *len)
{
	struct sockaddr_storage storage = {0};
	struct sockaddr_in *in = (struct sockaddr_in *)&storage;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&storage;

	if (inet_pton(AF_INET, load->address, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons(load->port + port);
		*len = sizeof(*in);
	} else if (inet_pton(AF_INET6, load->address, &in6->sin6_addr) == 1) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(load->port + port);
		*len = sizeof(*in6);
	} else {
		errno = EINVAL;
		load_die(load->address);
	}
	return storage;
}

int load_socket(const struct sockaddr_storage *to, int type)
{
	int fd = socket(to->ss_family, type | SOCK_CLOEXEC, 0);

	if (fd < 0)
		load_die("socket");
	return fd;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"address", required_argument, NULL, 'a'},
						{"port", required_argument, NULL, 'p'},
						{"cpu", required_argument, NULL, 'c'},
						{"spare-cpu", required_argument, NULL, 's'},
						{NULL, 0, NULL, 0}};
	struct load load = {.address = "127.0.0.1", .port = 5201};
	int option;

	/* Whatever ends the benchmark, and however, ends its traffic. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'a':
			load.address = optarg;
			break;
		case 'p':
			load.port = (uint16_t)atoi(optarg);
			break;
		case 'c':
			load.cpu = atoi(optarg);
			break;
		case 's':
			load.spare_cpu = atoi(optarg);
			break;
		default:
			return 2;
		}
	}
	if (optind + 1 == argc && !strcmp(argv[optind], "server"))
		return load_server(&load);
	if (optind + 1 == argc && !strcmp(argv[optind], "client"))
		return load_client(&load);
	fprintf(stderr, "usage: load server|client --address ADDR --port PORT [--cpu N] [--spare-cpu N]\n");
	return 2;
}
