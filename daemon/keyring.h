/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keyring.h - the keys that sign identities in TCP handshakes: made, and replaced while connections are being made.
 *
 * A key lives in the kernel's map and nowhere else: it is made here, written there, and wiped. A new one is written to a
 * slot of its own before the epoch names it, so no program sees half of one; what was signed by the one before it counts
 * for BH_KEY_WINDOW_NS more, by the kernel's own clock.
 */
#ifndef BULKHEAD_DAEMON_KEYRING_H
#define BULKHEAD_DAEMON_KEYRING_H

#include <stdint.h>

#include "bpf/abi.h"

/* Makes the first key where there is none. `fd` is the map `keys`, `state` the value of the map `state`. Returns 0 or -errno. */
int keyring_start(int fd, struct bh_state *state);
/* Makes another key the one in use. Returns 0 or -errno: then the former one stays in use. */
int keyring_rotate(int fd, struct bh_state *state);
/* When the key in use came into use, CLOCK_BOOTTIME; 0: there is none. */
uint64_t keyring_since(int fd, const struct bh_state *state);

#endif
