/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/import_draft.h"
#include "policy/import_kubernetes.h"
#include "policy/import_objects.h"

#define ADMIN_STEP 1000	       /* more than the rules of one object */
#define ISOLATION_PRIORITY 1   /* behind the allow rules of the tier */
#define LAST_PRIORITY 1000     /* behind the rules of a baseline */
#define MAX_SERVICE_GROUPS 64U /* of the destinations of one rule, by what a port name means there */

struct emitter {
	struct kube *kube;
	struct draft *draft;
	struct arena arena;
	const char **names; /* of workloads, by index */
	bool *isolated[2];  /* by direction (0: egress, 1: ingress) and workload */
	bool *touched;	    /* a policy is about this workload */
};

static const char *where(const struct emitter *emitter, struct position at)
{
	return reader_where(&emitter->kube->reader, at);
}

/* "KIND NAMESPACE/NAME" */
static const char *title(struct emitter *emitter, const struct kube_policy *policy)
{
	const char *text =
		arena_printf(&emitter->arena, "%s %s%s%s", kube_kind_names[policy->kind],
			     policy->namespace ? policy->namespace : "", policy->namespace ? "/" : "", policy->name);

	return text ? text : "";
}

/* What the names of its rules begin with. */
static const char *stem(struct emitter *emitter, const struct kube_policy *policy)
{
	const char *text;

	if (policy->kind == KUBE_NAMESPACE)
		text = arena_printf(&emitter->arena, "%s.%s", policy->namespace, policy->name);
	else
		text = arena_printf(&emitter->arena, "%s.%s", policy->kind == KUBE_ADMIN ? "admin" : "baseline",
				    policy->name);
	return text ? text : "";
}

/* The names of some workloads. NULL when out of memory. */
static const char **names_of(struct emitter *emitter, const uint32_t *items, size_t n)
{
	const char **names = arena_array(&emitter->arena, n, sizeof(*names));

	for (size_t i = 0; i < n && names; i++)
		names[i] = emitter->names[items[i]];
	return names;
}

/* ---- services ---- */

/* Does a workload call one of its ports so? */
static bool find_port(const struct workload *workload, const struct kube_port *port, uint32_t *pointp)
{
	for (uint32_t i = 0; i < workload->n_ports; i++) {
		uint32_t point = workload->ports[i].point;
		uint32_t protocol = point < SERVICE_UDP	   ? SERVICE_TCP
				    : point < SERVICE_SCTP ? SERVICE_UDP
							   : SERVICE_SCTP;

		if (strcmp(workload->ports[i].name, port->name) != 0 ||
		    (port->protocol != KUBE_ANY_PROTOCOL && port->protocol != protocol))
			continue;
		*pointp = point;
		return true;
	}
	return false;
}

struct services {
	struct service_range *items;
	uint32_t n;
};

/* What the ports of a rule are at a destination; NULL: one that is no workload, where names mean nothing. */
static struct services services_at(struct emitter *emitter, const struct kube_rule *rule,
				   const struct workload *workload)
{
	struct services services = {arena_array(&emitter->arena, rule->n_ports, sizeof(*services.items)), 0};
	uint32_t point;

	for (uint32_t i = 0; i < rule->n_ports && services.items; i++) {
		const struct kube_port *port = &rule->ports[i];

		if (!port->name)
			services.items[services.n++] = port->range;
		else if (workload && find_port(workload, port, &point))
			services.items[services.n++] = (struct service_range){point, point};
	}
	services.n = service_normalise(services.items, services.n);
	return services;
}

static bool has_names(const struct kube_rule *rule)
{
	for (uint32_t i = 0; i < rule->n_ports; i++)
		if (rule->ports[i].name)
			return true;
	return false;
}

/* Destinations at which the ports of a rule are the same. */
struct group {
	struct services services;
	struct list workloads;
};

struct groups {
	struct intern keys; /* of services */
	struct group items[MAX_SERVICE_GROUPS];
	uint32_t n;
};

static void groups_free(struct groups *groups)
{
	for (uint32_t i = 0; i < groups->n; i++)
		list_free(&groups->items[i].workloads);
	intern_free(&groups->keys);
}

/* Returns false after an error. */
static bool group_workloads(struct emitter *emitter, const struct kube_rule *rule, const uint32_t *workloads, size_t n,
			    struct groups *groups)
{
	struct services services = services_at(emitter, rule, NULL);
	bool named = has_names(rule);
	uint32_t number = 0;
	int r = 0;

	for (size_t i = 0; i < n; i++) {
		if (named)
			services = services_at(emitter, rule, &emitter->kube->cluster.workloads[workloads[i]]);
		if (!rule->every_port && !services.n)
			continue;
		if (named || !groups->n)
			r = intern_bytes(&groups->keys, services.items, services.n * sizeof(*services.items), &number);
		if (r == 1 && number == MAX_SERVICE_GROUPS) {
			diagnostics_error(emitter->kube->reader.diagnostics, rule->at,
					  "the named ports of this rule mean more than %u different things",
					  MAX_SERVICE_GROUPS);
			return false;
		}
		if (r == 1)
			groups->items[groups->n++].services = services;
		if (r < 0 || list_push(&groups->items[number].workloads, workloads[i]) < 0) {
			emitter->arena.out_of_memory = true;
			return false;
		}
		r = 0;
	}
	return true;
}

static void warn_unknown_ports(struct emitter *emitter, const struct kube_rule *rule, const uint32_t *workloads,
			       size_t n)
{
	for (uint32_t i = 0; i < rule->n_ports; i++) {
		bool found = !rule->ports[i].name;
		uint32_t point;

		for (size_t j = 0; j < n && !found; j++)
			found = find_port(&emitter->kube->cluster.workloads[workloads[j]], &rule->ports[i], &point);
		if (!found && emitter->kube->n_warnings++ < KUBE_MAX_WARNINGS)
			diagnostics_warning(emitter->kube->reader.diagnostics, rule->ports[i].at,
					    "no workload that this rule is about has a port named '%.60s'",
					    rule->ports[i].name);
	}
}

/* ---- rules ---- */

/* Whom a rule is about at its peer's end. */
struct peers {
	const uint32_t *workloads;
	size_t n_workloads;
	const char **networks;
	size_t n_networks;
	bool anywhere;
};

/* What all parts of one rule of Kubernetes have in common. */
struct part {
	struct draft_rule rule;
	const struct kube_rule *source;
	unsigned number;
};

static void emit_part(struct emitter *emitter, struct part *part, struct draft_end from, struct draft_end to,
		      const struct services *services)
{
	struct draft_rule rule = part->rule;

	if (part->number++)
		rule.name = arena_printf(&emitter->arena, "%s.%u", part->rule.name, part->number);
	rule.from = from;
	rule.to = to;
	rule.services = services ? services->items : NULL;
	rule.n_services = services ? services->n : 0;
	if (rule.name)
		draft_rule(emitter->draft, &rule);
}

static struct draft_end end_of(struct emitter *emitter, const uint32_t *workloads, size_t n)
{
	return (struct draft_end){.who = names_of(emitter, workloads, n), .n_who = n};
}

/* The ports are the subject's: one rule for the workloads that mean the same by them. */
static void emit_ingress(struct emitter *emitter, struct part *part, const struct selection *subject,
			 const struct peers *peers)
{
	_cleanup_(groups_free) struct groups groups = {};
	struct draft_end from = {};

	if (!peers->anywhere) {
		from = end_of(emitter, peers->workloads, peers->n_workloads);
		from.where = peers->networks;
		from.n_where = peers->n_networks;
	}
	if (!group_workloads(emitter, part->source, subject->items, subject->n, &groups))
		return;
	for (uint32_t i = 0; i < groups.n; i++)
		emit_part(emitter, part, from,
			  end_of(emitter, groups.items[i].workloads.items, groups.items[i].workloads.n),
			  &groups.items[i].services);
	warn_unknown_ports(emitter, part->source, subject->items, subject->n);
}

static bool same_services(const struct services *a, const struct services *b)
{
	return a->n == b->n && (!a->n || memcmp(a->items, b->items, a->n * sizeof(*a->items)) == 0);
}

/* The ports are the peers': numbers at networks and elsewhere, names at workloads only. */
static void emit_egress(struct emitter *emitter, struct part *part, const struct selection *subject,
			const struct peers *peers)
{
	_cleanup_(groups_free) struct groups groups = {};
	struct draft_end from = end_of(emitter, subject->items, subject->n), to = {};
	struct services services = services_at(emitter, part->source, NULL);
	bool elsewhere = (peers->anywhere || peers->n_networks) && (part->source->every_port || services.n);

	if (!group_workloads(emitter, part->source, peers->workloads, peers->n_workloads, &groups))
		return;
	if (!peers->anywhere) {
		to.where = peers->networks;
		to.n_where = peers->n_networks;
	}
	for (uint32_t i = 0; i < groups.n; i++) {
		struct group *group = &groups.items[i];

		if (!elsewhere || !same_services(&services, &group->services))
			continue;
		/* They stand with the networks, or are a part of everybody. */
		if (!peers->anywhere) {
			to.who = names_of(emitter, group->workloads.items, group->workloads.n);
			to.n_who = group->workloads.n;
		}
		group->workloads.n = 0;
	}
	if (elsewhere)
		emit_part(emitter, part, from, to, &services);
	for (uint32_t i = 0; i < groups.n; i++)
		if (groups.items[i].workloads.n)
			emit_part(emitter, part, from,
				  end_of(emitter, groups.items[i].workloads.items, groups.items[i].workloads.n),
				  &groups.items[i].services);
	warn_unknown_ports(emitter, part->source, peers->workloads, peers->n_workloads);
}

/* Returns false when out of memory. */
static bool find_peers(struct emitter *emitter, const struct kube_rule *rule, struct peers *peers)
{
	struct cluster *cluster = &emitter->kube->cluster;
	uint32_t *everybody;

	*peers = (struct peers){
		.workloads = rule->workloads.items, .n_workloads = rule->workloads.n, .anywhere = rule->anywhere};
	/* Anywhere includes every workload, which matters for what is called by its name there. */
	if (rule->anywhere && has_names(rule)) {
		everybody = arena_array(&emitter->arena, cluster->n_workloads, sizeof(*everybody));
		for (uint32_t i = 0; i < cluster->n_workloads && everybody; i++)
			everybody[i] = i;
		peers->workloads = everybody;
		peers->n_workloads = everybody ? cluster->n_workloads : 0;
	}
	peers->networks = arena_array(&emitter->arena, rule->n_networks, sizeof(*peers->networks));
	for (uint32_t i = 0; i < rule->n_networks && peers->networks; i++) {
		const struct kube_network *network = &rule->networks[i];
		const char *name = draft_network(emitter->draft, NULL, &network->block, 1, network->except,
						 network->n_except, where(emitter, network->at));

		if (!name)
			return false;
		peers->networks[peers->n_networks++] = name;
	}
	return peers->networks;
}

static int32_t priority_of(const struct kube_policy *policy, const struct kube_rule *rule)
{
	switch (policy->kind) {
	case KUBE_ADMIN:
		return (int32_t)(policy->priority * ADMIN_STEP + rule->number - 1);
	case KUBE_BASELINE:
		return (int32_t)rule->number - 1;
	case KUBE_NAMESPACE:
		break;
	}
	return 0;
}

static void emit_rule(struct emitter *emitter, const struct kube_policy *policy, const struct kube_rule *rule)
{
	static const char *const tiers[] = {
		[KUBE_ADMIN] = "admin", [KUBE_NAMESPACE] = "namespace", [KUBE_BASELINE] = "baseline"};
	const char *direction = rule->ingress ? "ingress" : "egress";
	struct part part = {.source = rule};
	struct peers peers;

	if (!policy->subject.n || !find_peers(emitter, rule, &peers) ||
	    (!peers.anywhere && !peers.n_workloads && !peers.n_networks))
		return;
	part.rule = (struct draft_rule){
		.name = arena_printf(&emitter->arena, "%s.%s-%u", stem(emitter, policy), direction, rule->number),
		.origin = arena_printf(&emitter->arena, "%s: %s, %s rule %u%s%.100s", where(emitter, rule->at),
				       title(emitter, policy), direction, rule->number, rule->name ? ": " : "",
				       rule->name ? rule->name : ""),
		.tier = tiers[policy->kind],
		.priority = priority_of(policy, rule),
		.action = rule->action,
		.directions = rule->ingress ? RULE_INGRESS : RULE_EGRESS,
	};
	if (!part.rule.name || !part.rule.origin)
		return;
	if (rule->ingress)
		emit_ingress(emitter, &part, &policy->subject, &peers);
	else
		emit_egress(emitter, &part, &policy->subject, &peers);
}

/* What no rule allows is denied to a pod that a policy selects, once, however many do. */
static void emit_isolation(struct emitter *emitter, const struct kube_policy *policy, bool ingress)
{
	_cleanup_(list_free) struct list isolated = {};
	bool *done = emitter->isolated[ingress];
	const char *direction = ingress ? "ingress" : "egress";
	struct draft_rule rule;

	if (!(ingress ? policy->isolates_ingress : policy->isolates_egress))
		return;
	for (uint32_t i = 0; i < policy->subject.n; i++) {
		if (!done[policy->subject.items[i]] && list_push(&isolated, policy->subject.items[i]) < 0)
			emitter->arena.out_of_memory = true;
		done[policy->subject.items[i]] = true;
	}
	if (!isolated.n)
		return;
	rule = (struct draft_rule){
		.name = arena_printf(&emitter->arena, "%s.isolates-%s", stem(emitter, policy), direction),
		.origin = arena_printf(&emitter->arena, "%s: %s isolates for %s: nothing else",
				       where(emitter, policy->at), title(emitter, policy), direction),
		.tier = "namespace",
		.priority = ISOLATION_PRIORITY,
		.action = RULE_DENY,
		.directions = ingress ? RULE_INGRESS : RULE_EGRESS,
	};
	*(ingress ? &rule.to : &rule.from) = end_of(emitter, isolated.items, isolated.n);
	if (rule.name && rule.origin)
		draft_rule(emitter->draft, &rule);
}

static void emit_policy(struct emitter *emitter, const struct kube_policy *policy)
{
	for (uint32_t i = 0; i < policy->subject.n; i++)
		emitter->touched[policy->subject.items[i]] = true;
	if (!policy->subject.n)
		draft_comment(emitter->draft, arena_printf(&emitter->arena, "%s: %s selects no workload of the map",
							   where(emitter, policy->at), title(emitter, policy)));
	for (uint32_t i = 0; i < policy->n_rules && !draft_is_full(emitter->draft); i++)
		emit_rule(emitter, policy, &policy->rules[i]);
	emit_isolation(emitter, policy, true);
	emit_isolation(emitter, policy, false);
}

/* ---- what Kubernetes does without being told ---- */

/* Whom nothing isolates may do everything, in that direction. */
static void emit_openness(struct emitter *emitter, bool ingress)
{
	_cleanup_(list_free) struct list open = {};
	const char *direction = ingress ? "ingress" : "egress";
	struct draft_rule rule = {
		.name = ingress ? "not-isolated.ingress" : "not-isolated.egress",
		.origin =
			arena_printf(&emitter->arena,
				     "No NetworkPolicy isolates these for %s: Kubernetes allows all of it.", direction),
		.tier = "baseline",
		.priority = LAST_PRIORITY,
		.action = RULE_ALLOW,
		.directions = ingress ? RULE_INGRESS : RULE_EGRESS,
	};

	for (uint32_t i = 0; i < emitter->kube->cluster.n_workloads; i++)
		if (!emitter->isolated[ingress][i] && list_push(&open, i) < 0)
			emitter->arena.out_of_memory = true;
	if (!open.n)
		return;
	*(ingress ? &rule.to : &rule.from) = end_of(emitter, open.items, open.n);
	draft_rule(emitter->draft, &rule);
}

/*
 * "Traffic is allowed to a pod if [...] the traffic source is the pod's local node" (NetworkPolicySpec.ingress), and "pods
 * cannot block access to localhost" (Network Policies, what you cannot do).
 */
static void emit_local(struct emitter *emitter)
{
	static const struct address_range loopback[] = {
		{ADDRESS_V4_FIRST | 0x7f000000U, ADDRESS_V4_FIRST | 0x7fffffffU, true}, {1, 1, false}};
	static const char *const host[] = {"host"};
	_cleanup_(list_free) struct list touched = {};
	const char *network;

	for (uint32_t i = 0; i < emitter->kube->cluster.n_workloads; i++)
		if (emitter->touched[i] && list_push(&touched, i) < 0)
			emitter->arena.out_of_memory = true;
	if (!touched.n)
		return;
	draft_rule(emitter->draft, &(struct draft_rule){.name = "local.node",
							.origin = "What a pod's own node sends it is never policed.",
							.tier = "local",
							.action = RULE_ALLOW,
							.from = {.who = host, .n_who = 1},
							.to = end_of(emitter, touched.items, touched.n),
							.directions = RULE_INGRESS});
	network = draft_network(emitter->draft, "loopback", loopback, 2, NULL, 0, NULL);
	draft_comment(emitter->draft, "Nor is what a pod sends itself over loopback.");
	for (size_t i = 0; i < touched.n && network; i++) {
		const char **name = &emitter->names[touched.items[i]];
		struct draft_end end = {.who = name, .n_who = 1, .where = &network, .n_where = 1, .both = true};

		draft_rule(emitter->draft,
			   &(struct draft_rule){.name = arena_printf(&emitter->arena, "local.loopback.%s", *name),
						.tier = "local",
						.action = RULE_ALLOW,
						.from = end,
						.to = end,
						.directions = RULE_EGRESS | RULE_INGRESS});
	}
}

static void emit_identities(struct emitter *emitter)
{
	struct cluster *cluster = &emitter->kube->cluster;

	for (uint32_t i = 0; i < cluster->n_workloads; i++) {
		const struct workload *workload = &cluster->workloads[i];

		emitter->names[i] = workload->name;
		draft_identity(emitter->draft, workload->name, workload->identity,
			       arena_printf(&emitter->arena, "%s: in namespace %s", where(emitter, workload->at),
					    cluster->namespaces[workload->namespace].name));
	}
}

static void emit_all(struct emitter *emitter)
{
	struct kube *kube = emitter->kube;
	size_t n = kube->cluster.n_workloads;

	emitter->names = arena_array(&emitter->arena, n, sizeof(*emitter->names));
	emitter->isolated[0] = arena_array(&emitter->arena, n, sizeof(bool));
	emitter->isolated[1] = arena_array(&emitter->arena, n, sizeof(bool));
	emitter->touched = arena_array(&emitter->arena, n, sizeof(bool));
	if (emitter->arena.out_of_memory)
		return;
	emit_identities(emitter);
	for (size_t i = 0; i < kube->n_policies && !draft_is_full(emitter->draft); i++)
		emit_policy(emitter, &kube->policies[i]);
	emit_openness(emitter, true);
	emit_openness(emitter, false);
	emit_local(emitter);
}

/* ---- the whole ---- */

static void read_all(struct kube *kube, const struct import_kubernetes *import)
{
	struct policy_diagnostics *diagnostics = kube->reader.diagnostics;
	struct arena *arena = &kube->reader.arena;
	uint32_t budget = YAML_TREE_MAX_NODES;
	struct node *map, **documents;
	bool any = false;
	size_t n;

	yaml_tree_read(&map, arena, &import->sources[0], 0, &budget, diagnostics);
	if (map)
		cluster_read(&kube->cluster, &kube->reader, map);
	else if (!policy_diagnostics_count(diagnostics, POLICY_ERROR))
		diagnostics_error(diagnostics, (struct position){}, "the map of the cluster is empty");
	/* Without the map every selector would look wrong. */
	if (policy_diagnostics_count(diagnostics, POLICY_ERROR))
		return;
	for (uint32_t i = 1; i < import->n_sources; i++) {
		if (!yaml_tree_read_stream(&documents, &n, arena, &import->sources[i], i, &budget, diagnostics))
			continue;
		for (size_t j = 0; j < n; j++) {
			any = any || !import_is_null(documents[j]);
			kube_read(kube, documents[j]);
		}
	}
	/* What a command that failed leaves in a pipe. No policy at all would allow everything; an empty list means it. */
	if (!any && import->n_sources > 1 && !policy_diagnostics_count(diagnostics, POLICY_ERROR))
		diagnostics_error(diagnostics, (struct position){.source = 1},
				  "no Kubernetes object: where there is no policy, give a List without items");
	kube_check(kube);
}

static int write_all(struct kube *kube, const struct import_kubernetes *import, char **textp)
{
	static const char *const tiers[] = {"local", "admin", "namespace", "baseline"};
	_cleanup_(draft_freep) struct draft *draft = draft_new();
	struct emitter emitter = {.kube = kube, .draft = draft};
	const char *head =
		arena_printf(&emitter.arena,
			     "Made by `policyctl import kubernetes`; workloads from %s, policies from %s%s.\n"
			     "Tiers: local (what Kubernetes never polices), admin (AdminNetworkPolicy),\n"
			     "namespace (NetworkPolicy), baseline (BaselineAdminNetworkPolicy, then what nothing "
			     "isolates).",
			     import->sources[0].name, import->n_sources > 1 ? import->sources[1].name : "none",
			     import->n_sources > 2 ? " and others" : "");
	int r = -ENOMEM;

	if (draft && head) {
		emit_all(&emitter);
		if (!emitter.arena.out_of_memory)
			r = draft_finish(draft, head, tiers, 4, textp);
	}
	if (r == 1)
		diagnostics_error(kube->reader.diagnostics, (struct position){},
				  "the policy would be larger than %u MiB: import the namespaces one by one",
				  POLICY_MAX_SOURCE_BYTES >> 20);
	arena_free(&emitter.arena);
	return r;
}

int policy_import_kubernetes(char **textp, struct policy_diagnostics **diagnosticsp,
			     const struct import_kubernetes *import)
{
	_cleanup_(policy_diagnostics_freep) struct policy_diagnostics *diagnostics =
		diagnostics_new(import->sources, import->n_sources);
	_cleanup_(kube_free) struct kube kube = {.namespace = import->namespace};
	int r = 0;

	*textp = NULL;
	*diagnosticsp = NULL;
	if (!diagnostics || !import->n_sources)
		return diagnostics ? -EINVAL : -ENOMEM;
	kube.reader.diagnostics = diagnostics;
	kube.reader.policy = &kube.policy;
	read_all(&kube, import);
	if (kube.reader.arena.out_of_memory || kube.policy.arena.out_of_memory)
		return -ENOMEM;
	if (!policy_diagnostics_count(diagnostics, POLICY_ERROR))
		r = write_all(&kube, import, textp);
	if (r == 0 && policy_diagnostics_count(diagnostics, POLICY_ERROR)) {
		free(*textp);
		*textp = NULL;
		r = 1;
	}
	if (r >= 0 && diagnostics_finish(diagnostics) < 0)
		r = -ENOMEM;
	if (r < 0) {
		free(*textp);
		*textp = NULL;
		return r;
	}
	*diagnosticsp = diagnostics;
	diagnostics = NULL;
	return r;
}
