/* SPDX-License-Identifier: Apache-2.0 */
/*
 * yaml_scalar.h - how a string is written in YAML: plain where every reader of YAML takes it for the same string, quoted
 * where not.
 */
#ifndef BULKHEAD_POLICY_YAML_SCALAR_H
#define BULKHEAD_POLICY_YAML_SCALAR_H

#include <stdbool.h>

struct arena;

#define YAML_SCALAR_FLOW 1U   /* within [] or {} */
#define YAML_SCALAR_QUOTED 2U /* was quoted: stays so where it would be a number, a date or a truth value without */

/* The text as it is written, on one line; in the arena. Returns NULL when out of memory. */
const char *yaml_scalar_write(struct arena *arena, const char *text, unsigned flags);

#endif
