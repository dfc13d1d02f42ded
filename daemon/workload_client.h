/* SPDX-License-Identifier: Apache-2.0 */
/*
 * workload_client.h - the stream of trust bundles of a SPIFFE Workload API (SPIFFE_Workload_API.md 4, 5.2.2): gRPC, that is
 * one POST over HTTP/2, over a Unix socket.
 *
 * The stream stays open and the server sends a message whenever something changes. Each message is the whole state: a trust
 * domain that is not in it is gone (4.4). When the stream ends it is opened again, soon at first and then with growing delay,
 * by chance a little sooner or later so that clients of one agent do not come back together. What was told before stays until
 * the next message; only a PermissionDenied takes it back (5.2.2).
 */
#ifndef BULKHEAD_DAEMON_WORKLOAD_CLIENT_H
#define BULKHEAD_DAEMON_WORKLOAD_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "backoff.h"
#include "ipc.h"

#define WORKLOAD_MAX_BYTES (4U << 20) /* a message */
#define WORKLOAD_MAX_BUNDLES 256
/* Between attempts, give or take a quarter. */
#define WORKLOAD_BACKOFF ((struct backoff){.min_usec = 500000, .max_usec = 30000000})

/* What a message says. The names are valid trust domains, each once; `der` may be empty: no authority. */
struct workload_bundle {
	const char *trust_domain;
	const uint8_t *der;
	size_t len;
};

struct workload_ops {
	/* WORKLOAD_COMPLETE, with all bundles there are; WORKLOAD_DENIED or WORKLOAD_LOST, with none and why. Returns whether
	 * it was taken: a message that was not is asked for again, by a new stream, after WORKLOAD_LOST was told. */
	bool (*state)(void *ctx, enum workload_state state, const struct workload_bundle *bundles, size_t n,
		      const char *why);
};

struct workload_client;

/* Connects to the socket at `path` now and for ever. `ops` and `ctx` are borrowed. Returns 0 or -errno. */
int workload_client_new(struct workload_client **clientp, sd_event *event, const char *path,
			const struct workload_ops *ops, void *ctx);
void workload_client_freep(struct workload_client **clientp);

#endif
