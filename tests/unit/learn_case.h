/* SPDX-License-Identifier: Apache-2.0 */
/*
 * learn_case.h - a record of flows, what is learned from it, and how that judges. One at a time.
 */
#ifndef BULKHEAD_TESTS_LEARN_CASE_H
#define BULKHEAD_TESTS_LEARN_CASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/learn.h"
#include "policy/model.h"
#include "policy/policy.h"
#include "policy/why.h"

#define TD "spiffe://prod.example/ns/shop/sa/"
#define NOON 1795248000 /* 2026-11-21T08:00:00Z */

static struct learn *learn;
static struct policy *against;
static char *text; /* what was learned last */

static inline int teardown(void **state)
{
	(void)state;
	learn_freep(&learn);
	policy_freep(&against);
	free(text);
	text = NULL;
	return 0;
}

static inline struct policy *parse(const char *first, const char *second)
{
	const struct policy_source sources[] = {{"first.yaml", first, strlen(first)},
						{"second.yaml", second ? second : "", second ? strlen(second) : 0}};
	struct policy_diagnostics *diagnostics;
	struct policy *policy = NULL;

	if (policy_parse(&policy, &diagnostics, sources, second ? 2 : 1) != 0) {
		policy_diagnostics_print(diagnostics, stderr, false);
		fail_msg("not valid:\n%s\n%s", first, second ? second : "");
	}
	policy_diagnostics_freep(&diagnostics);
	return policy;
}

static inline void begin(const char *policy, bool wildcards)
{
	struct learn_options options = {.now = NOON, .wildcards = wildcards};

	teardown(NULL);
	if (policy)
		options.against = against = parse(policy, NULL);
	assert_int_equal(learn_new(&learn, &options), 0);
}

static inline void saw_in(const char *from, const char *to, const char *service, bool ingress, const char *cgroup)
{
	struct learn_flow flow = {
		.from = from,
		.to = to,
		.service = service,
		.cgroup = cgroup,
		.ingress = ingress,
		.count = 2,
		.first = NOON,
		.last = NOON + 60,
	};
	char *error;

	if (learn_add(learn, &flow, &error) != 0)
		fail_msg("%s", error);
}

static inline void saw(const char *from, const char *to, const char *service)
{
	saw_in(from, to, service, false, NULL);
}

static inline const char *finish(void)
{
	size_t len;
	FILE *out;

	assert_int_equal(learn_finish(learn), 0);
	free(text);
	out = open_memstream(&text, &len);
	learn_write(learn, "test.jsonl", out);
	assert_int_equal(fclose(out), 0);
	return text;
}

static inline size_t count_rules(void)
{
	size_t n = 0;

	while (learn_rule_get(learn, n))
		n++;
	return n;
}

/* 1 allowed, 0 denied, -1 nobody judges it, or the policy does not know a local identity */
static inline int verdict(const struct policy *policy, const char *from, const char *to, const char *service)
{
	struct why_flow why;
	char *error;
	int answer;

	if (why_flow_find(&why, policy, from, to, service, NOON, &error) != 0) {
		free(error);
		return -1;
	}
	answer = (!why.egress.judged || why.egress.decision.allow) &&
		 (!why.ingress.judged || why.ingress.decision.allow);
	if (!why.egress.judged && !why.ingress.judged)
		answer = -1;
	why_flow_free(&why);
	return answer;
}

#endif
