/* SPDX-License-Identifier: Apache-2.0 */
#include "refusals.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "identity/attest.h"

#define NS_PER_S 1000000000ULL
#define SOURCES 64 /* users in cgroups whose turns are counted; of more than these, the ones heard of last */

/* Turns that were saved up, in ns of the time that it takes to save them. */
struct bucket {
	uint64_t saved_ns;
	uint64_t at_ns;
};

struct source {
	uint64_t cgroup_id;
	uint32_t uid;
	bool used;
	struct bucket bucket;
};

struct entry {
	struct entry *next;
	struct ipc_tag_request refusal; /* the first one of its kind */
	uint64_t count;
};

struct refusals {
	struct bucket all;
	struct source sources[SOURCES];
	struct entry *entries;
	struct entry **tailp;
	unsigned n_entries;
	uint64_t held;
	struct entry rest; /* for those that have no entry; linked while it counts any */
};

int refusals_new(struct refusals **refusalsp)
{
	struct refusals *refusals = calloc(1, sizeof(*refusals));

	if (refusals == NULL)
		return -ENOMEM;
	refusals->all.saved_ns = REFUSALS_ALL_BURST * (NS_PER_S / REFUSALS_ALL_PER_S);
	refusals->tailp = &refusals->entries;
	*refusalsp = refusals;
	return 0;
}

void refusals_freep(struct refusals **refusalsp)
{
	struct refusals *refusals = *refusalsp;

	if (refusals == NULL)
		return;
	while (refusals->entries != NULL)
		refusals_told(refusals);
	free(refusals);
	*refusalsp = NULL;
}

/* ---- turns ---- */

static void bucket_save(struct bucket *bucket, unsigned burst, unsigned per_s, uint64_t now_ns)
{
	uint64_t most = burst * (NS_PER_S / per_s), since = now_ns > bucket->at_ns ? now_ns - bucket->at_ns : 0;

	bucket->saved_ns = since < most - bucket->saved_ns ? bucket->saved_ns + since : most;
	bucket->at_ns = now_ns;
}

/* Its own, or that of who was heard of least recently: then with all turns, as it may be a new one. */
static struct source *find_source(struct refusals *refusals, uint32_t uid, uint64_t cgroup_id)
{
	struct source *oldest = &refusals->sources[0];

	for (size_t i = 0; i < SOURCES; i++) {
		struct source *source = &refusals->sources[i];

		if (source->used && source->uid == uid && source->cgroup_id == cgroup_id)
			return source;
		if (!source->used || (oldest->used && source->bucket.at_ns < oldest->bucket.at_ns))
			oldest = source;
	}
	*oldest = (struct source){.cgroup_id = cgroup_id, .uid = uid, .used = true};
	oldest->bucket.saved_ns = REFUSALS_BURST * (NS_PER_S / REFUSALS_PER_S);
	return oldest;
}

bool refusals_take_turn(struct refusals *refusals, uint32_t uid, uint64_t cgroup_id, uint64_t now_ns)
{
	struct bucket *own = &find_source(refusals, uid, cgroup_id)->bucket, *all = &refusals->all;

	bucket_save(own, REFUSALS_BURST, REFUSALS_PER_S, now_ns);
	bucket_save(all, REFUSALS_ALL_BURST, REFUSALS_ALL_PER_S, now_ns);
	if (own->saved_ns < NS_PER_S / REFUSALS_PER_S || all->saved_ns < NS_PER_S / REFUSALS_ALL_PER_S)
		return false;
	own->saved_ns -= NS_PER_S / REFUSALS_PER_S;
	all->saved_ns -= NS_PER_S / REFUSALS_ALL_PER_S;
	return true;
}

/* ---- what is held ---- */

static void entry_link(struct refusals *refusals, struct entry *entry)
{
	entry->next = NULL;
	*refusals->tailp = entry;
	refusals->tailp = &entry->next;
}

static struct entry *entry_new(struct refusals *refusals, const struct ipc_tag_request *refusal)
{
	struct entry *entry = refusals->n_entries < REFUSALS_ENTRIES ? calloc(1, sizeof(*entry)) : NULL;

	if (entry == NULL) {
		entry = &refusals->rest;
		if (entry->count == 0) {
			entry->refusal = (struct ipc_tag_request){.h = refusal->h, .code = ATTEST_E_MANY};
			entry_link(refusals, entry);
		}
		return entry;
	}
	entry->refusal = *refusal;
	refusals->n_entries++;
	entry_link(refusals, entry);
	return entry;
}

static bool is_alike(const struct entry *entry, const struct ipc_tag_request *refusal)
{
	return entry->refusal.uid == refusal->uid && entry->refusal.cgroup_id == refusal->cgroup_id &&
	       entry->refusal.code == refusal->code;
}

void refusals_hold(struct refusals *refusals, const struct ipc_tag_request *refusal)
{
	struct entry *entry = refusals->entries;

	while (entry != NULL && !is_alike(entry, refusal))
		entry = entry->next;
	if (entry == NULL)
		entry = entry_new(refusals, refusal);
	entry->count++;
	refusals->held++;
}

bool refusals_next(const struct refusals *refusals, struct ipc_tag_request *out)
{
	const struct entry *entry = refusals->entries;

	if (entry == NULL)
		return false;
	*out = entry->refusal;
	out->count = entry->count < UINT32_MAX ? (uint32_t)entry->count : UINT32_MAX;
	if (entry == &refusals->rest)
		snprintf(out->text, sizeof(out->text),
			 "%u refusals of more users and cgroups, or for more reasons, than are told apart", out->count);
	else if (out->count > 1)
		snprintf(out->text, sizeof(out->text), "%.440s; and %u more like it", entry->refusal.text,
			 out->count - 1);
	return true;
}

void refusals_told(struct refusals *refusals)
{
	struct entry *entry = refusals->entries;

	refusals->held -= entry->count;
	refusals->entries = entry->next;
	if (refusals->entries == NULL)
		refusals->tailp = &refusals->entries;
	if (entry == &refusals->rest) {
		entry->count = 0;
		return;
	}
	refusals->n_entries--;
	free(entry);
}

uint64_t refusals_held(const struct refusals *refusals)
{
	return refusals->held;
}
