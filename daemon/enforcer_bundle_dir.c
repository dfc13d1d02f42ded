// SPDX-License-Identifier: Apache-2.0
/*
 * The bundle directory: TRUSTDOMAIN.pem and TRUSTDOMAIN.json, read at the start, when somebody asks, and when something in it
 * changes. A file that cannot be read is not one that is gone, and neither is one of a directory that cannot be read.
 *
 * Writers that put a file into its place by rename(2) are seen when it is there, those that write it in place when they close
 * it. A change is read BUNDLE_WAIT_USEC after it was seen, so that a file that is removed and written anew is not taken for
 * gone in between.
 */
#include "enforcer_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bundle_store.h"
#include "files.h"
#include "identity/rules.h"
#include "identity/spiffe_id.h"
#include "log.h"

#define BUNDLE_WAIT_USEC 100000
#define WATCH_AGAIN_USEC 1000000
#define AGAIN_MIN_USEC 500000
#define AGAIN_MAX_USEC 30000000
#define MAX_STRAYS 32 /* that are named to who asks; all are logged */

/* ---- what is no bundle ---- */

struct strays {
	struct bundle_stray *items; /* MAX_STRAYS, and one for the rest; NULL: there was no memory */
	size_t n, unnamed;
	uint64_t *digests; /* of all of them */
	size_t n_digests, room;
};

/* Of file and reason; FNV-1a. */
static uint64_t digest_of(const struct bundle_stray *stray)
{
	uint64_t digest = 0xcbf29ce484222325;

	for (const char *part = stray->file; part; part = part == stray->file ? stray->why : NULL)
		for (const char *c = part; *c; c++)
			digest = (digest ^ (uint8_t)*c) * 0x100000001b3;
	return digest;
}

static int digest_order(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Was it logged when the directory was read last? */
static bool is_told(const struct enforcer *e, uint64_t digest)
{
	return e->n_strays_told && bsearch(&digest, e->strays_told, e->n_strays_told, sizeof(digest), digest_order);
}

static void digest_add(struct strays *strays, uint64_t digest)
{
	if (strays->n_digests == strays->room) {
		size_t room = strays->room ? 2 * strays->room : MAX_STRAYS;
		uint64_t *more = reallocarray(strays->digests, room, sizeof(*more));

		if (!more)
			return; /* logged once more */
		strays->digests = more;
		strays->room = room;
	}
	strays->digests[strays->n_digests++] = digest;
}

/* Who asks for the status is told as long as it is there. Logged when it is new. `file` NULL: the directory itself. */
__attribute__((format(printf, 4, 5))) static void stray_add(const struct enforcer *e, struct strays *strays,
							    const char *file, const char *format, ...)
{
	struct bundle_stray stray;
	uint64_t digest;
	va_list args;

	va_start(args, format);
	vsnprintf(stray.why, sizeof(stray.why), format, args);
	va_end(args);
	snprintf(stray.file, sizeof(stray.file), "%s", file ?: e->config.bundle_dir);
	/* The name of a file may hold anything. */
	for (char *part = stray.file; part; part = part == stray.file ? stray.why : NULL)
		for (char *c = part; *c; c++)
			if (*c < ' ' || *c > '~')
				*c = '?';
	digest = digest_of(&stray);
	if (!is_told(e, digest))
		log_warning("bundle directory %s: %s%s%s: not used", e->config.bundle_dir, file ? stray.file : "",
			    file ? ": " : "", stray.why);
	digest_add(strays, digest);
	if (strays->items && strays->n < MAX_STRAYS)
		strays->items[strays->n++] = stray;
	else
		strays->unnamed++;
}

static void strays_replace(struct enforcer *e, const struct strays *strays)
{
	free(e->strays);
	free(e->strays_told);
	e->strays = strays->items;
	e->n_strays = strays->n;
	e->strays_told = strays->digests;
	e->n_strays_told = strays->n_digests;
	if (e->n_strays_told)
		qsort(e->strays_told, e->n_strays_told, sizeof(*e->strays_told), digest_order);
	if (!e->strays || !strays->unnamed)
		return;
	snprintf(e->strays[e->n_strays].file, sizeof(e->strays[0].file), "%s", e->config.bundle_dir);
	snprintf(e->strays[e->n_strays++].why, sizeof(e->strays[0].why), "%zu more files: the daemon's log names them",
		 strays->unnamed);
}

/* ---- reading ---- */

static const struct form {
	const char *suffix;
	const char *other; /* that may not be there beside it */
	enum bundle_format format;
} forms[] = {
	{".pem", ".json", BUNDLE_PEM},
	{".json", ".pem", BUNDLE_JWKS},
};

static void file_offer(struct enforcer *e, int dir_fd, const char *file, const char *trust_domain,
		       const struct form *form)
{
	struct bundle_source source = {.kind = BUNDLE_FROM_FILE};
	char why[400], other[300];
	struct bundle *bundle;
	char *text = NULL;
	size_t len = 0;
	int r, fd;

	snprintf(source.origin, sizeof(source.origin), "%s", file);
	snprintf(other, sizeof(other), "%s%s", trust_domain, form->other);
	if (faccessat(dir_fd, other, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
		snprintf(why, sizeof(why), "there are %.120s and %.120s, and which one counts is not said: remove one",
			 form->format == BUNDLE_PEM ? file : other, form->format == BUNDLE_PEM ? other : file);
		enforcer_bundle_failed(e, trust_domain, &source, why);
	} else if ((r = file_read(dir_fd, file, BUNDLE_MAX_BYTES, &text, &len)) < 0) {
		snprintf(why, sizeof(why), "cannot read %.200s: %s", file, strerror(-r));
		enforcer_bundle_failed(e, trust_domain, &source, why);
		enforcer_bundles_again(e);
	} else if ((fd = ipc_memfd("bulkhead-bundle", text, len)) < 0) {
		snprintf(why, sizeof(why), "cannot hand %.200s to the identity role: %s", file, strerror(-fd));
		enforcer_bundle_failed(e, trust_domain, &source, why);
		enforcer_bundles_again(e);
	} else {
		r = enforcer_bundle_offer(e, trust_domain, &source, form->format, fd);
		if (r < 0 && r != -EEXIST)
			enforcer_bundles_again(e);
		close(fd);
	}
	free(text);
	bundle = enforcer_bundle_find(e, trust_domain);
	if (bundle)
		bundle->present = true;
}

static void file_look(struct enforcer *e, int dir_fd, const char *file, struct strays *strays)
{
	size_t len = strlen(file);
	char trust_domain[256];
	int rule;

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		size_t suffix = strlen(forms[i].suffix);

		if (len <= suffix || strcmp(file + len - suffix, forms[i].suffix) != 0)
			continue;
		snprintf(trust_domain, sizeof(trust_domain), "%.*s", (int)(len - suffix), file);
		rule = spiffe_trust_domain_check(trust_domain, len - suffix);
		if (rule)
			stray_add(e, strays, file, "\"%s\" is no name of a trust domain (rule %d): %s", trust_domain,
				  rule, svid_rule_text(rule));
		else
			file_offer(e, dir_fd, file, trust_domain, &forms[i]);
		return;
	}
	stray_add(e, strays, file, "its name is neither TRUSTDOMAIN.pem nor TRUSTDOMAIN.json");
}

/* Returns whether all of it was read. */
static bool directory_read(struct enforcer *e)
{
	struct strays strays = {.items = calloc(MAX_STRAYS + 1, sizeof(*strays.items))};
	struct dirent *entry;
	DIR *dir = NULL;
	int r = directory_open(AT_FDCWD, e->config.bundle_dir, &dir);

	if (r == 0) {
		while ((r = directory_next(dir, &entry)) > 0)
			if (entry->d_name[0] != '.')
				file_look(e, dirfd(dir), entry->d_name, &strays);
		closedir(dir);
	}
	if (r < 0) {
		stray_add(e, &strays, NULL, "cannot read%s: %s; no trust domain is taken for gone",
			  dir ? " all of it" : "", strerror(-r));
		enforcer_bundles_again(e);
	}
	strays_replace(e, &strays);
	return r == 0;
}

static int on_again(sd_event_source *source, uint64_t usec, void *data)
{
	struct enforcer *e = data;

	(void)source;
	(void)usec;
	e->bundle_again = sd_event_source_disable_unref(e->bundle_again);
	enforcer_bundles_reload(e);
	return 0;
}

void enforcer_bundles_again(struct enforcer *e)
{
	int r;

	if (e->bundle_again)
		return;
	r = sd_event_add_time_relative(e->event, &e->bundle_again, CLOCK_MONOTONIC, backoff_next(&e->bundle_backoff), 0,
				       on_again, e);
	if (r < 0)
		log_error("cannot wait to read the bundle directory: %s; `policyctl reload` reads it", strerror(-r));
}

void enforcer_bundles_reload(struct enforcer *e)
{
	for (size_t i = 0; i < e->n_bundles; i++)
		e->bundles[i].present = false;
	if (!directory_read(e))
		return;
	for (size_t i = 0; i < e->n_bundles;) {
		if (e->bundles[i].source.kind != BUNDLE_FROM_FILE || e->bundles[i].present)
			i++;
		else
			enforcer_bundle_withdraw(e, e->bundles[i].trust_domain, BUNDLE_FROM_FILE);
	}
	enforcer_vouch_check_domains(e);
}

/* ---- watching ---- */

static void watch(struct enforcer *e);

static int on_time(sd_event_source *source, uint64_t usec, void *data)
{
	struct enforcer *e = data;

	(void)source;
	(void)usec;
	e->bundle_timer = sd_event_source_disable_unref(e->bundle_timer);
	if (!e->bundle_watch)
		watch(e);
	if (e->bundle_watch)
		enforcer_bundles_reload(e);
	return 0;
}

/* A time that is set already stays: changes that go on for ever are read all the same. */
static void read_in(struct enforcer *e, uint64_t usec)
{
	int r = e->bundle_timer
			? 0
			: sd_event_add_time_relative(e->event, &e->bundle_timer, CLOCK_MONOTONIC, usec, 0, on_time, e);

	if (r < 0)
		log_error("cannot wait to read the bundle directory: %s; `policyctl reload` reads it", strerror(-r));
}

/* A file that was just made is still being written, and is seen again when it is closed. A link is complete. */
static bool is_complete(const struct enforcer *e, const char *name)
{
	char path[CONFIG_PATH_MAX + NAME_MAX + 2];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", e->config.bundle_dir, name);
	return lstat(path, &st) == 0 && (S_ISLNK(st.st_mode) || st.st_nlink > 1);
}

static int on_change(sd_event_source *source, const struct inotify_event *event, void *data)
{
	struct enforcer *e = data;

	(void)source;
	if (event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED)) {
		e->bundle_watch = sd_event_source_disable_unref(e->bundle_watch);
		read_in(e, BUNDLE_WAIT_USEC);
	} else if (!(event->mask & IN_CREATE) || (event->len && is_complete(e, event->name))) {
		read_in(e, BUNDLE_WAIT_USEC);
	}
	return 0;
}

/* A directory that is not there yet, or was replaced, is looked for every second. */
static void watch(struct enforcer *e)
{
	int r = sd_event_add_inotify(e->event, &e->bundle_watch, e->config.bundle_dir,
				     IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CREATE | IN_ATTRIB |
					     IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR,
				     on_change, e);

	if (r >= 0) {
		e->bundle_unwatched = false;
		return;
	}
	e->bundle_watch = NULL;
	if (!e->bundle_unwatched)
		log_warning("cannot watch the bundle directory %s: %s; it is tried again", e->config.bundle_dir,
			    strerror(-r));
	e->bundle_unwatched = true;
	read_in(e, WATCH_AGAIN_USEC);
}

void enforcer_bundles_unwatch(struct enforcer *e)
{
	e->bundle_watch = sd_event_source_disable_unref(e->bundle_watch);
	e->bundle_timer = sd_event_source_disable_unref(e->bundle_timer);
	e->bundle_again = sd_event_source_disable_unref(e->bundle_again);
	strays_replace(e, &(struct strays){0});
}

/* ---- the start ---- */

/* Is a bundle of a file kept, of a trust domain that has no bundle yet? */
static bool is_kept(struct enforcer *e, const char *trust_domain)
{
	struct bundle_kept kept;
	char *text = NULL;
	size_t len;
	bool is;

	if (enforcer_bundle_find(e, trust_domain))
		return false;
	is = bundle_store_read(e->bundles_fd, trust_domain, &kept, &text, &len) == 0 && kept.source == BUNDLE_FROM_FILE;
	free(text);
	return is;
}

/* Forgets what is kept of files that were removed while no daemon ran: as if it had seen them go. */
static void kept_look(void *ctx, const char *trust_domain)
{
	struct enforcer *e = ctx;

	if (is_kept(e, trust_domain))
		bundle_store_remove(e->bundles_fd, trust_domain);
}

/* The directory cannot be read: what is kept of its files stays in force until it can. */
static void kept_expect(void *ctx, const char *trust_domain)
{
	struct bundle_source source = {.kind = BUNDLE_FROM_FILE};
	struct enforcer *e = ctx;

	if (is_kept(e, trust_domain))
		enforcer_bundle_expect(e, trust_domain, &source);
}

void enforcer_bundles_start(struct enforcer *e)
{
	bool read;

	e->bundle_backoff = (struct backoff){.min_usec = AGAIN_MIN_USEC, .max_usec = AGAIN_MAX_USEC};
	/* First the watch: what changes while the directory is read is read again. */
	watch(e);
	read = directory_read(e);
	if (e->bundles_fd >= 0)
		bundle_store_each(e->bundles_fd, read ? kept_look : kept_expect, e);
	enforcer_vouch_check_domains(e);
}
