/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * siphash.h - SipHash-2-4 (Aumasson, Bernstein: "SipHash: a fast short-input PRF") of struct bh_mac_input.
 *
 * The length is fixed, so the loop over the six words unrolls and the verifier sees straight code. The tests compile the
 * same text for user space and for the kernel, and hold both against the published vectors.
 */
#ifndef BULKHEAD_BPF_SIPHASH_H
#define BULKHEAD_BPF_SIPHASH_H

#include "decide.h"

#define BH_ROTL(x, b) (((x) << (b)) | ((x) >> (64 - (b))))
#define BH_SIPROUND(v0, v1, v2, v3)                                                                                    \
	do {                                                                                                           \
		v0 += v1;                                                                                              \
		v1 = BH_ROTL(v1, 13) ^ v0;                                                                             \
		v0 = BH_ROTL(v0, 32);                                                                                  \
		v2 += v3;                                                                                              \
		v3 = BH_ROTL(v3, 16) ^ v2;                                                                             \
		v0 += v3;                                                                                              \
		v3 = BH_ROTL(v3, 21) ^ v0;                                                                             \
		v2 += v1;                                                                                              \
		v1 = BH_ROTL(v1, 17) ^ v2;                                                                             \
		v2 = BH_ROTL(v2, 32);                                                                                  \
	} while (0)

/*
 * Of `words` 64-bit little-endian words and `last`, which holds what is left of the input, up to 7 bytes, and the input's
 * length in its highest byte. SipHash reads bytes, so only hosts of that order may share keys.
 */
BH_INLINE __u64 bh_siphash(const struct bh_key *key, const __u64 *data, __u32 words, __u64 last)
{
	__u64 v0 = key->k0 ^ 0x736f6d6570736575ULL, v1 = key->k1 ^ 0x646f72616e646f6dULL;
	__u64 v2 = key->k0 ^ 0x6c7967656e657261ULL, v3 = key->k1 ^ 0x7465646279746573ULL;

#ifdef __bpf__
#pragma unroll
#endif
	for (__u32 i = 0; i < words; i++) {
		v3 ^= data[i];
		BH_SIPROUND(v0, v1, v2, v3);
		BH_SIPROUND(v0, v1, v2, v3);
		v0 ^= data[i];
	}
	v3 ^= last;
	BH_SIPROUND(v0, v1, v2, v3);
	BH_SIPROUND(v0, v1, v2, v3);
	v0 ^= last;
	v2 ^= 0xff;
	BH_SIPROUND(v0, v1, v2, v3);
	BH_SIPROUND(v0, v1, v2, v3);
	BH_SIPROUND(v0, v1, v2, v3);
	BH_SIPROUND(v0, v1, v2, v3);
	return v0 ^ v1 ^ v2 ^ v3;
}

BH_INLINE __u64 bh_mac(const struct bh_key *key, const struct bh_mac_input *input)
{
	return bh_siphash(key, (const __u64 *)input, sizeof(*input) / 8, (__u64)sizeof(*input) << 56);
}

#endif
