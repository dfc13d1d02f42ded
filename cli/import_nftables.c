/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/import_nftables.h"
#include "cli/nft_match.h"
#include "cli/nft_ruleset.h"
#include "policy/import_draft.h"

#define MAX_JUMPS 16U	    /* one within the other, as the kernel has it */
#define MAX_STEPS 1000000U  /* rules followed, jumps counted in full */
#define MAX_BASE_CHAINS 15U /* a tier each, and one for what none filters */

enum walk_result {
	WALK_ON,     /* some of the packets go on */
	WALK_DONE,   /* all of them have their verdict */
	WALK_RETURN, /* all of them go back to where the chain was jumped from */
};

struct importer {
	const struct import_nftables *import;
	struct nft_ruleset ruleset;
	struct draft *draft;
	const char **subjects;
	size_t n_subjects;
	unsigned steps;
	const struct nft_chain *base[MAX_BASE_CHAINS];
	const char *tiers[MAX_BASE_CHAINS + 1];
	size_t n_base;
};

/* A walk through one base chain. */
struct walk {
	struct importer *importer;
	const struct nft_chain *base;
	struct nft_matcher matcher;
	const char *tier;
	enum rule_action accept; /* allow, or pass to the next chain */
	bool ingress;
	int32_t priority;
	bool keeps_replies; /* a rule accepts what is established */
};

/* Where a walk is. */
struct nft_place {
	const struct nft_chain *chain;
	const json_t *rule;	      /* NULL: the chain's policy */
	const struct nft_box *in;     /* what came into the chain */
	const struct nft_place *from; /* of a jump */
	unsigned depth;
};

/* ---- messages ---- */

static long long handle_of(const json_t *rule)
{
	return (long long)json_integer_value(json_object_get(rule, "handle"));
}

static const char *origin_of(struct importer *importer, const struct nft_place *place)
{
	struct arena *arena = &importer->ruleset.arena;
	const char *comment = json_string_value(json_object_get(place->rule, "comment"));
	const struct nft_chain *chain = place->chain;
	const char *text = arena_printf(arena, "%s: %s %s %s", importer->import->source.name, chain->family,
					chain->table, chain->name);

	if (text && place->rule)
		text = arena_printf(arena, "%s, handle %lld%s%.200s", text, handle_of(place->rule), comment ? ": " : "",
				    comment ? comment : "");
	else if (text)
		text = arena_printf(arena, "%s, policy", text);
	for (const struct nft_place *from = place->from; text && from; from = from->from)
		text = arena_printf(arena, "%s (jumped to from %s, handle %lld)", text, from->chain->name,
				    handle_of(from->rule));
	return text;
}

static void report(struct walk *walk, const struct nft_place *place, const json_t *expression, const char *why)
{
	struct policy_diagnostics *diagnostics = walk->importer->ruleset.diagnostics;
	const struct nft_chain *chain = place->chain;
	char *text = json_dumps(expression, JSON_COMPACT | JSON_ENCODE_ANY);

	diagnostics_error(diagnostics, (struct position){}, "%s %s %s, handle %lld: %.300s cannot be imported: %s",
			  chain->family, chain->table, chain->name, handle_of(place->rule), text ? text : "", why);
	free(text);
}

static void note(struct walk *walk, const struct nft_place *place, const char *what)
{
	const char *origin = origin_of(walk->importer, place);
	const char *text = origin ? arena_printf(&walk->importer->ruleset.arena, "%s\n%s", origin, what) : NULL;

	draft_comment(walk->importer->draft, text ? text : what);
}

/* ---- rules ---- */

/* The name of a set of addresses, told the shorter way: what is in it, or what of its family is not. */
static const char *network_of(struct importer *importer, struct nft_set set, const char *name)
{
	struct arena *arena = &importer->ruleset.arena;
	struct address_range *blocks, *holes, *whole;
	size_t n = nft_set_blocks(arena, set, &blocks), n_holes;
	struct nft_set family;

	if (!blocks || !n)
		return NULL;
	family = nft_set_addresses(blocks[0].v4 ? NFT_V4 : NFT_V6);
	n_holes = nft_set_blocks(arena, nft_set_subtract(arena, family, set), &holes);
	if (n_holes && n_holes + 1 < n && blocks[0].v4 == blocks[n - 1].v4) {
		nft_set_blocks(arena, family, &whole);
		return draft_network(importer->draft, name, whole, 1, holes, n_holes, NULL);
	}
	return draft_network(importer->draft, name, blocks, n, NULL, 0, NULL);
}

/* Is this all that it can be, beside a set of the other end? Both ends of a flow are of one family. */
static bool is_unbounded(struct importer *importer, struct nft_set set, struct nft_set other)
{
	if (nft_set_equal(set, nft_set_addresses(NFT_BOTH)))
		return true;
	for (enum nft_family family = NFT_V4; family <= NFT_V6; family++) {
		struct nft_set whole = nft_set_addresses(family);

		if (nft_set_equal(set, whole) && !nft_set_subtract(&importer->ruleset.arena, other, whole).n)
			return true;
	}
	return false;
}

/* Writes what happens to a box of first packets. */
static void write_rule(struct walk *walk, const char *name, const char *origin, const struct nft_box *box,
		       enum rule_action action)
{
	struct importer *importer = walk->importer;
	enum nft_end ours = walk->ingress ? NFT_DESTINATION : NFT_SOURCE, peer = !ours;
	bool everywhere = is_unbounded(importer, box->ends[ours], box->ends[peer]);
	bool anybody = is_unbounded(importer, box->ends[peer], box->ends[ours]) &&
		       (!everywhere || nft_set_equal(box->ends[peer], nft_set_addresses(NFT_BOTH)));
	const char *here = NULL, *there = NULL;
	struct draft_rule rule = {
		.name = name,
		.origin = origin,
		.tier = walk->tier,
		.priority = walk->priority++,
		.action = action,
		.directions = walk->ingress ? RULE_INGRESS : RULE_EGRESS,
	};
	struct draft_end subject = {.who = importer->subjects, .n_who = importer->n_subjects, .both = true}, end = {};
	struct service_range *services;

	if (!everywhere) {
		here = network_of(importer, box->ends[ours], box->set_names[ours]);
		subject.where = &here;
		subject.n_where = 1;
	}
	if (!anybody) {
		there = network_of(importer, box->ends[peer], box->set_names[peer]);
		end.where = &there;
		end.n_where = 1;
	}
	if (!nft_set_equal(box->services, nft_set_services())) {
		rule.n_services = nft_set_ranges(&importer->ruleset.arena, box->services, &services);
		rule.services = services;
		if (!rule.n_services)
			return;
	}
	if ((!everywhere && !here) || (!anybody && !there) || !name || !origin) {
		importer->ruleset.arena.out_of_memory = true;
		return;
	}
	rule.from = walk->ingress ? end : subject;
	rule.to = walk->ingress ? subject : end;
	draft_rule(importer->draft, &rule);
}

/*
 * What a verdict means for flows. A packet that is not the first of a flow belongs to it: to let it pass says nothing more,
 * and to drop it cannot be said. Nothing of an invalid packet makes a flow.
 */
static void take_verdict(struct walk *walk, const struct nft_place *place, const json_t *expression,
			 const struct nft_box *box, bool accept)
{
	struct arena *arena = &walk->importer->ruleset.arena;
	const char *name, *origin;

	walk->keeps_replies |= accept && (box->states & NFT_ESTABLISHED);
	if (!(box->states & NFT_NEW)) {
		if (accept && !(box->states & (NFT_INVALID | NFT_UNTRACKED)))
			note(walk, place, "Replies and what is related belong to their flow: nothing to import.");
		else if (!accept && box->states == NFT_INVALID)
			note(walk, place, "What is invalid begins no flow: nothing to import.");
		else
			report(walk, place, expression, "of the state it asks for, a policy can say nothing else");
		return;
	}
	if (place->rule)
		name = arena_printf(arena, "%s.%s.%lld", place->chain->table, place->chain->name,
				    handle_of(place->rule));
	else
		name = arena_printf(arena, "%s.%s.policy", place->chain->table, place->chain->name);
	origin = origin_of(walk->importer, place);
	/* A sender is told here by an error of its own, or not at all. */
	if (origin && json_object_get(expression, "reject"))
		origin = arena_printf(arena, "%s\nIt rejects with an answer to the sender; this only denies.", origin);
	write_rule(walk, name, origin, box, accept ? walk->accept : RULE_DENY);
}

static enum walk_result walk_chain(struct walk *walk, const struct nft_chain *chain, const struct nft_box *in,
				   const struct nft_place *from, unsigned depth);

/* What leaves a base chain at its end has the verdict of its policy. */
static void take_policy(struct walk *walk, const struct nft_box *box)
{
	const struct nft_place place = {.chain = walk->base, .in = box};

	take_verdict(walk, &place, NULL, box, !walk->base->drops);
}

static enum walk_result follow_jump(struct walk *walk, const struct nft_place *place, const json_t *expression,
				    const json_t *jump, const struct nft_box *box, bool comes_back)
{
	const char *name = json_string_value(json_object_get(jump, "target"));
	const struct nft_chain *target =
		name ? nft_ruleset_chain(&walk->importer->ruleset, place->chain->family, place->chain->table, name)
		     : NULL;
	enum walk_result result;

	if (!target || target->hook) {
		report(walk, place, expression, "there is no such chain to go to");
		return WALK_ON;
	}
	if (place->depth == MAX_JUMPS) {
		report(walk, place, expression, "too many jumps, one within the other");
		return WALK_ON;
	}
	result = walk_chain(walk, target, box, place, place->depth + 1);
	if (comes_back)
		return result == WALK_DONE ? WALK_DONE : WALK_ON;
	/* From there, it goes back to whoever jumped to this chain; that is known for the base chain only. */
	if (result != WALK_DONE && place->from)
		report(walk, place, expression,
		       "goto from a chain that is jumped to, where not everything has a verdict");
	else if (result != WALK_DONE)
		take_policy(walk, box);
	return WALK_DONE;
}

/* All that came into the chain, or the rest can only be told by what is left of it. */
static enum walk_result take_return(struct walk *walk, const struct nft_place *place, const json_t *expression,
				    const struct nft_box *box)
{
	if (!place->from) {
		take_policy(walk, box);
		return WALK_DONE;
	}
	if (nft_box_equal(box, place->in))
		return WALK_RETURN;
	report(walk, place, expression, "return under a condition");
	return WALK_ON;
}

static bool is_verdict(const char *kind)
{
	static const char *const kinds[] = {"accept", "drop", "reject", "return", "jump", "goto"};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(kind, kinds[i]) == 0)
			return true;
	return false;
}

static enum walk_result apply_verdict(struct walk *walk, const struct nft_place *place, const json_t *expression,
				      const struct nft_box *box)
{
	const char *kind = json_object_iter_key(json_object_iter((json_t *)expression));
	const json_t *value = json_object_get(expression, kind);

	if (strcmp(kind, "return") == 0)
		return take_return(walk, place, expression, box);
	if (strcmp(kind, "jump") == 0 || strcmp(kind, "goto") == 0)
		return follow_jump(walk, place, expression, value, box, kind[0] == 'j');
	take_verdict(walk, place, expression, box, strcmp(kind, "accept") == 0);
	return WALK_DONE;
}

static enum walk_result walk_expressions(struct walk *walk, const struct nft_place *place, size_t i,
					 struct nft_box box);

/* Narrows by one value, or for a concatenation by several at once. */
static const char *match_key(struct walk *walk, struct nft_box *box, const json_t *left, const char *op,
			     const json_t *right)
{
	const json_t *lefts = json_object_get(left, "concat"), *rights = json_object_get(right, "concat");
	const char *why = NULL;

	if (!lefts)
		return nft_box_match(&walk->matcher, box, left, op, right);
	if (json_object_get(right, "elem"))
		return "an element of a concatenation with more to it";
	if (strcmp(op, "==") != 0 || json_array_size(lefts) != json_array_size(rights))
		return "a concatenation that is not understood";
	for (size_t i = 0; !why && i < json_array_size(lefts); i++)
		why = nft_box_match(&walk->matcher, box, json_array_get(lefts, i), op, json_array_get(rights, i));
	return why;
}

/* A set of concatenations is not a product: each element goes its own way through the rest of the rule. */
static enum walk_result walk_concat(struct walk *walk, const struct nft_place *place, size_t at,
				    const json_t *expression, const struct nft_box *box)
{
	const json_t *match = json_object_get(expression, "match"), *left = json_object_get(match, "left");
	const char *op = json_string_value(json_object_get(match, "op")), *why;
	const json_t *right = json_object_get(match, "right"), *elements = nft_elements(&walk->matcher, right, &why);
	json_t *element;
	size_t i;

	if (why || (!elements && !json_is_string(right))) {
		report(walk, place, expression, why ? why : "a concatenation that is not understood");
		return WALK_ON;
	}
	json_array_foreach(elements, i, element)
	{
		struct nft_box narrowed = *box;

		why = match_key(walk, &narrowed, left, op ? op : "==", element);
		if (why) {
			report(walk, place, expression, why);
			return WALK_ON;
		}
		walk_expressions(walk, place, at + 1, narrowed);
	}
	return WALK_ON;
}

static bool is_named(const json_t *value)
{
	return json_is_string(value) && json_string_value(value)[0] == '@';
}

/* A verdict map: the keys of a map are different, so their order means nothing. */
static enum walk_result walk_vmap(struct walk *walk, const struct nft_place *place, const json_t *expression,
				  const struct nft_box *box)
{
	const json_t *vmap = json_object_get(expression, "vmap"), *key = json_object_get(vmap, "key");
	const json_t *data = json_object_get(vmap, "data"), *elements;
	const char *why;
	json_t *pair;
	size_t i;

	elements = nft_elements(&walk->matcher, data, &why);
	if (why || (!elements && !is_named(data))) {
		report(walk, place, expression, why ? why : "a map that is not understood");
		return WALK_ON;
	}
	json_array_foreach(elements, i, pair)
	{
		const json_t *verdict = json_array_get(pair, 1);
		const char *kind = json_is_object(verdict) && json_object_size(verdict) == 1
					   ? json_object_iter_key(json_object_iter((json_t *)verdict))
					   : "";
		struct nft_box narrowed = *box;

		why = match_key(walk, &narrowed, key, "==", json_array_get(pair, 0));
		if (!why && !is_verdict(kind) && strcmp(kind, "continue") != 0)
			why = "a map that is not understood";
		if (why) {
			report(walk, place, expression, why);
			return WALK_ON;
		}
		if (is_verdict(kind) && !nft_box_is_empty(&narrowed))
			apply_verdict(walk, place, verdict, &narrowed);
	}
	return WALK_ON;
}

/* Narrows by a match. Returns false after an error. */
static bool walk_match(struct walk *walk, const struct nft_place *place, const json_t *expression, struct nft_box *box)
{
	const json_t *match = json_object_get(expression, "match");
	const char *op = json_string_value(json_object_get(match, "op"));
	const char *why = nft_box_match(&walk->matcher, box, json_object_get(match, "left"),
					op ? op : "==", json_object_get(match, "right"));

	if (why)
		report(walk, place, expression, why);
	return !why;
}

/* The rest of a rule, from the expression `i`, for a box of packets. */
static enum walk_result walk_expressions(struct walk *walk, const struct nft_place *place, size_t i, struct nft_box box)
{
	const json_t *expressions = json_object_get(place->rule, "expr");

	for (; i < json_array_size(expressions) && !nft_box_is_empty(&box); i++) {
		const json_t *expression = json_array_get(expressions, i);
		const char *kind = json_is_object(expression) && json_object_size(expression) == 1
					   ? json_object_iter_key(json_object_iter((json_t *)expression))
					   : "";

		if (strcmp(kind, "match") == 0) {
			if (json_object_get(json_object_get(json_object_get(expression, "match"), "left"), "concat"))
				return walk_concat(walk, place, i, expression, &box);
			if (!walk_match(walk, place, expression, &box))
				return WALK_ON;
		} else if (strcmp(kind, "vmap") == 0) {
			return walk_vmap(walk, place, expression, &box);
		} else if (is_verdict(kind)) {
			const char *why = nft_box_reject(&walk->matcher, &box, json_object_get(expression, "reject"));
			enum walk_result result;

			if (why)
				report(walk, place, expression, why);
			if (why || nft_box_is_empty(&box))
				return WALK_ON;
			result = apply_verdict(walk, place, expression, &box);
			/* What the conditions of the rule leave out goes on in any case. */
			return nft_box_equal(&box, place->in) ? result : WALK_ON;
		} else if (strcmp(kind, "counter") != 0 && strcmp(kind, "log") != 0) {
			report(walk, place, expression, "a policy has no such thing");
			return WALK_ON;
		}
	}
	if (!nft_box_is_empty(&box))
		note(walk, place, "It decides nothing: nothing to import.");
	return WALK_ON;
}

static enum walk_result walk_chain(struct walk *walk, const struct nft_chain *chain, const struct nft_box *in,
				   const struct nft_place *from, unsigned depth)
{
	for (size_t i = 0; i < chain->n_rules && !draft_is_full(walk->importer->draft); i++) {
		const struct nft_place place = {
			.chain = chain, .rule = chain->rules[i], .in = in, .from = from, .depth = depth};
		enum walk_result result;

		if (++walk->importer->steps > MAX_STEPS) {
			if (walk->importer->steps == MAX_STEPS + 1)
				report(walk, &place, NULL, "too many rules, jumps counted in full");
			return WALK_DONE;
		}
		result = walk_expressions(walk, &place, 0, *in);
		if (result != WALK_ON)
			return result;
	}
	return WALK_ON;
}

/* ---- base chains ---- */

static enum nft_family family_of(const struct nft_chain *chain)
{
	return strcmp(chain->family, "ip") == 0 ? NFT_V4 : strcmp(chain->family, "ip6") == 0 ? NFT_V6 : NFT_BOTH;
}

static bool is_ingress(const struct nft_chain *chain)
{
	return strcmp(chain->hook, "input") == 0;
}

static bool covers(const struct nft_chain *chain, enum nft_family family)
{
	return family_of(chain) == NFT_BOTH || family_of(chain) == family;
}

/* Does a later chain judge what this one accepts? */
static bool is_last(const struct importer *importer, size_t index)
{
	const struct nft_chain *chain = importer->base[index];

	for (size_t i = index + 1; i < importer->n_base; i++)
		for (enum nft_family family = NFT_V4; family <= NFT_V6; family++)
			if (is_ingress(importer->base[i]) == is_ingress(chain) && covers(importer->base[i], family) &&
			    covers(chain, family))
				return false;
	return true;
}

/* A chain that changes nothing has nothing to import. */
static bool does_nothing(const struct nft_chain *chain)
{
	return !chain->n_rules && !chain->drops;
}

static void refuse(struct importer *importer, const struct nft_chain *chain, const char *why)
{
	diagnostics_error(importer->ruleset.diagnostics, (struct position){}, "%s %s %s: a chain of type %s at %s %s",
			  chain->family, chain->table, chain->name, chain->type, chain->hook, why);
}

/* Finds the chains to import. The order of chains of one hook decides nothing, as all must accept; those of both families
 * come last, so that fewer need to pass. */
static void find_base_chains(struct importer *importer)
{
	for (int pass = 0; pass < 2; pass++)
		for (size_t i = 0; i < importer->ruleset.n_chains; i++) {
			const struct nft_chain *chain = &importer->ruleset.items[i];
			bool filter = chain->hook && strcmp(chain->type, "filter") == 0;
			bool ip = strcmp(chain->family, "inet") == 0 || strcmp(chain->family, "ip") == 0 ||
				  strcmp(chain->family, "ip6") == 0;

			if (!chain->hook || does_nothing(chain) || (family_of(chain) == NFT_BOTH) != pass)
				continue;
			if (filter && ip && strcmp(chain->hook, "forward") == 0 && importer->import->ignore_forward)
				continue;
			if (filter && ip && strcmp(chain->hook, "forward") == 0)
				refuse(importer, chain,
				       "judges what is not of this host's workloads; --ignore-forward leaves it to "
				       "nftables");
			else if (!filter || !ip ||
				 (strcmp(chain->hook, "input") != 0 && strcmp(chain->hook, "output") != 0))
				refuse(importer, chain,
				       "cannot be imported, only filters of ip, ip6 and inet at input and output");
			else if (importer->n_base == MAX_BASE_CHAINS)
				refuse(importer, chain, "is one too many");
			else
				importer->base[importer->n_base++] = chain;
		}
}

static void import_base_chain(struct importer *importer, size_t index)
{
	const struct nft_chain *chain = importer->base[index];
	struct walk walk = {
		.importer = importer,
		.base = chain,
		.matcher = {.arena = &importer->ruleset.arena,
			    .sets = importer->ruleset.sets,
			    .family = chain->family,
			    .table = chain->table,
			    .lo_by_address = importer->import->lo_by_address},
		.tier = importer->tiers[index],
		.accept = is_last(importer, index) ? RULE_ALLOW : RULE_PASS,
		.ingress = is_ingress(chain),
	};
	struct nft_box box = nft_box_whole(family_of(chain));

	if (walk_chain(&walk, chain, &box, NULL, 0) == WALK_ON)
		take_policy(&walk, &box);
	if (chain->drops && !walk.keeps_replies)
		diagnostics_warning(
			importer->ruleset.diagnostics, (struct position){},
			"%s %s %s drops replies to what the other hook lets out; in a policy replies belong to "
			"their flow",
			chain->family, chain->table, chain->name);
}

/* What no chain judges passes. Returns whether there is such a thing. */
static bool import_unfiltered(struct importer *importer, bool ingress)
{
	struct walk walk = {.importer = importer, .tier = "unfiltered", .ingress = ingress};
	struct nft_box box = nft_box_whole(NFT_BOTH);

	for (size_t i = 0; i < importer->n_base; i++)
		if (is_ingress(importer->base[i]) == ingress)
			for (enum nft_end end = NFT_SOURCE; end <= NFT_DESTINATION; end++)
				box.ends[end] = nft_set_subtract(&importer->ruleset.arena, box.ends[end],
								 nft_set_addresses(family_of(importer->base[i])));
	if (nft_box_is_empty(&box))
		return false;
	write_rule(&walk, ingress ? "unfiltered.input" : "unfiltered.output",
		   ingress ? "No chain filters this at input." : "No chain filters this at output.", &box, RULE_ALLOW);
	return true;
}

/* ---- the whole ---- */

static void name_tiers(struct importer *importer)
{
	for (size_t i = 0; i < importer->n_base; i++) {
		const struct nft_chain *chain = importer->base[i];
		char *name =
			arena_printf(&importer->ruleset.arena, "%zu-%.20s.%.20s", i + 1, chain->table, chain->name);

		for (char *at = name; at && *at; at++)
			if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-", *at))
				*at = '-';
		importer->tiers[i] = name;
	}
	importer->tiers[importer->n_base] = "unfiltered";
}

static void name_subjects(struct importer *importer)
{
	const struct import_nftables *import = importer->import;
	size_t n = import->n_subjects ? import->n_subjects : 1;

	importer->subjects = arena_array(&importer->ruleset.arena, n, sizeof(*importer->subjects));
	if (!importer->subjects)
		return;
	importer->n_subjects = n;
	importer->subjects[0] = "verified";
	for (size_t i = 0; i < import->n_subjects; i++) {
		importer->subjects[i] = import->subjects[i].name;
		if (!draft_identity(importer->draft, import->subjects[i].name, import->subjects[i].value, NULL))
			diagnostics_error(importer->ruleset.diagnostics, (struct position){},
					  "subject '%.60s' is given twice", import->subjects[i].name);
	}
}

static int write_all(struct importer *importer, char **textp)
{
	const char *head =
		arena_printf(&importer->ruleset.arena,
			     "Made by `policyctl import nftables` from %s.\nEach base chain is a tier, its rules in "
			     "their order: the first "
			     "that matches decides.%s",
			     importer->import->source.name,
			     importer->import->ignore_forward ? "\nChains at forward are left to nftables." : "");
	size_t n_tiers;
	int r;

	name_subjects(importer);
	find_base_chains(importer);
	name_tiers(importer);
	if (importer->ruleset.arena.out_of_memory || !head)
		return -ENOMEM;
	for (size_t i = 0; i < importer->n_base; i++)
		import_base_chain(importer, i);
	n_tiers = importer->n_base;
	n_tiers += import_unfiltered(importer, true) | import_unfiltered(importer, false);
	if (importer->ruleset.arena.out_of_memory)
		return -ENOMEM;
	r = draft_finish(importer->draft, head, importer->tiers, n_tiers, textp);
	if (r == 1)
		diagnostics_error(importer->ruleset.diagnostics, (struct position){},
				  "the policy would be larger than %u MiB", POLICY_MAX_SOURCE_BYTES >> 20);
	return r;
}

static void importer_free(struct importer *importer)
{
	nft_ruleset_free(&importer->ruleset);
	draft_freep(&importer->draft);
}

int import_nftables(char **textp, struct policy_diagnostics **diagnosticsp, const struct import_nftables *import)
{
	_cleanup_(policy_diagnostics_freep) struct policy_diagnostics *diagnostics =
		diagnostics_new(&import->source, 1);
	_cleanup_(importer_free) struct importer importer = {.import = import, .draft = draft_new()};
	int r;

	*textp = NULL;
	*diagnosticsp = NULL;
	if (!diagnostics || !importer.draft)
		return -ENOMEM;
	importer.ruleset.diagnostics = diagnostics;
	r = nft_ruleset_read(&importer.ruleset, &import->source);
	if (r == 0 && !policy_diagnostics_count(diagnostics, POLICY_ERROR))
		r = write_all(&importer, textp);
	if (r >= 0 && policy_diagnostics_count(diagnostics, POLICY_ERROR))
		r = 1;
	if (r >= 0 && diagnostics_finish(diagnostics) < 0)
		r = -ENOMEM;
	if (r != 0) {
		free(*textp);
		*textp = NULL;
	}
	if (r < 0)
		return r;
	*diagnosticsp = diagnostics;
	diagnostics = NULL;
	return r;
}
