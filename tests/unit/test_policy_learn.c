/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What learn makes of a record: every recorded flow is allowed, and nothing else among those who were recorded.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/learn.h"
#include "policy/model.h"
#include "policy/policy.h"
#include "policy/why.h"

#define TD "spiffe://prod.example/ns/shop/sa/"
#define NOON 1795248000 /* 2026-11-21T08:00:00Z */

static struct learn *learn;
static struct policy *against;
static char *text; /* what was learned last */

static int teardown(void **state)
{
	(void)state;
	learn_freep(&learn);
	policy_freep(&against);
	free(text);
	text = NULL;
	return 0;
}

static struct policy *parse(const char *first, const char *second)
{
	const struct policy_source sources[] = {{"first.yaml", first, strlen(first)},
						{"second.yaml", second ? second : "", second ? strlen(second) : 0}};
	struct policy_diagnostics *diagnostics;
	struct policy *policy = NULL;

	if (policy_parse(&policy, &diagnostics, sources, second ? 2 : 1) != 0) {
		policy_diagnostics_print(diagnostics, stderr, false);
		fail_msg("not valid:\n%s\n%s", first, second ? second : "");
	}
	policy_diagnostics_freep(&diagnostics);
	return policy;
}

static void begin(const char *policy, bool wildcards)
{
	struct learn_options options = {.now = NOON, .wildcards = wildcards};

	teardown(NULL);
	if (policy)
		options.against = against = parse(policy, NULL);
	assert_int_equal(learn_new(&learn, &options), 0);
}

static void saw_in(const char *from, const char *to, const char *service, bool ingress, const char *cgroup)
{
	struct learn_flow flow = {
		.from = from,
		.to = to,
		.service = service,
		.cgroup = cgroup,
		.ingress = ingress,
		.count = 2,
		.first = NOON,
		.last = NOON + 60,
	};
	char *error;

	if (learn_add(learn, &flow, &error) != 0)
		fail_msg("%s", error);
}

static void saw(const char *from, const char *to, const char *service)
{
	saw_in(from, to, service, false, NULL);
}

static const char *finish(void)
{
	size_t len;
	FILE *out;

	assert_int_equal(learn_finish(learn), 0);
	free(text);
	out = open_memstream(&text, &len);
	learn_write(learn, "test.jsonl", out);
	assert_int_equal(fclose(out), 0);
	return text;
}

static size_t count_rules(void)
{
	size_t n = 0;

	while (learn_rule_get(learn, n))
		n++;
	return n;
}

/* 1 allowed, 0 denied, -1 nobody judges it, or the policy does not know a local identity */
static int verdict(const struct policy *policy, const char *from, const char *to, const char *service)
{
	struct why_flow why;
	char *error;
	int answer;

	if (why_flow_find(&why, policy, from, to, service, NOON, &error) != 0) {
		free(error);
		return -1;
	}
	answer = (!why.egress.judged || why.egress.decision.allow) &&
		 (!why.ingress.judged || why.ingress.decision.allow);
	if (!why.egress.judged && !why.ingress.judged)
		answer = -1;
	why_flow_free(&why);
	return answer;
}

/* ---- what it looks like ---- */

static void what_is_learned_reads_like_a_policy(void **state)
{
	(void)state;
	begin(NULL, false);
	for (int i = 1; i <= 3; i++) {
		char web[80];

		snprintf(web, sizeof(web), TD "web/%d@10.0.0.%d", i, i);
		saw(web, TD "postgres", "tcp/5432");
		saw_in(web, TD "postgres", "tcp/5432", true, NULL); /* the same flows, told by the other end */
		saw(web, TD "cache", "tcp/6379");
		saw(web, TD "cache", "tcp/6380");
	}
	saw_in("backup@127.0.0.1", TD "postgres", "tcp/5432", false, "/system.slice/backup.service");
	saw("spiffe://prod.example/ns/blog/sa/api", TD "cache", "tcp/6379");
	saw(TD "api", TD "postgres", "tcp/5432");
	saw("192.0.2.4", TD "api", "tcp/443");
	saw("192.0.2.5", TD "api", "tcp/443");
	saw("2001:db8::1", TD "api", "tcp/443");
	saw("host", TD "api", "icmp/echo-request");
	assert_string_equal(finish(),
			    "# Learned from test.jsonl: 16 different flows, 32 times, first 2026-11-21T08:00:00Z, last "
			    "2026-11-21T08:01:00Z.\n"
			    "bulkhead: 1\n"
			    "identities:\n"
			    "  blog-api: spiffe://prod.example/ns/blog/sa/api\n"
			    "  shop-api: spiffe://prod.example/ns/shop/sa/api\n"
			    "  cache: spiffe://prod.example/ns/shop/sa/cache\n"
			    "  postgres: spiffe://prod.example/ns/shop/sa/postgres\n"
			    "  web:\n"
			    "    - spiffe://prod.example/ns/shop/sa/web/1\n"
			    "    - spiffe://prod.example/ns/shop/sa/web/2\n"
			    "    - spiffe://prod.example/ns/shop/sa/web/3\n"
			    "  backup: {cgroup: /system.slice/backup.service}\n"
			    "networks:\n"
			    "  clients-of-shop-api: [192.0.2.4/31, \"2001:db8::1\"]\n"
			    "defaults: {action: deny, log: denied}\n"
			    "rules:\n"
			    "  # 6 times, first 2026-11-21T08:00:00Z, last 2026-11-21T08:01:00Z\n"
			    "  - name: world-to-shop-api\n"
			    "    action: allow\n"
			    "    from: clients-of-shop-api\n"
			    "    to: shop-api\n"
			    "    service: tcp/443\n"
			    "  # 2 times, first 2026-11-21T08:00:00Z, last 2026-11-21T08:01:00Z\n"
			    "  - name: host-to-shop-api\n"
			    "    action: allow\n"
			    "    from: host\n"
			    "    to: shop-api\n"
			    "    service: icmp/echo-request\n"
			    "  # 8 times, first 2026-11-21T08:00:00Z, last 2026-11-21T08:01:00Z\n"
			    "  - name: blog-api-and-web-to-cache\n"
			    "    action: allow\n"
			    "    from: [blog-api, web]\n"
			    "    to: cache\n"
			    "    service: tcp/6379\n"
			    "  # 6 times, first 2026-11-21T08:00:00Z, last 2026-11-21T08:01:00Z\n"
			    "  - name: web-to-cache\n"
			    "    action: allow\n"
			    "    from: web\n"
			    "    to: cache\n"
			    "    service: tcp/6380\n"
			    "  # 10 times, first 2026-11-21T08:00:00Z, last 2026-11-21T08:01:00Z\n"
			    "  - name: shop-api-and-2-more-to-postgres\n"
			    "    action: allow\n"
			    "    from: [shop-api, web, backup]\n"
			    "    to: postgres\n"
			    "    service: tcp/5432\n");
}

static void the_same_record_in_another_order_gives_the_same_policy(void **state)
{
	static const char *const flows[][3] = {
		{TD "a/1", TD "db", "tcp/1"},  {TD "a/2", TD "db", "tcp/1"},  {TD "b", TD "db", "tcp/2"},
		{"10.0.0.1", TD "b", "udp/5"}, {"10.0.0.2", TD "b", "udp/5"}, {TD "b", TD "a/1", "tcp/9"},
	};
	char *first;

	(void)state;
	begin(NULL, false);
	for (int i = 0; i < 6; i++)
		saw(flows[i][0], flows[i][1], flows[i][2]);
	first = strdup(finish());
	begin(NULL, false);
	for (int i = 5; i >= 0; i--)
		saw(flows[i][0], flows[i][1], flows[i][2]);
	assert_string_equal(finish(), first);
	free(first);
}

static void ids_become_a_pattern_only_when_asked(void **state)
{
	(void)state;
	for (int wildcards = 0; wildcards < 2; wildcards++) {
		begin(NULL, wildcards);
		saw(TD "web/1", TD "db", "tcp/1");
		saw(TD "web/2", TD "db", "tcp/1");
		finish();
		assert_int_equal(strstr(text, TD "web/*") != NULL, wildcards);
		assert_int_equal(strstr(text, TD "web/1") != NULL, !wildcards);
	}
	/* A third one, of which the same was not seen, would match the pattern. */
	begin(NULL, true);
	saw(TD "web/1", TD "db", "tcp/1");
	saw(TD "web/2", TD "db", "tcp/1");
	saw(TD "web/3", TD "db", "tcp/2");
	assert_null(strstr(finish(), TD "web/*"));
}

static void a_product_is_one_rule(void **state)
{
	char from[80], to[80], service[20];

	(void)state;
	begin(NULL, false);
	for (int i = 0; i < 400; i++) {
		snprintf(from, sizeof(from), TD "from-%c", 'a' + i % 10);
		snprintf(to, sizeof(to), "spiffe://prod.example/to-%c", 'a' + i / 10 % 8);
		snprintf(service, sizeof(service), "tcp/%d", 10 * (1 + i / 80));
		saw(from, to, service);
	}
	finish();
	assert_int_equal(count_rules(), 1);
	assert_string_equal(learn_rule_get(learn, 0)->service, "[tcp/10, tcp/20, tcp/30, tcp/40, tcp/50]");
	assert_int_equal(learn_rule_get(learn, 0)->count, 800);
}

static void rules_do_not_say_twice_what_one_says(void **state)
{
	(void)state;
	begin(NULL, false);
	saw(TD "web", TD "db", "tcp/1");
	saw(TD "web", TD "cache", "tcp/1");
	saw(TD "web", TD "db", "tcp/2");
	finish();
	assert_int_equal(count_rules(), 2);
	for (size_t i = 0; i < 2; i++)
		assert_string_equal(learn_rule_get(learn, i)->service,
				    strchr(learn_rule_get(learn, i)->to, '[') ? "tcp/1" : "tcp/2");
}

static void an_address_that_somebody_proved_himself_at_is_the_worlds_only(void **state)
{
	struct policy *policy;

	(void)state;
	begin(NULL, false);
	saw("10.0.0.1", TD "db", "tcp/1");
	saw(TD "web@10.0.0.1", TD "db", "tcp/2");
	policy = parse(finish(), NULL);
	assert_non_null(strstr(text, "from: {identity: world, network: clients-of-db}"));
	assert_int_equal(verdict(policy, "10.0.0.1", TD "db", "tcp/1"), 1);
	assert_int_equal(verdict(policy, TD "web@10.0.0.1", TD "db", "tcp/1"), 0);
	policy_freep(&policy);
}

/* ---- what cannot be learned ---- */

static void who_cannot_be_named_is_told_of_and_not_allowed(void **state)
{
	struct learn_flow unasked = {.from = TD "web",
				     .to = "10.0.0.9",
				     .service = "tcp/22",
				     .doubt = LEARN_UNASKED,
				     .count = 7,
				     .first = NOON,
				     .last = NOON};
	char *error;

	(void)state;
	begin(NULL, false);
	saw_in("unidentified@10.0.0.7", TD "db", "tcp/1", false, "/user.slice/x");
	saw_in("unidentified@10.0.0.8", TD "db", "tcp/2", false, "/user.slice/x");
	saw("cron@10.0.0.1", TD "db", "tcp/1");
	assert_int_equal(learn_add(learn, &unasked, &error), 0);
	unasked.doubt = LEARN_FORGED;
	assert_int_equal(learn_add(learn, &unasked, &error), 0);
	finish();
	assert_int_equal(count_rules(), 0);
	assert_int_equal(learn_summary(learn)->n_learned, 0);
	assert_non_null(strstr(learn_note_get(learn, 0)->text, "asked who it is"));
	assert_int_equal(learn_note_get(learn, 0)->count, 7);
	assert_non_null(strstr(learn_note_get(learn, 1)->text, "was false"));
	assert_non_null(strstr(learn_note_get(learn, 2)->text, "local identity cron"));
	assert_non_null(strstr(learn_note_get(learn, 3)->text, "/user.slice/x"));
	assert_int_equal(learn_note_get(learn, 3)->count, 4);
	assert_null(learn_note_get(learn, 4));
	assert_non_null(strstr(text, "# Not learned: "));
	policy_freep(&against);
	against = parse(text, NULL);
}

static void what_is_no_flow_is_refused(void **state)
{
	struct learn_flow flow = {.from = TD "web", .to = "nonsense@x", .service = "tcp/1", .count = 1};
	char *error;

	(void)state;
	begin(NULL, false);
	assert_int_equal(learn_add(learn, &flow, &error), 1);
	free(error);
	flow.to = TD "db";
	flow.from = "host";
	flow.to = "10.0.0.1"; /* nobody judges it */
	assert_int_equal(learn_add(learn, &flow, &error), 1);
	free(error);
	flow.to = TD "db";
	flow.service = "tcp/70000";
	assert_int_equal(learn_add(learn, &flow, &error), 1);
	free(error);
	finish();
	assert_int_equal(count_rules(), 0);
}

static void names_are_made_fit(void **state)
{
	struct policy *policy;
	char id[400], name[80];

	(void)state;
	begin(NULL, false);
	memset(name, 'x', 79);
	name[79] = 0;
	snprintf(id, sizeof(id), "spiffe://td/%s", name);
	saw(id, TD "db", "tcp/1");
	saw("spiffe://td/any", TD "db", "tcp/2");
	saw("spiffe://td/_", TD "db", "tcp/3");
	saw("spiffe://td/9", TD "db", "tcp/4");
	saw("spiffe://td/true", TD "db", "tcp/5");
	saw("spiffe://other/db", TD "db", "tcp/6");
	policy = parse(finish(), NULL);
	assert_int_equal(verdict(policy, id, TD "db", "tcp/1"), 1);
	assert_int_equal(verdict(policy, "spiffe://td/any", TD "db", "tcp/2"), 1);
	assert_int_equal(verdict(policy, "spiffe://td/any", TD "db", "tcp/1"), 0);
	assert_non_null(strstr(text, "  \"9\": spiffe://td/9\n"));
	policy_freep(&policy);
}

static void ids_that_count_up_have_the_name_before_the_number(void **state)
{
	(void)state;
	begin(NULL, false);
	saw("spiffe://td/web-1", TD "db/0", "tcp/1");
	saw("spiffe://td/web-2", TD "db/0", "tcp/1");
	finish();
	assert_non_null(strstr(text, "  web: [spiffe://td/web-1, spiffe://td/web-2]\n"));
	assert_non_null(strstr(text, "  db-0: " TD "db/0\n"));
}

static void odd_cgroups_are_quoted(void **state)
{
	struct policy *policy;

	(void)state;
	begin(NULL, false);
	saw_in("odd", TD "db", "tcp/1", false, "/a \"b\" \\x2d#\x01");
	policy = parse(finish(), NULL);
	assert_string_equal(policy->identities[1].places[0].path, "/a \"b\" \\x2d#\x01");
	policy_freep(&policy);
}

/* ---- limits ---- */

static void notes_are_bounded(void **state)
{
	char name[40];
	size_t n = 0;

	(void)state;
	begin(NULL, false);
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "local-%d", i);
		saw(name, TD "db", "tcp/1");
	}
	finish();
	while (learn_note_get(learn, n))
		n++;
	assert_int_equal(n, 201);
	assert_int_equal(learn_summary(learn)->n_flows, 1000);
	assert_non_null(strstr(text, "more of the kind, about other peers (1600 times"));
}

static void so_many_flows_and_no_more(void **state)
{
	struct learn_flow flow = {.from = TD "web", .to = TD "db", .count = 1, .first = NOON, .last = NOON};
	char service[20], from[80], *error;

	(void)state;
	begin(NULL, false);
	flow.from = from;
	flow.service = service;
	for (unsigned i = 0; i < LEARN_MAX_FLOWS; i++) {
		snprintf(from, sizeof(from), TD "web/%u", i / 60000);
		snprintf(service, sizeof(service), "tcp/%u", 1 + i % 60000);
		assert_int_equal(learn_add(learn, &flow, &error), 0);
	}
	assert_false(learn_full(learn));
	flow.service = "udp/1";
	assert_int_equal(learn_add(learn, &flow, &error), 1);
	assert_true(learn_full(learn));
	free(error);
	finish();
	assert_int_equal(count_rules(), 2);
}

/* ---- against a policy ---- */

#define POLICY                                                                                                         \
	"bulkhead: 1\n"                                                                                                \
	"identities:\n"                                                                                                \
	"  front: " TD "web\n"                                                                                         \
	"  pool: [" TD "p/1, " TD "p/2]\n"                                                                             \
	"  every: " TD "**\n"                                                                                          \
	"  backup: {unit: backup.service}\n"                                                                           \
	"networks: {office: 192.0.2.0/24, all: 0.0.0.0/0}\n"                                                           \
	"services: {pg: [tcp/5432, tcp/6432]}\n"                                                                       \
	"rules:\n"                                                                                                     \
	"  - {name: front-to-db, action: allow, from: front, to: any, service: pg}\n"                                  \
	"  - {name: in, action: allow, from: any, to: any, direction: ingress, service: pg}\n"                         \
	"  - {name: no-telnet, action: deny, from: any, to: any, service: tcp/23}\n"

static void only_what_is_missing_is_printed_in_the_names_of_the_policy(void **state)
{
	struct policy *policy;

	(void)state;
	begin(POLICY, false);
	saw(TD "web", TD "db", "tcp/5432"); /* allowed already */
	saw(TD "p/1", TD "db", "tcp/5432");
	saw(TD "p/1", TD "db", "tcp/6432");
	saw(TD "p/2", TD "db", "tcp/5432");
	saw(TD "p/2", TD "db", "tcp/6432");
	saw("backup", TD "web", "tcp/80");
	saw("192.0.2.9", TD "web", "tcp/80");
	saw(TD "web", TD "db", "tcp/23");
	finish();
	assert_string_equal(
		text, "# Learned from test.jsonl: 8 different flows, 16 times, first 2026-11-21T08:00:00Z, last "
		      "2026-11-21T08:01:00Z.\n"
		      "# 6 of them are not allowed by the policy that this is against.\n"
		      "# office, of that policy, stands for more than the 1 recorded.\n"
		      "bulkhead: 1\n"
		      "identities:\n"
		      "  db: spiffe://prod.example/ns/shop/sa/db\n"
		      "rules:\n"
		      "  # 8 times, first 2026-11-21T08:00:00Z, last 2026-11-21T08:01:00Z\n"
		      "  - name: pool-to-db\n"
		      "    action: allow\n"
		      "    from: pool\n"
		      "    to: db\n"
		      "    service: pg\n"
		      "  # 4 times, first 2026-11-21T08:00:00Z, last 2026-11-21T08:01:00Z\n"
		      "  - name: backup-and-office-to-front\n"
		      "    action: allow\n"
		      "    from: [backup, office]\n"
		      "    to: front\n"
		      "    service: tcp/80\n"
		      "# Not learned: spiffe://prod.example/ns/shop/sa/web to spiffe://prod.example/ns/shop/sa/db on "
		      "tcp/23 is denied by no-telnet (first.yaml:12): change that rule, not the rest (2 times, first "
		      "2026-11-21T08:00:00Z, last 2026-11-21T08:01:00Z)\n");
	policy = parse(POLICY, text);
	assert_int_equal(verdict(policy, TD "p/2", TD "db", "tcp/6432"), 1);
	policy_freep(&policy);
}

static void a_name_is_not_used_where_it_would_allow_another_recorded_peer(void **state)
{
	(void)state;
	begin(POLICY, false);
	saw(TD "p/1", TD "db", "tcp/1");
	saw(TD "p/2", TD "db", "tcp/2");
	saw(TD "web@192.0.2.7", TD "db", "tcp/5432");
	saw("192.0.2.9", TD "db", "tcp/1");
	finish();
	assert_null(strstr(text, "pool"));
	assert_non_null(strstr(text, "{identity: world, network: office}"));
}

static void a_rule_names_a_tier_where_it_must(void **state)
{
	static const char tiers[] = "bulkhead: 1\n"
				    "identities: {web: " TD "web, db: " TD "db}\n"
				    "tiers: [first, last]\n"
				    "rules:\n"
				    "  - {name: r, tier: first, action: pass, from: web, to: db}\n"
				    "  - {name: t, tier: last, action: deny, mode: audit, from: db, to: web}\n";
	struct policy *policy;

	(void)state;
	begin(tiers, false);
	saw(TD "web", TD "db", "tcp/1");
	saw(TD "db", TD "web", "tcp/1");
	policy = parse(tiers, finish());
	assert_non_null(strstr(text, "    tier: last\n"));
	assert_int_equal(verdict(policy, TD "web", TD "db", "tcp/1"), 1);
	/* Let pass today, by a rule that will deny: an allow beside it would change nothing. */
	assert_int_equal(count_rules(), 1);
	assert_non_null(strstr(learn_note_get(learn, 0)->text, "only let pass in audit mode by t (first.yaml:6)"));
	policy_freep(&policy);
}

static void nothing_is_missing_from_what_was_learned(void **state)
{
	char *first;

	(void)state;
	begin(NULL, false);
	saw(TD "web", TD "db", "tcp/1");
	saw("10.0.0.1", TD "web", "tcp/2");
	first = strdup(finish());
	begin(first, false);
	saw(TD "web", TD "db", "tcp/1");
	saw("10.0.0.1", TD "web", "tcp/2");
	finish();
	assert_int_equal(count_rules(), 0);
	assert_int_equal(learn_summary(learn)->n_missing, 0);
	assert_null(learn_note_get(learn, 0));
	free(first);
}

/* ---- exactly what was recorded ---- */

static uint64_t random_state = 88172645463325252ULL;

static uint32_t rnd(uint32_t n)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (uint32_t)((random_state * 0x2545f4914f6cdd1dULL) >> 33) % n;
}

#define MAX_PEERS 14
#define MAX_SERVICES 5

struct record {
	int n_peers, n_services;
	char peers[MAX_PEERS][120];
	char services[MAX_SERVICES][20];
	bool seen[MAX_PEERS][MAX_PEERS][MAX_SERVICES];
};

static void random_peer(char out[120])
{
	static const char *const kinds[] = {"web", "db", "api"};
	unsigned where = rnd(8);

	switch (rnd(8)) {
	case 0:
	case 1:
		snprintf(out, 120, "10.0.0.%u", where);
		break;
	case 2:
		snprintf(out, 120, "2001:db8::%u", where);
		break;
	case 3:
		snprintf(out, 120, "host@10.0.0.%u", where);
		break;
	case 4:
		snprintf(out, 120, "%s@10.0.0.%u", rnd(2) ? "backup" : "cron", where);
		break;
	default:
		snprintf(out, 120, TD "%s/%u@10.0.0.%u", kinds[rnd(3)], rnd(4), where);
	}
}

static bool is_workload(const char *peer)
{
	return strncmp(peer, "spiffe", 6) == 0 || strncmp(peer, "backup", 6) == 0 || strncmp(peer, "cron", 4) == 0;
}

static void random_record(struct record *record)
{
	*record = (struct record){.n_peers = 3 + (int)rnd(MAX_PEERS - 3), .n_services = 1 + (int)rnd(MAX_SERVICES)};
	for (int i = 0; i < record->n_peers; i++)
		random_peer(record->peers[i]);
	for (int i = 0; i < record->n_services; i++)
		snprintf(record->services[i], sizeof(record->services[i]), "%s/%u", rnd(4) ? "tcp" : "udp", 1 + rnd(6));
	/* Some products, and some that stand alone; only of flows that somebody judges. */
	for (int product = (int)rnd(5); product >= 0; product--) {
		uint32_t from = rnd(1U << record->n_peers), to = rnd(1U << record->n_peers);
		uint32_t services = rnd(1U << record->n_services);

		for (int i = 0; i < record->n_peers; i++)
			for (int j = 0; j < record->n_peers; j++)
				for (int k = 0; k < record->n_services; k++)
					record->seen[i][j][k] |=
						from >> i & to >> j & services >> k & 1 && (!product || rnd(20)) &&
						(is_workload(record->peers[i]) || is_workload(record->peers[j]));
	}
}

/* Was it recorded, of these two or of two that are the same? An identity is the same wherever it is. */
static const char *identity_of(const char *peer, char out[120])
{
	char *at;

	snprintf(out, 120, "%s", peer);
	at = strchr(out, '@');
	if (at)
		*at = 0;
	return out;
}

static bool same_peer(const char *a, const char *b)
{
	char x[120], y[120];

	return strcmp(identity_of(a, x), identity_of(b, y)) == 0;
}

static bool was_recorded(const struct record *record, int from, int to, int service)
{
	for (int i = 0; i < record->n_peers; i++)
		for (int j = 0; j < record->n_peers; j++)
			for (int k = 0; k < record->n_services; k++)
				if (record->seen[i][j][k] && same_peer(record->peers[i], record->peers[from]) &&
				    same_peer(record->peers[j], record->peers[to]) &&
				    strcmp(record->services[k], record->services[service]) == 0)
					return true;
	return false;
}

static void learn_record(const struct record *record, bool half)
{
	for (int i = 0; i < record->n_peers; i++)
		for (int j = 0; j < record->n_peers; j++)
			for (int k = 0; k < record->n_services; k++)
				if (record->seen[i][j][k] && (!half || (i + j + k) % 2))
					saw(record->peers[i], record->peers[j], record->services[k]);
	if (learn_place(learn, "backup", "/system.slice/backup.service") < 0 || learn_place(learn, "cron", "/cron") < 0)
		fail();
}

/* A peer takes part in the comparison if he is in the record: of others the policy knows nothing. */
static bool takes_part(const struct record *record, int peer)
{
	for (int i = 0; i < record->n_peers; i++)
		for (int k = 0; k < record->n_services; k++)
			if (record->seen[peer][i][k] || record->seen[i][peer][k])
				return true;
	return false;
}

static int verdict_of(const struct policy *policy, const struct record *record, int i, int j, int k)
{
	return verdict(policy, record->peers[i], record->peers[j], record->services[k]);
}

static void what_was_recorded_is_allowed_and_nothing_else(void **state)
{
	unsigned allowed = 0, denied = 0;

	(void)state;
	for (int round = 0; round < 700; round++) {
		struct record record;
		struct policy *policy;

		random_record(&record);
		begin(NULL, false);
		learn_record(&record, false);
		policy = parse(finish(), NULL);
		for (int i = 0; i < record.n_peers; i++)
			for (int j = 0; j < record.n_peers; j++)
				for (int k = 0; k < record.n_services; k++) {
					int expected = was_recorded(&record, i, j, k), found;

					if (!takes_part(&record, i) || !takes_part(&record, j))
						continue;
					found = verdict_of(policy, &record, i, j, k);
					if (found >= 0 && found != expected)
						fail_msg("round %d: %s to %s on %s is %s\n%s", round, record.peers[i],
							 record.peers[j], record.services[k],
							 found ? "allowed" : "denied", text);
					allowed += found == 1;
					denied += found == 0;
				}
		policy_freep(&policy);
	}
	assert_true(allowed > 5000 && denied > 5000);
}

static void what_is_added_to_a_policy_is_what_was_missing(void **state)
{
	unsigned added = 0;

	(void)state;
	for (int round = 0; round < 500; round++) {
		struct record record;
		struct policy *policy;
		char *first;

		random_record(&record);
		begin(NULL, false);
		learn_record(&record, true);
		first = strdup(finish());
		begin(first, false);
		learn_record(&record, false);
		policy = parse(first, finish());
		for (int i = 0; i < record.n_peers; i++)
			for (int j = 0; j < record.n_peers; j++)
				for (int k = 0; k < record.n_services; k++) {
					int found = verdict_of(policy, &record, i, j, k);

					if (!takes_part(&record, i) || !takes_part(&record, j))
						continue;
					if (record.seen[i][j][k] && found == 0)
						fail_msg("round %d: %s to %s on %s is denied\n%s\n%s", round,
							 record.peers[i], record.peers[j], record.services[k], first,
							 text);
					if (found != 1 || was_recorded(&record, i, j, k))
						continue;
					if (verdict_of(against, &record, i, j, k) == 0)
						fail_msg("round %d: %s to %s on %s is allowed\n%s\n%s", round,
							 record.peers[i], record.peers[j], record.services[k], first,
							 text);
				}
		added += count_rules() > 0;
		policy_freep(&policy);
		free(first);
	}
	assert_true(added > 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_learned_reads_like_a_policy),
		cmocka_unit_test(the_same_record_in_another_order_gives_the_same_policy),
		cmocka_unit_test(ids_become_a_pattern_only_when_asked),
		cmocka_unit_test(a_product_is_one_rule),
		cmocka_unit_test(rules_do_not_say_twice_what_one_says),
		cmocka_unit_test(an_address_that_somebody_proved_himself_at_is_the_worlds_only),
		cmocka_unit_test(who_cannot_be_named_is_told_of_and_not_allowed),
		cmocka_unit_test(what_is_no_flow_is_refused),
		cmocka_unit_test(names_are_made_fit),
		cmocka_unit_test(ids_that_count_up_have_the_name_before_the_number),
		cmocka_unit_test(odd_cgroups_are_quoted),
		cmocka_unit_test(notes_are_bounded),
		cmocka_unit_test(so_many_flows_and_no_more),
		cmocka_unit_test(a_rule_names_a_tier_where_it_must),
		cmocka_unit_test(only_what_is_missing_is_printed_in_the_names_of_the_policy),
		cmocka_unit_test(a_name_is_not_used_where_it_would_allow_another_recorded_peer),
		cmocka_unit_test(nothing_is_missing_from_what_was_learned),
		cmocka_unit_test(what_was_recorded_is_allowed_and_nothing_else),
		cmocka_unit_test(what_is_added_to_a_policy_is_what_was_missing),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
