/* SPDX-License-Identifier: Apache-2.0 */
/*
 * der_edit.h - changes one element of a certificate's DER, where an encoder would not, and signs it anew.
 *
 * What a library encodes is well formed; hostile certificates are not. An element is named by the way to it: "0.4.1" is the
 * second child of the fifth child of the first child. The way leads into octet strings (extension values) and bit strings
 * (keys) too. Lengths of what is around the element follow.
 */
#ifndef BULKHEAD_TESTS_DER_EDIT_H
#define BULKHEAD_TESTS_DER_EDIT_H

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Parts of a certificate with all its usual parts. */
#define DER_TBS "0"
#define DER_VERSION "0.0"
#define DER_SERIAL "0.1"
#define DER_INNER_ALGORITHM "0.2"
#define DER_ISSUER "0.3"
#define DER_NOT_BEFORE "0.4.0"
#define DER_NOT_AFTER "0.4.1"
#define DER_SUBJECT "0.5"
#define DER_KEY "0.6"
#define DER_EXTENSIONS "0.7.0"
#define DER_OUTER_ALGORITHM "1"
#define DER_SIGNATURE "2"

enum der_how {
	DER_AS_IT_IS = 0,
	DER_LONG_LENGTH, /* one length byte more than needed */
	DER_INDEFINITE,	 /* the length is told by an end marker */
	DER_CONSTRUCTED, /* a string made of pieces, of which there is one */
	DER_REPLACE,	 /* by `bytes`, tag and length among them */
	DER_APPEND,	 /* `bytes` at the end of the content */
	DER_BEHIND,	 /* `bytes` follow the element */
	DER_REMOVE,
	DER_FLIP, /* the lowest bit of its last byte */
};

struct der_edit {
	const char *at;
	enum der_how how;
	const char *bytes;
	size_t len;
	bool keep_signature; /* do not sign anew */
};

/* DER with `edit` done and, unless it keeps the signature or touches only what is not signed, signed by `key`. free() it. */
uint8_t *der_edit(const uint8_t *der, size_t len, const struct der_edit *edit, EVP_PKEY *key, const EVP_MD *digest,
		  size_t *lenp);

#endif
