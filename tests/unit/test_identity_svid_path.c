/* SPDX-License-Identifier: Apache-2.0 */
/* Verification above the leaf: certificates that sign, and the path that they make. */
#include "svid_world.h"

/* ---- signing certificates ---- */

static void good_intermediate_is_accepted(void **state)
{
	assert_int_equal(BELOW(.basic = NULL), 0);
	assert_int_equal(BELOW(.usage = "critical,keyCertSign,digitalSignature"), 0);
	assert_int_equal(BELOW(.extended = "serverAuth"), 0);
	assert_int_equal(BELOW(.basic = "CA:TRUE"), 0);
}

static void signer_that_is_no_ca_is_refused(void **state)
{
	struct world *world = *state;
	struct cert a = certs_leaf(&world->root, &good);
	struct cert b = certs_leaf(&a, &(struct cert_spec){.subject = "below a leaf"});

	assert_int_equal(BELOW(.basic = "critical,CA:FALSE"), 47);
	assert_int_equal(BELOW(.basic = ""), 47);
	assert_int_equal(verify(world->bundles, (const struct cert *[]){&b, &a}, 2, NULL), 47);
	cert_free(&a);
	cert_free(&b);
}

static void signer_needs_a_critical_key_usage_with_key_cert_sign(void **state)
{
	assert_int_equal(BELOW(.usage = "critical,digitalSignature"), 48);
	assert_int_equal(BELOW(.usage = ""), 49);
	assert_int_equal(BELOW(.usage = "keyCertSign"), 50);
	assert_int_equal(verify_anchored(&(struct cert_spec){.usage = ""}), 49);
	assert_int_equal(verify_anchored(&(struct cert_spec){.usage = "keyCertSign"}), 50);
}

static void signer_id_is_optional_but_has_no_path(void **state)
{
	assert_int_equal(BELOW(.san = "URI:spiffe://prod.example"), 0);
	assert_int_equal(BELOW(.san = "URI:spiffe://prod.example/"), 0);
	assert_int_equal(BELOW(.san = "URI:spiffe://other.example"), 0);
	assert_int_equal(BELOW(.san = "URI:https://pki.example/x"), 0);
	assert_int_equal(BELOW(.san = "URI:spiffe://prod.example/ca"), 52);
	assert_int_equal(BELOW(.san = "URI:spiffe://prod.example//"), 52);
	assert_int_equal(BELOW(.san = "URI:spiffe://PROD.example"), 7);
	assert_int_equal(BELOW(.san = "URI:spiffe://prod.example,URI:spiffe://b.example"), 55);
	assert_int_equal(verify_anchored(&(struct cert_spec){.san = "URI:spiffe://prod.example/ca"}), 52);
}

static void path_length_is_honoured(void **state)
{
	struct world *world = *state;
	struct cert a =
		certs_ca(&world->root, &(struct cert_spec){.subject = "a", .basic = "critical,CA:TRUE,pathlen:0"});
	struct cert b = certs_ca(&a, &(struct cert_spec){.subject = "b"});
	struct cert below_a = certs_leaf(&a, &good), below_b = certs_leaf(&b, &good);

	assert_int_equal(verify(world->bundles, (const struct cert *[]){&below_a, &a}, 2, NULL), 0);
	assert_int_equal(verify(world->bundles, (const struct cert *[]){&below_b, &b, &a}, 3, NULL), 58);
	cert_free(&a);
	cert_free(&b);
	cert_free(&below_a);
	cert_free(&below_b);
}

static void name_constraints_are_honoured_on_the_anchor_too(void **state)
{
	assert_int_equal(BELOW(.constraints = "critical,permitted;URI:prod.example"), 0);
	assert_int_equal(BELOW(.constraints = "critical,permitted;URI:other.example"), 59);
	assert_int_equal(BELOW(.constraints = "critical,excluded;URI:prod.example"), 59);
	assert_int_equal(verify_anchored(&(struct cert_spec){.constraints = "critical,excluded;URI:prod.example"}), 59);
}

static void version_1_authority_is_refused(void **state)
{
	assert_int_equal(BELOW(.version = 1), 60);
	assert_int_equal(verify_anchored(&(struct cert_spec){.version = 1}), 21);
}

/* ---- the path ---- */

static void edited_certificate_is_refused(void **state)
{
	struct world *world = *state;
	struct cert leaf = certs_leaf(&world->root, &good);
	struct svid_verdict verdict;
	struct svid_chain *chain;
	unsigned char *der = NULL;
	const uint8_t *bytes;
	int n = i2d_X509(leaf.x509, &der);
	size_t len = (size_t)n;
	unsigned char *id = memmem(der, len, "sa/web", 6);

	memcpy(id, "sa/dba", 6);
	bytes = der;
	assert_int_equal(svid_chain_parse_der(&chain, &bytes, &len, 1, &verdict), 0);
	assert_int_equal(svid_verify(chain, world->bundles, time(NULL), &verdict), 1);
	assert_int_equal(verdict.rule, 61);
	svid_chain_freep(&chain);

	memcpy(id, "sa/web", 6);
	der[len - 1] ^= 1;
	assert_int_equal(svid_chain_parse_der(&chain, &bytes, &len, 1, &verdict), 0);
	assert_int_equal(svid_verify(chain, world->bundles, time(NULL), &verdict), 1);
	assert_int_equal(verdict.rule, 61);
	svid_chain_freep(&chain);
	OPENSSL_free(der);
	cert_free(&leaf);
}

static void signature_by_another_key_of_the_same_name_is_refused(void **state)
{
	struct world *world = *state;
	struct cert impostor = certs_ca(NULL, &(struct cert_spec){.subject = "root"});
	struct cert leaf = certs_leaf(&impostor, &good);

	assert_int_equal(verify(world->bundles, (const struct cert *[]){&leaf}, 1, NULL), 61);
	cert_free(&leaf);
	cert_free(&impostor);
}

static void time_outside_any_validity_on_the_path_is_refused(void **state)
{
	assert_int_equal(LEAF(.from = -7200, .until = -10), 62);
	assert_int_equal(LEAF(.from = 3600), 62);
	assert_int_equal(BELOW(.from = -7200, .until = -10), 62);
	assert_int_equal(BELOW(.from = 3600), 62);
	assert_int_equal(verify_anchored(&(struct cert_spec){.from = -7200, .until = -10}), 62);
	assert_int_equal(verify_anchored(&(struct cert_spec){.from = 3600}), 62);
}

static void foreign_authority_is_refused(void **state)
{
	struct world *world = *state;
	struct cert foreign = certs_ca(NULL, &(struct cert_spec){.subject = "foreign"});
	struct cert leaf = certs_leaf(&foreign, &good);
	struct svid_verdict verdict;

	assert_int_equal(verify(world->bundles, (const struct cert *[]){&leaf}, 1, &verdict), 44);
	assert_int_equal(verdict.depth, 0);
	assert_non_null(strstr(verdict.detail, "CN=foreign"));
	assert_int_equal(verify(world->bundles, (const struct cert *[]){&leaf, &foreign}, 2, &verdict), 65);
	assert_int_equal(verdict.depth, 1);
	cert_free(&leaf);
	cert_free(&foreign);
}

static void own_root_of_the_same_name_is_refused(void **state)
{
	struct world *world = *state;
	struct cert impostor = certs_ca(NULL, &(struct cert_spec){.subject = "root"});
	struct cert leaf = certs_leaf(&impostor, &good), self_signed = certs_leaf(NULL, &good);

	assert_int_equal(verify(world->bundles, (const struct cert *[]){&leaf, &impostor}, 2, NULL), 65);
	assert_int_equal(verify(world->bundles, (const struct cert *[]){&self_signed}, 1, NULL), 65);
	cert_free(&leaf);
	cert_free(&impostor);
	cert_free(&self_signed);
}

static void authority_of_another_trust_domain_does_not_count(void **state)
{
	struct world *world = *state;
	struct cert other = certs_ca(NULL, &(struct cert_spec){.subject = "other root"});
	struct cert leaf = certs_leaf(&other, &good);
	struct cert of_other = certs_leaf(&other, &(struct cert_spec){.san = "URI:spiffe://other.example/a"});

	assert_int_equal(load_one(world->bundles, "other.example", &other), 1);
	assert_int_equal(verify(world->bundles, (const struct cert *[]){&leaf}, 1, NULL), 44);
	assert_int_equal(verify(world->bundles, (const struct cert *[]){&of_other}, 1, NULL), 0);
	cert_free(&leaf);
	cert_free(&of_other);
	cert_free(&other);
}

static void unknown_trust_domain_lists_the_configured_ones(void **state)
{
	struct world *world = *state;
	struct cert leaf = certs_leaf(&world->root, &(struct cert_spec){.san = "URI:spiffe://nowhere.example/a"});
	struct svid_verdict verdict;

	assert_int_equal(load_one(world->bundles, "abc.example", &world->root), 1);
	assert_int_equal(verify(world->bundles, (const struct cert *[]){&leaf}, 1, &verdict), 75);
	assert_non_null(strstr(verdict.detail, "nowhere.example"));
	assert_non_null(strstr(verdict.detail, "abc.example, " TD));
	cert_free(&leaf);
}

static void order_and_extra_certificates_do_not_matter(void **state)
{
	struct world *world = *state;
	struct cert second = certs_ca(&world->intermediate, &(struct cert_spec){.subject = "second"});
	struct cert leaf = certs_leaf(&second, &good);
	struct cert extra = certs_ca(NULL, &(struct cert_spec){.subject = "extra"});
	const struct cert *chain[] = {&leaf, &world->root, &world->intermediate, &extra, &second, &second};
	const struct cert *leaf_last[] = {&second, &world->intermediate, &leaf};

	assert_int_equal(verify(world->bundles, chain, 6, NULL), 0);
	assert_int_not_equal(verify(world->bundles, leaf_last, 3, NULL), 0);
	cert_free(&leaf);
	cert_free(&second);
	cert_free(&extra);
}

static void any_valid_path_of_a_cross_signed_authority_is_enough(void **state)
{
	struct world *world = *state;
	struct cert foreign = certs_ca(NULL, &(struct cert_spec){.subject = "foreign"});
	struct cert expired = certs_ca(&world->root, &(struct cert_spec){.subject = "x", .from = -7200, .until = -10});
	struct cert crossed = certs_ca(&foreign, &(struct cert_spec){.subject = "x", .key = expired.key});
	struct cert valid = certs_ca(&world->root, &(struct cert_spec){.subject = "x", .key = expired.key});
	struct cert leaf = certs_leaf(&valid, &good);

	assert_int_equal(verify(world->bundles, (const struct cert *[]){&leaf, &expired, &crossed, &valid}, 4, NULL),
			 0);
	assert_int_equal(verify(world->bundles, (const struct cert *[]){&leaf, &valid, &crossed, &expired}, 4, NULL),
			 0);
	assert_int_equal(verify(world->bundles, (const struct cert *[]){&leaf, &crossed, &expired}, 3, NULL), 62);
	assert_int_equal(verify(world->bundles, (const struct cert *[]){&leaf, &crossed}, 2, NULL), 44);
	cert_free(&foreign);
	cert_free(&expired);
	cert_free(&crossed);
	cert_free(&valid);
	cert_free(&leaf);
}

static void certificates_of_one_name_and_key_cannot_exhaust_the_verifier(void **state)
{
	struct world *world = *state;
	struct cert foreign = certs_ca(NULL, &(struct cert_spec){.subject = "same"}), same[SVID_MAX_CERTIFICATES];
	const struct cert *chain[SVID_MAX_CERTIFICATES];

	same[0] = certs_leaf(&foreign, &good);
	chain[0] = &same[0];
	for (size_t i = 1; i < SVID_MAX_CERTIFICATES; i++) {
		same[i] = certs_ca(&foreign, &(struct cert_spec){.subject = "same", .key = foreign.key});
		chain[i] = &same[i];
	}
	assert_int_equal(verify(world->bundles, chain, SVID_MAX_CERTIFICATES, NULL), 202);
	for (size_t i = 0; i < SVID_MAX_CERTIFICATES; i++)
		cert_free(&same[i]);
	cert_free(&foreign);
}

static void authority_that_is_not_self_signed_can_be_an_anchor(void **state)
{
	struct world *world = *state;
	struct cert leaf = certs_leaf(&world->intermediate, &good);

	assert_int_equal(load_one(world->bundles, TD, &world->intermediate), 1);
	assert_int_equal(verify(world->bundles, (const struct cert *[]){&leaf}, 1, NULL), 0);
	cert_free(&leaf);
}

static void weak_keys_and_digests_are_refused(void **state)
{
	EVP_PKEY *rsa1024 = EVP_RSA_gen(1024), *rsa2048 = EVP_RSA_gen(2048);

	assert_int_equal(LEAF(.key = rsa1024), 70);
	assert_int_equal(LEAF(.key = rsa2048), 0);
	assert_int_equal(LEAF(.digest = EVP_sha1()), 70);
	assert_int_equal(BELOW(.key = rsa1024), 70);
	assert_int_equal(BELOW(.digest = EVP_sha1()), 70);
	assert_int_equal(verify_anchored(&(struct cert_spec){.key = rsa1024}), 70);
	assert_int_equal(verify_anchored(&(struct cert_spec){.digest = EVP_sha1()}), 0);
	EVP_PKEY_free(rsa1024);
	EVP_PKEY_free(rsa2048);
}

static void all_kinds_of_keys_that_tls_knows_are_accepted(void **state)
{
	EVP_PKEY *ed25519 = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	EVP_PKEY *p384 = certs_key("P-384"), *p521 = certs_key("P-521");

	assert_int_equal(LEAF(.key = ed25519), 0);
	assert_int_equal(LEAF(.key = p384), 0);
	assert_int_equal(LEAF(.key = p521), 0);
	assert_int_equal(verify_anchored(&(struct cert_spec){.key = ed25519}), 0);
	EVP_PKEY_free(ed25519);
	EVP_PKEY_free(p384);
	EVP_PKEY_free(p521);
}

static void chain_without_key_identifiers_is_accepted(void **state)
{
	assert_int_equal(LEAF(.no_key_identifiers = true), 0);
	assert_int_equal(BELOW(.no_key_identifiers = true), 0);
	assert_int_equal(verify_anchored(&(struct cert_spec){.no_key_identifiers = true}), 0);
}

static void deadline_is_the_earliest_on_the_path(void **state)
{
	struct world *world = *state;
	struct cert brief = certs_ca(&world->root, &(struct cert_spec){.subject = "brief", .until = 600});
	struct cert leaf = certs_leaf(&brief, &good);
	struct cert anchor = certs_ca(NULL, &(struct cert_spec){.subject = "anchor", .until = 300});
	struct cert below = certs_leaf(&anchor, &good);
	struct svid_verdict verdict;

	assert_int_equal(verify(world->bundles, (const struct cert *[]){&leaf, &brief}, 2, &verdict), 0);
	assert_true(verdict.not_after <= time(NULL) + 600);
	assert_int_equal(load_one(world->bundles, TD, &anchor), 1);
	assert_int_equal(verify(world->bundles, (const struct cert *[]){&below}, 1, &verdict), 0);
	assert_true(verdict.not_after <= time(NULL) + 300);
	cert_free(&brief);
	cert_free(&leaf);
	cert_free(&anchor);
	cert_free(&below);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(good_intermediate_is_accepted),
		TEST(signer_that_is_no_ca_is_refused),
		TEST(signer_needs_a_critical_key_usage_with_key_cert_sign),
		TEST(signer_id_is_optional_but_has_no_path),
		TEST(path_length_is_honoured),
		TEST(name_constraints_are_honoured_on_the_anchor_too),
		TEST(version_1_authority_is_refused),
		TEST(edited_certificate_is_refused),
		TEST(signature_by_another_key_of_the_same_name_is_refused),
		TEST(time_outside_any_validity_on_the_path_is_refused),
		TEST(foreign_authority_is_refused),
		TEST(own_root_of_the_same_name_is_refused),
		TEST(authority_of_another_trust_domain_does_not_count),
		TEST(unknown_trust_domain_lists_the_configured_ones),
		TEST(order_and_extra_certificates_do_not_matter),
		TEST(any_valid_path_of_a_cross_signed_authority_is_enough),
		TEST(certificates_of_one_name_and_key_cannot_exhaust_the_verifier),
		TEST(authority_that_is_not_self_signed_can_be_an_anchor),
		TEST(weak_keys_and_digests_are_refused),
		TEST(all_kinds_of_keys_that_tls_knows_are_accepted),
		TEST(chain_without_key_identifiers_is_accepted),
		TEST(deadline_is_the_earliest_on_the_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
