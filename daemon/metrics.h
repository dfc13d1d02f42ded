/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics.h - what Bulkhead tells of itself in numbers, at one moment.
 *
 * The enforcer takes a snapshot: one block of memory without pointers, so that it can be handed to the metrics role as it
 * is. The role makes text of it for whoever scrapes (metrics_text.h), policyctl top gets JSON. Nothing is kept between two
 * snapshots: all counters are the kernel programs' own, which only grow, and go on through restarts of the daemon.
 */
#ifndef BULKHEAD_DAEMON_METRICS_H
#define BULKHEAD_DAEMON_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/abi.h"
#include "pairs.h"

#define METRICS_MAGIC 0x314d4842U /* "BHM1" */
#define METRICS_MAX_PROGRAMS 32U
#define METRICS_MAX_MAPS 32U
#define METRICS_MAX_BYTES (64U << 20)

struct metrics_program {
	char name[32];
	uint32_t attached;
};

struct metrics_map {
	char name[32];
	uint32_t entries;
	uint32_t max;
};

/* An identity that a pair, or nearest_identity, names. */
struct metrics_name {
	uint32_t identity;
	uint32_t at; /* in the text */
};

struct metrics {
	uint32_t magic;
	uint32_t enforcing;
	uint64_t size;	     /* of the whole block */
	uint64_t taken_usec; /* CLOCK_REALTIME */
	uint64_t started_usec;
	char version[32];
	char instance[32];
	struct bh_counters counters;
	uint32_t revision;
	uint32_t rules;
	uint64_t applied_usec;
	uint32_t tags_verified;
	uint32_t tags_local;
	uint64_t nearest_deadline; /* UTC seconds; 0: no identity ends */
	uint32_t nearest_identity;
	uint32_t n_programs;
	struct metrics_program programs[METRICS_MAX_PROGRAMS];
	uint32_t n_maps;
	uint32_t audit_writing;
	struct metrics_map maps[METRICS_MAX_MAPS];
	uint64_t n_pairs;
	uint64_t n_names;
	uint64_t text_len;
	/* struct pair[n_pairs], struct metrics_name[n_names] in order of their numbers, text: names, each with a NUL */
};

/* The parts behind the head. */
const struct pair *metrics_pairs(const struct metrics *metrics);
/* Name of an identity number: "web", "spiffe://...", of a reserved one as in policies, "other", or "?" if it is not known. */
const char *metrics_identity(const struct metrics *metrics, uint32_t identity);

/* Makes a snapshot of a filled head, the pairs (which are sorted by it), and the names of all identities: `name_of` returns
 * "" for one that it does not know. The result is malloc()ed, or NULL. */
struct metrics *metrics_new(const struct metrics *head, struct pair *pairs, size_t n_pairs,
			    const char *(*name_of)(void *ctx, uint32_t identity), void *ctx);

/* Is this block a snapshot, whole, with all that it points to inside? */
bool metrics_check(const void *bytes, size_t len);

/* "tcp", "icmpv6", ...; a number for one without a name of ours, in `number`. */
const char *metrics_protocol(uint8_t proto, char number[8]);

/* JSON for policyctl top (control_api.h); malloc()ed, or NULL. */
char *metrics_top_json(const struct metrics *metrics);

#endif
