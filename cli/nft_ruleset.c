/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "cli/nft_ruleset.h"

static const char *text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

static char *key_of(struct arena *arena, const char *family, const char *table, const char *name)
{
	return arena_printf(arena, "%s %s %s", family, table, name);
}

static void __attribute__((format(printf, 2, 3))) report(struct nft_ruleset *ruleset, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	diagnostics_add(ruleset->diagnostics, POLICY_ERROR, (struct position){}, format, args);
	va_end(args);
}

static void add_chain(struct nft_ruleset *ruleset, const json_t *object)
{
	struct nft_chain chain = {
		.family = text_of(object, "family"),
		.table = text_of(object, "table"),
		.name = text_of(object, "name"),
		.hook = text_of(object, "hook"),
		.type = text_of(object, "type"),
	};
	const char *policy = text_of(object, "policy"), *key;

	if (!chain.family || !chain.table || !chain.name || (chain.hook && !chain.type)) {
		report(ruleset, "a chain without family, table or name");
		return;
	}
	if (policy && strcmp(policy, "accept") != 0 && strcmp(policy, "drop") != 0)
		report(ruleset, "%s %s %s: policy '%s' is neither accept nor drop", chain.family, chain.table,
		       chain.name, policy);
	chain.drops = policy && strcmp(policy, "drop") == 0;
	key = key_of(&ruleset->arena, chain.family, chain.table, chain.name);
	if (key && json_object_get(ruleset->chains, key))
		report(ruleset, "%s: the chain is given twice", key);
	else if (key && json_object_set_new(ruleset->chains, key, json_integer((json_int_t)ruleset->n_chains)) == 0)
		ruleset->items[ruleset->n_chains++] = chain;
	else
		ruleset->arena.out_of_memory = true;
}

static void add_set(struct nft_ruleset *ruleset, json_t *object)
{
	const char *family = text_of(object, "family"), *table = text_of(object, "table"),
		   *name = text_of(object, "name"), *key;

	if (!family || !table || !name) {
		report(ruleset, "a set without family, table or name");
		return;
	}
	key = key_of(&ruleset->arena, family, table, name);
	if (key && json_object_get(ruleset->sets, key))
		report(ruleset, "%s: the set is given twice", key);
	else if (!key || json_object_set(ruleset->sets, key, object))
		ruleset->arena.out_of_memory = true;
}

static struct nft_chain *chain_of_rule(struct nft_ruleset *ruleset, const json_t *rule)
{
	const char *family = text_of(rule, "family"), *table = text_of(rule, "table"), *name = text_of(rule, "chain");

	if (!family || !table || !name)
		return NULL;
	return (struct nft_chain *)nft_ruleset_chain(ruleset, family, table, name);
}

/* Gives each chain its rules, in their order: they are counted first. */
static void add_rules(struct nft_ruleset *ruleset, const json_t *list)
{
	json_t *item, *rule;
	size_t i;

	json_array_foreach(list, i, item)
	{
		struct nft_chain *chain;

		rule = json_object_get(item, "rule");
		if (!rule)
			continue;
		chain = chain_of_rule(ruleset, rule);
		if (chain)
			chain->n_rules++;
		else
			report(ruleset, "a rule of no chain that is there, handle %lld",
			       (long long)json_integer_value(json_object_get(rule, "handle")));
	}
	for (i = 0; i < ruleset->n_chains; i++) {
		struct nft_chain *chain = &ruleset->items[i];

		chain->rules = arena_array(&ruleset->arena, chain->n_rules, sizeof(*chain->rules));
		if (!chain->rules)
			return;
		chain->n_rules = 0;
	}
	json_array_foreach(list, i, item)
	{
		struct nft_chain *chain;

		rule = json_object_get(item, "rule");
		chain = rule ? chain_of_rule(ruleset, rule) : NULL;
		if (chain)
			chain->rules[chain->n_rules++] = rule;
	}
}

/* Objects that say nothing by themselves: a rule that uses one is an error where it stands. */
static bool is_silent(const char *kind)
{
	static const char *const kinds[] = {"metainfo", "table",	  "rule",      "counter",    "quota",
					    "limit",	"ct helper",	  "meter",     "ct timeout", "secmark",
					    "synproxy", "ct expectation", "flowtable", "tunnel"};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(kind, kinds[i]) == 0)
			return true;
	return false;
}

static void add_items(struct nft_ruleset *ruleset, const json_t *list)
{
	const char *kind;
	json_t *item, *value;
	size_t i;

	ruleset->items = arena_array(&ruleset->arena, json_array_size(list), sizeof(*ruleset->items));
	if (!ruleset->items)
		return;
	json_array_foreach(list, i, item)
	{
		if (!json_is_object(item))
			report(ruleset, "an item that is no object");
		json_object_foreach(item, kind, value)
		{
			if (strcmp(kind, "chain") == 0)
				add_chain(ruleset, value);
			else if (strcmp(kind, "set") == 0 || strcmp(kind, "map") == 0)
				add_set(ruleset, value);
			else if (!is_silent(kind))
				report(ruleset, "'%.60s' cannot be imported", kind);
		}
	}
	add_rules(ruleset, list);
}

int nft_ruleset_read(struct nft_ruleset *ruleset, const struct policy_source *source)
{
	json_error_t error;
	json_t *list;

	ruleset->sets = json_object();
	ruleset->chains = json_object();
	if (!ruleset->sets || !ruleset->chains)
		return -ENOMEM;
	ruleset->root = json_loadb(source->text, source->len, JSON_REJECT_DUPLICATES, &error);
	if (!ruleset->root) {
		diagnostics_error(ruleset->diagnostics,
				  (struct position){0, error.line > 0 ? (uint32_t)error.line : 0,
						    error.column > 0 ? (uint32_t)error.column : 1},
				  "not valid JSON: %s", error.text);
		diagnostics_hint(ruleset->diagnostics, "the output of `nft -j list ruleset` is");
		return 0;
	}
	list = json_object_get(ruleset->root, "nftables");
	if (json_is_array(list))
		add_items(ruleset, list);
	else
		report(ruleset, "not the output of `nft -j list ruleset`: no list `nftables`");
	return ruleset->arena.out_of_memory ? -ENOMEM : 0;
}

void nft_ruleset_free(struct nft_ruleset *ruleset)
{
	json_decref(ruleset->root);
	json_decref(ruleset->sets);
	json_decref(ruleset->chains);
	arena_free(&ruleset->arena);
}

const struct nft_chain *nft_ruleset_chain(struct nft_ruleset *ruleset, const char *family, const char *table,
					  const char *name)
{
	const char *key = key_of(&ruleset->arena, family, table, name);
	const json_t *index = key ? json_object_get(ruleset->chains, key) : NULL;

	return index ? &ruleset->items[json_integer_value(index)] : NULL;
}
