/* SPDX-License-Identifier: Apache-2.0 */
#include "tag_request.h"

#include <string.h>
#include <time.h>

#define NS_PER_S 1000000000ULL
#define MAX_LIFE_S (100LL * 365 * 86400) /* keeps a deadline of the year 9999 within 64 bits of nanoseconds */

void tag_request_begin(struct ipc_tag_request *request, uint32_t type, const struct svid_verdict *verdict)
{
	memset(request, 0, sizeof(*request));
	request->h.type = type;
	request->h.len = sizeof(*request);
	request->not_before = verdict->not_before;
	request->not_after = verdict->not_after;
	memcpy(request->spiffe_id, verdict->spiffe_id, sizeof(request->spiffe_id));
	memcpy(request->trust_domain, verdict->trust_domain, sizeof(request->trust_domain));
	memcpy(request->serial, verdict->serial, sizeof(request->serial));
	memcpy(request->issuer, verdict->issuer, sizeof(request->issuer));
	memcpy(request->leaf_sha256, verdict->leaf_sha256, sizeof(request->leaf_sha256));
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t tag_request_deadline(int64_t not_after)
{
	uint64_t boot = clock_ns(CLOCK_BOOTTIME), real = clock_ns(CLOCK_REALTIME);
	int64_t now = (int64_t)(real / NS_PER_S), left = not_after - now;

	if (left <= 0)
		return 0;
	if (left > MAX_LIFE_S)
		left = MAX_LIFE_S;
	return boot + (uint64_t)left * NS_PER_S - real % NS_PER_S;
}
