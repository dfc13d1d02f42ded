/* SPDX-License-Identifier: Apache-2.0 */
/*
 * confirmation.h - the policy that waits for its operator to confirm it, as a file: what has to be undone, and when.
 *
 * It is on disk before the policy comes into force, and leaves it only when the operator confirmed, or when the way back
 * is on disk too. So whoever comes after a daemon that was killed, or after a reboot, knows that the policy in force was
 * on trial. The deadline is on CLOCK_BOOTTIME, which nobody can set, and so holds within one boot only.
 */
#ifndef BULKHEAD_DAEMON_CONFIRMATION_H
#define BULKHEAD_DAEMON_CONFIRMATION_H

#include <stdint.h>

#define CONFIRM_MIN_S 5U
#define CONFIRM_MAX_S 86400U

struct confirmation {
	uint32_t revision; /* on trial; 0: nothing waits */
	uint32_t previous; /* to go back to; 0: the built-in policy */
	uint64_t deadline_ns;
	char boot_id[37];
};

/* The boot that we are in. Returns 0 or -errno. */
int confirmation_boot_id(char out[37]);
/* In the state directory; whole or not at all, and synced. Returns 0 or -errno. */
int confirmation_write(int dir_fd, const struct confirmation *confirmation);
/* Returns 0, -ENOENT, -EBADMSG if it is damaged, or -errno. */
int confirmation_read(int dir_fd, struct confirmation *confirmation);
/* Returns 0 (also when there is none) or -errno. */
int confirmation_remove(int dir_fd);

#endif
