/* SPDX-License-Identifier: Apache-2.0 */
/*
 * That all cryptography of identities goes through the library context in use, and what a FIPS module refuses.
 *
 * A context in which nothing is approved shows the first: no verification passes in it, so nothing reaches past it. The
 * second needs a FIPS module, which Debian does not ship: where BULKHEAD_TEST_FIPS names the fipsmodule.cnf of one (and
 * OPENSSL_MODULES its directory), the tests run on it, else on the refusal.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include <openssl/rand.h>
#include <unistd.h>

#include "certs.h"
#include "identity/attest.h"
#include "identity/crypto.h"
#include "identity/svid.h"

#define TD "prod.example"

/* Made before the context is changed: what comes from outside comes as bytes. */
struct world {
	char *bundle;
	char *chain;
	struct cert leaf;
};

static void world_make(struct world *world, EVP_PKEY *root_key, EVP_PKEY *leaf_key)
{
	struct cert root = certs_ca(NULL, &(struct cert_spec){.subject = "root", .key = root_key});
	const struct cert *certs[] = {&root};

	world->leaf = certs_leaf(&root, &(struct cert_spec){.key = leaf_key});
	world->bundle = certs_pem(certs, 1);
	certs[0] = &world->leaf;
	world->chain = certs_pem(certs, 1);
	cert_free(&root);
}

static void world_free(struct world *world)
{
	free(world->bundle);
	free(world->chain);
	cert_free(&world->leaf);
}

static int verify(const struct world *world, struct svid_verdict *verdict)
{
	struct svid_chain *chain = NULL;
	struct bundle_set *bundles;
	char why[256];
	unsigned dropped;
	int r;

	assert_int_equal(bundle_set_new(&bundles), 0);
	r = bundle_set_load_pem(bundles, TD, world->bundle, strlen(world->bundle), &dropped, why, sizeof(why));
	assert_int_equal(r, 1);
	r = svid_chain_parse_pem(&chain, world->chain, strlen(world->chain), verdict);
	if (r == 0)
		r = svid_verify(chain, bundles, time(NULL), verdict);
	svid_chain_freep(&chain);
	bundle_set_freep(&bundles);
	return r < 0 ? r : verdict->rule;
}

static struct crypto *provider(const char *name, const char *properties)
{
	struct crypto *crypto = NULL;
	char why[512] = "";

	if (crypto_provider_new(&crypto, name, properties, why, sizeof(why)) != 0)
		fail_msg("%s", why);
	return crypto;
}

static void a_context_of_its_own_verifies_as_the_usual_one_does(void **state)
{
	struct crypto *crypto = provider("default", "provider=default");
	struct svid_verdict verdict;
	struct world world;

	(void)state;
	world_make(&world, NULL, NULL);
	crypto_use(crypto);
	assert_int_equal(verify(&world, &verdict), 0);
	crypto_freep(&crypto);
	assert_int_equal(verify(&world, &verdict), 0);
	world_free(&world);
}

/* The default provider has every algorithm, but none of them with this property. */
static void nothing_is_verified_signed_or_drawn_past_the_context(void **state)
{
	uint8_t hello[] = "hello", challenge[] = "challenge", sig[256], byte;
	size_t sig_len = sizeof(sig);
	struct crypto *crypto = provider("default", "fips=yes");
	uint16_t sigalg;
	struct svid_verdict verdict;
	struct world world;
	int r;

	(void)state;
	world_make(&world, NULL, NULL);
	sigalg = attest_sigalg_for(world.leaf.key);
	assert_int_equal(
		attest_sign(world.leaf.key, sigalg, hello, sizeof(hello), challenge, sizeof(challenge), sig, &sig_len),
		0);
	crypto_use(crypto);
	r = verify(&world, &verdict);
	assert_true(r != 0);
	assert_int_equal(
		attest_verify(world.leaf.key, sigalg, hello, sizeof(hello), challenge, sizeof(challenge), sig, sig_len),
		-EKEYREJECTED);
	assert_int_equal(
		attest_sign(world.leaf.key, sigalg, hello, sizeof(hello), challenge, sizeof(challenge), sig, &sig_len),
		-EKEYREJECTED);
	assert_true(RAND_bytes(&byte, 1) != 1);
	crypto_freep(&crypto);
	/* And it was the context, not the bytes. */
	assert_int_equal(verify(&world, &verdict), 0);
	world_free(&world);
}

static void what_cannot_be_had_is_named(void **state)
{
	struct crypto *crypto = NULL;
	char why[512] = "";

	(void)state;
	assert_int_equal(crypto_provider_new(&crypto, "no-such-provider", "fips=yes", why, sizeof(why)), 1);
	assert_null(crypto);
	assert_non_null(strstr(why, "\"no-such-provider\""));
	assert_int_equal(crypto_provider_new(&crypto, "default", "fips=yes,,=", why, sizeof(why)), 1);
	assert_null(crypto);
	assert_non_null(strstr(why, "\"fips=yes,,=\""));
}

static struct cert leaf_with(EVP_PKEY *key)
{
	struct cert leaf = certs_leaf(NULL, &(struct cert_spec){.key = key});

	EVP_PKEY_free(key);
	return leaf;
}

/* As a module of OpenSSL 3.0 is asked, whose answer for Edwards curves is not to be believed. */
static void kinds_of_keys_are_named_where_only_the_approved_count(void **state)
{
	struct cert edwards = leaf_with(EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")),
		    curve = leaf_with(EVP_EC_gen("secp256k1")), good = leaf_with(EVP_EC_gen("P-256"));
	struct crypto *crypto;
	X509 *read;
	uint8_t *der = NULL, *oid;
	char name[64];
	int len;

	(void)state;
	if (strncmp(OpenSSL_version(OPENSSL_VERSION_STRING), "3.0.", 4) != 0)
		skip();
	assert_null(crypto_lacks_key(edwards.x509, name, sizeof(name)));
	crypto = provider("default", "fips=yes");
	crypto_use(crypto);
	assert_string_equal(crypto_lacks_key(edwards.x509, name, sizeof(name)), "ED25519");
	assert_null(crypto_lacks_key(good.x509, name, sizeof(name)));
	/* A curve that nobody knows: secp256k1 with the last number of its name changed. */
	len = i2d_X509(curve.x509, &der);
	assert_true(len > 0);
	oid = memmem(der, (size_t)len, "\x06\x05\x2b\x81\x04\x00\x0a", 7);
	assert_non_null(oid);
	oid[6] = 0x7f;
	read = d2i_X509(NULL, &(const uint8_t *){der}, len);
	assert_non_null(read);
	assert_string_equal(crypto_lacks_key(read, name, sizeof(name)), "1.3.132.0.127");
	crypto_freep(&crypto);
	assert_null(crypto_lacks_key(edwards.x509, name, sizeof(name)));
	X509_free(read);
	OPENSSL_free(der);
	cert_free(&edwards);
	cert_free(&curve);
	cert_free(&good);
}

/* ---- the FIPS module ---- */

static const char *module(void)
{
	return getenv("BULKHEAD_TEST_FIPS");
}

static struct crypto *fips(void)
{
	struct crypto *crypto = NULL;
	char why[1024] = "";

	if (crypto_fips_new(&crypto, module(), why, sizeof(why)) != 0)
		fail_msg("%s", why);
	return crypto;
}

static void without_the_module_the_refusal_says_what_is_missing_and_where(void **state)
{
	struct crypto *crypto = NULL;
	char why[1024] = "";

	(void)state;
	assert_int_equal(crypto_fips_new(&crypto, "/nonexistent/fipsmodule.cnf", why, sizeof(why)), 1);
	assert_null(crypto);
	assert_non_null(strstr(why, "/nonexistent/fipsmodule.cnf"));
	assert_non_null(strstr(why, "openssl fipsinstall"));
	if (module() != NULL)
		return;
	if (crypto_fips_new(&crypto, NULL, why, sizeof(why)) == 0) {
		crypto_freep(&crypto); /* this machine has one installed */
		skip();
	}
	assert_non_null(strstr(why, "fips.so"));
}

static void a_configuration_that_is_not_of_the_module_is_refused(void **state)
{
	char path[] = "/tmp/bulkhead-test-XXXXXX", why[1024] = "";
	struct crypto *crypto = NULL;
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	/* The checksum of another file. */
	assert_true(dprintf(fd, "[fips_sect]\nactivate = 1\nmodule-mac = 00:11:22:33\n") > 0);
	assert_int_equal(crypto_fips_new(&crypto, path, why, sizeof(why)), 1);
	assert_non_null(strstr(why, "fips: "));
	close(fd);
	unlink(path);
}

/* OpenSSL would read on in the next line, or put in what the environment has. */
static void names_that_openssl_would_not_take_as_they_are_are_refused(void **state)
{
	static const char *const names[] = {"/tmp/bulkhead-test-a\nb", "/tmp/bulkhead-test-$HOME"};
	struct crypto *crypto = NULL;
	char why[1024] = "";

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		FILE *file = fopen(names[i], "w");

		assert_non_null(file);
		fclose(file);
		assert_int_equal(crypto_fips_new(&crypto, names[i], why, sizeof(why)), 1);
		assert_null(crypto);
		assert_non_null(strstr(why, "is no name of a file that OpenSSL can include"));
		unlink(names[i]);
	}
}

static void what_is_no_configuration_is_refused_by_its_line(void **state)
{
	char path[] = "/tmp/bulkhead-test-XXXXXX", why[1024] = "";
	struct crypto *crypto = NULL;
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_true(dprintf(fd, "[fips_sect\n") > 0);
	assert_int_equal(crypto_fips_new(&crypto, path, why, sizeof(why)), 1);
	assert_null(crypto);
	assert_non_null(strstr(why, "does not start as configured by /tmp/bulkhead-test-"));
	close(fd);
	unlink(path);
}

/* OpenSSL's module of old algorithms under the name of the one for FIPS. */
static void another_module_in_its_place_is_refused_by_what_it_lacks(void **state)
{
	char path[] = "/tmp/bulkhead-test-XXXXXX", library[300], why[1024] = "";
	struct crypto *crypto = NULL;
	int fd;

	(void)state;
	snprintf(library, sizeof(library), "%s/legacy.so", OPENSSL_info(OPENSSL_INFO_MODULES_DIR));
	if (access(library, R_OK) < 0)
		skip();
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_true(dprintf(fd, "[fips_sect]\nactivate = 1\nmodule = %s\n", library) > 0);
	assert_int_equal(crypto_fips_new(&crypto, path, why, sizeof(why)), 1);
	assert_null(crypto);
	assert_non_null(strstr(why, "fips: OpenSSL's FIPS module has no SHA2-256"));
	close(fd);
	unlink(path);
}

static void with_the_module_p256_p384_and_rsa_verify(void **state)
{
	EVP_PKEY *keys[] = {EVP_EC_gen("P-256"), EVP_EC_gen("P-384"), EVP_RSA_gen(2048)};
	struct svid_verdict verdict;

	(void)state;
	if (module() == NULL)
		goto out;
	for (size_t i = 0; i < 3; i++) {
		struct crypto *crypto;
		struct world world;

		world_make(&world, keys[i], keys[i]);
		crypto = fips();
		crypto_use(crypto);
		assert_int_equal(verify(&world, &verdict), 0);
		crypto_freep(&crypto);
		world_free(&world);
	}
out:
	for (size_t i = 0; i < 3; i++)
		EVP_PKEY_free(keys[i]);
	if (module() == NULL)
		skip();
}

static void refused_by_name(EVP_PKEY *key, const char *name)
{
	struct svid_verdict verdict;
	struct world leaf, root;
	struct crypto *crypto;

	world_make(&leaf, NULL, key);
	world_make(&root, key, NULL);
	crypto = fips();
	crypto_use(crypto);
	assert_int_equal(verify(&leaf, &verdict), 220);
	assert_int_equal(verdict.depth, 0);
	assert_non_null(strstr(verdict.detail, name));
	assert_int_equal(verify(&root, &verdict), 220);
	assert_int_equal(verdict.depth, 1);
	crypto_freep(&crypto);
	assert_int_equal(verify(&leaf, &verdict), 0);
	assert_int_equal(verify(&root, &verdict), 0);
	world_free(&leaf);
	world_free(&root);
	EVP_PKEY_free(key);
}

static void with_the_module_other_keys_are_refused_by_name(void **state)
{
	(void)state;
	if (module() == NULL)
		skip();
	refused_by_name(EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"), "ED25519");
	refused_by_name(EVP_EC_gen("secp256k1"), "secp256k1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_context_of_its_own_verifies_as_the_usual_one_does),
		cmocka_unit_test(nothing_is_verified_signed_or_drawn_past_the_context),
		cmocka_unit_test(what_cannot_be_had_is_named),
		cmocka_unit_test(kinds_of_keys_are_named_where_only_the_approved_count),
		cmocka_unit_test(names_that_openssl_would_not_take_as_they_are_are_refused),
		cmocka_unit_test(what_is_no_configuration_is_refused_by_its_line),
		cmocka_unit_test(another_module_in_its_place_is_refused_by_what_it_lacks),
		cmocka_unit_test(without_the_module_the_refusal_says_what_is_missing_and_where),
		cmocka_unit_test(with_the_module_p256_p384_and_rsa_verify),
		cmocka_unit_test(with_the_module_other_keys_are_refused_by_name),
		/* The last: a module that found itself changed does nothing any more in this process. */
		cmocka_unit_test(a_configuration_that_is_not_of_the_module_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
