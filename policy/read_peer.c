/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read_peer.c - the names of peers: built-in ones, identities and networks, which share one space of names.
 */
#include <errno.h>
#include <string.h>

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
		if (name[0] == builtins[i].name[0] && strcmp(name, builtins[i].name) == 0) {
			*atomp = builtins[i].atom;
			return true;
		}
	return *anyp;
}

bool define_peer(struct reader *reader, const struct node *key, const char *name, bool network, size_t index)
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

static void suggest_peer(struct reader *reader, const char *name, bool identities, bool networks)
{
	static const char *const builtins[] = {"any", "verified", "unidentified", "host", "world"};
	const struct policy *policy = reader->policy;
	struct suggestion suggestion = {.wrong = name};
	struct address_range range;
	uint32_t number;

	if (strncmp(name, SPIFFE_SCHEME, strlen(SPIFFE_SCHEME)) == 0) {
		reader_hint(reader, "a rule names identities: give the SPIFFE ID a name under `identities`");
		return;
	}
	if (address_range_parse(&range, name) != ADDRESS_INVALID) {
		reader_hint(reader, "a rule names networks: give the address a name under `networks`");
		return;
	}
	if (intern_find(&reader->service_names, name, strlen(name), &number)) {
		reader_hint(reader, "'%s' is a service", name);
		return;
	}
	if (!diagnostics_may_suggest(reader->diagnostics, policy->n_identities + policy->n_networks + 5))
		return;
	for (size_t i = 0; identities && i < policy->n_identities; i++)
		if (!policy->identities[i].unnamed)
			suggestion_offer(&suggestion, policy->identities[i].name);
	for (size_t i = 0; networks && i < policy->n_networks; i++)
		suggestion_offer(&suggestion, policy->networks[i].name);
	for (size_t i = 0; identities && i < sizeof(builtins) / sizeof(builtins[0]); i++)
		suggestion_offer(&suggestion, builtins[i]);
	if (suggestion.best)
		reader_hint(reader, "did you mean '%s'?", suggestion.best);
}

void report_peer(struct reader *reader, const struct node *node, const char *name, unsigned want, bool defined)
{
	if (defined) {
		reader_error(reader, node, "'%s' is %s", name,
			     want == WANT_NETWORK ? "an identity, not a network" : "a network, not an identity");
		return;
	}
	if (reader->incomplete)
		return;
	reader_error(reader, node, "no %s is named '%.100s'",
		     want == WANT_NETWORK    ? "network"
		     : want == WANT_IDENTITY ? "identity"
					     : "identity or network",
		     name);
	suggest_peer(reader, name, want & WANT_IDENTITY, want & WANT_NETWORK);
}
