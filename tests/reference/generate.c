/* SPDX-License-Identifier: Apache-2.0 */
/*
 * generate.c - random policies, as structures and as the text of up to three files.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/reference/reference.h"

enum section { IDENTITIES, NETWORKS, SERVICES, RULES, HEAD, SECTIONS };

/* The texts in the making: each file's sections, put together at the end in any order. */
struct writer {
	struct ref_policy *policy;
	FILE *out[REF_MAX_FILES][SECTIONS];
	char *text[REF_MAX_FILES][SECTIONS];
	size_t size[REF_MAX_FILES][SECTIONS];
	FILE *now; /* where the item at hand is written */
};

/* xorshift64*, so that a failure can be run again by its seed */
uint32_t ref_random(struct ref_policy *policy, uint32_t n)
{
	policy->random ^= policy->random >> 12;
	policy->random ^= policy->random << 25;
	policy->random ^= policy->random >> 27;
	return (uint32_t)((policy->random * 0x2545f4914f6cdd1dULL) >> 33) % n;
}

static int below(struct writer *w, int n)
{
	return (int)ref_random(w->policy, (uint32_t)n);
}

static void make_id(struct ref_policy *policy, char *out, bool pattern)
{
	static const char *const domains[] = {"a.example", "b.example"};
	static const char *const segments[] = {"x", "y", "z", "xy"};
	int n = 1 + (int)ref_random(policy, 4);

	sprintf(out, "spiffe://%s", domains[ref_random(policy, 2)]);
	for (int i = 0; i < n; i++) {
		const char *segment = segments[ref_random(policy, 4)];

		if (pattern && ref_random(policy, 3) == 0)
			segment = i == n - 1 && ref_random(policy, 2) ? "**" : "*";
		sprintf(out + strlen(out), "/%s", segment);
	}
}

/* ---- sets of identities ---- */

static struct ref_set *set_new(struct writer *w)
{
	struct ref_policy *policy = w->policy;

	if (policy->n_sets == (int)(sizeof(policy->sets) / sizeof(policy->sets[0])))
		abort();
	return &policy->sets[policy->n_sets++];
}

static struct ref_set *make_algebra(struct writer *w, int known, int depth);

/* An operand: a name, a pattern, `verified`, or algebra again. `known`: identities that may be named. */
static struct ref_set *make_operand(struct writer *w, int known, int depth)
{
	struct ref_set *set;
	int choice = below(w, 8);

	if (choice == 0 && depth < 2)
		return make_algebra(w, known, depth + 1);
	set = set_new(w);
	if (choice == 1) {
		set->op = REF_VERIFIED;
		fputs("verified", w->now);
	} else if (choice == 2 || !known) {
		set->op = REF_PATTERN;
		make_id(w->policy, set->pattern, true);
		fprintf(w->now, "\"%s\"", set->pattern);
	} else {
		set->op = REF_NAME;
		set->identity = below(w, known);
		fprintf(w->now, "id%d", set->identity);
	}
	return set;
}

static struct ref_set *make_algebra(struct writer *w, int known, int depth)
{
	static const enum ref_op ops[] = {REF_ANY_OF, REF_ALL_OF, REF_NOT};
	static const char *const words[] = {"any", "all", "not"};
	struct ref_set *set = set_new(w);
	int choice = below(w, 3);

	set->op = ops[choice];
	set->n = set->op == REF_NOT ? 1 : 1 + below(w, 3);
	fprintf(w->now, "{%s: %s", words[choice], set->op == REF_NOT ? "" : "[");
	for (int i = 0; i < set->n; i++) {
		fputs(i ? ", " : "", w->now);
		set->operands[i] = make_operand(w, known, depth);
	}
	fputs(set->op == REF_NOT ? "}" : "]}", w->now);
	return set;
}

static void make_identity(struct writer *w, int number)
{
	struct ref_identity *identity = &w->policy->identities[number];
	int kind = below(w, 8);

	fprintf(w->now, "  id%d: ", number);
	if (kind < 2 && number) {
		identity->set = make_algebra(w, number, 0);
		fputc('\n', w->now);
		return;
	}
	identity->local = kind < 4 ? 1 + below(w, 2) : 0;
	identity->n_patterns = identity->local && below(w, 2) ? 0 : 1 + below(w, 3);
	identity->bound = !identity->local && below(w, 4) == 0;
	fputs(identity->bound ? "{spiffe: [" : "[", w->now);
	if (identity->local)
		fprintf(w->now, identity->local == 1 ? "{unit: s%d.service}" : "{cgroup: /c/%d}", number);
	for (int i = 0; i < identity->n_patterns; i++) {
		make_id(w->policy, identity->patterns[i], true);
		fprintf(w->now, "%s\"%s\"", i || identity->local ? ", " : "", identity->patterns[i]);
	}
	fputs(identity->bound ? "], only: {unit: u.service}}\n" : "]\n", w->now);
}

/* ---- networks ---- */

static void make_address(struct ref_policy *policy, unsigned char bytes[16], bool v4)
{
	static const unsigned char first[] = {0, 10, 192, 255};

	memset(bytes, 0, 16);
	if (v4) {
		bytes[0] = first[ref_random(policy, 4)];
		bytes[1] = (unsigned char)(ref_random(policy, 3) ? ref_random(policy, 4) : 255);
		bytes[2] = (unsigned char)(ref_random(policy, 2) * 255);
		bytes[3] = (unsigned char)ref_random(policy, 4);
		return;
	}
	/* Around ::ffff:0:0/96 too: what looks like IPv4 is IPv4, and its neighbours are not. */
	if (ref_random(policy, 3) == 0) {
		bytes[10] = ref_random(policy, 2) ? 0xff : 0xfe;
		bytes[11] = 0xfe;
		bytes[15] = (unsigned char)ref_random(policy, 3);
		return;
	}
	bytes[0] = ref_random(policy, 2) ? 0x20 : 0xfd;
	bytes[1] = (unsigned char)ref_random(policy, 2);
	bytes[7] = (unsigned char)ref_random(policy, 3);
	bytes[8] = (unsigned char)(ref_random(policy, 2) * 0x80);
	bytes[15] = (unsigned char)(ref_random(policy, 2) ? ref_random(policy, 4) : 255);
}

static void make_cidr(struct writer *w, struct ref_cidr *cidr)
{
	static const int prefixes4[] = {0, 1, 8, 9, 16, 23, 24, 31, 32};
	static const int prefixes6[] = {0, 1, 7, 16, 48, 64, 65, 95, 127, 128};
	char text[64];

	cidr->v4 = below(w, 2);
	make_address(w->policy, cidr->bytes, cidr->v4);
	cidr->prefix = cidr->v4 ? prefixes4[below(w, 9)] : prefixes6[below(w, 10)];
	for (int bit = cidr->prefix; bit < 128; bit++)
		cidr->bytes[bit / 8] &= (unsigned char)~(0x80 >> bit % 8);
	inet_ntop(cidr->v4 ? AF_INET : AF_INET6, cidr->bytes, text, sizeof(text));
	fprintf(w->now, "\"%s/%d\"", text, cidr->prefix);
}

static bool cidr_covers(const struct ref_cidr *wide, const struct ref_cidr *narrow)
{
	if (wide->v4 != narrow->v4 || wide->prefix > narrow->prefix)
		return false;
	for (int bit = 0; bit < wide->prefix; bit++)
		if ((wide->bytes[bit / 8] ^ narrow->bytes[bit / 8]) >> (7 - bit % 8) & 1)
			return false;
	return true;
}

/* An empty network is an error: what is excepted must not cover what is included. The check is coarse, and enough. */
static bool network_may_be_empty(const struct ref_network *network)
{
	for (int i = 0; i < network->n; i++)
		for (int j = 0; j < network->n_except; j++)
			if (cidr_covers(&network->except[j], &network->cidrs[i]) ||
			    (network->n_except > 1 && network->except[j].v4 == network->cidrs[i].v4))
				return true;
	return false;
}

static void make_network(struct writer *w, int number)
{
	struct ref_network *network = &w->policy->networks[number];
	char *text = NULL;
	size_t size;
	FILE *out = w->now;

	network->map = below(w, 3) == 0;
	network->n = 1 + below(w, 3);
	w->now = open_memstream(&text, &size);
	fprintf(w->now, "%s[", network->map ? "{include: " : "");
	for (int i = 0; i < network->n; i++) {
		fputs(i ? ", " : "", w->now);
		make_cidr(w, &network->cidrs[i]);
	}
	fputs("]", w->now);
	if (network->map) {
		fflush(w->now);
		long at = ftell(w->now);

		network->n_except = 1 + below(w, 2);
		fputs(", except: [", w->now);
		for (int i = 0; i < network->n_except; i++) {
			fputs(i ? ", " : "", w->now);
			make_cidr(w, &network->except[i]);
		}
		fputs("]", w->now);
		if (network_may_be_empty(network)) {
			fseek(w->now, at, SEEK_SET);
			network->n_except = 0;
		}
		fputs("}", w->now);
	}
	fclose(w->now);
	w->now = out;
	fprintf(out, "  net%d: %.*s\n", number, (int)size, text);
	free(text);
}

/* ---- services ---- */

static const int ports[] = {1, 79, 80, 81, 79, 80, 81, 443, 65534, 65535};

static void make_ports(struct writer *w, struct ref_service *service)
{
	service->low = ports[below(w, 10)];
	service->high = ports[below(w, 10)];
	if (service->high <= service->low)
		service->high = service->low;
	fprintf(w->now, service->high > service->low ? "/%d-%d" : "/%d", service->low, service->high);
}

static void make_type(struct writer *w, struct ref_service *service)
{
	static const struct {
		const char *name;
		int v4, v6;
	} types[] = {
		{"echo-request", 8, 128}, {"echo-reply", 0, 129},	{"destination-unreachable", 3, 1},
		{"time-exceeded", 11, 3}, {"parameter-problem", 12, 4},
	};
	bool v6 = service->protocol == IPPROTO_ICMPV6;
	int choice = below(w, 7);

	if (choice < 5) {
		service->low = v6 ? types[choice].v6 : types[choice].v4;
		fprintf(w->now, "/%s", types[choice].name);
	} else {
		service->low = choice == 5 ? 8 : below(w, 256);
		fprintf(w->now, "/%d", service->low);
	}
	service->high = service->low;
}

static void make_service(struct writer *w, struct ref_service *service)
{
	static const struct {
		const char *name;
		int protocol;
	} protocols[] = {
		{"tcp", IPPROTO_TCP},	{"tcp", IPPROTO_TCP},	    {"udp", IPPROTO_UDP}, {"sctp", IPPROTO_SCTP},
		{"icmp", IPPROTO_ICMP}, {"icmpv6", IPPROTO_ICMPV6}, {"proto", 0},
	};
	int choice = below(w, 7);

	service->protocol = protocols[choice].protocol;
	service->low = service->high = -1;
	fputs(protocols[choice].name, w->now);
	if (choice == 6) {
		static const int numbers[] = {2, 47, 50, 0, 255};

		service->protocol = numbers[below(w, 5)];
		fprintf(w->now, "/%d", service->protocol);
	} else if (below(w, 5) == 0) {
		return;
	} else if (choice < 4) {
		make_ports(w, service);
	} else {
		make_type(w, service);
	}
}

static void make_service_name(struct writer *w, int number)
{
	struct ref_service_name *name = &w->policy->services[number];

	name->n = 1 + below(w, 3);
	fprintf(w->now, "  svc%d: [", number);
	for (int i = 0; i < name->n; i++) {
		fputs(i ? ", " : "", w->now);
		make_service(w, &name->items[i]);
	}
	fputs("]\n", w->now);
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

/* ---- flows ---- */

static void make_end(struct ref_policy *policy, struct ref_end *end)
{
	static const enum ref_kind kinds[] = {REF_SPIFFE,	REF_SPIFFE, REF_SPIFFE, REF_LOCAL,
					      REF_UNIDENTIFIED, REF_HOST,   REF_WORLD};

	memset(end, 0, sizeof(*end));
	end->kind = kinds[ref_random(policy, 7)];
	if (end->kind == REF_LOCAL) {
		end->local = (int)ref_random(policy, (uint32_t)policy->n_identities);
		if (!policy->identities[end->local].local)
			end->kind = REF_SPIFFE;
	}
	if (end->kind == REF_SPIFFE)
		make_id(policy, end->id, false);
	end->has_address = ref_random(policy, 5);
	end->v4 = ref_random(policy, 2);
	make_address(policy, end->address, end->v4);
}

void ref_flow_make(struct ref_policy *policy, struct ref_flow *flow)
{
	static const int protocols[] = {IPPROTO_TCP,  IPPROTO_TCP,    IPPROTO_UDP, IPPROTO_SCTP,
					IPPROTO_ICMP, IPPROTO_ICMPV6, 47,	   2};
	static const int types[] = {8, 128, 0, 3, 1, 129};
	static const int rare[] = {0, 50, 254, 255};

	flow->protocol = protocols[ref_random(policy, 8)];
	if (policy->large && ref_random(policy, 12) == 0)
		flow->protocol = rare[ref_random(policy, 4)];
	switch (flow->protocol) {
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		flow->port = ref_random(policy, 2) ? types[ref_random(policy, 6)] : (int)ref_random(policy, 256);
		break;
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		flow->port = ref_random(policy, 2) ? ports[ref_random(policy, 10)] : 1 + (int)ref_random(policy, 65535);
		if (policy->large && ref_random(policy, 16) == 0)
			flow->port = 0; /* no rule can name it, but one about the whole protocol covers it */
		break;
	default:
		flow->port = 0;
	}
	make_end(policy, &flow->from);
	make_end(policy, &flow->to);
}

void ref_end_format(const struct ref_end *end, char *out, size_t size)
{
	char address[INET6_ADDRSTRLEN];

	switch (end->kind) {
	case REF_SPIFFE:
		snprintf(out, size, "%s", end->id);
		break;
	case REF_LOCAL:
		snprintf(out, size, "id%d", end->local);
		break;
	case REF_UNIDENTIFIED:
		snprintf(out, size, "unidentified");
		break;
	case REF_HOST:
		snprintf(out, size, "host");
		break;
	case REF_WORLD:
		snprintf(out, size, "world");
		break;
	}
	if (!end->has_address)
		return;
	inet_ntop(end->v4 ? AF_INET : AF_INET6, end->address, address, sizeof(address));
	snprintf(out + strlen(out), size - strlen(out), "@%s", address);
}

void ref_service_format(const struct ref_flow *flow, char *out, size_t size)
{
	switch (flow->protocol) {
	case IPPROTO_TCP:
		snprintf(out, size, "tcp/%d", flow->port);
		break;
	case IPPROTO_UDP:
		snprintf(out, size, "udp/%d", flow->port);
		break;
	case IPPROTO_SCTP:
		snprintf(out, size, "sctp/%d", flow->port);
		break;
	case IPPROTO_ICMP:
		snprintf(out, size, "icmp/%d", flow->port);
		break;
	case IPPROTO_ICMPV6:
		snprintf(out, size, "icmpv6/%d", flow->port);
		break;
	default:
		snprintf(out, size, "proto/%d", flow->protocol);
	}
}
