// SPDX-License-Identifier: Apache-2.0
#include "enforcer_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"

#define QUEUE_RETRY_USEC 100000

struct ipc_notice enforcer_notice(enum notice_kind kind)
{
	return (struct ipc_notice){
		.h = {.type = IPC_AUDIT_NOTICE, .len = sizeof(struct ipc_notice)},
		.kind = kind,
		.time_ns = enforcer_realtime_ns(),
	};
}

static int on_queue_timer(sd_event_source *source, uint64_t usec, void *data)
{
	struct enforcer *e = data;

	(void)source;
	(void)usec;
	e->queue_timer = sd_event_source_disable_unref(e->queue_timer);
	enforcer_notice_flush(e);
	return 0;
}

void enforcer_notice_flush(struct enforcer *e)
{
	while (e->queue_len) {
		int r = role_send(e->auditor, &e->queue[e->queue_head], -1);

		if (r < 0)
			break;
		e->queue_head = (e->queue_head + 1) % NOTICE_QUEUE;
		e->queue_len--;
	}
	if (e->queue_len && !e->queue_timer)
		sd_event_add_time_relative(e->event, &e->queue_timer, CLOCK_MONOTONIC, QUEUE_RETRY_USEC, 0,
					   on_queue_timer, e);
}

void enforcer_notice_keep(struct enforcer *e, const struct ipc_notice *notice)
{
	if (e->queue_len == NOTICE_QUEUE) {
		__atomic_fetch_add(&datapath_counters(e->datapath)->notices_lost, 1, __ATOMIC_RELAXED);
		return;
	}
	e->queue[(e->queue_head + e->queue_len) % NOTICE_QUEUE] = *notice;
	e->queue_len++;
}

void enforcer_notice_post(struct enforcer *e, const struct ipc_notice *notice)
{
	__atomic_fetch_add(&datapath_counters(e->datapath)->notices_made, 1, __ATOMIC_RELAXED);
	enforcer_notice_keep(e, notice);
	enforcer_notice_flush(e);
}

/* Nobody else counts notices now: the auditor is gone, and the next one is not started yet. */
void enforcer_notice_account(struct enforcer *e)
{
	struct bh_counters *counters = datapath_counters(e->datapath);
	uint64_t made = __atomic_load_n(&counters->notices_made, __ATOMIC_RELAXED);
	uint64_t known = __atomic_load_n(&counters->notices_written, __ATOMIC_RELAXED) +
			 __atomic_load_n(&counters->notices_lost, __ATOMIC_RELAXED) + e->queue_len;

	if (made > known)
		__atomic_fetch_add(&counters->notices_lost, made - known, __ATOMIC_RELAXED);
}

/* ---- the log ---- */

static void audit_state_set(struct enforcer *e, int open_error, int write_error)
{
	bool was_well = !e->audit.open_error && !e->audit.write_error;

	e->audit.open_error = open_error;
	e->audit.write_error = write_error;
	if (!open_error && !write_error)
		e->audit.since_s = 0;
	else if (was_well)
		e->audit.since_s = (int64_t)(enforcer_realtime_ns() / 1000000000ULL);
}

void enforcer_audit_packet(struct enforcer *e, const struct ipc_audit_state *state)
{
	audit_state_set(e, e->audit.open_error, state->error > 0 ? state->error : 0);
}

bool enforcer_audit_problem(const struct enforcer *e, char *text, size_t size)
{
	int error = e->audit.write_error;

	if (e->audit.open_error)
		snprintf(text, size, "it cannot be opened: %s; %s: mend that, then `policyctl reload`",
			 strerror(e->audit.open_error),
			 e->audit.handed ? "events still go to the file that was opened before"
					 : "events are lost, and counted");
	else if (error == ENOSPC || error == EDQUOT)
		snprintf(text, size,
			 "it cannot be written: %s; events are lost, and counted: make room there, and it goes on by "
			 "itself",
			 strerror(error));
	else if (error)
		snprintf(text, size,
			 "it cannot be written: %s; events are lost, and counted: mend that, then `policyctl reload`",
			 strerror(error));
	return e->audit.open_error || error;
}

int enforcer_audit_open(struct enforcer *e)
{
	struct ipc_header packet = {.type = IPC_AUDIT_LOG, .len = sizeof(packet)};
	struct group *group = getgrnam(CONTROL_GROUP);
	int fd = open(e->config.audit_log, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640), r;

	if (fd < 0) {
		r = -errno;
		log_error("cannot open the audit log %s: %s", e->config.audit_log, strerror(errno));
		audit_state_set(e, -r, e->audit.write_error);
		return r;
	}
	audit_state_set(e, 0, e->audit.write_error);
	if (group && fchown(fd, (uid_t)-1, group->gr_gid) < 0 && errno != EPERM)
		log_warning("cannot give the audit log to group %s: %s", CONTROL_GROUP, strerror(errno));
	r = role_send(e->auditor, &packet, fd);
	close(fd);
	e->audit.handed |= r == 0;
	return r;
}
