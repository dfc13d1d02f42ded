/* SPDX-License-Identifier: Apache-2.0 */
/*
 * svid_world.h - a small PKI and what verification says of chains below it, for the tests of svid.h.
 */
#ifndef BULKHEAD_TESTS_UNIT_SVID_WORLD_H
#define BULKHEAD_TESTS_UNIT_SVID_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

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

__attribute__((unused)) static int load_one(struct bundle_set *bundles, const char *trust_domain,
					    const struct cert *cert)
{
	return load(bundles, trust_domain, &cert, 1);
}

__attribute__((unused)) static int world_setup(void **state)
{
	struct world *world = calloc(1, sizeof(*world));

	world->root = certs_ca(NULL, &(struct cert_spec){.subject = "root"});
	world->intermediate = certs_ca(&world->root, &(struct cert_spec){.subject = "intermediate"});
	assert_int_equal(bundle_set_new(&world->bundles), 0);
	assert_int_equal(load_one(world->bundles, TD, &world->root), 1);
	*state = world;
	return 0;
}

__attribute__((unused)) static int world_teardown(void **state)
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

__attribute__((unused)) static int verify_leaf(struct world *world, const struct cert_spec *spec)
{
	struct cert leaf = certs_leaf(&world->root, spec);
	int rule = verify(world->bundles, (const struct cert *[]){&leaf}, 1, NULL);

	cert_free(&leaf);
	return rule;
}

/* A good leaf below an intermediate made by `spec`. */
__attribute__((unused)) static int verify_below(struct world *world, const struct cert_spec *spec)
{
	struct cert signer = certs_ca(&world->root, spec);
	struct cert leaf = certs_leaf(&signer, &good);
	int rule = verify(world->bundles, (const struct cert *[]){&leaf, &signer}, 2, NULL);

	cert_free(&leaf);
	cert_free(&signer);
	return rule;
}

/* A good leaf directly below an authority made by `spec`, which is the bundle. */
__attribute__((unused)) static int verify_anchored(const struct cert_spec *spec)
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

#endif
