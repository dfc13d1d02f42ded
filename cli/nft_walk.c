/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/nft_walk.h"

#define MAX_JUMPS 16U	   /* one within the other, as the kernel has it */
#define MAX_STEPS 1000000U /* rules followed, jumps counted in full */

/* JSON has no lines once it is read. */
static const struct position nowhere;

enum walk_result {
	WALK_ON,     /* some of the packets go on */
	WALK_DONE,   /* all of them have their verdict */
	WALK_RETURN, /* all of them go back to where the chain was jumped from */
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

static const char *origin_of(struct nft_import *importer, const struct nft_place *place)
{
	struct arena *arena = &importer->ruleset.arena;
	const char *comment = json_string_value(json_object_get(place->rule, "comment"));
	const struct nft_chain *chain = place->chain;
	const char *text =
		arena_printf(arena, "%s: %s %s %s", importer->source, chain->family, chain->table, chain->name);

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

static void report(struct nft_walk *walk, const struct nft_place *place, const json_t *expression, const char *why)
{
	struct policy_diagnostics *diagnostics = walk->importer->ruleset.diagnostics;
	const struct nft_chain *chain = place->chain;
	char *text = json_dumps(expression, JSON_COMPACT | JSON_ENCODE_ANY);
	const char *shown = text ? text : "";

	diagnostics_error(diagnostics, nowhere, "%s %s %s, handle %lld: %.300s cannot be imported: %s", chain->family,
			  chain->table, chain->name, handle_of(place->rule), shown, why);
	free(text);
}

static void note(struct nft_walk *walk, const struct nft_place *place, const char *what)
{
	const char *origin = origin_of(walk->importer, place);
	const char *text = origin ? arena_printf(&walk->importer->ruleset.arena, "%s\n%s", origin, what) : NULL;

	draft_comment(walk->importer->draft, text ? text : what);
}

/* ---- rules ---- */

/* The name of a set of addresses, told the shorter way: what is in it, or what of its family is not. */
static const char *network_of(struct nft_import *importer, struct nft_set set, const char *name)
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
static bool is_unbounded(struct nft_import *importer, struct nft_set set, struct nft_set other)
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

void nft_walk_write(struct nft_walk *walk, const char *name, const char *origin, const struct nft_box *box,
		    enum rule_action action)
{
	struct nft_import *importer = walk->importer;
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
static void take_verdict(struct nft_walk *walk, const struct nft_place *place, const json_t *expression,
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
	nft_walk_write(walk, name, origin, box, accept ? walk->accept : RULE_DENY);
}

static enum walk_result walk_chain(struct nft_walk *walk, const struct nft_chain *chain, const struct nft_box *in,
				   const struct nft_place *from, unsigned depth);

/* What leaves a base chain at its end has the verdict of its policy. */
static void take_policy(struct nft_walk *walk, const struct nft_box *box)
{
	const struct nft_place place = {.chain = walk->base, .in = box};

	take_verdict(walk, &place, NULL, box, !walk->base->drops);
}

static enum walk_result follow_jump(struct nft_walk *walk, const struct nft_place *place, const json_t *expression,
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
static enum walk_result take_return(struct nft_walk *walk, const struct nft_place *place, const json_t *expression,
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

static enum walk_result apply_verdict(struct nft_walk *walk, const struct nft_place *place, const json_t *expression,
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

static enum walk_result walk_expressions(struct nft_walk *walk, const struct nft_place *place, size_t i,
					 struct nft_box box);

/* Narrows by one value, or for a concatenation by several at once. */
static const char *match_key(struct nft_walk *walk, struct nft_box *box, const json_t *left, const char *op,
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
static enum walk_result walk_concat(struct nft_walk *walk, const struct nft_place *place, size_t at,
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
static enum walk_result walk_vmap(struct nft_walk *walk, const struct nft_place *place, const json_t *expression,
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
static bool walk_match(struct nft_walk *walk, const struct nft_place *place, const json_t *expression,
		       struct nft_box *box)
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
static enum walk_result walk_expressions(struct nft_walk *walk, const struct nft_place *place, size_t i,
					 struct nft_box box)
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

static enum walk_result walk_chain(struct nft_walk *walk, const struct nft_chain *chain, const struct nft_box *in,
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

void nft_walk_chain(struct nft_walk *walk, struct nft_box box)
{
	if (walk_chain(walk, walk->base, &box, NULL, 0) == WALK_ON)
		take_policy(walk, &box);
}
