/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow_space_words.c - boxes in words: sets in the names of a policy.
 *
 * A set gets the shortest of: its name; a larger named set without some named ones; named ones together, with what none of
 * them has spelled out. So the words are exact, and short where the policy has words for it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/flow_space_internal.h"

#define MAX_WORDS 8U  /* spelled out; more are counted */
#define MAX_EXCEPT 8U /* more sets than that taken away from a larger one are no help */

struct name {
	const char *text;
	const struct spans *spans;
};

struct names {
	struct name *items;
	size_t n;
};

/* A set put together from named ones. */
struct phrase {
	const char *words[MAX_WORDS];
	uint32_t n;
	struct spans rest; /* what no name has */
};

static uint64_t size_of(const struct spans *spans)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < spans->n; i++)
		n += (uint64_t)spans->items[i].last - spans->items[i].first + 1;
	return n;
}

static const char *name_of(const struct names *names, const struct spans *set)
{
	for (size_t i = 0; i < names->n; i++)
		if (spans_equal(names->items[i].spans, set))
			return names->items[i].text;
	return NULL;
}

/* Greedily: the name that covers most of what is left. `max`: names at most. Returns false when out of memory. */
static bool cover(struct flow_space *space, const struct names *names, const struct spans *set, uint32_t max,
		  struct phrase *phrase)
{
	struct scratch *scratch = &space->scratch;

	phrase->n = 0;
	phrase->rest = *set;
	while (phrase->rest.n && phrase->n < max) {
		const struct name *best = NULL;
		uint64_t most = 0;
		struct span *items;

		for (size_t i = 0; i < names->n; i++) {
			const struct spans *spans = names->items[i].spans;
			struct scratch_mark mark = scratch_mark(scratch);
			struct spans both;

			if (spans_relation(spans, set) != COVERED || spans_relation(spans, &phrase->rest) == APART)
				continue;
			both.items = scratch_alloc(scratch, (size_t)spans->n + phrase->rest.n, sizeof(struct span));
			if (!both.items)
				return false;
			both.n = spans_intersect_to(both.items, spans, &phrase->rest);
			if (size_of(&both) > most) {
				most = size_of(&both);
				best = &names->items[i];
			}
			scratch_release(scratch, mark);
		}
		if (!best)
			break;
		items = scratch_alloc(scratch, (size_t)phrase->rest.n + best->spans->n, sizeof(*items));
		if (!items)
			return false;
		phrase->rest = (struct spans){items, spans_subtract_to(items, &phrase->rest, best->spans)};
		phrase->words[phrase->n++] = best->text;
	}
	return true;
}

/* The named set that holds it all and needs the fewest taken away, fewer than `most`. NULL if there is none. */
static const char *cover_without(struct flow_space *space, const struct names *names, const struct spans *set,
				 uint32_t most, struct phrase *phrase)
{
	const char *found = NULL;

	for (size_t i = 0; i < names->n; i++) {
		const struct spans *spans = names->items[i].spans;
		struct phrase without;
		struct span *items;

		if (spans_relation(set, spans) != COVERED)
			continue;
		items = scratch_alloc(&space->scratch, (size_t)spans->n + set->n, sizeof(*items));
		if (!items)
			return NULL;
		without.rest = (struct spans){items, spans_subtract_to(items, spans, set)};
		if (!cover(space, names, &without.rest, most, &without))
			return NULL;
		if (without.rest.n || without.n >= most)
			continue;
		found = names->items[i].text;
		most = without.n;
		*phrase = without;
	}
	return found;
}

static void write_words(const struct phrase *phrase, FILE *out)
{
	for (uint32_t i = 0; i < phrase->n; i++)
		fprintf(out, "%s%s", i ? ", " : "", phrase->words[i]);
}

/* Writes a set by names as far as they go. `outside`: what to write for `any except`. Returns what is to be spelled out. */
static struct spans write_names(struct flow_space *space, const struct names *names, const struct spans *set,
				const char *outside, FILE *out)
{
	struct phrase together = {}, without = {};
	const char *name = name_of(names, set), *larger = NULL;

	if (name) {
		fputs(name, out);
		return (struct spans){};
	}
	if (!cover(space, names, set, MAX_WORDS, &together))
		return *set;
	/* Only what is shorter than the names together is of use: mostly there is nothing to look for. */
	if (together.rest.n || together.n > 2)
		larger = cover_without(space, names, set, together.rest.n ? MAX_EXCEPT : together.n - 1, &without);
	if (larger) {
		if (outside && strcmp(larger, "any") == 0)
			fputs(outside, out);
		else
			fprintf(out, "%s except ", larger);
		write_words(&without, out);
		return (struct spans){};
	}
	write_words(&together, out);
	if (together.n && together.rest.n)
		fputs(", ", out);
	return together.rest;
}

/* ---- who ---- */

#define MAX_PATTERNS 3U /* of an identity, to be used as its name */

static bool whos_of_list(struct flow_space *space, const struct list *list, struct spans *out)
{
	out->n = 0;
	out->items = arena_array(&space->arena, list->n, sizeof(struct span));
	for (size_t i = 0; i < list->n && out->items; i++)
		if (out->n && out->items[out->n - 1].last + 1 == list->items[i])
			out->items[out->n - 1].last++;
		else
			out->items[out->n++] = (struct span){list->items[i], list->items[i]};
	return out->items;
}

/* Sets that a policy of the space writes as patterns: where no name fits, they say more than an ID made up. */
static bool find_patterns(struct flow_space *space)
{
	const struct policy *joint = &space->joint;

	if (space->patterns)
		return true;
	space->patterns = arena_array(&space->arena, joint->n_identities, sizeof(*space->patterns));
	for (size_t i = 0; i < joint->n_identities && space->patterns; i++) {
		const struct identity *identity = &joint->identities[i];
		struct pattern_set *set = &space->patterns[space->n_patterns];

		if (!identity->n_patterns || identity->n_patterns > MAX_PATTERNS)
			continue;
		set->text = identity->patterns[0].text;
		for (uint32_t k = 1; k < identity->n_patterns && set->text; k++)
			set->text = arena_printf(&space->arena, "%s, %s", set->text, identity->patterns[k].text);
		if (!set->text || !whos_of_list(space, &space->compiler.whos_of_identity[i], &set->whos))
			return false;
		space->n_patterns += set->whos.n > 0;
	}
	return space->patterns;
}

static bool who_names(struct flow_space *space, const struct space_policy *policy, struct names *names,
		      struct scratch *scratch)
{
	static const char *const builtins[] = {"unidentified", "host", "world", "verified"};
	const struct policy *model = policy->policy;

	names->n = 0;
	if (!find_patterns(space))
		return false;
	names->items = scratch_alloc(scratch, model->n_identities + space->n_patterns + WHO_IDENTITY + 2,
				     sizeof(*names->items));
	if (!names->items)
		return false;
	names->items[names->n++] = (struct name){"any", &space->all[FLOW_FROM_WHO]};
	for (uint32_t i = 0; i < WHO_IDENTITY; i++)
		names->items[names->n++] = (struct name){builtins[i], &policy->atoms[i]};
	for (size_t i = 0; i < model->n_identities; i++)
		if (!model->identities[i].unnamed && policy->identities[i].n)
			names->items[names->n++] = (struct name){model->identities[i].name, &policy->identities[i]};
	names->items[names->n++] = (struct name){"any workload", &space->managed};
	for (size_t i = 0; i < space->n_patterns; i++)
		names->items[names->n++] = (struct name){space->patterns[i].text, &space->patterns[i].whos};
	return true;
}

/* Is a who class one peer only? One of IDs is, if a pattern without wildcards is about it. */
static bool is_one_peer(const struct flow_space *space, uint32_t who)
{
	const struct compiler *c = &space->compiler;
	const uint32_t *members;
	size_t n;

	if (who < c->first_spiffe)
		return true;
	members = intern_get(&c->spiffe_classes, who - c->first_spiffe, &n);
	for (size_t i = 0; i < n; i++) {
		const struct identity *identity = &space->joint.identities[members[i]];

		if (identity->n_patterns == 1 && !strchr(identity->patterns[0].text, '*'))
			return true;
	}
	return false;
}

/* A place that no name stands for, or not for it alone: the name of its identity would say too much. */
static void spell_place(const struct flow_space *space, uint32_t who, FILE *out)
{
	const struct place *place = &space->places[who - WHO_WORLD - 1];

	fprintf(out, "%s %s", place->kind == POLICY_LOCAL_UNIT ? "unit" : "cgroup", place->path);
}

static void spell_one(struct flow_space *space, uint32_t who, FILE *out)
{
	if (who > WHO_WORLD && who < space->compiler.first_spiffe) {
		spell_place(space, who, out);
		return;
	}
	/* The name has those too that only the other policy has a name for. */
	if (who == WHO_UNIDENTIFIED) {
		fputs("unidentified in both policies", out);
		return;
	}
	fputs(is_one_peer(space, who) ? "" : "IDs like ", out);
	space_write_who(space, 0, who, out);
}

static void spell_who(struct flow_space *space, const struct spans *who, FILE *out)
{
	uint64_t left = size_of(who);
	uint32_t n = 0;

	for (uint32_t i = 0; i < who->n; i++)
		for (uint32_t k = who->items[i].first; k <= who->items[i].last && n < MAX_WORDS; k++, n++, left--) {
			fputs(n ? ", " : "", out);
			spell_one(space, k, out);
		}
	if (left)
		fprintf(out, " and %llu more", (unsigned long long)left);
}

static void describe_who(struct flow_space *space, size_t policy, const struct spans *who, FILE *out)
{
	struct scratch_mark mark = scratch_mark(&space->scratch);
	struct names names;

	if (who_names(space, &space->policies[policy], &names, &space->scratch)) {
		struct spans rest = write_names(space, &names, who, NULL, out);

		spell_who(space, &rest, out);
	}
	scratch_release(&space->scratch, mark);
}

/* ---- where ---- */

struct blocks {
	FILE *out;
	uint64_t n;
};

/* Writes a range as the fewest CIDR blocks. */
static void spell_range(struct blocks *blocks, address first, address last, bool v4)
{
	for (bool more = true; more;) {
		char text[ADDRESS_TEXT_BYTES];
		unsigned bits;
		address end = address_block(first, last, &bits);

		if (blocks->n++ < MAX_WORDS) {
			address_format(text, first, v4, (v4 ? 32 : 128) - bits);
			fprintf(blocks->out, "%s%s", blocks->n > 1 ? ", " : "", text);
		}
		more = end < last;
		first = end + 1;
	}
}

static void spell_where(const struct flow_space *space, const struct spans *where, const struct range_classes *ranges,
			bool v4, struct blocks *blocks)
{
	address end = v4 ? ADDRESS_V4_LAST : ~(address)0, first = 0;
	bool open = false;

	for (size_t i = 0; i <= ranges->n; i++) {
		uint32_t class = i < ranges->n ? space->where_of_set[ranges->items[i].class] : 0;
		bool in = class && spans_contain(where, class);

		/* Neighbouring classes that are both in it are one range. */
		if (in && !open)
			first = ranges->items[i].first;
		if (!in && open)
			spell_range(blocks, first, i < ranges->n ? ranges->items[i].first - 1 : end, v4);
		open = in;
	}
}

static void describe_where(struct flow_space *space, size_t policy, const struct spans *where, FILE *out)
{
	const struct space_policy *names_of = &space->policies[policy];
	const struct policy *model = names_of->policy;
	struct scratch_mark mark = scratch_mark(&space->scratch);
	struct blocks blocks = {.out = out};
	struct names names = {
		.items = scratch_alloc(&space->scratch, model->n_networks + 1, sizeof(*names.items)),
	};
	struct spans rest;

	if (names.items) {
		names.items[names.n++] = (struct name){"any", &space->real};
		for (size_t i = 0; i < model->n_networks; i++)
			if (names_of->networks[i].n)
				names.items[names.n++] = (struct name){model->networks[i].name, &names_of->networks[i]};
		rest = write_names(space, &names, where, "outside ", out);
		if (rest.n) {
			spell_where(space, &rest, &space->compiler.addr4, true, &blocks);
			spell_where(space, &rest, &space->compiler.addr6, false, &blocks);
		}
		if (blocks.n > MAX_WORDS)
			fprintf(out, " and %llu more", (unsigned long long)(blocks.n - MAX_WORDS));
	}
	scratch_release(&space->scratch, mark);
}

void flow_space_describe_end(struct flow_space *space, size_t policy, const struct flow_box *box, bool to, FILE *out)
{
	const struct spans *who = &box->dim[to ? FLOW_TO_WHO : FLOW_FROM_WHO];
	const struct spans *where = &box->dim[to ? FLOW_TO_WHERE : FLOW_FROM_WHERE];
	struct scratch_mark mark = scratch_mark(&space->scratch);
	struct spans real = {scratch_alloc(&space->scratch, (size_t)where->n + 1, sizeof(struct span)), 0};
	bool everywhere, everybody = spans_equal(who, &space->all[FLOW_FROM_WHO]);

	if (real.items)
		real.n = spans_intersect_to(real.items, where, &space->real);
	everywhere = !real.n || spans_equal(&real, &space->real);
	if (!everybody || everywhere)
		describe_who(space, policy, who, out);
	if (!everybody && !everywhere)
		fputs(" at ", out);
	if (!everywhere)
		describe_where(space, policy, &real, out);
	scratch_release(&space->scratch, mark);
}

/* ---- services ---- */

static void spell_services(const struct spans *services, FILE *out)
{
	static const uint32_t ends[] = {SERVICE_UDP,   SERVICE_SCTP,  SERVICE_ICMP,
					SERVICE_ICMP6, SERVICE_PROTO, SERVICE_END};
	uint32_t n = 0, protocol = 0;

	for (uint32_t i = 0; i < services->n; i++) {
		uint32_t first = services->items[i].first;

		while (first <= services->items[i].last) {
			struct service_range range = {first, services->items[i].last};
			char text[SERVICE_TEXT_BYTES];

			while (range.first >= ends[protocol])
				protocol++;
			if (range.last >= ends[protocol])
				range.last = ends[protocol] - 1;
			service_format(text, sizeof(text), range);
			if (n++ < MAX_WORDS)
				fprintf(out, "%s%s", n > 1 ? ", " : "", text);
			first = range.last + 1;
		}
	}
	if (n > MAX_WORDS)
		fprintf(out, " and %u more", n - MAX_WORDS);
}

static const char *service_name(struct flow_space *space, const struct policy *policy, const struct spans *services)
{
	for (size_t i = 0; i < policy->n_services; i++) {
		const struct service *service = &policy->services[i];
		struct scratch_mark mark = scratch_mark(&space->scratch);
		uint32_t n = service->n_ranges;
		struct service_range *ranges = scratch_alloc(&space->scratch, n, sizeof(*ranges));
		struct spans spans, real = {};
		bool same = false;

		if (ranges && n) {
			memcpy(ranges, service->ranges, n * sizeof(*ranges));
			n = service_normalise(ranges, n);
			if (space_services(space, ranges, n, &spans))
				real.items = scratch_alloc(&space->scratch, (size_t)spans.n + space->flows.n,
							   sizeof(struct span));
			if (real.items) {
				real.n = spans_intersect_to(real.items, &spans, &space->flows);
				same = spans_equal(&real, services);
			}
		}
		scratch_release(&space->scratch, mark);
		if (same)
			return service->name;
	}
	return NULL;
}

void flow_space_describe_services(struct flow_space *space, size_t policy, const struct flow_box *box, FILE *out)
{
	const struct spans *services = &box->dim[FLOW_SERVICE];
	struct scratch_mark mark = scratch_mark(&space->scratch);
	struct spans other = {scratch_alloc(&space->scratch, (size_t)services->n + space->flows.n, sizeof(struct span)),
			      0};
	const char *name = service_name(space, space->policies[policy].policy, services);

	if (other.items)
		other.n = spans_subtract_to(other.items, &space->flows, services);
	if (!other.n) {
		fputs("any", out);
	} else if (name) {
		fputs(name, out);
	} else if (other.n < services->n) {
		fputs("any except ", out);
		spell_services(&other, out);
	} else {
		spell_services(services, out);
	}
	scratch_release(&space->scratch, mark);
}
