/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow_space_places.c - the cgroups that policies name: each once, whatever it is called, and whose it is to whom.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/flow_space_internal.h"
#include "policy/unit_path.h"

static const char *place_key(struct arena *arena, const struct place *place, size_t len)
{
	const char *unit = place->path, *end = place->path + len;

	if (place->kind == POLICY_LOCAL_CGROUP)
		unit = unit_of_path(place->path, len);
	return unit ? arena_printf(arena, "unit %.*s", (int)(end - unit), unit)
		    : arena_printf(arena, "path %.*s", (int)len, place->path);
}

static int join_place(struct joining *joining, const struct place *place)
{
	struct flow_space *space = joining->space;
	const char *key = place_key(&space->arena, place, strlen(place->path));
	uint32_t number;
	int r = key ? intern_bytes(&joining->keys, key, strlen(key), &number) : -ENOMEM;

	if (r == 1)
		space->places[number] = *place;
	return r < 0 ? r : 0;
}

static size_t count_places(const struct policy *policy)
{
	size_t n = 0;

	for (size_t i = 0; i < policy->n_identities; i++)
		n += policy->identities[i].n_places;
	return n;
}

/* Whose place is this to a policy: its own, or the nearest above it. */
static int find_owner(struct joining *joining, const uint32_t *exact, uint32_t number, uint32_t *ownerp)
{
	struct flow_space *space = joining->space;
	const struct place *place = &space->places[number];
	size_t len = strlen(place->path);

	*ownerp = exact[number];
	while (*ownerp == NO_OWNER && place->kind == POLICY_LOCAL_CGROUP) {
		const char *key;

		while (len && place->path[len - 1] != '/')
			len--;
		if (len <= 1)
			break;
		len--;
		key = place_key(&space->arena, place, len);
		if (!key)
			return -ENOMEM;
		if (intern_find(&joining->keys, key, strlen(key), &number))
			*ownerp = exact[number];
	}
	return 0;
}

static int own_places(struct joining *joining, size_t p)
{
	struct flow_space *space = joining->space;
	const struct policy *policy = space->policies[p].policy;
	uint32_t *exact = arena_array(&space->arena, space->n_places, sizeof(*exact));
	uint32_t *owners = arena_array(&space->arena, space->n_places, sizeof(*owners));
	int r = exact && owners ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < space->n_places && r == 0; i++)
		exact[i] = NO_OWNER;
	for (uint32_t i = 0; i < policy->n_identities && r == 0; i++)
		for (uint32_t j = 0; j < policy->identities[i].n_places && r == 0; j++) {
			const struct place *place = &policy->identities[i].places[j];
			const char *key = place_key(&space->arena, place, strlen(place->path));
			uint32_t number;

			if (!key)
				r = -ENOMEM;
			else if (intern_find(&joining->keys, key, strlen(key), &number))
				exact[number] = i;
		}
	for (uint32_t i = 0; i < space->n_places && r == 0; i++)
		r = find_owner(joining, exact, i, &owners[i]);
	joining->owners[p] = owners;
	return r;
}

int space_join_places(struct joining *joining)
{
	struct flow_space *space = joining->space;
	size_t n = 0;
	int r = 0;

	for (size_t p = 0; p < space->n_policies; p++)
		n += count_places(space->policies[p].policy);
	space->places = arena_array(&space->arena, n, sizeof(*space->places));
	if (!space->places)
		return -ENOMEM;
	for (size_t p = 0; p < space->n_policies; p++) {
		const struct policy *policy = space->policies[p].policy;

		for (size_t i = 0; i < policy->n_identities; i++)
			for (uint32_t j = 0; j < policy->identities[i].n_places && r == 0; j++)
				r = join_place(joining, &policy->identities[i].places[j]);
	}
	space->n_places = joining->keys.n;
	for (size_t p = 0; p < space->n_policies && r == 0; p++)
		r = own_places(joining, p);
	return r;
}
