// SPDX-License-Identifier: Apache-2.0
/*
 * Attestations that the identity role has verified: whether the cgroup or device may carry the identity, and the tag that it
 * gets. One cgroup, one identity; what is against it is said to who asked, and to the audit log.
 */
#include "enforcer_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "identity/attest.h"
#include "identity/process.h"
#include "privileges.h"

const char *enforcer_full_text(int r)
{
	return r == -E2BIG || r == -ENOSPC ? "it is full" : strerror(-r);
}

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
	else if (!policy_image_binding(e->image, a->request->spiffe_id, a->node->path, a->uid, why, sizeof(why)))
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
	int64_t revoked = enforcer_revoked_at(e, a->request->spiffe_id);

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
	if (tag->identity != number)
		tag->shared = 0;
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
	tag->entry = a->entry;
	memcpy(tag->vouchers.leaf, request->leaf_sha256, sizeof(tag->vouchers.leaf));
	snprintf(tag->path, sizeof(tag->path), "%s", a->place);
	snprintf(tag->serial, sizeof(tag->serial), "%s", request->serial);
	/* Its addresses first: with an identity it carries what they allow. */
	r = a->key & BH_DEVICE_BIT ? enforcer_device_bind(e, a) : 0;
	if (r == 0)
		r = enforcer_tag_keep(e, tag);
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
	if (!a.code)
		enforcer_shared_look(e, &a);
	role_send(e->identity, &reply, -1);
}
