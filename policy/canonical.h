/* SPDX-License-Identifier: Apache-2.0 */
/*
 * canonical.h - policy files in one form, so that a change of a policy is a change of its meaning.
 *
 * Sections and the keys of a rule have one order, indentation is two spaces, sections and rules stand apart by an empty
 * line, lists and maps that fit a line stand on one, and quotes are where they are needed. Comments stay with what they
 * stand at, anchors and aliases stay, and single empty lines between definitions stay. What cannot be read as a policy
 * but is a YAML map can be formatted all the same.
 *
 * The result is read again and compared with the source before it is handed out: same keys, same values, same order of
 * lists, same comments. The form of the form is the form itself.
 */
#ifndef BULKHEAD_POLICY_CANONICAL_H
#define BULKHEAD_POLICY_CANONICAL_H

#include "policy/policy.h"

#define CANONICAL_COLUMNS 80U /* what fits a line, comments aside */

/*
 * Writes a source in its canonical form. *textp is malloc()ed, with a NUL behind. Returns 0; 1 if the source is not a YAML
 * map, or could not be written without changing it, *diagnosticsp says why; or -ENOMEM. Both are owned by the caller.
 */
int policy_canonical(char **textp, size_t *lenp, struct policy_diagnostics **diagnosticsp,
		     const struct policy_source *source);

#endif
