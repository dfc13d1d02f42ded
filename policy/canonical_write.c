/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/canonical.h"
#include "policy/canonical_write.h"
#include "policy/yaml_scalar.h"

#define INDENT 2U

/* What a collection is, as far as its form depends on it. */
enum role {
	ROLE_FILE,
	ROLE_NAMES,   /* a section of definitions: the order of names is the author's */
	ROLE_RULES,   /* a list of rules */
	ROLE_RULE,    /* one of them */
	ROLE_LIST,    /* tests, invariants */
	ROLE_VALUE,   /* anything of the language within those */
	ROLE_UNKNOWN, /* no part of the language */
};

struct line {
	size_t start;
	size_t len;
	const struct comment *behind;
};

struct writer {
	struct arena *arena;
	char *text; /* lines without their ends and comments */
	size_t n, capacity;
	struct line *lines;
	size_t n_lines, lines_capacity;
	size_t line_start;
	bool failed;
};

static void put(struct writer *writer, const char *text, size_t len)
{
	while ((!writer->text || writer->capacity - writer->n < len) && !writer->failed) {
		size_t capacity = writer->capacity ? 2 * writer->capacity : 4096;
		char *grown = realloc(writer->text, capacity);

		writer->failed = !grown;
		if (grown) {
			writer->text = grown;
			writer->capacity = capacity;
		}
	}
	if (writer->failed)
		return;
	if (len)
		memcpy(writer->text + writer->n, text, len);
	writer->n += len;
}

static void put_text(struct writer *writer, const char *text)
{
	put(writer, text, strlen(text));
}

static void put_indent(struct writer *writer, unsigned indent)
{
	for (unsigned i = 0; i < indent; i++)
		put(writer, " ", 1);
}

static void end_line(struct writer *writer, const struct comment *behind)
{
	if (array_grow(&writer->lines, &writer->lines_capacity, writer->n_lines, sizeof(*writer->lines)) < 0) {
		writer->failed = true;
		return;
	}
	writer->lines[writer->n_lines++] = (struct line){writer->line_start, writer->n - writer->line_start, behind};
	writer->line_start = writer->n;
}

static void put_comment_line(struct writer *writer, const struct comment *comment, unsigned indent, bool blank)
{
	if (blank)
		end_line(writer, NULL);
	put_indent(writer, indent);
	put(writer, comment->text, comment->len);
	end_line(writer, NULL);
}

static void put_comments(struct writer *writer, const struct comments *comments, unsigned indent)
{
	for (const struct comment *c = comments->first; c; c = c->next)
		put_comment_line(writer, c, indent, c->blank);
}

/* ---- scalars, and what fits a line ---- */

static void put_anchor(struct writer *writer, const struct commented_node *node, const char *before)
{
	if (!node->anchor)
		return;
	put_text(writer, before);
	put_text(writer, "&");
	put_text(writer, node->anchor);
}

/* An empty value stays empty where it can. */
static bool is_nothing(const struct commented_node *node)
{
	return node->kind == COMMENTED_SCALAR && !node->quoted && !node->text[0];
}

static void put_scalar(struct writer *writer, const struct commented_node *node, bool flow)
{
	const char *text;

	if (node->kind == COMMENTED_ALIAS) {
		put_text(writer, "*");
		put_text(writer, node->text);
		return;
	}
	text = yaml_scalar_write(writer->arena, node->text,
				 (flow ? YAML_SCALAR_FLOW : 0) | (node->quoted ? YAML_SCALAR_QUOTED : 0));
	if (text)
		put_text(writer, text);
	else
		writer->failed = true;
}

static void put_key(struct writer *writer, const struct commented_node *key, bool flow)
{
	put_anchor(writer, key, "");
	if (key->anchor)
		put_text(writer, " ");
	put_scalar(writer, key, flow);
	put_text(writer, key->kind == COMMENTED_ALIAS ? " :" : ":");
}

static const char *const file_keys[] = {"bulkhead", "identities", "networks", "services",  "tiers",
					"defaults", "rules",	  "tests",    "invariants"};

/* Of identities, networks, selectors, rules, defaults, tests and invariants: no two of them disagree. */
static const char *const value_keys[] = {
	"spiffe",  "only",    "unit",	"cgroup", "uid",       "identity", "network", "any",	  "all",    "not",
	"include", "except",  "name",	"never",  "always",    "isolated", "tier",    "priority", "action", "from",
	"to",	   "service", "expect", "by",	  "direction", "log",	   "mode",    "until",
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static size_t key_rank(const struct commented_node *key, enum role role)
{
	const char *const *keys = role == ROLE_FILE ? file_keys : value_keys;
	size_t n = role == ROLE_FILE ? COUNT(file_keys) : COUNT(value_keys);

	for (size_t i = 0; i < n && key->kind == COMMENTED_SCALAR; i++)
		if (strcmp(keys[i], key->text) == 0)
			return i;
	return n;
}

/* An alias must not come before its anchor, nor meet another one of that name: then the order stays as it is. */
static bool keeps_ties(struct commented_entry *const *sorted, uint32_t n)
{
	const struct commented_entry *last = NULL;

	for (uint32_t i = 0; i < n; i++) {
		const struct commented_entry *entry = sorted[i];

		if (!(entry->key && entry->key->tied) && !(entry->value && entry->value->tied))
			continue;
		if (last && entry < last)
			return false;
		last = entry;
	}
	return true;
}

/* The order in which the entries are written; NULL: as they are. */
static struct commented_entry **in_order(struct writer *writer, const struct commented_node *node, enum role role)
{
	struct commented_entry **sorted;
	size_t *ranks;
	uint32_t n = 0;

	if (node->kind != COMMENTED_MAP || role == ROLE_NAMES || role == ROLE_UNKNOWN)
		return NULL;
	sorted = arena_array(writer->arena, node->n, sizeof(struct commented_entry *));
	ranks = arena_array(writer->arena, node->n, sizeof(*ranks));
	if (!sorted || !ranks) {
		writer->failed = true;
		return NULL;
	}
	for (uint32_t i = 0; i < node->n; i++)
		ranks[i] = key_rank(node->entries[i].key, role);
	for (size_t rank = 0; rank <= COUNT(value_keys); rank++)
		for (uint32_t i = 0; i < node->n; i++)
			if (ranks[i] == rank)
				sorted[n++] = &node->entries[i];
	return keeps_ties(sorted, n) ? sorted : NULL;
}

static const struct commented_entry *entry_at(const struct commented_node *node, struct commented_entry *const *sorted,
					      uint32_t i)
{
	return sorted ? sorted[i] : &node->entries[i];
}

static bool over_width(const struct writer *writer)
{
	return writer->n - writer->line_start > CANONICAL_COLUMNS;
}

/* Writes a value within a line. Returns false as soon as it cannot or does not fit. */
static bool put_flow(struct writer *writer, const struct commented_node *node, enum role role)
{
	bool map = node->kind == COMMENTED_MAP;
	struct commented_entry **entries;

	put_anchor(writer, node, "");
	if (node->anchor)
		put_text(writer, " ");
	if (node->kind == COMMENTED_SCALAR || node->kind == COMMENTED_ALIAS) {
		put_scalar(writer, node, true);
		return !over_width(writer);
	}
	if (node->has_comments || node->n > CANONICAL_COLUMNS)
		return false;
	entries = in_order(writer, node, role);
	put_text(writer, map ? "{" : "[");
	for (uint32_t i = 0; i < node->n && !writer->failed; i++) {
		const struct commented_entry *entry = entry_at(node, entries, i);

		if (i)
			put_text(writer, ", ");
		if (map) {
			put_key(writer, entry->key, true);
			put_text(writer, " ");
		}
		if (!put_flow(writer, entry->value, role))
			return false;
	}
	put_text(writer, map ? "}" : "]");
	return !over_width(writer);
}

static bool is_scalar(const struct commented_node *node)
{
	return node->kind == COMMENTED_SCALAR || node->kind == COMMENTED_ALIAS;
}

/* Must it stand in a block, however short it is? */
static bool is_block_role(enum role role, const struct commented_node *node)
{
	return node->n && (role == ROLE_FILE || role == ROLE_NAMES || role == ROLE_RULES || role == ROLE_LIST ||
			   (role == ROLE_RULE && node->kind == COMMENTED_MAP));
}

/* The beginning of the line of an entry: its key, or its dash. */
static void put_lead(struct writer *writer, const struct commented_entry *entry)
{
	if (!entry->key)
		put_text(writer, "-");
	else
		put_key(writer, entry->key, false);
}

static void put_one_line(struct writer *writer, const struct commented_node *value, enum role role, bool *fitsp)
{
	*fitsp = true;
	if (is_nothing(value)) {
		put_anchor(writer, value, " ");
		return;
	}
	put_text(writer, " ");
	if (!is_scalar(value)) {
		if (value->n) {
			*fitsp = put_flow(writer, value, role);
			return;
		}
		put_anchor(writer, value, "");
		put_text(writer, value->anchor ? " " : "");
		put_text(writer, value->kind == COMMENTED_MAP ? "{}" : "[]");
		return;
	}
	put_anchor(writer, value, "");
	put_text(writer, value->anchor ? " " : "");
	put_scalar(writer, value, false);
}

/* Does the entry stand on one line? Tries it where it would stand. */
static bool is_one_line(struct writer *writer, const struct commented_entry *entry, enum role role, unsigned indent)
{
	size_t before = writer->n, line_start = writer->line_start;
	bool fits;

	if (is_scalar(entry->value) || !entry->value->n)
		return true;
	if (entry->value->has_comments || is_block_role(role, entry->value))
		return false;
	writer->line_start = before;
	put_indent(writer, indent);
	put_lead(writer, entry);
	put_one_line(writer, entry->value, role, &fits);
	writer->n = before;
	writer->line_start = line_start;
	return fits;
}

/* ---- blocks ---- */

static enum role role_of_section(const struct commented_node *key)
{
	static const struct {
		const char *name;
		enum role role;
	} sections[] = {
		{"identities", ROLE_NAMES}, {"networks", ROLE_NAMES}, {"services", ROLE_NAMES},
		{"rules", ROLE_RULES},	    {"tests", ROLE_LIST},     {"invariants", ROLE_LIST},
		{"tiers", ROLE_VALUE},	    {"defaults", ROLE_VALUE},
	};

	for (size_t i = 0; i < COUNT(sections) && key->kind == COMMENTED_SCALAR; i++)
		if (strcmp(sections[i].name, key->text) == 0)
			return sections[i].role;
	return ROLE_UNKNOWN;
}

static enum role role_of_value(enum role role, const struct commented_entry *entry)
{
	switch (role) {
	case ROLE_FILE:
		return role_of_section(entry->key);
	case ROLE_RULES:
		return ROLE_RULE;
	case ROLE_UNKNOWN:
		return ROLE_UNKNOWN;
	default:
		return ROLE_VALUE;
	}
}

static bool wants_blank(enum role role, const struct commented_entry *entry)
{
	return role == ROLE_FILE || role == ROLE_RULES || (role != ROLE_RULE && entry->blank);
}

/* Comments of lines that are no more. */
static void put_moved_comments(struct writer *writer, const struct comments *comments, const struct comment *but,
			       unsigned indent)
{
	for (const struct comment *c = comments->first; c; c = c->next)
		if (c != but)
			put_comment_line(writer, c, indent, false);
}

/* The comment that goes behind the line of an entry: the last of those that stood on its lines. */
static const struct comment *line_comment(const struct commented_entry *entry, bool one_line)
{
	if (one_line)
		return entry->behind.last ? entry->behind.last : entry->at_key.last;
	return entry->key ? entry->at_key.last : NULL;
}

/*
 * What stands above an entry at `at`. The first entry of a block within an item stands on the line of the dash, so what is
 * above it goes above the item. `role`: of the entry's value. `indent`: of the entry itself.
 */
static void put_above(struct writer *writer, const struct commented_entry *entry, enum role role, unsigned indent,
		      unsigned at)
{
	bool one_line = is_one_line(writer, entry, role, indent);
	const struct comment *behind = line_comment(entry, one_line);
	const struct commented_entry *first;

	for (const struct comment *c = entry->head.first; c; c = c->next)
		put_comment_line(writer, c, at, c != entry->head.first && c->blank);
	if (entry->blank_below_head)
		end_line(writer, NULL);
	put_moved_comments(writer, &entry->at_key, behind, at);
	put_moved_comments(writer, &entry->behind, behind, at);
	if (entry->key || one_line)
		return;
	first = entry_at(entry->value, in_order(writer, entry->value, role), 0);
	put_above(writer, first, role_of_value(role, first), indent + INDENT, at);
}

static void put_block(struct writer *writer, const struct commented_node *node, enum role role, unsigned indent,
		      unsigned done);

/* What of the first entry of a block is written already. */
#define DONE_ABOVE 1U
#define DONE_INDENT 2U

/* `role`: of the value. */
static void put_entry(struct writer *writer, const struct commented_entry *entry, enum role role, unsigned indent,
		      unsigned done)
{
	bool one_line = is_one_line(writer, entry, role, indent), fits;
	const struct commented_node *value = entry->value;
	const struct comment *behind = line_comment(entry, one_line);

	if (!(done & DONE_ABOVE))
		put_above(writer, entry, role, indent, indent);
	if (!(done & DONE_INDENT))
		put_indent(writer, indent);
	put_lead(writer, entry);
	if (one_line) {
		put_one_line(writer, value, role, &fits);
		end_line(writer, behind);
		if (!is_scalar(value))
			put_comments(writer, &value->tail, indent + INDENT);
	} else if (!entry->key && !value->anchor && value->kind == COMMENTED_MAP) {
		put_text(writer, " ");
		put_block(writer, value, role, indent + INDENT, DONE_ABOVE | DONE_INDENT);
	} else {
		put_anchor(writer, value, " ");
		end_line(writer, behind);
		put_block(writer, value, role, indent + INDENT, entry->key ? 0 : DONE_ABOVE);
	}
	put_comments(writer, &entry->foot, indent + INDENT);
}

static void put_block(struct writer *writer, const struct commented_node *node, enum role role, unsigned indent,
		      unsigned done)
{
	struct commented_entry **sorted = in_order(writer, node, role);

	for (uint32_t i = 0; i < node->n && !writer->failed; i++) {
		const struct commented_entry *entry = entry_at(node, sorted, i);

		if (i && wants_blank(role, entry))
			end_line(writer, NULL);
		put_entry(writer, entry, role_of_value(role, entry), indent, i ? 0 : done);
	}
	put_comments(writer, &node->tail, indent);
}

/* ---- the file ---- */

/* Comments behind lines that follow each other stand in one column, as far as their lines are no longer than usual. */
static size_t comment_column(const struct line *lines, size_t n)
{
	size_t widest = 0;

	for (size_t i = 0; i < n && lines[i].behind; i++)
		if (lines[i].len > widest && lines[i].len <= CANONICAL_COLUMNS)
			widest = lines[i].len;
	return widest;
}

static size_t output_size(const struct writer *writer)
{
	size_t size = writer->n + 1;

	for (size_t i = 0; i < writer->n_lines; i++)
		size += 1 + (writer->lines[i].behind ? writer->lines[i].behind->len + CANONICAL_COLUMNS + 2 : 0);
	return size;
}

static char *put_lines(const struct writer *writer, char *to)
{
	size_t column = 0;

	for (size_t i = 0; i < writer->n_lines; i++) {
		const struct line *line = &writer->lines[i];
		size_t pad;

		memcpy(to, writer->text + line->start, line->len);
		to += line->len;
		if (line->behind) {
			if (!i || !line[-1].behind)
				column = comment_column(line, writer->n_lines - i);
			pad = 2 + (line->len < column ? column - line->len : 0);
			memset(to, ' ', pad);
			memcpy(to + pad, line->behind->text, line->behind->len);
			to += pad + line->behind->len;
		}
		*to++ = '\n';
	}
	*to = 0;
	return to;
}

int canonical_write(char **textp, size_t *lenp, struct arena *arena, const struct commented_file *file)
{
	struct writer writer = {.arena = arena};
	char *out = NULL;

	put_text(&writer, ""); /* so that there is a buffer */
	for (const struct comment *c = file->header.first; c; c = c->next)
		put_comment_line(&writer, c, 0, c != file->header.first && c->blank);
	if (file->blank_below_header)
		end_line(&writer, NULL);
	put_block(&writer, file->root, ROLE_FILE, 0, 0);
	if (!writer.failed && !arena->out_of_memory)
		out = malloc(output_size(&writer));
	if (out) {
		*lenp = (size_t)(put_lines(&writer, out) - out);
		*textp = out;
	}
	free(writer.text);
	free(writer.lines);
	return out ? 0 : -ENOMEM;
}
