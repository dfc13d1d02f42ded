/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chains.h - certificate chains for every rule that an SVID is held to, good and bad, each broken in one place only, with the
 * verdict that is wanted.
 *
 * Each case starts from the same good chain: a root R, which is the bundle, an intermediate B below it, and a leaf L. A
 * recipe says what is different. Recipes stand by the sections of docs/spiffe-rules.md in recipes_*.c, under the names of the
 * conformance table. The chains are made when they are needed, because certificates expire.
 */
#ifndef BULKHEAD_TESTS_CHAINS_H
#define BULKHEAD_TESTS_CHAINS_H

#include <time.h>

#include "tests/chains/der_edit.h"
#include "tests/unit/certs.h"

#define CHAIN_MAX 12
#define CHAIN_TRUST_DOMAIN "prod.example"
#define CHAIN_ANY_DEPTH (-2)

struct chain_bytes {
	uint8_t *der;
	size_t len;
};

struct chain_case {
	const char *name;
	int rule;		  /* of docs/spiffe-rules.md, that the case is about */
	int told;		  /* rule that the refusal names; 0: to be accepted */
	int depth;		  /* of the refusal; CHAIN_ANY_DEPTH: any */
	const char *note;	  /* accepted, with a note that contains this; NULL: with none */
	time_t at;		  /* to be verified as of this time */
	const char *trust_domain; /* of the bundle; NULL: no bundle is configured */
	struct chain_bytes chain[CHAIN_MAX];
	size_t n;
	struct chain_bytes bundle[CHAIN_MAX];
	size_t n_authorities;
	EVP_PKEY *leaf_key;
	bool usual_bundle; /* the authority is the same R in every such case */
};

/* Makes all cases in turn and shows each to `visit`; it is gone afterwards. Returns their number. */
unsigned chains_visit(void (*visit)(const struct chain_case *, void *), void *userdata);
/* PEM of n certificates; free() it. */
char *chains_pem(const struct chain_bytes *certificates, size_t n);

/* ---- recipes, for recipes_*.c ---- */

/* One certificate: what differs from a good one. */
struct chain_part {
	char name;   /* letter, for those in `more` */
	char issuer; /* letter; 0: B for the leaf, R for others, itself for R */
	char key_of; /* has the key of that one */
	char by;     /* signed with the key of that one, whoever is named as issuer */
	bool leaf;   /* in `more`: not a CA */
	struct cert_spec spec;
	struct der_edit edits[2];
};

struct chain_recipe {
	const char *name;
	int rule, told, depth;
	struct chain_part leaf, between, root, more[7]; /* `more` is made after B and before L */
	const char *order;				/* letters of the chain; NULL: "LB" */
	const char *bundle;				/* letters of the authorities; NULL: "R"; "": none */
	const char *trust_domain;			/* of the bundle; NULL: prod.example; "": there is no bundle */
	long at;					/* seconds from now */
	const char *note;
};

/* Keys that are slow to make or that no certificate should have. */
struct chain_keys {
	EVP_PKEY *rsa1024, *rsa2047, *rsa2048, *rsa_pss, *p192, *p224, *p384, *p521, *secp256k1, *ed25519, *ed448, *dsa,
		*explicit_p256, *rsa_long_exponent, *rsa16384;
};

struct chain_maker;

void chains_make(struct chain_maker *maker, const struct chain_recipe *recipe);
const struct chain_keys *chains_keys(const struct chain_maker *maker);
time_t chains_now(const struct chain_maker *maker);

#define CHAINS_MAKE_ALL(maker, recipes)                                                                                \
	do {                                                                                                           \
		for (size_t i_ = 0; i_ < sizeof(recipes) / sizeof((recipes)[0]); i_++)                                 \
			chains_make(maker, &(recipes)[i_]);                                                            \
	} while (0)

/* A recipe's beginning: refused by the rule that it is about; refused, told as another rule; accepted. */
#define NO(name_, rule_, depth_) .name = (name_), .rule = (rule_), .told = (rule_), .depth = (depth_)
#define TOLD_AS(name_, rule_, told_, depth_) .name = (name_), .rule = (rule_), .told = (told_), .depth = (depth_)
#define OK(name_, rule_) .name = (name_), .rule = (rule_)
#define LEAF(...) .leaf.spec = {__VA_ARGS__}
#define BETWEEN(...) .between.spec = {__VA_ARGS__}
#define ROOT(...) .root.spec = {__VA_ARGS__}
#define BYTES(string) .bytes = (string), .len = sizeof(string) - 1

void recipes_id(struct chain_maker *maker);
void recipes_leaf(struct chain_maker *maker);
void recipes_signer(struct chain_maker *maker);
void recipes_path(struct chain_maker *maker);
void recipes_time(struct chain_maker *maker);
void recipes_encoding(struct chain_maker *maker);

#endif
