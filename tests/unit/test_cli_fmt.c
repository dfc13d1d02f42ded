/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policyctl fmt: what happens to files. The form itself: test_policy_canonical.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "command.h"

#define CROOKED "services: {pg:   tcp/5432} # what\nbulkhead: 1\n"
#define STRAIGHT "bulkhead: 1\n\n# what\nservices:\n  pg: tcp/5432\n"

static int in_a_directory(void **state)
{
	*state = command_directory_new();
	command_write("crooked.yaml", CROOKED);
	command_write("straight.yaml", STRAIGHT);
	return 0;
}

static int away_from_it(void **state)
{
	command_directory_free(*state);
	return 0;
}

static void files_that_differ_are_rewritten_and_named(void **state)
{
	(void)state;
	command_gives(0, "crooked.yaml\n", "fmt crooked.yaml straight.yaml");
	command_file_is("crooked.yaml", STRAIGHT);
	command_file_is("straight.yaml", STRAIGHT);
	command_gives(0, "", "fmt crooked.yaml straight.yaml");
}

static void of_a_directory_the_yaml_files_are_meant(void **state)
{
	(void)state;
	command_write("note.txt", CROOKED);
	command_gives(0, "./crooked.yaml\n", "fmt .");
	command_file_is("note.txt", CROOKED);
}

static void check_names_and_changes_nothing(void **state)
{
	(void)state;
	command_gives(1, "crooked.yaml\n", "fmt --check crooked.yaml straight.yaml");
	command_file_is("crooked.yaml", CROOKED);
	command_gives(0, "", "fmt --check straight.yaml");
	command_gives(1, "<stdin>\n", "fmt --check - < crooked.yaml");
	command_gives(1,
		      "{\n  \"ok\": false,\n  \"files\": [\n    {\n      \"file\": \"crooked.yaml\",\n"
		      "      \"state\": \"differs\"\n    }\n  ]\n}\n",
		      "fmt --check --json crooked.yaml");
}

static void diff_shows_what_would_change(void **state)
{
	(void)state;
	command_gives(1,
		      "--- crooked.yaml\n+++ crooked.yaml\n@@ -1,2 +1,5 @@\n-services: {pg:   tcp/5432} # what\n"
		      " bulkhead: 1\n+\n+# what\n+services:\n+  pg: tcp/5432\n",
		      "fmt --diff crooked.yaml");
	command_file_is("crooked.yaml", CROOKED);
	command_gives(0, "", "fmt --diff straight.yaml");
}

/* The shown difference is one: patch(1) is not at hand everywhere, so the lines are counted instead. */
static void a_diff_of_many_lines_adds_up(void **state)
{
	struct command_result result;
	int added = 0, removed = 0, kept = 0;
	FILE *out = fopen("many.yaml", "w");

	(void)state;
	fputs("bulkhead: 1\n\nservices:\n", out);
	for (int i = 0; i < 3000; i++)
		fprintf(out, i % 100 ? "  s%d: tcp/%d\n" : "  s%d:  tcp/%d\n", i, i + 1);
	fclose(out);
	result = command_run("fmt --diff many.yaml");
	assert_int_equal(result.code, 1);
	for (char *line = result.out; *line; line = strchr(line, '\n') + 1) {
		added += *line == '+' && strncmp(line, "+++", 3) != 0;
		removed += *line == '-' && strncmp(line, "---", 3) != 0;
		kept += *line == ' ';
	}
	free(result.out);
	assert_int_equal(added, 30);
	assert_int_equal(removed, 30);
	assert_int_equal(kept, 30 * 6);
}

static void standard_input_goes_to_standard_output(void **state)
{
	(void)state;
	command_gives(0, STRAIGHT, "fmt - < crooked.yaml");
	command_gives(2, NULL, "fmt - crooked.yaml");
	command_gives(2, NULL, "fmt");
	command_gives(2, NULL, "fmt --chekc crooked.yaml");
	command_gives(2, NULL, "fmt missing.yaml");
}

static void what_is_no_yaml_stays_as_it_is(void **state)
{
	(void)state;
	command_write("broken.yaml", "rules: [a\n");
	command_gives(1, NULL, "fmt broken.yaml crooked.yaml");
	command_file_is("broken.yaml", "rules: [a\n");
	command_file_is("crooked.yaml", STRAIGHT);
	command_gives(1, NULL, "fmt - < broken.yaml");
}

static void mode_and_links_stay(void **state)
{
	struct stat st;

	(void)state;
	assert_int_equal(chmod("crooked.yaml", 0640), 0);
	if (geteuid() == 0)
		assert_int_equal(chown("crooked.yaml", 12, 34), 0);
	assert_int_equal(symlink("crooked.yaml", "link.yaml"), 0);
	command_gives(0, "link.yaml\n", "fmt link.yaml");
	command_file_is("crooked.yaml", STRAIGHT);
	assert_int_equal(lstat("link.yaml", &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	assert_int_equal(stat("crooked.yaml", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	if (geteuid() == 0) {
		assert_int_equal(st.st_uid, 12);
		assert_int_equal(st.st_gid, 34);
	}
}

static void nothing_is_left_beside_a_file(void **state)
{
	(void)state;
	command_gives(0, "crooked.yaml\n", "fmt crooked.yaml");
	assert_int_equal(system("test \"$(ls -A | tr '\\n' ' ')\" = 'crooked.yaml straight.yaml '"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, in_a_directory, away_from_it)
		TEST(files_that_differ_are_rewritten_and_named),
		TEST(of_a_directory_the_yaml_files_are_meant),
		TEST(check_names_and_changes_nothing),
		TEST(diff_shows_what_would_change),
		TEST(a_diff_of_many_lines_adds_up),
		TEST(standard_input_goes_to_standard_output),
		TEST(what_is_no_yaml_stays_as_it_is),
		TEST(mode_and_links_stay),
		TEST(nothing_is_left_beside_a_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
