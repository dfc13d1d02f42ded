/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables that a compiler would never make: refused, where judging by them would read what is not theirs or take a packet's time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bpf/abi.h"
#include "policy/image.h"
#include "policy/image_check.h"
#include "policy/policy.h"

static const char text[] =
	"bulkhead: 1\n"
	"identities: {web: spiffe://td/web, db: spiffe://td/db}\n"
	"networks: {lan: [10.0.0.0/8, \"fd00::/8\"]}\n"
	"rules:\n"
	"  - {name: r1, action: allow, from: web, to: db, service: tcp/1-10, until: 2030-01-01T00:00:00Z}\n"
	"  - {name: r2, action: deny, from: lan, to: lan, service: [tcp/5, udp/5]}\n";

/* A copy of the tables of a good image, with room behind it. */
static struct bh_tables *good_tables(void)
{
	const struct policy_source source = {"p.yaml", text, strlen(text)};
	struct policy_diagnostics *diagnostics;
	struct policy_image *image;
	struct bh_tables *copy = calloc(1, BH_TABLES_BYTES);
	struct policy *policy;
	char *error;
	void *bytes;
	size_t len;

	assert_int_equal(policy_parse(&policy, &diagnostics, &source, 1), 0);
	assert_int_equal(policy_compile(policy, &bytes, &len, &error), 0);
	assert_int_equal(policy_image_open(&image, bytes, len, NULL), 0);
	free(bytes);
	memcpy(copy, policy_image_tables(image, &len),
	       copy ? ((const struct bh_tables *)policy_image_tables(image, &len))->size : 0);
	policy_image_freep(&image);
	policy_freep(&policy);
	policy_diagnostics_freep(&diagnostics);
	assert_null(image_check_tables(copy, copy->size));
	return copy;
}

static void *append(struct bh_tables *head, size_t bytes, uint32_t *offp)
{
	*offp = head->size;
	head->size += (uint32_t)((bytes + 7) & ~(size_t)7);
	assert_true(head->size <= BH_TABLES_BYTES);
	return (unsigned char *)head + *offp;
}

static void refused(struct bh_tables *head)
{
	assert_non_null(image_check_tables(head, head->size));
	free(head);
}

/* A side without a grid of addresses has offsets that nobody looked at. */
static void a_part_by_address_needs_classes_of_addresses(void **state)
{
	(void)state;
	for (uint32_t j = 0; j < BH_JUDGEMENTS; j++)
		for (uint32_t to = 0; to < 2; to++) {
			struct bh_tables *head = good_tables();
			struct bh_side *side =
				&head->side[(j == BH_POSSIBLE ? BH_SIDE_POSSIBLE_FROM : BH_SIDE_FROM) + to];

			assert_true(head->parts[j].n > 0);
			*(to ? &head->parts[j].part[0].to_view : &head->parts[j].part[0].from_view) = BH_VIEW_ADDR;
			side->addr = (struct bh_grid){.index_off = 0xfffffff0, .block_off = 0xfffffff0};
			side->n_class[BH_VIEW_ADDR] = 1;
			refused(head);
		}
}

/* Ranks of the rule r1, each in a tier of its own or all in one. */
static void append_ranks(struct bh_tables *head, uint32_t n, bool tiers)
{
	struct bh_rank *ranks = append(head, n * sizeof(*ranks), &head->rank_off);

	for (uint32_t i = 0; i < n; i++)
		ranks[i] = (struct bh_rank){.cell = 1 | BH_CELL_PASS, .until = 1, .end = tiers ? i + 1 : n};
	head->rank_count = n;
	head->n_rules = n + 1;
}

static void append_chain(struct bh_tables *head, uint32_t n)
{
	struct bh_link *links = append(head, n * sizeof(*links), &head->chain_off);

	/* The last rank stands in the last link's place of a rank. */
	links[1] = (struct bh_link){n - 2, BH_CHAIN_RANK | (n - 1)};
	for (uint32_t i = 2; i < n; i++)
		links[i] = (struct bh_link){n - 1 - i, i - 1};
	head->chain_count = n;
}

static void a_chain_has_an_end_in_sight(void **state)
{
	struct bh_tables *head = good_tables();

	(void)state;
	append_ranks(head, BH_MAX_CHAIN, false);
	append_chain(head, BH_MAX_CHAIN);
	assert_null(image_check_tables(head, head->size));
	append_ranks(head, BH_MAX_CHAIN + 1, false);
	append_chain(head, BH_MAX_CHAIN + 1);
	refused(head);
	head = good_tables();
	append_ranks(head, BH_MAX_RULES - 1, false);
	append_chain(head, BH_MAX_RULES - 1);
	refused(head);
}

static void tiers_are_few_and_follow_each_other(void **state)
{
	struct bh_tables *head = good_tables();
	struct bh_rank *ranks;

	(void)state;
	append_ranks(head, BH_MAX_TIERS, true);
	assert_null(image_check_tables(head, head->size));
	append_ranks(head, BH_MAX_TIERS + 1, true);
	refused(head);
	head = good_tables();
	append_ranks(head, 3, false);
	ranks = (struct bh_rank *)((unsigned char *)head + head->rank_off);
	ranks[0].end = 2; /* within the tier that the next one says it is in */
	refused(head);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_part_by_address_needs_classes_of_addresses),
		cmocka_unit_test(a_chain_has_an_end_in_sight),
		cmocka_unit_test(tiers_are_few_and_follow_each_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
