/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy_changes.h - which entries of a policy differ from those of another, by name: rules, and the definitions that
 * rules stand on. It compares texts (as trees, so that neither comments nor order of files nor layout count); what a
 * change does to flows is another question (policy_diff.h).
 */
#ifndef BULKHEAD_CLI_POLICY_CHANGES_H
#define BULKHEAD_CLI_POLICY_CHANGES_H

#include <jansson.h>
#include <stdint.h>

#include "policy/memory.h"
#include "policy/policy.h"

struct policy_entry {
	const char *section; /* "rules", "identities", ...; sections without names ("defaults") are one entry */
	const char *name;    /* "" for such */
	const char *text;    /* what is compared */
};

struct policy_entries {
	struct policy_entry *items; /* sorted by section and name */
	size_t n, room;
	uint32_t rules;
	struct arena arena; /* of the names and texts */
};

/* Takes the sources of one policy apart. Returns 0, 1 if a source is not YAML of a policy's form, or -ENOMEM. */
int policy_entries_read(struct policy_entries *entries, const struct policy_source *sources, size_t n);
void policy_entries_free(struct policy_entries *entries);

/*
 * The differences as {"rules": {"added": [name], "removed": [], "changed": []}, "definitions": likewise, as
 * "SECTION/NAME"}. `old` NULL: nothing was there. A new reference.
 */
json_t *policy_changes_json(const struct policy_entries *old, const struct policy_entries *new);
/* "+ssh-in -old ~web-to-db, ~identities/web"; names beyond `max` are counted. "no change", if so. malloc()ed, or NULL. */
char *policy_changes_text(const json_t *changes, size_t max);

#endif
