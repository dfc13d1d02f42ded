/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What changes between two policies, against the reference evaluator (tests/reference), which knows nothing of boxes.
 *
 * Pairs of random policies that use every feature, some nearly the same and some wholly different, are compared. A random
 * flow must be in exactly one of the changes if its verdict differs, in none if it does not; and the example of every change
 * must differ in the way that the change says, decided by the rules that it names.
 */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/diff.h"
#include "policy/flow_space.h"
#include "tests/reference/compiled/compiled.h"

#define N_PAIRS 400
#define N_FLOWS 250 /* of each pair */

struct pair {
	struct ref_policy *ref[2];
	struct policy *policy[2];
	struct policy_diff *diff;
	uint64_t seed;
};

static struct policy *parse_files(char *const *texts, size_t n)
{
	struct policy_source sources[REF_MAX_FILES];
	struct policy_diagnostics *diagnostics = NULL;
	struct policy *policy = NULL;
	static const char *const names[] = {"a.yaml", "b.yaml", "c.yaml"};

	for (size_t i = 0; i < n; i++)
		sources[i] = (struct policy_source){names[i], texts[i], strlen(texts[i])};
	if (policy_parse(&policy, &diagnostics, sources, n) != 0) {
		policy_diagnostics_print(diagnostics, stderr, false);
		fail_msg("the policy is not valid");
	}
	policy_diagnostics_freep(&diagnostics);
	return policy;
}

/* ---- the reference ---- */

/* A workload at a place has the identity that a policy gives the place, if it gives it any. */
static struct ref_end seen_by(const struct pair *pair, size_t p, size_t owner, const struct ref_end *end)
{
	struct ref_end seen = *end;

	if (end->kind == REF_LOCAL &&
	    (end->local >= pair->ref[p]->n_identities ||
	     pair->ref[p]->identities[end->local].local != pair->ref[owner]->identities[end->local].local))
		seen.kind = REF_UNIDENTIFIED;
	return seen;
}

struct ref_both {
	bool allow;
	int rules[2]; /* egress, ingress; from 1, 0 the default, -1 not judged */
	bool allows[2];
};

static bool is_workload(const struct ref_end *end)
{
	return end->kind != REF_HOST && end->kind != REF_WORLD;
}

/* The policies whose local identities the ends name: those of `from` and of `to`. */
struct owners {
	size_t from, to;
};

static struct ref_both judge_both(const struct pair *pair, size_t p, struct owners owners, const struct ref_flow *flow)
{
	struct ref_flow seen = *flow;
	struct ref_both both = {.allow = true, .rules = {-1, -1}, .allows = {true, true}};

	seen.from = seen_by(pair, p, owners.from, &flow->from);
	seen.to = seen_by(pair, p, owners.to, &flow->to);
	for (int side = 0; side < 2; side++) {
		struct ref_verdict verdict;

		if (!is_workload(side ? &seen.to : &seen.from))
			continue;
		verdict = ref_judge(pair->ref[p], side + 1, &seen, REF_NOW);
		both.rules[side] = verdict.rule;
		both.allows[side] = verdict.allow;
		both.allow = both.allow && verdict.allow;
	}
	return both;
}

/* ---- is a flow in a box? ---- */

static void flow_end_of(const struct ref_end *end, struct test_end *out)
{
	char text[300], *error = NULL;

	*out = (struct test_end){};
	ref_end_format(end, text, sizeof(text));
	if (flow_end_parse(&out->one, text, &error) != 0)
		fail_msg("%s", error);
}

static bool box_has(const struct flow_box *box, const struct flow_box *point)
{
	for (size_t d = 0; d < FLOW_DIMENSIONS; d++) {
		bool within = false;

		assert_int_equal(point->dim[d].n, 1);
		for (uint32_t i = 0; i < box->dim[d].n; i++)
			within = within || (box->dim[d].items[i].first <= point->dim[d].items[0].first &&
					    box->dim[d].items[i].last >= point->dim[d].items[0].last);
		if (!within)
			return false;
	}
	return true;
}

/* Returns whether the flow changes. */
static bool check_flow(const struct pair *pair, size_t owner, const struct ref_flow *flow)
{
	const struct owners owners = {owner, owner};
	struct ref_both old = judge_both(pair, 0, owners, flow), new = judge_both(pair, 1, owners, flow);
	struct policy_test test = {};
	struct service_range service;
	struct flow_box *point;
	char text[64], *error = NULL;
	size_t n, found = 0;

	flow_end_of(&flow->from, &test.from);
	flow_end_of(&flow->to, &test.to);
	ref_service_format(flow, text, sizeof(text));
	assert_int_equal(service_parse(&service, text), SERVICE_OK);
	test.services = &service;
	test.n_services = 1;
	if (flow_space_select_test(pair->diff->space, owner, &test, &point, &n, &error) != 0)
		fail_msg("%s", error);
	assert_int_equal(n, 1);
	for (size_t i = 0; i < pair->diff->n_changes; i++)
		if (box_has(pair->diff->changes[i].box, point)) {
			found++;
			assert_int_equal(pair->diff->changes[i].allow, new.allow);
		}
	if (found != (old.allow != new.allow))
		fail_msg("seed %llu: a flow on %s that is %s, then %s, is in %zu changes",
			 (unsigned long long)pair->seed, text, old.allow ? "allowed" : "denied",
			 new.allow ? "allowed" : "denied", found);
	return found;
}

/* ---- is a change as it says? ---- */

static bool names_rule(const struct policy_diff_rule *rules, size_t n, int rule)
{
	char name[32];

	snprintf(name, sizeof(name), rule ? "r%d" : "default", rule - 1);
	for (size_t i = 0; i < n; i++)
		if (strcmp(rules[i].name, name) == 0)
			return true;
	return false;
}

static bool knows(const struct pair *pair, size_t p, const struct ref_end *end)
{
	return end->kind != REF_LOCAL ||
	       (end->local < pair->ref[p]->n_identities && pair->ref[p]->identities[end->local].local);
}

/* Does the flow change as it says, by these rules, if its ends are places of these policies? */
static bool is_true(const struct pair *pair, const struct policy_change *change, const struct ref_flow *flow,
		    struct owners owners)
{
	struct ref_both old, new;

	if (!knows(pair, owners.from, &flow->from) || !knows(pair, owners.to, &flow->to))
		return false;
	old = judge_both(pair, 0, owners, flow);
	new = judge_both(pair, 1, owners, flow);
	if (old.allow == change->allow || new.allow != change->allow)
		return false;
	for (int side = 0; side < 2; side++)
		if ((change->allow ? !old.allows[side] : !new.allows[side]) &&
		    !(names_rule(change->by, change->n_by, new.rules[side]) &&
		      names_rule(change->before, change->n_before, old.rules[side])))
			return false;
	return true;
}

static void check_change(const struct pair *pair, const struct policy_change *change)
{
	struct ref_flow flow = {};
	unsigned protocol, port;
	char *error = NULL;
	uint32_t point;
	bool found = false;

	assert_true(*change->from && *change->to && *change->services);
	ref_end_parse(change->example_from, &flow.from);
	ref_end_parse(change->example_to, &flow.to);
	if (flow_service_parse(&point, change->example_service, &error) != 0)
		fail_msg("%s", error);
	service_point(point, &protocol, &port);
	flow.protocol = (int)protocol;
	flow.port = (int)port;
	/* A name may be of either policy, for places that differ. */
	for (unsigned owner = 0; owner < 4; owner++)
		found = found || is_true(pair, change, &flow, (struct owners){owner & 1, owner >> 1});
	if (!found)
		fail_msg("seed %llu: %s -> %s %s does not change to %s, by the rules given",
			 (unsigned long long)pair->seed, change->example_from, change->example_to,
			 change->example_service, change->allow ? "allow" : "deny");
}

/* ---- random pairs ---- */

/* Makes a few changes to rules, in the policy and in the reference alike. */
static void vary(struct pair *pair)
{
	struct ref_policy *ref = pair->ref[1];
	uint32_t n = 1 + ref_random(ref, 3);

	if (ref_random(ref, 8) == 0) {
		ref->default_allow = !ref->default_allow;
		pair->policy[1]->default_allow = ref->default_allow;
	}
	for (uint32_t i = 0; i < n && ref->n_rules; i++) {
		uint32_t number = ref_random(ref, (uint32_t)ref->n_rules);
		struct ref_rule *of = &ref->rules[number];
		struct rule *rule = &pair->policy[1]->rules[number];

		switch (ref_random(ref, 6)) {
		case 0:
			rule->until = of->until = 1;
			break;
		case 1:
			of->action = (enum ref_action)((of->action + 1 + ref_random(ref, 2)) % 3);
			rule->action = (enum rule_action)of->action;
			break;
		case 2:
			of->priority = (int)ref_random(ref, 5) - 2;
			rule->priority = of->priority;
			break;
		case 3:
			of->direction = 1 + (int)ref_random(ref, 3);
			rule->directions = (unsigned)of->direction;
			break;
		case 4:
			rule->audit = of->audit = !of->audit;
			break;
		default:
			of->tier = (int)ref_random(ref, (uint32_t)ref->n_tiers);
			rule->tier = (uint32_t)of->tier;
		}
	}
}

static void pair_make(struct pair *pair, uint64_t seed, uint64_t other)
{
	char *error = NULL;

	*pair = (struct pair){.seed = seed};
	for (size_t p = 0; p < 2; p++) {
		pair->ref[p] = ref_policy_new(p ? other : seed);
		pair->policy[p] = parse_files(pair->ref[p]->texts, (size_t)pair->ref[p]->n_files);
	}
	if (seed == other)
		vary(pair);
	if (policy_diff_new(&pair->diff, pair->policy[0], pair->policy[1], REF_NOW, &error) != 0)
		fail_msg("seed %llu: %s", (unsigned long long)seed, error);
	assert_true(pair->diff->complete);
}

static void pair_free(struct pair *pair)
{
	policy_diff_freep(&pair->diff);
	for (size_t p = 0; p < 2; p++) {
		policy_freep(&pair->policy[p]);
		ref_policy_free(pair->ref[p]);
	}
}

static void check_pairs(bool similar)
{
	size_t changed_flows = 0, same_flows = 0;

	for (uint64_t seed = 1; seed <= N_PAIRS; seed++) {
		struct pair pair;

		pair_make(&pair, seed, similar ? seed : seed + 1000000);
		for (size_t i = 0; i < pair.diff->n_changes; i++)
			check_change(&pair, &pair.diff->changes[i]);
		for (int i = 0; i < N_FLOWS; i++) {
			size_t owner = (size_t)i % 2;
			struct ref_flow flow;

			ref_flow_make(pair.ref[owner], &flow);
			/* A diff is about real addresses, and about flows that somebody judges. */
			if (!flow.from.has_address || !flow.to.has_address ||
			    (!is_workload(&flow.from) && !is_workload(&flow.to)))
				continue;
			if (check_flow(&pair, owner, &flow))
				changed_flows++;
			else
				same_flows++;
		}
		pair_free(&pair);
	}
	/* The test has teeth only if both happen. */
	assert_true(changed_flows > N_PAIRS);
	assert_true(same_flows > N_PAIRS);
}

static void the_changes_of_similar_policies_are_exactly_what_differs(void **state)
{
	(void)state;
	check_pairs(true);
}

static void the_changes_of_different_policies_are_exactly_what_differs(void **state)
{
	(void)state;
	check_pairs(false);
}

/* ---- lines ---- */

static const char head[] = "bulkhead: 1\n"
			   "identities:\n"
			   "  web: spiffe://prod.example/web\n"
			   "  db: spiffe://prod.example/db\n"
			   "  ops: spiffe://prod.example/ops\n"
			   "networks:\n"
			   "  office: [192.0.2.0/24]\n"
			   "rules:\n";

static void write_rules(FILE *out, const struct policy_diff_rule *rules, size_t n)
{
	for (size_t i = 0; i < n; i++)
		fprintf(out, "%s%s:%u", i ? "," : "", rules[i].name, rules[i].line);
}

/* The changes from one policy to another, a line each; malloc()ed. */
static char *changes_between(const char *old_text, const char *new_text)
{
	char *texts[2], *out_text = NULL, *error = NULL;
	struct policy *policies[2];
	struct policy_diff *diff;
	size_t size;
	FILE *out = open_memstream(&out_text, &size);

	for (size_t p = 0; p < 2; p++) {
		texts[p] = strdup(p ? new_text : old_text);
		policies[p] = parse_files(&texts[p], 1);
	}
	assert_int_equal(policy_diff_new(&diff, policies[0], policies[1], REF_NOW, &error), 0);
	assert_true(diff->complete);
	for (size_t i = 0; i < diff->n_changes; i++) {
		const struct policy_change *change = &diff->changes[i];

		fprintf(out, "%c %s -> %s %s by ", change->allow ? '+' : '-', change->from, change->to,
			change->services);
		write_rules(out, change->by, change->n_by);
		fputs(" before ", out);
		write_rules(out, change->before, change->n_before);
		fputc('\n', out);
	}
	if (!diff->n_changes && diff->n_added + diff->n_removed)
		fputs("rules differ\n", out);
	fclose(out);
	policy_diff_freep(&diff);
	for (size_t p = 0; p < 2; p++) {
		policy_freep(&policies[p]);
		free(texts[p]);
	}
	return out_text;
}

static void expect_between(const char *old_text, const char *new_text, const char *expected)
{
	char *text = changes_between(old_text, new_text);

	assert_string_equal(text, expected);
	free(text);
}

/* Between lists of rules. */
static void expect_changes(const char *old_rules, const char *new_rules, const char *expected)
{
	char *texts[2];

	if (asprintf(&texts[0], "%s%s", head, old_rules) < 0 || asprintf(&texts[1], "%s%s", head, new_rules) < 0)
		abort();
	expect_between(texts[0], texts[1], expected);
	free(texts[0]);
	free(texts[1]);
}

#define WEB_TO_DB "  - {name: web-to-db, action: allow, from: web, to: db, service: tcp/5432}\n"
#define OPS_TO_ANY "  - {name: ops, action: allow, from: ops, to: any, service: tcp/22}\n"

static void a_new_rule_is_one_line(void **state)
{
	(void)state;
	expect_changes(OPS_TO_ANY, OPS_TO_ANY WEB_TO_DB, "+ web -> db tcp/5432 by web-to-db:10 before default:0\n");
}

static void a_rule_taken_away_is_one_line(void **state)
{
	(void)state;
	expect_changes(OPS_TO_ANY WEB_TO_DB, OPS_TO_ANY, "- web -> db tcp/5432 by default:0 before web-to-db:10\n");
}

static void order_names_and_log_are_no_change(void **state)
{
	(void)state;
	expect_changes(OPS_TO_ANY WEB_TO_DB,
		       "  - {name: w, action: allow, from: [web], to: db, service: [tcp/5432], log: all}\n" OPS_TO_ANY,
		       "");
}

static void a_rule_that_others_cover_changes_no_verdict(void **state)
{
	(void)state;
	expect_changes(OPS_TO_ANY, OPS_TO_ANY "  - {name: more, action: allow, from: ops, to: db, service: tcp/22}\n",
		       "rules differ\n");
}

static void only_what_is_not_allowed_yet_is_listed(void **state)
{
	(void)state;
	expect_changes(WEB_TO_DB,
		       WEB_TO_DB "  - {name: wide, action: allow, from: web, to: db, service: tcp/5430-5440}\n",
		       "+ web -> db tcp/5430-5431, tcp/5433-5440 by wide:10 before default:0\n");
}

static void a_deny_takes_what_rules_allowed(void **state)
{
	(void)state;
	expect_changes(WEB_TO_DB OPS_TO_ANY,
		       WEB_TO_DB OPS_TO_ANY
		       "  - {name: closed, action: deny, from: any, to: db, priority: -1, direction: ingress}\n",
		       "- web -> db tcp/5432 by closed:11 before web-to-db:9\n"
		       "- ops -> db tcp/22 by closed:11 before ops:10\n");
}

static void rules_that_change_the_same_flows_share_a_line(void **state)
{
	(void)state;
	expect_changes("  []\n",
		       "  - {name: a, action: allow, from: web, to: db, service: tcp/80}\n"
		       "  - {name: b, action: allow, from: web, to: db, service: tcp/81}\n",
		       "+ web -> db tcp/80-81 by a:9,b:10 before default:0\n");
}

static void a_rule_in_audit_mode_lets_pass_again(void **state)
{
	const char deny[] =
		"  - {name: no, action: deny, from: web, to: db, priority: -1, service: tcp/5432, mode: %s}\n";
	char enforce[200], audit[200], old[400], new[400];

	(void)state;
	snprintf(enforce, sizeof(enforce), deny, "enforce");
	snprintf(audit, sizeof(audit), deny, "audit");
	snprintf(old, sizeof(old), "%s%s", WEB_TO_DB, enforce);
	snprintf(new, sizeof(new), "%s%s", WEB_TO_DB, audit);
	expect_changes(old, new, "+ web -> db tcp/5432 by no:10 before no:10\n");
}

#define TO_DB "rules: [{name: r, action: allow, from: web, to: db, service: tcp/5432}]\n"
#define DB "identities: {db: spiffe://td/db, web: "

static void a_name_that_means_something_else_is_not_used_for_what_it_meant(void **state)
{
	(void)state;
	expect_between("bulkhead: 1\n" DB "spiffe://td/web}\n" TO_DB, "bulkhead: 1\n" DB "spiffe://td/www}\n" TO_DB,
		       "+ web -> db tcp/5432 by r:3 before default:0\n"
		       "- spiffe://td/web -> db tcp/5432 by default:0 before r:3\n");
}

static void a_name_that_is_gone_still_tells_what_was_lost(void **state)
{
	(void)state;
	expect_between("bulkhead: 1\n" DB "\"spiffe://td/ns/*/web\"}\n" TO_DB,
		       "bulkhead: 1\nidentities: {db: spiffe://td/db}\n"
		       "rules: [{name: r, action: allow, from: db, to: db, service: tcp/5432}]\n",
		       "+ db -> db tcp/5432 by r:3 before default:0\n"
		       "- web -> db tcp/5432 by default:0 before r:3\n");
}

static void a_service_that_means_something_else_is_not_used_for_what_it_meant(void **state)
{
	const char rest[] = "identities: {db: spiffe://td/db, web: spiffe://td/web}\n"
			    "rules: [{name: r, action: allow, from: web, to: db, service: pg}]\n";
	char old[400], new[400];

	(void)state;
	snprintf(old, sizeof(old), "bulkhead: 1\nservices: {pg: tcp/5432}\n%s", rest);
	snprintf(new, sizeof(new), "bulkhead: 1\nservices: {pg: tcp/5433}\n%s", rest);
	expect_between(old, new,
		       "+ web -> db pg by r:4 before default:0\n"
		       "- web -> db tcp/5432 by default:0 before r:4\n");
}

static void a_place_is_not_called_by_the_name_of_more_than_it(void **state)
{
	const char rest[] = "rules: [{name: r, action: allow, from: web, to: db, service: tcp/5432}]\n";
	char old[400], new[400];

	(void)state;
	snprintf(old, sizeof(old), "bulkhead: 1\n" DB "spiffe://td/web}\n%s", rest);
	snprintf(new, sizeof(new), "bulkhead: 1\n" DB "[spiffe://td/web, {unit: web.service}]}\n%s", rest);
	expect_between(old, new, "+ web except spiffe://td/web -> db tcp/5432 by r:3 before default:0\n");
}

static void a_name_that_moved_to_another_unit_is_not_used_for_where_it_was(void **state)
{
	const char rest[] = "rules: [{name: r, action: allow, from: web, to: db, service: tcp/5432}]\n";
	char old[400], new[400];

	(void)state;
	snprintf(old, sizeof(old), "bulkhead: 1\n" DB "{unit: one.service}}\n%s", rest);
	snprintf(new, sizeof(new), "bulkhead: 1\n" DB "{unit: two.service}}\n%s", rest);
	expect_between(old, new,
		       "+ web -> db tcp/5432 by r:3 before default:0\n"
		       "- unit one.service -> db tcp/5432 by default:0 before r:3\n");
}

static void tiers_that_change_places_change_verdicts(void **state)
{
	const char rules[] = "identities: {a: spiffe://td/a, b: spiffe://td/b}\n"
			     "rules:\n"
			     "  - {name: x, tier: one, action: allow, from: a, to: b, service: tcp/1}\n"
			     "  - {name: y, tier: two, action: deny, from: a, to: b, service: tcp/1-2}\n";
	char old[600], new[600];

	(void)state;
	snprintf(old, sizeof(old), "bulkhead: 1\ntiers: [one, two]\n%s", rules);
	snprintf(new, sizeof(new), "bulkhead: 1\ntiers: [two, one]\n%s", rules);
	expect_between(old, new, "- a -> b tcp/1 by y:6 before x:5\n");
	snprintf(new, sizeof(new), "bulkhead: 1\ntiers: [zero, one, middle, two]\n%s", rules);
	expect_between(old, new, "");
}

static void a_default_that_changes_opens_what_no_rule_decides(void **state)
{
	(void)state;
	expect_between("bulkhead: 1\nidentities: {a: spiffe://td/a}\n"
		       "rules: [{name: x, action: deny, from: any, to: a}]\n",
		       "bulkhead: 1\ndefaults: {action: allow}\nidentities: {a: spiffe://td/a}\n"
		       "rules: [{name: x, action: deny, from: any, to: a}]\n",
		       "+ any -> any workload except a any by default:2 before default:0\n"
		       "+ any workload -> host, world any by default:2 before default:0\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_new_rule_is_one_line),
		cmocka_unit_test(a_rule_taken_away_is_one_line),
		cmocka_unit_test(order_names_and_log_are_no_change),
		cmocka_unit_test(a_rule_that_others_cover_changes_no_verdict),
		cmocka_unit_test(only_what_is_not_allowed_yet_is_listed),
		cmocka_unit_test(a_deny_takes_what_rules_allowed),
		cmocka_unit_test(rules_that_change_the_same_flows_share_a_line),
		cmocka_unit_test(a_rule_in_audit_mode_lets_pass_again),
		cmocka_unit_test(a_name_that_means_something_else_is_not_used_for_what_it_meant),
		cmocka_unit_test(a_name_that_is_gone_still_tells_what_was_lost),
		cmocka_unit_test(a_service_that_means_something_else_is_not_used_for_what_it_meant),
		cmocka_unit_test(a_place_is_not_called_by_the_name_of_more_than_it),
		cmocka_unit_test(a_name_that_moved_to_another_unit_is_not_used_for_where_it_was),
		cmocka_unit_test(tiers_that_change_places_change_verdicts),
		cmocka_unit_test(a_default_that_changes_opens_what_no_rule_decides),
		cmocka_unit_test(the_changes_of_similar_policies_are_exactly_what_differs),
		cmocka_unit_test(the_changes_of_different_policies_are_exactly_what_differs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
