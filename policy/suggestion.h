/* SPDX-License-Identifier: Apache-2.0 */
/*
 * suggestion.h - "did you mean": the nearest of the names that exist to one that does not.
 */
#ifndef BULKHEAD_POLICY_SUGGESTION_H
#define BULKHEAD_POLICY_SUGGESTION_H

/* The nearest of some names to a misspelt one, offered one by one. */
struct suggestion {
	const char *wrong;
	const char *best; /* NULL: none is near */
	unsigned distance;
};

void suggestion_offer(struct suggestion *suggestion, const char *name);

#endif
