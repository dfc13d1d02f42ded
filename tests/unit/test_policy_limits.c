/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits of the language: each is enforced exactly, and hostile text costs little time and memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "policy_case.h"

/* `head`, then `n` times `item` with its number, then `tail`. */
static char *repeated(const char *head, const char *item, int n, const char *tail)
{
	char *text = NULL;
	size_t size;
	FILE *file = open_memstream(&text, &size);

	fputs(head, file);
	for (int i = 0; i < n; i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		fprintf(file, item, i);
#pragma GCC diagnostic pop
	}
	fputs(tail, file);
	fclose(file);
	return text;
}

static void refused_beyond(const char *head, const char *item, int limit, const char *tail, const char *expected)
{
	struct policy *policy;
	char *text = repeated(head, item, limit, tail);

	policy = parse(text);
	policy_freep(&policy);
	free(text);
	text = repeated(head, item, limit + 1, tail);
	refused(text, expected);
	free(text);
}

static void limits_are_enforced_exactly(void **state)
{
	char *big;

	(void)state;
	refused_beyond("bulkhead: 1\nrules:\n", "  - {name: r%d, action: deny, from: any, to: any}\n", 131071, "",
		       "more than 131071 rules");
	refused_beyond("bulkhead: 1\ntests:\n", "  - {name: t%d, from: any, to: any, service: tcp, expect: deny}\n",
		       POLICY_MAX_TESTS, "", "more than 10000 tests");
	refused_beyond("bulkhead: 1\ninvariants:\n", "  - {name: i%d, never: {from: any, to: any}}\n",
		       POLICY_MAX_INVARIANTS, "", "more than 10000 invariants");
	refused_beyond("bulkhead: 1\nidentities:\n  a: {any: [verified", ", 'spiffe://td/%d'", POLICY_MAX_OPERANDS - 1,
		       "]}\n", "has 4097 operands, the limit is 4096");
	refused_beyond("bulkhead: 1\ntiers: [app", ", t%d", POLICY_MAX_TIERS - 1, "]\n", "17 tiers, the limit is 16");
	big = calloc(1, POLICY_MAX_SOURCE_BYTES + 2);
	memset(big, ' ', POLICY_MAX_SOURCE_BYTES + 1);
	memcpy(big, "bulkhead: 1\n#", 13);
	refused(big, "the file has 16777217 bytes, the limit is 16777216");
	big[POLICY_MAX_SOURCE_BYTES] = 0;
	{
		struct policy *policy = parse(big);

		policy_freep(&policy);
	}
	free(big);
}

static void services_may_be_sixteen_deep(void **state)
{
	struct policy *policy;

	(void)state;
	/* In both orders: what is resolved first must not matter. */
	for (int reverse = 0; reverse < 2; reverse++)
		for (int depth = 16; depth <= 17; depth++) {
			char definitions[4096] = "bulkhead: 1\nservices:\n";

			for (int i = 0; i < depth; i++) {
				int s = reverse ? depth - 1 - i : i;

				sprintf(definitions + strlen(definitions), "  s%d: s%d\n", s, s + 1);
			}
			sprintf(definitions + strlen(definitions), "  s%d: tcp/1\n", depth);
			if (depth == 16) {
				policy = parse(definitions);
				assert_int_equal(policy->services[0].n_ranges, 1);
				policy_freep(&policy);
			} else {
				refused(definitions, "more than 16 deep");
			}
		}
}

/* A thousand rules each with a list of thirty thousand ports beside another: 240 MB if they were copied. */
static void lists_of_services_cannot_multiply(void **state)
{
	char *text = NULL;
	size_t size;
	FILE *file = open_memstream(&text, &size);
	struct policy *policy;

	(void)state;
	fputs("bulkhead: 1\nservices:\n  big: [tcp/1", file);
	for (int i = 0; i < 30000; i++)
		fprintf(file, ", tcp/%d", 2 * i + 3);
	fputs("]\nrules:\n", file);
	for (int i = 0; i < 1000; i++)
		fprintf(file, "  - {name: r%d, action: deny, from: any, to: any, service: [udp/%d, big]}\n", i, i + 1);
	fclose(file);
	refused(text, "the services of the policy are too large");
	/* Alone it is shared. */
	for (char *at = strstr(text, "[udp/"); at; at = strstr(at, "[udp/")) {
		size_t len = strcspn(at, "\n");

		memset(at, ' ', len);
		memcpy(at, "big}", 4);
	}
	policy = parse(text);
	assert_ptr_equal(policy->rules[0].services, policy->rules[999].services);
	policy_freep(&policy);
	free(text);
}

/* Each of these once cost the square of its size, or would if it were read as written. */
static void hostile_text_costs_little_time(void **state)
{
	static const struct {
		const char *head, *item, *tail;
		int n;
	} texts[] = {
		{"", "%%TAG !a%d! x\n", "---\nbulkhead: 1\n", 1000000},
		{"bulkhead: 1\n", "rulex%d: 1\n", "", 1000000},
		{"bulkhead: 1\nrules:\n", "- {name: r%d, form: a, acton: b, two: c}\n", "", 200000},
		{"bulkhead: 1\nidentities:\n", "  name-of-an-identity-that-is-long-%d: {any: [nmae-of-an-identity]}\n",
		 "", 150000},
		{"bulkhead: 1\nservices:\n", "  s%1$d: [s%1$d]\n", "", 200000},
		{"bulkhead: 1\nnetworks: {n: {include: [0.0.0.0/0", ", 10.0.0.%1$d", "]}}\n", 1},
		{"bulkhead: 1\nidentities: {", "? a%d : [", "", 14},
		{"bulkhead: 1\nrules: [", "&a%d x, ", "]\n", 1000000},
		{"bulkhead: 1\nx: ", "- ", "", 1000000},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		char *text = repeated(texts[i].head, texts[i].item, texts[i].n, texts[i].tail);
		const struct policy_source source = {"p.yaml", text, strlen(text)};
		struct policy_diagnostics *diagnostics;
		struct policy *policy;
		clock_t start = clock();

		assert_in_range(policy_parse(&policy, &diagnostics, &source, 1), 0, 1);
		if (clock() - start > 10 * CLOCKS_PER_SEC)
			fail_msg("text %zu took %ld ms", i, (long)((clock() - start) * 1000 / CLOCKS_PER_SEC));
		policy_freep(&policy);
		policy_diagnostics_freep(&diagnostics);
		free(text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(limits_are_enforced_exactly),
		cmocka_unit_test(services_may_be_sixteen_deep),
		cmocka_unit_test(lists_of_services_cannot_multiply),
		cmocka_unit_test(hostile_text_costs_little_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
