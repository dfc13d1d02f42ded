/* SPDX-License-Identifier: Apache-2.0 */
/* Section A: the SPIFFE ID, as the only URI name of a leaf. Bytes are given with their length: some hold a NUL. */
#include "tests/chains/chains.h"

struct id_recipe {
	const char *name;
	int rule, told;
	const char *uri;
	size_t len;
	const char *trust_domain; /* of the bundle */
};

#define URI(text) text, sizeof(text) - 1

static const struct id_recipe ids[] = {
	/* scheme */
	{"id-https", 1, 1, URI("https://prod.example/a"), NULL},
	{"id-scheme-prefix", 1, 1, URI("spiffes://prod.example/a"), NULL},
	{"id-scheme-suffix", 1, 1, URI("xspiffe://prod.example/a"), NULL},
	{"id-one-slash", 1, 1, URI("spiffe:/prod.example/a"), NULL},
	{"id-no-slashes", 1, 1, URI("spiffe:prod.example/a"), NULL},
	{"id-no-colon", 1, 1, URI("spiffe//prod.example/a"), NULL},
	{"id-space-before", 1, 1, URI(" spiffe://prod.example/a"), NULL},
	{"id-no-scheme", 1, 1, URI("//prod.example/a"), NULL},
	{"id-urn", 1, 1, URI("urn:spiffe:prod.example:a"), NULL},
	{"id-empty", 1, 1, URI(""), NULL},
	{"id-scheme-upper", 8, 8, URI("SPIFFE://prod.example/a"), NULL},
	{"id-scheme-mixed", 8, 8, URI("Spiffe://prod.example/a"), NULL},
	/* trust domain */
	{"id-no-td", 2, 2, URI("spiffe:///a"), NULL},
	{"id-nothing", 2, 2, URI("spiffe://"), NULL},
	{"id-query", 3, 3, URI("spiffe://prod.example/a?b=c"), NULL},
	{"id-query-empty", 3, 3, URI("spiffe://prod.example/a?"), NULL},
	{"id-query-td", 3, 3, URI("spiffe://prod.example?/a"), NULL},
	{"id-fragment", 4, 4, URI("spiffe://prod.example/a#b"), NULL},
	{"id-fragment-empty", 4, 4, URI("spiffe://prod.example/a#"), NULL},
	{"id-fragment-td", 4, 4, URI("spiffe://prod.example#/a"), NULL},
	{"id-userinfo", 5, 5, URI("spiffe://user@prod.example/a"), NULL},
	{"id-userinfo-password", 5, 5, URI("spiffe://user:pass@prod.example/a"), NULL},
	{"id-userinfo-empty", 5, 5, URI("spiffe://@prod.example/a"), NULL},
	{"id-userinfo-confuse", 5, 5, URI("spiffe://prod.example@evil.example/a"), NULL},
	{"id-port", 6, 6, URI("spiffe://prod.example:443/a"), NULL},
	{"id-empty-port", 6, 6, URI("spiffe://prod.example:/a"), NULL},
	{"id-port-only", 6, 6, URI("spiffe://:443/a"), NULL},
	{"id-td-upper", 7, 7, URI("spiffe://PROD.EXAMPLE/a"), NULL},
	{"id-td-upper-one", 7, 7, URI("spiffe://prod.examplE/a"), NULL},
	{"id-td-ipv6", 9, 9, URI("spiffe://[2001:db8::1]/a"), NULL},
	{"id-td-space", 9, 9, URI("spiffe://prod example/a"), NULL},
	{"id-td-tilde", 9, 9, URI("spiffe://prod~example/a"), NULL},
	{"id-td-star", 9, 9, URI("spiffe://*.example/a"), NULL},
	{"id-td-backslash", 9, 9, URI("spiffe://prod.example\\evil/a"), NULL},
	{"id-td-comma", 9, 9, URI("spiffe://prod,example/a"), NULL},
	{"id-td-high", 9, 9,
	 URI("spiffe://pr\xf6"
	     "d.example/a"),
	 NULL},
	{"id-td-newline", 9, 9, URI("spiffe://prod.example\n/a"), NULL},
	{"id-pct-td", 10, 10, URI("spiffe://prod%2eexample/a"), NULL},
	{"id-pct-td-upper", 10, 10, URI("spiffe://%50rod.example/a"), NULL},
	{"id-td-odd-address", 11, 0, URI("spiffe://10.0.0.1/a"), "10.0.0.1"},
	{"id-td-odd-underscore", 11, 0, URI("spiffe://a_b.x/a"), "a_b.x"},
	{"id-td-odd-dots", 11, 0, URI("spiffe://example..org/a"), "example..org"},
	{"id-td-odd-dash", 11, 0, URI("spiffe://-x.org/a"), "-x.org"},
	{"id-td-odd-end-dot", 11, 0, URI("spiffe://example.org./a"), "example.org."},
	{"id-td-odd-one", 11, 0, URI("spiffe://a/a"), "a"},
	{"id-td-odd-digits", 11, 0, URI("spiffe://256.0/a"), "256.0"},
	/* path */
	{"id-pct", 12, 12, URI("spiffe://prod.example/%61"), NULL},
	{"id-pct-slash", 12, 12, URI("spiffe://prod.example/a%2fb"), NULL},
	{"id-pct-nul", 12, 12, URI("spiffe://prod.example/a%00"), NULL},
	{"id-empty-seg", 13, 13, URI("spiffe://prod.example/a//b"), NULL},
	{"id-lead-empty-seg", 13, 13, URI("spiffe://prod.example//a"), NULL},
	{"id-dot", 14, 14, URI("spiffe://prod.example/."), NULL},
	{"id-dotdot", 14, 14, URI("spiffe://prod.example/.."), NULL},
	{"id-dot-mid", 14, 14, URI("spiffe://prod.example/a/./b"), NULL},
	{"id-dotdot-mid", 14, 14, URI("spiffe://prod.example/a/../b"), NULL},
	{"id-dotdot-first", 14, 14, URI("spiffe://prod.example/../b"), NULL},
	{"id-threedots", 14, 0, URI("spiffe://prod.example/..."), NULL},
	{"id-dotname", 14, 0, URI("spiffe://prod.example/.a"), NULL},
	{"id-dotdotname", 14, 0, URI("spiffe://prod.example/..a/a.."), NULL},
	{"id-trailing-slash", 15, 15, URI("spiffe://prod.example/a/"), NULL},
	{"id-root-path", 15, 15, URI("spiffe://prod.example/"), NULL},
	{"id-tilde", 16, 16, URI("spiffe://prod.example/~a"), NULL},
	{"id-star", 16, 16, URI("spiffe://prod.example/*"), NULL},
	{"id-space", 16, 16, URI("spiffe://prod.example/a b"), NULL},
	{"id-space-end", 16, 16, URI("spiffe://prod.example/a "), NULL},
	{"id-utf8", 16, 16, URI("spiffe://prod.example/\xc3\xa9"), NULL},
	{"id-colon", 16, 16, URI("spiffe://prod.example/a:b"), NULL},
	{"id-at", 16, 16, URI("spiffe://prod.example/a@b"), NULL},
	{"id-bang", 16, 16, URI("spiffe://prod.example/a!"), NULL},
	{"id-semicolon", 16, 16, URI("spiffe://prod.example/a;b"), NULL},
	{"id-backslash", 16, 16, URI("spiffe://prod.example/a\\b"), NULL},
	{"id-newline", 16, 16, URI("spiffe://prod.example/a\nb"), NULL},
	{"id-escape", 16, 16, URI("spiffe://prod.example/\x1b[2J"), NULL},
	{"id-del", 16, 16, URI("spiffe://prod.example/a\x7f"), NULL},
	{"id-pathcase", 20, 0, URI("spiffe://prod.example/A/a"), NULL},
	{"id-path-all", 16, 0, URI("spiffe://prod.example/azAZ09._-/-/_"), NULL},
	{"id-no-path", 29, 29, URI("spiffe://prod.example"), NULL},
	/* A NUL is outside both charsets, and hides from careless readers what follows it. */
	{"id-nul-end", 45, 45, URI("spiffe://prod.example/a\0"), NULL},
	{"id-nul-mid", 45, 45, URI("spiffe://prod.example/a\0.evil.example"), NULL},
	{"id-nul-td", 45, 45, URI("spiffe://prod.example\0.evil.example/a"), NULL},
	{"id-nul-first", 45, 45, URI("\0spiffe://prod.example/a"), NULL},
	{"id-nul-only", 45, 45, URI("\0"), NULL},
};

static void make_one(struct chain_maker *maker, const struct id_recipe *id)
{
	chains_make(maker, &(struct chain_recipe){
				   .name = id->name,
				   .rule = id->rule,
				   .told = id->told,
				   LEAF(.san_raw_uri = id->uri, .san_raw_len = id->len),
				   .trust_domain = id->trust_domain,
			   });
}

/* An ID of `len` bytes with a trust domain of `td_len`. */
static void make_long(struct chain_maker *maker, const char *name, int rule, int told, size_t td_len, size_t len)
{
	char uri[8200], trust_domain[600];

	memset(uri, 'p', sizeof(uri));
	memcpy(uri, "spiffe://", 9);
	memset(uri + 9, 'd', td_len);
	uri[9 + td_len] = '/';
	memset(trust_domain, 'd', td_len);
	trust_domain[td_len] = '\0';
	make_one(maker, &(struct id_recipe){name, rule, told, uri, len, told == 0 ? trust_domain : NULL});
}

void recipes_id(struct chain_maker *maker)
{
	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
		make_one(maker, &ids[i]);
	make_long(maker, "id-len-2047", 17, 0, 10, 2047);
	make_long(maker, "id-len-2048", 17, 0, 10, 2048);
	make_long(maker, "id-len-2048-td-255", 17, 0, 255, 2048);
	make_long(maker, "id-len-2049", 18, 18, 10, 2049);
	make_long(maker, "id-len-8192", 18, 18, 10, 8192);
	make_long(maker, "id-td-254", 19, 0, 254, 300);
	make_long(maker, "id-td-255", 19, 0, 255, 300);
	make_long(maker, "id-td-256", 19, 19, 256, 300);
	make_long(maker, "id-td-511", 19, 19, 511, 600);
}
