// SPDX-License-Identifier: Apache-2.0
/*
 * Tags. The rules: one cgroup, one identity; renewal only extends; a tag that ended (expired, revoked) stays as a mark
 * with deadline 0 until another takes its place or its cgroup is gone, because a nested workload must not fall back to
 * the identity of the group that contains it.
 */
#include "enforcer_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "until.h"

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

int enforcer_tag_keep(struct enforcer *e, struct tag *tag)
{
	tag->vouchers.not_before = tag->not_before;
	tag->vouchers.not_after = tag->svid_not_after;
	tag->vouchers.uid = tag->uid;
	tag->vouchers.flags = tag->uid == POLICY_ANY_UID ? 0 : BH_PROVED_BY_UID;
	return datapath_vouchers_set(e->datapath, tag->cgroup_id, &tag->vouchers);
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

/* ---- start ---- */

int enforcer_tags_start(struct enforcer *e)
{
	const uint64_t *at = NULL;
	bool ended = false;
	uint64_t key, next;
	int r;

	r = enforcer_names_start(e);
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
			ended |= !tag->deadline_ns;
			datapath_vouchers_get(e->datapath, next, &tag->vouchers);
			tag->derived = kernel.flags & BH_TAG_DERIVED;
			tag->local = kernel.identity < BH_MAX_IDENTITIES && e->names[kernel.identity] &&
				     e->names[kernel.identity]->local;
			if (!tag->local && tag->deadline_ns)
				tag->not_after = (int64_t)((enforcer_realtime_ns() + tag->deadline_ns -
							    enforcer_boottime_ns() + 500000000ULL) /
							   1000000000ULL); /* two clocks: rounded */
			tag->uid = tag->vouchers.flags & BH_PROVED_BY_UID ? tag->vouchers.uid : POLICY_ANY_UID;
			tag->not_before = tag->vouchers.not_before;
			tag->svid_not_after = tag->vouchers.not_after ? tag->vouchers.not_after : tag->not_after;
			tag->proved_ns = tag->extended_ns = enforcer_boottime_ns();
		}
		key = next;
		at = &key;
	}
	/* Who ended it may have been killed before the word changed. */
	if (ended)
		datapath_changed(e->datapath);
	enforcer_shared_start(e);
	return 0;
}

void enforcer_tags_free(struct enforcer *e)
{
	enforcer_names_free(e);
	free(e->tags);
	id_index_clear(&e->tags_index);
	enforcer_revocations_free(e);
}
