/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <string.h>

#include "policy/sha256.h"

static uint32_t rotate(uint32_t x, unsigned n)
{
	return x >> n | x << (32 - n);
}

/* FIPS 180-4, 6.2.2. */
static void add_block(uint32_t state[8], const unsigned char *block)
{
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

void sha256_begin(struct sha256 *sha)
{
	*sha = (struct sha256){.state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c,
					 0x1f83d9ab, 0x5be0cd19}};
}

void sha256_add(struct sha256 *sha, const void *bytes, size_t len)
{
	const unsigned char *at = bytes;
	size_t used = sha->len % SHA256_BLOCK_BYTES;

	sha->len += len;
	while (len) {
		size_t n = SHA256_BLOCK_BYTES - used < len ? SHA256_BLOCK_BYTES - used : len;

		if (n == SHA256_BLOCK_BYTES) {
			add_block(sha->state, at);
		} else {
			memcpy(sha->block + used, at, n);
			used += n;
		}
		if (used == SHA256_BLOCK_BYTES) {
			add_block(sha->state, sha->block);
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
