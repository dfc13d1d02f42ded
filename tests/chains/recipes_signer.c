/* SPDX-License-Identifier: Apache-2.0 */
/* Section C: signing certificates, the intermediate (place 1) and the authority in the bundle (place 2). */
#include "tests/chains/chains.h"

static void authority_to_sign(struct chain_maker *maker)
{
	static const struct chain_recipe recipes[] = {
		{NO("int-no-ca", 47, 1), BETWEEN(.basic = "critical,CA:FALSE")},
		{NO("int-no-bc", 47, 1), BETWEEN(.basic = "")},
		{NO("int-no-bc-certsign", 47, 1), BETWEEN(.basic = "", .usage = "critical,keyCertSign")},
		{NO("int-empty-bc", 47, 1), BETWEEN(.basic = "CA:FALSE")},
		{OK("int-bc-noncritical", 47), BETWEEN(.basic = "CA:TRUE")},
		{TOLD_AS("root-nobc", 47, 21, -1), ROOT(.basic = "")},
		{TOLD_AS("root-no-ca", 47, 21, -1), ROOT(.basic = "critical,CA:FALSE")},
		{OK("root-bc-noncritical", 47), ROOT(.basic = "CA:TRUE")},
		{NO("leaf-by-leaf", 47, 1),
		 .more = {{.name = 'M', .issuer = 'B', .leaf = true, .spec = {.subject = "other"}}}, .leaf.issuer = 'M',
		 .order = "LMB"},
		{NO("leaf-by-leaf-certsign", 47, 1),
		 .more = {{.name = 'M', .issuer = 'B', .leaf = true, .spec = {.usage = "critical,keyCertSign"}}},
		 .leaf.issuer = 'M', .order = "LMB"},
		{NO("int-no-certsign", 48, 1), BETWEEN(.usage = "critical,cRLSign")},
		{NO("int-digsig-only", 48, 1), BETWEEN(.usage = "critical,digitalSignature")},
		{TOLD_AS("root-nocs", 48, 21, -1), ROOT(.usage = "critical,cRLSign")},
		{NO("int-no-ku", 49, 1), BETWEEN(.usage = "")},
		{NO("root-noku", 49, 2), ROOT(.usage = "")},
		{NO("int-ku-noncrit", 50, 1), BETWEEN(.usage = "keyCertSign,cRLSign")},
		{NO("root-ku-noncrit", 50, 2), ROOT(.usage = "keyCertSign,cRLSign")},
		{OK("int-certsign-only", 56), BETWEEN(.usage = "critical,keyCertSign")},
		{OK("int-digsig", 56), BETWEEN(.usage = "critical,keyCertSign,cRLSign,digitalSignature")},
		{OK("root-digsig", 56), ROOT(.usage = "critical,keyCertSign,digitalSignature")},
		{OK("int-eku-server", 57), BETWEEN(.extended = "serverAuth")},
		{OK("int-eku-both", 57), BETWEEN(.extended = "serverAuth,clientAuth")},
		{OK("int-eku-other", 57), BETWEEN(.extended = "codeSigning")},
		{OK("int-eku-critical", 57), BETWEEN(.extended = "critical,emailProtection")},
		{OK("root-eku-server", 57), ROOT(.extended = "serverAuth")},
		{NO("int-v1", 60, 1), BETWEEN(.version = 1)},
		{TOLD_AS("root-v1", 60, 21, -1), ROOT(.version = 1)},
		{NO("int-v2", 60, 1), .between.edits = {{DER_VERSION, DER_REPLACE, BYTES("\xa0\x03\x02\x01\x01")}}},
		{OK("int-no-key-identifiers", 47), BETWEEN(.no_key_identifiers = true)},
		{OK("root-no-key-identifiers", 47), ROOT(.no_key_identifiers = true)},
		{OK("leaf-no-key-identifiers", 47), LEAF(.no_key_identifiers = true)},
	};

	CHAINS_MAKE_ALL(maker, recipes);
}

static void ids(struct chain_maker *maker)
{
	static const struct chain_recipe recipes[] = {
		{OK("int-no-san", 51)},
		{OK("int-san-td", 51), BETWEEN(.san = "URI:spiffe://prod.example")},
		{OK("root-san-td", 51), ROOT(.san = "URI:spiffe://prod.example")},
		{OK("int-san-https", 51), BETWEEN(.san = "URI:https://pki.example/ca")},
		{OK("int-san-dns", 51), BETWEEN(.san = "DNS:ca.prod.example")},
		{NO("int-with-path", 52, 1), BETWEEN(.san = "URI:spiffe://prod.example/ca")},
		{NO("int-with-path-slash", 52, 1), BETWEEN(.san = "URI:spiffe://prod.example/ca/")},
		{NO("int-with-two-slashes", 52, 1), BETWEEN(.san = "URI:spiffe://prod.example//")},
		{NO("root-path", 52, 2), ROOT(.san = "URI:spiffe://prod.example/ca")},
		{OK("int-slash", 53), BETWEEN(.san = "URI:spiffe://prod.example/")},
		{OK("root-slash", 53), ROOT(.san = "URI:spiffe://prod.example/")},
		{OK("int-other-td", 54), BETWEEN(.san = "URI:spiffe://other.example"),
		 .note = "spiffe://other.example"},
		{OK("int-other-td-slash", 54), BETWEEN(.san = "URI:spiffe://other.example/"), .note = "other.example"},
		{OK("int-parent-td", 54), BETWEEN(.san = "URI:spiffe://example"), .note = "spiffe://example"},
		{OK("root-other-td", 54), ROOT(.san = "URI:spiffe://other.example"), .note = "spiffe://other.example"},
		{NO("int-two-uri", 55, 1), BETWEEN(.san = "URI:spiffe://prod.example,URI:spiffe://b.example")},
		{NO("int-two-uri-https", 55, 1), BETWEEN(.san = "URI:spiffe://prod.example,URI:https://pki.example/")},
		{NO("int-two-uri-same", 55, 1), BETWEEN(.san = "URI:spiffe://prod.example,URI:spiffe://prod.example")},
		{NO("root-two-uri", 55, 2), ROOT(.san = "URI:spiffe://prod.example,URI:spiffe://b.example")},
		{TOLD_AS("int-td-upper", 52, 7, 1), BETWEEN(.san = "URI:spiffe://PROD.example")},
		{TOLD_AS("int-td-port", 52, 6, 1), BETWEEN(.san = "URI:spiffe://prod.example:443")},
		{TOLD_AS("int-no-td", 52, 2, 1), BETWEEN(.san = "URI:spiffe://")},
		{TOLD_AS("int-td-nul", 45, 45, 1),
		 BETWEEN(.san_raw_uri = "spiffe://prod.example\0.evil", .san_raw_len = 27)},
		{TOLD_AS("int-td-query", 52, 3, 1), BETWEEN(.san = "URI:spiffe://prod.example?a")},
		{TOLD_AS("int-td-fragment", 52, 4, 1), BETWEEN(.san = "URI:spiffe://prod.example#a")},
		{TOLD_AS("int-scheme-upper", 52, 8, 1), BETWEEN(.san = "URI:SPIFFE://prod.example")},
	};

	CHAINS_MAKE_ALL(maker, recipes);
}

/* A second intermediate C below B. */
#define SECOND .name = 'C', .issuer = 'B'

static void path_lengths(struct chain_maker *maker)
{
	static const struct chain_recipe recipes[] = {
		{OK("plen-0-leaf", 58), BETWEEN(.basic = "critical,CA:TRUE,pathlen:0")},
		{NO("plen-0-two", 58, CHAIN_ANY_DEPTH), BETWEEN(.basic = "critical,CA:TRUE,pathlen:0"),
		 .more = {{SECOND, .spec = {.subject = "second"}}}, .leaf.issuer = 'C', .order = "LCB"},
		{OK("plen-1-two", 58), BETWEEN(.basic = "critical,CA:TRUE,pathlen:1"),
		 .more = {{SECOND, .spec = {.subject = "second"}}}, .leaf.issuer = 'C', .order = "LCB"},
		{NO("plen-root-0", 58, CHAIN_ANY_DEPTH), ROOT(.basic = "critical,CA:TRUE,pathlen:0")},
		{OK("plen-root-0-direct", 58), ROOT(.basic = "critical,CA:TRUE,pathlen:0"), .leaf.issuer = 'R',
		 .order = "L"},
		{OK("plen-root-1", 58), ROOT(.basic = "critical,CA:TRUE,pathlen:1")},
		{NO("plen-root-1-two", 58, CHAIN_ANY_DEPTH), ROOT(.basic = "critical,CA:TRUE,pathlen:1"),
		 .more = {{SECOND, .spec = {.subject = "second"}}}, .leaf.issuer = 'C', .order = "LCB"},
		{OK("plen-self-issued-not-counted", 58), ROOT(.basic = "critical,CA:TRUE,pathlen:1"),
		 BETWEEN(.subject = "root"), .more = {{SECOND, .spec = {.subject = "second"}}}, .leaf.issuer = 'C',
		 .order = "LCB"},
		{OK("plen-large", 58), BETWEEN(.basic = "critical,CA:TRUE,pathlen:100")},
		{OK("plen-none-three", 58),
		 .more = {{SECOND, .spec = {.subject = "second"}},
			  {.name = 'D', .issuer = 'C', .spec = {.subject = "third"}}},
		 .leaf.issuer = 'D', .order = "LDCB"},
		{TOLD_AS("plen-negative", 58, 203, 1),
		 .between.edits = {{DER_EXTENSIONS ".0.2", DER_REPLACE,
				    BYTES("\x04\x08\x30\x06\x01\x01\xff\x02\x01\xff")}}},
		{NO("plen-not-ca", 58, 0), LEAF(.basic = "CA:FALSE,pathlen:0")},
	};

	CHAINS_MAKE_ALL(maker, recipes);
}

static void name_constraints(struct chain_maker *maker)
{
	static const struct chain_recipe recipes[] = {
		{OK("nc-permitted", 59), BETWEEN(.constraints = "critical,permitted;URI:prod.example")},
		{OK("nc-permitted-two", 59),
		 BETWEEN(.constraints = "critical,permitted;URI:a.example,permitted;URI:prod.example")},
		{OK("nc-permitted-suffix", 59), BETWEEN(.constraints = "critical,permitted;URI:.example")},
		{NO("nc-permitted-suffix-not-host", 59, CHAIN_ANY_DEPTH),
		 BETWEEN(.constraints = "critical,permitted;URI:.prod.example")},
		{NO("nc-permitted-other", 59, CHAIN_ANY_DEPTH),
		 BETWEEN(.constraints = "critical,permitted;URI:other.example")},
		{NO("nc-permitted-parent", 59, CHAIN_ANY_DEPTH),
		 BETWEEN(.constraints = "critical,permitted;URI:example")},
		{NO("nc-excluded", 59, CHAIN_ANY_DEPTH), BETWEEN(.constraints = "critical,excluded;URI:prod.example")},
		{NO("nc-excluded-suffix", 59, CHAIN_ANY_DEPTH),
		 BETWEEN(.constraints = "critical,excluded;URI:.example")},
		{NO("nc-excluded-upper", 59, CHAIN_ANY_DEPTH),
		 BETWEEN(.constraints = "critical,excluded;URI:PROD.Example")},
		/* What excludes nothing, and was meant to. */
		{NO("nc-excluded-whole-uri", 59, 1),
		 BETWEEN(.constraints = "critical,excluded;URI:spiffe://prod.example")},
		{NO("nc-excluded-path", 59, 1), BETWEEN(.constraints = "critical,excluded;URI:prod.example/ns/shop")},
		{NO("nc-excluded-empty", 59, 1), BETWEEN(.constraints = "critical,excluded;URI:prod.example"),
		 .between.edits = {{DER_EXTENSIONS ".2.2", DER_REPLACE,
				    BYTES("\x04\x08\x30\x06\xa1\x04\x30\x02\x86\x00")}}},
		{NO("nc-anchor-excluded-port", 59, 2),
		 ROOT(.constraints = "critical,excluded;DNS:a.example,excluded;URI:other.example:443")},
		{NO("nc-permitted-empty", 59, CHAIN_ANY_DEPTH),
		 BETWEEN(.constraints = "critical,permitted;URI:prod.example"),
		 .between.edits = {{DER_EXTENSIONS ".2.2", DER_REPLACE,
				    BYTES("\x04\x08\x30\x06\xa0\x04\x30\x02\x86\x00")}}},
		{OK("nc-excluded-other", 59), BETWEEN(.constraints = "critical,excluded;URI:other.example")},
		{NO("nc-permitted-and-excluded", 59, CHAIN_ANY_DEPTH),
		 BETWEEN(.constraints = "critical,permitted;URI:prod.example,excluded;URI:prod.example")},
		{NO("nc-noncritical", 59, CHAIN_ANY_DEPTH), BETWEEN(.constraints = "excluded;URI:prod.example")},
		{NO("nc-anchor-excluded", 59, CHAIN_ANY_DEPTH),
		 ROOT(.constraints = "critical,excluded;URI:prod.example")},
		{NO("nc-anchor-permitted-other", 59, CHAIN_ANY_DEPTH),
		 ROOT(.constraints = "critical,permitted;URI:other.example")},
		{OK("nc-anchor-permitted", 59), ROOT(.constraints = "critical,permitted;URI:prod.example")},
		{NO("nc-dns-excluded", 59, CHAIN_ANY_DEPTH),
		 BETWEEN(.constraints = "critical,excluded;DNS:bad.example"),
		 LEAF(.san = "URI:" CERTS_ID ",DNS:web.bad.example")},
		{OK("nc-dns-none", 59), BETWEEN(.constraints = "critical,permitted;DNS:prod.example")},
		{NO("nc-dns-permitted-other", 59, CHAIN_ANY_DEPTH),
		 BETWEEN(.constraints = "critical,permitted;DNS:prod.example"),
		 LEAF(.san = "URI:" CERTS_ID ",DNS:web.bad.example")},
		{NO("nc-ip-excluded", 59, CHAIN_ANY_DEPTH),
		 BETWEEN(.constraints = "critical,excluded;IP:10.0.0.0/255.0.0.0"),
		 LEAF(.san = "URI:" CERTS_ID ",IP:10.1.2.3")},
		{NO("nc-email-permitted-other", 59, CHAIN_ANY_DEPTH),
		 BETWEEN(.constraints = "critical,permitted;email:good.example"),
		 LEAF(.san = "URI:" CERTS_ID ",email:a@bad.example")},
		{NO("nc-below-the-second", 59, CHAIN_ANY_DEPTH),
		 BETWEEN(.constraints = "critical,permitted;URI:other.example"),
		 .more = {{SECOND, .spec = {.subject = "second"}}}, .leaf.issuer = 'C', .order = "LCB"},
		{NO("nc-signer-id-excluded", 59, CHAIN_ANY_DEPTH),
		 ROOT(.constraints = "critical,excluded;URI:ca.example"), BETWEEN(.san = "URI:https://ca.example/x")},
		/* [1] maximum 0 in a subtree: RFC 5280 has no use for it. */
		{NO("nc-maximum", 59, CHAIN_ANY_DEPTH), BETWEEN(.constraints = "critical,permitted;URI:prod.example"),
		 .between.edits = {{DER_EXTENSIONS ".2.2.0.0.0", DER_APPEND, BYTES("\x81\x01\x00")}}},
		{NO("nc-type-unknown", 59, CHAIN_ANY_DEPTH), BETWEEN(.constraints = "critical,permitted;RID:1.2.3.4"),
		 LEAF(.san = "URI:" CERTS_ID ",RID:1.2.3.4")},
	};

	CHAINS_MAKE_ALL(maker, recipes);
}

void recipes_signer(struct chain_maker *maker)
{
	authority_to_sign(maker);
	ids(maker);
	path_lengths(maker);
	name_constraints(maker);
}
