/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unit_path.h - the systemd unit that a cgroup is of, by its path.
 *
 * Only slices may stand above it: their cgroups belong to systemd, while anybody may make a directory of any name in a
 * delegated cgroup. systemd puts '_' before a name that cgroupfs could mistake for a file of its own
 * (systemd/src/basic/cgroup-util.c, cg_escape()).
 */
#ifndef BULKHEAD_POLICY_UNIT_PATH_H
#define BULKHEAD_POLICY_UNIT_PATH_H

#include <stdbool.h>
#include <stddef.h>

/* The name of the unit of the cgroup at the first `len` bytes of a path, which it ends; NULL if it is of none. */
const char *unit_of_path(const char *path, size_t len);
/* Is this component of a path a slice? */
bool unit_is_slice(const char *name, size_t len);

#endif
