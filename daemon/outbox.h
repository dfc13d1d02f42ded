/* SPDX-License-Identifier: Apache-2.0 */
/*
 * outbox.h - packets that a role's socket does not take yet.
 *
 * The enforcer never waits for a role, and a role has to be told everything: 16,000 names at a start are far more than
 * a socket holds. What does not fit stands here as copies, in order, until the socket can be written again. The bounds
 * are for a role that hangs; it is ended before it is told so much.
 */
#ifndef BULKHEAD_DAEMON_OUTBOX_H
#define BULKHEAD_DAEMON_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>

#define OUTBOX_MAX_PACKETS 32768
#define OUTBOX_MAX_BYTES (64UL << 20)

struct outbox_packet;

/* All zero: empty. */
struct outbox {
	struct outbox_packet *head;
	struct outbox_packet **tailp; /* NULL: empty */
	size_t n_packets;
	size_t n_bytes;
	bool was_large;
};

/* Sends through the non-blocking `sock`, or keeps a copy; `fd` (or -1) is borrowed. Returns 0 when sent or kept, -ENOBUFS
 * beyond the bounds, or -errno. */
int outbox_send(struct outbox *outbox, int sock, const void *packet, int fd);
/* Sends what the socket takes. Returns 0 (nothing is left), -EAGAIN, or -errno (the socket is of no use any more). */
int outbox_flush(struct outbox *outbox, int sock);
/* Empties it; `unsent`, unless NULL, sees each packet once more, in order. */
void outbox_clear(struct outbox *outbox, void (*unsent)(void *ctx, const void *packet), void *ctx);

#endif
