/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * abi_policy.h - the policy in force: the word that names it, and its compiled tables.
 */
#ifndef BULKHEAD_BPF_ABI_POLICY_H
#define BULKHEAD_BPF_ABI_POLICY_H

#include <linux/types.h>

#include "abi_layout.h"

/* One word that every program reads once per packet: which table set is in force, and the generation of everything a
 * cached verdict rests on. It is written with one 8-byte store, so no packet sees half of a change. */
struct bh_state {
	__u64 word;	   /* generation << 1 | slot */
	__u32 revision[2]; /* policy revision held by each slot */
	__u32 abi;	   /* BH_ABI_VERSION of whoever made the map; 0: new */
	__u32 seed;	   /* random, made with the map: of the hash that finds a handshake's bucket */
	__u64 key_epoch;   /* of the handshake key in use; 0: none was made yet */
	__u64 test[BH_LAYOUT_TEST];
};
#define BH_WORD_SLOT(word) ((__u32)((word)&1))

/*
 * Tables of one policy, one value of the map `tables`. Offsets are in bytes from the start, all items naturally aligned.
 *
 * "who" is what a peer is by proof: 0 unidentified, 1 host, 2 world, then the local identities of the policy, then the
 * classes of SPIFFE IDs that the policy can tell apart. An address class is a set of networks that the policy cannot
 * tell apart; class 0 is "in no network of the policy". A service is a point on one line (bh_service_point()).
 *
 * Every rule has a rank, its place in the order in which rules decide: tier, priority, deny before pass before allow, place
 * in the files. The lowest rank that matches decides. So the rules can be divided into parts as is cheapest, each part
 * asked by itself, and the lowest rank of all taken: the tables are a sum of small products, not the product of
 * everything. The parts come of what a rule asks of each end, in one of three views: BROAD, an identity selector that fits
 * many; WHO, one that fits few; ADDR, an address, alone or with an identity.
 *
 *   view    who, or who and address -> class: which selectors of that view match
 *   part    source class, destination class -> row
 *   row     point -> chain: the rules of that part that match
 *   chain   ranks in ascending order: what can still decide when the ones before have expired, or passed
 *
 * The number of loads does not depend on the number of rules, but for the binary searches among addresses and in rows, and for
 * chains, which are longer than one only where rules have an `until` or tiers can be passed.
 */
#define BH_TABLES_MAGIC 0x32544842U /* "BHT2" */

enum bh_direction {
	BH_EGRESS = 0,
	BH_INGRESS = 1,
	BH_POSSIBLE = 2, /* can any egress rule allow it, whoever answers? A judgement of its own, with its own sides */
};
#define BH_JUDGEMENTS 3U

enum bh_view {
	BH_VIEW_BROAD = 0,
	BH_VIEW_WHO = 1,
	BH_VIEW_ADDR = 2,
};
#define BH_VIEWS 3U
#define BH_MAX_PARTS 9U /* BH_VIEWS * BH_VIEWS */

/* A matrix of which much is alike: rows of blocks, each block of 1 << shift items stored once. */
struct bh_grid {
	__u32 index_off; /* __u32[rows * width]: number of the block that has column i in [row * width + (i >> shift)] */
	__u32 rows;
	__u32 width; /* 0: nothing in it */
	__u32 shift;
	__u32 block_off; /* __u32[n_blocks << shift] */
	__u32 n_blocks;
};

/* What matches one end. */
struct bh_side {
	__u32 n_who;
	__u32 n_class[BH_VIEWS];
	__u32 who_off[2];    /* by view but the last: __u16[n_who], class */
	struct bh_grid addr; /* who, address class -> class of BH_VIEW_ADDR */
};
enum bh_side_number {
	BH_SIDE_FROM = 0,
	BH_SIDE_TO = 1,
	BH_SIDE_POSSIBLE_FROM = 2, /* who only: a socket has no source address yet */
	BH_SIDE_POSSIBLE_TO = 3,   /* address only: nobody has answered yet */
};
#define BH_SIDES 4U

struct bh_part {
	__u32 from_view;     /* enum bh_view */
	__u32 to_view;	     /* enum bh_view */
	struct bh_grid grid; /* source class, destination class -> row */
};

struct bh_parts {
	__u32 n;
	__u32 pad;
	struct bh_part part[BH_MAX_PARTS];
};

struct bh_tables {
	__u32 magic;
	__u32 size; /* bytes in use, header included */
	__u32 n_who;
	__u32 n_addr;
	__u32 n_rules;		      /* rule numbers in cells are below this; 0 is the default action */
	__u32 default_cell;	      /* where no rule decides */
	__u32 addr4_off, addr4_count; /* struct bh_range4, sorted by first; item 0 begins at address 0 */
	__u32 addr6_off, addr6_count; /* struct bh_range6, likewise */
	__u32 row_off, row_count;     /* struct bh_span, of all rows */
	__u32 chain_off, chain_count; /* struct bh_link; 0 is not used */
	__u32 rank_off, rank_count;   /* struct bh_rank */
	__u32 until_off, until_count; /* __u64; 0: for ever */
	struct bh_side side[BH_SIDES];
	struct bh_parts parts[BH_JUDGEMENTS];
};

struct bh_range4 {
	__u32 first; /* host order */
	__u32 class;
};

struct bh_range6 {
	__u64 hi, lo; /* first address, host order halves */
	__u32 class;
	__u32 pad;
};

/* The line of services, protocol after protocol, as in policy/service.h. */
#define BH_POINT_TCP 0U
#define BH_POINT_UDP 65536U
#define BH_POINT_SCTP 131072U
#define BH_POINT_ICMP 196608U
#define BH_POINT_ICMP6 (BH_POINT_ICMP + 256U)
#define BH_POINT_PROTO (BH_POINT_ICMP6 + 256U)
#define BH_POINT_END (BH_POINT_PROTO + 256U)

/* A row is named by the number of its first span, which begins at point 0 and has the number of spans in place of `first`. Row
 * 0 is the row in which nothing matches. */
#define BH_ROW 0x80000000U /* in `first` of the first span of a row, and of no other */
#define BH_MAX_SPANS (1U << 18)

struct bh_span {
	__u32 first; /* point */
	__u32 chain; /* struct bh_link by number, or one rank | BH_CHAIN_RANK, or 0: nothing */
};
#define BH_CHAIN_RANK 0x80000000U
#define BH_MAX_CHAIN 64U /* ranks in a chain */
#define BH_MAX_TIERS 64U

struct bh_link {
	__u32 rank;
	__u32 next; /* a chain; if it is a link, then one of a lower number */
};

struct bh_rank {
	__u32 cell;
	__u32 until; /* index: from then on the rule is as if it were not there */
	__u32 end;   /* the first rank of the next tier: where a pass goes on */
};

/* A cell: the verdict of one judgement. */
#define BH_CELL_RULE(cell) ((cell)&0x00ffffffU) /* 0: no rule matched, the default decided */
#define BH_CELL_ALLOW 0x80000000U
#define BH_CELL_PASS 0x10000000U	/* the rule leaves it to the next tier: never the cell of a verdict */
#define BH_CELL_AUDIT 0x08000000U	/* allowed only because the rule that denies it is in audit mode */
#define BH_CELL_LOG_ALLOWED 0x01000000U /* an event for a flow that is allowed */
#define BH_CELL_LOG_DENIED 0x02000000U	/* an event for a flow that is denied */
#define BH_CELL_LOG_AGAIN 0x04000000U	/* also when a policy or identity change judges the flow again */

/* A moment of the tables. In an image it is in seconds since 1970; in the kernel in CLOCK_BOOTTIME nanoseconds, which the
 * enforcer works out when it fills the tables, and again when the clock is set. */
#define BH_FOREVER 0xffffffffffffffffULL

BH_ASSERT_SIZE(struct bh_state, 32);
BH_ASSERT_SIZE(struct bh_tables, 72 + 4 * 48 + 3 * (8 + 9 * 32));
BH_ASSERT_SIZE(struct bh_range6, 24);

#endif
