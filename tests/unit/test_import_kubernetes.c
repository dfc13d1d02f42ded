/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an import of Kubernetes objects makes of them, word for word (data/import/kubernetes.txt), and that hostile objects
 * cost little. That the policies mean what the objects mean is shown by test_import_kubernetes.py.
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

#include "policy/import_kubernetes.h"

#define MAX_SOURCES 4

/* What is printed, diagnostics and policy; malloc()ed. A policy must be one. */
static char *imported(const struct policy_source *sources, size_t n, int *rp)
{
	const struct import_kubernetes import = {.sources = sources, .n_sources = n, .namespace = "default"};
	struct policy_diagnostics *diagnostics = NULL, *faults = NULL;
	struct policy *policy = NULL;
	char *text, *out = NULL;
	size_t size;
	FILE *stream = open_memstream(&out, &size);

	*rp = policy_import_kubernetes(&text, &diagnostics, &import);
	assert_in_range(*rp, 0, 1);
	assert_int_equal(text != NULL, *rp == 0);
	policy_diagnostics_print(diagnostics, stream, false);
	if (text) {
		const struct policy_source source = {"imported.yaml", text, strlen(text)};

		fputs(text, stream);
		if (policy_parse(&policy, &faults, &source, 1) != 0)
			policy_diagnostics_print(faults, stream, false);
	}
	fclose(stream);
	policy_freep(&policy);
	policy_diagnostics_freep(&faults);
	policy_diagnostics_freep(&diagnostics);
	free(text);
	return out;
}

/* ---- golden ---- */

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

/* The next line that begins with a mark, or the end of the text. */
static char *next_mark(char *at)
{
	for (char *line = at; *line; line = strchr(line, '\n') + 1)
		if (strncmp(line, "=== ", 4) == 0 || strncmp(line, "<<< ", 4) == 0 || strncmp(line, ">>>\n", 4) == 0)
			return line;
	return at + strlen(at);
}

static void set_source(struct policy_source *source, char *name, char *text)
{
	free((char *)source->name);
	free((char *)source->text);
	*source = (struct policy_source){name, text, text ? strlen(text) : 0};
}

static bool check_case(const char *name, const struct policy_source *sources, size_t n, const char *expected)
{
	int r;
	char *out = imported(sources, n, &r);
	bool same = strcmp(out, expected) == 0;

	if (!same)
		print_error("%s: expected\n%s\nmade\n%s\n", name, expected, out);
	free(out);
	return same;
}

static void objects_become_the_policy_or_the_errors_that_are_written_down(void **state)
{
	char *text = read_data(TEST_DATA "/import/kubernetes.txt"), *name = NULL;
	struct policy_source sources[MAX_SOURCES] = {};
	size_t n = 1, cases = 0, failed = 0;

	(void)state;
	for (char *mark = next_mark(text), *end; *mark; mark = end) {
		char kind = *mark, *title = strndup(mark + 4, strcspn(mark, "\n") - (kind == '>' ? 3 : 4));
		char *body = strchr(mark, '\n') + 1, *part;

		end = next_mark(body);
		part = strndup(body, (size_t)(end - body));
		if (kind == '<') {
			/* A map serves all cases up to the next one. */
			size_t i = strcmp(title, "map.yaml") == 0 ? 0 : n++;

			assert_true(i < MAX_SOURCES);
			set_source(&sources[i], title, part);
			continue;
		}
		if (kind == '>') {
			failed += !check_case(name, sources, n, part);
			cases++;
			free(title);
		} else {
			free(name);
			name = title;
			n = 1;
		}
		free(part);
	}
	for (size_t i = 0; i < MAX_SOURCES; i++)
		set_source(&sources[i], NULL, NULL);
	free(name);
	free(text);
	assert_int_equal(failed, 0);
	assert_true(cases >= 30);
}

/* ---- hostile input ---- */

#define MAP                                                                                                            \
	"namespaces: {shop: {}}\nworkloads:\n  - {name: web, namespace: shop, labels: {app: web}, "                    \
	"identity: \"spiffe://prod.example/web\"}\n"
#define POLICY(name, spec)                                                                                             \
	"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: " name                                \
	", namespace: shop}\nspec: " spec "\n"
#define ADMIN(spec)                                                                                                    \
	"apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {name: a}\nspec: " spec "\n"

static char *imported_text(const char *name, const char *map, const char *objects, int *rp)
{
	const struct policy_source sources[] = {{"map.yaml", map, strlen(map)}, {name, objects, strlen(objects)}};

	return imported(sources, 2, rp);
}

/* Counts the lines that begin so. */
static size_t count_lines(const char *text, const char *start)
{
	size_t n = 0;

	for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		n += strncmp(line, start, strlen(start)) == 0;
	return n;
}

static void what_is_imported_cannot_leave_its_comment(void **state)
{
	int r;
	char *out = imported_text(
		"k\n  - name: evil.yaml", MAP,
		ADMIN("{priority: 0, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}], "
		      "name: \"x\\n  - name: evil\\u2028  - name: evil\\u0085\\r  - name: evil\"}]}"),
		&r);

	(void)state;
	assert_int_equal(r, 0);
	assert_int_equal(count_lines(out, "  - name: admin.a.ingress-1\n"), 1);
	assert_int_equal(count_lines(out, "  - name: evil"), 0);
	for (size_t i = 0; out[i]; i++)
		assert_true(out[i] == '\n' || (out[i] >= ' ' && out[i] <= '~'));
	free(out);
}

static void a_place_cannot_leave_its_quotes(void **state)
{
	int r;
	char *out = imported_text("k.yaml",
				  "namespaces: {shop: {}}\nworkloads:\n  - {name: web, namespace: shop, identity: "
				  "{cgroup: '/a\"}, {b\\'}}\n",
				  POLICY("p", "{podSelector: {}}"), &r);

	(void)state;
	assert_int_equal(r, 0);
	assert_non_null(strstr(out, "  web: {cgroup: \"/a\\\"}, {b\\\\\"}\n"));
	assert_null(strstr(out, "error: "));
	free(out);
	out = imported_text("k.yaml",
			    "namespaces: {shop: {}}\nworkloads:\n  - {name: web, namespace: shop, identity: {unit: "
			    "\"a\\nb.service\"}}\n",
			    "", &r);
	assert_int_equal(r, 1);
	assert_non_null(strstr(out, "map.yaml:3:51: error: `unit` may have printable ASCII characters only"));
	free(out);
}

static void anchors_end_with_their_document(void **state)
{
	int r;
	char *out =
		imported_text("k.yaml", MAP,
			      POLICY("p", "{podSelector: &s {matchLabels: {app: web}}, ingress: [{from: [{podSelector: "
					  "*s}]}]}") "---\n" POLICY("q", "{podSelector: *s}"),
			      &r);

	(void)state;
	assert_int_equal(r, 1);
	assert_non_null(strstr(out, "k.yaml:9:21: error: alias '*s' names no anchor"));
	free(out);
}

static void names_that_are_cut_stay_different(void **state)
{
	char *objects = NULL, *out, name[254];
	size_t size;
	FILE *stream = open_memstream(&objects, &size);
	int r;

	(void)state;
	memset(name, 'n', 253);
	name[253] = 0;
	for (int i = 0; i < 3; i++) {
		name[252] = (char)('a' + i);
		fprintf(stream, POLICY("%s", "{podSelector: {}, ingress: [{}]}") "---\n", name);
	}
	fclose(stream);
	out = imported_text("k.yaml", MAP, objects, &r);
	assert_int_equal(r, 0);
	assert_null(strstr(out, "error: "));
	assert_int_equal(count_lines(out, "  - name: shop.nnn"), 4);
	free(out);
	free(objects);
}

/* The cost of selectors is that of labels looked at: objects times workloads. It has a limit. */
static void selectors_of_a_hostile_file_are_bounded(void **state)
{
	char *objects = NULL, *map = NULL, *out;
	size_t size;
	FILE *stream = open_memstream(&map, &size);
	clock_t start;
	int r;

	(void)state;
	fputs("namespaces: {shop: {}}\nworkloads:\n", stream);
	for (int i = 0; i < 10000; i++)
		fprintf(stream, "- {name: w%d, namespace: shop, labels: {a: b}, identity: \"spiffe://td/w%d\"}\n", i,
			i);
	fclose(stream);
	stream = open_memstream(&objects, &size);
	fputs(POLICY("p", "") "  podSelector: {}\n  ingress:\n  - from:\n", stream);
	for (int i = 0; i < 100000; i++)
		fputs("    - {podSelector: {matchLabels: {a: c}}}\n", stream);
	fclose(stream);
	start = clock();
	out = imported_text("k.yaml", map, objects, &r);
	assert_int_equal(r, 1);
	assert_non_null(strstr(out, "error: the import is too large: too many selectors for so many workloads"));
	assert_true(clock() - start < 20 * CLOCKS_PER_SEC);
	free(out);
	free(objects);
	free(map);
}

/* Few objects that select many workloads make a large policy; it has a limit, too. */
static void a_policy_that_would_be_too_large_is_refused(void **state)
{
	char *objects = NULL, *map = NULL, *out;
	size_t size;
	FILE *stream = open_memstream(&map, &size);
	int r;

	(void)state;
	fputs("namespaces: {shop: {}}\nworkloads:\n", stream);
	for (int i = 0; i < 5000; i++)
		fprintf(stream, "- {name: a-workload-%d, namespace: shop, identity: \"spiffe://td/w%d\"}\n", i, i);
	fclose(stream);
	stream = open_memstream(&objects, &size);
	for (int i = 0; i < 400; i++)
		fprintf(stream, POLICY("p%d", "{podSelector: {}, ingress: [{ports: [{port: %d}]}]}") "---\n", i, i + 1);
	fclose(stream);
	out = imported_text("k.yaml", map, objects, &r);
	assert_int_equal(r, 1);
	assert_non_null(strstr(out, "error: the policy would be larger than 16 MiB"));
	free(out);
	free(objects);
	free(map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(objects_become_the_policy_or_the_errors_that_are_written_down),
		cmocka_unit_test(what_is_imported_cannot_leave_its_comment),
		cmocka_unit_test(a_place_cannot_leave_its_quotes),
		cmocka_unit_test(anchors_end_with_their_document),
		cmocka_unit_test(names_that_are_cut_stay_different),
		cmocka_unit_test(selectors_of_a_hostile_file_are_bounded),
		cmocka_unit_test(a_policy_that_would_be_too_large_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
