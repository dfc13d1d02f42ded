/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bus.h"
#include "cli/cli.h"
#include "cli/format.h"
#include "cli/policy_changes.h"

#define DEFAULT_LAST 20
#define MAX_NAMES 8

static void textp_free(char **textp)
{
	free(*textp);
}

/* ---- what changed ---- */

/* The entries of a revision's policy. Returns an exit code; a policy that cannot be read or taken apart is no fault. */
static int entries_fetch(struct cli *cli, json_int_t number, struct policy_entries *entries, bool *have, bool *stored)
{
	__attribute__((cleanup(cli_no_free))) struct cli_no no = {};
	struct cli_revision revision;
	int code = cli_bus_show_if(cli, (uint32_t)number, &revision, &no);

	*have = false;
	*stored = code == CLI_OK;
	if (code != CLI_OK)
		return no.name ? CLI_OK : code;
	*have = policy_entries_read(entries, revision.files, revision.n_files) == 0;
	cli_revision_free(&revision);
	return CLI_OK;
}

static bool is_listed(const json_t *history, json_int_t number)
{
	const json_t *item;
	size_t i;

	json_array_foreach((json_t *)history, i, item) if (cli_json_int(item, "revision") == number) return true;
	return false;
}

/* The entries of one revision: what an item is compared with is most often the next item. */
struct fetched {
	json_int_t number; /* 0: none */
	struct policy_entries entries;
	bool have;
	bool stored; /* its file is there, and whole */
};

static void fetched_clear(struct fetched *fetched)
{
	policy_entries_free(&fetched->entries);
	*fetched = (struct fetched){0};
}

static int fetch(struct cli *cli, json_int_t number, struct fetched *fetched)
{
	if (fetched->number == number)
		return CLI_OK;
	fetched_clear(fetched);
	fetched->number = number;
	return entries_fetch(cli, number, &fetched->entries, &fetched->have, &fetched->stored);
}

/* Adds "damaged", "rules" and "changes" to an item. */
static int changes_add(struct cli *cli, const json_t *history, json_t *item, struct fetched *ready)
{
	json_int_t replaced = cli_json_int(item, "replaced");
	/* The policy before the first revision had no rules; one that is no longer stored is not known. */
	bool first = json_is_integer(cli_json_get(item, "replaced")) && !replaced;
	struct fetched old = {0};
	int code = fetch(cli, cli_json_int(item, "revision"), ready);

	if (code == CLI_OK && replaced && is_listed(history, replaced))
		code = fetch(cli, replaced, &old);
	if (code != CLI_OK)
		return code;
	json_object_set_new(item, "damaged", json_boolean(!ready->stored));
	json_object_set_new(item, "rules", ready->have ? json_integer(ready->entries.rules) : json_null());
	json_object_set_new(item, "changes",
			    ready->have && (old.have || first)
				    ? policy_changes_json(old.have ? &old.entries : NULL, &ready->entries)
				    : json_null());
	fetched_clear(ready);
	*ready = old;
	return CLI_OK;
}

/* ---- for people ---- */

static const char *state_text(const json_t *item)
{
	const char *state = cli_json_string(item, "state");

	return !strcmp(state, "in-force")	 ? "in force"
	       : !strcmp(state, "waiting")	 ? "waits to be confirmed"
	       : !strcmp(state, "not-confirmed") ? "not confirmed"
						 : "";
}

static void user_text(json_int_t uid, char *out, size_t size)
{
	const struct passwd *user = getpwuid((uid_t)uid);

	if (user)
		snprintf(out, size, "%s (%" JSON_INTEGER_FORMAT ")", user->pw_name, uid);
	else
		snprintf(out, size, "uid %" JSON_INTEGER_FORMAT, uid);
}

/* "root (0), logged in as alice (1000), from 192.0.2.7:51022, policyctl < sudo < bash < sshd" */
static void who_text(const json_t *item, char *out, size_t size)
{
	const json_t *login = cli_json_get(item, "login_uid");
	const char *cause = cli_json_string(item, "cause"), *from = cli_json_string(item, "from"),
		   *via = cli_json_string(item, "via");
	char user[80], as[120] = "";

	if (!strcmp(cause, "not-confirmed") || !strcmp(cause, "first-start")) {
		snprintf(out, size, "the daemon");
		return;
	}
	user_text(cli_json_int(item, "uid"), user, sizeof(user));
	if (json_is_integer(login) && json_integer_value(login) != cli_json_int(item, "uid")) {
		char name[80];

		user_text(json_integer_value(login), name, sizeof(name));
		snprintf(as, sizeof(as), ", logged in as %s", name);
	}
	snprintf(out, size, "%s%s%s%s%s%s", user, as, *from ? ", from " : "", from, *via ? ", " : "", via);
}

/* Comments come from operators: control characters would go to another one's terminal. */
static void make_printable(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p; p++)
		if (*p < 0x20 || *p == 0x7f)
			*p = ' ';
}

static void print_item(struct cli *cli, const json_t *item)
{
	__attribute__((cleanup(textp_free))) char *changes = NULL;
	__attribute__((cleanup(textp_free))) char *comment = strdup(cli_json_string(item, "comment"));
	const json_t *rules = cli_json_get(item, "rules");
	const char *state = state_text(item);
	char who[512];

	who_text(item, who, sizeof(who));
	if (json_is_object(cli_json_get(item, "changes")))
		changes = policy_changes_text(cli_json_get(item, "changes"), MAX_NAMES);
	printf("%s%" JSON_INTEGER_FORMAT "  %s  %.12s%s%s%s%s\n", cli_colour(cli, "bold"),
	       cli_json_int(item, "revision"), cli_json_string(item, "applied"), cli_json_string(item, "digest"),
	       cli_colour(cli, "reset"), *state ? "  " : "", state,
	       json_is_true(cli_json_get(item, "damaged")) ? "  damaged" : "");
	printf("    by       %s\n", who);
	if (comment && *comment) {
		make_printable(comment);
		printf("    comment  %s\n", comment);
	}
	if (json_is_integer(rules))
		printf("    rules    %" JSON_INTEGER_FORMAT "%s%s\n", json_integer_value(rules), changes ? ": " : "",
		       changes ? changes : "");
}

/* ---- */

static int run(struct cli *cli, int argc, char **argv)
{
	struct fetched ready = {0};
	unsigned long last = DEFAULT_LAST;
	json_t *history, *item;
	int code;
	size_t i;

	for (int k = 1; k < argc; k++) {
		if (!strcmp(argv[k], "--last") && k + 1 < argc) {
			if (cli_parse_count(argv[++k], 100000, &last))
				return cli_usage_error(&cmd_history, "--last %s: give a number", argv[k]);
		} else {
			return cli_usage_error(&cmd_history, "unexpected argument %s", argv[k]);
		}
	}
	code = cli_bus_json(cli, "History", &history);
	if (code != CLI_OK)
		return code;
	json_array_foreach(history, i, item)
	{
		if (i >= last)
			break;
		code = changes_add(cli, history, item, &ready);
		if (code != CLI_OK)
			break;
		if (!cli->json)
			print_item(cli, item);
	}
	fetched_clear(&ready);
	while (json_array_size(history) > last)
		json_array_remove(history, json_array_size(history) - 1);
	if (code == CLI_OK && !cli->json && !json_array_size(history))
		puts("no policy was applied yet: the built-in one is in force, which denies everything");
	if (code == CLI_OK && cli->json)
		cli_print_json(json_incref(history));
	json_decref(history);
	return code;
}

const struct cli_command cmd_history = {
	.name = "history",
	.summary = "Lists the policies that were in force: when, by whom, and what changed",
	.usage = "[--last N]",
	.help = "  --last N   the last N revisions (20); the daemon keeps 64\n\n"
		"Newest first. Rules that the policy added (+), removed (-) and changed (~) are told against what was "
		"in "
		"force\n"
		"before it, by name; so are identities, networks, services and so on, as SECTION/NAME.\n\n"
		"Exit codes: 0 listed; 3 the daemon is not reachable or failed.\n",
	.run = run,
};
