/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pairs.h - what the kernel programs have counted for each pair of identities (struct bh_pair), as user space reads it.
 *
 * The map is pinned, so counting goes on through restarts. It is read as a whole, and looks at live sockets are run in
 * the kernel: neither costs a packet anything.
 */
#ifndef BULKHEAD_DAEMON_PAIRS_H
#define BULKHEAD_DAEMON_PAIRS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/abi.h"
#include "cgroup_tree.h"
#include "datapath.h"

struct pair {
	struct bh_pair_key key;
	struct bh_pair value;
};

/* Makes the places where those are counted that find no room. Returns 0 or -errno. */
int pairs_prepare(const struct datapath *datapath);
/* Brings the pairs up to what live TCP connections of all namespaces, and live UDP sockets, have done by now. Returns 0 or
 * -errno; what could not be looked at is counted when it ends. */
int pairs_look(const struct datapath *datapath, const struct cgroup_tree *tree);
/* All of them, in no order; *pairsp is malloc()ed. Returns 0 or -errno. */
int pairs_read(const struct datapath *datapath, struct pair **pairsp, size_t *np);

/* Those of identities that have gone are kept for a while: whoever reads them regularly gets the last of what they did. */
#define PAIRS_KEEP_NS (300 * 1000000000ULL)

/* Is it to be removed? `present`: one bit for each identity number that a workload carries; `crowded`: its place is needed. */
bool pair_is_over(const struct pair *pair, const uint8_t *present, uint64_t now_ns, bool crowded);
/* Removes those that are over. Returns how many, or -errno. */
int pairs_clean(const struct datapath *datapath, const uint8_t *present, uint64_t now_ns);

#endif
