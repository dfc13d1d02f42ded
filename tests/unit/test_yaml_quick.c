/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The quick reader of YAML against libyaml: what it reads, libyaml reads as the same tree.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/yaml_quick.h"

static bool is_same(const struct node *a, const struct node *b)
{
	if (memcmp(&a->at, &b->at, sizeof(a->at)) != 0 || a->kind != b->kind || a->weight != b->weight ||
	    a->self != a || b->self != b || a->open || b->open)
		return false;
	if (a->kind == NODE_SCALAR)
		return a->plain == b->plain && strcmp(a->text, b->text) == 0;
	if (a->n != b->n)
		return false;
	for (uint32_t i = 0; i < a->n; i++)
		if (!is_same(a->items[i], b->items[i]))
			return false;
	return true;
}

/* Returns whether the quick reader took it; if so, libyaml must have, too. */
static bool agrees(const char *text, size_t len)
{
	const struct policy_source source = {"a.yaml", text, len};
	struct policy_diagnostics *diagnostics = diagnostics_new(&source, 1);
	struct arena quick_arena = {}, arena = {};
	uint32_t budget = YAML_TREE_MAX_NODES, nodes = 0;
	struct node *quick = yaml_quick_read(&quick_arena, text, len, 0, YAML_TREE_MAX_NODES, &nodes), **roots;
	size_t n;
	bool read;

	if (quick) {
		read = yaml_tree_read_stream(&roots, &n, &arena, &source, 0, &budget, diagnostics);
		if (!read || n != 1 || !is_same(quick, roots[0]) || nodes != roots[0]->weight)
			fail_msg("libyaml reads it otherwise:\n%.*s", (int)len, text);
	}
	policy_diagnostics_freep(&diagnostics);
	arena_free(&quick_arena);
	arena_free(&arena);
	return quick;
}

static bool agrees_text(const char *text)
{
	return agrees(text, strlen(text));
}

/* ---- what it is for ---- */

static const char policy[] = "# A policy\n"
			     "bulkhead: 1\n"
			     "\n"
			     "identities: # who\n"
			     "  web: spiffe://prod.example/ns/shop/sa/web\n"
			     "  db:\n"
			     "    - spiffe://prod.example/ns/shop/sa/postgres\n"
			     "    - spiffe://prod.example/ns/*/sa/pgbouncer\n"
			     "  shop: {any: [web, db]}\n"
			     "  backup: {unit: backup.service}\n"
			     "  legacy: {cgroup: /legacy.slice/app}\n"
			     "networks:\n"
			     "  office: [192.0.2.0/24, \"2001:db8:1::/48\", 2001:db8::/32]\n"
			     "  lan: {include: [10.0.0.0/8], except: [10.9.0.0/16]}\n"
			     "  none: []\n"
			     "services:\n"
			     "  pg: [tcp/5432,\n"
			     "       tcp/6432-6440,  # the pooler\n"
			     "       tcp/7000\n"
			     "      ]\n"
			     "tiers: [guardrails, app]\n"
			     "rules:\n"
			     "- name: first one: here\n"
			     "- name: web-to-db\n"
			     "  tier: app\n"
			     "  priority: -5\n"
			     "\n"
			     "  from:\n"
			     "  - web\n"
			     "  - db\n"
			     "  to: {identity: db, network: [lan, office]}\n"
			     "  until: 2027-01-01T00:00:00Z\n"
			     "- {name: 'b', action: allow, from: a b  c, to: \"x # y\"}   # last\n"
			     "tests:\n"
			     "  - - deeper\n"
			     "    - - still\n"
			     "  - {from: web,\n"
			     "     to: {}, expect: allow}\n";

static void a_policy_is_read_quickly(void **state)
{
	char *text = strdup(policy);
	const char *no = "first one: here";

	(void)state;
	/* That is a mistake; the rest is not. */
	assert_false(agrees_text(text));
	memset(strstr(text, no) + strlen("first one"), '-', 1);
	assert_true(agrees_text(text));
	/* Without its last line break; with line breaks behind it. */
	assert_true(agrees(text, strlen(text) - 1));
	free(text);
	assert_true(agrees_text("a: b\n\n  \n# c\n"));
	assert_true(agrees_text("  a: b\n  c: d"));
	assert_true(agrees_text("- a\n-   b: c\n    d: e\n"));
	assert_true(agrees_text("a: \"\"\n'b': ''\n\"c d\": {\"e\": f}\n"));
	assert_true(agrees_text("a:: b:c::d\n"));
}

/* ---- what it is not for ---- */

static void what_is_not_plain_is_left_to_libyaml(void **state)
{
	static const char *const texts[] = {
		"",
		"\n# nothing\n",
		"scalar\n",
		"[a, b]\n",
		"{a: b}\n",
		"---\na: b\n",
		"a: b\n...\n",
		"a: b\n---\nc: d\n",
		"%YAML 1.1\n---\na: b\n",
		"%TAG ! tag:x,2000:\n---\na: b\n",
		"a: &x b\nc: *x\n",
		"a: !!str b\n",
		"a: |\n  b\n",
		"a: >\n  b\n",
		"a: \"b\\n\"\n",
		"a: 'b''c'\n",
		"a: \"b\n  c\"\n",
		"a: b\n  c\n",
		"a: b\n  c: d\n",
		"a:\n    b: c\n  d: e\n",
		"a: b\n c: d\n",
		"a:\n",
		"a:\nb: c\n",
		"a: [b,\n    c\n    d]\n",
		"a: [b, ]\n",
		"a: [, b]\n",
		"a: [b: c]\n",
		"a: {b}\n",
		"a: {b: }\n",
		"a: {b:c}\n",
		"a: {b: c\n",
		"a: [b]]\n",
		"a: [b}\n",
		"a: [b]: c\n",
		"a: b: c\n",
		"a: - b\n",
		"a: b#c\n",
		"a: \"b\"#c\n",
		"a: \"b\"c\n",
		"a:\tb\n",
		"a: b\t\n",
		"\ta: b\n",
		"a: b\r\nc: d\r\n",
		"a: \xc3\xa4\n",
		"a: b # \xc3\xa4\n",
		"a: b # \xe2\x80\xa8 c: d\n",
		"a: b # \x07\n",
		"? a\n: b\n",
		"a : b\n",
		"<<: b\n",
		"a: ~\n",
		"a: b, c\n",
		"a: [---]\n",
		"a: [b,\n--- ]\n",
		"- a\nb: c\n",
		"a: b\n- c\n",
		"- a\n - b\n",
		"-\n  a\n",
		"- - a\n - b\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (agrees_text(texts[i]))
			fail_msg("it was read:\n%s", texts[i]);
	assert_false(agrees("a: b\0c\n", 7));
	assert_false(agrees("a: b\n\0", 6));
}

static void depth_and_number_of_nodes_are_bounded(void **state)
{
	char text[2 * YAML_TREE_MAX_DEPTH + 16] = "";
	struct arena arena = {};
	uint32_t nodes = 0;

	(void)state;
	for (unsigned depth = 1; depth <= YAML_TREE_MAX_DEPTH + 1; depth++) {
		size_t len = 0;

		/* The map is the first. */
		len += (size_t)sprintf(text, "a: ");
		for (unsigned i = 1; i < depth; i++)
			text[len++] = '[';
		text[len++] = 'b';
		for (unsigned i = 1; i < depth; i++)
			text[len++] = ']';
		assert_int_equal(agrees(text, len), depth <= YAML_TREE_MAX_DEPTH);
	}
	assert_non_null(yaml_quick_read(&arena, "a: [b, c]\n", 10, 0, 5, &nodes));
	assert_int_equal(nodes, 5);
	assert_null(yaml_quick_read(&arena, "a: [b, c]\n", 10, 0, 4, &nodes));
	arena_free(&arena);
}

/* ---- anything ---- */

static uint32_t next_random(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(*seed >> 33);
}

/* A few bytes are replaced, taken out, doubled, or swapped for what means something in YAML. */
static size_t mutate(char *text, size_t len, size_t room, uint64_t *seed)
{
	static const char *const pieces[] = {
		"\n",	"\n  ", "\n- ", ": ", ":",  " #",  "#",	  ", ", "[", "]", "{", "}",  "\"",	 "'",
		"- ",	"-",	"?",	"&",  "*",  "!",   "|",	  ">",	"%", "@", "`", "\\", "\t",	 "\r",
		"\n\n", " ",	"..",	".",  "::", "---", "...", "<<", "a", "0", "=", "~",  "\xc2\x85", "b: c\n"};
	unsigned changes = 1 + next_random(seed) % 3;

	while (changes-- && len) {
		size_t at = next_random(seed) % len, n = 1 + next_random(seed) % 3;
		const char *piece = pieces[next_random(seed) % (sizeof(pieces) / sizeof(pieces[0]))];

		n = n < len - at ? n : len - at;
		switch (next_random(seed) % 3) {
		case 0: /* out */
			if (n == len)
				break;
			memmove(text + at, text + at + n, len - at - n);
			len -= n;
			break;
		case 1: /* in */
			n = strlen(piece);
			if (len + n > room)
				break;
			memmove(text + at + n, text + at, len - at);
			memcpy(text + at, piece, n);
			len += n;
			break;
		default: /* a line moves to the right or the left */
			while (at && text[at - 1] != '\n')
				at--;
			if (text[at] == ' ' && next_random(seed) % 2) {
				memmove(text + at, text + at + 1, len - at - 1);
				len--;
			} else if (len < room) {
				memmove(text + at + 1, text + at, len - at);
				text[at] = ' ';
				len++;
			}
		}
	}
	return len;
}

static void whatever_it_reads_libyaml_reads_the_same(void **state)
{
	static char text[2 * sizeof(policy)];
	unsigned taken = 0, rounds = 60000;
	uint64_t seed = 1;

	(void)state;
	for (unsigned i = 0; i < rounds; i++) {
		/* Some lines of it: in all of it something else would be wrong. */
		size_t begin = next_random(&seed) % (sizeof(policy) - 2), len;

		while (begin && policy[begin - 1] != '\n')
			begin--;
		len = 1 + next_random(&seed) % 160;
		len = len < sizeof(policy) - 1 - begin ? len : sizeof(policy) - 1 - begin;
		memcpy(text, policy + begin, len);
		if (next_random(&seed) % 4)
			len = mutate(text, len, sizeof(text), &seed);
		taken += len && agrees(text, len);
	}
	/* Else nothing was compared. */
	assert_true(taken > rounds / 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_policy_is_read_quickly),
		cmocka_unit_test(what_is_not_plain_is_left_to_libyaml),
		cmocka_unit_test(depth_and_number_of_nodes_are_bounded),
		cmocka_unit_test(whatever_it_reads_libyaml_reads_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
