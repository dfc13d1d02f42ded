/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tag_request.h - what the identity role asks of the enforcer, made of what it has verified.
 */
#ifndef BULKHEAD_DAEMON_TAG_REQUEST_H
#define BULKHEAD_DAEMON_TAG_REQUEST_H

#include <stdint.h>

#include "identity/svid.h"
#include "ipc.h"

/* All zero, but for the type and what the verdict says of the SVID. */
void tag_request_begin(struct ipc_tag_request *request, uint32_t type, const struct svid_verdict *verdict);
/* When a moment of the calendar (UTC seconds) is by CLOCK_BOOTTIME, in ns: of two readings the earlier, so that a deadline may
 * come a little too soon, never too late. Returns 0 if it is past. */
uint64_t tag_request_deadline(int64_t not_after);

#endif
