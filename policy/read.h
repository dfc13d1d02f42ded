/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read.h - from YAML trees to the model (model.h): the grammar of the language, and every check of it.
 *
 * First the definitions of all files are read, then what refers to other definitions is resolved, then the rules, then the
 * tests and invariants; so the order of files and of sections means nothing. A mistake is reported where it stands and
 * reading goes on; nothing read from a policy with errors is used.
 *
 * The trees are gone when reading is done: what the policy keeps of a text is copied (reader_keep).
 */
#ifndef BULKHEAD_POLICY_READ_H
#define BULKHEAD_POLICY_READ_H

#include "policy/model.h"
#include "policy/yaml_tree.h"

/* An identity made by set algebra, until the names in it can be looked up. */
struct algebra_draft {
	const struct node *map;
	uint32_t identity;
};

enum draft_state {
	DRAFT_READ,
	DRAFT_OPEN, /* being resolved: to meet it again is a cycle */
	DRAFT_DONE,
};

/* A service, until the names in it can be looked up. */
struct service_draft {
	const struct node *value;
	enum draft_state state;
	unsigned height; /* services within services below it */
};

struct reader {
	struct policy *policy;
	struct policy_diagnostics *diagnostics;
	struct intern service_names;
	struct intern rule_names;
	struct list rule_owners;  /* by number in `rule_names`: rule */
	struct list peers;	  /* by number in policy->peer_names: index << 1 | is a network */
	struct intern places;	  /* "unit NAME" or "path PATH" of local identities */
	struct list place_owners; /* by number in `places`: identity */
	struct intern unnamed;	  /* what unnamed identities are made of: one set, one identity */
	struct list unnamed_owners;
	struct algebra_draft *algebra;
	size_t n_algebra, algebra_capacity;
	struct service_draft *services; /* by service */
	size_t services_capacity;
	struct service_range *everything;
	size_t n_ranges; /* of services, copied from definitions to where they are used */
	bool has_tiers;
	struct position tiers_at;
	struct arena arena; /* for the time of reading */
	bool incomplete;    /* a file could not be read: names may be missing through no fault of the rules */
};

/* A key of a map, and where its value goes. */
struct key {
	const char *name;
	const struct node **value;
};

/* What a value may be, for messages. */
struct items {
	struct node *const *items;
	uint32_t n;
};

#define N_ITEMS(array) (sizeof(array) / sizeof((array)[0]))
#define reader_error(reader, node, ...) diagnostics_error((reader)->diagnostics, (node)->at, __VA_ARGS__)
#define reader_warning(reader, node, ...) diagnostics_warning((reader)->diagnostics, (node)->at, __VA_ARGS__)
#define reader_hint(reader, ...) diagnostics_hint((reader)->diagnostics, __VA_ARGS__)

/* ---- values (read_value.c) ---- */

/* Takes a map apart: unknown and duplicate keys are errors. `what` as in "in a rule". Returns false if the node is no
 * map. */
bool read_keys(struct reader *reader, const struct node *map, const char *what, const struct key *keys, size_t n);
/* Reports a key `<<`. */
void reader_merge_key(struct reader *reader, const struct node *key);
/* "a string", "a list" or "a map". */
const char *node_kind_name(const struct node *node);
/* The value of a key of a map, or NULL if it has none or is no map. */
const struct node *node_value(const struct node *map, const char *name);
/* The text of a scalar that is not empty, or NULL after an error. `what` as in "`name` must be a string". */
const char *read_text(struct reader *reader, const struct node *node, const char *what);
/* The index of a word in a list of words, or -1 after an error. */
int read_word(struct reader *reader, const struct node *node, const char *what, const char *const *words, int n);
/* The items of a list, or the one value that is no list. Returns false after an error: the list is empty. */
bool read_items(struct reader *reader, const struct node *node, const char *what, struct items *items);
/* Is this a well-formed name of at most `max` bytes? Reports if not. `kind` as in "an identity". The name is kept. */
bool read_name(struct reader *reader, const struct node *node, const char *kind, size_t max, const char **namep);
/* Of a test or an invariant: any text, for people. */
void read_label(struct reader *reader, const struct node *node, const char **labelp);
/* "FILE:LINE" of a definition. Borrowed. */
const char *reader_where(struct reader *reader, struct position at);
/* A copy that lives as long as the policy; "" when out of memory. */
const char *reader_keep(struct reader *reader, const char *text);
/* A value in one line, as YAML writes it, cut where it is too long to be read. Lives as long as the policy. */
const char *reader_node_text(struct reader *reader, const struct node *node);
void reader_push(struct reader *reader, struct list *list, uint32_t item);
void reader_free(struct reader *reader);

/* ---- definitions ---- */

bool is_builtin_peer(const char *name, uint32_t *atomp, bool *anyp);
/* Registers the name of an identity or network. Returns false after an error. */
bool define_peer(struct reader *reader, const struct node *key, const char *name, bool network, size_t index);
/* Says that a name is not defined, and which may have been meant. */
void report_peer(struct reader *reader, const struct node *node, const char *name, unsigned want, bool defined);
#define WANT_IDENTITY 1U
#define WANT_NETWORK 2U

void read_identity(struct reader *reader, const struct node *key, const struct node *value);
/* Parses a pattern that is kept with the policy. Returns false after an error. */
bool read_pattern(struct reader *reader, const struct node *node, struct pattern *pattern);
/* After all definitions: is a cgroup given by its path also given as a unit, by another identity? */
void check_places(struct reader *reader);
void read_network(struct reader *reader, const struct node *key, const struct node *value);
void read_service(struct reader *reader, const struct node *key, const struct node *value);
/* After all definitions: looks up the names in them. */
void resolve_services(struct reader *reader);
void read_tiers(struct reader *reader, const struct node *section);

/* ---- set algebra (read_algebra.c) ---- */

/* Does the map have a key of set algebra? */
bool is_algebra(const struct node *map);
void resolve_algebra(struct reader *reader);
/* The identity, unnamed, that a map of set algebra within a selector is. Returns false after an error. */
bool read_unnamed(struct reader *reader, const struct node *map, uint32_t *identityp);
/* After all else: fills policy->identity_order, hands `used` down, and reports what is made of itself. */
void order_identities(struct reader *reader);

/* ---- rules, tests, invariants ---- */

/* `owner` is what lacks the selector if `node` is NULL, `what` as in "the rule has no `from`". */
void read_selector(struct reader *reader, const struct node *owner, const char *what, const struct node *node,
		   const char *key, struct selector *selector);
/* Names of services, and inline ones; NULL: everything. */
void read_services(struct reader *reader, const struct node *node, struct service_range **rangesp, uint32_t *np);
/* Reads one rule. Definitions must have been read. */
void read_rule(struct reader *reader, const struct node *node);
/* Rules must have been read. */
void read_test(struct reader *reader, const struct node *node);
void read_invariant(struct reader *reader, const struct node *node);
/* {from:, to:, service:}, or a list of two selectors. Returns false after an error. */
void read_invariant_body(struct reader *reader, const struct node *body, struct invariant *invariant);

#endif
