/* SPDX-License-Identifier: Apache-2.0 */
/*
 * netns.h - work in the network namespaces of the workloads: their addresses, and their sockets.
 *
 * Both are asked of the kernel over netlink, which answers for the namespace of the caller; so the enforcer enters each
 * namespace for the moment of the question. The capability for that is raised only there.
 */
#ifndef BULKHEAD_DAEMON_NETNS_H
#define BULKHEAD_DAEMON_NETNS_H

#include "cgroup_tree.h"
#include "datapath.h"

/* Calls `work` in the caller's own namespace and in that of each process in tree->pids; always comes back. A namespace
 * that cannot be entered is skipped (its processes ended meanwhile) or logged. Returns the first fault of `work`, or
 * -errno if there is no way back, after which nothing else may run. */
int netns_each(const struct cgroup_tree *tree, int (*work)(void *ctx), void *ctx);

/* Brings the map of addresses up to date with what the namespaces have now. Returns 0 or -errno. */
int netns_addresses_refresh(struct datapath *datapath, const struct cgroup_tree *tree);

/* Judges every TCP socket of managed workloads again, with the tables and tags in force, and destroys those that are no
 * longer allowed, so that both ends learn at once. Returns how many, or -errno. */
int netns_sockets_cut(struct datapath *datapath, const struct cgroup_tree *tree);

#endif
