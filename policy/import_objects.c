/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/import_objects.h"

/* As the API has it, per object and direction. */
#define MAX_ADMIN_RULES 100U

const char *const kube_kind_names[] = {
	[KUBE_ADMIN] = "AdminNetworkPolicy",
	[KUBE_NAMESPACE] = "NetworkPolicy",
	[KUBE_BASELINE] = "BaselineAdminNetworkPolicy",
};

static const char *const api_versions[] = {
	[KUBE_ADMIN] = "policy.networking.k8s.io/v1alpha1",
	[KUBE_NAMESPACE] = "networking.k8s.io/v1",
	[KUBE_BASELINE] = "policy.networking.k8s.io/v1alpha1",
};

#define N_KINDS 3

/* The value of a field of a map whose other fields are not looked at, or NULL. */
static const struct node *find_field(struct reader *reader, const struct node *map, const char *name)
{
	const struct node *found = NULL;

	for (uint32_t i = 0; map && map->kind == NODE_MAP && i < map->n; i += 2) {
		if (map->items[i]->kind != NODE_SCALAR || strcmp(map->items[i]->text, name) != 0)
			continue;
		if (found)
			reader_error(reader, map->items[i], "duplicate key '%s'", name);
		found = map->items[i + 1];
	}
	return found && import_is_null(found) ? NULL : found;
}

/* Warnings without end would push errors out of the report. */
static void warn_of_nobody(struct kube *kube, const struct node *at)
{
	if (kube->cluster.work > IMPORT_MAX_WORK || kube->n_warnings > KUBE_MAX_WARNINGS)
		return;
	if (kube->n_warnings++ < KUBE_MAX_WARNINGS)
		diagnostics_warning(kube->reader.diagnostics, at->at, "this selects no workload of the map");
	else
		diagnostics_warning(kube->reader.diagnostics, at->at,
				    "this selects no workload of the map; further ones are not listed");
}

bool kube_select(struct kube *kube, const struct node *at, uint32_t namespace, const struct node *namespaces,
		 const struct node *pods, struct selection *selection)
{
	const struct label_selector *namespace_selector = NULL, *pod_selector = NULL;
	struct reader *reader = &kube->reader;

	if (namespaces) {
		namespace_selector = label_selector_read(reader, namespaces);
		if (!namespace_selector)
			return false;
	}
	if (pods) {
		pod_selector = label_selector_read(reader, pods);
		if (!pod_selector)
			return false;
	}
	*selection = cluster_select(&kube->cluster, reader, at, namespace, namespace_selector, pod_selector);
	if (!selection->n && namespace != NO_NAMESPACE)
		warn_of_nobody(kube, at);
	return true;
}

bool kube_select_pods(struct kube *kube, const struct node *node, struct selection *selection)
{
	const struct node *namespaces = NULL, *pods = NULL;
	const struct key keys[] = {{"namespaceSelector", &namespaces}, {"podSelector", &pods}};

	if (!import_fields(&kube->reader, node, "`pods`", keys, 2))
		return false;
	if (!namespaces || !pods) {
		reader_error(&kube->reader, node, "`pods` needs `namespaceSelector` and `podSelector`; {} selects all");
		return false;
	}
	return kube_select(kube, node, EVERY_NAMESPACE, namespaces, pods, selection);
}

/* ---- rules ---- */

/* A destination that is an address has no names for its ports; the API of AdminNetworkPolicy refuses such rules, that of
 * NetworkPolicy leaves open what they mean where a pod has the address. */
static bool check_names(struct kube *kube, const struct kube_rule *rule)
{
	for (uint32_t i = 0; i < rule->n_ports && !rule->ingress && rule->n_networks; i++) {
		if (!rule->ports[i].name)
			continue;
		reader_error(&kube->reader, &rule->ports[i],
			     "port '%.60s' has no meaning at addresses, which the rule lists", rule->ports[i].name);
		reader_hint(&kube->reader, "give its number, or make a rule for the pods and one for the addresses");
		return false;
	}
	return true;
}

static bool read_namespace_rule(struct kube *kube, const struct node *node, const struct kube_policy *policy,
				uint32_t namespace, struct kube_rule *rule)
{
	const struct node *peers = NULL, *ports = NULL;
	const struct key keys[] = {{rule->ingress ? "from" : "to", &peers}, {"ports", &ports}};
	bool ok;

	if (!import_fields(&kube->reader, node, rule->ingress ? "an ingress rule" : "an egress rule", keys, 2))
		return false;
	rule->action = RULE_ALLOW;
	/* Missing and empty mean the same here: anywhere, every port. */
	rule->anywhere = !peers || (peers->kind == NODE_LIST && !peers->n);
	rule->every_port = !ports || (ports->kind == NODE_LIST && !ports->n);
	ok = rule->anywhere || kube_read_peers(kube, peers, policy, namespace, rule);
	return (rule->every_port || kube_read_ports(kube, ports, KUBE_NAMESPACE, rule)) && ok &&
	       check_names(kube, rule);
}

static bool read_admin_rule(struct kube *kube, const struct node *node, const struct kube_policy *policy,
			    struct kube_rule *rule)
{
	static const char *const words[] = {"Deny", "Allow", "Pass"};
	static const enum rule_action actions[] = {RULE_DENY, RULE_ALLOW, RULE_PASS};
	const struct node *name = NULL, *action = NULL, *peers = NULL, *ports = NULL;
	const char *list = rule->ingress ? "from" : "to";
	const struct key keys[] = {{list, &peers}, {"ports", &ports}, {"action", &action}, {"name", &name}};
	struct reader *reader = &kube->reader;
	bool ok = true;
	int word;

	if (!import_fields(reader, node, rule->ingress ? "an ingress rule" : "an egress rule", keys, 4))
		return false;
	if (!action || !peers) {
		reader_error(reader, node, "the rule has no `%s`", action ? list : "action");
		return false;
	}
	word = read_word(reader, action, "`action`", words, policy->kind == KUBE_BASELINE ? 2 : 3);
	if (name)
		rule->name = read_text(reader, name, "`name`");
	if (peers->kind == NODE_LIST && !peers->n) {
		reader_error(reader, peers, "`%s` is an empty list", list);
		ok = false;
	}
	rule->every_port = !ports;
	if (ports && ports->kind == NODE_LIST && !ports->n) {
		reader_error(reader, ports, "`ports` is an empty list");
		reader_hint(reader, "the API does not say what it means; leave it out for every port");
		return false;
	}
	ok = kube_read_peers(kube, peers, policy, EVERY_NAMESPACE, rule) && ok && word >= 0;
	ok = (!ports || kube_read_ports(kube, ports, policy->kind, rule)) && ok && check_names(kube, rule);
	if (ok)
		rule->action = actions[word];
	return ok;
}

static void read_rules(struct kube *kube, const struct node *node, struct kube_policy *policy, uint32_t namespace,
		       bool ingress)
{
	struct items items;

	if (!node || !import_list(&kube->reader, node, ingress ? "`ingress`" : "`egress`", &items))
		return;
	if (policy->kind != KUBE_NAMESPACE && items.n > MAX_ADMIN_RULES) {
		reader_error(&kube->reader, node, "more than %u rules", MAX_ADMIN_RULES);
		return;
	}
	for (uint32_t i = 0; i < items.n; i++) {
		struct kube_rule rule = {.at = items.items[i]->at, .number = i + 1, .ingress = ingress};

		if (policy->kind == KUBE_NAMESPACE ? read_namespace_rule(kube, items.items[i], policy, namespace, &rule)
						   : read_admin_rule(kube, items.items[i], policy, &rule))
			policy->rules[policy->n_rules++] = rule;
	}
}

/* Room for the rules of both lists. */
static bool make_room(struct kube *kube, struct kube_policy *policy, const struct node *ingress,
		      const struct node *egress)
{
	size_t n = 0;

	n += ingress && ingress->kind == NODE_LIST ? ingress->n : 0;
	n += egress && egress->kind == NODE_LIST ? egress->n : 0;
	policy->rules = arena_array(&kube->reader.arena, n, sizeof(*policy->rules));
	return policy->rules;
}

/* ---- NetworkPolicy ---- */

static void read_policy_types(struct kube *kube, const struct node *node, const struct node *egress,
			      struct kube_policy *policy)
{
	static const char *const words[] = {"Ingress", "Egress"};
	struct items items = {};

	if (node && !import_list(&kube->reader, node, "`policyTypes`", &items))
		return;
	for (uint32_t i = 0; i < items.n; i++) {
		int word = read_word(&kube->reader, items.items[i], "an item of `policyTypes`", words, 2);

		policy->isolates_ingress |= word == 0;
		policy->isolates_egress |= word == 1;
	}
	/* The default, of a list that is missing or empty. */
	if (!items.n) {
		policy->isolates_ingress = true;
		policy->isolates_egress = egress && egress->kind == NODE_LIST && egress->n;
	}
}

/* Rules of a direction that `policyTypes` leaves out were read, for their mistakes, and take no part. */
static void drop_rules(struct kube *kube, struct kube_policy *policy, const struct node *node, bool ingress)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < policy->n_rules; i++)
		if (policy->rules[i].ingress != ingress)
			policy->rules[kept++] = policy->rules[i];
	if (kept < policy->n_rules)
		diagnostics_warning(kube->reader.diagnostics, node->at,
				    "these rules have no effect: `policyTypes` does not list %s",
				    ingress ? "Ingress" : "Egress");
	policy->n_rules = kept;
}

static void read_network_policy(struct kube *kube, const struct node *spec, uint32_t namespace,
				struct kube_policy *policy)
{
	const struct node *pods = NULL, *types = NULL, *ingress = NULL, *egress = NULL;
	const struct key keys[] = {
		{"podSelector", &pods}, {"policyTypes", &types}, {"ingress", &ingress}, {"egress", &egress}};

	if (!spec) {
		reader_error(&kube->reader, policy, "the policy has no `spec`");
		return;
	}
	if (!import_fields(&kube->reader, spec, "the `spec` of a NetworkPolicy", keys, 4))
		return;
	kube_select(kube, pods ? pods : spec, namespace, NULL, pods, &policy->subject);
	read_policy_types(kube, types, egress, policy);
	if (!make_room(kube, policy, ingress, egress))
		return;
	read_rules(kube, ingress, policy, namespace, true);
	read_rules(kube, egress, policy, namespace, false);
	if (!policy->isolates_ingress)
		drop_rules(kube, policy, ingress, true);
	if (!policy->isolates_egress)
		drop_rules(kube, policy, egress, false);
}

/* ---- AdminNetworkPolicy, BaselineAdminNetworkPolicy ---- */

static void read_subject(struct kube *kube, const struct node *node, struct selection *subject)
{
	const struct node *namespaces = NULL, *pods = NULL;
	const struct key keys[] = {{"namespaces", &namespaces}, {"pods", &pods}};

	if (!import_fields(&kube->reader, node, "`subject`", keys, 2))
		return;
	if (!namespaces == !pods)
		reader_error(&kube->reader, node, "`subject` must have one of `namespaces` and `pods`");
	else if (pods)
		kube_select_pods(kube, pods, subject);
	else
		kube_select(kube, namespaces, EVERY_NAMESPACE, namespaces, NULL, subject);
}

static void read_admin_policy(struct kube *kube, const struct node *spec, struct kube_policy *policy)
{
	const struct node *subject = NULL, *ingress = NULL, *egress = NULL, *priority = NULL;
	const struct key keys[] = {
		{"subject", &subject}, {"ingress", &ingress}, {"egress", &egress}, {"priority", &priority}};
	bool admin = policy->kind == KUBE_ADMIN;
	struct reader *reader = &kube->reader;

	if (!spec) {
		reader_error(reader, policy, "the policy has no `spec`");
		return;
	}
	/* A baseline has no priority. */
	if (!import_fields(reader, spec, "the `spec`", keys, admin ? 4 : 3))
		return;
	if (!subject || (admin && !priority)) {
		reader_error(reader, spec, "the `spec` has no `%s`", subject ? "priority" : "subject");
		return;
	}
	if (admin && !import_number(reader, priority, "`priority`", 0, 1000, &policy->priority))
		return;
	read_subject(kube, subject, &policy->subject);
	if (!make_room(kube, policy, ingress, egress))
		return;
	read_rules(kube, ingress, policy, EVERY_NAMESPACE, true);
	read_rules(kube, egress, policy, EVERY_NAMESPACE, false);
}

/* ---- objects ---- */

/* Sets the policy's name, and the index of its namespace. */
static bool read_metadata(struct kube *kube, const struct node *object, const struct node *metadata,
			  struct kube_policy *policy, uint32_t *namespacep)
{
	const struct node *name = find_field(&kube->reader, metadata, "name");
	const struct node *namespace = find_field(&kube->reader, metadata, "namespace");
	struct reader *reader = &kube->reader;

	if (!name) {
		reader_error(reader, object, "the object has no `metadata.name`");
		return false;
	}
	if (!read_name(reader, name, "an object", 253, &policy->name))
		return false;
	*namespacep = EVERY_NAMESPACE;
	if (policy->kind != KUBE_NAMESPACE)
		return true;
	policy->namespace = kube->namespace;
	if (namespace && !read_name(reader, namespace, "a namespace", 63, &policy->namespace))
		return false;
	if (!intern_find(&kube->cluster.namespace_names, policy->namespace, strlen(policy->namespace), namespacep)) {
		*namespacep = NO_NAMESPACE;
		diagnostics_warning(reader->diagnostics, (namespace ? namespace : object)->at,
				    "namespace '%s' is not in the map: the policy selects no workload",
				    policy->namespace);
		if (!namespace)
			reader_hint(reader, "the object names none; --namespace says which it is");
	}
	return true;
}

static void read_policy(struct kube *kube, const struct node *object, enum kube_kind kind)
{
	const struct node *version = NULL, *kind_node = NULL, *metadata = NULL, *spec = NULL, *status = NULL;
	const struct key keys[] = {{"apiVersion", &version},
				   {"kind", &kind_node},
				   {"metadata", &metadata},
				   {"spec", &spec},
				   {"status", &status}};
	struct kube_policy policy = {.kind = kind, .at = object->at};
	struct reader *reader = &kube->reader;
	uint32_t namespace, number;
	const char *full;
	int r;

	if (!import_fields(reader, object, "an object", keys, 5) ||
	    !read_metadata(kube, object, metadata, &policy, &namespace))
		return;
	full = arena_printf(&reader->arena, "%s/%s/%s", kube_kind_names[kind], policy.namespace ? policy.namespace : "",
			    policy.name);
	r = full ? intern_bytes(&kube->object_names, full, strlen(full), &number) : -ENOMEM;
	if (r < 0 || array_grow(&kube->policies, &kube->policies_capacity, kube->n_policies, sizeof(policy)) < 0) {
		reader->arena.out_of_memory = true;
		return;
	}
	if (r == 0) {
		reader_error(reader, object, "%s '%s' is given twice", kube_kind_names[kind], policy.name);
		return;
	}
	if (kind == KUBE_NAMESPACE)
		read_network_policy(kube, spec, namespace, &policy);
	else
		read_admin_policy(kube, spec, &policy);
	kube->policies[kube->n_policies++] = policy;
}

static void report_kind(struct kube *kube, const struct node *node, const char *kind)
{
	struct suggestion suggestion = {.wrong = kind};

	reader_error(&kube->reader, node, "kind '%.100s' cannot be imported", kind);
	for (int i = 0; i < N_KINDS; i++)
		suggestion_offer(&suggestion, kube_kind_names[i]);
	if (suggestion.best)
		reader_hint(&kube->reader, "did you mean '%s'?", suggestion.best);
	else
		reader_hint(&kube->reader, "NetworkPolicy, AdminNetworkPolicy, BaselineAdminNetworkPolicy and lists of "
					   "them can be");
}

/* The kind of an object, or of the items of a list of one kind. Returns -1 if there is none. */
static int find_kind(const char *text, bool list)
{
	for (int i = 0; i < N_KINDS; i++) {
		size_t len = strlen(kube_kind_names[i]);

		if (strncmp(text, kube_kind_names[i], len) == 0 && strcmp(text + len, list ? "List" : "") == 0)
			return i;
	}
	return -1;
}

static bool check_version(struct kube *kube, const struct node *object, const struct node *version, const char *wanted)
{
	if (version && version->kind == NODE_SCALAR && strcmp(version->text, wanted) == 0)
		return true;
	reader_error(&kube->reader, version ? version : object, "`apiVersion` must be %s", wanted);
	return false;
}

static void read_object(struct kube *kube, const struct node *object, int assumed);

static void read_list(struct kube *kube, const struct node *object, int assumed)
{
	const struct node *version = NULL, *kind = NULL, *metadata = NULL, *list = NULL;
	const struct key keys[] = {
		{"apiVersion", &version}, {"kind", &kind}, {"metadata", &metadata}, {"items", &list}};
	struct items items;

	if (!import_fields(&kube->reader, object, "a list of objects", keys, 4))
		return;
	if (!list) {
		reader_error(&kube->reader, object, "the list has no `items`");
		return;
	}
	if (!import_list(&kube->reader, list, "`items`", &items))
		return;
	for (uint32_t i = 0; i < items.n; i++)
		read_object(kube, items.items[i], assumed);
}

/* `assumed`: the kind of objects that do not say it themselves, as in lists from the API; -1: none. */
static void read_object(struct kube *kube, const struct node *object, int assumed)
{
	const struct node *version = find_field(&kube->reader, object, "apiVersion");
	const struct node *kind = find_field(&kube->reader, object, "kind");
	const char *text;
	int number;

	if (object->kind != NODE_MAP || (!kind && (assumed < 0 || version))) {
		reader_error(&kube->reader, object, "not a Kubernetes object: `apiVersion` and `kind` are missing");
		return;
	}
	if (!kind) {
		read_policy(kube, object, (enum kube_kind)assumed);
		return;
	}
	text = read_text(&kube->reader, kind, "`kind`");
	if (!text)
		return;
	number = find_kind(text, false);
	if (number >= 0) {
		if (check_version(kube, object, version, api_versions[number]))
			read_policy(kube, object, (enum kube_kind)number);
		return;
	}
	number = find_kind(text, true);
	if (number < 0 && strcmp(text, "List") != 0) {
		report_kind(kube, kind, text);
		return;
	}
	if (check_version(kube, object, version, number < 0 ? "v1" : api_versions[number]))
		read_list(kube, object, number);
}

void kube_read(struct kube *kube, const struct node *root)
{
	/* An empty document, as a trailing `---` makes. */
	if (!import_is_null(root))
		read_object(kube, root, -1);
}

static bool selections_meet(const struct selection *a, const struct selection *b)
{
	for (uint32_t i = 0, j = 0; i < a->n && j < b->n;) {
		if (a->items[i] == b->items[j])
			return true;
		if (a->items[i] < b->items[j])
			i++;
		else
			j++;
	}
	return false;
}

static bool has_direction(const struct kube_policy *policy, bool ingress)
{
	for (uint32_t i = 0; i < policy->n_rules; i++)
		if (policy->rules[i].ingress == ingress)
			return true;
	return false;
}

/* "The behavior is undefined if two ANP objects have same priority." */
static void check_priorities(struct kube *kube, const struct kube_policy *first, const struct kube_policy *second)
{
	if (!selections_meet(&first->subject, &second->subject) ||
	    !((has_direction(first, true) && has_direction(second, true)) ||
	      (has_direction(first, false) && has_direction(second, false))))
		return;
	diagnostics_error(
		kube->reader.diagnostics, second->at,
		"'%s' and '%s' select the same workload with the same priority, %u: Kubernetes does not define "
		"which decides",
		first->name, second->name, first->priority);
	reader_hint(&kube->reader, "give them different priorities; '%s' is at %s", first->name,
		    reader_where(&kube->reader, first->at));
}

static int by_kind_and_priority(const void *a, const void *b)
{
	const struct kube_policy *x = a, *y = b;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	if (x->priority != y->priority)
		return x->priority < y->priority ? -1 : 1;
	if (x->at.source != y->at.source)
		return x->at.source < y->at.source ? -1 : 1;
	if (x->at.line != y->at.line)
		return x->at.line < y->at.line ? -1 : 1;
	return (x->at.column > y->at.column) - (x->at.column < y->at.column);
}

/* Pairs of one priority are looked at; so many only a hostile file has. */
#define MAX_PAIRS 100000U

void kube_check(struct kube *kube)
{
	const struct kube_policy *baseline = NULL;
	unsigned pairs = 0;

	if (kube->n_policies)
		qsort(kube->policies, kube->n_policies, sizeof(*kube->policies), by_kind_and_priority);
	for (size_t i = 0; i < kube->n_policies; i++) {
		const struct kube_policy *policy = &kube->policies[i];

		if (policy->kind == KUBE_BASELINE && strcmp(policy->name, "default") != 0)
			reader_error(&kube->reader, policy, "a BaselineAdminNetworkPolicy must be named 'default'");
		else if (policy->kind == KUBE_BASELINE && baseline)
			reader_error(&kube->reader, policy, "there can be one BaselineAdminNetworkPolicy");
		if (policy->kind == KUBE_BASELINE)
			baseline = policy;
		for (size_t j = i + 1;
		     j < kube->n_policies && policy->kind == KUBE_ADMIN && kube->policies[j].kind == KUBE_ADMIN &&
		     kube->policies[j].priority == policy->priority;
		     j++) {
			if (++pairs > MAX_PAIRS) {
				reader_error(&kube->reader, policy, "too many policies of priority %u",
					     policy->priority);
				return;
			}
			check_priorities(kube, policy, &kube->policies[j]);
		}
	}
}

void kube_free(struct kube *kube)
{
	cluster_free(&kube->cluster);
	intern_free(&kube->object_names);
	free(kube->policies);
	arena_free(&kube->policy.arena);
	reader_free(&kube->reader);
}
