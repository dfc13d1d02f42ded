/* SPDX-License-Identifier: Apache-2.0 */
/*
 * top_pairs.h - what policyctl top shows: one row for each pair of identities, and the rates between two looks.
 *
 * The daemon tells totals that only grow (control_api.h, Top JSON); what happened in between is the difference.
 */
#ifndef BULKHEAD_CLI_TOP_PAIRS_H
#define BULKHEAD_CLI_TOP_PAIRS_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum top_number {
	TOP_FLOWS,
	TOP_DENIED,
	TOP_SENT,
	TOP_RECEIVED,
	TOP_RETRANSMITS,
	TOP_RTT_US,
	TOP_RTT_SAMPLES,
	TOP_NUMBERS,
};

struct top_row {
	char *from, *to, *direction, *protocol;
	uint64_t total[TOP_NUMBERS];
	double shown[TOP_NUMBERS]; /* the total, or per second */
	double rtt_us;		   /* mean; negative: there was no sample */
};

struct top_pairs {
	struct top_row *rows;
	size_t n;
	uint64_t taken_usec;
	uint64_t pairs_counted, pairs_max;
	double seconds; /* since the look that it is compared with; 0: shown are totals */
};

enum top_sort {
	TOP_BY_FLOWS,
	TOP_BY_BYTES,
	TOP_BY_DENIED,
	TOP_BY_RTT,
	TOP_BY_RETRANSMITS,
};

/* Returns 0, or -1 for an unknown word. */
int top_sort_parse(const char *word, enum top_sort *out);
/* Reads the daemon's answer. Returns 0 or -EBADMSG. */
int top_pairs_read(struct top_pairs *out, const json_t *answer);
/* Makes rates of it: what came since `before`. A pair that was forgotten meanwhile and came again began at 0. */
void top_pairs_since(struct top_pairs *pairs, const struct top_pairs *before);
/* The largest first; of equals the one with more verdicts in all, then in order of their names. */
void top_pairs_sort(struct top_pairs *pairs, enum top_sort sort);
/* As --json prints it; a new reference. */
json_t *top_pairs_json(const struct top_pairs *pairs);
void top_pairs_clear(struct top_pairs *pairs);

#endif
