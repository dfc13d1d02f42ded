/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/verify.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/flow_space.h"

#define FOUND 2 /* a piece for which the statement does not hold: the judging ends */

struct verifier {
	const struct policy *policy;
	struct flow_space *space;
	policy_finding_fn tell;
	void *context;
	char **errorp;
};

/* A statement, while the pieces of its flows come in. */
struct statement {
	struct verifier *verifier;
	const struct policy_test *test;
	bool allow; /* what every flow should be */
	struct policy_finding *finding;
	char *from, *to, *service;
};

static void freep(char **textp)
{
	free(*textp);
}

static struct policy_decider decider_of(const struct policy *policy, uint32_t rule, bool allow)
{
	struct policy_decider decider = {.judged = rule != FLOW_UNJUDGED, .allow = allow, .rule = "default"};
	const struct position *at = policy->has_defaults ? &policy->defaults_at : NULL;

	if (!decider.judged)
		return decider;
	if (rule != FLOW_DEFAULT) {
		decider.rule = policy->rules[rule].name;
		decider.audit = policy->rules[rule].action == RULE_DENY && policy->rules[rule].audit;
		decider.tier = policy->tiers ? policy->tiers[policy->rules[rule].tier].name : NULL;
		at = &policy->rules[rule].at;
	}
	if (at) {
		decider.file = policy->source_names[at->source];
		decider.line = at->line;
	}
	return decider;
}

/* ---- one statement ---- */

static bool is_rule(const struct policy *policy, uint32_t rule, const char *name)
{
	if (rule == FLOW_UNJUDGED)
		return false;
	return strcmp(rule == FLOW_DEFAULT ? "default" : policy->rules[rule].name, name) == 0;
}

static bool is_decided_by(const struct policy *policy, const struct flow_piece *piece, const char *name)
{
	bool egress = is_rule(policy, piece->egress_rule, name) && piece->egress_allow == piece->allow;
	bool ingress = is_rule(policy, piece->ingress_rule, name) && piece->ingress_allow == piece->allow;

	return egress || ingress;
}

/* A test of one peer fails for that one, not for another who is judged the same. */
static const char *peer_of(const struct test_end *end, const char *example)
{
	return end && !end->is_set ? end->text : example;
}

static int look_at_piece(void *context, const struct flow_piece *piece)
{
	struct statement *statement = context;
	const struct policy *policy = statement->verifier->policy;
	struct policy_finding *finding = statement->finding;
	const char *by = statement->test ? statement->test->by : NULL;

	if (piece->allow == statement->allow && (!by || is_decided_by(policy, piece, by)))
		return 0;
	finding->holds = false;
	finding->allow = piece->allow;
	finding->egress = decider_of(policy, piece->egress_rule, piece->egress_allow);
	finding->ingress = decider_of(policy, piece->ingress_rule, piece->ingress_allow);
	if (flow_space_example(statement->verifier->space, &piece->box, &statement->from, &statement->to,
			       &statement->service) < 0)
		return -ENOMEM;
	finding->has_flow = true;
	finding->from = peer_of(statement->test ? &statement->test->from : NULL, statement->from);
	finding->to = peer_of(statement->test ? &statement->test->to : NULL, statement->to);
	finding->service = statement->service;
	return FOUND;
}

/* Returns 0, 1 with the verifier's error, or -ENOMEM; the finding says whether it holds. */
static int look_at_boxes(struct statement *statement, const struct flow_box *boxes, size_t n)
{
	struct verifier *verifier = statement->verifier;
	int r = 0;

	/* From the last: flows from outside come behind those of workloads, and are what an operator thinks of first. */
	for (size_t i = n; i-- > 0 && r == 0;)
		r = flow_space_judge(verifier->space, 0, &boxes[i], look_at_piece, statement, verifier->errorp);
	return r == FOUND ? 0 : r;
}

static int tell(struct statement *statement)
{
	int r = statement->verifier->tell(statement->verifier->context, statement->finding);

	free(statement->from);
	free(statement->to);
	free(statement->service);
	return r;
}

static int run_test(struct verifier *verifier, const struct policy_test *test)
{
	_cleanup_(freep) char *error = NULL;
	struct policy_finding finding = {.test = test, .holds = true};
	struct statement statement = {verifier, test, test->allow, &finding, NULL, NULL, NULL};
	struct flow_box *boxes;
	size_t n;
	int r = flow_space_select_test(verifier->space, 0, test, &boxes, &n, &error);

	if (r < 0)
		return r;
	if (r == 0)
		r = look_at_boxes(&statement, boxes, n);
	else
		r = 0;
	if (r)
		return r;
	if (error || !n) {
		finding.holds = false;
		finding.why = error ? error : "it is about no flow: nobody, or no address, is what it names";
	} else if (!finding.holds && finding.allow == test->allow) {
		finding.why = "decided by another rule";
	}
	return tell(&statement);
}

static int check_invariant(struct verifier *verifier, const struct invariant *invariant)
{
	struct policy_finding finding = {.invariant = invariant, .holds = true};
	struct statement statement = {verifier, NULL, invariant->kind == INVARIANT_ALWAYS, &finding, NULL, NULL, NULL};
	const struct selector *ends[2] = {&invariant->from, &invariant->to};
	int ways = invariant->kind == INVARIANT_ISOLATED ? 2 : 1, r = 0;
	size_t flows = 0;

	for (int i = 0; i < ways && r == 0 && finding.holds; i++) {
		struct flow_box *boxes;
		size_t n;

		r = flow_space_select(verifier->space, 0, ends[i], ends[1 - i], invariant->services,
				      invariant->n_services, &boxes, &n);
		if (r == 0)
			r = look_at_boxes(&statement, boxes, n);
		flows += n;
	}
	if (r)
		return r;
	if (!flows)
		finding.why = "it is about no flow";
	return tell(&statement);
}

/* ---- all of them ---- */

static int open_space(struct verifier *verifier, int64_t now)
{
	const struct policy *const policies[] = {verifier->policy};

	return flow_space_new(&verifier->space, policies, 1, now, verifier->errorp);
}

int policy_run_tests(const struct policy *policy, int64_t now, policy_finding_fn fn, void *context, char **errorp)
{
	struct verifier verifier = {policy, NULL, fn, context, errorp};
	int r = 0;

	*errorp = NULL;
	if (policy->n_tests)
		r = open_space(&verifier, now);
	for (size_t i = 0; i < policy->n_tests && r == 0; i++)
		r = run_test(&verifier, &policy->tests[i]);
	flow_space_freep(&verifier.space);
	return r;
}

int policy_check_invariants(const struct policy *policy, const struct invariant *invariants, size_t n, int64_t now,
			    policy_finding_fn fn, void *context, char **errorp)
{
	struct verifier verifier = {policy, NULL, fn, context, errorp};
	int r = 0;

	*errorp = NULL;
	if (n)
		r = open_space(&verifier, now);
	for (size_t i = 0; i < n && r == 0; i++)
		r = check_invariant(&verifier, &invariants[i]);
	flow_space_freep(&verifier.space);
	return r;
}

/* ---- in words ---- */

static const char *verdict(bool allow)
{
	return allow ? "allow" : "deny";
}

void policy_finding_title(const struct policy_finding *finding, FILE *out)
{
	const struct policy_test *test = finding->test;
	const char *name = test ? test->name : finding->invariant->name;

	if (name)
		fprintf(out, "%s: ", name);
	if (!test) {
		fputs(finding->invariant->text, out);
		return;
	}
	fprintf(out, "%s -> %s %s: %s", test->from.text, test->to.text, test->service, verdict(test->allow));
	if (test->by)
		fprintf(out, " by %s", test->by);
}

void policy_decider_text(const struct policy_decider *decider, FILE *out)
{
	if (!decider->judged) {
		fputs("not judged: no managed workload", out);
		return;
	}
	fprintf(out, "%s by %s", verdict(decider->allow), decider->rule);
	if (decider->file)
		fprintf(out, " (%s:%u)", decider->file, decider->line);
	if (decider->audit)
		fputs(", which in audit mode lets pass what it denies", out);
}

static void print_decider(const char *end, const struct policy_decider *decider, FILE *out)
{
	fprintf(out, "  %-8s ", end);
	policy_decider_text(decider, out);
	fputc('\n', out);
}

void policy_finding_details(const struct policy_finding *finding, FILE *out)
{
	const struct policy_test *test = finding->test;

	if (test && finding->has_flow) {
		fprintf(out, "  expected %s", verdict(test->allow));
		if (test->by)
			fprintf(out, " by %s", test->by);
		fprintf(out, ", got %s%s%s\n", verdict(finding->allow), finding->why ? ", " : "",
			finding->why ? finding->why : "");
	} else if (finding->why) {
		fprintf(out, "  %s\n", finding->why);
	}
	if (!finding->has_flow)
		return;
	fprintf(out, "  %-8s %s -> %s %s\n", "flow", finding->from, finding->to, finding->service);
	print_decider("egress", &finding->egress, out);
	print_decider("ingress", &finding->ingress, out);
}

static const struct position *position_of(const struct policy_finding *finding)
{
	return finding->test ? &finding->test->at : &finding->invariant->at;
}

void policy_finding_place(const struct policy *policy, const struct policy_finding *finding, FILE *out)
{
	const struct position *at = position_of(finding);

	fprintf(out, "%s:%u", policy->source_names[at->source], at->line);
}

/* ---- before a policy comes into force ---- */

struct verification {
	const struct policy *policy;
	FILE *out;
	size_t failed;
};

static int report(void *context, const struct policy_finding *finding)
{
	struct verification *verification = context;

	if (finding->holds)
		return 0;
	/* As many as there are diagnostics of other kinds; the rest is counted. */
	if (verification->failed++ >= POLICY_MAX_DIAGNOSTICS)
		return 0;
	policy_finding_place(verification->policy, finding, verification->out);
	fprintf(verification->out, ":%u: error: %s: ", position_of(finding)->column,
		finding->test ? "the test fails" : "the invariant does not hold");
	policy_finding_title(finding, verification->out);
	fputc('\n', verification->out);
	policy_finding_details(finding, verification->out);
	return 0;
}

int policy_verify(const struct policy *policy, int64_t now, FILE *out)
{
	struct verification verification = {.policy = policy, .out = out};
	_cleanup_(freep) char *error = NULL;
	int r = policy_run_tests(policy, now, report, &verification, &error);

	if (r == 0)
		r = policy_check_invariants(policy, policy->invariants, policy->n_invariants, now, report,
					    &verification, &error);
	if (r < 0)
		return r;
	if (r)
		fprintf(out, "error: the tests and invariants cannot be answered: %s\n", error ? error : "");
	if (verification.failed > POLICY_MAX_DIAGNOSTICS)
		fprintf(out, "and %zu more\n", verification.failed - POLICY_MAX_DIAGNOSTICS);
	return r || verification.failed ? 1 : 0;
}
