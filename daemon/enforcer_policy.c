// SPDX-License-Identifier: Apache-2.0
/*
 * Policies: compiled in a child, opened here with every bound checked, stored, and only then put into force. At any
 * fault the policy in force stays what it was.
 */
#include "enforcer_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "compile.h"
#include "files.h"
#include "image_file.h"
#include "log.h"
#include "policy_pack.h"
#include "revisions.h"
#include "until.h"

/* What is in force when nobody has said anything: nothing may talk, and the log says so. */
static const char builtin_text[] = "bulkhead: 1\ndefaults: {action: deny, log: denied}\n";

static struct policy_source builtin_source(void)
{
	return (struct policy_source){.name = "(built-in)", .text = builtin_text, .len = sizeof(builtin_text) - 1};
}

/* ---- the auditor's view ---- */

static void image_tell(struct enforcer *e, const struct policy_image *image, uint32_t revision)
{
	struct ipc_audit_image packet = {.h = {.type = IPC_AUDIT_IMAGE, .len = sizeof(packet)}, .revision = revision};
	__attribute__((cleanup(closep))) int copy = -1;
	int fd = image_file_fd(image);
	size_t len;
	const void *bytes;

	if (fd < 0) {
		bytes = policy_image_bytes(image, &len);
		fd = copy = ipc_memfd("bulkhead-image", bytes, len);
	}
	if (fd >= 0)
		role_send(e->auditor, &packet, fd);
}

void enforcer_policy_tell(struct enforcer *e)
{
	if (e->image)
		image_tell(e, e->image, e->revision);
}

/* ---- putting into force ---- */

uint16_t *enforcer_who_table(const struct enforcer *e, const struct policy_image *image)
{
	uint16_t *who = calloc(BH_MAX_IDENTITIES, sizeof(*who));

	for (uint32_t i = 0; who && i < e->next_identity; i++)
		who[i] = enforcer_who_of(e, image, i);
	return who;
}

int enforcer_image_enforce(struct enforcer *e, struct policy_image **imagep, uint32_t revision, uint64_t applied_usec)
{
	__attribute__((cleanup(freep))) uint16_t *who = enforcer_who_table(e, *imagep);
	const void *tables;
	size_t len;
	int r;

	if (!who)
		return -ENOMEM;
	image_tell(e, *imagep, revision); /* before an event can name its rules */
	tables = policy_image_tables(*imagep, &len);
	r = datapath_policy_swap(e->datapath, tables, len, who, revision);
	if (r < 0)
		return r;
	policy_image_freep(&e->image);
	e->image = *imagep;
	*imagep = NULL;
	e->revision = revision;
	e->applied_usec = applied_usec;
	return 0;
}

/* ---- compiling ---- */

typedef int (*compile_fn)(struct compile_process **processp, const struct policy_source *files, size_t n,
			  const struct compile_meanwhile *meanwhile, int *imagep, char **textp);

struct meanwhile {
	struct enforcer *e;
	const struct policy_change *change; /* NULL: none is to be stored */
};

/* What the swap and the revision take time for, and need no image for. */
static void work_meanwhile(void *ctx)
{
	const struct meanwhile *meanwhile = ctx;

	if (meanwhile->change)
		enforcer_revision_begin(meanwhile->e, meanwhile->change);
	datapath_settle(meanwhile->e->datapath);
}

/* After the answer: the one that did the job is let go of, and another one starts to wait. */
static int on_compiler_used(sd_event_source *source, void *data)
{
	struct enforcer *e = data;
	int r;

	(void)source;
	compile_process_freep(&e->compiler);
	r = compile_process_new(&e->compiler, "");
	if (r < 0)
		log_warning("no compiler can be kept ready: %s; one is started when it is needed", strerror(-r));
	return 0;
}

void enforcer_compiler_arm(struct enforcer *e)
{
	int r = 0;

	if (!e->event || compile_process_waits(e->compiler))
		return;
	if (e->compiler_used)
		r = sd_event_source_set_enabled(e->compiler_used, SD_EVENT_ONESHOT);
	else
		r = sd_event_add_defer(e->event, &e->compiler_used, on_compiler_used, e);
	if (r >= 0)
		r = sd_event_source_set_priority(e->compiler_used, SD_EVENT_PRIORITY_IDLE);
	if (r < 0)
		log_warning("no compiler can be kept ready: %s; one is started when it is needed", strerror(-r));
}

/* Compiles and opens. Returns 0, 1 (not valid, *textp says why), or -errno. */
static int image_make_by(struct meanwhile ctx, compile_fn compile, const struct policy_source *files, size_t n,
			 struct policy_image **imagep, char **textp)
{
	struct compile_meanwhile meanwhile = {work_meanwhile, &ctx};
	const char *why = "";
	int fd, r;

	r = compile(&ctx.e->compiler, files, n, &meanwhile, &fd, textp);
	enforcer_compiler_arm(ctx.e);
	if (r)
		return r;
	r = image_file_open(imagep, fd, &why);
	if (r == -EBADMSG)
		log_error("the compiler made an image that does not hold: %s", why);
	return r;
}

int enforcer_image_make(struct enforcer *e, const struct policy_source *files, size_t n, struct policy_image **imagep,
			char **textp)
{
	return image_make_by((struct meanwhile){.e = e}, compile_policy, files, n, imagep, textp);
}

static int image_make_stored(struct enforcer *e, const struct policy_source *files, size_t n,
			     struct policy_image **imagep, char **textp)
{
	return image_make_by((struct meanwhile){.e = e}, compile_stored_policy, files, n, imagep, textp);
}

int enforcer_change_image(struct enforcer *e, const struct policy_change *change, struct policy_image **imagep,
			  char **textp)
{
	return image_make_by((struct meanwhile){e, change},
			     change->cause == REVISION_ROLLED_BACK ? compile_stored_policy : compile_policy,
			     change->files, change->n, imagep, textp);
}

/* ---- storing ---- */

void enforcer_revision_begin(struct enforcer *e, const struct policy_change *change)
{
	void *pack = NULL;
	size_t len = 0;
	int r = policy_pack(change->files, change->n, &pack, &len);

	if (r == 0)
		revision_draft_begin(change->draft, e->revisions_fd, pack, len);
	else
		*change->draft = (struct revision_draft){.fd = -1, .fault = r};
}

/* What a rollback from the new revision goes back to. To go back is to undo: what lies before a revision that was gone
 * back to is what lay before it then, not the revision that was given up. */
static uint32_t predecessor_of(struct enforcer *e, const struct policy_change *change)
{
	struct revision target;

	if (change->cause == REVISION_APPLIED)
		return e->revision;
	if (!change->target || revisions_load_head(e->revisions_fd, change->target, &target) < 0)
		return 0;
	return target.predecessor == REVISION_UNKNOWN ? target.number - 1 : target.predecessor;
}

int enforcer_revision_write(struct enforcer *e, const struct policy_image *image, const struct policy_change *change,
			    uint32_t number, uint64_t applied_usec)
{
	const struct author *author = change->author;
	struct revision revision = {
		.number = number,
		.uid = author ? author->uid : 0,
		.applied_usec = applied_usec,
		.cause = change->cause,
		.replaced = e->revision,
		.predecessor = predecessor_of(e, change),
		.target = change->target,
		.confirm_s = change->confirm_s,
		.login_uid = author ? author->login_uid : REVISION_NO_LOGIN,
	};
	size_t image_len;

	if (!change->draft->pack)
		enforcer_revision_begin(e, change);
	/* Borrowed for the call. */
	revision.image = (void *)policy_image_bytes(image, &image_len);
	revision.image_len = image_len;
	snprintf(revision.digest, sizeof(revision.digest), "%s", policy_image_digest(image));
	snprintf(revision.comment, sizeof(revision.comment), "%s", change->comment);
	if (author) {
		memcpy(revision.via, author->via, sizeof(revision.via));
		memcpy(revision.from, author->from, sizeof(revision.from));
	}
	return revisions_store(&revision, change->draft);
}

int enforcer_revision_files(struct enforcer *e, uint32_t number, struct policy_source **filesp, size_t *np)
{
	struct policy_source builtin = builtin_source();
	struct revision revision = {};
	int r;

	if (number)
		r = revisions_load(e->revisions_fd, number, &revision);
	else
		r = policy_pack(&builtin, 1, &revision.pack, &revision.pack_len);
	if (r == 0)
		r = policy_unpack(revision.pack, revision.pack_len, filesp, np);
	revision_clear(&revision);
	return r;
}

int enforcer_show(void *ctx, uint32_t number, struct control_revision *out, char **textp)
{
	struct enforcer *e = ctx;
	struct revision revision;
	int r;

	if (number == 0)
		number = e->revision;
	if (number == 0) {
		r = enforcer_revision_files(e, 0, &out->files, &out->n_files);
		if (r < 0)
			return r;
		snprintf(out->digest, sizeof(out->digest), "%s", policy_image_digest(e->image));
		out->applied_usec = e->applied_usec;
		return CONTROL_DONE;
	}
	r = revisions_load(e->revisions_fd, number, &revision);
	if (r == -ENOENT || r == -EBADMSG)
		return enforcer_revision_unknown(e, number, r == -EBADMSG, textp);
	if (r < 0)
		return r;
	r = policy_unpack(revision.pack, revision.pack_len, &out->files, &out->n_files);
	if (r == 0) {
		out->revision = number;
		out->applied_usec = revision.applied_usec;
		out->uid = revision.uid;
		out->comment = strdup(revision.comment);
		memcpy(out->digest, revision.digest, sizeof(out->digest));
	}
	revision_clear(&revision);
	return r;
}

/* ---- start ---- */

int enforcer_revision_image(struct enforcer *e, uint32_t number, struct policy_image **imagep, uint64_t *applied_usec)
{
	__attribute__((cleanup(freep))) char *text = NULL;
	struct policy_source *files = NULL;
	struct revision revision;
	size_t n = 0;
	int r;

	r = revisions_load(e->revisions_fd, number, &revision);
	if (r < 0)
		return r;
	*applied_usec = revision.applied_usec;
	r = policy_image_open(imagep, revision.image, revision.image_len, NULL);
	if (r == -EBADMSG) {
		r = policy_unpack(revision.pack, revision.pack_len, &files, &n);
		if (r == 0)
			r = image_make_stored(e, files, n, imagep, &text);
		policy_sources_free(files, n);
	}
	revision_clear(&revision);
	return r > 0 ? -EBADMSG : r;
}

static int is_policy_file(const struct dirent *entry)
{
	size_t len = strlen(entry->d_name);

	return entry->d_name[0] != '.' && len > 5 && strcmp(entry->d_name + len - 5, ".yaml") == 0;
}

/* The *.yaml files of the policy directory, in name order. Returns how many, or -errno. */
static int directory_read(const char *path, struct policy_source **filesp, size_t *np)
{
	struct dirent **entries = NULL;
	struct policy_source *files;
	int n = scandir(path, &entries, is_policy_file, alphasort), r = 0;

	*filesp = NULL;
	*np = 0;
	if (n < 0)
		return errno == ENOENT ? 0 : -errno;
	files = calloc((size_t)n + 1, sizeof(*files));
	for (int i = 0; i < n; i++) {
		char name[4096];
		char *text = NULL;

		snprintf(name, sizeof(name), "%s/%s", path, entries[i]->d_name);
		free(entries[i]);
		if (!files || r)
			continue;
		r = file_read(AT_FDCWD, name, POLICY_MAX_SOURCE_BYTES, &text, &files[*np].len);
		if (r)
			continue;
		files[*np].name = strdup(name);
		files[(*np)++].text = text;
	}
	free(entries);
	if (!files)
		return -ENOMEM;
	*filesp = files;
	return r ? r : n;
}

/*
 * First start: the policy directory becomes revision 1. Where revisions were stored and cannot be read it does not come by itself
 * either, for the same reason as an earlier one: it may allow more. But for the root of the tree it does, where nothing at all would
 * be enforced without it.
 */
static int directory_enforce(struct enforcer *e, uint32_t in_force, uint32_t latest, char *why, size_t why_size)
{
	bool whole = strcmp(e->config.subtree, "/") == 0;
	__attribute__((cleanup(policy_image_freep))) struct policy_image *image = NULL;
	__attribute__((cleanup(freep))) char *text = NULL;
	struct policy_source *files = NULL, builtin = builtin_source();
	struct revision_draft draft = {.fd = -1};
	struct policy_change change = {.cause = REVISION_FIRST_START, .comment = "first start", .draft = &draft};
	uint64_t now_usec = enforcer_realtime_ns() / 1000;
	uint32_t number = 0;
	size_t n = 0;
	int r = 0;

	if (whole || (!in_force && !latest))
		r = directory_read(e->config.policy_dir, &files, &n);
	if (r > 0) {
		r = enforcer_image_make(e, files, n, &image, &text);
		if (r == 0) {
			number = (latest > in_force ? latest : in_force) + 1;
			change.files = files;
			change.n = n;
			r = enforcer_revision_write(e, image, &change, number, now_usec);
		}
		if (r) {
			log_error("the policy in %s is not valid; everything is denied until one is applied\n%s",
				  e->config.policy_dir, text ? text : strerror(-r));
			policy_image_freep(&image);
			r = 0;
			number = 0;
		}
	}
	/* To deny everything on a part of the tree is safe; on all of it, it ends the operator's own session. */
	if (r == 0 && !image && whole && (!e->adopted || in_force)) {
		policy_sources_free(files, n);
		snprintf(why, why_size,
			 "no valid policy in %s: with the managed subtree / the built-in policy would deny every "
			 "connection of this "
			 "host, yours too. Write a policy there first, or choose a part of the cgroup tree with "
			 "--subtree%s",
			 e->config.policy_dir, in_force ? "; until then the kernel goes on with what it enforces" : "");
		return -EINVAL;
	}
	if (r == 0 && !image)
		r = enforcer_image_make(e, &builtin, 1, &image, &text);
	if (r == 0)
		r = enforcer_image_enforce(e, &image, number, now_usec);
	if (r)
		snprintf(why, why_size, "no policy can be put into force: %s%s%s", r < 0 ? strerror(-r) : "",
			 text ? "\n" : "", text ? text : "");
	policy_sources_free(files, n);
	return r > 0 ? -EINVAL : r;
}

/* The image is of the revision that the kernel enforces. Are its tables those that the kernel has? Not if it had to be compiled
 * again, by a version that numbers classes another way: then what this enforcer writes would mean something else there. */
static int image_adopt(struct enforcer *e, struct policy_image *image, uint32_t revision, uint64_t applied_usec)
{
	size_t len;
	const void *tables = policy_image_tables(image, &len);
	int r;

	if (!until_is_copy(datapath_tables(e->datapath), tables, len)) {
		log_warning("the kernel's tables are not those of revision %u as it is stored: they are made anew",
			    revision);
		r = enforcer_image_enforce(e, &image, revision, applied_usec);
		policy_image_freep(&image);
		return r;
	}
	/* The kernel enforces it already: only the enforcer has to know it. Identities are classified again, as the daemon may
	 * have died between naming one and classifying it. */
	e->image = image;
	e->revision = revision;
	e->applied_usec = applied_usec;
	for (uint32_t i = 0; i < e->next_identity; i++)
		datapath_who_set(e->datapath, i, enforcer_who_of(e, image, i));
	return 0;
}

/* What says that it replaced the revision in force never did: the daemon ended before the swap, and told nobody that it
 * was done. Left there, it would come into force unasked with the next boot. */
static void never_in_force_remove(struct enforcer *e, uint32_t in_force)
{
	uint32_t latest = revisions_latest(e->revisions_fd);
	struct revision revision;

	if (!in_force || latest <= in_force || revisions_load_head(e->revisions_fd, latest, &revision) < 0 ||
	    revision.replaced != in_force)
		return;
	log_warning("revision %u was stored but never came into force; revision %u stays", latest, in_force);
	revisions_remove(e->revisions_fd, latest);
}

static const char *revision_flaw(int r)
{
	return r == -EBADMSG ? "it is damaged" : strerror(-r);
}

/* Neither what was in force nor the latest can be read, if they are there at all. Of the earlier ones none comes by itself: it may allow more. */
static void deny_everything_say(struct enforcer *e)
{
	__attribute__((cleanup(freep))) uint32_t *numbers = NULL;
	struct revision revision;
	char earlier[64] = "";
	size_t n = 0;

	if (revisions_list(e->revisions_fd, &numbers, &n) < 0)
		n = 0;
	while (n && !*earlier) {
		if (revisions_load(e->revisions_fd, numbers[--n], &revision) < 0)
			continue;
		snprintf(earlier, sizeof(earlier), ", or `policyctl rollback %u` takes up an earlier one", numbers[n]);
		revision_clear(&revision);
	}
	log_error("everything is denied until a policy is applied (policyctl apply PATH)%s", earlier);
}

int enforcer_policy_start(struct enforcer *e, char *why, size_t why_size)
{
	uint32_t in_force = e->adopted ? datapath_revision(e->datapath) : 0, latest;
	struct policy_image *image = NULL;
	uint64_t applied_usec = 0;
	int r;

	never_in_force_remove(e, in_force);
	if (enforcer_confirm_start(e, in_force))
		return 0;
	latest = revisions_latest(e->revisions_fd);
	r = in_force ? enforcer_revision_image(e, in_force, &image, &applied_usec) : -ENOENT;
	if (r == 0) {
		r = image_adopt(e, image, in_force, applied_usec);
		if (r < 0)
			snprintf(why, why_size, "the tables of revision %u cannot be made anew: %s", in_force,
				 strerror(-r));
		return r;
	}
	if (in_force)
		log_warning("revision %u is in force, and cannot be read from %s/revisions: %s", in_force,
			    e->config.state_dir, revision_flaw(r));
	/* One before it may allow more, whether the file of the one in force is damaged or gone. */
	if (latest > in_force) {
		r = enforcer_revision_image(e, latest, &image, &applied_usec);
		if (r == 0)
			r = enforcer_image_enforce(e, &image, latest, applied_usec);
		if (r == 0)
			return 0;
		policy_image_freep(&image);
		log_error("revision %u cannot be read from %s/revisions: %s", latest, e->config.state_dir,
			  revision_flaw(r));
	}
	r = directory_enforce(e, in_force, latest, why, why_size);
	if (r == 0 && !e->revision && (in_force || latest))
		deny_everything_say(e);
	/* Neither what was on trial nor what was before it could be read: there is nothing to go back from any more. */
	if (r == 0 && e->waiting.revision)
		enforcer_confirm_end(e, true);
	return r;
}
