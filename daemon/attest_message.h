/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attest_message.h - one message of a workload, with the sender as the kernel names it.
 *
 * SCM_PIDFD says who sent this message, which need not be who connected: a connection can be inherited or passed on.
 */
#ifndef BULKHEAD_DAEMON_ATTEST_MESSAGE_H
#define BULKHEAD_DAEMON_ATTEST_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct attest_message {
	size_t len;
	bool rights; /* descriptors came along, and were closed */
	bool truncated;
	int pidfd; /* of the sender, the caller's; -ENOPROTOOPT if the kernel named none, -errno if it is gone */
	pid_t pid; /* of the sender, by SCM_CREDENTIALS: root may claim another one */
};

/* Receives without waiting. Returns 1, 0 at end of file (then there is no pidfd), or -errno. */
int attest_message_receive(int sock, uint8_t *buffer, size_t size, struct attest_message *message);

#endif
