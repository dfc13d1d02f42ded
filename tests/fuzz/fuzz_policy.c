/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_policy.c - any text as a policy: it is refused with diagnostics, or compiled to an image that opens.
 */
#include <stdlib.h>

#include "policy/image.h"
#include "policy/policy.h"
#include "tests/fuzz/fuzz.h"

static void compile(const struct policy *policy)
{
	struct policy_image *image = NULL;
	char *error = NULL;
	void *bytes = NULL;
	size_t len = 0;

	if (policy_compile(policy, &bytes, &len, &error) == 0) {
		/* What the compiler makes must hold. */
		if (policy_image_open(&image, bytes, len, NULL) != 0)
			abort();
		fuzz_use_image(image);
		policy_image_freep(&image);
	}
	free(bytes);
	free(error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Two sources, so that what stands in one is met in the other. */
	struct policy_source sources[2] = {
		{"a.yaml", (const char *)data, size},
		{"b.yaml", "bulkhead: 1\nidentities: {b: spiffe://b.example/b}\nnetworks: {n: 10.0.0.0/8}\n", 0},
	};
	struct policy_diagnostics *diagnostics = NULL;
	struct policy *policy = NULL;
	char *text = NULL;
	FILE *out = open_memstream(&text, &size);

	sources[1].len = __builtin_strlen(sources[1].text);
	if (!out)
		return 0;
	if (policy_parse(&policy, &diagnostics, sources, 2) == 0)
		compile(policy);
	policy_diagnostics_print(diagnostics, out, true);
	fclose(out);
	free(text);
	policy_diagnostics_freep(&diagnostics);
	policy_freep(&policy);
	return 0;
}
