/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sets of flows in words: what is printed is read back, and must mean the set that it stands for.
 *
 * The sets are pieces of what random policies allow and deny, and unions of such. For each of them peers and services are drawn:
 * the words must have those that the set has, and no others. "IDs like X" may be more than the words can tell, and "and 3 more"
 * is not told at all; all else is exact.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/flow_space.h"
#include "policy/service.h"
#include "tests/reference/compiled/compiled.h"

#ifdef __SANITIZE_ADDRESS__
#define N_PAIRS 40
#else
#define N_PAIRS 200
#endif
#define N_BOXES 40
#define N_DRAWN 40

/* ---- reading the words ---- */

enum answer { NO, YES, PERHAPS };

struct reading {
	const struct ref_policy *names;
	const struct ref_policy *owner; /* of the name of a local peer */
	const struct ref_flow *flow;
	const struct ref_end *end; /* NULL: the service is asked about */
	struct ref_end seen;	   /* the end as the policy of the names sees it */
};

static enum answer answer(bool yes)
{
	return yes ? YES : NO;
}

/* A local peer is what the policy calls the place where it is. */
static void see(struct reading *reading)
{
	const struct ref_end *end = reading->end;

	reading->seen = *end;
	if (end->kind == REF_LOCAL &&
	    (end->local >= reading->names->n_identities ||
	     reading->names->identities[end->local].local != reading->owner->identities[end->local].local))
		reading->seen.kind = REF_UNIDENTIFIED;
}

static bool in_pattern(const char *text, const struct ref_end *end)
{
	static struct ref_policy policy;

	policy.n_identities = 1;
	policy.identities[0].n_patterns = 1;
	assert_true(strlen(text) < sizeof(policy.identities[0].patterns[0]));
	strcpy(policy.identities[0].patterns[0], text);
	return end->kind == REF_SPIFFE && ref_identity_has(&policy, 0, end);
}

static bool in_block(const char *text, const struct ref_end *end)
{
	struct ref_network network = {.n = 1};
	struct ref_end base;
	char copy[80], *slash;

	assert_true(strlen(text) < sizeof(copy));
	strcpy(copy, text);
	slash = strchr(copy, '/');
	if (slash)
		*slash = 0;
	ref_end_parse(copy, &base);
	network.cidrs[0] = (struct ref_cidr){.v4 = base.v4, .prefix = slash ? atoi(slash + 1) : base.v4 ? 32 : 128};
	memcpy(network.cidrs[0].bytes, base.address, 16);
	return ref_network_has(&network, end);
}

static bool at_place(const struct reading *reading, int kind, const char *text)
{
	char place[40];

	snprintf(place, sizeof(place), kind == 1 ? "s%d.service" : "/c/%d", reading->end->local);
	return reading->end->kind == REF_LOCAL && reading->owner->identities[reading->end->local].local == kind &&
	       strcmp(place, text) == 0;
}

static bool in_service(const struct reading *reading, const char *item)
{
	struct ref_rule rule = {.direction = 3};
	struct service_range range, point;
	char text[40];

	if (strncmp(item, "svc", 3) == 0) {
		rule.from = rule.to =
			(struct ref_selector){.n = 1, .peers = {{REF_PEER_BUILTIN, REF_BUILTIN_ANY, NULL}}};
		rule.n_service_names = 1;
		rule.service_names[0] = atoi(item + 3);
		return ref_rule_matches(reading->names, &rule, 1, reading->flow, REF_NOW);
	}
	ref_service_format(reading->flow, text, sizeof(text));
	assert_int_equal(service_parse(&point, text), SERVICE_OK);
	if (service_parse(&range, item) != SERVICE_OK)
		fail_msg("'%s' is no service", item);
	return point.first >= range.first && point.first <= range.last;
}

static enum answer item_has(const struct reading *reading, const char *item)
{
	const struct ref_end *end = &reading->seen;
	int number;

	if (strcmp(item, "any") == 0)
		return YES;
	if (!reading->end)
		return answer(in_service(reading, item));
	if (strcmp(item, "any workload") == 0)
		return answer(end->kind != REF_HOST && end->kind != REF_WORLD);
	if (strcmp(item, "verified") == 0)
		return answer(end->kind == REF_SPIFFE);
	if (strcmp(item, "unidentified") == 0)
		return answer(end->kind == REF_UNIDENTIFIED);
	if (strcmp(item, "unidentified in both policies") == 0)
		return answer(reading->end->kind == REF_UNIDENTIFIED);
	if (strcmp(item, "host") == 0)
		return answer(end->kind == REF_HOST);
	if (strcmp(item, "world") == 0)
		return answer(end->kind == REF_WORLD);
	if (sscanf(item, "id%d", &number) == 1)
		return answer(ref_identity_has(reading->names, number, end));
	if (sscanf(item, "net%d", &number) == 1)
		return answer(ref_network_has(&reading->names->networks[number], end));
	if (strncmp(item, "IDs like ", 9) == 0)
		return end->kind == REF_SPIFFE ? PERHAPS : NO;
	if (strncmp(item, "unit ", 5) == 0)
		return answer(at_place(reading, 1, item + 5));
	if (strncmp(item, "cgroup ", 7) == 0)
		return answer(at_place(reading, 2, item + 7));
	if (strncmp(item, "spiffe://", 9) == 0)
		return answer(in_pattern(item, end));
	return answer(in_block(item, end));
}

static enum answer any_of(const struct reading *reading, const char *list)
{
	char copy[4000], *item, *rest = copy;
	enum answer has = NO;

	assert_true(strlen(list) < sizeof(copy));
	strcpy(copy, list);
	while (rest && has != YES) {
		enum answer one;

		item = rest;
		rest = strstr(rest, ", ");
		if (rest) {
			*rest = 0;
			rest += 2;
		}
		one = item_has(reading, item);
		has = one == NO ? has : one;
	}
	return has;
}

/* "A, B", "A except B, C", "outside A, B". */
static enum answer phrase_has(const struct reading *reading, const char *text)
{
	char copy[4000], *except;
	enum answer without;

	assert_true(strlen(text) < sizeof(copy));
	strcpy(copy, text);
	if (strncmp(copy, "outside ", 8) == 0)
		return answer(any_of(reading, copy + 8) == NO);
	except = strstr(copy, " except ");
	if (!except)
		return any_of(reading, copy);
	*except = 0;
	without = any_of(reading, except + 8);
	assert_int_not_equal(without, PERHAPS);
	return without == YES ? NO : any_of(reading, copy);
}

static enum answer words_have(const struct reading *reading, const char *text)
{
	char copy[4000], *at;
	enum answer who;

	assert_true(strlen(text) < sizeof(copy));
	strcpy(copy, text);
	at = strstr(copy, " at ");
	if (!at)
		return phrase_has(reading, copy);
	*at = 0;
	who = phrase_has(reading, copy);
	return phrase_has(reading, at + 4) == NO ? NO : who;
}

/* ---- asking the set ---- */

struct pair {
	struct ref_policy *ref[2];
	struct ref_compiled compiled[2];
	struct flow_space *space;
	struct flow_box boxes[N_BOXES];
	size_t n;
	struct arena arena;
};

static struct flow_box point_of(const struct pair *pair, size_t owner, const struct ref_flow *flow)
{
	struct policy_test test = {};
	struct service_range service;
	char text[300], *error = NULL;
	struct flow_box *point;
	size_t n;

	ref_end_format(&flow->from, text, sizeof(text));
	assert_int_equal(flow_end_parse(&test.from.one, text, &error), 0);
	ref_end_format(&flow->to, text, sizeof(text));
	assert_int_equal(flow_end_parse(&test.to.one, text, &error), 0);
	ref_service_format(flow, text, sizeof(text));
	assert_int_equal(service_parse(&service, text), SERVICE_OK);
	test.services = &service;
	test.n_services = 1;
	assert_int_equal(flow_space_select_test(pair->space, owner, &test, &point, &n, &error), 0);
	assert_int_equal(n, 1);
	return *point;
}

static bool within(const struct flow_box *box, const struct flow_box *point, int dimension)
{
	const struct spans *set = &box->dim[dimension];

	for (uint32_t i = 0; i < set->n; i++)
		if (set->items[i].first <= point->dim[dimension].items[0].first &&
		    set->items[i].last >= point->dim[dimension].items[0].first)
			return true;
	return false;
}

struct counts {
	unsigned in, out, perhaps, untold;
};

static void check_words(struct counts *counts, const struct reading *reading, const char *text, bool in, uint64_t seed)
{
	enum answer said;

	if (strstr(text, " more")) {
		counts->untold++;
		return;
	}
	said = words_have(reading, text);
	counts->perhaps += said == PERHAPS;
	counts->in += in;
	counts->out += !in;
	if (said == PERHAPS || (said == YES) == in)
		return;
	ref_report(reading->names, reading->flow, seed,
		   reading->end == &reading->flow->from ? "from" : "to, or service");
	fail_msg("the set has%s it; in words it is '%s'", in ? "" : " not", text);
}

static char *words_of(const struct pair *pair, size_t policy, const struct flow_box *box, int part)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (part < 2)
		flow_space_describe_end(pair->space, policy, box, part, out);
	else
		flow_space_describe_services(pair->space, policy, box, out);
	fclose(out);
	return text;
}

static void check_box(const struct pair *pair, size_t policy, const struct flow_box *box, struct counts *counts,
		      uint64_t seed)
{
	char *texts[3];

	for (int part = 0; part < 3; part++)
		texts[part] = words_of(pair, policy, box, part);
	for (int i = 0; i < N_DRAWN; i++) {
		size_t owner = (size_t)i % 2;
		struct ref_flow flow;
		struct flow_box point;

		do
			ref_flow_make(pair->ref[owner], &flow);
		while (!flow.from.has_address || !flow.to.has_address);
		point = point_of(pair, owner, &flow);
		for (int part = 0; part < 3; part++) {
			struct reading reading = {pair->ref[policy], pair->ref[owner], &flow, NULL, {}};
			bool in = within(box, &point, FLOW_SERVICE);

			if (part < 2) {
				reading.end = part ? &flow.to : &flow.from;
				see(&reading);
				in = within(box, &point, part ? FLOW_TO_WHO : FLOW_FROM_WHO) &&
				     within(box, &point, part ? FLOW_TO_WHERE : FLOW_FROM_WHERE);
			}
			check_words(counts, &reading, texts[part], in, seed);
		}
	}
	for (int part = 0; part < 3; part++)
		free(texts[part]);
}

/* ---- sets to put in words ---- */

static int collect(void *context, const struct flow_piece *piece)
{
	struct pair *pair = context;
	/* Once there are enough, some of the later ones in place of others. */
	size_t at = pair->n < N_BOXES ? pair->n++ : ref_random(pair->ref[0], 8 * N_BOXES);

	if (at >= N_BOXES)
		return 0;
	pair->boxes[at] = piece->box;
	for (int d = 0; d < FLOW_DIMENSIONS; d++) {
		struct spans *set = &pair->boxes[at].dim[d];

		set->items = arena_copy(&pair->arena, set->items, set->n * sizeof(*set->items));
	}
	return 0;
}

static void collect_boxes(struct pair *pair)
{
	struct flow_box *boxes;
	char *error = NULL;
	size_t n;

	assert_int_equal(flow_space_everything(pair->space, &boxes, &n), 0);
	for (size_t policy = 0; policy < 2; policy++)
		for (size_t i = 0; i < n; i++)
			assert_int_equal(flow_space_judge(pair->space, policy, &boxes[i], collect, pair, &error), 0);
	/* Some of them joined with others. */
	for (size_t i = 0; i < pair->n; i++)
		for (int d = 0; d < FLOW_DIMENSIONS; d++) {
			const struct flow_box *other = &pair->boxes[ref_random(pair->ref[1], (uint32_t)pair->n)];
			struct spans joined;

			if (ref_random(pair->ref[1], 3))
				continue;
			assert_true(spans_unite(pair->space, &joined, &pair->boxes[i].dim[d], &other->dim[d]));
			pair->boxes[i].dim[d] = joined;
		}
}

static void words_mean_the_set_they_stand_for(void **state)
{
	struct counts counts = {};

	(void)state;
	for (uint64_t seed = 1; seed <= N_PAIRS; seed++) {
		struct pair *pair = calloc(1, sizeof(*pair));
		char *error = NULL;

		for (size_t p = 0; p < 2; p++) {
			pair->ref[p] = ref_policy_new(seed + p * 1000000);
			ref_compile(&pair->compiled[p], pair->ref[p]);
		}
		assert_int_equal(
			flow_space_new(&pair->space,
				       (const struct policy *[]){pair->compiled[0].policy, pair->compiled[1].policy}, 2,
				       REF_NOW, &error),
			0);
		collect_boxes(pair);
		for (size_t i = 0; i < pair->n; i++)
			check_box(pair, i % 2, &pair->boxes[i], &counts, seed);
		flow_space_freep(&pair->space);
		for (size_t p = 0; p < 2; p++) {
			ref_compiled_clear(&pair->compiled[p]);
			ref_policy_free(pair->ref[p]);
		}
		arena_free(&pair->arena);
		free(pair);
	}
	printf("%u in, %u out, %u perhaps, %u untold\n", counts.in, counts.out, counts.perhaps, counts.untold);
	assert_true(counts.in > 30 * N_PAIRS);
	assert_true(counts.out > 30 * N_PAIRS);
	assert_true(counts.perhaps + counts.untold < (counts.in + counts.out) / 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words_mean_the_set_they_stand_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
