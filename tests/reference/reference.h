/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reference.h - what the policy language means, said a second time.
 *
 * Random policies are made as structures and, beside them, as the text that says the same. A flow is then judged by looking
 * at every rule in turn, as DESIGN defines it: slow, and short enough to be seen right. Nothing here reads or calls the policy
 * library, so a mistake would have to be made twice to go unseen.
 */
#ifndef BULKHEAD_TESTS_REFERENCE_H
#define BULKHEAD_TESTS_REFERENCE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define REF_MAX_IDENTITIES 60
#define REF_MAX_NETWORKS 20
#define REF_MAX_SERVICES 5
#define REF_MAX_RULES 200
#define REF_MAX_TIERS 16
#define REF_MAX_FILES 3
#define REF_NOW 1800000000 /* the time at which flows are judged, seconds since 1970 */

/* ---- sets of identities ---- */

enum ref_op { REF_PATTERN, REF_NAME, REF_VERIFIED, REF_ANY_OF, REF_ALL_OF, REF_NOT };

struct ref_set {
	enum ref_op op;
	char pattern[120];
	int identity;
	int n;
	struct ref_set *operands[3];
};

struct ref_identity {
	int n_patterns;
	char patterns[3][120];
	int local;	     /* 0 no, 1 unit, 2 cgroup */
	struct ref_set *set; /* or one made of others */
	bool bound;	     /* has `only` */
};

/* ---- addresses and services ---- */

struct ref_cidr {
	bool v4;
	unsigned char bytes[16]; /* of IPv4 the first 4 */
	int prefix;
};

struct ref_network {
	int n, n_except;
	struct ref_cidr cidrs[3];
	struct ref_cidr except[2];
	bool map; /* written as include and except */
};

struct ref_service {
	int protocol;
	int low, high; /* ports or types; -1: all */
};

struct ref_service_name {
	int n;
	struct ref_service items[3];
};

/* ---- rules ---- */

enum ref_builtin {
	REF_BUILTIN_ANY,
	REF_BUILTIN_VERIFIED,
	REF_BUILTIN_UNIDENTIFIED,
	REF_BUILTIN_HOST,
	REF_BUILTIN_WORLD
};

struct ref_peer {
	enum { REF_PEER_BUILTIN, REF_PEER_IDENTITY, REF_PEER_NETWORK, REF_PEER_SET } kind;
	int index; /* enum ref_builtin, identity or network */
	struct ref_set *set;
};

struct ref_selector {
	bool pair; /* {identity, network}: both must match */
	int n;	   /* peers; in a pair the identities come first */
	struct ref_peer peers[5];
};

enum ref_action { REF_DENY, REF_PASS, REF_ALLOW };
enum ref_log { REF_LOG_UNSAID = -1, REF_LOG_NONE, REF_LOG_NEW, REF_LOG_DENIED, REF_LOG_ALL };

struct ref_rule {
	int tier, priority;
	enum ref_action action;
	struct ref_selector from, to;
	int n_services; /* 0: everything */
	struct ref_service services[3];
	int n_service_names;
	int service_names[2];
	int direction; /* 1 egress, 2 ingress, 3 both */
	enum ref_log log;
	bool audit;
	int64_t until; /* 0: none */
};

struct ref_policy {
	int n_identities, n_networks, n_services, n_rules, n_tiers, n_files;
	struct ref_identity identities[REF_MAX_IDENTITIES];
	struct ref_network networks[REF_MAX_NETWORKS];
	struct ref_service_name services[REF_MAX_SERVICES];
	struct ref_rule rules[REF_MAX_RULES]; /* in the order of the files */
	bool default_allow;
	enum ref_log default_log;
	bool declares_tiers;
	int app_tier; /* index of "app"; -1: not among the tiers */
	bool large;
	bool ending; /* most rules have an `until` */
	char *texts[REF_MAX_FILES];
	struct ref_set sets[8000];
	int n_sets;
	uint64_t random; /* state */
};

/* ---- flows ---- */

enum ref_kind { REF_SPIFFE, REF_LOCAL, REF_UNIDENTIFIED, REF_HOST, REF_WORLD };

struct ref_end {
	enum ref_kind kind;
	char id[200];
	int local; /* identity */
	bool has_address;
	bool v4;
	unsigned char address[16];
};

struct ref_flow {
	struct ref_end from, to;
	int protocol, port;
};

struct ref_verdict {
	bool allow;
	bool audit;	  /* a deny in audit mode decided */
	int rule;	  /* from 1; 0: the default */
	enum ref_log log; /* never REF_LOG_UNSAID */
	int64_t until;	  /* the verdict holds until then at least; 0: for ever */
};

/* A random policy with every feature of the language, and its texts; the same for the same seed. */
struct ref_policy *ref_policy_new(uint64_t seed);
/* Likewise one of up to 200 rules and 60 identities, with what is rare: many tiers, most rules with `until`, rules twice,
 * selectors that match nobody, priorities and ports at their limits. */
struct ref_policy *ref_policy_new_large(uint64_t seed);
void ref_policy_free(struct ref_policy *policy);
/* A random flow, mostly of peers and services that the policy knows of. */
void ref_flow_make(struct ref_policy *policy, struct ref_flow *flow);
/* `direction` is 1 egress, 2 ingress. */
struct ref_verdict ref_judge(const struct ref_policy *policy, int direction, const struct ref_flow *flow, int64_t now);
/* Is a rule about a flow, in a judgement? */
bool ref_rule_matches(const struct ref_policy *policy, const struct ref_rule *rule, int direction,
		      const struct ref_flow *flow, int64_t now);
bool ref_identity_has(const struct ref_policy *policy, int number, const struct ref_end *end);
/* Makes the `from`, `to` and `service` of a rule, and what follows `never:` or `always:` to say the same ("{from: ...}", owned
 * by the caller). */
void ref_statement_make(struct ref_policy *policy, struct ref_rule *rule, char **textp);
/* An end as `explain` takes it. */
void ref_end_format(const struct ref_end *end, char *out, size_t size);
void ref_service_format(const struct ref_flow *flow, char *out, size_t size);

/* Less than n. */
uint32_t ref_random(struct ref_policy *policy, uint32_t n);
bool ref_network_has(const struct ref_network *network, const struct ref_end *end);

#endif
