/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/bus.h"
#include "cli/change.h"
#include "cli/cli.h"
#include "cli/format.h"
#include "cli/policy_changes.h"
#include "cli/policy_diff.h"
#include "cli/policy_files.h"
#include "daemon/confirmation.h"
#include "policy/verify.h"

#define MAX_COMMENT 500

struct apply {
	struct policy_source *files;
	size_t n;
	const char *comment;
	unsigned long confirm_s; /* 0: for good */
	bool yes;
	bool dry_run;
};

static void apply_free(struct apply *apply)
{
	policy_files_free(apply->files, apply->n);
}

static void textp_free(char **textp)
{
	free(*textp);
}

static void diagnostics_freep(struct policy_diagnostics **diagnosticsp)
{
	policy_diagnostics_freep(diagnosticsp);
}

static const char *refused(const struct apply *apply)
{
	return apply->dry_run ? "it could not be applied" : "the policy was not applied, what was in force stays";
}

/*
 * Here, with colours and without a daemon. The daemon checks by itself what it is given, and only its answer counts: so that
 * nothing is done twice where nothing is wrong, it is asked first, and this comes into play when it has something to say.
 */
static int check(struct cli *cli, const struct apply *apply)
{
	__attribute__((cleanup(diagnostics_freep))) struct policy_diagnostics *diagnostics = NULL;
	__attribute__((cleanup(policy_freep))) struct policy *policy = NULL;
	int rc = policy_parse(&policy, &diagnostics, apply->files, apply->n);
	size_t errors;

	if (rc < 0) {
		cli_error("cannot check the policy: %s", strerror(-rc));
		return CLI_UNREACHABLE;
	}
	policy_diagnostics_print(diagnostics, stderr, cli->colour_err);
	if (rc) {
		errors = policy_diagnostics_count(diagnostics, POLICY_ERROR);
		cli_error("%zu error%s; %s", errors, errors == 1 ? "" : "s", refused(apply));
		return CLI_NO;
	}
	rc = policy_verify(policy, time(NULL), stderr);
	if (rc < 0) {
		cli_error("cannot run the policy's tests: %s", strerror(-rc));
		return CLI_UNREACHABLE;
	}
	if (rc)
		cli_error("the policy does not do what its tests and invariants say; %s", refused(apply));
	return rc ? CLI_NO : CLI_OK;
}

/* The daemon refuses it. */
static int invalid(struct cli *cli, void *ctx, const char *text)
{
	size_t len = strlen(text);
	int code = check(cli, ctx);

	if (code != CLI_OK)
		return code;
	/* It knows better: its tables are full, or it is of another version. Diagnostics begin with FILE:LINE:COL. */
	fprintf(stderr, "%s%s", text, len && text[len - 1] == '\n' ? "" : "\n");
	cli_error("the daemon refuses the policy; %s", refused(ctx));
	return CLI_NO;
}

static void warn(struct cli *cli, void *ctx, const char *text)
{
	if (!text || cli->colour_err)
		check(cli, ctx);
	else
		fputs(text, stderr);
}

/* ---- apply ---- */

static int apply_call(void *ctx, sd_bus *bus, bool even_if_cut, sd_bus_message **callp)
{
	const struct apply *apply = ctx;
	int code = cli_bus_method(bus, "Apply", callp);

	if (code == CLI_OK)
		code = cli_bus_append_files(*callp, apply->files, apply->n);
	if (code == CLI_OK && sd_bus_message_append(*callp, "susb", apply->comment, (uint32_t)apply->confirm_s,
						    cli_session(), (int)even_if_cut) < 0)
		return cli_usage_error(&cmd_apply, "the comment must be valid UTF-8");
	return code;
}

static const struct cli_change_ops apply_ops = {.call = apply_call, .invalid = invalid, .warn = warn};

static void print_summary(const struct apply *apply, const struct cli_change *result)
{
	printf("revision %" PRIu32 " in force: %" PRIu32 " rule%s, %" PRIu32 " socket%s cut\n", result->revision,
	       result->rules, result->rules == 1 ? "" : "s", result->sockets_cut, result->sockets_cut == 1 ? "" : "s");
	if (!apply->confirm_s)
		return;
	printf("It waits to be confirmed. Open a new session, and there, within %lu s:\n\n    policyctl confirm\n\n",
	       apply->confirm_s);
	if (result->replaced)
		printf("Otherwise revision %" PRIu32 " comes back by itself.\n", result->replaced);
	else
		printf("Otherwise the built-in policy, which denies everything, comes back by itself.\n");
}

static int apply_run(struct cli *cli, struct apply *apply)
{
	struct cli_change result;
	int code = cli_change_run(cli, "Apply", apply->yes, &apply_ops, apply, &result);

	if (code != CLI_OK)
		return code;
	if (cli->json)
		cli_print_json(json_pack("{s:I, s:I, s:I, s:I, s:I}", "revision", (json_int_t)result.revision,
					 "replaced", (json_int_t)result.replaced, "rules", (json_int_t)result.rules,
					 "sockets_cut", (json_int_t)result.sockets_cut, "confirm_s",
					 (json_int_t)apply->confirm_s));
	else
		print_summary(apply, &result);
	return CLI_OK;
}

/* ---- dry run ---- */

/* What changes by name: rules, and what they stand on. A new reference, or NULL. */
static json_t *changes_of(const struct cli_revision *now, const struct apply *apply)
{
	struct policy_entries old = {0}, new = {0};
	json_t *changes = NULL;

	if (policy_entries_read(&new, apply->files, apply->n) == 0)
		changes = policy_changes_json(policy_entries_read(&old, now->files, now->n_files) == 0 ? &old : NULL,
					      &new);
	policy_entries_free(&old);
	policy_entries_free(&new);
	return changes;
}

static int preview(struct cli *cli, const struct apply *apply, uint32_t *cut, int *session_cut, char **textp)
{
	__attribute__((cleanup(cli_bus_closep))) sd_bus *bus = NULL;
	__attribute__((cleanup(cli_message_unrefp))) sd_bus_message *call = NULL, *reply = NULL;
	const char *text;
	int code = cli_bus_open(cli, &bus);

	if (code == CLI_OK)
		code = cli_bus_method(bus, "Preview", &call);
	if (code == CLI_OK)
		code = cli_bus_append_files(call, apply->files, apply->n);
	if (code == CLI_OK && sd_bus_message_append(call, "s", cli_session()) < 0)
		code = cli_bus_malformed(cli, "Preview");
	if (code == CLI_OK)
		code = cli_bus_call(cli, bus, call, &reply);
	if (code != CLI_OK)
		return code;
	if (sd_bus_message_read(reply, "ubs", cut, session_cut, &text) < 0)
		return cli_bus_malformed(cli, "Preview");
	*textp = strdup(text);
	return *textp ? CLI_OK : CLI_UNREACHABLE;
}

/* Takes over `changes`. `session` NULL: it is not cut. */
static int print_dry_run_json(const struct cli_revision *now, const struct apply *apply, json_t *changes, uint32_t cut,
			      const char *session)
{
	json_t *diff = NULL;
	int code = policy_diff_json(now->files, now->n_files, apply->files, apply->n, time(NULL), &diff);

	if (code == CLI_UNREACHABLE) {
		json_decref(changes);
		return code;
	}
	cli_print_json(json_pack("{s:I, s:o?, s:o?, s:I, s:b, s:s?}", "revision", (json_int_t)now->revision, "changes",
				 changes, "diff", diff, "would_cut", (json_int_t)cut, "would_cut_session",
				 session != NULL, "session", session));
	return CLI_OK;
}

static int dry_run(struct cli *cli, const struct apply *apply)
{
	__attribute__((cleanup(cli_revision_free))) struct cli_revision now = {0};
	__attribute__((cleanup(textp_free))) char *text = NULL;
	__attribute__((cleanup(textp_free))) char *names = NULL;
	json_t *changes;
	uint32_t cut;
	int session_cut, code;

	code = cli_bus_show(cli, 0, &now);
	if (code == CLI_OK)
		code = preview(cli, apply, &cut, &session_cut, &text);
	if (code != CLI_OK)
		return code;
	changes = changes_of(&now, apply);
	if (cli->json)
		return print_dry_run_json(&now, apply, changes, cut, session_cut ? text : NULL);
	names = changes ? policy_changes_text(changes, 20) : NULL;
	json_decref(changes);
	printf("against revision %" PRIu32 ", in force: %s\n\n", now.revision, names ? names : "?");
	/* That verdicts differ is what a dry run is for. */
	code = policy_diff_print(cli, now.files, now.n_files, apply->files, apply->n, time(NULL));
	if (code == CLI_UNREACHABLE)
		return code;
	printf("\nit would cut %" PRIu32 " established socket%s\n", cut, cut == 1 ? "" : "s");
	if (session_cut)
		printf("%sCAUTION: %s%s\n", cli_colour(cli, "red"), text, cli_colour(cli, "reset"));
	puts("nothing was changed");
	return CLI_OK;
}

/* ---- */

static int parse(struct apply *apply, int argc, char **argv, size_t *np)
{
	*np = 0;
	for (int i = 1; i < argc; i++) {
		const char *confirm = NULL;

		if (!strncmp(argv[i], "--confirm=", 10))
			confirm = argv[i] + 10;
		else if (!strcmp(argv[i], "--confirm") && i + 1 < argc)
			confirm = argv[++i];
		if (confirm) {
			if (cli_parse_duration(confirm, CONFIRM_MIN_S, CONFIRM_MAX_S, &apply->confirm_s))
				return cli_usage_error(&cmd_apply,
						       "--confirm %s: give a time of 5s to 24h, as 60s, 5m or 1h",
						       confirm);
		} else if (!strcmp(argv[i], "--dry-run")) {
			apply->dry_run = true;
		} else if (!strcmp(argv[i], "--yes")) {
			apply->yes = true;
		} else if (!strcmp(argv[i], "--comment") && i + 1 < argc) {
			apply->comment = argv[++i];
		} else if (argv[i][0] == '-' && argv[i][1]) {
			return cli_usage_error(&cmd_apply, "unexpected option %s, or its value is missing", argv[i]);
		} else {
			argv[(*np)++] = argv[i];
		}
	}
	if (!*np)
		return cli_usage_error(&cmd_apply, "which policy?");
	if (apply->dry_run && apply->confirm_s)
		return cli_usage_error(&cmd_apply, "--dry-run changes nothing that could be confirmed");
	if (strlen(apply->comment) > MAX_COMMENT)
		return cli_usage_error(&cmd_apply, "the comment is longer than %d bytes", MAX_COMMENT);
	return CLI_OK;
}

static int run(struct cli *cli, int argc, char **argv)
{
	__attribute__((cleanup(apply_free))) struct apply apply = {.comment = ""};
	size_t n;
	int code = parse(&apply, argc, argv, &n);

	if (code == CLI_OK)
		code = policy_files_load(&apply.files, &apply.n, argv, n);
	/* Where nobody can be asked, a policy that is not valid is told all the same. */
	if (code == CLI_OK && (apply.dry_run || !cli_bus_is_there(cli)))
		code = check(cli, &apply);
	if (code != CLI_OK)
		return code;
	return apply.dry_run ? dry_run(cli, &apply) : apply_run(cli, &apply);
}

const struct cli_command cmd_apply = {
	.name = "apply",
	.summary = "Makes a policy the one in force",
	.usage = "PATH... [--confirm DUR] [--dry-run] [--yes] [--comment TEXT]",
	.help = "  PATH             policy file, directory (its *.yaml in name order), or - for standard input; all of "
		"them\n"
		"                   together are the policy\n"
		"  --confirm DUR    for so long only (5s to 24h), unless `policyctl confirm` comes in time: then what "
		"was\n"
		"                   in force comes back by itself\n"
		"  --dry-run        change nothing; say what would change, and what would be cut\n"
		"  --yes            also if it cuts the connection that you came through\n"
		"  --comment TEXT   kept with the revision and in the audit log\n\n"
		"All packets are judged by the old policy or by the new one, never by a mixture. Connections that the "
		"new\n"
		"one does not allow are cut. If yours is one of them, nothing is changed before you say so.\n\n"
		"Exit codes: 0 in force (--dry-run: it could be); 1 the policy is not valid, another one waits to be\n"
		"confirmed, or it would cut your session: nothing changed; 3 the daemon is not reachable or failed.\n\n"
		"Example: policyctl apply /etc/bulkhead/policy.d --confirm 60s\n",
	.run = run,
};
