// SPDX-License-Identifier: Apache-2.0
#include "roles.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "audit_record.h"
#include "compile.h"
#include "ipc.h"
#include "log.h"
#include "outbox.h"
#include "role_auditor.h"
#include "role_fetcher.h"
#include "role_identity.h"
#include "role_metrics.h"

#define ROLE_MAX_FDS 4
#define RESTART_MIN_MS 50
#define RESTART_MAX_MS 5000
/* A role that lived this long works: its next end is a new one, not the same again. */
#define RESTART_FORGIVEN_USEC 10000000ULL
#define STOP_TIMEOUT_MS 3000
/* A role that leaves so many in a row unanswered hangs: it is ended, and started again, within 20 s. */
#define PING_USEC 5000000ULL
#define PINGS_UNANSWERED_MAX 3

struct role {
	sd_event *event;
	enum role_kind kind;
	int fds[ROLE_MAX_FDS];
	size_t n_fds;
	const struct role_ops *ops;
	void *ctx;
	pid_t pid; /* 0: not running */
	int sock;
	unsigned restarts;
	unsigned delay_ms;
	uint64_t started_usec; /* CLOCK_MONOTONIC */
	struct outbox outbox;
	char why[128];	     /* how the last one ended */
	unsigned unanswered; /* pings */
	sd_event_source *ping;
	sd_event_source *child;
	sd_event_source *io;
	sd_event_source *again;
};

static const char *const names[ROLES] = {[ROLE_IDENTITY] = "identity",
					 [ROLE_AUDITOR] = "auditor",
					 [ROLE_METRICS] = "metrics",
					 [ROLE_FETCHER] = "fetcher"};

const char *role_name(enum role_kind kind)
{
	return names[kind];
}

/* In the child: puts the descriptors at 3 and up, in order, and closes all others. */
static int descriptors_place(const int *fds, size_t n)
{
	int high[ROLE_MAX_FDS + 1];

	for (size_t i = 0; i < n; i++) {
		high[i] = fcntl(fds[i], F_DUPFD, 64);
		if (high[i] < 0)
			return -errno;
	}
	for (size_t i = 0; i < n; i++)
		if (dup2(high[i], ROLE_FD_IPC + (int)i) < 0)
			return -errno;
	return close_range((unsigned)ROLE_FD_IPC + (unsigned)n, ~0U, 0) < 0 ? -errno : 0;
}

/* `tunables` of the C library (GLIBC_TUNABLES), or NULL. */
static pid_t spawn(char *const argv[], const int *fds, size_t n, const char *tunables)
{
	sigset_t none;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid > 0)
		return pid;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
	if (tunables)
		setenv("GLIBC_TUNABLES", tunables, 1);
	if (descriptors_place(fds, n) == 0)
		execv("/proc/self/exe", argv);
	_exit(127);
}

pid_t role_spawn_compiler(const char *name, const int *fds, size_t n)
{
	char *argv[] = {"bulkheadd", "--role", "compiler", (char *)name, NULL};

	/* It takes memory as fast as it can and gives it back as a whole: in pages of 2 MiB, where the kernel has them for who
	 * asks, that costs a sixth less time. */
	return n > ROLE_MAX_FDS + 1 ? -E2BIG : spawn(argv, fds, n, "glibc.malloc.hugetlb=1");
}

static int role_start(struct role *role);
static void role_start_later(struct role *role);

static void role_stopped(struct role *role)
{
	role->child = sd_event_source_disable_unref(role->child);
	role->io = sd_event_source_disable_unref(role->io);
	role->ping = sd_event_source_disable_unref(role->ping);
	if (role->sock >= 0)
		close(role->sock);
	role->sock = -1;
	role->pid = 0;
}

static void role_unsent(void *ctx, const void *packet)
{
	struct role *role = ctx;

	if (role->ops->unsent)
		role->ops->unsent(role->ctx, role->kind, packet);
}

/* After its process has ended: nothing that waits for it can reach it any more. */
static void role_ended(struct role *role)
{
	outbox_clear(&role->outbox, role_unsent, role);
	if (role->ops->ended)
		role->ops->ended(role->ctx, role->kind);
}

static uint64_t now_usec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000ULL + (uint64_t)ts.tv_nsec / 1000;
}

static int on_again(sd_event_source *source, uint64_t usec, void *data)
{
	struct role *role = data;
	int r;

	(void)usec;
	(void)source;
	role->again = sd_event_source_disable_unref(role->again);
	r = role_start(role);
	if (r < 0) {
		log_error("cannot start the %s role: %s; it is tried again", names[role->kind], strerror(-r));
		role_start_later(role);
	}
	return 0;
}

/* Without this timer the role would stay away for good, so a failure to set it is the end of the loop: the service
 * manager starts the daemon again, which adopts what is enforced. */
static void role_start_later(struct role *role)
{
	int r = sd_event_add_time_relative(role->event, &role->again, CLOCK_MONOTONIC, role->delay_ms * 1000ULL, 0,
					   on_again, role);

	if (r < 0) {
		log_error("cannot plan the start of the %s role: %s", names[role->kind], strerror(-r));
		sd_event_exit(role->event, r);
	}
	role->delay_ms = role->delay_ms ? role->delay_ms * 2 : RESTART_MIN_MS;
	if (role->delay_ms > RESTART_MAX_MS)
		role->delay_ms = RESTART_MAX_MS;
}

static int on_child(sd_event_source *source, const siginfo_t *si, void *data)
{
	struct role *role = data;

	(void)source;
	snprintf(role->why, sizeof(role->why), "%s %d", si->si_code == CLD_EXITED ? "exit status" : "signal",
		 si->si_status);
	log_warning("the %s role ended (%s); it is started again", names[role->kind], role->why);
	role_stopped(role);
	role_ended(role);
	role->restarts++;
	if (now_usec() - role->started_usec >= RESTART_FORGIVEN_USEC)
		role->delay_ms = 0;
	role_start_later(role);
	return 0;
}

/* Sends what waits, and asks to be called again as long as something does. */
static void outbox_continue(struct role *role)
{
	int r = outbox_flush(&role->outbox, role->sock);

	/* After another fault than a full socket there is nothing to wait for but its end. */
	if (role->io)
		sd_event_source_set_io_events(role->io, r == -EAGAIN ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static int on_packet(sd_event_source *source, int fd, uint32_t events, void *data)
{
	_Alignas(8) char buf[IPC_MAX_PACKET];
	struct role *role = data;
	int beside, type;

	(void)source;
	if (events & EPOLLOUT)
		outbox_continue(role);
	if (!(events & ~(uint32_t)EPOLLOUT))
		return 0;
	type = ipc_receive(fd, buf, &beside);
	if (type == -EAGAIN)
		return 0;
	if (type <= 0) {
		/* Its end is reported by on_child; a packet that is not well-formed is the end of trust in it. */
		role->io = sd_event_source_disable_unref(role->io);
		if (type == -EBADMSG) {
			log_error("malformed packet from the %s role: it is ended", names[role->kind]);
			kill(role->pid, SIGKILL);
		}
		return 0;
	}
	role->unanswered = 0;
	if (type == IPC_PING)
		return 0;
	role->ops->packet(role->ctx, role->kind, buf, type, beside);
	return 0;
}

static int on_ping(sd_event_source *source, uint64_t usec, void *data)
{
	struct ipc_header ping = {.type = IPC_PING, .len = sizeof(ping)};
	struct role *role = data;

	(void)usec;
	if (role->unanswered++ >= PINGS_UNANSWERED_MAX) {
		log_error("the %s role does not answer: it is ended", names[role->kind]);
		kill(role->pid, SIGKILL);
		return 0;
	}
	role_send(role, &ping, -1);
	sd_event_source_set_time_relative(source, PING_USEC);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static int role_start(struct role *role)
{
	char *argv[] = {"bulkheadd", "--role", (char *)names[role->kind], NULL};
	int pair[2], fds[ROLE_MAX_FDS + 1], r;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	fds[0] = pair[1];
	memcpy(fds + 1, role->fds, role->n_fds * sizeof(int));
	pid = spawn(argv, fds, role->n_fds + 1, NULL);
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		return (int)pid;
	}
	role->pid = pid;
	role->sock = pair[0];
	fcntl(role->sock, F_SETFL, O_NONBLOCK);
	role->started_usec = now_usec();
	role->unanswered = 0;
	r = sd_event_add_child(role->event, &role->child, pid, WEXITED, on_child, role);
	if (r >= 0)
		r = sd_event_add_io(role->event, &role->io, role->sock, EPOLLIN, on_packet, role);
	if (r >= 0)
		r = sd_event_add_time_relative(role->event, &role->ping, CLOCK_MONOTONIC, PING_USEC, 0, on_ping, role);
	if (r < 0) {
		siginfo_t si;

		role_stopped(role);
		kill(pid, SIGKILL);
		waitid(P_PID, (id_t)pid, &si, WEXITED);
		return r;
	}
	role->ops->started(role->ctx, role->kind, role->sock, role->restarts, role->why);
	return 0;
}

int role_new(struct role **rolep, sd_event *event, enum role_kind kind, const int *fds, size_t n,
	     const struct role_ops *ops, void *ctx)
{
	struct role *role = calloc(1, sizeof(*role));
	int r;

	if (!role)
		return -ENOMEM;
	if (n > ROLE_MAX_FDS) {
		free(role);
		return -EINVAL;
	}
	role->event = event;
	role->kind = kind;
	if (n)
		memcpy(role->fds, fds, n * sizeof(int));
	role->n_fds = n;
	role->ops = ops;
	role->ctx = ctx;
	role->sock = -1;
	*rolep = role;
	r = role_start(role);
	if (r < 0)
		role_freep(rolep);
	return r;
}

void role_freep(struct role **rolep)
{
	struct role *role = *rolep;
	siginfo_t si;

	if (!role)
		return;
	sd_event_source_disable_unref(role->again);
	if (role->pid) {
		pid_t pid = role->pid;
		uint64_t until_usec = now_usec() + STOP_TIMEOUT_MS * 1000ULL;
		int waited = 0;

		while (outbox_flush(&role->outbox, role->sock) == -EAGAIN && now_usec() < until_usec)
			poll(&(struct pollfd){.fd = role->sock, .events = POLLOUT}, 1, 10);
		role_stopped(role);
		/* The end of its socket tells a role to finish. */
		while (waited < STOP_TIMEOUT_MS) {
			si.si_pid = 0;
			if (waitid(P_PID, (id_t)pid, &si, WEXITED | WNOHANG) < 0 || si.si_pid == pid)
				break;
			poll(NULL, 0, 10);
			waited += 10;
		}
		if (waited >= STOP_TIMEOUT_MS) {
			kill(pid, SIGKILL);
			waitid(P_PID, (id_t)pid, &si, WEXITED);
		}
		role_ended(role);
	}
	free(role);
	*rolep = NULL;
}

void role_renew(struct role *role)
{
	if (role && role->sock >= 0)
		shutdown(role->sock, SHUT_WR);
}

int role_send(struct role *role, const void *packet, int fd)
{
	int r;

	if (!role || role->sock < 0)
		return -ENOTCONN;
	r = outbox_send(&role->outbox, role->sock, packet, fd);
	if (r == 0 && role->outbox.head && role->io)
		r = sd_event_source_set_io_events(role->io, EPOLLIN | EPOLLOUT);
	return r < 0 ? r : 0;
}

pid_t role_pid(const struct role *role)
{
	return role->pid;
}

unsigned role_restarts(const struct role *role)
{
	return role->restarts;
}

/* ---- in the role ---- */

static int auditor_main(void)
{
	struct auditor_config config;
	void *bytes = NULL;
	size_t len = 0;

	if (ipc_memfd_read(ROLE_FD_FIRST + 3, sizeof(config), &bytes, &len) < 0 || len != sizeof(config)) {
		free(bytes);
		return EXIT_FAILURE;
	}
	memcpy(&config, bytes, sizeof(config));
	free(bytes);
	close(ROLE_FD_FIRST + 3);
	return role_auditor_main(ROLE_FD_IPC, ROLE_FD_FIRST, ROLE_FD_FIRST + 1, ROLE_FD_FIRST + 2, &config);
}

int role_dispatch(int argc, char **argv, int *statusp)
{
	if (argc < 3 || strcmp(argv[1], "--role") != 0)
		return 0;
	prctl(PR_SET_NAME, "bulkheadd"); /* else it would be "exe" */
	/* Without the enforcer's descriptors there is nothing to do for a role. */
	if (fcntl(ROLE_FD_IPC, F_GETFD) < 0) {
		fprintf(stderr, "bulkheadd: --role is for the daemon's own use\n");
		*statusp = 2;
		return 1;
	}
	if (strcmp(argv[2], names[ROLE_IDENTITY]) == 0)
		*statusp = role_identity_main(ROLE_FD_IPC, ROLE_FD_FIRST);
	else if (strcmp(argv[2], names[ROLE_AUDITOR]) == 0)
		*statusp = auditor_main();
	else if (strcmp(argv[2], names[ROLE_METRICS]) == 0)
		*statusp = role_metrics_main(ROLE_FD_IPC, ROLE_FD_FIRST);
	else if (strcmp(argv[2], names[ROLE_FETCHER]) == 0)
		*statusp = role_fetcher_main(ROLE_FD_IPC);
	else if (strcmp(argv[2], "compiler") == 0 && argc == 4)
		*statusp = role_compiler_main(argv[3], (const int[COMPILE_FDS]){ROLE_FD_IPC, ROLE_FD_FIRST,
										ROLE_FD_FIRST + 1, ROLE_FD_FIRST + 2});
	else
		*statusp = 2;
	return 1;
}
