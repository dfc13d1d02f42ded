/* SPDX-License-Identifier: Apache-2.0 */
/*
 * diff_text.c - which words? Either policy has names. Those of the new one are always right to use. A name of the old one
 * may say more briefly what was lost ("db" rather than the IDs that have no name any more), but must not be used when the
 * new policy means something else by one of its names.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/diff_text.h"
#include "policy/service.h"

#define OLD 0U
#define NEW 1U

#define MAX_LISTED 50U /* of a comparison that is not complete */

struct writer {
	struct policy_diff *diff;
	const struct policy *const *policies;
	bool old_names; /* may be used too */
	struct arena *arena;
	struct intern ends;	 /* sets of who and where that have been put in words: many changes share them */
	const char **ends_texts; /* by number */
	size_t ends_capacity;
};

/* ---- do both policies mean the same by their names? ---- */

static bool same_ends(const struct flow_box *a, size_t n, const struct flow_box *b, size_t m)
{
	if (n != m)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!spans_equal(&a[i].dim[FLOW_FROM_WHO], &b[i].dim[FLOW_FROM_WHO]) ||
		    !spans_equal(&a[i].dim[FLOW_FROM_WHERE], &b[i].dim[FLOW_FROM_WHERE]))
			return false;
	return true;
}

/* Returns 1 if the same, 0, or -ENOMEM. */
static int same_meaning(const struct writer *writer, bool network, uint32_t old, uint32_t new)
{
	const struct service_range service = {SERVICE_TCP + 1, SERVICE_TCP + 1}; /* no flow has port 0 */
	struct flow_box *boxes[2];
	size_t n[2];

	for (size_t p = 0; p < 2; p++) {
		uint32_t number = p == OLD ? old : new, who = WHO_IDENTITY + number;
		struct selector_term name = {
			.who = &who, .n_who = !network, .networks = &number, .n_networks = network};
		struct selector_term anything = {};
		struct selector from = {&name, 1}, to = {&anything, 1};
		int r = flow_space_select(writer->diff->space, p, &from, &to, &service, 1, &boxes[p], &n[p]);

		if (r < 0)
			return r;
	}
	return same_ends(boxes[0], n[0], boxes[1], n[1]);
}

struct named {
	const char *name;
	bool network;
	uint32_t number;
};

static int compare_named(const void *a, const void *b)
{
	return strcmp(((const struct named *)a)->name, ((const struct named *)b)->name);
}

static struct named *list_names(const struct policy *policy, struct arena *arena, size_t *np)
{
	struct named *names = arena_array(arena, policy->n_identities + policy->n_networks, sizeof(*names));
	size_t n = 0;

	if (!names)
		return NULL;
	for (size_t i = 0; i < policy->n_identities; i++)
		if (!policy->identities[i].unnamed)
			names[n++] = (struct named){policy->identities[i].name, false, (uint32_t)i};
	for (size_t i = 0; i < policy->n_networks; i++)
		names[n++] = (struct named){policy->networks[i].name, true, (uint32_t)i};
	if (n)
		qsort(names, n, sizeof(*names), compare_named);
	*np = n;
	return names;
}

static bool same_services(const struct service *a, const struct service *b)
{
	return a->n_ranges == b->n_ranges &&
	       (!a->n_ranges || memcmp(a->ranges, b->ranges, a->n_ranges * sizeof(*a->ranges)) == 0);
}

/* Returns 1 if every service that both have by name is the same in both, 0, or -ENOMEM. */
static int services_agree(const struct writer *writer)
{
	const struct policy *old = writer->policies[OLD], *new = writer->policies[NEW];
	_cleanup_(intern_free) struct intern names = {};
	uint32_t number;

	for (size_t i = 0; i < old->n_services; i++)
		if (intern_bytes(&names, old->services[i].name, strlen(old->services[i].name), &number) < 0)
			return -ENOMEM;
	for (size_t i = 0; i < new->n_services; i++)
		if (intern_find(&names, new->services[i].name, strlen(new->services[i].name), &number) &&
		    !same_services(&old->services[number], &new->services[i]))
			return 0;
	return 1;
}

/* Returns 1 if every name of a peer that both have means the same in both, 0, or -ENOMEM. */
static int peers_agree(const struct writer *writer)
{
	size_t n, m;
	const struct named *old = list_names(writer->policies[OLD], writer->arena, &n);
	const struct named *new = list_names(writer->policies[NEW], writer->arena, &m);

	if (!old || !new)
		return -ENOMEM;
	for (size_t i = 0, j = 0; i < n && j < m;) {
		int order = strcmp(old[i].name, new[j].name);

		if (order == 0) {
			int same = old[i].network == new[j].network
					   ? same_meaning(writer, old[i].network, old[i].number, new[j].number)
					   : 0;

			if (same != 1)
				return same;
		}
		i += order <= 0;
		j += order >= 0;
	}
	return 1;
}

/* ---- words ---- */

enum part_of_change {
	FROM,
	TO,
	SERVICES,
};

static char *describe(struct writer *writer, size_t policy, const struct flow_box *box, enum part_of_change part)
{
	char *text = NULL, *copy;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	if (part == SERVICES)
		flow_space_describe_services(writer->diff->space, policy, box, out);
	else
		flow_space_describe_end(writer->diff->space, policy, box, part == TO, out);
	copy = fclose(out) == 0 ? arena_copy(writer->arena, text, size) : NULL;
	free(text);
	return copy;
}

/* In the names of the new policy, or of the old one where that is shorter. */
static const char *describe_best(struct writer *writer, const struct flow_box *box, enum part_of_change part)
{
	const char *new = describe(writer, NEW, box, part), *old;

	if (!new || !writer->old_names)
		return new;
	old = describe(writer, OLD, box, part);
	return old && strlen(old) < strlen(new) ? old : new;
}

/* An end, in words; NULL when out of memory. */
static const char *describe_end(struct writer *writer, const struct diff_box *item, const struct flow_box *box, bool to)
{
	const uint32_t key[] = {item->dim[to ? FLOW_TO_WHO : FLOW_FROM_WHO],
				item->dim[to ? FLOW_TO_WHERE : FLOW_FROM_WHERE]};
	uint32_t index;
	int r = intern_bytes(&writer->ends, key, sizeof(key), &index);

	if (r < 0 || array_grow(&writer->ends_texts, &writer->ends_capacity, index, sizeof(char *)) < 0)
		return NULL;
	if (r == 1)
		writer->ends_texts[index] = describe_best(writer, box, to ? TO : FROM);
	return writer->ends_texts[index];
}

static struct policy_diff_rule write_rule(const struct policy *policy, uint32_t number)
{
	const struct rule *rule;

	if (number >= policy->n_rules) {
		bool given = number == FLOW_DEFAULT && policy->has_defaults;

		return (struct policy_diff_rule){
			.name = number == FLOW_DEFAULT ? "default" : "outside any workload",
			.file = given ? policy->source_names[policy->defaults_at.source] : NULL,
			.line = given ? policy->defaults_at.line : 0,
			.allow = number != FLOW_DEFAULT || policy->default_allow,
		};
	}
	rule = &policy->rules[number];
	return (struct policy_diff_rule){
		.name = rule->name,
		.file = policy->source_names[rule->at.source],
		.line = rule->at.line,
		.allow = rule->action == RULE_ALLOW || rule->audit,
	};
}

static const struct policy_diff_rule *write_rules(const struct writer *writer, size_t policy, uint32_t set, size_t *np)
{
	const uint32_t *numbers = intern_get(&writer->diff->memory->changes.rules, set, np);
	struct policy_diff_rule *rules = arena_array(writer->arena, *np, sizeof(*rules));

	for (size_t i = 0; i < *np && rules; i++)
		rules[i] = write_rule(writer->policies[policy], numbers[i]);
	return rules;
}

static int write_example(const struct writer *writer, struct policy_change *change)
{
	char *from, *to, *service;
	int r = flow_space_example(writer->diff->space, change->box, &from, &to, &service);

	if (r < 0)
		return r;
	change->example_from = arena_copy(writer->arena, from, strlen(from));
	change->example_to = arena_copy(writer->arena, to, strlen(to));
	change->example_service = arena_copy(writer->arena, service, strlen(service));
	free(from);
	free(to);
	free(service);
	return 0;
}

static int write_change(struct writer *writer, struct policy_change *change, const struct diff_box *item)
{
	struct flow_box *box = arena_alloc(writer->arena, sizeof(*box));

	if (!box)
		return -ENOMEM;
	diff_box_write(&writer->diff->memory->changes, box, item);
	*change = (struct policy_change){
		.allow = item->allow,
		.from = describe_end(writer, item, box, false),
		.to = describe_end(writer, item, box, true),
		.services = describe_best(writer, box, SERVICES),
		.box = box,
	};
	change->by = write_rules(writer, NEW, item->by, &change->n_by);
	change->before = write_rules(writer, OLD, item->before, &change->n_before);
	return write_example(writer, change);
}

/* What passes now first; then by rule, as the files have them; then by words. */
static int compare_changes(const void *a, const void *b)
{
	const struct policy_change *x = a, *y = b;
	const struct policy_diff_rule *rule_x = x->allow ? x->by : x->before;
	const struct policy_diff_rule *rule_y = y->allow ? y->by : y->before;
	int order = (int)y->allow - (int)x->allow;

	if (!order)
		order = strcmp(rule_x->file ? rule_x->file : "", rule_y->file ? rule_y->file : "");
	if (!order)
		order = (rule_x->line > rule_y->line) - (rule_x->line < rule_y->line);
	if (!order)
		order = strcmp(x->from, y->from);
	if (!order)
		order = strcmp(x->to, y->to);
	return order ? order : strcmp(x->services, y->services);
}

static int write_changes(struct writer *writer, size_t n)
{
	struct policy_diff *diff = writer->diff;
	const struct diff_boxes *boxes = &diff->memory->changes;
	int r = n ? peers_agree(writer) : 0;

	if (r == 1)
		r = services_agree(writer);
	if (r < 0)
		return r;
	writer->old_names = r == 1;
	diff->changes = arena_array(writer->arena, n, sizeof(*diff->changes));
	if (!diff->changes)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		struct policy_change *change = &diff->changes[i];

		if (write_change(writer, change, &boxes->items[i]) < 0 || writer->arena->out_of_memory ||
		    !change->from || !change->to || !change->services)
			return -ENOMEM;
	}
	diff->n_changes = n;
	diff->n_found = boxes->n;
	if (n)
		qsort(diff->changes, n, sizeof(*diff->changes), compare_changes);
	return 0;
}

int diff_write_changes(struct policy_diff *diff, const struct policy *const policies[2])
{
	struct writer writer = {.diff = diff, .policies = policies, .arena = &diff->memory->arena};
	size_t n = diff->memory->changes.n;
	int r = write_changes(&writer, !diff->complete && n > MAX_LISTED ? MAX_LISTED : n);

	intern_free(&writer.ends);
	free(writer.ends_texts);
	return r;
}
