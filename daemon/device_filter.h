/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device_filter.h - a program on a hook of a network device where the kernel has no tcx: a filter of the device's clsact qdisc,
 * in direct-action mode, over rtnetlink.
 *
 * Ours has preference 1 and a handle of its own, and goes before the other bpf filters of that preference; nobody else's is
 * changed or moved. It holds its program and stays when the daemon ends; a program is replaced in its place at once. The qdisc is
 * made where there is none, and left there: somebody else may have put filters into it since.
 */
#ifndef BULKHEAD_DAEMON_DEVICE_FILTER_H
#define BULKHEAD_DAEMON_DEVICE_FILTER_H

#include <stdint.h>

#include "device_link.h"

/* Of our filters: "bulk". */
#define DEVICE_FILTER_HANDLE 0x62756c6bU

/* Makes our filter, or puts the program into it. Returns 0; -ENODEV; -EBUSY: ours cannot be the first, because a filter of another
 * kind or protocol has preference 1, or an `ingress` qdisc is there, which has no egress hook; or another -errno. */
int device_filter_set(int program_fd, uint32_t ifindex, enum device_hook hook);
/* The id of the program in our filter. Returns 0, -ENOENT if there is no such filter, or another -errno. */
int device_filter_program(uint32_t ifindex, enum device_hook hook, uint32_t *program_id);
/* Takes it off. Returns 0, also if there was none, or -errno. */
int device_filter_remove(uint32_t ifindex, enum device_hook hook);

#endif
