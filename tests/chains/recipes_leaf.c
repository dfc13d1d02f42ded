/* SPDX-License-Identifier: Apache-2.0 */
/* Section B: the leaf. */
#include "tests/chains/chains.h"

#define ID "URI:" CERTS_ID

static void names(struct chain_maker *maker)
{
	static const struct chain_recipe recipes[] = {
		{OK("good", 44)},
		{OK("good-direct", 44), .leaf.issuer = 'R', .order = "L"},
		{NO("san-two-uri", 25, 0), LEAF(.san = ID ",URI:spiffe://prod.example/b")},
		{NO("san-two-uri-same", 25, 0), LEAF(.san = ID "," ID)},
		{NO("san-two-uri-https", 25, 0), LEAF(.san = ID ",URI:https://prod.example/")},
		{NO("san-two-uri-https-first", 25, 0), LEAF(.san = "URI:https://prod.example/," ID)},
		{NO("san-two-uri-apart", 25, 0), LEAF(.san = ID ",DNS:a.example,URI:urn:x")},
		{NO("san-two-uri-invalid", 25, 0), LEAF(.san = ID ",URI:spiffe://")},
		{NO("san-three-uri", 25, 0),
		 LEAF(.san = ID ",URI:spiffe://prod.example/b,URI:spiffe://prod.example/c")},
		{NO("san-none", 26, 0), LEAF(.san = "")},
		{NO("san-empty", 26, 0),
		 .leaf.edits = {{DER_EXTENSIONS ".3.1", DER_REPLACE, BYTES("\x04\x02\x30\x00")}}},
		{NO("san-dns-only", 26, 0), LEAF(.san = "DNS:prod.example")},
		{NO("san-cn-only", 26, 0), LEAF(.san = "", .subject = CERTS_ID)},
		{NO("san-id-in-dns", 26, 0), LEAF(.san = "DNS:" CERTS_ID)},
		{NO("san-id-in-email", 26, 0), LEAF(.san = "email:" CERTS_ID)},
		{NO("san-id-in-other-name", 26, 0), LEAF(.san = "otherName:1.3.6.1.4.1.99999.2;IA5STRING:" CERTS_ID)},
		{NO("san-id-in-issuer-name", 26, 0), LEAF(.san = "DNS:a.example", .more = {{NID_issuer_alt_name, ID}})},
		{NO("leaf-v1", 26, 0), LEAF(.version = 1)},
		{OK("san-with-dns", 27), LEAF(.san = ID ",DNS:web.prod.example")},
		{OK("san-with-dns-first", 27), LEAF(.san = "DNS:web.prod.example," ID)},
		{OK("san-with-all", 27),
		 LEAF(.san = ID ",DNS:*.prod.example,IP:10.0.0.1,IP:2001:db8::1,email:a@b.example,RID:1.2.3.4")},
		{OK("san-critical", 42), LEAF(.san = "critical," ID)},
		{TOLD_AS("id-https-scheme", 28, 1, 0), LEAF(.san = "URI:https://prod.example/ns/shop/sa/web")},
		{NO("san-nosubj-noncritical", 41, 0), LEAF(.subject = "")},
		{OK("san-nosubj-critical", 42), LEAF(.subject = "", .san = "critical," ID)},
	};

	CHAINS_MAKE_ALL(maker, recipes);
}

static void usages(struct chain_maker *maker)
{
	static const struct chain_recipe recipes[] = {
		{NO("leaf-ca-true", 30, 0), LEAF(.basic = "critical,CA:TRUE")},
		{NO("leaf-ca-true-noncritical", 30, 0), LEAF(.basic = "CA:TRUE")},
		{NO("leaf-ca-true-pathlen", 30, 0), LEAF(.basic = "critical,CA:TRUE,pathlen:0")},
		{NO("leaf-ca-true-full", 30, 0),
		 LEAF(.basic = "critical,CA:TRUE", .usage = "critical,digitalSignature,keyCertSign,cRLSign")},
		{TOLD_AS("leaf-is-root", 43, 30, 0), ROOT(.san = ID), .order = "R"},
		{TOLD_AS("leaf-is-between", 43, 30, 0), BETWEEN(.san = ID), .order = "B"},
		{OK("leaf-bc-absent", 31), LEAF(.basic = "")},
		{OK("leaf-bc-critical", 31), LEAF(.basic = "critical,CA:FALSE")},
		{NO("ku-certsign", 32, 0), LEAF(.usage = "critical,digitalSignature,keyCertSign")},
		{NO("ku-certsign-only", 32, 0), LEAF(.usage = "critical,keyCertSign")},
		{NO("ku-crlsign", 33, 0), LEAF(.usage = "critical,digitalSignature,cRLSign")},
		{NO("ku-missing", 34, 0), LEAF(.usage = "")},
		{NO("ku-noncritical", 35, 0), LEAF(.usage = "digitalSignature")},
		{NO("ku-no-digsig", 36, 0), LEAF(.usage = "critical,keyEncipherment")},
		{NO("ku-no-digsig-nonrep", 36, 0), LEAF(.usage = "critical,nonRepudiation")},
		{NO("ku-no-digsig-agree", 36, 0), LEAF(.usage = "critical,keyAgreement,decipherOnly")},
		{TOLD_AS("ku-empty", 36, 203, 0),
		 .leaf.edits = {{DER_EXTENSIONS ".1.2", DER_REPLACE, BYTES("\x04\x03\x03\x01\x00")}}},
		{OK("ku-keyenc", 37), LEAF(.usage = "critical,digitalSignature,keyEncipherment")},
		{OK("ku-keyagree", 37), LEAF(.usage = "critical,digitalSignature,keyAgreement")},
		{OK("ku-nonrep", 37), LEAF(.usage = "critical,digitalSignature,nonRepudiation,dataEncipherment")},
		{OK("ku-decipher-only", 37), LEAF(.usage = "critical,digitalSignature,keyAgreement,decipherOnly")},
		{OK("eku-absent", 38), LEAF(.extended = "")},
		{NO("eku-client-only", 39, 0), LEAF(.extended = "clientAuth")},
		{NO("eku-server-only", 39, 0), LEAF(.extended = "serverAuth")},
		{NO("eku-codesign", 39, 0), LEAF(.extended = "codeSigning")},
		{NO("eku-any", 39, 0), LEAF(.extended = "anyExtendedKeyUsage")},
		{NO("eku-any-client", 39, 0), LEAF(.extended = "anyExtendedKeyUsage,clientAuth")},
		{NO("eku-unknown", 39, 0), LEAF(.extended = "1.3.6.1.4.1.99999.3")},
		{NO("eku-critical-client-only", 39, 0), LEAF(.extended = "critical,clientAuth")},
		{OK("eku-both-critical", 40), LEAF(.extended = "critical,serverAuth,clientAuth")},
		{OK("eku-both-plus", 40), LEAF(.extended = "clientAuth,codeSigning,serverAuth,1.3.6.1.4.1.99999.3")},
		{OK("eku-both-any", 40), LEAF(.extended = "serverAuth,clientAuth,anyExtendedKeyUsage")},
	};

	CHAINS_MAKE_ALL(maker, recipes);
}

/* X is a foreign root. */
#define FOREIGN .name = 'X', .issuer = 'X', .spec = {.subject = "foreign"}

static void bundles(struct chain_maker *maker)
{
	static const struct chain_recipe recipes[] = {
		{NO("empty-bundle", 21, -1), .bundle = ""},
		{NO("bundle-without-ca", 21, -1), ROOT(.basic = "critical,CA:FALSE")},
		{NO("no-bundle", 75, -1), .trust_domain = ""},
		{NO("no-bundle-of-the-td", 75, -1), LEAF(.san = "URI:spiffe://other.example/a")},
		{TOLD_AS("no-bundle-of-the-parent-td", 24, 75, -1), LEAF(.san = "URI:spiffe://sub.prod.example/a")},
		{TOLD_AS("shared-other", 24, 75, -1), LEAF(.san = "URI:spiffe://other.example/ns/shop/sa/web")},
		{OK("fed-good", 24), LEAF(.san = "URI:spiffe://other.example/a"), .trust_domain = "other.example"},
		{NO("wrong-root", 44, 0), .more = {{FOREIGN}}, .leaf.issuer = 'X', .order = "L"},
		{NO("wrong-root-between", 44, 1), .more = {{FOREIGN}}, .between = {.issuer = 'R'}, .bundle = "X"},
		{NO("wrong-root-own-bundle", 44, 0), .more = {{FOREIGN}}, .leaf.issuer = 'X', .order = "LB"},
		{NO("missing-intermediate", 44, 0), .order = "L"},
		{TOLD_AS("chain-leaf-not-first", 46, 26, 0), .order = "BL"},
		{TOLD_AS("chain-leaf-second", 46, 26, 0), .order = "BLR"},
		{TOLD_AS("chain-leaf-behind-another", 46, 44, 0),
		 .more = {{.name = 'X', .issuer = 'X', .spec = {.subject = "foreign"}},
			  {.name = 'M', .issuer = 'X', .leaf = true}},
		 .order = "MLB"},
	};

	CHAINS_MAKE_ALL(maker, recipes);
}

void recipes_leaf(struct chain_maker *maker)
{
	names(maker);
	usages(maker);
	bundles(maker);
}
