// SPDX-License-Identifier: Apache-2.0
/*
 * Cgroups that come and go: each is made below a directory, a process is born in it that tries at once to send, and both are
 * gone again.
 */
#include "traffic.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* What a child answers: bits of what was let through. */
#define SENT_TO 1
#define SENT_CONNECTED 2
#define CONNECTED 4

/* Runs in the new cgroup. Nothing of the library's that a fork could have left in the middle. */
static int child(const struct options *options, uint64_t seq)
{
	const struct sockaddr *to = (const struct sockaddr *)&options->to.addr;
	struct record record = {.magic = RECORD_MAGIC, .stream = options->stream, .seq = seq};
	int udp = socket(to->sa_family, SOCK_DGRAM, 0), tcp = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	int passed = 0;

	if (sendto(udp, &record, sizeof(record), 0, to, options->to.len) >= 0)
		passed |= SENT_TO;
	if (connect(udp, to, options->to.len) == 0 && send(udp, &record, sizeof(record), 0) >= 0)
		passed |= SENT_CONNECTED;
	if (connect(tcp, to, options->to.len) == 0 || errno == EINPROGRESS)
		passed |= CONNECTED;
	return passed;
}

/* Returns what the child answered, or -errno. */
static int one(const struct options *options, int root, uint64_t seq)
{
	struct clone_args args = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD};
	int fd, status = 0;
	char name[32];
	pid_t pid;

	snprintf(name, sizeof(name), "c%" PRIu64, seq);
	if (mkdirat(root, name, 0755) < 0)
		return -errno;
	fd = openat(root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	args.cgroup = (uint64_t)fd;
	pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (pid == 0)
		_exit(child(options, seq));
	close(fd);
	if (pid < 0)
		return -errno;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	while (unlinkat(root, name, AT_REMOVEDIR) < 0)
		if (errno != EBUSY)
			return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -EIO;
}

int churn(const struct options *options)
{
	int root = open(options->root ? options->root : "", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;
	struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
	uint64_t made = 0, passed = 0, failed = 0;
	struct command command;
	int error = 0;

	if (root < 0) {
		emit("no-root", "\"errno\": \"%s\"", errno_name(errno));
		return 1;
	}
	emit("ready", "\"pid\": %d", getpid());
	for (;;) {
		if (poll(&in, 1, 0) > 0) {
			command_read(&command);
			if (command.stat || command.quit)
				emit("stat",
				     "\"made\": %" PRIu64 ", \"passed\": %" PRIu64 ", \"failed\": %" PRIu64
				     ", \"errno\": \"%s\"",
				     made, passed, failed, errno_name(error));
			if (command.quit)
				return 0;
		}
		r = one(options, root, ++made);
		passed += r > 0;
		failed += r < 0;
		error = r < 0 ? -r : error;
	}
}
