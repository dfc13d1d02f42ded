/* SPDX-License-Identifier: Apache-2.0 */
/* Section D, rule 72, and our own rules on what a certificate's bytes look like: what BER allows and DER does not. */
#include "tests/chains/chains.h"

#define SAN_VALUE DER_EXTENSIONS ".3.1"

static void strictness(struct chain_maker *maker)
{
	static const struct chain_recipe recipes[] = {
		{NO("bad-trail", 72, 0), .leaf.edits = {{"", DER_BEHIND, BYTES("\0")}}},
		{NO("bad-trail-null", 72, 0), .leaf.edits = {{"", DER_BEHIND, BYTES("\x05\x00")}}},
		{NO("bad-trail-int", 72, 1), .between.edits = {{"", DER_BEHIND, BYTES("\0")}}},
		{NO("der-long-length", 205, 0), .leaf.edits = {{"", DER_LONG_LENGTH}}},
		{NO("der-long-length-tbs", 205, 0), .leaf.edits = {{DER_TBS, DER_LONG_LENGTH}}},
		{NO("der-long-length-serial", 205, 0), .leaf.edits = {{DER_SERIAL, DER_LONG_LENGTH}}},
		{NO("der-long-length-time", 205, 0), .leaf.edits = {{DER_NOT_AFTER, DER_LONG_LENGTH}}},
		{NO("der-long-length-key", 205, 0), .leaf.edits = {{DER_KEY, DER_LONG_LENGTH}}},
		{NO("der-long-length-signature", 205, 0), .leaf.edits = {{DER_SIGNATURE, DER_LONG_LENGTH}}},
		{NO("der-long-length-extensions", 205, 0), .leaf.edits = {{DER_EXTENSIONS, DER_LONG_LENGTH}}},
		{NO("der-long-length-in-san", 205, 0), .leaf.edits = {{SAN_VALUE ".0", DER_LONG_LENGTH}}},
		{NO("der-long-length-of-uri", 205, 0), .leaf.edits = {{SAN_VALUE ".0.0", DER_LONG_LENGTH}}},
		{NO("der-long-length-int", 205, 1), .between.edits = {{DER_TBS, DER_LONG_LENGTH}}},
		{NO("der-indefinite", 205, 0), .leaf.edits = {{"", DER_INDEFINITE}}},
		{NO("der-indefinite-tbs", 205, 0), .leaf.edits = {{DER_TBS, DER_INDEFINITE}}},
		{NO("der-indefinite-subject", 205, 0), .leaf.edits = {{DER_SUBJECT, DER_INDEFINITE}}},
		{NO("der-indefinite-extensions", 205, 0), .leaf.edits = {{DER_EXTENSIONS, DER_INDEFINITE}}},
		{NO("der-indefinite-in-san", 205, 0), .leaf.edits = {{SAN_VALUE ".0", DER_INDEFINITE}}},
		{NO("der-indefinite-int", 205, 1), .between.edits = {{"", DER_INDEFINITE}}},
		{NO("der-string-in-pieces", 205, 0), .leaf.edits = {{DER_SUBJECT ".0.0.1", DER_CONSTRUCTED}}},
		{NO("der-octets-in-pieces", 205, 0), .leaf.edits = {{SAN_VALUE, DER_CONSTRUCTED}}},
		/* Their tags do not say that they are strings. */
		{NO("der-uri-in-pieces", 205, 0), .leaf.edits = {{SAN_VALUE ".0.0", DER_CONSTRUCTED}}},
		{NO("der-uri-in-ia5-pieces", 205, 0),
		 .leaf.edits = {{SAN_VALUE ".0.0", DER_REPLACE,
				 BYTES("\xa6\x1b\x16\x09spiffe://\x16\x0eprod.example/a")}}},
		{NO("der-dns-in-pieces", 205, 0), LEAF(.san = "DNS:a.example,URI:" CERTS_ID),
		 .leaf.edits = {{SAN_VALUE ".0.0", DER_CONSTRUCTED}}},
		{NO("der-uri-in-pieces-int", 205, 1), BETWEEN(.san = "URI:spiffe://prod.example"),
		 .between.edits = {{DER_EXTENSIONS ".2.1.0.0", DER_CONSTRUCTED}}},
		{NO("der-constraint-in-pieces", 205, 1), BETWEEN(.constraints = "critical,permitted;URI:prod.example"),
		 .between.edits = {{DER_EXTENSIONS ".2.2.0.0.0.0", DER_CONSTRUCTED}}},
		{NO("der-authority-key-id-in-pieces", 205, 0),
		 .leaf.edits = {{DER_EXTENSIONS ".5.1.0.0", DER_CONSTRUCTED}}},
		{OK("der-san-of-every-kind", 205),
		 LEAF(.san = "URI:" CERTS_ID ",DNS:a.example,email:a@b.example,IP:192.0.2.1,IP:2001:db8::1,RID:1.2.3.4,"
			     "otherName:1.2.3.4;UTF8:\xc3\xa9")},
		{NO("der-boolean-one", 205, 0),
		 .leaf.edits = {{DER_EXTENSIONS ".1.1", DER_REPLACE, BYTES("\x01\x01\x01")}}},
		{NO("der-boolean-in-bc", 205, 1),
		 .between.edits = {{DER_EXTENSIONS ".0.2.0.0", DER_REPLACE, BYTES("\x01\x01\x01")}}},
		{NO("der-bits-unused-set", 205, 0),
		 .leaf.edits = {{DER_EXTENSIONS ".1.2", DER_REPLACE, BYTES("\x04\x04\x03\x02\x07\xff")}}},
		{NO("der-san-trail", 205, 0), .leaf.edits = {{SAN_VALUE, DER_APPEND, BYTES("\x05\x00")}}},
		{NO("der-ku-trail", 205, 0), .leaf.edits = {{DER_EXTENSIONS ".1.2", DER_APPEND, BYTES("\0")}}},
		{NO("der-bc-trail-int", 205, 1),
		 .between.edits = {{DER_EXTENSIONS ".0.2", DER_APPEND, BYTES("\x05\x00")}}},
		{NO("der-serial-padded", 201, 0), .leaf.edits = {{DER_SERIAL, DER_REPLACE, BYTES("\x02\x02\x00\x01")}}},
		{NO("der-serial-empty", 201, 0), .leaf.edits = {{DER_SERIAL, DER_REPLACE, BYTES("\x02\x00")}}},
		{NO("der-names-out-of-order", 205, 0),
		 .leaf.edits =
			 {{DER_SUBJECT ".0", DER_REPLACE,
			   BYTES("\x31\x16\x30\x09\x06\x03\x55\x04\x03\x0c\x02zz\x30\x09\x06\x03\x55\x04\x03\x0c\x02"
				 "aa")}}},
		/* An authority is dropped from the bundle, and then nobody vouches. */
		{TOLD_AS("der-long-length-root", 205, 21, -1), .root.edits = {{DER_TBS, DER_LONG_LENGTH}}},
		{TOLD_AS("der-indefinite-root", 205, 21, -1), .root.edits = {{"", DER_INDEFINITE}}},
		{TOLD_AS("der-string-in-pieces-root", 205, 21, -1),
		 .root.edits = {{DER_SUBJECT ".0.0.1", DER_CONSTRUCTED}}},
		{TOLD_AS("der-boolean-in-bc-root", 205, 21, -1),
		 .root.edits = {{DER_EXTENSIONS ".0.2.0.0", DER_REPLACE, BYTES("\x01\x01\x01")}}},
		{TOLD_AS("der-bc-trail-root", 205, 21, -1),
		 .root.edits = {{DER_EXTENSIONS ".0.2", DER_APPEND, BYTES("\x05\x00")}}},
		/* X.690 11.5 leaves defaults out; issuers exist that write them, and nothing can be read two ways. */
		{OK("der-default-critical", 205),
		 .leaf.edits = {{DER_EXTENSIONS ".2.0", DER_BEHIND, BYTES("\x01\x01\x00")}}},
		{OK("der-default-ca", 205),
		 .leaf.edits = {{DER_EXTENSIONS ".0.1", DER_REPLACE, BYTES("\x04\x05\x30\x03\x01\x01\x00")}}},
	};

	CHAINS_MAKE_ALL(maker, recipes);
}

static void no_certificate(struct chain_maker *maker)
{
	static const struct chain_recipe recipes[] = {
		{NO("malformed-cut", 201, 0), .leaf.edits = {{"", DER_REPLACE, BYTES("\x30\x82\x01\x00\x30\x00")}}},
		{NO("malformed-empty", 201, 0), .leaf.edits = {{"", DER_REPLACE, BYTES("")}}},
		{NO("malformed-null", 201, 0), .leaf.edits = {{"", DER_REPLACE, BYTES("\x05\x00")}}},
		{NO("malformed-empty-sequence", 201, 0), .leaf.edits = {{"", DER_REPLACE, BYTES("\x30\x00")}}},
		{NO("malformed-no-signature", 201, 0), .leaf.edits = {{DER_SIGNATURE, DER_REMOVE}}},
		{NO("malformed-no-key", 201, 0), .leaf.edits = {{DER_KEY, DER_REMOVE}}},
		{NO("malformed-no-validity", 201, 0), .leaf.edits = {{"0.4", DER_REMOVE}}},
		{NO("malformed-extra-in-tbs", 201, 0), .leaf.edits = {{DER_TBS, DER_APPEND, BYTES("\x05\x00")}}},
		{NO("malformed-extra-behind-signature", 201, 0),
		 .leaf.edits = {{DER_SIGNATURE, DER_BEHIND, BYTES("\x05\x00")}}},
		{NO("malformed-int", 201, 1), .between.edits = {{"", DER_REPLACE, BYTES("\x30\x00")}}},
	};

	CHAINS_MAKE_ALL(maker, recipes);
}

void recipes_encoding(struct chain_maker *maker)
{
	strictness(maker);
	no_certificate(maker);
}
