/* SPDX-License-Identifier: Apache-2.0 */
/*
 * commented_yaml.h - a YAML file as it is written: a tree that keeps comments, anchors, aliases and blank lines.
 *
 * libyaml drops comments, but the gaps between its tokens hold nothing else than them and white space, so they are found
 * by position (yaml_comments.c) and given to what they stand at:
 *
 *	# head of `web`, one or more lines
 *	web:   # at the key
 *	  - a  # behind the value
 *	    # foot: below a value and deeper than it
 *	  # tail of the list: behind its last item, at the column of the items
 *
 * A comment above a line belongs to that line, unless it is indented deeper: then it ends what stands above it.
 */
#ifndef BULKHEAD_POLICY_COMMENTED_YAML_H
#define BULKHEAD_POLICY_COMMENTED_YAML_H

#include "policy/yaml_tree.h"

struct comment {
	const char *text; /* from '#' to the end of the line without white space behind; not terminated */
	uint32_t len;
	uint32_t start; /* byte in the source */
	bool blank;	/* an empty line stands above it */
	bool alone;	/* on its line */
	bool leads;	/* behind a "-", ",", "?", anchor or document start: about what follows */
	struct comment *next;
};

struct comments {
	struct comment *first, *last;
};

enum commented_kind {
	COMMENTED_SCALAR,
	COMMENTED_ALIAS,
	COMMENTED_LIST,
	COMMENTED_MAP,
};

struct commented_entry;

struct commented_node {
	enum commented_kind kind;
	bool quoted;	   /* scalar */
	bool has_comments; /* within a list or map */
	bool tied;	   /* it or something within is an anchor or an alias */
	uint32_t n;
	const char *anchor; /* or NULL */
	const char *text;   /* of a scalar; the anchor of an alias */
	struct commented_entry *entries;
	struct comments tail;
};

/* An entry of a map, or an item of a list. */
struct commented_entry {
	struct commented_node *key; /* NULL in a list */
	struct commented_node *value;
	struct comments head;
	struct comments at_key; /* behind the key, or behind the bracket that opens the value */
	struct comments behind;
	struct comments foot;
	bool blank;	       /* an empty line stands above it, or above its head */
	bool blank_below_head; /* between the head and it */
};

struct commented_file {
	struct commented_node *root;
	struct comments header; /* of the file, before the first key and apart from it */
	bool blank_below_header;
	struct comment *comments; /* all of them, in the order of the file */
	size_t n_comments;
};

/*
 * Reads a source that yaml_tree_read() has accepted, that has a map at the top and no byte order mark. Everything lives in the arena or in the
 * source. Returns 0, or -ENOMEM (also for a source that was not accepted).
 */
int commented_yaml_read(struct commented_file *file, struct arena *arena, const struct policy_source *source);

/* Finds all comments of a source. Returns 0, or -ENOMEM. */
int yaml_comments_find(struct comment **commentsp, size_t *np, struct arena *arena, const struct policy_source *source);

/* ---- places in the source ---- */

/* libyaml counts characters; this finds their bytes. Moves both ways. */
struct yaml_cursor {
	const char *text;
	size_t len;
	size_t byte;
	size_t index; /* characters before `byte` */
};

size_t yaml_cursor_seek(struct yaml_cursor *cursor, size_t index);
/* Is the line above the one that holds this byte empty? */
bool yaml_blank_above(const char *text, size_t len, size_t at);
/* Characters between the beginning of the line and this byte. */
size_t yaml_column(const char *text, size_t at);

#endif
