/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reasons.h - why a verdict is what it is, in words: the one table by enum bh_reason.
 *
 * A code is for programs: upper case, never changed once released. A sentence is for people: it says what decided and,
 * where there is something to do, what. The audit log, `why-denied` and `monitor` all take theirs from here.
 */
#ifndef BULKHEAD_DAEMON_REASONS_H
#define BULKHEAD_DAEMON_REASONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/abi.h"
#include "policy/image.h"

/* Stable code: POLICY_ALLOW, POLICY_DENY, POLICY_WOULD_DENY, DEFAULT_ALLOW, DEFAULT_DENY for BH_REASON_POLICY (rule 0 is the default), else
 * one per reason. "UNKNOWN" for a number that no kernel program of this version writes. */
const char *reason_code(unsigned reason, enum bh_verdict verdict, uint32_t rule);

/* The sentence of a reason that needs no rule; for BH_REASON_POLICY a general one. Never NULL. */
const char *reason_text(unsigned reason);

/* What is wrong with how the peer showed its identity (enum bh_proof), to follow a reason; NULL: nothing. */
const char *proof_text(unsigned proof);

/*
 * The sentence for one verdict, with the rule that decided: `rule "web-to-db" (shop.yaml:12) denies`. `name` may be NULL:
 * the rule is then given by its number. Always ends with NUL.
 */
void reason_sentence(char *out, size_t size, unsigned reason, enum bh_verdict verdict, uint32_t rule,
		     const struct policy_rule_name *name);

#endif
