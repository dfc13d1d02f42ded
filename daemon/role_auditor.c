/* SPDX-License-Identifier: Apache-2.0 */
#include "role_auditor.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <systemd/sd-event.h>
#include <time.h>
#include <unistd.h>

#include "cgroup_names.h"
#include "log.h"
#include "sandbox.h"

#define NS_PER_S 1000000000ULL
#define USEC_PER_S 1000000ULL
/* Events between two looks at the enforcer's socket: a few milliseconds of work, against a watchdog of seconds. */
#define EVENTS_PER_TURN 1024
#define PACKETS_PER_TURN 256
#define RECORD_BYTES (sizeof(struct bh_event) + 8) /* in the ring, with its header */

/* One counter of losses, and how much of it the log already tells. */
struct loss {
	const char *what;
	uint64_t reported;
	uint64_t before_start;		 /* of what is not reported: found at start */
	uint64_t log_file;		 /* of what is not reported: not written by us */
	enum audit_loss_stage elsewhere; /* where the rest was lost */
};

/* Where a line of one sort is counted. */
struct account {
	__u64 *written;
	__u64 *lost;
	struct loss *loss;
};

struct auditor {
	struct bh_counters *counters;
	struct audit_record *record;
	struct audit_names *names;
	struct cgroup_names *cgroups;
	uint64_t boot_to_real_ns;
	uint64_t sequence;
	uint64_t losses_reported_ns; /* CLOCK_BOOTTIME, 0: never */
	struct loss events;
	struct loss notices;
	struct account event_account;
	struct account notice_account;
	int ipc_fd;
	int log_fd;
	bool torn;	/* the log ends within a line */
	int error;	/* errno of the last write, 0: it was whole; -1: there was none yet */
	int told;	/* of `error`, to the enforcer; -1: nothing */
	bool receiving; /* packets are being handled */
	bool ended;	/* the enforcer is gone */
	unsigned turn;	/* events done in this turn */
	struct ring_buffer *ring;
	sd_event *loop;
	sd_event_source *ring_source;
	const struct account *rest_account;
	size_t rest_len;
	char rest[1 + AUDIT_LINE_MAX]; /* what is missing of the last line, where a full disk cut it */
	char line[1 + AUDIT_LINE_MAX]; /* the first byte is a newline, written when the log is torn */
};

static void count(__u64 *counter, uint64_t n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void refresh_clock_offset(struct auditor *auditor)
{
	uint64_t before = clock_ns(CLOCK_BOOTTIME), real = clock_ns(CLOCK_REALTIME), after = clock_ns(CLOCK_BOOTTIME);

	auditor->boot_to_real_ns = real - (before + (after - before) / 2);
}

int auditor_new(struct auditor **auditorp, int ipc_fd, struct bh_counters *counters, int cgroup_dir_fd,
		const struct auditor_config *config)
{
	struct auditor *auditor = calloc(1, sizeof(*auditor));
	uint64_t lost, reported;
	int r;

	if (!auditor)
		return -ENOMEM;
	auditor->counters = counters;
	auditor->ipc_fd = ipc_fd;
	auditor->log_fd = -1;
	auditor->error = auditor->told = -1;
	auditor->line[0] = '\n';
	r = audit_record_new(&auditor->record, config);
	if (r >= 0)
		r = audit_names_new(&auditor->names);
	if (r >= 0)
		r = cgroup_names_new(&auditor->cgroups, cgroup_dir_fd);
	if (r < 0) {
		auditor_freep(&auditor);
		return r;
	}
	lost = __atomic_load_n(&counters->events_lost, __ATOMIC_RELAXED);
	reported = __atomic_load_n(&counters->events_lost_reported, __ATOMIC_RELAXED);
	auditor->events =
		(struct loss){"flow", reported, lost > reported ? lost - reported : 0, 0, AUDIT_LOSS_KERNEL_RING};
	lost = __atomic_load_n(&counters->notices_lost, __ATOMIC_RELAXED);
	auditor->notices = (struct loss){"notice", lost, 0, 0, AUDIT_LOSS_DAEMON};
	auditor->event_account = (struct account){&counters->events_written, &counters->events_lost, &auditor->events};
	auditor->notice_account =
		(struct account){&counters->notices_written, &counters->notices_lost, &auditor->notices};
	refresh_clock_offset(auditor);
	*auditorp = auditor;
	return 0;
}

static void note_failure(struct auditor *auditor, int error)
{
	if (auditor->error <= 0)
		log_error("audit log: cannot write: %s; events are counted as lost until it works again (`policyctl "
			  "status` says where the log is, and how many)",
			  strerror(error));
	auditor->error = error;
}

static void note_success(struct auditor *auditor)
{
	if (auditor->error > 0)
		log_info("audit log: writing again");
	auditor->error = 0;
}

/* Once a second, however often it comes and goes. */
static void state_tell(struct auditor *auditor)
{
	struct ipc_audit_state state = {
		.h = {.type = IPC_AUDIT_STATE, .len = sizeof(state)},
		.error = auditor->error,
	};

	if (auditor->error >= 0 && auditor->error != auditor->told && ipc_send(auditor->ipc_fd, &state, -1) == 0)
		auditor->told = auditor->error;
}

static ssize_t write_log(struct auditor *auditor, const char *bytes, size_t len)
{
	ssize_t n;

	do
		n = write(auditor->log_fd, bytes, len);
	while (n < 0 && errno == EINTR);
	if (n < (ssize_t)len)
		note_failure(auditor, n < 0 ? errno : ENOSPC);
	return n;
}

/* Writes what is missing of the line that a full disk cut. Returns false as long as it cannot. */
static bool finish_line(struct auditor *auditor)
{
	ssize_t n;

	if (!auditor->rest_len)
		return true;
	n = write_log(auditor, auditor->rest, auditor->rest_len);
	if (n <= 0)
		return false;
	auditor->rest_len -= (size_t)n;
	memmove(auditor->rest, auditor->rest + n, auditor->rest_len);
	if (auditor->rest_len)
		return false;
	note_success(auditor);
	count(auditor->rest_account->written, 1);
	return true;
}

static void count_lost(const struct account *account)
{
	count(account->lost, 1);
	account->loss->log_file++;
}

/*
 * Writes the line of `len` bytes that stands in auditor->line + 1 and counts it. Returns false if nothing of it was
 * written. A line of which the disk took a part is finished before any other: the log can only be appended to, also by
 * an auditor that was taken over, so nothing can be taken back.
 */
static bool write_line(struct auditor *auditor, size_t len, const struct account *account)
{
	const char *start = auditor->torn ? auditor->line : auditor->line + 1;
	size_t size = auditor->torn ? len + 1 : len;
	ssize_t n;

	if (!finish_line(auditor))
		return false;
	n = write_log(auditor, start, size);
	if (n <= 0)
		return false;
	auditor->torn = false;
	if (n == (ssize_t)size) {
		note_success(auditor);
		count(account->written, 1);
		return true;
	}
	auditor->rest_len = size - (size_t)n;
	memcpy(auditor->rest, start + n, auditor->rest_len);
	auditor->rest_account = account;
	return true;
}

/* The log is closed: what is missing of its last line will never come. */
static void give_up_rest(struct auditor *auditor)
{
	if (auditor->rest_len && !finish_line(auditor))
		count_lost(auditor->rest_account);
	auditor->rest_len = 0;
}

void auditor_freep(struct auditor **auditorp)
{
	struct auditor *auditor = *auditorp;

	if (!auditor)
		return;
	sd_event_source_unref(auditor->ring_source);
	sd_event_unref(auditor->loop);
	ring_buffer__free(auditor->ring);
	audit_record_freep(&auditor->record);
	audit_names_freep(&auditor->names);
	cgroup_names_freep(&auditor->cgroups);
	if (auditor->log_fd >= 0) {
		give_up_rest(auditor);
		close(auditor->log_fd);
	}
	free(auditor);
	*auditorp = NULL;
}

void auditor_set_log(struct auditor *auditor, int fd)
{
	struct stat st;
	char last;

	give_up_rest(auditor);
	if (auditor->log_fd >= 0)
		close(auditor->log_fd);
	auditor->log_fd = fd;
	/* A host that lost power may have left half a line: ours must not be glued to it. */
	auditor->torn = !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size > 0 &&
			pread(fd, &last, 1, st.st_size - 1) == 1 && last != '\n';
	if (auditor->ring_source)
		sd_event_source_set_enabled(auditor->ring_source, SD_EVENT_ON);
}

/* ---- losses ---- */

static bool report_loss(struct auditor *auditor, struct loss *loss, enum audit_loss_stage stage, uint64_t lost)
{
	struct audit_stamp stamp = {clock_ns(CLOCK_REALTIME), ++auditor->sequence};
	size_t len;

	len = audit_record_lost(auditor->record, auditor->line + 1, loss->what, stage, lost, loss->reported + lost,
				&stamp);
	if (!write_line(auditor, len, &auditor->notice_account)) {
		auditor->sequence--; /* a gap in the numbers means a loss, and this was none */
		return false;
	}
	/* Lines that nobody sent us keep the account too: the log has as many as the counters say. */
	count(&auditor->counters->notices_made, 1);
	loss->reported += lost;
	if (loss == &auditor->events)
		count(&auditor->counters->events_lost_reported, lost);
	return true;
}

static bool report_loss_stages(struct auditor *auditor, struct loss *loss, uint64_t total)
{
	uint64_t known = loss->reported + loss->before_start + loss->log_file;
	uint64_t elsewhere = total > known ? total - known : 0;
	bool written = false;

	if (loss->before_start && report_loss(auditor, loss, AUDIT_LOSS_BEFORE_START, loss->before_start)) {
		loss->before_start = 0;
		written = true;
	}
	if (elsewhere && report_loss(auditor, loss, loss->elsewhere, elsewhere))
		written = true;
	if (loss->log_file && report_loss(auditor, loss, AUDIT_LOSS_LOG_FILE, loss->log_file)) {
		loss->log_file = 0;
		written = true;
	}
	return written;
}

void auditor_report_losses(struct auditor *auditor, uint64_t now_ns)
{
	uint64_t events = __atomic_load_n(&auditor->counters->events_lost, __ATOMIC_RELAXED);
	uint64_t notices = __atomic_load_n(&auditor->counters->notices_lost, __ATOMIC_RELAXED);
	bool written;

	if ((events <= auditor->events.reported && notices <= auditor->notices.reported) || auditor->log_fd < 0)
		return;
	if (auditor->losses_reported_ns && now_ns - auditor->losses_reported_ns < NS_PER_S)
		return;
	written = report_loss_stages(auditor, &auditor->events, events);
	if (report_loss_stages(auditor, &auditor->notices, notices) || written)
		auditor->losses_reported_ns = now_ns;
}

/* ---- what the enforcer says ---- */

static int take_image(struct auditor *auditor, uint32_t revision, int fd)
{
	struct policy_image *image __attribute__((cleanup(policy_image_freep))) = NULL;
	const char *why = "";
	void *bytes = NULL;
	size_t len;
	int r;

	r = ipc_memfd_read(fd, POLICY_IMAGE_MAX_BYTES, &bytes, &len);
	if (r >= 0) {
		r = policy_image_open(&image, bytes, len, &why);
		free(bytes);
	}
	if (r >= 0)
		r = audit_names_set_image(auditor->names, revision, image);
	if (r < 0)
		log_error("auditor: rule names of revision %u: %s %s", revision, strerror(-r), why);
	return r;
}

static void take_notice(struct auditor *auditor, const struct ipc_notice *notice)
{
	struct audit_stamp stamp = {notice->time_ns, ++auditor->sequence};
	size_t len;

	if (notice->cgroup_id && notice->cgroup_path[0] == '/')
		cgroup_names_add(auditor->cgroups, notice->cgroup_id, notice->cgroup_path);
	if (!stamp.time_ns)
		stamp.time_ns = clock_ns(CLOCK_REALTIME);
	len = audit_record_notice(auditor->record, auditor->line + 1, notice, &stamp);
	if (!write_line(auditor, len, &auditor->notice_account))
		count_lost(&auditor->notice_account);
}

int auditor_packet(struct auditor *auditor, const void *packet, int type, int fd)
{
	const struct ipc_audit_image *image = packet;
	const struct ipc_audit_name *name = packet;
	const struct ipc_audit_device *device = packet;
	struct ipc_header pong = {.type = IPC_PING, .len = sizeof(pong)};
	int r = 0;

	switch (type) {
	case IPC_AUDIT_LOG:
		if (fd < 0)
			return -EBADMSG;
		auditor_set_log(auditor, fd);
		return 0;
	case IPC_AUDIT_IMAGE:
		r = fd < 0 ? -EBADMSG : take_image(auditor, image->revision, fd);
		break;
	case IPC_AUDIT_NAME:
		r = audit_names_set_identity(auditor->names, name->identity, name->local, name->name);
		break;
	case IPC_AUDIT_DEVICE:
		r = audit_names_set_device(auditor->names, device->ifindex, device->name);
		break;
	case IPC_AUDIT_NOTICE:
		take_notice(auditor, packet);
		break;
	case IPC_PING:
		r = ipc_send(auditor->ipc_fd, &pong, -1);
		break;
	default:
		r = -EBADMSG;
	}
	if (fd >= 0)
		close(fd);
	return r;
}

/* Handles what stands in the socket, at most `max` packets. */
static void receive(struct auditor *auditor, unsigned max)
{
	union {
		struct ipc_header header;
		char bytes[IPC_MAX_PACKET];
	} packet;
	int r, fd = -1;

	if (auditor->receiving || auditor->ended || auditor->ipc_fd < 0)
		return;
	auditor->receiving = true;
	while (max--) {
		r = ipc_receive(auditor->ipc_fd, &packet, &fd);
		if (r == -EAGAIN || r == -EINTR)
			break;
		if (r == -EBADMSG) {
			log_error("auditor: malformed packet from the enforcer, ignored");
			continue;
		}
		if (r <= 0) {
			auditor->ended = true;
			break;
		}
		r = auditor_packet(auditor, &packet, r, fd);
		if (r < 0)
			log_error("auditor: packet of type %u: %s", packet.header.type, strerror(-r));
	}
	auditor->receiving = false;
}

/* ---- what the kernel says ---- */

static bool is_named(const struct auditor *auditor, uint32_t identity)
{
	const char *name;
	bool local;

	return identity < BH_ID_FIRST || audit_names_identity(auditor->names, identity, &name, &local);
}

int auditor_event(void *context, void *data, size_t size)
{
	struct auditor *auditor = context;
	struct bh_event event = {};
	const char *path;
	size_t len = 0;

	if (size >= BH_EVENT_BYTES_MIN) {
		/* The program of another build may have written more, or less. */
		memcpy(&event, data, size < sizeof(event) ? size : sizeof(event));
		/* The enforcer sends a name before it lets the kernel use its number: it stands in the socket. */
		if (!is_named(auditor, event.subject) || !is_named(auditor, event.peer) ||
		    (event.revision && !audit_names_digest(auditor->names, event.revision)))
			receive(auditor, PACKETS_PER_TURN);
		if (event.cgroup & BH_DEVICE_BIT) {
			if (!audit_names_device(auditor->names, (uint32_t)event.cgroup))
				receive(auditor, PACKETS_PER_TURN);
			path = audit_names_device(auditor->names, (uint32_t)event.cgroup);
		} else {
			path = cgroup_names_path(auditor->cgroups, event.cgroup, clock_ns(CLOCK_BOOTTIME));
		}
		len = audit_record_flow(auditor->record, auditor->line + 1, &event, auditor->names, path,
					auditor->boot_to_real_ns, ++auditor->sequence);
	}
	if (!len || !write_line(auditor, len, &auditor->event_account))
		count_lost(&auditor->event_account);
	return ++auditor->turn % EVENTS_PER_TURN ? 0 : -ECANCELED;
}

/* Reads the ring until it is empty or the turn is over. Returns true if there may be more. */
static bool consume(struct auditor *auditor)
{
	bool more;
	int r;

	auditor->turn = 0;
	r = ring_buffer__consume(auditor->ring);
	more = r == -ECANCELED;
	if (r < 0 && !more)
		log_error("auditor: event ring: %s", strerror(-r));
	auditor_report_losses(auditor, clock_ns(CLOCK_BOOTTIME));
	return more;
}

/* ---- the process ---- */

static int on_ipc(sd_event_source *source, int fd, uint32_t revents, void *context)
{
	struct auditor *auditor = context;

	(void)source;
	(void)fd;
	(void)revents;
	receive(auditor, PACKETS_PER_TURN);
	return auditor->ended ? sd_event_exit(auditor->loop, 0) : 0;
}

static int on_ring(sd_event_source *source, int fd, uint32_t revents, void *context)
{
	struct auditor *auditor = context;

	(void)source;
	(void)fd;
	(void)revents;
	consume(auditor);
	return auditor->ended ? sd_event_exit(auditor->loop, 0) : 0;
}

static int on_second(sd_event_source *source, uint64_t usec, void *context)
{
	struct auditor *auditor = context;

	(void)usec;
	refresh_clock_offset(auditor);
	/* Also events for which the kernel program asked for no wakeup. */
	if (auditor->log_fd >= 0) {
		finish_line(auditor);
		consume(auditor);
	}
	state_tell(auditor);
	sd_event_source_set_time_relative(source, USEC_PER_S);
	return auditor->ended ? sd_event_exit(auditor->loop, 0) : 0;
}

/* The enforcer's word goes first, then the clock; the ring may always have more. */
static int add_sources(struct auditor *auditor)
{
	sd_event_source *ipc, *timer;
	int r;

	r = sd_event_new(&auditor->loop);
	if (r < 0)
		return r;
	r = sd_event_add_io(auditor->loop, &ipc, auditor->ipc_fd, EPOLLIN, on_ipc, auditor);
	if (r < 0)
		return r;
	sd_event_source_set_priority(ipc, SD_EVENT_PRIORITY_IMPORTANT);
	sd_event_source_set_floating(ipc, 1);
	sd_event_source_unref(ipc);
	r = sd_event_add_time_relative(auditor->loop, &timer, CLOCK_MONOTONIC, USEC_PER_S, 0, on_second, auditor);
	if (r < 0)
		return r;
	sd_event_source_set_enabled(timer, SD_EVENT_ON);
	sd_event_source_set_priority(timer, SD_EVENT_PRIORITY_IMPORTANT + 1);
	sd_event_source_set_floating(timer, 1);
	sd_event_source_unref(timer);
	r = sd_event_add_io(auditor->loop, &auditor->ring_source, ring_buffer__epoll_fd(auditor->ring), EPOLLIN,
			    on_ring, auditor);
	if (r < 0)
		return r;
	return sd_event_source_set_enabled(auditor->ring_source, SD_EVENT_OFF);
}

static size_t ring_bytes(int ring_fd)
{
	struct bpf_map_info info = {0};
	__u32 len = sizeof(info);

	return bpf_obj_get_info_by_fd(ring_fd, &info, &len) ? 0 : info.max_entries;
}

/* Reads what stands in the ring now: enforcement goes on and may fill it as fast as we read. */
static void drain(struct auditor *auditor, size_t ring_size)
{
	size_t turns = ring_size / RECORD_BYTES / EVENTS_PER_TURN + 1;

	if (auditor->log_fd < 0)
		return;
	while (consume(auditor) && turns--)
		;
	auditor_report_losses(auditor, UINT64_MAX);
}

static void ignore_signals(void)
{
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
}

static int set_up(struct auditor **auditorp, int ipc_fd, int ring_fd, int counters_fd, int cgroup_dir_fd,
		  const struct auditor_config *config)
{
	struct ipc_header ready = {.type = IPC_READY, .len = sizeof(ready)};
	struct bh_counters *counters;
	int r;

	ignore_signals();
	if (fcntl(ipc_fd, F_SETFL, fcntl(ipc_fd, F_GETFL) | O_NONBLOCK) < 0)
		return -errno;
	counters = mmap(NULL, sizeof(*counters), PROT_READ | PROT_WRITE, MAP_SHARED, counters_fd, 0);
	if (counters == MAP_FAILED)
		return -errno;
	r = auditor_new(auditorp, ipc_fd, counters, cgroup_dir_fd, config);
	if (r < 0)
		return r;
	(*auditorp)->ring = ring_buffer__new(ring_fd, auditor_event, *auditorp, NULL);
	if (!(*auditorp)->ring)
		return -errno;
	r = add_sources(*auditorp);
	if (r < 0)
		return r;
	r = role_sandbox(SANDBOX_AUDITOR);
	if (r < 0)
		return r;
	return ipc_send(ipc_fd, &ready, -1);
}

int role_auditor_main(int ipc_fd, int ring_fd, int counters_fd, int cgroup_dir_fd, const struct auditor_config *config)
{
	struct auditor *auditor __attribute__((cleanup(auditor_freep))) = NULL;
	struct auditor_config own = *config;
	size_t ring_size = ring_bytes(ring_fd);
	uint64_t now_ms = clock_ns(CLOCK_REALTIME) / 1000000;
	int r;

	/* An auditor that is started again gets the same configuration, and must not number its lines the same. */
	if (own.epoch < now_ms)
		own.epoch = now_ms;
	r = set_up(&auditor, ipc_fd, ring_fd, counters_fd, cgroup_dir_fd, &own);
	if (r < 0) {
		log_error("auditor: cannot set up: %s", strerror(-r));
		return EXIT_FAILURE;
	}
	r = sd_event_loop(auditor->loop);
	if (r < 0) {
		log_error("auditor: event loop: %s", strerror(-r));
		return EXIT_FAILURE;
	}
	drain(auditor, ring_size);
	return EXIT_SUCCESS;
}

static bool read_hex(const char *path, char out[9])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, out, 8);
	close(fd);
	out[8] = '\0';
	for (int i = 0; n == 8 && i < 8; i++)
		if (!isxdigit((unsigned char)out[i]))
			n = 0;
	return n == 8;
}

void auditor_host_id(char out[9])
{
	static const char hex[] = "0123456789abcdef";
	unsigned char digest[EVP_MAX_MD_SIZE];
	char boot_id[36] = "";
	int fd;

	if (read_hex("/etc/machine-id", out))
		return;
	fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, boot_id, sizeof(boot_id)) < 0 ||
	    !EVP_Digest(boot_id, sizeof(boot_id), digest, NULL, EVP_sha256(), NULL))
		memset(digest, 0, sizeof(digest));
	if (fd >= 0)
		close(fd);
	for (int i = 0; i < 8; i++)
		out[i] = hex[i % 2 ? digest[i / 2] & 15 : digest[i / 2] >> 4];
	out[8] = '\0';
}
