/* SPDX-License-Identifier: Apache-2.0 */
/*
 * import_draft.h - a policy being written by an importer, section by section, to be read by people.
 *
 * The draft knows the names it has given, so that a name stands for one thing, and networks it has met, so that one block of
 * addresses has one name. Whatever comes from an imported file and is not a name stands in quotes or in a comment, where it
 * cannot become policy. The size of the text is bounded by what a policy file may have.
 */
#ifndef BULKHEAD_POLICY_IMPORT_DRAFT_H
#define BULKHEAD_POLICY_IMPORT_DRAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/address.h"
#include "policy/model.h"
#include "policy/service.h"

/* The source or the destination of a rule: identities, networks, either of both, or with `both` one of each at once. None
 * of either: everybody. */
struct draft_end {
	const char *const *who;
	size_t n_who;
	const char *const *where;
	size_t n_where;
	bool both;
};

struct draft_rule {
	const char *origin; /* for the comment above it, one or more lines */
	const char *name;   /* cut and numbered if it is too long or taken */
	const char *tier;   /* NULL: no tiers */
	int32_t priority;
	enum rule_action action;
	struct draft_end from;
	struct draft_end to;
	const struct service_range *services; /* normalised; none: everything */
	uint32_t n_services;
	unsigned directions;
};

struct draft;

/* Returns NULL when out of memory. */
struct draft *draft_new(void);
void draft_freep(struct draft **draftp);

/* Names an identity; `value` is YAML, as the policy has it. Returns false if the name is taken. */
bool draft_identity(struct draft *draft, const char *name, const char *value, const char *origin);
/* The name of a set of addresses, which is given one (from `name`, if not NULL) when it first comes up. Ranges must be CIDR
 * blocks. Borrowed. Returns NULL when out of memory. */
const char *draft_network(struct draft *draft, const char *name, const struct address_range *include, size_t n_include,
			  const struct address_range *except, size_t n_except, const char *origin);
void draft_rule(struct draft *draft, const struct draft_rule *rule);
/* A comment between rules, a line or several. */
void draft_comment(struct draft *draft, const char *text);

/*
 * Puts the policy together: a comment at its head, the sections, the tiers if any. The text is malloc()ed. Returns 0; 1 if
 * it would be larger than a policy file may be; or -ENOMEM.
 */
int draft_finish(struct draft *draft, const char *head, const char *const *tiers, size_t n_tiers, char **textp);
/* Has the text grown beyond what a policy file may have? Then an importer may stop early. */
bool draft_is_full(const struct draft *draft);

#endif
