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
	if (compiler->work <= (compiler->split ? COMPILER_MAX_WORK : COMPILER_MAX_WORK / 16))
		return 0;
	if (!compiler->split)
		return 2;
	return compiler_too_large(compiler, "the policy is too complex to compile: its identities, networks and rules "
					    "overlap in too many ways");
}

static void lists_free(struct list *lists, size_t n)
{
	for (size_t i = 0; lists && i < n; i++)
		list_free(&lists[i]);
}

static void view_free(struct view *view)
{
	lists_free(view->members, view->n_selectors);
	free(view->members);
	lists_free(view->classes_of_selector, view->n_selectors);
	intern_free(&view->classes);
}

static void side_free(const struct compiler *compiler, struct side *side)
{
	for (uint32_t i = 0; i < BH_VIEWS; i++)
		view_free(&side->view[i]);
	intern_free(&side->who_codes);
	intern_free(&side->address_codes);
	intern_free(&side->address_keys);
	intern_free(&side->who_keys);
	list_free(&side->view_of_code);
	list_free(&side->selector_of_code);
	list_free(&side->scratch);
	lists_free(side->terms_of_network, compiler->policy->n_networks);
	lists_free(side->terms_of_who, side->n_who);
	free(side->terms);
}

static void judgements_free(struct judgements *judgements)
{
	for (uint32_t i = 0; i < BH_MAX_PARTS; i++) {
		intern_free(&judgements->parts[i].lines[0]);
		intern_free(&judgements->parts[i].lines[1]);
	}
}

void compiler_free(struct compiler *compiler)
{
	for (uint32_t i = 0; i < BH_SIDES; i++)
		side_free(compiler, &compiler->sides[i]);
	judgements_free(&compiler->verdicts);
	judgements_free(&compiler->possible);
	lists_free(compiler->whos_of_identity, compiler->policy->n_identities);
	intern_free(&compiler->spiffe_classes);
	intern_free(&compiler->segments);
	intern_free(&compiler->address_sets);
	intern_free(&compiler->rows);
	intern_free(&compiler->links);
	list_free(&compiler->row_at);
	free(compiler->states);
	free(compiler->edges);
	free(compiler->addr4.items);
	free(compiler->addr6.items);
	free(compiler->error);
	arena_free(&compiler->arena);
}

int compiler_run(struct compiler *compiler, void **imagep, size_t *lenp)
{
	static int (*const steps[])(struct compiler * compiler) = {
		compile_who,	  compile_ranges, compile_ranks, compile_candidates,
		compile_possible, compile_sides,  compile_parts,
	};
	int r = 0;

	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]) && r == 0; i++)
		r = steps[i](compiler);
	return r == 0 ? compile_image(compiler, imagep, lenp) : r;
}

int policy_compile(const struct policy *policy, void **imagep, size_t *lenp, char **errorp)
{
	int r = 1;

	*imagep = NULL;
	*errorp = NULL;
	for (int split = 0; split < 2 && r > 0; split++) {
		_cleanup_(compiler_free) struct compiler compiler = {.policy = policy, .split = split};

		r = compiler_run(&compiler, imagep, lenp);
		if (r > 0 && split) {
			*errorp = compiler.error;
			compiler.error = NULL;
		}
	}
	return r;
}
