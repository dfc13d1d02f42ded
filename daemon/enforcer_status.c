// SPDX-License-Identifier: Apache-2.0
#include "enforcer_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "control_api.h"
#include "identity/rules.h"

#define STATUS_ENDING_MAX 16

static json_t *json_time(int64_t seconds)
{
	time_t t = (time_t)seconds;
	char text[32];
	struct tm tm;

	if (!seconds)
		return json_null();
	gmtime_r(&t, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return json_string(text);
}

static int json_done(json_t *value, char **textp)
{
	*textp = value ? json_dumps(value, JSON_COMPACT) : NULL;
	json_decref(value);
	return *textp ? CONTROL_DONE : -ENOMEM;
}

static json_t *json_roles(const struct enforcer *e)
{
	json_t *roles = json_array();

	json_array_append_new(roles,
			      json_pack("{s:s, s:i, s:i}", "role", "enforcer", "pid", (int)getpid(), "restarts", 0));
	json_array_append_new(roles, json_pack("{s:s, s:i, s:i}", "role", "identity", "pid", (int)role_pid(e->identity),
					       "restarts", (int)role_restarts(e->identity)));
	json_array_append_new(roles, json_pack("{s:s, s:i, s:i}", "role", "auditor", "pid", (int)role_pid(e->auditor),
					       "restarts", (int)role_restarts(e->auditor)));
	if (e->metrics)
		json_array_append_new(roles,
				      json_pack("{s:s, s:i, s:i}", "role", "metrics", "pid", (int)role_pid(e->metrics),
						"restarts", (int)role_restarts(e->metrics)));
	if (e->fetcher)
		json_array_append_new(roles,
				      json_pack("{s:s, s:i, s:i}", "role", "fetcher", "pid", (int)role_pid(e->fetcher),
						"restarts", (int)role_restarts(e->fetcher)));
	return roles;
}

/* Those that have little of their life left, and nobody has renewed. */
static json_t *json_ending(const struct enforcer *e)
{
	uint64_t now_ns = enforcer_boottime_ns();
	json_t *list = json_array();

	for (size_t i = 0; i < e->n_tags && json_array_size(list) < STATUS_ENDING_MAX; i++) {
		const struct tag *tag = &e->tags[i];

		if (enforcer_tag_is_ending(tag, now_ns))
			json_array_append_new(list,
					      json_pack("{s:s, s:s, s:o, s:I}", "spiffe_id",
							enforcer_identity_name(e, tag->identity), "cgroup", tag->path,
							"deadline", json_time(tag->not_after), "seconds_left",
							(json_int_t)((tag->deadline_ns - now_ns) / 1000000000ULL)));
	}
	return list;
}

static json_t *json_tags(const struct enforcer *e)
{
	const struct tag *nearest = NULL;
	int live = 0;

	for (size_t i = 0; i < e->n_tags; i++) {
		const struct tag *tag = &e->tags[i];

		if (!tag->deadline_ns)
			continue;
		live++;
		if (!tag->local && (!nearest || tag->deadline_ns < nearest->deadline_ns))
			nearest = tag;
	}
	return json_pack("{s:i, s:i, s:o, s:o, s:s?}", "tags", live, "max", (int)BH_MAX_TAGS, "ending", json_ending(e),
			 "nearest_deadline", json_time(nearest ? nearest->not_after : 0), "nearest_identity",
			 nearest ? enforcer_identity_name(e, nearest->identity) : NULL);
}

/* More would make the answer long; `policyctl identities` has all that carry one. */
#define DEVICES_SHOWN 64

static json_t *json_device(struct enforcer *e, const struct device *device)
{
	const struct tag *tag = enforcer_tag_find(e, BH_DEVICE_BIT | device->ifindex);
	const struct tag *source = tag && tag->derived ? enforcer_tag_find(e, tag->source) : NULL;
	bool lives = tag && tag->deadline_ns > enforcer_boottime_ns();

	return json_pack("{s:s, s:i, s:b, s:s?, s:s?}", "name", device->name, "ifindex", (int)device->ifindex,
			 "covered", device->covered, "identity",
			 lives ? enforcer_identity_name(e, tag->identity) : NULL, "by_cgroup",
			 lives && source ? source->path : NULL);
}

/* Devices without identity carry nothing. Those that are not covered are all named: they carry anything. */
static json_t *json_devices(struct enforcer *e)
{
	static const char *const kinds[] = {[DEVICE_TCX] = "tcx", [DEVICE_CLSACT] = "clsact"};
	json_t *uncovered = json_array(), *items = json_array();
	int n_covered = 0, n_bound = 0;

	for (size_t i = 0; i < devices_count(e->devices); i++) {
		const struct device *device = devices_at(e->devices, i);

		if (i < DEVICES_SHOWN)
			json_array_append_new(items, json_device(e, device));
		n_covered += device->covered;
		n_bound += device->kernel.n_addresses > 0;
		if (!device->covered)
			json_array_append_new(
				uncovered, json_pack("{s:s, s:s}", "name", device->name, "error",
						     device->error ? devices_error(device->error) : "not covered yet"));
	}
	return json_pack("{s:s, s:s?, s:i, s:i, s:o, s:o}", "patterns", e->config.devices, "hook",
			 kinds[datapath_device_kind(e->datapath)], "covered", n_covered, "bound", n_bound, "uncovered",
			 uncovered, "items", items);
}

static json_t *json_bundles(const struct enforcer *e)
{
	json_t *bundles = json_array();

	for (size_t i = 0; i < e->n_bundles; i++) {
		const struct bundle *b = &e->bundles[i];

		json_array_append_new(bundles, json_pack("{s:s, s:i, s:i, s:s?}", "trust_domain", b->trust_domain,
							 "authorities", (int)b->n_authorities, "dropped",
							 (int)b->dropped, "error", b->why[0] ? b->why : NULL));
	}
	for (size_t i = 0; i < e->n_strays; i++)
		json_array_append_new(bundles, json_pack("{s:n, s:s, s:i, s:i, s:s}", "trust_domain", "origin",
							 e->strays[i].file, "authorities", 0, "dropped", 0, "error",
							 e->strays[i].why));
	return bundles;
}

static json_t *json_counters(struct enforcer *e)
{
	const struct bh_counters *c = datapath_counters(e->datapath);

	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "made", (json_int_t)c->events_made, "written",
			 (json_int_t)c->events_written, "lost", (json_int_t)c->events_lost, "notices_made",
			 (json_int_t)c->notices_made, "notices_written", (json_int_t)c->notices_written, "notices_lost",
			 (json_int_t)c->notices_lost, "denials_folded", (json_int_t)c->denials_folded, "flows_allowed",
			 (json_int_t)c->flows_allowed, "packets_denied", (json_int_t)c->packets_denied);
}

static json_t *json_audit(const struct enforcer *e)
{
	char problem[400] = "";
	bool is = enforcer_audit_problem(e, problem, sizeof(problem));

	return json_pack("{s:b, s:s?, s:o}", "ok", !is, "problem", is ? problem : NULL, "since",
			 json_time(e->audit.since_s));
}

static json_t *json_key(const struct enforcer *e)
{
	uint64_t since_ns = datapath_key_since(e->datapath), age_ns = enforcer_boottime_ns() - since_ns;

	return json_pack("{s:I, s:o, s:i}", "epoch", (json_int_t)datapath_key_epoch(e->datapath), "since",
			 json_time(since_ns ? (int64_t)((enforcer_realtime_ns() - age_ns) / 1000000000ULL) : 0),
			 "hours", (int)config_key_hours(&e->config));
}

static json_t *json_programs(const struct enforcer *e, bool *allp)
{
	json_t *programs = json_array();
	const char *name;
	bool attached;

	*allp = true;
	for (size_t i = 0; (name = datapath_program(e->datapath, i, &attached)); i++) {
		json_array_append_new(programs, json_pack("{s:s, s:b}", "name", name, "attached", (int)attached));
		*allp = *allp && attached;
	}
	return programs;
}

static json_t *json_maps(const struct enforcer *e)
{
	json_t *maps = json_array();
	struct datapath_map map;

	for (size_t i = 0; datapath_map(e->datapath, i, &map); i++)
		json_array_append_new(maps, json_pack("{s:s, s:i, s:I, s:I, s:b}", "name", map.name, "layout",
						      (int)map.layout, "entries",
						      (json_int_t)(map.entries < 0 ? 0 : map.entries), "max",
						      (json_int_t)map.max_entries, "evicts", (int)map.evicts));
	return maps;
}

static json_t *json_policy(const struct enforcer *e)
{
	uint64_t now = enforcer_boottime_ns(), left;
	json_t *policy, *waiting = json_null();
	size_t table_bytes;

	policy_image_tables(e->image, &table_bytes);
	if (e->waiting.revision) {
		left = e->waiting.deadline_ns > now ? e->waiting.deadline_ns - now : 0;
		waiting = json_pack("{s:I, s:I, s:I, s:o}", "revision", (json_int_t)e->waiting.revision, "previous",
				    (json_int_t)e->waiting.previous, "seconds_left",
				    (json_int_t)((left + 999999999ULL) / 1000000000ULL), "deadline",
				    json_time((int64_t)((enforcer_realtime_ns() + left) / 1000000000ULL)));
	}
	policy = json_pack("{s:I, s:s, s:I, s:o, s:I, s:I, s:o}", "revision", (json_int_t)e->revision, "digest",
			   policy_image_digest(e->image), "rules", (json_int_t)policy_image_rule_count(e->image),
			   "applied", json_time((int64_t)(e->applied_usec / 1000000)), "table_bytes",
			   (json_int_t)table_bytes, "table_bytes_max", (json_int_t)BH_TABLES_BYTES, "waiting", waiting);
	return policy;
}

/* What no program of ours sees on this kernel, so that nobody takes `ok` for more than it says. */
static json_t *json_not_enforced(void)
{
	return json_pack(
		"[s, s, s, s, s]",
		"AF_PACKET and AF_XDP sockets of workloads with CAP_NET_RAW: take it from them, or cover "
		"their devices",
		"sockets that a workload was given by a process outside the managed subtree: they are the "
		"giver's",
		"AF_UNIX, AF_VSOCK and RDMA: they send no packets of this host's IP",
		"forwarded and bridged packets without a socket here: cover their devices",
		"ICMP errors to UDP sockets that are not connected and ask for them (IP_RECVERR): connect them");
}

int enforcer_status(void *ctx, char **textp)
{
	struct enforcer *e = ctx;
	const struct bh_counters *c = datapath_counters(e->datapath);
	bool enforcing;
	json_t *programs = json_programs(e, &enforcing), *status;
	char attest[1200];

	snprintf(attest, sizeof(attest), "%s/%s", e->config.run_dir, BH_ATTEST_SOCKET);
	status = json_pack("{s:s, s:s, s:i, s:I, s:b, s:b, s:s, s:s, s:s, s:s, s:s, s:s}", "version", BULKHEAD_VERSION,
			   "instance", e->config.instance, "pid", (int)getpid(), "uptime_s",
			   (json_int_t)((enforcer_boottime_ns() - e->started_ns) / 1000000000ULL), "adopted",
			   (int)e->adopted, "enforcing", (int)enforcing, "subtree", e->config.subtree, "cgroup_mount",
			   e->cgroup_mount, "pins", e->pin_dir, "attest_socket", attest, "audit_log",
			   e->config.audit_log, "metrics", e->config.metrics);
	if (!status) {
		json_decref(programs);
		return -ENOMEM;
	}
	json_object_set_new(status, "policy", json_policy(e));
	json_object_set_new(status, "roles", json_roles(e));
	json_object_set_new(status, "identities", json_tags(e));
	json_object_set_new(status, "svids", enforcer_svids_json(e));
	json_object_set_new(status, "devices", json_devices(e));
	json_object_set_new(status, "bundles", json_bundles(e));
	json_object_set_new(status, "audit", json_audit(e));
	json_object_set_new(status, "events", json_counters(e));
	json_object_set_new(status, "handshakes",
			    json_pack("{s:I, s:I, s:I, s:I}", "verified", (json_int_t)c->handshakes_verified, "forged",
				      (json_int_t)c->handshakes_forged, "replayed", (json_int_t)c->handshakes_replayed,
				      "stripped", (json_int_t)c->handshakes_stripped));
	json_object_set_new(status, "key", json_key(e));
	json_object_set_new(status, "programs", programs);
	json_object_set_new(status, "not_enforced", json_not_enforced());
	json_object_set_new(status, "maps", json_maps(e));
	json_object_set_new(status, "map_full", json_integer((json_int_t)c->map_full));
	return json_done(status, textp);
}

static void json_add_device(const struct enforcer *e, json_t *item, const struct tag *tag)
{
	const struct device *device = devices_by_index(e->devices, (uint32_t)tag->cgroup_id);
	json_t *addresses = json_array();
	char text[INET6_ADDRSTRLEN];

	for (uint32_t i = 0; device && i < device->kernel.n_addresses; i++) {
		const struct bh_addr *a = &device->kernel.addresses[i];
		bool v4 = a->w[0] == 0 && a->w[1] == 0 && ntohl(a->w[2]) == 0xffff;

		json_array_append_new(addresses, json_string(inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? &a->w[3] : a->w,
								       text, sizeof(text))));
	}
	json_object_set_new(item, "cgroup_id", json_integer(0));
	json_object_set_new(item, "device", json_string(tag->path + strlen(BH_DEVICE_PLACE)));
	json_object_set_new(item, "ifindex", json_integer((uint32_t)tag->cgroup_id));
	json_object_set_new(item, "addresses", addresses);
	if (tag->derived) {
		const struct tag *source = enforcer_tag_find((struct enforcer *)e, tag->source);

		json_object_set_new(item, "by_cgroup", source ? json_string(source->path) : json_null());
	}
}

/* Which SVID it rests on, and in how many other places that is in force. */
static void json_add_certificate(json_t *item, const struct tag *tag, uint32_t shared)
{
	static const uint8_t unknown[sizeof(tag->vouchers.leaf)];
	char hex[2 * sizeof(unknown) + 1];
	bool known = memcmp(tag->vouchers.leaf, unknown, sizeof(unknown)) != 0;

	for (size_t at = 0; at < sizeof(unknown); at++)
		snprintf(hex + 2 * at, 3, "%02x", tag->vouchers.leaf[at]);
	json_object_set_new(item, "svid_sha256", known ? json_string(hex) : json_null());
	json_object_set_new(item, "shared_with", known ? json_integer(shared) : json_null());
	json_object_set_new(item, "uid", tag->uid == POLICY_ANY_UID ? json_null() : json_integer(tag->uid));
}

int enforcer_identities(void *ctx, char **textp)
{
	struct enforcer *e = ctx;
	uint64_t now = enforcer_boottime_ns();
	json_t *list = json_array();
	uint32_t *shared;

	enforcer_sweep(e, false, "a workload's cgroup is gone"); /* no answer with what is gone */
	shared = enforcer_shared_counts(e);

	for (size_t i = 0; i < e->n_tags; i++) {
		const struct tag *tag = &e->tags[i];
		json_t *item;

		if (!tag->deadline_ns)
			continue;
		item = json_pack("{s:s, s:i, s:I, s:s, s:s, s:i}", tag->local ? "local" : "spiffe_id",
				 enforcer_identity_name(e, tag->identity), "identity", (int)tag->identity, "cgroup_id",
				 (json_int_t)tag->cgroup_id, "cgroup", tag->path, "serial", tag->serial, "pid",
				 (int)tag->pid);
		if (tag->cgroup_id & BH_DEVICE_BIT)
			json_add_device(e, item, tag);
		if (!tag->local && !tag->derived)
			json_add_certificate(item, tag, shared ? shared[i] : 0);
		json_object_set_new(item, "deadline", json_time(tag->local ? 0 : tag->not_after));
		json_object_set_new(item, "seconds_left",
				    tag->local ? json_null()
				    : tag->deadline_ns > now
					    ? json_integer((json_int_t)((tag->deadline_ns - now) / 1000000000ULL))
					    : json_integer(0));
		json_array_append_new(list, item);
	}
	free(shared);
	return json_done(list, textp);
}

/* ---- bundles ---- */

static json_t *json_authorities(const struct bundle *bundle)
{
	json_t *list = json_array();

	for (size_t i = 0; i < bundle->n_authorities; i++) {
		const struct bundle_authority *authority = &bundle->authorities[i];
		char id[2 * sizeof(authority->id) + 1];

		for (size_t at = 0; at < sizeof(authority->id); at++)
			snprintf(id + 2 * at, 3, "%02x", authority->id[at]);
		json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:s}", "subject", authority->subject, "key_id",
						      authority->key_id, "not_after", json_time(authority->not_after),
						      "sha256", id));
	}
	return list;
}

static json_t *json_entries(const struct bundle *bundle)
{
	json_t *list = json_array();

	for (size_t i = 0; i < bundle->n_entries; i++) {
		const struct bundle_entry *entry = &bundle->entries[i];

		json_array_append_new(list, json_pack("{s:i, s:i, s:s, s:b, s:s}", "index", (int)entry->index, "rule",
						      entry->rule, "rule_name", svid_rule_name(entry->rule), "dropped",
						      (int)entry->dropped, "text", entry->text));
	}
	return list;
}

static json_t *json_bundle(const struct bundle *bundle, int64_t now)
{
	static const char *const formats[] = {[BUNDLE_PEM] = "pem", [BUNDLE_JWKS] = "spiffe", [BUNDLE_DER] = "der"};
	char sequence[24];

	snprintf(sequence, sizeof(sequence), "%llu", (unsigned long long)bundle->sequence);
	return json_pack(
		"{s:s, s:s, s:s, s:s?, s:s?, s:o, s:o, s:o, s:o, s:i, s:i, s:o, s:s?}", "trust_domain",
		bundle->trust_domain, "source", enforcer_bundle_source_name(bundle->source.kind), "origin",
		bundle->source.origin, "format", bundle->loaded ? formats[bundle->format] : NULL, "sequence",
		bundle->has_sequence ? sequence : NULL, "authorities", json_authorities(bundle), "loaded",
		json_time(bundle->loaded ? bundle->loaded_s : 0), "age_s",
		bundle->loaded ? json_integer(now > bundle->loaded_s ? now - bundle->loaded_s : 0) : json_null(),
		"tried", json_time(bundle->tried_s), "refresh_s", (int)bundle->refresh_s, "dropped",
		(int)bundle->dropped, "entries", json_entries(bundle), "error", bundle->why[0] ? bundle->why : NULL);
}

/* Of no trust domain; otherwise as a bundle that could not be used. */
static json_t *json_stray(const struct bundle_stray *stray)
{
	return json_pack("{s:n, s:s, s:s, s:n, s:n, s:[], s:n, s:n, s:n, s:n, s:i, s:[], s:s, s:n}", "trust_domain",
			 "source", enforcer_bundle_source_name(BUNDLE_FROM_FILE), "origin", stray->file, "format",
			 "sequence", "authorities", "loaded", "age_s", "tried", "refresh_s", "dropped", 0, "entries",
			 "error", stray->why, "next_poll");
}

int enforcer_bundles(void *ctx, char **textp)
{
	const struct enforcer *e = ctx;
	int64_t now = (int64_t)(enforcer_realtime_ns() / 1000000000ULL);
	json_t *list = json_array();

	for (size_t i = 0; i < e->n_bundles; i++) {
		uint64_t due_ns = enforcer_federation_due_ns(e, e->bundles[i].trust_domain),
			 now_ns = enforcer_boottime_ns();
		json_t *item = json_bundle(&e->bundles[i], now);

		json_object_set_new(
			item, "next_poll",
			json_time(due_ns > now_ns ? now + (int64_t)((due_ns - now_ns) / 1000000000ULL) : 0));
		json_array_append_new(list, item);
	}
	for (size_t i = 0; i < e->n_strays; i++)
		json_array_append_new(list, json_stray(&e->strays[i]));
	return json_done(list, textp);
}

/* ---- history ---- */

static json_t *json_known(uint32_t value, uint32_t unknown)
{
	return value == unknown ? json_null() : json_integer(value);
}

/* `reverted`: of the later revision that came because one was not confirmed, the one that it replaced. */
static json_t *json_revision(const struct enforcer *e, const struct revision *revision, uint32_t reverted)
{
	static const char *const causes[] = {
		[REVISION_APPLIED] = "applied",
		[REVISION_FIRST_START] = "first-start",
		[REVISION_ROLLED_BACK] = "rolled-back",
		[REVISION_REVERTED] = "not-confirmed",
	};
	const char *state = revision->number == e->waiting.revision ? "waiting"
			    : revision->number == e->revision	    ? "in-force"
			    : revision->number == reverted	    ? "not-confirmed"
								    : "past";

	return json_pack("{s:I, s:s, s:o, s:I, s:o, s:s, s:s, s:s, s:s, s:o, s:o, s:I, s:s}", "revision",
			 (json_int_t)revision->number, "digest", revision->digest, "applied",
			 json_time((int64_t)(revision->applied_usec / 1000000)), "uid", (json_int_t)revision->uid,
			 "login_uid", json_known(revision->login_uid, REVISION_NO_LOGIN), "via", revision->via, "from",
			 revision->from, "comment", revision->comment, "cause",
			 revision->cause < sizeof(causes) / sizeof(causes[0]) ? causes[revision->cause] : "?",
			 "replaced", json_known(revision->replaced, REVISION_UNKNOWN), "target",
			 json_known(revision->target, 0), "confirm_s", (json_int_t)revision->confirm_s, "state", state);
}

int enforcer_history(void *ctx, char **textp)
{
	struct enforcer *e = ctx;
	json_t *list = json_array(), *item;
	uint32_t *numbers = NULL, reverted = 0;
	struct revision revision;
	size_t n = 0;
	int r = revisions_list(e->revisions_fd, &numbers, &n);

	while (r == 0 && n--) {
		/* One that is damaged, or just pruned, is left out. */
		if (revisions_load_head(e->revisions_fd, numbers[n], &revision) < 0)
			continue;
		item = json_revision(e, &revision, reverted);
		/* A comment that is not UTF-8 comes from an older version's file: the server takes care of new ones. */
		if (!item) {
			revision.comment[0] = '\0';
			item = json_revision(e, &revision, reverted);
		}
		json_array_append_new(list, item);
		if (revision.cause == REVISION_REVERTED)
			reverted = revision.replaced;
	}
	free(numbers);
	if (r < 0) {
		json_decref(list);
		return r;
	}
	return json_done(list, textp);
}
