/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spiffe_id_fault.h - where a SPIFFE ID breaks the rule that it breaks, to point at.
 */
#ifndef BULKHEAD_IDENTITY_SPIFFE_ID_FAULT_H
#define BULKHEAD_IDENTITY_SPIFFE_ID_FAULT_H

#include "spiffe_id.h"

/* The byte of an ID for which spiffe_id_check() says `rule`; `len` where one is missing at the end. */
size_t spiffe_id_fault(const char *id, size_t len, int rule);

#endif
