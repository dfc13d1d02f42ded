/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the reader makes of a policy: the model that the compiler, the explanations and the proofs are given.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "policy/invariant.h"
#include "policy_case.h"

#define IDENTITIES                                                                                                     \
	"bulkhead: 1\n"                                                                                                \
	"identities:\n"                                                                                                \
	"  web: spiffe://td/web\n"                                                                                     \
	"  db: spiffe://td/db\n"                                                                                       \
	"  unit: {unit: a.service}\n"

static uint32_t identity_named(const struct policy *policy, const char *name)
{
	for (uint32_t i = 0; i < policy->n_identities; i++)
		if (strcmp(policy->identities[i].name, name) == 0)
			return i;
	fail_msg("no identity is named '%s'", name);
	return 0;
}

/* ---- identities ---- */

static void operands_come_before_what_is_made_of_them(void **state)
{
	struct policy *policy = parse("bulkhead: 1\n"
				      "identities:\n"
				      "  all: {all: [most, {not: {any: [web, \"spiffe://td/x/**\"]}}]}\n"
				      "  most: {not: some}\n"
				      "  some: {any: [web, verified]}\n"
				      "  web: spiffe://td/web\n"
				      "rules: [{name: r, action: allow, from: all, to: any}]\n");
	bool *seen = calloc(policy->n_identities, sizeof(*seen));

	(void)state;
	assert_int_equal(policy_identity_count(policy), 4);
	assert_int_equal(policy->n_identities, 7);
	for (size_t i = 0; i < policy->n_identities; i++) {
		const struct identity *identity = &policy->identities[policy->identity_order[i]];

		for (uint32_t j = 0; j < identity->n_operands; j++)
			if (identity->operands[j] >= WHO_IDENTITY)
				assert_true(seen[identity->operands[j] - WHO_IDENTITY]);
		assert_false(seen[policy->identity_order[i]]);
		seen[policy->identity_order[i]] = true;
		assert_true(identity->used);
	}
	assert_int_equal(policy->identities[identity_named(policy, "most")].op, IDENTITY_NOT);
	assert_int_equal(policy->identities[identity_named(policy, "all")].op, IDENTITY_ALL);
	assert_int_equal(policy->identities[identity_named(policy, "some")].operands[0], WHO_VERIFIED);
	assert_int_equal(policy->identities[identity_named(policy, "spiffe://td/x/**")].op, IDENTITY_BASE);
	free(seen);
	policy_freep(&policy);
}

static void one_set_written_twice_is_one_identity(void **state)
{
	struct policy *policy =
		parse(IDENTITIES "rules:\n"
				 "  - {name: a, action: allow, from: {not: web}, to: any}\n"
				 "  - {name: b, action: allow, from: {not: web}, to: [unit, {any: [db, web]}]}\n"
				 "  - {name: c, action: allow, from: {any: [web, db]}, to: any}\n");
	uint32_t set = WHO_IDENTITY + identity_named(policy, "any [web, db]");

	(void)state;
	assert_int_equal(policy->n_identities, 5);
	assert_int_equal(policy->rules[0].from.terms[0].who[0], WHO_IDENTITY + identity_named(policy, "not web"));
	assert_int_equal(policy->rules[1].from.terms[0].who[0], policy->rules[0].from.terms[0].who[0]);
	assert_int_equal(policy->rules[1].to.terms[0].n_who, 2);
	assert_int_equal(policy->rules[1].to.terms[0].who[1], set);
	assert_int_equal(policy->rules[2].from.terms[0].who[0], set);
	policy_freep(&policy);
}

static void a_chain_as_long_as_the_policy_costs_no_stack(void **state)
{
	char *text = NULL;
	size_t size;
	FILE *file = open_memstream(&text, &size);
	struct policy *policy;

	(void)state;
	fputs("bulkhead: 1\nidentities:\n", file);
	for (int i = 0; i < 200000; i++)
		fprintf(file, "  i%d: {not: i%d}\n", i, i + 1);
	fputs("  i200000: spiffe://td/x\nrules: [{name: r, action: allow, from: i0, to: any}]\n", file);
	fclose(file);
	policy = parse(text);
	assert_int_equal(policy->identity_order[0], 200000);
	assert_true(policy->identities[200000].used);
	policy_freep(&policy);
	free(text);
}

static void a_bound_id_and_a_place_are_kept(void **state)
{
	struct policy *policy = parse("bulkhead: 1\n"
				      "identities:\n"
				      "  b: {spiffe: [spiffe://td/a, spiffe://td/b], only: {cgroup: /x/y}}\n"
				      "  l: [{unit: a.service}, spiffe://td/c/**]\n"
				      "rules: [{name: r, action: allow, from: [b, l], to: any}]\n");

	(void)state;
	assert_int_equal(policy->identities[0].n_patterns, 2);
	assert_string_equal(policy->identities[0].only[0].path, "/x/y");
	assert_int_equal(policy->identities[1].n_places, 1);
	assert_true(policy->identities[1].patterns[0].rest);
	policy_freep(&policy);
}

/* ---- networks ---- */

static void check_ranges(const char *network, const char *const *expected, size_t n)
{
	char text[4096];
	struct policy *policy;

	snprintf(text, sizeof(text),
		 "bulkhead: 1\nnetworks: {n: %s}\nrules: [{name: r, action: allow, from: n, to: any}]\n", network);
	policy = parse(text);
	assert_int_equal(policy->networks[0].n_ranges, n);
	for (size_t i = 0; i < n; i++) {
		const struct address_range *range = &policy->networks[0].ranges[i];
		char first[ADDRESS_TEXT_BYTES], last[ADDRESS_TEXT_BYTES], both[2 * ADDRESS_TEXT_BYTES];

		address_format(first, range->first, range->v4, 0);
		address_format(last, range->last, range->v4, 0);
		snprintf(both, sizeof(both), "%.*s-%.*s", (int)strcspn(first, "/"), first, (int)strcspn(last, "/"),
			 last);
		assert_string_equal(both, expected[i]);
	}
	policy_freep(&policy);
}

static void networks_are_what_is_included_less_what_is_excepted(void **state)
{
	(void)state;
	check_ranges("{include: [10.0.0.0/8], except: [10.9.0.0/16]}",
		     (const char *[]){"10.0.0.0-10.8.255.255", "10.10.0.0-10.255.255.255"}, 2);
	check_ranges("{include: 0.0.0.0/0, except: [0.0.0.0/8, 255.255.255.255]}",
		     (const char *[]){"1.0.0.0-255.255.255.254"}, 1);
	/* What reaches over two blocks takes from both. */
	check_ranges("{include: [10.0.0.0/24, 10.0.2.0/24, 10.0.1.128/25], except: [10.0.1.0/24, 10.0.2.0/31]}",
		     (const char *[]){"10.0.0.0-10.0.0.255", "10.0.2.2-10.0.2.255"}, 2);
	/* One family takes nothing from the other, though IPv4 lies within IPv6 here. */
	check_ranges("{include: [\"::/0\", 10.0.0.0/31], except: [10.0.0.0/32, \"8000::/1\"]}",
		     (const char *[]){"10.0.0.1-10.0.0.1", "::-7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}, 2);
	check_ranges("[10.0.1.0/24, 10.0.0.0/24, 10.0.0.7, 10.0.2.0/25]", (const char *[]){"10.0.0.0-10.0.2.127"}, 1);
	check_ranges("{include: [\"2001:db8::/32\"], except: [\"2001:db8:ffff::/48\"]}",
		     (const char *[]){"2001:db8::-2001:db8:fffe:ffff:ffff:ffff:ffff:ffff"}, 1);
}

/* Against a table of every address of a small block. */
static void subtraction_is_right_for_every_address(void **state)
{
	uint32_t random = 1;

	(void)state;
	for (int round = 0; round < 300; round++) {
		char text[2048] = "{include: [10.0.0.0/32", network[4096];
		bool in[256] = {true}, empty = true;
		struct policy *policy;

		for (int part = 0; part < 2; part++) {
			for (int i = 0; i < 6; i++) {
				unsigned prefix, first;

				random = random * 1103515245 + 12345;
				prefix = 24 + (random >> 16) % 9;
				first = ((random >> 8) & 0xff) & ~((1U << (32 - prefix)) - 1);
				if (part && prefix < 26)
					continue;
				sprintf(text + strlen(text), ", 10.0.0.%u/%u", first, prefix);
				for (unsigned a = first; a < first + (1U << (32 - prefix)); a++)
					in[a] = !part;
			}
			strcat(text, part ? "]}" : "], except: [10.1.0.0/32");
		}
		for (int a = 0; a < 256; a++)
			empty = empty && !in[a];
		if (empty)
			continue;
		snprintf(network, sizeof(network),
			 "bulkhead: 1\nnetworks: {n: %s}\nrules: [{name: r, action: deny, from: n, to: any}]\n", text);
		policy = parse(network);
		for (unsigned a = 0; a < 256; a++) {
			address at = ADDRESS_V4_FIRST | 0x0a000000U | a;
			bool found = false;

			for (uint32_t i = 0; i < policy->networks[0].n_ranges; i++)
				found = found || (at >= policy->networks[0].ranges[i].first &&
						  at <= policy->networks[0].ranges[i].last);
			if (found != in[a])
				fail_msg("10.0.0.%u in %s", a, text);
		}
		policy_freep(&policy);
	}
}

/* ---- services ---- */

static void check_services(const char *service, const char *expected)
{
	char text[4096], out[1024] = "", one[SERVICE_TEXT_BYTES];
	struct policy *policy;

	snprintf(text, sizeof(text),
		 "bulkhead: 1\n"
		 "services: {outer: [inner, tcp/9], inner: [tcp/1-3, sctp]}\n"
		 "rules: [{name: r, action: allow, from: any, to: any%s%s}]\n",
		 service ? ", service: " : "", service ? service : "");
	policy = parse(text);
	for (uint32_t i = 0; i < policy->rules[0].n_services; i++) {
		service_format(one, sizeof(one), policy->rules[0].services[i]);
		sprintf(out + strlen(out), "%s%s", i ? " " : "", one);
	}
	assert_string_equal(out, expected);
	policy_freep(&policy);
}

static void services_are_written_as_they_are_read(void **state)
{
	(void)state;
	check_services(NULL, "tcp udp sctp icmp icmpv6 proto");
	check_services("[tcp/443, udp, sctp/1-65535]", "tcp/443 udp sctp");
	check_services("[icmp, icmpv6]", "icmp icmpv6");
	check_services("icmp/0", "icmp/echo-reply");
	check_services("[icmp/7, icmp/255]", "icmp/7 icmp/255");
	check_services("[icmpv6/neighbour-solicitation, icmpv6/neighbor-advertisement]", "icmpv6/135-136");
	check_services("icmpv6/echo-request", "icmpv6/echo-request");
	check_services("[icmp/time-exceeded, icmp/destination-unreachable]",
		       "icmp/destination-unreachable icmp/time-exceeded");
	check_services("[proto/47, proto/50-51, proto/0, proto/255]", "proto/0 proto/47 proto/50-51 proto/255");
	check_services("outer", "tcp/1-3 tcp/9 sctp");
	check_services("[outer, tcp/4-8]", "tcp/1-9 sctp");
	/* The last port of one protocol does not touch the first of the next. */
	check_services("[tcp/65535, udp/1]", "tcp/65535 udp/1");
}

static void every_type_has_one_way_to_be_written(void **state)
{
	char text[SERVICE_TEXT_BYTES];
	struct service_range range;

	(void)state;
	for (uint32_t point = SERVICE_ICMP; point < SERVICE_END; point++) {
		service_format(text, sizeof(text), (struct service_range){point, point});
		if (service_parse(&range, text) == SERVICE_HAS_A_NAME)
			continue;
		assert_int_equal(service_parse(&range, text), SERVICE_OK);
		assert_int_equal(range.first, point);
		assert_int_equal(range.last, point);
	}
}

static void points_are_protocols_and_ports(void **state)
{
	unsigned protocol, port;

	(void)state;
	service_point(SERVICE_SCTP + 7, &protocol, &port);
	assert_int_equal(protocol, 132);
	assert_int_equal(port, 7);
	service_point(SERVICE_PROTO + 47, &protocol, &port);
	assert_int_equal(protocol, 47);
	assert_int_equal(port, 0);
	service_point(SERVICE_ICMP6 + 128, &protocol, &port);
	assert_int_equal(protocol, 58);
	assert_int_equal(port, 128);
}

/* ---- rules ---- */

static void rules_have_what_they_say(void **state)
{
	struct policy *policy =
		parse(IDENTITIES "tiers: [first, app, last]\n"
				 "defaults: {log: new}\n"
				 "rules:\n"
				 "  - name: a\n"
				 "    tier: last\n"
				 "    priority: -7\n"
				 "    action: pass\n"
				 "    from: web\n"
				 "    to: [db, unit]\n"
				 "    direction: ingress\n"
				 "    until: 2027-01-01 02:00:00+02:00\n"
				 "  - {name: b, action: deny, from: any, to: verified, mode: audit, log: all}\n");
	const struct rule *a = &policy->rules[0], *b = &policy->rules[1];

	(void)state;
	assert_int_equal(policy->n_tiers, 3);
	assert_string_equal(policy->tiers[0].name, "first");
	assert_int_equal(a->tier, 2);
	assert_int_equal(a->priority, -7);
	assert_int_equal(a->action, RULE_PASS);
	assert_int_equal(a->directions, RULE_INGRESS);
	assert_int_equal(a->until, 1798761600);
	assert_int_equal(a->log, RULE_LOG_NEW);
	assert_false(a->audit);
	assert_int_equal(b->tier, 1);
	assert_int_equal(b->priority, 0);
	assert_int_equal(b->until, 0);
	assert_int_equal(b->log, RULE_LOG_ALL);
	assert_true(b->audit);
	policy_freep(&policy);
}

static void files_are_one_policy_in_any_order(void **state)
{
	static const char rules[] =
		"bulkhead: 1\n"
		"rules: [{name: r, tier: base, action: allow, from: {not: web}, to: any, service: s}]\n"
		"tests: [{from: web, to: web, service: s, expect: deny, by: default}]\n";
	static const char names[] = "bulkhead: 1\n"
				    "identities: {web: \"spiffe://td/web\"}\n"
				    "services: {s: tcp/1}\n"
				    "tiers: [base]\n";
	const struct policy_source sources[] = {{"a", rules, sizeof(rules) - 1}, {"b", names, sizeof(names) - 1}};
	struct policy *policy = parse_sources(sources, 2);

	(void)state;
	assert_int_equal(policy->n_rules, 1);
	assert_int_equal(policy->n_tests, 1);
	assert_int_equal(policy->tiers[0].at.source, 1);
	policy_freep(&policy);
}

/* ---- tests and invariants ---- */

static void names_in_tests_are_sets_and_all_else_is_one_peer(void **state)
{
	struct policy *policy =
		parse(IDENTITIES "networks: {lan: 10.0.0.0/8}\n"
				 "services: {s: [tcp/1, udp/2]}\n"
				 "rules: [{name: r, action: allow, from: web, to: db}]\n"
				 "tests:\n"
				 "  - {name: first, from: web, to: lan, service: [s, tcp/7], expect: allow, by: r}\n"
				 "  - {from: any, to: verified, service: s, expect: deny}\n"
				 "  - {from: spiffe://td/x@10.0.0.1, to: unit@10.0.0.2, service: s, expect: deny}\n"
				 "  - {from: world, to: \"2001:db8::1\", service: s, expect: deny, by: default}\n");
	const struct policy_test *tests = policy->tests;

	(void)state;
	assert_int_equal(policy->n_tests, 4);
	assert_string_equal(tests[0].name, "first");
	assert_true(tests[0].from.is_set && tests[0].to.is_set && tests[0].allow);
	assert_int_equal(tests[0].from.set.terms[0].who[0], WHO_IDENTITY);
	assert_int_equal(tests[0].to.set.terms[0].n_networks, 1);
	assert_string_equal(tests[0].service, "[s, tcp/7]");
	assert_int_equal(tests[0].n_services, 3);
	assert_string_equal(tests[0].by, "r");
	assert_true(tests[1].from.is_set && tests[1].to.is_set && !tests[1].allow);
	assert_int_equal(tests[1].from.set.n_terms, 1);
	assert_int_equal(tests[1].from.set.terms[0].n_who, 0);
	assert_int_equal(tests[1].to.set.terms[0].who[0], WHO_VERIFIED);
	assert_null(tests[1].by);
	assert_false(tests[2].from.is_set || tests[2].to.is_set);
	assert_string_equal(tests[2].from.one.id, "spiffe://td/x");
	assert_true(tests[2].from.one.has_address);
	assert_int_equal(tests[2].to.one.kind, FLOW_END_NAME);
	assert_string_equal(tests[2].to.text, "unit@10.0.0.2");
	assert_int_equal(tests[3].from.one.kind, FLOW_END_WORLD);
	assert_true(tests[3].to.one.has_address);
	policy_freep(&policy);
}

static void invariants_are_read_with_their_text(void **state)
{
	struct policy *policy = parse(IDENTITIES "networks: {lan: 10.0.0.0/8}\n"
						 "invariants:\n"
						 "  - never: {from: lan, to: {not: web}, service: [tcp/22]}\n"
						 "  - {name: x, isolated: [web, [db, lan]]}\n"
						 "  - always: {from: web, to: db}\n");
	const struct invariant *invariants = policy->invariants;

	(void)state;
	assert_int_equal(policy->n_invariants, 3);
	assert_int_equal(invariants[0].kind, INVARIANT_NEVER);
	assert_string_equal(invariants[0].text, "never: {from: lan, to: {not: web}, service: [tcp/22]}");
	assert_int_equal(invariants[0].n_services, 1);
	assert_int_equal(invariants[1].kind, INVARIANT_ISOLATED);
	assert_string_equal(invariants[1].name, "x");
	assert_int_equal(invariants[1].to.n_terms, 2);
	assert_int_equal(invariants[1].n_services, SERVICE_N_EVERYTHING);
	assert_int_equal(invariants[2].kind, INVARIANT_ALWAYS);
	policy_freep(&policy);
}

/* Text in messages is cut, also where aliases make it long. */
static void long_values_are_cut_in_messages(void **state)
{
	char text[8192] = IDENTITIES "rules: [{name: r, action: allow, from: [web, db, unit], to: {any: [web, db";
	struct policy *policy;

	(void)state;
	for (int i = 0; i < 40; i++)
		sprintf(text + strlen(text), ", spiffe://td/a-rather-long-name/%d", i);
	strcat(text, "]}}]\ntests: [{from: web, to: db, expect: deny, service: &long [tcp/1");
	for (int i = 0; i < 200; i++)
		sprintf(text + strlen(text), ", tcp/%d", i + 2);
	strcat(text, "]}]\ninvariants: [never: {service: *long, from: web, to: db}]\n");
	policy = parse(text);
	assert_int_equal(strlen(policy->tests[0].service), 403);
	assert_string_equal(policy->tests[0].service + 400, "...");
	assert_int_equal(policy->tests[0].n_services, 1);
	assert_int_equal(strlen(policy->invariants[0].text), 7 + 403);
	for (size_t i = 0; i < policy->n_identities; i++)
		if (policy->identities[i].op == IDENTITY_ANY)
			assert_string_equal(policy->identities[i].name + 196, "...]");
	policy_freep(&policy);
}

static void a_byte_order_mark_is_no_part_of_the_text(void **state)
{
	(void)state;
	refused("\xef\xbb\xbf%TAG ! x\n",
		"p.yaml:1:1: error: YAML tags have no meaning in a policy\n  %TAG ! x\n  ^\n");
	refused("\xef\xbb\xbf"
		"bulkhead: 2\n",
		"p.yaml:1:11: error: language version '2'");
}

/* Asks, and expects to be understood. */
static struct invariant ask(struct policy *policy, const char *text)
{
	struct invariant invariant;
	char *error;

	if (policy_invariant_parse(&invariant, policy, INVARIANT_NEVER, text, &error) != 0)
		fail_msg("%s: %s", text, error);
	return invariant;
}

static void says(struct policy *policy, const char *text, const char *expected)
{
	struct invariant invariant;
	char *error;

	assert_int_equal(policy_invariant_parse(&invariant, policy, INVARIANT_NEVER, text, &error), 1);
	if (!strstr(error, expected))
		fail_msg("%s: \"%s\" is not in: %s", text, expected, error);
	free(error);
}

static void an_invariant_of_a_command_line_is_read_like_one_of_the_file(void **state)
{
	struct policy *policy = parse(IDENTITIES "networks: {lan: 10.0.0.0/8}\n"
						 "services: {pg: tcp/5432}\n"
						 "rules: [{name: r, action: allow, from: web, to: db}]\n");
	struct invariant invariant = ask(policy, "from: lan to: db service: pg");
	char *error;

	(void)state;
	assert_int_equal(invariant.kind, INVARIANT_NEVER);
	assert_int_equal(invariant.from.terms[0].networks[0], 0);
	assert_int_equal(invariant.to.terms[0].who[0], WHO_IDENTITY + 1);
	assert_int_equal(invariant.services[0].first, 5432);
	assert_string_equal(invariant.text, "never: {from: lan, to: db, service: pg}");
	invariant = ask(policy, "  to: {not: web}\n from: [web, \"lan\"]  service: [tcp/1, pg]");
	assert_int_equal(invariant.from.n_terms, 2);
	assert_int_equal(invariant.n_services, 2);
	assert_int_equal(policy->identity_order[policy->n_identities - 1], identity_named(policy, "not web"));
	assert_int_equal(policy->n_identities, 4);
	invariant = ask(policy, "{from: {identity: web, network: lan}, to: any}");
	assert_int_equal(invariant.from.terms[0].n_networks, 1);
	assert_int_equal(invariant.n_services, SERVICE_N_EVERYTHING);
	assert_int_equal(policy_invariant_isolated(&invariant, policy, "web", "[db, lan]", &error), 0);
	assert_int_equal(invariant.kind, INVARIANT_ISOLATED);
	assert_int_equal(invariant.to.n_terms, 2);
	assert_string_equal(invariant.text, "isolated: [web, [db, lan]]");
	policy_freep(&policy);
}

static void a_mistake_in_an_invariant_of_a_command_line_is_explained(void **state)
{
	struct policy *policy = parse(IDENTITIES "rules: [{name: r, action: allow, from: web, to: db}]\n");
	struct invariant invariant;
	char *error, *big;

	(void)state;
	says(policy, "from: wbe to: db", "no identity or network is named 'wbe' (did you mean 'web'?)");
	says(policy, "from: wbe to: dbb", "\nno identity or network is named 'dbb' (did you mean 'db'?)");
	says(policy, "from: web", "the invariant has no `to`");
	says(policy, "from: web from: db to: web", "duplicate key 'from'");
	says(policy, "web to: db", "does not begin with `from:`");
	says(policy, "", "does not begin with");
	says(policy, "from: [web to: db", "not valid YAML");
	says(policy, "from: web to: db service: 443", "a port has a protocol");
	says(policy, "{from: web, to: db", "not valid YAML");
	big = calloc(1, 70000);
	memset(big, 'x', 69999);
	memcpy(big, "from: ", 6);
	says(policy, big, "longer than 65536 bytes");
	assert_int_equal(policy_invariant_isolated(&invariant, policy, big, "web", &error), 1);
	free(error);
	free(big);
	says(policy, "from: {not: {not: {not: nobody}}} to: web", "no identity is named 'nobody'");
	assert_int_equal(policy_invariant_isolated(&invariant, policy, "web", "", &error), 1);
	free(error);
	assert_int_equal(policy_invariant_isolated(&invariant, policy, "web], [db", "db", &error), 1);
	free(error);
	policy_freep(&policy);
}

/* ---- the manual ---- */

static void the_example_of_the_manual_is_a_policy_without_a_warning(void **state)
{
	char *text = calloc(1, 1 << 20), *start, *end;
	FILE *in = fopen(TEST_DATA "/../../../docs/policy-language.md", "r");
	struct policy_diagnostics *diagnostics;
	struct policy_source source;
	struct policy *policy;

	(void)state;
	assert_non_null(in);
	assert_true(fread(text, 1, (1 << 20) - 1, in) > 0);
	fclose(in);
	start = strstr(text, "```yaml\n");
	assert_non_null(start);
	start += strlen("```yaml\n");
	end = strstr(start, "```");
	source = (struct policy_source){"manual", start, (size_t)(end - start)};
	assert_int_equal(policy_parse(&policy, &diagnostics, &source, 1), 0);
	assert_int_equal(policy_diagnostics_count(diagnostics, POLICY_WARNING), 0);
	assert_true(policy->n_rules > 2 && policy->n_tests && policy->n_invariants);
	policy_diagnostics_freep(&diagnostics);
	policy_freep(&policy);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(operands_come_before_what_is_made_of_them),
		cmocka_unit_test(one_set_written_twice_is_one_identity),
		cmocka_unit_test(a_chain_as_long_as_the_policy_costs_no_stack),
		cmocka_unit_test(a_bound_id_and_a_place_are_kept),
		cmocka_unit_test(networks_are_what_is_included_less_what_is_excepted),
		cmocka_unit_test(subtraction_is_right_for_every_address),
		cmocka_unit_test(services_are_written_as_they_are_read),
		cmocka_unit_test(every_type_has_one_way_to_be_written),
		cmocka_unit_test(points_are_protocols_and_ports),
		cmocka_unit_test(rules_have_what_they_say),
		cmocka_unit_test(files_are_one_policy_in_any_order),
		cmocka_unit_test(names_in_tests_are_sets_and_all_else_is_one_peer),
		cmocka_unit_test(invariants_are_read_with_their_text),
		cmocka_unit_test(long_values_are_cut_in_messages),
		cmocka_unit_test(a_byte_order_mark_is_no_part_of_the_text),
		cmocka_unit_test(an_invariant_of_a_command_line_is_read_like_one_of_the_file),
		cmocka_unit_test(a_mistake_in_an_invariant_of_a_command_line_is_explained),
		cmocka_unit_test(the_example_of_the_manual_is_a_policy_without_a_warning),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
