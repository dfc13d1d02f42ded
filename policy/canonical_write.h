/* SPDX-License-Identifier: Apache-2.0 */
/*
 * canonical_write.h - the writing half of canonical.h.
 */
#ifndef BULKHEAD_POLICY_CANONICAL_WRITE_H
#define BULKHEAD_POLICY_CANONICAL_WRITE_H

#include "policy/commented_yaml.h"

/* Writes a file in canonical form. *textp is malloc()ed, with a NUL behind. Returns 0 or -ENOMEM. */
int canonical_write(char **textp, size_t *lenp, struct arena *arena, const struct commented_file *file);

#endif
