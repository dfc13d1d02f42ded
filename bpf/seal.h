/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * seal.h - what shows that a value of a map is still its key's.
 *
 * The kernel gives the memory of a value of an LRU map to another key at any moment, also while a program holds a pointer to
 * it; that of a hash without memory of its own (BPF_F_NO_PREALLOC), when somebody has removed or replaced the value meanwhile.
 * So what is stored through that pointer may come to stand with another key, and what is read may be another key's, or half
 * of each, in no order. Therefore:
 *
 *   - What gives anybody anything is put into the map by its key, never through a pointer.
 *   - It has a seal, made of the key and of all that it says together. Who reads takes a copy, and believes it where the seal
 *     fits; that of another key, or of a copy that is of two, does so by chance only, one time in 2^63.
 *   - One word that is replaced alone is sealed by itself: it stands there with the seal of its key over it, and is another
 *     word to who takes it for another key's.
 *   - What is stored through a pointer all the same must mean nothing there, or the same.
 *
 * A seal keeps apart what lies in one place by accident. It is not secret, and need not be: who made two keys with one seal
 * would have to have the map drop the one while it is being used, within nanoseconds, for one packet.
 */
#ifndef BULKHEAD_BPF_SEAL_H
#define BULKHEAD_BPF_SEAL_H

#include <linux/types.h>

/* The keys here have different types. */
typedef __u64 __attribute__((may_alias)) bh_seal_word;

/* Each word has a factor of its own, with all bits in every position: words that change together do not cancel out. All are
 * multiplied at once, so it takes the time of one. The factors are those of SHA-512 (FIPS 180-4, 4.2.3), made odd. */
#define BH_SEAL(word, factor) (((word) ^ (word) >> 32) * ((factor) | 1))

/* Of a key of 48 bytes without padding of its own, on 8 of them. */
static inline __attribute__((always_inline)) __u64 bh_seal_key(const void *key)
{
	const bh_seal_word *w = key;

	return BH_SEAL(w[0], 0x428a2f98d728ae22ULL) + BH_SEAL(w[1], 0x7137449123ef65cdULL) +
	       BH_SEAL(w[2], 0xb5c0fbcfec4d3b2fULL) + BH_SEAL(w[3], 0xe9b5dba58189dbbcULL) +
	       BH_SEAL(w[4], 0x3956c25bf348b538ULL) + BH_SEAL(w[5], 0x59f111f1b605d019ULL);
}

#endif
