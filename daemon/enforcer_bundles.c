// SPDX-License-Identifier: Apache-2.0
/*
 * Trust bundles: read here, parsed by the identity role. Who carries an identity of a trust domain that nobody vouches for
 * any more loses it at once, with its connections. A bundle that cannot be read is not one that is gone: the last one stays.
 */
#include "enforcer_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "log.h"

#define BUNDLE_MAX_BYTES (4U << 20)

static struct bundle *bundle_find(struct enforcer *e, const char *trust_domain)
{
	for (size_t i = 0; i < e->n_bundles; i++)
		if (strcmp(e->bundles[i].trust_domain, trust_domain) == 0)
			return &e->bundles[i];
	return NULL;
}

static struct bundle *bundle_get(struct enforcer *e, const char *trust_domain)
{
	struct bundle *bundle = bundle_find(e, trust_domain), *more;

	if (bundle)
		return bundle;
	more = reallocarray(e->bundles, e->n_bundles + 1, sizeof(*more));
	if (!more)
		return NULL;
	e->bundles = more;
	bundle = &e->bundles[e->n_bundles++];
	*bundle = (struct bundle){};
	snprintf(bundle->trust_domain, sizeof(bundle->trust_domain), "%s", trust_domain);
	return bundle;
}

static void bundle_send(struct enforcer *e, const char *trust_domain, int fd)
{
	struct ipc_bundle packet = {.h = {.type = IPC_BUNDLE, .len = sizeof(packet)}};

	snprintf(packet.trust_domain, sizeof(packet.trust_domain), "%s", trust_domain);
	role_send(e->identity, &packet, fd);
}

static void bundle_failed(struct enforcer *e, struct bundle *bundle, const char *why)
{
	struct ipc_notice notice = enforcer_notice(NOTICE_BUNDLE_REFUSED);

	snprintf(bundle->why, sizeof(bundle->why), "%s", why);
	snprintf(notice.spiffe_id, sizeof(notice.spiffe_id), "%s", bundle->trust_domain);
	snprintf(notice.text, sizeof(notice.text), "%s; the bundle loaded before stays", why);
	enforcer_notice_post(e, &notice);
	log_warning("trust bundle of %s: %s", bundle->trust_domain, why);
}

static void bundle_read(struct enforcer *e, int dir_fd, const char *file, size_t stem)
{
	char trust_domain[256], *text;
	struct bundle *bundle;
	size_t len;
	int r, fd;

	if (stem == 0 || stem >= sizeof(trust_domain))
		return;
	memcpy(trust_domain, file, stem);
	trust_domain[stem] = '\0';
	bundle = bundle_get(e, trust_domain);
	if (!bundle)
		return;
	bundle->present = true;
	r = file_read(dir_fd, file, BUNDLE_MAX_BYTES, &text, &len);
	if (r < 0) {
		char why[200];

		snprintf(why, sizeof(why), "cannot read %s: %s", file, strerror(-r));
		bundle_failed(e, bundle, why);
		return;
	}
	fd = ipc_memfd("bulkhead-bundle", text, len);
	free(text);
	if (fd >= 0) {
		bundle_send(e, trust_domain, fd);
		close(fd);
	}
}

static void bundle_gone(struct enforcer *e, const struct bundle *bundle)
{
	struct ipc_notice notice = enforcer_notice(NOTICE_BUNDLE_REMOVED);

	bundle_send(e, bundle->trust_domain, -1);
	snprintf(notice.spiffe_id, sizeof(notice.spiffe_id), "%s", bundle->trust_domain);
	enforcer_notice_post(e, &notice);
}

/* ---- tags of who can no longer be verified ---- */

static void trust_domain_of(const char *spiffe_id, char *out, size_t size)
{
	const char *domain = strncmp(spiffe_id, "spiffe://", 9) == 0 ? spiffe_id + 9 : "";

	snprintf(out, size, "%.*s", (int)strcspn(domain, "/"), domain);
}

bool enforcer_bundle_vouches(struct enforcer *e, const char *spiffe_id)
{
	const struct bundle *bundle;
	char trust_domain[256];

	trust_domain_of(spiffe_id, trust_domain, sizeof(trust_domain));
	bundle = bundle_find(e, trust_domain);
	return bundle && !bundle->empty;
}

/* Ends the tags of trust domains that have no bundle any more, or one without authority, and cuts their connections. */
static void tags_check(struct enforcer *e)
{
	char text[400], trust_domain[256];
	bool any = false;

	for (size_t i = 0; i < e->n_tags; i++) {
		const char *name = enforcer_identity_name(e, e->tags[i].identity);

		if (e->tags[i].local || !e->tags[i].deadline_ns || enforcer_bundle_vouches(e, name))
			continue;
		trust_domain_of(name, trust_domain, sizeof(trust_domain));
		snprintf(text, sizeof(text), "the trust bundle of %s is gone, or holds no authority any more",
			 trust_domain);
		enforcer_tag_end(e, &e->tags[i], NOTICE_IDENTITY_REVOKED, text);
		any = true;
	}
	if (!any)
		return;
	datapath_changed(e->datapath);
	enforcer_sweep(e, true, "a trust bundle is gone");
}

/* ---- the directory ---- */

/* Reads TRUSTDOMAIN.pem files. A domain whose file is gone is gone; a directory that cannot be read changes nothing. */
void enforcer_bundles_reload(struct enforcer *e)
{
	int fd = open(e->config.bundle_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	int r;

	if (!dir) {
		log_warning("cannot read the bundle directory %s: %s: no further trust domain is known",
			    e->config.bundle_dir, strerror(errno));
		return;
	}
	for (size_t i = 0; i < e->n_bundles; i++)
		e->bundles[i].present = false;
	while ((errno = 0, entry = readdir(dir))) {
		size_t len = strlen(entry->d_name);

		if (entry->d_name[0] == '.')
			continue;
		if (len > 4 && strcmp(entry->d_name + len - 4, ".pem") == 0)
			bundle_read(e, fd, entry->d_name, len - 4);
		else
			log_warning("%s/%s is no TRUSTDOMAIN.pem: ignored", e->config.bundle_dir, entry->d_name);
	}
	r = errno;
	closedir(dir);
	if (r) {
		log_warning("cannot read all of the bundle directory %s: %s: no trust domain is taken for gone",
			    e->config.bundle_dir, strerror(r));
		return;
	}
	for (size_t i = 0; i < e->n_bundles;) {
		if (e->bundles[i].present) {
			i++;
			continue;
		}
		bundle_gone(e, &e->bundles[i]);
		e->bundles[i] = e->bundles[--e->n_bundles];
	}
	tags_check(e);
}

void enforcer_bundle_loaded(struct enforcer *e, const struct ipc_bundle_loaded *loaded)
{
	struct bundle *bundle = bundle_find(e, loaded->trust_domain);
	struct ipc_notice notice = enforcer_notice(NOTICE_BUNDLE_LOADED);

	if (!bundle)
		return;
	if (loaded->authorities < 0) {
		bundle_failed(e, bundle, loaded->why);
		return;
	}
	enforcer_svids_again(e);
	bundle->authorities = loaded->authorities;
	bundle->empty = loaded->authorities == 0;
	bundle->dropped = loaded->dropped;
	bundle->why[0] = '\0';
	notice.count = (uint32_t)loaded->authorities;
	snprintf(notice.spiffe_id, sizeof(notice.spiffe_id), "%s", bundle->trust_domain);
	snprintf(notice.text, sizeof(notice.text), "%d authorities, %u entries dropped", loaded->authorities,
		 loaded->dropped);
	enforcer_notice_post(e, &notice);
	if (bundle->empty)
		tags_check(e);
}
