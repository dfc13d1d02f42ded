/* SPDX-License-Identifier: Apache-2.0 */
#include "path.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "certificate.h"

/* Eight certificates of one name and one key can be ordered in 5,040 ways; honest chains take a dozen looks. */
#define PATH_MAX_SIGNATURES 128

struct path_search {
	X509 *const *certificates;
	size_t n;
	const struct bundle *bundle;
	time_t now;
	X509 *path[SVID_MAX_CERTIFICATES + 1]; /* leaf first; the last one may be an authority */
	size_t len;
	unsigned signatures_left;
	const char *trust_domain; /* the leaf's */
	char note[sizeof(((struct svid_verdict *)0)->note)];
	/* The most telling failure so far: a whole path that broke a rule over a dead end, a long dead end over a short. */
	unsigned rank;
	struct svid_verdict failure;
	struct svid_anchor anchors[SVID_MAX_ANCHORS]; /* reached by a valid path */
	unsigned n_anchors;
};

enum {
	RANK_WHOLE_PATH = 100,
	RANK_LIMIT = 200,
};

static void store_freep(X509_STORE **store)
{
	X509_STORE_free(*store);
}

static void store_ctx_freep(X509_STORE_CTX **ctx)
{
	X509_STORE_CTX_free(*ctx);
}

static void stack_freep(STACK_OF(X509) * *stack)
{
	sk_X509_free(*stack);
}

static void search_note(struct path_search *search, unsigned rank, const struct svid_verdict *failure)
{
	if (rank <= search->rank)
		return;
	search->rank = rank;
	search->failure = *failure;
}

static int rule_of_openssl(int error)
{
	switch (error) {
	case X509_V_ERR_CERT_SIGNATURE_FAILURE:
	case X509_V_ERR_UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY:
		return 61;
	case X509_V_ERR_CERT_NOT_YET_VALID:
	case X509_V_ERR_CERT_HAS_EXPIRED:
	case X509_V_ERR_ERROR_IN_CERT_NOT_BEFORE_FIELD:
	case X509_V_ERR_ERROR_IN_CERT_NOT_AFTER_FIELD:
		return 62;
	case X509_V_ERR_UNHANDLED_CRITICAL_EXTENSION:
		return 63;
	case X509_V_ERR_PATH_LENGTH_EXCEEDED:
	case X509_V_ERR_PATHLEN_INVALID_FOR_NON_CA:
	case X509_V_ERR_PATHLEN_WITHOUT_KU_KEY_CERT_SIGN:
		return 58;
	case X509_V_ERR_PERMITTED_VIOLATION:
	case X509_V_ERR_EXCLUDED_VIOLATION:
	case X509_V_ERR_SUBTREE_MINMAX:
	case X509_V_ERR_UNSUPPORTED_CONSTRAINT_TYPE:
	case X509_V_ERR_UNSUPPORTED_CONSTRAINT_SYNTAX:
	case X509_V_ERR_UNSUPPORTED_NAME_SYNTAX:
		return 59;
	case X509_V_ERR_INVALID_CA:
		return 47;
	case X509_V_ERR_KEYUSAGE_NO_CERTSIGN:
		return 48;
	case X509_V_ERR_CA_CERT_MISSING_KEY_USAGE:
		return 49;
	case X509_V_ERR_EE_KEY_TOO_SMALL:
	case X509_V_ERR_CA_KEY_TOO_SMALL:
	case X509_V_ERR_CA_MD_TOO_WEAK:
	case X509_V_ERR_EC_KEY_EXPLICIT_PARAMS:
		return 70;
	case X509_V_ERR_SIGNATURE_ALGORITHM_MISMATCH:
	case X509_V_ERR_SIGNATURE_ALGORITHM_INCONSISTENCY:
		return 73;
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_CERT_UNTRUSTED:
		return 44;
	case X509_V_ERR_INVALID_EXTENSION:
		return 203;
	default:
		return 204;
	}
}

/*
 * X509_STRICT makes three demands that RFC 5280 puts on whoever issues, not on path validation, and that SPIFFE does not
 * name: key identifiers, and basicConstraints being critical. Issuers without them exist.
 */
static int tolerate_issuer_duties(int ok, X509_STORE_CTX *ctx)
{
	if (ok)
		return 1;
	switch (X509_STORE_CTX_get_error(ctx)) {
	case X509_V_ERR_MISSING_AUTHORITY_KEY_IDENTIFIER:
	case X509_V_ERR_MISSING_SUBJECT_KEY_IDENTIFIER:
	case X509_V_ERR_CA_BCONS_NOT_CRITICAL:
		return 1;
	default:
		return 0;
	}
}

/* No purpose: extended key usage of authorities is not ours to judge (rule 57), the leaf's was judged already. */
static int validate_with_openssl(const struct path_search *search, struct svid_verdict *failure)
{
	__attribute__((cleanup(store_freep))) X509_STORE *store = X509_STORE_new();
	__attribute__((cleanup(store_ctx_freep))) X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	__attribute__((cleanup(stack_freep))) STACK_OF(X509) *between = sk_X509_new_null();
	X509_VERIFY_PARAM *param;
	int r, error;

	if (store == NULL || ctx == NULL || between == NULL)
		return -ENOMEM;
	for (size_t i = 1; i + 1 < search->len; i++) {
		if (sk_X509_push(between, search->path[i]) == 0)
			return -ENOMEM;
	}
	if (X509_STORE_add_cert(store, search->path[search->len - 1]) != 1 ||
	    X509_STORE_CTX_init(ctx, store, search->path[0], between) != 1)
		return -ENOMEM;
	param = X509_STORE_CTX_get0_param(ctx);
	/* We ask for no policy; but certificates may ask for one in those below them. */
	X509_VERIFY_PARAM_set_flags(param,
				    X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_X509_STRICT | X509_V_FLAG_POLICY_CHECK);
	if (X509_VERIFY_PARAM_add0_policy(param, OBJ_nid2obj(NID_any_policy)) != 1)
		return -ENOMEM;
	X509_VERIFY_PARAM_set_auth_level(param, 2);
	X509_VERIFY_PARAM_set_time(param, search->now);
	X509_STORE_CTX_set_verify_cb(ctx, tolerate_issuer_duties);

	r = X509_verify_cert(ctx);
	error = X509_STORE_CTX_get_error(ctx);
	ERR_clear_error();
	if (r == 1)
		return 0;
	if (error == X509_V_ERR_OUT_OF_MEM)
		return -ENOMEM;
	return verdict_refuse(failure, rule_of_openssl(error), X509_STORE_CTX_get_error_depth(ctx), "OpenSSL: %s",
			      X509_verify_cert_error_string(error));
}

static int check_part(const struct path_search *search, size_t i, struct svid_verdict *failure)
{
	X509 *certificate = search->path[i];
	int depth = (int)i;

	if (i > 0 && certificate_check_signer(certificate, depth, failure) != 0)
		return 1;
	if (certificate_check_key(certificate, depth, failure) != 0)
		return 1;
	return certificate_check_time(certificate, depth, search->now, failure);
}

/* 0: it is valid. */
static int check_whole_path(struct path_search *search)
{
	struct svid_verdict failure = {.rule = 0};
	int r = 0;

	snprintf(failure.trust_domain, sizeof(failure.trust_domain), "%s", search->trust_domain);
	for (size_t i = 0; r == 0 && i < search->len; i++)
		r = check_part(search, i, &failure);
	if (r == 0)
		r = validate_with_openssl(search, &failure);
	failure.at_authority = failure.depth == (int)search->len - 1;
	if (r == 1)
		search_note(search, RANK_WHOLE_PATH, &failure);
	if (r == 0)
		memcpy(search->note, failure.note, sizeof(search->note));
	return r;
}

/* 1 signed, 0 not, -E2BIG when enough signatures were looked at. */
static int is_signed_by(struct path_search *search, X509 *subject, X509 *issuer)
{
	EVP_PKEY *key = X509_get0_pubkey(issuer);
	int r;

	if (search->signatures_left == 0)
		return -E2BIG;
	search->signatures_left--;
	r = key != NULL ? X509_verify(subject, key) : 0;
	ERR_clear_error();
	return r == 1;
}

static bool is_named_by(X509 *subject, X509 *issuer)
{
	return X509_NAME_cmp(X509_get_issuer_name(subject), X509_get_subject_name(issuer)) == 0;
}

static bool is_on_path(const struct path_search *search, X509 *certificate)
{
	for (size_t i = 0; i < search->len; i++) {
		if (X509_cmp(search->path[i], certificate) == 0)
			return true;
	}
	return false;
}

/* A whole path is valid: notes its authority, with the time of the path that lasts longest. */
static int search_accept(struct path_search *search)
{
	uint8_t id[32];
	time_t not_after = INT64_MAX;
	unsigned i = 0;

	if (X509_digest(search->path[search->len - 1], EVP_sha256(), id, NULL) != 1)
		return -ENOMEM;
	for (size_t at = 0; at < search->len; at++) {
		time_t one = certificate_not_after(search->path[at]);

		not_after = one < not_after ? one : not_after;
	}
	while (i < search->n_anchors && memcmp(search->anchors[i].id, id, sizeof(search->anchors[i].id)) != 0)
		i++;
	if (i == SVID_MAX_ANCHORS)
		return 0;
	if (i == search->n_anchors) {
		memcpy(search->anchors[i].id, id, sizeof(search->anchors[i].id));
		search->anchors[i].not_after = not_after;
		search->n_anchors++;
	} else if (not_after > search->anchors[i].not_after) {
		search->anchors[i].not_after = not_after;
	}
	return 0;
}

/* An authority that the chain brings along was looked at as an authority; being its own issuer, it leads to no other. */
static bool is_known_root(const struct path_search *search, X509 *certificate)
{
	if (!is_named_by(certificate, certificate))
		return false;
	for (int i = 0; i < sk_X509_num(search->bundle->authorities); i++) {
		if (X509_cmp(sk_X509_value(search->bundle->authorities, i), certificate) == 0)
			return true;
	}
	return false;
}

/* Says why the path cannot go on from its last certificate. `named`: an issuer of the right name was there. */
static int note_dead_end(struct path_search *search, bool named)
{
	X509 *last = search->path[search->len - 1];
	int depth = (int)search->len - 1, self_signed = 0;
	struct svid_verdict failure = {.rule = 0};
	char issuer[120];

	certificate_name(X509_get_issuer_name(last), issuer, sizeof(issuer));
	if (is_named_by(last, last)) {
		self_signed = is_signed_by(search, last, last);
		if (self_signed < 0)
			return self_signed;
	}
	if (self_signed)
		verdict_refuse(&failure, 65, depth, "\"%s\" is self-signed and no authority of the bundle of %.80s",
			       issuer, search->bundle->trust_domain);
	else if (named && certificate_algorithms_differ(last))
		verdict_refuse(&failure, 73, depth, "the signature algorithm differs inside and outside");
	else if (named)
		verdict_refuse(&failure, 61, depth, "the signature does not verify with the key of its issuer \"%s\"",
			       issuer);
	else
		verdict_refuse(&failure, 44, depth,
			       "the issuer \"%s\" is neither in the chain nor among the %d authorities of %.80s",
			       issuer, sk_X509_num(search->bundle->authorities), search->bundle->trust_domain);
	search_note(search, (unsigned)search->len, &failure);
	return 1;
}

/* Depth first, authorities before the chain's own certificates. All paths are looked at, until every anchor that can be noted
 * is. Returns 1, or a fault. */
static int search_issuers(struct path_search *search)
{
	X509 *last = search->path[search->len - 1];
	int authorities = sk_X509_num(search->bundle->authorities), found = 0;
	struct svid_verdict failure = {.rule = 0};
	bool named = false;

	for (int i = 0; i < authorities + (int)search->n - 1 && search->n_anchors < SVID_MAX_ANCHORS; i++) {
		X509 *issuer = i < authorities ? sk_X509_value(search->bundle->authorities, i)
					       : search->certificates[i - authorities + 1];
		int r;

		if (!is_named_by(last, issuer) || is_on_path(search, issuer) ||
		    (i >= authorities && is_known_root(search, issuer)))
			continue;
		named = true;
		if (certificate_check_approved(issuer, (int)search->len, &failure) != 0) {
			search_note(search, (unsigned)search->len, &failure);
			continue;
		}
		r = is_signed_by(search, last, issuer);
		if (r < 0)
			return r;
		if (r == 0)
			continue;
		found++;
		search->path[search->len++] = issuer;
		r = i < authorities ? check_whole_path(search) : search_issuers(search);
		if (r == 0)
			r = search_accept(search);
		if (r < 0)
			return r;
		search->len--;
	}
	return found > 0 || search->n_anchors > 0 ? 1 : note_dead_end(search, named);
}

int path_validate(X509 *const *certificates, size_t n, const struct bundle *bundle, time_t now,
		  struct svid_verdict *verdict)
{
	struct path_search search = {
		.certificates = certificates,
		.n = n,
		.bundle = bundle,
		.now = now,
		.trust_domain = verdict->trust_domain,
		.path = {certificates[0]},
		.len = 1,
		.signatures_left = PATH_MAX_SIGNATURES,
	};
	int r = search_issuers(&search);

	/* What was found counts, however many more ways there are. */
	if (r == -E2BIG && search.n_anchors == 0)
		return verdict_refuse(verdict, 202, -1, "the certificates can be ordered in too many ways");
	if (r < 0 && r != -E2BIG)
		return r;
	if (search.n_anchors == 0) {
		verdict->at_authority = search.failure.at_authority;
		return verdict_refuse(verdict, search.failure.rule, search.failure.depth, "%s", search.failure.detail);
	}
	memcpy(verdict->note, search.note, sizeof(verdict->note));
	verdict->not_after = 0;
	for (unsigned i = 0; i < search.n_anchors; i++) {
		if (search.anchors[i].not_after > verdict->not_after)
			verdict->not_after = search.anchors[i].not_after;
	}
	memcpy(verdict->anchors, search.anchors, sizeof(verdict->anchors));
	verdict->n_anchors = search.n_anchors;
	return 0;
}
