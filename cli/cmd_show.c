/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bus.h"
#include "cli/cli.h"

static json_t *text_json(const char *text, size_t len)
{
	json_t *value = json_stringn(text, len);

	return value ? value : json_null(); /* not UTF-8: JSON cannot hold it */
}

static json_t *revision_json(const struct cli_revision *revision, const char *applied)
{
	json_t *files = json_array();

	for (size_t i = 0; i < revision->n_files; i++) {
		const struct policy_source *file = &revision->files[i];

		json_array_append_new(
			files, json_pack("{s:s, s:o}", "name", file->name, "text", text_json(file->text, file->len)));
	}
	return json_pack("{s:I, s:s, s:s, s:I, s:s, s:o}", "revision", (json_int_t)revision->revision, "digest",
			 revision->digest, "applied", applied, "uid", (json_int_t)revision->uid, "comment",
			 revision->comment, "files", files);
}

/* A comment of several lines stays a comment. */
static void print_comment(const char *comment)
{
	for (const char *p = comment; *p;) {
		size_t len = strcspn(p, "\n");

		printf("#   %.*s\n", (int)len, p);
		p += len + (p[len] == '\n');
	}
}

/* YAML documents would need "---" between files, but a policy file is one document: files are parted by comments. */
static void revision_print(const struct cli_revision *revision, const char *applied)
{
	const struct passwd *user = getpwuid(revision->uid);

	printf("# revision %" PRIu32 ", applied %s by %s (uid %" PRIu32 ")\n# sha256 %s\n", revision->revision, applied,
	       user ? user->pw_name : "?", revision->uid, revision->digest);
	print_comment(revision->comment);
	for (size_t i = 0; i < revision->n_files; i++) {
		const struct policy_source *file = &revision->files[i];

		printf("\n# ---- file %s (%zu of %zu)\n", file->name, i + 1, revision->n_files);
		fwrite(file->text, 1, file->len, stdout);
		if (file->len && file->text[file->len - 1] != '\n')
			putchar('\n');
	}
}

static int run(struct cli *cli, int argc, char **argv)
{
	__attribute__((cleanup(cli_revision_free))) struct cli_revision revision = {0};
	unsigned long number = 0;
	char applied[32], *end;
	int code, first = 1;

	if (argc > 1 && !strcmp(argv[1], "--"))
		first++;
	else if (argc > 1 && argv[1][0] == '-')
		return cli_usage_error(&cmd_show, "unknown option %s", argv[1]);
	if (argc > first + 1)
		return cli_usage_error(&cmd_show, "unexpected argument %s", argv[first + 1]);
	if (argc > first) {
		number = strtoul(argv[first], &end, 10);
		if (argv[first][0] < '0' || argv[first][0] > '9' || *end || !number || number > UINT32_MAX)
			return cli_usage_error(&cmd_show, "\"%s\" is not a revision number", argv[first]);
	}
	code = cli_bus_show(cli, (uint32_t)number, &revision);
	if (code != CLI_OK)
		return code;
	cli_format_time(revision.applied_usec / 1000000, applied, sizeof(applied));
	if (cli->json)
		cli_print_json(revision_json(&revision, applied));
	else
		revision_print(&revision, applied);
	return CLI_OK;
}

const struct cli_command cmd_show = {
	.name = "show",
	.summary = "Prints the policy in force, or a revision",
	.usage = "[REV]",
	.help = "  REV   number of a revision; without it, the one in force\n\n"
		"Exit codes: 0 printed; 1 no such revision; 3 the daemon is not reachable or failed.\n",
	.run = run,
};
