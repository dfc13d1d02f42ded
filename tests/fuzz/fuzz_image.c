/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_image.c - any bytes as a compiled image: it is refused, or every use of it is safe.
 */
#include "policy/image.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct policy_image *image = NULL;

	if (policy_image_open(&image, data, size, NULL) == 0)
		fuzz_use_image(image);
	policy_image_freep(&image);
	return 0;
}
