/* SPDX-License-Identifier: Apache-2.0 */
#include "role_fetcher.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "federation.h"
#include "fetch.h"
#include "files.h"
#include "fips.h"
#include "identity/crypto.h"
#include "ipc.h"
#include "log.h"
#include "role_process.h"
#include "sandbox.h"
#include "workload_client.h"

/* Beyond all that a fetch may take by itself, also where looking up a name hangs. */
#define CHILD_SECONDS (FETCH_SECONDS + 15)
/* The alarm is the child's own. One that was taken over outlives it: this is the role's. */
#define OVERDUE_USEC ((CHILD_SECONDS + 5) * 1000000ULL)
/* A process that has closed its pipe has nothing to do any more; looked at after 1, 2, 4 ... ms, all in all for 2 s. */
#define LOOK_USEC 1000ULL
#define LOOKS 11

/* What the child writes before the body. */
struct outcome {
	int32_t error; /* 0, or negative errno */
	char why[400];
};

struct role;

struct fetching {
	struct role *role;
	uint64_t request; /* of the enforcer */
	pid_t pid;	  /* 0: free */
	int pipe_fd;	  /* -1: it has closed its end, and is about to end */
	unsigned looks;	  /* whether it has ended */
	sd_event_source *io;
	sd_event_source *timer;
	char *bytes; /* outcome and body, as far as they came */
	size_t len;
};

struct role {
	struct role_process process;
	struct crypto *crypto;		  /* NULL: the usual one */
	struct workload_client *workload; /* NULL: nobody asked for it */
	struct fetching fetching[FEDERATION_MAX];
};

static void freep(void *p)
{
	free(*(void **)p);
}

/* ---- in the child ---- */

static void child_main(const struct fetch_job *job, int pipe_fd)
{
	struct outcome outcome = {};
	char *body = NULL;
	size_t len = 0;

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || role_sandbox_fetch() < 0)
		_exit(EXIT_FAILURE);
	signal(SIGALRM, SIG_DFL);
	alarm(CHILD_SECONDS);
	/* It has no way to the enforcer, nor to other fetches. */
	close_range(STDERR_FILENO + 1, (unsigned)pipe_fd - 1, 0);
	close_range((unsigned)pipe_fd + 1, ~0U, 0);
	outcome.error = fetch_bundle(job, &body, &len, outcome.why, sizeof(outcome.why));
	if (file_write_all(pipe_fd, &outcome, sizeof(outcome)) == 0 && outcome.error == 0)
		file_write_all(pipe_fd, body, len);
	_exit(EXIT_SUCCESS);
}

/* ---- a fetch ---- */

static void fetching_free(struct fetching *f)
{
	f->io = sd_event_source_disable_unref(f->io);
	f->timer = sd_event_source_disable_unref(f->timer);
	if (f->pipe_fd >= 0)
		close(f->pipe_fd);
	free(f->bytes);
	*f = (struct fetching){.role = f->role, .pipe_fd = -1};
}

static void fetch_failed(struct role *role, uint64_t request, const char *why)
{
	struct ipc_fetched answer = {.h = {.type = IPC_FETCHED, .len = sizeof(answer)}, .request = request};

	snprintf(answer.why, sizeof(answer.why), "%s", why);
	role_process_tell(&role->process, &answer, -1);
}

/* The endpoint said nothing, and has not to be spared. */
static void fetch_interrupted(struct role *role, uint64_t request, const char *why)
{
	struct ipc_fetched answer = {
		.h = {.type = IPC_FETCHED, .len = sizeof(answer)}, .request = request, .interrupted = 1};

	snprintf(answer.why, sizeof(answer.why), "%s", why);
	role_process_tell(&role->process, &answer, -1);
}

static void fetch_succeeded(struct role *role, uint64_t request, const char *body, size_t len)
{
	struct ipc_fetched answer = {.h = {.type = IPC_FETCHED, .len = sizeof(answer)}, .request = request};
	int fd = ipc_memfd("bulkhead-bundle", body, len);

	if (fd < 0) {
		fetch_failed(role, request, strerror(-fd));
		return;
	}
	if (role_process_tell(&role->process, &answer, fd) < 0)
		fetch_failed(role, request, "the bundle that came could not be handed over");
	close(fd);
}

/* Before it asked, or by who is short of memory. Any other end may be what the endpoint brought about, who shall not be asked
 * sooner for it: each process has the same addresses to be guessed. */
static bool is_interruption(const struct fetching *f, int status)
{
	if (WIFSIGNALED(status))
		return WTERMSIG(status) == SIGKILL;
	return WEXITSTATUS(status) != EXIT_SUCCESS && f->len == 0;
}

static void fetching_answer(const struct fetching *f, int status)
{
	struct outcome outcome;
	char why[100];

	if (!WIFEXITED(status) || WEXITSTATUS(status) != EXIT_SUCCESS || f->len < sizeof(outcome)) {
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
			snprintf(why, sizeof(why), "no answer within %d s", CHILD_SECONDS);
		else
			snprintf(why, sizeof(why), "the process that fetched it ended by %s %d",
				 WIFSIGNALED(status) ? "signal" : "exit status",
				 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
		if (is_interruption(f, status))
			fetch_interrupted(f->role, f->request, why);
		else
			fetch_failed(f->role, f->request, why);
		return;
	}
	memcpy(&outcome, f->bytes, sizeof(outcome));
	outcome.why[sizeof(outcome.why) - 1] = '\0';
	if (outcome.error)
		fetch_failed(f->role, f->request, outcome.why);
	else
		fetch_succeeded(f->role, f->request, f->bytes + sizeof(outcome), f->len - sizeof(outcome));
}

/* No fetch does that, so it was taken over. Its end is that of this role, which takes its children along; the enforcer starts
 * another one. */
static void fetching_overdue(struct fetching *f)
{
	log_error("fetcher: process %d, which was to fetch a bundle, does not end: the role starts anew", (int)f->pid);
	sd_event_exit(f->role->process.event, EXIT_FAILURE);
}

/* The pipe is closed, so the child is over, or about to be. Nothing waits for it: other fetches and the enforcer's pings would
 * wait as well. */
static void fetching_look(struct fetching *f)
{
	int status = 0;
	pid_t r;

	do
		r = waitpid(f->pid, &status, WNOHANG);
	while (r < 0 && errno == EINTR);
	if (r == 0 && f->looks == LOOKS) {
		fetching_overdue(f);
	} else if (r == 0) {
		sd_event_source_set_time_relative(f->timer, LOOK_USEC << f->looks++);
		sd_event_source_set_enabled(f->timer, SD_EVENT_ONESHOT);
	} else {
		fetching_answer(f, status);
		fetching_free(f);
	}
}

static void fetching_ended(struct fetching *f)
{
	f->io = sd_event_source_disable_unref(f->io);
	close(f->pipe_fd);
	f->pipe_fd = -1;
	fetching_look(f);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *context)
{
	struct fetching *f = context;

	(void)source;
	(void)usec;
	if (f->pipe_fd >= 0)
		fetching_overdue(f);
	else
		fetching_look(f);
	return 0;
}

static int on_pipe(sd_event_source *source, int fd, uint32_t events, void *context)
{
	struct fetching *f = context;
	const size_t max = sizeof(struct outcome) + FETCH_MAX_BYTES + 1, step = 65536;
	char *more;
	ssize_t n;

	(void)source;
	(void)events;
	more = f->len < max ? realloc(f->bytes, f->len + step) : NULL;
	if (!more) {
		/* It writes more than it may, or memory is short: without a reader it ends. */
		f->len = 0;
		fetching_ended(f);
		return 0;
	}
	f->bytes = more;
	n = read(fd, f->bytes + f->len, step);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		fetching_ended(f);
	else
		f->len += (size_t)n;
	return 0;
}

/* All that can fail comes before the child: there is no way to end one. */
static int fetching_start(struct role *role, struct fetching *f, const struct fetch_job *job)
{
	int pair[2], r;

	if (pipe2(pair, O_CLOEXEC) < 0)
		return -errno;
	f->pipe_fd = pair[0];
	fcntl(pair[0], F_SETFL, O_NONBLOCK);
	r = sd_event_add_io(role->process.event, &f->io, pair[0], EPOLLIN, on_pipe, f);
	if (r >= 0)
		r = sd_event_add_time_relative(role->process.event, &f->timer, CLOCK_MONOTONIC, OVERDUE_USEC, 0,
					       on_timer, f);
	if (r >= 0) {
		f->pid = fork();
		if (f->pid == 0)
			child_main(job, pair[1]);
		r = f->pid < 0 ? -errno : 0;
	}
	close(pair[1]);
	if (r < 0)
		fetching_free(f);
	return r < 0 ? r : 0;
}

static struct fetching *fetching_place(struct role *role)
{
	for (size_t i = 0; i < FEDERATION_MAX; i++)
		if (!role->fetching[i].pid)
			return &role->fetching[i];
	return NULL;
}

static void on_fetch(struct role *role, const struct ipc_fetch *asked, int fd)
{
	__attribute__((cleanup(freep))) void *bundle = NULL;
	struct fetching *f = fetching_place(role);
	struct fetch_job job = {.url = asked->url,
				.ca_file = asked->ca_file,
				.endpoint_spiffe_id = asked->endpoint_spiffe_id,
				.format = asked->format};
	int r = f ? 0 : -EBUSY;

	if (r == 0 && fd >= 0)
		r = ipc_memfd_read(fd, FETCH_MAX_BYTES, &bundle, &job.bundle_len);
	job.bundle = bundle;
	if (r == 0) {
		f->request = asked->request;
		r = fetching_start(role, f, &job);
	}
	if (r < 0) {
		char why[160];

		snprintf(why, sizeof(why),
			 "no fetch could be started: %s; the endpoint was not asked, and will be soon",
			 f ? strerror(-r) : "too many are under way");
		fetch_interrupted(role, asked->request, why);
	}
}

/* ---- the Workload API ---- */

static bool workload_bundle_tell(struct role *role, const struct workload_bundle *bundle)
{
	struct ipc_workload_bundle packet = {.h = {.type = IPC_WORKLOAD_BUNDLE, .len = sizeof(packet)}};
	int fd = ipc_memfd("bulkhead-bundle", bundle->der, bundle->len);
	bool told;

	snprintf(packet.trust_domain, sizeof(packet.trust_domain), "%s", bundle->trust_domain);
	told = fd >= 0 && role_process_tell(&role->process, &packet, fd) == 0;
	if (fd >= 0)
		close(fd);
	return told;
}

/* A message of which the enforcer cannot be told all is none: what it was not told would be taken for gone. Its state is what
 * the bundles before it are held to, so a role that cannot tell it ends: the next one begins anew. */
static bool on_workload(void *ctx, enum workload_state state, const struct workload_bundle *bundles, size_t n,
			const char *why)
{
	struct ipc_workload_state packet = {.h = {.type = IPC_WORKLOAD_STATE, .len = sizeof(packet)}, .state = state};
	struct role *role = ctx;

	snprintf(packet.why, sizeof(packet.why), "%s", why);
	for (size_t i = 0; i < n; i++)
		if (!workload_bundle_tell(role, &bundles[i]))
			return false;
	if (role_process_tell(&role->process, &packet, -1) < 0 && !role->process.over)
		sd_event_exit(role->process.event, EXIT_FAILURE);
	return true;
}

static const struct workload_ops workload_ops = {.state = on_workload};

static void on_watch(struct role *role, const struct ipc_workload_watch *watch)
{
	int r = 0;

	workload_client_freep(&role->workload);
	if (watch->path[0])
		r = workload_client_new(&role->workload, role->process.event, watch->path, &workload_ops, role);
	if (r < 0)
		on_workload(role, WORKLOAD_LOST, NULL, 0, strerror(-r));
}

/* ---- the process ---- */

static bool on_packet(void *ctx, int type, const void *packet, int *fdp)
{
	struct role *role = ctx;

	if (type == IPC_FETCH)
		on_fetch(role, packet, *fdp);
	else if (type == IPC_WORKLOAD_WATCH)
		on_watch(role, packet);
	else
		return false;
	return true;
}

static void role_freep(struct role **rolep)
{
	struct role *role = *rolep;

	if (!role)
		return;
	for (size_t i = 0; i < FEDERATION_MAX; i++)
		fetching_free(&role->fetching[i]);
	workload_client_freep(&role->workload);
	crypto_freep(&role->crypto);
	role_process_close(&role->process);
	free(role);
}

static int set_up(struct role *role)
{
	int r = role_process_open(&role->process);

	for (size_t i = 0; i < FEDERATION_MAX; i++)
		role->fetching[i] = (struct fetching){.role = role, .pipe_fd = -1};
	if (r == 0)
		r = fips_use(&role->crypto, role->process.name);
	if (r >= 0)
		r = fetch_init();
	return r < 0 ? r : role_sandbox(SANDBOX_FETCHER);
}

int role_fetcher_main(int ipc_fd)
{
	__attribute__((cleanup(role_freep))) struct role *role = calloc(1, sizeof(*role));

	if (!role) {
		log_error("fetcher: cannot start: %s", strerror(ENOMEM));
		return EXIT_FAILURE;
	}
	role->process = (struct role_process){.name = "fetcher", .ipc_fd = ipc_fd, .packet = on_packet, .ctx = role};
	return role_process_run(&role->process, set_up(role));
}
