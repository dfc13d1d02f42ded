/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "traffic.h"

static const char usage[] = "usage: traffic COMMAND [OPTION...]\n"
			    "  tcp-server  --listen ADDR,PORT...\n"
			    "  udp-server  --listen ADDR,PORT...\n"
			    "  tcp-client  --to ADDR,PORT [--count N] [--rate N] [--timeout MS] [--from ADDR,PORT]\n"
			    "  udp-client  likewise, and [--connected] [--spread PORTS]\n"
			    "  tcp-flood   --to ADDR,PORT --rate N\n"
			    "  churn       --root DIR --to ADDR,PORT (cgroups, as fast as the kernel makes them)\n"
			    "  ping        --to ADDR,0 --count N [--timeout MS] [--raw]\n"
			    "  uring-tcp   --to ADDR,PORT --text TEXT [--sqpoll]\n"
			    "  uring-udp   likewise\n"
			    "  udp-mmsg    --to ADDR,PORT --text TEXT\n"
			    "All: --stream N names the sender in the records; servers: --reuse sets SO_REUSEPORT.\n";

static void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

static void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("traffic: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(2);
}

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000U + (uint64_t)ts.tv_nsec;
}

void emit(const char *event, const char *format, ...)
{
	va_list args;

	printf("{\"event\": \"%s\", \"t\": %" PRIu64 ", ", event, now_ns());
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	fputs("}\n", stdout);
	fflush(stdout);
}

const char *errno_name(int error)
{
	const char *name = strerrorname_np(error);

	return name ? name : "?";
}

void endpoint_from(struct endpoint *endpoint, const struct sockaddr *addr, socklen_t len)
{
	char ip[INET6_ADDRSTRLEN] = "?";
	uint16_t port;

	memcpy(&endpoint->addr, addr, len);
	endpoint->len = len;
	if (addr->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)addr;

		inet_ntop(AF_INET, &in->sin_addr, ip, sizeof(ip));
		port = ntohs(in->sin_port);
	} else {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)addr;

		inet_ntop(AF_INET6, &in6->sin6_addr, ip, sizeof(ip));
		port = ntohs(in6->sin6_port);
	}
	snprintf(endpoint->text, sizeof(endpoint->text), "%s,%u", ip, port);
}

/* "ADDR,PORT". A v4-mapped address makes an IPv6 endpoint, on purpose. */
static void endpoint_parse(struct endpoint *endpoint, const char *text)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
	char ip[INET6_ADDRSTRLEN];
	const char *comma = strchr(text, ',');
	unsigned long port;

	if (!comma || (size_t)(comma - text) >= sizeof(ip))
		die("not ADDR,PORT: %s", text);
	memcpy(ip, text, (size_t)(comma - text));
	ip[comma - text] = '\0';
	port = strtoul(comma + 1, NULL, 10);
	if (port > 65535)
		die("no port: %s", text);
	in.sin_port = in6.sin6_port = htons((uint16_t)port);
	if (inet_pton(AF_INET, ip, &in.sin_addr) == 1)
		endpoint_from(endpoint, (struct sockaddr *)&in, sizeof(in));
	else if (inet_pton(AF_INET6, ip, &in6.sin6_addr) == 1)
		endpoint_from(endpoint, (struct sockaddr *)&in6, sizeof(in6));
	else
		die("no address: %s", text);
}

int socket_or_die(const struct endpoint *endpoint, int type, int protocol)
{
	int fd = socket(endpoint->addr.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);

	if (fd < 0) {
		emit("socket-failed", "\"errno\": \"%s\"", errno_name(errno));
		exit(1);
	}
	return fd;
}

void bind_or_die(int fd, const struct endpoint *endpoint)
{
	int on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (const struct sockaddr *)&endpoint->addr, endpoint->len) < 0) {
		emit("bind-failed", "\"errno\": \"%s\", \"addr\": \"%s\"", errno_name(errno), endpoint->text);
		exit(1);
	}
}

void reception_add(struct reception *reception, const struct record *record)
{
	uint64_t now = now_ns();

	if (record->seq != reception->last_seq + 1)
		reception->out_of_order++;
	if (reception->received && now - reception->last_ns > reception->max_gap_ns)
		reception->max_gap_ns = now - reception->last_ns;
	if (record->sent_ns > reception->last_sent_ns)
		reception->last_sent_ns = record->sent_ns;
	reception->last_seq = record->seq;
	reception->last_ns = now;
	reception->received++;
}

const char *reception_json(const struct reception *reception, char *out, size_t size)
{
	snprintf(out, size,
		 "\"received\": %" PRIu64 ", \"last_seq\": %" PRIu64 ", \"out_of_order\": %" PRIu64
		 ", \"last_sent_ns\": %" PRIu64 ", \"last_ns\": %" PRIu64 ", \"max_gap_ns\": %" PRIu64,
		 reception->received, reception->last_seq, reception->out_of_order, reception->last_sent_ns,
		 reception->last_ns, reception->max_gap_ns);
	return out;
}

void command_read(struct command *command)
{
	char text[512], *line, *rest = text;
	ssize_t n = read(STDIN_FILENO, text, sizeof(text) - 1);

	*command = (struct command){};
	if (n <= 0) {
		command->quit = true;
		return;
	}
	text[n] = '\0';
	while ((line = strsep(&rest, "\n"))) {
		if (!strcmp(line, "stat"))
			command->stat = true;
		else if (!strcmp(line, "quit"))
			command->quit = true;
		else if (!strncmp(line, "send ", 5))
			command->send += strtoull(line + 5, NULL, 10);
		else if (!strncmp(line, "rate ", 5)) {
			command->set_rate = true;
			command->rate = strtoull(line + 5, NULL, 10);
		}
	}
}

void pace_set(struct pace *pace, uint64_t rate)
{
	*pace = (struct pace){.start_ns = now_ns(), .rate = rate};
}

uint64_t pace_due(struct pace *pace)
{
	uint64_t target, due;

	if (!pace->rate)
		return 0;
	target = (uint64_t)((double)(now_ns() - pace->start_ns) * (double)pace->rate / 1e9) + 1;
	due = target > pace->done ? target - pace->done : 0;
	pace->done += due;
	return due;
}

int pace_wait_ms(const struct pace *pace)
{
	uint64_t next_ns, now = now_ns();

	if (!pace->rate)
		return -1;
	next_ns = pace->start_ns + (uint64_t)((double)pace->done * 1e9 / (double)pace->rate);
	return next_ns <= now ? 0 : (int)((next_ns - now) / 1000000U) + 1;
}

static void options_parse(struct options *options, int argc, char **argv)
{
	static const struct option names[] = {
		{"listen", required_argument, NULL, 'l'},
		{"to", required_argument, NULL, 't'},
		{"from", required_argument, NULL, 'f'},
		{"stream", required_argument, NULL, 's'},
		{"spread", required_argument, NULL, 'S'},
		{"rate", required_argument, NULL, 'r'},
		{"count", required_argument, NULL, 'c'},
		{"timeout", required_argument, NULL, 'o'},
		{"connected", no_argument, NULL, 'C'},
		{"raw", no_argument, NULL, 'R'},
		{"reuse", no_argument, NULL, 'U'},
		{"sqpoll", no_argument, NULL, 'Q'},
		{"text", required_argument, NULL, 'x'},
		{"root", required_argument, NULL, 'd'},
		{},
	};
	int opt;

	options->timeout_ms = 5000;
	while ((opt = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (opt) {
		case 'l':
			if (options->n_listen == MAX_LISTEN)
				die("too many --listen");
			endpoint_parse(&options->listen[options->n_listen++], optarg);
			break;
		case 't':
			endpoint_parse(&options->to, optarg);
			break;
		case 'f':
			endpoint_parse(&options->from, optarg);
			break;
		case 's':
			options->stream = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'r':
			options->rate = strtoull(optarg, NULL, 10);
			break;
		case 'c':
			options->count = strtoull(optarg, NULL, 10);
			break;
		case 'S':
			options->spread = (uint16_t)strtoul(optarg, NULL, 10);
			break;
		case 'o':
			options->timeout_ms = strtoull(optarg, NULL, 10);
			break;
		case 'C':
			options->connected = true;
			break;
		case 'R':
			options->raw = true;
			break;
		case 'U':
			options->reuse = true;
			break;
		case 'Q':
			options->sqpoll = true;
			break;
		case 'x':
			options->text = optarg;
			break;
		case 'd':
			options->root = optarg;
			break;
		default:
			fputs(usage, stderr);
			exit(2);
		}
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(const struct options *options);
		bool serves;
	} commands[] = {
		{"tcp-server", tcp_server, true}, {"tcp-client", tcp_client, false}, {"tcp-flood", tcp_flood, false},
		{"udp-server", udp_server, true}, {"udp-client", udp_client, false}, {"ping", ping, false},
		{"uring-tcp", uring_tcp, false},  {"uring-udp", uring_udp, false},   {"udp-mmsg", udp_mmsg, false},
		{"churn", churn, false},
	};
	struct options options = {.text = ""};

	signal(SIGPIPE, SIG_IGN);
	if (argc < 2) {
		fputs(usage, stderr);
		return 2;
	}
	options_parse(&options, argc - 1, argv + 1);
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		if (strcmp(commands[i].name, argv[1]))
			continue;
		if (commands[i].serves ? !options.n_listen : !options.to.len)
			die("%s", commands[i].serves ? "--listen is missing" : "--to is missing");
		return commands[i].run(&options);
	}
	fputs(usage, stderr);
	return 2;
}
