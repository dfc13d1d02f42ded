// SPDX-License-Identifier: Apache-2.0
/*
 * The managed subtree: found or made, and watched. Links hold no cgroup alive: when its directory is removed, the kernel
 * detaches every program, and a directory that is made again under the same name is another cgroup. The keeper makes
 * rmdir(2) fail; against whoever removes both (service managers do) and against links detached by another process of
 * root's, each sweep looks whether the kernel still enforces, and puts it into force again.
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

bool enforcer_subtree_check(struct enforcer *e)
{
	char why[1400] = "";

	if (subtree_holds(e, why, sizeof(why)))
		return false;
	if (!e->enforcement_lost) {
		log_error("enforcement lost: %s", why);
		subtree_notice(e, NOTICE_ENFORCEMENT_LOST, why);
	}
	if (subtree_restore(e, why, sizeof(why)) < 0) {
		if (!e->enforcement_lost)
			log_error("cannot restore enforcement: %s; it is tried again every second", why);
		e->enforcement_lost = true;
		return false;
	}
	e->enforcement_lost = false;
	/* What passed meanwhile left no trace with the sockets. */
	datapath_changed(e->datapath);
	log_warning("enforcement restored on %s", e->subtree_path);
	subtree_notice(e, NOTICE_ENFORCEMENT_RESTORED, "every program is attached to the managed subtree again");
	return true;
}
