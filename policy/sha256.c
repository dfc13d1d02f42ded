/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <string.h>
#ifdef __x86_64__
#include <cpuid.h>
#include <immintrin.h>
#endif

#include "policy/sha256.h"

static uint32_t rotate(uint32_t x, unsigned n)
{
	return x >> n | x << (32 - n);
}

static const uint32_t k[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* FIPS 180-4, 6.2.2. */
static void add_block(uint32_t state[8], const unsigned char *block)
{
	uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
	uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
	uint32_t w[64], t1, t2;

	for (int i = 0; i < 16; i++) {
		memcpy(&w[i], block + 4 * (size_t)i, 4);
		w[i] = be32toh(w[i]);
	}
	for (int i = 16; i < 64; i++)
		w[i] = (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10) + w[i - 7] +
		       (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 16];
	for (int i = 0; i < 64; i++) {
		t1 = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + k[i] + w[i];
		t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
		h = g;
		g = f;
		f = e;
		e = d + t1;
		d = c;
		c = b;
		b = a;
		a = t1 + t2;
	}
	state[0] += a;
	state[1] += b;
	state[2] += c;
	state[3] += d;
	state[4] += e;
	state[5] += f;
	state[6] += g;
	state[7] += h;
}

/* ---- with the instructions that some processors have for it ---- */

#ifdef __x86_64__

/* Four rounds, whose words are `w`. */
#define FOUR_ROUNDS(w, at)                                                                                             \
	do {                                                                                                           \
		__m128i wk = _mm_add_epi32(w, _mm_loadu_si128((const __m128i *)&k[at]));                               \
                                                                                                                       \
		cdgh = _mm_sha256rnds2_epu32(cdgh, abef, wk);                                                          \
		abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(wk, 0x0e));                                 \
	} while (0)

/* The instructions have the state as ABEF and CDGH, and make four words of the schedule from the sixteen before. */
__attribute__((target("sha,sse4.1"))) static void add_blocks_quickly(uint32_t state[8], const unsigned char *bytes,
								     size_t n)
{
	const __m128i order = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
	__m128i dcba = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xb1);
	__m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1b);
	__m128i abef = _mm_alignr_epi8(dcba, hgfe, 8), cdgh = _mm_blend_epi16(hgfe, dcba, 0xf0);

	for (; n; n--, bytes += SHA256_BLOCK_BYTES) {
		const __m128i abef_before = abef, cdgh_before = cdgh;
		__m128i w[4];

		for (int i = 0; i < 4; i++) {
			w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)bytes + i), order);
			FOUR_ROUNDS(w[i], 4 * i);
		}
		for (int i = 4; i < 16; i++) {
			__m128i next = _mm_sha256msg1_epu32(w[i % 4], w[(i + 1) % 4]);

			next = _mm_add_epi32(next, _mm_alignr_epi8(w[(i + 3) % 4], w[(i + 2) % 4], 4));
			w[i % 4] = _mm_sha256msg2_epu32(next, w[(i + 3) % 4]);
			FOUR_ROUNDS(w[i % 4], 4 * i);
		}
		abef = _mm_add_epi32(abef, abef_before);
		cdgh = _mm_add_epi32(cdgh, cdgh_before);
	}
	dcba = _mm_shuffle_epi32(abef, 0x1b);
	hgfe = _mm_shuffle_epi32(cdgh, 0xb1);
	_mm_storeu_si128((__m128i *)state, _mm_blend_epi16(dcba, hgfe, 0xf0));
	_mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(hgfe, dcba, 8));
}

/* SHA and SSE 4.1 (Intel's manual, CPUID). */
static bool is_quick(void)
{
	unsigned a, b, c, d;

	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && b & bit_SHA && __get_cpuid(1, &a, &b, &c, &d) &&
	       c & bit_SSE4_1;
}

#else

static void add_blocks_quickly(uint32_t state[8], const unsigned char *bytes, size_t n)
{
	(void)state;
	(void)bytes;
	(void)n;
}

static bool is_quick(void)
{
	return false;
}

#endif

static void add_blocks(struct sha256 *sha, const unsigned char *bytes, size_t n)
{
	if (sha->quick) {
		add_blocks_quickly(sha->state, bytes, n);
		return;
	}
	for (; n; n--, bytes += SHA256_BLOCK_BYTES)
		add_block(sha->state, bytes);
}

void sha256_begin(struct sha256 *sha)
{
	*sha = (struct sha256){.state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c,
					 0x1f83d9ab, 0x5be0cd19},
			       .quick = is_quick()};
}

void sha256_begin_plainly(struct sha256 *sha)
{
	sha256_begin(sha);
	sha->quick = false;
}

void sha256_add(struct sha256 *sha, const void *bytes, size_t len)
{
	const unsigned char *at = bytes;
	size_t used = sha->len % SHA256_BLOCK_BYTES;

	sha->len += len;
	while (len) {
		size_t n = SHA256_BLOCK_BYTES - used < len ? SHA256_BLOCK_BYTES - used : len;

		if (!used && len >= SHA256_BLOCK_BYTES) {
			n = len - len % SHA256_BLOCK_BYTES;
			add_blocks(sha, at, n / SHA256_BLOCK_BYTES);
		} else {
			memcpy(sha->block + used, at, n);
			used += n;
		}
		if (used == SHA256_BLOCK_BYTES) {
			add_blocks(sha, sha->block, 1);
			used = 0;
		}
		at += n;
		len -= n;
	}
}

void sha256_end(struct sha256 *sha, unsigned char hash[SHA256_BYTES])
{
	static const unsigned char padding[SHA256_BLOCK_BYTES] = {0x80};
	uint64_t bits = htobe64(sha->len * 8);
	size_t used = sha->len % SHA256_BLOCK_BYTES;

	sha256_add(sha, padding, (used < 56 ? 56 : 120) - used);
	sha256_add(sha, &bits, sizeof(bits));
	for (int i = 0; i < 8; i++) {
		uint32_t word = htobe32(sha->state[i]);

		memcpy(hash + 4 * (size_t)i, &word, 4);
	}
}
