/* SPDX-License-Identifier: Apache-2.0 */
/*
 * diagnostics.h - what is wrong with a policy, as JSON.
 */
#ifndef BULKHEAD_CLI_DIAGNOSTICS_H
#define BULKHEAD_CLI_DIAGNOSTICS_H

#include "cli/cli.h"
#include "policy/policy.h"

/* A list of all of them; a new reference. */
json_t *cli_diagnostics_json(const struct policy_diagnostics *diagnostics);
/* Sets `errors`, `warnings` and `diagnostics` in a result. */
void cli_diagnostics_set(json_t *result, const struct policy_diagnostics *diagnostics);

/* The policy is not valid: says why, to stderr, or with --json as the result. Returns CLI_NO. */
int cli_diagnostics_fail(const struct cli *cli, const struct policy_diagnostics *diagnostics);

#endif
