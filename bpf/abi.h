/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * abi.h - the only structures shared by the kernel programs and user space.
 *
 * Everything here is fixed-width and explicitly padded, and every structure that lives in a pinned map has its size
 * asserted: see "Layouts" for how the maps of another build are taken over.
 *
 * Addresses are always 16 bytes in network order; IPv4 is written as an IPv4-mapped address (RFC 4291, 2.5.5.2), because
 * a flow has one meaning whichever socket family carried it. Ports are in host order. Times are CLOCK_BOOTTIME
 * nanoseconds: a tag must die on time although the host slept.
 */
#ifndef BULKHEAD_BPF_ABI_H
#define BULKHEAD_BPF_ABI_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>

#include "seal.h"

#define BH_ABI_VERSION 3U

/*
 * Layouts. Each map is pinned by its name and the number of its layout, `tags_1`. Two builds with the same number share the
 * map. Where the numbers differ, the build that starts makes its own map beside the other, takes over what has to survive,
 * and then replaces the programs (daemon/carry.h); upgrade and downgrade are one path. What makes it possible:
 *
 *   - The number of a map is raised with every change of its value, capacity, flags or meaning. A number is never used for
 *     another layout again.
 *   - Values only grow, at the end; zero in a new field means what its absence meant. So any build reads any layout, newer
 *     or older: the common part is copied, what is new is 0, what is unknown is dropped.
 *   - Keys and types of maps never change: a map that needs another one gets another name.
 *   - Events carry their length in the ring: they may grow without a new number, and are read as far as they go.
 *   - Maps that one store switches together (state, tables, who) have one number.
 *
 * A change that cannot keep to this raises BH_ABI_VERSION: builds of different versions refuse each other's maps, and what
 * is in force stays.
 */
#ifndef BH_LAYOUT_TEST
#define BH_LAYOUT_TEST 0U /* 1: the other layout that the tests upgrade to and downgrade from */
#endif
#define BH_LAYOUT_POLICY (1U + BH_LAYOUT_TEST)
#define BH_LAYOUT_TAGS (3U + BH_LAYOUT_TEST)
#define BH_LAYOUT_VOUCHERS (2U + BH_LAYOUT_TEST)
#define BH_LAYOUT_NAMES (1U + BH_LAYOUT_TEST)
#define BH_LAYOUT_KEYS 1U
#define BH_LAYOUT_SOCKETS (1U + BH_LAYOUT_TEST)
#define BH_LAYOUT_TCP (2U + BH_LAYOUT_TEST)	    /* TCP sockets, in both places */
#define BH_LAYOUT_UDP_SOCKETS (3U + BH_LAYOUT_TEST) /* UDP sockets */
#define BH_LAYOUT_HANDSHAKES 4U
#define BH_LAYOUT_TICKETS 3U
#define BH_LAYOUT_ENDPOINTS (1U + BH_LAYOUT_TEST)
#define BH_LAYOUT_ADDRESSES (1U + BH_LAYOUT_TEST)
#define BH_LAYOUT_UNLISTED 1U
#define BH_LAYOUT_UDP_TICKETS 3U /* numbers and slots */
#define BH_LAYOUT_UDP_FLOWS (4U + BH_LAYOUT_TEST)
#define BH_LAYOUT_DEVICES (4U + BH_LAYOUT_TEST)
#define BH_LAYOUT_DEVICE_FLOWS (1U + BH_LAYOUT_TEST)
#define BH_LAYOUT_DENIALS (2U + BH_LAYOUT_TEST)
#define BH_LAYOUT_EVENTS (1U + BH_LAYOUT_TEST)
#define BH_LAYOUT_COUNTERS (1U + BH_LAYOUT_TEST)
#define BH_LAYOUT_PAIRS 1U
#define BH_LAYOUT_COUNTED 1U

/* Capacities. A map that is full denies; user space reports the map and its size. The tests fill the small ones. */
#define BH_CAPACITY(usual, test) (BH_LAYOUT_TEST ? (test) : (usual))
#define BH_MAX_IDENTITIES BH_CAPACITY(16384U, 128U) /* identity numbers, reserved ones included; a power of two */
#define BH_MAX_TAGS BH_CAPACITY(65536U, 64U)	    /* tagged cgroups */
#define BH_MAX_ENDPOINTS BH_CAPACITY(65536U, 64U)   /* addresses and ports that UDP sockets hold */
#define BH_MAX_ADDRESSES BH_CAPACITY(65536U, 64U)   /* addresses of network namespaces */
#define BH_MAX_UDP_FLOWS BH_CAPACITY(24576U, 512U)
#define BH_MAX_FRAGMENTS 4096U			      /* datagrams of devices that are under way in fragments */
#define BH_MAX_DEVICES BH_CAPACITY(16384U, 256U)      /* managed devices */
#define BH_MAX_DEVICE_FLOWS BH_CAPACITY(16384U, 512U) /* TCP connections of their workloads */
#define BH_MAX_DENIALS BH_CAPACITY(8192U, 4096U)      /* kinds of denials that are folded */
#define BH_EVENTS_BYTES BH_CAPACITY(1U << 20, 1U << 19)
#define BH_MAX_RULES 131072U	    /* rules that can be named in a verdict */
#define BH_MAX_DEPTH 8U		    /* cgroup levels below the managed subtree that can carry a tag */
#define BH_MAX_PAIRS 16384U	    /* pairs of identities that are counted apart; the rest is counted as one */
#define BH_DEVICE_ADDRESSES 8U	    /* addresses that can be bound to a device */
#define BH_TABLES_BYTES (16U << 20) /* one compiled policy; a power of two, the kernel masks offsets with it */

/* The TCP option that carries an identity in SYN and SYN-ACK (RFC 6994 experiment). */
#define BH_TCPOPT_KIND 254U
#define BH_TCPOPT_LEN 16U
#define BH_TCPOPT_EXID 0x4248U /* "BH" */
/*
 * Where other options leave no room for it (MPTCP, Fast Open, TCP-MD5), its first four bytes alone, with this length: a
 * workload of this host sent the segment. Who, and the MAC, the receiver finds in the segment's ticket. Another host finds
 * none: to it the sender is `world`.
 */
#define BH_TCPOPT_SHORT_LEN 4U

struct bh_tcpopt {
	__u8 kind;
	__u8 len;
	__be16 exid;
	__be32 identity; /* identity number of the sender */
	__u8 mac[8];	 /* SipHash-2-4 over struct bh_mac_input, little endian */
} __attribute__((packed));

/* What the MAC covers. `ack` is 0 in a SYN and the acknowledgement number in a SYN-ACK, so that neither can stand for
 * the other and a captured SYN-ACK answers no other SYN. */
struct bh_mac_input {
	__u32 src[4];
	__u32 dst[4];
	__be16 sport;
	__be16 dport;
	__be32 seq;
	__be32 ack;
	__be32 identity;
} __attribute__((aligned(8)));

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
 * Key of the handshake MAC. An epoch's key stands in slot epoch % BH_KEY_SLOTS; bh_state.key_epoch, one 8-byte store, makes
 * it the one in use after all of it is written. Segments are signed by the key in use, and one signed by the key before it
 * counts for BH_KEY_WINDOW_NS more: so none that was under way when the key changed is refused. The
 * slots of neither hold noise, not old keys.
 */
struct bh_key {
	__u64 k0, k1;
	__u64 since_ns; /* CLOCK_BOOTTIME: when it came into use; 0: no key */
};
#define BH_KEY_SLOTS 4U /* a power of two: no division */
#define BH_KEY_WINDOW_NS 120000000000ULL

struct bh_addr {
	__u32 w[4]; /* network order */
};

/*
 * Addresses of this host that the map of addresses had no room for: of each, the bit that a hash names. Who is there cannot
 * be told, and must not be taken for the world. A stranger's address can have the same bit, with a chance of one to two
 * thousand for every 512 addresses without room: it is denied as long as there is none.
 */
#define BH_UNLISTED_BITS (1U << 20)
static inline __attribute__((unused)) __u32 bh_unlisted_bit(const struct bh_addr *a)
{
	__u64 h = ((__u64)a->w[0] << 32 | a->w[1]) * 0x9e3779b97f4a7c15ULL;

	h = (h ^ h >> 32 ^ ((__u64)a->w[2] << 32 | a->w[3])) * 0x9e3779b97f4a7c15ULL;
	return h >> 44;
}

/* ---- compiled policy ------------------------------------------------------------------------------------------- */

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

/* ---- flows ------------------------------------------------------------------------------------------------------ */

/* Why a verdict is what it is. The text of each stands in one table in user space; the numbers go to the audit log. */
enum bh_reason {
	BH_REASON_POLICY = 0,	   /* a rule or the default decided: see the rule number */
	BH_REASON_NO_IDENTITY = 1, /* the subject's cgroup carries no tag */
	BH_REASON_EXPIRED = 2,	   /* the subject's tag is past its deadline */
	BH_REASON_FRAGMENT = 3,
	BH_REASON_PARSE = 4,	  /* header malformed, truncated, or extension header chain too long */
	BH_REASON_PROTO = 5,	  /* another protocol than the socket's: wrapped or encrypted below it */
	BH_REASON_RAW_SOCKET = 6, /* TCP or UDP made by hand in a raw socket */
	BH_REASON_NO_FLOW = 7,	  /* reply or handshake packet of no flow that was allowed */
	BH_REASON_OLD_SOCKET = 8, /* socket opened before enforcement: nothing is known of its peer */
	BH_REASON_MAP_FULL = 9,
	BH_REASON_EARLY_DATA = 10,   /* payload in a SYN, before the peer has shown its identity */
	BH_REASON_IMPOSSIBLE = 11,   /* no rule can allow it, whoever the peer turns out to be */
	BH_REASON_UNPROVEN = 12,     /* the segment should show who sends it, and has no room for the option */
	BH_REASON_PEER_ENDED = 13,   /* the peer's identity has expired, or was revoked, since the flow began */
	BH_REASON_SOURCE = 14,	     /* a source address that is not the sender's */
	BH_REASON_SIMULTANEOUS = 15, /* a SYN in answer to a SYN: nobody is asked, so nobody can show who answers */
	BH_REASON_NEW_ADDRESS = 16,  /* to an own address that is not known yet */
	BH_REASON_ADDRESS = 17,	     /* the local address is not bound to the managed device */
	BH_REASON_OPTION = 18,	     /* a device's segment shows an identity that no managed socket gave it */
	BH_REASON_OVERTAKEN = 19,    /* sent under another policy; by the one in force, its sender's end denies it */
	BH_REASON_MAX
};

/* What an event says of its flow. */
enum bh_verdict {
	BH_VERDICT_DENY = 0,
	BH_VERDICT_ALLOW = 1,
	BH_VERDICT_WOULD_DENY = 2, /* let pass, by a rule that denies and is in audit mode */
};

/* What is known of the peer's identity. */
enum bh_proof {
	BH_PROOF_NONE = 0,     /* the peer showed nothing, or is not known yet */
	BH_PROOF_VERIFIED = 1, /* handshake option verified, or UDP endpoint of this host */
	BH_PROOF_FORGED = 2,   /* option present, MAC wrong */
	BH_PROOF_REPLAYED = 3, /* MAC right, but the kernel sent no such segment, or it was used already */
	BH_PROOF_MALFORMED = 4,
	BH_PROOF_UNASKED = 5,  /* denied before the peer was asked: no answer could have been allowed */
	BH_PROOF_STRIPPED = 6, /* this kernel sent the segment with an identity, and it arrived without */
	BH_PROOF_MAX
};

enum bh_sock_kind {
	BH_SOCK_NEW = 0, /* created under enforcement, nothing judged yet */
	BH_SOCK_LISTEN = 1,
	BH_SOCK_CONNECT = 2, /* SYN sent, peer not yet known */
	BH_SOCK_ACTIVE = 3,  /* established, this end initiated */
	BH_SOCK_PASSIVE = 4, /* established, the peer initiated */
	BH_SOCK_HOST = 5,    /* of no workload: lives in the root of the hierarchy */
	BH_SOCK_EARLY = 6,   /* accepted by its SYN (Fast Open), not yet by the peer's ACK */
};

/* Kept with each socket that is neither TCP nor UDP (BPF_MAP_TYPE_SK_STORAGE). Nothing is cached. */
struct bh_sock {
	__u64 unused;
	__u64 netns; /* cookie of the socket's network namespace */
	__u8 host;   /* 1: of no workload, lives in the root of the hierarchy */
	__u8 pad[7];
	__u64 test[BH_LAYOUT_TEST];
};

/*
 * A flow of a UDP socket that was allowed a moment ago, both ways: what a packet needs that changes nothing. It is read
 * without a lock; who writes makes `seq` odd first, and one that was even and the same before and after was read whole.
 */
struct bh_udp_recent {
	__u64 seq;
	__u64 word;
	__u64 send_until_ns;	/* from then on, or if the word is another, a packet goes the whole way */
	__u64 receive_until_ns; /* likewise of what arrives */
	__u64 send_ticket;	/* BH_TICKET_NONE: what is sent needs none */
	__u64 receive_ticket;	/* what arrives must have a credit there */
	struct bh_addr local;
	struct bh_addr remote;
	__be16 lport;
	__be16 rport;
	__u32 path; /* BH_PATH_* */
	/* Payload in bytes of the pair `identity`, `peer`, `direction`, since it was last added there (account.h). */
	__u64 sent;
	__u64 received;
	__u64 counted_ns; /* when that was */
	__u32 identity;
	__u32 peer;
	__u32 direction;
	__u8 used;   /* 1: a packet has passed by it since another flow wanted its place */
	__u8 wanted; /* how often another wanted it since */
	__u8 pad[2];
};
#define BH_PATH_LOOPBACK 1U /* on the loopback device */
#define BH_PATH_V4 2U
#define BH_UDP_RECENT 4U /* two bits of a hash of the remote end say which one */

/* Kept with each UDP socket (BPF_MAP_TYPE_SK_STORAGE). */
struct bh_udp_sock {
	__u64 netns;	  /* cookie of the socket's network namespace */
	__u64 cgroup;	  /* of the creator */
	__u32 registered; /* 1 while it stands in the endpoint map under `local`, `lport` */
	__u16 lport;
	__u8 host;    /* 1: of no workload, lives in the root of the hierarchy */
	__u8 answers; /* 1: it was allowed to receive: what it sends may be an answer */
	struct bh_addr local;
	__u32 more; /* 1: it had more flows at a time than `recent` has room for */
	__u32 pad;
	struct bh_udp_recent recent[BH_UDP_RECENT];
	__u64 test[BH_LAYOUT_TEST];
};

/*
 * Kept for each TCP socket, by its cookie: storage in the socket would cost two allocations a connection, which is more than
 * all else that a short connection costs here. The kernel programs make it when a socket is made or becomes established, and
 * let it go when the kernel destroys the socket; a cookie is never used twice. How it is read and written: bpf/tcp_state.h. The
 * first 64 bytes are what a packet of an established connection, and the end of one, look at. The enforcer reads it to find
 * the connections that a change has cut off.
 */
struct bh_tcp {
	__u64 cookie;	      /* of the socket; 0: nobody's */
	__u64 pass;	      /* established and allowed: the state word under which that was found; else 0 */
	__u64 valid_until_ns; /* earliest deadline that the verdict, or the identity, rests on */
	__u64 word;	      /* the state word of what is cached: the verdict, or before there is one the subject */
	__u8 kind;	      /* enum bh_sock_kind */
	__u8 proof;	      /* enum bh_proof, of the peer */
	__u8 reason;	      /* enum bh_reason, of the cached verdict */
	__u8 verdict;	      /* 1 allow */
	__u8 answered;	      /* the SYN was answered by a peer that is allowed: may become established */
	__u8 asked;	      /* under `word` some rule can allow `identity` to reach `remote`, `rport` */
	__u8 known;	   /* `identity`, `subject_tag`, `cgroup` are the socket's under `word`: a packet showed it */
	__u8 released;	   /* 1: no process can use it any more */
	__u32 identity;	   /* subject */
	__u32 peer;	   /* identity number of the peer */
	__u64 peer_tag;	   /* cgroup whose tag gave the peer its identity */
	__u64 subject_tag; /* likewise of the subject */
	__u64 netns;	   /* cookie of the socket's network namespace */
	__u64 cgroup;	   /* of the creator, where the creation was seen; else 0 */
	__u32 cell;	   /* the cached verdict */
	__u32 isn;	   /* of the SYN sent: only its answer may name the peer */
	__u16 lport;
	__u16 rport;
	__u32 use; /* bits of BH_TCP_USE_ */
	struct bh_addr local;
	struct bh_addr remote;
	__u64 test[BH_LAYOUT_TEST];
};

#define BH_TCP_LEAVING                                                                                                 \
	(1ULL << 63) /* beside the cookie: not to be looked at. No kernel has counted its cookies so far */

#define BH_TCP_USE_WRITING 1U /* by a program that does not hold the socket's lock */
#define BH_TCP_USE_LEAVING 2U /* to be let go, by whoever writes just now */
#define BH_TCP_USE_AGAIN 16U  /* it started over while it was being written */
#define BH_TCP_USE_APART 32U  /* stands in the hash map */
#define BH_TCP_USE_ONE                                                                                                 \
	256U /* of a slot: one more stands in the hash map because this slot was taken; counted from here up */

/* The place of a TCP socket is named by its cookie. Cookies count up, so sockets of one time do not meet but where one lives
 * long; the later one then stands in a hash map. */
#define BH_TCP_SLOTS 32768U /* a power of two */
#define BH_TCP_MORE 131072U

/* What the enforcer asks of a program that keeps to the rules of these entries (bh_keep_tcp); it answers 0, or 1 where there is no
 * room. */
enum bh_tcp_wish {
	BH_TCP_ADD = 0,	   /* `tcp`, if there is none */
	BH_TCP_RENEW = 1,  /* as `tcp`, if there is one */
	BH_TCP_REMOVE = 2, /* the kernel has told its end to others */
	BH_TCP_FORGET = 3, /* its end was not told: only if no process can use it */
};

struct bh_tcp_request {
	__u32 wish;
	__u32 pad;
	struct bh_tcp tcp; /* BH_TCP_REMOVE, BH_TCP_FORGET: its cookie */
};

/* A connection of which the SYN was accepted, seen from the listener. */
struct bh_tuple {
	struct bh_addr local;
	struct bh_addr remote;
	__u64 netns;
	__u16 lport;
	__u16 rport;
	__u32 pad;
};

struct bh_handshake {
	__u64 word;
	__u64 valid_until_ns;
	__u64 peer_tag;
	__u32 identity; /* subject: the listener's */
	__u32 peer;
	__u32 cell;
	__u8 proof;
	__u8 shown; /* a SYN-ACK was sent that shows who sends it, or need not */
	__u8 pad[2];
	__u64 subject_tag; /* cgroup whose tag gave the listener its identity */
};

/*
 * Handshakes under way, in the bucket that a hash of the tuple names. `mark` is the upper bits of the hash, or nothing of it
 * in a free place and in one that is being written, and in the lower bits a count of what has become of the place.
 *
 * There are few near buckets, so that they stay in the processor's caches, and as many far ones as a flood needs. Who finds no
 * place in a near bucket notes there that it overflows, and goes to the far one; there the oldest makes room: losing one
 * denies the connection. Of a near bucket that has not overflowed for a while, nobody looks at the far one.
 */
#define BH_HANDSHAKE_NEAR 256U /* powers of two */
#define BH_HANDSHAKE_FAR 4096U
#define BH_HANDSHAKE_WAYS 4U
#define BH_HANDSHAKE_COUNT 0xffffULL
#define BH_HANDSHAKE_WRITING 0x10000ULL
#define BH_HANDSHAKE_HASH (~(BH_HANDSHAKE_COUNT | BH_HANDSHAKE_WRITING))
struct bh_handshake_item {
	struct bh_tuple tuple;
	struct bh_handshake handshake;
};
struct bh_handshake_bucket { /* whole cache lines */
	__u64 mark[BH_HANDSHAKE_WAYS];
	__u32 time[BH_HANDSHAKE_WAYS]; /* in 2^20 ns, about a millisecond; wraps */
	__u32 overflow;		       /* likewise: when a handshake of this bucket was last written to the far one */
	__u32 overflows;	       /* 1: it was, a while ago at most */
	__u32 pad[2];
	struct bh_handshake_item item[BH_HANDSHAKE_WAYS];
};

/* UDP sockets of managed workloads, so that both ends of a flow on this host know each other. A socket bound to every
 * address stands under `::` or `::ffff:0.0.0.0`. */
struct bh_endpoint_key {
	struct bh_addr addr;
	__u64 netns;
	__u16 port;
	__u16 pad[3];
};

struct bh_endpoint {
	__u64 cookie;		    /* of the socket that registered first: names this registration */
	__u32 refs;		    /* sockets on it (SO_REUSEPORT) */
	__u32 shared;		    /* 1: of several cgroups, so it is nobody's */
	__u64 levels[BH_MAX_DEPTH]; /* cgroup ids from below the managed subtree downwards; 0 ends */
	__u64 test[BH_LAYOUT_TEST];
};

/*
 * A SYN or SYN-ACK under way between two sockets of this host, in a place that its sequence number names: that is also there
 * when the option was lost on the way. There are few near places, so that they stay in the processor's caches; a segment that
 * finds its own taken has one in a far bucket.
 */
struct bh_syn_ticket {
	__u64 mac;		     /* 0: received; BH_TICKET_WRITING: being written */
	__u64 tag;		     /* cgroup whose tag gave the sender its identity; 0: none */
	__u32 time;		     /* when it was sent, in BH_SYN_TICKET_NS */
	__u32 state;		     /* the state word under which its sender judged it, lower half */
	struct bh_mac_input segment; /* what the MAC covers */
};
#define BH_SYN_TICKET_NS (1U << 20) /* about a millisecond; a ticket is void long before its time comes round */
#define BH_TICKET_WRITING 1ULL

#define BH_TICKET_WAYS 4U /* powers of two */
#define BH_TICKET_NEAR 256U
#define BH_TICKET_FAR_BUCKETS 8192U

/* The first buckets hold the near places, the others are the far ones. */
struct bh_syn_tickets {
	struct bh_syn_ticket way[BH_TICKET_WAYS];
};

/*
 * Datagrams under way between two sockets of this host. The sender's egress gives a credit for each, the receiver's ingress
 * takes one: so an identity belongs to packets that this kernel sent for it, not to an address that anybody could write.
 *
 * `word` is the number of the ticket << BH_TICKET_BITS | credits. A number is given once, and stands for one flow (addresses,
 * ports, device), one socket that sends and the identity it has; it also says which slot it is in. Both ends keep the
 * number with their flow, so nothing has to be searched; a slot that another flow has got meanwhile has another number.
 *
 * `state` says under which state word the sender's end last allowed the flow. A receiver that judges by another one judges
 * for the sender's end, too: a datagram that is under way while the policy is replaced is not judged by a half of each.
 */
struct bh_ticket {
	__u64 word;
	__u64 time_ns; /* of the last credit; a moment later all are void */
	__u64 tag;     /* cgroup whose tag gave the sender its identity; 0: none */
	__u64 cookie;  /* of the sender's socket */
	__u32 identity;
	__u32 state; /* BH_TICKET_STATE() */
};
#define BH_TICKET_BITS 20
#define BH_TICKET_CREDITS(word) ((__u32)((word) & ((1ULL << BH_TICKET_BITS) - 1)))
#define BH_TICKET_NUMBER(word) ((word) >> BH_TICKET_BITS)
#define BH_TICKET_NONE 1ULL /* no number: nothing is to be shown. As the word of a slot: being written */
#define BH_UDP_SLOTS 32768U /* a power of two */
/* A state word and the number of a ticket, so that one written late, into a slot that has got another number meanwhile, says
 * nothing of that one. */
#define BH_TICKET_STATE(ticket, word) ((__u32)(word) ^ (__u32)(BH_TICKET_NUMBER(ticket) / BH_UDP_SLOTS) << 20)

/* One flow of anything but TCP, seen from one socket; of ICMP the ports hold identifier and type (icmp.h). LRU: losing one
 * means the next packet is judged as a new flow. */
struct bh_udp_key {
	__u64 cookie;
	struct bh_addr local;
	struct bh_addr remote;
	__u16 lport;
	__u16 rport;
	__u8 proto;
	__u8 pad[3];
};

struct bh_udp_flow {
	__u64 word;
	__u64 valid_until_ns;
	__u64 seen_ns;	   /* last packet, to a second */
	__u64 resolved_ns; /* when it was last looked up who is there */
	__u64 peer_cookie; /* of the peer's socket on this host; 0: none */
	__u64 peer_tag;
	__u32 identity;
	__u32 peer;
	__u32 cell;
	__u8 initiator; /* 1: this end sent the first packet */
	__u8 proof;
	__u8 reason;
	__u8 verdict;
	__u64 send_ticket; /* as in struct bh_udp_recent, with bh_seal_key() of the key over it; 0 there: not known */
	__u64 receive_ticket;
	__u64 seal; /* bh_udp_flow_seal(); 0: as a build left it that had none */
	__u64 test[BH_LAYOUT_TEST];
};

/* Of a flow and all that a verdict rests on (seal.h); never 0. What is not in it changes while the flow lasts. */
static inline __attribute__((unused, always_inline)) __u64 bh_udp_flow_seal(const struct bh_udp_flow *f,
									    const struct bh_udp_key *key)
{
	__u64 ends = (__u64)f->identity << 32 | f->peer;
	__u64 is = (__u64)f->cell << 32 | (__u32)f->initiator << 24 | f->proof << 16 | f->reason << 8 | f->verdict;
	__u64 seal = bh_seal_key(key) + BH_SEAL(f->word, 0x923f82a4af194f9bULL) +
		     BH_SEAL(f->valid_until_ns, 0xab1c5ed5da6d8118ULL) +
		     BH_SEAL(f->peer_cookie, 0xd807aa98a3030242ULL) + BH_SEAL(f->peer_tag, 0x12835b0145706fbeULL) +
		     BH_SEAL(ends, 0x243185be4ee4b28cULL) + BH_SEAL(is, 0x550c7dc3d5ffb4e2ULL);

	return seal | 1;
}

static inline __attribute__((unused, always_inline)) bool bh_udp_flow_is_sealed(const struct bh_udp_flow *f,
										const struct bh_udp_key *key)
{
	return !f->seal || f->seal == bh_udp_flow_seal(f, key);
}

/* ---- managed devices --------------------------------------------------------------------------------------------- */

/* What stands for a device where cgroups and sockets have ids: its tag, its datagrams, its addresses. No cgroup, socket or
 * namespace has such a number. */
#define BH_DEVICE_BIT (1ULL << 63)

/* A managed device, by its index in the daemon's network namespace. One that does not stand in the map carries nothing. */
struct bh_device {
	__u32 link_header; /* bytes before the IP header: 14 of Ethernet, 0 of a device that has none */
	__u32 n_addresses;
	struct bh_addr addresses[BH_DEVICE_ADDRESSES]; /* the workload's: it sends from no other */
	__u32 master;				       /* the bridge that it is a port of; 0: none */
	__u32 pad;
	__u64 seal; /* bh_device_seal(); 0 in a layout that had none, as in struct bh_tag */
	__u64 test[BH_LAYOUT_TEST];
};

/* Of a device's entry and its index (seal.h); never 0. */
static inline __attribute__((unused, always_inline)) __u64 bh_device_seal(const struct bh_device *device, __u32 ifindex)
{
	const bh_seal_word *w = (const bh_seal_word *)device;
	__u64 seal = BH_SEAL((__u64)ifindex, 0x428a2f98d728ae22ULL), factor = 0x7137449123ef65cdULL;

	for (__u32 i = 0; i < offsetof(struct bh_device, seal) / sizeof(*w); i++) {
		seal += BH_SEAL(w[i], factor);
		factor *= 0x9e3779b97f4a7c15ULL;
	}
	return seal | 1;
}

/* A TCP connection of a device's workload. LRU: losing one denies its packets. */
struct bh_device_key {
	__u32 ifindex;
	__u16 lport;
	__u16 rport;
	struct bh_addr local; /* the workload's end */
	struct bh_addr remote;
};

/* A datagram whose first fragment passed: the others may follow. LRU: losing one denies them. */
struct bh_fragment_key {
	__u32 ifindex;
	__u32 id;
	struct bh_addr src;
	struct bh_addr dst;
	__u32 proto;
	__u32 hook; /* BH_EGRESS: the workload sends it */
};

struct bh_fragment {
	__u64 word; /* that it was judged under */
	__u64 until_ns;
};

struct bh_device_flow {
	__u64 word; /* with a seal of the key and of all below over it (bpf/device_flow.h) */
	__u64 valid_until_ns;
	__u64 peer_tag;
	__u32 identity;
	__u32 peer;
	__u32 cell;
	__u32 isn;	/* of the SYN that opened it: only its answer may name the peer */
	__u8 initiator; /* 1: the workload sent the SYN */
	__u8 answered;	/* 1: the peer is known, and was judged */
	__u8 proof;
	__u8 reason;
	__u8 verdict;
	__u8 pad[3];
	__u64 test[BH_LAYOUT_TEST];
};

/* ---- events ----------------------------------------------------------------------------------------------------- */

/* One verdict, as the programs write it to the ring buffer. `src` is always the flow's source. */
#define BH_EVENT_BYTES_MIN 120U /* of any build */
struct bh_event {
	__u64 time_ns;	/* CLOCK_BOOTTIME */
	__u64 first_ns; /* time of the first packet folded into this event */
	__u64 cgroup;	/* subject's cgroup, or BH_DEVICE_BIT with its device */
	__u64 cookie;	/* subject's socket */
	__u32 subject;	/* identity number */
	__u32 peer;
	__u32 revision; /* policy revision that judged */
	__u32 rule;	/* number within that revision; 0: default */
	__u32 count;	/* packets folded into this event */
	__u32 pid;	/* where the caller is known (connect, sendmsg), else 0 */
	struct bh_addr src;
	struct bh_addr dst;
	__u16 sport;
	__u16 dport; /* ICMP: the type */
	__u8 proto;
	__u8 direction; /* enum bh_direction: which judgement */
	__u8 verdict;	/* enum bh_verdict */
	__u8 reason;	/* enum bh_reason */
	__u8 proof;	/* enum bh_proof */
	__u8 again;	/* 1: an established flow judged again */
	__u8 pad[2];
	char comm[16]; /* where the caller is known */
};

/* Repeated denials of one kind are folded: the first is an event, then one event a second with the count. */
struct bh_denial_key {
	__u64 cgroup;
	struct bh_addr remote;
	__u32 peer;
	__u32 rule;
	__u16 port; /* the service's */
	__u8 proto;
	__u8 direction;
	__u8 reason;
	__u8 proof;
	__u8 pad[2];
};

struct bh_denial {
	__u64 reported_ns;
	__u64 first_ns; /* of those not yet reported */
	__u64 count;	/* not yet reported */
	__u64 test[BH_LAYOUT_TEST];
};

/* Event accounting, exact and across restarts: made = written + lost (+ what still stands in the ring). One pinned
 * value that the kernel programs, the enforcer and the auditor each add to. "Events" are flow verdicts from the ring,
 * "notices" are what the daemon itself reports (identity, policy, enforcement). */
struct bh_counters {
	__u64 events_made;
	__u64 events_lost; /* the ring was full */
	__u64 events_written;
	__u64 notices_made;
	__u64 notices_lost;
	__u64 notices_written;
	__u64 denials_folded; /* packets counted into a later event instead of making one */
	__u64 handshakes_verified;
	__u64 handshakes_forged;
	__u64 handshakes_replayed;
	__u64 map_full;
	__u64 flows_allowed;
	__u64 packets_denied;
	__u64 events_lost_reported; /* of events_lost, told in the audit log */
	__u64 handshakes_stripped;
	__u64 denied[32]; /* packets_denied, by enum bh_reason */
	__u64 test[BH_LAYOUT_TEST];
};
_Static_assert(BH_REASON_MAX <= 32, "struct bh_counters has no room for a reason");

/* What two identities have to do with each other, as counted at one end: `subject` is that end, so a flow between two
 * workloads of this host is counted at its source as egress, and at its destination as ingress. A map that is full counts
 * the others under BH_ID_OTHER, protocol 0. */
struct bh_pair_key {
	__u32 subject;
	__u32 peer;
	__u8 direction; /* enum bh_direction: the subject is the flow's source, or its destination */
	__u8 proto;
	__u8 pad[2];
};

/* All of it only grows. What is of TCP alone is taken from the kernel's own tcp_info: when a connection ends, and of those
 * that live whenever somebody asks (struct bh_counted). Bytes of UDP come from where they are counted with the socket: within a
 * second of the next datagram, when the socket is closed, and whenever somebody asks (struct bh_udp_recent). */
struct bh_pair {
	__u64 seen_ns; /* when a flow, a denial or bytes of UDP were counted last */
	__u64 flows;   /* judged and allowed */
	__u64 denied;  /* packets and calls denied */
	__u64 sent; /* payload in bytes; TCP: that the peer has acknowledged; UDP: that left the socket, and was allowed */
	__u64 received;	   /* likewise; UDP: that was allowed to the socket */
	__u64 retransmits; /* TCP: segments sent again */
	__u64 rtt_us;	   /* TCP: sum of smoothed round-trip times */
	__u64 rtt_samples; /* one of each connection at its end, and one whenever somebody asked while it lived */
};

/* How much of a TCP socket stands in its pair already (BPF_MAP_TYPE_SK_STORAGE; only of sockets that were asked of while
 * they lived). */
struct bh_counted {
	__u64 sent;
	__u64 received;
	__u64 retransmits;
};

/* What an identity number stands for; kept beside the tags so that a new daemon knows them. */
#define BH_NAME_BYTES 2052
struct bh_name {
	__u32 local; /* 1: a local identity, by its name in the policy; 0: a SPIFFE ID */
	char name[BH_NAME_BYTES];
	__u64 test[BH_LAYOUT_TEST];
};

/* In the test's layout, what lives in a map that changes there is 8 bytes longer. */
#define BH_ASSERT_SIZE(type, size)                                                                                     \
	_Static_assert(sizeof(type) == (size) || (BH_LAYOUT_TEST && sizeof(type) == (size) + 8),                       \
		       #type " has another size: raise the number of its map's layout")
BH_ASSERT_SIZE(struct bh_tcpopt, BH_TCPOPT_LEN);
BH_ASSERT_SIZE(struct bh_mac_input, 48);
BH_ASSERT_SIZE(struct bh_tag, 24);
BH_ASSERT_SIZE(struct bh_vouchers, 24 * BH_VOUCHERS + 56);
BH_ASSERT_SIZE(struct bh_state, 32);
BH_ASSERT_SIZE(struct bh_key, 24);
BH_ASSERT_SIZE(struct bh_tables, 72 + 4 * 48 + 3 * (8 + 9 * 32));
BH_ASSERT_SIZE(struct bh_range6, 24);
BH_ASSERT_SIZE(struct bh_sock, 24);
BH_ASSERT_SIZE(struct bh_tcp, 128);
BH_ASSERT_SIZE(struct bh_tuple, 48);
BH_ASSERT_SIZE(struct bh_handshake, 48);
BH_ASSERT_SIZE(struct bh_handshake_bucket, 448);
BH_ASSERT_SIZE(struct bh_endpoint_key, 32);
BH_ASSERT_SIZE(struct bh_endpoint, 16 + 8 * BH_MAX_DEPTH);
BH_ASSERT_SIZE(struct bh_syn_ticket, 72);
BH_ASSERT_SIZE(struct bh_syn_tickets, 72 * BH_TICKET_WAYS);
BH_ASSERT_SIZE(struct bh_ticket, 40);
BH_ASSERT_SIZE(struct bh_udp_key, 48);
BH_ASSERT_SIZE(struct bh_udp_flow, 88);
BH_ASSERT_SIZE(struct bh_udp_recent, 128);
BH_ASSERT_SIZE(struct bh_udp_sock, 48 + 128 * BH_UDP_RECENT);
BH_ASSERT_SIZE(struct bh_device, 24 + 16 * BH_DEVICE_ADDRESSES);
BH_ASSERT_SIZE(struct bh_device_key, 40);
BH_ASSERT_SIZE(struct bh_device_flow, 48);
BH_ASSERT_SIZE(struct bh_fragment_key, 48);
BH_ASSERT_SIZE(struct bh_fragment, 16);
BH_ASSERT_SIZE(struct bh_event, 120);
BH_ASSERT_SIZE(struct bh_denial_key, 40);
BH_ASSERT_SIZE(struct bh_denial, 24);
BH_ASSERT_SIZE(struct bh_counters, 120 + 8 * 32 + 8 * BH_LAYOUT_TEST);
BH_ASSERT_SIZE(struct bh_pair_key, 12);
BH_ASSERT_SIZE(struct bh_pair, 64);
BH_ASSERT_SIZE(struct bh_counted, 24);
BH_ASSERT_SIZE(struct bh_name, 2056);

#endif
