/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "certs.h"
#include "daemon/chains.h"
#include "identity/bundle_text.h"

#define TD "prod.example"

struct world {
	struct cert root, between;
	struct chains *chains;
	struct bundle_set *bundles;
};

static int load(struct world *world, const struct cert *authority)
{
	char *pem = certs_pem(&authority, 1);
	struct bundle_report report;
	int n = bundle_set_load(world->bundles, TD, BUNDLE_PEM, pem, strlen(pem), &report);

	free(pem);
	return n;
}

static int setup(void **state)
{
	struct world *world = calloc(1, sizeof(*world));

	world->root = certs_ca(NULL, &(struct cert_spec){.subject = "root"});
	world->between = certs_ca(&world->root, &(struct cert_spec){.subject = "between"});
	assert_int_equal(chains_new(&world->chains), 0);
	assert_int_equal(bundle_set_new(&world->bundles), 0);
	assert_int_equal(load(world, &world->root), 1);
	*state = world;
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;

	chains_freep(&world->chains);
	bundle_set_freep(&world->bundles);
	cert_free(&world->root);
	cert_free(&world->between);
	free(world);
	return 0;
}

/* Verifies a leaf of the intermediate, and keeps its chain for the tag. */
static int keep(struct world *world, uint64_t key, const struct cert *leaf)
{
	char *pem = certs_pem((const struct cert *[]){leaf, &world->between}, 2);
	struct svid_chain *chain = NULL;
	struct svid_verdict verdict;
	int r;

	assert_int_equal(svid_chain_parse_pem(&chain, pem, strlen(pem), &verdict), 0);
	assert_int_equal(svid_verify(chain, world->bundles, time(NULL), &verdict), 0);
	r = chains_keep(world->chains, key, chain, &verdict);
	svid_chain_freep(&chain);
	free(pem);
	return r;
}

static void a_chain_is_verified_again_by_the_bundle_that_there_is(void **state)
{
	struct world *world = *state;
	struct cert leaf = certs_leaf(&world->between, &(struct cert_spec){0});
	struct cert again = certs_ca(NULL, &(struct cert_spec){.subject = "root", .key = world->root.key});
	struct cert other = certs_ca(NULL, &(struct cert_spec){.subject = "root"});
	struct svid_verdict verdict;
	struct chains_item before, after;

	assert_int_equal(keep(world, 7, &leaf), 0);
	before = chains_at(world->chains, 0);
	assert_int_equal(before.key, 7);
	assert_string_equal(before.trust_domain, TD);
	assert_int_equal(before.n_anchors, 1);
	uint8_t first[16];

	memcpy(first, before.anchors[0].id, sizeof(first));
	load(world, &other);
	assert_int_equal(chains_verify(world->chains, 0, world->bundles, time(NULL), &verdict), 1);
	assert_memory_equal(chains_at(world->chains, 0).anchors[0].id, first, sizeof(first));
	load(world, &again);
	assert_int_equal(chains_verify(world->chains, 0, world->bundles, time(NULL), &verdict), 0);
	after = chains_at(world->chains, 0);
	assert_memory_not_equal(after.anchors[0].id, first, sizeof(first));
	assert_int_equal(chains_verify(world->chains, 0, world->bundles, time(NULL) + 2 * CERTS_DAY, &verdict), 1);
	cert_free(&leaf);
	cert_free(&again);
	cert_free(&other);
}

static void what_is_above_the_leaves_is_kept_once(void **state)
{
	struct world *world = *state;
	EVP_PKEY *key = certs_key("P-256");
	size_t one = 0;

	for (uint64_t i = 1; i <= 200; i++) {
		struct cert leaf = certs_leaf(&world->between, &(struct cert_spec){.key = key});

		assert_int_equal(keep(world, i, &leaf), 0);
		cert_free(&leaf);
		if (i == 1)
			one = chains_bytes(world->chains);
	}
	assert_int_equal(chains_count(world->chains), 200);
	/* 200 leaves and one intermediate, which is more than a third of a chain. */
	assert_true(chains_bytes(world->chains) < one * 200 * 2 / 3);
	/* A renewal takes the place of what there was. */
	for (uint64_t i = 1; i <= 200; i += 2) {
		struct cert leaf = certs_leaf(&world->between, &(struct cert_spec){.key = key});

		assert_int_equal(keep(world, i, &leaf), 0);
		cert_free(&leaf);
	}
	assert_int_equal(chains_count(world->chains), 200);
	for (uint64_t i = 1; i <= 200; i++)
		chains_forget(world->chains, i);
	chains_forget(world->chains, 1);
	assert_int_equal(chains_count(world->chains), 0);
	assert_int_equal(chains_bytes(world->chains), 0);
	EVP_PKEY_free(key);
}

/* Intermediates of their own for each, as nobody has them. */
static void what_does_not_fit_is_not_kept(void **state)
{
	struct world *world = *state;
	EVP_PKEY *key = certs_key("P-256");
	struct cert between = world->between;
	int r = 0;

	for (uint64_t i = 1; r == 0 && i < 1000; i++) {
		struct cert leaf;

		world->between = certs_ca(&world->root, &(struct cert_spec){.subject = "between", .key = key});
		leaf = certs_leaf(&world->between, &(struct cert_spec){.key = key});
		r = keep(world, i, &leaf);
		/* One that was there and cannot be kept anew is not there either: its chain is not the tag's any more. */
		if (r < 0) {
			assert_int_equal(keep(world, 1, &leaf), 0);
			assert_int_equal(keep(world, 2, &leaf), 0);
		}
		cert_free(&leaf);
		cert_free(&world->between);
	}
	assert_int_equal(r, -ENOSPC);
	world->between = between;
	EVP_PKEY_free(key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_chain_is_verified_again_by_the_bundle_that_there_is, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_above_the_leaves_is_kept_once, setup, teardown),
		cmocka_unit_test_setup_teardown(what_does_not_fit_is_not_kept, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
