/* SPDX-License-Identifier: Apache-2.0 */
/*
 * parse.c - a policy from its sources: the sections of a file, and what they have in common.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bpf/abi.h"
#include "policy/read.h"
#include "policy/sha256.h"
#include "policy/text.h"

/* What is left of the files when their definitions are read, by file; NULL: it has none. */
struct later {
	const struct node *rules;
	const struct node *tests;
	const struct node *invariants;
};

/* ---- sections ---- */

static void read_definitions(struct reader *reader, const struct node *section, const char *what,
			     void (*read)(struct reader *reader, const struct node *key, const struct node *value))
{
	if (!section)
		return;
	if (section->kind != NODE_MAP) {
		reader_error(reader, section, "`%s` must be a map of names, not %s", what, node_kind_name(section));
		return;
	}
	for (uint32_t i = 0; i < section->n; i += 2) {
		const struct node *key = section->items[i];

		if (key->kind == NODE_SCALAR && strcmp(key->text, "<<") == 0)
			reader_merge_key(reader, key);
		else
			read(reader, key, section->items[i + 1]);
	}
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
	if (!read_keys(reader, section, "`defaults`", keys, N_ITEMS(keys)))
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

static const struct node *check_list(struct reader *reader, const struct node *section, const char *name)
{
	if (!section || section->kind == NODE_LIST)
		return section;
	reader_error(reader, section, "`%s` must be a list, not %s", name, node_kind_name(section));
	return NULL;
}

/* Definitions of one file; what needs them all is handed back. */
static void read_file(struct reader *reader, const struct node *root, struct later *later)
{
	const struct node *version = NULL, *identities = NULL, *networks = NULL, *services = NULL, *tiers = NULL,
			  *defaults = NULL, *rules = NULL, *tests = NULL, *invariants = NULL;
	const struct key keys[] = {
		{"bulkhead", &version},	 {"identities", &identities}, {"networks", &networks},
		{"services", &services}, {"tiers", &tiers},	      {"defaults", &defaults},
		{"rules", &rules},	 {"tests", &tests},	      {"invariants", &invariants},
	};

	/* The version is looked at first: another version may have other keys. */
	if (node_value(root, "bulkhead") && !read_version(reader, root, node_value(root, "bulkhead"))) {
		reader->incomplete = true;
		return;
	}
	if (!read_keys(reader, root, "a policy file", keys, N_ITEMS(keys))) {
		reader->incomplete = true;
		return;
	}
	if (!version)
		read_version(reader, root, NULL);
	read_definitions(reader, identities, "identities", read_identity);
	read_definitions(reader, networks, "networks", read_network);
	read_definitions(reader, services, "services", read_service);
	read_tiers(reader, tiers);
	read_defaults(reader, defaults);
	later->rules = check_list(reader, rules, "rules");
	later->tests = check_list(reader, tests, "tests");
	later->invariants = check_list(reader, invariants, "invariants");
}

static void warn_unused_name(struct reader *reader, struct position at, const char *kind, const char *name)
{
	diagnostics_warning(reader->diagnostics, at, "no rule uses the %s '%s'", kind, name);
	diagnostics_code(reader->diagnostics, "unused");
}

static void warn_unused(struct reader *reader)
{
	const struct policy *policy = reader->policy;

	for (size_t i = 0; i < policy->n_identities; i++)
		if (!policy->identities[i].used && !policy->identities[i].unnamed && !policy->identities[i].n_only)
			warn_unused_name(reader, policy->identities[i].at, "identity", policy->identities[i].name);
	for (size_t i = 0; i < policy->n_networks; i++)
		if (!policy->networks[i].used)
			warn_unused_name(reader, policy->networks[i].at, "network", policy->networks[i].name);
	for (size_t i = 0; i < policy->n_services; i++)
		if (!policy->services[i].used)
			warn_unused_name(reader, policy->services[i].at, "service", policy->services[i].name);
}

/* Reads the definitions of all files. */
static void read_files(struct reader *reader, const struct policy_source *sources, size_t n, struct later *later)
{
	uint32_t budget = YAML_TREE_MAX_NODES;

	for (uint32_t i = 0; i < n; i++) {
		size_t errors = policy_diagnostics_count(reader->diagnostics, POLICY_ERROR);
		struct node *root;

		yaml_tree_read(&root, &reader->arena, &sources[i], i, &budget, reader->diagnostics);
		if (root) {
			read_file(reader, root, &later[i]);
			continue;
		}
		reader->incomplete = true;
		if (policy_diagnostics_count(reader->diagnostics, POLICY_ERROR) == errors)
			diagnostics_error(reader->diagnostics, (struct position){i, 0, 0},
					  "the file is empty: `bulkhead: 1`, the language version, is required");
	}
}

/* Reads the items of a list up to `max` of all files together. */
static void read_list(struct reader *reader, const struct node *list, const char *what, size_t max, const size_t *np,
		      void (*read)(struct reader *reader, const struct node *node))
{
	for (uint32_t i = 0; list && i < list->n && *np <= max; i++) {
		read(reader, list->items[i]);
		if (*np > max)
			reader_error(reader, list->items[i], "the policy has more than %zu %s", max, what);
	}
}

static void read_sources(struct reader *reader, const struct policy_source *sources, size_t n)
{
	struct policy *policy = reader->policy;
	struct later *later = arena_array(&reader->arena, n, sizeof(*later));

	if (!later)
		return;
	read_files(reader, sources, n, later);
	resolve_services(reader);
	resolve_algebra(reader);
	check_places(reader);
	for (size_t i = 0; i < n; i++)
		read_list(reader, later[i].rules, "rules", BH_MAX_RULES - 1, &policy->n_rules, read_rule);
	for (size_t i = 0; i < n; i++) {
		read_list(reader, later[i].tests, "tests", POLICY_MAX_TESTS, &policy->n_tests, read_test);
		read_list(reader, later[i].invariants, "invariants", POLICY_MAX_INVARIANTS, &policy->n_invariants,
			  read_invariant);
	}
	order_identities(reader);
	if (!policy_diagnostics_count(reader->diagnostics, POLICY_ERROR))
		warn_unused(reader);
}

static void add_length(struct sha256 *sha, size_t len)
{
	uint64_t little = htole64(len);

	sha256_add(sha, &little, sizeof(little));
}

/* Names and texts, each with its length before it, so that no two lists of sources have the same bytes. */
static void make_digest(char out[65], const struct policy_source *sources, size_t n)
{
	unsigned char hash[SHA256_BYTES];
	struct sha256 sha;

	sha256_begin(&sha);
	for (size_t i = 0; i < n; i++) {
		add_length(&sha, strlen(sources[i].name));
		add_length(&sha, sources[i].len);
		sha256_add(&sha, sources[i].name, strlen(sources[i].name));
		sha256_add(&sha, sources[i].text, sources[i].len);
	}
	sha256_end(&sha, hash);
	for (size_t i = 0; i < SHA256_BYTES; i++)
		snprintf(out + 2 * i, 3, "%02x", hash[i]);
}

void reader_free(struct reader *reader)
{
	intern_free(&reader->service_names);
	intern_free(&reader->rule_names);
	intern_free(&reader->places);
	intern_free(&reader->unnamed);
	list_free(&reader->peers);
	list_free(&reader->rule_owners);
	list_free(&reader->place_owners);
	list_free(&reader->unnamed_owners);
	free(reader->algebra);
	free(reader->services);
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
	policy->tiers = arena_array(&policy->arena, POLICY_MAX_TIERS, sizeof(*policy->tiers));
	for (size_t i = 0; i < n && policy->source_names; i++)
		policy->source_names[i] = text_printable(&policy->arena, sources[i].name, strlen(sources[i].name));
	if (policy->arena.out_of_memory)
		return NULL;
	policy->tiers[0] = (struct tier){.name = "app"};
	policy->n_tiers = 1;
	make_digest(policy->digest, sources, n);
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
	free(policy->tests);
	free(policy->invariants);
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
	size_t n = 0;

	for (size_t i = 0; i < policy->n_identities; i++)
		n += !policy->identities[i].unnamed;
	return n;
}
