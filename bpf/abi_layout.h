/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * abi_layout.h - the layouts of pinned maps, and how much each map holds.
 *
 * Each map is pinned by its name and the number of its layout, `tags_1`. Two builds with the same number share the map. Where
 * the numbers differ, the build that starts makes its own map beside the other, takes over what has to survive, and then
 * replaces the programs (daemon/carry.h); upgrade and downgrade are one path. What makes it possible:
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
#ifndef BULKHEAD_BPF_ABI_LAYOUT_H
#define BULKHEAD_BPF_ABI_LAYOUT_H

#define BH_ABI_VERSION 3U

#ifndef BH_LAYOUT_TEST
#define BH_LAYOUT_TEST 0U /* 1: the other layout that the tests upgrade to and downgrade from */
#endif
#define BH_LAYOUT_POLICY (1U + BH_LAYOUT_TEST)
#define BH_LAYOUT_TAGS (3U + BH_LAYOUT_TEST)
#define BH_LAYOUT_VOUCHERS (2U + BH_LAYOUT_TEST)
#define BH_LAYOUT_NAMES (1U + BH_LAYOUT_TEST)
#define BH_LAYOUT_KEYS 1U
#define BH_LAYOUT_SOCKETS (1U + BH_LAYOUT_TEST)
#define BH_LAYOUT_TCP (3U + BH_LAYOUT_TEST)	    /* TCP sockets, in both places */
#define BH_LAYOUT_UDP_SOCKETS (5U + BH_LAYOUT_TEST) /* UDP sockets, and the flows that they have just used */
#define BH_LAYOUT_HANDSHAKES 5U
#define BH_LAYOUT_TICKETS 5U
#define BH_LAYOUT_ENDPOINTS (1U + BH_LAYOUT_TEST)
#define BH_LAYOUT_ADDRESSES (1U + BH_LAYOUT_TEST)
#define BH_LAYOUT_UNLISTED 1U
#define BH_LAYOUT_UDP_TICKETS 3U /* numbers and slots */
#define BH_LAYOUT_UDP_FLOWS (4U + BH_LAYOUT_TEST)
#define BH_LAYOUT_DEVICES (4U + BH_LAYOUT_TEST)
#define BH_LAYOUT_DEVICE_FLOWS (2U + BH_LAYOUT_TEST)
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
#define BH_MAX_ADDRESSES BH_CAPACITY(65536U, 512U)  /* addresses of network namespaces */
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

/* In the test's layout, what lives in a map that changes there is 8 bytes longer. */
#define BH_ASSERT_SIZE(type, size)                                                                                     \
	_Static_assert(sizeof(type) == (size) || (BH_LAYOUT_TEST && sizeof(type) == (size) + 8),                       \
		       #type " has another size: raise the number of its map's layout")

#endif
