/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is said of certificates to people who look at them, and nothing that a terminal would act on. That it is what verification
 * says of every chain that the generator makes is in test_identity_rules.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "described.h"

static struct certificate_list *parse(const char *text, size_t len)
{
	struct certificate_list *list = NULL;
	char why[256] = "";

	if (certificate_list_parse(&list, text, len, why, sizeof(why)) != 0)
		fail_msg("%s", why);
	return list;
}

static void describe_one(const struct cert *cert, struct certificate_description *description)
{
	char *pem = certs_pem(&cert, 1);
	struct certificate_list *list = parse(pem, strlen(pem));

	assert_int_equal(certificate_list_count(list), 1);
	certificate_describe(list, 0, time(NULL), description);
	certificate_list_freep(&list);
	free(pem);
}

/* ---- what it says of each ---- */

static void usages_are_named(void **state)
{
	struct cert leaf = certs_leaf(
			    NULL,
			    &(struct cert_spec){
				    .usage =
					    "critical,digitalSignature,nonRepudiation,keyEncipherment,dataEncipherment,"
					    "keyAgreement,encipherOnly,decipherOnly",
				    .extended = "serverAuth,clientAuth,emailProtection,1.2.3.4",
			    }),
		    bare = certs_leaf(NULL, &(struct cert_spec){.usage = "", .extended = ""}),
		    ca = certs_ca(NULL, &(struct cert_spec){.usage = "keyCertSign,cRLSign",
							    .basic = "critical,CA:TRUE,pathlen:3"});
	struct certificate_description d;

	(void)state;
	describe_one(&leaf, &d);
	assert_int_equal(d.role, DESCRIBE_LEAF);
	assert_string_equal(d.usage, "digitalSignature, nonRepudiation, keyEncipherment, dataEncipherment, "
				     "keyAgreement, encipherOnly, decipherOnly");
	assert_true(d.usage_critical);
	assert_string_equal(d.extended, "serverAuth, clientAuth, emailProtection, 1.2.3.4");
	assert_string_equal(d.spiffe_id, CERTS_ID);
	assert_int_equal(d.path_len, -1);
	describe_one(&bare, &d);
	assert_string_equal(d.usage, "");
	assert_string_equal(d.extended, "");
	assert_true(names(&d, 34));
	describe_one(&ca, &d);
	assert_int_equal(d.role, DESCRIBE_AUTHORITY);
	assert_string_equal(d.usage, "keyCertSign, cRLSign");
	assert_false(d.usage_critical);
	assert_int_equal(d.path_len, 3);
	assert_true(names(&d, 50));
	cert_free(&leaf);
	cert_free(&bare);
	cert_free(&ca);
}

static void keys_are_named(void **state)
{
	const struct {
		EVP_PKEY *key;
		const char *name;
		int bits;
	} rows[] = {
		{EVP_EC_gen("P-256"), "EC P-256", 128},
		{EVP_EC_gen("secp256k1"), "EC secp256k1", 128},
		{EVP_RSA_gen(2048), "RSA 2048", 112},
		{EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"), "ED25519", 128},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct cert leaf = certs_leaf(NULL, &(struct cert_spec){.key = rows[i].key});
		struct certificate_description d;

		describe_one(&leaf, &d);
		assert_string_equal(d.key, rows[i].name);
		assert_int_equal(d.key_bits, rows[i].bits);
		assert_int_equal(d.n_problems, 0);
		cert_free(&leaf);
		EVP_PKEY_free(rows[i].key);
	}
}

static void a_signature_that_is_too_weak_is_named(void **state)
{
	struct cert ca = certs_ca(NULL, &(struct cert_spec){.subject = "authority", .digest = EVP_sha1()}),
		    leaf = certs_leaf(&ca, &(struct cert_spec){.digest = EVP_sha1()});
	struct certificate_description d;

	(void)state;
	describe_one(&leaf, &d);
	assert_string_equal(d.signature, "ecdsa-with-SHA1");
	assert_int_equal(d.n_problems, 1);
	assert_int_equal(d.problems[0].rule, 70);
	assert_non_null(strstr(d.problems[0].detail, "it is signed with ecdsa-with-SHA1"));
	describe_one(&ca, &d); /* rule 71 */
	assert_int_equal(d.n_problems, 0);
	cert_free(&leaf);
	cert_free(&ca);
}

/* Names come from whoever made the certificate, and a terminal does what some bytes say. */
static void nothing_in_a_name_reaches_the_terminal(void **state)
{
	static const char uri[] = "spiffe://td/\x1b[2J\0\x07\xc3\xa9";
	struct cert leaf = certs_leaf(NULL, &(struct cert_spec){.subject = "\x1b]0;title\x07",
								.issuer = "a\nb\x9b",
								.san_raw_uri = uri,
								.san_raw_len = sizeof(uri) - 1});
	struct certificate_description d;

	(void)state;
	describe_one(&leaf, &d);
	expect_all_printable(&d);
	assert_string_equal(d.spiffe_id, "spiffe://td/?[2J????");
	assert_non_null(strstr(d.subject, "\\1B]0\\;title\\07"));
	cert_free(&leaf);
}

static void each_rule_that_is_broken_is_named_once(void **state)
{
	struct cert leaf = certs_leaf(NULL, &(struct cert_spec){.san = "URI:spiffe://td", .until = -60});
	struct certificate_description d;

	(void)state;
	describe_one(&leaf, &d);
	assert_int_equal(d.n_problems, 2);
	assert_int_equal(d.problems[0].rule, 29);
	assert_int_equal(d.problems[1].rule, 62);
	cert_free(&leaf);
}

static void more_than_64_certificates_are_refused(void **state)
{
	struct cert leaf = certs_leaf(NULL, &(struct cert_spec){0});
	const struct cert *many[DESCRIBE_MAX_CERTIFICATES + 1];
	struct certificate_list *list = NULL;
	char *pem, why[256] = "";

	(void)state;
	for (size_t i = 0; i <= DESCRIBE_MAX_CERTIFICATES; i++)
		many[i] = &leaf;
	pem = certs_pem(many, DESCRIBE_MAX_CERTIFICATES);
	list = parse(pem, strlen(pem));
	assert_int_equal(certificate_list_count(list), DESCRIBE_MAX_CERTIFICATES);
	certificate_list_freep(&list);
	free(pem);
	pem = certs_pem(many, DESCRIBE_MAX_CERTIFICATES + 1);
	assert_int_equal(certificate_list_parse(&list, pem, strlen(pem), why, sizeof(why)), 1);
	assert_null(list);
	assert_string_equal(why, "there are more than 64 certificates in it");
	free(pem);
	cert_free(&leaf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(usages_are_named),
		cmocka_unit_test(keys_are_named),
		cmocka_unit_test(a_signature_that_is_too_weak_is_named),
		cmocka_unit_test(nothing_in_a_name_reaches_the_terminal),
		cmocka_unit_test(each_rule_that_is_broken_is_named_once),
		cmocka_unit_test(more_than_64_certificates_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
