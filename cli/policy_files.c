/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/policy_files.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct sources {
	struct policy_source *items;
	size_t n;
	size_t bytes;
};

void policy_files_free(struct policy_source *sources, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free((char *)sources[i].name);
		free((char *)sources[i].text);
	}
	free(sources);
}

static int add_file(struct sources *out, const char *path)
{
	struct policy_source *items;
	struct policy_source source = {0};
	char *text = NULL;

	if (out->n == POLICY_MAX_SOURCES) {
		cli_error("more than %u policy files", POLICY_MAX_SOURCES);
		return CLI_USAGE;
	}
	if (cli_read_file(path, POLICY_MAX_SOURCE_BYTES - out->bytes, &text, &source.len))
		return CLI_USAGE;
	items = reallocarray(out->items, out->n + 1, sizeof(*items));
	if (items)
		out->items = items;
	source.text = text;
	source.name = items ? strdup(strcmp(path, "-") ? path : "<stdin>") : NULL;
	if (!source.name) {
		free(text);
		cli_error("out of memory");
		return CLI_USAGE;
	}
	out->items[out->n++] = source; /* cppcheck-suppress memleak ; owned by the list now */
	out->bytes += source.len;
	return CLI_OK;
}

static int is_policy_file(const struct dirent *entry)
{
	size_t len = strlen(entry->d_name);

	return entry->d_name[0] != '.' && len > 5 && !strcmp(entry->d_name + len - 5, ".yaml");
}

/* Order of bytes, in every locale: the order must not depend on who applies the policy. */
static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int add_directory(struct sources *out, const char *dir)
{
	struct dirent **entries;
	const char *slash = dir[strlen(dir) - 1] == '/' ? "" : "/";
	int n = scandir(dir, &entries, is_policy_file, by_name), code = CLI_OK;

	if (n < 0) {
		cli_error("cannot read the directory %s: %s", dir, strerror(errno));
		return CLI_USAGE;
	}
	if (!n) {
		cli_error("the directory %s has no file *.yaml", dir);
		code = CLI_USAGE;
	}
	for (int i = 0; i < n; i++) {
		char *path = NULL;

		if (code == CLI_OK)
			code = asprintf(&path, "%s%s%s", dir, slash, entries[i]->d_name) < 0 ? CLI_USAGE
											     : add_file(out, path);
		free(path);
		free(entries[i]);
	}
	free(entries);
	return code;
}

int policy_files_load(struct policy_source **sourcesp, size_t *np, char *const *paths, size_t n_paths)
{
	struct sources out = {0};
	int code = CLI_OK;

	*sourcesp = NULL;
	*np = 0;
	for (size_t i = 0; code == CLI_OK && i < n_paths; i++) {
		struct stat st;
		bool directory = strcmp(paths[i], "-") && !stat(paths[i], &st) && S_ISDIR(st.st_mode);

		code = directory ? add_directory(&out, paths[i]) : add_file(&out, paths[i]);
	}
	if (code != CLI_OK) {
		policy_files_free(out.items, out.n);
		return code;
	}
	*sourcesp = out.items;
	*np = out.n;
	return CLI_OK;
}
