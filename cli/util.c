/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "policy/memory.h"
#include "policy/text.h"

/* ---- messages ---- */

/*
 * What the program has said so far of its failure, and whether it gave a result: with --json a failure is told as a result
 * as well. These are global because stderr and stdout, which they describe, are.
 */
static char first_error[4096];
static bool has_result;

/* A program that shows something has nothing better to do without memory than to say so and stop. */
static void *must(void *memory)
{
	if (!memory) {
		fputs("policyctl: out of memory\n", stderr);
		exit(CLI_UNREACHABLE);
	}
	return memory;
}

char *cli_printable(const char *text)
{
	struct arena arena = {};
	char *copy = must(strdup(must(text_printable(&arena, text, strlen(text)))));

	arena_free(&arena);
	return copy;
}

static void remember(const char *text)
{
	if (first_error[0])
		return;
	snprintf(first_error, sizeof(first_error), "%s", text);
	for (char *p = first_error; *p; p++)
		if (*p == '\n')
			*p = ' ';
}

/* Names and values in a message come from outside. */
static void print_safely(const char *text)
{
	char *printable = cli_printable(text);

	fprintf(stderr, "%s\n", printable);
	free(printable);
}

static void print_message(const char *format, va_list args)
{
	char *text = NULL;

	if (vasprintf(&text, format, args) < 0)
		text = must(NULL);
	remember(text);
	print_safely(text);
	free(text);
}

int cli_usage_error(const struct cli_command *command, const char *format, ...)
{
	va_list args;

	fprintf(stderr, "policyctl %s: ", command->name);
	va_start(args, format);
	print_message(format, args);
	va_end(args);
	fprintf(stderr, "Try `policyctl %s --help`.\n", command->name);
	return CLI_USAGE;
}

void cli_error(const char *format, ...)
{
	va_list args;

	fputs("policyctl: ", stderr);
	va_start(args, format);
	print_message(format, args);
	va_end(args);
}

void cli_error_lines(const char *text)
{
	char *copy = must(strdup(text)), *rest = copy, *line;

	remember(text);
	fputs("policyctl: ", stderr);
	while ((line = strsep(&rest, "\n")))
		print_safely(line);
	free(copy);
}

void cli_has_result(void)
{
	has_result = true;
}

void cli_print_failure(void)
{
	char *text;

	if (has_result || !first_error[0])
		return;
	text = cli_printable(first_error);
	cli_print_json(json_pack("{s:b, s:s}", "ok", 0, "error", text));
	free(text);
}

const char *cli_colour(const struct cli *cli, const char *name)
{
	static const struct {
		const char *name, *escape;
	} colours[] = {
		{"red", "\033[31m"}, {"green", "\033[32m"}, {"yellow", "\033[33m"},
		{"bold", "\033[1m"}, {"dim", "\033[2m"},    {"reset", "\033[0m"},
	};

	if (!cli->colour)
		return "";
	for (size_t i = 0; i < sizeof(colours) / sizeof(colours[0]); i++)
		if (!strcmp(colours[i].name, name))
			return colours[i].escape;
	return "";
}

void cli_print_json(json_t *value)
{
	has_result = true;
	json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
	putchar('\n');
	json_decref(value);
}

/* ---- tables ---- */

struct cli_table {
	size_t columns;
	size_t rows;
	char **cells; /* rows * columns */
};

/* Columns on a terminal: one per character, for what we print. */
static size_t width(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += (*text & 0xc0) != 0x80;
	return n;
}

struct cli_table *cli_table_new(size_t columns)
{
	struct cli_table *table = must(calloc(1, sizeof(*table)));

	table->columns = columns;
	return table;
}

void cli_table_row(struct cli_table *table, const char *const *cells)
{
	size_t used = table->rows * table->columns;

	table->cells = must(reallocarray(table->cells, used + table->columns, sizeof(*table->cells)));
	for (size_t i = 0; i < table->columns; i++)
		table->cells[used + i] = must(strdup(cells[i] ? cells[i] : ""));
	table->rows++;
}

void cli_table_print(const struct cli *cli, struct cli_table *table)
{
	size_t *widths = must(calloc(table->columns, sizeof(*widths)));

	for (size_t i = 0; i < table->rows * table->columns; i++)
		if (width(table->cells[i]) > widths[i % table->columns])
			widths[i % table->columns] = width(table->cells[i]);
	for (size_t row = 0; row < table->rows; row++) {
		char **cells = table->cells + row * table->columns;
		size_t last = table->columns;

		while (last > 1 && !*cells[last - 1])
			last--;
		fputs(row ? "" : cli_colour(cli, "bold"), stdout);
		for (size_t i = 0; i < last; i++)
			printf("%s%*s", cells[i], i + 1 < last ? (int)(widths[i] - width(cells[i]) + 2) : 0, "");
		puts(row ? "" : cli_colour(cli, "reset"));
	}
	for (size_t i = 0; i < table->rows * table->columns; i++)
		free(table->cells[i]);
	free(table->cells);
	free(widths);
	free(table);
}

/* ---- files ---- */

static int read_all(int fd, const char *path, size_t max, char **textp, size_t *lenp)
{
	size_t room = 0, len = 0;
	char *text = NULL;

	for (;;) {
		ssize_t n;

		if (room - len < 2) {
			char *larger = realloc(text, room = room ? 2 * room : 4096);

			if (!larger) {
				free(text);
				cli_error("out of memory");
				return -ENOMEM;
			}
			text = larger;
		}
		n = read(fd, text + len, room - len - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			int error = errno;

			cli_error("cannot read %s: %s", path, strerror(error));
			free(text);
			return -error;
		}
		if (!n)
			break;
		len += (size_t)n;
		if (len > max) {
			cli_error("cannot read %s: it is larger than %zu bytes", path, max);
			free(text);
			return -EFBIG;
		}
	}
	text[len] = '\0';
	*textp = text;
	*lenp = len;
	return 0;
}

int cli_read_file(const char *path, size_t max, char **textp, size_t *lenp)
{
	struct stat st;
	int fd, rc;

	*textp = NULL;
	*lenp = 0;
	if (!strcmp(path, "-"))
		return read_all(STDIN_FILENO, "standard input", max, textp, lenp);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		rc = -errno;
		cli_error("cannot open %s: %s", path, strerror(-rc));
		return rc;
	}
	if (!fstat(fd, &st) && S_ISDIR(st.st_mode)) {
		cli_error("cannot read %s: it is a directory", path);
		rc = -EISDIR;
	} else {
		rc = read_all(fd, path, max, textp, lenp);
	}
	close(fd);
	return rc;
}
