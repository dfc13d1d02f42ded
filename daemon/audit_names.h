/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit_names.h - what the numbers in an event are called: identities, and the rules of each policy revision.
 *
 * Events name rules by number within a revision, and an event may be read after later revisions came into force. So the
 * names of the last revisions are kept: of each compiled policy only the names, not the tables.
 */
#ifndef BULKHEAD_DAEMON_AUDIT_NAMES_H
#define BULKHEAD_DAEMON_AUDIT_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/image.h"

#define AUDIT_NAMES_REVISIONS 64
/* Bytes of rule names kept; beyond that the oldest revisions go first, but never the newest two: one in force and one
 * being replaced. */
#define AUDIT_NAMES_MAX_BYTES (64U << 20)

struct audit_names;

int audit_names_new(struct audit_names **namesp);
void audit_names_freep(struct audit_names **namesp);

/* Names an identity number, instead of what it was called before. -EINVAL for a reserved or impossible number. */
int audit_names_set_identity(struct audit_names *names, uint32_t identity, bool local, const char *name);
/* Returns false if the number has no name. *localp: a local identity, not a SPIFFE ID. Borrowed until it is set again. */
bool audit_names_identity(const struct audit_names *names, uint32_t identity, const char **namep, bool *localp);

/* Names a managed device by its index, instead of what it was called before. What is gone stays known for the events that are
 * still to be read. */
int audit_names_set_device(struct audit_names *names, uint32_t ifindex, const char *name);
/* NULL if it is not known. Borrowed until a device is set. */
const char *audit_names_device(const struct audit_names *names, uint32_t ifindex);

/* Keeps the rule names of a revision, instead of what it had before. Rule i has number i; 0 is the default. */
int audit_names_set_rules(struct audit_names *names, uint32_t revision, const char *digest,
			  const struct policy_rule_name *rules, size_t n);
/* The same, from the image that is in force under this revision. */
int audit_names_set_image(struct audit_names *names, uint32_t revision, const struct policy_image *image);
/* SHA-256 of the policy in hex, or NULL for a revision that is not (or no longer) known. */
const char *audit_names_digest(const struct audit_names *names, uint32_t revision);
/* Returns false if the revision is not known or has no such rule. Borrowed until the next revision is set. */
bool audit_names_rule(const struct audit_names *names, uint32_t revision, uint32_t number,
		      struct policy_rule_name *rule);

#endif
