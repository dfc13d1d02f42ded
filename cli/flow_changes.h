/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow_changes.h - recorded flows, judged again by two policies: which of them would change verdict?
 *
 * A record says who was at either end, and at which address. Both policies judge the whole flow, at both ends, as `explain`
 * does. What changes is grouped by identities, service and rules. The same connection may be recorded at its source and at
 * its destination; a group counts the larger of the two. A workload without an SVID has the identity that a policy gives
 * its cgroup, where the record names the cgroup.
 *
 * Not compared, but counted: denials that no policy made (an expired identity, a malformed packet), and those made before
 * the peer was asked who it is.
 */
#ifndef BULKHEAD_CLI_FLOW_CHANGES_H
#define BULKHEAD_CLI_FLOW_CHANGES_H

#include "cli/cli.h"
#include "policy/policy.h"

/* Judges the flows of the files as at `now` ("-": standard input) and prints what changes. Returns CLI_OK (nothing), CLI_NO, or another
 * exit code, having said why. */
int flow_changes_print(struct cli *cli, const struct policy *old, const struct policy *new, int64_t now,
		       char *const *files, size_t n_files);

#endif
