/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A SPIFFE bundle: a JWK Set whose entries with the use x509-svid hold the authorities (rules 76 to 97, 103). Unknown
 * members are no concern of ours (rule 77), and neither are a key's id (rule 94) and the entries of other profiles.
 */
#include "bundle.h"

#include <errno.h>
#include <jansson.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <stdlib.h>
#include <string.h>

#include "json_member.h"

static void freep(void *p)
{
	free(*(void **)p);
}

static void json_freep(json_t **value)
{
	json_decref(*value);
}

static void pkey_freep(EVP_PKEY **key)
{
	EVP_PKEY_free(*key);
}

static void pkey_ctx_freep(EVP_PKEY_CTX **ctx)
{
	EVP_PKEY_CTX_free(*ctx);
}

static void builder_freep(OSSL_PARAM_BLD **builder)
{
	OSSL_PARAM_BLD_free(*builder);
}

static void params_freep(OSSL_PARAM **params)
{
	OSSL_PARAM_free(*params);
}

static void bn_freep(BIGNUM **number)
{
	BN_free(*number);
}

/* ---- base64 ---- */

static int base64_digit(char c, bool url)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == (url ? '-' : '+'))
		return 62;
	return c == (url ? '_' : '/') ? 63 : -1;
}

/* RFC 4648: section 4 with its padding, or (url) section 5 without; no line ends, no bits left over. Returns malloc()ed bytes,
 * or NULL. */
static uint8_t *base64_decode(const char *text, size_t len, bool url, size_t *lenp)
{
	size_t digits = len, n = 0;
	uint8_t *out;
	uint32_t bits = 0;

	if (!url) {
		if (len == 0 || len % 4 != 0)
			return NULL;
		while (digits > len - 2 && text[digits - 1] == '=')
			digits--;
	}
	if (digits % 4 == 1)
		return NULL;
	out = malloc(digits / 4 * 3 + 3);
	for (size_t i = 0; out != NULL && i < digits; i++) {
		int digit = base64_digit(text[i], url);

		if (digit < 0) {
			free(out);
			return NULL;
		}
		bits = bits << 6 | (uint32_t)digit;
		if (i % 4 != 0)
			out[n++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
	}
	if (out != NULL && digits % 4 != 0 && (bits & (digits % 4 == 2 ? 0xf : 0x3)) != 0) {
		free(out);
		return NULL;
	}
	*lenp = n;
	return out;
}

/* ---- the key of an entry ---- */

static uint8_t *member_bytes(const json_t *entry, const char *name, size_t *lenp)
{
	const json_t *value = json_object_get(entry, name);

	if (!json_is_string(value))
		return NULL;
	return base64_decode(json_string_value(value), json_string_length(value), true, lenp);
}

static EVP_PKEY *key_from(const char *type, OSSL_PARAM_BLD *builder)
{
	__attribute__((cleanup(params_freep))) OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(builder);
	__attribute__((cleanup(pkey_ctx_freep))) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	EVP_PKEY *key = NULL;

	if (params == NULL || ctx == NULL || EVP_PKEY_fromdata_init(ctx) != 1 ||
	    EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
		return NULL;
	return key;
}

static EVP_PKEY *rsa_key(const json_t *entry)
{
	__attribute__((cleanup(builder_freep))) OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
	__attribute__((cleanup(bn_freep))) BIGNUM *modulus = NULL, *exponent = NULL;
	size_t n_len, e_len;
	__attribute__((cleanup(freep))) uint8_t *n = member_bytes(entry, "n", &n_len);
	__attribute__((cleanup(freep))) uint8_t *e = member_bytes(entry, "e", &e_len);

	/* 16,384 bits are more than OpenSSL verifies with. */
	if (builder == NULL || n == NULL || e == NULL || n_len > 2048 || e_len > 8)
		return NULL;
	modulus = BN_bin2bn(n, (int)n_len, NULL);
	exponent = BN_bin2bn(e, (int)e_len, NULL);
	if (modulus == NULL || exponent == NULL ||
	    OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_N, modulus) != 1 ||
	    OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_E, exponent) != 1)
		return NULL;
	return key_from("RSA", builder);
}

static EVP_PKEY *ec_key(const json_t *entry)
{
	static const struct curve {
		const char *jose;
		const char *openssl;
		size_t bytes;
	} curves[] = {{"P-256", "prime256v1", 32}, {"P-384", "secp384r1", 48}, {"P-521", "secp521r1", 66}};
	__attribute__((cleanup(builder_freep))) OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
	const char *name = json_string_value(json_object_get(entry, "crv"));
	const struct curve *curve = NULL;
	uint8_t point[1 + 2 * 66] = {4}; /* uncompressed */
	size_t x_len, y_len;
	__attribute__((cleanup(freep))) uint8_t *x = member_bytes(entry, "x", &x_len);
	__attribute__((cleanup(freep))) uint8_t *y = member_bytes(entry, "y", &y_len);

	for (size_t i = 0; name != NULL && i < sizeof(curves) / sizeof(curves[0]); i++) {
		if (strcmp(name, curves[i].jose) == 0)
			curve = &curves[i];
	}
	if (builder == NULL || curve == NULL || x == NULL || y == NULL || x_len != curve->bytes ||
	    y_len != curve->bytes)
		return NULL;
	memcpy(point + 1, x, x_len);
	memcpy(point + 1 + x_len, y, y_len);
	if (OSSL_PARAM_BLD_push_utf8_string(builder, OSSL_PKEY_PARAM_GROUP_NAME, curve->openssl, 0) != 1 ||
	    OSSL_PARAM_BLD_push_octet_string(builder, OSSL_PKEY_PARAM_PUB_KEY, point, 1 + x_len + y_len) != 1)
		return NULL;
	return key_from("EC", builder);
}

static EVP_PKEY *okp_key(const json_t *entry)
{
	const char *curve = json_string_value(json_object_get(entry, "crv"));
	size_t len;
	__attribute__((cleanup(freep))) uint8_t *x = member_bytes(entry, "x", &len);

	if (x == NULL || curve == NULL || (strcmp(curve, "Ed25519") != 0 && strcmp(curve, "Ed448") != 0))
		return NULL;
	return EVP_PKEY_new_raw_public_key_ex(NULL, curve, NULL, x, len);
}

/* ---- one entry ---- */

static bool is_one_of(const char *text, const char *const *list)
{
	for (; *list != NULL; list++) {
		if (strcmp(text, *list) == 0)
			return true;
	}
	return false;
}

/* The certificate of an entry of our profile. */
static int parse_x5c(struct bundle_text *into, unsigned index, const json_t *entry, const char *kty)
{
	const json_t *x5c = json_object_get(entry, "x5c"), *first = json_array_get(x5c, 0);
	__attribute__((cleanup(pkey_freep))) EVP_PKEY *key = NULL;
	__attribute__((cleanup(freep))) uint8_t *der = NULL;
	size_t len;

	if (first == NULL)
		return bundle_text_drop(into, index, 90, "\"x5c\" is %s",
					x5c == NULL	     ? "missing"
					: json_is_array(x5c) ? "empty"
							     : "no array");
	if (!json_is_string(first))
		return bundle_text_drop(into, index, 97, "\"x5c\" holds no string");
	der = base64_decode(json_string_value(first), json_string_length(first), false, &len);
	if (der == NULL)
		return bundle_text_drop(into, index, 97,
					"\"x5c\" is no base64 (RFC 4648 section 4, without line ends)");
	key = strcmp(kty, "RSA") == 0 ? rsa_key(entry) : strcmp(kty, "EC") == 0 ? ec_key(entry) : okp_key(entry);
	ERR_clear_error();
	if (key == NULL)
		return bundle_text_drop(into, index, 97, "the members of the %s key are missing or no such key", kty);
	if (json_array_size(x5c) > 1)
		bundle_text_note(into, index, 91, "\"x5c\" has %zu certificates: the first one counts",
				 json_array_size(x5c));
	return bundle_text_add(into, index, der, len, 96, key);
}

static int parse_entry(struct bundle_text *into, unsigned index, const json_t *entry)
{
	static const char *const types[] = {"RSA", "EC", "OKP", NULL};
	static const char *const other_profiles[] = {"jwt-svid", "wit-svid", NULL};
	const json_t *kty = json_object_get(entry, "kty"), *use = json_object_get(entry, "use");

	if (!json_is_object(entry))
		return bundle_text_drop(into, index, 76, "it is no JSON object");
	if (use == NULL)
		return bundle_text_drop(into, index, 88, "it has no \"use\"");
	if (!json_is_string(use))
		return bundle_text_drop(into, index, 89, "its \"use\" is no string");
	if (is_one_of(json_string_value(use), other_profiles))
		return 0;
	if (strcmp(json_string_value(use), "x509-svid") != 0)
		return bundle_text_drop(into, index, 89, "its \"use\" is \"%.60s\"", json_string_value(use));
	if (!json_is_string(kty))
		return bundle_text_drop(into, index, 87, "it has no \"kty\"");
	if (!is_one_of(json_string_value(kty), types))
		return bundle_text_drop(into, index, 87, "its \"kty\" is \"%.60s\"", json_string_value(kty));
	return parse_x5c(into, index, entry, json_string_value(kty));
}

/* ---- the set ---- */

static json_t *parse_json(struct bundle_text *into, const char *text, size_t len)
{
	json_error_t error;
	/* Integers are read from the text (json_member.h); one of any size is no fault of an unknown member. */
	json_t *set = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &error);

	if (set == NULL && json_error_code(&error) == json_error_duplicate_key)
		bundle_text_refuse(into, 103, "line %d column %d: a member stands there twice", error.line,
				   error.column);
	else if (set == NULL && len == 0)
		bundle_text_refuse(into, 76, "it is empty");
	else if (set == NULL && len > 11 && memcmp(text, "-----BEGIN ", 11) == 0)
		bundle_text_refuse(into, 76, "it is PEM, and a SPIFFE bundle is JSON");
	else if (set == NULL)
		bundle_text_refuse(into, 76, "line %d column %d: %.160s", error.line, error.column, error.text);
	else if (!json_is_object(set))
		bundle_text_refuse(into, 76, "it is no JSON object");
	return set;
}

static int parse_numbers(struct bundle_text *into, const json_t *set, const char *text, size_t len)
{
	struct bundle_report *report = into->report;
	uint64_t sequence, hint;

	if (json_object_get(set, "spiffe_sequence") != NULL) {
		if (json_member_integer(text, len, "spiffe_sequence", &sequence) != JSON_INTEGER_OK)
			return bundle_text_refuse(into, 78, "spiffe_sequence is no integer from 0 to 2^64 - 1");
		report->has_sequence = true;
		report->sequence = sequence;
	}
	if (json_object_get(set, "spiffe_refresh_hint") == NULL)
		return 0;
	if (json_member_integer(text, len, "spiffe_refresh_hint", &hint) == JSON_INTEGER_NONE)
		return bundle_text_refuse(into, 81, "spiffe_refresh_hint is no integer");
	report->refresh_s = hint < BUNDLE_REFRESH_MIN_S	  ? BUNDLE_REFRESH_MIN_S
			    : hint > BUNDLE_REFRESH_MAX_S ? BUNDLE_REFRESH_MAX_S
							  : (uint32_t)hint;
	return 0;
}

int bundle_jwks_parse(struct bundle_text *into, const char *text, size_t len)
{
	__attribute__((cleanup(json_freep))) json_t *set = parse_json(into, text, len);
	const json_t *keys = json_object_get(set, "keys");
	int r;

	if (into->report->rule != 0)
		return -EINVAL;
	r = parse_numbers(into, set, text, len);
	if (r < 0)
		return r;
	if (keys == NULL || json_is_null(keys))
		return bundle_text_refuse(into, 84, "\"keys\" is %s", keys == NULL ? "missing" : "null");
	if (!json_is_array(keys))
		return bundle_text_refuse(into, 76, "\"keys\" is no array");
	for (size_t i = 0; i < json_array_size(keys); i++) {
		r = parse_entry(into, (unsigned)i, json_array_get(keys, i));
		if (r < 0)
			return r;
	}
	return 0;
}
