/* SPDX-License-Identifier: Apache-2.0 */
/* Section D: signatures, extensions, which certificates make a path, keys. Times have a file of their own. */
#include "tests/chains/chains.h"

/* ecdsa-with-SHA384, ecdsa-with-SHA256 with parameters; the generator uses ecdsa-with-SHA256. */
#define SHA384 "\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03"
#define SHA256_NULL "\x30\x0c\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02\x05\x00"
#define SHA256_RSA "\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00"

static void signatures(struct chain_maker *maker)
{
	static const struct chain_recipe recipes[] = {
		{NO("bad-sig", 61, 0), .leaf.edits = {{DER_SIGNATURE, DER_FLIP}}},
		{NO("bad-sig-int", 61, 1), .between.edits = {{DER_SIGNATURE, DER_FLIP}}},
		{NO("bad-sig-empty", 61, 0), .leaf.edits = {{DER_SIGNATURE, DER_REPLACE, BYTES("\x03\x01\x00")}}},
		{TOLD_AS("bad-tbs", 22, 61, 0), .leaf.edits = {{DER_SUBJECT, DER_FLIP, .keep_signature = true}}},
		{TOLD_AS("bad-tbs-id", 22, 61, 0),
		 .leaf.edits = {{DER_EXTENSIONS ".3", DER_FLIP, .keep_signature = true}}},
		{TOLD_AS("bad-tbs-serial", 22, 61, 0),
		 .leaf.edits = {{DER_SERIAL, DER_REPLACE, BYTES("\x02\x01\x07"), .keep_signature = true}}},
		{TOLD_AS("bad-tbs-int", 22, 61, 1),
		 .between.edits = {{DER_SERIAL, DER_REPLACE, BYTES("\x02\x01\x07"), .keep_signature = true}}},
		{NO("wrong-key", 61, 0), .leaf.by = 'R'},
		{NO("wrong-key-own", 61, 1), .between.by = 'B'},
		{NO("wrong-key-same-name", 61, 0),
		 .more = {{.name = 'X', .issuer = 'X', .spec = {.subject = "between"}}}, .leaf.issuer = 'X'},
		{NO("wrong-key-noaki", 61, 0), LEAF(.no_key_identifiers = true), .leaf.by = 'R'},
		{NO("wrong-key-root", 61, 1),
		 .more = {{.name = 'X', .issuer = 'X', .spec = {.subject = "foreign"}},
			  {.name = 'C', .by = 'X', .key_of = 'B', .spec = {.subject = "between"}}},
		 .order = "LC"},
		{NO("bad-outer-alg", 73, 0), .leaf.edits = {{DER_OUTER_ALGORITHM, DER_REPLACE, BYTES(SHA384)}}},
		{NO("bad-outer-alg-parameters", 73, 0),
		 .leaf.edits = {{DER_OUTER_ALGORITHM, DER_REPLACE, BYTES(SHA256_NULL)}}},
		{NO("bad-inner-alg", 73, 0), .leaf.edits = {{DER_INNER_ALGORITHM, DER_REPLACE, BYTES(SHA384)}}},
		/* The same inside and outside, but of another kind than the key. */
		{NO("bad-alg-of-another-kind", 61, 0),
		 .leaf.edits = {{DER_INNER_ALGORITHM, DER_REPLACE, BYTES(SHA256_RSA)},
				{DER_OUTER_ALGORITHM, DER_REPLACE, BYTES(SHA256_RSA)}}},
		{NO("bad-alg-unknown", 61, 0),
		 .leaf.edits = {{DER_INNER_ALGORITHM, DER_REPLACE, BYTES("\x30\x05\x06\x03\x2a\x03\x04")},
				{DER_OUTER_ALGORITHM, DER_REPLACE, BYTES("\x30\x05\x06\x03\x2a\x03\x04")}}},
		{NO("bad-outer-alg-int", 73, 1), .between.edits = {{DER_OUTER_ALGORITHM, DER_REPLACE, BYTES(SHA384)}}},
		{NO("bad-inner-alg-int", 73, 1), .between.edits = {{DER_INNER_ALGORITHM, DER_REPLACE, BYTES(SHA384)}}},
	};

	CHAINS_MAKE_ALL(maker, recipes);
}

static void extensions(struct chain_maker *maker)
{
	static const struct chain_recipe recipes[] = {
		{NO("ext-unknown-critical", 63, 0), LEAF(.unknown_critical = true)},
		{NO("int-unknown-critical", 63, 1), BETWEEN(.unknown_critical = true)},
		{NO("root-unknown-critical", 63, 2), ROOT(.unknown_critical = true)},
		{OK("ext-unknown", 63), LEAF(.more = {{NID_netscape_comment, "a comment"}})},
		/* Known to OpenSSL, but nothing here acts on them. */
		{NO("ext-crl-points-critical", 63, 0),
		 LEAF(.more = {{NID_crl_distribution_points, "critical,URI:http://crl.example/"}})},
		{NO("int-crl-points-critical", 63, 1),
		 BETWEEN(.more = {{NID_crl_distribution_points, "critical,URI:http://crl.example/"}})},
		{OK("ext-crl-points", 63), LEAF(.more = {{NID_crl_distribution_points, "URI:http://crl.example/"}})},
		{NO("ext-ns-type-critical", 63, 0), LEAF(.more = {{NID_netscape_cert_type, "critical,client"}})},
		{NO("ext-issuer-name-critical", 63, 0),
		 LEAF(.more = {{NID_issuer_alt_name, "critical,DNS:a.example"}})},
		{OK("ext-policies-critical", 63), LEAF(.more = {{NID_certificate_policies, "critical,1.2.3.4"}})},
		{NO("san-two-ext", 64, 0), LEAF(.twice = NID_subject_alt_name)},
		{NO("bc-two-ext", 64, 0), LEAF(.twice = NID_basic_constraints)},
		{NO("ku-two-ext", 64, 0), LEAF(.twice = NID_key_usage)},
		{NO("eku-two-ext", 64, 0), LEAF(.twice = NID_ext_key_usage)},
		{NO("ski-two-ext", 64, 0), LEAF(.twice = NID_subject_key_identifier)},
		{NO("int-bc-two-ext", 64, 1), BETWEEN(.twice = NID_basic_constraints)},
		{NO("int-ku-two-ext", 64, 1), BETWEEN(.twice = NID_key_usage)},
		{NO("int-nc-two-ext", 64, 1),
		 BETWEEN(.constraints = "critical,permitted;URI:prod.example", .twice = NID_name_constraints)},
		{TOLD_AS("root-ku-two-ext", 64, 21, -1), ROOT(.twice = NID_key_usage)},
		{NO("san-malformed", 203, 0),
		 .leaf.edits = {{DER_EXTENSIONS ".3.1", DER_REPLACE, BYTES("\x04\x03\x02\x01\x00")}}},
		{NO("ku-malformed", 203, 0),
		 .leaf.edits = {{DER_EXTENSIONS ".1.2", DER_REPLACE, BYTES("\x04\x02\x05\x00")}}},
		{NO("int-bc-malformed", 203, 1),
		 .between.edits = {{DER_EXTENSIONS ".0.2", DER_REPLACE, BYTES("\x04\x02\x05\x00")}}},
		{NO("int-nc-malformed", 203, 1), BETWEEN(.constraints = "critical,permitted;URI:prod.example"),
		 .between.edits = {{DER_EXTENSIONS ".2.2", DER_REPLACE, BYTES("\x04\x02\x05\x00")}}},
		{NO("int-san-malformed", 203, 1), BETWEEN(.san = "URI:spiffe://prod.example"),
		 .between.edits = {{DER_EXTENSIONS ".2.1", DER_REPLACE, BYTES("\x04\x02\x05\x00")}}},
	};

	CHAINS_MAKE_ALL(maker, recipes);
}

#define POLICY_A                                                                                                       \
	{                                                                                                              \
		NID_certificate_policies, "1.2.3.4"                                                                    \
	}

static void policies(struct chain_maker *maker)
{
	static const struct chain_recipe recipes[] = {
		{NO("policy-required", 204, CHAIN_ANY_DEPTH),
		 BETWEEN(.more = {{NID_policy_constraints, "critical,requireExplicitPolicy:0"}})},
		/* The authority is given, not a part of the path (RFC 5280 6.1). */
		{OK("policy-required-by-root", 204),
		 ROOT(.more = {{NID_policy_constraints, "critical,requireExplicitPolicy:0"}})},
		{OK("policy-required-and-there", 204),
		 BETWEEN(.more = {POLICY_A, {NID_policy_constraints, "critical,requireExplicitPolicy:0"}}),
		 LEAF(.more = {POLICY_A})},
		{NO("policy-required-other", 204, CHAIN_ANY_DEPTH),
		 BETWEEN(.more = {POLICY_A, {NID_policy_constraints, "critical,requireExplicitPolicy:0"}}),
		 LEAF(.more = {{NID_certificate_policies, "1.2.3.5"}})},
		{OK("policy-there", 204), BETWEEN(.more = {POLICY_A}), LEAF(.more = {POLICY_A})},
		{NO("policy-twice", 204, CHAIN_ANY_DEPTH),
		 LEAF(.more = {{NID_certificate_policies, "1.2.3.4,1.2.3.4"}})},
		{TOLD_AS("proxy-certificate", 204, 63, 0),
		 LEAF(.san = "critical,URI:" CERTS_ID,
		      .more = {{NID_proxyCertInfo, "critical,language:id-ppl-inheritAll"}})},
	};

	CHAINS_MAKE_ALL(maker, recipes);
}

#define FOREIGN .name = 'X', .issuer = 'X', .spec = {.subject = "foreign"}
/* B's name and key, certified by the foreign root. */
#define CROSSED .name = 'Y', .issuer = 'X', .key_of = 'B', .spec = {.subject = "between"}

static void orders(struct chain_maker *maker)
{
	static const struct chain_recipe recipes[] = {
		{NO("chain-attacker-root", 65, 1), .more = {{FOREIGN}}, .leaf.issuer = 'X', .order = "LX"},
		{NO("chain-attacker-root-same-name", 65, 1),
		 .more = {{.name = 'X', .issuer = 'X', .spec = {.subject = "root"}}}, .leaf.issuer = 'X',
		 .order = "LX"},
		{NO("selfsigned", 65, 0), .leaf = {.issuer = 'L'}, .order = "L"},
		{OK("chain-root-included", 66), .order = "LBR"},
		{OK("chain-root-first", 66), .order = "LRB"},
		{OK("chain-duplicate", 66), .order = "LBB"},
		{OK("chain-duplicate-leaf", 66), .order = "LLB"},
		{OK("chain-extra", 66), .more = {{FOREIGN}}, .order = "LXB"},
		{OK("chain-extra-last", 66), .more = {{FOREIGN}}, .order = "LBX"},
		{OK("chain-extra-broken", 66),
		 .more = {{.name = 'X', .issuer = 'X', .spec = {.subject = "x", .unknown_critical = true}}},
		 .order = "LXB"},
		{OK("chain-extra-expired", 66),
		 .more = {{.name = 'X', .issuer = 'X', .spec = {.subject = "x", .until = -10}}}, .order = "LBX"},
		{OK("chain-reverse", 66), .more = {{.name = 'C', .issuer = 'B', .spec = {.subject = "second"}}},
		 .leaf.issuer = 'C', .order = "LBC"},
		{OK("chain-other-leaf", 66), .more = {{.name = 'M', .issuer = 'B', .leaf = true}}, .order = "LMB"},
		{NO("chain-loop", 44, CHAIN_ANY_DEPTH),
		 .more = {{.name = 'M', .issuer = 'B', .spec = {.subject = "m"}},
			  {.name = 'N', .issuer = 'M', .spec = {.subject = "n"}},
			  {.name = 'O', .issuer = 'N', .key_of = 'M', .spec = {.subject = "m"}}},
		 .leaf.issuer = 'M', .order = "LON"},
		{OK("cross-a-first", 67), .more = {{FOREIGN}, {CROSSED}}, .order = "LBY"},
		{OK("cross-a-last", 67), .more = {{FOREIGN}, {CROSSED}}, .order = "LYB"},
		{OK("cross-b-first", 67), .more = {{FOREIGN}, {CROSSED}}, .order = "LYB", .bundle = "X"},
		{OK("cross-b-last", 67), .more = {{FOREIGN}, {CROSSED}}, .order = "LBY", .bundle = "X"},
		{OK("cross-both-anchors", 67), .more = {{FOREIGN}, {CROSSED}}, .order = "LYB", .bundle = "XR"},
		{OK("cross-with-foreign-root", 67), .more = {{FOREIGN}, {CROSSED}}, .order = "LYXB"},
		{OK("cross-one-expired", 67),
		 .more = {{FOREIGN}, {.name = 'Y', .key_of = 'B', .spec = {.subject = "between", .until = -10}}},
		 .order = "LYB"},
		{OK("cross-one-no-ca", 67),
		 .more = {{.name = 'Y', .key_of = 'B', .spec = {.subject = "between", .basic = "critical,CA:FALSE"}}},
		 .order = "LYB"},
		{OK("cross-root", 67),
		 .more = {{FOREIGN}, {.name = 'Z', .issuer = 'X', .key_of = 'R', .spec = {.subject = "root"}}},
		 .order = "LBZ", .bundle = "X"},
		{NO("cross-only-foreign", 44, 1), .more = {{FOREIGN}, {CROSSED}}, .order = "LY"},
		{TOLD_AS("cross-all-expired", 67, 62, 1), .between.spec = {.until = -10},
		 .more = {{.name = 'Y', .key_of = 'B', .spec = {.subject = "between", .until = -20}}}, .order = "LYB"},
		{NO("limit-nine", 202, -1), .order = "LBBBBBBBB"},
		{OK("limit-eight", 202), .order = "LBRBRBRB"},
		{NO("limit-none", 201, -1), .order = ""},
	};

	CHAINS_MAKE_ALL(maker, recipes);
}

static void anchors(struct chain_maker *maker)
{
	static const struct chain_recipe recipes[] = {
		{TOLD_AS("selfsigned-in-bundle", 68, 21, -1), .leaf.issuer = 'L', .order = "L", .bundle = "L"},
		{TOLD_AS("selfsigned-in-bundle-beside", 68, 65, 0), .leaf.issuer = 'L', .order = "L", .bundle = "LR"},
		{TOLD_AS("leaf-in-bundle", 68, 21, -1), .bundle = "L"},
		{OK("leaf-in-bundle-beside", 68), .bundle = "LR"},
		{OK("anchor-not-self-signed", 69), .order = "L", .bundle = "B"},
		{OK("anchor-not-self-signed-in-chain", 69), .order = "LB", .bundle = "B"},
		{OK("anchor-and-its-issuer", 69), .order = "LB", .bundle = "BR"},
		{OK("anchor-bad-signature", 69), .order = "L", .bundle = "B",
		 .between.edits = {{DER_SIGNATURE, DER_FLIP}}},
		{OK("anchor-of-two", 69), .more = {{FOREIGN}}, .bundle = "XR"},
		{OK("anchor-same-name", 69), .more = {{.name = 'X', .issuer = 'X', .spec = {.subject = "root"}}},
		 .bundle = "XR"},
	};

	CHAINS_MAKE_ALL(maker, recipes);
}

static void keys(struct chain_maker *maker)
{
	const struct chain_keys *k = chains_keys(maker);
	const struct chain_recipe recipes[] = {
		{NO("weak-rsa1024", 70, 0), LEAF(.key = k->rsa1024)},
		{NO("weak-rsa2047", 70, 0), LEAF(.key = k->rsa2047)},
		{NO("weak-rsa1024-int", 70, 1), BETWEEN(.key = k->rsa1024)},
		{NO("weak-rsa1024-root", 70, 2), ROOT(.key = k->rsa1024)},
		{NO("weak-p192", 70, 0), LEAF(.key = k->p192)},
		{NO("weak-p192-int", 70, 1), BETWEEN(.key = k->p192)},
		{NO("weak-dsa1024", 70, 0), LEAF(.key = k->dsa)},
		{NO("weak-sha1", 70, 0), LEAF(.digest = EVP_sha1())},
		{NO("weak-sha1-int", 70, 1), BETWEEN(.digest = EVP_sha1())},
		{NO("weak-md5", 70, 0), ROOT(.key = k->rsa2048), .leaf.issuer = 'R', .leaf.spec.digest = EVP_md5(),
		 .order = "L"},
		{NO("weak-md5-int", 70, 1), ROOT(.key = k->rsa2048), BETWEEN(.digest = EVP_md5())},
		{NO("weak-explicit-curve", 70, 0), LEAF(.key = k->explicit_p256)},
		{NO("weak-explicit-curve-int", 70, 1), BETWEEN(.key = k->explicit_p256)},
		{NO("limit-rsa-exponent", 202, 0), LEAF(.key = k->rsa_long_exponent)},
		{NO("limit-rsa16384", 202, 0), LEAF(.key = k->rsa16384)},
		{OK("key-rsa2048", 70), LEAF(.key = k->rsa2048)},
		{OK("key-rsa2048-int", 70), BETWEEN(.key = k->rsa2048)},
		{OK("key-rsa-pss", 70), LEAF(.key = k->rsa_pss)},
		{OK("key-rsa-pss-int", 70), BETWEEN(.key = k->rsa_pss)},
		{OK("key-p224", 70), LEAF(.key = k->p224)},
		{OK("key-p384", 70), LEAF(.key = k->p384)},
		{OK("key-p521", 70), LEAF(.key = k->p521)},
		{OK("key-secp256k1", 70), LEAF(.key = k->secp256k1)},
		{OK("key-ed25519", 70), LEAF(.key = k->ed25519)},
		{OK("key-ed25519-int", 70), BETWEEN(.key = k->ed25519)},
		{OK("key-ed448", 70), LEAF(.key = k->ed448)},
		{OK("key-sha224", 70), LEAF(.digest = EVP_sha224())},
		{OK("key-sha512", 70), LEAF(.digest = EVP_sha512())},
		{OK("sha1-rootsig", 71), ROOT(.digest = EVP_sha1())},
		{OK("md5-rootsig", 71), ROOT(.key = k->rsa2048, .digest = EVP_md5())},
		{OK("root-bad-own-signature", 71), .root.edits = {{DER_SIGNATURE, DER_FLIP}}},
	};

	CHAINS_MAKE_ALL(maker, recipes);
}

void recipes_path(struct chain_maker *maker)
{
	signatures(maker);
	extensions(maker);
	policies(maker);
	orders(maker);
	anchors(maker);
	keys(maker);
}
