/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "cli/diagnostics.h"
#include "cli/import_nftables.h"
#include "cli/policy_files.h"
#include "policy/import_kubernetes.h"
#include "policy/model.h"

#define MAX_PATHS 256
#define MAX_SUBJECTS 64

/* What an importer made of its input. */
struct imported {
	char *text; /* NULL: nothing */
	struct policy_diagnostics *diagnostics;
};

static void imported_free(struct imported *imported)
{
	policy_diagnostics_freep(&imported->diagnostics);
	free(imported->text);
}

struct paths {
	char *items[MAX_PATHS];
	size_t n;
};

/* The policy must be one. Its warnings are for `check`: what was imported is as it is. */
static int verify(struct cli *cli, const char *text)
{
	__attribute__((cleanup(policy_diagnostics_freep))) struct policy_diagnostics *diagnostics = NULL;
	__attribute__((cleanup(policy_freep))) struct policy *policy = NULL;
	const struct policy_source source = {"<imported>", text, strlen(text)};
	int r = policy_parse(&policy, &diagnostics, &source, 1);

	if (r < 0) {
		cli_error("the policy could not be checked: %s", strerror(-r));
		return CLI_UNREACHABLE;
	}
	if (r == 1) {
		policy_diagnostics_print(diagnostics, stderr, cli->colour_err);
		cli_error("what was imported makes no valid policy; nothing is written");
		return CLI_NO;
	}
	return CLI_OK;
}

/* `r`: 0, 1 (bad input, said in the diagnostics), or -errno. */
static int print_result(struct cli *cli, struct imported *imported, int r)
{
	int code;

	if (r < 0) {
		cli_error("the import failed: %s", strerror(-r));
		return CLI_UNREACHABLE;
	}
	if (!cli->json)
		policy_diagnostics_print(imported->diagnostics, stderr, cli->colour_err);
	code = r == 0 ? verify(cli, imported->text) : CLI_NO;
	if (cli->json) {
		json_t *result = json_pack("{s:b}", "ok", code == CLI_OK);

		cli_diagnostics_set(result, imported->diagnostics);
		if (code == CLI_OK)
			json_object_set_new(result, "policy", json_string(imported->text));
		cli_print_json(result);
	} else if (code == CLI_OK) {
		fputs(imported->text, stdout);
	}
	return code;
}

/* Takes `--name VALUE`. Returns 1 if it did, 0 if argv[*ip] is another argument, -1 having said that the value is missing. */
static int take_option(int argc, char **argv, int *ip, const char *name, const char **valuep)
{
	if (strcmp(argv[*ip], name) != 0)
		return 0;
	if (*ip + 1 >= argc) {
		cli_usage_error(&cmd_import, "%s needs a value", name);
		return -1;
	}
	*valuep = argv[++*ip];
	return 1;
}

static int add_path(struct paths *paths, char *path)
{
	if (path[0] == '-' && path[1])
		return cli_usage_error(&cmd_import, "unknown option %s", path);
	if (paths->n == MAX_PATHS)
		return cli_usage_error(&cmd_import, "at most %d files; name a directory", MAX_PATHS - 1);
	paths->items[paths->n++] = path;
	return CLI_OK;
}

static int run_kubernetes(struct cli *cli, int argc, char **argv)
{
	__attribute__((cleanup(imported_free))) struct imported imported = {};
	struct import_kubernetes import = {.namespace = "default"};
	struct paths paths = {.n = 1}; /* the map comes first */
	struct policy_source *sources = NULL;
	const char *map = NULL;
	struct stat st;
	int code, r;

	for (int i = 1; i < argc; i++) {
		r = take_option(argc, argv, &i, "--map", &map);
		if (r == 0)
			r = take_option(argc, argv, &i, "--namespace", &import.namespace);
		if (r < 0)
			return CLI_USAGE;
		code = r ? CLI_OK : add_path(&paths, argv[i]);
		if (code != CLI_OK)
			return code;
	}
	if (!map)
		return cli_usage_error(&cmd_import,
				       "--map FILE says which workloads there are and who proves to be them");
	if (paths.n < 2)
		return cli_usage_error(&cmd_import, "which objects? Give files, or - for standard input");
	if (stat(map, &st) == 0 && S_ISDIR(st.st_mode))
		return cli_usage_error(&cmd_import, "--map %s is a directory", map);
	paths.items[0] = (char *)map;
	code = policy_files_load(&sources, &import.n_sources, paths.items, paths.n);
	if (code != CLI_OK)
		return code;
	import.sources = sources;
	r = policy_import_kubernetes(&imported.text, &imported.diagnostics, &import);
	policy_files_free(sources, import.n_sources);
	return print_result(cli, &imported, r);
}

struct subjects {
	struct arena arena;
	struct nft_subject items[MAX_SUBJECTS];
	size_t n;
};

static void subjects_free(struct subjects *subjects)
{
	arena_free(&subjects->arena);
}

/* NAME=ID, NAME=unit:UNIT or NAME=cgroup:PATH. Whether the identity is one is seen when the policy is checked. */
static int add_subject(struct subjects *subjects, const char *text)
{
	const char *equals = strchr(text, '='), *value = equals ? equals + 1 : "";
	const char *kind = strncmp(value, "unit:", 5) == 0     ? "unit"
			   : strncmp(value, "cgroup:", 7) == 0 ? "cgroup"
							       : NULL;
	const char *name, *yaml;

	if (!equals || equals == text || !*value)
		return cli_usage_error(&cmd_import,
				       "--subject is NAME=spiffe://..., NAME=unit:UNIT or NAME=cgroup:PATH");
	/* It goes into YAML as it is. */
	if (strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") <
		    (size_t)(equals - text) ||
	    strpbrk(value, "\"\\\n\r\t") || text[0] == '-')
		return cli_usage_error(&cmd_import, "--subject %s has characters that it cannot have", text);
	if (subjects->n == MAX_SUBJECTS)
		return cli_usage_error(&cmd_import, "at most %d subjects", MAX_SUBJECTS);
	name = arena_copy(&subjects->arena, text, (size_t)(equals - text));
	yaml = kind ? arena_printf(&subjects->arena, "{%s: \"%s\"}", kind, strchr(value, ':') + 1)
		    : arena_printf(&subjects->arena, "\"%s\"", value);
	if (!name || !yaml) {
		cli_error("out of memory");
		return CLI_UNREACHABLE;
	}
	subjects->items[subjects->n++] = (struct nft_subject){name, yaml};
	return CLI_OK;
}

static int run_nftables(struct cli *cli, int argc, char **argv)
{
	__attribute__((cleanup(imported_free))) struct imported imported = {};
	__attribute__((cleanup(subjects_free))) struct subjects subjects = {};
	struct import_nftables import = {};
	struct policy_source *sources = NULL;
	struct paths paths = {};
	const char *subject;
	size_t n;
	int code = CLI_OK, r;

	for (int i = 1; i < argc && code == CLI_OK; i++) {
		r = take_option(argc, argv, &i, "--subject", &subject);
		if (r < 0)
			return CLI_USAGE;
		if (r)
			code = add_subject(&subjects, subject);
		else if (strcmp(argv[i], "--lo-by-address") == 0)
			import.lo_by_address = true;
		else if (strcmp(argv[i], "--ignore-forward") == 0)
			import.ignore_forward = true;
		else
			code = add_path(&paths, argv[i]);
	}
	if (code != CLI_OK)
		return code;
	if (paths.n != 1)
		return cli_usage_error(&cmd_import,
				       "one file, the output of `nft -j list ruleset`, or - for standard input");
	code = policy_files_load(&sources, &n, paths.items, 1);
	if (code != CLI_OK)
		return code;
	import.source = sources[0];
	import.subjects = subjects.items;
	import.n_subjects = subjects.n;
	r = n == 1 ? import_nftables(&imported.text, &imported.diagnostics, &import) : -EISDIR;
	policy_files_free(sources, n);
	return print_result(cli, &imported, r);
}

static int run(struct cli *cli, int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(struct cli *cli, int argc, char **argv);
	} importers[] = {{"kubernetes", run_kubernetes}, {"nftables", run_nftables}};

	if (argc < 2)
		return cli_usage_error(&cmd_import, "from what? kubernetes or nftables");
	for (size_t i = 0; i < sizeof(importers) / sizeof(importers[0]); i++)
		if (strcmp(argv[1], importers[i].name) == 0)
			return importers[i].run(cli, argc - 1, argv + 1);
	return cli_usage_error(&cmd_import, "cannot import '%s', only kubernetes and nftables", argv[1]);
}

const struct cli_command cmd_import = {
	.name = "import",
	.summary = "Makes a policy of what another system has: Kubernetes objects, nftables rules",
	.usage = "kubernetes --map FILE [--namespace NAME] PATH... | nftables [--subject NAME=ID]... FILE",
	.help = "Writes a policy that means the same to standard output, every rule with the place it comes from. "
		"What\n"
		"cannot be expressed is an error with its place, and then nothing is written.\n"
		"\n"
		"kubernetes: NetworkPolicy, AdminNetworkPolicy and BaselineAdminNetworkPolicy objects, and lists of "
		"them,\n"
		"from YAML or JSON files of any number of documents, directories (their *.yaml), or - (standard "
		"input).\n"
		"  --map FILE        namespaces and workloads with their labels, and the identity that proves each\n"
		"  --namespace NAME  of objects that name none (default)\n"
		"\n"
		"nftables: filter chains at input and output, from the JSON of `nft -j list ruleset`.\n"
		"  --subject NAME=ID  an identity that the rules of the host are about: a SPIFFE ID or pattern, "
		"unit:UNIT or\n"
		"                     cgroup:PATH; may be repeated. Default: every verified identity\n"
		"  --lo-by-address    takes the interface lo for the addresses 127.0.0.0/8 and ::1\n"
		"  --ignore-forward   leaves chains at forward to nftables; else they are an error\n"
		"\n"
		"Exit codes: 0 done, 1 it cannot be expressed or is not valid, 2 usage or a file that cannot be read.\n"
		"\n"
		"Example: kubectl get networkpolicies -A -o yaml | policyctl import kubernetes --map cluster.yaml -\n",
	.run = run,
};
