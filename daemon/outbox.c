// SPDX-License-Identifier: Apache-2.0
#include "outbox.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc.h"

/* From here on the memory is given back to the system when the last packet is gone. */
#define TRIM_BYTES (1UL << 20)

struct outbox_packet {
	struct outbox_packet *next;
	int fd;
	_Alignas(8) char bytes[];
};

static size_t packet_len(const void *packet)
{
	return ((const struct ipc_header *)packet)->len;
}

static int packet_keep(struct outbox *outbox, const void *packet, int fd)
{
	size_t len = packet_len(packet);
	struct outbox_packet *kept;

	if (outbox->n_packets >= OUTBOX_MAX_PACKETS || outbox->n_bytes + len > OUTBOX_MAX_BYTES)
		return -ENOBUFS;
	kept = malloc(sizeof(*kept) + len);
	if (!kept)
		return -ENOMEM;
	kept->next = NULL;
	kept->fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (fd >= 0 && kept->fd < 0) {
		int r = -errno;

		free(kept);
		return r;
	}
	memcpy(kept->bytes, packet, len);
	if (!outbox->tailp)
		outbox->tailp = &outbox->head;
	*outbox->tailp = kept;
	outbox->tailp = &kept->next;
	outbox->n_packets++;
	outbox->n_bytes += len;
	outbox->was_large |= outbox->n_bytes > TRIM_BYTES;
	return 0;
}

static void packet_drop_first(struct outbox *outbox)
{
	struct outbox_packet *first = outbox->head;

	outbox->head = first->next;
	if (!outbox->head)
		outbox->tailp = NULL;
	outbox->n_packets--;
	outbox->n_bytes -= packet_len(first->bytes);
	if (first->fd >= 0)
		close(first->fd);
	free(first);
	if (!outbox->head && outbox->was_large) {
		malloc_trim(0);
		outbox->was_large = false;
	}
}

int outbox_send(struct outbox *outbox, int sock, const void *packet, int fd)
{
	int r = -EAGAIN;

	if (!outbox->head)
		r = ipc_send(sock, packet, fd);
	return r == -EAGAIN ? packet_keep(outbox, packet, fd) : r;
}

int outbox_flush(struct outbox *outbox, int sock)
{
	while (outbox->head) {
		int r = ipc_send(sock, outbox->head->bytes, outbox->head->fd);

		if (r < 0)
			return r;
		packet_drop_first(outbox);
	}
	return 0;
}

void outbox_clear(struct outbox *outbox, void (*unsent)(void *ctx, const void *packet), void *ctx)
{
	while (outbox->head) {
		if (unsent)
			unsent(ctx, outbox->head->bytes);
		packet_drop_first(outbox);
	}
}
