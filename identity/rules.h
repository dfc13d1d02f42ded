/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rules.h - the rules an SVID is held to, by number.
 *
 * One text per rule, used everywhere: in the answer to the workload, in the audit log and by `policyctl svid verify`.
 * The numbers are those of the conformance table in docs/spiffe-rules.md; the names are stable.
 */
#ifndef BULKHEAD_IDENTITY_RULES_H
#define BULKHEAD_IDENTITY_RULES_H

/* Short stable name ("leaf-no-path") and one sentence with the specification's section, for a rule number. */
const char *svid_rule_name(int rule);
const char *svid_rule_text(int rule);

#endif
