/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/compiler.h"
#include "tests/reference/compiled/compiled.h"

static int compile_apart(const struct policy *policy, void **bytesp, size_t *lenp, char **errorp)
{
	struct compiler compiler = {.policy = policy, .split = true};
	int r = compiler_run(&compiler, bytesp, lenp);

	*errorp = compiler.error;
	compiler.error = NULL;
	compiler_free(&compiler);
	return r;
}

void ref_compile_apart(struct ref_compiled *compiled, const struct ref_policy *policy)
{
	ref_compile_by(compile_apart, compiled, policy);
}
