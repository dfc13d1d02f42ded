// SPDX-License-Identifier: Apache-2.0
/*
 * SVIDs in force in more than one place. Whoever holds a key can be its workload anywhere that the policy does not bind the ID
 * away from (`only:`), so a copied key shows here or nowhere: as the same certificate under a second cgroup. Replicas share SVIDs
 * on purpose and are not refused.
 *
 * Each place that joins others is told once, and not again with each renewal: places that were told of together are a group, and
 * what a member shares with another one is no news. So N replicas make N - 1 lines in their lives. What one entry of `svids` gives
 * to the cgroups of its unit is the configuration's word, and none.
 */
#include "enforcer_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEAF_BYTES sizeof(((struct bh_vouchers *)0)->leaf)

/* In force by an SVID, and it is known which. */
static bool is_holder(const struct tag *tag)
{
	static const uint8_t none[LEAF_BYTES];

	return tag->deadline_ns && !tag->local && !tag->derived && memcmp(tag->vouchers.leaf, none, LEAF_BYTES) != 0;
}

static void group_join(struct enforcer *e, struct tag *tag, struct tag *other)
{
	uint64_t left = tag->shared, into = other->shared;

	if (!into)
		into = left ? left : ++e->shared_groups;
	tag->shared = other->shared = into;
	for (size_t i = 0; left && left != into && i < e->n_tags; i++)
		if (e->tags[i].shared == left)
			e->tags[i].shared = into;
}

static void shared_notice(struct enforcer *e, const struct tag_attempt *a, const struct tag *tag,
			  const struct tag *other, uint32_t others)
{
	struct ipc_notice notice = enforcer_tag_notice(e, NOTICE_IDENTITY_SHARED, tag);
	char more[40] = "";

	if (others > 1)
		snprintf(more, sizeof(more), " and in %u more", others - 1);
	notice.uid = tag->uid;
	notice.not_before = a->request->not_before;
	notice.not_after = a->request->not_after;
	notice.count = others;
	notice.other_id = other->cgroup_id;
	memcpy(notice.issuer, a->request->issuer, sizeof(notice.issuer));
	memcpy(notice.leaf_sha256, tag->vouchers.leaf, sizeof(notice.leaf_sha256));
	snprintf(notice.other_path, sizeof(notice.other_path), "%s", other->path);
	snprintf(notice.text, sizeof(notice.text),
		 "the same SVID is in force in %.300s%s: if these are not replicas, its key was copied (`only:` in the "
		 "policy binds an ID to its place)",
		 other->path, more);
	enforcer_notice_post(e, &notice);
}

void enforcer_shared_look(struct enforcer *e, const struct tag_attempt *a)
{
	struct tag *tag = enforcer_tag_find(e, a->key), *stranger = NULL;
	uint32_t others = 0;
	bool known = false;

	if (!tag || !is_holder(tag))
		return;
	for (size_t i = 0; i < e->n_tags; i++) {
		struct tag *other = &e->tags[i];

		if (other == tag || !is_holder(other) ||
		    memcmp(other->vouchers.leaf, tag->vouchers.leaf, LEAF_BYTES) != 0)
			continue;
		others++;
		if (a->entry && other->entry == a->entry)
			group_join(e, tag, other);
		if (tag->shared && other->shared == tag->shared)
			known = true;
		else if (!stranger)
			stranger = other;
	}
	if (known || !stranger)
		return;
	group_join(e, tag, stranger);
	shared_notice(e, a, tag, stranger, others);
}

/* ---- all of them ---- */

static int by_leaf(const void *a, const void *b)
{
	const struct tag *x = *(struct tag *const *)a, *y = *(struct tag *const *)b;

	return memcmp(x->vouchers.leaf, y->vouchers.leaf, LEAF_BYTES);
}

/* Holders, those of one SVID side by side; NULL: there are none, or memory is short. */
static struct tag **holders_sort(const struct enforcer *e, size_t *np)
{
	struct tag **holders = calloc(e->n_tags + 1, sizeof(struct tag *));

	*np = 0;
	for (size_t i = 0; holders && i < e->n_tags; i++)
		if (is_holder(&e->tags[i]))
			holders[(*np)++] = &e->tags[i];
	if (*np)
		qsort(holders, *np, sizeof(struct tag *), by_leaf);
	return holders;
}

/* The end of those with the SVID of holders[at]. */
static size_t run_end(struct tag *const *holders, size_t n, size_t at)
{
	size_t end = at + 1;

	while (end < n && by_leaf(&holders[at], &holders[end]) == 0)
		end++;
	return end;
}

void enforcer_shared_start(struct enforcer *e)
{
	size_t n;
	struct tag **holders = holders_sort(e, &n);

	for (size_t at = 0, end; at < n; at = end) {
		end = run_end(holders, n, at);
		for (size_t i = at + 1; i < end; i++)
			group_join(e, holders[i], holders[at]);
	}
	free(holders);
}

uint32_t *enforcer_shared_counts(const struct enforcer *e)
{
	uint32_t *counts = calloc(e->n_tags + 1, sizeof(*counts));
	size_t n;
	struct tag **holders = counts ? holders_sort(e, &n) : NULL;

	for (size_t at = 0, end; holders && at < n; at = end) {
		end = run_end(holders, n, at);
		for (size_t i = at; i < end; i++)
			counts[holders[i] - e->tags] = (uint32_t)(end - at - 1);
	}
	free(holders);
	return counts;
}
