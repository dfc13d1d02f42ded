/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/policy_diff.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bus.h"
#include "cli/diagnostics.h"
#include "cli/format.h"
#include "cli/policy_files.h"
#include "daemon/cleanup.h"
#include "policy/diff.h"

#define MAX_RULES_SHOWN 3U /* of a line; --json has all */
#define MAX_COLUMN 40	   /* a wider text pushes the rest of its line, not of all lines */

static void diff_freep(struct policy_diff **diffp)
{
	policy_diff_freep(diffp);
}

static void diagnostics_freep(struct policy_diagnostics **diagnosticsp)
{
	policy_diagnostics_freep(diagnosticsp);
}

/* ---- sides ---- */

/* "@3:shop.yaml", so that a place in a revision is not taken for one in a file. */
static int name_revision(struct policy_side *side, uint32_t revision)
{
	for (size_t i = 0; i < side->n_sources; i++) {
		char *name = NULL;

		if (asprintf(&name, "@%u:%s", revision, side->sources[i].name) < 0)
			return -ENOMEM;
		free((char *)side->sources[i].name);
		side->sources[i].name = name;
	}
	return 0;
}

static int load_revision(struct cli *cli, struct policy_side *side, const char *path)
{
	__attribute__((cleanup(cli_revision_free))) struct cli_revision revision = {};
	unsigned long number = 0;
	int code;

	if (path[1] && cli_parse_count(path + 1, UINT32_MAX, &number) < 0) {
		cli_error("\"%s\" is no revision: write @ for the policy in force, or @ and a number", path);
		return CLI_USAGE;
	}
	code = cli_bus_show(cli, (uint32_t)number, &revision);
	if (code != CLI_OK)
		return code;
	side->sources = revision.files;
	side->n_sources = revision.n_files;
	revision.files = NULL;
	revision.n_files = 0;
	if (name_revision(side, revision.revision) == 0)
		return CLI_OK;
	cli_error("out of memory");
	return CLI_UNREACHABLE;
}

/* Returns 0, 1 (invalid, its errors printed), or -ENOMEM. */
static int parse(const struct cli *cli, const struct policy_source *sources, size_t n, struct policy **policyp)
{
	__attribute__((cleanup(diagnostics_freep))) struct policy_diagnostics *diagnostics = NULL;
	int r = policy_parse(policyp, &diagnostics, sources, n);

	/* Warnings are for `check`. */
	if (r == 1 && cli)
		cli_diagnostics_fail(cli, diagnostics);
	else if (r == 1)
		policy_diagnostics_print(diagnostics, stderr, false);
	return r;
}

static int parse_code(int r)
{
	if (r >= 0)
		return r == 0 ? CLI_OK : CLI_NO;
	cli_error("the policy could not be read: %s", strerror(-r));
	return CLI_UNREACHABLE;
}

int policy_side_load(struct cli *cli, struct policy_side *side, const char *path)
{
	char *const paths[] = {(char *)path};
	int code;

	*side = (struct policy_side){};
	code = path[0] == '@' ? load_revision(cli, side, path)
			      : policy_files_load(&side->sources, &side->n_sources, paths, 1);
	if (code == CLI_OK)
		code = parse_code(parse(cli, side->sources, side->n_sources, &side->policy));
	return code;
}

void policy_side_free(struct policy_side *side)
{
	policy_freep(&side->policy);
	policy_files_free(side->sources, side->n_sources);
	*side = (struct policy_side){};
}

/* ---- for people ---- */

static void print_rule(const struct policy_diff_rule *rule)
{
	if (!strcmp(rule->name, "default"))
		printf("default %s", rule->allow ? "allow" : "deny");
	else
		fputs(rule->name, stdout);
	if (rule->file)
		printf(" (%s:%u)", rule->file, rule->line);
}

static void print_rules(const struct policy_diff_rule *rules, size_t n)
{
	/* "and 1 more" is no shorter than the one. */
	size_t shown = n <= MAX_RULES_SHOWN + 1 ? n : MAX_RULES_SHOWN;

	for (size_t i = 0; i < shown; i++) {
		fputs(i ? ", " : "", stdout);
		print_rule(&rules[i]);
	}
	if (shown < n)
		printf(" and %zu more", n - shown);
}

static int width_of(size_t length, int width)
{
	return length <= MAX_COLUMN && (int)length > width ? (int)length : width;
}

static void print_changes(const struct cli *cli, const struct policy_diff *diff)
{
	int ends = 0, services = 0;

	for (size_t i = 0; i < diff->n_changes; i++) {
		ends = width_of(strlen(diff->changes[i].from) + strlen(diff->changes[i].to) + 4, ends);
		services = width_of(strlen(diff->changes[i].services), services);
	}
	for (size_t i = 0; i < diff->n_changes; i++) {
		const struct policy_change *change = &diff->changes[i];
		int length = (int)(strlen(change->from) + strlen(change->to) + 4);

		printf("%s%s%s  %s -> %s%*s  %-*s  by ", cli_colour(cli, change->allow ? "green" : "red"),
		       change->allow ? "+ allow" : "- deny ", cli_colour(cli, "reset"), change->from, change->to,
		       length < ends ? ends - length : 0, "", services, change->services);
		print_rules(change->by, change->n_by);
		fputs("; before: ", stdout);
		print_rules(change->before, change->n_before);
		putchar('\n');
	}
}

static bool same_texts(const struct policy_source *a, size_t n, const struct policy_source *b, size_t m)
{
	if (n != m)
		return false;
	for (size_t i = 0; i < n; i++)
		if (a[i].len != b[i].len || (a[i].len && memcmp(a[i].text, b[i].text, a[i].len) != 0))
			return false;
	return true;
}

static void print_sum(const struct policy_diff *diff, bool same_text)
{
	size_t gained = 0;

	for (size_t i = 0; i < diff->n_changes; i++)
		gained += diff->changes[i].allow;
	if (diff->n_changes < diff->n_found)
		printf("at least %zu changes, of which %zu are listed\n", diff->n_found, diff->n_changes);
	else if (diff->n_changes)
		printf("%zu %s: %zu now allowed, %zu now denied\n", diff->n_changes,
		       diff->n_changes == 1 ? "change" : "changes", gained, diff->n_changes - gained);
	else if (!diff->complete)
		return;
	else if (diff->n_added || diff->n_removed || diff->defaults_differ)
		printf("no verdict changes; rules differ: %zu of the old policy and %zu of the new are not in both\n",
		       diff->n_removed, diff->n_added);
	else if (same_text)
		puts("no change: the policies are the same");
	else
		puts("no verdict changes; the texts differ");
}

/* ---- for programs ---- */

static json_t *rules_json(const struct policy_diff_rule *rules, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++) {
		json_t *rule =
			json_pack("{s:s, s:s}", "rule", rules[i].name, "action", rules[i].allow ? "allow" : "deny");

		if (rules[i].file) {
			json_object_set_new(rule, "file", json_string(rules[i].file));
			json_object_set_new(rule, "line", json_integer(rules[i].line));
		}
		json_array_append_new(list, rule);
	}
	return list;
}

static json_t *diff_json(const struct policy_diff *diff)
{
	json_t *changes = json_array(), *result;

	for (size_t i = 0; i < diff->n_changes; i++) {
		const struct policy_change *change = &diff->changes[i];

		json_array_append_new(changes, json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:{s:s, s:s, s:s}}", "verdict",
							 change->allow ? "allow" : "deny", "from", change->from, "to",
							 change->to, "service", change->services, "by",
							 rules_json(change->by, change->n_by), "before",
							 rules_json(change->before, change->n_before), "example",
							 "from", change->example_from, "to", change->example_to,
							 "service", change->example_service));
	}
	result = json_pack("{s:b, s:b, s:o, s:I, s:I, s:b}", "differs", diff->n_changes > 0, "complete", diff->complete,
			   "changes", changes, "rules_removed", (json_int_t)diff->n_removed, "rules_added",
			   (json_int_t)diff->n_added, "defaults_differ", diff->defaults_differ);
	if (diff->why)
		json_object_set_new(result, "why", json_string(diff->why));
	return result;
}

/* ---- both ---- */

static int compare(const struct policy *old, const struct policy *new, int64_t now, struct policy_diff **diffp)
{
	__attribute__((cleanup(freep))) char *error = NULL;
	int r = policy_diff_new(diffp, old, new, now, &error);

	if (r == 0)
		return CLI_OK;
	cli_error("the policies could not be compared: %s", r < 0 ? strerror(-r) : error ? error : "out of memory");
	return CLI_UNREACHABLE;
}

/* What is listed differs, whether or not more does. */
static int answer(const struct policy_diff *diff)
{
	if (!diff->complete)
		cli_error("%s: %s", diff->n_changes ? "more may change than is listed" : "it could not be found out",
			  diff->why);
	if (diff->n_changes)
		return CLI_NO;
	return diff->complete ? CLI_OK : CLI_UNREACHABLE;
}

int policy_sides_diff(struct cli *cli, const struct policy_side *old, const struct policy_side *new, int64_t now)
{
	__attribute__((cleanup(diff_freep))) struct policy_diff *diff = NULL;
	int code = compare(old->policy, new->policy, now, &diff);

	if (code != CLI_OK)
		return code;
	if (cli->json) {
		cli_print_json(diff_json(diff));
	} else {
		print_changes(cli, diff);
		print_sum(diff, same_texts(old->sources, old->n_sources, new->sources, new->n_sources));
	}
	return answer(diff);
}

static int parse_both(const struct cli *cli, struct policy_side *old, struct policy_side *new)
{
	int code = parse_code(parse(cli, old->sources, old->n_sources, &old->policy));

	return code == CLI_OK ? parse_code(parse(cli, new->sources, new->n_sources, &new->policy)) : code;
}

int policy_diff_print(struct cli *cli, const struct policy_source *old_sources, size_t n_old,
		      const struct policy_source *new_sources, size_t n_new, int64_t now)
{
	struct policy_side old = {.sources = (struct policy_source *)old_sources, .n_sources = n_old};
	struct policy_side new = {.sources = (struct policy_source *)new_sources, .n_sources = n_new};
	int code = parse_both(cli, &old, &new);

	if (code == CLI_OK)
		code = policy_sides_diff(cli, &old, &new, now);
	policy_freep(&old.policy);
	policy_freep(&new.policy);
	return code;
}

int policy_diff_json(const struct policy_source *old_sources, size_t n_old, const struct policy_source *new_sources,
		     size_t n_new, int64_t now, json_t **valuep)
{
	__attribute__((cleanup(diff_freep))) struct policy_diff *diff = NULL;
	struct policy_side old = {.sources = (struct policy_source *)old_sources, .n_sources = n_old};
	struct policy_side new = {.sources = (struct policy_source *)new_sources, .n_sources = n_new};
	int code = parse_both(NULL, &old, &new);

	*valuep = NULL;
	if (code == CLI_OK)
		code = compare(old.policy, new.policy, now, &diff);
	if (code == CLI_OK) {
		*valuep = diff_json(diff);
		code = answer(diff);
	}
	policy_diff_freep(&diff);
	policy_freep(&old.policy);
	policy_freep(&new.policy);
	return code;
}
