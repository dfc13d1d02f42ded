/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read_test.c - what a policy says about itself: tests and invariants.
 */
#include <stdlib.h>
#include <string.h>

#include "policy/read.h"

/* ---- tests ---- */

static void free_text(char **textp)
{
	free(*textp);
}

/* A selector that asks for one identity or network, or nothing. */
static void select_one(struct reader *reader, struct selector *selector, const uint32_t *who, const uint32_t *network)
{
	struct arena *arena = &reader->policy->arena;
	struct selector_term *term = arena_alloc(arena, sizeof(*term));

	if (!term)
		return;
	if (who) {
		term->who = arena_copy(arena, who, sizeof(*who));
		term->n_who = term->who ? 1 : 0;
	}
	if (network) {
		term->networks = arena_copy(arena, network, sizeof(*network));
		term->n_networks = term->networks ? 1 : 0;
	}
	*selector = (struct selector){term, 1};
}

/* Names stand for all that they name. Returns false where the text is no such name. */
static bool read_set(struct reader *reader, const char *text, struct test_end *end)
{
	struct policy *policy = reader->policy;
	uint32_t atom, number;
	bool any;

	if (is_builtin_peer(text, &atom, &any)) {
		end->is_set = any || atom == WHO_VERIFIED;
		if (end->is_set)
			select_one(reader, &end->set, any ? NULL : &atom, NULL);
		return end->is_set;
	}
	if (!intern_find(&policy->peer_names, text, strlen(text), &number))
		return false;
	end->is_set = true;
	number = reader->peers.items[number];
	atom = number >> 1;
	if (number & 1) {
		policy->networks[atom].used = true;
		select_one(reader, &end->set, NULL, &atom);
	} else {
		policy->identities[atom].used = true;
		atom += WHO_IDENTITY;
		select_one(reader, &end->set, &atom, NULL);
	}
	return true;
}

/* A name that is not a set: NAME@ADDRESS, of a local identity, or a mistake. */
static void check_named_end(struct reader *reader, const struct node *node, const struct flow_end *end)
{
	struct policy *policy = reader->policy;
	struct identity *identity;
	uint32_t number;

	if (!intern_find(&policy->peer_names, end->id, strlen(end->id), &number)) {
		report_peer(reader, node, end->id, WANT_IDENTITY | WANT_NETWORK, false);
		return;
	}
	number = reader->peers.items[number];
	if (number & 1) {
		reader_error(reader, node, "'%s' is a network: it is at its own addresses", end->id);
		return;
	}
	identity = &policy->identities[number >> 1];
	identity->used = true;
	if (identity->n_places && !identity->n_patterns)
		return;
	reader_error(reader, node, "'%s' is not one peer that could be at an address", end->id);
	reader_hint(reader, "with @ADDRESS give a SPIFFE ID, or the name of an identity by unit or cgroup");
}

static void read_end(struct reader *reader, const struct node *test, const struct node *node, const char *key,
		     struct test_end *end)
{
	_cleanup_(free_text) char *error = NULL;
	const char *text;
	char what[16];

	if (!node) {
		reader_error(reader, test, "the test has no `%s`", key);
		return;
	}
	snprintf(what, sizeof(what), "`%s`", key);
	if (node->kind == NODE_LIST) {
		reader_error(reader, node, "%s of a test must be one name or peer, not a list", what);
		reader_hint(reader, "write a test for each, or name an identity `{any: [...]}`");
		return;
	}
	text = read_text(reader, node, what);
	if (!text)
		return;
	end->text = reader_keep(reader, text);
	if (read_set(reader, text, end))
		return;
	if (flow_end_parse(&end->one, text, &error)) {
		reader_error(reader, node, "%s", error ? error : "out of memory");
		if (!strncmp(text, SPIFFE_SCHEME, strlen(SPIFFE_SCHEME)) && strchr(text, '*'))
			reader_hint(reader, "a test is of one ID; the name of an identity stands for each that it has");
	} else if (end->one.kind == FLOW_END_NAME) {
		check_named_end(reader, node, &end->one);
	}
}

static void read_by(struct reader *reader, const struct node *node, struct policy_test *test)
{
	const struct policy *policy = reader->policy;
	const char *name = read_text(reader, node, "`by`");
	struct suggestion suggestion = {.wrong = name};
	uint32_t number;

	if (!name)
		return;
	test->by = reader_keep(reader, name);
	if (strcmp(name, "default") == 0 || intern_find(&reader->rule_names, name, strlen(name), &number) ||
	    reader->incomplete)
		return;
	reader_error(reader, node, "no rule is named '%.127s'", name);
	if (!diagnostics_may_suggest(reader->diagnostics, policy->n_rules + 1))
		return;
	suggestion_offer(&suggestion, "default");
	for (size_t i = 0; i < policy->n_rules; i++)
		if (policy->rules[i].name)
			suggestion_offer(&suggestion, policy->rules[i].name);
	if (suggestion.best)
		reader_hint(reader, "did you mean '%s'?", suggestion.best);
	else
		reader_hint(reader, "it is the name of a rule, or `default` where no rule decides");
}

void read_test(struct reader *reader, const struct node *node)
{
	static const char *const verdicts[] = {"deny", "allow"};
	const struct node *name = NULL, *from = NULL, *to = NULL, *service = NULL, *expect = NULL, *by = NULL;
	const struct key keys[] = {{"name", &name},	  {"from", &from},     {"to", &to},
				   {"service", &service}, {"expect", &expect}, {"by", &by}};
	struct policy *policy = reader->policy;
	struct policy_test *test;

	if (array_grow(&policy->tests, &policy->tests_capacity, policy->n_tests, sizeof(*policy->tests)) < 0) {
		policy->arena.out_of_memory = true;
		return;
	}
	if (!read_keys(reader, node, "a test", keys, N_ITEMS(keys)))
		return;
	test = &policy->tests[policy->n_tests++];
	memset(test, 0, sizeof(*test));
	test->at = node->at;
	if (name)
		read_label(reader, name, &test->name);
	read_end(reader, node, from, "from", &test->from);
	read_end(reader, node, to, "to", &test->to);
	if (service) {
		test->service = reader_node_text(reader, service);
		read_services(reader, service, &test->services, &test->n_services);
	} else {
		reader_error(reader, node, "the test has no `service`");
		reader_hint(reader, "such as `service: tcp/443`, or the name of a service");
	}
	if (expect) {
		test->allow = read_word(reader, expect, "`expect`", verdicts, 2) == 1;
	} else {
		reader_error(reader, node, "the test has no `expect`: allow or deny");
	}
	if (by)
		read_by(reader, by, test);
}

/* ---- invariants ---- */

static void read_isolated(struct reader *reader, const struct node *body, struct invariant *invariant)
{
	if (body->kind != NODE_LIST || body->n != 2) {
		reader_error(reader, body, "`isolated` must be a list of two: [A, B]");
		reader_hint(reader, "each is what `from` of a rule may be: a name, a list, or a map");
		return;
	}
	read_selector(reader, body, "the invariant", body->items[0], "isolated", &invariant->from);
	read_selector(reader, body, "the invariant", body->items[1], "isolated", &invariant->to);
	read_services(reader, NULL, &invariant->services, &invariant->n_services);
}

void read_invariant_body(struct reader *reader, const struct node *body, struct invariant *invariant)
{
	const struct node *from = NULL, *to = NULL, *service = NULL;
	const struct key keys[] = {{"from", &from}, {"to", &to}, {"service", &service}};
	static const char *const names[] = {"never", "always", "isolated"};

	invariant->at = body->at;
	invariant->text =
		arena_printf(&reader->policy->arena, "%s: %s", names[invariant->kind], reader_node_text(reader, body));
	if (invariant->kind == INVARIANT_ISOLATED) {
		read_isolated(reader, body, invariant);
		return;
	}
	if (!read_keys(reader, body, "an invariant", keys, N_ITEMS(keys)))
		return;
	read_selector(reader, body, "the invariant", from, "from", &invariant->from);
	read_selector(reader, body, "the invariant", to, "to", &invariant->to);
	read_services(reader, service, &invariant->services, &invariant->n_services);
}

void read_invariant(struct reader *reader, const struct node *node)
{
	const struct node *name = NULL, *bodies[3] = {}, *body = NULL;
	const struct key keys[] = {
		{"name", &name}, {"never", &bodies[0]}, {"always", &bodies[1]}, {"isolated", &bodies[2]}};
	struct policy *policy = reader->policy;
	struct invariant invariant = {};

	if (array_grow(&policy->invariants, &policy->invariants_capacity, policy->n_invariants,
		       sizeof(*policy->invariants)) < 0) {
		policy->arena.out_of_memory = true;
		return;
	}
	if (!read_keys(reader, node, "an invariant", keys, N_ITEMS(keys)))
		return;
	if (name)
		read_label(reader, name, &invariant.name);
	for (int i = 0; i < 3; i++) {
		if (!bodies[i])
			continue;
		if (body) {
			reader_error(reader, node,
				     "an invariant is one of `never`, `always` and `isolated`, not several");
			return;
		}
		body = bodies[i];
		invariant.kind = (enum invariant_kind)i;
	}
	if (!body) {
		reader_error(reader, node, "an invariant is one of `never`, `always` and `isolated`");
		reader_hint(reader, "such as `never: {from: internet, to: db}`");
		return;
	}
	read_invariant_body(reader, body, &invariant);
	invariant.at = node->at;
	policy->invariants[policy->n_invariants++] = invariant;
}
