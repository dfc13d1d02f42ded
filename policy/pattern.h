/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pattern.h - SPIFFE ID patterns. A pattern is an ID (SPIFFE-ID.md, section 2) in which a whole path segment may be `*`,
 * any one segment, and the last may be `**`, one or more segments. The trust domain is always literal: it is what the
 * proof rests on.
 */
#ifndef BULKHEAD_POLICY_PATTERN_H
#define BULKHEAD_POLICY_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/memory.h"

#define SPIFFE_SCHEME "spiffe://"
#define PATTERN_MAX_BYTES 2048U /* of an ID, SPIFFE-ID.md 2.3 */
#define PATTERN_MAX_TRUST_DOMAIN 255U

struct segment {
	const char *text; /* not terminated; NULL: `*` */
	uint32_t len;
};

struct pattern {
	const char *text;
	struct segment *segments; /* [0] is the trust domain */
	uint32_t n_segments;	  /* without the `**` */
	bool rest;		  /* ends in `**` */
};

/* Parses a pattern into the arena. Returns NULL, or what is wrong (borrowed, a literal). `text` must outlive the
 * pattern. Sets the arena's out_of_memory and returns a text when memory ran out. */
const char *pattern_parse(struct pattern *pattern, struct arena *arena, const char *text);
/* What is wrong with a SPIFFE ID of a workload, or NULL. */
const char *spiffe_id_problem(const char *id, size_t len);
bool pattern_match(const struct pattern *pattern, const char *id, size_t len);

#endif
