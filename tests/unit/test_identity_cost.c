/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a chain within the limits can cost its verifier at most: one process verifies for everybody, and one thread. Times are
 * those of the processor; with sanitizers on, or on a machine that is slow, they are a small multiple of the usual.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "certs.h"
#include "identity/bundle_text.h"
#include "identity/svid.h"

#define TD "prod.example"
/* Of the processor. Usual are less than 0.5 s; what this is to catch takes minutes, or hours. */
#ifdef __SANITIZE_ADDRESS__
#define MOST_S 20.0
#else
#define MOST_S 2.0
#endif

struct world {
	struct cert root;
	struct bundle_set *bundles;
};

static double cpu_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int setup(void **state)
{
	struct world *world = calloc(1, sizeof(*world));
	char *pem, why[256];
	unsigned dropped;

	world->root = certs_ca(NULL, &(struct cert_spec){.subject = "root"});
	assert_int_equal(bundle_set_new(&world->bundles), 0);
	pem = certs_pem((const struct cert *[]){&world->root}, 1);
	assert_int_equal(bundle_set_load_pem(world->bundles, TD, pem, strlen(pem), &dropped, why, sizeof(why)), 1);
	free(pem);
	*state = world;
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;

	bundle_set_freep(&world->bundles);
	cert_free(&world->root);
	free(world);
	return 0;
}

/* Returns the rule of the verdict, and fails if it takes long. */
static int judge(const struct world *world, const struct cert *const *certs, size_t n, const char *what)
{
	struct svid_chain *chain = NULL;
	struct svid_verdict verdict = {0};
	uint8_t *der[16] = {NULL};
	size_t len[16], total = 0;
	double since, took;
	int r;

	for (size_t i = 0; i < n; i++) {
		len[i] = (size_t)i2d_X509(certs[i]->x509, &der[i]);
		total += len[i];
	}
	since = cpu_s();
	r = svid_chain_parse_der(&chain, (const uint8_t *const *)der, len, n, &verdict);
	if (r == 0)
		r = svid_verify(chain, world->bundles, time(NULL), &verdict);
	took = cpu_s() - since;
	print_message("%s: %zu bytes, %.3f s, rule %d: %s\n", what, total, took, verdict.rule, verdict.detail);
	assert_true(r >= 0);
	if (took > MOST_S)
		fail_msg("%s: it took %.3f s", what, took);
	svid_chain_freep(&chain);
	for (size_t i = 0; i < n; i++)
		OPENSSL_free(der[i]);
	return verdict.rule;
}

static void sign(struct cert *cert, EVP_PKEY *key)
{
	CERTS_MUST(X509_sign(cert->x509, key, EVP_sha256()) > 0);
}

/* No two of one kind, none of them known. */
static void thousands_of_extensions_are_no_burden(void **state)
{
	struct world *world = *state;
	struct cert leaf = certs_leaf(&world->root, &(struct cert_spec){0});
	ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();

	ASN1_OCTET_STRING_set(value, (const unsigned char *)"\x05\x00", 2);
	for (unsigned i = 0; i < 4600; i++) {
		char oid[32];
		ASN1_OBJECT *object;
		X509_EXTENSION *extension;

		snprintf(oid, sizeof(oid), "1.2.3.%u", 128 + i);
		object = OBJ_txt2obj(oid, 1);
		extension = X509_EXTENSION_create_by_OBJ(NULL, object, 0, value);
		CERTS_MUST(X509_add_ext(leaf.x509, extension, -1) == 1);
		X509_EXTENSION_free(extension);
		ASN1_OBJECT_free(object);
	}
	sign(&leaf, world->root.key);
	assert_int_equal(judge(world, (const struct cert *[]){&leaf}, 1, "extensions"), 202);
	ASN1_OCTET_STRING_free(value);
	cert_free(&leaf);
}

static void names_add(X509 *x509, unsigned n, bool constraints)
{
	GENERAL_NAMES *names = GENERAL_NAMES_new();
	NAME_CONSTRAINTS *nc = NAME_CONSTRAINTS_new();

	nc->excludedSubtrees = sk_GENERAL_SUBTREE_new_null();
	for (unsigned i = 0; i < n; i++) {
		GENERAL_NAME *name;
		char text[40];

		snprintf(text, sizeof(text), constraints ? "x%u" : "h%u", i);
		if (constraints) {
			GENERAL_SUBTREE *subtree = GENERAL_SUBTREE_new();

			name = subtree->base;
			sk_GENERAL_SUBTREE_push(nc->excludedSubtrees, subtree);
		} else {
			name = GENERAL_NAME_new();
			sk_GENERAL_NAME_push(names, name);
		}
		name->type = GEN_DNS;
		name->d.dNSName = ASN1_IA5STRING_new();
		ASN1_STRING_set(name->d.dNSName, text, -1);
	}
	if (constraints) {
		CERTS_MUST(X509_add1_ext_i2d(x509, NID_name_constraints, nc, 1, X509V3_ADD_APPEND) == 1);
	} else {
		GENERAL_NAME *id = GENERAL_NAME_new();
		ASN1_IA5STRING *uri = ASN1_IA5STRING_new();

		ASN1_STRING_set(uri, CERTS_ID, -1);
		GENERAL_NAME_set0_value(id, GEN_URI, uri);
		sk_GENERAL_NAME_push(names, id);
		CERTS_MUST(X509_add1_ext_i2d(x509, NID_subject_alt_name, names, 0, X509V3_ADD_APPEND) == 1);
	}
	GENERAL_NAMES_free(names);
	NAME_CONSTRAINTS_free(nc);
}

/* An intermediate authority that was taken over: it signs itself anew, with constraints that every name of the leaf is compared
 * with, on as many paths as its certificates can be put into. */
static void an_authority_gone_bad_cannot_keep_its_verifier_busy(void **state)
{
	struct world *world = *state;
	EVP_PKEY *key = certs_key("P-384");
	struct cert_spec spec = {.subject = "bad", .key = key};
	struct cert bad[7], leaf;
	const struct cert *chain[8] = {&leaf};

	bad[0] = certs_ca(&world->root, &spec);
	for (size_t i = 1; i < 7; i++)
		bad[i] = certs_ca(&bad[0], &spec);
	for (size_t i = 0; i < 7; i++) {
		names_add(bad[i].x509, 600, true);
		sign(&bad[i], i == 0 ? world->root.key : key);
		chain[i + 1] = &bad[i];
	}
	leaf = certs_leaf(&bad[0], &(struct cert_spec){.san = ""});
	names_add(leaf.x509, 1700, false);
	sign(&leaf, key);
	assert_int_equal(judge(world, chain, 8, "constraints"), 0);
	for (size_t i = 0; i < 7; i++)
		cert_free(&bad[i]);
	cert_free(&leaf);
	EVP_PKEY_free(key);
}

/* As many entries as there is room for, each with a key to be made, none with a certificate. */
static void a_bundle_of_thousands_of_bad_entries_is_judged_quickly(void **state)
{
	static const char entry[] =
		"{\"kty\":\"EC\",\"crv\":\"P-521\",\"use\":\"x509-svid\",\"x5c\":[\"MAAA\"],"
		"\"x\":\"AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt\","
		"\"y\":\"AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1\"}";
	struct world *world = *state;
	char *text = malloc(BUNDLE_MAX_BYTES + 1);
	size_t len = (size_t)sprintf(text, "{\"keys\":[");
	struct bundle_report report;
	double since, took;
	int r;

	for (bool first = true; len + sizeof(entry) + 8 < BUNDLE_MAX_BYTES; first = false)
		len += (size_t)sprintf(text + len, "%s%s", first ? "" : ",", entry);
	len += (size_t)sprintf(text + len, "]}");
	since = cpu_s();
	r = bundle_set_load(world->bundles, "other.example", BUNDLE_JWKS, text, len, &report);
	took = cpu_s() - since;
	print_message("bundle: %u entries dropped, %.3f s: %s\n", report.dropped, took, report.entries[0].text);
	assert_int_equal(r, 0);
	assert_true(report.dropped > 10000);
	if (took > MOST_S)
		fail_msg("it took %.3f s", took);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(thousands_of_extensions_are_no_burden, setup, teardown),
		cmocka_unit_test_setup_teardown(a_bundle_of_thousands_of_bad_entries_is_judged_quickly, setup,
						teardown),
		cmocka_unit_test_setup_teardown(an_authority_gone_bad_cannot_keep_its_verifier_busy, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
