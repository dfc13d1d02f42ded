/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backoff.h - how long to wait before something that failed is tried again: a short time at first, twice as long with each
 * failure, up to a limit; from the beginning once it works.
 *
 * Pure: who waits has the clock, and the chance.
 */
#ifndef BULKHEAD_DAEMON_BACKOFF_H
#define BULKHEAD_DAEMON_BACKOFF_H

#include <stdint.h>

struct backoff {
	uint64_t min_usec, max_usec; /* not 0, min_usec <= max_usec */
	uint64_t delay_usec;	     /* that was waited for last; 0: it works */
};

/* It failed. Returns how long to wait. */
uint64_t backoff_next(struct backoff *backoff);
/* It works: the next failure is the first. */
void backoff_reset(struct backoff *backoff);
/* `usec`, up to a quarter less or more by `random`: clients that lost the same server do not come back together. */
uint64_t backoff_spread(uint64_t usec, uint32_t random);

#endif
