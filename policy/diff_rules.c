/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "policy/diff_rules.h"

#define OWN_TIER 0x80000000U /* of a tier that has no counterpart: never equal to one of the other policy */

struct finder {
	struct flow_space *space;
	const struct policy *const *policies;
	int64_t now;
	uint32_t *tier_keys[2];
	struct intern keys;
	struct list by_rule[2]; /* key + 1; 0: the rule matches nothing */
	struct list key;	/* in the making */
};

static void finder_free(struct finder *finder)
{
	intern_free(&finder->keys);
	list_free(&finder->by_rule[0]);
	list_free(&finder->by_rule[1]);
	list_free(&finder->key);
}

static bool same_tier(const struct finder *finder, uint32_t old, uint32_t new)
{
	return strcmp(finder->policies[0]->tiers[old].name, finder->policies[1]->tiers[new].name) == 0;
}

/*
 * Tiers correspond by name, as far as they stand in the same order: the longest sequence of names that both policies have.
 * The keys of its members are their numbers in it; every other tier has a key of its own, so that its rules are changed.
 */
static int match_tiers(struct finder *finder, struct arena *arena)
{
	uint32_t n = finder->policies[0]->n_tiers, m = finder->policies[1]->n_tiers, width = m + 1, key = 0;
	uint32_t *longest; /* of the tiers from i and j on */

	finder->tier_keys[0] = arena_array(arena, n, sizeof(uint32_t));
	finder->tier_keys[1] = arena_array(arena, m, sizeof(uint32_t));
	longest = arena_array(arena, ((size_t)n + 1) * width, sizeof(uint32_t));
	if (!finder->tier_keys[0] || !finder->tier_keys[1] || !longest)
		return -ENOMEM;
	for (uint32_t i = n; i-- > 0;)
		for (uint32_t j = m; j-- > 0;) {
			uint32_t skip_old = longest[(i + 1) * width + j], skip_new = longest[i * width + j + 1];

			longest[i * width + j] = same_tier(finder, i, j) ? longest[(i + 1) * width + j + 1] + 1
						 : skip_old > skip_new	 ? skip_old
									 : skip_new;
		}
	for (uint32_t i = 0, j = 0; i < n || j < m;) {
		if (i < n && j < m && same_tier(finder, i, j)) {
			finder->tier_keys[0][i++] = key;
			finder->tier_keys[1][j++] = key++;
		} else if (j == m || (i < n && longest[(i + 1) * width + j] >= longest[i * width + j + 1])) {
			finder->tier_keys[0][i] = OWN_TIER | i << 1;
			i++;
		} else {
			finder->tier_keys[1][j] = OWN_TIER | j << 1 | 1;
			j++;
		}
	}
	return 0;
}

static int push_box(struct list *key, const struct flow_box *box)
{
	for (size_t d = 0; d < FLOW_DIMENSIONS; d++) {
		if (list_push(key, box->dim[d].n) < 0)
			return -ENOMEM;
		for (uint32_t i = 0; i < box->dim[d].n; i++)
			if (list_push(key, box->dim[d].items[i].first) < 0 ||
			    list_push(key, box->dim[d].items[i].last) < 0)
				return -ENOMEM;
	}
	return 0;
}

static int push_rule(struct finder *finder, size_t policy, uint32_t number)
{
	const struct rule *rule = &finder->policies[policy]->rules[number];
	struct flow_box *boxes;
	uint32_t index = 0;
	size_t n;
	int r;

	if (!diff_rule_is_active(rule, finder->now))
		return list_push(&finder->by_rule[policy], 0);
	r = flow_space_select_rule(finder->space, policy, number, &boxes, &n);
	if (r < 0)
		return r;
	finder->key.n = 0;
	if (list_push(&finder->key, finder->tier_keys[policy][rule->tier]) < 0 ||
	    list_push(&finder->key, (uint32_t)rule->priority) < 0 || list_push(&finder->key, rule->action) < 0 ||
	    list_push(&finder->key, rule->directions) < 0 || list_push(&finder->key, rule->audit) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (push_box(&finder->key, &boxes[i]) < 0)
			return -ENOMEM;
	if (n && intern_list(&finder->keys, &finder->key, &index) < 0)
		return -ENOMEM;
	return list_push(&finder->by_rule[policy], n ? index + 1 : 0);
}

/* A rule is changed if no rule of the other policy has its key. */
static int mark_changed(struct diff_rules *rules, const struct finder *finder, struct arena *arena)
{
	unsigned char *in = arena_array(arena, (size_t)finder->keys.n + 1, 1); /* bit by policy */

	for (size_t p = 0; p < 2 && in; p++)
		for (size_t i = 0; i < finder->by_rule[p].n; i++)
			in[finder->by_rule[p].items[i]] |= (unsigned char)(1U << p);
	for (size_t p = 0; p < 2 && in; p++) {
		rules->changed[p] = arena_array(arena, finder->by_rule[p].n, sizeof(bool));
		for (size_t i = 0; i < finder->by_rule[p].n && rules->changed[p]; i++) {
			uint32_t key = finder->by_rule[p].items[i];

			rules->changed[p][i] = key && in[key] != 3;
			rules->n_changed[p] += rules->changed[p][i];
		}
	}
	return in && rules->changed[0] && rules->changed[1] ? 0 : -ENOMEM;
}

int diff_rules_find(struct diff_rules *rules, struct flow_space *space, const struct policy *const policies[2],
		    int64_t now, struct arena *arena)
{
	_cleanup_(finder_free) struct finder finder = {.space = space, .policies = policies, .now = now};
	int r = match_tiers(&finder, arena);

	*rules = (struct diff_rules){.default_changed = policies[0]->default_allow != policies[1]->default_allow};
	for (size_t p = 0; p < 2; p++)
		for (size_t i = 0; i < policies[p]->n_rules && r == 0; i++)
			r = push_rule(&finder, p, (uint32_t)i);
	return r < 0 ? r : mark_changed(rules, &finder, arena);
}
