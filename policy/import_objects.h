/* SPDX-License-Identifier: Apache-2.0 */
/*
 * import_objects.h - NetworkPolicy, AdminNetworkPolicy and BaselineAdminNetworkPolicy as they mean it, selectors resolved.
 *
 * Every field of a `spec` is read or is an error: nothing is dropped. What Kubernetes itself would refuse is refused too,
 * and what it leaves undefined is not guessed. `metadata` (but for name and namespace) and `status` say nothing about
 * traffic and are not looked at.
 */
#ifndef BULKHEAD_POLICY_IMPORT_OBJECTS_H
#define BULKHEAD_POLICY_IMPORT_OBJECTS_H

#include "policy/import_map.h"

enum kube_kind {
	KUBE_ADMIN,	/* AdminNetworkPolicy */
	KUBE_NAMESPACE, /* NetworkPolicy */
	KUBE_BASELINE,	/* BaselineAdminNetworkPolicy */
};

#define KUBE_ANY_PROTOCOL 0xffffffffU
#define KUBE_MAX_WARNINGS 100U

/* Ports of one protocol, or the port that a workload calls by a name. */
struct kube_port {
	struct position at;
	struct service_range range;
	const char *name;  /* NULL: the range */
	uint32_t protocol; /* of a name: first point of the protocol (service.h), or KUBE_ANY_PROTOCOL */
};

struct kube_network {
	struct position at;
	struct address_range block;
	struct address_range *except; /* within the block */
	uint32_t n_except;
};

struct kube_rule {
	struct position at;
	unsigned number;  /* in its list, from 1 */
	const char *name; /* of rules that have one, or NULL */
	enum rule_action action;
	bool ingress;
	bool anywhere; /* the peer may be anybody */
	struct selection workloads;
	struct kube_network *networks;
	uint32_t n_networks;
	bool every_port;
	struct kube_port *ports;
	uint32_t n_ports;
};

struct kube_policy {
	enum kube_kind kind;
	const char *namespace; /* NULL: of the whole cluster */
	const char *name;
	struct position at;
	uint32_t priority; /* AdminNetworkPolicy */
	struct selection subject;
	bool isolates_ingress; /* NetworkPolicy: what no rule allows is denied */
	bool isolates_egress;
	struct kube_rule *rules; /* ingress first */
	uint32_t n_rules;
};

struct kube {
	struct reader reader;
	struct policy policy; /* what the reader keeps names for */
	struct cluster cluster;
	const char *namespace; /* of objects that name none */
	struct kube_policy *policies;
	size_t n_policies, policies_capacity;
	struct intern object_names; /* KIND/NAMESPACE/NAME */
	unsigned n_warnings;	    /* of selectors that select nobody */
};

extern const char *const kube_kind_names[];

/* Reads one document: an object or a list of objects. Mistakes are among the diagnostics. */
void kube_read(struct kube *kube, const struct node *root);
/* After all: what one object cannot know of another. */
void kube_check(struct kube *kube);
void kube_free(struct kube *kube);

/* Reads a list of ports of a rule, or of peers; import_peers.c. Return false after an error. */
bool kube_read_ports(struct kube *kube, const struct node *node, enum kube_kind kind, struct kube_rule *rule);
bool kube_read_peers(struct kube *kube, const struct node *node, const struct kube_policy *policy, uint32_t namespace,
		     struct kube_rule *rule);
/* Selects workloads, and warns if there are none. `namespace` as of cluster_select(); NULL nodes select all. */
bool kube_select(struct kube *kube, const struct node *at, uint32_t namespace, const struct node *namespaces,
		 const struct node *pods, struct selection *selection);
/* {namespaceSelector, podSelector}, both required. */
bool kube_select_pods(struct kube *kube, const struct node *node, struct selection *selection);

/* A namespace that is not in the map: nothing of it is known, so nothing is selected. */
#define NO_NAMESPACE 0xfffffffeU

#endif
