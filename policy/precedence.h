/* SPDX-License-Identifier: Apache-2.0 */
/*
 * precedence.h - which of the rules that match a flow decides: the order of tier, priority, action, and place in the files.
 *
 * Of two denials of which one is on trial (mode: audit) the one that is enforced comes first, so that verdicts never depend on
 * the order of rules; only which rule is named does.
 */
#ifndef BULKHEAD_POLICY_PRECEDENCE_H
#define BULKHEAD_POLICY_PRECEDENCE_H

#include "policy/model.h"

/* 0 if only their place in the files tells them apart, else less or more than 0. */
int rule_precedence(const struct rule *a, const struct rule *b);
/* Compares two numbers of rules (uint32_t) for qsort_r; the context is the struct policy. Never 0. */
int rule_number_precedence(const void *a, const void *b, void *policy);

#endif
