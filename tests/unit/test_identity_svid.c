/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verification as specification: every rule with a chain that breaks it and nothing else, beside good chains that look
 * odd but are to be accepted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>

#include "certs.h"
#include "identity/rules.h"
#include "identity/svid.h"

#define TD "prod.example"

/* A root, an intermediate below it, and the bundle of TD that holds the root. */
struct world {
	struct cert root;
	struct cert intermediate;
	struct bundle_set *bundles;
};

static const struct cert_spec good;

static int load(struct bundle_set *bundles, const char *trust_domain, const struct cert *const *certs, size_t n)
{
	char *pem = certs_pem(certs, n), why[256];
	unsigned dropped;
	int r = bundle_set_load_pem(bundles, trust_domain, pem, strlen(pem), &dropped, why, sizeof(why));

	free(pem);
	return r;
}

static int load_one(struct bundle_set *bundles, const char *trust_domain, const struct cert *cert)
{
	return load(bundles, trust_domain, &cert, 1);
}

static int world_setup(void **state)
{
	struct world *world = calloc(1, sizeof(*world));

	world->root = certs_ca(NULL, &(struct cert_spec){.subject = "root"});
	world->intermediate = certs_ca(&world->root, &(struct cert_spec){.subject = "intermediate"});
	assert_int_equal(bundle_set_new(&world->bundles), 0);
	assert_int_equal(load_one(world->bundles, TD, &world->root), 1);
	*state = world;
	return 0;
}

static int world_teardown(void **state)
{
	struct world *world = *state;

	cert_free(&world->root);
	cert_free(&world->intermediate);
	bundle_set_freep(&world->bundles);
	free(world);
	return 0;
}

/* The rule that a chain breaks, 0 if it is valid. */
static int verify(const struct bundle_set *bundles, const struct cert *const *certs, size_t n,
		  struct svid_verdict *verdict)
{
	struct svid_verdict unused;
	struct svid_chain *chain = NULL;
	char *pem = certs_pem(certs, n);
	int r;

	if (verdict == NULL)
		verdict = &unused;
	r = svid_chain_parse_pem(&chain, pem, strlen(pem), verdict);
	if (r == 0)
		r = svid_verify(chain, bundles, time(NULL), verdict);
	svid_chain_freep(&chain);
	free(pem);
	assert_true(r == 0 || r == 1);
	assert_int_equal(r, verdict->rule != 0);
	if (r == 1)
		assert_true(verdict->detail[0] != '\0');
	assert_string_not_equal(svid_rule_name(r == 1 ? verdict->rule : 1), "unknown-rule");
	return verdict->rule;
}

static int verify_leaf(struct world *world, const struct cert_spec *spec)
{
	struct cert leaf = certs_leaf(&world->root, spec);
	int rule = verify(world->bundles, (const struct cert *[]){&leaf}, 1, NULL);

	cert_free(&leaf);
	return rule;
}

/* A good leaf below an intermediate made by `spec`. */
static int verify_below(struct world *world, const struct cert_spec *spec)
{
	struct cert signer = certs_ca(&world->root, spec);
	struct cert leaf = certs_leaf(&signer, &good);
	int rule = verify(world->bundles, (const struct cert *[]){&leaf, &signer}, 2, NULL);

	cert_free(&leaf);
	cert_free(&signer);
	return rule;
}

/* A good leaf directly below an authority made by `spec`, which is the bundle. */
static int verify_anchored(const struct cert_spec *spec)
{
	struct cert anchor = certs_ca(NULL, spec);
	struct cert leaf = certs_leaf(&anchor, &good);
	struct bundle_set *bundles;
	int rule;

	assert_int_equal(bundle_set_new(&bundles), 0);
	assert_true(load_one(bundles, TD, &anchor) >= 0);
	rule = verify(bundles, (const struct cert *[]){&leaf}, 1, NULL);
	bundle_set_freep(&bundles);
	cert_free(&leaf);
	cert_free(&anchor);
	return rule;
}

#define LEAF(...) verify_leaf(*state, &(struct cert_spec){__VA_ARGS__})
#define BELOW(...) verify_below(*state, &(struct cert_spec){.subject = "signer", __VA_ARGS__})

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

/* ---- bundles ---- */

static void leaf_in_the_bundle_is_no_authority(void **state)
{
	struct world *world = *state;
	struct cert leaf = certs_leaf(NULL, &good);
	char *pem = certs_pem((const struct cert *[]){&leaf, &world->root}, 2), why[256];
	unsigned dropped;

	assert_int_equal(bundle_set_load_pem(world->bundles, TD, pem, strlen(pem), &dropped, why, sizeof(why)), 1);
	assert_int_equal(dropped, 1);
	assert_int_equal(verify(world->bundles, (const struct cert *[]){&leaf}, 1, NULL), 65);
	assert_int_equal(load_one(world->bundles, TD, &leaf), 0);
	assert_int_equal(verify(world->bundles, (const struct cert *[]){&leaf}, 1, NULL), 21);
	free(pem);
	cert_free(&leaf);
}

static void bundle_without_authority_verifies_nobody(void **state)
{
	struct world *world = *state;
	struct cert no_signer = certs_ca(NULL, &(struct cert_spec){.usage = "critical,digitalSignature"});
	struct cert leaf = certs_leaf(&world->root, &good);

	assert_int_equal(load_one(world->bundles, TD, &no_signer), 0);
	assert_int_equal(bundle_set_authorities(world->bundles, TD), 0);
	assert_int_equal(verify(world->bundles, (const struct cert *[]){&leaf}, 1, NULL), 21);
	cert_free(&leaf);
	cert_free(&no_signer);
}

static void text_that_cannot_be_parsed_leaves_the_last_good_bundle(void **state)
{
	struct world *world = *state;
	struct cert leaf = certs_leaf(&world->root, &good);
	char *pem = certs_pem((const struct cert *[]){&world->root}, 1), why[256];
	const char *bad[] = {"", "no PEM at all", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
			     "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"};
	unsigned dropped;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(
			bundle_set_load_pem(world->bundles, TD, bad[i], strlen(bad[i]), &dropped, why, sizeof(why)),
			-EINVAL);
		assert_true(why[0] != '\0');
	}
	assert_int_equal(bundle_set_load_pem(world->bundles, TD, pem, strlen(pem) / 2, &dropped, why, sizeof(why)),
			 -EINVAL);
	assert_int_equal(bundle_set_authorities(world->bundles, TD), 1);
	assert_int_equal(verify(world->bundles, (const struct cert *[]){&leaf}, 1, NULL), 0);
	free(pem);
	cert_free(&leaf);
}

static void removed_bundle_is_gone(void **state)
{
	struct world *world = *state;
	struct cert leaf = certs_leaf(&world->root, &good);

	bundle_set_remove(world->bundles, "other.example");
	bundle_set_remove(world->bundles, TD);
	assert_int_equal(bundle_set_authorities(world->bundles, TD), -ENOENT);
	assert_int_equal(verify(world->bundles, (const struct cert *[]){&leaf}, 1, NULL), 75);
	cert_free(&leaf);
}

static void rotation_trusts_old_and_new_authority(void **state)
{
	struct world *world = *state;
	struct cert next = certs_ca(NULL, &(struct cert_spec){.subject = "root"});
	struct cert before = certs_leaf(&world->root, &good), after = certs_leaf(&next, &good);

	assert_int_equal(load(world->bundles, TD, (const struct cert *[]){&world->root, &next, &next}, 3), 2);
	assert_int_equal(verify(world->bundles, (const struct cert *[]){&before}, 1, NULL), 0);
	assert_int_equal(verify(world->bundles, (const struct cert *[]){&after}, 1, NULL), 0);
	assert_int_equal(load_one(world->bundles, TD, &next), 1);
	assert_int_equal(verify(world->bundles, (const struct cert *[]){&before}, 1, NULL), 61);
	cert_free(&next);
	cert_free(&before);
	cert_free(&after);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

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
		TEST(bytes_behind_a_certificate_are_refused),
		TEST(chain_beyond_the_limits_is_refused),
		TEST(refusals_hold_printable_text_only),
		TEST(leaf_in_the_bundle_is_no_authority),
		TEST(bundle_without_authority_verifies_nobody),
		TEST(text_that_cannot_be_parsed_leaves_the_last_good_bundle),
		TEST(removed_bundle_is_gone),
		TEST(rotation_trusts_old_and_new_authority),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
