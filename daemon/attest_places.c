/* SPDX-License-Identifier: Apache-2.0 */
#include "attest_places.h"

#include <stddef.h>

static unsigned count_of_uid(const struct attest_places *places, uid_t uid)
{
	unsigned count = 0;

	for (size_t i = 0; i < ATTEST_PLACES; i++)
		count += places->places[i].holder != NULL && places->places[i].uid == uid;
	return count;
}

static unsigned count_of_cgroup(const struct attest_places *places, uint64_t cgroup_id)
{
	unsigned count = 0;

	for (size_t i = 0; i < ATTEST_PLACES; i++)
		count += places->places[i].holder != NULL && places->places[i].cgroup_id == cgroup_id;
	return count;
}

static bool can_be_taken(const struct attest_place *place)
{
	return place->holder != NULL && !place->kept;
}

static bool is_alike(const struct attest_place *a, const struct attest_place *b, bool by_cgroup)
{
	return a->uid == b->uid && (!by_cgroup || a->cgroup_id == b->cgroup_id);
}

/* The oldest place of the user (of a user's cgroup, where `uidp` says whose) from whom the most can be taken, and how many; of two
 * from whom as many can be, the older one. NULL: of nobody. */
static struct attest_place *find_largest(struct attest_places *places, const uid_t *uidp, unsigned *mostp)
{
	struct attest_place *found = NULL;

	*mostp = 0;
	/* Counted from the first place of each on: what is left after it cannot be more. */
	for (size_t i = 0; i + *mostp <= ATTEST_PLACES && i < ATTEST_PLACES; i++) {
		struct attest_place *first = &places->places[i], *oldest = first;
		unsigned count = 0;

		if (!can_be_taken(first) || (uidp != NULL && first->uid != *uidp))
			continue;
		for (struct attest_place *other = first; other < places->places + ATTEST_PLACES; other++) {
			if (!can_be_taken(other) || !is_alike(first, other, uidp != NULL))
				continue;
			count++;
			if (other->number < oldest->number)
				oldest = other;
		}
		if (count > *mostp || (found != NULL && count == *mostp && oldest->number < found->number)) {
			*mostp = count;
			found = oldest;
		}
	}
	return found;
}

/* The place that one who has fewer may have instead of its holder; NULL: none. */
static struct attest_place *find_place_to_take(struct attest_places *places, uid_t uid, uint64_t cgroup_id,
					       bool of_own_uid)
{
	unsigned most, own = count_of_uid(places, uid);
	struct attest_place *found;

	if (!of_own_uid) {
		found = find_largest(places, NULL, &most);
		if (found != NULL && found->uid != uid && most > own)
			return find_largest(places, &found->uid, &most);
	}
	found = find_largest(places, &uid, &most);
	return found != NULL && most > count_of_cgroup(places, cgroup_id) ? found : NULL;
}

static struct attest_place *find_free(struct attest_places *places)
{
	for (size_t i = 0; i < ATTEST_PLACES; i++) {
		if (places->places[i].holder == NULL)
			return &places->places[i];
	}
	return NULL;
}

enum attest_place_answer attest_place_take(struct attest_places *places, uid_t uid, uint64_t cgroup_id, void *holder,
					   struct attest_place **placep, void **evictedp)
{
	bool uid_full = uid != 0 && count_of_uid(places, uid) >= ATTEST_PLACES_UID;
	struct attest_place *place = uid_full ? NULL : find_free(places);

	*evictedp = NULL;
	if (cgroup_id != 0 && count_of_cgroup(places, cgroup_id) >= ATTEST_PLACES_CGROUP)
		return ATTEST_PLACE_CGROUP_FULL;
	if (place == NULL) {
		place = find_place_to_take(places, uid, cgroup_id, uid_full);
		if (place == NULL)
			return uid_full ? ATTEST_PLACE_UID_FULL : ATTEST_PLACE_ALL_FULL;
		*evictedp = place->holder;
		places->taken--;
	}
	*place = (struct attest_place){
		.holder = holder,
		.cgroup_id = cgroup_id,
		.number = ++places->numbers,
		.uid = uid,
	};
	places->taken++;
	*placep = place;
	return ATTEST_PLACE_TAKEN;
}

enum attest_place_answer attest_place_settle(struct attest_places *places, struct attest_place *place,
					     uint64_t cgroup_id)
{
	place->cgroup_id = cgroup_id;
	return count_of_cgroup(places, cgroup_id) > ATTEST_PLACES_CGROUP ? ATTEST_PLACE_CGROUP_FULL
									 : ATTEST_PLACE_TAKEN;
}

void attest_place_give_back(struct attest_places *places, struct attest_place *place)
{
	*place = (struct attest_place){0};
	places->taken--;
}
