/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mounts.h - where this host has its cgroup2 hierarchy and its bpffs, as /proc/self/mountinfo says. Hybrid hosts mount
 * cgroup2 elsewhere than systemd's default.
 */
#ifndef BULKHEAD_DAEMON_MOUNTS_H
#define BULKHEAD_DAEMON_MOUNTS_H

#include <stddef.h>

/* First mount of a file system type ("cgroup2", "bpf"): its mount point in `path`, and in `root` (may be NULL) the part of
 * the file system that is mounted there. Returns 0 or -ENOENT. */
int mount_find(const char *type, char *path, size_t path_size, char *root, size_t root_size);

#endif
