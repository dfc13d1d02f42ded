/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read.h - from YAML trees to the model (model.h): the grammar of the language, and every check of it.
 *
 * First the definitions of all files are read, then the rules, so the order of files and of sections means nothing. A
 * mistake is reported where it stands and reading goes on; nothing read from a policy with errors is used.
 */
#ifndef BULKHEAD_POLICY_READ_H
#define BULKHEAD_POLICY_READ_H

#include "policy/model.h"
#include "policy/yaml_tree.h"

struct reader {
	struct policy *policy;
	struct policy_diagnostics *diagnostics;
	struct intern service_names;
	struct intern rule_names;
	struct list rule_owners;  /* by number in `rule_names`: rule */
	struct list peers;	  /* by number in policy->peer_names: index << 1 | is a network */
	struct intern places;	  /* "unit NAME" or "path PATH" of local identities */
	struct list place_owners; /* by number in `places`: identity */
	struct arena arena;	  /* for the time of reading */
	bool incomplete;	  /* a file could not be read: names may be missing through no fault of the rules */
};

/* A key of a map, and where its value goes. */
struct key {
	const char *name;
	const struct node **value; /* NULL: of the language, but not supported yet */
};

/* What a value may be, for messages. */
struct items {
	struct node *const *items;
	uint32_t n;
};

#define reader_error(reader, node, ...) diagnostics_error((reader)->diagnostics, (node)->at, __VA_ARGS__)
#define reader_hint(reader, ...) diagnostics_hint((reader)->diagnostics, __VA_ARGS__)

/* Takes a map apart: unknown, duplicate and not yet supported keys are errors. `what` as in "in a rule". Returns false
 * if the node is no map. */
bool read_keys(struct reader *reader, const struct node *map, const char *what, const struct key *keys, size_t n);
/* The text of a scalar that is not empty, or NULL after an error. `what` as in "`name` must be a string". */
const char *read_text(struct reader *reader, const struct node *node, const char *what);
/* The index of a word in a list of words, or -1 after an error. */
int read_word(struct reader *reader, const struct node *node, const char *what, const char *const *words, int n);
/* The items of a list, or the one value that is no list. Returns false after an error: the list is empty. */
bool read_items(struct reader *reader, const struct node *node, const char *what, struct items *items);
/* Is this a well-formed name of at most `max` bytes? Reports if not. `kind` as in "identity". */
bool read_name(struct reader *reader, const struct node *node, const char *kind, size_t max, const char **namep);
/* "FILE:LINE" of a definition. Borrowed. */
const char *reader_where(struct reader *reader, struct position at);
bool is_builtin_peer(const char *name, uint32_t *atomp, bool *anyp);

void read_identity(struct reader *reader, const struct node *key, const struct node *value);
/* After all definitions: is a cgroup given by its path also given as a unit, by another identity? */
void check_places(struct reader *reader);
void read_network(struct reader *reader, const struct node *key, const struct node *value);
void read_service(struct reader *reader, const struct node *key, const struct node *value);
/* Reports an inline service that is wrong. Returns false if the text is no inline service at all. */
bool read_inline_service(struct reader *reader, const struct node *node, const char *text, struct service_range *range,
			 bool *okp);
/* Reads one rule. Definitions must have been read. */
void read_rule(struct reader *reader, const struct node *node);

#endif
