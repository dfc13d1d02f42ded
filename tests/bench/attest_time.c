/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attest_time SOCKET CHAIN KEY COUNT - how long an attestation takes, from HELLO to RESULT, without the start of a process
 * and the reading of files. One line of microseconds each. The first tags the cgroup, the others renew it: the same work.
 */
#include <inttypes.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "identity/attest.h"

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000U + (uint64_t)ts.tv_nsec;
}

static struct svid_chain *chain_read(const char *path)
{
	static char pem[2 * SVID_MAX_CHAIN_BYTES];
	struct svid_verdict verdict = {0};
	struct svid_chain *chain = NULL;
	FILE *f = fopen(path, "re");
	size_t len = f ? fread(pem, 1, sizeof(pem), f) : 0;

	if (f)
		fclose(f);
	return svid_chain_parse_pem(&chain, pem, len, &verdict) ? NULL : chain;
}

static EVP_PKEY *key_read(const char *path)
{
	FILE *f = fopen(path, "re");
	EVP_PKEY *key = f ? PEM_read_PrivateKey(f, NULL, NULL, NULL) : NULL;

	if (f)
		fclose(f);
	return key;
}

int main(int argc, char **argv)
{
	struct attest_result result;
	struct svid_chain *chain;
	EVP_PKEY *key;
	char why[512] = "";

	if (argc != 5) {
		fprintf(stderr, "usage: attest_time SOCKET CHAIN KEY COUNT\n");
		return 2;
	}
	chain = chain_read(argv[2]);
	key = key_read(argv[3]);
	if (!chain || !key) {
		fprintf(stderr, "attest_time: cannot read %s\n", chain ? argv[3] : argv[2]);
		return 1;
	}
	for (int i = atoi(argv[4]); i > 0; i--) {
		uint64_t start = now_ns();
		int fd = -1, rc = attest_client(argv[1], chain, key, &result, &fd, why, sizeof(why));

		if (rc || result.code != ATTEST_OK) {
			fprintf(stderr, "attest_time: %s\n", rc ? why : result.text);
			return 1;
		}
		printf("%" PRIu64 "\n", (now_ns() - start) / 1000);
		if (fd >= 0)
			close(fd);
	}
	EVP_PKEY_free(key);
	svid_chain_freep(&chain);
	return 0;
}
