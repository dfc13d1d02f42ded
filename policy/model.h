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
#include "policy/flow_end.h"
#include "policy/image.h"
#include "policy/memory.h"
#include "policy/pattern.h"
#include "policy/policy.h"
#include "policy/service.h"

#define POLICY_MAX_NAME 63U /* bytes, of identities, networks, services */
#define POLICY_MAX_RULE_NAME 127U
#define POLICY_MAX_TIERS 16U
#define POLICY_MAX_OPERANDS 4096U /* of one `any` or `all` */
#define POLICY_MAX_TESTS 10000U
#define POLICY_MAX_INVARIANTS 10000U
#define POLICY_MAX_SERVICE_DEPTH 16U	    /* services within services */
#define POLICY_MAX_RANGES ((size_t)4 << 20) /* of services, counted wherever a list of them is used */
#define POLICY_MAX_PRIORITY 1000000

/* A cgroup, by its unit or by its path. */
struct place {
	enum policy_local_kind kind;
	const char *path; /* of `only`, "": anywhere */
	uint32_t uid;	  /* of `only`: who must prove it; POLICY_ANY_UID: whoever */
};

enum identity_op {
	IDENTITY_BASE, /* its patterns and places */
	IDENTITY_ANY,  /* union of its operands */
	IDENTITY_ALL,  /* what is in every operand */
	IDENTITY_NOT,  /* every verified or local identity that is not in its one operand */
};

struct identity {
	const char *
		name; /* of an unnamed one, which set algebra within algebra or within a rule makes, as it is written */
	struct position at;
	enum identity_op op;
	uint32_t *operands; /* enum who_atom: WHO_VERIFIED, or identities, which may come later in the policy */
	uint32_t n_operands;
	struct pattern *patterns;
	uint32_t n_patterns;
	struct place *places; /* where it is local */
	uint32_t n_places;
	struct place *only; /* the cgroups that the IDs of its patterns are bound to; none: not bound */
	uint32_t n_only;
	bool unnamed;
	bool used; /* by a rule, a test or an invariant, itself or through an identity that is */
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

/* In the order in which they decide among rules of one tier and priority. */
enum rule_action {
	RULE_DENY,
	RULE_PASS,
	RULE_ALLOW,
};

struct rule {
	const char *name;
	struct position at;
	uint32_t tier; /* index; lower decides first */
	int32_t priority;
	enum rule_action action;
	struct selector from;
	struct selector to;
	struct service_range *services; /* sorted, not touching; everything is a range for each protocol */
	uint32_t n_services;
	unsigned directions; /* RULE_EGRESS | RULE_INGRESS */
	enum rule_log log;
	bool audit;    /* mode: audit; where this deny decides, the flow passes and is logged as would-deny */
	int64_t until; /* seconds since 1970, UTC: from then on as if it were not there; 0: for ever */
};

struct tier {
	const char *name;
	struct position at;
};

/* One end of a test: names stand for every member of a set, all else for one peer. */
struct test_end {
	const char *text;
	bool is_set;
	struct selector set; /* an identity: each of its IDs, at no address; a network: each address, as `world`; `any`:
				everybody everywhere */
	struct flow_end one;
};

struct policy_test {
	struct position at;
	const char *name; /* NULL: it has none */
	struct test_end from;
	struct test_end to;
	const char *service; /* as written */
	struct service_range *services;
	uint32_t n_services;
	bool allow;	/* expected */
	const char *by; /* expected: name of the rule that decides, or "default"; NULL: whichever */
};

enum invariant_kind {
	INVARIANT_NEVER,    /* no flow from `from` to `to` on `services` passes */
	INVARIANT_ALWAYS,   /* every one passes */
	INVARIANT_ISOLATED, /* none passes between `from` and `to`, either way */
};

struct invariant {
	struct position at;
	const char *name; /* NULL: it has none */
	const char *text; /* in one line, as it could be written: "never {from: web, to: db, service: [tcp/22]}" */
	enum invariant_kind kind;
	struct selector from;
	struct selector to;
	struct service_range *services;
	uint32_t n_services;
};

struct policy {
	struct arena arena;
	const char **source_names; /* printable */
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
	struct tier *tiers; /* in order; without a declaration one, "app" */
	uint32_t n_tiers;
	struct policy_test *tests;
	size_t n_tests, tests_capacity;
	struct invariant *invariants;
	size_t n_invariants, invariants_capacity;
	struct intern peer_names; /* of identities and networks: one name, one meaning */
	uint32_t *identity_order; /* every identity, operands before what is made of them */

	bool has_defaults;
	struct position defaults_at;
	bool default_allow;
	enum rule_log default_log;
};

#endif
