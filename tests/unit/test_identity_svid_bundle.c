/* SPDX-License-Identifier: Apache-2.0 */
/* What the trust bundle makes of a chain. */
#include "svid_world.h"

#include <errno.h>

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(leaf_in_the_bundle_is_no_authority),
		TEST(bundle_without_authority_verifies_nobody),
		TEST(text_that_cannot_be_parsed_leaves_the_last_good_bundle),
		TEST(removed_bundle_is_gone),
		TEST(rotation_trusts_old_and_new_authority),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
