/* SPDX-License-Identifier: Apache-2.0 */
/*
 * parse.c - a policy from its sources: the sections of a file, and what they have in common.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bpf/abi.h"
#include "policy/read.h"

static const char *const kind_names[] = {[NODE_SCALAR] = "a string", [NODE_LIST] = "a list", [NODE_MAP] = "a map"};

static void report_key(struct reader *reader, const struct node *node, const char *what, const struct key *keys,
		       size_t n)
{
	struct suggestion suggestion = {.wrong = node->text};

	reader_error(reader, node, "unknown key '%s' in %s", node->text, what);
	for (size_t i = 0; i < n; i++)
		if (keys[i].value)
			suggestion_offer(&suggestion, keys[i].name);
	if (suggestion.best)
		reader_hint(reader, "did you mean '%s'?", suggestion.best);
}

bool read_keys(struct reader *reader, const struct node *map, const char *what, const struct key *keys, size_t n)
{
	if (map->kind != NODE_MAP) {
		reader_error(reader, map, "%s must be a map, not %s", what, kind_names[map->kind]);
		return false;
	}
	for (uint32_t i = 0; i < map->n; i += 2) {
		const struct node *key = map->items[i];
		size_t k = 0;

		if (key->kind != NODE_SCALAR) {
			reader_error(reader, key, "a key must be a string, not %s", kind_names[key->kind]);
			continue;
		}
		while (k < n && strcmp(keys[k].name, key->text) != 0)
			k++;
		if (k == n) {
			report_key(reader, key, what, keys, n);
		} else if (!keys[k].value) {
			reader_error(reader, key, "`%s` is not supported yet by this version", key->text);
		} else if (*keys[k].value) {
			reader_error(reader, key, "duplicate key '%s' in %s", key->text, what);
			reader_hint(reader, "first given at %s", reader_where(reader, (*keys[k].value)->at));
		} else {
			*keys[k].value = map->items[i + 1];
		}
	}
	return true;
}

const char *read_text(struct reader *reader, const struct node *node, const char *what)
{
	if (node->kind != NODE_SCALAR) {
		reader_error(reader, node, "%s must be a string, not %s", what, kind_names[node->kind]);
		return NULL;
	}
	if (!node->text[0]) {
		reader_error(reader, node, "%s has no value", what);
		return NULL;
	}
	return node->text;
}

int read_word(struct reader *reader, const struct node *node, const char *what, const char *const *words, int n)
{
	const char *text = read_text(reader, node, what);
	struct suggestion suggestion = {.wrong = text};
	char list[128] = "";

	if (!text)
		return -1;
	for (int i = 0; i < n; i++) {
		if (strcmp(text, words[i]) == 0)
			return i;
		suggestion_offer(&suggestion, words[i]);
		snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s",
			 !i	      ? ""
			 : i == n - 1 ? " or "
				      : ", ",
			 words[i]);
	}
	reader_error(reader, node, "%s must be %s, not '%s'", what, list, text);
	if (suggestion.best)
		reader_hint(reader, "did you mean '%s'?", suggestion.best);
	return -1;
}

bool read_items(struct reader *reader, const struct node *node, const char *what, struct items *items)
{
	if (node->kind != NODE_LIST) {
		*items = (struct items){&node->self, 1};
		return true;
	}
	*items = (struct items){node->items, node->n};
	if (node->n)
		return true;
	reader_error(reader, node, "%s is an empty list", what);
	reader_hint(reader, "an empty list never means everything; leave it out or name something");
	return false;
}

bool read_name(struct reader *reader, const struct node *node, const char *kind, size_t max, const char **namep)
{
	const char *text;
	size_t len, good;

	if (node->kind != NODE_SCALAR) {
		reader_error(reader, node, "the name of %s must be a string, not %s", kind, kind_names[node->kind]);
		return false;
	}
	text = node->text;
	len = strlen(text);
	good = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-");
	if (!len || len > max || good < len || text[0] == '-' || text[0] == '.' || text[0] == '_') {
		reader_error(reader, node, "'%.*s' cannot name %s", (int)(len > 80 ? 80 : len), text, kind);
		reader_hint(reader,
			    "a name has 1 to %zu letters, digits, '_', '.' and '-', and begins with a letter or digit",
			    max);
		return false;
	}
	*namep = text;
	return true;
}

const char *reader_where(struct reader *reader, struct position at)
{
	const char *text =
		arena_printf(&reader->arena, "%s:%u", diagnostics_source_name(reader->diagnostics, at.source), at.line);

	return text ? text : "";
}

/* ---- sections ---- */

static void read_definitions(struct reader *reader, const struct node *section, const char *what,
			     void (*read)(struct reader *reader, const struct node *key, const struct node *value))
{
	if (!section)
		return;
	if (section->kind != NODE_MAP) {
		reader_error(reader, section, "`%s` must be a map of names, not %s", what, kind_names[section->kind]);
		return;
	}
	for (uint32_t i = 0; i < section->n; i += 2)
		read(reader, section->items[i], section->items[i + 1]);
}

static void read_defaults(struct reader *reader, const struct node *section)
{
	static const char *const actions[] = {"deny", "allow"};
	static const char *const logs[] = {"none", "new", "denied", "all"};
	const struct node *action = NULL, *log = NULL;
	const struct key keys[] = {{"action", &action}, {"log", &log}};
	struct policy *policy = reader->policy;
	int word;

	if (!section)
		return;
	if (policy->has_defaults) {
		reader_error(reader, section, "`defaults` can be given once in a policy");
		reader_hint(reader, "first given at %s", reader_where(reader, policy->defaults_at));
		return;
	}
	policy->has_defaults = true;
	policy->defaults_at = section->at;
	if (!read_keys(reader, section, "`defaults`", keys, sizeof(keys) / sizeof(keys[0])))
		return;
	if (action) {
		word = read_word(reader, action, "`action`", actions, 2);
		policy->default_allow = word == 1;
	}
	if (log) {
		word = read_word(reader, log, "`log`", logs, 4);
		policy->default_log = word < 0 ? RULE_LOG_DENIED : (enum rule_log)word;
	}
}

/* Returns false where the version is wrong: then nothing else in the file can be judged. */
static bool read_version(struct reader *reader, const struct node *root, const struct node *version)
{
	if (!version) {
		reader_error(reader, root, "`bulkhead: 1`, the language version, is missing");
		return true;
	}
	if (version->kind == NODE_SCALAR && strcmp(version->text, "1") == 0)
		return true;
	if (version->kind == NODE_SCALAR)
		reader_error(reader, version, "language version '%s' is not supported: this version reads 1",
			     version->text);
	else
		reader_error(reader, version, "`bulkhead` must be 1, the language version");
	return false;
}

/* Definitions of one file; its rules are handed back, or NULL. */
static const struct node *read_file(struct reader *reader, const struct node *root)
{
	const struct node *version = NULL, *identities = NULL, *networks = NULL, *services = NULL, *defaults = NULL,
			  *rules = NULL;
	const struct key keys[] = {
		{"bulkhead", &version},	 {"identities", &identities}, {"networks", &networks}, {"services", &services},
		{"defaults", &defaults}, {"rules", &rules},	      {"tiers", NULL},	       {"tests", NULL},
	};

	/* The version is looked at first: another version may have other keys. */
	for (uint32_t i = 0; root->kind == NODE_MAP && i < root->n; i += 2)
		if (root->items[i]->kind == NODE_SCALAR && strcmp(root->items[i]->text, "bulkhead") == 0) {
			if (!read_version(reader, root, root->items[i + 1])) {
				reader->incomplete = true;
				return NULL;
			}
			break;
		}
	if (!read_keys(reader, root, "a policy file", keys, sizeof(keys) / sizeof(keys[0]))) {
		reader->incomplete = true;
		return NULL;
	}
	if (!version)
		read_version(reader, root, NULL);
	read_definitions(reader, identities, "identities", read_identity);
	read_definitions(reader, networks, "networks", read_network);
	read_definitions(reader, services, "services", read_service);
	read_defaults(reader, defaults);
	if (rules && rules->kind != NODE_LIST) {
		reader_error(reader, rules, "`rules` must be a list, not %s", kind_names[rules->kind]);
		return NULL;
	}
	return rules;
}

static void warn_unused(struct reader *reader)
{
	const struct policy *policy = reader->policy;

	for (size_t i = 0; i < policy->n_identities; i++)
		if (!policy->identities[i].used && !policy->identities[i].n_only)
			diagnostics_warning(reader->diagnostics, policy->identities[i].at,
					    "no rule uses the identity '%s'", policy->identities[i].name);
	for (size_t i = 0; i < policy->n_networks; i++)
		if (!policy->networks[i].used)
			diagnostics_warning(reader->diagnostics, policy->networks[i].at,
					    "no rule uses the network '%s'", policy->networks[i].name);
	for (size_t i = 0; i < policy->n_services; i++)
		if (!policy->services[i].used)
			diagnostics_warning(reader->diagnostics, policy->services[i].at,
					    "no rule uses the service '%s'", policy->services[i].name);
}

static void read_sources(struct reader *reader, const struct policy_source *sources, size_t n)
{
	struct policy *policy = reader->policy;
	const struct node **rules = arena_array(&reader->arena, n, sizeof(*rules));
	uint32_t budget = YAML_TREE_MAX_NODES;

	for (uint32_t i = 0; i < n && rules; i++) {
		size_t errors = policy_diagnostics_count(reader->diagnostics, POLICY_ERROR);
		struct node *root;

		yaml_tree_read(&root, &policy->arena, &sources[i], i, &budget, reader->diagnostics);
		if (root) {
			rules[i] = read_file(reader, root);
			continue;
		}
		reader->incomplete = true;
		if (policy_diagnostics_count(reader->diagnostics, POLICY_ERROR) == errors)
			diagnostics_error(reader->diagnostics, (struct position){i, 0, 0},
					  "the file is empty: `bulkhead: 1`, the language version, is required");
	}
	check_places(reader);
	for (size_t i = 0; i < n && rules; i++)
		for (uint32_t j = 0; rules[i] && j < rules[i]->n; j++)
			read_rule(reader, rules[i]->items[j]);
	if (policy->n_rules >= BH_MAX_RULES)
		diagnostics_error(reader->diagnostics, policy->rules[BH_MAX_RULES - 1].at,
				  "the policy has %zu rules, the limit is %u", policy->n_rules, BH_MAX_RULES - 1);
	if (!policy_diagnostics_count(reader->diagnostics, POLICY_ERROR))
		warn_unused(reader);
}

static void reader_free(struct reader *reader)
{
	intern_free(&reader->service_names);
	intern_free(&reader->rule_names);
	intern_free(&reader->places);
	list_free(&reader->peers);
	list_free(&reader->rule_owners);
	list_free(&reader->place_owners);
	arena_free(&reader->arena);
}

static struct policy *policy_new(const struct policy_source *sources, size_t n)
{
	_cleanup_(policy_freep) struct policy *policy = calloc(1, sizeof(*policy));
	struct policy *result;

	if (!policy)
		return NULL;
	policy->default_log = RULE_LOG_DENIED;
	policy->n_sources = (uint32_t)n;
	policy->source_names = arena_array(&policy->arena, n, sizeof(char *));
	for (size_t i = 0; i < n && policy->source_names; i++)
		policy->source_names[i] = arena_copy(&policy->arena, sources[i].name, strlen(sources[i].name));
	if (policy->arena.out_of_memory)
		return NULL;
	result = policy;
	policy = NULL;
	return result;
}

int policy_parse(struct policy **policyp, struct policy_diagnostics **diagnosticsp, const struct policy_source *sources,
		 size_t n_sources)
{
	_cleanup_(policy_diagnostics_freep) struct policy_diagnostics *diagnostics = NULL;
	_cleanup_(policy_freep) struct policy *policy = NULL;
	_cleanup_(reader_free) struct reader reader = {};
	bool valid;

	*policyp = NULL;
	*diagnosticsp = NULL;
	diagnostics = diagnostics_new(sources, n_sources);
	if (!diagnostics)
		return -ENOMEM;
	if (n_sources > POLICY_MAX_SOURCES) {
		diagnostics_error(diagnostics, (struct position){POLICY_MAX_SOURCES, 0, 0},
				  "the policy has %zu files, the limit is %u", n_sources, POLICY_MAX_SOURCES);
	} else {
		policy = policy_new(sources, n_sources);
		if (!policy)
			return -ENOMEM;
		reader.policy = policy;
		reader.diagnostics = diagnostics;
		read_sources(&reader, sources, n_sources);
		if (policy->arena.out_of_memory || reader.arena.out_of_memory)
			return -ENOMEM;
	}
	if (diagnostics_finish(diagnostics) < 0)
		return -ENOMEM;
	valid = !policy_diagnostics_count(diagnostics, POLICY_ERROR);
	if (valid) {
		*policyp = policy;
		policy = NULL;
	}
	*diagnosticsp = diagnostics;
	diagnostics = NULL;
	return valid ? 0 : 1;
}

void policy_freep(struct policy **policyp)
{
	struct policy *policy = *policyp;

	if (!policy)
		return;
	free(policy->identities);
	free(policy->networks);
	free(policy->services);
	free(policy->rules);
	intern_free(&policy->peer_names);
	arena_free(&policy->arena);
	free(policy);
	*policyp = NULL;
}

size_t policy_rule_count(const struct policy *policy)
{
	return policy->n_rules;
}

size_t policy_identity_count(const struct policy *policy)
{
	return policy->n_identities;
}
