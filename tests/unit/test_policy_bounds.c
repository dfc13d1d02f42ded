/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policies made to blow up: refused with the reason and the size, in memory that is bounded and long before anybody waits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <cmocka.h>

#include "policy/policy.h"

#define MEMORY (1ULL << 30)
#define SECONDS 60 /* of a machine that is busy, without optimisation */

/* The same numbers everywhere. */
static uint32_t next_random(uint32_t n)
{
	static uint64_t state = 1;

	state = state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(state >> 33) % n;
}

/* Expects the policy to be valid, and too large; frees the text. */
static void refused(char *text, size_t len, const char *why)
{
	const struct policy_source source = {"big.yaml", text, len};
	struct policy_diagnostics *diagnostics;
	clock_t start = clock();
	struct policy *policy;
	char *error = NULL;
	void *bytes = NULL;

	assert_int_equal(policy_parse(&policy, &diagnostics, &source, 1), 0);
	assert_int_equal(policy_compile(policy, &bytes, &len, &error), 1);
	assert_null(bytes);
	if (!strstr(error, why))
		fail_msg("'%s' does not say '%s'", error, why);
	assert_true(clock() - start < SECONDS * CLOCKS_PER_SEC);
	free(error);
	free(text);
	policy_freep(&policy);
	policy_diagnostics_freep(&diagnostics);
}

/* A matrix of 50,000 by 50,000 classes, of which next to nothing is filled. */
static void pairs_of_identity_and_network_do_not_fit(void **state)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	(void)state;
	fputs("bulkhead: 1\nidentities:\n", out);
	for (int i = 0; i < 1000; i++)
		fprintf(out, "  a%d: spiffe://td/%d\n", i, i);
	fputs("networks:\n", out);
	for (int i = 0; i < 5000; i++)
		fprintf(out, "  n%d: 10.%d.%d.0/24\n", i, i >> 8, i & 255);
	fputs("rules:\n", out);
	for (int i = 0; i < 50000; i++)
		fprintf(out,
			"  - {name: r%d, action: allow, from: {identity: a%u, network: n%u}, to: {identity: a%u, "
			"network: n%u}}\n",
			i, next_random(1000), next_random(5000), next_random(1000), next_random(5000));
	fclose(out);
	refused(text, len, "MiB of tables");
}

/* Every identity meets some others, no two the same. */
static void more_identities_than_fit(void **state)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	(void)state;
	fputs("bulkhead: 1\nidentities:\n", out);
	for (int i = 0; i < 70000; i++)
		fprintf(out, "  a%d: spiffe://td/%d\n", i, i);
	fputs("rules:\n", out);
	for (int i = 0; i < 70000; i++)
		fprintf(out, "  - {name: r%d, action: allow, from: a%d, to: a%u, service: tcp/%d}\n", i, i,
			next_random(70000), 1 + i % 60000);
	fclose(out);
	refused(text, len, "MiB of tables");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pairs_of_identity_and_network_do_not_fit),
		cmocka_unit_test(more_identities_than_fit),
	};
#ifndef __SANITIZE_ADDRESS__
	struct rlimit memory = {MEMORY, MEMORY};

	setrlimit(RLIMIT_AS, &memory);
#endif
	return cmocka_run_group_tests(tests, NULL, NULL);
}
