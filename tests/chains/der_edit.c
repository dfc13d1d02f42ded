/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/chains/der_edit.h"

#include <stdlib.h>
#include <string.h>

#include "tests/unit/certs.h"

#define TAG_BIT_STRING 0x03
#define CONSTRUCTED 0x20

struct element {
	uint8_t tag;
	const uint8_t *content;
	size_t len;
	size_t total;
};

/* Only of well-formed DER with one-byte tags, as our generator makes it. */
static struct element element_at(const uint8_t *at)
{
	size_t header = 2, len = at[1];

	if (len & 0x80) {
		header += len & 0x7f;
		len = 0;
		for (size_t i = 2; i < header; i++)
			len = len << 8 | at[i];
	}
	return (struct element){at[0], at + header, len, header + len};
}

struct output {
	uint8_t *bytes;
	size_t len;
};

static void put(struct output *out, const void *bytes, size_t len)
{
	memcpy(out->bytes + out->len, bytes, len);
	out->len += len;
}

static void put_header(struct output *out, uint8_t tag, size_t len, bool longer)
{
	uint8_t bytes[8];
	size_t n = 0;

	for (size_t rest = len; rest > 0; rest >>= 8)
		n++;
	put(out, &tag, 1);
	if (len < 0x80 && !longer) {
		bytes[0] = (uint8_t)len;
		put(out, bytes, 1);
		return;
	}
	if (len < 0x80)
		n = 1;
	else
		n += longer;
	bytes[0] = (uint8_t)(0x80 | n);
	for (size_t i = 0; i < n; i++)
		bytes[n - i] = (uint8_t)(len >> (8 * i));
	put(out, bytes, n + 1);
}

static void put_edited(struct output *out, const uint8_t *at, const struct der_edit *edit)
{
	struct element e = element_at(at);

	switch (edit->how) {
	case DER_LONG_LENGTH:
		put_header(out, e.tag, e.len, true);
		put(out, e.content, e.len);
		break;
	case DER_INDEFINITE:
		put(out, (uint8_t[]){e.tag, 0x80}, 2);
		put(out, e.content, e.len);
		put(out, "\0\0", 2);
		break;
	case DER_CONSTRUCTED:
		put_header(out, e.tag | CONSTRUCTED, e.total, false);
		put(out, at, e.total);
		break;
	case DER_REPLACE:
		put(out, edit->bytes, edit->len);
		break;
	case DER_APPEND:
		put_header(out, e.tag, e.len + edit->len, false);
		put(out, e.content, e.len);
		put(out, edit->bytes, edit->len);
		break;
	case DER_BEHIND:
		put(out, at, e.total);
		put(out, edit->bytes, edit->len);
		break;
	case DER_REMOVE:
		break;
	case DER_FLIP:
		put(out, at, e.total);
		out->bytes[out->len - 1] ^= 1;
		break;
	case DER_AS_IT_IS:
		put(out, at, e.total);
		break;
	}
}

static void rewrite(struct output *out, const uint8_t *at, const char *way, const struct der_edit *edit)
{
	struct element e = element_at(at);
	size_t skip = e.tag == TAG_BIT_STRING ? 1 : 0, done = skip;
	struct output inner = {.bytes = malloc(e.len + edit->len + 64)};
	char *rest;
	long child;

	if (*way == '\0') {
		free(inner.bytes);
		put_edited(out, at, edit);
		return;
	}
	child = strtol(way, &rest, 10);
	rest += *rest == '.';
	put(&inner, e.content, skip);
	for (; done < e.len; child--) {
		struct element next = element_at(e.content + done);

		if (child == 0)
			rewrite(&inner, e.content + done, rest, edit);
		else
			put(&inner, e.content + done, next.total);
		done += next.total;
	}
	CERTS_MUST(child < 0);
	put_header(out, e.tag, inner.len, false);
	put(out, inner.bytes, inner.len);
	free(inner.bytes);
}

/* SEQUENCE of what is signed, the algorithm, and a signature that fits. The first may be indefinite in length. */
static void sign_anew(struct output *out, size_t tbs_len, EVP_PKEY *key, const EVP_MD *digest)
{
	struct element certificate = element_at(out->bytes);
	struct element algorithm = element_at(certificate.content + tbs_len);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	uint8_t signature[4096];
	size_t signature_len = sizeof(signature);
	struct output inner = {.bytes = malloc(certificate.len + sizeof(signature) + 16)};

	CERTS_MUST(EVP_DigestSignInit(ctx, NULL, certs_digest(key, digest), NULL, key) == 1);
	CERTS_MUST(EVP_DigestSign(ctx, signature, &signature_len, certificate.content, tbs_len) == 1);
	EVP_MD_CTX_free(ctx);
	put(&inner, certificate.content, tbs_len + algorithm.total);
	put_header(&inner, TAG_BIT_STRING, signature_len + 1, false);
	put(&inner, "\0", 1);
	put(&inner, signature, signature_len);
	out->len = 0;
	put_header(out, certificate.tag, inner.len, false);
	put(out, inner.bytes, inner.len);
	free(inner.bytes);
}

uint8_t *der_edit(const uint8_t *der, size_t len, const struct der_edit *edit, EVP_PKEY *key, const EVP_MD *digest,
		  size_t *lenp)
{
	struct output out = {.bytes = malloc(len + edit->len + 8192)}, tbs = {.bytes = malloc(len + edit->len + 64)};
	struct element certificate = element_at(der);

	rewrite(&out, der, edit->at, edit);
	if (edit->at[0] == '0' && !edit->keep_signature) {
		rewrite(&tbs, certificate.content, edit->at[1] == '.' ? edit->at + 2 : edit->at + 1, edit);
		sign_anew(&out, tbs.len, key, digest);
	}
	free(tbs.bytes);
	*lenp = out.len;
	return out.bytes;
}
