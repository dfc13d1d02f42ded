// SPDX-License-Identifier: Apache-2.0
/*
 * Tags. The rules: one cgroup, one identity; renewal only extends; a tag that ended (expired, revoked) stays as a mark
 * with deadline 0 until another takes its place or its cgroup is gone, because a nested workload must not fall back to
 * the identity of the group that contains it.
 */
#include "enforcer_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "identity/attest.h"
#include "identity/process.h"
#include "log.h"
#include "privileges.h"
#include "until.h"

#define REVOCATIONS_FILE "revoked"
#define REVOCATIONS_MAX 65536

/* ---- identity numbers ---- */

const char *enforcer_identity_name(const struct enforcer *e, uint32_t identity)
{
	if (identity >= BH_MAX_IDENTITIES || !e->names[identity])
		return "";
	return e->names[identity]->name;
}

uint16_t enforcer_who_of(const struct enforcer *e, const struct policy_image *image, uint32_t identity)
{
	const struct bh_name *name;
	struct policy_local local;

	if (identity < BH_ID_FIRST)
		return (uint16_t)(identity <= BH_ID_WORLD ? identity : 0);
	name = identity < BH_MAX_IDENTITIES ? e->names[identity] : NULL;
	if (!name)
		return 0;
	if (!name->local)
		return (uint16_t)policy_image_classify(image, name->name);
	for (size_t i = 0; policy_image_local(image, i, &local); i++)
		if (strcmp(local.name, name->name) == 0)
			return (uint16_t)local.who;
	return 0;
}

static void name_tell(struct enforcer *e, uint32_t identity)
{
	struct ipc_audit_name packet = {
		.h = {.type = IPC_AUDIT_NAME, .len = sizeof(packet)},
		.identity = identity,
		.local = e->names[identity]->local,
	};

	snprintf(packet.name, sizeof(packet.name), "%.2048s", e->names[identity]->name);
	role_send(e->auditor, &packet, -1);
}

void enforcer_names_tell(struct enforcer *e)
{
	for (uint32_t i = BH_ID_FIRST; i < e->next_identity; i++)
		if (e->names[i])
			name_tell(e, i);
}

/* The number of an identity, a new one if it was never seen. Numbers are not used again: a socket may remember one. */
int enforcer_identity_number(struct enforcer *e, const char *text, bool local, uint32_t *number)
{
	struct bh_name *name;
	int r;

	for (uint32_t i = BH_ID_FIRST; i < e->next_identity; i++) {
		if (e->names[i] && e->names[i]->local == local && strcmp(e->names[i]->name, text) == 0) {
			*number = i;
			return 0;
		}
	}
	if (e->next_identity >= BH_MAX_IDENTITIES)
		return -ENOSPC;
	name = calloc(1, sizeof(*name));
	if (!name)
		return -ENOMEM;
	name->local = local;
	snprintf(name->name, sizeof(name->name), "%s", text);
	r = datapath_name_set(e->datapath, e->next_identity, name);
	if (r < 0) {
		free(name);
		return r;
	}
	e->names[e->next_identity] = name;
	*number = e->next_identity++;
	datapath_who_set(e->datapath, *number, enforcer_who_of(e, e->image, *number));
	name_tell(e, *number);
	return 0;
}

const char *enforcer_full_text(int r)
{
	return r == -E2BIG || r == -ENOSPC ? "it is full" : strerror(-r);
}

/* ---- the mirror ---- */

struct tag *enforcer_tag_find(struct enforcer *e, uint64_t cgroup_id)
{
	size_t at;

	return id_index_get(&e->tags_index, cgroup_id, &at) ? &e->tags[at] : NULL;
}

struct tag *enforcer_tag_add(struct enforcer *e, uint64_t cgroup_id)
{
	if (e->n_tags == e->tags_room) {
		size_t room = e->tags_room ? e->tags_room * 2 : 64;
		struct tag *tags = reallocarray(e->tags, room, sizeof(*tags));

		if (!tags)
			return NULL;
		e->tags = tags;
		e->tags_room = room;
	}
	if (id_index_put(&e->tags_index, cgroup_id, e->n_tags) < 0)
		return NULL;
	e->tags[e->n_tags] = (struct tag){.cgroup_id = cgroup_id};
	return &e->tags[e->n_tags++];
}

/* The last one takes its place. */
void enforcer_tag_drop(struct enforcer *e, struct tag *tag)
{
	struct tag *last = &e->tags[--e->n_tags];

	id_index_remove(&e->tags_index, tag->cgroup_id);
	if (tag == last)
		return;
	*tag = *last;
	/* It is there already: no memory is needed. */
	id_index_put(&e->tags_index, tag->cgroup_id, (size_t)(tag - e->tags));
}

int enforcer_tag_write(struct enforcer *e, const struct tag *tag)
{
	return datapath_tag_set(e->datapath, tag->cgroup_id,
				&(struct bh_tag){.deadline_ns = tag->deadline_ns,
						 .identity = tag->identity,
						 .flags = tag->derived ? BH_TAG_DERIVED : 0});
}

struct ipc_notice enforcer_tag_notice(struct enforcer *e, enum notice_kind kind, const struct tag *tag)
{
	struct ipc_notice notice = enforcer_notice(kind);

	notice.cgroup_id = tag->cgroup_id;
	notice.identity = tag->identity;
	notice.not_after = tag->not_after;
	notice.pid = tag->pid;
	notice.revision = e->revision;
	snprintf(notice.spiffe_id, sizeof(notice.spiffe_id), "%.2048s", enforcer_identity_name(e, tag->identity));
	snprintf(notice.cgroup_path, sizeof(notice.cgroup_path), "%s", tag->path);
	snprintf(notice.serial, sizeof(notice.serial), "%s", tag->serial);
	return notice;
}

/* Who vouches for it goes last: a tag of which that is not known would outlive its authority. */
static void tag_delete(struct enforcer *e, struct tag *tag)
{
	datapath_tag_delete(e->datapath, tag->cgroup_id);
	datapath_vouchers_delete(e->datapath, tag->cgroup_id);
	enforcer_tag_drop(e, tag);
}

/* The identity role need not keep its chain. */
static void tag_ended_tell(struct enforcer *e, const struct tag *tag)
{
	struct ipc_tag_ended packet = {
		.h = {.type = IPC_TAG_ENDED, .len = sizeof(packet)},
		.key = tag->cgroup_id,
	};

	if (!tag->local && e->identity)
		role_send(e->identity, &packet, -1);
}

/* As it was before a change that did not hold; `before` all 0: it was not there. */
void enforcer_tag_restore(struct enforcer *e, struct tag *tag, const struct tag *before)
{
	if (before->cgroup_id) {
		*tag = *before;
		datapath_vouchers_set(e->datapath, tag->cgroup_id, &tag->vouchers);
		enforcer_tag_write(e, tag);
	} else {
		tag_delete(e, tag);
	}
}

void enforcer_tag_remove(struct enforcer *e, struct tag *tag, const char *why)
{
	struct ipc_notice notice = enforcer_tag_notice(e, NOTICE_IDENTITY_REMOVED, tag);

	snprintf(notice.text, sizeof(notice.text), "%s", why);
	tag_ended_tell(e, tag);
	tag_delete(e, tag);
	enforcer_notice_post(e, &notice);
}

/* Ends a tag but keeps it as a mark. */
void enforcer_tag_end(struct enforcer *e, struct tag *tag, enum notice_kind kind, const char *text)
{
	struct ipc_notice notice = enforcer_tag_notice(e, kind, tag);

	tag->deadline_ns = 0;
	enforcer_tag_write(e, tag);
	tag_ended_tell(e, tag);
	snprintf(notice.text, sizeof(notice.text), "%s", text);
	enforcer_notice_post(e, &notice);
}

/* ---- expiry ---- */

static int on_expiry(sd_event_source *source, uint64_t usec, void *data)
{
	struct enforcer *e = data;

	(void)source;
	(void)usec;
	enforcer_sweep(e, true, "an identity or a rule expired");
	return 0;
}

/* The kernel ends an expired tag or rule by itself; this is for the notice, and to end the connections for both sides. */
void enforcer_expiry_arm(struct enforcer *e)
{
	uint64_t nearest = until_next(datapath_tables(e->datapath), enforcer_boottime_ns());

	for (size_t i = 0; i < e->n_tags; i++)
		if (e->tags[i].deadline_ns && e->tags[i].deadline_ns < nearest)
			nearest = e->tags[i].deadline_ns;
	e->expiry_timer = sd_event_source_disable_unref(e->expiry_timer);
	if (nearest != UINT64_MAX)
		sd_event_add_time(e->event, &e->expiry_timer, CLOCK_BOOTTIME, nearest / 1000 + 1, 1000, on_expiry, e);
}

bool enforcer_tags_expire(struct enforcer *e)
{
	uint64_t now = enforcer_boottime_ns();
	bool any = false;

	for (size_t i = 0; i < e->n_tags; i++) {
		struct tag *tag = &e->tags[i];

		if (!tag->deadline_ns || tag->deadline_ns > now)
			continue;
		enforcer_tag_end(e, tag, NOTICE_IDENTITY_EXPIRED, "a certificate on the chain is past its notAfter");
		any = true;
	}
	return any;
}

/* ---- revocation ---- */

static void revocations_load(struct enforcer *e)
{
	int fd = openat(e->state_fd, REVOCATIONS_FILE, O_RDONLY | O_CLOEXEC);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	char line[2200];

	while (f && fgets(line, sizeof(line), f)) {
		struct revocation *more;
		long long time;
		char id[2049];

		if (sscanf(line, "%lld %2048s", &time, id) != 2)
			continue;
		more = reallocarray(e->revocations, e->n_revocations + 1, sizeof(*more));
		if (!more)
			break;
		e->revocations = more;
		e->revocations[e->n_revocations++] = (struct revocation){.spiffe_id = strdup(id), .time = time};
	}
	if (f)
		fclose(f);
}

/* Kept on disk: a restart must not let a revoked SVID in again. */
static int revocation_add(struct enforcer *e, const char *spiffe_id, int64_t now)
{
	struct revocation *more;
	char line[2200];
	int fd, len, r = 0;
	off_t size;

	if (e->n_revocations >= REVOCATIONS_MAX)
		return -ENOSPC;
	more = reallocarray(e->revocations, e->n_revocations + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	e->revocations = more;
	fd = openat(e->state_fd, REVOCATIONS_FILE, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	len = snprintf(line, sizeof(line), "%lld %s\n", (long long)now, spiffe_id);
	size = lseek(fd, 0, SEEK_END);
	if (size < 0 || write(fd, line, (size_t)len) != len || fsync(fd) < 0) {
		r = -EIO;
		/* Half a line would swallow the next one. */
		if (size >= 0 && ftruncate(fd, size) < 0)
			log_error("cannot take half a revocation out of %s again: %s", REVOCATIONS_FILE,
				  strerror(errno));
	}
	close(fd);
	if (r)
		return r;
	e->revocations[e->n_revocations] = (struct revocation){.spiffe_id = strdup(spiffe_id), .time = now};
	if (!e->revocations[e->n_revocations].spiffe_id)
		return -ENOMEM;
	e->n_revocations++;
	return 0;
}

/* When an identity was last revoked, or 0. */
static int64_t revoked_at(const struct enforcer *e, const char *spiffe_id)
{
	int64_t time = 0;

	for (size_t i = 0; i < e->n_revocations; i++)
		if (e->revocations[i].time > time && strcmp(e->revocations[i].spiffe_id, spiffe_id) == 0)
			time = e->revocations[i].time;
	return time;
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

/* ---- attestation ---- */

void enforcer_attempt_refuse(struct tag_attempt *a, uint32_t code, const char *format, ...)
{
	va_list args;

	a->code = code;
	va_start(args, format);
	vsnprintf(a->text, sizeof(a->text), format, args);
	va_end(args);
}

/* The process is alive and in the cgroup that it signed for. The kernel is asked here once more: what the identity role
 * says of a process is not believed. */
static bool peer_holds(struct enforcer *e, struct tag_attempt *a)
{
	struct process_facts facts;
	int r = enforcer_process_query(e, a->pidfd, &facts);

	if (r == -ESRCH)
		enforcer_attempt_refuse(a, ATTEST_E_PEER_GONE, "the process ended during the attestation");
	else if (r < 0)
		enforcer_attempt_refuse(a, ATTEST_E_NO_PIDFD,
					"the kernel cannot say which cgroup the process is in: %s", strerror(-r));
	else if (facts.cgroup_id != a->request->cgroup_id)
		enforcer_attempt_refuse(a, ATTEST_E_CGROUP_MOVED,
					"the process moved to another cgroup during the attestation");
	else {
		a->uid = facts.uid;
		return true;
	}
	return false;
}

static bool is_delegated(struct enforcer *e, const struct cgroup_node *node)
{
	char path[1100];
	struct stat st;

	if (node->uid != 0 || (node->mode & (S_IWGRP | S_IWOTH)))
		return true;
	snprintf(path, sizeof(path), ".%s/cgroup.procs", node->path);
	return fstatat(e->cgroup_fd, path, &st, 0) < 0 || st.st_uid != 0 || (st.st_mode & (S_IWGRP | S_IWOTH));
}

static bool cgroup_fits(struct enforcer *e, struct tag_attempt *a)
{
	char why[400];

	if (!a->node || a->node->depth == 0)
		enforcer_attempt_refuse(
			a, ATTEST_E_CGROUP_UNMANAGED,
			"the process is in a cgroup that is not below the managed subtree %s: start the workload in a "
			"cgroup of "
			"its own there (policyctl run does)",
			e->config.subtree);
	else if (a->node->depth > BH_MAX_DEPTH)
		enforcer_attempt_refuse(a, ATTEST_E_CGROUP_DEPTH,
					"cgroup %s is more than %u levels below the managed subtree", a->node->path,
					BH_MAX_DEPTH);
	else if (!config_is_true(e->config.allow_delegated) && is_delegated(e, a->node))
		enforcer_attempt_refuse(a, ATTEST_E_CGROUP_DELEGATED,
					"cgroup %s can be entered by others than root, who would gain its identity "
					"(allow_delegated: true permits that)",
					a->node->path);
	else if (!policy_image_binding_of(e->image, a->request->spiffe_id, a->node->path, a->uid, why, sizeof(why)))
		enforcer_attempt_refuse(a, ATTEST_E_BINDING, "cgroup %s may not carry this identity: %s", a->node->path,
					why);
	else {
		a->key = a->node->id;
		return true;
	}
	return false;
}

static bool identity_fits(struct enforcer *e, struct tag_attempt *a)
{
	const struct tag *tag = enforcer_tag_find(e, a->key);
	int64_t revoked = revoked_at(e, a->request->spiffe_id);

	if (a->request->deadline_ns <= enforcer_boottime_ns()) {
		svid_refusal_text(62, "the path expired during the attestation", a->text, sizeof(a->text));
		a->code = ATTEST_E_SVID + 62;
		return false;
	}
	/* The identity role may have verified it a moment before it was told that the bundle is gone. */
	if (!enforcer_vouch_holds(e, a->request)) {
		svid_refusal_text(75, "the trust bundle went away during the attestation", a->text, sizeof(a->text));
		a->code = ATTEST_E_SVID + 75;
		return false;
	}
	if (revoked && a->request->not_before <= revoked) {
		struct tm tm;
		time_t t = revoked;
		char at[32];

		gmtime_r(&t, &tm);
		strftime(at, sizeof(at), "%Y-%m-%dT%H:%M:%SZ", &tm);
		enforcer_attempt_refuse(a, ATTEST_E_REVOKED,
					"the identity was revoked at %s: an SVID issued after that is needed", at);
		return false;
	}
	/* Who binds a device by hand knows better than what was found behind it. */
	if (tag && tag->derived)
		return true;
	if (tag && tag->deadline_ns &&
	    (tag->local || strcmp(enforcer_identity_name(e, tag->identity), a->request->spiffe_id) != 0)) {
		enforcer_attempt_refuse(a, ATTEST_E_OTHER_IDENTITY, "%s%s carries the identity %s already",
					a->key & BH_DEVICE_BIT ? "" : "cgroup ", a->place,
					enforcer_identity_name(e, tag->identity));
		return false;
	}
	a->renewal = tag && tag->deadline_ns;
	return true;
}

static bool tag_give(struct enforcer *e, struct tag_attempt *a)
{
	const struct ipc_tag_request *request = a->request;
	struct tag *tag = enforcer_tag_find(e, a->key), before = {};
	uint32_t number;
	bool unknown;
	int r;

	r = enforcer_identity_number(e, request->spiffe_id, false, &number);
	if (r < 0) {
		enforcer_attempt_refuse(a, ATTEST_E_FULL, "the kernel's map of names (%u identities) takes no more: %s",
					BH_MAX_IDENTITIES, enforcer_full_text(r));
		return false;
	}
	if (tag)
		before = *tag;
	else
		tag = enforcer_tag_add(e, a->key);
	if (!tag) {
		enforcer_attempt_refuse(a, ATTEST_E_FULL, "out of memory");
		return false;
	}
	tag->identity = number;
	tag->local = false;
	tag->derived = false;
	tag->source = 0;
	/* Of one whose authority is not known it is not known what could end it: what is shown now counts. */
	unknown = !enforcer_vouch_known(&tag->vouchers);
	enforcer_vouch_merge(&tag->vouchers, request->vouchers, !a->renewal);
	enforcer_tag_proved(e, tag, request, a->renewal && !unknown, a->proved_ns);
	tag->pid = request->pid;
	tag->uid = a->uid;
	snprintf(tag->path, sizeof(tag->path), "%s", a->place);
	snprintf(tag->serial, sizeof(tag->serial), "%s", request->serial);
	/* Its addresses first: with an identity it carries what they allow. */
	r = a->key & BH_DEVICE_BIT ? enforcer_device_bind(e, a) : 0;
	if (r == 0)
		r = datapath_vouchers_set(e->datapath, tag->cgroup_id, &tag->vouchers);
	if (r == 0)
		r = enforcer_tag_write(e, tag);
	/* Once more: had the process moved before the tag was there, its proof was for another group. */
	if (r == 0 && (a->pidfd < 0 || peer_holds(e, a))) {
		a->until = tag->not_after;
		return true;
	}
	if (r < 0)
		enforcer_attempt_refuse(a, ATTEST_E_FULL, "the kernel's map of tags (%u entries) takes no more: %s",
					BH_MAX_TAGS, enforcer_full_text(r));
	enforcer_tag_restore(e, tag, &before);
	/* A packet may have been judged by it meanwhile. */
	a->taken_back = true;
	return false;
}

bool enforcer_attempt_make(struct enforcer *e, struct tag_attempt *a)
{
	if (a->pidfd >= 0 && !peer_holds(e, a))
		return false;
	return (a->request->device[0] ? enforcer_device_fits(e, a) : cgroup_fits(e, a)) && identity_fits(e, a) &&
	       tag_give(e, a);
}

void enforcer_attempt_tell(struct enforcer *e, const struct tag_attempt *a)
{
	const struct ipc_tag_request *request = a->request;
	struct ipc_notice notice = enforcer_notice(a->code	? NOTICE_IDENTITY_REFUSED
						   : a->renewal ? NOTICE_IDENTITY_RENEWED
								: NOTICE_IDENTITY_ATTESTED);

	notice.code = a->code;
	notice.count = request->count;
	notice.cgroup_id = a->key ? a->key : request->cgroup_id;
	notice.not_before = request->not_before;
	notice.not_after = request->not_after;
	notice.pid = request->pid;
	notice.uid = request->uid;
	notice.revision = e->revision;
	memcpy(notice.spiffe_id, request->spiffe_id, sizeof(notice.spiffe_id));
	if (a->place)
		snprintf(notice.cgroup_path, sizeof(notice.cgroup_path), "%s", a->place);
	memcpy(notice.serial, request->serial, sizeof(notice.serial));
	memcpy(notice.issuer, request->issuer, sizeof(notice.issuer));
	memcpy(notice.leaf_sha256, request->leaf_sha256, sizeof(notice.leaf_sha256));
	snprintf(notice.text, sizeof(notice.text), "%s", a->text);
	enforcer_notice_post(e, &notice);
}

void enforcer_tag_request(struct enforcer *e, const struct ipc_tag_request *request, int pidfd)
{
	__attribute__((cleanup(cgroup_tree_clear))) struct cgroup_tree tree = {};
	struct ipc_tag_reply reply = {.h = {.type = IPC_TAG_REPLY, .len = sizeof(reply)}};
	struct tag_attempt a = {.request = request, .pidfd = pidfd};

	/* A refusal of the identity role comes here for the audit log only. */
	privileges_raise();
	int r = cgroup_tree_read(&tree, e->cgroup_fd, request->h.type == IPC_TAG_REQUEST);

	privileges_lower();
	if (r == 0)
		a.node = cgroup_tree_find(&tree, request->cgroup_id);
	if (a.node)
		a.place = a.node->path;
	if (request->h.type == IPC_ATTEST_REFUSED) {
		enforcer_attempt_refuse(&a, request->code ? request->code : ATTEST_E_INTERNAL, "%s", request->text);
		enforcer_attempt_tell(e, &a);
		return;
	}

	if (r < 0)
		enforcer_attempt_refuse(&a, ATTEST_E_INTERNAL, "the managed subtree cannot be read: %s", strerror(-r));
	else if (enforcer_attempt_make(e, &a))
		snprintf(a.text, sizeof(a.text), "%s%s%.200s", a.renewal ? "renewed" : "attested",
			 request->text[0] ? "; " : "", request->text); /* a note, if any */
	reply.request = request->request;
	reply.cgroup_id = request->cgroup_id;
	reply.code = a.code;
	reply.renewal = a.renewal;
	reply.key = a.key;
	reply.not_after = a.until;
	snprintf(reply.text, sizeof(reply.text), "%s", a.text);
	if (!a.code) {
		bool derived = enforcer_devices_derive(e, &tree);

		if (!a.renewal || derived)
			datapath_changed(e->datapath);
		enforcer_addresses_refresh(e, &tree);
		enforcer_expiry_arm(e);
	} else if (a.taken_back) {
		datapath_changed(e->datapath);
		enforcer_sweep(e, true, "an attestation did not hold");
	}
	/* The notice first: who sees the answer can expect to find it. */
	enforcer_attempt_tell(e, &a);
	role_send(e->identity, &reply, -1);
}

/* ---- start ---- */

static int names_adopt(struct enforcer *e)
{
	const uint32_t *at = NULL;
	uint32_t key, next;

	while (datapath_name_next(e->datapath, at, &next) == 0) {
		if (next >= BH_ID_FIRST && next < BH_MAX_IDENTITIES && !e->names[next]) {
			e->names[next] = calloc(1, sizeof(struct bh_name));
			if (!e->names[next])
				return -ENOMEM;
			datapath_name_get(e->datapath, next, e->names[next]);
			e->names[next]->name[BH_NAME_BYTES - 1] = '\0';
			if (next >= e->next_identity)
				e->next_identity = next + 1;
		}
		key = next;
		at = &key;
	}
	return 0;
}

int enforcer_tags_start(struct enforcer *e)
{
	const uint64_t *at = NULL;
	uint64_t key, next;
	int r;

	e->next_identity = BH_ID_FIRST;
	e->names = calloc(BH_MAX_IDENTITIES, sizeof(*e->names));
	if (!e->names)
		return -ENOMEM;
	r = names_adopt(e);
	if (r < 0)
		return r;
	while (datapath_tag_next(e->datapath, at, &next) == 0) {
		struct bh_tag kernel;

		if (datapath_tag_get(e->datapath, next, &kernel) == 0) {
			struct tag *tag = enforcer_tag_add(e, next);

			if (!tag)
				return -ENOMEM;
			tag->identity = kernel.identity;
			tag->deadline_ns = kernel.deadline_ns;
			datapath_vouchers_get(e->datapath, next, &tag->vouchers);
			tag->derived = kernel.flags & BH_TAG_DERIVED;
			tag->local = kernel.identity < BH_MAX_IDENTITIES && e->names[kernel.identity] &&
				     e->names[kernel.identity]->local;
			if (!tag->local && tag->deadline_ns)
				tag->not_after = (int64_t)((enforcer_realtime_ns() + tag->deadline_ns -
							    enforcer_boottime_ns() + 500000000ULL) /
							   1000000000ULL); /* two clocks: rounded */
			tag->uid = POLICY_ANY_UID;
			tag->svid_not_after = tag->not_after;
			tag->proved_ns = tag->extended_ns = enforcer_boottime_ns();
		}
		key = next;
		at = &key;
	}
	revocations_load(e);
	return 0;
}

void enforcer_tags_free(struct enforcer *e)
{
	for (uint32_t i = 0; e->names && i < BH_MAX_IDENTITIES; i++)
		free(e->names[i]);
	free(e->names);
	free(e->tags);
	id_index_clear(&e->tags_index);
	for (size_t i = 0; i < e->n_revocations; i++)
		free(e->revocations[i].spiffe_id);
	free(e->revocations);
}
