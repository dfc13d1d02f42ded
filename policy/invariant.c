/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/invariant.h"
#include "policy/read.h"

#define MAX_TEXT_BYTES 65536U

static void close_file(FILE **filep)
{
	if (*filep)
		fclose(*filep);
}

static void free_text(char **textp)
{
	free(*textp);
}

/* ---- the reader of a policy, opened again ---- */

/* What a reader knows of the names of a policy, which the policy itself does not keep. */
static int reader_reopen(struct reader *reader, struct policy *policy)
{
	uint32_t number;

	reader->policy = policy;
	for (uint32_t i = 0; i < policy->peer_names.n; i++)
		if (list_push(&reader->peers, 0) < 0)
			return -ENOMEM;
	for (size_t i = 0; i < policy->n_identities; i++) {
		const char *name = policy->identities[i].name;

		if (!policy->identities[i].unnamed && intern_find(&policy->peer_names, name, strlen(name), &number))
			reader->peers.items[number] = (uint32_t)(i << 1);
	}
	for (size_t i = 0; i < policy->n_networks; i++) {
		const char *name = policy->networks[i].name;

		if (intern_find(&policy->peer_names, name, strlen(name), &number))
			reader->peers.items[number] = (uint32_t)(i << 1 | 1);
	}
	for (size_t i = 0; i < policy->n_services; i++) {
		const char *name = policy->services[i].name;

		if (intern_bytes(&reader->service_names, name, strlen(name), &number) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* The files of the policy, for where things are defined, and behind them the text that is asked. */
static struct policy_diagnostics *open_diagnostics(const struct policy *policy, const char *text, struct arena *arena)
{
	struct policy_source *sources = arena_array(arena, (size_t)policy->n_sources + 1, sizeof(*sources));

	if (!sources)
		return NULL;
	for (uint32_t i = 0; i < policy->n_sources; i++)
		sources[i] = (struct policy_source){policy->source_names[i], "", 0};
	sources[policy->n_sources] = (struct policy_source){"invariant", text, strlen(text)};
	return diagnostics_new(sources, (size_t)policy->n_sources + 1);
}

/* "TEXT (HINT)", a line for each mistake. */
static char *errors_text(const struct policy_diagnostics *diagnostics)
{
	_cleanup_(close_file) FILE *out = NULL;
	char *text = NULL;
	size_t size, n = 0;

	out = open_memstream(&text, &size);
	if (!out)
		return NULL;
	for (size_t i = 0;; i++) {
		const struct policy_diagnostic *d = policy_diagnostics_get(diagnostics, i);

		if (!d)
			break;
		if (d->severity != POLICY_ERROR)
			continue;
		fprintf(out, "%s%s", n++ ? "\n" : "", d->text);
		if (d->hint)
			fprintf(out, " (%s)", d->hint);
	}
	fclose(out);
	out = NULL;
	return text;
}

static int read_text_body(struct invariant *invariant, struct reader *reader, const char *text)
{
	const struct policy_source source = {"invariant", text, strlen(text)};
	uint32_t budget = 65536;
	struct node *root;

	yaml_tree_read(&root, &reader->arena, &source, reader->policy->n_sources, &budget, reader->diagnostics);
	if (root) {
		read_invariant_body(reader, root, invariant);
		order_identities(reader);
	} else if (!policy_diagnostics_count(reader->diagnostics, POLICY_ERROR)) {
		diagnostics_error(reader->diagnostics, (struct position){reader->policy->n_sources, 0, 0},
				  "nothing is asked: `from: SELECTOR to: SELECTOR` is missing");
	}
	if (reader->arena.out_of_memory || reader->policy->arena.out_of_memory)
		return -ENOMEM;
	invariant->at = (struct position){};
	return policy_diagnostics_count(reader->diagnostics, POLICY_ERROR) ? 1 : 0;
}

/* `text` is YAML. */
static int read_yaml(struct invariant *invariant, struct policy *policy, enum invariant_kind kind, const char *text,
		     char **errorp)
{
	_cleanup_(policy_diagnostics_freep) struct policy_diagnostics *diagnostics = NULL;
	_cleanup_(reader_free) struct reader reader = {};
	int r;

	*invariant = (struct invariant){.kind = kind};
	diagnostics = open_diagnostics(policy, text, &reader.arena);
	if (!diagnostics || reader_reopen(&reader, policy) < 0)
		return -ENOMEM;
	reader.diagnostics = diagnostics;
	r = read_text_body(invariant, &reader, text);
	if (diagnostics_finish(diagnostics) < 0)
		return -ENOMEM;
	if (r == 1) {
		*errorp = errors_text(diagnostics);
		if (!*errorp)
			return -ENOMEM;
	}
	return r;
}

/* ---- "from: web to: db" ---- */

/* Does a key begin here, behind a space or at the beginning, outside brackets and quotes? Returns its length. */
static size_t key_at(const char *text, size_t at)
{
	static const char *const keys[] = {"from:", "to:", "service:"};

	if (at && !isspace((unsigned char)text[at - 1]))
		return 0;
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (strncmp(text + at, keys[i], strlen(keys[i])) == 0)
			return strlen(keys[i]);
	return 0;
}

/* As a YAML map: each key on a line of its own. */
static char *lines_of(const char *text)
{
	_cleanup_(close_file) FILE *out = NULL;
	char *lines = NULL, quote = 0;
	int depth = 0;
	size_t size;

	out = open_memstream(&lines, &size);
	if (!out)
		return NULL;
	for (size_t i = 0; text[i]; i++) {
		size_t len = depth || quote ? 0 : key_at(text, i);

		if (len) {
			fprintf(out, "\n%.*s ", (int)len, text + i);
			i += len - 1;
			continue;
		}
		if (quote)
			quote = text[i] == quote ? 0 : quote;
		else if (text[i] == '"' || text[i] == '\'')
			quote = text[i];
		else if (strchr("[{", text[i]))
			depth++;
		else if (strchr("]}", text[i]))
			depth--;
		fputc(text[i] == '\n' || text[i] == '\r' ? ' ' : text[i], out);
	}
	fclose(out);
	out = NULL;
	return lines;
}

int policy_invariant_parse(struct invariant *invariant, struct policy *policy, enum invariant_kind kind,
			   const char *text, char **errorp)
{
	_cleanup_(free_text) char *lines = NULL;
	size_t start = strspn(text, " \t\r\n");

	*errorp = NULL;
	if (strlen(text) > MAX_TEXT_BYTES)
		return flow_error(errorp, "the invariant is longer than %u bytes", MAX_TEXT_BYTES);
	if (text[start] == '{')
		return read_yaml(invariant, policy, kind, text, errorp);
	if (!text[start] || !key_at(text, start))
		return flow_error(errorp, "'%.200s' does not begin with `from:`, `to:` or `service:`", text);
	lines = lines_of(text);
	return lines ? read_yaml(invariant, policy, kind, lines, errorp) : -ENOMEM;
}

int policy_invariant_isolated(struct invariant *invariant, struct policy *policy, const char *a, const char *b,
			      char **errorp)
{
	_cleanup_(free_text) char *text = NULL;

	*errorp = NULL;
	if (strlen(a) + strlen(b) > MAX_TEXT_BYTES)
		return flow_error(errorp, "the invariant is longer than %u bytes", MAX_TEXT_BYTES);
	if (strpbrk(a, "\r\n") || strpbrk(b, "\r\n") || !a[0] || !b[0])
		return flow_error(errorp, "a selector is one line");
	if (asprintf(&text, "[%s, %s]", a, b) < 0) {
		text = NULL;
		return -ENOMEM;
	}
	return read_yaml(invariant, policy, INVARIANT_ISOLATED, text, errorp);
}
