/* SPDX-License-Identifier: Apache-2.0 */
/*
 * digest.h - one name for a list of named texts: SHA-256 over the names and texts, each with its length before it, so that
 * no two lists have the same bytes. A policy in force is known by it in the audit log.
 */
#ifndef BULKHEAD_IDENTITY_DIGEST_H
#define BULKHEAD_IDENTITY_DIGEST_H

#include <stddef.h>

struct digest;

/* Returns 0 or -ENOMEM. */
int digest_new(struct digest **digestp);
void digest_freep(struct digest **digestp);
void digest_add(struct digest *digest, const char *name, const void *text, size_t len);
/* Writes lower-case hex with a NUL. Returns 0, or -ENOMEM if anything failed since digest_new(). */
int digest_finish(struct digest *digest, char out[65]);

#endif
