/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy_case.h - policies of tests, from text: understood, or refused with a sentence.
 */
#ifndef BULKHEAD_TESTS_POLICY_CASE_H
#define BULKHEAD_TESTS_POLICY_CASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/model.h"
#include "policy/policy.h"

static inline struct policy *parse_sources(const struct policy_source *sources, size_t n)
{
	struct policy_diagnostics *diagnostics;
	struct policy *policy;

	if (policy_parse(&policy, &diagnostics, sources, n) != 0) {
		policy_diagnostics_print(diagnostics, stderr, false);
		fail();
	}
	policy_diagnostics_freep(&diagnostics);
	return policy;
}

static inline struct policy *parse(const char *text)
{
	return parse_sources(&(struct policy_source){"p.yaml", text, strlen(text)}, 1);
}

/* The text is refused, and this is said. */
static inline void refused(const char *text, const char *expected)
{
	const struct policy_source source = {"p.yaml", text, strlen(text)};
	struct policy_diagnostics *diagnostics;
	struct policy *policy;
	char *out = NULL;
	size_t size;
	FILE *file = open_memstream(&out, &size);

	assert_int_equal(policy_parse(&policy, &diagnostics, &source, 1), 1);
	policy_diagnostics_print(diagnostics, file, false);
	fclose(file);
	if (!strstr(out, expected))
		fail_msg("\"%s\" is not in:\n%.2000s", expected, out);
	free(out);
	policy_diagnostics_freep(&diagnostics);
}

#endif
