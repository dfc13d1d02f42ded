/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read_names.c - identities, networks and services: what rules refer to by name.
 */
#include <errno.h>
#include <string.h>

#include "bpf/abi.h"
#include "policy/read.h"

bool is_builtin_peer(const char *name, uint32_t *atomp, bool *anyp)
{
	static const struct {
		const char *name;
		uint32_t atom;
	} builtins[] = {
		{"unidentified", WHO_UNIDENTIFIED},
		{"host", WHO_HOST},
		{"world", WHO_WORLD},
		{"verified", WHO_VERIFIED},
	};

	*anyp = strcmp(name, "any") == 0;
	for (size_t i = 0; i < sizeof(builtins) / sizeof(builtins[0]); i++)
		if (strcmp(name, builtins[i].name) == 0) {
			*atomp = builtins[i].atom;
			return true;
		}
	return *anyp;
}

/* Registers the name of an identity or network. Returns false after an error. */
static bool define_peer(struct reader *reader, const struct node *key, const char *name, bool network, size_t index)
{
	struct policy *policy = reader->policy;
	uint32_t number, atom;
	bool any;
	int r;

	if (is_builtin_peer(name, &atom, &any)) {
		reader_error(reader, key, "'%s' is a built-in name and cannot be defined", name);
		return false;
	}
	/* Room first: what has a number must have a place behind that number, also when memory runs out. */
	r = list_reserve(&reader->peers) < 0 ? -ENOMEM : intern_bytes(&policy->peer_names, name, strlen(name), &number);
	if (r < 0) {
		policy->arena.out_of_memory = true;
		return false;
	}
	if (r == 1)
		list_push(&reader->peers, (uint32_t)(index << 1 | network));
	if (r == 0) {
		uint32_t other = reader->peers.items[number];
		struct position at = other & 1 ? policy->networks[other >> 1].at : policy->identities[other >> 1].at;

		reader_error(reader, key, "duplicate name '%s': it is %s already", name,
			     other & 1 ? "a network" : "an identity");
		reader_hint(reader, "defined at %s", reader_where(reader, at));
	}
	return r == 1;
}

/* ---- identities ---- */

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

/* {unit: x.service} or {cgroup: /path}. */
static bool read_place(struct reader *reader, const struct node *node, struct place *place)
{
	const struct node *unit = NULL, *cgroup = NULL;
	const struct key keys[] = {{"unit", &unit}, {"cgroup", &cgroup}};
	const char *problem;

	if (!read_keys(reader, node, "a unit or cgroup", keys, 2))
		return false;
	if (!unit == !cgroup) {
		reader_error(reader, node, "either `unit` or `cgroup` must be given");
		return false;
	}
	place->kind = unit ? POLICY_LOCAL_UNIT : POLICY_LOCAL_CGROUP;
	place->path = read_text(reader, unit ? unit : cgroup, unit ? "`unit`" : "`cgroup`");
	if (!place->path)
		return false;
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

/* The unit that a path would be the cgroup of: below slices only. NULL if none. */
static const char *unit_of_path(const char *path)
{
	const char *last = path + 1;

	while (*component_end(last)) {
		size_t len = (size_t)(component_end(last) - last);

		if (len <= 6 || memcmp(last + len - 6, ".slice", 6) != 0)
			return NULL;
		last += len + 1;
	}
	return last + (*last == '_');
}

static void check_path(struct reader *reader, const struct identity *identity, const struct place *place)
{
	const char *unit = place->kind == POLICY_LOCAL_CGROUP ? unit_of_path(place->path) : NULL;
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

static void read_pattern(struct reader *reader, const struct node *node, struct identity *identity)
{
	const char *text = read_text(reader, node, "a SPIFFE ID pattern"), *problem;

	if (!text)
		return;
	problem = pattern_parse(&identity->patterns[identity->n_patterns++], &reader->policy->arena, text);
	if (problem)
		reader_error(reader, node, "'%.200s' is not a SPIFFE ID pattern: %s", text, problem);
}

static void read_spiffe_map(struct reader *reader, const struct node *map, struct identity *identity)
{
	const struct node *spiffe = NULL, *only = NULL;
	const struct key keys[] = {{"spiffe", &spiffe}, {"only", &only}, {"any", NULL}, {"all", NULL}, {"not", NULL}};
	struct arena *arena = &reader->policy->arena;
	struct items items;

	if (!read_keys(reader, map, "an identity", keys, sizeof(keys) / sizeof(keys[0])))
		return;
	if (!spiffe) {
		if (only)
			reader_error(reader, map, "`only` binds SPIFFE IDs: `spiffe` is missing");
		return;
	}
	if (!read_items(reader, spiffe, "`spiffe`", &items))
		return;
	identity->patterns = arena_array(arena, items.n, sizeof(*identity->patterns));
	for (uint32_t i = 0; i < items.n && identity->patterns; i++)
		read_pattern(reader, items.items[i], identity);
	if (!only || !read_items(reader, only, "`only`", &items))
		return;
	identity->only = arena_array(arena, items.n, sizeof(*identity->only));
	for (uint32_t i = 0; i < items.n && identity->only; i++)
		if (read_place(reader, items.items[i], &identity->only[identity->n_only]))
			identity->n_only++;
}

static bool has_key(const struct node *map, const char *name)
{
	for (uint32_t i = 0; map->kind == NODE_MAP && i < map->n; i += 2)
		if (map->items[i]->kind == NODE_SCALAR && strcmp(map->items[i]->text, name) == 0)
			return true;
	return false;
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
	for (uint32_t i = 0; i < items.n && identity->patterns && identity->places; i++) {
		const struct node *item = items.items[i];
		struct place *place = &identity->places[identity->n_places];

		if (item->kind == NODE_SCALAR) {
			read_pattern(reader, item, identity);
		} else if (has_key(item, "spiffe")) {
			reader_error(reader, item,
				     "`spiffe` in a list: give the identity as one map, `{spiffe: [...], only: ...}`");
		} else if (item->kind == NODE_LIST) {
			reader_error(reader, item, "a list within a list");
		} else if (read_place(reader, item, place)) {
			claim_place(reader, item, place, index);
			identity->n_places++;
		}
	}
}

void read_identity(struct reader *reader, const struct node *key, const struct node *value)
{
	struct policy *policy = reader->policy;
	struct identity identity = {.at = key->at};
	uint32_t index = (uint32_t)policy->n_identities;
	bool map = value->kind == NODE_MAP && !has_key(value, "unit") && !has_key(value, "cgroup");

	if (array_grow(&policy->identities, &policy->identities_capacity, index, sizeof(identity)) < 0) {
		policy->arena.out_of_memory = true;
		return;
	}
	if (!read_name(reader, key, "an identity", POLICY_MAX_NAME, &identity.name) ||
	    !define_peer(reader, key, identity.name, false, index))
		return;
	policy->identities[policy->n_identities++] = identity;
	if (map && value->n == 0)
		reader_error(reader, value, "the identity '%s' is empty", identity.name);
	else if (map)
		read_spiffe_map(reader, value, &identity);
	else
		read_identity_items(reader, value, &identity, index);
	policy->identities[index] = identity;
}

/* ---- networks ---- */

static void read_range(struct reader *reader, const struct node *node, struct address_range *range)
{
	const char *text = read_text(reader, node, "a network");
	char block[ADDRESS_TEXT_BYTES];
	unsigned prefix = 0;

	if (!text)
		return;
	switch (address_range_parse(range, text)) {
	case ADDRESS_OK:
		break;
	case ADDRESS_INVALID:
		reader_error(reader, node, "'%.80s' is neither an address nor a CIDR block", text);
		break;
	case ADDRESS_PREFIX:
		reader_error(reader, node, "'%.80s': the prefix length must be 0 to %u", text, range->v4 ? 32 : 128);
		break;
	case ADDRESS_HOST_BITS:
		for (address size = range->last - range->first; size; size >>= 1)
			prefix++;
		prefix = (range->v4 ? 32 : 128) - prefix;
		address_format(block, range->first, range->v4, prefix);
		reader_error(reader, node, "'%.80s' has bits set behind its prefix", text);
		reader_hint(reader, "the block is %s; a single address has no prefix", block);
		break;
	case ADDRESS_MAPPED:
		reader_error(reader, node, "'%.80s' is IPv4-mapped: write the IPv4 network", text);
		break;
	case ADDRESS_ZONE:
		reader_error(reader, node, "'%.80s': an address with a zone cannot be matched", text);
		break;
	}
}

void read_network(struct reader *reader, const struct node *key, const struct node *value)
{
	const struct key keys[] = {{"include", NULL}, {"except", NULL}};
	struct policy *policy = reader->policy;
	struct network network = {.at = key->at};
	struct items items;

	if (array_grow(&policy->networks, &policy->networks_capacity, policy->n_networks, sizeof(network)) < 0) {
		policy->arena.out_of_memory = true;
		return;
	}
	if (!read_name(reader, key, "a network", POLICY_MAX_NAME, &network.name) ||
	    !define_peer(reader, key, network.name, true, policy->n_networks))
		return;
	policy->networks[policy->n_networks] = network;
	if (value->kind == NODE_MAP && value->n == 0) {
		reader_error(reader, value, "the network '%s' is empty", network.name);
	} else if (value->kind == NODE_MAP) {
		read_keys(reader, value, "a network", keys, 2);
	} else if (read_items(reader, value, "a network", &items)) {
		network.ranges = arena_array(&policy->arena, items.n, sizeof(*network.ranges));
		for (uint32_t i = 0; i < items.n && network.ranges; i++)
			read_range(reader, items.items[i], &network.ranges[network.n_ranges++]);
	}
	policy->networks[policy->n_networks++] = network;
}

/* ---- services ---- */

bool read_inline_service(struct reader *reader, const struct node *node, const char *text, struct service_range *range,
			 bool *okp)
{
	enum service_problem problem = service_parse(range, text);

	*okp = problem == SERVICE_OK;
	switch (problem) {
	case SERVICE_OK:
		break;
	case SERVICE_NOT_INLINE:
		return false;
	case SERVICE_UNSUPPORTED:
		reader_error(reader, node, "service '%.80s' is not supported yet by this version", text);
		break;
	case SERVICE_PORT:
		reader_error(reader, node, "'%.80s': a port is a number from 1 to 65535", text);
		break;
	case SERVICE_REVERSED:
		reader_error(reader, node, "'%.80s': the range ends before it begins", text);
		break;
	case SERVICE_TYPE:
		reader_error(reader, node, "'%.80s': no such ICMP type", text);
		reader_hint(reader, "'echo-request' is what can be named");
		break;
	}
	return true;
}

static void read_service_item(struct reader *reader, const struct node *node, struct service *service)
{
	const char *text = read_text(reader, node, "a service");
	bool ok;

	if (!text)
		return;
	if (!read_inline_service(reader, node, text, &service->ranges[service->n_ranges], &ok)) {
		reader_error(reader, node, "'%.80s' is not a protocol with a port", text);
		reader_hint(reader, "such as tcp/443, tcp/6432-6440, udp, icmp/echo-request");
	}
	service->n_ranges += ok;
}

void read_service(struct reader *reader, const struct node *key, const struct node *value)
{
	struct policy *policy = reader->policy;
	struct service service = {.at = key->at};
	struct items items;
	uint32_t number;
	int r;

	if (!read_name(reader, key, "a service", POLICY_MAX_NAME, &service.name))
		return;
	if (service_is_protocol(service.name) || strcmp(service.name, "any") == 0) {
		reader_error(reader, key, "'%s' is a built-in name and cannot be defined", service.name);
		return;
	}
	r = array_grow(&policy->services, &policy->services_capacity, policy->n_services, sizeof(service));
	if (r == 0)
		r = intern_bytes(&reader->service_names, service.name, strlen(service.name), &number);
	if (r < 0) {
		policy->arena.out_of_memory = true;
		return;
	}
	if (r == 0) {
		reader_error(reader, key, "duplicate name '%s': it is a service already", service.name);
		reader_hint(reader, "defined at %s", reader_where(reader, policy->services[number].at));
		return;
	}
	if (read_items(reader, value, "a service", &items)) {
		service.ranges = arena_array(&policy->arena, items.n, sizeof(*service.ranges));
		for (uint32_t i = 0; i < items.n && service.ranges; i++)
			read_service_item(reader, items.items[i], &service);
		if (service.ranges)
			service.n_ranges = service_normalise(service.ranges, service.n_ranges);
	}
	policy->services[policy->n_services++] = service;
}
