/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is said about a mistake, word for word (data/policy_diagnostics.txt), and that hostile text costs little.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "policy/policy.h"

/* Parses and returns what is printed; malloc()ed. */
static char *printed(const struct policy_source *sources, size_t n, int expected)
{
	struct policy_diagnostics *diagnostics = NULL;
	struct policy *policy = NULL;
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	int r = policy_parse(&policy, &diagnostics, sources, n);

	policy_diagnostics_print(diagnostics, out, false);
	fclose(out);
	if (r != expected)
		fail_msg("returned %d, expected %d:\n%s", r, expected, text);
	assert_int_equal(policy != NULL, r == 0);
	policy_freep(&policy);
	policy_diagnostics_freep(&diagnostics);
	return text;
}

static char *printed_of(const char *text, size_t len, int expected)
{
	const struct policy_source source = {"p.yaml", text, len};

	return printed(&source, 1, expected);
}

static void says(const char *text, size_t len, const char *expected)
{
	char *out = printed_of(text, len, 1);

	if (!strstr(out, expected))
		fail_msg("\"%s\" is not in:\n%.2000s", expected, out);
	free(out);
}

/* ---- golden ---- */

struct golden {
	char *name;
	struct policy_source sources[4];
	size_t n;
	char *expected;
};

static char *read_data(const char *path)
{
	FILE *in = fopen(path, "r");
	char *text = calloc(1, 1 << 20);

	assert_non_null(in);
	assert_non_null(text);
	assert_true(fread(text, 1, (1 << 20) - 1, in) > 0);
	fclose(in);
	return text;
}

/* Cuts the text at the next line that begins with one of the marks, and returns that line's end. */
static char *cut(char *at, char **endp)
{
	for (char *line = at; *line; line = strchr(line, '\n') + 1)
		if (strncmp(line, "=== ", 4) == 0 || strncmp(line, "<<< ", 4) == 0 || strncmp(line, ">>>\n", 4) == 0) {
			*endp = line;
			return line;
		}
	*endp = at + strlen(at);
	return NULL;
}

static void check_golden(const struct golden *golden)
{
	char *out = printed(golden->sources, golden->n, strstr(golden->expected, "error: ") ? 1 : 0);

	if (strcmp(out, golden->expected) != 0)
		fail_msg("%s: expected\n%s\nprinted\n%s", golden->name, golden->expected, out);
	free(out);
}

static void each_mistake_is_explained_where_it_stands(void **state)
{
	char *text = read_data(TEST_DATA "/policy_diagnostics.txt"), *end, *mark = cut(text, &end);
	struct golden golden = {};
	size_t n = 0;

	(void)state;
	while (mark) {
		char *name = mark + 4, *body = strchr(mark, '\n') + 1, kind = *mark, *part;

		mark = cut(body, &end);
		part = strndup(body, (size_t)(end - body));
		if (kind == '=') {
			golden = (struct golden){.name = strndup(name, strcspn(name, "\n"))};
			free(part);
		} else if (kind == '<') {
			golden.sources[golden.n++] =
				(struct policy_source){strndup(name, strcspn(name, "\n")), part, strlen(part)};
		} else {
			golden.expected = part;
			check_golden(&golden);
			for (size_t i = 0; i < golden.n; i++) {
				free((char *)golden.sources[i].name);
				free((char *)golden.sources[i].text);
			}
			free(golden.name);
			free(part);
			n++;
		}
	}
	free(text);
	assert_true(n >= 30);
}

/* ---- hostile text ---- */

static void broken_utf8_is_an_error_at_its_place(void **state)
{
	static const char text[] = "bulkhead: 1\n# \xc3\xa4 \xff\nrules: []\n";

	(void)state;
	says(text, sizeof(text) - 1, "p.yaml:2:5: error: byte 0xff is not valid UTF-8");
	says("bulkhead: 1\n# \xe0\x80\x80\n", 18, "p.yaml:2:3: error: byte 0xe0 is not valid UTF-8");
	says("bulkhead: 1\n# \x1b[31m\n", 20, "p.yaml:2:3: error: a control character");
	says("bulkhead: 1\n\0\n", 14, "p.yaml:2:1: error: a control character");
}

static void nothing_of_a_file_controls_the_terminal(void **state)
{
	static const char text[] = "bulkhead: 1\nrules:\n  - {name: \"a\\e[31m\\u202E\", action: \"\\e]0;x\\a\"}\n";
	char *out = printed_of(text, sizeof(text) - 1, 1);

	(void)state;
	for (size_t i = 0; out[i]; i++)
		assert_true(out[i] == '\n' || (unsigned char)out[i] >= 0x20);
	assert_null(strstr(out, "\xe2\x80\xae"));
	free(out);
}

static void nesting_is_bounded(void **state)
{
	char text[4096] = "bulkhead: 1\nrules: ";
	size_t len = strlen(text);

	(void)state;
	memset(text + len, '[', 3000);
	says(text, len + 3000, "nested more than 16 levels deep");
}

/* A policy of a few hundred bytes that would have 10^9 values if aliases were copied. */
static void aliases_cannot_multiply(void **state)
{
	char text[4096] = "bulkhead: 1\nidentities:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
	clock_t start = clock();

	(void)state;
	for (int i = 1; i < 9; i++) {
		sprintf(text + strlen(text), "  a%d: &a%d [", i, i);
		for (int j = 0; j < 10; j++)
			sprintf(text + strlen(text), "%s*a%d", j ? ", " : "", i - 1);
		strcat(text, "]\n");
	}
	says(text, strlen(text), "the policy is too large");
	assert_true(clock() - start < CLOCKS_PER_SEC);
}

static void an_alias_within_itself_is_an_error(void **state)
{
	static const char text[] = "bulkhead: 1\nidentities: &a {b: [*a]}\n";

	(void)state;
	says(text, sizeof(text) - 1, "alias '*a' stands within the value it names");
}

static void an_alias_is_the_value_it_names(void **state)
{
	static const char text[] = "bulkhead: 1\n"
				   "identities: {a: \"spiffe://td/a\"}\n"
				   "rules:\n"
				   "  - {name: r, action: allow, from: &x [a], to: *x}\n";
	static const char both[] = "bulkhead: 1\n"
				   "identities: {a: \"spiffe://td/a\"}\n"
				   "rules:\n"
				   "  - {name: r, action: allow, from: any, to: {identity: &x a, network: *x}}\n";

	(void)state;
	free(printed_of(text, sizeof(text) - 1, 0));
	says(both, sizeof(both) - 1, "'a' is an identity, not a network");
}

static void thousands_of_errors_are_counted_not_printed(void **state)
{
	char *text = NULL, *out, *last;
	size_t size, lines = 0;
	FILE *file = open_memstream(&text, &size);
	clock_t start = clock();

	(void)state;
	fputs("bulkhead: 1\nidentities:\n", file);
	for (int i = 0; i < 20000; i++)
		fprintf(file, "  name%d: spiffe://td/%d\n", i, i);
	fputs("rules:\n", file);
	for (int i = 0; i < 20000; i++)
		fprintf(file, "  - {name: r%d, action: allow, from: nmae%d, to: any}\n", i, i);
	fclose(file);
	out = printed_of(text, size, 1);
	for (last = out; strchr(last, '\n') && strchr(last, '\n')[1]; last = strchr(last, '\n') + 1)
		lines++;
	assert_string_equal(last, "and 19000 more\n");
	assert_in_range(lines, 3000, 4100);
	free(out);
	free(text);
	assert_true(clock() - start < 5 * CLOCKS_PER_SEC);
}

static void a_long_line_is_shown_around_the_mistake(void **state)
{
	char text[4096] = "bulkhead: 1\nrules: [{name: r, action: allow, to: any, service: [";
	char *out, *line;

	(void)state;
	for (int i = 0; i < 300; i++)
		strcat(text, "tcp/80, ");
	strcat(text, "tcp/0], from: any}]\n");
	out = printed_of(text, strlen(text), 1);
	line = strchr(out, '\n') + 1;
	assert_non_null(strstr(line, "tcp/0"));
	assert_true(strcspn(line, "\n") < 200);
	/* The caret stands below the first character of the mistake. */
	assert_int_equal(strstr(line, "tcp/0]") - line, strchr(line, '^') - strchr(line, '\n') - 1);
	free(out);
}

static void no_sources_are_an_empty_policy(void **state)
{
	(void)state;
	free(printed(NULL, 0, 0));
}

static void too_many_files_are_refused(void **state)
{
	struct policy_source *sources = calloc(POLICY_MAX_SOURCES + 1, sizeof(*sources));
	char *out;

	(void)state;
	for (size_t i = 0; i <= POLICY_MAX_SOURCES; i++)
		sources[i] = (struct policy_source){"p.yaml", "bulkhead: 1\n", 12};
	free(printed(sources, POLICY_MAX_SOURCES, 0));
	out = printed(sources, POLICY_MAX_SOURCES + 1, 1);
	assert_non_null(strstr(out, "the limit is 1024"));
	free(out);
	free(sources);
}

/* ---- mutations ---- */

static const char seed_text[] =
	"bulkhead: 1\n"
	"identities:\n"
	"  web: spiffe://td/ns/*/web\n"
	"  db: [&x spiffe://td/db, \"spiffe://td/x/**\"]\n"
	"  loc: {unit: a.service}\n"
	"  bound: {spiffe: *x, only: [{cgroup: /a/b}, {unit: b.service}]}\n"
	"  some: {any: [web, {not: db}, verified]}\n"
	"networks: {lan: [10.0.0.0/8, \"2001:db8::/32\"], net: {include: [\"::/0\"], except: [\"::1\"]}}\n"
	"services: {pg: [tcp/5432, udp/1-2, icmp/echo-request, icmpv6], all: [pg, sctp, proto/47]}\n"
	"tiers: [one, app]\n"
	"defaults: {action: deny, log: denied}\n"
	"rules:\n"
	"  - {name: one, action: allow, from: web, to: [db, loc], service: pg}\n"
	"  - name: two\n"
	"    action: deny\n"
	"    from: {identity: any, network: lan}\n"
	"    to: any\n"
	"    direction: egress\n"
	"    log: all\n"
	"  - {name: three, tier: one, priority: -3, action: pass, from: {not: some}, to: net, service: all}\n"
	"  - {name: four, action: deny, mode: audit, from: any, to: db, until: 2027-01-01T00:00:00Z}\n"
	"tests:\n"
	"  - {from: web, to: db, service: pg, expect: allow, by: one}\n"
	"  - {from: 10.0.0.1, to: loc@10.0.0.2, service: tcp/1, expect: deny}\n"
	"invariants:\n"
	"  - never: {from: lan, to: db, service: tcp/22}\n"
	"  - isolated: [web, [loc, lan]]\n";

static uint32_t rnd(uint64_t *state, uint32_t n)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (uint32_t)((*state * 0x2545f4914f6cdd1dULL) >> 33) % n;
}

static size_t mutate(char *text, size_t len, size_t room, uint64_t *state)
{
	static const char alphabet[] = "[]{}:,-*&!|>'\"#%@`? \n\t/.0129az\\\xc3\xa4\xff";
	size_t at = rnd(state, (uint32_t)len), n = 1 + rnd(state, 12), from;

	switch (rnd(state, 5)) {
	case 0: /* replace */
		text[at] = alphabet[rnd(state, sizeof(alphabet) - 1)];
		return len;
	case 1: /* insert */
		if (len + 1 > room)
			return len;
		memmove(text + at + 1, text + at, len - at);
		text[at] = alphabet[rnd(state, sizeof(alphabet) - 1)];
		return len + 1;
	case 2: /* remove */
		if (at + n >= len)
			return len;
		memmove(text + at, text + at + n, len - at - n);
		return len - n;
	case 3: /* repeat a part elsewhere */
		from = rnd(state, (uint32_t)len);
		if (len + n > room || from + n > len)
			return len;
		memmove(text + at + n, text + at, len - at);
		memmove(text + at, text + (from >= at ? from + n > len ? at : from : from), n);
		return len + n;
	default: /* flip a bit */
		text[at] ^= (char)(1 << rnd(state, 8));
		return len;
	}
}

static void mutated_policies_are_judged_and_nothing_else_happens(void **state)
{
	size_t valid = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 40000; seed++) {
		struct policy_diagnostics *diagnostics;
		struct policy *policy;
		uint64_t random = seed * 0x9e3779b97f4a7c15ULL;
		size_t len = sizeof(seed_text) - 1, room = len + 256, image_len;
		char *text = malloc(room), *error = NULL, *exact;
		void *image = NULL;
		FILE *null = fopen("/dev/null", "w");
		int r;

		memcpy(text, seed_text, len);
		for (uint32_t i = 0, n = rnd(&random, 2) ? 1 : 1 + rnd(&random, 6); i < n; i++)
			len = mutate(text, len, room, &random);
		/* In memory of its own size, so that a byte read too far is found. */
		exact = malloc(len);
		memcpy(exact, text, len);
		r = policy_parse(&policy, &diagnostics, &(struct policy_source){"p.yaml", exact, len}, 1);
		free(exact);
		assert_in_range(r, 0, 1);
		assert_int_equal(policy_diagnostics_count(diagnostics, POLICY_ERROR) > 0, r);
		policy_diagnostics_print(diagnostics, null, true);
		if (r == 0) {
			assert_int_equal(policy_compile(policy, &image, &image_len, &error), 0);
			valid++;
		}
		fclose(null);
		free(image);
		free(text);
		policy_freep(&policy);
		policy_diagnostics_freep(&diagnostics);
	}
	/* Else the mutations would test nothing behind the parser. */
	if (valid <= 500)
		fail_msg("only %zu of the mutated policies are valid", valid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_mistake_is_explained_where_it_stands),
		cmocka_unit_test(broken_utf8_is_an_error_at_its_place),
		cmocka_unit_test(nothing_of_a_file_controls_the_terminal),
		cmocka_unit_test(nesting_is_bounded),
		cmocka_unit_test(aliases_cannot_multiply),
		cmocka_unit_test(an_alias_within_itself_is_an_error),
		cmocka_unit_test(an_alias_is_the_value_it_names),
		cmocka_unit_test(thousands_of_errors_are_counted_not_printed),
		cmocka_unit_test(a_long_line_is_shown_around_the_mistake),
		cmocka_unit_test(no_sources_are_an_empty_policy),
		cmocka_unit_test(too_many_files_are_refused),
		cmocka_unit_test(mutated_policies_are_judged_and_nothing_else_happens),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
