/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/chains/chains.h"

#include <openssl/core_names.h>
#include <openssl/dsa.h>
#include <openssl/param_build.h>

#define PARTS 10

struct chain_maker {
	void (*visit)(const struct chain_case *, void *);
	void *userdata;
	time_t now;
	unsigned made;
	struct chain_keys keys;
	struct cert usual_root;
};

struct made {
	char name;
	bool borrowed; /* the usual root */
	struct cert cert;
	struct chain_bytes bytes;
};

struct made_parts {
	struct made parts[PARTS];
	size_t n;
};

const struct chain_keys *chains_keys(const struct chain_maker *maker)
{
	return &maker->keys;
}

time_t chains_now(const struct chain_maker *maker)
{
	return maker->now;
}

static struct made *part_named(struct made_parts *all, char name)
{
	for (size_t i = 0; i < all->n; i++)
		if (all->parts[i].name == name)
			return &all->parts[i];
	fprintf(stderr, "no part %c of a chain was made\n", name);
	abort();
}

static void part_encode(struct made *made, const struct chain_part *part, EVP_PKEY *signer)
{
	int len = i2d_X509(made->cert.x509, &made->bytes.der);

	CERTS_MUST(len > 0);
	made->bytes.len = (size_t)len;
	for (size_t i = 0; i < 2 && part->edits[i].how != DER_AS_IT_IS; i++) {
		size_t edited_len;
		uint8_t *edited = der_edit(made->bytes.der, made->bytes.len, &part->edits[i], signer, part->spec.digest,
					   &edited_len);

		free(made->bytes.der);
		made->bytes = (struct chain_bytes){edited, edited_len};
	}
}

static void part_make(struct chain_maker *maker, struct made_parts *all, const struct chain_part *part, char name,
		      char issuer, bool ca)
{
	struct made *made = &all->parts[all->n];
	struct cert_spec spec = part->spec;
	EVP_PKEY *own = NULL;
	const struct cert *above = issuer != name ? &part_named(all, issuer)->cert : NULL;

	spec.base = maker->now;
	if (part->key_of != 0)
		spec.key = part_named(all, part->key_of)->cert.key;
	if (part->by == name)
		spec.signer = spec.key = own = certs_key("P-256");
	else if (part->by != 0)
		spec.signer = part_named(all, part->by)->cert.key;
	made->name = name;
	made->cert = ca ? certs_ca(above, &spec) : certs_leaf(above, &spec);
	part_encode(made, part, spec.signer != NULL ? spec.signer : above != NULL ? above->key : made->cert.key);
	EVP_PKEY_free(own);
	all->n++;
}

static bool is_usual(const struct chain_part *part)
{
	static const struct chain_part usual;

	return memcmp(part, &usual, sizeof(usual)) == 0;
}

/* The usual root is one and the same, so that one bundle does for most cases. */
static void root_make(struct chain_maker *maker, struct made_parts *all, const struct chain_part *part)
{
	struct chain_part named = *part;

	if (named.spec.subject == NULL)
		named.spec.subject = "root";
	if (!is_usual(part)) {
		part_make(maker, all, &named, 'R', 'R', true);
		return;
	}
	all->parts[all->n] = (struct made){.name = 'R', .borrowed = true, .cert = maker->usual_root};
	part_encode(&all->parts[all->n++], &named, maker->usual_root.key);
}

static size_t collect(struct made_parts *all, const char *letters, struct chain_bytes *out)
{
	size_t n = 0;

	for (; letters[n] != '\0'; n++)
		out[n] = part_named(all, letters[n])->bytes;
	return n;
}

void chains_make(struct chain_maker *maker, const struct chain_recipe *recipe)
{
	struct chain_part between = recipe->between;
	struct made_parts all = {.n = 0};
	struct chain_case made = {
		.name = recipe->name,
		.rule = recipe->rule,
		.told = recipe->told,
		.depth = recipe->depth,
		.note = recipe->note,
		.at = maker->now + recipe->at,
		.trust_domain = recipe->trust_domain == NULL	  ? CHAIN_TRUST_DOMAIN
				: recipe->trust_domain[0] == '\0' ? NULL
								  : recipe->trust_domain,
		.usual_bundle = is_usual(&recipe->root) && recipe->bundle == NULL && recipe->trust_domain == NULL &&
				recipe->at == 0,
	};

	if (between.spec.subject == NULL)
		between.spec.subject = "between";
	root_make(maker, &all, &recipe->root);
	part_make(maker, &all, &between, 'B', between.issuer != 0 ? between.issuer : 'R', !between.leaf);
	for (size_t i = 0; i < 7 && recipe->more[i].name != 0; i++)
		part_make(maker, &all, &recipe->more[i], recipe->more[i].name,
			  recipe->more[i].issuer != 0 ? recipe->more[i].issuer : 'R', !recipe->more[i].leaf);
	part_make(maker, &all, &recipe->leaf, 'L', recipe->leaf.issuer != 0 ? recipe->leaf.issuer : 'B', false);
	made.leaf_key = part_named(&all, 'L')->cert.key;
	made.n = collect(&all, recipe->order != NULL ? recipe->order : "LB", made.chain);
	made.n_authorities = collect(&all, recipe->bundle != NULL ? recipe->bundle : "R", made.bundle);
	maker->visit(&made, maker->userdata);
	maker->made++;
	for (size_t i = 0; i < all.n; i++) {
		free(all.parts[i].bytes.der);
		if (!all.parts[i].borrowed)
			cert_free(&all.parts[i].cert);
	}
}

char *chains_pem(const struct chain_bytes *certificates, size_t n)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *bytes, *text;
	long len;

	for (size_t i = 0; i < n; i++)
		if (certificates[i].len > 0)
			CERTS_MUST(PEM_write_bio(bio, PEM_STRING_X509, "", certificates[i].der,
						 (long)certificates[i].len) > 0);
		else /* which OpenSSL does not write */
			BIO_puts(bio, "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n");
	len = BIO_get_mem_data(bio, &bytes);
	text = strndup(len > 0 ? bytes : "", (size_t)len);
	BIO_free(bio);
	return text;
}

/* ---- keys ---- */

/* A P-256 key that writes its curve out instead of naming it (CVE-2020-0601 rode on that). */
static EVP_PKEY *key_explicit(void)
{
	EVP_PKEY *key = certs_key("P-256");

	CERTS_MUST(EVP_PKEY_set_utf8_string_param(key, OSSL_PKEY_PARAM_EC_ENCODING, OSSL_PKEY_EC_ENCODING_EXPLICIT) ==
		   1);
	return key;
}

static EVP_PKEY *key_dsa(void)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "DSA", NULL);
	EVP_PKEY *parameters = NULL, *key = NULL;

	CERTS_MUST(EVP_PKEY_paramgen_init(ctx) == 1 && EVP_PKEY_CTX_set_dsa_paramgen_bits(ctx, 1024) == 1 &&
		   EVP_PKEY_paramgen(ctx, &parameters) == 1);
	EVP_PKEY_CTX_free(ctx);
	ctx = EVP_PKEY_CTX_new_from_pkey(NULL, parameters, NULL);
	CERTS_MUST(EVP_PKEY_keygen_init(ctx) == 1 && EVP_PKEY_keygen(ctx, &key) == 1);
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(parameters);
	return key;
}

/* Nobody has the private part: only a leaf can have such a key. */
static EVP_PKEY *key_rsa_public(int bits, int exponent_bits)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
	OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
	BIGNUM *modulus = BN_new(), *exponent = BN_new();
	OSSL_PARAM *parameters;
	EVP_PKEY *key = NULL;

	CERTS_MUST(BN_rand(modulus, bits, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ODD) == 1 &&
		   BN_rand(exponent, exponent_bits, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ODD) == 1 &&
		   OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, modulus) == 1 &&
		   OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, exponent) == 1);
	parameters = OSSL_PARAM_BLD_to_param(build);
	CERTS_MUST(EVP_PKEY_fromdata_init(ctx) == 1 &&
		   EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, parameters) == 1);
	OSSL_PARAM_free(parameters);
	OSSL_PARAM_BLD_free(build);
	BN_free(modulus);
	BN_free(exponent);
	EVP_PKEY_CTX_free(ctx);
	return key;
}

static void keys_make(struct chain_keys *keys)
{
	*keys = (struct chain_keys){
		.rsa1024 = EVP_RSA_gen(1024),
		.rsa2047 = EVP_RSA_gen(2047),
		.rsa2048 = EVP_RSA_gen(2048),
		.rsa_pss = certs_key_rsa_pss(),
		.p192 = certs_key("P-192"),
		.p224 = certs_key("P-224"),
		.p384 = certs_key("P-384"),
		.p521 = certs_key("P-521"),
		.secp256k1 = certs_key("secp256k1"),
		.ed25519 = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"),
		.ed448 = EVP_PKEY_Q_keygen(NULL, NULL, "ED448"),
		.dsa = key_dsa(),
		.explicit_p256 = key_explicit(),
		.rsa_long_exponent = key_rsa_public(2048, 2047),
		.rsa16384 = key_rsa_public(16384, 17),
	};
}

static void keys_free(struct chain_keys *keys)
{
	EVP_PKEY **all = (EVP_PKEY **)keys;

	for (size_t i = 0; i < sizeof(*keys) / sizeof(*all); i++)
		EVP_PKEY_free(all[i]);
}

unsigned chains_visit(void (*visit)(const struct chain_case *, void *), void *userdata)
{
	struct chain_maker maker = {.visit = visit, .userdata = userdata, .now = time(NULL)};

	keys_make(&maker.keys);
	maker.usual_root = certs_ca(NULL, &(struct cert_spec){.subject = "root", .base = maker.now});
	recipes_id(&maker);
	recipes_leaf(&maker);
	recipes_signer(&maker);
	recipes_path(&maker);
	recipes_time(&maker);
	recipes_encoding(&maker);
	cert_free(&maker.usual_root);
	keys_free(&maker.keys);
	return maker.made;
}
