/* SPDX-License-Identifier: Apache-2.0 */
/*
 * learn.h - from recorded flows to the smallest readable policy that allows them, and them only.
 *
 * Each end of a flow becomes a peer: a SPIFFE ID, a local identity, the host, or an address of the world. Who proved an
 * identity is allowed by it, wherever he is; an address counts only for peers that have nothing else. Peers that did the
 * same to the same are one name: IDs that differ in one segment one identity, addresses one network. Then the flows are
 * points in a space of three dimensions (from, to, service), and a rule is a box in it; the rules are few boxes that hold
 * every recorded point and no other point of recorded peers and services.
 *
 * Nothing is made wider than the record without being asked to (`wildcards`), or without a comment that says so (a name
 * of the policy `against` that stands for more).
 */
#ifndef BULKHEAD_POLICY_LEARN_H
#define BULKHEAD_POLICY_LEARN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "policy/policy.h"

#define LEARN_MAX_FLOWS (256U << 10) /* different ones */

struct learn_options {
	const struct policy *against; /* only what this one does not allow, in its names; NULL: all. Borrowed */
	int64_t now;		      /* seconds since 1970: which of its rules are in force */
	bool wildcards;		      /* IDs that differ in one segment become a pattern with `*` */
};

/* Why nothing is learned from a flow that was recorded. */
enum learn_doubt {
	LEARN_NO_DOUBT,
	LEARN_UNASKED, /* it was denied before the other end could show who it is */
	LEARN_FORGED,  /* the other end showed a proof that is none: an attack, perhaps */
};

/* One line of a record. Texts are borrowed for the call. */
struct learn_flow {
	const char
		*from; /* as `explain` takes it: "spiffe://prod.example/web@10.0.0.1", "backup", "192.0.2.7", "host" */
	const char *to;
	const char *service;
	const char *cgroup; /* of the end that was judged; NULL: not known */
	bool ingress;	    /* the destination judged, not the source */
	enum learn_doubt doubt;
	uint64_t count;
	int64_t first; /* seconds since 1970 */
	int64_t last;
};

struct learn;

/* Returns 0 or -ENOMEM. */
int learn_new(struct learn **learnp, const struct learn_options *options);
void learn_freep(struct learn **learnp);

/* Returns 0; 1 with the reason in *errorp (owned by the caller) if an end or the service cannot be understood, or if there
 * are too many different flows (then learn_full()); or -ENOMEM. */
int learn_add(struct learn *learn, const struct learn_flow *flow, char **errorp);
bool learn_full(const struct learn *learn);
/* The local identity `name` was carried by this cgroup: how it can be defined. Returns 0 or -ENOMEM. */
int learn_place(struct learn *learn, const char *name, const char *cgroup);

/* Finds the policy; once, after the last flow. Returns 0 or -ENOMEM. */
int learn_finish(struct learn *learn);

struct learn_rule {
	const char *name;
	const char *from; /* as in YAML */
	const char *to;
	const char *service;
	uint64_t count; /* how often it was seen */
	int64_t first;
	int64_t last;
};

/* Flows that no rule was learned for, and why. */
struct learn_note {
	const char *text;
	uint64_t count;
	int64_t first;
	int64_t last;
};

struct learn_summary {
	size_t n_flows;	  /* different ones */
	size_t n_missing; /* of these, not allowed by `against` */
	size_t n_learned; /* of these, allowed by the rules */
	uint64_t count;	  /* of all, how often they were seen */
	int64_t first;
	int64_t last;
};

/* Results live as long as `learn`. `get` functions return NULL past the end. */
const struct learn_summary *learn_summary(const struct learn *learn);
const struct learn_rule *learn_rule_get(const struct learn *learn, size_t index);
const struct learn_note *learn_note_get(const struct learn *learn, size_t index);
/* Writes a policy file. `origin`, as in "audit.jsonl", is named at its head. */
void learn_write(const struct learn *learn, const char *origin, FILE *out);

#endif
