/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spiffe_id_reference.h - SPIFFE IDs a second time, for comparison: not the first rule that is broken, but all of them.
 *
 * Written from SPIFFE-ID section 2 and docs/spiffe-rules.md, one rule after the other, each over the whole ID, without a thought
 * for speed or for what the parser under test does. An ID is valid if the set is empty; a refusal has to name a rule of the set.
 */
#ifndef BULKHEAD_TESTS_SPIFFE_ID_REFERENCE_H
#define BULKHEAD_TESTS_SPIFFE_ID_REFERENCE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define REF_RULE(n) (UINT64_C(1) << (n))

static inline bool ref_one_of(unsigned char c, const char *set)
{
	return c != '\0' && strchr(set, c) != NULL;
}

static inline uint64_t ref_trust_domain(const unsigned char *td, size_t len)
{
	uint64_t broken = 0;

	if (len == 0)
		broken |= REF_RULE(2);
	if (len > 255)
		broken |= REF_RULE(19);
	for (size_t i = 0; i < len; i++) {
		if (ref_one_of(td[i], "abcdefghijklmnopqrstuvwxyz0123456789.-_"))
			continue;
		if (ref_one_of(td[i], "ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
			broken |= REF_RULE(7);
		else if (td[i] == '@')
			broken |= REF_RULE(5);
		else if (td[i] == ':')
			broken |= REF_RULE(6);
		else if (td[i] == '%')
			broken |= REF_RULE(10);
		else
			broken |= REF_RULE(9);
	}
	return broken;
}

static inline uint64_t ref_segments(const unsigned char *path, size_t len)
{
	size_t start = 1;
	uint64_t broken = 0;

	/* One behind the end closes the last segment. */
	for (size_t i = 1; i <= len; i++) {
		size_t n = i - start;

		if (i < len && path[i] != '/')
			continue;
		if (n == 0)
			broken |= REF_RULE(i == len ? 15 : 13);
		if ((n == 1 && path[start] == '.') || (n == 2 && path[start] == '.' && path[start + 1] == '.'))
			broken |= REF_RULE(14);
		start = i + 1;
	}
	return broken;
}

static inline uint64_t ref_path(const unsigned char *path, size_t len)
{
	uint64_t broken = ref_segments(path, len);

	for (size_t i = 0; i < len; i++) {
		if (path[i] == '%')
			broken |= REF_RULE(12);
		else if (!ref_one_of(path[i], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_/"))
			broken |= REF_RULE(16);
	}
	return broken;
}

/* The rules that a workload's ID breaks, as bits. */
static inline uint64_t ref_spiffe_id(const void *bytes, size_t len)
{
	const unsigned char *id = bytes;
	size_t at = 9, td_len = 0;
	uint64_t broken = 0;
	bool same = len >= 9, folded = len >= 9;

	for (size_t i = 0; i < 9 && i < len; i++) {
		same = same && id[i] == (unsigned char)"spiffe://"[i];
		folded = folded && (id[i] | (i < 6 ? 0x20 : 0)) == (unsigned char)"spiffe://"[i];
	}
	if (!same)
		return REF_RULE(folded ? 8 : 1); /* nothing else is where it belongs */
	if (len > 2048)
		broken |= REF_RULE(18);
	for (size_t i = at; i < len; i++) {
		if (id[i] == '?')
			broken |= REF_RULE(3);
		if (id[i] == '#')
			broken |= REF_RULE(4);
	}
	while (at + td_len < len && id[at + td_len] != '/')
		td_len++;
	broken |= ref_trust_domain(id + at, td_len);
	at += td_len;
	return broken | (at == len ? REF_RULE(29) : ref_path(id + at, len - at));
}

#endif
