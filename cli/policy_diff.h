/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy_diff.h - two policies compared, for an operator to read: `diff`, and `apply --dry-run`.
 *
 * The lines say which flows change verdict, and which rules do it (policy/diff.h). Both policies must be valid; where one is
 * not, its errors are printed and nothing is compared.
 */
#ifndef BULKHEAD_CLI_POLICY_DIFF_H
#define BULKHEAD_CLI_POLICY_DIFF_H

#include "cli/cli.h"
#include "policy/policy.h"

/* One side of the comparison. */
struct policy_side {
	struct policy_source *sources; /* malloc()ed, as policy_files_load makes them */
	size_t n_sources;
	struct policy *policy;
};

/* Reads a side: a file, a directory, "-", "@" for the policy in force, or "@N" for a revision of the daemon; and parses it.
 * Returns an exit code, having said why. */
int policy_side_load(struct cli *cli, struct policy_side *side, const char *path);
void policy_side_free(struct policy_side *side);

/* Compares two loaded sides as of `now`; as policy_diff_print. */
int policy_sides_diff(struct cli *cli, const struct policy_side *old, const struct policy_side *new, int64_t now);

/*
 * Parses both policies, compares them as of `now` (seconds since 1970), and prints to stdout what changes: lines, or one JSON
 * value with --json. Returns CLI_OK (every verdict is the same), CLI_NO (some differ, or a policy is not valid), or
 * CLI_UNREACHABLE (it could not be found out), having said why.
 */
int policy_diff_print(struct cli *cli, const struct policy_source *old_sources, size_t n_old,
		      const struct policy_source *new_sources, size_t n_new, int64_t now);
/* The same as a JSON value, a new reference, for a command that has more to say. */
int policy_diff_json(const struct policy_source *old_sources, size_t n_old, const struct policy_source *new_sources,
		     size_t n_new, int64_t now, json_t **valuep);

#endif
