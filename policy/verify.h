/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify.h - what a policy says about itself, checked: its tests and its invariants.
 *
 * Each is a statement about a set of flows, answered for all of them at once (flow_space.h), so "holds" means that there is
 * no flow for which it does not, and a failure comes with one. A test of a name is about each member of what it names; a
 * statement about no flow at all is a failed test, as it would pass whatever the policy did, and an invariant that holds.
 *
 * A test's `by` names the rule that decides: where the flow is denied, a rule by which an end denies it; where it is
 * allowed, the rule by which either end allows it. An end that judges nothing has none.
 */
#ifndef BULKHEAD_POLICY_VERIFY_H
#define BULKHEAD_POLICY_VERIFY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "policy/model.h"

/* What one end says of a flow. Borrowed from the policy. */
struct policy_decider {
	bool judged; /* false: this end is outside any managed workload */
	bool allow;
	bool audit;	  /* a deny in audit mode, which lets pass */
	const char *rule; /* "default" when no rule decided */
	const char *tier; /* NULL when no rule decided */
	const char *file; /* of the rule, or of `defaults`; NULL for the built-in default */
	unsigned line;
};

/* The answer to one statement, for the time of the call that tells it. */
struct policy_finding {
	const struct policy_test *test;	   /* one of these */
	const struct invariant *invariant; /* two */
	bool holds;
	const char *why;  /* of a test that has failed, or of a statement about no flow; else NULL */
	bool has_flow;	  /* it does not hold for this flow: */
	const char *from; /* as `explain` takes them */
	const char *to;
	const char *service;
	bool allow;
	struct policy_decider egress;
	struct policy_decider ingress;
};

/* A value other than 0 ends the run and is returned. */
typedef int (*policy_finding_fn)(void *context, const struct policy_finding *finding);

/* Answers every test of the policy, in its order. `now`: seconds since 1970, for rules with `until`. Returns 0; what the
 * callback returned; 1 when the policy is too complex for exact answers, with a sentence in *errorp (owned by the
 * caller); or -ENOMEM. */
int policy_run_tests(const struct policy *policy, int64_t now, policy_finding_fn tell, void *context, char **errorp);
/* Likewise invariants: the policy's own, or others about it (invariant.h). */
int policy_check_invariants(const struct policy *policy, const struct invariant *invariants, size_t n, int64_t now,
			    policy_finding_fn tell, void *context, char **errorp);

/* "allow by web-to-db (shop.yaml:12)", or that it is not judged. */
void policy_decider_text(const struct policy_decider *decider, FILE *out);
/* "web -> db tcp/5432: allow", the name of the statement if it has one. */
void policy_finding_title(const struct policy_finding *finding, FILE *out);
/* What is wrong, the flow, and what each end says of it, one line each, indented. */
void policy_finding_details(const struct policy_finding *finding, FILE *out);
/* "FILE:LINE" of the statement. */
void policy_finding_place(const struct policy *policy, const struct policy_finding *finding, FILE *out);

/*
 * All of it, before a policy comes into force: writes every statement that does not hold as a diagnostic. Costs nothing
 * where there is none. Returns 0 (all hold), 1 (some do not, or it could not be told), or -ENOMEM.
 */
int policy_verify(const struct policy *policy, int64_t now, FILE *out);

#endif
