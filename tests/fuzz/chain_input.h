/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chain_input.h - how a chain and its bundle are one input of the fuzzer, with the time that it is verified at: so an input
 * goes on meaning the same when its certificates have long expired.
 *
 * One byte of flags, eight of time (little-endian), one that counts the authorities; then for each certificate, authorities
 * first, two bytes of length and its DER. With CHAIN_INPUT_SIGN each is signed anew by a key that the fuzzer has, so that a
 * change of what is signed reaches what lies behind the signature.
 */
#ifndef BULKHEAD_TESTS_FUZZ_CHAIN_INPUT_H
#define BULKHEAD_TESTS_FUZZ_CHAIN_INPUT_H

#include <openssl/evp.h>
#include <stdint.h>

#define CHAIN_INPUT_SIGN 1
#define CHAIN_INPUT_MAX 12
#define CHAIN_INPUT_TRUST_DOMAIN "prod.example"

static inline EVP_PKEY *chain_input_key(void)
{
	static const uint8_t secret[32] = "the key of every fuzzed chain...";

	return EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, secret, sizeof(secret));
}

#endif
