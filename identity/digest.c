/* SPDX-License-Identifier: Apache-2.0 */
#include "identity/digest.h"

#include <endian.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct digest {
	EVP_MD_CTX *context;
	bool ok;
};

int digest_new(struct digest **digestp)
{
	struct digest *digest = calloc(1, sizeof(*digest));

	if (!digest)
		return -ENOMEM;
	digest->context = EVP_MD_CTX_new();
	digest->ok = digest->context && EVP_DigestInit_ex(digest->context, EVP_sha256(), NULL);
	*digestp = digest;
	return 0;
}

void digest_freep(struct digest **digestp)
{
	if (*digestp)
		EVP_MD_CTX_free((*digestp)->context);
	free(*digestp);
	*digestp = NULL;
}

void digest_add(struct digest *digest, const char *name, const void *text, size_t len)
{
	uint64_t lengths[2] = {htole64(strlen(name)), htole64(len)};

	digest->ok = digest->ok && EVP_DigestUpdate(digest->context, lengths, sizeof(lengths)) &&
		     EVP_DigestUpdate(digest->context, name, strlen(name)) &&
		     EVP_DigestUpdate(digest->context, text, len);
}

int digest_finish(struct digest *digest, char out[65])
{
	unsigned char hash[EVP_MAX_MD_SIZE];
	unsigned len = 0;

	if (!digest->ok || !EVP_DigestFinal_ex(digest->context, hash, &len) || len != 32)
		return -ENOMEM;
	for (unsigned i = 0; i < len; i++)
		snprintf(out + 2 * (size_t)i, 3, "%02x", hash[i]);
	return 0;
}
