/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verification as specification: every rule with a chain that breaks it and nothing else, beside good chains that look
 * odd but are to be accepted. Here the leaf, and how chains are read; test_identity_svid_path.c has what is above the leaf, and
 * test_identity_svid_bundle.c what the bundle says.
 */
#include "svid_world.h"

/* ---- the leaf ---- */

static void good_leaf_is_accepted_with_its_facts(void **state)
{
	struct world *world = *state;
	struct cert leaf = certs_leaf(&world->intermediate, &good);
	struct svid_verdict verdict;

	assert_int_equal(verify(world->bundles, (const struct cert *[]){&leaf, &world->intermediate}, 2, &verdict), 0);
	assert_string_equal(verdict.spiffe_id, CERTS_ID);
	assert_string_equal(verdict.trust_domain, TD);
	assert_string_equal(verdict.issuer, "CN=intermediate");
	assert_true(verdict.not_after > time(NULL) + CERTS_DAY - 60 && verdict.not_after <= time(NULL) + CERTS_DAY);
	assert_true(verdict.not_before < time(NULL));
	assert_true(strlen(verdict.serial) >= 2);
	cert_free(&leaf);
}

static void leaf_has_exactly_one_uri_of_any_scheme(void **state)
{
	assert_int_equal(LEAF(.san = "URI:" CERTS_ID ",URI:spiffe://prod.example/b"), 25);
	assert_int_equal(LEAF(.san = "URI:" CERTS_ID ",URI:https://prod.example/"), 25);
	assert_int_equal(LEAF(.san = "URI:https://prod.example/,URI:" CERTS_ID), 25);
	assert_int_equal(LEAF(.san = "URI:" CERTS_ID ",URI:" CERTS_ID), 25);
}

static void leaf_without_uri_is_refused_wherever_else_the_id_stands(void **state)
{
	assert_int_equal(LEAF(.san = ""), 26);
	assert_int_equal(LEAF(.san = "DNS:prod.example"), 26);
	assert_int_equal(LEAF(.san = "", .subject = CERTS_ID), 26);
	assert_int_equal(LEAF(.san = "DNS:" CERTS_ID), 26);
	assert_int_equal(LEAF(.version = 1), 26);
}

static void leaf_may_have_other_names_too(void **state)
{
	assert_int_equal(LEAF(.san = "URI:" CERTS_ID ",DNS:web.prod.example,IP:10.0.0.1,email:a@b.example"), 0);
}

static void leaf_id_is_held_to_the_id_rules(void **state)
{
	assert_int_equal(LEAF(.san = "URI:https://prod.example/a"), 1);
	assert_int_equal(LEAF(.san = "URI:spiffe://PROD.example/a"), 7);
	assert_int_equal(LEAF(.san = "URI:spiffe://prod.example/a/"), 15);
}

static void leaf_without_path_is_refused(void **state)
{
	assert_int_equal(LEAF(.san = "URI:spiffe://prod.example"), 29);
}

static void nul_in_the_uri_is_refused_wherever_it_stands(void **state)
{
	static const char middle[] = CERTS_ID "\0.evil", end[] = CERTS_ID "\0",
			  domain[] = "spiffe://prod.example\0.evil/a";

	assert_int_equal(LEAF(.san_raw_uri = middle, .san_raw_len = sizeof(middle) - 1), 45);
	assert_int_equal(LEAF(.san_raw_uri = end, .san_raw_len = sizeof(end) - 1), 45);
	assert_int_equal(LEAF(.san_raw_uri = domain, .san_raw_len = sizeof(domain) - 1), 45);
	assert_int_equal(LEAF(.san_raw_uri = CERTS_ID, .san_raw_len = sizeof(CERTS_ID) - 1), 0);
}

static void ca_is_no_leaf(void **state)
{
	struct world *world = *state;

	assert_int_equal(LEAF(.basic = "critical,CA:TRUE"), 30);
	assert_int_equal(LEAF(.basic = "critical,CA:TRUE", .usage = "critical,digitalSignature,keyCertSign"), 30);
	assert_int_equal(LEAF(.basic = ""), 0);
	assert_int_not_equal(verify(world->bundles, (const struct cert *[]){&world->root}, 1, NULL), 0);
}

static void leaf_key_usage_is_there_critical_and_for_signatures_only(void **state)
{
	assert_int_equal(LEAF(.usage = "critical,digitalSignature,keyCertSign"), 32);
	assert_int_equal(LEAF(.usage = "critical,digitalSignature,cRLSign"), 33);
	assert_int_equal(LEAF(.usage = ""), 34);
	assert_int_equal(LEAF(.usage = "digitalSignature"), 35);
	assert_int_equal(LEAF(.usage = "critical,keyEncipherment"), 36);
	assert_int_equal(LEAF(.usage = "critical,digitalSignature,keyEncipherment,nonRepudiation"), 0);
}

static void extended_key_usage_is_absent_or_has_both(void **state)
{
	assert_int_equal(LEAF(.extended = "clientAuth"), 39);
	assert_int_equal(LEAF(.extended = "serverAuth"), 39);
	assert_int_equal(LEAF(.extended = "codeSigning"), 39);
	assert_int_equal(LEAF(.extended = "anyExtendedKeyUsage"), 39);
	assert_int_equal(LEAF(.extended = ""), 0);
	assert_int_equal(LEAF(.extended = "critical,serverAuth,clientAuth,codeSigning"), 0);
}

static void empty_subject_asks_for_a_critical_name(void **state)
{
	assert_int_equal(LEAF(.subject = ""), 41);
	assert_int_equal(LEAF(.subject = "", .san = "critical,URI:" CERTS_ID), 0);
}

static void unknown_critical_extension_is_refused(void **state)
{
	assert_int_equal(LEAF(.unknown_critical = true), 63);
	assert_int_equal(BELOW(.unknown_critical = true), 63);
}

static void extension_that_appears_twice_is_refused(void **state)
{
	assert_int_equal(LEAF(.twice = NID_subject_alt_name), 64);
	assert_int_equal(LEAF(.twice = NID_key_usage), 64);
	assert_int_equal(LEAF(.twice = NID_basic_constraints), 64);
	assert_int_equal(BELOW(.twice = NID_key_usage), 64);
}

/* ---- parsing ---- */

static void bytes_behind_a_certificate_are_refused(void **state)
{
	struct world *world = *state;
	struct cert leaf = certs_leaf(&world->root, &good);
	struct svid_verdict verdict;
	struct svid_chain *chain = NULL;
	unsigned char *der = NULL, longer[8192];
	const uint8_t *bytes = longer;
	int n = i2d_X509(leaf.x509, &der);
	size_t len = (size_t)n + 1;

	memcpy(longer, der, (size_t)n);
	longer[n] = 0;
	assert_int_equal(svid_chain_parse_der(&chain, &bytes, &len, 1, &verdict), 1);
	assert_int_equal(verdict.rule, 72);
	for (len = 0; len < (size_t)n; len += 7) {
		assert_int_equal(svid_chain_parse_der(&chain, &bytes, &len, 1, &verdict), 1);
		assert_int_equal(verdict.rule, 201);
	}
	OPENSSL_free(der);
	cert_free(&leaf);
}

static void chain_beyond_the_limits_is_refused(void **state)
{
	struct world *world = *state;
	const struct cert *nine[9];
	static uint8_t big[SVID_MAX_CHAIN_BYTES];
	const uint8_t *two[] = {big, big};
	size_t len[] = {SVID_MAX_CHAIN_BYTES, 1};
	struct svid_verdict verdict;
	struct svid_chain *chain = NULL;

	for (size_t i = 0; i < 9; i++)
		nine[i] = &world->root;
	assert_int_equal(verify(world->bundles, nine, 9, NULL), 202);
	assert_int_equal(svid_chain_parse_der(&chain, two, len, 2, &verdict), 1);
	assert_int_equal(verdict.rule, 202);
	assert_int_equal(svid_chain_parse_der(&chain, two, len, 0, &verdict), 1);
	assert_int_equal(verdict.rule, 201);
}

static void refusals_hold_printable_text_only(void **state)
{
	struct world *world = *state;
	static const char uri[] = "spiffe://prod.example/\x1b[2J\n";
	struct cert leaf =
		certs_leaf(&world->root, &(struct cert_spec){.san_raw_uri = uri, .san_raw_len = sizeof(uri) - 1});
	struct svid_verdict verdict;

	assert_int_equal(verify(world->bundles, (const struct cert *[]){&leaf}, 1, &verdict), 16);
	for (const char *c = verdict.detail; *c != '\0'; c++)
		assert_true(*c >= ' ' && *c <= '~');
	cert_free(&leaf);
}

/* As the daemon words what breaks a rule where there is no chain to point into. */
static void a_refusal_without_a_certificate_reads_like_the_others(void **state)
{
	char text[512], narrow[20];

	(void)state;
	svid_refusal_text(62, "the path expired during the attestation", text, sizeof(text));
	assert_string_equal(text, "validity (rule 62): the path expired during the attestation");
	svid_refusal_text(62, "the path expired during the attestation", narrow, sizeof(narrow));
	assert_int_equal(strlen(narrow), sizeof(narrow) - 1);
	assert_memory_equal(narrow, text, sizeof(narrow) - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(good_leaf_is_accepted_with_its_facts),
		TEST(leaf_has_exactly_one_uri_of_any_scheme),
		TEST(leaf_without_uri_is_refused_wherever_else_the_id_stands),
		TEST(leaf_may_have_other_names_too),
		TEST(leaf_id_is_held_to_the_id_rules),
		TEST(leaf_without_path_is_refused),
		TEST(nul_in_the_uri_is_refused_wherever_it_stands),
		TEST(ca_is_no_leaf),
		TEST(leaf_key_usage_is_there_critical_and_for_signatures_only),
		TEST(extended_key_usage_is_absent_or_has_both),
		TEST(empty_subject_asks_for_a_critical_name),
		TEST(unknown_critical_extension_is_refused),
		TEST(extension_that_appears_twice_is_refused),
		TEST(bytes_behind_a_certificate_are_refused),
		TEST(chain_beyond_the_limits_is_refused),
		TEST(refusals_hold_printable_text_only),
		cmocka_unit_test(a_refusal_without_a_certificate_reads_like_the_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
