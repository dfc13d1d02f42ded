/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The canonical form of policy files: golden pairs (data/canonical.txt), and for any file that its meaning and its
 * comments stay and that the form of the form is the form.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/canonical.h"
#include "policy/yaml_tree.h"

/* Formats, or returns NULL with what was said in *saidp. Both malloc()ed. */
static char *format(const char *text, size_t len, char **saidp)
{
	const struct policy_source source = {"p.yaml", text, len};
	struct policy_diagnostics *diagnostics = NULL;
	char *out = NULL, *said = NULL;
	size_t out_len, said_len;
	FILE *file = open_memstream(&said, &said_len);
	int r = policy_canonical(&out, &out_len, &diagnostics, &source);

	assert_in_range(r, 0, 1);
	assert_int_equal(r == 0, out != NULL);
	policy_diagnostics_print(diagnostics, file, false);
	fclose(file);
	assert_int_equal(r == 1, said_len > 0);
	if (r == 0)
		assert_int_equal(out_len, strlen(out));
	policy_diagnostics_freep(&diagnostics);
	if (saidp)
		*saidp = said;
	else
		free(said);
	return out;
}

/* ---- golden ---- */

static char *read_data(const char *path)
{
	FILE *in = fopen(path, "r");
	char *text = calloc(1, 1 << 16);

	assert_non_null(in);
	assert_non_null(text);
	assert_true(fread(text, 1, (1 << 16) - 1, in) > 0);
	fclose(in);
	return text;
}

/* "=== NAME", the source, ">>>", its form. An empty form: it is in that form already. */
static void each_file_takes_its_one_form(void **state)
{
	char *text = read_data(TEST_DATA "/canonical.txt"), *at = strstr(text, "=== ");
	size_t n = 0;

	(void)state;
	while (at) {
		char *name = at + 4, *source = strchr(at, '\n') + 1, *form = strstr(source, "\n>>>\n") + 1;
		char *next = strstr(form, "\n=== "), *end = next ? next + 1 : form + strlen(form), *out, *said,
		     *expected;
		size_t source_len = (size_t)(form - source);

		form += 4;
		expected = form < end ? strndup(form, (size_t)(end - form)) : strndup(source, source_len);
		out = format(source, source_len, &said);
		if (!out || strcmp(out, expected) != 0)
			fail_msg("%.*s: expected\n%s\ngot\n%s%s", (int)strcspn(name, "\n"), name, expected,
				 out ? out : "", said);
		free(out);
		free(said);
		free(expected);
		n++;
		at = next ? next + 1 : NULL;
	}
	free(text);
	assert_in_range(n, 8, 100);
}

static void refuses(const char *text, const char *expected)
{
	char *said, *out = format(text, strlen(text), &said);

	assert_null(out);
	if (!strstr(said, expected))
		fail_msg("\"%s\" is not in:\n%s", expected, said);
	free(said);
}

static void what_is_no_yaml_map_is_refused_with_its_place(void **state)
{
	char *deep = calloc(1, 4096);

	(void)state;
	refuses("", "the file is empty");
	refuses("# nothing\n", "the file is empty");
	refuses("{}\n", "the file is empty");
	refuses("- a\n", "p.yaml:1:1: error: a policy file must be a map, not a list");
	refuses("a\n", "must be a map, not a string");
	refuses("rules: [a\n", "not valid YAML");
	refuses("a: b: c\n", "p.yaml:1:5: error: not valid YAML");
	refuses("a: 1\n---\nb: 1\n", "a second YAML document");
	refuses("a: *x\n", "names no anchor");
	refuses("a: !!str b\n", "YAML tags");
	refuses("a: \"\\0\"\n", "NUL");
	refuses("[a, b]: c\n", "a key must be a string");
	refuses("a: \xff\n", "not valid UTF-8");
	for (int i = 0; i < 1000; i++)
		strcat(deep, "[");
	refuses(deep, "nested more than 16 levels deep");
	free(deep);
}

/* ---- any file ---- */

/* fail_msg() cuts what is long. */
static void show_and_fail(const char *what, const char *source, const char *once, const char *twice)
{
	fprintf(stderr, "%s\n<<< source\n%s\n<<< once\n%s\n<<< twice\n%s\n", what, source, once, twice ? twice : "");
	fail();
}

/* The tree as text, keys sorted, so that trees are the same if and only if their texts are. */
static void write_tree(FILE *out, const struct node *node)
{
	uint32_t n = node->kind == NODE_SCALAR ? 0 : node->n, step = node->kind == NODE_MAP ? 2 : 1;
	char **parts = calloc(n + 1, sizeof(*parts));
	size_t count = 0;

	if (node->kind == NODE_SCALAR)
		fprintf(out, "%zu:%s", strlen(node->text), node->text);
	for (uint32_t i = 0; i < n; i += step) {
		size_t len;
		FILE *part = open_memstream(&parts[count++], &len);

		for (uint32_t j = i; j < i + step; j++) {
			write_tree(part, node->items[j]);
			fputc('=', part);
		}
		fclose(part);
	}
	for (size_t i = 1; i < count && node->kind == NODE_MAP; i++)
		for (size_t j = i; j && strcmp(parts[j - 1], parts[j]) > 0; j--) {
			char *swap = parts[j];

			parts[j] = parts[j - 1];
			parts[j - 1] = swap;
		}
	fputs(node->kind == NODE_MAP ? "{" : node->kind == NODE_LIST ? "[" : "", out);
	for (size_t i = 0; i < count; i++) {
		fprintf(out, "%s;", parts[i]);
		free(parts[i]);
	}
	fputs(node->kind == NODE_MAP ? "}" : node->kind == NODE_LIST ? "]" : "", out);
	free(parts);
}

static char *tree_of(const char *text)
{
	const struct policy_source source = {"p.yaml", text, strlen(text)};
	struct policy_diagnostics *diagnostics = diagnostics_new(&source, 1);
	struct arena arena = {};
	uint32_t budget = YAML_TREE_MAX_NODES;
	struct node *root;
	char *out = NULL;
	size_t len;
	FILE *file = open_memstream(&out, &len);

	yaml_tree_read(&root, &arena, &source, 0, &budget, diagnostics);
	if (root)
		write_tree(file, root);
	fclose(file);
	arena_free(&arena);
	policy_diagnostics_freep(&diagnostics);
	return out;
}

static size_t occurrences(const char *text, const char *word)
{
	size_t n = 0;

	for (const char *at = text; (at = strstr(at, word)); at++)
		n++;
	return n;
}

static void check_form(const char *text, unsigned n_comments)
{
	char *said, *once = format(text, strlen(text), &said), *twice, *before, *after;

	if (!once)
		show_and_fail("refused", text, said, NULL);
	free(said);
	twice = format(once, strlen(once), &said);
	if (!twice || strcmp(once, twice) != 0)
		show_and_fail("two forms", text, once, twice ? twice : said);
	before = tree_of(text);
	after = tree_of(once);
	if (strcmp(before, after) != 0 || !*before)
		show_and_fail("another meaning", text, once, NULL);
	for (unsigned i = 0; i < n_comments; i++) {
		char comment[32];

		snprintf(comment, sizeof(comment), "#c%u.", i);
		if (occurrences(once, comment) != 1)
			show_and_fail(comment, text, once, NULL);
	}
	for (const char *at = once; (at = strchr(at, '\n')); at++)
		if (at > once && (at[-1] == ' ' || (at[1] == '\n' && at[-1] == '\n')))
			show_and_fail("white space", text, once, NULL);
	free(said);
	free(once);
	free(twice);
	free(before);
	free(after);
}

/* ---- files at random: every style, every indentation, comments wherever YAML takes one ---- */

struct generator {
	uint64_t seed;
	FILE *out;
	unsigned n_comments;
	unsigned n_anchors;
	unsigned anchors[64]; /* of closed values */
	unsigned n_closed;
	unsigned comment_chance; /* in 100 */
};

static unsigned below(struct generator *g, unsigned n)
{
	g->seed = g->seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (unsigned)(g->seed >> 33) % n;
}

static bool chance(struct generator *g, unsigned percent)
{
	return below(g, 100) < percent;
}

/* Ends the line, sometimes with a comment, and writes lines that say nothing. */
static void end_line(struct generator *g)
{
	if (chance(g, g->comment_chance))
		fprintf(g->out, "%*s#c%u. %s", (int)below(g, 3) + 1, "", g->n_comments++, chance(g, 20) ? "  " : "");
	fputs(chance(g, 5) ? "\r\n" : "\n", g->out);
	while (chance(g, g->comment_chance))
		if (chance(g, 40))
			fprintf(g->out, "%s\n", chance(g, 20) ? "  " : "");
		else
			fprintf(g->out, "%*s#c%u. it's: [a {b\n", (int)below(g, 10), "", g->n_comments++);
}

static void close_anchor(struct generator *g, unsigned anchor)
{
	if (g->n_closed < 64)
		g->anchors[g->n_closed++] = anchor;
}

static void put_scalar(struct generator *g, bool flow)
{
	static const char *const scalars[] = {
		"web",
		"tcp/443",
		"spiffe://prod.example/ns/*/sa/x",
		"192.0.2.0/24",
		"'2001:db8::/32'",
		"\"::1\"",
		"'yes'",
		"\"12\"",
		"12",
		"2027-01-01T00:00:00Z",
		"'it''s'",
		"\"a\\tb\\u00e9\"",
		"\"# no\"",
		"' a'",
		"\"\"",
		"'a: b'",
		"'-'",
		"'- a'",
		"\"\\\"\\\\\"",
		"'*a'",
		"\"\\u2028\"",
		"caf\xc3\xa9",
		"a#b",
		"'{'",
		"\"...\"",
		"'a, b'",
	};

	if (g->n_closed && chance(g, 8)) {
		fprintf(g->out, "*a%u%s", g->anchors[below(g, g->n_closed)], flow ? " " : "");
		return;
	}
	if (chance(g, 6)) {
		fprintf(g->out, "&a%u ", g->n_anchors);
		close_anchor(g, g->n_anchors++);
	}
	fputs(scalars[below(g, sizeof(scalars) / sizeof(scalars[0]))], g->out);
}

static const char *const keys[] = {"name", "action", "from", "to",	 "service",    "direction", "log",
				   "mode", "until",  "tier", "priority", "any",	       "not",	    "include",
				   "typo", "'x y'",  "only", "spiffe",	 "\"expect\"", "12ab",	    "identity"};

static const char *key_at_random(struct generator *g)
{
	return keys[below(g, sizeof(keys) / sizeof(keys[0]))];
}

/* In a flow collection a line may end wherever there may be white space. */
static void put_gap(struct generator *g)
{
	if (chance(g, 15)) {
		end_line(g);
		fprintf(g->out, "%*s", 12 + (int)below(g, 4), "");
	} else if (chance(g, 50)) {
		fputc(' ', g->out);
	}
}

static void put_flow(struct generator *g, unsigned depth)
{
	bool map = chance(g, 40);
	unsigned n = below(g, 4);

	if (!depth || chance(g, 50)) {
		put_scalar(g, true);
		return;
	}
	fputc(map ? '{' : '[', g->out);
	put_gap(g);
	for (unsigned i = 0; i < n; i++) {
		if (map)
			fprintf(g->out, "%s: ", key_at_random(g));
		put_flow(g, depth - 1);
		put_gap(g);
		if (i + 1 < n || chance(g, 10))
			fputc(',', g->out);
		put_gap(g);
	}
	fputc(map ? '}' : ']', g->out);
}

static void put_block(struct generator *g, unsigned indent, unsigned depth, bool list, bool started);

/* The value behind a key or dash, to the end of its last line. `column`: what it must be deeper than. */
static void put_value(struct generator *g, unsigned column, unsigned depth, bool in_list)
{
	unsigned what = below(g, 100), indent = column + 1 + below(g, 4);
	bool list = chance(g, 50);

	if (what < 40 || !depth) {
		fputc(' ', g->out);
		put_flow(g, 2);
		end_line(g);
	} else if (what < 45) {
		end_line(g); /* nothing */
	} else if (what < 50) {
		fprintf(g->out, " %s", chance(g, 50) ? "|" : ">-");
		if (chance(g, g->comment_chance))
			fprintf(g->out, " #c%u.", g->n_comments++);
		fprintf(g->out, "\n%*sblock # text\n%*smore\n", (int)column + 9, "", (int)column + 9, "");
	} else if (what < 60 && in_list) {
		fputs("   ", g->out);
		put_block(g, column + 4, depth - 1, list, true);
	} else {
		bool anchored = chance(g, 10);
		unsigned anchor = g->n_anchors;

		if (anchored)
			fprintf(g->out, " &a%u", g->n_anchors++);
		end_line(g);
		/* The items of a list may stand at the column of their key. */
		put_block(g, list && !in_list && chance(g, 40) ? column : indent, depth - 1, list, false);
		if (anchored)
			close_anchor(g, anchor);
	}
}

static void put_block(struct generator *g, unsigned indent, unsigned depth, bool list, bool started)
{
	unsigned n = 1 + below(g, 4);

	for (unsigned i = 0; i < n; i++) {
		if (!started || i)
			fprintf(g->out, "%*s", (int)indent, "");
		if (list)
			fputc('-', g->out);
		else
			fprintf(g->out, "%s:", key_at_random(g));
		put_value(g, indent, depth, list);
	}
}

static char *file_at_random(struct generator *g)
{
	static const char *const sections[] = {"bulkhead", "identities", "networks",  "services",
					       "tiers",	   "defaults",	 "rules",     "tests",
					       "unknown",  "rules",	 "invariants"};
	unsigned n = 1 + below(g, 5);
	char *text = NULL;
	size_t len;

	g->out = open_memstream(&text, &len);
	g->n_comments = g->n_anchors = g->n_closed = 0;
	g->comment_chance = below(g, 50);
	if (chance(g, 10))
		fputs("\xef\xbb\xbf", g->out);
	if (chance(g, 50))
		end_line(g);
	if (chance(g, 20)) {
		fputs("---", g->out);
		end_line(g);
	}
	for (unsigned i = 0; i < n; i++) {
		fprintf(g->out, "%s:", sections[below(g, sizeof(sections) / sizeof(sections[0]))]);
		put_value(g, 0, 4, false);
	}
	if (chance(g, 10)) {
		fputs("...", g->out);
		end_line(g);
	}
	fclose(g->out);
	return text;
}

#define FILES 3000

static void any_file_keeps_its_meaning_and_its_comments_and_has_one_form(void **state)
{
	struct generator g = {.seed = 3};

	(void)state;
	for (unsigned i = 0; i < FILES; i++) {
		char *text = file_at_random(&g);

		check_form(text, g.n_comments);
		free(text);
	}
}

/* Bytes changed at random: mostly no YAML any more; never a crash, nor a form that is not the form of itself. */
static void a_damaged_file_is_refused_or_has_one_form(void **state)
{
	static const char bytes[] = " \n-:#,[]{}&*'\"|>?ab1\t\r";
	struct generator g = {.seed = 7};
	unsigned formatted = 0;

	(void)state;
	for (unsigned i = 0; i < FILES; i++) {
		char *text = file_at_random(&g), *said, *once, *twice;
		size_t len = strlen(text);

		for (unsigned j = 1 + below(&g, 3); j && len; j--)
			text[below(&g, (unsigned)len)] = bytes[below(&g, sizeof(bytes) - 1)];
		once = format(text, len, &said);
		if (!once && strstr(said, "cannot be written"))
			show_and_fail(said, text, "", NULL);
		free(said);
		twice = once ? format(once, strlen(once), &said) : NULL;
		if (once && (!twice || strcmp(once, twice) != 0))
			show_and_fail("two forms", text, once, twice ? twice : said);
		if (once)
			free(said);
		formatted += once != NULL;
		free(text);
		free(once);
		free(twice);
	}
	assert_in_range(formatted, FILES / 10, FILES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_file_takes_its_one_form),
		cmocka_unit_test(what_is_no_yaml_map_is_refused_with_its_place),
		cmocka_unit_test(any_file_keeps_its_meaning_and_its_comments_and_has_one_form),
		cmocka_unit_test(a_damaged_file_is_refused_or_has_one_form),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
