/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tcp_entry.h - changes to what is kept of a TCP socket (struct bh_tcp), while the kernel programs use it.
 *
 * User space cannot keep to the rules by which such an entry is written (bpf/tcp_state.h): of a hash map it can only replace
 * whole elements. So it asks a program of ours, which does it by the same text as the others.
 */
#ifndef BULKHEAD_DAEMON_TCP_ENTRY_H
#define BULKHEAD_DAEMON_TCP_ENTRY_H

#include "bpf/abi.h"

/* `program_fd`: of bh_keep_tcp. Returns 0, 1 (BH_TCP_ADD: there is no room), or -errno. */
int tcp_entry_ask(int program_fd, enum bh_tcp_wish wish, const struct bh_tcp *tcp);

#endif
