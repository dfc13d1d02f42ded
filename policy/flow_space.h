/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow_space.h - exact answers about sets of flows: what prove, diff, test and lint are made of.
 *
 * The space has five dimensions: who and where the source is, who and where the destination is, and the service. "Who" and
 * "where" are classes: what no policy of the space tells apart is one number, so the space is finite and small, and a
 * statement about all of it is a statement about every identity and every address. A space may be of two policies, whose
 * classes it then has in common, so that a flow is the same numbers in both.
 *
 * A set of flows is a list of boxes, each a product of one set for every dimension. A box is judged by looking at the rules
 * that meet it, in their order of precedence: the first that covers it decides it; one that covers a part splits it. So the
 * cost follows how many rules overlap within the box, not how many flows it has. A budget bounds it.
 */
#ifndef BULKHEAD_POLICY_FLOW_SPACE_H
#define BULKHEAD_POLICY_FLOW_SPACE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "policy/model.h"

/* Numbers, as sorted spans that do not touch. */
struct span {
	uint32_t first;
	uint32_t last;
};

struct spans {
	struct span *items;
	uint32_t n;
};

enum flow_dimension {
	FLOW_FROM_WHO,	 /* who class */
	FLOW_FROM_WHERE, /* where class; 0: no address, as in `explain`; the rest divide all addresses */
	FLOW_TO_WHO,
	FLOW_TO_WHERE,
	FLOW_SERVICE, /* point (service.h) */
	FLOW_DIMENSIONS
};

struct flow_box {
	struct spans dim[FLOW_DIMENSIONS];
};

#define FLOW_DEFAULT 0xffffffffU  /* no rule decided */
#define FLOW_UNJUDGED 0xfffffffeU /* this end is outside any managed workload */

/* A part of a box on which both judgements are the same everywhere. */
struct flow_piece {
	struct flow_box box; /* borrowed, for the time of the call */
	bool allow;	     /* both say so; where a deny in audit mode decides, that end allows */
	bool egress_allow;
	bool ingress_allow;
	uint32_t egress_rule; /* index in policy->rules, or FLOW_DEFAULT or FLOW_UNJUDGED */
	uint32_t ingress_rule;
};

struct flow_space;

/* The policies (one or two) are borrowed and must outlive the space. `now`: seconds since 1970; a rule whose `until` is not
 * after it takes no part. Returns 0; 1 with the reason in *errorp (owned by the caller) if they are too complex; or
 * -ENOMEM. */
int flow_space_new(struct flow_space **spacep, const struct policy *const *policies, size_t n, int64_t now,
		   char **errorp);
void flow_space_freep(struct flow_space **spacep);

/* What judging has cost so far; and how much more it may cost, less than the bound that there is anyway. A hundred million is
 * a second or less. */
uint64_t flow_space_work(const struct flow_space *space);
void flow_space_limit(struct flow_space *space, uint64_t more_work);

/* Every flow that has an address at both ends and a managed workload at one of them at least. */
int flow_space_everything(struct flow_space *space, struct flow_box **boxesp, size_t *np);
/* The flows between two selectors of a policy of the space, at real addresses: boxes that do not overlap. Boxes live as long
 * as the space. */
int flow_space_select(struct flow_space *space, size_t policy, const struct selector *from, const struct selector *to,
		      const struct service_range *services, uint32_t n_services, struct flow_box **boxesp, size_t *np);
/* Likewise those of a test. Returns 0, 1 (an end that the policy does not know; *errorp), or -ENOMEM. */
int flow_space_select_test(struct flow_space *space, size_t policy, const struct policy_test *test,
			   struct flow_box **boxesp, size_t *np, char **errorp);
/* The flows that a rule is about (in whatever direction). */
int flow_space_select_rule(struct flow_space *space, size_t policy, uint32_t rule, struct flow_box **boxesp,
			   size_t *np);

/* Called for each piece; a value other than 0 ends the judging and is returned. */
typedef int (*flow_piece_fn)(void *context, const struct flow_piece *piece);

/* Divides a box into pieces. Returns 0, what the callback returned, 1 with *errorp when the budget is spent, or -ENOMEM. */
int flow_space_judge(struct flow_space *space, size_t policy, const struct flow_box *box, flow_piece_fn piece,
		     void *context, char **errorp);

/* ---- in words ---- */

/* One flow of a box as `explain` takes it: FROM, TO, SERVICE, each owned by the caller. An ID that no pattern names exactly
 * is made up to match ("spiffe://prod.example/ns/any/sa/web"); an address is the first of its class, or one for
 * documentation. Returns 0 or -ENOMEM. */
int flow_space_example(struct flow_space *space, const struct flow_box *box, char **fromp, char **top, char **servicep);
/* Writes one end (`to`: the destination) or the services of a box in the names of a policy of the space where they fit, else
 * as IDs, CIDR blocks and ports: "web", "verified except db", "office", "web at office", "any". */
void flow_space_describe_end(struct flow_space *space, size_t policy, const struct flow_box *box, bool to, FILE *out);
void flow_space_describe_services(struct flow_space *space, size_t policy, const struct flow_box *box, FILE *out);

/* ---- spans ---- */

/* Memory of results is the space's. Return false when out of memory. */
bool spans_intersect(struct flow_space *space, struct spans *out, const struct spans *a, const struct spans *b);
bool spans_subtract(struct flow_space *space, struct spans *out, const struct spans *a, const struct spans *b);
bool spans_unite(struct flow_space *space, struct spans *out, const struct spans *a, const struct spans *b);
bool spans_equal(const struct spans *a, const struct spans *b);

#endif
