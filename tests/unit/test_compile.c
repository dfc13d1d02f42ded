/* SPDX-License-Identifier: Apache-2.0 */
/* The compiler as the enforcer starts it: this program anew, in its sandbox. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/compile.h"
#include "daemon/roles.h"

static char *policy_text(unsigned identities, unsigned rules)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	fputs("bulkhead: 1\nidentities:\n", f);
	for (unsigned i = 0; i < identities; i++)
		fprintf(f, "  id%u: spiffe://prod.example/app/%u\n", i, i);
	fputs("rules:\n", f);
	for (unsigned i = 0; i < rules; i++)
		fprintf(f, "  - {name: rule%u, action: %s, from: id%u, to: id%u, service: tcp/%u}\n", i,
			i % 3 == 2 ? "deny" : "allow", i % identities, i * 7 % identities, 7000 + i % 20);
	fclose(f);
	return text;
}

static int compile(unsigned identities, unsigned rules, size_t *image_len, char **textp)
{
	char *text = policy_text(identities, rules);
	struct policy_source source = {.name = "policy.yaml", .text = text, .len = strlen(text)};
	void *image = NULL;
	int r = compile_policy(&source, 1, NULL, &image, image_len, textp);

	free(image);
	free(text);
	return r;
}

static void assert_compiles(unsigned identities, unsigned rules)
{
	size_t len = 0;
	char *text = NULL;
	int r = compile(identities, rules, &len, &text);

	if (r)
		print_error("%s\n", text ? text : "");
	assert_int_equal(r, 0);
	assert_true(len > 0);
	free(text);
}

static void policies_of_many_identities_compile(void **state)
{
	(void)state;
	assert_compiles(2, 1);
	assert_compiles(400, 400);
	assert_compiles(400, 2000);
}

/* `stored`: a policy that has been in force. */
static int compile_text(const char *policy, bool stored, char **textp)
{
	struct policy_source source = {.name = "policy.yaml", .text = policy, .len = strlen(policy)};
	void *image = NULL;
	size_t len = 0;
	int r = (stored ? compile_stored_policy : compile_policy)(&source, 1, NULL, &image, &len, textp);

	free(image);
	return r;
}

static void a_policy_whose_tests_fail_does_not_compile(void **state)
{
	static const char failing[] = "bulkhead: 1\nidentities: {web: spiffe://prod.example/web}\n"
				      "rules: [{name: self, action: allow, from: web, to: web, service: tcp/80}]\n"
				      "tests: [{from: web, to: web, service: tcp/81, expect: allow}]\n"
				      "invariants: [{never: {from: web, to: web}}]\n";
	char *text = NULL;

	(void)state;
	assert_int_equal(compile_text(failing, false, &text), 1);
	assert_non_null(strstr(text, "policy.yaml:4:9: error: the test fails: web -> web tcp/81: allow\n"));
	assert_non_null(
		strstr(text, "policy.yaml:5:14: error: the invariant does not hold: never: {from: web, to: web}"));
	free(text);
	text = NULL;
	/* What was in force comes back whatever its tests say by now. */
	assert_int_equal(compile_text(failing, true, &text), 0);
	free(text);
}

/* Whether its tables fit is the compiler's to say; it is not to be killed by what it needs to find out. */
static void a_policy_of_ten_thousand_rules_gets_an_answer(void **state)
{
	char *text = NULL;
	size_t len = 0;
	int r;

	(void)state;
	r = compile(1000, 10000, &len, &text);
	if (r < 0)
		print_error("%s\n", text ? text : "");
	assert_in_range(r, 0, 1);
	if (r == 1)
		assert_non_null(text);
	free(text);
}

static void an_invalid_policy_is_an_answer(void **state)
{
	struct policy_source source = {.name = "policy.yaml", .text = "bulkhead: 2\n", .len = 12};
	void *image = NULL;
	char *text = NULL;
	size_t len = 0;

	(void)state;
	assert_int_equal(compile_policy(&source, 1, NULL, &image, &len, &text), 1);
	assert_null(image);
	assert_non_null(strstr(text, "policy.yaml:1:"));
	free(text);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_policy_whose_tests_fail_does_not_compile),
		cmocka_unit_test(policies_of_many_identities_compile),
		cmocka_unit_test(a_policy_of_ten_thousand_rules_gets_an_answer),
		cmocka_unit_test(an_invalid_policy_is_an_answer),
	};
	int status;

	if (role_dispatch(argc, argv, &status))
		return status;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
