/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read_selector.c - whom a rule, test or invariant is about: names, set algebra, and identity and network together.
 */
#include <string.h>

#include "policy/read.h"

/* Lists in the making; `any` swallows all else. */
struct gathering {
	struct list who;
	struct list networks;
	bool any;
};

static void gathering_free(struct gathering *gathering)
{
	list_free(&gathering->who);
	list_free(&gathering->networks);
}

static void gather_name(struct reader *reader, const struct node *node, const char *what, unsigned want,
			struct gathering *gathering)
{
	const char *name = read_text(reader, node, what);
	struct policy *policy = reader->policy;
	uint32_t number, atom, peer;
	bool any, network;

	if (!name)
		return;
	if (is_builtin_peer(name, &atom, &any)) {
		if (want == WANT_NETWORK)
			reader_error(reader, node, "'%s' is not a network", name);
		else if (any)
			gathering->any = true;
		else
			reader_push(reader, &gathering->who, atom);
		return;
	}
	if (!intern_find(&policy->peer_names, name, strlen(name), &number)) {
		report_peer(reader, node, name, want, false);
		return;
	}
	peer = reader->peers.items[number];
	network = peer & 1;
	if (!(want & (network ? WANT_NETWORK : WANT_IDENTITY))) {
		report_peer(reader, node, name, want, true);
	} else if (network) {
		policy->networks[peer >> 1].used = true;
		reader_push(reader, &gathering->networks, peer >> 1);
	} else {
		policy->identities[peer >> 1].used = true;
		reader_push(reader, &gathering->who, WHO_IDENTITY + (peer >> 1));
	}
}

static void gather_peer(struct reader *reader, const struct node *node, const char *what, unsigned want,
			struct gathering *gathering)
{
	uint32_t identity;

	if (!is_algebra(node)) {
		if (node->kind == NODE_MAP && (node_value(node, "identity") || node_value(node, "network"))) {
			reader_error(reader, node, "`identity` with `network` cannot be in a list");
			reader_hint(reader, "it stands alone in %s; write a rule for each", what);
			return;
		}
		gather_name(reader, node, what, want, gathering);
	} else if (!(want & WANT_IDENTITY)) {
		reader_error(reader, node, "set algebra is of identities, not of networks");
		reader_hint(reader, "a network is made by `{include: [...], except: [...]}` under `networks`");
	} else if (read_unnamed(reader, node, &identity)) {
		reader->policy->identities[identity].used = true;
		reader_push(reader, &gathering->who, WHO_IDENTITY + identity);
	}
}

static void gather_peers(struct reader *reader, const struct node *node, const char *what, unsigned want,
			 struct gathering *gathering)
{
	struct items items;

	if (!read_items(reader, node, what, &items))
		return;
	for (uint32_t i = 0; i < items.n; i++)
		gather_peer(reader, items.items[i], what, want, gathering);
}

static void add_term(struct reader *reader, struct selector *selector, const struct list *who,
		     const struct list *networks)
{
	struct arena *arena = &reader->policy->arena;
	struct selector_term *term = &selector->terms[selector->n_terms++];

	if (who) {
		term->n_who = (uint32_t)who->n;
		term->who = arena_copy(arena, who->items, who->n * sizeof(uint32_t));
	}
	if (networks) {
		term->n_networks = (uint32_t)networks->n;
		term->networks = arena_copy(arena, networks->items, networks->n * sizeof(uint32_t));
	}
}

/* {identity: X, network: Y}: both must match. */
static void read_pair(struct reader *reader, const struct node *map, const char *what, struct gathering *gathering,
		      struct selector *selector)
{
	const struct node *identity = NULL, *network = NULL;
	const struct key keys[] = {{"identity", &identity}, {"network", &network}};
	bool whoever;

	if (!read_keys(reader, map, what, keys, N_ITEMS(keys)))
		return;
	if (!identity && !network) {
		if (!map->n)
			reader_error(reader, map, "%s is empty", what);
		return;
	}
	if (identity)
		gather_peers(reader, identity, "`identity`", WANT_IDENTITY, gathering);
	if (network)
		gather_peers(reader, network, "`network`", WANT_NETWORK, gathering);
	list_sort_unique(&gathering->who);
	list_sort_unique(&gathering->networks);
	whoever = gathering->any || !identity;
	/* A list that stayed empty after errors would ask nothing; the policy is refused, but keep to the form. */
	if ((!whoever && !gathering->who.n) || (network && !gathering->networks.n))
		return;
	selector->terms = arena_array(&reader->policy->arena, 1, sizeof(*selector->terms));
	if (selector->terms)
		add_term(reader, selector, whoever ? NULL : &gathering->who, network ? &gathering->networks : NULL);
}

void read_selector(struct reader *reader, const struct node *owner, const char *what, const struct node *node,
		   const char *key, struct selector *selector)
{
	_cleanup_(gathering_free) struct gathering gathering = {};
	char quoted[16] = "`";

	if (!node) {
		reader_error(reader, owner, "%s has no `%s`", what, key);
		reader_hint(reader, "`%s: any` is every peer", key);
		return;
	}
	/* Twice for each rule, so not by printf(). All keys are short words of ours. */
	stpcpy(stpcpy(quoted + 1, key), "`");
	if (node->kind == NODE_MAP && !is_algebra(node)) {
		read_pair(reader, node, quoted, &gathering, selector);
		return;
	}
	gather_peers(reader, node, quoted, WANT_IDENTITY | WANT_NETWORK, &gathering);
	list_sort_unique(&gathering.who);
	list_sort_unique(&gathering.networks);
	selector->terms = arena_array(&reader->policy->arena, 2, sizeof(*selector->terms));
	if (!selector->terms)
		return;
	if (gathering.any) {
		add_term(reader, selector, NULL, NULL);
		return;
	}
	if (gathering.who.n)
		add_term(reader, selector, &gathering.who, NULL);
	if (gathering.networks.n)
		add_term(reader, selector, NULL, &gathering.networks);
}
