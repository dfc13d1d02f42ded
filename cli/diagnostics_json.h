/* SPDX-License-Identifier: Apache-2.0 */
/*
 * diagnostics_json.h - what is wrong with a policy, for programs.
 */
#ifndef BULKHEAD_CLI_DIAGNOSTICS_JSON_H
#define BULKHEAD_CLI_DIAGNOSTICS_JSON_H

#include <jansson.h>

#include "policy/policy.h"

/* Sets `errors`, `warnings` and `diagnostics` in a result. */
void diagnostics_json_set(json_t *result, const struct policy_diagnostics *diagnostics);

#endif
