/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model.h - a policy after reading: names resolved to indices, patterns, addresses and ports parsed. Nothing in it is
 * wrong any more; the compiler and the explanations ask no questions of form.
 */
#ifndef BULKHEAD_POLICY_MODEL_H
#define BULKHEAD_POLICY_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/address.h"
#include "policy/diagnostics.h"
#include "policy/image.h"
#include "policy/memory.h"
#include "policy/pattern.h"
#include "policy/policy.h"
#include "policy/service.h"

#define POLICY_MAX_NAME 63U /* bytes, of identities, networks, services */
#define POLICY_MAX_RULE_NAME 127U

/* A cgroup, by its unit or by its path. */
struct place {
	enum policy_local_kind kind;
	const char *path;
};

struct identity {
	const char *name;
	struct position at;
	struct pattern *patterns;
	uint32_t n_patterns;
	struct place *places; /* where it is local */
	uint32_t n_places;
	struct place *only; /* the cgroups that the IDs of its patterns are bound to; none: not bound */
	uint32_t n_only;
	bool used; /* by a rule */
};

struct network {
	const char *name;
	struct position at;
	struct address_range *ranges;
	uint32_t n_ranges;
	bool used;
};

struct service {
	const char *name;
	struct position at;
	struct service_range *ranges;
	uint32_t n_ranges;
	bool used;
};

/* What a selector can ask of a peer's identity: a built-in, or an identity of the policy from WHO_IDENTITY on. */
enum who_atom {
	WHO_UNIDENTIFIED,
	WHO_HOST,
	WHO_WORLD,
	WHO_VERIFIED,
	WHO_IDENTITY,
};

/* Both must match: one of `who`, and one of `networks`. An empty list of either asks nothing. Sorted. */
struct selector_term {
	uint32_t *who; /* enum who_atom */
	uint32_t n_who;
	uint32_t *networks; /* indices */
	uint32_t n_networks;
};

/* Any of the terms. A term that asks nothing stands alone. */
struct selector {
	struct selector_term *terms;
	uint32_t n_terms;
};

enum rule_log {
	RULE_LOG_NONE,
	RULE_LOG_NEW,
	RULE_LOG_DENIED,
	RULE_LOG_ALL,
};

#define RULE_EGRESS 1U
#define RULE_INGRESS 2U

struct rule {
	const char *name;
	struct position at;
	bool allow;
	struct selector from;
	struct selector to;
	struct service_range *services; /* sorted, not touching; everything is four ranges */
	uint32_t n_services;
	unsigned directions; /* RULE_EGRESS | RULE_INGRESS */
	enum rule_log log;
};

struct policy {
	struct arena arena;
	const char **source_names;
	uint32_t n_sources;
	char digest[65];

	struct identity *identities;
	size_t n_identities, identities_capacity;
	struct network *networks;
	size_t n_networks, networks_capacity;
	struct service *services;
	size_t n_services, services_capacity;
	struct rule *rules;
	size_t n_rules, rules_capacity;
	struct intern peer_names; /* of identities and networks: one name, one meaning */

	bool has_defaults;
	struct position defaults_at;
	bool default_allow;
	enum rule_log default_log;
};

#endif
