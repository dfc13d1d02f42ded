/* SPDX-License-Identifier: Apache-2.0 */
/*
 * make_bundle_seeds.c - writes bundles of each form with good certificates, for the fuzzer to begin with: they expire, and
 * so are made when they are needed.
 *
 *   make_bundle_seeds DIRECTORY
 */
#include "tests/unit/certs.h"

static FILE *create(const char *directory, const char *name)
{
	char path[4096];
	FILE *out;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	out = fopen(path, "we");
	CERTS_MUST(out != NULL);
	return out;
}

static void put_base64(FILE *out, const unsigned char *bytes, size_t len, bool url)
{
	char *text = calloc(1, len * 2 + 8);

	EVP_EncodeBlock((unsigned char *)text, bytes, (int)len);
	for (char *c = text; url && *c; c++)
		*c = *c == '+' ? '-' : *c == '/' ? '_' : *c == '=' ? '\0' : *c;
	fputs(text, out);
	free(text);
}

static void put_number(FILE *out, const char *member, const EVP_PKEY *key, const char *name)
{
	unsigned char bytes[32];
	BIGNUM *number = NULL;

	CERTS_MUST(EVP_PKEY_get_bn_param(key, name, &number) == 1 && BN_bn2binpad(number, bytes, 32) == 32);
	fprintf(out, ",\"%s\":\"", member);
	put_base64(out, bytes, sizeof(bytes), true);
	fputc('"', out);
	BN_free(number);
}

static void put_entry(FILE *out, const struct cert *cert)
{
	unsigned char *der = NULL;
	int len = i2d_X509(cert->x509, &der);

	CERTS_MUST(len > 0);
	fputs("{\"kty\":\"EC\",\"use\":\"x509-svid\",\"crv\":\"P-256\"", out);
	put_number(out, "x", cert->key, "qx");
	put_number(out, "y", cert->key, "qy");
	fputs(",\"x5c\":[\"", out);
	put_base64(out, der, (size_t)len, false);
	fputs("\"]}", out);
	OPENSSL_free(der);
}

int main(int argc, char **argv)
{
	struct cert certs[] = {
		certs_ca(NULL, &(struct cert_spec){.san = "URI:spiffe://prod.example"}),
		certs_ca(NULL, &(struct cert_spec){.san = "URI:spiffe://other.example"}),
		certs_leaf(NULL, &(struct cert_spec){.version = 0}),
	};
	size_t n = sizeof(certs) / sizeof(certs[0]);
	char name[32];
	FILE *out;

	if (argc != 2) {
		fprintf(stderr, "usage: make_bundle_seeds DIRECTORY\n");
		return 2;
	}
	out = create(argv[1], "spiffe");
	fputs("J{\"spiffe_sequence\":18446744073709551614,\"spiffe_refresh_hint\":600,\"keys\":[", out);
	for (size_t i = 0; i < n; i++) {
		fputs(i ? "," : "", out);
		put_entry(out, &certs[i]);
	}
	fputs("]}", out);
	fclose(out);
	for (size_t i = 0; i < n; i++) {
		const struct cert *one = &certs[i];
		char *pem = certs_pem(&one, 1);

		snprintf(name, sizeof(name), "pem-%zu", i);
		out = create(argv[1], name);
		fprintf(out, "P%s", pem);
		fclose(out);
		snprintf(name, sizeof(name), "der-%zu", i);
		out = create(argv[1], name);
		fputc('D', out);
		CERTS_MUST(i2d_X509_fp(out, one->x509) == 1);
		fclose(out);
		free(pem);
	}
	for (size_t i = 0; i < n; i++)
		cert_free(&certs[i]);
	return 0;
}
