/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every rule of docs/spiffe-rules.md, sections A to D, with the chains that the generator makes for it: the verdict, the rule
 * that a refusal names, and the place of the certificate.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "described.h"
#include "identity/rules.h"
#include "identity/svid.h"
#include "tests/chains/chains.h"

#define CASES_MAX 600
#define RULES_MAX 300

struct tally {
	unsigned accepted, refused, wrong;
	struct described described;
	bool about[RULES_MAX];
	char names[CASES_MAX][48];
	size_t n_names;
};

static void load(struct bundle_set *bundles, const struct chain_case *c)
{
	char *pem, why[256];
	unsigned dropped;

	if (c->trust_domain == NULL)
		return;
	pem = chains_pem(c->bundle, c->n_authorities);
	if (c->n_authorities > 0) {
		assert_true(bundle_set_load_pem(bundles, c->trust_domain, pem, strlen(pem), &dropped, why,
						sizeof(why)) >= 0);
	} else {
		/* No PEM text says "nobody"; one whose entries are all unusable does. */
		struct cert leaf = certs_leaf(NULL, &(struct cert_spec){0});

		free(pem);
		pem = certs_pem((const struct cert *[]){&leaf}, 1);
		assert_int_equal(
			bundle_set_load_pem(bundles, c->trust_domain, pem, strlen(pem), &dropped, why, sizeof(why)), 0);
		cert_free(&leaf);
	}
	free(pem);
}

static void verify(const struct chain_case *c, const struct bundle_set *bundles, struct svid_verdict *verdict)
{
	const uint8_t *der[CHAIN_MAX];
	size_t len[CHAIN_MAX];
	struct svid_chain *chain = NULL;
	int r;

	for (size_t i = 0; i < c->n; i++) {
		der[i] = c->chain[i].der;
		len[i] = c->chain[i].len;
	}
	r = svid_chain_parse_der(&chain, der, len, c->n, verdict);
	if (r == 0)
		r = svid_verify(chain, bundles, c->at, verdict);
	assert_int_equal(r, verdict->rule != 0);
	svid_chain_freep(&chain);
}

static void expect_sentence(const struct svid_verdict *verdict)
{
	char text[512];

	svid_verdict_text(verdict, text, sizeof(text));
	assert_non_null(strstr(text, svid_rule_name(verdict->rule)));
	assert_string_not_equal(svid_rule_name(verdict->rule), "unknown-rule");
	assert_true(verdict->detail[0] != '\0');
	assert_true(strlen(text) < sizeof(text) - 1);
	expect_printable(text);
}

static bool is_as_wanted(const struct chain_case *c, const struct svid_verdict *verdict)
{
	if (verdict->rule != c->told)
		return false;
	if (c->told != 0)
		return c->depth == CHAIN_ANY_DEPTH || verdict->depth == c->depth;
	if (c->note == NULL)
		return verdict->note[0] == '\0';
	return strstr(verdict->note, c->note) != NULL && strstr(verdict->note, "rule 54") != NULL;
}

static void check_one(const struct chain_case *c, void *userdata)
{
	struct bundle_set *bundles = NULL;
	struct tally *tally = userdata;
	struct svid_verdict verdict;

	assert_int_equal(bundle_set_new(&bundles), 0);
	load(bundles, c);
	verify(c, bundles, &verdict);
	bundle_set_freep(&bundles);
	if (verdict.rule != 0)
		expect_sentence(&verdict);
	if (!is_as_wanted(c, &verdict)) {
		print_error("%s: wanted rule %d at %d%s%s, got %d at %d: %s%s\n", c->name, c->told, c->depth,
			    c->note ? ", noting " : "", c->note ? c->note : "", verdict.rule, verdict.depth,
			    verdict.detail, verdict.note);
		tally->wrong++;
	}
	check_described(c, &tally->described);
	if (c->told != 0)
		tally->refused++;
	else
		tally->accepted++;
	for (size_t i = 0; i < tally->n_names; i++)
		assert_string_not_equal(tally->names[i], c->name);
	assert_true(tally->n_names < CASES_MAX && strlen(c->name) < sizeof(tally->names[0]));
	strcpy(tally->names[tally->n_names++], c->name);
	tally->about[c->rule] = tally->about[c->told] = true;
}

/* Nothing a chain can show: that X.509 is the only kind of SVID (23). */
static bool is_shown_elsewhere(int rule)
{
	return rule == 23;
}

static void each_chain_gets_its_verdict_rule_and_place_and_shows_it(void **state)
{
	struct tally *tally = calloc(1, sizeof(*tally));

	(void)state;
	chains_visit(check_one, tally);
	print_message("%u accepted, %u refused, %u not as wanted\n", tally->accepted, tally->refused, tally->wrong);
	assert_int_equal(tally->wrong, 0);
	assert_true(tally->accepted + tally->refused >= 200);
	assert_true(tally->described.good >= 100 && tally->described.bad >= 200 && tally->described.unreadable >= 5);
	for (int rule = 1; rule <= 75; rule++)
		if (!tally->about[rule] && !is_shown_elsewhere(rule))
			fail_msg("no chain is about rule %d", rule);
	free(tally);
}

static void each_rule_has_a_name_of_its_own_and_a_sentence(void **state)
{
	unsigned n = 0;

	(void)state;
	for (int rule = 0; rule < RULES_MAX; rule++) {
		const char *name = svid_rule_name(rule), *text = svid_rule_text(rule);

		assert_int_equal(strcmp(name, "unknown-rule") == 0, strcmp(text, "No such rule.") == 0);
		if (strcmp(name, "unknown-rule") == 0)
			continue;
		n++;
		assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz-"), strlen(name));
		assert_true(text[0] >= 'A' && text[0] <= 'Z' && text[strlen(text) - 1] == '.');
		for (int other = 0; other < rule; other++)
			assert_string_not_equal(svid_rule_name(other), name);
	}
	assert_true(n >= 70);
	assert_string_equal(svid_rule_name(-1), "unknown-rule");
	assert_string_equal(svid_rule_text(10000), "No such rule.");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_rule_has_a_name_of_its_own_and_a_sentence),
		cmocka_unit_test(each_chain_gets_its_verdict_rule_and_place_and_shows_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
