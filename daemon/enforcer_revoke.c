// SPDX-License-Identifier: Apache-2.0
/*
 * Revocation by an operator. What was revoked, and when, is kept on disk: SVIDs of before that give no tag any more.
 */
#include "enforcer_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "files.h"
#include "log.h"

#define REVOCATIONS_FILE "revoked"
#define REVOCATIONS_MAX 65536
#define LINE_MAX_BYTES 2200
/* Behind half a line, so that nobody takes it for a whole one. */
#define CUT_OFF " (cut off)"

static int revocation_parse(struct enforcer *e, const char *line, size_t len)
{
	struct revocation *more = reallocarray(e->revocations, e->n_revocations + 1, sizeof(*more));
	long long time;
	char id[2049];

	if (!more)
		return -ENOMEM;
	e->revocations = more;
	/* Where a host crashed there may be zeros. */
	if (strlen(line) != len || sscanf(line, "%lld %2048s", &time, id) != 2)
		return -EINVAL;
	more[e->n_revocations] = (struct revocation){.spiffe_id = strdup(id), .time = time};
	if (!more[e->n_revocations].spiffe_id)
		return -ENOMEM;
	e->n_revocations++;
	return 0;
}

static bool is_cut_off(const char *line, const char *next, const char *end)
{
	size_t len = strlen(CUT_OFF);

	return next == end || ((size_t)(next - line) >= len && memcmp(next - len, CUT_OFF, len) == 0);
}

int enforcer_revocations_load(struct enforcer *e)
{
	__attribute__((cleanup(freep))) char *text = NULL;
	size_t len = 0, number = 0;
	char *next, *end;
	int r = file_read(e->state_fd, REVOCATIONS_FILE, (size_t)REVOCATIONS_MAX * LINE_MAX_BYTES, &text, &len);

	if (r == -ENOENT)
		return 0;
	end = r == 0 ? text + len : NULL;
	for (char *line = text; r == 0 && line < end; line = next + 1) {
		next = memchr(line, '\n', (size_t)(end - line)) ?: end;
		number++;
		/* An ID that lacks its end is another one. Nobody was told that it is revoked: that comes after the newline is
		 * on disk. */
		if (is_cut_off(line, next, end)) {
			log_error("%s/%s: line %zu was cut off: what was being revoked when the host stopped is not "
				  "revoked; look there, and revoke it again (policyctl revoke ID)",
				  e->config.state_dir, REVOCATIONS_FILE, number);
			continue;
		}
		*next = '\0';
		if (next != line)
			r = revocation_parse(e, line, (size_t)(next - line));
		if (r == -EINVAL) {
			log_error("%s/%s: line %zu is no revocation: not all of what was revoked may "
				  "be known",
				  e->config.state_dir, REVOCATIONS_FILE, number);
			r = 0;
		}
	}
	if (r < 0)
		log_error("%s/%s: cannot read the revocations: %s", e->config.state_dir, REVOCATIONS_FILE,
			  strerror(-r));
	return r;
}

/* Returns 0, or -errno: then the file is as it was. */
static int revocation_write(const struct enforcer *e, const char *spiffe_id, int64_t now)
{
	__attribute__((cleanup(closep))) int fd =
		openat(e->state_fd, REVOCATIONS_FILE, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	char line[LINE_MAX_BYTES], last = '\n';
	off_t size;
	int len, r;

	if (fd < 0)
		return -errno;
	size = lseek(fd, 0, SEEK_END);
	/* What a host wrote that crashed may be half a line. */
	if (size < 0 || (size > 0 && pread(fd, &last, 1, size - 1) != 1))
		return -EIO;
	len = snprintf(line, sizeof(line), "%s%lld %s\n", last == '\n' ? "" : CUT_OFF "\n", (long long)now, spiffe_id);
	r = file_write_all(fd, line, (size_t)len);
	/* The file may have been made just now: then its name has to be on disk, too. */
	if (!r && (fsync(fd) < 0 || (size == 0 && fsync(e->state_fd) < 0)))
		r = -errno;
	/* Half a line would swallow the next one. */
	if (r && ftruncate(fd, size) < 0)
		log_error("cannot take half a revocation out of %s again: %s", REVOCATIONS_FILE, strerror(errno));
	return r;
}

/* Kept on disk: a restart must not let a revoked SVID in again. */
static int revocation_add(struct enforcer *e, const char *spiffe_id, int64_t now)
{
	struct revocation *more;
	char *id;
	int r;

	if (e->n_revocations >= REVOCATIONS_MAX)
		return -ENOSPC;
	more = reallocarray(e->revocations, e->n_revocations + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	e->revocations = more;
	id = strdup(spiffe_id);
	r = id ? revocation_write(e, spiffe_id, now) : -ENOMEM;
	if (r) {
		free(id);
		return r;
	}
	e->revocations[e->n_revocations++] = (struct revocation){.spiffe_id = id, .time = now};
	return 0;
}

int64_t enforcer_revoked_at(const struct enforcer *e, const char *spiffe_id)
{
	int64_t time = 0;

	for (size_t i = 0; i < e->n_revocations; i++)
		if (e->revocations[i].time > time && strcmp(e->revocations[i].spiffe_id, spiffe_id) == 0)
			time = e->revocations[i].time;
	return time;
}

void enforcer_revocations_enforce(struct enforcer *e)
{
	bool any = false;

	for (size_t i = 0; i < e->n_tags; i++) {
		struct tag *tag = &e->tags[i];
		int64_t revoked = tag->deadline_ns && !tag->local && !tag->derived
					  ? enforcer_revoked_at(e, enforcer_identity_name(e, tag->identity))
					  : 0;

		if (!revoked || tag->not_before > revoked)
			continue;
		enforcer_tag_end(e, tag, NOTICE_IDENTITY_REVOKED,
				 tag->not_before
					 ? "revoked by the operator when no daemon was there to take it away"
					 : "the identity was revoked, and an older version did not keep whether "
					   "this SVID was issued after that");
		any = true;
	}
	if (!any)
		return;
	datapath_changed(e->datapath);
	enforcer_sweep(e, true, "identity revoked");
}

int enforcer_revoke(void *ctx, const char *identity, uid_t uid, pid_t pid, struct control_revoke_result *out,
		    char **textp)
{
	int64_t now = (int64_t)(enforcer_realtime_ns() / 1000000000ULL);
	struct enforcer *e = ctx;
	char text[128];
	int r;

	(void)uid;
	*out = (struct control_revoke_result){};
	for (size_t i = 0; i < e->n_tags; i++) {
		const struct tag *tag = &e->tags[i];

		if (!tag->deadline_ns || strcmp(enforcer_identity_name(e, tag->identity), identity) != 0)
			continue;
		if (tag->local) {
			if (asprintf(textp,
				     "%s is a local identity: it holds as long as the policy names it; apply a policy "
				     "without it",
				     identity) < 0)
				*textp = NULL;
			return CONTROL_NO_IDENTITY;
		}
		out->tags++;
	}
	if (!out->tags) {
		if (asprintf(textp, "no cgroup carries the identity %s (see `policyctl identities`)", identity) < 0)
			*textp = NULL;
		return CONTROL_NO_IDENTITY;
	}
	r = revocation_add(e, identity, now);
	if (r < 0) {
		if (asprintf(textp, "cannot record the revocation: %s; nothing was revoked", strerror(-r)) < 0)
			*textp = NULL;
		return r;
	}
	snprintf(text, sizeof(text), "revoked by the operator (policyctl process %d)", (int)pid);
	for (size_t i = 0; i < e->n_tags; i++)
		if (e->tags[i].deadline_ns && strcmp(enforcer_identity_name(e, e->tags[i].identity), identity) == 0)
			enforcer_tag_end(e, &e->tags[i], NOTICE_IDENTITY_REVOKED, text);
	datapath_changed(e->datapath);
	out->sockets_cut = (uint32_t)enforcer_sweep(e, true, "identity revoked");
	return CONTROL_DONE;
}

void enforcer_revocations_free(struct enforcer *e)
{
	for (size_t i = 0; i < e->n_revocations; i++)
		free(e->revocations[i].spiffe_id);
	free(e->revocations);
}
