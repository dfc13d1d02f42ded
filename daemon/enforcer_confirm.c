// SPDX-License-Identifier: Apache-2.0
/*
 * A policy on trial: who applies one with --confirm and locks themselves out by it has only to wait. The trial is on disk
 * (confirmation.h) before the policy is in force, so that it ends also if the daemon, or the host, ends first: while the
 * daemon is away the policy stays in the kernel, and the next start goes back from it at once when its time is over.
 */
#include "enforcer_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "log.h"
#include "policy_pack.h"

/* Between two attempts to go back. It doubles: each may have to compile the policy, and nothing else is done meanwhile. */
#define REVERT_RETRY_NS 5000000000ULL
#define REVERT_RETRY_MAX_NS (64 * REVERT_RETRY_NS)

static uint64_t seconds_left(const struct confirmation *waiting)
{
	uint64_t now = enforcer_boottime_ns();

	return waiting->deadline_ns > now ? (waiting->deadline_ns - now + 999999999ULL) / 1000000000ULL : 0;
}

/* ---- the way back ---- */

/* Image and sources of what was in force before; compiled anew only where the stored image cannot be read. */
static int previous_open(struct enforcer *e, uint32_t number, struct policy_image **imagep,
			 struct policy_source **filesp, size_t *np)
{
	__attribute__((cleanup(freep))) char *text = NULL;
	uint64_t applied_usec;
	int r = enforcer_revision_files(e, number, filesp, np);

	if (r < 0)
		return r;
	if (number)
		return enforcer_revision_image(e, number, imagep, &applied_usec);
	r = enforcer_image_make(e, *filesp, *np, imagep, &text);
	return r > 0 ? -EBADMSG : r;
}

/* Goes back from the revision on trial. On a fault it stays on trial. */
static int revert(struct enforcer *e, const char *why)
{
	__attribute__((cleanup(policy_image_freep))) struct policy_image *image = NULL;
	__attribute__((cleanup(freep))) char *text = NULL;
	struct revision_draft draft = {.fd = -1};
	struct policy_change change = {.cause = REVISION_REVERTED, .target = e->waiting.previous, .draft = &draft};
	uint32_t given_up = e->waiting.revision;
	struct control_change_result result;
	struct policy_source *files = NULL;
	char comment[200], to[32] = "the built-in policy";
	int r;

	if (change.target)
		snprintf(to, sizeof(to), "revision %u", change.target);
	snprintf(comment, sizeof(comment), "back to %s: revision %u was not confirmed %s", to, given_up, why);
	r = previous_open(e, change.target, &image, &files, &change.n);
	if (r == 0) {
		change.files = files;
		change.comment = comment;
		r = enforcer_change(e, &change, &image, &result, &text);
	}
	policy_sources_free(files, change.n);
	if (r < 0) {
		log_error("revision %u was not confirmed %s, and the way back to %s fails: %s; it stays in force, and "
			  "going "
			  "back is tried again: `policyctl rollback REV` goes back to another one",
			  given_up, why, to, strerror(-r));
		return r;
	}
	log_warning("%s; it is in force as revision %u", comment, result.revision);
	return 0;
}

static void timer_arm(struct enforcer *e, uint64_t deadline_ns);

static void retry_arm(struct enforcer *e)
{
	e->revert_retry_ns = e->revert_retry_ns ? 2 * e->revert_retry_ns : REVERT_RETRY_NS;
	if (e->revert_retry_ns > REVERT_RETRY_MAX_NS)
		e->revert_retry_ns = REVERT_RETRY_MAX_NS;
	timer_arm(e, enforcer_boottime_ns() + e->revert_retry_ns);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *data)
{
	struct enforcer *e = data;

	(void)source;
	(void)usec;
	if (!e->waiting.revision)
		return 0;
	if (revert(e, "in time") < 0)
		retry_arm(e);
	else
		enforcer_sweep(e, true, "policy not confirmed");
	return 0;
}

/* The clock that nobody can set. A suspended host wakes up late, and then at once. */
static void timer_arm(struct enforcer *e, uint64_t deadline_ns)
{
	int r;

	e->confirm_timer = sd_event_source_disable_unref(e->confirm_timer);
	/* Up to the next microsecond: never before the deadline. */
	r = sd_event_add_time(e->event, &e->confirm_timer, CLOCK_BOOTTIME, deadline_ns / 1000 + 1, 1, on_deadline, e);
	if (r < 0)
		log_error("no timer for the confirmation of revision %u: %s; roll it back by hand", e->waiting.revision,
			  strerror(-r));
}

/* ---- the trial ---- */

int enforcer_confirm_begin(struct enforcer *e, uint32_t revision, uint32_t seconds, char **textp)
{
	struct confirmation waiting = {
		.revision = revision,
		.previous = e->revision,
		.deadline_ns = enforcer_boottime_ns() + seconds * 1000000000ULL,
	};
	struct policy_source *files = NULL;
	struct policy_image *image = NULL;
	size_t n = 0;
	int r;

	/* A way back that cannot be gone is to be known now. */
	r = previous_open(e, waiting.previous, &image, &files, &n);
	policy_image_freep(&image);
	policy_sources_free(files, n);
	free(*textp);
	*textp = NULL;
	if (r < 0) {
		if (asprintf(textp,
			     "there would be no way back to revision %u, in force: it cannot be read from %s/revisions "
			     "(%s); apply without --confirm, or roll back to an earlier revision first",
			     waiting.previous, e->config.state_dir, strerror(-r)) < 0)
			*textp = NULL;
		return r;
	}
	r = confirmation_boot_id(waiting.boot_id);
	if (r == 0)
		r = confirmation_write(e->state_fd, &waiting);
	if (r < 0) {
		if (asprintf(textp, "cannot write that the revision is on trial, in %s: %s; revision %u stays in force",
			     e->config.state_dir, strerror(-r), e->revision) < 0)
			*textp = NULL;
		return r;
	}
	e->waiting = waiting;
	timer_arm(e, waiting.deadline_ns);
	if (e->confirm_timer)
		return 0;
	enforcer_confirm_end(e, true);
	return -ENOMEM;
}

void enforcer_confirm_end(struct enforcer *e, bool for_good)
{
	int r = for_good ? confirmation_remove(e->state_fd) : 0;

	e->waiting = (struct confirmation){};
	e->revert_retry_ns = 0;
	e->confirm_timer = sd_event_source_disable_unref(e->confirm_timer);
	if (r < 0)
		log_error("cannot remove the record of a confirmation in %s: %s; remove the file `confirmation` there, "
			  "or the next start goes back to an earlier policy",
			  e->config.state_dir, strerror(-r));
}

bool enforcer_confirm_waiting(struct enforcer *e, char **textp)
{
	if (!e->waiting.revision)
		return false;
	if (asprintf(textp,
		     "revision %u waits to be confirmed, for %u s more: `policyctl confirm` or `policyctl rollback` "
		     "first",
		     e->waiting.revision, (unsigned)seconds_left(&e->waiting)) < 0)
		*textp = NULL;
	return true;
}

int enforcer_confirm(void *ctx, const struct control_caller *caller, uint32_t *revision, char **textp)
{
	__attribute__((cleanup(author_clear))) struct author author = {};
	struct enforcer *e = ctx;
	struct ipc_notice notice;
	int r;

	/* It may be too late, and the timer only not served yet. */
	if (e->waiting.revision && !seconds_left(&e->waiting))
		on_deadline(NULL, 0, e);
	if (!e->waiting.revision) {
		if (asprintf(textp, "nothing waits to be confirmed; revision %u is in force (see `policyctl history`)",
			     e->revision) < 0)
			*textp = NULL;
		return CONTROL_NOT_WAITING;
	}
	r = confirmation_remove(e->state_fd);
	if (r < 0) {
		if (asprintf(textp, "cannot remove the record that revision %u is on trial: %s; it still waits",
			     e->waiting.revision, strerror(-r)) < 0)
			*textp = NULL;
		return r;
	}
	*revision = e->waiting.revision;
	enforcer_confirm_end(e, false);
	author_read(&author, caller->uid, caller->pid, caller->pidfd);
	notice = enforcer_policy_notice(e, NOTICE_POLICY_CONFIRMED, &author);
	snprintf(notice.digest, sizeof(notice.digest), "%s", policy_image_digest(e->image));
	enforcer_notice_post(e, &notice);
	return CONTROL_DONE;
}

/* ---- start ---- */

static bool is_stored(const struct enforcer *e, uint32_t number)
{
	struct revision revision;

	return number && revisions_load_head(e->revisions_fd, number, &revision) == 0;
}

static bool is_readable(struct enforcer *e, uint32_t number)
{
	struct policy_image *image = NULL;
	uint64_t applied_usec;
	bool readable = enforcer_revision_image(e, number, &image, &applied_usec) == 0;

	policy_image_freep(&image);
	return readable;
}

/* Does the record say anything still? No, if the daemon ended before its revision came into force, or after what
 * replaced it did. */
static bool is_over(const struct enforcer *e, const struct confirmation *waiting, uint32_t in_force)
{
	uint32_t latest = revisions_latest(e->revisions_fd);

	if (in_force)
		return in_force < waiting->revision || (in_force > waiting->revision && is_stored(e, in_force));
	/* The kernel cannot tell. Revisions are stored before they come into force, and in their order. */
	return latest < waiting->revision || (latest > waiting->revision && is_stored(e, latest));
}

int enforcer_confirm_start(struct enforcer *e, uint32_t in_force)
{
	struct confirmation waiting;
	char boot_id[37];
	bool same_boot;
	int r = confirmation_read(e->state_fd, &waiting);

	if (r == -ENOENT)
		return 0;
	if (r == 0)
		r = confirmation_boot_id(boot_id);
	if (r < 0) {
		log_error("cannot read which revision waits to be confirmed (%s/confirmation): %s; what is in force "
			  "stays",
			  e->config.state_dir, strerror(-r));
		return 0;
	}
	same_boot = strcmp(boot_id, waiting.boot_id) == 0;
	if (is_over(e, &waiting, in_force)) {
		if (in_force && in_force < waiting.revision)
			revisions_remove(e->revisions_fd, waiting.revision);
		confirmation_remove(e->state_fd);
		return 0;
	}
	e->waiting = waiting;
	/* One that is damaged cannot be adopted, and is not what to wait for. */
	if (same_boot && in_force == waiting.revision && seconds_left(&waiting) && is_readable(e, in_force)) {
		timer_arm(e, waiting.deadline_ns);
		return 0;
	}
	/* Another boot's clock says nothing in this one. */
	e->waiting.deadline_ns = same_boot ? waiting.deadline_ns : 0;
	e->revision = in_force > waiting.revision ? in_force : waiting.revision;
	r = revert(e, !same_boot	       ? "before the host restarted"
		      : seconds_left(&waiting) ? "before the daemon was started again"
					       : "in time: the daemon was away");
	if (r == 0) {
		e->cut_due = true;
		return 1;
	}
	/* Tried again when the rest runs. */
	retry_arm(e);
	return 0;
}
