/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sha256.h - SHA-256 (FIPS 180-4), by which a policy names its sources. Of its own, so that the policy library needs no
 * cryptographic one; nothing secret goes through it. Where the processor has instructions for it they are used: what they take a
 * tenth of the time for is a part of every apply.
 */
#ifndef BULKHEAD_POLICY_SHA256_H
#define BULKHEAD_POLICY_SHA256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHA256_BYTES 32U
#define SHA256_BLOCK_BYTES 64U

struct sha256 {
	uint32_t state[8];
	uint64_t len; /* bytes so far */
	unsigned char block[SHA256_BLOCK_BYTES];
	bool quick; /* by the processor's instructions */
};

void sha256_begin(struct sha256 *sha);
void sha256_begin_plainly(struct sha256 *sha); /* likewise, without those instructions */
void sha256_add(struct sha256 *sha, const void *bytes, size_t len);
void sha256_end(struct sha256 *sha, unsigned char hash[SHA256_BYTES]);

#endif
