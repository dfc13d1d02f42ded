/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compiled image: what it answers, and that no bytes, however made, can be both accepted and harmful.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "bpf/decide.h"
#include "policy/image.h"
#include "policy/policy.h"

static const char shop[] =
	"bulkhead: 1\n"
	"identities:\n"
	"  web: spiffe://td/ns/shop/web\n"
	"  anyns: spiffe://td/ns/*/web\n"
	"  all: spiffe://td/**\n"
	"  backup: [{unit: backup.service}, {cgroup: /legacy.slice/app}]\n"
	"  mem: {unit: memory.service}\n"
	"  ops: {spiffe: \"spiffe://td/ops/*\", only: [{unit: ops.service}, {cgroup: /srv/ops}]}\n"
	"  unused: spiffe://td/ns/other\n"
	"networks:\n"
	"  lan: [10.0.0.0/8, \"fd00::/8\"]\n"
	"defaults: {action: deny, log: none}\n"
	"rules:\n"
	"  - {name: r1, action: allow, from: [web, anyns, all], to: [backup, mem], service: tcp/1-10, log: all}\n"
	"  - {name: r2, action: deny, from: lan, to: any, service: [tcp/5, udp/5], log: new}\n";

/* With all that can make a rule step aside: chains of more than one. */
static const char aside[] =
	"bulkhead: 1\n"
	"identities: {web: spiffe://td/ns/shop/web, db: spiffe://td/ops/a, both: {any: [web, db]}}\n"
	"networks: {lan: 10.0.0.0/8}\n"
	"tiers: [first, app]\n"
	"rules:\n"
	"  - {name: r1, tier: first, action: deny, from: web, to: any, until: 1970-01-01T00:01:00Z}\n"
	"  - {name: r2, tier: first, action: pass, from: {identity: web, network: lan}, to: any, service: tcp/1-40}\n"
	"  - {name: r3, tier: first, action: pass, from: both, to: lan, until: 1970-01-01T00:02:00Z}\n"
	"  - {name: r4, tier: first, action: deny, from: verified, to: lan, mode: audit}\n"
	"  - {name: r5, tier: app, action: allow, from: both, to: any, direction: egress}\n"
	"  - {name: r6, tier: app, action: allow, from: lan, to: both, service: udp, priority: 3}\n";

static const char *const hostile[] = {shop, aside};
#define N_HOSTILE 2

static void *compile(const char *text, size_t *lenp)
{
	const struct policy_source source = {"shop.yaml", text, strlen(text)};
	struct policy_diagnostics *diagnostics;
	struct policy *policy;
	char *error;
	void *bytes;

	if (policy_parse(&policy, &diagnostics, &source, 1) != 0) {
		policy_diagnostics_print(diagnostics, stderr, false);
		fail();
	}
	if (policy_compile(policy, &bytes, lenp, &error) != 0)
		fail_msg("%s", error);
	policy_freep(&policy);
	policy_diagnostics_freep(&diagnostics);
	return bytes;
}

static struct policy_image *open_policy(const char *text)
{
	struct policy_image *image;
	const char *why;
	size_t len;
	void *bytes = compile(text, &len);

	if (policy_image_open(&image, bytes, len, &why) != 0)
		fail_msg("%s", why);
	free(bytes);
	return image;
}

static int setup(void **state)
{
	struct policy_image *image = open_policy(shop);

	*state = image;
	return 0;
}

static int teardown(void **state)
{
	struct policy_image *image = *state;

	policy_image_freep(&image);
	return 0;
}

static void ids_that_the_rules_tell_apart_have_classes(void **state)
{
	const struct policy_image *image = *state;
	uint32_t none = policy_image_classify(image, "spiffe://other/x");
	uint32_t all = policy_image_classify(image, "spiffe://td/x");
	uint32_t anyns = policy_image_classify(image, "spiffe://td/ns/x/web");
	uint32_t web = policy_image_classify(image, "spiffe://td/ns/shop/web");

	assert_int_not_equal(none, all);
	assert_int_not_equal(all, anyns);
	assert_int_not_equal(anyns, web);
	assert_int_equal(policy_image_classify(image, "spiffe://td/ns/shop/web/x"), all);
	assert_int_equal(policy_image_classify(image, "spiffe://td/ns/shop"), all);
	assert_int_equal(policy_image_classify(image, "spiffe://td/ns/shop/webb"), all);
	assert_int_equal(policy_image_classify(image, "spiffe://td/ns/shop/we"), all);
	assert_int_equal(policy_image_classify(image, "spiffe://tdx/ns/shop/web"), none);
	assert_int_equal(policy_image_classify(image, "spiffe://t/ns/shop/web"), none);
	/* Nobody asks for it, so it is like any other. */
	assert_int_equal(policy_image_classify(image, "spiffe://td/ns/other"), all);
}

static void what_is_no_id_is_in_no_identity(void **state)
{
	static const char *const ids[] = {"", "s", "spiffe:/", "spiffe://", "spiffe:///", "td/x", "http://td/x"};
	const struct policy_image *image = *state;

	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
		assert_int_equal(policy_image_classify(image, ids[i]),
				 policy_image_classify(image, "spiffe://other/x"));
}

static void local_is(const struct policy_image *image, const char *path, const char *name)
{
	struct policy_local local;
	bool found = policy_image_local_of(image, path, &local);

	if (found != (name != NULL) || (found && strcmp(local.name, name) != 0))
		fail_msg("%s is %s, expected %s", path, found ? local.name : "nothing", name ? name : "nothing");
}

static void a_unit_is_its_cgroup_below_slices_only(void **state)
{
	const struct policy_image *image = *state;

	local_is(image, "/system.slice/backup.service", "backup");
	local_is(image, "/user.slice/user-1000.slice/backup.service", "backup");
	local_is(image, "/backup.service", "backup");
	local_is(image, "/legacy.slice/app", "backup");
	local_is(image, "/legacy.slice/app/sub", NULL);
	local_is(image, "/system.slice/backup.service/sub", NULL);
	local_is(image, "/system.slice/xbackup.service", NULL);
	local_is(image, "/system.slice", NULL);
	local_is(image, "/", NULL);
	local_is(image, "", NULL);
	/* A directory that a user made in a delegated cgroup. */
	local_is(image, "/user.slice/user-1000.slice/user@1000.service/backup.service", NULL);
	local_is(image, "/user.slice/user-1000.slice/user@1000.service/app.slice/backup.service", NULL);
	local_is(image, "/.slice/backup.service", NULL);
	/* systemd puts an underscore before names that cgroupfs could take for its own. */
	local_is(image, "/system.slice/_memory.service", "mem");
	local_is(image, "/system.slice/__memory.service", NULL);
}

static void directories_are_watched_where_local_identities_can_appear(void **state)
{
	const struct policy_image *image = *state;
	struct policy_image *paths_only = open_policy("bulkhead: 1\nidentities: {a: {cgroup: /x/y}}\n"
						      "rules: [{name: r, action: allow, from: a, to: any}]\n");

	assert_true(policy_image_local_below(image, "/"));
	assert_true(policy_image_local_below(image, "/system.slice"));
	assert_false(policy_image_local_below(image, "/system.slice/x.service"));
	assert_true(policy_image_local_below(paths_only, "/"));
	assert_true(policy_image_local_below(paths_only, "/x"));
	assert_false(policy_image_local_below(paths_only, "/x/y"));
	assert_false(policy_image_local_below(paths_only, "/x/y/z"));
	assert_false(policy_image_local_below(paths_only, "/xx"));
	assert_false(policy_image_local_below(paths_only, "/system.slice"));
	policy_image_freep(&paths_only);
}

static void a_bound_id_stays_in_its_cgroups(void **state)
{
	const struct policy_image *image = *state;
	const char *id = "spiffe://td/ops/a";
	char why[256] = "";

	assert_true(policy_image_binding(image, id, "/system.slice/ops.service", POLICY_ANY_UID, why, sizeof(why)));
	assert_true(
		policy_image_binding(image, id, "/system.slice/ops.service/worker", POLICY_ANY_UID, why, sizeof(why)));
	assert_true(policy_image_binding(image, id, "/srv/ops", POLICY_ANY_UID, why, sizeof(why)));
	assert_true(policy_image_binding(image, id, "/srv/ops/a/b", POLICY_ANY_UID, why, sizeof(why)));
	assert_false(policy_image_binding(image, id, "/srv/opsx", POLICY_ANY_UID, why, sizeof(why)));
	assert_string_equal(why, "identity 'ops' is bound to unit ops.service and others; /srv/opsx is not within it");
	assert_false(policy_image_binding(image, id, "/srv", POLICY_ANY_UID, why, sizeof(why)));
	assert_false(policy_image_binding(image, id, "/a/ops.service", POLICY_ANY_UID, why, sizeof(why)));
	assert_false(policy_image_binding(image, id, "", POLICY_ANY_UID, why, sizeof(why)));
	/* Not matched, not bound. */
	assert_true(policy_image_binding(image, "spiffe://td/ops/a/b", "/a", POLICY_ANY_UID, why, sizeof(why)));
	assert_true(policy_image_binding(image, "spiffe://td/x", "/a", POLICY_ANY_UID, why, sizeof(why)));
}

static void an_id_in_two_bound_identities_must_be_within_both(void **state)
{
	struct policy_image *image = open_policy("bulkhead: 1\nidentities:\n"
						 "  a: {spiffe: \"spiffe://td/**\", only: {cgroup: /a}}\n"
						 "  b: {spiffe: \"spiffe://td/b\", only: {cgroup: /a/b}}\n");
	char why[256];

	(void)state;
	assert_true(policy_image_binding(image, "spiffe://td/b", "/a/b", POLICY_ANY_UID, why, sizeof(why)));
	assert_false(policy_image_binding(image, "spiffe://td/b", "/a", POLICY_ANY_UID, why, sizeof(why)));
	assert_true(policy_image_binding(image, "spiffe://td/x", "/a", POLICY_ANY_UID, why, sizeof(why)));
	policy_image_freep(&image);
}

static void an_id_may_be_bound_to_who_proves_it(void **state)
{
	struct policy_image *image =
		open_policy("bulkhead: 1\nidentities:\n"
			    "  a: {spiffe: spiffe://td/a, only: {unit: a.service, uid: 33}}\n"
			    "  b: {spiffe: spiffe://td/b, only: [{uid: 7}, {cgroup: /b, uid: 8}]}\n");
	char why[256];

	(void)state;
	assert_true(policy_image_binding(image, "spiffe://td/a", "/a.service", 33, why, sizeof(why)));
	assert_false(policy_image_binding(image, "spiffe://td/a", "/b.service", 33, why, sizeof(why)));
	assert_string_equal(why, "identity 'a' is bound to unit a.service, uid 33; /b.service is not within it");
	assert_false(policy_image_binding(image, "spiffe://td/a", "/a.service", 0, why, sizeof(why)));
	assert_string_equal(why, "identity 'a' is bound to unit a.service, uid 33; uid 0 proved it");
	/* Of a tag that an older version gave it is not known who proved it: it is nobody that it could be bound to. */
	assert_false(policy_image_binding(image, "spiffe://td/a", "/a.service", POLICY_ANY_UID, why, sizeof(why)));
	assert_string_equal(why, "identity 'a' is bound to unit a.service, uid 33; it is not known who proved it");
	assert_true(policy_image_binding(image, "spiffe://td/b", "/x/y", 7, why, sizeof(why)));
	assert_true(policy_image_binding(image, "spiffe://td/b", "/b/c", 8, why, sizeof(why)));
	assert_false(policy_image_binding(image, "spiffe://td/b", "/x/y", 8, why, sizeof(why)));
	assert_string_equal(why, "identity 'b' is bound to uid 7 and others; uid 8 proved it");
	policy_image_freep(&image);
}

static void rule_numbers_are_names_and_places(void **state)
{
	const struct policy_image *image = *state;
	struct policy_rule_name rule;

	assert_int_equal(policy_image_rule_count(image), 2);
	assert_true(policy_image_rule(image, 0, &rule));
	assert_string_equal(rule.name, "default");
	assert_string_equal(rule.file, "shop.yaml");
	assert_int_equal(rule.line, 12);
	assert_true(policy_image_rule(image, 2, &rule));
	assert_string_equal(rule.name, "r2");
	assert_int_equal(rule.line, 15);
	assert_false(policy_image_rule(image, 3, &rule));
}

static void the_same_sources_give_the_same_bytes(void **state)
{
	size_t n, m;
	void *a = compile(shop, &n), *b = compile(shop, &m);

	(void)state;
	assert_int_equal(n, m);
	assert_memory_equal(a, b, n);
	free(a);
	free(b);
}

static void the_digest_covers_names_and_texts(void **state)
{
	const struct policy_source sources[][2] = {
		{{"a", "bulkhead: 1\n", 12}, {"b", "bulkhead: 1\n", 12}},
		{{"a", "bulkhead: 1\n", 12}, {"c", "bulkhead: 1\n", 12}},
		{{"a", "bulkhead: 1\n\n", 13}, {"b", "bulkhead: 1\n", 12}},
	};
	char seen[3][65];

	(void)state;
	for (int i = 0; i < 3; i++) {
		struct policy_diagnostics *diagnostics;
		struct policy_image *image;
		struct policy *policy;
		char *error;
		void *bytes;
		size_t len;

		assert_int_equal(policy_parse(&policy, &diagnostics, sources[i], 2), 0);
		assert_int_equal(policy_compile(policy, &bytes, &len, &error), 0);
		assert_int_equal(policy_image_open(&image, bytes, len, NULL), 0);
		snprintf(seen[i], sizeof(seen[i]), "%s", policy_image_digest(image));
		assert_int_equal(strlen(seen[i]), 64);
		for (int j = 0; j < i; j++)
			assert_string_not_equal(seen[i], seen[j]);
		policy_image_freep(&image);
		policy_freep(&policy);
		policy_diagnostics_freep(&diagnostics);
		free(bytes);
	}
}

/* ---- hostile images ---- */

/* Uses all that an image offers. Copies the tables to memory of their own size, so that the sanitizer finds an access
 * that the kernel would only mask. */
static void use(const struct policy_image *image)
{
	static const char *const ids[] = {"spiffe://td/ns/shop/web", "spiffe://td/ops/a", "spiffe://x/y", ""};
	static const char *const paths[] = {"/", "/system.slice/backup.service", "/srv/ops/x", ""};
	struct policy_explanation explanation;
	struct policy_rule_name rule;
	struct policy_local local;
	const struct bh_tables *head;
	unsigned char *tables;
	char why[64], *error = NULL;
	size_t len, used = 0;

	for (size_t i = 0; i < 4; i++) {
		assert_true(policy_image_classify(image, ids[i]) < BH_MAX_IDENTITIES);
		policy_image_local_of(image, paths[i], &local);
		policy_image_local_below(image, paths[i]);
		for (size_t j = 0; j < 4; j++)
			policy_image_binding(image, ids[i], paths[j], POLICY_ANY_UID, why, sizeof(why));
	}
	for (size_t i = 0; policy_image_local(image, i, &local); i++)
		used += strlen(local.name) + strlen(local.path);
	for (uint32_t i = 0; policy_image_rule(image, i, &rule); i++)
		used += strlen(rule.name) + (rule.file ? strlen(rule.file) : 0);
	assert_true(used < POLICY_IMAGE_MAX_BYTES);
	assert_int_equal(strlen(policy_image_digest(image)), 64);
	tables = malloc(len = (policy_image_tables(image, &len), len));
	memcpy(tables, policy_image_tables(image, &len), len);
	head = (const struct bh_tables *)tables;
	for (uint32_t probe = 0; probe < 200; probe++) {
		struct bh_addr a = {{htonl(probe << 24), 0, 0, probe}}, b = {{0, 0, htonl(0xffff), htonl(probe << 24)}};
		static const uint32_t protocols[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP, IPPROTO_ICMPV6};
		uint32_t point = bh_service_point(protocols[probe % 4], probe / 4);
		uint32_t x = bh_addr_class(tables, &a), y = bh_addr_class(tables, &b);
		uint32_t who = probe % head->n_who;
		struct bh_flow flow = {(uint16_t)who, (uint16_t)(head->n_who - 1), x, y, point};
		__u64 valid_until = BH_FOREVER;
		uint32_t cell = bh_decide(tables, probe % 2, &flow, probe, &valid_until);

		assert_true(policy_image_rule(image, BH_CELL_RULE(cell), &rule));
		assert_true(bh_possible(tables, who, y, point) <= 1);
	}
	free(tables);
	policy_explain(image, "backup@10.1.1.1", "spiffe://td/ops/a", "tcp/5", 0, &explanation, &error);
	free(error);
}

static bool try_image(const unsigned char *bytes, size_t len)
{
	unsigned char *exact = malloc(len ? len : 1);
	struct policy_image *image;
	const char *why = NULL;
	int r;

	memcpy(exact, bytes, len);
	r = policy_image_open(&image, exact, len, &why);
	free(exact);
	if (r < 0) {
		assert_int_equal(r, -EBADMSG);
		assert_null(image);
		assert_non_null(why);
		return false;
	}
	use(image);
	policy_image_freep(&image);
	return true;
}

static void every_truncated_image_is_refused(void **state)
{
	(void)state;
	for (int i = 0; i < N_HOSTILE; i++) {
		size_t len;
		unsigned char *bytes = compile(hostile[i], &len);

		assert_true(try_image(bytes, len));
		for (size_t n = 0; n < len; n++)
			assert_false(try_image(bytes, n));
		free(bytes);
	}
}

static void change_bytes(const char *text)
{
	static const unsigned char changes[] = {0x01, 0x80, 0xff, 0x10};
	size_t len, refused = 0;
	unsigned char *bytes = compile(text, &len);

	for (size_t i = 0; i < len; i++)
		for (size_t j = 0; j < sizeof(changes); j++) {
			bytes[i] ^= changes[j];
			refused += !try_image(bytes, len);
			bytes[i] ^= changes[j];
		}
	assert_true(refused > len / 10);
	free(bytes);
}

static void every_changed_byte_is_refused_or_harmless(void **state)
{
	(void)state;
	for (int i = 0; i < N_HOSTILE; i++)
		change_bytes(hostile[i]);
}

/* Whole words, in places of offsets and counts, as somebody would write them who has read the format. */
static void change_words(const char *text)
{
	static const uint32_t words[] = {0, 1, 8, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffff8, 0x10000, 0x00ffffff};
	size_t len;
	unsigned char *bytes = compile(text, &len);

	for (size_t i = 0; i + 4 <= len; i += 4) {
		unsigned char kept[4];

		memcpy(kept, bytes + i, 4);
		for (size_t j = 0; j < sizeof(words) / sizeof(words[0]); j++) {
			memcpy(bytes + i, &words[j], 4);
			try_image(bytes, len);
		}
		memcpy(bytes + i, kept, 4);
	}
	free(bytes);
}

static void every_changed_word_is_refused_or_harmless(void **state)
{
	(void)state;
	for (int i = 0; i < N_HOSTILE; i++)
		change_words(hostile[i]);
}

/* ---- many identities ---- */

#define PEERS 400

/* Of no regular shape, so that no size of block suits it, and with rows that begin and end with nothing. */
static bool may_talk(uint32_t from, uint32_t to)
{
	return from % 7 != 3 && to > from / 2 && (from * 31 + to * to * 17) % 13 < 2;
}

static char *policy_of_many(void)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	fputs("bulkhead: 1\nidentities:\n", out);
	for (uint32_t i = 0; i < PEERS; i++)
		fprintf(out, "  a%u: spiffe://td/%u\n", i, i);
	fputs("rules:\n", out);
	for (uint32_t i = 0; i < PEERS; i++) {
		bool any = false;

		for (uint32_t j = 0; j < PEERS; j++) {
			if (!may_talk(i, j))
				continue;
			if (!any)
				fprintf(out, "  - {name: r%u, action: allow, service: tcp/%u, from: a%u, to: [", i,
					80 + i % 3, i);
			fprintf(out, "%sa%u", any ? ", " : "", j);
			any = true;
		}
		if (any)
			fputs("]}\n", out);
	}
	fclose(out);
	return text;
}

/* Which is a matrix that is taken apart into blocks: none of them may end up in another's place. */
static void each_pair_of_many_identities_has_its_own_verdict(void **state)
{
	char *text = policy_of_many(), id[32];
	struct policy_image *image = open_policy(text);
	size_t len;
	const unsigned char *tables = policy_image_tables(image, &len);
	struct bh_addr address = {{htonl(0x0a000001), 0, 0, 0}};
	uint32_t where = bh_addr_class(tables, &address);
	uint16_t who[PEERS];

	(void)state;
	for (uint32_t i = 0; i < PEERS; i++) {
		snprintf(id, sizeof(id), "spiffe://td/%u", i);
		who[i] = (uint16_t)policy_image_classify(image, id);
	}
	for (uint32_t i = 0; i < PEERS; i++)
		for (uint32_t j = 0; j < PEERS; j++)
			for (uint32_t port = 80; port < 83; port++) {
				struct bh_flow flow = {who[i], who[j], where, where,
						       bh_service_point(IPPROTO_TCP, port)};
				bool allowed = may_talk(i, j) && port == 80 + i % 3;
				__u64 valid_until = BH_FOREVER;
				struct policy_rule_name rule;
				uint32_t cell = bh_decide(tables, BH_EGRESS, &flow, 0, &valid_until);

				snprintf(id, sizeof(id), "r%u", i);
				assert_true(policy_image_rule(image, BH_CELL_RULE(cell), &rule));
				assert_string_equal(rule.name, allowed ? id : "default");
				assert_int_equal(!!(cell & BH_CELL_ALLOW), allowed);
				assert_int_equal(bh_decide(tables, BH_INGRESS, &flow, 0, &valid_until), cell);
			}
	policy_image_freep(&image);
	free(text);
}

/* ---- size ---- */

static void a_policy_that_does_not_fit_says_so(void **state)
{
	struct policy_diagnostics *diagnostics;
	struct policy_source source = {.name = "big.yaml"};
	struct policy *policy;
	char *text = NULL, *error = NULL;
	void *bytes = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	(void)state;
	/* 1,200 identities in random groups of 30, each of which may reach another such group on a port of its own. */
	fputs("bulkhead: 1\nidentities:\n", out);
	for (int i = 0; i < 1200; i++)
		fprintf(out, "  a%d: spiffe://td/%d\n", i, i);
	fputs("rules:\n", out);
	for (int i = 0; i < 4000; i++) {
		fprintf(out, "  - {name: r%d, action: allow, service: tcp/%d, from: [a%d", i, i + 1, i % 1200);
		for (int j = 1; j < 60; j++)
			fprintf(out, "%sa%d", j == 30 ? "], to: [" : ", ", (i * 7919 + j * j * 31 + j * i) % 1200);
		fputs("]}\n", out);
	}
	fclose(out);
	source.text = text;
	source.len = len;
	assert_int_equal(policy_parse(&policy, &diagnostics, &source, 1), 0);
	assert_int_equal(policy_compile(policy, &bytes, &len, &error), 1);
	assert_null(bytes);
	assert_non_null(strstr(error, "MiB of tables"));
	free(error);
	free(text);
	policy_freep(&policy);
	policy_diagnostics_freep(&diagnostics);
}

/* Patterns of which every subset can match: 2^20 states if nobody counted. */
static void patterns_that_explode_are_refused_in_time(void **state)
{
	struct policy_diagnostics *diagnostics;
	struct policy_source source = {.name = "big.yaml"};
	struct policy *policy;
	char *text = NULL, *error = NULL;
	void *bytes = NULL;
	clock_t start = clock();
	size_t len;
	FILE *out = open_memstream(&text, &len);

	(void)state;
	fputs("bulkhead: 1\nidentities:\n", out);
	for (int i = 0; i < 24; i++) {
		fprintf(out, "  a%d: spiffe://td", i);
		for (int j = 0; j < 24; j++)
			fputs(j == i ? "/x" : "/*", out);
		fputc('\n', out);
	}
	fputs("rules:\n", out);
	for (int i = 0; i < 24; i++)
		fprintf(out, "  - {name: r%d, action: allow, from: a%d, to: any}\n", i, i);
	fclose(out);
	source.text = text;
	source.len = len;
	assert_int_equal(policy_parse(&policy, &diagnostics, &source, 1), 0);
	assert_int_equal(policy_compile(policy, &bytes, &len, &error), 1);
	assert_non_null(strstr(error, "the SPIFFE ID patterns overlap in too many ways"));
	assert_true(clock() - start < 10 * CLOCKS_PER_SEC);
	free(error);
	free(text);
	policy_freep(&policy);
	policy_diagnostics_freep(&diagnostics);
}

static void the_empty_policy_denies(void **state)
{
	struct policy_image *image = open_policy("bulkhead: 1\n");
	struct policy_explanation explanation;
	char *error;

	(void)state;
	use(image);
	assert_int_equal(policy_explain(image, "spiffe://td/a", "spiffe://td/b", "tcp/1", 0, &explanation, &error), 0);
	assert_false(explanation.allow);
	assert_string_equal(explanation.egress.rule, "default");
	assert_null(explanation.egress.file);
	policy_image_freep(&image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ids_that_the_rules_tell_apart_have_classes),
		cmocka_unit_test(what_is_no_id_is_in_no_identity),
		cmocka_unit_test(a_unit_is_its_cgroup_below_slices_only),
		cmocka_unit_test(directories_are_watched_where_local_identities_can_appear),
		cmocka_unit_test(a_bound_id_stays_in_its_cgroups),
		cmocka_unit_test(an_id_in_two_bound_identities_must_be_within_both),
		cmocka_unit_test(an_id_may_be_bound_to_who_proves_it),
		cmocka_unit_test(rule_numbers_are_names_and_places),
		cmocka_unit_test(the_same_sources_give_the_same_bytes),
		cmocka_unit_test(the_digest_covers_names_and_texts),
		cmocka_unit_test(every_truncated_image_is_refused),
		cmocka_unit_test(every_changed_byte_is_refused_or_harmless),
		cmocka_unit_test(every_changed_word_is_refused_or_harmless),
		cmocka_unit_test(each_pair_of_many_identities_has_its_own_verdict),
		cmocka_unit_test(a_policy_that_does_not_fit_says_so),
		cmocka_unit_test(patterns_that_explode_are_refused_in_time),
		cmocka_unit_test(the_empty_policy_denies),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
