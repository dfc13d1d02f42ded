/* SPDX-License-Identifier: Apache-2.0 */
#include "backoff.h"

#define STEPS 1024U

uint64_t backoff_next(struct backoff *backoff)
{
	if (!backoff->delay_usec)
		backoff->delay_usec = backoff->min_usec;
	else if (backoff->delay_usec <= backoff->max_usec / 2)
		backoff->delay_usec *= 2;
	else
		backoff->delay_usec = backoff->max_usec;
	return backoff->delay_usec;
}

void backoff_reset(struct backoff *backoff)
{
	backoff->delay_usec = 0;
}

uint64_t backoff_spread(uint64_t usec, uint32_t random)
{
	return usec - usec / 4 + usec / 2 * (random % STEPS) / (STEPS - 1);
}
