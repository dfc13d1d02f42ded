// SPDX-License-Identifier: Apache-2.0
#include "compile_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "files.h"
#include "ipc.h"
#include "roles.h"

#define COMPILE_TIMEOUT_MS 20000
#define COMPILE_WAIT_MS 1000 /* between two signs of life to the service manager */
#define COMPILE_END_MS 1000  /* from its last word to its end */
#define COMPILE_POLL_MS 10   /* where the kernel gives no pidfd to wait with */

struct compile_process {
	pid_t pid; /* 0: it has been waited for */
	int fds[COMPILE_FDS];
	bool begun;
};

/* ---- start and end ---- */

int compile_process_new(struct compile_process **processp, const char *name)
{
	__attribute__((cleanup(compile_process_freep))) struct compile_process *process = calloc(1, sizeof(*process));
	int pair[2], fds[COMPILE_FDS];
	pid_t pid;

	if (!process)
		return -ENOMEM;
	process->fds[COMPILE_FD_SOCKET] = -1;
	process->fds[COMPILE_FD_INPUT] = memfd_create("bulkhead-input", MFD_CLOEXEC);
	process->fds[COMPILE_FD_BODY] = memfd_create("bulkhead-image", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	process->fds[COMPILE_FD_TEXT] = memfd_create("bulkhead-text", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	for (size_t i = COMPILE_FD_INPUT; i < COMPILE_FDS; i++)
		if (process->fds[i] < 0)
			return -errno;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	memcpy(fds, process->fds, sizeof(fds));
	process->fds[COMPILE_FD_SOCKET] = pair[0];
	fds[COMPILE_FD_SOCKET] = pair[1];
	pid = role_spawn_compiler(name, fds, COMPILE_FDS);
	close(pair[1]);
	if (pid < 0)
		return (int)pid;
	process->pid = pid;
	*processp = process;
	process = NULL;
	return 0;
}

/* Waits for the process, which has ended or is about to. */
static int reap(struct compile_process *process)
{
	int status = 0;

	while (waitpid(process->pid, &status, 0) < 0 && errno == EINTR)
		;
	process->pid = 0;
	return status;
}

void compile_process_freep(struct compile_process **processp)
{
	struct compile_process *process = *processp;

	*processp = NULL;
	if (!process)
		return;
	/* One that is done has nothing left to lose; one that waits has nothing at all. */
	if (process->pid > 0) {
		kill(process->pid, SIGKILL);
		reap(process);
	}
	for (size_t i = 0; i < COMPILE_FDS; i++)
		closep(&process->fds[i]);
	free(process);
}

bool compile_process_waits(const struct compile_process *process)
{
	return process && !process->begun;
}

/* ---- the job ---- */

int compile_process_begin(struct compile_process *process, uint32_t job, const void *input, size_t len)
{
	struct compile_start start = {.job = job};
	int r;

	process->begun = true;
	r = file_write_all(process->fds[COMPILE_FD_INPUT], input, len);
	if (r < 0)
		return r;
	if (send(process->fds[COMPILE_FD_SOCKET], &start, sizeof(start), MSG_NOSIGNAL) < 0)
		return errno == EPIPE || errno == ECONNRESET ? -ESRCH : -errno;
	return 0;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Until there is something to be read, or nobody who could write it. Nothing else is done meanwhile, but this is not hung. */
static bool speaks_in_time(int sock)
{
	struct pollfd p = {.fd = sock, .events = POLLIN};
	int64_t now = now_ms(), until = now + COMPILE_TIMEOUT_MS, told = now;

	while (now < until) {
		if (poll(&p, 1, COMPILE_WAIT_MS) > 0)
			return true;
		now = now_ms();
		if (now - told >= COMPILE_WAIT_MS) {
			sd_notify(0, "WATCHDOG=1");
			told = now;
		}
	}
	return false;
}

/* Of one that ends, how; of one that only says so, that it was killed. */
static int status_of(struct compile_process *process)
{
	__attribute__((cleanup(closep))) int pidfd = pidfd_open(process->pid, 0);
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	int64_t until = now_ms() + COMPILE_END_MS;
	int status = 0;

	while (now_ms() < until) {
		if (waitpid(process->pid, &status, WNOHANG) == process->pid) {
			process->pid = 0;
			return status;
		}
		poll(&p, 1, pidfd < 0 ? COMPILE_POLL_MS : COMPILE_END_MS);
	}
	kill(process->pid, SIGKILL);
	return reap(process);
}

/* It closed its end without a word. */
static int ended_early(struct compile_process *process, char **textp)
{
	int status = status_of(process);

	if (asprintf(textp, "the compiler ended by %s %d", WIFSIGNALED(status) ? "signal" : "exit status",
		     WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)) < 0)
		*textp = NULL;
	return -EIO;
}

/* With holes a small result would be a large one only for who reads it, at that one's cost. */
static int seal(int fd, uint64_t len)
{
	struct stat st;

	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0 || fstat(fd, &st) < 0)
		return -errno;
	return st.st_size >= 0 && (uint64_t)st.st_size == len && st.st_blocks * 512 >= st.st_size ? 0 : -EBADMSG;
}

static int result_check(const struct compile_process *process, const struct compile_done *done, ssize_t len)
{
	int r = len == sizeof(*done) && done->status <= 2 ? 0 : -EBADMSG;

	if (!r)
		r = seal(process->fds[COMPILE_FD_BODY], done->body_len);
	return r ? r : seal(process->fds[COMPILE_FD_TEXT], done->text_len);
}

int compile_process_wait(struct compile_process *process, struct compile_done *done, char **textp)
{
	int sock = process->fds[COMPILE_FD_SOCKET], r;
	ssize_t n;

	if (!speaks_in_time(sock)) {
		kill(process->pid, SIGKILL);
		reap(process);
		if (asprintf(textp, "the compiler took longer than %d s and was ended", COMPILE_TIMEOUT_MS / 1000) < 0)
			*textp = NULL;
		return -ETIMEDOUT;
	}
	do {
		n = recv(sock, done, sizeof(*done), MSG_TRUNC);
	} while (n < 0 && errno == EINTR);
	if (n == 0 || (n < 0 && errno == ECONNRESET))
		return ended_early(process, textp);
	if (n < 0)
		return -errno;
	/* It has nothing left to do, and gets no time for it. It is waited for when there is time for that. */
	kill(process->pid, SIGKILL);
	r = result_check(process, done, n);
	if (r < 0 && asprintf(textp, "the compiler left a result that does not hold") < 0)
		*textp = NULL;
	return r;
}

int compile_process_take_body(struct compile_process *process)
{
	int fd = process->fds[COMPILE_FD_BODY];

	process->fds[COMPILE_FD_BODY] = -1;
	return fd;
}

int compile_process_text(const struct compile_process *process, char **textp)
{
	void *bytes = NULL;
	size_t len = 0;
	int r = ipc_memfd_read(process->fds[COMPILE_FD_TEXT], COMPILE_MAX_TEXT, &bytes, &len);

	if (r < 0)
		return r;
	if (!len) {
		free(bytes);
		bytes = NULL;
	}
	*textp = bytes;
	return 0;
}
