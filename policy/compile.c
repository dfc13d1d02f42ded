/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

#include "policy/compiler.h"

int compiler_too_large(struct compiler *compiler, const char *format, ...)
{
	va_list args;
	int len;

	va_start(args, format);
	len = vasprintf(&compiler->error, format, args);
	va_end(args);
	if (len < 0)
		compiler->error = NULL;
	return len < 0 ? -ENOMEM : 1;
}

int compiler_spend(struct compiler *compiler, uint64_t work)
{
	compiler->work += work;
	if (compiler->work <= COMPILER_MAX_WORK)
		return 0;
	return compiler_too_large(compiler, "the policy is too complex to compile: its identities, networks and rules "
					    "overlap in too many ways");
}

static void lists_free(struct list *lists, size_t n)
{
	for (size_t i = 0; lists && i < n; i++)
		list_free(&lists[i]);
}

static void side_free(struct side *side)
{
	lists_free(side->rules_of_selector, side->n_selectors);
	intern_free(&side->classes);
}

void compiler_free(struct compiler *compiler)
{
	lists_free(compiler->who_atoms, compiler->n_who);
	lists_free(compiler->whos_of_identity, compiler->policy->n_identities);
	lists_free(compiler->classes_of_service, compiler->service_lists.n);
	side_free(&compiler->from);
	side_free(&compiler->to);
	intern_free(&compiler->spiffe_classes);
	intern_free(&compiler->segments);
	intern_free(&compiler->address_sets);
	intern_free(&compiler->service_lists);
	intern_free(&compiler->service_sets);
	intern_free(&compiler->rows);
	intern_free(&compiler->poss_rows);
	free(compiler->states);
	free(compiler->edges);
	free(compiler->addr4.items);
	free(compiler->addr6.items);
	free(compiler->tcp.items);
	free(compiler->udp.items);
	free(compiler->icmp.items);
	free(compiler->icmp6.items);
	free(compiler->error);
	arena_free(&compiler->arena);
}

int policy_compile(const struct policy *policy, void **imagep, size_t *lenp, char **errorp)
{
	static int (*const steps[])(struct compiler * compiler) = {
		compile_who, compile_ranges, compile_sides, compile_rows, compile_possible,
	};
	_cleanup_(compiler_free) struct compiler compiler = {.policy = policy};
	int r = 0;

	*imagep = NULL;
	*errorp = NULL;
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]) && r == 0; i++)
		r = steps[i](&compiler);
	if (r == 0)
		r = compile_image(&compiler, imagep, lenp);
	if (r == 1) {
		*errorp = compiler.error;
		compiler.error = NULL;
	}
	return r;
}
