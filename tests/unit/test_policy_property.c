/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compiled tables against a slow reference.
 *
 * Random policies are written as text and, beside it, kept in structures that nothing of the library reads. Random flows
 * are then judged twice: by the tables, with the kernel's decision function, and by looking at every rule in turn as the
 * language is defined. The whole cell must be the same: verdict, rule and log. The reference shares no code with the
 * compiler, so a mistake would have to be made twice.
 */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bpf/decide.h"
#include "policy/compiler.h"
#include "policy/image.h"
#include "policy/policy.h"

#define N_POLICIES 2000
#define N_FLOWS 150 /* of each policy, judged twice */

#define MAX_ITEMS 10
#define MAX_RULES 14
#define N_TIERS 3

static uint64_t random_state;

/* xorshift64*, so that a failure can be run again by its seed */
static uint32_t rnd(uint32_t n)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (uint32_t)((random_state * 0x2545f4914f6cdd1dULL) >> 33) % n;
}

/* ---- the reference: what a policy says ---- */

enum who_kind { SPIFFE, LOCAL, UNIDENTIFIED, HOST, WORLD };

struct end {
	enum who_kind kind;
	char id[200];
	int local; /* identity */
	bool has_address;
	bool v4;
	unsigned char address[16]; /* of IPv4 the first 4 */
};

struct ref_identity {
	int n;
	char patterns[3][120];
	bool local;
};

struct ref_cidr {
	bool v4;
	unsigned char bytes[16];
	int prefix;
};

struct ref_network {
	int n;
	struct ref_cidr cidrs[3];
};

struct ref_service {
	int protocol;
	int low, high; /* ports or type; -1: all */
};

enum { BUILTIN_ANY = 100, BUILTIN_VERIFIED, BUILTIN_UNIDENTIFIED, BUILTIN_HOST, BUILTIN_WORLD, NETWORK_BASE = 200 };

struct ref_selector {
	bool pair; /* {identity, network} */
	int n;
	int items[6]; /* identity, built-in, or NETWORK_BASE + network */
};

struct ref_rule {
	enum rule_action action;
	int tier, priority;
	bool audit;
	int64_t until;
	int direction; /* 1 egress, 2 ingress, 3 both */
	int log;       /* index into log_names; -1: default */
	struct ref_selector from, to;
	int n_services;
	struct ref_service services[3];
};

struct ref_policy {
	int n_identities, n_networks, n_rules;
	struct ref_identity identities[MAX_ITEMS];
	struct ref_network networks[MAX_ITEMS];
	struct ref_rule rules[MAX_RULES];
	bool default_allow;
	int default_log;
};

static const char *const log_names[] = {"none", "new", "denied", "all"};

/* Does an ID match a pattern? By taking both apart at their first slash. */
static bool ref_pattern(const char *pattern, const char *id)
{
	const char *pattern_rest = strchr(pattern, '/'), *id_rest = strchr(id, '/');
	size_t n = pattern_rest ? (size_t)(pattern_rest - pattern) : strlen(pattern);
	size_t m = id_rest ? (size_t)(id_rest - id) : strlen(id);

	if (n == 2 && strncmp(pattern, "**", 2) == 0)
		return true;
	if (!(n == 1 && pattern[0] == '*') && !(n == m && strncmp(pattern, id, n) == 0))
		return false;
	if (!pattern_rest || !id_rest)
		return !pattern_rest && !id_rest;
	return ref_pattern(pattern_rest + 1, id_rest + 1);
}

static bool ref_identity(const struct ref_policy *policy, int identity, const struct end *end)
{
	const struct ref_identity *ref = &policy->identities[identity];

	if (end->kind == LOCAL)
		return end->local == identity;
	for (int i = 0; end->kind == SPIFFE && i < ref->n; i++)
		if (ref_pattern(ref->patterns[i] + 9, end->id + 9))
			return true;
	return false;
}

static bool ref_network(const struct ref_policy *policy, int network, const struct end *end)
{
	for (int i = 0; end->has_address && i < policy->networks[network].n; i++) {
		const struct ref_cidr *cidr = &policy->networks[network].cidrs[i];
		bool match = cidr->v4 == end->v4;

		for (int bit = 0; bit < cidr->prefix && match; bit++)
			match = ((cidr->bytes[bit / 8] ^ end->address[bit / 8]) >> (7 - bit % 8) & 1) == 0;
		if (match)
			return true;
	}
	return false;
}

static bool ref_item(const struct ref_policy *policy, int item, const struct end *end)
{
	switch (item) {
	case BUILTIN_ANY:
		return true;
	case BUILTIN_VERIFIED:
		return end->kind == SPIFFE;
	case BUILTIN_UNIDENTIFIED:
		return end->kind == UNIDENTIFIED;
	case BUILTIN_HOST:
		return end->kind == HOST;
	case BUILTIN_WORLD:
		return end->kind == WORLD;
	}
	if (item >= NETWORK_BASE)
		return ref_network(policy, item - NETWORK_BASE, end);
	return ref_identity(policy, item, end);
}

static bool ref_selector(const struct ref_policy *policy, const struct ref_selector *selector, const struct end *end)
{
	bool who = false, where = false, asks_who = false, asks_where = false;

	for (int i = 0; i < selector->n; i++) {
		bool network = selector->items[i] >= NETWORK_BASE, match = ref_item(policy, selector->items[i], end);

		who |= match && !network;
		where |= match && network;
		asks_who |= !network;
		asks_where |= network;
	}
	if (!selector->pair)
		return who || where;
	return (who || !asks_who) && (where || !asks_where);
}

static bool ref_service(const struct ref_rule *rule, int protocol, int port)
{
	for (int i = 0; i < rule->n_services; i++) {
		const struct ref_service *service = &rule->services[i];

		if (service->protocol == protocol &&
		    (service->low < 0 || (port >= service->low && port <= service->high)))
			return true;
	}
	return rule->n_services == 0;
}

static uint32_t ref_cell(int number, bool allow, int log)
{
	static const uint32_t bits[] = {0, BH_CELL_LOG_ALLOWED | BH_CELL_LOG_DENIED, BH_CELL_LOG_DENIED,
					BH_CELL_LOG_ALLOWED | BH_CELL_LOG_DENIED | BH_CELL_LOG_AGAIN};

	return (uint32_t)number | (allow ? BH_CELL_ALLOW : 0) | bits[log];
}

static uint32_t ref_rule_cell(const struct ref_policy *policy, int number)
{
	const struct ref_rule *rule = &policy->rules[number];
	uint32_t cell =
		ref_cell(number + 1, rule->action == RULE_ALLOW, rule->log < 0 ? policy->default_log : rule->log);

	if (!rule->audit)
		return cell;
	if (cell & BH_CELL_LOG_DENIED)
		cell |= BH_CELL_LOG_ALLOWED;
	return cell | BH_CELL_ALLOW | BH_CELL_AUDIT;
}

/* Does rule x decide before rule y, of the same tier? */
static bool ref_before(const struct ref_rule *x, const struct ref_rule *y)
{
	return x->priority != y->priority ? x->priority < y->priority : x->action < y->action;
}

static uint32_t ref_judge(const struct ref_policy *policy, int direction, const struct end *from, const struct end *to,
			  int protocol, int port, int64_t now, uint64_t *until)
{
	*until = BH_FOREVER;
	for (int tier = 0; tier < N_TIERS; tier++) {
		int decided = -1;

		for (int i = 0; i < policy->n_rules; i++) {
			const struct ref_rule *rule = &policy->rules[i];

			if (rule->tier == tier && rule->direction & direction && (!rule->until || rule->until > now) &&
			    ref_service(rule, protocol, port) && ref_selector(policy, &rule->from, from) &&
			    ref_selector(policy, &rule->to, to) &&
			    (decided < 0 || ref_before(rule, &policy->rules[decided])))
				decided = i;
		}
		if (decided < 0)
			continue;
		if (policy->rules[decided].until && (uint64_t)policy->rules[decided].until < *until)
			*until = (uint64_t)policy->rules[decided].until;
		if (policy->rules[decided].action != RULE_PASS)
			return ref_rule_cell(policy, decided);
	}
	return ref_cell(0, policy->default_allow, policy->default_log);
}

/* ---- random policies, as structures and as text ---- */

static const char *const domains[] = {"a.example", "b.example"};
static const char *const segments[] = {"x", "y", "z", "xy"};

static void make_id(char *out, bool pattern)
{
	int n = 1 + (int)rnd(4);

	sprintf(out, "spiffe://%s", domains[rnd(2)]);
	for (int i = 0; i < n; i++) {
		const char *segment = segments[rnd(4)];

		if (pattern && rnd(3) == 0)
			segment = i == n - 1 && rnd(2) ? "**" : "*";
		sprintf(out + strlen(out), "/%s", segment);
	}
}

static void make_address(unsigned char bytes[16], bool v4)
{
	static const unsigned char first[] = {0, 10, 192, 255};

	memset(bytes, 0, 16);
	if (v4) {
		bytes[0] = first[rnd(4)];
		bytes[1] = (unsigned char)(rnd(3) ? rnd(4) : 255);
		bytes[2] = (unsigned char)(rnd(2) * 255);
		bytes[3] = (unsigned char)rnd(4);
		return;
	}
	/* Around ::ffff:0:0/96 too: what looks like IPv4 is IPv4, and its neighbours are not. */
	if (rnd(3) == 0) {
		bytes[10] = rnd(2) ? 0xff : 0xfe;
		bytes[11] = 0xfe;
		bytes[15] = (unsigned char)rnd(3);
		return;
	}
	bytes[0] = rnd(2) ? 0x20 : 0xfd;
	bytes[1] = (unsigned char)rnd(2);
	bytes[7] = (unsigned char)rnd(3);
	bytes[8] = (unsigned char)(rnd(2) * 0x80);
	bytes[15] = (unsigned char)(rnd(2) ? rnd(4) : 255);
}

static void make_cidr(struct ref_cidr *cidr, FILE *out)
{
	static const int prefixes4[] = {0, 1, 8, 9, 16, 23, 24, 31, 32};
	static const int prefixes6[] = {0, 1, 7, 16, 48, 64, 65, 95, 96, 127, 128};
	char text[64];

	cidr->v4 = rnd(2);
	make_address(cidr->bytes, cidr->v4);
	cidr->prefix = cidr->v4 ? prefixes4[rnd(9)] : prefixes6[rnd(11)];
	for (int bit = cidr->prefix; bit < 128; bit++)
		cidr->bytes[bit / 8] &= (unsigned char)~(0x80 >> bit % 8);
	inet_ntop(cidr->v4 ? AF_INET : AF_INET6, cidr->bytes, text, sizeof(text));
	fprintf(out, "\"%s/%d\"", text, cidr->prefix);
}

static void make_identities(struct ref_policy *policy, FILE *out)
{
	policy->n_identities = 1 + (int)rnd(MAX_ITEMS - 1);
	fprintf(out, "identities:\n");
	for (int i = 0; i < policy->n_identities; i++) {
		struct ref_identity *identity = &policy->identities[i];
		bool map = false;

		identity->local = rnd(4) == 0;
		fprintf(out, "  id%d: ", i);
		if (identity->local) {
			fprintf(out, rnd(2) ? "{unit: s%d.service}\n" : "{cgroup: /c/%d}\n", i);
			continue;
		}
		map = rnd(4) == 0;
		identity->n = 1 + (int)rnd(3);
		fprintf(out, "%s[", map ? "{spiffe: " : "");
		for (int j = 0; j < identity->n; j++) {
			make_id(identity->patterns[j], true);
			fprintf(out, "%s\"%s\"", j ? ", " : "", identity->patterns[j]);
		}
		fprintf(out, "]%s\n", map ? ", only: {unit: u.service}}" : "");
	}
}

static void make_networks(struct ref_policy *policy, FILE *out)
{
	policy->n_networks = 1 + (int)rnd(5);
	fprintf(out, "networks:\n");
	for (int i = 0; i < policy->n_networks; i++) {
		struct ref_network *network = &policy->networks[i];

		network->n = 1 + (int)rnd(3);
		fprintf(out, "  net%d: [", i);
		for (int j = 0; j < network->n; j++) {
			fputs(j ? ", " : "", out);
			make_cidr(&network->cidrs[j], out);
		}
		fputs("]\n", out);
	}
}

static void write_item(int item, FILE *out)
{
	static const char *const builtins[] = {"any", "verified", "unidentified", "host", "world"};

	if (item >= NETWORK_BASE)
		fprintf(out, "net%d", item - NETWORK_BASE);
	else if (item >= BUILTIN_ANY)
		fputs(builtins[item - BUILTIN_ANY], out);
	else
		fprintf(out, "id%d", item);
}

static int make_who(const struct ref_policy *policy)
{
	static const int builtins[] = {BUILTIN_ANY,	     BUILTIN_VERIFIED, BUILTIN_VERIFIED,
				       BUILTIN_UNIDENTIFIED, BUILTIN_HOST,     BUILTIN_WORLD};

	return rnd(3) ? (int)rnd((uint32_t)policy->n_identities) : builtins[rnd(6)];
}

static void write_items(const int *items, int n, FILE *out)
{
	bool list = n > 1 || rnd(3) == 0;

	fputs(list ? "[" : "", out);
	for (int i = 0; i < n; i++) {
		fputs(i ? ", " : "", out);
		write_item(items[i], out);
	}
	fputs(list ? "]" : "", out);
}

static void make_selector(const struct ref_policy *policy, struct ref_selector *selector, FILE *out)
{
	int n_who = 0;

	selector->pair = rnd(3) == 0;
	selector->n = 0;
	if (!selector->pair) {
		selector->n = 1 + (int)rnd(3);
		for (int i = 0; i < selector->n; i++)
			selector->items[i] =
				rnd(3) ? make_who(policy) : NETWORK_BASE + (int)rnd((uint32_t)policy->n_networks);
		write_items(selector->items, selector->n, out);
		return;
	}
	fputs("{", out);
	if (rnd(4)) {
		n_who = 1 + (int)rnd(2);
		for (; selector->n < n_who; selector->n++)
			selector->items[selector->n] = make_who(policy);
		fputs("identity: ", out);
		write_items(selector->items, n_who, out);
	}
	if (!n_who || rnd(4)) {
		int n = 1 + (int)rnd(2);

		for (int i = 0; i < n; i++)
			selector->items[selector->n++] = NETWORK_BASE + (int)rnd((uint32_t)policy->n_networks);
		fputs(n_who ? ", network: " : "network: ", out);
		write_items(selector->items + n_who, n, out);
	}
	fputs("}", out);
}

static const int ports[] = {1, 79, 80, 81, 79, 80, 81, 443, 65534, 65535};

static void make_service(struct ref_service *service, FILE *out)
{
	static const int protocols[] = {IPPROTO_TCP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP, IPPROTO_ICMPV6};
	const char *name;

	service->protocol = protocols[rnd(5)];
	service->low = service->high = -1;
	name = service->protocol == IPPROTO_TCP	   ? "tcp"
	       : service->protocol == IPPROTO_UDP  ? "udp"
	       : service->protocol == IPPROTO_ICMP ? "icmp"
						   : "icmpv6";
	fputs(name, out);
	if (rnd(5) == 0)
		return;
	if (service->protocol == IPPROTO_ICMP || service->protocol == IPPROTO_ICMPV6) {
		service->low = service->high = service->protocol == IPPROTO_ICMP ? 8 : 128;
		fputs("/echo-request", out);
		return;
	}
	service->low = ports[rnd(10)];
	service->high = ports[rnd(10)];
	if (service->high <= service->low)
		service->high = service->low;
	fprintf(out, service->high > service->low ? "/%d-%d" : "/%d", service->low, service->high);
}

static void make_rule(const struct ref_policy *policy, struct ref_rule *rule, int number, FILE *out)
{
	static const char *const directions[] = {"", "egress", "ingress", "both"};

	rule->action = rnd(3) ? RULE_ALLOW : RULE_DENY;
	rule->direction = 1 + (int)rnd(3);
	rule->log = (int)rnd(5) - 1;
	rule->n_services = (int)rnd(4);
	fprintf(out, "  - name: r%d\n    action: %s\n", number, rule->action == RULE_ALLOW ? "allow" : "deny");
	fprintf(out, "    from: ");
	make_selector(policy, &rule->from, out);
	fprintf(out, "\n    to: ");
	make_selector(policy, &rule->to, out);
	if (rule->direction != 3 || rnd(2))
		fprintf(out, "\n    direction: %s", directions[rule->direction]);
	if (rule->log >= 0)
		fprintf(out, "\n    log: %s", log_names[rule->log]);
	for (int i = 0; i < rule->n_services; i++) {
		fputs(i ? ", " : "\n    service: [", out);
		make_service(&rule->services[i], out);
	}
	fputs(rule->n_services ? "]\n" : "\n", out);
}

static char *make_policy(struct ref_policy *policy)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	memset(policy, 0, sizeof(*policy));
	policy->default_allow = rnd(4) == 0;
	policy->default_log = (int)rnd(4);
	policy->n_rules = (int)rnd(MAX_RULES + 1);
	fprintf(out, "bulkhead: 1\ndefaults: {action: %s, log: %s}\n", policy->default_allow ? "allow" : "deny",
		log_names[policy->default_log]);
	make_identities(policy, out);
	make_networks(policy, out);
	fputs(policy->n_rules ? "rules:\n" : "rules: []\n", out);
	for (int i = 0; i < policy->n_rules; i++)
		make_rule(policy, &policy->rules[i], i, out);
	fclose(out);
	return text;
}

/* ---- flows ---- */

static void make_end(const struct ref_policy *policy, struct end *end)
{
	static const enum who_kind kinds[] = {SPIFFE, SPIFFE, SPIFFE, LOCAL, UNIDENTIFIED, HOST, WORLD};

	memset(end, 0, sizeof(*end));
	end->kind = kinds[rnd(7)];
	if (end->kind == LOCAL) {
		end->local = (int)rnd((uint32_t)policy->n_identities);
		if (!policy->identities[end->local].local)
			end->kind = SPIFFE;
	}
	if (end->kind == SPIFFE)
		make_id(end->id, false);
	end->has_address = rnd(5);
	end->v4 = rnd(2);
	make_address(end->address, end->v4);
}

static uint32_t who_of(const struct policy_image *image, const struct end *end)
{
	struct policy_local local;
	char name[16];

	switch (end->kind) {
	case SPIFFE:
		return policy_image_classify(image, end->id);
	case LOCAL:
		snprintf(name, sizeof(name), "id%d", end->local);
		for (size_t i = 0; policy_image_local(image, i, &local); i++)
			if (strcmp(local.name, name) == 0)
				return local.who;
		fail();
		return 0;
	case UNIDENTIFIED:
		return BH_ID_UNIDENTIFIED;
	case HOST:
		return BH_ID_HOST;
	case WORLD:
		break;
	}
	return BH_ID_WORLD;
}

static uint32_t address_of(const unsigned char *tables, const struct end *end)
{
	struct bh_addr addr = {};

	if (!end->has_address)
		return 0;
	if (end->v4) {
		addr.w[2] = htonl(0xffff);
		memcpy(&addr.w[3], end->address, 4);
	} else {
		memcpy(addr.w, end->address, 16);
	}
	return bh_addr_class(tables, &addr);
}

static size_t flows_asked, flows_too_possible;

static uint32_t decide(const unsigned char *tables, uint32_t judgement, uint32_t from_who, uint32_t from_addr,
		       uint32_t to_who, uint32_t to_addr, uint32_t point, int64_t now, __u64 *until)
{
	const struct bh_flow flow = {(uint16_t)from_who, (uint16_t)to_who, from_addr, to_addr, point};

	*until = BH_FOREVER;
	return bh_decide(tables, judgement, &flow, (uint64_t)now, until);
}

/* What any source address and whoever answers could make allowed is possible. It may say yes to more, but seldom. */
static void check_possible(const unsigned char *tables, uint32_t who, uint32_t to_addr, uint32_t point, int64_t now)
{
	__u64 until;
	const struct bh_tables *head = (const struct bh_tables *)tables;
	bool possible = false, said = bh_possible(tables, who, to_addr, point);

	for (uint32_t a = 0; a < head->n_addr && !possible; a++)
		for (uint32_t w = 0; w < head->n_who && !possible; w++)
			possible = decide(tables, BH_EGRESS, who, a, w, to_addr, point, now, &until) & BH_CELL_ALLOW;
	assert_true(said || !possible);
	flows_asked++;
	flows_too_possible += said && !possible;
}

static void judge_flow(const struct ref_policy *policy, const struct policy_image *image, const char *text,
		       uint64_t seed)
{
	int64_t now = (int64_t)rnd(5);
	static const int protocols[] = {IPPROTO_TCP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP, IPPROTO_ICMPV6};
	int protocol = protocols[rnd(5)], port = rnd(2) ? ports[rnd(10)] : (int)rnd(65536);
	struct end from, to;
	uint32_t from_who, to_who, from_addr, to_addr, point;
	const unsigned char *tables;
	size_t len;

	if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6)
		port = rnd(2) ? (rnd(2) ? 8 : 128) : (int)rnd(256);
	make_end(policy, &from);
	make_end(policy, &to);
	tables = policy_image_tables(image, &len);
	from_who = who_of(image, &from);
	to_who = who_of(image, &to);
	from_addr = address_of(tables, &from);
	to_addr = address_of(tables, &to);
	point = bh_service_point((uint32_t)protocol, (uint32_t)port);
	for (int d = 0; d < 2; d++) {
		uint64_t expected_until;
		__u64 until;
		uint32_t cell = decide(tables, (uint32_t)d, from_who, from_addr, to_who, to_addr, point, now, &until);
		uint32_t expected =
			ref_judge(policy, d == BH_EGRESS ? 1 : 2, &from, &to, protocol, port, now, &expected_until);

		if (cell != expected || until != expected_until)
			fail_msg("seed %lu: cell %08x until %llx, expected %08x %lx; from kind %d %s, to kind %d %s, "
				 "protocol %d port %d\n%s",
				 (unsigned long)seed, cell, until, expected, (unsigned long)expected_until, from.kind,
				 from.id, to.kind, to.id, protocol, port, text);
	}
	check_possible(tables, from_who, to_addr, point, now);
}

/* Tiers, priorities, passes, audit mode and `until`, which do not change how the rest is written. */
static void add_order(struct ref_policy *ref, struct policy *policy)
{
	bool plain = rnd(3) == 0;

	policy->n_tiers = N_TIERS;
	policy->tiers = arena_array(&policy->arena, N_TIERS, sizeof(*policy->tiers));
	for (int i = 0; i < N_TIERS; i++)
		policy->tiers[i].name = "tier";
	assert_int_equal(ref->n_rules, policy->n_rules);
	for (int i = 0; i < ref->n_rules && !plain; i++) {
		struct ref_rule *rule = &ref->rules[i];

		rule->tier = (int)rnd(N_TIERS);
		rule->priority = (int)rnd(3) - 1;
		if (rnd(3) == 0)
			rule->action = RULE_PASS;
		rule->audit = rule->action == RULE_DENY && rnd(3) == 0;
		rule->until = rnd(3) ? 0 : 1 + rnd(4);
		policy->rules[i].tier = (uint32_t)rule->tier;
		policy->rules[i].priority = rule->priority;
		policy->rules[i].action = rule->action;
		policy->rules[i].audit = rule->audit;
		policy->rules[i].until = rule->until;
	}
}

static void compile(const struct policy *policy, bool split, void **bytesp, size_t *lenp)
{
	_cleanup_(compiler_free) struct compiler compiler = {.policy = policy, .split = split};

	if (compiler_run(&compiler, bytesp, lenp) != 0)
		fail_msg("%s", compiler.error);
}

static void tables_say_what_the_language_says(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= N_POLICIES; seed++) {
		struct ref_policy *ref = calloc(1, sizeof(*ref));
		struct policy_diagnostics *diagnostics;
		struct policy_source source = {.name = "random.yaml"};
		struct policy_image *image;
		struct policy *policy;
		char *text;
		void *bytes;
		size_t len;

		random_state = seed * 0x9e3779b97f4a7c15ULL;
		text = make_policy(ref);
		source.text = text;
		source.len = strlen(text);
		if (policy_parse(&policy, &diagnostics, &source, 1) != 0) {
			policy_diagnostics_print(diagnostics, stderr, false);
			fail_msg("seed %lu: not valid\n%s", (unsigned long)seed, text);
		}
		add_order(ref, policy);
		compile(policy, seed % 2, &bytes, &len);
		assert_int_equal(policy_image_open(&image, bytes, len, NULL), 0);
		for (int i = 0; i < N_FLOWS; i++)
			judge_flow(ref, image, text, seed);
		policy_image_freep(&image);
		policy_freep(&policy);
		policy_diagnostics_freep(&diagnostics);
		free(bytes);
		free(text);
		free(ref);
	}
	assert_true(flows_too_possible * 20 < flows_asked);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tables_say_what_the_language_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
