/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/flow_changes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/audit_event.h"
#include "cli/audit_lines.h"
#include "cli/bus.h"
#include "daemon/cleanup.h"
#include "policy/image.h"
#include "policy/memory.h"

/* So many groups are told apart: a log of scans must not cost memory without end. */
#define MAX_GROUPS 100000U
#define MAX_WHY 256

/* An end of a group that is known by address only. */
struct world {
	char address[46];
	bool more; /* others, too */
};

struct group {
	struct world worlds[2]; /* enum audit_side */
	char *from, *to, *service;
	char *by, *before;	  /* rules */
	bool allow;		  /* by the new policy */
	uint64_t egress, ingress; /* records of either end */
	char first[32], last[32];
};

struct changes {
	struct policy_image *images[2]; /* old, new */
	int64_t now;			/* when rules are taken to be in force, seconds since 1970 */
	struct arena arena;
	struct intern keys;
	struct group *groups;
	size_t capacity;
	uint64_t compared, unreadable, unjudged, not_policy, unknown_peer, dropped;
	char why[MAX_WHY]; /* the first that could not be judged */
	char first[32], last[32];
};

static void changes_free(struct changes *changes)
{
	policy_image_freep(&changes->images[0]);
	policy_image_freep(&changes->images[1]);
	intern_free(&changes->keys);
	arena_free(&changes->arena);
	free(changes->groups);
}

/* ---- one record ---- */

/* The local identity that a policy gives to a cgroup, or to one above it. */
static bool local_of(const struct policy_image *image, const char *cgroup, struct policy_local *local)
{
	char path[4096];

	if (snprintf(path, sizeof(path), "%s", cgroup) >= (int)sizeof(path))
		return false;
	while (path[0] == '/' && path[1]) {
		if (policy_image_local_of(image, path, local))
			return true;
		*strrchr(path, '/') = '\0';
	}
	return false;
}

static bool has_local(const struct policy_image *image, const char *name)
{
	struct policy_local local;

	for (size_t i = 0; policy_image_local(image, i, &local); i++)
		if (!strcmp(local.name, name))
			return true;
	return false;
}

/* An end as a policy sees it: what has a SPIFFE ID has it under either policy, a local identity is the policy's to give. */
static void end_under(const struct policy_image *image, const json_t *event, enum audit_side side, char *out,
		      size_t size)
{
	const char *name = side == AUDIT_SOURCE ? "source" : "destination";
	bool egress = !strcmp(cli_json_string(event, "network.direction"), "egress");
	char path[64], local_name[300], kind[64], ip[128], cgroup[4096] = "";
	struct policy_local local;

	audit_event_explain_end(event, side, out, size);
	snprintf(path, sizeof(path), "zt.%s.local", name);
	audit_event_text(event, path, local_name, sizeof(local_name));
	snprintf(path, sizeof(path), "zt.%s.kind", name);
	audit_event_text(event, path, kind, sizeof(kind));
	if (!*local_name && strcmp(kind, "unidentified") != 0)
		return;
	snprintf(path, sizeof(path), "%s.ip", name);
	audit_event_text(event, path, ip, sizeof(ip));
	if (egress == (side == AUDIT_SOURCE))
		audit_event_text(event, "zt.cgroup.path", cgroup, sizeof(cgroup));
	if (*cgroup)
		snprintf(local_name, sizeof(local_name), "%s",
			 local_of(image, cgroup, &local) ? local.name : "unidentified");
	else if (!*local_name || !has_local(image, local_name))
		snprintf(local_name, sizeof(local_name), "unidentified");
	snprintf(out, size, "%s%s%s", local_name, *ip ? "@" : "", ip);
}

/* Denied, but by no rule and no default. */
static bool is_policy_verdict(const json_t *event)
{
	static const char *const codes[] = {"",		 "POLICY_ALLOW", "POLICY_DENY", "DEFAULT_ALLOW", "DEFAULT_DENY",
					    "IMPOSSIBLE"};
	const char *code = cli_json_string(event, "event.code");

	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (!strcmp(code, codes[i]))
			return true;
	return false;
}

struct verdicts {
	struct policy_explanation old, new;
};

/* Returns 0, or 1 with the reason remembered. */
static int judge(struct changes *changes, const json_t *event, const char *service, struct verdicts *verdicts)
{
	for (int i = 0; i < 2; i++) {
		__attribute__((cleanup(freep))) char *error = NULL;
		char from[AUDIT_TEXT_MAX], to[AUDIT_TEXT_MAX];

		end_under(changes->images[i], event, AUDIT_SOURCE, from, sizeof(from));
		end_under(changes->images[i], event, AUDIT_DESTINATION, to, sizeof(to));
		if (policy_explain(changes->images[i], from, to, service, changes->now,
				   i ? &verdicts->new : &verdicts->old, &error) == 0)
			continue;
		if (!changes->why[0])
			snprintf(changes->why, sizeof(changes->why), "%s", error ? error : "out of memory");
		return 1;
	}
	return 0;
}

/* ---- groups ---- */

static void write_judgement(const struct policy_judgement *judgement, char *out, size_t size)
{
	char where[600] = "";

	if (judgement->file)
		snprintf(where, sizeof(where), " (%s:%u)", judgement->file, judgement->line);
	if (!judgement->judged)
		snprintf(out, size, "outside any workload");
	else if (!strcmp(judgement->rule, "default"))
		snprintf(out, size, "default %s%s", judgement->allow ? "allow" : "deny", where);
	else
		snprintf(out, size, "%s%s", judgement->rule, where);
}

/* The rules at the ends where the flow is denied by the one policy that denies it. */
static void write_rules(const struct policy_explanation *of, const struct policy_explanation *denies, char *out,
			size_t size)
{
	char egress[800] = "", ingress[800] = "";
	bool both;

	if (!denies->egress.allow)
		write_judgement(&of->egress, egress, sizeof(egress));
	if (!denies->ingress.allow)
		write_judgement(&of->ingress, ingress, sizeof(ingress));
	both = *egress && *ingress && strcmp(egress, ingress) != 0;
	snprintf(out, size, "%s%s%s", *egress ? egress : ingress, both ? ", " : "", both ? ingress : "");
}

/* Who, without the address. */
static void write_who(const json_t *event, enum audit_side side, char *out, size_t size)
{
	char ip[128], *at;

	audit_event_explain_end(event, side, out, size);
	audit_event_text(event, side == AUDIT_SOURCE ? "source.ip" : "destination.ip", ip, sizeof(ip));
	at = strrchr(out, '@');
	if (at)
		*at = '\0';
	else if (!strcmp(out, ip))
		snprintf(out, size, "world");
}

/* Keeps the first address of the world in a group, and whether there are others. */
static void note_address(struct world *world, const json_t *event, enum audit_side side)
{
	char ip[128];

	audit_event_text(event, side == AUDIT_SOURCE ? "source.ip" : "destination.ip", ip, sizeof(ip));
	if (!world->address[0])
		snprintf(world->address, sizeof(world->address), "%.45s", ip);
	else if (strcmp(world->address, ip) != 0)
		world->more = true;
}

static char *keep(struct changes *changes, const char *text)
{
	return arena_copy(&changes->arena, text, strlen(text));
}

static int find_group(struct changes *changes, const json_t *event, const char *service,
		      const struct verdicts *verdicts, struct group **groupp)
{
	const struct policy_explanation *denies = verdicts->new.allow ? &verdicts->old : &verdicts->new;
	char from[AUDIT_TEXT_MAX], to[AUDIT_TEXT_MAX], by[2048], before[2048];
	__attribute__((cleanup(freep))) char *key = NULL;
	uint32_t index;
	int r;

	*groupp = NULL;
	write_who(event, AUDIT_SOURCE, from, sizeof(from));
	write_who(event, AUDIT_DESTINATION, to, sizeof(to));
	write_rules(&verdicts->new, denies, by, sizeof(by));
	write_rules(&verdicts->old, denies, before, sizeof(before));
	if (asprintf(&key, "%d\n%s\n%s\n%s\n%s\n%s", verdicts->new.allow, from, to, service, by, before) < 0)
		return -ENOMEM;
	if (changes->keys.n >= MAX_GROUPS && !intern_find(&changes->keys, key, strlen(key), &index)) {
		changes->dropped++;
		return 0;
	}
	r = intern_bytes(&changes->keys, key, strlen(key), &index);
	if (r < 0)
		return r;
	if (r == 1) {
		if (array_grow(&changes->groups, &changes->capacity, index, sizeof(*changes->groups)) < 0)
			return -ENOMEM;
		changes->groups[index] = (struct group){.from = keep(changes, from),
							.to = keep(changes, to),
							.service = keep(changes, service),
							.by = keep(changes, by),
							.before = keep(changes, before),
							.allow = verdicts->new.allow};
	}
	*groupp = &changes->groups[index];
	return changes->arena.out_of_memory ? -ENOMEM : 0;
}

/* Times are written alike, so that they compare as texts. */
static void note_time(char first[32], char last[32], const json_t *event)
{
	char when[64];

	audit_event_time(event, when, sizeof(when));
	if (strlen(when) != 20)
		return;
	if (!*first || strcmp(when, first) < 0)
		memcpy(first, when, 21);
	if (strcmp(when, last) > 0)
		memcpy(last, when, 21);
}

/* A denial may stand for many packets of one peer; a line is one attempt. */
static int take_event(void *context, const json_t *event)
{
	struct changes *changes = context;
	struct verdicts verdicts;
	struct group *group;
	char service[64];
	int r;

	if (!audit_event_is_flow(event))
		return 0;
	if (!is_policy_verdict(event)) {
		changes->not_policy++;
		return 0;
	}
	if (!strcmp(cli_json_string(event, "zt.proof"), "unasked")) {
		changes->unknown_peer++;
		return 0;
	}
	audit_event_service(event, service, sizeof(service));
	if (judge(changes, event, service, &verdicts)) {
		changes->unjudged++;
		return 0;
	}
	changes->compared++;
	note_time(changes->first, changes->last, event);
	if (verdicts.old.allow == verdicts.new.allow)
		return 0;
	r = find_group(changes, event, service, &verdicts, &group);
	if (r < 0) {
		cli_error("the recorded flows could not be compared: %s", strerror(-r));
		return CLI_UNREACHABLE;
	}
	if (!group)
		return 0;
	if (!strcmp(cli_json_string(event, "network.direction"), "egress"))
		group->egress++;
	else
		group->ingress++;
	note_time(group->first, group->last, event);
	note_address(&group->worlds[AUDIT_SOURCE], event, AUDIT_SOURCE);
	note_address(&group->worlds[AUDIT_DESTINATION], event, AUDIT_DESTINATION);
	return 0;
}

/* ---- results ---- */

static uint64_t connections(const struct group *group)
{
	return group->egress > group->ingress ? group->egress : group->ingress;
}

/* What is lost first, then by count. */
static int compare_groups(const void *a, const void *b)
{
	const struct group *x = a, *y = b;
	int order = (int)x->allow - (int)y->allow;

	if (order)
		return order;
	if (connections(x) != connections(y))
		return connections(x) > connections(y) ? -1 : 1;
	order = strcmp(x->from, y->from);
	if (!order)
		order = strcmp(x->to, y->to);
	return order ? order : strcmp(x->service, y->service);
}

static const char *plural(uint64_t n)
{
	return n == 1 ? "" : "s";
}

static uint64_t total(const struct changes *changes, bool allow)
{
	uint64_t n = 0;

	for (size_t i = 0; i < changes->keys.n; i++)
		n += changes->groups[i].allow == allow ? connections(&changes->groups[i]) : 0;
	return n;
}

/* "world" says little: its address, or one of them. Returns `out`. */
static const char *write_end(const struct group *group, enum audit_side side, char *out, size_t size)
{
	const char *who = side == AUDIT_SOURCE ? group->from : group->to;
	const struct world *world = &group->worlds[side];

	if (strcmp(who, "world") != 0 || !world->address[0])
		snprintf(out, size, "%s", who);
	else if (world->more)
		snprintf(out, size, "world (%s and others)", world->address);
	else
		snprintf(out, size, "%s", world->address);
	return out;
}

static void print_group(const struct cli *cli, const struct group *group)
{
	uint64_t n = connections(group);
	char from[AUDIT_TEXT_MAX], to[AUDIT_TEXT_MAX];

	write_end(group, AUDIT_SOURCE, from, sizeof(from));
	write_end(group, AUDIT_DESTINATION, to, sizeof(to));
	printf("%s%s%s  %s -> %s  %s  %" PRIu64 " connection%s", cli_colour(cli, group->allow ? "green" : "red"),
	       group->allow ? "+ allow" : "- deny ", cli_colour(cli, "reset"), from, to, group->service, n, plural(n));
	if (*group->first && strcmp(group->first, group->last) != 0)
		printf(", %s to %s", group->first, group->last);
	else if (*group->first)
		printf(", %s", group->first);
	printf("  by %s; before: %s\n", group->by, group->before);
}

static void print_counts(const struct changes *changes)
{
	const struct {
		uint64_t n;
		const char *what;
	} counts[] = {
		{changes->not_policy, "denied for other reasons than the policy"},
		{changes->unknown_peer, "denied before the peer was asked who it is"},
		{changes->unjudged, "could not be judged"},
		{changes->unreadable, "no event"},
		{changes->dropped, "in too many different changes to list"},
	};

	printf("%" PRIu64 " recorded flow%s compared", changes->compared, plural(changes->compared));
	if (*changes->first)
		printf(", %s to %s", changes->first, changes->last);
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
		if (counts[i].n)
			printf("; %" PRIu64 " line%s not: %s", counts[i].n, plural(counts[i].n), counts[i].what);
	if (changes->why[0])
		printf(" (first: %s)", changes->why);
	putchar('\n');
}

static void print_text(const struct cli *cli, const struct changes *changes)
{
	uint64_t lost = total(changes, false), gained = total(changes, true);

	for (size_t i = 0; i < changes->keys.n; i++)
		print_group(cli, &changes->groups[i]);
	if (lost)
		printf("%" PRIu64 " connection%s would now be denied\n", lost, plural(lost));
	if (gained)
		printf("%" PRIu64 " connection%s would now be allowed\n", gained, plural(gained));
	if (!lost && !gained)
		puts("no recorded flow changes verdict");
	print_counts(changes);
}

static void print_json(const struct changes *changes)
{
	json_t *list = json_array();

	for (size_t i = 0; i < changes->keys.n; i++) {
		const struct group *group = &changes->groups[i];
		char from[AUDIT_TEXT_MAX], to[AUDIT_TEXT_MAX];

		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:s, s:s}", "verdict",
						      group->allow ? "allow" : "deny", "from",
						      write_end(group, AUDIT_SOURCE, from, sizeof(from)), "to",
						      write_end(group, AUDIT_DESTINATION, to, sizeof(to)), "service",
						      group->service, "by", group->by, "before", group->before,
						      "connections", (json_int_t)connections(group), "first",
						      group->first, "last", group->last));
	}
	cli_print_json(json_pack(
		"{s:b, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "differs", changes->keys.n > 0, "changes", list,
		"denied", (json_int_t)total(changes, false), "allowed", (json_int_t)total(changes, true), "compared",
		(json_int_t)changes->compared, "not_policy", (json_int_t)changes->not_policy, "unknown_peer",
		(json_int_t)changes->unknown_peer, "not_judged", (json_int_t)changes->unjudged, "unreadable",
		(json_int_t)changes->unreadable, "not_listed", (json_int_t)changes->dropped));
}

static int compile(const struct policy *policy, const char *which, struct policy_image **imagep)
{
	__attribute__((cleanup(freep))) char *error = NULL;
	__attribute__((cleanup(freep))) void *bytes = NULL;
	const char *why = NULL;
	size_t len;
	int r = policy_compile(policy, &bytes, &len, &error);

	if (r == 0)
		r = policy_image_open(imagep, bytes, len, &why);
	if (r == 0)
		return CLI_OK;
	cli_error("the %s policy could not be compiled: %s", which, error ? error : why ? why : strerror(-r));
	return r > 0 ? CLI_NO : CLI_UNREACHABLE;
}

int flow_changes_print(struct cli *cli, const struct policy *old, const struct policy *new, int64_t now,
		       char *const *files, size_t n_files)
{
	__attribute__((cleanup(changes_free))) struct changes changes = {.now = now};
	int code = compile(old, "old", &changes.images[0]);

	if (code == CLI_OK)
		code = compile(new, "new", &changes.images[1]);
	for (size_t i = 0; i < n_files && code == CLI_OK; i++)
		code = audit_lines_read(files[i], take_event, &changes, &changes.unreadable);
	if (code != CLI_OK)
		return code;
	if (changes.keys.n)
		qsort(changes.groups, changes.keys.n, sizeof(*changes.groups), compare_groups);
	if (cli->json)
		print_json(&changes);
	else
		print_text(cli, &changes);
	return changes.keys.n ? CLI_NO : CLI_OK;
}
