/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * abi_identity.h - identities as the kernel knows them: a number, who carries it, until when, and what vouches for it.
 */
#ifndef BULKHEAD_BPF_ABI_IDENTITY_H
#define BULKHEAD_BPF_ABI_IDENTITY_H

#include <linux/types.h>
#include <stddef.h>

#include "abi_layout.h"
#include "seal.h"

/* Identity numbers. The reserved ones are never tags; numbers from BH_ID_FIRST on name one identity each. */
enum bh_identity {
	BH_ID_UNIDENTIFIED = 0, /* a managed workload without a tag in force */
	BH_ID_HOST = 1,		/* the kernel and what is outside any workload of this host */
	BH_ID_WORLD = 2,	/* a peer known by address only */
	BH_ID_FIRST = 16,
};
#define BH_ID_OTHER 0xffffffffU /* in struct bh_pair_key only: all for whom the map had no room */

/* A tag: cgroup id, or device, -> identity. The kernel compares the deadline, so it holds without the daemon. */
struct bh_tag {
	__u64 deadline_ns; /* ~0 for a local identity: it has no certificate that could expire */
	__u32 identity;
	__u32 flags; /* BH_TAG_*: for daemons */
	__u64 seal;  /* bh_tag_seal(); 0 in a layout that had none: daemons seal it when they carry it over */
	__u64 test[BH_LAYOUT_TEST];
};

/* Of a tag and who carries it (seal.h); never 0. */
static inline __attribute__((unused, always_inline)) __u64 bh_tag_seal(const struct bh_tag *tag, __u64 carrier)
{
	const bh_seal_word *w = (const bh_seal_word *)tag;

	return (BH_SEAL(carrier, 0x428a2f98d728ae22ULL) + BH_SEAL(w[0], 0x7137449123ef65cdULL) +
		BH_SEAL(w[1], 0xb5c0fbcfec4d3b2fULL)) |
	       1;
}

/* A device's: it was not attested, but found by the cgroup of who is behind it. */
#define BH_TAG_DERIVED 1U

/*
 * Which authorities of its trust domain's bundle the chain of a tag's identity is valid by, and until when by each. No program
 * reads it. It lives as long as the tag, so that a daemon which adopts tags can tell whom an authority takes along when it
 * leaves the bundle, without their certificates; and whom a binding, a revocation or a clock that is set concerns.
 */
#define BH_VOUCHERS 4
#define BH_PROVED_BY_UID 1U
struct bh_voucher {
	__u8 authority[16]; /* beginning of the SHA-256 of its certificate */
	__s64 not_after;    /* UTC seconds, the earliest on the path; 0: not used */
};
struct bh_vouchers {
	struct bh_voucher voucher[BH_VOUCHERS];
	__s64 not_before; /* of the SVID, UTC seconds; 0: not known */
	__s64 not_after;  /* of its chain, which may be later than the tag's; 0: not known */
	__u8 leaf[32];	  /* SHA-256 of the SVID; all 0: not known */
	__u32 uid;	  /* of who proved it, where flags say that it is known */
	__u32 flags;	  /* BH_PROVED_* */
	__u64 test[BH_LAYOUT_TEST];
};

/* What an identity number stands for; kept beside the tags so that a new daemon knows them. */
#define BH_NAME_BYTES 2052
struct bh_name {
	__u32 local; /* 1: a local identity, by its name in the policy; 0: a SPIFFE ID */
	char name[BH_NAME_BYTES];
	__u64 test[BH_LAYOUT_TEST];
};

BH_ASSERT_SIZE(struct bh_tag, 24);
BH_ASSERT_SIZE(struct bh_vouchers, 24 * BH_VOUCHERS + 56);
BH_ASSERT_SIZE(struct bh_name, 2056);

#endif
