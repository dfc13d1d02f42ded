/* SPDX-License-Identifier: Apache-2.0 */
/*
 * findings.h - what `test` and `prove` have in common: a policy from files, and answers about it as JSON.
 */
#ifndef BULKHEAD_CLI_FINDINGS_H
#define BULKHEAD_CLI_FINDINGS_H

#include "cli/cli.h"
#include "policy/verify.h"

/* Reads the PATHs as one policy. Warnings and errors go to stderr. Returns an exit code, having said why. */
int cli_policy_read(struct cli *cli, char *const *paths, size_t n_paths, struct policy **policyp);

/* {"file", "line", "title", "holds", and where it does not, "flow", "verdict", "egress", "ingress"} */
json_t *finding_json(const struct policy *policy, const struct policy_finding *finding);

/* The exit code of a run that ended with r: as policy_run_tests. Says why it could not be answered. */
int cli_findings_result(int r, const char *error);

#endif
