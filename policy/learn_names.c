/* SPDX-License-Identifier: Apache-2.0 */
/*
 * learn_names.c - short names that tell peers apart: of an ID the last segment, and as much before it as is needed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/learner.h"
#include "policy/read.h"

static bool fits_in_name(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
	       c == '-';
}

/* Makes a name of a text, in place: what a name may not have becomes '-', what it may not begin with goes, and of one that
 * is too long the beginning. */
static char *make_name(char *text, size_t max)
{
	size_t len = strlen(text), skip;

	for (size_t i = 0; i < len; i++)
		if (!fits_in_name(text[i]))
			text[i] = '-';
	skip = len > max ? len - max : 0;
	skip += strspn(text + skip, "-._");
	memmove(text, text + skip, len - skip + 1);
	return text;
}

static bool is_used(const struct learn *learn, const struct intern *names, const char *name)
{
	uint32_t number;
	bool any;

	return !*name || is_builtin_peer(name, &number, &any) || intern_find(names, name, strlen(name), &number) ||
	       (learn->options.against &&
		intern_find(&learn->options.against->peer_names, name, strlen(name), &number));
}

/* The name, or the name with a number, whichever is free; from now on it is not. Returns NULL when out of memory. */
static const char *take_name(struct learn *learn, const char *name)
{
	uint32_t number;
	const char *text = name;

	for (unsigned i = 2; is_used(learn, &learn->names, text); i++) {
		char *longer =
			arena_printf(&learn->arena, "%.*s-%u", (int)(POLICY_MAX_NAME - 11), *name ? name : "peer", i);

		if (!longer)
			return NULL;
		text = longer;
	}
	return intern_bytes(&learn->names, text, strlen(text), &number) < 0 ? NULL : text;
}

/* ---- identities ---- */

static bool is_number(const char *segment, size_t len)
{
	return strspn(segment, "0123456789-._") >= len;
}

/* What an ID can be called: its last segment that counts, then with one before it, then all of the path, then all. The
 * segment in which the members of a list differ does not count where there is another; a mere number says too little. */
static char *id_name(struct learn *learn, const struct atom *atom, uint32_t level)
{
	const char *id = learn->peers[atom->members.items[0]].text;
	uint32_t n = spiffe_segments(id), last = n - 1;
	size_t len = 0, other_len = 0;
	const char *segment, *other;
	char *text = NULL;

	if (atom->varies == last && last > 1)
		last--;
	segment = spiffe_segment(id, last, &len);
	level += last > 1 && is_number(segment, len);
	if (level == 0) {
		text = arena_printf(&learn->arena, "%.*s", (int)len, segment);
		/* web-1 and web-2 are web. */
		for (size_t i = len; text && atom->varies == last && i > 1 && strchr("0123456789-._", text[i - 1]); i--)
			text[i - 1] = 0;
	} else if (level < last) {
		other = spiffe_segment(id, last - level, &other_len);
		text = arena_printf(&learn->arena, "%.*s-%.*s", (int)other_len, other, (int)len, segment);
	} else {
		other = spiffe_segment(id, level == last ? 1 : 0, &other_len);
		text = arena_printf(&learn->arena, "%.*s", (int)(segment + len - other), other);
	}
	return text ? make_name(text, POLICY_MAX_NAME) : NULL;
}

#define MAX_LEVELS 12U /* rounds; then numbers tell them apart */

static bool is_new_id(const struct atom *atom)
{
	return atom->kind == PEER_SPIFFE && !atom->defined;
}

#define MAX_ROUNDS 12U /* then numbers tell them apart */

/* Finds a name of its level for each. All that share one, or have a used one, go on to their next level together, so that
 * none of them has the name of all. Returns how many do, or -ENOMEM. */
static int try_names(struct learn *learn, uint32_t *levels, uint32_t *counts)
{
	_cleanup_(intern_free) struct intern names = {};
	uint32_t number = 0;
	int moved = 0;

	memset(counts, 0, learn->n_atoms * sizeof(*counts));
	for (uint32_t i = 0; i < learn->n_atoms; i++) {
		struct atom *atom = &learn->atoms[i];

		if (!is_new_id(atom))
			continue;
		atom->name = id_name(learn, atom, levels[i]);
		if (!atom->name || intern_bytes(&names, atom->name, strlen(atom->name), &number) < 0)
			return -ENOMEM;
		counts[number]++;
	}
	for (uint32_t i = 0; i < learn->n_atoms; i++) {
		const char *name = learn->atoms[i].name;

		if (!is_new_id(&learn->atoms[i]) || !intern_find(&names, name, strlen(name), &number) ||
		    (counts[number] < 2 && !is_used(learn, &learn->names, name)))
			continue;
		levels[i]++;
		moved++;
	}
	return moved;
}

static int name_ids(struct learn *learn)
{
	uint32_t *levels = arena_array(&learn->arena, learn->n_atoms, sizeof(*levels));
	uint32_t *counts = arena_array(&learn->arena, learn->n_atoms, sizeof(*counts));
	int moved = 1;

	if (!levels || !counts)
		return -ENOMEM;
	for (uint32_t round = 0; moved > 0 && round < MAX_ROUNDS; round++)
		moved = try_names(learn, levels, counts);
	if (moved < 0)
		return -ENOMEM;
	for (uint32_t i = 0; i < learn->n_atoms; i++) {
		struct atom *atom = &learn->atoms[i];

		if (is_new_id(atom))
			atom->name = take_name(learn, atom->name);
		if (is_new_id(atom) && !atom->name)
			return -ENOMEM;
	}
	return 0;
}

static int name_local(struct learn *learn, struct atom *atom)
{
	const struct policy *against = learn->options.against;
	const char *name = learn->peers[atom->members.items[0]].text;
	char *copy;

	for (size_t i = 0; against && i < against->n_identities; i++) {
		const struct identity *identity = &against->identities[i];

		if (!identity->n_places || strcmp(identity->name, name) != 0)
			continue;
		atom->defined = true;
		atom->name = identity->name;
		return 0;
	}
	copy = arena_copy(&learn->arena, name, strlen(name));
	atom->name = copy ? take_name(learn, make_name(copy, POLICY_MAX_NAME)) : NULL;
	return atom->name ? 0 : -ENOMEM;
}

/* ---- networks ---- */

/* The only one that these addresses have to do with, if all they do is to call it, or to be called by it. */
static const struct atom *only_partner(const struct learn *learn, uint32_t atom, bool *callsp)
{
	uint32_t partner = NO_PEER;
	bool calls = false, called = false;

	for (size_t i = 0; i < learn->n_cells; i++) {
		const uint32_t *at = learn->cells[i].at;
		uint32_t other = at[0] == atom ? at[1] : at[0];

		if (at[0] != atom && at[1] != atom)
			continue;
		calls |= at[0] == atom;
		called |= at[1] == atom;
		if (partner != NO_PEER && partner != other)
			return NULL;
		partner = other;
	}
	*callsp = calls;
	if (calls == called || partner == NO_PEER || learn->atoms[partner].kind > PEER_LOCAL)
		return NULL;
	return &learn->atoms[partner];
}

static int name_network(struct learn *learn, uint32_t index)
{
	struct atom *atom = &learn->atoms[index];
	char text[ADDRESS_TEXT_BYTES], *name;
	const struct atom *partner;
	address a = learn->peers[atom->members.items[0]].address;
	bool calls = false;

	partner = only_partner(learn, index, &calls);
	if (partner) {
		name = arena_printf(&learn->arena, calls ? "clients-of-%.40s" : "called-by-%.40s", partner->name);
	} else {
		address_format(text, a, address_is_v4(a), address_is_v4(a) ? 32 : 128);
		*strchr(text, '/') = 0;
		name = atom->members.n == 1
			       ? arena_printf(&learn->arena, "at-%s", text)
			       : arena_printf(&learn->arena, "at-%s-and-%zu-more", text, atom->members.n - 1);
	}
	if (!name)
		return -ENOMEM;
	atom->name = take_name(learn, make_name(name, POLICY_MAX_NAME));
	return atom->name ? 0 : -ENOMEM;
}

int learn_name_atoms(struct learn *learn)
{
	int r = 0;

	for (uint32_t i = 0; i < learn->n_atoms && r == 0; i++) {
		if (learn->atoms[i].kind == PEER_LOCAL)
			r = name_local(learn, &learn->atoms[i]);
		else if (learn->atoms[i].kind == PEER_HOST)
			learn->atoms[i].name = "host";
	}
	r = r < 0 ? r : name_ids(learn);
	for (uint32_t i = 0; i < learn->n_atoms && r == 0; i++)
		if (learn->atoms[i].kind == PEER_ADDRESS && !learn->atoms[i].defined)
			r = name_network(learn, i);
	return r;
}

/* ---- rules ---- */

static bool rule_is_used(const struct learn *learn, const char *name)
{
	uint32_t number;

	return strcmp(name, "default") == 0 || intern_find(&learn->rule_names, name, strlen(name), &number);
}

/* Networks that were named after those who use them would make the name of a rule go round in a circle. */
static const char *name_in_rule(const struct learn *learn, uint32_t index)
{
	const struct atom *atom = &learn->atoms[index];

	return atom->kind == PEER_ADDRESS && !atom->defined ? "world" : atom->name;
}

static void side_name(const struct learn *learn, char *out, size_t size, const uint32_t *atoms, uint32_t n)
{
	const char *first = name_in_rule(learn, atoms[0]);

	if (n == 1)
		snprintf(out, size, "%.56s", first);
	else if (n == 2)
		snprintf(out, size, "%.26s-and-%.26s", first, name_in_rule(learn, atoms[1]));
	else
		snprintf(out, size, "%.40s-and-%u-more", first, n - 1);
}

const char *learn_name_rule(struct learn *learn, const uint32_t *from, uint32_t n_from, const uint32_t *to,
			    uint32_t n_to)
{
	char source[64], destination[64];
	const char *text;
	char *name;
	uint32_t number;

	side_name(learn, source, sizeof(source), from, n_from);
	side_name(learn, destination, sizeof(destination), to, n_to);
	name = arena_printf(&learn->arena, "%s-to-%s", source, destination);
	text = name;
	for (unsigned i = 2; text && rule_is_used(learn, text); i++)
		text = arena_printf(&learn->arena, "%.110s-%u", name, i);
	if (!text || intern_bytes(&learn->rule_names, text, strlen(text), &number) < 0)
		return NULL;
	return text;
}
