/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/line_diff.h"
#include "cli/policy_files.h"
#include "daemon/cleanup.h"
#include "policy/canonical.h"

struct arguments {
	char **paths;
	size_t n_paths;
	bool check, diff;
};

struct formatted {
	char *text;
	size_t len;
};

static int parse_arguments(struct arguments *arguments, int argc, char **argv)
{
	bool input = false;

	arguments->paths = argv + 1;
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--check"))
			arguments->check = true;
		else if (!strcmp(argv[i], "--diff"))
			arguments->diff = true;
		else if (argv[i][0] == '-' && argv[i][1])
			return cli_usage_error(&cmd_fmt, "unknown option %s", argv[i]);
		else
			arguments->paths[arguments->n_paths++] = argv[i];
	}
	for (size_t i = 0; i < arguments->n_paths; i++)
		input = input || !strcmp(arguments->paths[i], "-");
	if (!arguments->n_paths)
		return cli_usage_error(&cmd_fmt, "which files? `-` is standard input");
	if (input && arguments->n_paths > 1)
		return cli_usage_error(&cmd_fmt, "`-` stands alone");
	return CLI_OK;
}

/* ---- one file ---- */

static int write_all(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t n = write(fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Fills a new file beside the old one, with its owner and mode. Returns 0 or -errno. */
static int fill_beside(int fd, const struct stat *old, const struct formatted *formatted)
{
	struct stat new;

	if (fstat(fd, &new) < 0)
		return -errno;
	if ((new.st_uid != old->st_uid || new.st_gid != old->st_gid) && fchown(fd, old->st_uid, old->st_gid) < 0)
		return -errno;
	if (fchmod(fd, old->st_mode & 07777) < 0)
		return -errno;
	if (write_all(fd, formatted->text, formatted->len) < 0 || fsync(fd) < 0)
		return -errno;
	return 0;
}

static int replace(const char *target, const struct formatted *formatted)
{
	__attribute__((cleanup(freep))) char *beside = NULL;
	__attribute__((cleanup(closep))) int fd = -1;
	const char *slash = strrchr(target, '/');
	struct stat st;
	int r;

	if (stat(target, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if (asprintf(&beside, "%.*s.%s.XXXXXX", slash ? (int)(slash + 1 - target) : 0, target,
		     slash ? slash + 1 : target) < 0) {
		beside = NULL;
		return -ENOMEM;
	}
	fd = mkostemp(beside, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = fill_beside(fd, &st, formatted);
	if (r == 0 && rename(beside, target) < 0)
		r = -errno;
	if (r < 0)
		unlink(beside);
	return r;
}

/* Replaces the file, or what a symbolic link points at: whoever reads it sees the old text or the new. */
static int rewrite(const char *path, const struct formatted *formatted)
{
	__attribute__((cleanup(freep))) char *target = realpath(path, NULL);
	int r = target ? replace(target, formatted) : -errno;

	if (r == 0)
		return CLI_OK;
	cli_error("cannot write %s: %s", path, r == -EINVAL ? "it is not a regular file" : strerror(-r));
	return CLI_USAGE;
}

static bool is_same(const struct policy_source *source, const struct formatted *formatted)
{
	return source->len == formatted->len && !memcmp(source->text, formatted->text, formatted->len);
}

/* Returns CLI_OK, CLI_NO (not a policy file; why is printed), or CLI_UNREACHABLE. */
static int format_source(struct cli *cli, struct formatted *formatted, const struct policy_source *source)
{
	__attribute__((cleanup(policy_diagnostics_freep))) struct policy_diagnostics *diagnostics = NULL;
	int r = policy_canonical(&formatted->text, &formatted->len, &diagnostics, source);

	if (r < 0) {
		cli_error("%s could not be formatted: %s", source->name, strerror(-r));
		return CLI_UNREACHABLE;
	}
	if (r == 1)
		policy_diagnostics_print(diagnostics, stderr, cli->colour_err);
	return r == 1 ? CLI_NO : CLI_OK;
}

static void report(struct cli *cli, const struct arguments *arguments, const struct policy_source *source,
		   const struct formatted *formatted, const char *state, json_t *list)
{
	__attribute__((cleanup(freep))) char *name = cli_printable(source->name);

	if (cli->json) {
		json_array_append_new(list, json_pack("{s:s, s:s}", "file", name, "state", state));
		return;
	}
	if (is_same(source, formatted))
		return;
	if (arguments->diff)
		line_diff_print(cli, name, source->text, source->len, formatted->text, formatted->len);
	else
		printf("%s\n", name);
}

/* Returns an exit code. */
static int format_one(struct cli *cli, const struct arguments *arguments, const struct policy_source *source,
		      json_t *list)
{
	__attribute__((cleanup(freep))) char *text = NULL;
	struct formatted formatted = {};
	bool input = !strcmp(arguments->paths[0], "-"), only_look = arguments->check || arguments->diff;
	int code = format_source(cli, &formatted, source);

	text = formatted.text;
	if (code != CLI_OK) {
		if (cli->json)
			report(cli, arguments, source, &formatted, "invalid", list);
		return code;
	}
	if (input && !only_look) {
		fwrite(formatted.text, 1, formatted.len, stdout);
		return CLI_OK;
	}
	if (is_same(source, &formatted)) {
		report(cli, arguments, source, &formatted, "canonical", list);
		return CLI_OK;
	}
	if (!only_look)
		code = rewrite(source->name, &formatted);
	report(cli, arguments, source, &formatted, only_look || code != CLI_OK ? "differs" : "rewritten", list);
	return only_look ? CLI_NO : code;
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct arguments arguments = {};
	struct policy_source *sources;
	size_t n;
	json_t *list;
	int worst = CLI_OK, code = parse_arguments(&arguments, argc, argv);

	if (code != CLI_OK)
		return code;
	code = policy_files_load(&sources, &n, arguments.paths, arguments.n_paths);
	if (code != CLI_OK)
		return code;
	list = json_array();
	for (size_t i = 0; i < n; i++) {
		code = format_one(cli, &arguments, &sources[i], list);
		worst = code > worst ? code : worst;
	}
	if (cli->json && (strcmp(arguments.paths[0], "-") != 0 || arguments.check || arguments.diff))
		cli_print_json(json_pack("{s:b, s:O}", "ok", worst == CLI_OK, "files", list));
	json_decref(list);
	policy_files_free(sources, n);
	return worst;
}

const struct cli_command cmd_fmt = {
	.name = "fmt",
	.summary = "Writes policy files in their canonical form; comments stay",
	.usage = "[--check] [--diff] FILE...|-",
	.help = "One order of sections and of the keys of a rule, two spaces, short lists and maps on one line, "
		"quotes\n"
		"where they are needed. Rewrites the files that differ, and names them; of a directory, its *.yaml.\n"
		"`-` reads standard input and prints the result. Files with mistakes are formatted as long as they "
		"are\n"
		"YAML; a file that is not, or that cannot be written without changing its meaning, stays as it is.\n"
		"\n"
		"  --check  change nothing; name the files that are not in canonical form\n"
		"  --diff   change nothing; show what would change\n"
		"\n"
		"Exit codes: 0 done, or all are in canonical form; 1 not YAML, or with --check or --diff some differ;\n"
		"2 usage, or a file that cannot be read or written.\n"
		"\n"
		"Example: policyctl fmt --check /etc/bulkhead/policy.d\n",
	.run = run,
};
