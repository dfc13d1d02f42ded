/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device_link.h - a program on a hook of a network device: a tcx link (Linux 6.6), which is a kernel object of its own like the
 * links on the cgroup. It is put before every program that is there, and takes none away. libbpf 1.1 does not know tcx, so
 * the calls are made here.
 */
#ifndef BULKHEAD_DAEMON_DEVICE_LINK_H
#define BULKHEAD_DAEMON_DEVICE_LINK_H

#include <stdbool.h>
#include <stdint.h>

enum device_hook {
	DEVICE_FROM, /* ingress: what the workload behind the device sends */
	DEVICE_TO,   /* egress: what goes to it */
};
#define DEVICE_HOOKS 2

enum device_hook_kind {
	DEVICE_AUTO,   /* tcx where the kernel has it */
	DEVICE_TCX,    /* links */
	DEVICE_CLSACT, /* filters (device_filter.h) */
};

/* Attaches. Returns the link's descriptor; -EOPNOTSUPP where the kernel has no tcx; -ENODEV; or another -errno. */
int device_link_make(int program_fd, uint32_t ifindex, enum device_hook hook);
/* Is it on this hook of this device now? The kernel takes a link off a device that goes away. *program_id: what is in it; may be
 * NULL. */
bool device_link_holds(int link_fd, uint32_t ifindex, enum device_hook hook, uint32_t *program_id);

#endif
