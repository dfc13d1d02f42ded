/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_spiffe_id.c - any bytes as a SPIFFE ID: the verdict is that of the reference.
 */
#include <stdlib.h>

#include "identity/spiffe_id.h"
#include "tests/fuzz/fuzz.h"
#include "tests/reference/spiffe_id_reference.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t broken = ref_spiffe_id(data, size);
	int rule = spiffe_id_check((const char *)data, size), signer = spiffe_signer_id_check((const char *)data, size);

	if (rule < 0 || rule > 63 || (broken == 0 ? rule != 0 : !(broken & REF_RULE(rule))))
		abort();
	/* A signer's ID has no path: what is one of both is neither. */
	if (rule == 0 && signer != 52)
		abort();
	return 0;
}
