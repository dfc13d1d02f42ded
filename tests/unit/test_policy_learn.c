/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What learn makes of a record: every recorded flow is allowed, and nothing else among those who were recorded.
 */
#include "learn_case.h"

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
		cmocka_unit_test(only_what_is_missing_is_printed_in_the_names_of_the_policy),
		cmocka_unit_test(a_name_is_not_used_where_it_would_allow_another_recorded_peer),
		cmocka_unit_test(a_rule_names_a_tier_where_it_must),
		cmocka_unit_test(nothing_is_missing_from_what_was_learned),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
