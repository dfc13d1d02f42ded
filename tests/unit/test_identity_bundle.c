/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trust bundles: for every rule of section E good texts and bad ones, each broken in one place, with the verdict and the
 * number of the rule that each has to get. `BUNDLE_TABLE=1` prints them.
 */
#include "bundle_world.h"

#include <errno.h>

#include "identity/bundle_text.h"
#include "identity/rules.h"
#include "identity/svid.h"

/* ---- SPIFFE bundles ---- */

#define MEMBERS(members) "{" members ",'use':'x509-svid'}"
#define WITH(x5c) "{'keys':[{@KEY@,'use':'x509-svid','x5c':" x5c "}]}"
#define EDITED(x5c) "{'keys':[{@KEY@,'use':'x509-svid','x5c':['" x5c "']},@SECOND@]}"
#define REFUSED(number) .rule = (number)
#define TAKEN(number) .authorities = (number)
#define DROPPED(number) .dropped = 1, .told = (number)
#define NOTED(number) .told = (number)

static const struct bundle_case {
	const char *name;
	const char *template;
	int rule; /* refused by it */
	unsigned authorities, dropped;
	int told; /* rule of the first entry that is told */
	uint64_t sequence;
	uint32_t refresh_s;
} cases[] = {
	/* 76 */
	{"ok-one", "{'keys':[@ROOT@],'spiffe_sequence':12,'spiffe_refresh_hint':600}", TAKEN(1), .sequence = 12,
	 .refresh_s = 600},
	{"bad-empty-text", "", REFUSED(76)},
	{"bad-json", "{'keys':[@ROOT@]", REFUSED(76)},
	{"bad-half-of-it", "{'keys':[{@KEY@,'use':'x509-svid','x5c':['MII", REFUSED(76)},
	{"bad-behind-it", "{'keys':[@ROOT@]} {}", REFUSED(76)},
	{"bad-bom", "\xef\xbb\xbf{'keys':[@ROOT@]}", REFUSED(76)},
	{"bad-array", "[@ROOT@]", REFUSED(76)},
	{"bad-string", "'keys'", REFUSED(76)},
	{"bad-utf8", "{'keys':[@ROOT@],'note':'\xff'}", REFUSED(76)},
	{"bad-keys-object", "{'keys':{}}", REFUSED(76)},
	{"bad-pem-in-json-file", "-----BEGIN CERTIFICATE-----", REFUSED(76)},
	{"entry-no-object", "{'keys':[1,@ROOT@]}", TAKEN(1), DROPPED(76)},
	/* 77 */
	{"ok-unknown-top", "{'keys':[@ROOT@],'spiffe_new':{'a':[1,2,{'b':null}]},'x':184467440737095516160}", TAKEN(1)},
	{"ok-unknown-in-entry",
	 "{'keys':[{@KEY@,'use':'x509-svid','x5c':['@CERT@'],'alg':'ES256','key_ops':['verify']}]}", TAKEN(1)},
	/* JSON that the reader has no room for is as good as none, wherever it stands. */
	{"bad-number-beyond-doubles", "{'keys':[@ROOT@],'x':1e400}", REFUSED(76)},
	{"bad-nul-in-a-string", "{'keys':[@ROOT@],'x':'a\\u0000b'}", REFUSED(76)},
	{"bad-half-a-surrogate", "{'keys':[@ROOT@],'x':'\\ud800'}", REFUSED(76)},
	{"bad-nested-too-deep", "{'keys':[@ROOT@],'x':@DEEP@}", REFUSED(76)},
	{"ok-number-tiny", "{'keys':[@ROOT@],'x':1e-400}", TAKEN(1)},
	/* 78 */
	{"ok-noseq", "{'keys':[@ROOT@]}", TAKEN(1), .refresh_s = BUNDLE_REFRESH_USUAL_S},
	{"ok-seq-zero", "{'keys':[@ROOT@],'spiffe_sequence':0}", TAKEN(1)},
	{"ok-seq-53", "{'keys':[@ROOT@],'spiffe_sequence':9007199254740993}", TAKEN(1),
	 .sequence = 9007199254740993ULL},
	{"ok-seq-63", "{'keys':[@ROOT@],'spiffe_sequence':9223372036854775809}", TAKEN(1),
	 .sequence = 9223372036854775809ULL},
	{"ok-seq-max", "{'keys':[@ROOT@],'spiffe_sequence' : 18446744073709551615 }", TAKEN(1), .sequence = UINT64_MAX},
	{"ok-seq-escaped-name", "{'spiffe\\u005fsequence':7,'keys':[@ROOT@]}", TAKEN(1), .sequence = 7},
	{"ok-seq-not-the-nested-one", "{'a':{'spiffe_sequence':3},'spiffe_sequence':7,'keys':[@ROOT@]}", TAKEN(1),
	 .sequence = 7},
	{"ok-seq-not-in-a-string", "{'a':'\\'spiffe_sequence\\':3','spiffe_sequence':7,'keys':[@ROOT@]}", TAKEN(1),
	 .sequence = 7},
	{"bad-seq-over-64", "{'keys':[@ROOT@],'spiffe_sequence':18446744073709551616}", REFUSED(78)},
	{"bad-seq-string", "{'keys':[@ROOT@],'spiffe_sequence':'12'}", REFUSED(78)},
	{"bad-seq-real", "{'keys':[@ROOT@],'spiffe_sequence':12.0}", REFUSED(78)},
	{"bad-seq-exponent", "{'keys':[@ROOT@],'spiffe_sequence':1e3}", REFUSED(78)},
	{"bad-seq-negative", "{'keys':[@ROOT@],'spiffe_sequence':-1}", REFUSED(78)},
	{"ok-seq-2-to-63", "{'keys':[@ROOT@],'spiffe_sequence':9223372036854775808}", TAKEN(1),
	 .sequence = 9223372036854775808ULL},
	{"bad-seq-1e400", "{'keys':[@ROOT@],'spiffe_sequence':1e400}", REFUSED(76)},
	{"bad-seq-minus-zero", "{'keys':[@ROOT@],'spiffe_sequence':-0}", REFUSED(78)},
	{"bad-seq-leading-zero", "{'keys':[@ROOT@],'spiffe_sequence':012}", REFUSED(76)},
	{"bad-seq-plus", "{'keys':[@ROOT@],'spiffe_sequence':+12}", REFUSED(76)},
	{"bad-seq-hexadecimal", "{'keys':[@ROOT@],'spiffe_sequence':0x10}", REFUSED(76)},
	{"bad-seq-array", "{'keys':[@ROOT@],'spiffe_sequence':[12]}", REFUSED(78)},
	{"bad-seq-true", "{'keys':[@ROOT@],'spiffe_sequence':true}", REFUSED(78)},
	{"bad-seq-of-300-digits", "{'keys':[@ROOT@],'spiffe_sequence':@DIGITS@}", REFUSED(78)},
	{"bad-seq-null", "{'keys':[@ROOT@],'spiffe_sequence':null}", REFUSED(78)},
	/* 81, 82, 83 */
	{"bad-hint-string", "{'keys':[@ROOT@],'spiffe_refresh_hint':'600'}", REFUSED(81)},
	{"bad-hint-real", "{'keys':[@ROOT@],'spiffe_refresh_hint':0.5}", REFUSED(81)},
	{"bad-hint-exponent", "{'keys':[@ROOT@],'spiffe_refresh_hint':1e3}", REFUSED(81)},
	{"bad-hint-null", "{'keys':[@ROOT@],'spiffe_refresh_hint':null}", REFUSED(81)},
	{"hint-zero", "{'keys':[@ROOT@],'spiffe_refresh_hint':0}", TAKEN(1), .refresh_s = BUNDLE_REFRESH_MIN_S},
	{"hint-neg", "{'keys':[@ROOT@],'spiffe_refresh_hint':-5}", TAKEN(1), .refresh_s = BUNDLE_REFRESH_MIN_S},
	{"hint-huge", "{'keys':[@ROOT@],'spiffe_refresh_hint':99999999999999999999}", TAKEN(1),
	 .refresh_s = BUNDLE_REFRESH_MAX_S},
	/* 84, 85, 86, 93 */
	{"bad-no-keys", "{'spiffe_sequence':1}", REFUSED(84)},
	{"bad-keys-null", "{'keys':null}", REFUSED(84)},
	{"empty-keys", "{'keys':[]}", TAKEN(0)},
	{"empty-effective", "{'keys':[@LEAF@]}", TAKEN(0), DROPPED(96)},
	/* 87 */
	{"ok-unknown-kty", "{'keys':[{'kty':'PQC','use':'x509-svid','x5c':['@CERT@']},@SECOND@]}", TAKEN(1),
	 DROPPED(87)},
	{"ok-missing-kty", "{'keys':[{'use':'x509-svid','x5c':['@CERT@']},@SECOND@]}", TAKEN(1), DROPPED(87)},
	{"kty-case", "{'keys':[{'kty':'ec','use':'x509-svid','x5c':['@CERT@']},@SECOND@]}", TAKEN(1), DROPPED(87)},
	/* 88, 89 */
	{"ok-missing-use", "{'keys':[{@KEY@,'x5c':['@CERT@']},@SECOND@]}", TAKEN(1), DROPPED(88)},
	{"ok-unknown-use", "{'keys':[{@KEY@,'use':'sig','x5c':['@CERT@']},@SECOND@]}", TAKEN(1), DROPPED(89)},
	{"use-case", "{'keys':[{@KEY@,'use':'x509-SVID','x5c':['@CERT@']},@SECOND@]}", TAKEN(1), DROPPED(89)},
	{"use-no-string", "{'keys':[{@KEY@,'use':['x509-svid'],'x5c':['@CERT@']},@SECOND@]}", TAKEN(1), DROPPED(89)},
	{"ok-wit", "{'keys':[{@KEY@,'use':'wit-svid','x5c':['@CERT@']},@SECOND@]}", TAKEN(1)},
	/* 90, 91, 92 */
	{"ok-x5c-missing", "{'keys':[{@KEY@,'use':'x509-svid'},@SECOND@]}", TAKEN(1), DROPPED(90)},
	{"ok-x5c-empty", "{'keys':[{@KEY@,'use':'x509-svid','x5c':[]},@SECOND@]}", TAKEN(1), DROPPED(90)},
	{"x5c-no-array", "{'keys':[{@KEY@,'use':'x509-svid','x5c':'@CERT@'},@SECOND@]}", TAKEN(1), DROPPED(90)},
	{"ok-x5c-two", WITH("['@CERT@','@SECONDCERT@']"), TAKEN(1), NOTED(91)},
	{"x5c-second-is-garbage", WITH("['@CERT@','***']"), TAKEN(1), NOTED(91)},
	{"ok-2", "{'keys':[@ROOT@,@SECOND@]}", TAKEN(2)},
	{"ok-dup-key", "{'keys':[@ROOT@,@ROOT@]}", TAKEN(1)},
	{"ok-every-kind", "{'keys':[@ROOT@,@RSA@,@ED@,@P384@]}", TAKEN(4)},
	/* JWK has one kind of RSA key (RFC 7518 6.3), certificates have two (RFC 4055 1.2). */
	{"ok-rsa-pss", "{'keys':[@PSS@]}", TAKEN(1)},
	{"rsa-pss-mismatch", "{'keys':[{@RSAKEY@,'use':'x509-svid','x5c':['@PSSCERT@']},@SECOND@]}", TAKEN(1),
	 DROPPED(97)},
	/* 94, 95 */
	{"ok-kid-set", "{'keys':[{@KEY@,'kid':'one','use':'x509-svid','x5c':['@CERT@']}]}", TAKEN(1)},
	{"ok-jwt", "{'keys':[{@OTHERKEY@,'kid':'j','use':'jwt-svid'},@ROOT@]}", TAKEN(1)},
	{"ok-jwt-nokid", "{'keys':[{@OTHERKEY@,'use':'jwt-svid'},@ROOT@]}", TAKEN(1)},
	{"jwt-only", "{'keys':[{@OTHERKEY@,'kid':'j','use':'jwt-svid'}]}", TAKEN(0)},
	/* 96 */
	{"x5c-leaf", "{'keys':[@LEAF@,@ROOT@]}", TAKEN(1), DROPPED(96)},
	{"x5c-no-cert-sign", "{'keys':[@NOSIGN@,@ROOT@]}", TAKEN(1), DROPPED(96)},
	{"x5c-v1", "{'keys':[@V1@,@ROOT@]}", TAKEN(1), DROPPED(96)},
	/* 97, 72 */
	{"x5c-base64url", "{'keys':[{@KEY@,'use':'x509-svid','x5c':['@CERTURL@_-']},@SECOND@]}", TAKEN(1), DROPPED(97)},
	{"x5c-pem", "{'keys':[{@KEY@,'use':'x509-svid','x5c':['@CERTPEM@']},@SECOND@]}", TAKEN(1), DROPPED(97)},
	{"x5c-lines", "{'keys':[{@KEY@,'use':'x509-svid','x5c':['@CERTLINES@']},@SECOND@]}", TAKEN(1), DROPPED(97)},
	{"x5c-no-string", "{'keys':[{@KEY@,'use':'x509-svid','x5c':[7]},@SECOND@]}", TAKEN(1), DROPPED(97)},
	{"x5c-empty-string", "{'keys':[{@KEY@,'use':'x509-svid','x5c':['']},@SECOND@]}", TAKEN(1), DROPPED(97)},
	{"x5c-no-certificate", "{'keys':[{@KEY@,'use':'x509-svid','x5c':['AAAA']},@SECOND@]}", TAKEN(1), DROPPED(97)},
	{"x5c-bits-left-over", "{'keys':[{@KEY@,'use':'x509-svid','x5c':['AAB=']},@SECOND@]}", TAKEN(1), DROPPED(97)},
	{"x5c-mismatch", "{'keys':[{@OTHERKEY@,'use':'x509-svid','x5c':['@CERT@']},@SECOND@]}", TAKEN(1), DROPPED(97)},
	{"x5c-mismatch-kind", "{'keys':[{@RSAKEY@,'use':'x509-svid','x5c':['@CERT@']},@SECOND@]}", TAKEN(1),
	 DROPPED(97)},
	{"key-members-missing", "{'keys':[{'kty':'EC','use':'x509-svid','x5c':['@CERT@']},@SECOND@]}", TAKEN(1),
	 DROPPED(97)},
	{"key-off-the-curve",
	 "{'keys':[{'kty':'EC','crv':'P-256','x':'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA',"
	 "'y':'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA','use':'x509-svid','x5c':['@CERT@']},@SECOND@]}",
	 TAKEN(1), DROPPED(97)},
	{"x5c-trailing", "{'keys':[{@KEY@,'use':'x509-svid','x5c':['@CERTTRAIL@']},@SECOND@]}", TAKEN(1), DROPPED(72)},
	{"x5c-extension-twice", "{'keys':[@BADEXT@,@SECOND@]}", TAKEN(1), DROPPED(203)},
	/* 205 */
	{"x5c-long-length-inside", EDITED("@LONGTBS@"), TAKEN(1), DROPPED(205)},
	{"x5c-long-length", EDITED("@LONGALL@"), TAKEN(1), DROPPED(205)},
	{"x5c-indefinite-length", EDITED("@INDEFINITE@"), TAKEN(1), DROPPED(205)},
	{"x5c-string-in-pieces", EDITED("@PIECES@"), TAKEN(1), DROPPED(205)},
	{"x5c-boolean-one", EDITED("@BOOLEAN@"), TAKEN(1), DROPPED(205)},
	{"x5c-long-length-in-extension", EDITED("@INVALUE@"), TAKEN(1), DROPPED(205)},
	{"x5c-behind-extension", EDITED("@BEHIND@"), TAKEN(1), DROPPED(205)},
	{"ok-x5c-default-written-out", EDITED("@DEFAULT@"), TAKEN(2)},
	/* 98 */
	{"x5c-other-td", "{'keys':[@OTHERTD@]}", TAKEN(1), NOTED(98)},
	/* 103 */
	{"dup-keys-member", "{'keys':[@ROOT@],'keys':[]}", REFUSED(103)},
	{"dup-sequence", "{'keys':[@ROOT@],'spiffe_sequence':1,'spiffe_sequence':2}", REFUSED(103)},
	{"dup-in-entry", "{'keys':[{@KEY@,'use':'jwt-svid','use':'x509-svid','x5c':['@CERT@']}]}", REFUSED(103)},
	{"dup-by-escape", "{'keys':[@ROOT@],'\\u006beys':[]}", REFUSED(103)},
	/* 211 */
	{"too-many", "{'keys':[@CROWD@]}", REFUSED(211)},
};

static void check_case(struct world *world, const struct bundle_case *one)
{
	struct bundle_report report;
	size_t len;
	char *text = expand(world, one->template, &len);
	int r;

	bundle_set_remove(world->bundles, TD);
	r = bundle_set_load(world->bundles, TD, BUNDLE_JWKS, text, len, &report);
	if (getenv("BUNDLE_TABLE"))
		printf("%-28s %-8s %2u authorities, %u dropped  %s %s\n", one->name, r < 0 ? "refused" : "taken",
		       report.total, report.dropped, r < 0 ? report.why : "",
		       report.n_entries ? report.entries[0].text : "");
	if (r != (one->rule ? -EINVAL : (int)one->authorities) || report.rule != one->rule ||
	    report.dropped != one->dropped || (report.n_entries ? report.entries[0].rule : 0) != one->told ||
	    report.sequence != one->sequence || (one->refresh_s && report.refresh_s != one->refresh_s))
		fail_msg("%s: %d, rule %d, %u dropped, told %d, sequence %llu, refresh %u: %s", one->name, r,
			 report.rule, report.dropped, report.n_entries ? report.entries[0].rule : 0,
			 (unsigned long long)report.sequence, report.refresh_s, report.why);
	if (one->rule) {
		assert_non_null(strstr(report.why, svid_rule_name(one->rule)));
		assert_int_equal(bundle_set_authorities(world->bundles, TD), -ENOENT);
	}
	for (unsigned i = 0; i < report.n_entries; i++)
		assert_string_not_equal(svid_rule_name(report.entries[i].rule), "unknown-rule");
	free(text);
}

static void every_rule_of_a_spiffe_bundle_has_its_verdict(void **state)
{
	assert_true(sizeof(cases) / sizeof(cases[0]) >= 40);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		check_case(*state, &cases[i]);
}

/* Each byte of a good bundle left off at the end: nothing short of the whole is taken. */
static void no_part_of_a_spiffe_bundle_is_a_bundle(void **state)
{
	struct world *world = *state;
	struct bundle_report report;
	size_t len;
	char *text = expand(world, "{'keys':[@ROOT@]}", &len);

	for (size_t i = 0; i < len; i++)
		assert_int_equal(bundle_set_load(world->bundles, "cut.example", BUNDLE_JWKS, text, i, &report),
				 -EINVAL);
	assert_int_equal(bundle_set_load(world->bundles, "cut.example", BUNDLE_JWKS, text, len, &report), 1);
	free(text);
}

static int load(struct world *world, const char *template, struct bundle_report *report)
{
	size_t len;
	char *text = expand(world, template, &len);
	int r = bundle_set_load(world->bundles, TD, BUNDLE_JWKS, text, len, report);

	free(text);
	return r;
}

static void a_sequence_only_grows(void **state)
{
	struct world *world = *state;
	struct bundle_report report;

	bundle_set_remove(world->bundles, TD);
	assert_int_equal(load(world, "{'keys':[@ROOT@],'spiffe_sequence':18446744073709551614}", &report), 1);
	assert_true(report.changed);
	/* The same once more, written in another way. */
	assert_int_equal(load(world, "{ 'spiffe_sequence':18446744073709551614, 'keys':[@ROOT@] }", &report), 1);
	assert_false(report.changed);
	/* As doubles all of them are equal. */
	assert_int_equal(load(world, "{'keys':[@ROOT@],'spiffe_sequence':18446744073709551613}", &report), -EINVAL);
	assert_int_equal(report.rule, 79);
	assert_int_equal(load(world, "{'keys':[@ROOT@,@SECOND@],'spiffe_sequence':18446744073709551614}", &report),
			 -EINVAL);
	assert_int_equal(report.rule, 80);
	assert_int_equal(bundle_set_authorities(world->bundles, TD), 1);
	assert_int_equal(load(world, "{'keys':[@SECOND@,@ROOT@],'spiffe_sequence':18446744073709551615}", &report), 2);
	assert_int_equal(load(world, "{'keys':[],'spiffe_sequence':18446744073709551615}", &report), -EINVAL);
	assert_int_equal(report.rule, 80);
	/* Without one, the last one counts; then there is none to compare with. */
	assert_int_equal(load(world, "{'keys':[@SECOND@]}", &report), 1);
	assert_int_equal(load(world, "{'keys':[@ROOT@],'spiffe_sequence':1}", &report), 1);
	/* Whoever removes it forgets its sequence. */
	bundle_set_remove(world->bundles, TD);
	assert_int_equal(load(world, "{'keys':[@ROOT@],'spiffe_sequence':0}", &report), 1);
}

static void a_trust_domain_without_a_name_has_no_bundle(void **state)
{
	struct world *world = *state;
	struct bundle_report report;
	static const char *const names[] = {"", "Prod.example", "a b", "a/b", "a:1"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		assert_int_equal(bundle_set_load(world->bundles, names[i], BUNDLE_JWKS, "{}", 2, &report), -EINVAL);
		assert_true(report.rule > 0 && report.rule < 20);
	}
}

/* ---- PEM and DER ---- */

static int load_text(struct world *world, enum bundle_format format, const char *text, size_t len,
		     struct bundle_report *report)
{
	bundle_set_remove(world->bundles, TD);
	return bundle_set_load(world->bundles, TD, format, text, len, report);
}

static void every_rule_of_a_pem_bundle_has_its_verdict(void **state)
{
	struct world *world = *state;
	char *good = certs_pem((const struct cert *[]){&world->root, &world->second}, 2);
	char *leaf = certs_pem((const struct cert *[]){&world->leaf}, 1);
	char *other = certs_pem((const struct cert *[]){&world->other_td}, 1);
	const struct {
		const char *name, *before, *text, *after;
		int rule;
		unsigned authorities, dropped;
		int told;
	} pems[] = {
		{"two", "", good, "", 0, 2, 0, 0},
		{"words around", "issued by hand\n", good, "\nthe end\n", 0, 2, 0, 0},
		{"twice", good, good, "", 0, 2, 0, 0},
		{"a leaf", leaf, good, "", 0, 2, 1, 68},
		{"a leaf alone", "", leaf, "", 0, 0, 1, 68},
		{"no certificate among them", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", good,
		 "", 0, 2, 1, 201},
		{"other trust domain", "", other, "", 0, 1, 0, 98},
		{"nothing", "", "", "", 210, 0, 0, 0},
		{"no PEM", "", "no PEM at all", "", 210, 0, 0, 0},
		{"only garbage", "", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "", 210, 0, 1,
		 201},
		{"a key", good, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "", 210, 0, 0, 0},
		{"cut off", good, "-----BEGIN CERTIFICATE-----\nMIIB", "", 210, 0, 0, 0},
		{"JSON", "", "{\"keys\":[]}", "", 210, 0, 0, 0},
	};

	for (size_t i = 0; i < sizeof(pems) / sizeof(pems[0]); i++) {
		struct bundle_report report;
		char *text;
		int len = asprintf(&text, "%s%s%s", pems[i].before, pems[i].text, pems[i].after);
		int r = load_text(world, BUNDLE_PEM, text, (size_t)len, &report);

		if (r != (pems[i].rule ? -EINVAL : (int)pems[i].authorities) || report.rule != pems[i].rule ||
		    report.dropped != pems[i].dropped ||
		    (report.n_entries ? report.entries[0].rule : 0) != pems[i].told)
			fail_msg("%s: %d, rule %d, %u dropped: %s", pems[i].name, r, report.rule, report.dropped,
				 report.why);
		free(text);
	}
	free(good);
	free(leaf);
	free(other);
}

static void certificates_one_behind_the_other_are_a_bundle(void **state)
{
	struct world *world = *state;
	const struct cert *const certs[] = {&world->root, &world->leaf, &world->second};
	struct bundle_report report;
	char text[8192];
	size_t len = 0;

	for (size_t i = 0; i < 3; i++) {
		size_t one;
		unsigned char *der = der_of(certs[i], &one);

		memcpy(text + len, der, one);
		len += one;
		OPENSSL_free(der);
	}
	assert_int_equal(load_text(world, BUNDLE_DER, text, len, &report), 2);
	assert_int_equal(report.dropped, 1);
	assert_int_equal(report.entries[0].index, 1);
	assert_int_equal(report.entries[0].rule, 96);
	assert_int_equal(load_text(world, BUNDLE_DER, text, len - 1, &report), -EINVAL);
	assert_int_equal(report.rule, 201);
	assert_int_equal(load_text(world, BUNDLE_DER, text, 0, &report), 0);
}

static char *pem_of(const uint8_t *der, size_t len)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *bytes, *text;
	long n;

	CERTS_MUST(PEM_write_bio(bio, PEM_STRING_X509, "", der, (long)len) > 0);
	n = BIO_get_mem_data(bio, &bytes);
	text = strndup(bytes, (size_t)n);
	BIO_free(bio);
	return text;
}

static void check_beside_a_good_one(struct world *world, enum bundle_format format, const char *text, size_t len,
				    bool taken)
{
	struct bundle_report report;

	assert_int_equal(load_text(world, format, text, len, &report), 1 + taken);
	assert_int_equal(report.dropped, !taken);
	if (!taken)
		assert_int_equal(report.entries[0].rule, 205);
}

/* In every form of a bundle: the entry goes, the bundle stays. */
static void an_authority_that_is_not_der_is_dropped(void **state)
{
	struct world *world = *state;
	size_t good_len, len;
	unsigned char *good = der_of(&world->second, &good_len);
	char *good_pem = pem_of(good, good_len);

	for (size_t i = 0; i < N_ENCODINGS; i++) {
		bool taken = i == N_ENCODINGS - 1;
		uint8_t *der = encoded(&world->root, &encodings[i], &len);
		char *pem = pem_of(der, len), *both;

		assert_true(asprintf(&both, "%s%s", pem, good_pem) > 0);
		check_beside_a_good_one(world, BUNDLE_PEM, both, strlen(both), taken);
		der = realloc(der, len + good_len);
		memcpy(der + len, good, good_len);
		check_beside_a_good_one(world, BUNDLE_DER, (const char *)der, len + good_len, taken);
		free(both);
		free(pem);
		free(der);
	}
	free(good_pem);
	OPENSSL_free(good);
}

static void a_bundle_of_more_than_4_mib_is_refused(void **state)
{
	struct bundle_report report;
	char *text = malloc(BUNDLE_MAX_BYTES + 1);

	memset(text, ' ', BUNDLE_MAX_BYTES + 1);
	assert_int_equal(load_text(*state, BUNDLE_JWKS, text, BUNDLE_MAX_BYTES + 1, &report), -EINVAL);
	assert_int_equal(report.rule, 211);
	free(text);
}

/* ---- authorities ---- */

static void an_authority_is_told_from_others(void **state)
{
	struct world *world = *state;
	struct bundle_authority_info info;
	struct bundle_report report;
	unsigned char digest[32];

	bundle_set_remove(world->bundles, TD);
	assert_int_equal(load(world, "{'keys':[@ROOT@,@SECOND@]}", &report), 2);
	assert_true(bundle_set_authority(world->bundles, TD, 1, &info));
	assert_int_equal(X509_digest(world->second.x509, EVP_sha256(), digest, NULL), 1);
	assert_memory_equal(info.id, digest, sizeof(digest));
	assert_string_equal(info.subject, "CN=second");
	assert_int_equal(strlen(info.key_id), 40);
	assert_true(info.not_after > time(NULL) + 9 * CERTS_DAY);
	assert_false(bundle_set_authority(world->bundles, TD, 2, &info));
	assert_false(bundle_set_authority(world->bundles, "other.example", 0, &info));
}

/* The authority of a leaf issued by an intermediate that two roots have signed. */
static void every_authority_that_a_chain_leads_to_is_named(void **state)
{
	struct world *world = *state;
	EVP_PKEY *key = certs_key("P-256");
	struct cert_spec spec = {.subject = "between", .key = key, .until = 5 * CERTS_DAY}, later = spec;
	struct cert by_root, by_second, leaf;
	struct svid_chain *chain = NULL;
	struct svid_verdict verdict;
	struct bundle_report report;
	char *pem;

	later.until = CERTS_DAY / 2;
	by_root = certs_ca(&world->root, &spec);
	by_second = certs_ca(&world->second, &later);
	leaf = certs_leaf(&by_root, &(struct cert_spec){0});
	pem = certs_pem((const struct cert *[]){&leaf, &by_root, &by_second}, 3);
	assert_int_equal(svid_chain_parse_pem(&chain, pem, strlen(pem), &verdict), 0);

	bundle_set_remove(world->bundles, TD);
	assert_int_equal(load(world, "{'keys':[@ROOT@,@SECOND@,@RSA@]}", &report), 3);
	assert_int_equal(svid_verify(chain, world->bundles, time(NULL), &verdict), 0);
	assert_int_equal(verdict.n_anchors, 2);
	/* One path ends with the leaf, the other one with the intermediate above it. */
	assert_int_equal(verdict.not_after, verdict.anchors[0].not_after);
	assert_true(verdict.anchors[1].not_after < verdict.anchors[0].not_after);

	assert_int_equal(load(world, "{'keys':[@SECOND@]}", &report), 1);
	assert_int_equal(svid_verify(chain, world->bundles, time(NULL), &verdict), 0);
	assert_int_equal(verdict.n_anchors, 1);
	assert_true(verdict.not_after < time(NULL) + CERTS_DAY / 2 + 10);
	svid_chain_freep(&chain);
	free(pem);
	cert_free(&leaf);
	cert_free(&by_root);
	cert_free(&by_second);
	EVP_PKEY_free(key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_rule_of_a_spiffe_bundle_has_its_verdict),
		cmocka_unit_test(no_part_of_a_spiffe_bundle_is_a_bundle),
		cmocka_unit_test(a_sequence_only_grows),
		cmocka_unit_test(a_trust_domain_without_a_name_has_no_bundle),
		cmocka_unit_test(every_rule_of_a_pem_bundle_has_its_verdict),
		cmocka_unit_test(certificates_one_behind_the_other_are_a_bundle),
		cmocka_unit_test(an_authority_that_is_not_der_is_dropped),
		cmocka_unit_test(a_bundle_of_more_than_4_mib_is_refused),
		cmocka_unit_test(an_authority_is_told_from_others),
		cmocka_unit_test(every_authority_that_a_chain_leads_to_is_named),
	};

	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
