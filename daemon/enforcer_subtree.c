// SPDX-License-Identifier: Apache-2.0
/*
 * The managed subtree: found or made, and watched. Links hold no cgroup alive: when its directory is removed, the kernel
 * detaches every program, and a directory that is made again under the same name is another cgroup. The keeper makes
 * rmdir(2) fail; against whoever removes both (service managers do) and against another process of root's that detaches a
 * link, puts another program into it or removes a pin, the guard looks twice a second whether everything is as it was put
 * there, and puts it there again. What passed in between was judged by nobody, or by somebody else: for at most the time
 * since the last look, which the audit log tells. Nothing of it lasts: a socket that no program of ours saw has no verdict
 * kept with it and is denied, and all other flows are judged again.
 */
#include "enforcer_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "privileges.h"

/* Half of what is promised: seen within a second. */
#define GUARD_USEC 400000

/* Below the root there is nothing to keep: it cannot be removed. */
static int keeper_make(const struct enforcer *e, int fd)
{
	if (e->config.subtree[strspn(e->config.subtree, "/")] == '\0')
		return 0;
	return mkdirat(fd, CGROUP_KEEPER, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

/* Opens what the path names now, making it where it is gone. Returns the descriptor or -errno. */
static int directory_open(const struct enforcer *e, struct stat *st)
{
	int fd, r = 0;

	if (mkdir(e->subtree_path, 0755) < 0 && errno != EEXIST)
		return -errno;
	fd = open(e->subtree_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, st) < 0)
		r = -errno;
	if (!r)
		r = keeper_make(e, fd);
	if (r < 0)
		close(fd);
	return r < 0 ? r : fd;
}

int enforcer_subtree_open(struct enforcer *e)
{
	struct stat st;
	int r;

	if (snprintf(e->subtree_path, sizeof(e->subtree_path), "%s%s", e->cgroup_mount, e->config.subtree) >=
	    (int)sizeof(e->subtree_path))
		return -ENAMETOOLONG;
	r = directory_open(e, &st);
	if (r < 0) {
		log_error("cannot open or make the managed subtree %s: %s", e->subtree_path, strerror(-r));
		return r;
	}
	e->cgroup_fd = r;
	e->cgroup_id = st.st_ino;
	return 0;
}

/* Does the kernel enforce on what the path names? If not, says what is wrong. */
static bool subtree_holds(const struct enforcer *e, char *why, size_t why_size)
{
	struct stat st;

	if (stat(e->subtree_path, &st) < 0) {
		snprintf(why, why_size, "the managed subtree %s: %s", e->config.subtree, strerror(errno));
		return false;
	}
	if (st.st_ino != e->cgroup_id) {
		snprintf(why, why_size, "the managed subtree %s was removed and made again", e->config.subtree);
		return false;
	}
	return datapath_holds(e->datapath, why, why_size);
}

static int subtree_restore(struct enforcer *e, char *why, size_t why_size)
{
	uint64_t before = e->cgroup_id;
	struct stat st;
	int fd, r;

	privileges_raise();
	fd = directory_open(e, &st);
	privileges_lower();
	if (fd < 0) {
		snprintf(why, why_size, "cannot open or make the managed subtree %.1000s: %s", e->subtree_path,
			 strerror(-fd));
		return fd;
	}
	/* The number stays: the auditor is started again with it. */
	r = dup3(fd, e->cgroup_fd, O_CLOEXEC) < 0 ? -errno : 0;
	close(fd);
	if (r < 0) {
		snprintf(why, why_size, "cannot keep the managed subtree open: %s", strerror(-r));
		return r;
	}
	e->cgroup_id = st.st_ino;
	r = datapath_restore(e->datapath, e->cgroup_fd, e->cgroup_id, why, why_size);
	/* It names cgroups by the directory that it was given. */
	if (r == 0 && before != e->cgroup_id)
		role_renew(e->auditor);
	return r;
}

static void subtree_notice(struct enforcer *e, enum notice_kind kind, const char *text)
{
	struct ipc_notice notice = enforcer_notice(kind);

	notice.revision = e->revision;
	snprintf(notice.text, sizeof(notice.text), "%s", text);
	enforcer_notice_post(e, &notice);
}

/* Returns whether everything had to be put in its place again. */
static bool subtree_check(struct enforcer *e)
{
	uint64_t now = enforcer_boottime_ns();
	char why[1400] = "", text[400];

	if (subtree_holds(e, why, sizeof(why))) {
		e->held_ns = now;
		return false;
	}
	if (!e->enforcement_lost) {
		log_error("enforcement lost: %s", why);
		subtree_notice(e, NOTICE_ENFORCEMENT_LOST, why);
	}
	if (subtree_restore(e, why, sizeof(why)) < 0) {
		if (!e->enforcement_lost)
			log_error("cannot restore enforcement: %s; it is tried again twice a second", why);
		e->enforcement_lost = true;
		return false;
	}
	e->enforcement_lost = false;
	/* What passed meanwhile left no trace with the sockets. */
	datapath_changed(e->datapath);
	now = enforcer_boottime_ns();
	snprintf(text, sizeof(text),
		 "every program is attached to the managed subtree again, and every pin is there; it was not so for "
		 "%llu ms "
		 "at most, and every flow is judged again",
		 (unsigned long long)((now - e->held_ns + 999999) / 1000000));
	e->held_ns = now;
	log_warning("enforcement restored on %s: %s", e->subtree_path, text);
	subtree_notice(e, NOTICE_ENFORCEMENT_RESTORED, text);
	return true;
}

static int on_guard(sd_event_source *source, uint64_t usec, void *data)
{
	struct enforcer *e = data;

	bool restored = subtree_check(e);

	(void)usec;
	restored |= enforcer_devices_check(e);
	if (restored)
		enforcer_sweep(e, true, "enforcement was restored");
	return sd_event_source_set_time_relative(source, GUARD_USEC);
}

int enforcer_subtree_guard(struct enforcer *e)
{
	int r = sd_event_add_time_relative(e->event, &e->guard_timer, CLOCK_MONOTONIC, GUARD_USEC, 0, on_guard, e);

	e->held_ns = enforcer_boottime_ns();
	/* Before everything else that is due: a long sweep must not keep it waiting twice. */
	if (r >= 0)
		r = sd_event_source_set_priority(e->guard_timer, SD_EVENT_PRIORITY_IMPORTANT);
	if (r >= 0)
		r = sd_event_source_set_enabled(e->guard_timer, SD_EVENT_ON);
	return r < 0 ? r : 0;
}
