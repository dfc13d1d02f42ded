// SPDX-License-Identifier: Apache-2.0
/*
 * SVIDs in directories that the configuration binds to a unit or a cgroup: the daemon proves them on behalf of whoever runs
 * there, so the workload needs neither a client nor the key. The enforcer reads the files (svid_dir.h) and the identity role
 * does the rest (svid_prove.h). What was proved holds for every cgroup of that place, also one that comes later, as a service
 * that is started again does; each is tagged by the rules that hold for one that attests itself. The proof is made anew when
 * the files change, at half of the life that the last one gave, and when a bundle changes.
 */
#include "enforcer_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "identity/attest.h"
#include "log.h"
#include "policy/unit_path.h"
#include "svid_dir.h"

#define LOOK_USEC 500000

struct bound_svid {
	struct config_svid config;
	struct svid_dir dir;
	uint64_t number; /* of what was asked last */
	bool proved;
	bool stale; /* what it was proved by has changed: it holds until the next look, and then only if it is proved again */
	unsigned failures; /* looks without files, in a row */
	uint64_t proved_ns;
	uint64_t until_ns; /* CLOCK_BOOTTIME: how long the proof counts */
	uint64_t renew_ns; /* when it is proved again */
	struct ipc_tag_request grant;
	unsigned mismatches; /* the key was not the certificate's: once may be a pair that is being replaced */
	char problem[512];
	uint64_t refused_cgroup; /* told, and not told again */
	uint32_t refused_code;
};

/* ---- what is wrong ---- */

/* Said once, as long as it is the same. */
static void complain(struct enforcer *e, struct bound_svid *bound, const struct ipc_tag_request *request, uint32_t code,
		     const char *text)
{
	struct ipc_notice notice = enforcer_notice(NOTICE_IDENTITY_REFUSED);

	if (strcmp(bound->problem, text) == 0)
		return;
	snprintf(bound->problem, sizeof(bound->problem), "%s", text);
	log_warning("the SVID in %s, for %s: %s%s", bound->config.dir, bound->config.place, text,
		    bound->proved ? "; the last one stays" : "");
	notice.code = code;
	notice.revision = e->revision;
	snprintf(notice.text, sizeof(notice.text), "%.200s: %.300s", bound->config.dir, text);
	if (request) {
		notice.not_before = request->not_before;
		notice.not_after = request->not_after;
		memcpy(notice.spiffe_id, request->spiffe_id, sizeof(notice.spiffe_id));
		memcpy(notice.serial, request->serial, sizeof(notice.serial));
		memcpy(notice.issuer, request->issuer, sizeof(notice.issuer));
		memcpy(notice.leaf_sha256, request->leaf_sha256, sizeof(notice.leaf_sha256));
	}
	enforcer_notice_post(e, &notice);
}

/* ---- giving ---- */

static bool is_place_of(const struct bound_svid *bound, const char *path)
{
	const char *unit;

	if (!bound->config.unit)
		return strcmp(path, bound->config.place) == 0;
	unit = unit_of_path(path, strlen(path));
	return unit && strcmp(unit, bound->config.place) == 0;
}

/* Returns whether a tag was given that was not there. */
static bool give(struct enforcer *e, struct bound_svid *bound, const struct cgroup_node *node)
{
	const struct tag *tag = enforcer_tag_find(e, node->id);
	struct tag_attempt a = {.request = &bound->grant,
				.node = node,
				.place = node->path,
				.pidfd = -1,
				.proved_ns = bound->proved_ns,
				.entry = (uint32_t)(bound - e->svids) + 1};

	/* Of this proof already. */
	if (tag && tag->deadline_ns && tag->proved_ns >= bound->proved_ns &&
	    strcmp(enforcer_identity_name(e, tag->identity), bound->grant.spiffe_id) == 0)
		return false;
	if (enforcer_attempt_make(e, &a)) {
		snprintf(a.text, sizeof(a.text), "%s by the SVID in %.250s%s%.200s", a.renewal ? "renewed" : "attested",
			 bound->config.dir, bound->grant.text[0] ? "; " : "", bound->grant.text);
		bound->refused_code = 0;
	} else if (bound->refused_cgroup == node->id && bound->refused_code == a.code) {
		return false;
	} else {
		bound->refused_cgroup = node->id;
		bound->refused_code = a.code;
	}
	enforcer_attempt_tell(e, &a);
	if (!a.code)
		enforcer_shared_look(e, &a);
	return !a.code && !a.renewal;
}

bool enforcer_svids_give(struct enforcer *e, const struct cgroup_tree *tree)
{
	uint64_t now_ns = enforcer_boottime_ns();
	bool any = false;

	for (size_t i = 0; i < e->n_svids; i++) {
		struct bound_svid *bound = &e->svids[i];

		/* What has to be proved again gives nothing new before it is. */
		if (!bound->proved || bound->stale || bound->until_ns <= now_ns)
			continue;
		for (size_t j = 0; j < tree->n_nodes; j++)
			if (tree->nodes[j].depth && is_place_of(bound, tree->nodes[j].path))
				any |= give(e, bound, &tree->nodes[j]);
	}
	return any;
}

/* ---- proving ---- */

/* The SVID in force is none any more: who carries it here loses it. */
static void take_back(struct enforcer *e, struct bound_svid *bound, const char *why)
{
	bool any = false;

	bound->proved = false;
	for (size_t i = 0; i < e->n_tags; i++) {
		struct tag *tag = &e->tags[i];

		if (tag->local || !tag->deadline_ns || !is_place_of(bound, tag->path) ||
		    strcmp(tag->serial, bound->grant.serial) != 0 ||
		    strcmp(enforcer_identity_name(e, tag->identity), bound->grant.spiffe_id) != 0)
			continue;
		enforcer_tag_end(e, tag, NOTICE_IDENTITY_REVOKED, why);
		any = true;
	}
	if (!any)
		return;
	datapath_changed(e->datapath);
	enforcer_sweep(e, true, "an SVID no longer verifies");
}

static bool is_same_leaf(const struct bound_svid *bound, const struct ipc_tag_request *proved)
{
	return bound->proved && memcmp(bound->grant.leaf_sha256, proved->leaf_sha256, sizeof(proved->leaf_sha256)) == 0;
}

static void refused(struct enforcer *e, struct bound_svid *bound, const struct ipc_tag_request *proved)
{
	bool in_force = is_same_leaf(bound, proved);

	if (proved->code == ATTEST_E_SIGNATURE && bound->mismatches++ == 0) {
		bound->dir.again = true;
		return;
	}
	if (bound->proved && (bound->stale || (in_force && proved->code > ATTEST_E_SVID)))
		take_back(e, bound, proved->text);
	complain(e, bound, proved, proved->code, proved->text);
}

void enforcer_svid_proved(struct enforcer *e, const struct ipc_tag_request *proved)
{
	uint64_t now_ns = enforcer_boottime_ns(), most_ns, max_ns = config_max_lifetime_s(&e->config) * 1000000000ULL;
	struct bound_svid *bound = NULL;

	for (size_t i = 0; i < e->n_svids && !bound; i++)
		if (e->svids[i].number == proved->request)
			bound = &e->svids[i];
	if (!bound)
		return;
	if (proved->code || proved->deadline_ns <= now_ns) {
		refused(e, bound, proved);
		return;
	}
	/* A clock that was set back makes no certificate last longer. */
	most_ns = is_same_leaf(bound, proved) ? bound->grant.deadline_ns : UINT64_MAX;
	bound->mismatches = 0;
	bound->stale = false;
	bound->problem[0] = '\0';
	bound->refused_code = 0;
	bound->grant = *proved;
	if (bound->grant.deadline_ns > most_ns)
		bound->grant.deadline_ns = most_ns;
	bound->proved = true;
	bound->proved_ns = now_ns;
	bound->until_ns = bound->grant.deadline_ns;
	if (max_ns && bound->until_ns > now_ns + max_ns)
		bound->until_ns = now_ns + max_ns;
	bound->renew_ns = now_ns + (bound->until_ns - now_ns) / 2;
	enforcer_sweep(e, false, "an SVID was proved");
}

void enforcer_svids_again(struct enforcer *e)
{
	for (size_t i = 0; i < e->n_svids; i++)
		e->svids[i].dir.again = e->svids[i].stale = true;
	if (e->svid_timer)
		sd_event_source_set_time_relative(e->svid_timer, 0);
}

static void look(struct enforcer *e, struct bound_svid *bound)
{
	struct ipc_svid_files packet = {.h = {.type = IPC_SVID_FILES, .len = sizeof(packet)}};
	char why[512] = "";
	int fd, r;

	if (bound->proved && bound->renew_ns <= enforcer_boottime_ns()) {
		bound->renew_ns += 60000000000ULL; /* if nothing comes of it */
		bound->dir.again = true;
	}
	r = svid_dir_look(&bound->dir, &fd, why, sizeof(why));
	bound->failures = r < 0 ? bound->failures + 1 : 0;
	/* One look may fall between the old file and the new. */
	if (bound->failures == 1)
		return;
	if (r < 0 && bound->proved && bound->stale)
		take_back(e, bound, why);
	if (r < 0)
		complain(e, bound, NULL, ATTEST_E_FILES, why);
	if (r <= 0)
		return;
	packet.number = bound->number = ++e->svid_requests;
	if (role_send(e->identity, &packet, fd) < 0)
		bound->dir.again = true;
	close(fd);
}

static int on_look(sd_event_source *source, uint64_t usec, void *data)
{
	struct enforcer *e = data;

	(void)usec;
	for (size_t i = 0; i < e->n_svids; i++)
		look(e, &e->svids[i]);
	sd_event_source_set_time_relative(source, LOOK_USEC);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

/* ---- start, status ---- */

int enforcer_svids_start(struct enforcer *e)
{
	struct config_svid config;
	size_t n = 0;

	while (config_svid(&e->config, n, &config))
		n++;
	if (!n)
		return 0;
	e->svids = calloc(n, sizeof(*e->svids));
	if (!e->svids)
		return -ENOMEM;
	for (; e->n_svids < n; e->n_svids++) {
		struct bound_svid *bound = &e->svids[e->n_svids];

		config_svid(&e->config, e->n_svids, &bound->config);
		bound->dir.path = bound->config.dir;
	}
	return sd_event_add_time_relative(e->event, &e->svid_timer, CLOCK_MONOTONIC, 0, 0, on_look, e);
}

json_t *enforcer_svids_json(const struct enforcer *e)
{
	uint64_t now_ns = enforcer_boottime_ns();
	json_t *list = json_array();

	for (size_t i = 0; i < e->n_svids; i++) {
		const struct bound_svid *bound = &e->svids[i];
		bool live = bound->proved && bound->until_ns > now_ns;

		json_array_append_new(list,
				      json_pack("{s:s, s:s, s:s, s:s?, s:s?, s:s?}", "dir", bound->config.dir, "kind",
						bound->config.unit ? "unit" : "cgroup", "place", bound->config.place,
						"spiffe_id", live ? bound->grant.spiffe_id : NULL, "serial",
						live ? bound->grant.serial : NULL, "problem",
						bound->problem[0] ? bound->problem : NULL));
	}
	return list;
}

void enforcer_svids_free(struct enforcer *e)
{
	sd_event_source_disable_unref(e->svid_timer);
	free(e->svids);
}
