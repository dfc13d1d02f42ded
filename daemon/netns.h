/* SPDX-License-Identifier: Apache-2.0 */
/*
 * netns.h - work in the network namespaces of the workloads: their addresses, and their sockets.
 *
 * Both are asked of the kernel over netlink, which answers for the namespace of the caller; so the enforcer enters each
 * namespace for the moment of the question. The capability for that is raised only there.
 */
#ifndef BULKHEAD_DAEMON_NETNS_H
#define BULKHEAD_DAEMON_NETNS_H

#include <stdbool.h>

#include "cgroup_tree.h"
#include "datapath.h"

/* Calls `work` in the caller's own namespace and in that of each process in tree->pids; always comes back. A namespace
 * that cannot be entered is skipped (its processes ended meanwhile) or logged. Returns the first fault of `work`, or
 * -errno if there is no way back, after which nothing else may run. */
int netns_each(const struct cgroup_tree *tree, int (*work)(void *ctx), void *ctx);

/*
 * Brings the map of addresses up to date with what the namespaces have now. Only namespaces of the enforcer's own user
 * namespace count: in one that a workload made for itself, it can add any address, and so take a stranger's name away or
 * fill the map. The same reason bounds the addresses of one namespace. Returns 0 or -errno.
 */
int netns_addresses_refresh(struct datapath *datapath, const struct cgroup_tree *tree);

/* Judges every TCP socket of managed workloads again, with the tables and tags in force, and destroys those that are no
 * longer allowed, so that both ends learn at once. Returns how many, or -errno. */
int netns_sockets_cut(struct datapath *datapath, const struct cgroup_tree *tree);

/* Endpoints that no socket held when last looked. All 0: none. */
struct netns_stale {
	struct netns_stale_item *items; /* sorted */
	size_t n;
	bool warned;
};

/*
 * Puts UDP endpoints right whose registering socket has not held the port at two calls in a row: a socket that is
 * disconnected loses its port without a hook that could tell, and a port in the wrong name would give its identity to
 * whoever binds it next. Where other sockets hold the place they get it, else it is removed; the kernel makes the endpoint
 * of a live socket again when it sends, so nothing is lost by a wrong guess. Returns how many, or -errno (nothing was
 * done).
 */
int netns_endpoints_clean(struct datapath *datapath, const struct cgroup_tree *tree, struct netns_stale *stale);
void netns_stale_clear(struct netns_stale *stale);

#endif
