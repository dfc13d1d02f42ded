// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * siphash.bpf.c - the kernel's SipHash on request: for BPF_PROG_TEST_RUN.
 *
 * bh_siphash() is the text that the datapath runs, here for inputs of every length; bh_segment_mac() and bh_segment_verify()
 * are the very functions that sign and check a segment, with the key from the map.
 */
#include <linux/bpf.h>

#include "bpf/handshake.h"
#include "tests/reference/siphash_kernel.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __noinline __u64 siphash_of(const struct bh_key *key, const __u64 *words, __u32 n, __u64 last)
{
	/* The length is fixed where it is compiled, as in the datapath. */
	switch (n) {
	case 0:
		return bh_siphash(key, words, 0, last);
	case 1:
		return bh_siphash(key, words, 1, last);
	case 2:
		return bh_siphash(key, words, 2, last);
	case 3:
		return bh_siphash(key, words, 3, last);
	case 4:
		return bh_siphash(key, words, 4, last);
	case 5:
		return bh_siphash(key, words, 5, last);
	case 6:
		return bh_siphash(key, words, 6, last);
	default:
		return bh_siphash(key, words, 7, last);
	}
}

SEC("syscall")
int siphash_bytes(struct siphash_request *request)
{
	__u32 slot = 1, n = request->len / 8 & 7;
	struct bh_key *key = bpf_map_lookup_elem(&keys, &slot);
	__u64 words[8];

	for (int i = 0; i < 8; i++)
		words[i] = request->words[i];
	request->r = key ? 0 : -1;
	if (key)
		request->result = siphash_of(key, words, n, words[n] | (__u64)request->len << 56);
	return 0;
}

SEC("syscall")
int siphash_segment(struct siphash_request *request)
{
	struct bh_mac_input input;
	__u64 mac = 0, *words = (__u64 *)&input;

	for (unsigned i = 0; i < sizeof(input) / 8; i++)
		words[i] = request->words[i];
	request->r = bh_segment_mac(&input, &mac);
	request->result = mac;
	return 0;
}

SEC("syscall")
int siphash_verify(struct siphash_request *request)
{
	struct bh_mac_input input;
	__u64 *words = (__u64 *)&input;

	for (unsigned i = 0; i < sizeof(input) / 8; i++)
		words[i] = request->words[i];
	request->r = bh_segment_verify(&input, request->shown);
	return 0;
}
