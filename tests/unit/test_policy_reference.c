/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compiled tables against the reference: a million random judgements over policies that use every feature of the language.
 *
 * The whole cell must be the same (verdict, rule, log, audit mode), and so must the time until which the verdict holds. What the
 * kernel's hooks ask first, whether a flow is possible at all, must never be no where a verdict is yes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bpf/decide.h"
#include "tests/reference/compiled/compiled.h"

#ifdef __SANITIZE_ADDRESS__
#define N_POLICIES 500
#else
#define N_POLICIES 5000
#endif
#define N_LARGE (N_POLICIES / 50)
#define N_FLOWS 100 /* of each policy, each judged at both ends */

/* Seconds from REF_NOW: before, at and after the moments at which random rules end. */
static const int moments[] = {0, 0, -2, 1, 999, 1000, 200000, 300, 1700};

static uint32_t address_class(const unsigned char *tables, const struct bh_addr *address, const struct ref_end *end)
{
	return end->has_address ? bh_addr_class(tables, address) : 0;
}

static void flow_of(const struct ref_policy *policy, const struct policy_image *image, const struct ref_flow *ref,
		    struct bh_flow *flow)
{
	struct bh_addr from = {}, to = {};
	const unsigned char *tables;
	size_t len;

	tables = policy_image_tables(image, &len);
	if (ref->from.has_address)
		ref_address(policy, &ref->from, &from);
	if (ref->to.has_address)
		ref_address(policy, &ref->to, &to);
	*flow = (struct bh_flow){
		.from_who = ref_who(image, &ref->from),
		.from_addr = address_class(tables, &from, &ref->from),
		.to_who = ref_who(image, &ref->to),
		.to_addr = address_class(tables, &to, &ref->to),
		.point = bh_service_point((uint32_t)ref->protocol, (uint32_t)ref->port),
	};
}

static void check_judgement(const struct ref_policy *policy, const unsigned char *tables, const struct ref_flow *ref,
			    const struct bh_flow *flow, uint32_t direction, int64_t now, uint64_t seed)
{
	struct ref_verdict verdict = ref_judge(policy, direction == BH_EGRESS ? 1 : 2, ref, now);
	uint64_t until = verdict.until ? (uint64_t)verdict.until : BH_FOREVER;
	__u64 valid_until = BH_FOREVER;
	uint32_t cell = bh_decide(tables, direction, flow, (uint64_t)now, &valid_until);
	char text[200];

	snprintf(text, sizeof(text), "%s at %+ld: cell %08x until %lu, the reference says %08x until %lu",
		 direction == BH_EGRESS ? "egress" : "ingress", (long)(now - REF_NOW), cell, (unsigned long)valid_until,
		 ref_cell(verdict), (unsigned long)until);
	if (cell != ref_cell(verdict) || valid_until != until)
		ref_report(policy, ref, seed, text);
	assert_int_equal(cell, ref_cell(verdict));
	assert_int_equal(valid_until, until);
	if (direction == BH_EGRESS && verdict.allow &&
	    !bh_possible(tables, flow->from_who, flow->to_addr, flow->point)) {
		ref_report(policy, ref, seed, "allowed, but not possible");
		fail();
	}
}

static void check_policy(struct ref_policy *policy, bool apart, uint64_t seed)
{
	struct ref_compiled compiled;
	const unsigned char *tables;
	size_t len;

	if (apart)
		ref_compile_apart(&compiled, policy);
	else
		ref_compile(&compiled, policy);
	tables = policy_image_tables(compiled.image, &len);
	for (int i = 0; i < N_FLOWS; i++) {
		int64_t now = REF_NOW + moments[ref_random(policy, sizeof(moments) / sizeof(moments[0]))];
		struct ref_flow ref;
		struct bh_flow flow;

		ref_flow_make(policy, &ref);
		flow_of(policy, compiled.image, &ref, &flow);
		check_judgement(policy, tables, &ref, &flow, BH_EGRESS, now, seed);
		check_judgement(policy, tables, &ref, &flow, BH_INGRESS, now, seed);
	}
	ref_compiled_clear(&compiled);
	ref_policy_free(policy);
}

static void tables_say_what_the_language_means(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= N_POLICIES; seed++)
		check_policy(ref_policy_new(seed), false, seed);
}

static void so_do_those_of_large_policies(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= N_LARGE; seed++)
		check_policy(ref_policy_new_large(seed), false, seed);
}

/* As a policy of many thousand rules is compiled: every pair of views is a part. */
static void so_do_tables_with_what_is_broad_apart(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= N_LARGE; seed++)
		check_policy(ref_policy_new_large(seed), true, seed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tables_say_what_the_language_means),
		cmocka_unit_test(so_do_those_of_large_policies),
		cmocka_unit_test(so_do_tables_with_what_is_broad_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
