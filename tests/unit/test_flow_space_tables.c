/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three judges of one flow: the engine of exact answers, the compiled tables, and the reference of the language. What
 * `prove` says must be what `explain` says, and both what the language means.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/flow_space.h"
#include "policy/image.h"
#include "tests/reference/reference.h"

#define N_POLICIES 1500
#define N_FLOWS 100

struct judges {
	struct ref_policy *reference;
	struct policy *policy;
	struct policy_image *image;
	struct flow_space *space;
	uint64_t seed;
	const struct ref_flow *flow; /* or NULL: an example is asked for */
};

static const char *rule_name(const struct policy *policy, uint32_t rule)
{
	return rule == FLOW_DEFAULT ? "default" : rule == FLOW_UNJUDGED ? "-" : policy->rules[rule].name;
}

static void check_end(const struct judges *j, const struct policy_judgement *tables, uint32_t rule, bool allow)
{
	assert_int_equal(tables->judged, rule != FLOW_UNJUDGED);
	assert_string_equal(tables->judged ? tables->rule : "-", rule_name(j->policy, rule));
	assert_int_equal(tables->allow, allow);
}

static void check_reference(const struct judges *j, int direction, uint32_t rule, bool allow)
{
	struct ref_verdict verdict;

	if (rule == FLOW_UNJUDGED)
		return;
	verdict = ref_judge(j->reference, direction, j->flow, REF_NOW);
	assert_int_equal(verdict.rule ? (uint32_t)verdict.rule - 1 : FLOW_DEFAULT, rule);
	assert_int_equal(verdict.allow || verdict.audit, allow);
}

static int check_piece(void *context, const struct flow_piece *piece)
{
	const struct judges *j = context;
	struct policy_explanation explanation;
	char *from, *to, *service, *error;

	if (j->flow) {
		char ends[2][300], point[64];

		ref_end_format(&j->flow->from, ends[0], sizeof(ends[0]));
		ref_end_format(&j->flow->to, ends[1], sizeof(ends[1]));
		ref_service_format(j->flow, point, sizeof(point));
		from = strdup(ends[0]);
		to = strdup(ends[1]);
		service = strdup(point);
		check_reference(j, 1, piece->egress_rule, piece->egress_allow);
		check_reference(j, 2, piece->ingress_rule, piece->ingress_allow);
	} else {
		assert_int_equal(flow_space_example(j->space, &piece->box, &from, &to, &service), 0);
	}
	if (policy_explain(j->image, from, to, service, REF_NOW, &explanation, &error) != 0) {
		print_error("seed %llu: %s -> %s %s: %s\n", (unsigned long long)j->seed, from, to, service, error);
		fail();
	}
	check_end(j, &explanation.egress, piece->egress_rule, piece->egress_allow);
	check_end(j, &explanation.ingress, piece->ingress_rule, piece->ingress_allow);
	assert_int_equal(explanation.allow, piece->allow);
	free(from);
	free(to);
	free(service);
	return 0;
}

static void judge_flow(struct judges *j, const struct ref_flow *flow)
{
	char ends[2][300], service[64], *error;
	struct policy_test test = {.n_services = 1};
	struct service_range range;
	struct flow_box *boxes;
	size_t n;

	ref_end_format(&flow->from, ends[0], sizeof(ends[0]));
	ref_end_format(&flow->to, ends[1], sizeof(ends[1]));
	ref_service_format(flow, service, sizeof(service));
	assert_int_equal(flow_end_parse(&test.from.one, ends[0], &error), 0);
	assert_int_equal(flow_end_parse(&test.to.one, ends[1], &error), 0);
	if (flow_service_parse(&range.first, service, &error)) {
		free(error);
		return;
	}
	range.last = range.first;
	test.services = &range;
	assert_int_equal(flow_space_select_test(j->space, 0, &test, &boxes, &n, &error), 0);
	/* A flow that cannot be, such as to port 0, is none. */
	if (!n)
		return;
	j->flow = flow;
	assert_int_equal(flow_space_judge(j->space, 0, &boxes[0], check_piece, j, &error), 0);
	j->flow = NULL;
}

static void judge_everything(struct judges *j)
{
	struct flow_box *boxes;
	char *error;
	size_t n;

	assert_int_equal(flow_space_everything(j->space, &boxes, &n), 0);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(flow_space_judge(j->space, 0, &boxes[i], check_piece, j, &error), 0);
}

static bool open_judges(struct judges *j, uint64_t seed)
{
	struct policy_source sources[REF_MAX_FILES];
	struct policy_diagnostics *diagnostics;
	char *error;
	void *bytes;
	size_t len;

	*j = (struct judges){.reference = ref_policy_new(seed), .seed = seed};
	for (int i = 0; i < j->reference->n_files; i++) {
		static const char *const names[REF_MAX_FILES] = {"a.yaml", "b.yaml", "c.yaml"};

		sources[i] = (struct policy_source){names[i], j->reference->texts[i], strlen(j->reference->texts[i])};
	}
	if (policy_parse(&j->policy, &diagnostics, sources, (size_t)j->reference->n_files) != 0) {
		policy_diagnostics_print(diagnostics, stderr, false);
		fail();
	}
	policy_diagnostics_freep(&diagnostics);
	if (policy_compile(j->policy, &bytes, &len, &error) == 1) {
		free(error);
		return false;
	}
	assert_int_equal(policy_image_open(&j->image, bytes, len, NULL), 0);
	free(bytes);
	assert_int_equal(flow_space_new(&j->space, (const struct policy *const[]){j->policy}, 1, REF_NOW, &error), 0);
	return true;
}

static void close_judges(struct judges *j)
{
	flow_space_freep(&j->space);
	policy_image_freep(&j->image);
	policy_freep(&j->policy);
	ref_policy_free(j->reference);
}

static void exact_answers_tables_and_reference_agree(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= N_POLICIES; seed++) {
		struct judges j;

		if (open_judges(&j, seed)) {
			for (int i = 0; i < N_FLOWS; i++) {
				struct ref_flow flow;

				ref_flow_make(j.reference, &flow);
				judge_flow(&j, &flow);
			}
			if (seed % 5 == 0)
				judge_everything(&j);
		}
		close_judges(&j);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exact_answers_tables_and_reference_agree),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
