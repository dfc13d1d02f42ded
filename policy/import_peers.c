/* SPDX-License-Identifier: Apache-2.0 */
/*
 * import_peers.c - peers and ports of the rules of Kubernetes policies.
 */
#include <stdlib.h>
#include <string.h>

#include "policy/import_objects.h"

/* ---- ports ---- */

static const char *const protocol_words[] = {"TCP", "UDP", "SCTP"};
static const uint32_t protocol_points[] = {SERVICE_TCP, SERVICE_UDP, SERVICE_SCTP};

/* The first point of a protocol; TCP where none is given. */
static bool read_protocol(struct kube *kube, const struct node *node, uint32_t *pointp)
{
	int word = node ? read_word(&kube->reader, node, "`protocol`", protocol_words, 3) : 0;

	*pointp = word < 0 ? 0 : protocol_points[word];
	return word >= 0;
}

static bool is_number(const struct node *node)
{
	return node->kind == NODE_SCALAR && node->text[0] && strspn(node->text, "0123456789") == strlen(node->text);
}

/* {protocol, port, endPort} of a NetworkPolicy. */
static bool read_namespace_port(struct kube *kube, const struct node *node, struct kube_port *port)
{
	const struct node *protocol = NULL, *number = NULL, *end = NULL;
	const struct key keys[] = {{"protocol", &protocol}, {"port", &number}, {"endPort", &end}};
	struct reader *reader = &kube->reader;
	uint32_t first = 1, last = 65535;

	if (!import_fields(reader, node, "an item of `ports`", keys, 3) ||
	    !read_protocol(kube, protocol, &port->protocol))
		return false;
	if (end && (!number || !is_number(number))) {
		reader_error(reader, end, "`endPort` needs a `port` that is a number");
		return false;
	}
	if (number && !is_number(number)) {
		port->name = read_text(reader, number, "`port`");
		return port->name;
	}
	if (number) {
		if (!import_number(reader, number, "`port`", 1, 65535, &first))
			return false;
		last = first;
	}
	if (end && !import_number(reader, end, "`endPort`", first, 65535, &last))
		return false;
	port->range = (struct service_range){port->protocol + (number ? first : 0), port->protocol + last};
	return true;
}

/* {portNumber: }, {portRange: } or {namedPort: } of an AdminNetworkPolicy. */
static bool read_admin_port(struct kube *kube, const struct node *node, struct kube_port *port)
{
	const struct node *number = NULL, *range = NULL, *named = NULL, *protocol = NULL, *start = NULL, *end = NULL;
	const struct key keys[] = {{"portNumber", &number}, {"portRange", &range}, {"namedPort", &named}};
	const struct key number_keys[] = {{"protocol", &protocol}, {"port", &start}};
	const struct key range_keys[] = {{"protocol", &protocol}, {"start", &start}, {"end", &end}};
	struct reader *reader = &kube->reader;
	uint32_t first, last;

	if (!import_fields(reader, node, "an item of `ports`", keys, 3))
		return false;
	if (!!number + !!range + !!named != 1) {
		reader_error(reader, node, "a port has one of `portNumber`, `portRange` and `namedPort`");
		return false;
	}
	if (named) {
		port->name = read_text(reader, named, "`namedPort`");
		port->protocol = KUBE_ANY_PROTOCOL;
		return port->name;
	}
	if (number ? !import_fields(reader, number, "`portNumber`", number_keys, 2)
		   : !import_fields(reader, range, "`portRange`", range_keys, 3))
		return false;
	if (!start || (range && !end)) {
		reader_error(reader, number ? number : range, "it has no `%s`",
			     number   ? "port"
			     : !start ? "start"
				      : "end");
		return false;
	}
	if (!read_protocol(kube, protocol, &port->protocol) ||
	    !import_number(reader, start, number ? "`port`" : "`start`", 1, 65535, &first))
		return false;
	last = first;
	if (range && !import_number(reader, end, "`end`", first, 65535, &last))
		return false;
	port->range = (struct service_range){port->protocol + first, port->protocol + last};
	return true;
}

bool kube_read_ports(struct kube *kube, const struct node *node, enum kube_kind kind, struct kube_rule *rule)
{
	struct items items;
	bool ok = true;

	if (!import_list(&kube->reader, node, "`ports`", &items))
		return false;
	rule->ports = arena_array(&kube->reader.arena, items.n, sizeof(*rule->ports));
	for (uint32_t i = 0; i < items.n && rule->ports; i++) {
		struct kube_port *port = &rule->ports[rule->n_ports++];

		port->at = items.items[i]->at;
		ok &= kind == KUBE_NAMESPACE ? read_namespace_port(kube, items.items[i], port)
					     : read_admin_port(kube, items.items[i], port);
	}
	return ok && rule->ports;
}

/* ---- peers ---- */

struct gathering {
	struct list workloads;
	struct kube_network *networks;
	size_t n, capacity;
};

static void gathering_free(struct gathering *gathering)
{
	list_free(&gathering->workloads);
	free(gathering->networks);
}

static void gather(struct kube *kube, struct gathering *gathering, const struct selection *selection)
{
	for (uint32_t i = 0; i < selection->n; i++)
		if (list_push(&gathering->workloads, selection->items[i]) < 0)
			kube->reader.arena.out_of_memory = true;
}

static void gather_network(struct kube *kube, struct gathering *gathering, struct kube_network network)
{
	if (array_grow(&gathering->networks, &gathering->capacity, gathering->n, sizeof(network)) < 0)
		kube->reader.arena.out_of_memory = true;
	else
		gathering->networks[gathering->n++] = network;
}

static bool read_cidr(struct kube *kube, const struct node *node, const char *what, struct address_range *block)
{
	const char *text = read_text(&kube->reader, node, what);
	char right[ADDRESS_TEXT_BYTES];
	enum address_problem problem;

	if (!text)
		return false;
	problem = strchr(text, '/') ? address_range_parse(block, text) : ADDRESS_INVALID;
	if (problem == ADDRESS_OK)
		return true;
	if (problem != ADDRESS_HOST_BITS) {
		reader_error(&kube->reader, node, "%s '%.60s' is not a CIDR block%s", what, text,
			     problem == ADDRESS_MAPPED ? ": give IPv4 addresses as such" : "");
		return false;
	}
	/* Kubernetes takes it and masks it. */
	address_format(right, block->first, block->v4, (unsigned)strtoul(strchr(text, '/') + 1, NULL, 10));
	diagnostics_warning(kube->reader.diagnostics, node->at,
			    "%s '%.60s' has bits set behind the prefix: %s is meant", what, text, right);
	return true;
}

static bool read_block(struct kube *kube, const struct node *node, struct gathering *gathering)
{
	const struct node *cidr = NULL, *except = NULL;
	const struct key keys[] = {{"cidr", &cidr}, {"except", &except}};
	struct kube_network network = {.at = node->at};
	struct reader *reader = &kube->reader;
	struct items items = {};
	bool ok = true;

	if (!import_fields(reader, node, "`ipBlock`", keys, 2))
		return false;
	if (!cidr) {
		reader_error(reader, node, "`ipBlock` has no `cidr`");
		return false;
	}
	if (!read_cidr(kube, cidr, "`cidr`", &network.block) ||
	    (except && !import_list(reader, except, "`except`", &items)))
		return false;
	network.except = arena_array(&reader->arena, items.n, sizeof(*network.except));
	for (uint32_t i = 0; i < items.n && network.except; i++) {
		struct address_range *range = &network.except[network.n_except];

		if (!read_cidr(kube, items.items[i], "`except`", range)) {
			ok = false;
		} else if (range->v4 != network.block.v4 || range->first < network.block.first ||
			   range->last > network.block.last ||
			   (range->first == network.block.first && range->last == network.block.last)) {
			reader_error(reader, items.items[i], "'%.60s' is not a part of the `cidr`",
				     items.items[i]->text);
			ok = false;
		} else {
			network.n_except++;
		}
	}
	if (ok)
		gather_network(kube, gathering, network);
	return ok;
}

static bool read_namespace_peer(struct kube *kube, const struct node *node, uint32_t namespace,
				struct gathering *gathering)
{
	const struct node *pods = NULL, *namespaces = NULL, *block = NULL;
	const struct key keys[] = {{"podSelector", &pods}, {"namespaceSelector", &namespaces}, {"ipBlock", &block}};
	struct selection selection = {};
	size_t errors = policy_diagnostics_count(kube->reader.diagnostics, POLICY_ERROR);

	if (!import_fields(&kube->reader, node, "a peer", keys, 3) ||
	    policy_diagnostics_count(kube->reader.diagnostics, POLICY_ERROR) > errors)
		return false;
	if (!pods && !namespaces && !block) {
		reader_error(&kube->reader, node, "a peer has `podSelector`, `namespaceSelector`, both, or `ipBlock`");
		return false;
	}
	if (block && (pods || namespaces)) {
		reader_error(&kube->reader, block, "a peer with `ipBlock` has nothing else");
		return false;
	}
	if (block)
		return read_block(kube, block, gathering);
	/* Without namespaceSelector, the pods of the policy's own namespace. */
	if (!kube_select(kube, node, namespaces ? EVERY_NAMESPACE : namespace, namespaces, pods, &selection))
		return false;
	gather(kube, gathering, &selection);
	return true;
}

static bool read_networks(struct kube *kube, const struct node *node, struct gathering *gathering)
{
	struct items items;
	bool ok = true;

	if (!import_list(&kube->reader, node, "`networks`", &items))
		return false;
	if (!items.n) {
		reader_error(&kube->reader, node, "`networks` is an empty list");
		return false;
	}
	for (uint32_t i = 0; i < items.n; i++) {
		struct kube_network network = {.at = items.items[i]->at};

		if (read_cidr(kube, items.items[i], "`networks`", &network.block))
			gather_network(kube, gathering, network);
		else
			ok = false;
	}
	return ok;
}

static bool read_admin_peer(struct kube *kube, const struct node *node, bool ingress, struct gathering *gathering)
{
	const struct node *namespaces = NULL, *pods = NULL, *networks = NULL, *nodes = NULL, *domains = NULL;
	const struct key keys[] = {{"namespaces", &namespaces},
				   {"pods", &pods},
				   {"networks", &networks},
				   {"nodes", &nodes},
				   {"domainNames", &domains}};
	struct selection selection = {};
	size_t errors = policy_diagnostics_count(kube->reader.diagnostics, POLICY_ERROR);
	bool ok;

	/* Sources are pods only. */
	if (!import_fields(&kube->reader, node, "a peer", keys, ingress ? 2 : 5) ||
	    policy_diagnostics_count(kube->reader.diagnostics, POLICY_ERROR) > errors)
		return false;
	if (!!namespaces + !!pods + !!networks + !!nodes + !!domains != 1) {
		reader_error(&kube->reader, node, "a peer has one of `namespaces`, `pods`%s",
			     ingress ? "" : " and `networks`");
		return false;
	}
	if (nodes || domains) {
		reader_error(&kube->reader, nodes ? nodes : domains,
			     "`%s` cannot be expressed: a policy names peers by identity or by address",
			     nodes ? "nodes" : "domainNames");
		reader_hint(&kube->reader, "name their addresses under `networks`");
		return false;
	}
	if (networks)
		return read_networks(kube, networks, gathering);
	ok = pods ? kube_select_pods(kube, pods, &selection)
		  : kube_select(kube, namespaces, EVERY_NAMESPACE, namespaces, NULL, &selection);
	gather(kube, gathering, &selection);
	return ok;
}

bool kube_read_peers(struct kube *kube, const struct node *node, const struct kube_policy *policy, uint32_t namespace,
		     struct kube_rule *rule)
{
	_cleanup_(gathering_free) struct gathering gathering = {};
	struct arena *arena = &kube->reader.arena;
	struct items items;
	bool ok = true;

	if (!import_list(&kube->reader, node, rule->ingress ? "`from`" : "`to`", &items))
		return false;
	for (uint32_t i = 0; i < items.n; i++)
		ok &= policy->kind == KUBE_NAMESPACE ? read_namespace_peer(kube, items.items[i], namespace, &gathering)
						     : read_admin_peer(kube, items.items[i], rule->ingress, &gathering);
	list_sort_unique(&gathering.workloads);
	rule->workloads.n = (uint32_t)gathering.workloads.n;
	rule->workloads.items = arena_copy(arena, gathering.workloads.items, gathering.workloads.n * sizeof(uint32_t));
	rule->n_networks = (uint32_t)gathering.n;
	rule->networks = arena_copy(arena, gathering.networks, gathering.n * sizeof(*gathering.networks));
	return ok && rule->workloads.items && rule->networks;
}
