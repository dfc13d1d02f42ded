/* SPDX-License-Identifier: Apache-2.0 */
#include "describe.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "certificate.h"

struct certificate_list {
	size_t n;
	X509 *certificates[DESCRIBE_MAX_CERTIFICATES];
	uint8_t *der[DESCRIBE_MAX_CERTIFICATES];
	size_t len[DESCRIBE_MAX_CERTIFICATES];
	size_t trailing[DESCRIBE_MAX_CERTIFICATES]; /* bytes behind it in its PEM block */
};

static void bio_freep(BIO **bio)
{
	BIO_free(*bio);
}

static void freep(void *p)
{
	free(*(void **)p);
}

static void bn_freep(BIGNUM **bn)
{
	BN_free(*bn);
}

static void names_freep(GENERAL_NAMES **names)
{
	GENERAL_NAMES_free(*names);
}

static void usages_freep(EXTENDED_KEY_USAGE **usages)
{
	EXTENDED_KEY_USAGE_free(*usages);
}

static void openssl_freep(char **text)
{
	OPENSSL_free(*text);
}

/* ---- reading ---- */

void certificate_list_freep(struct certificate_list **listp)
{
	struct certificate_list *list = *listp;

	if (list == NULL)
		return;
	for (size_t i = 0; i < list->n; i++) {
		X509_free(list->certificates[i]);
		free(list->der[i]);
	}
	free(list);
	*listp = NULL;
}

/* Adds the certificate at the beginning of `der`. Returns how many bytes it has, 0 with `why`. */
static size_t list_add(struct certificate_list *list, const uint8_t *der, size_t len, char *why, size_t why_size)
{
	const uint8_t *at = der;
	X509 *certificate = list->n < DESCRIBE_MAX_CERTIFICATES ? d2i_X509(NULL, &at, (long)len) : NULL;

	ERR_clear_error();
	if (certificate == NULL) {
		if (list->n == DESCRIBE_MAX_CERTIFICATES)
			snprintf(why, why_size, "there are more than %d certificates in it", DESCRIBE_MAX_CERTIFICATES);
		else
			snprintf(why, why_size, "certificate %zu is no DER certificate", list->n);
		return 0;
	}
	list->certificates[list->n] = certificate;
	list->len[list->n] = (size_t)(at - der);
	list->der[list->n] = malloc(list->len[list->n]);
	if (list->der[list->n] != NULL)
		memcpy(list->der[list->n], der, list->len[list->n]);
	return list->len[list->n++];
}

static int parse_der(struct certificate_list *list, const uint8_t *der, size_t len, char *why, size_t why_size)
{
	while (len > 0) {
		size_t used = list_add(list, der, len, why, why_size);

		if (used == 0)
			return 1;
		der += used;
		len -= used;
	}
	return 0;
}

static int parse_pem(struct certificate_list *list, const char *text, size_t len, char *why, size_t why_size)
{
	__attribute__((cleanup(bio_freep))) BIO *bio = BIO_new_mem_buf(text, (int)len);

	if (bio == NULL)
		return -ENOMEM;
	for (;;) {
		__attribute__((cleanup(freep))) uint8_t *der = NULL;
		size_t der_len, used;
		int r = certificate_pem_next(bio, &der, &der_len, why, why_size);

		if (r <= 0)
			return r == -EINVAL ? 1 : r;
		used = list_add(list, der, der_len, why, why_size);
		if (used == 0)
			return 1;
		list->trailing[list->n - 1] = der_len - used;
	}
}

int certificate_list_parse(struct certificate_list **listp, const char *text, size_t len, char *why, size_t why_size)
{
	__attribute__((cleanup(certificate_list_freep))) struct certificate_list *list = calloc(1, sizeof(*list));
	int r;

	if (list == NULL)
		return -ENOMEM;
	if (len > INT32_MAX)
		len = INT32_MAX;
	/* A certificate begins with a SEQUENCE of more than 127 bytes, which no text does. */
	if (len > 2 && (uint8_t)text[0] == 0x30 && (uint8_t)text[1] > 0x80)
		r = parse_der(list, (const uint8_t *)text, len, why, why_size);
	else
		r = parse_pem(list, text, len, why, why_size);
	if (r == 0 && list->n == 0) {
		snprintf(why, why_size, "there is no certificate in it, in PEM or DER");
		r = 1;
	}
	if (r != 0)
		return r;
	*listp = list;
	list = NULL;
	return 0;
}

size_t certificate_list_count(const struct certificate_list *list)
{
	return list->n;
}

/* ---- describing ---- */

const char *describe_role_name(enum describe_role role)
{
	static const char *const names[] = {
		[DESCRIBE_LEAF] = "leaf", [DESCRIBE_INTERMEDIATE] = "intermediate", [DESCRIBE_AUTHORITY] = "authority"};

	return names[role];
}

/* For a terminal: names come from whoever made the certificate. */
static void make_printable(char *text)
{
	for (; *text != '\0'; text++) {
		if (*text < ' ' || *text > '~')
			*text = '?';
	}
}

static void append(char *list, size_t size, const char *name)
{
	size_t used = strlen(list);

	snprintf(list + used, size - used, "%s%s", used > 0 ? ", " : "", name);
}

static void describe_id(X509 *certificate, struct certificate_description *description)
{
	__attribute__((cleanup(names_freep))) GENERAL_NAMES *names =
		X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
	unsigned uris = 0;

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		int len;

		if (name->type != GEN_URI)
			continue;
		len = ASN1_STRING_length(name->d.uniformResourceIdentifier);
		if (len > SPIFFE_ID_MAX)
			len = SPIFFE_ID_MAX;
		for (int at = 0; uris == 0 && at < len; at++)
			description->spiffe_id[at] =
				(char)(ASN1_STRING_get0_data(name->d.uniformResourceIdentifier)[at] ?: '?');
		uris++;
	}
	if (uris > 1)
		memset(description->spiffe_id, 0, sizeof(description->spiffe_id));
	make_printable(description->spiffe_id);
}

static void describe_key(X509 *certificate, struct certificate_description *description)
{
	EVP_PKEY *key = X509_get0_pubkey(certificate);
	char curve[40] = "";
	const char *name;

	X509_get_signature_info(certificate, NULL, NULL, NULL, NULL);
	snprintf(description->signature, sizeof(description->signature), "%s",
		 OBJ_nid2ln(X509_get_signature_nid(certificate)));
	if (key == NULL) {
		ERR_clear_error();
		snprintf(description->key, sizeof(description->key), "unreadable");
		return;
	}
	description->key_bits = EVP_PKEY_get_security_bits(key);
	name = EVP_PKEY_get0_type_name(key);
	if (EVP_PKEY_get_base_id(key) == EVP_PKEY_EC) {
		const char *nist = NULL;

		EVP_PKEY_get_utf8_string_param(key, OSSL_PKEY_PARAM_GROUP_NAME, curve, sizeof(curve), NULL);
		nist = EC_curve_nid2nist(OBJ_txt2nid(curve));
		snprintf(description->key, sizeof(description->key), "EC %s", nist != NULL ? nist : curve);
	} else if (EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA || EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA_PSS) {
		snprintf(description->key, sizeof(description->key), "%s %d", name != NULL ? name : "RSA",
			 EVP_PKEY_get_bits(key));
	} else {
		snprintf(description->key, sizeof(description->key), "%s", name != NULL ? name : "unknown");
	}
}

static void describe_usage(X509 *certificate, struct certificate_description *description)
{
	static const struct {
		uint32_t bit;
		const char *name;
	} bits[] = {
		{KU_DIGITAL_SIGNATURE, "digitalSignature"},
		{KU_NON_REPUDIATION, "nonRepudiation"},
		{KU_KEY_ENCIPHERMENT, "keyEncipherment"},
		{KU_DATA_ENCIPHERMENT, "dataEncipherment"},
		{KU_KEY_AGREEMENT, "keyAgreement"},
		{KU_KEY_CERT_SIGN, "keyCertSign"},
		{KU_CRL_SIGN, "cRLSign"},
		{KU_ENCIPHER_ONLY, "encipherOnly"},
		{KU_DECIPHER_ONLY, "decipherOnly"},
	};
	__attribute__((cleanup(usages_freep))) EXTENDED_KEY_USAGE *extended =
		X509_get_ext_d2i(certificate, NID_ext_key_usage, NULL, NULL);
	uint32_t usage = X509_get_key_usage(certificate);
	int at = X509_get_ext_by_NID(certificate, NID_key_usage, -1);

	if (at >= 0)
		description->usage_critical = X509_EXTENSION_get_critical(X509_get_ext(certificate, at)) == 1;
	for (size_t i = 0; at >= 0 && i < sizeof(bits) / sizeof(bits[0]); i++) {
		if (usage & bits[i].bit)
			append(description->usage, sizeof(description->usage), bits[i].name);
	}
	for (int i = 0; i < sk_ASN1_OBJECT_num(extended); i++) {
		const ASN1_OBJECT *purpose = sk_ASN1_OBJECT_value(extended, i);
		int nid = OBJ_obj2nid(purpose);
		char oid[80];

		OBJ_obj2txt(oid, sizeof(oid), purpose, 1);
		append(description->extended, sizeof(description->extended),
		       nid == NID_server_auth	? "serverAuth"
		       : nid == NID_client_auth ? "clientAuth"
		       : nid != NID_undef	? OBJ_nid2sn(nid)
						: oid);
	}
}

static void describe_serial(X509 *certificate, struct certificate_description *description)
{
	__attribute__((cleanup(bn_freep))) BIGNUM *serial =
		ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), NULL);
	__attribute__((cleanup(openssl_freep))) char *hex = serial != NULL ? BN_bn2hex(serial) : NULL;

	snprintf(description->serial, sizeof(description->serial), "%s", hex != NULL ? hex : "");
}

/* Each rule once: several checks may find the same. */
static void add_problem(struct certificate_description *description, const struct svid_verdict *problem)
{
	for (unsigned i = 0; i < description->n_problems; i++) {
		if (description->problems[i].rule == problem->rule)
			return;
	}
	if (description->n_problems < DESCRIBE_MAX_PROBLEMS)
		description->problems[description->n_problems++] = *problem;
}

/* Rule 70 of the signature. Whether an authority signs itself with a weak digest is not looked at (rule 71). */
static int check_signature(X509 *certificate, int depth, const struct certificate_description *description,
			   struct svid_verdict *problem)
{
	int bits = 0;

	if (description->role == DESCRIBE_AUTHORITY ||
	    X509_get_signature_info(certificate, NULL, NULL, &bits, NULL) != 1 || bits >= 112)
		return 0;
	return verdict_refuse(problem, 70, depth, "it is signed with %s, which gives %d bits of security",
			      description->signature, bits);
}

static void find_problems(const struct certificate_list *list, size_t i, time_t now,
			  struct certificate_description *description)
{
	X509 *certificate = list->certificates[i];
	struct svid_verdict problem = {0};
	int depth = (int)i;

	if (list->trailing[i] > 0) {
		verdict_refuse(&problem, 72, depth, "%zu bytes follow the certificate", list->trailing[i]);
		add_problem(description, &problem);
	}
	if (list->der[i] != NULL &&
	    certificate_check_encoding(certificate, list->der[i], list->len[i], depth, &problem))
		add_problem(description, &problem);
	if (certificate_check_cost(certificate, depth, &problem) != 0)
		add_problem(description, &problem);
	if ((description->role == DESCRIBE_LEAF ? certificate_check_leaf(certificate, &problem)
						: certificate_check_signer(certificate, depth, &problem)) != 0)
		add_problem(description, &problem);
	if (certificate_check_time(certificate, depth, now, &problem) != 0)
		add_problem(description, &problem);
	if (certificate_check_key(certificate, depth, &problem) != 0 ||
	    check_signature(certificate, depth, description, &problem) != 0)
		add_problem(description, &problem);
}

void certificate_describe(const struct certificate_list *list, size_t i, time_t now,
			  struct certificate_description *description)
{
	X509 *certificate = list->certificates[i];
	bool ca = X509_get_extension_flags(certificate) & EXFLAG_CA;

	memset(description, 0, sizeof(*description));
	certificate_name(X509_get_subject_name(certificate), description->subject, sizeof(description->subject));
	certificate_name(X509_get_issuer_name(certificate), description->issuer, sizeof(description->issuer));
	make_printable(description->subject);
	make_printable(description->issuer);
	if (!ca)
		description->role = i == 0 ? DESCRIBE_LEAF : DESCRIBE_INTERMEDIATE;
	else if (X509_NAME_cmp(X509_get_subject_name(certificate), X509_get_issuer_name(certificate)) == 0)
		description->role = DESCRIBE_AUTHORITY;
	else
		description->role = DESCRIBE_INTERMEDIATE;
	description->path_len = ca ? X509_get_pathlen(certificate) : -1;
	description->not_before = certificate_not_before(certificate);
	description->not_after = certificate_not_after(certificate);
	describe_serial(certificate, description);
	describe_id(certificate, description);
	describe_key(certificate, description);
	describe_usage(certificate, description);
	X509_digest(certificate, EVP_sha256(), description->sha256, NULL);
	find_problems(list, i, now, description);
	ERR_clear_error();
}
