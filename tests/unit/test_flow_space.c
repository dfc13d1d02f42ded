/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine of exact answers against a slow evaluator that looks at every rule in turn.
 *
 * Random policies use every feature of the language. All flows of a space are judged as boxes: the pieces must be apart
 * from each other and leave nothing out; one flow of each, and a few hundred named ones, must get the verdict and the rule
 * that the evaluator finds. It works on strings and numbers of its own and shares no code with the engine.
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

#include "policy/flow_space.h"

#define N_POLICIES 3000
#define NOW 1000

static uint64_t random_state;

static uint32_t rnd(uint32_t n)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (uint32_t)((random_state * 0x2545f4914f6cdd1dULL) >> 33) % n;
}

/* ---- a peer, and what a policy says of it, by hand ---- */

struct peer {
	const char *kind; /* "spiffe", "place", "unidentified", "host", "world" */
	const char *text; /* ID; path or unit of a place */
	const char *address;
};

static const char *const ids[] = {
	"spiffe://a.example/web",	  "spiffe://a.example/db",	   "spiffe://a.example/ns/x/sa/web",
	"spiffe://a.example/ns/y/sa/web", "spiffe://a.example/ns/x/sa/db", "spiffe://a.example/ns/x",
	"spiffe://b.example/web",	  "spiffe://c.example/any/thing",
};
static const char *const patterns[] = {
	"spiffe://a.example/web",	  "spiffe://a.example/db",	  "spiffe://a.example/**",
	"spiffe://a.example/ns/*/sa/web", "spiffe://a.example/ns/x/**",	  "spiffe://b.example/*",
	"spiffe://a.example/*",		  "spiffe://a.example/ns/x/sa/*",
};
static const char *const places[] = {"one.service", "two.service", "/deep", "/deep/er", "/deep/er/still"};
static const char *const addresses[] = {
	NULL, "10.0.0.1", "10.1.2.3", "192.0.2.1", "198.51.100.7", "2001:db8::1", "2001:db8:1::1", "fe80::1",
};
static const char *const cidrs[] = {
	"10.0.0.0/8", "10.1.0.0/16",   "192.0.2.0/24",	  "0.0.0.0/0",
	"::/0",	      "2001:db8::/32", "2001:db8:1::/48", "10.0.0.1",
};
static const uint32_t points[] = {
	SERVICE_TCP + 22, SERVICE_TCP + 80,    SERVICE_TCP + 65535, SERVICE_UDP + 1,	SERVICE_UDP + 53,
	SERVICE_ICMP + 8, SERVICE_ICMP6 + 128, SERVICE_SCTP + 9,    SERVICE_PROTO + 47,
};

#define N(array) (sizeof(array) / sizeof(array[0]))

static bool slow_pattern(const char *pattern, const char *id)
{
	for (;;) {
		size_t n = strcspn(pattern, "/"), m = strcspn(id, "/");

		if (strcmp(pattern, "**") == 0)
			return true;
		if (!(n == 1 && *pattern == '*') && (n != m || memcmp(pattern, id, n) != 0))
			return false;
		if (!pattern[n] || !id[m])
			return !pattern[n] && !id[m];
		pattern += n + 1;
		id += m + 1;
	}
}

/* The identity that has the nearest place, or -1. */
static int slow_owner(const struct policy *policy, const char *place)
{
	size_t best = 0;
	int owner = -1;

	for (size_t i = 0; i < policy->n_identities; i++)
		for (uint32_t j = 0; j < policy->identities[i].n_places; j++) {
			const char *path = policy->identities[i].places[j].path;
			size_t n = strlen(path);
			bool within = strncmp(place, path, n) == 0 && (!place[n] || (*place == '/' && place[n] == '/'));

			if (within && n > best) {
				best = n;
				owner = (int)i;
			}
		}
	return owner;
}

static bool slow_identity(const struct policy *policy, uint32_t index, const struct peer *peer);

static bool slow_atom(const struct policy *policy, uint32_t atom, const struct peer *peer)
{
	bool place = strcmp(peer->kind, "place") == 0;

	switch (atom) {
	case WHO_UNIDENTIFIED:
		return strcmp(peer->kind, "unidentified") == 0 || (place && slow_owner(policy, peer->text) < 0);
	case WHO_HOST:
		return strcmp(peer->kind, "host") == 0;
	case WHO_WORLD:
		return strcmp(peer->kind, "world") == 0;
	case WHO_VERIFIED:
		return strcmp(peer->kind, "spiffe") == 0;
	default:
		return slow_identity(policy, atom - WHO_IDENTITY, peer);
	}
}

static bool slow_identity(const struct policy *policy, uint32_t index, const struct peer *peer)
{
	const struct identity *identity = &policy->identities[index];
	bool spiffe = strcmp(peer->kind, "spiffe") == 0;
	bool local = strcmp(peer->kind, "place") == 0 && slow_owner(policy, peer->text) >= 0;

	if (!spiffe && !local)
		return false;
	switch (identity->op) {
	case IDENTITY_BASE:
		for (uint32_t i = 0; spiffe && i < identity->n_patterns; i++)
			if (slow_pattern(identity->patterns[i].text + 9, peer->text + 9))
				return true;
		return local && slow_owner(policy, peer->text) == (int)index;
	case IDENTITY_ANY:
		for (uint32_t i = 0; i < identity->n_operands; i++)
			if (slow_atom(policy, identity->operands[i], peer))
				return true;
		return false;
	case IDENTITY_ALL:
		for (uint32_t i = 0; i < identity->n_operands; i++)
			if (!slow_atom(policy, identity->operands[i], peer))
				return false;
		return true;
	case IDENTITY_NOT:
		return !slow_atom(policy, identity->operands[0], peer);
	}
	return false;
}

/* By bytes: an address is in a range of its own family only. */
static bool slow_in_range(const char *text, const struct address_range *range)
{
	unsigned char bytes[16] = {0}, first[16], last[16];
	bool v4 = !strchr(text, ':');

	assert_int_equal(inet_pton(v4 ? AF_INET : AF_INET6, text, v4 ? bytes + 12 : bytes), 1);
	if (v4)
		bytes[10] = bytes[11] = 0xff;
	for (int i = 0; i < 16; i++) {
		first[i] = (unsigned char)(range->first >> (120 - 8 * i));
		last[i] = (unsigned char)(range->last >> (120 - 8 * i));
	}
	return range->v4 == v4 && memcmp(bytes, first, 16) >= 0 && memcmp(bytes, last, 16) <= 0;
}

static bool slow_network(const struct policy *policy, uint32_t network, const struct peer *peer)
{
	for (uint32_t i = 0; peer->address && i < policy->networks[network].n_ranges; i++)
		if (slow_in_range(peer->address, &policy->networks[network].ranges[i]))
			return true;
	return false;
}

static bool slow_selector(const struct policy *policy, const struct selector *selector, const struct peer *peer)
{
	for (uint32_t i = 0; i < selector->n_terms; i++) {
		const struct selector_term *term = &selector->terms[i];
		bool who = !term->n_who, where = !term->n_networks;

		for (uint32_t j = 0; j < term->n_who; j++)
			who = who || slow_atom(policy, term->who[j], peer);
		for (uint32_t j = 0; j < term->n_networks; j++)
			where = where || slow_network(policy, term->networks[j], peer);
		if (who && where)
			return true;
	}
	return false;
}

static bool slow_matches(const struct policy *policy, const struct rule *rule, const struct peer *from,
			 const struct peer *to, uint32_t point, unsigned direction)
{
	bool service = false;

	if (!(rule->directions & direction) || (rule->until && rule->until <= NOW))
		return false;
	for (uint32_t i = 0; i < rule->n_services; i++)
		service = service || (point >= rule->services[i].first && point <= rule->services[i].last);
	return service && slow_selector(policy, &rule->from, from) && slow_selector(policy, &rule->to, to);
}

/* The rule that decides within a tier, or -1. */
static int slow_tier(const struct policy *policy, uint32_t tier, const struct peer *from, const struct peer *to,
		     uint32_t point, unsigned direction)
{
	int best = -1;

	for (size_t i = 0; i < policy->n_rules; i++) {
		const struct rule *rule = &policy->rules[i];

		if (rule->tier != tier || !slow_matches(policy, rule, from, to, point, direction))
			continue;
		if (best < 0 || rule->priority < policy->rules[best].priority ||
		    (rule->priority == policy->rules[best].priority &&
		     (rule->action < policy->rules[best].action ||
		      (rule->action == policy->rules[best].action && !rule->audit && policy->rules[best].audit))))
			best = (int)i;
	}
	return best;
}

static bool slow_judge(const struct policy *policy, const struct peer *from, const struct peer *to, uint32_t point,
		       unsigned direction, uint32_t *rulep)
{
	const char *kind = direction == RULE_EGRESS ? from->kind : to->kind;

	*rulep = FLOW_UNJUDGED;
	if (strcmp(kind, "host") == 0 || strcmp(kind, "world") == 0)
		return true;
	*rulep = FLOW_DEFAULT;
	for (uint32_t tier = 0; tier < policy->n_tiers; tier++) {
		int rule = slow_tier(policy, tier, from, to, point, direction);

		if (rule < 0 || policy->rules[rule].action == RULE_PASS)
			continue;
		*rulep = (uint32_t)rule;
		return policy->rules[rule].action == RULE_ALLOW || policy->rules[rule].audit;
	}
	return policy->default_allow;
}

/* ---- random policies ---- */

static const char *const peer_words[] = {"any", "verified", "unidentified", "host", "world"};

static void write_selector(FILE *out, const char *key, unsigned n_identities, unsigned n_networks)
{
	uint32_t n = rnd(4) ? 1 : 2 + rnd(2), kind = rnd(5);

	if (kind == 0) {
		fprintf(out, "    %s: {identity: i%u, network: n%u}\n", key, rnd(n_identities), rnd(n_networks));
		return;
	}
	fprintf(out, "    %s: [", key);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t what = rnd(10);

		fputs(i ? ", " : "", out);
		if (what < 2)
			fputs(peer_words[rnd(5)], out);
		else if (what < 7)
			fprintf(out, "i%u", rnd(n_identities));
		else
			fprintf(out, "n%u", rnd(n_networks));
	}
	fputs("]\n", out);
}

static char *random_text(void)
{
	static const char *const services[] = {"tcp/22", "tcp", "udp/53", "[tcp/80-443, udp]", "icmp", "tcp/1-100"};
	unsigned n_patterns = 2 + rnd(3), n_places = rnd(4), n_networks = 1 + rnd(4), n_rules = rnd(12), used = 0;
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	fputs("bulkhead: 1\nidentities:\n", out);
	for (unsigned i = 0; i < n_patterns; i++)
		fprintf(out, "  i%u: [\"%s\", \"%s\"]\n", i, patterns[rnd(N(patterns))], patterns[rnd(N(patterns))]);
	for (unsigned i = 0; i < n_places; i++) {
		uint32_t place = rnd(N(places));

		while (used & 1U << place)
			place = (place + 1) % N(places);
		used |= 1U << place;
		fprintf(out, "  i%u: [{%s: %s}%s]\n", n_patterns + i, places[place][0] == '/' ? "cgroup" : "unit",
			places[place], rnd(4) ? "" : ", \"spiffe://a.example/db\"");
	}
	fputs("networks:\n", out);
	for (unsigned i = 0; i < n_networks; i++)
		fprintf(out, "  n%u: [\"%s\", \"%s\"]\n", i, cidrs[rnd(N(cidrs))], cidrs[rnd(N(cidrs))]);
	fprintf(out, "defaults: {action: %s}\nrules:\n", rnd(4) ? "deny" : "allow");
	for (unsigned i = 0; i < n_rules + 1; i++) {
		fprintf(out, "  - name: r%u\n    action: %s\n", i, rnd(2) ? "allow" : "deny");
		write_selector(out, "from", n_patterns + n_places, n_networks);
		write_selector(out, "to", n_patterns + n_places, n_networks);
		if (rnd(3))
			fprintf(out, "    service: %s\n", services[rnd(N(services))]);
		if (!rnd(3))
			fprintf(out, "    direction: %s\n", rnd(2) ? "egress" : "ingress");
	}
	fclose(out);
	return text;
}

/* Tiers, priorities, pass, audit, deadlines and set algebra, whatever the reader can read. */
static void enrich(struct policy *policy)
{
	static struct tier tiers[3] = {{.name = "first"}, {.name = "app"}, {.name = "last"}};
	static const enum identity_op ops[] = {IDENTITY_ANY, IDENTITY_ALL, IDENTITY_NOT};
	uint32_t n = (uint32_t)policy->n_identities, *order;

	policy->tiers = tiers;
	policy->n_tiers = 1 + rnd(3);
	for (uint32_t i = 0; i < policy->n_rules; i++) {
		struct rule *rule = &policy->rules[i];

		rule->tier = rnd(policy->n_tiers);
		rule->priority = rnd(2) ? 0 : (int32_t)rnd(5) - 2;
		if (!rnd(4))
			rule->action = RULE_PASS;
		rule->audit = rule->action == RULE_DENY && !rnd(5);
		if (!rnd(6))
			rule->until = rnd(2) ? NOW : NOW + 1;
	}
	/* The last ones become what others are made of; they may refer to each other downwards. */
	order = arena_array(&policy->arena, n, sizeof(*order));
	for (uint32_t i = 0; i < n; i++)
		order[i] = n - 1 - i;
	policy->identity_order = order;
	for (uint32_t i = 0; i + 2 < n; i++) {
		struct identity *identity = &policy->identities[i];
		uint32_t *operands = arena_array(&policy->arena, 2, sizeof(*operands));

		if (rnd(3) || identity->n_places)
			continue;
		identity->op = ops[rnd(3)];
		identity->n_patterns = 0;
		identity->operands = operands;
		identity->n_operands = identity->op == IDENTITY_NOT ? 1 : 2;
		for (uint32_t k = 0; k < 2; k++)
			operands[k] = rnd(5) ? WHO_IDENTITY + i + 1 + rnd(n - i - 1) : WHO_VERIFIED;
	}
}

static struct policy *policy_of(const char *text)
{
	struct policy_source source = {"test.yaml", text, strlen(text)};
	struct policy_diagnostics *diagnostics;
	struct policy *policy;

	if (policy_parse(&policy, &diagnostics, &source, 1) != 0) {
		policy_diagnostics_print(diagnostics, stderr, false);
		fail();
	}
	policy_diagnostics_freep(&diagnostics);
	return policy;
}

/* ---- comparing ---- */

static struct flow_end end_of(const struct policy *policy, const struct peer *peer)
{
	struct flow_end end = {.kind = FLOW_END_WORLD};
	char *error;

	if (strcmp(peer->kind, "place") == 0) {
		int owner = slow_owner(policy, peer->text);

		end.kind = FLOW_END_UNIDENTIFIED;
		if (owner >= 0) {
			end.kind = FLOW_END_NAME;
			snprintf(end.id, sizeof(end.id), "%s", policy->identities[owner].name);
		}
	} else {
		assert_int_equal(flow_end_parse(&end, peer->text ? peer->text : peer->kind, &error), 0);
	}
	if (peer->address) {
		end.has_address = true;
		assert_int_equal(address_parse(&end.address, peer->address, strlen(peer->address)), ADDRESS_OK);
	}
	return end;
}

struct expected {
	const struct policy *policy;
	struct peer from, to;
	uint32_t point;
	unsigned n;
};

static void check_verdict(const struct expected *expected, const struct flow_piece *piece)
{
	uint32_t egress, ingress;
	bool egress_allow =
		slow_judge(expected->policy, &expected->from, &expected->to, expected->point, RULE_EGRESS, &egress);
	bool ingress_allow =
		slow_judge(expected->policy, &expected->from, &expected->to, expected->point, RULE_INGRESS, &ingress);

	assert_int_equal(piece->egress_rule, egress);
	assert_int_equal(piece->ingress_rule, ingress);
	assert_int_equal(piece->egress_allow, egress_allow);
	assert_int_equal(piece->ingress_allow, ingress_allow);
	assert_int_equal(piece->allow, egress_allow && ingress_allow);
}

static int check_one(void *context, const struct flow_piece *piece)
{
	struct expected *expected = context;

	expected->n++;
	check_verdict(expected, piece);
	return 0;
}

static struct peer random_peer(void)
{
	struct peer peer = {.address = addresses[rnd(N(addresses))]};

	switch (rnd(8)) {
	case 0:
		peer.kind = "unidentified";
		break;
	case 1:
		peer.kind = "host";
		break;
	case 2:
		peer.kind = "world";
		break;
	case 3:
	case 4:
		peer.kind = "place";
		peer.text = places[rnd(N(places))];
		break;
	default:
		peer.kind = "spiffe";
		peer.text = ids[rnd(N(ids))];
	}
	return peer;
}

/* Named flows, one at a time. */
static void check_flows(struct flow_space *space, size_t index, const struct policy *policy)
{
	for (int i = 0; i < 60; i++) {
		struct expected expected = {.policy = policy, .from = random_peer(), .to = random_peer()};
		struct service_range service;
		struct policy_test test = {.services = &service, .n_services = 1};
		struct flow_box *boxes;
		char *error;
		size_t n;

		expected.point = points[rnd(N(points))];
		service = (struct service_range){expected.point, expected.point};
		test.from.one = end_of(policy, &expected.from);
		test.to.one = end_of(policy, &expected.to);
		assert_int_equal(flow_space_select_test(space, index, &test, &boxes, &n, &error), 0);
		assert_int_equal(n, 1);
		assert_int_equal(flow_space_judge(space, index, &boxes[0], check_one, &expected, &error), 0);
		assert_true(expected.n >= 1);
	}
}

static bool apart(const struct flow_box *a, const struct flow_box *b)
{
	for (int d = 0; d < FLOW_DIMENSIONS; d++) {
		bool meet = false;

		for (uint32_t i = 0; i < a->dim[d].n; i++)
			for (uint32_t k = 0; k < b->dim[d].n; k++)
				meet = meet || (a->dim[d].items[i].first <= b->dim[d].items[k].last &&
						b->dim[d].items[k].first <= a->dim[d].items[i].last);
		if (!meet)
			return true;
	}
	return false;
}

static unsigned __int128 volume(const struct flow_box *box)
{
	unsigned __int128 volume = 1;

	for (int d = 0; d < FLOW_DIMENSIONS; d++) {
		uint64_t n = 0;

		for (uint32_t i = 0; i < box->dim[d].n; i++) {
			assert_true(box->dim[d].items[i].first <= box->dim[d].items[i].last);
			assert_true(!i || box->dim[d].items[i].first > box->dim[d].items[i - 1].last + 1);
			n += box->dim[d].items[i].last - box->dim[d].items[i].first + 1;
		}
		volume *= n;
	}
	return volume;
}

struct collected {
	struct flow_space *space;
	const struct policy *policy;
	size_t index;
	bool examples; /* the names of an example are those of this policy */
	struct flow_box boxes[20000];
	size_t n;
	unsigned __int128 volume;
	struct arena arena;
};

/* Takes "ID@ADDRESS" apart again. */
static struct peer peer_of(const struct policy *policy, char *text)
{
	struct peer peer = {.text = text};
	char *at = strrchr(text, '@');

	if (at) {
		*at = 0;
		peer.address = at + 1;
	}
	peer.kind = strncmp(text, "spiffe://", 9) == 0 ? "spiffe" : "world";
	if (strcmp(text, "unidentified") == 0 || strcmp(text, "host") == 0)
		peer.kind = text;
	for (size_t i = 0; i < policy->n_identities; i++)
		if (policy->identities[i].n_places && strcmp(policy->identities[i].name, text) == 0) {
			peer.kind = "place";
			peer.text = policy->identities[i].places[0].path;
		}
	if (!strcmp(peer.kind, "world") && !at && strcmp(text, "world") != 0)
		peer.address = text;
	return peer;
}

static void check_example(struct collected *all, const struct flow_piece *piece)
{
	struct expected expected = {.policy = all->policy, .point = piece->box.dim[FLOW_SERVICE].items[0].first};
	char *from, *to, *service;

	assert_int_equal(flow_space_example(all->space, &piece->box, &from, &to, &service), 0);
	expected.from = peer_of(all->policy, from);
	expected.to = peer_of(all->policy, to);
	check_verdict(&expected, piece);
	free(from);
	free(to);
	free(service);
}

static int collect(void *context, const struct flow_piece *piece)
{
	struct collected *all = context;
	struct flow_box *box = &all->boxes[all->n++];

	assert_true(all->n < N(all->boxes));
	*box = piece->box;
	for (int d = 0; d < FLOW_DIMENSIONS; d++)
		box->dim[d].items = arena_copy(&all->arena, box->dim[d].items, box->dim[d].n * sizeof(struct span));
	all->volume += volume(box);
	if (all->examples)
		check_example(all, piece);
	return 0;
}

/* All flows, in pieces. */
static void check_everything(struct flow_space *space, size_t index, const struct policy *policy, bool examples)
{
	struct collected *all = calloc(1, sizeof(*all));
	unsigned __int128 whole = 0;
	struct flow_box *boxes;
	char *error;
	size_t n;

	*all = (struct collected){.space = space, .policy = policy, .index = index, .examples = examples};
	assert_int_equal(flow_space_everything(space, &boxes, &n), 0);
	for (size_t i = 0; i < n; i++) {
		whole += volume(&boxes[i]);
		assert_int_equal(flow_space_judge(space, index, &boxes[i], collect, all, &error), 0);
	}
	assert_true(whole == all->volume);
	for (size_t i = 0; i < all->n && i < 400; i++)
		for (size_t k = 0; k < i; k++)
			assert_true(apart(&all->boxes[i], &all->boxes[k]));
	arena_free(&all->arena);
	free(all);
}

static void every_piece_is_judged_as_the_language_says(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= N_POLICIES; seed++) {
		struct flow_space *space;
		struct policy *policy;
		char *text, *error;

		random_state = seed * 0x9e3779b97f4a7c15ULL;
		text = random_text();
		policy = policy_of(text);
		enrich(policy);
		assert_int_equal(flow_space_new(&space, (const struct policy *[]){policy}, 1, NOW, &error), 0);
		check_flows(space, 0, policy);
		if (seed % 3 == 0)
			check_everything(space, 0, policy, true);
		flow_space_freep(&space);
		policy_freep(&policy);
		free(text);
	}
}

static void two_policies_have_one_space(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= N_POLICIES / 3; seed++) {
		struct policy *policies[2];
		struct flow_space *space;
		char *texts[2], *error;

		random_state = (seed + N_POLICIES) * 0x9e3779b97f4a7c15ULL;
		for (int i = 0; i < 2; i++) {
			texts[i] = random_text();
			policies[i] = policy_of(texts[i]);
			enrich(policies[i]);
		}
		assert_int_equal(flow_space_new(&space, (const struct policy *const *)policies, 2, NOW, &error), 0);
		for (size_t i = 0; i < 2; i++) {
			check_flows(space, i, policies[i]);
			if (seed % 4 == 0)
				check_everything(space, i, policies[i], false);
		}
		flow_space_freep(&space);
		for (int i = 0; i < 2; i++) {
			policy_freep(&policies[i]);
			free(texts[i]);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_piece_is_judged_as_the_language_says),
		cmocka_unit_test(two_policies_have_one_space),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
