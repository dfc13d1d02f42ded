/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read_rule.c - rules, and the tiers they are in.
 */
#include <errno.h>
#include <string.h>

#include "policy/instant.h"
#include "policy/read.h"

#define DEFAULT_TIER "app"

/* The values of a rule's keys. */
struct rule_nodes {
	const struct node *rule;
	const struct node *name, *tier, *priority, *action, *from, *to, *service, *direction, *log, *mode, *until;
};

/* ---- tiers ---- */

static int find_tier(const struct policy *policy, const char *name)
{
	for (uint32_t i = 0; i < policy->n_tiers; i++)
		if (strcmp(policy->tiers[i].name, name) == 0)
			return (int)i;
	return -1;
}

void read_tiers(struct reader *reader, const struct node *section)
{
	struct policy *policy = reader->policy;
	struct tier tier;

	if (!section)
		return;
	if (reader->has_tiers) {
		reader_error(reader, section, "`tiers` can be declared once in a policy");
		reader_hint(reader, "first declared at %s", reader_where(reader, reader->tiers_at));
		return;
	}
	reader->has_tiers = true;
	reader->tiers_at = section->at;
	policy->n_tiers = 0;
	if (section->kind != NODE_LIST) {
		reader_error(reader, section, "`tiers` must be a list of names, not %s", node_kind_name(section));
		return;
	}
	if (!section->n) {
		reader_error(reader, section, "`tiers` is an empty list");
		reader_hint(reader, "without `tiers` there is one, '" DEFAULT_TIER "'");
	}
	if (section->n > POLICY_MAX_TIERS) {
		reader_error(reader, section->items[POLICY_MAX_TIERS], "the policy has %u tiers, the limit is %u",
			     section->n, POLICY_MAX_TIERS);
		return;
	}
	for (uint32_t i = 0; i < section->n; i++) {
		int other;

		tier = (struct tier){.at = section->items[i]->at};
		if (!read_name(reader, section->items[i], "a tier", POLICY_MAX_NAME, &tier.name))
			continue;
		other = find_tier(policy, tier.name);
		if (other < 0) {
			policy->tiers[policy->n_tiers++] = tier;
			continue;
		}
		reader_error(reader, section->items[i], "duplicate name '%s': it is a tier already", tier.name);
		reader_hint(reader, "declared at %s", reader_where(reader, policy->tiers[other].at));
	}
}

static void read_tier(struct reader *reader, const struct rule_nodes *nodes, struct rule *rule)
{
	const struct policy *policy = reader->policy;
	const char *name = nodes->tier ? read_text(reader, nodes->tier, "`tier`") : DEFAULT_TIER;
	struct suggestion suggestion = {.wrong = name};
	int tier = name ? find_tier(policy, name) : -1;

	if (tier >= 0)
		rule->tier = (uint32_t)tier;
	/* What tiers there are is known only when every file could be read, and the declaration had no mistake. */
	if (tier >= 0 || !name || reader->incomplete || !policy->n_tiers)
		return;
	if (!nodes->tier) {
		reader_error(reader, nodes->rule, "the rule has no `tier`, and there is no tier '" DEFAULT_TIER "'");
		reader_hint(reader, "the tiers are declared at %s", reader_where(reader, reader->tiers_at));
		return;
	}
	reader_error(reader, nodes->tier, "no tier is named '%.100s'", name);
	if (!reader->has_tiers) {
		reader_hint(reader, "tiers are declared in order, first decides first: `tiers: [guardrails, app]`");
		return;
	}
	if (!diagnostics_may_suggest(reader->diagnostics, policy->n_tiers))
		return;
	for (uint32_t i = 0; i < policy->n_tiers; i++)
		suggestion_offer(&suggestion, policy->tiers[i].name);
	if (suggestion.best)
		reader_hint(reader, "did you mean '%s'?", suggestion.best);
	else
		reader_hint(reader, "the tiers are declared at %s", reader_where(reader, reader->tiers_at));
}

/* ---- rules ---- */

static void read_rule_name(struct reader *reader, const struct rule_nodes *nodes, struct rule *rule)
{
	uint32_t number;
	int r;

	if (!nodes->name) {
		reader_error(reader, nodes->rule, "the rule has no `name`");
		return;
	}
	if (!read_name(reader, nodes->name, "a rule", POLICY_MAX_RULE_NAME, &rule->name))
		return;
	if (strcmp(rule->name, "default") == 0) {
		reader_error(reader, nodes->name, "'default' is a built-in name and cannot be defined");
		return;
	}
	r = list_reserve(&reader->rule_owners) < 0
		    ? -ENOMEM
		    : intern_bytes(&reader->rule_names, rule->name, strlen(rule->name), &number);
	if (r < 0)
		reader->arena.out_of_memory = true;
	if (r == 1)
		list_push(&reader->rule_owners, (uint32_t)reader->policy->n_rules);
	if (r != 0)
		return;
	reader_error(reader, nodes->name, "duplicate name '%s': it is a rule already", rule->name);
	number = reader->rule_owners.items[number];
	reader_hint(reader, "defined at %s", reader_where(reader, reader->policy->rules[number].at));
}

static void read_priority(struct reader *reader, const struct node *node, struct rule *rule)
{
	const char *text = read_text(reader, node, "`priority`");
	const char *digits = text && text[0] == '-' ? text + 1 : text;
	size_t len = text ? strlen(digits) : 0;
	int32_t value = 0;

	if (!text)
		return;
	if (!len || strspn(digits, "0123456789") < len || (len > 1 && digits[0] == '0')) {
		reader_error(reader, node, "`priority` must be a whole number, not '%.40s'", text);
		return;
	}
	for (size_t i = 0; i < len && value <= POLICY_MAX_PRIORITY; i++)
		value = value * 10 + (digits[i] - '0');
	if (value > POLICY_MAX_PRIORITY) {
		reader_error(reader, node, "priority %.40s is out of range: it must be -%d to %d", text,
			     POLICY_MAX_PRIORITY, POLICY_MAX_PRIORITY);
		return;
	}
	rule->priority = digits > text ? -value : value;
}

static void report_until(struct reader *reader, const struct node *node, const char *text, enum instant_problem problem)
{
	switch (problem) {
	case INSTANT_NO_ZONE:
		reader_error(reader, node, "`until: %s` has no time zone", text);
		reader_hint(reader, "append Z for UTC, or an offset such as +02:00");
		break;
	case INSTANT_DATE:
		reader_error(reader, node, "`until: %s` has no time", text);
		reader_hint(reader, "the beginning of that day in UTC is %sT00:00:00Z", text);
		break;
	case INSTANT_NO_SUCH:
		reader_error(reader, node, "`until: %s`: there is no such date or time", text);
		break;
	case INSTANT_FRACTION:
		reader_error(reader, node, "`until: %.60s`: parts of a second have no meaning here", text);
		break;
	default:
		reader_error(reader, node, "`until` must be a date and time with a time zone, not '%.60s'", text);
		reader_hint(reader, "such as 2027-01-01T00:00:00Z");
		break;
	}
}

static void read_until(struct reader *reader, const struct node *node, struct rule *rule)
{
	const char *text = read_text(reader, node, "`until`");
	enum instant_problem problem;

	if (!text)
		return;
	problem = instant_parse(&rule->until, text);
	if (problem != INSTANT_OK)
		report_until(reader, node, text, problem);
	else if (rule->until <= 0)
		reader_error(reader, node, "`until: %s` is not after 1970-01-01T00:00:00Z", text);
}

static void read_words(struct reader *reader, const struct rule_nodes *nodes, struct rule *rule)
{
	static const char *const actions[] = {"deny", "pass", "allow"}; /* as enum rule_action */
	static const char *const directions[] = {"egress", "ingress", "both"};
	static const char *const logs[] = {"none", "new", "denied", "all"};
	static const char *const modes[] = {"enforce", "audit"};
	int word;

	if (!nodes->action) {
		reader_error(reader, nodes->rule, "the rule has no `action`: allow, deny or pass");
	} else {
		word = read_word(reader, nodes->action, "`action`", actions, 3);
		rule->action = word < 0 ? RULE_DENY : (enum rule_action)word;
	}
	if (nodes->direction) {
		word = read_word(reader, nodes->direction, "`direction`", directions, 3);
		rule->directions = word < 0 ? rule->directions : (unsigned)word + 1;
	}
	if (nodes->log) {
		word = read_word(reader, nodes->log, "`log`", logs, 4);
		rule->log = word < 0 ? rule->log : (enum rule_log)word;
	}
	if (nodes->mode) {
		rule->audit = read_word(reader, nodes->mode, "`mode`", modes, 2) == 1;
		if (rule->audit && rule->action != RULE_DENY)
			reader_warning(reader, nodes->mode, "`mode: audit` changes nothing: only a deny can be tried");
	}
}

void read_rule(struct reader *reader, const struct node *node)
{
	struct rule_nodes nodes = {.rule = node};
	const struct key keys[] = {
		{"name", &nodes.name},	     {"tier", &nodes.tier},	      {"priority", &nodes.priority},
		{"action", &nodes.action},   {"from", &nodes.from},	      {"to", &nodes.to},
		{"service", &nodes.service}, {"direction", &nodes.direction}, {"log", &nodes.log},
		{"mode", &nodes.mode},	     {"until", &nodes.until},
	};
	struct policy *policy = reader->policy;
	struct rule rule = {
		.at = node->at,
		.directions = RULE_EGRESS | RULE_INGRESS,
		.log = policy->default_log,
	};

	if (array_grow(&policy->rules, &policy->rules_capacity, policy->n_rules, sizeof(rule)) < 0) {
		policy->arena.out_of_memory = true;
		return;
	}
	if (!read_keys(reader, node, "a rule", keys, N_ITEMS(keys)))
		return;
	read_rule_name(reader, &nodes, &rule);
	read_tier(reader, &nodes, &rule);
	if (nodes.priority)
		read_priority(reader, nodes.priority, &rule);
	read_words(reader, &nodes, &rule);
	read_selector(reader, node, "the rule", nodes.from, "from", &rule.from);
	read_selector(reader, node, "the rule", nodes.to, "to", &rule.to);
	read_services(reader, nodes.service, &rule.services, &rule.n_services);
	if (nodes.until)
		read_until(reader, nodes.until, &rule);
	policy->rules[policy->n_rules++] = rule;
}
