/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroup_tree.h - a snapshot of the managed subtree: every cgroup with its id, its place, and one process of each network
 * namespace found in it.
 *
 * A cgroup's id is its directory's inode number (cgroup v2), which is what the kernel programs see. Snapshots are taken
 * when something has changed (policy, tags, a timer), never per packet, so walking the directories is cheap enough and
 * needs no state that could go stale.
 */
#ifndef BULKHEAD_DAEMON_CGROUP_TREE_H
#define BULKHEAD_DAEMON_CGROUP_TREE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "id_index.h"

/* A cgroup directly below the managed subtree that holds nothing: the kernel removes no cgroup with another below it, so
 * nobody takes enforcement away by rmdir(2) of the subtree. It is no workload and is left out of the tree. */
#define CGROUP_KEEPER ".bulkhead"

struct cgroup_node {
	uint64_t id;
	uint64_t parent; /* id; 0 for the managed subtree itself */
	uint32_t depth;	 /* 0: the managed subtree itself */
	uid_t uid;	 /* owner of the directory */
	mode_t mode;
	char *path; /* relative to the managed subtree, "/" first */
};

/* Somebody in a network namespace other than the caller's own. */
struct cgroup_presence {
	ino_t netns;
	uint64_t cgroup_id;
};

struct cgroup_tree {
	struct cgroup_node *nodes; /* parents before children */
	size_t n_nodes;
	struct id_index index; /* of the nodes */
	pid_t *pids;	       /* one process for each network namespace, other than the caller's own */
	size_t n_pids;
	struct cgroup_presence *presences; /* who is where; the same may come again */
	size_t n_presences;
};

/* Walks the subtree below the open directory. `with_processes` also looks at the processes' namespaces. Cgroups that
 * vanish meanwhile are left out. Returns 0 or -errno. */
int cgroup_tree_read(struct cgroup_tree *tree, int root_fd, int with_processes);
void cgroup_tree_clear(struct cgroup_tree *tree);
/* Finds a cgroup by id, or NULL. */
const struct cgroup_node *cgroup_tree_find(const struct cgroup_tree *tree, uint64_t id);

#endif
