/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/instant.h"
#include "policy/precedence.h"
#include "policy/lint.h"
#include "policy/lint_reach.h"
#include "policy/service.h"

#define MAX_NAMED 3U	     /* rules in a hint */
#define WORK_OF_A_RULE 1000U /* to be looked at all, on the safe side */

static const char *const codes[] = {"unused",	"expired",   "empty-set",  "unreachable",
				    "shadowed", "redundant", "audit-mode", "incomplete"};

const char *policy_lint_code(size_t index)
{
	return index < sizeof(codes) / sizeof(codes[0]) ? codes[index] : NULL;
}

struct linter {
	const struct policy *policy;
	struct policy_diagnostics *diagnostics;
	int64_t now;
	uint64_t budget;
	bool *empty;		     /* by rule: reported as matching nothing */
	bool *redundant;	     /* by rule: reported as such */
	struct list only_in_reverse; /* rules that may be, followed by the number of takers and the takers */
	const struct rule *audited;  /* rule in audit mode that is looked at */
	uint32_t audited_number;
	bool lets_pass;
};

/* "FILE:LINE" */
static const char *file_of(const struct linter *linter, const struct rule *rule)
{
	return linter->policy->source_names[rule->at.source];
}

/* ---- what needs no judging ---- */

static void warn_expired(struct linter *linter)
{
	for (size_t i = 0; i < linter->policy->n_rules; i++) {
		const struct rule *rule = &linter->policy->rules[i];
		char text[INSTANT_TEXT_BYTES];

		if (!rule->until || rule->until > linter->now)
			continue;
		instant_format(text, rule->until);
		diagnostics_warning(linter->diagnostics, rule->at, "rule '%s' has ended: it was `until` %s", rule->name,
				    text);
		diagnostics_code(linter->diagnostics, "expired");
	}
}

/* Can any peer match an identity? Returns 1 if so, 0, or -ENOMEM. */
static int can_match(struct flow_space *space, const struct selector *selector)
{
	const struct service_range service = {SERVICE_TCP + 1, SERVICE_TCP + 1}; /* no flow has port 0 */
	struct selector_term anything = {};
	const struct selector to = {&anything, 1};
	struct flow_box *boxes;
	size_t n;
	int r = flow_space_select(space, 0, selector, &to, &service, 1, &boxes, &n);

	return r < 0 ? r : n > 0;
}

static int warn_empty_identities(struct linter *linter, struct flow_space *space)
{
	for (size_t i = 0; i < linter->policy->n_identities; i++) {
		const struct identity *identity = &linter->policy->identities[i];
		uint32_t who = WHO_IDENTITY + (uint32_t)i;
		struct selector_term term = {.who = &who, .n_who = 1};
		const struct selector selector = {&term, 1};
		int r = identity->op == IDENTITY_BASE ? 1 : can_match(space, &selector);

		if (r < 0)
			return r;
		if (r)
			continue;
		diagnostics_warning(linter->diagnostics, identity->at, "'%s' is an empty set: no identity can be in it",
				    identity->name);
		diagnostics_code(linter->diagnostics, "empty-set");
	}
	return 0;
}

static int warn_empty_rule(struct linter *linter, struct flow_space *space, size_t number)
{
	const struct rule *rule = &linter->policy->rules[number];
	int from = can_match(space, &rule->from), to = can_match(space, &rule->to);

	if (from < 0 || to < 0)
		return -ENOMEM;
	if (from && to)
		return 0;
	diagnostics_warning(linter->diagnostics, rule->at, "rule '%s' matches no flow: nobody can be in its `%s`",
			    rule->name, from ? "to" : "from");
	diagnostics_code(linter->diagnostics, "empty-set");
	linter->empty[number] = true;
	return 0;
}

/* ---- rules that never decide ---- */

/* Of one level, and so to the same effect. */
static bool is_equal(const struct rule *a, const struct rule *b)
{
	return rule_precedence(a, b) == 0;
}

/* What a rule does to flows, in a sentence after "it". */
static const char *does(const struct rule *rule)
{
	static const char *const words[] = {[RULE_DENY] = "denies", [RULE_PASS] = "passes on", [RULE_ALLOW] = "allows"};

	return rule->action == RULE_DENY && rule->audit ? "denies (in audit mode)" : words[rule->action];
}

static const char *would_do(const struct rule *rule)
{
	static const char *const words[] = {[RULE_DENY] = "deny", [RULE_PASS] = "pass on", [RULE_ALLOW] = "allow"};

	return words[rule->action];
}

/* "they are a (x.yaml:3), b (x.yaml:9) and others" */
static void hint_takers(struct linter *linter, const uint32_t *takers, uint32_t n, bool more)
{
	char text[MAX_NAMED * 512] = "";
	size_t len = 0;
	uint32_t named = n <= MAX_NAMED ? n : MAX_NAMED;

	for (uint32_t i = 0; i < named && len < sizeof(text); i++) {
		const struct rule *rule = &linter->policy->rules[takers[i]];

		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s'%s' at %s:%u", i ? ", " : "", rule->name,
					file_of(linter, rule), rule->at.line);
	}
	diagnostics_hint(linter->diagnostics, "%s%s", text, named < n || more ? " and others" : "");
}

static void warn_unjudged(struct linter *linter, const struct rule *rule)
{
	diagnostics_warning(linter->diagnostics, rule->at,
			    "rule '%s' never decides: no workload is at the end where it is judged", rule->name);
	diagnostics_hint(linter->diagnostics,
			 rule->directions == RULE_EGRESS
				 ? "`direction: egress` is judged at the source, and its `from` is no workload"
			 : rule->directions == RULE_INGRESS
				 ? "`direction: ingress` is judged at the destination, and its `to` is no workload"
				 : "neither its `from` nor its `to` is a workload");
	diagnostics_code(linter->diagnostics, "unreachable");
}

static void warn_shadowed(struct linter *linter, const struct rule *rule, const struct rule *taker)
{
	if (taker->action == rule->action)
		diagnostics_warning(linter->diagnostics, rule->at,
				    "rule '%s' never decides: '%s', which comes before it, %s all of its flows already",
				    rule->name, taker->name, does(taker));
	else
		diagnostics_warning(linter->diagnostics, rule->at,
				    "rule '%s' can never %s anything: '%s', which comes before it, %s all of its flows",
				    rule->name, would_do(rule), taker->name, does(taker));
	diagnostics_code(linter->diagnostics, "shadowed");
}

static void warn_redundant(struct linter *linter, uint32_t number, const uint32_t *takers, uint32_t n, bool more)
{
	const struct rule *rule = &linter->policy->rules[number];

	if (n == 1 && !more)
		diagnostics_warning(linter->diagnostics, rule->at, "rule '%s' adds nothing: '%s' %s all of its flows",
				    rule->name, linter->policy->rules[takers[0]].name, does(rule));
	else
		diagnostics_warning(linter->diagnostics, rule->at,
				    "rule '%s' adds nothing: other rules decide all of its flows in the same way",
				    rule->name);
	diagnostics_code(linter->diagnostics, "redundant");
	hint_takers(linter, takers, n, more);
	linter->redundant[number] = true;
}

/* A rule that ends will leave its flows to the others one day. */
static bool is_temporary(const struct linter *linter, const struct reach_order *order)
{
	for (uint32_t i = 0; i < order->n_takers; i++)
		if (linter->policy->rules[order->takers[i]].until)
			return true;
	return false;
}

static void warn_undecided(struct linter *linter, uint32_t number, const struct reach_order *order)
{
	const struct rule *rule = &linter->policy->rules[number];
	bool equals = false;

	if (!order->n_takers) {
		warn_unjudged(linter, rule);
		return;
	}
	for (uint32_t i = 0; i < order->n_takers; i++)
		equals = equals || is_equal(rule, &linter->policy->rules[order->takers[i]]);
	if (equals) {
		warn_redundant(linter, number, order->takers, order->n_takers, order->more_takers);
		return;
	}
	if (order->n_takers == 1) {
		warn_shadowed(linter, rule, &linter->policy->rules[order->takers[0]]);
	} else {
		diagnostics_warning(linter->diagnostics, rule->at,
				    "rule '%s' never decides: rules before it decide all of its flows", rule->name);
		diagnostics_code(linter->diagnostics, "unreachable");
	}
	hint_takers(linter, order->takers, order->n_takers, order->more_takers);
}

/* Kept until all rules are known: of two rules that say the same, one is redundant, not both. */
static int remember_reverse(struct linter *linter, uint32_t rule, const struct reach_order *order)
{
	int r = list_push(&linter->only_in_reverse, rule);

	if (r == 0)
		r = list_push(&linter->only_in_reverse, order->n_takers << 1 | order->more_takers);
	for (uint32_t i = 0; i < order->n_takers && r == 0; i++)
		r = list_push(&linter->only_in_reverse, order->takers[i]);
	return r;
}

static int take_reach(void *context, uint32_t rule, const struct reach *reach)
{
	struct linter *linter = context;
	const struct reach_order *forward = &reach->orders[0], *reverse = &reach->orders[1];

	if (!reach->matches) {
		if (!linter->empty[rule])
			warn_unjudged(linter, &linter->policy->rules[rule]);
		return 0;
	}
	if (!forward->decides) {
		if (!is_temporary(linter, forward))
			warn_undecided(linter, rule, forward);
		return 0;
	}
	if (reverse->decides || is_temporary(linter, reverse) || reverse->more_takers)
		return 0;
	return remember_reverse(linter, rule, reverse);
}

static void warn_redundant_in_reverse(struct linter *linter)
{
	const struct list *list = &linter->only_in_reverse;

	for (size_t i = 0; i < list->n; i += 2 + (list->items[i + 1] >> 1)) {
		const uint32_t *takers = &list->items[i + 2];
		uint32_t n = list->items[i + 1] >> 1;
		bool known = false;

		for (uint32_t j = 0; j < n; j++)
			known = known || linter->redundant[takers[j]];
		if (!known)
			warn_redundant(linter, list->items[i], takers, n, list->items[i + 1] & 1);
	}
}

/* ---- audit mode ---- */

#define LETS_PASS 2 /* ends a judging */

static int look_without(void *context, const struct flow_piece *piece)
{
	(void)context;
	return piece->allow ? 0 : LETS_PASS;
}

struct judged {
	struct linter *linter;
	struct flow_space *space;
	char **errorp;
};

/* Where the rule decides, and lets pass: what would be without rules in audit mode? */
static int look_with(void *context, const struct flow_piece *piece)
{
	struct judged *judged = context;
	struct linter *linter = judged->linter;

	if (!piece->allow ||
	    (piece->egress_rule != linter->audited_number && piece->ingress_rule != linter->audited_number))
		return 0;
	return flow_space_judge(judged->space, 1, &piece->box, look_without, linter, judged->errorp);
}

static int note_audit_rule(struct linter *linter, struct flow_space *space, uint32_t number, char **errorp)
{
	struct judged judged = {linter, space, errorp};
	const struct rule *rule = &linter->policy->rules[number];
	struct flow_box *boxes;
	size_t n;
	int r = flow_space_select_rule(space, 0, number, &boxes, &n);

	linter->audited_number = number;
	for (size_t i = 0; i < n && r == 0; i++)
		r = flow_space_judge(space, 0, &boxes[i], look_with, &judged, errorp);
	if (r != LETS_PASS)
		return r;
	diagnostics_note(linter->diagnostics, rule->at,
			 "rule '%s' is in audit mode: it lets pass flows that are denied without it", rule->name);
	diagnostics_code(linter->diagnostics, "audit-mode");
	return 0;
}

static void arena_cleanup(struct arena *arena)
{
	arena_free(arena);
}

/* Compares with the policy without its rules in audit mode. */
static int note_audit_rules(struct linter *linter, char **errorp)
{
	_cleanup_(flow_space_freep) struct flow_space *space = NULL;
	_cleanup_(arena_cleanup) struct arena arena = {};
	struct policy without = *linter->policy;
	const struct policy *const policies[] = {linter->policy, &without};
	size_t n = linter->policy->n_rules;
	int r;

	without.rules = arena_array(&arena, n, sizeof(*without.rules));
	without.n_rules = 0;
	if (!without.rules)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (!linter->policy->rules[i].audit)
			without.rules[without.n_rules++] = linter->policy->rules[i];
	if (without.n_rules == n)
		return 0;
	r = flow_space_new(&space, policies, 2, linter->now, errorp);
	if (r == 0)
		flow_space_limit(space, linter->budget);
	for (size_t i = 0; i < n && r == 0; i++) {
		const struct rule *rule = &linter->policy->rules[i];

		if (rule->audit && !(rule->until && rule->until <= linter->now))
			r = note_audit_rule(linter, space, (uint32_t)i, errorp);
	}
	return r;
}

/* ---- all ---- */

static int warn_empty(struct linter *linter, char **errorp)
{
	_cleanup_(flow_space_freep) struct flow_space *space = NULL;
	int r = flow_space_new(&space, &linter->policy, 1, linter->now, errorp);

	if (r == 0)
		r = warn_empty_identities(linter, space);
	for (size_t i = 0; i < linter->policy->n_rules && r == 0; i++) {
		const struct rule *rule = &linter->policy->rules[i];

		if (!(rule->until && rule->until <= linter->now))
			r = warn_empty_rule(linter, space, i);
	}
	return r;
}

static int lint(struct linter *linter)
{
	const struct position whole_file = {};
	char *why = NULL;
	int r;

	warn_expired(linter);
	/* Making a space takes time too, for all rules at once. */
	if (linter->policy->n_rules > linter->budget / WORK_OF_A_RULE)
		r = 1;
	else
		r = warn_empty(linter, &why);
	if (r == 0)
		r = reach_find(linter->policy, linter->now, &linter->budget, take_reach, linter, &why);
	if (r == 0)
		r = note_audit_rules(linter, &why);
	if (r >= 0)
		warn_redundant_in_reverse(linter);
	if (r == 1) {
		diagnostics_note(linter->diagnostics, whole_file,
				 "not all rules were looked at, whether they ever decide: %s",
				 why ? why : "the policy is too large for a quick look");
		diagnostics_code(linter->diagnostics, "incomplete");
	}
	free(why);
	return r < 0 ? r : 0;
}

int policy_lint(const struct policy *policy, const struct policy_source *sources, int64_t now, uint64_t budget,
		struct policy_diagnostics *diagnostics)
{
	struct linter linter = {.policy = policy, .diagnostics = diagnostics, .now = now, .budget = budget};
	int r;

	linter.redundant = calloc(2 * policy->n_rules + 1, sizeof(bool));
	if (!linter.redundant)
		return -ENOMEM;
	linter.empty = linter.redundant + policy->n_rules;
	diagnostics_reopen(diagnostics, sources);
	r = lint(&linter);
	list_free(&linter.only_in_reverse);
	free(linter.redundant);
	return diagnostics_finish(diagnostics) < 0 ? -ENOMEM : r;
}
