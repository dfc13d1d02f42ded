/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy_pack.h - the files of a policy as one block of bytes: how they travel to the compiler and rest in a revision.
 *
 * Layout: u32 count; then per file u32 name length, u32 text length, name, text. Little-endian hosts only talk to
 * themselves here, so integers are in host order.
 */
#ifndef BULKHEAD_DAEMON_POLICY_PACK_H
#define BULKHEAD_DAEMON_POLICY_PACK_H

#include <stddef.h>

#include "policy/policy.h"

#define POLICY_PACK_MAX_BYTES (64U << 20)

/* *bytesp is malloc()ed. Returns 0, -E2BIG or -ENOMEM. */
int policy_pack(const struct policy_source *files, size_t n, void **bytesp, size_t *lenp);
/* Any bytes may be given. Names and texts are malloc()ed, each with a NUL behind. Returns 0, -EBADMSG or -ENOMEM. */
int policy_unpack(const void *bytes, size_t len, struct policy_source **filesp, size_t *np);
void policy_sources_free(struct policy_source *files, size_t n);

#endif
