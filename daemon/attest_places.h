/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attest_places.h - who has which of the places for attestations under way.
 *
 * Whoever connects and says nothing holds a place for seconds. So a cgroup has 16 at most, and a user other than root 64. But
 * somebody may have many cgroups, even many users: where there is no place left for one who has fewer, it is taken from who
 * has most. That is, of the user with the most places, from that user's cgroup with the most, the oldest. So who has
 * nothing under way gets a place whatever others hold, and keeps it until as many others came as there are places.
 *
 * A place whose proof is there is kept: its tag may be written already.
 */
#ifndef BULKHEAD_DAEMON_ATTEST_PLACES_H
#define BULKHEAD_DAEMON_ATTEST_PLACES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define ATTEST_PLACES 256
#define ATTEST_PLACES_UID 64	/* of one uid other than root */
#define ATTEST_PLACES_CGROUP 16 /* of one cgroup, whoever runs in it */

struct attest_place {
	void *holder;	    /* NULL: free */
	uint64_t cgroup_id; /* 0: not known yet */
	uint64_t number;    /* in the order in which they were taken */
	uid_t uid;
	bool kept;
};

/* All 0 at first. */
struct attest_places {
	struct attest_place places[ATTEST_PLACES];
	unsigned taken;
	uint64_t numbers;
};

enum attest_place_answer {
	ATTEST_PLACE_TAKEN = 0,
	ATTEST_PLACE_CGROUP_FULL,
	ATTEST_PLACE_UID_FULL,
	ATTEST_PLACE_ALL_FULL,
};

/* Takes a place for `holder`. `*evictedp` is who has lost theirs for it, and no longer has one, or NULL. */
enum attest_place_answer attest_place_take(struct attest_places *places, uid_t uid, uint64_t cgroup_id, void *holder,
					   struct attest_place **placep, void **evictedp);
/* The cgroup is known now. ATTEST_PLACE_CGROUP_FULL: it has too many places with this one, which stays taken. */
enum attest_place_answer attest_place_settle(struct attest_places *places, struct attest_place *place,
					     uint64_t cgroup_id);
void attest_place_give_back(struct attest_places *places, struct attest_place *place);

#endif
