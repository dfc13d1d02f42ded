/* SPDX-License-Identifier: Apache-2.0 */
#include "rules.h"

#include <stddef.h>

struct rule {
	int number;
	const char *name;
	const char *text;
};

/* Numbers below 200 are those of the conformance table; 200 and above are limits of our own. */
static const struct rule rules[] = {
	{1, "id-scheme", "A SPIFFE ID begins with \"spiffe://\" (SPIFFE-ID 2)."},
	{2, "id-no-trust-domain", "The trust domain of a SPIFFE ID is not empty (SPIFFE-ID 2.1)."},
	{3, "id-query", "A SPIFFE ID has no query, not even an empty one (SPIFFE-ID 2)."},
	{4, "id-fragment", "A SPIFFE ID has no fragment, not even an empty one (SPIFFE-ID 2)."},
	{5, "id-userinfo", "The trust domain has no user information (SPIFFE-ID 2.1)."},
	{6, "id-port", "The trust domain has no port (SPIFFE-ID 2.1)."},
	{7, "id-trust-domain-case", "The trust domain is in lower case (SPIFFE-ID 2.1)."},
	{8, "id-scheme-case", "The scheme is written \"spiffe\", in lower case (SPIFFE-ID 2.4, strict reading)."},
	{9, "id-trust-domain-charset", "The trust domain holds a-z, 0-9, '.', '-' and '_' only (SPIFFE-ID 2.1)."},
	{10, "id-trust-domain-percent", "The trust domain is not percent-encoded (SPIFFE-ID 2.1)."},
	{12, "id-path-percent", "The path is not percent-encoded (SPIFFE-ID 2.2)."},
	{13, "id-empty-segment", "The path has no empty segment (SPIFFE-ID 2.2)."},
	{14, "id-dot-segment", "The path has no \".\" or \"..\" segment (SPIFFE-ID 2.2)."},
	{15, "id-trailing-slash", "The path does not end in '/' (SPIFFE-ID 2.2)."},
	{16, "id-path-charset", "The path holds a-z, A-Z, 0-9, '.', '-', '_' and '/' only (SPIFFE-ID 2.2)."},
	{18, "id-too-long", "A SPIFFE ID has at most 2048 bytes (SPIFFE-ID 2.3)."},
	{19, "id-trust-domain-too-long", "A trust domain has at most 255 bytes (SPIFFE-ID 2.3)."},
	{21, "bundle-empty", "A trust domain without authority verifies nobody (SPIFFE-ID 3.1)."},
	{25, "leaf-many-uris", "A leaf has exactly one URI name, of whatever scheme (X509-SVID 2)."},
	{26, "leaf-no-uri", "A leaf carries its SPIFFE ID as a URI name (X509-SVID 2)."},
	{29, "leaf-no-path", "The SPIFFE ID of a leaf has a path (X509-SVID 3.1, 5.2)."},
	{30, "leaf-is-ca", "A leaf is not a CA (X509-SVID 4.1, 5.2)."},
	{32, "leaf-key-cert-sign", "A leaf's key usage does not include keyCertSign (X509-SVID 4.3, 5.2)."},
	{33, "leaf-crl-sign", "A leaf's key usage does not include cRLSign (X509-SVID 4.3, 5.2)."},
	{34, "leaf-no-key-usage", "A leaf has a key usage extension (X509-SVID 4.3)."},
	{35, "leaf-key-usage-not-critical", "A leaf's key usage is critical (X509-SVID 4.3)."},
	{36, "leaf-no-digital-signature", "A leaf's key usage includes digitalSignature (X509-SVID 4.3)."},
	{39, "leaf-extended-key-usage",
	 "A leaf's extended key usage, if any, includes both serverAuth and clientAuth (X509-SVID 4.4)."},
	{41, "leaf-empty-subject", "With an empty subject the alternative name is critical (RFC 5280 4.1.2.6)."},
	{44, "untrusted-issuer",
	 "The chain ends in an authority of the bundle of the ID's own trust domain (X509-SVID 5.2)."},
	{45, "id-nul", "A SPIFFE ID has no NUL byte (SPIFFE-ID 2)."},
	{47, "signer-not-ca", "A signing certificate is a CA (X509-SVID 4.1, RFC 5280 6.1.4)."},
	{48, "signer-no-cert-sign", "A signing certificate's key usage includes keyCertSign (X509-SVID 4.3)."},
	{49, "signer-no-key-usage", "A signing certificate has a key usage extension (X509-SVID 4.3)."},
	{50, "signer-key-usage-not-critical", "A signing certificate's key usage is critical (X509-SVID 4.3)."},
	{52, "signer-id-path", "The SPIFFE ID of a signing certificate has no path (X509-SVID 3.2)."},
	{54, "signer-other-trust-domain",
	 "The SPIFFE ID of a signing certificate should be of the leaf's trust domain; another is noted (X509-SVID "
	 "3.2)."},
	{55, "signer-many-uris", "A signing certificate has at most one URI name (X509-SVID 2)."},
	{58, "path-length",
	 "No more signing certificates follow than a path length constraint allows (RFC 5280 6.1.4)."},
	{59, "name-constraints", "Every name is within the name constraints above it (X509-SVID 4.2, RFC 5280 6.1.4)."},
	{60, "signer-version", "A signing certificate is X.509 version 3 (RFC 5280 6.1.4)."},
	{61, "signature", "Each certificate is signed by the next one (RFC 5280 6.1.3)."},
	{62, "validity", "The time is within the validity of each certificate on the path (RFC 5280 6.1.3)."},
	{63, "critical-extension", "Every critical extension is one that we act on (RFC 5280 4.2)."},
	{64, "duplicate-extension", "An extension appears once in a certificate (RFC 5280 4.2)."},
	{65, "own-root", "A self-signed root counts only if the bundle has it (RFC 5280 6.1)."},
	{68, "anchor-not-ca", "An authority of a bundle is a CA that may sign certificates (X509-SVID 6.1)."},
	{70, "weak-key", "Keys and digests give 112 bits of security or more."},
	{72, "trailing-bytes", "No bytes follow a certificate's DER."},
	{73, "algorithm-mismatch",
	 "The signature algorithm inside a certificate is the one outside (RFC 5280 4.1.1.2)."},
	{75, "no-bundle",
	 "The bundle is that of the ID's trust domain, and one is configured (Trust Domain and Bundle 3)."},
	{76, "bundle-malformed",
	 "A SPIFFE bundle is one JSON object, a JWK Set (Trust Domain and Bundle 4, RFC 7517 5)."},
	{78, "bundle-sequence",
	 "The sequence of a bundle, if any, is an integer from 0 to 2^64 - 1 (Trust Domain and Bundle 4.1.1)."},
	{79, "bundle-older",
	 "A bundle's sequence only grows: an older one does not replace it "
	 "(Trust Domain and Bundle 4.1.1)."},
	{80, "bundle-same-sequence",
	 "A bundle whose authorities change has another sequence (Trust Domain and Bundle 4.1.1)."},
	{81, "bundle-refresh-hint",
	 "The refresh hint of a bundle, if any, is an integer of seconds (Trust Domain and Bundle 4.1.2)."},
	{84, "bundle-no-keys", "A SPIFFE bundle has an array \"keys\" (Trust Domain and Bundle 4.1.3)."},
	{87, "bundle-key-type", "An entry's \"kty\" is one we know: RSA, EC or OKP (Trust Domain and Bundle 4.2.1)."},
	{88, "bundle-no-use", "An entry has a \"use\" (Trust Domain and Bundle 4.2.2)."},
	{89, "bundle-use",
	 "An entry's \"use\" is x509-svid, or another one that we know (Trust Domain and Bundle 4.2.2)."},
	{90, "bundle-no-certificate", "An entry for X.509 has a certificate in \"x5c\" (X509-SVID 6.2)."},
	{91, "bundle-many-certificates", "Of several certificates in \"x5c\" the first one counts (X509-SVID 6.2)."},
	{96, "bundle-not-ca", "An authority of a SPIFFE bundle is a CA that may sign certificates (X509-SVID 6.1)."},
	{97, "bundle-certificate",
	 "The certificate in \"x5c\" is DER in base64, and its key is the entry's (RFC 7517 4.7)."},
	{98, "bundle-other-trust-domain",
	 "The SPIFFE ID of an authority is of the bundle's trust domain, or is told (X509-SVID 6.1)."},
	{103, "bundle-duplicate-member", "No member of a JSON object appears twice (RFC 8259 4)."},
	{201, "malformed", "A chain is a sequence of DER or PEM certificates."},
	{202, "chain-limits",
	 "A chain has at most 8 certificates in 64 KiB, few ways to order them, and keys of usual size."},
	{203, "malformed-extension", "Every extension that we use can be parsed."},
	{204, "path-validation", "The path is valid by RFC 5280."},
	{205, "not-der", "A certificate is DER, not another form of BER (X.690 10, RFC 5280 4.1)."},
	{210, "bundle-pem", "A PEM bundle is one or more complete CERTIFICATE blocks and no others."},
	{211, "bundle-limits", "A bundle has at most 4 MiB and 256 authorities."},
	{220, "key-not-approved", "In FIPS mode every key is of a kind that the FIPS module has."},
};

static const struct rule *rule_find(int number)
{
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		if (rules[i].number == number)
			return &rules[i];
	}
	return NULL;
}

const char *svid_rule_name(int rule)
{
	const struct rule *found = rule_find(rule);

	return found != NULL ? found->name : "unknown-rule";
}

const char *svid_rule_text(int rule)
{
	const struct rule *found = rule_find(rule);

	return found != NULL ? found->text : "No such rule.";
}
