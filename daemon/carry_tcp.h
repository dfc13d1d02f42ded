/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carry_tcp.h - what is kept of TCP sockets, carried over from the maps of another layout.
 *
 * It stands in two maps, by cookie (bpf/tcp_state.h): an array, and a hash for those whose place in the array is taken. Before the
 * programs are replaced everything is copied; the old ones go on writing until then. So afterwards what has come meanwhile is
 * added, what has changed is copied again, and what has ended is removed: but only where the copy is as it was made. What the new
 * programs have written to since is theirs. Until all is done, the old programs and the new ones are both told of the end of a
 * socket: connections that both know are counted by the old ones (bpf/end.bpf.c).
 */
#ifndef BULKHEAD_DAEMON_CARRY_TCP_H
#define BULKHEAD_DAEMON_CARRY_TCP_H

#include <stddef.h>
#include <stdint.h>

#include "carry.h"

/* The two maps of one layout. */
struct carry_tcp_maps {
	int slots_fd;
	int more_fd;
	uint32_t slots_value_bytes;
	uint32_t more_value_bytes;
	unsigned layout;
};

/* What the first pass copied. */
struct carry_tcp;

/* One pass; *memoryp is NULL before the first. `to` are the maps of this build, which the program bh_keep_tcp writes. *leftp:
 * entries for which there was no room. Returns 0 or -errno. */
int carry_tcp(struct carry_tcp **memoryp, const struct carry_tcp_maps *from, const struct carry_tcp_maps *to,
	      int program_fd, enum carry_pass pass, size_t *leftp);
void carry_tcp_freep(struct carry_tcp **memoryp);

#endif
