/* SPDX-License-Identifier: Apache-2.0 */
/*
 * describe.h - what certificates say of themselves, for people who look at them.
 *
 * No bundle is needed and nothing is believed: who issued a certificate and whether that counts is verification's to say
 * (svid.h). But each certificate is held to the rules that concern it alone, by the code that verification uses, so what
 * will be refused wherever it is shown can be seen here.
 */
#ifndef BULKHEAD_IDENTITY_DESCRIBE_H
#define BULKHEAD_IDENTITY_DESCRIBE_H

#include <openssl/x509.h>
#include <stdbool.h>

#include "svid.h"

#define DESCRIBE_MAX_CERTIFICATES 64
#define DESCRIBE_MAX_PROBLEMS 6

enum describe_role {
	DESCRIBE_LEAF,
	DESCRIBE_INTERMEDIATE,
	DESCRIBE_AUTHORITY, /* a CA that names itself as its issuer */
};

struct certificate_description {
	enum describe_role role;
	char spiffe_id[SPIFFE_ID_MAX + 1]; /* the only URI name, printable; "": there is none, or more than one */
	char subject[512], issuer[512];	   /* RFC 2253 */
	char serial[64];		   /* hex */
	time_t not_before, not_after;	   /* -1: unreadable */
	char key[64];			   /* "EC P-256", "RSA 2048", "ED25519" */
	int key_bits;			   /* of security: 128 for P-256; 0 if it cannot be read */
	char signature[64];		   /* "ecdsa-with-SHA256" */
	char usage[160], extended[320];	   /* names, comma-separated; "": no such extension */
	bool usage_critical;
	long path_len; /* of a CA; -1: not limited */
	uint8_t sha256[32];
	struct svid_verdict problems[DESCRIBE_MAX_PROBLEMS]; /* rule, depth and detail */
	unsigned n_problems;
};

/* The certificates of a PEM text, or of DER one after the other. Text around PEM is passed over. */
struct certificate_list;

/* Returns 0; 1 with `why` for what is neither; or -ENOMEM. */
int certificate_list_parse(struct certificate_list **listp, const char *text, size_t len, char *why, size_t why_size);
void certificate_list_freep(struct certificate_list **listp);
size_t certificate_list_count(const struct certificate_list *list);
/* Describes certificate i as of `now`. The first one that is no CA is the leaf. */
void certificate_describe(const struct certificate_list *list, size_t i, time_t now,
			  struct certificate_description *description);

const char *describe_role_name(enum describe_role role);

#endif
