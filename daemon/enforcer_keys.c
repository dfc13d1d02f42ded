// SPDX-License-Identifier: Apache-2.0
/*
 * When the key of the handshake is replaced: after the configured hours, counted from when it came into use, also while the
 * host slept and over restarts of the daemon; and when an operator asks.
 */
#include "enforcer_internal.h"

#include <stdio.h>
#include <string.h>

#include "log.h"

#define HOUR_USEC 3600000000ULL
#define RETRY_USEC 60000000ULL

/* `pid`: of the operator's process; 0: it was time. */
static int rotate(struct enforcer *e, uid_t uid, pid_t pid)
{
	struct ipc_notice notice = enforcer_notice(NOTICE_KEY_ROTATED);
	int r = datapath_key_rotate(e->datapath);

	if (r < 0)
		return r;
	notice.uid = uid;
	notice.pid = (uint32_t)pid;
	snprintf(notice.text, sizeof(notice.text), "key %llu signs identities in handshakes (%s)",
		 (unsigned long long)datapath_key_epoch(e->datapath), pid ? "policyctl rotate-key" : "key_hours");
	enforcer_notice_post(e, &notice);
	return 0;
}

static int on_key_timer(sd_event_source *source, uint64_t usec, void *data)
{
	struct enforcer *e = data;
	int r = rotate(e, 0, 0);

	(void)usec;
	if (r == 0) {
		enforcer_key_arm(e);
		return 0;
	}
	log_error("cannot replace the key of the handshake, the former one stays in use: %s; it is tried again",
		  strerror(-r));
	sd_event_source_set_time_relative(source, RETRY_USEC);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

void enforcer_key_arm(struct enforcer *e)
{
	uint64_t at = datapath_key_since(e->datapath) / 1000 + config_key_hours(&e->config) * HOUR_USEC;
	int r;

	e->key_timer = sd_event_source_disable_unref(e->key_timer);
	r = sd_event_add_time(e->event, &e->key_timer, CLOCK_BOOTTIME, at, 1000000, on_key_timer, e);
	if (r < 0)
		log_error("cannot wait for the time to replace the key of the handshake: %s", strerror(-r));
}

int enforcer_rotate_key(void *ctx, uid_t uid, pid_t pid, uint64_t *epoch, char **textp)
{
	struct enforcer *e = ctx;
	int r = rotate(e, uid, pid);

	(void)textp;
	if (r < 0)
		return r;
	*epoch = datapath_key_epoch(e->datapath);
	enforcer_key_arm(e);
	return CONTROL_DONE;
}
