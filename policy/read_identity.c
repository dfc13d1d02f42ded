/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read_identity.c - identities, by proof or by place.
 */
#include <errno.h>
#include <string.h>

#include "bpf/abi.h"
#include "policy/image.h"
#include "policy/read.h"
#include "policy/unit_path.h"

static const char *component_end(const char *at)
{
	return at + strcspn(at, "/");
}

static const char *cgroup_path_problem(const char *path)
{
	unsigned depth = 0;

	if (path[0] != '/')
		return "it must begin with '/', the managed subtree";
	if (!path[1])
		return "it must name a cgroup below the managed subtree";
	if (strlen(path) >= 4096)
		return "it is too long";
	for (const char *at = path; *at; at = component_end(at + 1)) {
		size_t len = (size_t)(component_end(at + 1) - (at + 1));

		if (!len || (len == 1 && at[1] == '.') || (len == 2 && at[1] == '.' && at[2] == '.'))
			return "no '//', no '/' at the end, and no '.' or '..'";
		if (++depth > BH_MAX_DEPTH)
			return "it is too deep";
	}
	return NULL;
}

static const char *unit_problem(const char *unit)
{
	static const char *const suffixes[] = {".service", ".scope", ".slice", ".socket", ".mount", ".swap"};
	size_t len = strlen(unit);

	if (len > 255 || strspn(unit, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:-_.\\@") < len)
		return "it is not the name of a unit";
	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		size_t n = strlen(suffixes[i]);

		if (len > n && strcmp(unit + len - n, suffixes[i]) == 0)
			return unit[len - n - 1] == '@' ? "a template never runs itself; name its instances" : NULL;
	}
	return "a unit with a cgroup ends in .service, .scope, .slice, .socket, .mount or .swap";
}

static bool read_uid(struct reader *reader, const struct node *node, uint32_t *uidp)
{
	const char *text = read_text(reader, node, "`uid`");
	uint64_t uid = 0;
	size_t n;

	if (!text)
		return false;
	n = strspn(text, "0123456789");
	for (size_t i = 0; i < n && uid < POLICY_ANY_UID; i++)
		uid = uid * 10 + (uint64_t)(text[i] - '0');
	if (!n || text[n] || (text[0] == '0' && n > 1) || uid >= POLICY_ANY_UID) {
		reader_error(reader, node, "`uid` must be the number of a user, not '%.40s'", text);
		return false;
	}
	*uidp = (uint32_t)uid;
	return true;
}

/* {unit: x.service} or {cgroup: /path}. Of `only` also with {uid: N}, or that alone. */
static bool read_place(struct reader *reader, const struct node *node, struct place *place, bool of_only)
{
	const struct node *unit = NULL, *cgroup = NULL, *uid = NULL;
	const struct key keys[] = {{"unit", &unit}, {"cgroup", &cgroup}, {"uid", &uid}};
	const char *problem;

	if (!read_keys(reader, node, of_only ? "a unit, cgroup or uid" : "a unit or cgroup", keys, of_only ? 3 : 2))
		return false;
	place->uid = POLICY_ANY_UID;
	if (uid && !read_uid(reader, uid, &place->uid))
		return false;
	if (uid && !unit && !cgroup) {
		place->kind = POLICY_LOCAL_CGROUP;
		place->path = "";
		return true;
	}
	if (!unit == !cgroup) {
		reader_error(reader, node, "either `unit` or `cgroup` must be given");
		return false;
	}
	place->kind = unit ? POLICY_LOCAL_UNIT : POLICY_LOCAL_CGROUP;
	place->path = read_text(reader, unit ? unit : cgroup, unit ? "`unit`" : "`cgroup`");
	if (!place->path)
		return false;
	place->path = reader_keep(reader, place->path);
	problem = unit ? unit_problem(place->path) : cgroup_path_problem(place->path);
	if (problem)
		reader_error(reader, unit ? unit : cgroup, "%s '%s' cannot be matched: %s", unit ? "unit" : "cgroup",
			     place->path, problem);
	return !problem;
}

/* One cgroup, one identity: two names for the same place would make the order of the file decide. */
static void claim_place(struct reader *reader, const struct node *node, const struct place *place, uint32_t identity)
{
	const char *kind = place->kind == POLICY_LOCAL_UNIT ? "unit" : "path";
	const char *text = arena_printf(&reader->arena, "%s %s", kind, place->path);
	const struct identity *owner;
	uint32_t number;
	int r;

	if (!text)
		return;
	r = list_reserve(&reader->place_owners) < 0 ? -ENOMEM
						    : intern_bytes(&reader->places, text, strlen(text), &number);
	if (r < 0) {
		reader->arena.out_of_memory = true;
		return;
	}
	if (r == 1)
		list_push(&reader->place_owners, identity);
	if (r == 1 || reader->place_owners.items[number] == identity)
		return;
	owner = &reader->policy->identities[reader->place_owners.items[number]];
	reader_error(reader, node, "'%s' is the place of the identity '%s' already", place->path, owner->name);
	reader_hint(reader, "defined at %s", reader_where(reader, owner->at));
}

static void check_path(struct reader *reader, const struct identity *identity, const struct place *place)
{
	const char *path = place->path;
	const char *unit = place->kind == POLICY_LOCAL_CGROUP ? unit_of_path(path, strlen(path)) : NULL;
	const char *text = unit ? arena_printf(&reader->arena, "unit %s", unit) : NULL;
	const struct identity *owner;
	uint32_t number;

	if (!text || !intern_find(&reader->places, text, strlen(text), &number))
		return;
	owner = &reader->policy->identities[reader->place_owners.items[number]];
	if (owner == identity)
		return;
	diagnostics_error(reader->diagnostics, identity->at, "'%s' is the cgroup of the unit of the identity '%s'",
			  place->path, owner->name);
	reader_hint(reader, "defined at %s", reader_where(reader, owner->at));
}

void check_places(struct reader *reader)
{
	const struct policy *policy = reader->policy;

	for (size_t i = 0; i < policy->n_identities; i++)
		for (uint32_t j = 0; j < policy->identities[i].n_places; j++)
			check_path(reader, &policy->identities[i], &policy->identities[i].places[j]);
}

bool read_pattern(struct reader *reader, const struct node *node, struct pattern *pattern)
{
	const char *text = read_text(reader, node, "a SPIFFE ID pattern"), *problem;

	if (!text)
		return false;
	problem = pattern_parse(pattern, &reader->policy->arena, reader_keep(reader, text));
	if (!problem)
		return true;
	reader_error(reader, node, "'%.200s' is not a SPIFFE ID pattern: %s", text, problem);
	if (!strchr(text, ':') && !strchr(text, '/'))
		reader_hint(reader, "an identity is made of others by `{any: [...]}`, `{all: [...]}` or `{not: ...}`");
	return false;
}

static void read_spiffe_map(struct reader *reader, const struct node *map, struct identity *identity)
{
	const struct node *spiffe = NULL, *only = NULL;
	const struct key keys[] = {{"spiffe", &spiffe}, {"only", &only}};
	struct arena *arena = &reader->policy->arena;
	struct items items;

	if (!read_keys(reader, map, "an identity of SPIFFE IDs", keys, N_ITEMS(keys)))
		return;
	if (!spiffe) {
		reader_error(reader, map, "`only` binds SPIFFE IDs: `spiffe` is missing");
		return;
	}
	if (!read_items(reader, spiffe, "`spiffe`", &items))
		return;
	identity->patterns = arena_array(arena, items.n, sizeof(*identity->patterns));
	for (uint32_t i = 0; i < items.n && identity->patterns; i++)
		if (read_pattern(reader, items.items[i], &identity->patterns[identity->n_patterns]))
			identity->n_patterns++;
	if (!only || !read_items(reader, only, "`only`", &items))
		return;
	identity->only = arena_array(arena, items.n, sizeof(*identity->only));
	for (uint32_t i = 0; i < items.n && identity->only; i++)
		if (read_place(reader, items.items[i], &identity->only[identity->n_only], true))
			identity->n_only++;
}

static void read_identity_item(struct reader *reader, const struct node *item, struct identity *identity,
			       uint32_t index)
{
	if (item->kind == NODE_SCALAR) {
		if (read_pattern(reader, item, &identity->patterns[identity->n_patterns]))
			identity->n_patterns++;
	} else if (item->kind == NODE_LIST) {
		reader_error(reader, item, "a list within a list");
	} else if (node_value(item, "spiffe")) {
		reader_error(reader, item,
			     "`spiffe` in a list: give the identity as one map, `{spiffe: [...], only: ...}`");
	} else if (is_algebra(item)) {
		reader_error(reader, item, "set algebra in a list of SPIFFE IDs");
		reader_hint(reader, "`{any: [...]}` unites identities, named or as algebra");
	} else if (read_place(reader, item, &identity->places[identity->n_places], false)) {
		claim_place(reader, item, &identity->places[identity->n_places], index);
		identity->n_places++;
	}
}

static void read_identity_items(struct reader *reader, const struct node *value, struct identity *identity,
				uint32_t index)
{
	struct arena *arena = &reader->policy->arena;
	struct items items;

	if (!read_items(reader, value, "an identity", &items))
		return;
	identity->patterns = arena_array(arena, items.n, sizeof(*identity->patterns));
	identity->places = arena_array(arena, items.n, sizeof(*identity->places));
	for (uint32_t i = 0; i < items.n && identity->patterns && identity->places; i++)
		read_identity_item(reader, items.items[i], identity, index);
}

/* Its names can be looked up only when all are known. */
static void keep_algebra(struct reader *reader, const struct node *map, uint32_t index)
{
	if (array_grow(&reader->algebra, &reader->algebra_capacity, reader->n_algebra, sizeof(*reader->algebra)) < 0)
		reader->arena.out_of_memory = true;
	else
		reader->algebra[reader->n_algebra++] = (struct algebra_draft){map, index};
}

static void report_identity_map(struct reader *reader, const struct node *map, const char *name)
{
	static const char *const known[] = {"spiffe", "only", "unit", "cgroup", "any", "all", "not"};
	const struct node *value = NULL;
	const struct key keys[] = {{known[0], &value}, {known[1], &value}, {known[2], &value}, {known[3], &value},
				   {known[4], &value}, {known[5], &value}, {known[6], &value}};

	if (!map->n)
		reader_error(reader, map, "the identity '%s' is empty", name);
	else
		read_keys(reader, map, "an identity", keys, N_ITEMS(keys));
}

void read_identity(struct reader *reader, const struct node *key, const struct node *value)
{
	struct policy *policy = reader->policy;
	struct identity identity = {.at = key->at};
	uint32_t index = (uint32_t)policy->n_identities;

	if (array_grow(&policy->identities, &policy->identities_capacity, index, sizeof(identity)) < 0) {
		policy->arena.out_of_memory = true;
		return;
	}
	if (!read_name(reader, key, "an identity", POLICY_MAX_NAME, &identity.name) ||
	    !define_peer(reader, key, identity.name, false, index))
		return;
	policy->identities[policy->n_identities++] = identity;
	if (is_algebra(value))
		keep_algebra(reader, value, index);
	else if (node_value(value, "spiffe") || node_value(value, "only"))
		read_spiffe_map(reader, value, &identity);
	else if (value->kind != NODE_MAP || node_value(value, "unit") || node_value(value, "cgroup"))
		read_identity_items(reader, value, &identity, index);
	else
		report_identity_map(reader, value, identity.name);
	policy->identities[index] = identity;
}
