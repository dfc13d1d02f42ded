/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bundle_world.h - authorities, and the texts that bundles are made of, for the tests of bundle_text.h. In a template @NAME@
 * stands for such a text, and ' for ".
 */
#ifndef BULKHEAD_TESTS_UNIT_BUNDLE_WORLD_H
#define BULKHEAD_TESTS_UNIT_BUNDLE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "certs.h"
#include "identity/bundle_text.h"
#include "identity/svid.h"
#include "tests/chains/der_edit.h"

#define TD "prod.example"

/* ---- what texts are made of ---- */

static char *base64(const unsigned char *bytes, size_t len, bool url)
{
	char *text = calloc(1, len * 2 + 8);

	EVP_EncodeBlock((unsigned char *)text, bytes, (int)len);
	for (char *c = text; url && *c; c++)
		*c = *c == '+' ? '-' : *c == '/' ? '_' : *c == '=' ? '\0' : *c;
	return text;
}

static unsigned char *der_of(const struct cert *cert, size_t *len)
{
	unsigned char *der = NULL;
	int n = i2d_X509(cert->x509, &der);

	CERTS_MUST(n > 0);
	*len = (size_t)n;
	return der;
}

static char *certificate_text(const struct cert *cert, bool url, size_t trailing)
{
	unsigned char *der, *longer;
	size_t len;
	char *text;

	der = der_of(cert, &len);
	longer = calloc(1, len + trailing);
	memcpy(longer, der, len);
	text = base64(longer, len + trailing, url);
	OPENSSL_free(der);
	free(longer);
	return text;
}

static char *number_text(const EVP_PKEY *key, const char *name, int bytes)
{
	unsigned char buffer[1024];
	BIGNUM *number = NULL;
	int len;

	CERTS_MUST(EVP_PKEY_get_bn_param(key, name, &number) == 1);
	len = bytes ? bytes : BN_num_bytes(number);
	CERTS_MUST(BN_bn2binpad(number, buffer, len) == len);
	BN_free(number);
	return base64(buffer, (size_t)len, true);
}

/* The members of a JWK that are the key. */
static char *key_text(const EVP_PKEY *key)
{
	unsigned char raw[64];
	size_t raw_len = sizeof(raw);
	char *a, *b = NULL, *text = NULL;
	int bits = EVP_PKEY_get_bits(key), r;

	if (EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA || EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA_PSS) {
		a = number_text(key, "n", 0);
		b = number_text(key, "e", 0);
		r = asprintf(&text, "'kty':'RSA','n':'%s','e':'%s'", a, b);
	} else if (EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519) {
		CERTS_MUST(EVP_PKEY_get_raw_public_key(key, raw, &raw_len) == 1);
		a = base64(raw, raw_len, true);
		r = asprintf(&text, "'kty':'OKP','crv':'Ed25519','x':'%s'", a);
	} else {
		a = number_text(key, "qx", (bits + 7) / 8);
		b = number_text(key, "qy", (bits + 7) / 8);
		r = asprintf(&text, "'kty':'EC','crv':'P-%d','x':'%s','y':'%s'", bits, a, b);
	}
	CERTS_MUST(r > 0);
	free(a);
	free(b);
	return text;
}

static char *entry_text(const struct cert *cert)
{
	char *key = key_text(cert->key), *x5c = certificate_text(cert, false, 0), *text;

	CERTS_MUST(asprintf(&text, "{%s,'use':'x509-svid','x5c':['%s']}", key, x5c) > 0);
	free(key);
	free(x5c);
	return text;
}

/* @NAME@ in a template stands for this text. */
struct word {
	const char *name;
	char *text;
};

#define MAX_WORDS 40

struct world {
	struct bundle_set *bundles;
	struct cert root, second, rsa, pss, ed, p384, leaf, no_sign, v1, other_td, bad_extension;
	struct word words[MAX_WORDS];
	size_t n_words;
};

static void word_add(struct world *world, const char *name, char *text)
{
	CERTS_MUST(world->n_words < MAX_WORDS);
	world->words[world->n_words++] = (struct word){name, text};
}

static char *pem_text(const struct cert *cert)
{
	char *pem = certs_pem((const struct cert *[]){cert}, 1), *text = calloc(1, strlen(pem) * 2), *to = text;

	for (const char *c = pem; *c; c++) {
		if (*c == '\n') {
			*to++ = '\\';
			*to++ = 'n';
		} else {
			*to++ = *c;
		}
	}
	free(pem);
	return text;
}

static char *broken_lines(const struct cert *cert)
{
	char *flat = certificate_text(cert, false, 0), *text;

	CERTS_MUST(asprintf(&text, "%.64s\\n%s", flat, flat + 64) > 0);
	free(flat);
	return text;
}

/* An authority as BER would have it, and DER has not (rule 205). The last of them is one that issuers write. */
static const struct encoding {
	const char *name;
	struct der_edit edit;
} encodings[] = {
	{"@LONGTBS@", {.at = DER_TBS, .how = DER_LONG_LENGTH}},
	{"@LONGALL@", {.at = "", .how = DER_LONG_LENGTH}},
	{"@INDEFINITE@", {.at = DER_SUBJECT, .how = DER_INDEFINITE}},
	{"@PIECES@", {.at = DER_SUBJECT ".0.0.1", .how = DER_CONSTRUCTED}},
	{"@BOOLEAN@", {.at = DER_EXTENSIONS ".0.1", .how = DER_REPLACE, .bytes = "\x01\x01\x01", .len = 3}},
	{"@INVALUE@", {.at = DER_EXTENSIONS ".0.2.0", .how = DER_LONG_LENGTH}},
	{"@BEHIND@", {.at = DER_EXTENSIONS ".0.2", .how = DER_APPEND, .bytes = "\x05\x00", .len = 2}},
	{"@DEFAULT@", {.at = DER_EXTENSIONS ".2.0", .how = DER_BEHIND, .bytes = "\x01\x01\x00", .len = 3}},
};
#define N_ENCODINGS (sizeof(encodings) / sizeof(encodings[0]))

static uint8_t *encoded(const struct cert *cert, const struct encoding *encoding, size_t *len)
{
	size_t der_len;
	unsigned char *der = der_of(cert, &der_len);
	uint8_t *edited = der_edit(der, der_len, &encoding->edit, cert->key, EVP_sha256(), len);

	OPENSSL_free(der);
	CERTS_MUST(edited != NULL);
	return edited;
}

static char *encoded_text(const struct cert *cert, const struct encoding *encoding)
{
	size_t len;
	uint8_t *der = encoded(cert, encoding, &len);
	char *text = base64(der, len, false);

	free(der);
	return text;
}

/* Three entries too many are as many as it takes. */
static char *crowd(void)
{
	size_t room = 1 << 20, used = 0;
	char *text = calloc(1, room);
	EVP_PKEY *key = certs_key("P-256");

	for (unsigned i = 0; i < BUNDLE_MAX_AUTHORITIES + 1; i++) {
		struct cert cert = certs_ca(NULL, &(struct cert_spec){.key = key});
		char *entry = entry_text(&cert);

		used += (size_t)snprintf(text + used, room - used, "%s%s", i ? "," : "", entry);
		CERTS_MUST(used < room);
		free(entry);
		cert_free(&cert);
	}
	EVP_PKEY_free(key);
	return text;
}

static char *repeated(const char *before, size_t n, const char *after)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	for (size_t i = 0; i < 2 * n; i++)
		fputs(i < n ? before : after, out);
	fclose(out);
	return text;
}

static int world_setup(void **state)
{
	struct world *world = calloc(1, sizeof(*world));
	EVP_PKEY *rsa = EVP_RSA_gen(2048), *pss = certs_key_rsa_pss(), *ed = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"),
		 *p384 = certs_key("P-384");
	char *rsa_key;

	world->root = certs_ca(NULL, &(struct cert_spec){.san = "URI:spiffe://" TD});
	world->second = certs_ca(NULL, &(struct cert_spec){.subject = "second"});
	world->rsa = certs_ca(NULL, &(struct cert_spec){.key = rsa});
	world->pss = certs_ca(NULL, &(struct cert_spec){.key = pss});
	world->ed = certs_ca(NULL, &(struct cert_spec){.key = ed});
	world->p384 = certs_ca(NULL, &(struct cert_spec){.key = p384});
	world->leaf = certs_leaf(&world->root, &(struct cert_spec){0});
	world->no_sign = certs_ca(NULL, &(struct cert_spec){.usage = "critical,digitalSignature"});
	world->v1 = certs_ca(NULL, &(struct cert_spec){.version = 1});
	world->other_td = certs_ca(NULL, &(struct cert_spec){.san = "URI:spiffe://other.example"});
	world->bad_extension = certs_ca(NULL, &(struct cert_spec){.twice = NID_basic_constraints});
	EVP_PKEY_free(rsa);
	EVP_PKEY_free(pss);
	EVP_PKEY_free(ed);
	EVP_PKEY_free(p384);
	word_add(world, "@ROOT@", entry_text(&world->root));
	word_add(world, "@SECOND@", entry_text(&world->second));
	word_add(world, "@RSA@", entry_text(&world->rsa));
	word_add(world, "@PSS@", entry_text(&world->pss));
	word_add(world, "@PSSCERT@", certificate_text(&world->pss, false, 0));
	word_add(world, "@DEEP@", repeated("[", 5000, "]"));
	word_add(world, "@DIGITS@", repeated("9", 150, "9"));
	word_add(world, "@ED@", entry_text(&world->ed));
	word_add(world, "@P384@", entry_text(&world->p384));
	word_add(world, "@LEAF@", entry_text(&world->leaf));
	word_add(world, "@NOSIGN@", entry_text(&world->no_sign));
	word_add(world, "@V1@", entry_text(&world->v1));
	word_add(world, "@OTHERTD@", entry_text(&world->other_td));
	word_add(world, "@BADEXT@", entry_text(&world->bad_extension));
	word_add(world, "@KEY@", key_text(world->root.key));
	word_add(world, "@OTHERKEY@", key_text(world->second.key));
	rsa_key = key_text(world->rsa.key);
	word_add(world, "@RSAKEY@", rsa_key);
	word_add(world, "@CERT@", certificate_text(&world->root, false, 0));
	word_add(world, "@SECONDCERT@", certificate_text(&world->second, false, 0));
	word_add(world, "@CERTURL@", certificate_text(&world->root, true, 0));
	word_add(world, "@CERTTRAIL@", certificate_text(&world->root, false, 1));
	word_add(world, "@CERTPEM@", pem_text(&world->root));
	word_add(world, "@CERTLINES@", broken_lines(&world->root));
	word_add(world, "@CROWD@", crowd());
	for (size_t i = 0; i < N_ENCODINGS; i++)
		word_add(world, encodings[i].name, encoded_text(&world->root, &encodings[i]));
	assert_int_equal(bundle_set_new(&world->bundles), 0);
	*state = world;
	return 0;
}

static int world_teardown(void **state)
{
	struct world *world = *state;
	struct cert *certs[] = {&world->root, &world->second,	&world->rsa,	      &world->pss,
				&world->ed,   &world->p384,	&world->leaf,	      &world->no_sign,
				&world->v1,   &world->other_td, &world->bad_extension};

	for (size_t i = 0; i < sizeof(certs) / sizeof(certs[0]); i++)
		cert_free(certs[i]);
	for (size_t i = 0; i < world->n_words; i++)
		free(world->words[i].text);
	bundle_set_freep(&world->bundles);
	free(world);
	return 0;
}

/* The text of a template: ' is ", and words stand for themselves. */
static char *expand(const struct world *world, const char *template, size_t *len)
{
	char *text = NULL;
	FILE *out = open_memstream(&text, len);

	while (*template) {
		const struct word *found = NULL;

		for (size_t i = 0; *template == '@' && i < world->n_words; i++)
			if (strncmp(template, world->words[i].name, strlen(world->words[i].name)) == 0)
				found = &world->words[i];
		if (found)
			fputs(found->text, out);
		else
			fputc(*template, out);
		template += found ? strlen(found->name) : 1;
	}
	fclose(out);
	for (char *c = text; c < text + *len; c++)
		if (*c == '\'')
			*c = '"';
	return text;
}

#endif
