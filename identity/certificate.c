/* SPDX-License-Identifier: Apache-2.0 */
#include "certificate.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "crypto.h"
#include "der.h"

static void general_names_freep(GENERAL_NAMES **names)
{
	GENERAL_NAMES_free(*names);
}

static void bio_freep(BIO **bio)
{
	BIO_free(*bio);
}

int verdict_refuse(struct svid_verdict *verdict, int rule, int depth, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(verdict->detail, sizeof(verdict->detail), format, args);
	va_end(args);
	for (char *c = verdict->detail; *c != '\0'; c++) {
		if (*c < ' ' || *c > '~')
			*c = '?';
	}
	verdict->rule = rule;
	verdict->depth = depth;
	return 1;
}

void certificate_name(const X509_NAME *name, char *out, size_t size)
{
	__attribute__((cleanup(bio_freep))) BIO *text = BIO_new(BIO_s_mem());
	int len = 0;

	if (text != NULL && X509_NAME_print_ex(text, name, 0, XN_FLAG_RFC2253) >= 0)
		len = BIO_read(text, out, (int)size - 1);
	out[len > 0 ? len : 0] = '\0';
}

/* RFC 5280 4.1.2.5: to the second, in Greenwich time, without a fraction. OpenSSL's own conversion takes more. */
static time_t time_of(const ASN1_TIME *asn1)
{
	int type = ASN1_STRING_type(asn1), len = ASN1_STRING_length(asn1);
	const unsigned char *text = ASN1_STRING_get0_data(asn1);
	struct tm tm = {0};

	if (len != (type == V_ASN1_UTCTIME ? 13 : 15) || text[len - 1] != 'Z')
		return -1;
	return ASN1_TIME_to_tm(asn1, &tm) == 1 ? timegm(&tm) : -1;
}

time_t certificate_not_before(X509 *certificate)
{
	return time_of(X509_get0_notBefore(certificate));
}

time_t certificate_not_after(X509 *certificate)
{
	return time_of(X509_get0_notAfter(certificate));
}

static void format_time(time_t t, char out[32])
{
	struct tm tm;

	if (gmtime_r(&t, &tm) == NULL || strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		strcpy(out, "an unreadable time");
}

/* The second of notAfter itself counts as over, as it does in OpenSSL and in the kernel's comparison of deadlines. */
int certificate_check_time(X509 *certificate, int depth, time_t now, struct svid_verdict *verdict)
{
	time_t not_before = certificate_not_before(certificate), not_after = certificate_not_after(certificate);
	char limit[32], at[32];

	format_time(now, at);
	if (not_before == -1 || not_after == -1)
		return verdict_refuse(verdict, 62, depth, "the validity is not written as RFC 5280 4.1.2.5 asks");
	if (now < not_before) {
		format_time(not_before, limit);
		return verdict_refuse(verdict, 62, depth, "the certificate is not valid before %s, and it is %s", limit,
				      at);
	}
	if (now >= not_after) {
		format_time(not_after, limit);
		return verdict_refuse(verdict, 62, depth, "the certificate expired at %s, and it is %s", limit, at);
	}
	return 0;
}

int certificate_check_approved(X509 *certificate, int depth, struct svid_verdict *verdict)
{
	char name[80];

	if (crypto_lacks_key(certificate, name, sizeof(name)) == NULL)
		return 0;
	return verdict_refuse(verdict, 220, depth, "the public key is %s, which the FIPS module does not have", name);
}

int certificate_algorithms_differ(X509 *certificate)
{
	const X509_ALGOR *outer;

	X509_get0_signature(NULL, &outer, certificate);
	return X509_ALGOR_cmp(outer, X509_get0_tbs_sigalg(certificate)) != 0;
}

/*
 * The critical extensions that something here or in the path validation acts on, and the extended key usage of signers, which
 * we choose not to (rule 57). OpenSSL's own list has more: those whose checks it runs only on request, as of revocation
 * lists.
 */
static bool is_acted_on(const X509_EXTENSION *extension)
{
	switch (OBJ_obj2nid(X509_EXTENSION_get_object((X509_EXTENSION *)extension))) {
	case NID_key_usage:
	case NID_ext_key_usage:
	case NID_basic_constraints:
	case NID_subject_alt_name:
	case NID_name_constraints:
	case NID_certificate_policies:
	case NID_policy_constraints:
	case NID_policy_mappings:
	case NID_inhibit_any_policy:
		return true;
	default:
		return false;
	}
}

/* What holds for every certificate: rules 64, 63, 73, and that we can read what we decide by. Duplicates come first,
 * because OpenSSL answers "no such extension" or "invalid" for them. */
static int check_extensions(X509 *certificate, int depth, struct svid_verdict *verdict)
{
	for (int i = 0; i < X509_get_ext_count(certificate); i++) {
		X509_EXTENSION *extension = X509_get_ext(certificate, i);
		const ASN1_OBJECT *oid = X509_EXTENSION_get_object(extension);
		char name[80];

		OBJ_obj2txt(name, sizeof(name), oid, 0);
		if (X509_get_ext_by_OBJ(certificate, oid, i) >= 0)
			return verdict_refuse(verdict, 64, depth, "extension %s appears more than once", name);
		if (X509_EXTENSION_get_critical(extension) && !is_acted_on(extension))
			return verdict_refuse(verdict, 63, depth, "extension %s is critical and not acted on here",
					      name);
	}
	if (X509_get_extension_flags(certificate) & EXFLAG_INVALID)
		return verdict_refuse(verdict, 203, depth, "an extension cannot be parsed or contradicts another one");
	if (certificate_algorithms_differ(certificate))
		return verdict_refuse(verdict, 73, depth, "the signature algorithm differs inside and outside");
	return 0;
}

/* Counts URI names of every scheme: https beside spiffe is two (rule 25). *urip is the first, borrowed from `names`. */
static int count_uris(const GENERAL_NAMES *names, const ASN1_IA5STRING **urip)
{
	int count = 0;

	*urip = NULL;
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

		if (name->type != GEN_URI)
			continue;
		if (count++ == 0)
			*urip = name->d.uniformResourceIdentifier;
	}
	return count;
}

/* Lengths are those of the ASN.1 string, never strlen(): a NUL would hide what follows it. */
static int check_leaf_id(X509 *leaf, struct svid_verdict *verdict)
{
	int critical = -1, count, len, rule;
	__attribute__((cleanup(general_names_freep))) GENERAL_NAMES *names =
		X509_get_ext_d2i(leaf, NID_subject_alt_name, &critical, NULL);
	const ASN1_IA5STRING *uri;
	const char *bytes;

	if (names == NULL)
		return verdict_refuse(verdict, 26, 0, "the leaf has no %s subject alternative name",
				      critical == -1 ? "" : "readable");
	count = count_uris(names, &uri);
	if (count == 0)
		return verdict_refuse(verdict, 26, 0, "none of the leaf's alternative names is a URI");
	if (count > 1)
		return verdict_refuse(verdict, 25, 0, "the leaf has %d URI names", count);

	bytes = (const char *)ASN1_STRING_get0_data(uri);
	len = ASN1_STRING_length(uri);
	if (len > 0 && memchr(bytes, '\0', (size_t)len) != NULL)
		return verdict_refuse(verdict, 45, 0, "the URI \"%.120s\" goes on behind a NUL byte", bytes);
	rule = spiffe_id_check(bytes, (size_t)len);
	if (rule != 0)
		return verdict_refuse(verdict, rule, 0, "\"%.*s\" (%d bytes) is no SPIFFE ID of a workload",
				      len < 160 ? len : 160, bytes, len);
	memcpy(verdict->spiffe_id, bytes, (size_t)len);
	verdict->spiffe_id[len] = '\0';
	spiffe_id_trust_domain(verdict->spiffe_id, verdict->trust_domain);

	if (X509_NAME_entry_count(X509_get_subject_name(leaf)) == 0 && critical != 1)
		return verdict_refuse(verdict, 41, 0, "the subject is empty and the alternative name is not critical");
	return 0;
}

static bool extension_is_critical(X509 *certificate, int nid)
{
	int at = X509_get_ext_by_NID(certificate, nid, -1);

	return at >= 0 && X509_EXTENSION_get_critical(X509_get_ext(certificate, at));
}

static int check_leaf_usage(X509 *leaf, struct svid_verdict *verdict)
{
	uint32_t flags = X509_get_extension_flags(leaf), usage = X509_get_key_usage(leaf);

	if (flags & EXFLAG_CA)
		return verdict_refuse(verdict, 30, 0, "the leaf is a CA certificate");
	if (!(flags & EXFLAG_KUSAGE))
		return verdict_refuse(verdict, 34, 0, "the leaf has no key usage extension");
	if (usage & KU_KEY_CERT_SIGN)
		return verdict_refuse(verdict, 32, 0, "the leaf's key usage includes keyCertSign");
	if (usage & KU_CRL_SIGN)
		return verdict_refuse(verdict, 33, 0, "the leaf's key usage includes cRLSign");
	if (!extension_is_critical(leaf, NID_key_usage))
		return verdict_refuse(verdict, 35, 0, "the leaf's key usage is not critical");
	if (!(usage & KU_DIGITAL_SIGNATURE))
		return verdict_refuse(verdict, 36, 0, "the leaf's key usage lacks digitalSignature");
	if (flags & EXFLAG_XKUSAGE) {
		uint32_t extended = X509_get_extended_key_usage(leaf);

		if (!(extended & XKU_SSL_SERVER) || !(extended & XKU_SSL_CLIENT))
			return verdict_refuse(verdict, 39, 0, "the leaf's extended key usage lacks %s",
					      extended & XKU_SSL_SERVER ? "clientAuth" : "serverAuth");
	}
	return 0;
}

int certificate_check_leaf(X509 *leaf, struct svid_verdict *verdict)
{
	if (check_extensions(leaf, 0, verdict) != 0)
		return 1;
	if (check_leaf_id(leaf, verdict) != 0)
		return 1;
	if (check_leaf_usage(leaf, verdict) != 0)
		return 1;
	return certificate_check_approved(leaf, 0, verdict);
}

/* The URI, if there is one that is or wants to be a SPIFFE ID, in whatever case. */
static bool is_spiffe_uri(const ASN1_IA5STRING *uri)
{
	return ASN1_STRING_length(uri) >= 7 && strncasecmp((const char *)ASN1_STRING_get0_data(uri), "spiffe:", 7) == 0;
}

/*
 * Rules 52 to 55. A signing certificate need not have an ID, one of another scheme is no concern of ours, and one of another
 * trust domain than the leaf's is worth a note. verdict->trust_domain is the leaf's.
 */
static int check_signer_id(X509 *signer, int depth, struct svid_verdict *verdict)
{
	int critical = -1, count, len, rule;
	__attribute__((cleanup(general_names_freep))) GENERAL_NAMES *names =
		X509_get_ext_d2i(signer, NID_subject_alt_name, &critical, NULL);
	char id[SPIFFE_ID_MAX + 1], trust_domain[SPIFFE_TRUST_DOMAIN_MAX + 1];
	const ASN1_IA5STRING *uri;
	const char *bytes;

	count = names != NULL ? count_uris(names, &uri) : 0;
	if (count > 1)
		return verdict_refuse(verdict, 55, depth, "the signing certificate has %d URI names", count);
	if (count == 0 || !is_spiffe_uri(uri))
		return 0;
	bytes = (const char *)ASN1_STRING_get0_data(uri);
	len = ASN1_STRING_length(uri);
	if (memchr(bytes, '\0', (size_t)len) != NULL)
		return verdict_refuse(verdict, 45, depth, "the URI \"%.120s\" goes on behind a NUL byte", bytes);
	rule = spiffe_signer_id_check(bytes, (size_t)len);
	if (rule != 0)
		return verdict_refuse(verdict, rule, depth,
				      "\"%.*s\" (%d bytes) is no SPIFFE ID of a signing certificate",
				      len < 160 ? len : 160, bytes, len);
	memcpy(id, bytes, (size_t)len);
	id[len] = '\0';
	spiffe_id_trust_domain(id, trust_domain);
	if (strcmp(trust_domain, verdict->trust_domain) != 0)
		snprintf(verdict->note, sizeof(verdict->note),
			 "certificate %d carries the ID spiffe://%.80s of another trust domain (rule 54)", depth,
			 trust_domain);
	return 0;
}

static void constraints_freep(NAME_CONSTRAINTS **constraints)
{
	NAME_CONSTRAINTS_free(*constraints);
}

static bool is_host_byte(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
	       c == '_';
}

/*
 * A URI is excluded by its host (RFC 5280 4.2.1.10). An exclusion that no host can be, such as a whole URI, would exclude nothing,
 * and an empty one excludes nothing to OpenSSL and everything to others: whoever wrote it wanted something else.
 */
static int check_constraints(X509 *signer, int depth, struct svid_verdict *verdict)
{
	__attribute__((cleanup(constraints_freep))) NAME_CONSTRAINTS *constraints =
		X509_get_ext_d2i(signer, NID_name_constraints, NULL, NULL);
	const STACK_OF(GENERAL_SUBTREE) *excluded = constraints != NULL ? constraints->excludedSubtrees : NULL;

	for (int i = 0; i < sk_GENERAL_SUBTREE_num(excluded); i++) {
		const GENERAL_NAME *base = sk_GENERAL_SUBTREE_value(excluded, i)->base;
		const uint8_t *bytes;
		int len, at = 0;

		if (base->type != GEN_URI)
			continue;
		bytes = ASN1_STRING_get0_data(base->d.uniformResourceIdentifier);
		len = ASN1_STRING_length(base->d.uniformResourceIdentifier);
		while (at < len && is_host_byte(bytes[at]))
			at++;
		if (len == 0 || at < len)
			return verdict_refuse(verdict, 59, depth, "the URI \"%.*s\" that is excluded is no host",
					      len < 160 ? len : 160, (const char *)bytes);
	}
	return 0;
}

int certificate_check_signer(X509 *signer, int depth, struct svid_verdict *verdict)
{
	uint32_t flags, usage;

	if (check_extensions(signer, depth, verdict) != 0)
		return 1;
	flags = X509_get_extension_flags(signer);
	usage = X509_get_key_usage(signer);
	if (X509_get_version(signer) != X509_VERSION_3)
		return verdict_refuse(verdict, 60, depth, "the signing certificate is X.509 version %ld",
				      X509_get_version(signer) + 1);
	if (!(flags & EXFLAG_CA))
		return verdict_refuse(verdict, 47, depth, "the signing certificate is no CA");
	if (!(flags & EXFLAG_KUSAGE))
		return verdict_refuse(verdict, 49, depth, "the signing certificate has no key usage extension");
	if (!(usage & KU_KEY_CERT_SIGN))
		return verdict_refuse(verdict, 48, depth, "the signing certificate's key usage lacks keyCertSign");
	if (!extension_is_critical(signer, NID_key_usage))
		return verdict_refuse(verdict, 50, depth, "the signing certificate's key usage is not critical");
	if (check_constraints(signer, depth, verdict) != 0)
		return 1;
	return check_signer_id(signer, depth, verdict);
}

/* An absent key usage is left for rule 49 at verification, where the reason can be told to whoever asks. */
int certificate_check_anchor(X509 *anchor, struct svid_verdict *verdict)
{
	uint32_t flags = X509_get_extension_flags(anchor);

	if (flags & EXFLAG_INVALID)
		return verdict_refuse(verdict, 203, 0, "an extension cannot be parsed");
	if (X509_get_version(anchor) != X509_VERSION_3 || !(flags & EXFLAG_CA))
		return verdict_refuse(verdict, 68, 0, "it is no CA");
	if (!(X509_get_key_usage(anchor) & KU_KEY_CERT_SIGN))
		return verdict_refuse(verdict, 68, 0, "its key usage lacks keyCertSign");
	return 0;
}

/*
 * What GeneralNames and key identifiers hold has tags that do not say its type, and there OpenSSL reads strings in pieces, as
 * BER has them. What it writes of what it read is in one piece. What it cannot read is rule 203's.
 */
static bool is_in_pieces(X509_EXTENSION *extension)
{
	const X509V3_EXT_METHOD *method = X509V3_EXT_get(extension);
	const ASN1_OCTET_STRING *bytes = X509_EXTENSION_get_data(extension);
	void *value = X509V3_EXT_d2i(extension);
	uint8_t *again = NULL;
	int len;
	bool same;

	if (value == NULL)
		return false;
	len = ASN1_item_i2d(value, &again, ASN1_ITEM_ptr(method->it));
	same = len >= 0 && len == ASN1_STRING_length(bytes) &&
	       memcmp(again, ASN1_STRING_get0_data(bytes), (size_t)len) == 0;
	OPENSSL_free(again);
	ASN1_item_free(value, ASN1_ITEM_ptr(method->it));
	return !same;
}

static bool has_hidden_types(int nid)
{
	return nid == NID_subject_alt_name || nid == NID_name_constraints || nid == NID_authority_key_identifier;
}

static int encoding_refuse(struct svid_verdict *verdict, int depth, const char *where, const struct der_fault *fault)
{
	return verdict_refuse(verdict, 205, depth, "%s at byte %zu of %s", fault->what, fault->at, where);
}

/* Extensions of which something is read here. The content of others is whatever their makers say. */
static bool is_read(int nid)
{
	switch (nid) {
	case NID_key_usage:
	case NID_ext_key_usage:
	case NID_basic_constraints:
	case NID_subject_alt_name:
	case NID_name_constraints:
	case NID_certificate_policies:
	case NID_policy_constraints:
	case NID_policy_mappings:
	case NID_inhibit_any_policy:
	case NID_subject_key_identifier:
	case NID_authority_key_identifier:
		return true;
	default:
		return false;
	}
}

int certificate_check_encoding(X509 *certificate, const uint8_t *der, size_t len, int depth,
			       struct svid_verdict *verdict)
{
	struct der_fault fault;

	if (der_check(der, len, &fault) != 0)
		return encoding_refuse(verdict, depth, "the certificate", &fault);
	for (int i = 0; i < X509_get_ext_count(certificate); i++) {
		X509_EXTENSION *extension = X509_get_ext(certificate, i);
		int nid = OBJ_obj2nid(X509_EXTENSION_get_object(extension));
		const ASN1_OCTET_STRING *value = X509_EXTENSION_get_data(extension);

		if (is_read(nid) && der_check(ASN1_STRING_get0_data(value), (size_t)ASN1_STRING_length(value), &fault))
			return encoding_refuse(verdict, depth, OBJ_nid2ln(nid), &fault);
		if (has_hidden_types(nid) && is_in_pieces(extension))
			return verdict_refuse(verdict, 205, depth, "a string is in pieces in %s", OBJ_nid2ln(nid));
	}
	ERR_clear_error();
	return 0;
}

/* A curve of somebody's own making, for which a key to anybody's certificate can be made up (CVE-2020-0601). */
static bool curve_is_written_out(const EVP_PKEY *key)
{
	int written_out = 0;

	return EVP_PKEY_get_int_param(key, OSSL_PKEY_PARAM_EC_DECODED_FROM_EXPLICIT_PARAMS, &written_out) != 1 ||
	       written_out != 0;
}

/* Rule 70. The security level of OpenSSL counts RSA of 2,047 bits as good as 2,048. */
int certificate_check_key(X509 *certificate, int depth, struct svid_verdict *verdict)
{
	EVP_PKEY *key = X509_get0_pubkey(certificate);
	int bits = key != NULL ? EVP_PKEY_get_bits(key) : 0, least = 0;

	if (key == NULL)
		return verdict_refuse(verdict, 70, depth, "the key cannot be read or is of an unknown kind");
	switch (EVP_PKEY_get_base_id(key)) {
	case EVP_PKEY_RSA:
	case EVP_PKEY_RSA_PSS:
	case EVP_PKEY_DSA:
		least = 2048;
		break;
	case EVP_PKEY_EC:
		if (curve_is_written_out(key))
			return verdict_refuse(verdict, 70, depth, "the curve of the key is written out, not named");
		least = 224;
		break;
	}
	if (bits < least)
		return verdict_refuse(verdict, 70, depth, "the key has %d bits, and %d are the least", bits, least);
	return 0;
}

static bool exponent_is_long(const EVP_PKEY *key)
{
	BIGNUM *exponent = NULL;
	bool is_long = EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &exponent) != 1 || BN_num_bits(exponent) > 64;

	BN_free(exponent);
	return is_long;
}

/* Usual are a dozen. They are compared with each other, and a leaf of 64 KiB could have 5,000. */
#define EXTENSIONS_MAX 64

/* A signature that a key of 2,048 bits with an exponent of its own length made takes 3.6 ms to look at, one of 16,384 bits
 * 6.4 ms; usual ones take 0.05 ms. */
int certificate_check_cost(X509 *certificate, int depth, struct svid_verdict *verdict)
{
	EVP_PKEY *key = X509_get0_pubkey(certificate);
	int kind = key != NULL ? EVP_PKEY_get_base_id(key) : EVP_PKEY_NONE, most;
	bool is_rsa = kind == EVP_PKEY_RSA || kind == EVP_PKEY_RSA_PSS;

	if (X509_get_ext_count(certificate) > EXTENSIONS_MAX)
		return verdict_refuse(verdict, 202, depth, "the certificate has %d extensions, and %d are the most",
				      X509_get_ext_count(certificate), EXTENSIONS_MAX);
	if (kind == EVP_PKEY_NONE)
		return 0;
	most = is_rsa ? 8192 : kind == EVP_PKEY_DSA ? 3072 : 521;
	if (EVP_PKEY_get_bits(key) > most)
		return verdict_refuse(verdict, 202, depth, "the key has %d bits, and %d are the most",
				      EVP_PKEY_get_bits(key), most);
	if (is_rsa && exponent_is_long(key))
		return verdict_refuse(verdict, 202, depth, "the public exponent of the key has more than 64 bits");
	return 0;
}

struct pem_block {
	char *name;
	char *header;
	unsigned char *bytes;
	long len;
};

static void pem_block_free(struct pem_block *block)
{
	OPENSSL_free(block->name);
	OPENSSL_free(block->header);
	OPENSSL_free(block->bytes);
}

int certificate_pem_next(BIO *text, uint8_t **derp, size_t *lenp, char *why, size_t why_size)
{
	__attribute__((cleanup(pem_block_free))) struct pem_block block = {0};

	ERR_clear_error();
	if (PEM_read_bio(text, &block.name, &block.header, &block.bytes, &block.len) != 1) {
		bool end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;

		ERR_clear_error();
		if (end)
			return 0;
		snprintf(why, why_size, "a PEM block is cut off or no base64");
		return -EINVAL;
	}
	if (strcmp(block.name, PEM_STRING_X509) != 0 && strcmp(block.name, PEM_STRING_X509_OLD) != 0) {
		snprintf(why, why_size, "a PEM block is \"%.60s\", where only \"CERTIFICATE\" belongs", block.name);
		return -EINVAL;
	}
	*derp = malloc((size_t)block.len + 1);
	if (*derp == NULL)
		return -ENOMEM;
	memcpy(*derp, block.bytes, (size_t)block.len);
	*lenp = (size_t)block.len;
	return 1;
}
