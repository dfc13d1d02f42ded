/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroup_names.h - cgroup id to path, for people who read the audit log.
 *
 * The id of a cgroup is the inode number of its directory. The kernel offers no way from id to path without rights that
 * the auditor does not have, so the managed subtree is walked when an unknown id turns up, at most so often that a flood
 * of events from cgroups that are gone costs little. Ids are not used twice between boots, so what was known of a
 * removed cgroup is kept for the events that are still to be read.
 */
#ifndef BULKHEAD_DAEMON_CGROUP_NAMES_H
#define BULKHEAD_DAEMON_CGROUP_NAMES_H

#include <stdint.h>

struct cgroup_names;

/* `dir_fd`: the managed subtree, open for reading; borrowed. */
int cgroup_names_new(struct cgroup_names **namesp, int dir_fd);
void cgroup_names_freep(struct cgroup_names **namesp);

/* A path that is known from elsewhere. Faults are of no consequence: the path is found by walking then. */
void cgroup_names_add(struct cgroup_names *names, uint64_t id, const char *path);

/*
 * Path relative to the managed subtree, beginning with "/"; NULL if there is no such cgroup or it is not known yet.
 * Borrowed until the next call. `now_ns`: any clock that does not go back.
 */
const char *cgroup_names_path(struct cgroup_names *names, uint64_t id, uint64_t now_ns);

#endif
