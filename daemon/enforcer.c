// SPDX-License-Identifier: Apache-2.0
#include "enforcer.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "control_api.h"
#include "enforcer_internal.h"
#include "log.h"
#include "metrics_listen.h"
#include "mounts.h"
#include "pairs.h"
#include "privileges.h"
#include "role_auditor.h"
#include "until.h"

#define SWEEP_USEC 1000000

uint64_t enforcer_boottime_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

uint64_t enforcer_realtime_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

/* ---- roles ---- */

/* At the first start there is nothing to say here: role_new() has not returned yet, and roles_start() goes on. */
static void on_started(void *ctx, enum role_kind kind, int sock, unsigned restarts, const char *why)
{
	struct ipc_notice notice = enforcer_notice(NOTICE_ROLE_RESTARTED);
	struct enforcer *e = ctx;

	(void)sock;
	if (!restarts)
		return;
	if (kind == ROLE_IDENTITY) {
		enforcer_bundles_tell(e);
	} else if (kind == ROLE_AUDITOR) {
		/* Names before the log: it writes as soon as it has one. */
		enforcer_names_tell(e);
		enforcer_devices_tell(e);
		enforcer_policy_tell(e);
		e->audit.handed = false;
		enforcer_audit_open(e);
	} else if (kind == ROLE_FETCHER) {
		enforcer_workload_watch(e);
	} else {
		e->told_ns = 0;
	}
	notice.count = restarts;
	snprintf(notice.text, sizeof(notice.text), "the %s role ended (%s) and was started again", role_name(kind),
		 why);
	enforcer_notice_post(e, &notice);
}

static void on_packet(void *ctx, enum role_kind kind, const void *packet, int type, int fd)
{
	struct enforcer *e = ctx;

	if (kind == ROLE_IDENTITY) {
		if (type == IPC_PEER_QUERY)
			enforcer_peer_query(e, packet, fd);
		else if (type == IPC_TAG_REQUEST || type == IPC_ATTEST_REFUSED)
			enforcer_tag_request(e, packet, fd);
		else if (type == IPC_SVID_PROVED)
			enforcer_svid_proved(e, packet);
		else if (type != IPC_READY)
			enforcer_bundle_packet(e, type, packet);
		else if (!e->identity_ready) {
			e->identity_ready = true;
			sd_notifyf(0, "READY=1\nSTATUS=revision %u in force", e->revision);
		}
	}
	if (kind == ROLE_AUDITOR && type == IPC_AUDIT_STATE)
		enforcer_audit_packet(e, packet);
	if (kind == ROLE_METRICS && type == IPC_METRICS_ASK)
		enforcer_metrics_tell(e);
	/* Nobody changes what was judged. */
	if (kind == ROLE_FETCHER && fd >= 0 && !ipc_memfd_is_sealed(fd)) {
		log_error("the fetcher role passed a file that is not sealed");
		close(fd);
		return;
	}
	if (kind == ROLE_FETCHER && type == IPC_FETCHED)
		enforcer_fetched(e, packet, fd);
	if (kind == ROLE_FETCHER && (type == IPC_WORKLOAD_BUNDLE || type == IPC_WORKLOAD_STATE))
		enforcer_workload_packet(e, type, packet, fd);
	if (fd >= 0)
		close(fd);
}

static void on_unsent(void *ctx, enum role_kind kind, const void *packet)
{
	const struct ipc_header *header = packet;

	if (kind == ROLE_AUDITOR && header->type == IPC_AUDIT_NOTICE)
		enforcer_notice_keep(ctx, packet);
}

static void on_ended(void *ctx, enum role_kind kind)
{
	if (kind == ROLE_AUDITOR)
		enforcer_notice_account(ctx);
	if (kind == ROLE_FETCHER)
		enforcer_federation_fetcher_ended(ctx);
}

static const struct role_ops role_ops = {
	.started = on_started,
	.unsent = on_unsent,
	.ended = on_ended,
	.packet = on_packet,
};

/* A number that grows with every start of the auditor, so that event ids never repeat. */
static int auditor_config_fd(struct enforcer *e)
{
	struct auditor_config config = {.epoch = enforcer_realtime_ns() / 1000000};

	auditor_host_id(config.host_id);
	gethostname(config.host_name, sizeof(config.host_name) - 1);
	snprintf(config.instance, sizeof(config.instance), "%s", e->config.instance);
	snprintf(config.subtree, sizeof(config.subtree), "%s", e->config.subtree);
	snprintf(config.version, sizeof(config.version), "%s", BULKHEAD_VERSION);
	return ipc_memfd("bulkhead-auditor", &config, sizeof(config));
}

/* The fetcher runs as long as there is somebody to ask. */
static int fetcher_start(struct enforcer *e)
{
	bool wanted = e->config.n_federation || config_workload_socket(&e->config);
	int r = 0;

	if (!wanted) {
		role_freep(&e->fetcher);
	} else if (!e->fetcher) {
		r = role_new(&e->fetcher, e->event, ROLE_FETCHER, NULL, 0, &role_ops, e);
		if (r == 0)
			enforcer_workload_watch(e);
	}
	return r;
}

static int roles_start(struct enforcer *e, int config_fd)
{
	int fds[] = {datapath_ring_fd(e->datapath), datapath_counters_fd(e->datapath), e->cgroup_fd, config_fd};
	int r;

	r = role_new(&e->auditor, e->event, ROLE_AUDITOR, fds, 4, &role_ops, e);
	if (r < 0)
		return r;
	enforcer_names_tell(e);
	enforcer_devices_tell(e);
	enforcer_policy_tell(e);
	r = enforcer_audit_open(e);
	if (r < 0)
		return r;
	r = role_new(&e->identity, e->event, ROLE_IDENTITY, &e->attest_fd, 1, &role_ops, e);
	if (r >= 0 && e->metrics_fd >= 0)
		r = role_new(&e->metrics, e->event, ROLE_METRICS, &e->metrics_fd, 1, &role_ops, e);
	if (r >= 0)
		r = enforcer_federation_start(e);
	if (r >= 0)
		r = enforcer_workload_start(e);
	if (r >= 0)
		r = fetcher_start(e);
	if (r < 0)
		return r;
	enforcer_revocations_enforce(e);
	enforcer_bundles_start(e);
	return 0;
}

int enforcer_reload(void *ctx, uid_t uid, pid_t pid, char **textp)
{
	struct enforcer *e = ctx;
	int r, opened;

	(void)uid;
	(void)pid;
	r = enforcer_federation_reload(e, textp);
	if (r >= 0)
		r = fetcher_start(e);
	enforcer_bundles_reload(e);
	opened = enforcer_audit_open(e);
	return r < 0 ? r : opened;
}

/* ---- start ---- */

static int fail(const char *what, const char *object, int r)
{
	log_error("cannot %s %s: %s", what, object, strerror(-r));
	return r;
}

static int directory(const char *path, mode_t mode)
{
	struct stat st;

	if (mkdir(path, mode) == 0)
		return 0;
	if (errno != EEXIST)
		return fail("make the directory", path, -errno);
	if (stat(path, &st) < 0)
		return fail("use the directory", path, -errno);
	return S_ISDIR(st.st_mode) ? 0 : fail("use the directory", path, -ENOTDIR);
}

static int directory_of_file(const char *file)
{
	char path[1024];
	char *slash;

	snprintf(path, sizeof(path), "%s", file);
	slash = strrchr(path, '/');
	if (!slash || slash == path)
		return 0;
	*slash = '\0';
	return directory(path, 0750);
}

/* One daemon for each state directory: two would undo each other's work. */
static int lock(struct enforcer *e)
{
	int fd = openat(e->state_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		return fail("open the lock in", e->config.state_dir, -errno);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		log_error("another bulkheadd runs with the state directory %s", e->config.state_dir);
		close(fd);
		return -EBUSY;
	}
	return 0; /* held until the process ends */
}

static int directories_open(struct enforcer *e)
{
	int r;

	r = directory(e->config.run_dir, 0755);
	if (!r)
		r = directory(e->config.state_dir, 0700);
	if (!r)
		r = directory_of_file(e->config.audit_log);
	if (r)
		return r;
	e->state_fd = open(e->config.state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (e->state_fd < 0)
		return fail("open the state directory", e->config.state_dir, -errno);
	r = lock(e);
	if (r)
		return r;
	if (mkdirat(e->state_fd, "revisions", 0700) < 0 && errno != EEXIST)
		return fail("make the directory of revisions in", e->config.state_dir, -errno);
	e->revisions_fd = openat(e->state_fd, "revisions", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (e->revisions_fd < 0)
		return fail("open the revisions in", e->config.state_dir, -errno);
	revision_draft_forget(e->revisions_fd);
	if (mkdirat(e->state_fd, "bundles", 0700) < 0 && errno != EEXIST)
		return fail("make the directory of bundles in", e->config.state_dir, -errno);
	e->bundles_fd = openat(e->state_fd, "bundles", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return e->bundles_fd < 0 ? fail("open the bundles in", e->config.state_dir, -errno) : 0;
}

static uint32_t depth_of(const char *path)
{
	uint32_t depth = 0;

	for (const char *p = path; *p; p++)
		if (*p == '/' && p[1] && p[1] != '/')
			depth++;
	return depth;
}

/* Where the kernel objects are: the managed subtree and the pins. */
static int places_open(struct enforcer *e, struct datapath_config *config)
{
	char root[1024], bpffs[1024];
	int r;

	if (mount_find("cgroup2", e->cgroup_mount, sizeof(e->cgroup_mount), root, sizeof(root)) < 0) {
		log_error("no cgroup2 file system is mounted: Bulkhead needs cgroup v2");
		return -ENOENT;
	}
	if (config_is_true(e->config.allow_proc_fallback)) {
		/* /proc names cgroups from the root of the hierarchy. */
		if (strcmp(root, "/") != 0) {
			log_error("allow_proc_fallback needs the whole cgroup2 hierarchy, but %s shows only %s of it",
				  e->cgroup_mount, root);
			return -EINVAL;
		}
		e->cgroup_mount_fd = open(e->cgroup_mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (e->cgroup_mount_fd < 0)
			return fail("open", e->cgroup_mount, -errno);
	}
	r = enforcer_subtree_open(e);
	if (r < 0)
		return r;

	if (e->config.pin_dir[0]) {
		snprintf(e->pin_dir, sizeof(e->pin_dir), "%s", e->config.pin_dir);
	} else if (mount_find("bpf", bpffs, sizeof(bpffs), NULL, 0) < 0) {
		log_error("no bpffs is mounted: mount -t bpf bpf /sys/fs/bpf");
		return -ENOENT;
	} else if (config_pin_dir(&e->config, bpffs, e->pin_dir, sizeof(e->pin_dir)) < 0) {
		return -ENAMETOOLONG;
	}
	*config = (struct datapath_config){
		.pin_dir = e->pin_dir,
		.cgroup_fd = e->cgroup_fd,
		.cgroup_id = e->cgroup_id,
		.subtree_level = depth_of(root) + depth_of(e->config.subtree),
		.devices = e->config.devices[0] != '\0',
		.hook_kind = strcmp(e->config.device_hook, "clsact") == 0 ? DEVICE_CLSACT
			     : strcmp(e->config.device_hook, "tcx") == 0  ? DEVICE_TCX
									  : DEVICE_AUTO,
	};
	return 0;
}

static int attest_listen(struct enforcer *e)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int r;

	if (snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%s", e->config.run_dir, BH_ATTEST_SOCKET) >=
	    (int)sizeof(addr.sun_path))
		return fail("use the run directory", e->config.run_dir, -ENAMETOOLONG);
	/* The control socket of this directory is ours: a socket that is there is a dead daemon's. */
	if (unlink(addr.sun_path) < 0 && errno != ENOENT)
		return fail("remove", addr.sun_path, -errno);
	e->attest_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (e->attest_fd < 0)
		return fail("make a socket for", addr.sun_path, -errno);
	r = bind(e->attest_fd, (struct sockaddr *)&addr, sizeof(addr));
	/* Every local process may ask; that the listener is root's is what a client checks. */
	if (r < 0 || chmod(addr.sun_path, 0666) < 0 || listen(e->attest_fd, 256) < 0)
		return fail("listen on", addr.sun_path, -errno);
	return 0;
}

static const struct control_ops control_ops = {
	.apply = enforcer_apply,
	.preview = enforcer_preview,
	.rollback = enforcer_rollback,
	.confirm = enforcer_confirm,
	.show = enforcer_show,
	.status = enforcer_status,
	.identities = enforcer_identities,
	.history = enforcer_history,
	.bundles = enforcer_bundles,
	.top = enforcer_top,
	.revoke = enforcer_revoke,
	.rotate_key = enforcer_rotate_key,
	.reload = enforcer_reload,
};

static int kernel_start(struct enforcer *e)
{
	struct datapath_config config;
	char why[1024] = "";
	int r;

	r = places_open(e, &config);
	if (r)
		return r;
	r = datapath_open(&e->datapath, &config, &e->adopted, why, sizeof(why));
	if (!r)
		r = pairs_prepare(e->datapath);
	if (!r)
		r = enforcer_tags_start(e);
	if (!r)
		r = enforcer_policy_start(e, why, sizeof(why));
	if (!r)
		r = datapath_attach(e->datapath, why, sizeof(why));
	if (!r)
		r = enforcer_devices_start(e, why, sizeof(why));
	if (r) {
		log_error("%s", why[0] ? why : strerror(-r));
		if (e->datapath)
			datapath_unpin_unused(e->datapath);
	}
	return r;
}

/* Once a second; of a tree so large that a sweep takes long, so rarely that it takes a tenth of the time at most. */
static int on_sweep(sd_event_source *source, uint64_t usec, void *data)
{
	struct enforcer *e = data;
	uint64_t start = enforcer_boottime_ns(), took_usec;

	(void)usec;
	enforcer_sweep(e, false, "a workload's cgroup is gone");
	took_usec = (enforcer_boottime_ns() - start) / 1000;
	sd_event_source_set_time_relative(source, took_usec * 10 > SWEEP_USEC ? took_usec * 10 : SWEEP_USEC);
	return 0;
}

static int on_hangup(sd_event_source *source, const struct signalfd_siginfo *si, void *data)
{
	char *text = NULL;

	(void)source;
	(void)si;
	enforcer_reload(data, 0, 0, &text);
	free(text);
	return 0;
}

static int events_start(struct enforcer *e)
{
	sigset_t set;
	int r;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	r = sd_event_new(&e->event);
	if (r >= 0)
		r = sd_event_add_signal(e->event, NULL, SIGTERM, NULL, NULL);
	if (r >= 0)
		r = sd_event_add_signal(e->event, NULL, SIGINT, NULL, NULL);
	if (r >= 0)
		r = sd_event_add_signal(e->event, NULL, SIGHUP, on_hangup, e);
	if (r >= 0)
		r = sd_event_set_watchdog(e->event, 1);
	return r < 0 ? r : 0;
}

static int control_start(struct enforcer *e)
{
	char path[1200];

	snprintf(path, sizeof(path), "%s/%s", e->config.run_dir, BH_CONTROL_SOCKET);
	return control_new(&e->control, e->event, path, &control_ops, e);
}

/* Where another daemon has the place, that is found before anything is changed in the kernel: a start that fails is as none. The
 * control socket comes first: it shows whether another daemon has the run directory. */
static int places_listen(struct enforcer *e)
{
	int r = control_start(e);

	return r ? r : attest_listen(e);
}

/* What a stranger can take, or a disk that is full or broken, comes when the kernel enforces already: it must not be what leaves
 * a host that has just booted without. */
static int files_open(struct enforcer *e)
{
	int r = enforcer_revocations_load(e);

	if (!r)
		r = metrics_listen(&e->metrics_fd, e->config.metrics, CONTROL_GROUP);
	if (r)
		return r;
	/* Made here, because its group can be set only as long as we may; no auditor is there yet to be given it. */
	r = enforcer_audit_open(e);
	return r == -ENOTCONN ? 0 : r;
}

static void started_notice(struct enforcer *e)
{
	struct ipc_notice notice = enforcer_notice(NOTICE_DAEMON_STARTED);

	notice.revision = e->revision;
	notice.pid = (uint32_t)getpid();
	snprintf(notice.digest, sizeof(notice.digest), "%s", policy_image_digest(e->image));
	snprintf(notice.text, sizeof(notice.text), "%s; revision %u in force",
		 e->adopted ? "adopted what was enforced" : "enforcement began", e->revision);
	enforcer_notice_post(e, &notice);
	log_info("%s on %s%s, %s", e->adopted ? "adopted enforcement" : "enforcing", e->cgroup_mount, e->config.subtree,
		 notice.text);
}

static int enforcer_start(struct enforcer *e)
{
	int config_fd, r;

	r = events_start(e);
	if (!r)
		r = directories_open(e);
	if (!r)
		r = places_listen(e);
	if (!r)
		r = kernel_start(e);
	if (!r)
		r = files_open(e);
	if (r)
		return r;
	config_fd = auditor_config_fd(e);
	if (config_fd < 0)
		return config_fd;
	r = privileges_drop();
	if (r < 0)
		return fail("drop the privileges of", "the enforcer", r);
	r = roles_start(e, config_fd);
	if (r < 0)
		return fail("start", "the roles", r);
	r = enforcer_svids_start(e);
	if (r >= 0)
		r = enforcer_clock_watch(e);
	if (r < 0)
		return fail("watch", "the clock and the SVIDs", r);
	r = sd_event_add_time_relative(e->event, &e->sweep_timer, CLOCK_MONOTONIC, SWEEP_USEC, 0, on_sweep, e);
	if (r >= 0)
		r = sd_event_source_set_enabled(e->sweep_timer, SD_EVENT_ON);
	if (r >= 0)
		r = enforcer_subtree_guard(e);
	if (r < 0)
		return r;
	enforcer_key_arm(e);
	enforcer_compiler_arm(e);
	started_notice(e);
	enforcer_sweep(e, false, "the daemon started");
	return 0;
}

static void enforcer_free(struct enforcer *e)
{
	control_freep(&e->control);
	role_freep(&e->metrics);
	enforcer_federation_free(e);
	role_freep(&e->fetcher);
	role_freep(&e->identity);
	role_freep(&e->auditor); /* last: it writes what the others reported */
	e->queue_len = 0;
	if (e->datapath)
		enforcer_notice_account(e); /* nobody is left to write the rest */
	compile_process_freep(&e->compiler);
	sd_event_source_disable_unref(e->compiler_used);
	sd_event_source_disable_unref(e->confirm_timer);
	sd_event_source_disable_unref(e->sweep_timer);
	sd_event_source_disable_unref(e->guard_timer);
	sd_event_source_disable_unref(e->expiry_timer);
	sd_event_source_disable_unref(e->queue_timer);
	sd_event_source_disable_unref(e->key_timer);
	enforcer_bundles_unwatch(e);
	enforcer_workload_free(e);
	enforcer_svids_free(e);
	sd_event_unref(e->event);
	devices_freep(&e->devices);
	enforcer_tags_free(e);
	policy_image_freep(&e->image);
	datapath_freep(&e->datapath);
	netns_stale_clear(&e->stale_endpoints);
	netns_gone_clear(&e->gone_connections);
	enforcer_bundles_free(e);
	free(e->queue);
}

int enforcer_run(const struct daemon_config *config)
{
	struct enforcer e = {.config = *config,
			     .cgroup_fd = -1,
			     .cgroup_mount_fd = -1,
			     .attest_fd = -1,
			     .metrics_fd = -1,
			     .state_fd = -1,
			     .revisions_fd = -1,
			     .bundles_fd = -1};
	int r;

	e.started_ns = enforcer_boottime_ns();
	e.queue = calloc(NOTICE_QUEUE, sizeof(*e.queue));
	r = e.queue ? enforcer_start(&e) : -ENOMEM;
	if (r == 0) {
		r = sd_event_loop(e.event);
		sd_notify(0, "STOPPING=1");
		struct ipc_notice notice = enforcer_notice(NOTICE_DAEMON_STOPPED);

		snprintf(notice.text, sizeof(notice.text), "enforcement goes on with revision %u", e.revision);
		enforcer_notice_post(&e, &notice);
		log_info("stopped; enforcement goes on with revision %u", e.revision);
	}
	enforcer_free(&e);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
