/* SPDX-License-Identifier: Apache-2.0 */
/*
 * diff.h - which flows change verdict between two policies, exactly, and which rules do it.
 *
 * A verdict can differ only where a rule matches that is not in both policies (compared by what it means, not by how it is
 * written), or where no rule decides and the defaults differ. So both policies are laid out in one space of flows
 * (flow_space.h), the flows of those rules are judged by either policy, and the parts that differ are joined to as few
 * products "from these, to those, on these services" as they fit in. The cost follows what changed, not what there is.
 *
 * Every change that is listed is exact. When the policies differ in so many places that the budget does not suffice, the
 * list is marked as not complete, with the reason, and has the first few changes only.
 */
#ifndef BULKHEAD_POLICY_DIFF_H
#define BULKHEAD_POLICY_DIFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/policy.h"

struct flow_box;
struct flow_space;

/* What decided: a rule, or the default. */
struct policy_diff_rule {
	const char *name; /* "default" when no rule did */
	const char *file; /* NULL: the built-in default */
	unsigned line;
	bool allow; /* what it does; a deny in audit mode lets pass */
};

/* Flows that all change in the same way. */
struct policy_change {
	bool allow;	      /* these flows pass now, and did not; false: the other way round */
	const char *from;     /* in words: "web", "verified except db", "web at office" */
	const char *to;	      /* likewise */
	const char *services; /* "tcp/5432" */
	/* One of the flows, as `explain` takes it. */
	const char *example_from, *example_to, *example_service;
	/* What decides in the new policy, at the ends where the verdict changes, and what did in the old one. */
	const struct policy_diff_rule *by, *before;
	size_t n_by, n_before;
	const struct flow_box *box; /* the flows, as classes of `space` */
};

struct policy_diff {
	struct policy_change *changes; /* no flow is in two of them; those that pass now first */
	size_t n_changes;
	size_t n_found;	  /* all that were found; of a comparison that is not complete only some are listed */
	bool complete;	  /* false: more may differ than was found */
	char *why;	  /* if not complete */
	size_t n_removed; /* rules of the old policy that, by meaning, are not in the new one */
	size_t n_added;	  /* and the other way round */
	bool defaults_differ;
	struct flow_space *space; /* of both policies: old 0, new 1 */
	struct diff_memory *memory;
};

/* Compares, as of `now` (seconds since 1970). The policies must outlive the result. Returns 0; 1 with the reason in *errorp
 * (owned by the caller) if they are too complex to be compared at all; or -ENOMEM. */
int policy_diff_new(struct policy_diff **diffp, const struct policy *old, const struct policy *new, int64_t now,
		    char **errorp);
void policy_diff_freep(struct policy_diff **diffp);

#endif
