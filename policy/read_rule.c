/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read_rule.c - rules: selectors, services, and the names in them.
 */
#include <errno.h>
#include <stdlib.h>
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

static void push(struct reader *reader, struct list *list, uint32_t item)
{
	if (list_push(list, item) < 0)
		reader->arena.out_of_memory = true;
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
	if (!diagnostics_may_suggest(reader->diagnostics))
		return;
	for (size_t i = 0; identities && i < policy->n_identities; i++)
		suggestion_offer(&suggestion, policy->identities[i].name);
	for (size_t i = 0; networks && i < policy->n_networks; i++)
		suggestion_offer(&suggestion, policy->networks[i].name);
	for (size_t i = 0; identities && i < sizeof(builtins) / sizeof(builtins[0]); i++)
		suggestion_offer(&suggestion, builtins[i]);
	if (suggestion.best)
		reader_hint(reader, "did you mean '%s'?", suggestion.best);
}

#define WANT_IDENTITY 1U
#define WANT_NETWORK 2U

static void report_peer(struct reader *reader, const struct node *node, const char *name, unsigned want, bool defined)
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

static void gather_peer(struct reader *reader, const struct node *node, const char *what, unsigned want,
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
			push(reader, &gathering->who, atom);
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
		push(reader, &gathering->networks, peer >> 1);
	} else {
		policy->identities[peer >> 1].used = true;
		push(reader, &gathering->who, WHO_IDENTITY + (peer >> 1));
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
	const struct key keys[] = {
		{"identity", &identity}, {"network", &network}, {"any", NULL}, {"all", NULL}, {"not", NULL}};
	bool whoever;

	if (!read_keys(reader, map, what, keys, sizeof(keys) / sizeof(keys[0])))
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
	add_term(reader, selector, whoever ? NULL : &gathering->who, network ? &gathering->networks : NULL);
}

static void read_selector(struct reader *reader, const struct node *rule, const struct node *node, const char *what,
			  struct selector *selector)
{
	_cleanup_(gathering_free) struct gathering gathering = {};
	char quoted[16];

	if (!node) {
		reader_error(reader, rule, "the rule has no `%s`", what);
		reader_hint(reader, "`%s: any` is every peer", what);
		return;
	}
	snprintf(quoted, sizeof(quoted), "`%s`", what);
	selector->terms = arena_array(&reader->policy->arena, 2, sizeof(*selector->terms));
	if (!selector->terms)
		return;
	if (node->kind == NODE_MAP) {
		read_pair(reader, node, quoted, &gathering, selector);
		return;
	}
	gather_peers(reader, node, quoted, WANT_IDENTITY | WANT_NETWORK, &gathering);
	if (gathering.any) {
		add_term(reader, selector, NULL, NULL);
		return;
	}
	list_sort_unique(&gathering.who);
	list_sort_unique(&gathering.networks);
	if (gathering.who.n)
		add_term(reader, selector, &gathering.who, NULL);
	if (gathering.networks.n)
		add_term(reader, selector, NULL, &gathering.networks);
}

static void report_service(struct reader *reader, const struct node *node, const char *name)
{
	struct suggestion suggestion = {.wrong = name};
	uint32_t number;

	if (reader->incomplete)
		return;
	reader_error(reader, node, "no service is named '%.100s'", name);
	if (strcmp(name, "any") == 0) {
		reader_hint(reader, "a rule without `service` is about every service");
		return;
	}
	if (intern_find(&reader->policy->peer_names, name, strlen(name), &number)) {
		reader_hint(reader, "'%s' is %s", name, reader->peers.items[number] & 1 ? "a network" : "an identity");
		return;
	}
	if (!diagnostics_may_suggest(reader->diagnostics))
		return;
	for (size_t i = 0; i < reader->policy->n_services; i++)
		suggestion_offer(&suggestion, reader->policy->services[i].name);
	if (suggestion.best)
		reader_hint(reader, "did you mean '%s'?", suggestion.best);
}

struct ranges {
	struct service_range *items;
	size_t n, capacity;
};

static void ranges_free(struct ranges *ranges)
{
	free(ranges->items);
}

static void push_range(struct reader *reader, struct ranges *ranges, struct service_range range)
{
	if (array_grow(&ranges->items, &ranges->capacity, ranges->n, sizeof(range)) < 0)
		reader->arena.out_of_memory = true;
	else
		ranges->items[ranges->n++] = range;
}

static void gather_service(struct reader *reader, const struct node *node, struct ranges *ranges)
{
	const char *name = read_text(reader, node, "`service`");
	struct service_range range;
	struct service *service;
	uint32_t number;
	bool ok;

	if (!name)
		return;
	if (read_inline_service(reader, node, name, &range, &ok)) {
		if (ok)
			push_range(reader, ranges, range);
		return;
	}
	if (!intern_find(&reader->service_names, name, strlen(name), &number)) {
		report_service(reader, node, name);
		return;
	}
	service = &reader->policy->services[number];
	service->used = true;
	for (uint32_t i = 0; i < service->n_ranges; i++)
		push_range(reader, ranges, service->ranges[i]);
}

static void read_services(struct reader *reader, const struct node *node, struct rule *rule)
{
	_cleanup_(ranges_free) struct ranges ranges = {};
	struct items items;

	if (node) {
		if (!read_items(reader, node, "`service`", &items))
			return;
		for (uint32_t i = 0; i < items.n; i++)
			gather_service(reader, items.items[i], &ranges);
	} else {
		push_range(reader, &ranges, (struct service_range){SERVICE_TCP, SERVICE_UDP - 1});
		push_range(reader, &ranges, (struct service_range){SERVICE_UDP, SERVICE_SCTP - 1});
		push_range(reader, &ranges, (struct service_range){SERVICE_ICMP, SERVICE_ICMP6 - 1});
		push_range(reader, &ranges, (struct service_range){SERVICE_ICMP6, SERVICE_PROTO - 1});
	}
	rule->n_services = service_normalise(ranges.items, (uint32_t)ranges.n);
	rule->services = arena_copy(&reader->policy->arena, ranges.items, rule->n_services * sizeof(*rule->services));
}

static void read_rule_name(struct reader *reader, const struct node *rule_node, const struct node *node,
			   struct rule *rule)
{
	uint32_t number;
	int r;

	if (!node) {
		reader_error(reader, rule_node, "the rule has no `name`");
		return;
	}
	if (!read_name(reader, node, "a rule", POLICY_MAX_RULE_NAME, &rule->name))
		return;
	if (strcmp(rule->name, "default") == 0) {
		reader_error(reader, node, "'default' is a built-in name and cannot be defined");
		return;
	}
	r = list_reserve(&reader->rule_owners) < 0
		    ? -ENOMEM
		    : intern_bytes(&reader->rule_names, rule->name, strlen(rule->name), &number);
	if (r < 0)
		reader->arena.out_of_memory = true;
	if (r == 1)
		list_push(&reader->rule_owners, (uint32_t)reader->policy->n_rules);
	if (r != 0)
		return;
	reader_error(reader, node, "duplicate name '%s': it is a rule already", rule->name);
	number = reader->rule_owners.items[number];
	reader_hint(reader, "defined at %s", reader_where(reader, reader->policy->rules[number].at));
}

static void read_words(struct reader *reader, const struct node *node, const struct node *action,
		       const struct node *direction, const struct node *log, struct rule *rule)
{
	static const char *const actions[] = {"deny", "allow"};
	static const char *const directions[] = {"egress", "ingress", "both"};
	static const char *const logs[] = {"none", "new", "denied", "all"};
	int word;

	if (!action)
		reader_error(reader, node, "the rule has no `action`: allow or deny");
	else if (action->kind == NODE_SCALAR && strcmp(action->text, "pass") == 0)
		reader_error(reader, action, "`action: pass` is not supported yet by this version");
	else
		rule->action = read_word(reader, action, "`action`", actions, 2) == 1 ? RULE_ALLOW : RULE_DENY;
	if (direction) {
		word = read_word(reader, direction, "`direction`", directions, 3);
		rule->directions = word < 0 ? rule->directions : (unsigned)word + 1;
	}
	if (log) {
		word = read_word(reader, log, "`log`", logs, 4);
		rule->log = word < 0 ? rule->log : (enum rule_log)word;
	}
}

void read_rule(struct reader *reader, const struct node *node)
{
	const struct node *name = NULL, *action = NULL, *from = NULL, *to = NULL, *service = NULL, *direction = NULL,
			  *log = NULL;
	const struct key keys[] = {
		{"name", &name}, {"action", &action},	{"from", &from},
		{"to", &to},	 {"service", &service}, {"direction", &direction},
		{"log", &log},	 {"tier", NULL},	{"priority", NULL},
		{"mode", NULL},	 {"until", NULL},
	};
	struct policy *policy = reader->policy;
	struct rule rule = {
		.at = node->at,
		.directions = RULE_EGRESS | RULE_INGRESS,
		.log = policy->default_log,
	};

	if (array_grow(&policy->rules, &policy->rules_capacity, policy->n_rules, sizeof(rule)) < 0) {
		policy->arena.out_of_memory = true;
		return;
	}
	if (!read_keys(reader, node, "a rule", keys, sizeof(keys) / sizeof(keys[0])))
		return;
	read_rule_name(reader, node, name, &rule);
	read_words(reader, node, action, direction, log, &rule);
	read_selector(reader, node, from, "from", &rule.from);
	read_selector(reader, node, to, "to", &rule.to);
	read_services(reader, service, &rule);
	policy->rules[policy->n_rules++] = rule;
}
