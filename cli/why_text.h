/* SPDX-License-Identifier: Apache-2.0 */
/*
 * why_text.h - why a flow is judged as it is (policy/why.h), for people and as JSON.
 */
#ifndef BULKHEAD_CLI_WHY_TEXT_H
#define BULKHEAD_CLI_WHY_TEXT_H

#include "cli/cli.h"
#include "policy/why.h"

/* "web-to-db (shop.yaml:12)", with its tier if there are several; "default (shop.yaml:3)". */
void why_write_rule(const struct policy *policy, uint32_t rule, FILE *out);
/* What is to be said of a judgement beside its verdict: passes, audit mode, what would be without the rule, and until when.
 * Each on a line behind `indent`. */
void why_print_details(const struct policy *policy, const struct why_judgement *judgement, const char *indent,
		       FILE *out);
/* All of a judgement; null if there is none. A new reference. */
json_t *why_judgement_json(const struct policy *policy, const struct why_judgement *judgement);

#endif
