/* SPDX-License-Identifier: Apache-2.0 */
/*
 * generate.c - random policies, as structures and as the text of up to three files.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/reference/generate.h"

/* xorshift64*, so that a failure can be run again by its seed */
uint32_t ref_random(struct ref_policy *policy, uint32_t n)
{
	policy->random ^= policy->random >> 12;
	policy->random ^= policy->random << 25;
	policy->random ^= policy->random >> 27;
	return (uint32_t)((policy->random * 0x2545f4914f6cdd1dULL) >> 33) % n;
}

/* ---- rules ---- */

static void write_peer(struct writer *w, const struct ref_peer *peer)
{
	static const char *const builtins[] = {"any", "verified", "unidentified", "host", "world"};

	if (peer->kind == REF_PEER_NETWORK)
		fprintf(w->now, "net%d", peer->index);
	else if (peer->kind == REF_PEER_IDENTITY)
		fprintf(w->now, "id%d", peer->index);
	else
		fputs(builtins[peer->index], w->now);
}

static struct ref_peer make_who(struct writer *w)
{
	static const int builtins[] = {REF_BUILTIN_ANY,		 REF_BUILTIN_VERIFIED, REF_BUILTIN_VERIFIED,
				       REF_BUILTIN_UNIDENTIFIED, REF_BUILTIN_HOST,     REF_BUILTIN_WORLD};

	if (below(w, 3))
		return (struct ref_peer){.kind = REF_PEER_IDENTITY, .index = below(w, w->policy->n_identities)};
	return (struct ref_peer){.kind = REF_PEER_BUILTIN, .index = builtins[below(w, 6)]};
}

static struct ref_peer make_where(struct writer *w)
{
	return (struct ref_peer){.kind = REF_PEER_NETWORK, .index = below(w, w->policy->n_networks)};
}

static void write_peers(struct writer *w, const struct ref_peer *peers, int n)
{
	bool list = n > 1 || below(w, 3) == 0;

	fputs(list ? "[" : "", w->now);
	for (int i = 0; i < n; i++) {
		fputs(i ? ", " : "", w->now);
		write_peer(w, &peers[i]);
	}
	fputs(list ? "]" : "", w->now);
}

static void make_pair(struct writer *w, struct ref_selector *selector)
{
	int n_who = 0;

	fputs("{", w->now);
	if (below(w, 5) == 0) {
		fputs("identity: ", w->now);
		selector->peers[selector->n++] =
			(struct ref_peer){.kind = REF_PEER_SET, .set = make_algebra(w, w->policy->n_identities, 1)};
		n_who = 1;
	} else if (below(w, 4)) {
		n_who = 1 + below(w, 2);
		while (selector->n < n_who)
			selector->peers[selector->n++] = make_who(w);
		fputs("identity: ", w->now);
		write_peers(w, selector->peers, n_who);
	}
	if (!n_who || below(w, 4)) {
		int n = 1 + below(w, 2);

		for (int i = 0; i < n; i++)
			selector->peers[selector->n++] = make_where(w);
		fputs(n_who ? ", network: " : "network: ", w->now);
		write_peers(w, selector->peers + n_who, n);
	}
	fputs("}", w->now);
}

/* Whoever is somebody and is not. */
static struct ref_set *make_nobody(struct writer *w)
{
	struct ref_set *set = set_new(w), *not = set_new(w), *name = set_new(w);

	*name = (struct ref_set){.op = REF_NAME, .identity = below(w, w->policy->n_identities)};
	*not = (struct ref_set){.op = REF_NOT, .n = 1, .operands = {name}};
	*set = (struct ref_set){.op = REF_ALL_OF, .n = 2, .operands = {name, not }};
	fprintf(w->now, "{all: [id%d, {not: id%d}]}", name->identity, name->identity);
	return set;
}

static void make_selector(struct writer *w, struct ref_selector *selector)
{
	int choice = below(w, 8);

	if (w->policy->large && below(w, 16) == 0) {
		selector->n = 1;
		selector->peers[0] = (struct ref_peer){.kind = REF_PEER_SET, .set = make_nobody(w)};
		return;
	}
	if (choice == 0) {
		selector->n = 1;
		selector->peers[0] =
			(struct ref_peer){.kind = REF_PEER_SET, .set = make_algebra(w, w->policy->n_identities, 1)};
		return;
	}
	selector->pair = choice < 3;
	if (selector->pair) {
		make_pair(w, selector);
		return;
	}
	selector->n = 1 + below(w, 3);
	for (int i = 0; i < selector->n; i++)
		selector->peers[i] = below(w, 3) ? make_who(w) : make_where(w);
	write_peers(w, selector->peers, selector->n);
}

static void write_until(struct writer *w, int64_t until)
{
	static const struct {
		int seconds;
		const char *text;
	} zones[] = {{0, "Z"}, {0, "+00:00"}, {7200, "+02:00"}, {-19800, "-05:30"}};
	int zone = below(w, 4);
	time_t local = until + zones[zone].seconds;
	struct tm tm;
	char text[40];

	gmtime_r(&local, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	fprintf(w->now, "    until: %s%s\n", text, zones[zone].text);
}

static void make_services(struct writer *w, struct ref_rule *rule)
{
	const char *separator = "    service: [";

	if (below(w, 3) == 0)
		return;
	rule->n_services = below(w, 3);
	rule->n_service_names = below(w, 2);
	for (int i = 0; i < rule->n_services; i++, separator = ", ") {
		fputs(separator, w->now);
		make_service(w, &rule->services[i]);
	}
	for (int i = 0; i < rule->n_service_names; i++, separator = ", ") {
		rule->service_names[i] = below(w, w->policy->n_services);
		fprintf(w->now, "%ssvc%d", separator, rule->service_names[i]);
	}
	if (rule->n_services + rule->n_service_names)
		fputs("]\n", w->now);
}

/* When a rule ends; 0: never. Where most do, they do so one after the other. */
static int64_t make_until(struct writer *w)
{
	static const int untils[] = {-1, 0, 1, 1000, 100000};

	if (w->policy->ending)
		return below(w, 5) ? REF_NOW + below(w, 2000) : 0;
	return below(w, 5) == 0 ? REF_NOW + untils[below(w, 5)] : 0;
}

static int make_priority(struct writer *w)
{
	static const int limits[] = {-1000000, -999999, 999999, 1000000};

	if (w->policy->large && below(w, 4) == 0)
		return limits[below(w, 4)];
	return below(w, 2) ? 0 : below(w, 4) - 1;
}

void ref_statement_make(struct ref_policy *policy, struct ref_rule *rule, char **textp)
{
	char *services = NULL, *list;
	size_t size;
	struct writer w = {.policy = policy};
	FILE *out = open_memstream(textp, &size);

	*rule = (struct ref_rule){.direction = 3};
	w.now = out;
	fputs("{from: ", out);
	make_selector(&w, &rule->from);
	fputs(", to: ", out);
	make_selector(&w, &rule->to);
	w.now = open_memstream(&services, &size);
	make_services(&w, rule);
	fclose(w.now);
	list = strchr(services, '[');
	if (list)
		fprintf(out, ", service: %.*s", (int)strcspn(list, "\n"), list);
	fputs("}", out);
	fclose(out);
	free(services);
}

static void make_rule(struct writer *w, int number)
{
	static const char *const actions[] = {"deny", "pass", "allow"};
	static const char *const directions[] = {"", "egress", "ingress", "both"};
	static const char *const logs[] = {"none", "new", "denied", "all"};
	struct ref_policy *policy = w->policy;
	struct ref_rule *rule = &policy->rules[number];

	rule->action = below(w, 5) == 0 ? REF_PASS : below(w, 5) < 2 ? REF_DENY : REF_ALLOW;
	rule->tier = below(w, policy->n_tiers);
	rule->priority = make_priority(w);
	rule->direction = below(w, 2) ? 3 : 1 + below(w, 2);
	rule->log = (enum ref_log)(below(w, 5) - 1);
	rule->audit = below(w, 6) == 0;
	rule->until = make_until(w);
	fprintf(w->now, "  - name: r%d\n    action: %s\n    from: ", number, actions[rule->action]);
	make_selector(w, &rule->from);
	fputs("\n    to: ", w->now);
	make_selector(w, &rule->to);
	fputc('\n', w->now);
	make_services(w, rule);
	if (rule->tier != policy->app_tier || below(w, 2)) {
		if (!policy->declares_tiers)
			fputs("    tier: app\n", w->now);
		else if (rule->tier == policy->app_tier)
			fputs("    tier: app\n", w->now);
		else
			fprintf(w->now, "    tier: t%d\n", rule->tier);
	}
	if (rule->priority || below(w, 3) == 0)
		fprintf(w->now, "    priority: %d\n", rule->priority);
	if (rule->direction != 3 || below(w, 2))
		fprintf(w->now, "    direction: %s\n", directions[rule->direction]);
	if (rule->log != REF_LOG_UNSAID)
		fprintf(w->now, "    log: %s\n", logs[rule->log]);
	if (rule->audit || below(w, 5) == 0)
		fprintf(w->now, "    mode: %s\n", rule->audit ? "audit" : "enforce");
	if (rule->until)
		write_until(w, rule->until);
}

/* ---- the whole ---- */

static void make_head(struct writer *w)
{
	static const char *const logs[] = {"none", "new", "denied", "all"};
	struct ref_policy *policy = w->policy;

	policy->default_allow = below(w, 4) == 0;
	policy->default_log = (enum ref_log)below(w, 4);
	fprintf(w->out[below(w, policy->n_files)][HEAD], "defaults: {action: %s, log: %s}\n",
		policy->default_allow ? "allow" : "deny", logs[policy->default_log]);
	policy->n_tiers = 1;
	policy->declares_tiers = below(w, 3);
	if (!policy->declares_tiers)
		return;
	policy->n_tiers = 1 + below(w, policy->large ? REF_MAX_TIERS : 4);
	policy->app_tier = below(w, policy->n_tiers + 1) - 1;
	w->now = w->out[below(w, policy->n_files)][HEAD];
	for (int i = 0; i < policy->n_tiers; i++) {
		fputs(i ? ", " : "tiers: [", w->now);
		if (i == policy->app_tier)
			fputs("app", w->now);
		else
			fprintf(w->now, "t%d", i);
	}
	fputs("]\n", w->now);
}

static void join_file(struct writer *w, int file)
{
	static const char *const names[] = {"identities:\n", "networks:\n", "services:\n", "rules:\n", ""};
	int start = below(w, SECTIONS);
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	fputs("bulkhead: 1\n", out);
	for (int i = 0; i < SECTIONS; i++) {
		int section = (start + i) % SECTIONS;

		fclose(w->out[file][section]);
		if (w->size[file][section])
			fprintf(out, "%s%s", names[section], w->text[file][section]);
		free(w->text[file][section]);
	}
	fclose(out);
	w->policy->texts[file] = text;
}

/* Rules are numbered through the files. */
static void make_rules(struct writer *w)
{
	struct ref_policy *policy = w->policy;
	uint64_t before = 0;

	for (int i = 0, file = 0; i < policy->n_rules; i++) {
		bool twice = policy->large && i && below(w, 10) == 0;
		uint64_t after;

		if (file + 1 < policy->n_files && below(w, 4) == 0)
			file++;
		w->now = w->out[file][RULES];
		/* The same numbers make the same rule, but for its name. */
		after = policy->random;
		if (twice)
			policy->random = before;
		else
			before = after;
		make_rule(w, i);
		if (twice)
			policy->random = after;
	}
}

static void choose_size(struct writer *w)
{
	struct ref_policy *policy = w->policy;

	policy->ending = policy->large && below(w, 4) == 0;
	policy->n_identities = 1 + below(w, policy->large ? REF_MAX_IDENTITIES : 12);
	policy->n_networks = 1 + below(w, policy->large ? REF_MAX_NETWORKS : 6);
	policy->n_services = 1 + below(w, REF_MAX_SERVICES);
	/* As many as can end one after the other. */
	policy->n_rules = below(w, !policy->large ? 21 : policy->ending ? 65 : REF_MAX_RULES + 1);
}

static struct ref_policy *policy_new(uint64_t seed, bool large)
{
	struct ref_policy *policy = calloc(1, sizeof(*policy));
	struct writer w = {.policy = policy};

	if (!policy)
		abort();
	policy->large = large;
	policy->random = seed * 0x9e3779b97f4a7c15ULL + 1;
	policy->n_files = 1 + below(&w, REF_MAX_FILES);
	for (int f = 0; f < policy->n_files; f++)
		for (int s = 0; s < SECTIONS; s++)
			w.out[f][s] = open_memstream(&w.text[f][s], &w.size[f][s]);
	make_head(&w);
	choose_size(&w);
	for (int i = 0; i < policy->n_identities; i++) {
		w.now = w.out[below(&w, policy->n_files)][IDENTITIES];
		make_identity(&w, i);
	}
	for (int i = 0; i < policy->n_networks; i++) {
		w.now = w.out[below(&w, policy->n_files)][NETWORKS];
		make_network(&w, i);
	}
	for (int i = 0; i < policy->n_services; i++) {
		w.now = w.out[below(&w, policy->n_files)][SERVICES];
		make_service_name(&w, i);
	}
	make_rules(&w);
	for (int f = 0; f < policy->n_files; f++)
		join_file(&w, f);
	return policy;
}

struct ref_policy *ref_policy_new(uint64_t seed)
{
	return policy_new(seed, false);
}

struct ref_policy *ref_policy_new_large(uint64_t seed)
{
	return policy_new(seed, true);
}

void ref_policy_free(struct ref_policy *policy)
{
	for (int f = 0; f < policy->n_files; f++)
		free(policy->texts[f]);
	free(policy);
}
