/* SPDX-License-Identifier: Apache-2.0 */
/*
 * invariant.h - invariants that are not in the policy but asked of it, as on a command line. They are read by the functions
 * that read a policy, so a name or a service is written as in a rule, and a mistake gets the same words.
 */
#ifndef BULKHEAD_POLICY_INVARIANT_H
#define BULKHEAD_POLICY_INVARIANT_H

#include "policy/model.h"

/*
 * Reads what follows `never` or `always`: "from: SELECTOR to: SELECTOR [service: SERVICE]" in any order, each value as in a
 * rule ("web", "[web, db]", "{not: web}", "tcp/443"), or the same as one YAML map "{from: ..., to: ...}". A SELECTOR that is
 * left out is an error, a service that is left out every service.
 *
 * The policy gets what the text adds to it (unnamed identities; see identity_order), so do this before anything is made
 * from the policy; the invariant lives as long as the policy. Returns 0; 1 with what is wrong, one line for each mistake,
 * in *errorp (owned by the caller); or -ENOMEM.
 */
int policy_invariant_parse(struct invariant *invariant, struct policy *policy, enum invariant_kind kind,
			   const char *text, char **errorp);
/* Likewise INVARIANT_ISOLATED of two selectors. */
int policy_invariant_isolated(struct invariant *invariant, struct policy *policy, const char *a, const char *b,
			      char **errorp);

#endif
