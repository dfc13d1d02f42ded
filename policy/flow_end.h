/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow_end.h - a flow as an operator writes it, for explanations: SPIFFE ID, name of a local identity, built-in name or
 * address at each end, and one service.
 */
#ifndef BULKHEAD_POLICY_FLOW_END_H
#define BULKHEAD_POLICY_FLOW_END_H

#include "policy/address.h"
#include "policy/pattern.h"

enum flow_end_kind {
	FLOW_END_SPIFFE,
	FLOW_END_NAME, /* of a local identity */
	FLOW_END_UNIDENTIFIED,
	FLOW_END_HOST,
	FLOW_END_WORLD, /* also an end given by address only */
};

struct flow_end {
	enum flow_end_kind kind;
	char id[PATTERN_MAX_BYTES + 1]; /* SPIFFE ID or name */
	bool has_address;
	address address;
};

/* Returns 0, or 1 with the reason in *errorp (owned by the caller). */
int flow_end_parse(struct flow_end *end, const char *text, char **errorp);
/* Finds the point (service.h) of one port or type. Likewise. */
int flow_service_parse(uint32_t *pointp, const char *text, char **errorp);
int flow_error(char **errorp, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
