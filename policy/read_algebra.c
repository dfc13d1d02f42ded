/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read_algebra.c - identities made of others. A map of set algebra within another, or within a rule, is an identity that
 * has no name; the same set written twice is one identity, so what a policy costs does not grow with how often it says so.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/read.h"

#define MAX_SET_TEXT 200U

static const struct {
	const char *key;
	enum identity_op op;
} ops[] = {{"any", IDENTITY_ANY}, {"all", IDENTITY_ALL}, {"not", IDENTITY_NOT}};

bool is_algebra(const struct node *map)
{
	return node_value(map, "any") || node_value(map, "all") || node_value(map, "not");
}

/* ---- unnamed identities ---- */

static const char *operand_name(const struct policy *policy, uint32_t atom)
{
	return atom < WHO_IDENTITY ? "verified" : policy->identities[atom - WHO_IDENTITY].name;
}

/* "not web", "any [web, db]", "all [web, not db]". */
static const char *set_text(struct reader *reader, enum identity_op op, const struct list *operands)
{
	char text[MAX_SET_TEXT + 1] = "";
	size_t len;

	if (op == IDENTITY_NOT) {
		snprintf(text, sizeof(text), "not %s", operand_name(reader->policy, operands->items[0]));
		return reader_keep(reader, text);
	}
	len = (size_t)snprintf(text, sizeof(text), "%s [", op == IDENTITY_ANY ? "any" : "all");
	for (size_t i = 0; i < operands->n && len < sizeof(text); i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s", i ? ", " : "",
					operand_name(reader->policy, operands->items[i]));
	if (len < sizeof(text) - 1)
		memcpy(text + len, "]", 2);
	else
		memcpy(text + MAX_SET_TEXT - 4, "...]", 5);
	return reader_keep(reader, text);
}

/* The number of what `key` describes: an identity that was made of it before, or a new one. Returns whether it is new. */
static bool find_unnamed(struct reader *reader, const void *key, size_t len, uint32_t *identityp)
{
	struct policy *policy = reader->policy;
	uint32_t number;
	int r = -ENOMEM;

	if (array_grow(&policy->identities, &policy->identities_capacity, policy->n_identities,
		       sizeof(*policy->identities)) == 0 &&
	    list_reserve(&reader->unnamed_owners) == 0)
		r = intern_bytes(&reader->unnamed, key, len, &number);
	if (r == 0) {
		*identityp = reader->unnamed_owners.items[number];
		return false;
	}
	*identityp = (uint32_t)policy->n_identities;
	if (r < 0) {
		reader->arena.out_of_memory = true;
		return false;
	}
	list_push(&reader->unnamed_owners, *identityp);
	policy->identities[policy->n_identities++] = (struct identity){.name = "", .unnamed = true};
	return true;
}

static bool unnamed_pattern(struct reader *reader, const struct node *node, uint32_t *identityp)
{
	struct pattern pattern;
	struct identity *identity;

	if (!read_pattern(reader, node, &pattern))
		return false;
	if (!find_unnamed(reader, node->text, strlen(node->text), identityp))
		return !reader->arena.out_of_memory;
	identity = &reader->policy->identities[*identityp];
	identity->at = node->at;
	identity->name = pattern.text;
	identity->patterns = arena_copy(&reader->policy->arena, &pattern, sizeof(pattern));
	identity->n_patterns = identity->patterns ? 1 : 0;
	return true;
}

/* ---- operands ---- */

static void report_builtin(struct reader *reader, const struct node *node, const char *name)
{
	reader_error(reader, node, "'%s' cannot be in set algebra, which is of verified and local identities", name);
	if (strcmp(name, "any") == 0)
		reader_hint(reader, "'verified' is every SPIFFE identity");
	else
		reader_hint(reader, "in a rule it can stand beside them: `from: [web, %s]`", name);
}

static bool read_operand_name(struct reader *reader, const struct node *node, uint32_t *atomp)
{
	const char *name = read_text(reader, node, "an identity in set algebra");
	uint32_t number, peer;
	bool any;

	if (!name)
		return false;
	if (strncmp(name, SPIFFE_SCHEME, strlen(SPIFFE_SCHEME)) == 0) {
		if (!unnamed_pattern(reader, node, &number))
			return false;
		*atomp = WHO_IDENTITY + number;
		return true;
	}
	if (is_builtin_peer(name, atomp, &any)) {
		if (!any && *atomp == WHO_VERIFIED)
			return true;
		report_builtin(reader, node, name);
		return false;
	}
	if (!intern_find(&reader->policy->peer_names, name, strlen(name), &number)) {
		report_peer(reader, node, name, WANT_IDENTITY, false);
		return false;
	}
	peer = reader->peers.items[number];
	if (peer & 1) {
		report_peer(reader, node, name, WANT_IDENTITY, true);
		reader_hint(reader, "`{identity: ..., network: %s}` in a rule asks for both", name);
		return false;
	}
	*atomp = WHO_IDENTITY + (peer >> 1);
	return true;
}

static bool read_operand(struct reader *reader, const struct node *node, uint32_t *atomp)
{
	uint32_t number;

	if (node->kind == NODE_SCALAR)
		return read_operand_name(reader, node, atomp);
	if (node->kind == NODE_LIST) {
		reader_error(reader, node, "a list within a list");
		reader_hint(reader, "`{any: [...]}` is what is in one of them, `{all: [...]}` what is in each");
		return false;
	}
	if (!read_unnamed(reader, node, &number))
		return false;
	*atomp = WHO_IDENTITY + number;
	return true;
}

/* Takes the one key of a map of set algebra. Returns its value, or NULL after an error. */
static const struct node *read_op(struct reader *reader, const struct node *map, enum identity_op *opp)
{
	const struct node *values[3] = {}, *value = NULL;
	const struct key keys[] = {{"any", &values[0]}, {"all", &values[1]}, {"not", &values[2]}};
	size_t errors = policy_diagnostics_count(reader->diagnostics, POLICY_ERROR);

	if (!read_keys(reader, map, "set algebra", keys, N_ITEMS(keys)))
		return NULL;
	if (policy_diagnostics_count(reader->diagnostics, POLICY_ERROR) != errors) {
		if (node_value(map, "unit") || node_value(map, "cgroup") || node_value(map, "spiffe"))
			reader_hint(reader, "give it a name of its own under `identities`, and use the name");
		else if (node_value(map, "network"))
			reader_hint(reader, "who and where together: `{identity: {not: web}, network: lan}`");
		return NULL;
	}
	for (size_t i = 0; i < N_ITEMS(ops); i++) {
		if (!values[i])
			continue;
		if (value) {
			reader_error(reader, map, "set algebra is one of `any`, `all` and `not`, not several");
			reader_hint(reader, "put one within the other: `{all: [web, {not: db}]}`");
			return NULL;
		}
		value = values[i];
		*opp = ops[i].op;
	}
	if (!value)
		reader_error(reader, map, "set algebra is one of `any`, `all` and `not`");
	return value;
}

/* Reads a map of set algebra into an operation and its operands. Returns false after an error. */
static bool read_algebra(struct reader *reader, const struct node *map, enum identity_op *opp, struct list *operands)
{
	const struct node *value = read_op(reader, map, opp);
	char what[16];
	struct items items;
	uint32_t atom;
	bool ok = true;

	if (!value)
		return false;
	snprintf(what, sizeof(what), "`%s`", ops[*opp - IDENTITY_ANY].key);
	if (*opp == IDENTITY_NOT && value->kind == NODE_LIST) {
		reader_error(reader, value, "`not` takes one identity, not a list");
		reader_hint(reader, "`{not: {any: [...]}}` is what is in none of them");
		return false;
	}
	if (!read_items(reader, value, what, &items))
		return false;
	if (items.n > POLICY_MAX_OPERANDS) {
		reader_error(reader, value, "%s has %u operands, the limit is %u", what, items.n, POLICY_MAX_OPERANDS);
		return false;
	}
	for (uint32_t i = 0; i < items.n; i++) {
		if (read_operand(reader, items.items[i], &atom))
			reader_push(reader, operands, atom);
		else
			ok = false;
	}
	list_sort_unique(operands);
	return ok && operands->n;
}

static void set_operands(struct reader *reader, uint32_t identity, enum identity_op op, const struct list *operands)
{
	struct identity *made = &reader->policy->identities[identity];

	made->op = op;
	made->operands = arena_copy(&reader->policy->arena, operands->items, operands->n * sizeof(uint32_t));
	made->n_operands = made->operands ? (uint32_t)operands->n : 0;
}

/* The nesting of a file bounds how deep this and read_operand call each other. */
bool read_unnamed(struct reader *reader, const struct node *map, uint32_t *identityp)
{
	_cleanup_(list_free) struct list operands = {}, key = {};
	enum identity_op op;

	if (!read_algebra(reader, map, &op, &operands))
		return false;
	/* No pattern begins with a byte as small as that of an operation. */
	reader_push(reader, &key, op);
	for (size_t i = 0; i < operands.n; i++)
		reader_push(reader, &key, operands.items[i]);
	if (find_unnamed(reader, key.items, key.n * sizeof(uint32_t), identityp)) {
		reader->policy->identities[*identityp].at = map->at;
		reader->policy->identities[*identityp].name = set_text(reader, op, &operands);
		set_operands(reader, *identityp, op, &operands);
	}
	return !reader->arena.out_of_memory;
}

void resolve_algebra(struct reader *reader)
{
	for (size_t i = 0; i < reader->n_algebra; i++) {
		_cleanup_(list_free) struct list operands = {};
		enum identity_op op;

		if (read_algebra(reader, reader->algebra[i].map, &op, &operands))
			set_operands(reader, reader->algebra[i].identity, op, &operands);
	}
}

/* ---- order ---- */

/* A walk from what is made of others down to what it is made of; a chain may be as long as the policy, so the stack is
 * no C stack. */
struct walk {
	struct reader *reader;
	enum draft_state *state; /* by identity */
	uint32_t *next;		 /* by identity: operand to look at */
	struct list path;	 /* of open identities */
	uint32_t n_ordered;
};

/* The cycle that comes back to `identity`, which is open: "a -> b -> a", told from the first of it that has a name. */
static void report_cycle(struct walk *walk, uint32_t identity)
{
	const struct identity *identities = walk->reader->policy->identities;
	const uint32_t *path = walk->path.items;
	char text[MAX_SET_TEXT * 2] = "";
	size_t n = 1, named = 0, len = 0;
	const struct identity *first;

	while (path[walk->path.n - n] != identity)
		n++;
	path += walk->path.n - n;
	while (named < n - 1 && identities[path[named]].unnamed)
		named++;
	first = &identities[path[named]];
	for (size_t i = 0; i <= n && len < sizeof(text); i++) {
		const struct identity *at = &identities[path[(named + i) % n]];

		if (!at->unnamed)
			len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s", len ? " -> " : "", at->name);
	}
	if (len >= sizeof(text))
		memcpy(text + sizeof(text) - 4, "...", 4);
	diagnostics_error(walk->reader->diagnostics, first->at, "the identity '%s' is made of itself: %s", first->name,
			  text);
}

static void walk_from(struct walk *walk, uint32_t start)
{
	struct policy *policy = walk->reader->policy;

	walk->path.n = 0;
	reader_push(walk->reader, &walk->path, start);
	walk->state[start] = DRAFT_OPEN;
	while (walk->path.n && !walk->reader->arena.out_of_memory) {
		uint32_t at = walk->path.items[walk->path.n - 1], atom;
		const struct identity *identity = &policy->identities[at];

		if (walk->next[at] == identity->n_operands) {
			walk->state[at] = DRAFT_DONE;
			policy->identity_order[walk->n_ordered++] = at;
			walk->path.n--;
			continue;
		}
		atom = identity->operands[walk->next[at]++];
		if (atom < WHO_IDENTITY || walk->state[atom - WHO_IDENTITY] == DRAFT_DONE)
			continue;
		if (walk->state[atom - WHO_IDENTITY] == DRAFT_OPEN) {
			report_cycle(walk, atom - WHO_IDENTITY);
			continue;
		}
		walk->state[atom - WHO_IDENTITY] = DRAFT_OPEN;
		reader_push(walk->reader, &walk->path, atom - WHO_IDENTITY);
	}
}

void order_identities(struct reader *reader)
{
	struct policy *policy = reader->policy;
	size_t n = policy->n_identities;
	struct walk walk = {.reader = reader};

	policy->identity_order = arena_array(&policy->arena, n, sizeof(*policy->identity_order));
	walk.state = arena_array(&reader->arena, n, sizeof(*walk.state));
	walk.next = arena_array(&reader->arena, n, sizeof(*walk.next));
	if (!policy->identity_order || !walk.state || !walk.next)
		return;
	/* Named ones first, so that a cycle is told from a name. */
	for (uint32_t i = 0; i < n; i++)
		if (walk.state[i] == DRAFT_READ)
			walk_from(&walk, i);
	list_free(&walk.path);
	for (size_t i = walk.n_ordered; i-- > 0;) {
		const struct identity *identity = &policy->identities[policy->identity_order[i]];

		for (uint32_t j = 0; identity->used && j < identity->n_operands; j++)
			if (identity->operands[j] >= WHO_IDENTITY)
				policy->identities[identity->operands[j] - WHO_IDENTITY].used = true;
	}
}
