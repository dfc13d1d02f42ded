// SPDX-License-Identifier: Apache-2.0
/*
 * Changes of the policy in force that an operator asks for: a new policy, and the way back to an earlier one. Both are
 * the same in everything but where the sources come from: compiled, held against the operator's own connection, stored
 * as a new revision, and only then put into force.
 */
#include "enforcer_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy_pack.h"
#include "revisions.h"

/* ---- the audit log ---- */

struct ipc_notice enforcer_policy_notice(struct enforcer *e, enum notice_kind kind, const struct author *author)
{
	struct ipc_notice notice = enforcer_notice(kind);

	notice.revision = e->revision;
	notice.previous_revision = e->revision;
	notice.login_uid = REVISION_NO_LOGIN;
	if (!author)
		return notice;
	notice.uid = author->uid;
	notice.pid = (uint32_t)author->pid;
	notice.login_uid = author->login_uid;
	memcpy(notice.via, author->via, sizeof(notice.via));
	memcpy(notice.from, author->from, sizeof(notice.from));
	return notice;
}

/* ---- a change ---- */

static enum notice_kind notice_of(enum revision_cause cause)
{
	return cause == REVISION_ROLLED_BACK ? NOTICE_POLICY_ROLLED_BACK
	       : cause == REVISION_REVERTED  ? NOTICE_POLICY_REVERTED
					     : NOTICE_POLICY_APPLIED;
}

/* On disk: that the revision is on trial, then the revision: after a power cut in between, it is not taken for one that
 * nobody has to confirm. Returns 0, or -errno with a sentence. */
static int change_record(struct enforcer *e, const struct policy_image *image, const struct policy_change *change,
			 uint32_t number, uint64_t now_usec, char **textp)
{
	int r = change->confirm_s ? enforcer_confirm_begin(e, number, change->confirm_s, textp) : 0;

	if (r < 0)
		return r;
	r = enforcer_revision_write(e, image, change, number, now_usec);
	if (r == 0)
		return 0;
	if (change->confirm_s)
		enforcer_confirm_end(e, true);
	free(*textp);
	if (asprintf(textp, "cannot store the revision: %s; revision %u stays in force", strerror(-r), e->revision) < 0)
		*textp = NULL;
	return r;
}

int enforcer_change(struct enforcer *e, const struct policy_change *change, struct policy_image **imagep,
		    struct control_change_result *out, char **textp)
{
	struct ipc_notice notice = enforcer_policy_notice(e, notice_of(change->cause), change->author);
	uint64_t now_usec = enforcer_realtime_ns() / 1000;
	uint32_t latest = revisions_latest(e->revisions_fd), number = (latest > e->revision ? latest : e->revision) + 1;
	int r, stored = change_record(e, *imagep, change, number, now_usec, textp);

	/* The way back from a policy that nobody confirmed is gone also where the disk is full. */
	if (stored < 0 && change->cause != REVISION_REVERTED)
		return stored;
	*out = (struct control_change_result){
		.revision = number,
		.replaced = e->revision,
		.rules = policy_image_rule_count(*imagep),
	};
	notice.revision = number;
	snprintf(notice.digest, sizeof(notice.digest), "%s", policy_image_digest(*imagep));
	snprintf(notice.text, sizeof(notice.text), "%s", change->comment);
	if (change->confirm_s)
		notice.not_after = (int64_t)(now_usec / 1000000 + change->confirm_s);
	r = enforcer_image_enforce(e, imagep, number, now_usec);
	if (r < 0) {
		revisions_remove(e->revisions_fd, number);
		if (change->confirm_s)
			enforcer_confirm_end(e, true);
		return r;
	}
	/* What waited until now has been replaced. */
	if (!change->confirm_s)
		enforcer_confirm_end(e, stored == 0);
	enforcer_notice_post(e, &notice);
	return CONTROL_DONE;
}

/* Would the image end the session that asks? Returns CONTROL_DONE, CONTROL_WOULD_CUT with a sentence, or -errno. */
static int session_check(struct enforcer *e, const struct policy_image *image, struct author *author,
			 const char *session, bool even_if_cut, char **textp)
{
	struct control_preview preview;
	struct ipc_notice notice;
	char *text = NULL;
	int r = enforcer_preview_image(e, image, author, session, &preview, &text);

	if (even_if_cut || (r == 0 && !preview.session_cut)) {
		free(text);
		return CONTROL_DONE;
	}
	if (r < 0 &&
	    asprintf(&text, "it cannot be told whether it would cut your own connection (%s)", strerror(-r)) < 0)
		text = NULL;
	free(*textp);
	*textp = text;
	notice = enforcer_policy_notice(e, NOTICE_POLICY_REFUSED, author);
	snprintf(notice.text, sizeof(notice.text), "%s", text ? text : "");
	enforcer_notice_post(e, &notice);
	return CONTROL_WOULD_CUT;
}

/* From sources to force. `change` is complete but for the files' image. */
static int change_make(struct enforcer *e, const struct policy_change *change, const char *session, bool even_if_cut,
		       struct control_change_result *out, char **textp)
{
	__attribute__((cleanup(policy_image_freep))) struct policy_image *image = NULL;
	struct ipc_notice notice;
	int r;

	r = enforcer_change_image(e, change, &image, textp);
	if (r) {
		notice = enforcer_policy_notice(e, NOTICE_POLICY_REFUSED, change->author);
		snprintf(notice.text, sizeof(notice.text), "%s", *textp ? *textp : strerror(-r));
		enforcer_notice_post(e, &notice);
		return r > 0 ? CONTROL_INVALID : r;
	}
	r = session_check(e, image, change->author, session, even_if_cut, textp);
	if (r)
		return r;
	r = enforcer_change(e, change, &image, out, textp);
	if (r)
		return r;
	out->sockets_cut = (uint32_t)enforcer_sweep(e, true, "policy changed");
	return CONTROL_DONE;
}

int enforcer_apply(void *ctx, const struct control_change *asked, const struct control_caller *caller,
		   struct control_change_result *out, char **textp)
{
	__attribute__((cleanup(author_clear))) struct author author = {};
	__attribute__((cleanup(revision_draft_clear))) struct revision_draft draft = {.fd = -1};
	struct policy_change change = {
		.cause = REVISION_APPLIED,
		.files = asked->files,
		.n = asked->n,
		.comment = asked->comment,
		.confirm_s = asked->confirm_s,
		.author = &author,
		.draft = &draft,
	};
	struct enforcer *e = ctx;

	author_read(&author, caller->uid, caller->pid, caller->pidfd);
	if (enforcer_confirm_waiting(e, textp))
		return CONTROL_WAITING;
	if (change.confirm_s && (change.confirm_s < CONFIRM_MIN_S || change.confirm_s > CONFIRM_MAX_S)) {
		if (asprintf(textp, "the time to confirm in must be %u to %u seconds", CONFIRM_MIN_S, CONFIRM_MAX_S) <
		    0)
			*textp = NULL;
		return -EINVAL;
	}
	return change_make(e, &change, caller->session, asked->even_if_cut, out, textp);
}

/* ---- going back ---- */

int enforcer_revision_unknown(struct enforcer *e, uint32_t number, bool damaged, char **textp)
{
	uint32_t *numbers = NULL;
	size_t n = 0, len = 0;
	FILE *f;

	free(*textp);
	*textp = NULL;
	f = open_memstream(textp, &len);
	if (!f)
		return CONTROL_NO_REVISION;
	if (damaged)
		fprintf(f, "the file of revision %u is damaged", number);
	else if (number)
		fprintf(f, "there is no revision %u (the last %d are kept)", number, REVISIONS_KEPT);
	else
		fprintf(f, "there is no earlier revision to go back to");
	if (revisions_list(e->revisions_fd, &numbers, &n) == 0 && n)
		fprintf(f, "; stored:");
	/* Runs are told by their ends. */
	for (size_t i = 0, j; i < n; i = j) {
		for (j = i + 1; j < n && numbers[j] == numbers[j - 1] + 1; j++)
			;
		fprintf(f, "%s %u", i ? "," : "", numbers[i]);
		if (j - i > 1)
			fprintf(f, "%s %u", j - i > 2 ? " to" : ",", numbers[j - 1]);
	}
	free(numbers);
	fclose(f);
	return CONTROL_NO_REVISION;
}

/* The revision that a rollback without a number goes back to; 0: there is none. */
static uint32_t rollback_target(struct enforcer *e)
{
	struct revision now;

	if (e->waiting.revision)
		return e->waiting.previous;
	if (!e->revision || revisions_load_head(e->revisions_fd, e->revision, &now) < 0)
		return 0;
	return now.predecessor == REVISION_UNKNOWN ? now.number - 1 : now.predecessor;
}

int enforcer_rollback(void *ctx, uint32_t number, bool even_if_cut, const struct control_caller *caller,
		      struct control_change_result *out, char **textp)
{
	__attribute__((cleanup(author_clear))) struct author author = {};
	__attribute__((cleanup(revision_draft_clear))) struct revision_draft draft = {.fd = -1};
	struct policy_change change = {.cause = REVISION_ROLLED_BACK, .author = &author, .draft = &draft};
	struct enforcer *e = ctx;
	/* Before the first revision was the built-in policy: back to it only from a revision on trial. */
	bool builtin = !number && e->waiting.revision && !e->waiting.previous;
	uint32_t target = number ? number : rollback_target(e);
	struct policy_source *files = NULL;
	char comment[96];
	int r;

	if (!target && !builtin)
		return enforcer_revision_unknown(e, 0, false, textp);
	r = enforcer_revision_files(e, target, &files, &change.n);
	if (r == -ENOENT || r == -EBADMSG)
		return enforcer_revision_unknown(e, target, r == -EBADMSG, textp);
	if (r < 0)
		return r;
	author_read(&author, caller->uid, caller->pid, caller->pidfd);
	if (target)
		snprintf(comment, sizeof(comment), "rollback to %u", target);
	else
		snprintf(comment, sizeof(comment), "rollback to the built-in policy");
	change.files = files;
	change.comment = comment;
	change.target = target;
	r = change_make(e, &change, caller->session, even_if_cut, out, textp);
	policy_sources_free(files, change.n);
	return r;
}
