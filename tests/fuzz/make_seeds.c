/* SPDX-License-Identifier: Apache-2.0 */
/*
 * make_seeds.c - writes policies with every feature, and their images, for the fuzzers to begin with.
 *
 *   make_seeds POLICY-DIRECTORY IMAGE-DIRECTORY N
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/reference/compiled/compiled.h"

static void write_file(const char *directory, uint64_t number, const void *bytes, size_t len)
{
	char path[4096];
	FILE *out;

	snprintf(path, sizeof(path), "%s/seed-%lu", directory, (unsigned long)number);
	out = fopen(path, "we");
	if (!out || fwrite(bytes, 1, len, out) != len || fclose(out) != 0) {
		perror(path);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: make_seeds POLICY-DIRECTORY IMAGE-DIRECTORY N\n");
		return 2;
	}
	for (uint64_t seed = 1; seed <= strtoull(argv[3], NULL, 10); seed++) {
		struct ref_policy *policy = ref_policy_new(seed);
		struct ref_compiled compiled;
		const void *bytes;
		size_t len;

		ref_compile(&compiled, policy);
		for (int f = 0; f < policy->n_files; f++)
			write_file(argv[1], seed * REF_MAX_FILES + (uint64_t)f, policy->texts[f],
				   strlen(policy->texts[f]));
		bytes = policy_image_bytes(compiled.image, &len);
		write_file(argv[2], seed, bytes, len);
		ref_compiled_clear(&compiled);
		ref_policy_free(policy);
	}
	return 0;
}
