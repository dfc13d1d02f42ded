/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy_files.h - policies as an operator names them: files, directories, standard input, or what is in force.
 */
#ifndef BULKHEAD_CLI_POLICY_FILES_H
#define BULKHEAD_CLI_POLICY_FILES_H

#include "cli/cli.h"
#include "policy/policy.h"

/*
 * Reads the PATHs as one policy: a file, "-" for standard input, or a directory, which stands for its *.yaml files in
 * name order. Sources are malloc()ed with malloc()ed names and texts, for policy_files_free. Returns CLI_OK, or
 * CLI_USAGE having said why.
 */
int policy_files_load(struct policy_source **sourcesp, size_t *np, char *const *paths, size_t n_paths);
void policy_files_free(struct policy_source *sources, size_t n);

/* The sources of the policy in force, from the daemon. Returns an exit code, having said why. */
int cli_policy_in_force(struct cli *cli, struct policy_source **sources, size_t *n);

#endif
