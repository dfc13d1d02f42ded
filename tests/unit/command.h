/* SPDX-License-Identifier: Apache-2.0 */
/*
 * command.h - running the built policyctl in a directory of the test's own.
 */
#ifndef BULKHEAD_TESTS_COMMAND_H
#define BULKHEAD_TESTS_COMMAND_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct command_result {
	int code;
	char *out; /* stdout and stderr */
};

/* A new directory, which becomes the working directory. Returns its path, malloc()ed. */
static inline char *command_directory_new(void)
{
	char *path = strdup("/tmp/bulkhead-test-XXXXXX");

	assert_non_null(mkdtemp(path));
	assert_int_equal(chdir(path), 0);
	return path;
}

static inline void command_directory_free(char *path)
{
	char *command;

	assert_int_equal(chdir("/"), 0);
	assert_true(asprintf(&command, "rm -rf '%s'", path) > 0);
	assert_int_equal(system(command), 0);
	free(command);
	free(path);
}

/* Runs "policyctl ARGUMENTS", a shell's words. The result's text is the caller's. */
__attribute__((format(printf, 1, 2))) static inline struct command_result command_run(const char *format, ...)
{
	struct command_result result = {};
	char *arguments, *command;
	size_t len;
	FILE *out = open_memstream(&result.out, &len), *pipe;
	va_list args;
	int c, status;

	va_start(args, format);
	assert_true(vasprintf(&arguments, format, args) >= 0);
	va_end(args);
	assert_true(asprintf(&command, "exec 2>&1; NO_COLOR=1 " POLICYCTL " %s", arguments) > 0);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	while ((c = getc(pipe)) != EOF)
		putc(c, out);
	status = pclose(pipe);
	fclose(out);
	free(arguments);
	free(command);
	assert_true(WIFEXITED(status));
	result.code = WEXITSTATUS(status);
	return result;
}

/* Runs it and checks the exit code, and that the output is as expected (or NULL: anything). */
#define command_gives(expected_code, expected_out, ...)                                                                \
	do {                                                                                                           \
		struct command_result result_ = command_run(__VA_ARGS__);                                              \
		const char *expected_ = (expected_out);                                                                \
                                                                                                                       \
		if (result_.code != (expected_code) || (expected_ && strcmp(result_.out, expected_) != 0)) {           \
			fprintf(stderr, "exit %d, expected %d:\n%s\n", result_.code, (expected_code), result_.out);    \
			fail();                                                                                        \
		}                                                                                                      \
		free(result_.out);                                                                                     \
	} while (0)

static inline void command_write(const char *path, const char *text)
{
	FILE *out = fopen(path, "w");

	assert_non_null(out);
	assert_true(fputs(text, out) >= 0);
	assert_int_equal(fclose(out), 0);
}

static inline void command_file_is(const char *path, const char *expected)
{
	char text[4096] = "";
	FILE *in = fopen(path, "r");

	assert_non_null(in);
	text[fread(text, 1, sizeof(text) - 1, in)] = 0;
	fclose(in);
	assert_string_equal(text, expected);
}

#endif
