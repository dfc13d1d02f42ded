/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow_space.c - the classes of a space, made by the compiler's own first steps from what its policies have in common.
 *
 * The joint policy has an identity for each distinct place (a cgroup is the same peer whatever a policy calls it) and one
 * for the patterns of each identity, so its who classes are what the policies tell apart; the identities of a policy are
 * unions of them, or set algebra over such. A place that a policy does not name is what it is in or, if nothing is, an
 * unidentified workload to that policy.
 */
#include "policy/flow_space.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "policy/flow_space_internal.h"

/* A second or two of work. */
#define MAX_WORK 300000000ULL
#define TOO_COMPLEX "the policy is too complex for an exact answer: too many of its rules overlap"

int space_spend(struct flow_space *space, uint64_t work, char **errorp)
{
	space->work += work;
	if (space->work <= space->max_work)
		return 0;
	return flow_error(errorp, TOO_COMPLEX);
}

uint64_t flow_space_work(const struct flow_space *space)
{
	return space->work;
}

void flow_space_limit(struct flow_space *space, uint64_t more_work)
{
	if (space->work >= MAX_WORK || more_work < MAX_WORK - space->work)
		space->max_work = space->work + more_work;
}

int space_intern(struct flow_space *space, const struct spans *spans, uint32_t *setp)
{
	int r = intern_bytes(&space->sets, spans->items, spans->n * sizeof(*spans->items), setp);

	if (r <= 0)
		return r;
	if (array_grow(&space->set_spans, &space->sets_capacity, *setp, sizeof(*space->set_spans)) < 0)
		return -ENOMEM;
	space->set_spans[*setp] = (struct spans){(struct span *)(uintptr_t)space->sets.entries[*setp].bytes, spans->n};
	return 0;
}

static void policy_free(struct space_policy *policy)
{
	free(policy->cubes);
	for (int side = 0; side < 2; side++)
		list_free(&policy->who_sets[side]);
}

void flow_space_freep(struct flow_space **spacep)
{
	struct flow_space *space = *spacep;

	if (!space)
		return;
	for (size_t i = 0; i < space->n_policies; i++)
		policy_free(&space->policies[i]);
	compiler_free(&space->compiler);
	intern_free(&space->sets);
	free(space->set_spans);
	scratch_free(&space->scratch);
	arena_free(&space->arena);
	free(space);
	*spacep = NULL;
}

/* ---- the joint policy ---- */

static void join_identities(struct joining *joining)
{
	struct flow_space *space = joining->space;
	struct policy *joint = &space->joint;

	for (uint32_t i = 0; i < space->n_places; i++)
		joint->identities[joint->n_identities++] =
			(struct identity){.name = "", .places = &space->places[i], .n_places = 1, .used = true};
	for (size_t p = 0; p < space->n_policies; p++) {
		const struct policy *policy = space->policies[p].policy;

		for (size_t i = 0; i < policy->n_identities; i++) {
			const struct identity *identity = &policy->identities[i];

			joining->patterns[p][i] = NO_OWNER;
			if (!identity->n_patterns)
				continue;
			joining->patterns[p][i] = (uint32_t)joint->n_identities;
			joint->identities[joint->n_identities++] = (struct identity){
				.name = identity->name,
				.patterns = identity->patterns,
				.n_patterns = identity->n_patterns,
				.used = true,
			};
		}
	}
	for (uint32_t i = 0; i < joint->n_identities; i++)
		joint->identity_order[i] = i;
}

static void join_networks(struct flow_space *space)
{
	struct policy *joint = &space->joint;

	for (size_t p = 0; p < space->n_policies; p++)
		for (size_t i = 0; i < space->policies[p].policy->n_networks; i++) {
			joint->networks[joint->n_networks] = space->policies[p].policy->networks[i];
			joint->networks[joint->n_networks++].used = true;
		}
}

static int join_policies(struct joining *joining)
{
	struct flow_space *space = joining->space;
	size_t n_identities = space->n_places, n_networks = 0;

	for (size_t p = 0; p < space->n_policies; p++) {
		const struct policy *policy = space->policies[p].policy;

		n_identities += policy->n_identities;
		n_networks += policy->n_networks;
		joining->patterns[p] = arena_array(&space->arena, policy->n_identities, sizeof(uint32_t));
	}
	space->joint.identities = arena_array(&space->arena, n_identities, sizeof(struct identity));
	space->joint.identity_order = arena_array(&space->arena, n_identities, sizeof(uint32_t));
	space->joint.networks = arena_array(&space->arena, n_networks, sizeof(struct network));
	if (space->arena.out_of_memory)
		return -ENOMEM;
	join_identities(joining);
	join_networks(space);
	return 0;
}

/* ---- who ---- */

static struct spans one_span(struct flow_space *space, uint32_t first, uint32_t n)
{
	struct span *span = arena_alloc(&space->arena, sizeof(*span));

	if (!span || !n)
		return (struct spans){span, 0};
	*span = (struct span){first, first + n - 1};
	return (struct spans){span, 1};
}

/* Sorted numbers as spans of the space. */
static bool spans_of_list(struct flow_space *space, const struct list *list, struct spans *out)
{
	uint32_t n = 0;

	for (size_t i = 0; i < list->n; i++)
		n += !i || list->items[i] != list->items[i - 1] + 1;
	out->items = arena_array(&space->arena, n, sizeof(*out->items));
	out->n = 0;
	for (size_t i = 0; i < list->n && out->items; i++) {
		if (i && list->items[i] == list->items[i - 1] + 1)
			out->items[out->n - 1].last++;
		else
			out->items[out->n++] = (struct span){list->items[i], list->items[i]};
	}
	return out->items;
}

/* A local identity is all its places, and all that is within them. */
static int base_identities(struct joining *joining, size_t p)
{
	struct flow_space *space = joining->space;
	struct space_policy *policy = &space->policies[p];
	const struct list *joint = space->compiler.whos_of_identity;
	size_t n = policy->policy->n_identities;
	struct list *whos = calloc(n + 1, sizeof(*whos)), unidentified = {}, known = {};
	int r = whos ? list_push(&unidentified, WHO_UNIDENTIFIED) : -ENOMEM;

	for (uint32_t i = 0; i < space->n_places && r == 0; i++) {
		uint32_t owner = joining->owners[p][i];
		struct list *list = owner == NO_OWNER ? &unidentified : &whos[owner];

		for (size_t j = 0; j < joint[i].n && r == 0; j++) {
			r = list_push(list, joint[i].items[j]);
			if (r == 0 && owner != NO_OWNER)
				r = list_push(&known, joint[i].items[j]);
		}
	}
	for (size_t i = 0; i < n && r == 0; i++) {
		uint32_t patterns = joining->patterns[p][i];

		for (size_t j = 0; patterns != NO_OWNER && j < joint[patterns].n && r == 0; j++)
			r = list_push(&whos[i], joint[patterns].items[j]);
		list_sort_unique(&whos[i]);
		if (!spans_of_list(space, &whos[i], &policy->identities[i]))
			r = -ENOMEM;
	}
	list_sort_unique(&unidentified);
	list_sort_unique(&known);
	if (r == 0 && (!spans_of_list(space, &unidentified, &policy->atoms[WHO_UNIDENTIFIED]) ||
		       !spans_of_list(space, &known, &policy->known) ||
		       !spans_unite(space, &policy->known, &policy->known, &policy->atoms[WHO_VERIFIED])))
		r = -ENOMEM;
	for (size_t i = 0; whos && i < n; i++)
		list_free(&whos[i]);
	free(whos);
	list_free(&unidentified);
	list_free(&known);
	return r;
}

/* Sets put together one after the other, in two buffers in turn. A set of classes has never more spans than classes. */
struct fold {
	struct span *buffers[2];
	struct spans result;
};

static bool fold_begin(struct flow_space *space, struct fold *fold, uint32_t n_classes, const struct spans *first)
{
	for (int i = 0; i < 2; i++)
		fold->buffers[i] = scratch_alloc(&space->scratch, (size_t)n_classes + 2, sizeof(struct span));
	fold->result = *first;
	return fold->buffers[0] && fold->buffers[1];
}

static void fold_set(struct flow_space *space, struct fold *fold,
		     uint32_t (*operation)(struct span *, const struct spans *, const struct spans *),
		     const struct spans *set)
{
	struct span *to = fold->buffers[fold->result.items == fold->buffers[0]];

	space->work += (uint64_t)fold->result.n + set->n;
	fold->result = (struct spans){to, operation(to, &fold->result, set)};
}

/* Returns 0, 1 with the compiler's error, or -ENOMEM. */
static int combine_identity(struct flow_space *space, struct space_policy *policy, uint32_t index)
{
	const struct identity *identity = &policy->policy->identities[index];
	struct scratch_mark mark = scratch_mark(&space->scratch);
	struct spans *out = &policy->identities[index], none = {};
	struct fold fold;
	bool any = identity->op == IDENTITY_ANY;

	if (identity->op == IDENTITY_BASE)
		return 0;
	if (!fold_begin(space, &fold, space->n_who, any ? &none : &policy->known))
		return -ENOMEM;
	for (uint32_t i = 0; i < identity->n_operands; i++) {
		uint32_t atom = identity->operands[i];
		const struct spans *operand =
			atom < WHO_IDENTITY ? &policy->atoms[atom] : &policy->identities[atom - WHO_IDENTITY];

		fold_set(space, &fold,
			 any				? spans_unite_to
			 : identity->op == IDENTITY_ALL ? spans_intersect_to
							: spans_subtract_to,
			 operand);
	}
	space->set_bytes += fold.result.n * sizeof(struct span);
	if (space->set_bytes > COMPILER_MAX_SET_BYTES || space->work > MAX_WORK)
		return compiler_too_large(&space->compiler, TOO_COMPLEX);
	out->n = fold.result.n;
	out->items = arena_copy(&space->arena, fold.result.items, fold.result.n * sizeof(struct span));
	scratch_release(&space->scratch, mark);
	return out->items ? 0 : -ENOMEM;
}

static int name_who(struct joining *joining, size_t p)
{
	struct flow_space *space = joining->space;
	struct space_policy *policy = &space->policies[p];
	const struct compiler *c = &space->compiler;
	int r;

	policy->identities = arena_array(&space->arena, policy->policy->n_identities, sizeof(struct spans));
	policy->atoms[WHO_HOST] = one_span(space, WHO_HOST, 1);
	policy->atoms[WHO_WORLD] = one_span(space, WHO_WORLD, 1);
	policy->atoms[WHO_VERIFIED] = one_span(space, c->first_spiffe, c->n_who - c->first_spiffe);
	if (space->arena.out_of_memory)
		return -ENOMEM;
	r = base_identities(joining, p);
	for (uint32_t i = 0; i < policy->policy->n_identities && r == 0; i++) {
		const uint32_t *order = policy->policy->identity_order;

		r = combine_identity(space, policy, order ? order[i] : i);
	}
	return r;
}

static int make_who(struct joining *joining)
{
	struct flow_space *space = joining->space;
	int r = compile_who(&space->compiler);

	space->n_who = space->compiler.n_who;
	for (size_t p = 0; p < space->n_policies && r == 0; p++)
		r = name_who(joining, p);
	return r;
}

/* ---- where ---- */

/* The first address of a range class that a packet can have; false if it has none. IPv4-mapped ones are none. */
static bool first_real(const struct range_classes *ranges, size_t i, bool v4, address *firstp)
{
	address end = v4 ? ADDRESS_V4_LAST : ~(address)0;
	address last = i + 1 < ranges->n ? ranges->items[i + 1].first - 1 : end;

	*firstp = ranges->items[i].first;
	if (!v4 && address_is_v4(*firstp)) {
		if (last <= ADDRESS_V4_LAST)
			return false;
		*firstp = ADDRESS_V4_LAST + 1;
	}
	return true;
}

static void find_addresses(const struct range_classes *ranges, bool v4, address *first, bool *found)
{
	for (size_t i = 0; i < ranges->n; i++) {
		uint32_t class = ranges->items[i].class;
		address at;

		if (found[class] || !first_real(ranges, i, v4, &at))
			continue;
		found[class] = true;
		first[class] = at;
	}
}

uint32_t space_where_of(const struct flow_space *space, address a)
{
	const struct range_classes *ranges = address_is_v4(a) ? &space->compiler.addr4 : &space->compiler.addr6;
	size_t low = 0, high = ranges->n;

	while (high - low > 1) {
		size_t middle = (low + high) / 2;

		if (ranges->items[middle].first <= a)
			low = middle;
		else
			high = middle;
	}
	return space->where_of_set[ranges->items[low].class];
}

/* The least address stands for itself: where it begins a class, one for documentation (RFC 5737, 3849) says it better. */
static void choose_examples(struct flow_space *space)
{
	static const char *const nobody[] = {"192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1"};

	for (size_t i = 0; i < sizeof(nobody) / sizeof(nobody[0]); i++) {
		uint32_t class;
		address a;

		if (address_parse(&a, nobody[i], strlen(nobody[i])) != ADDRESS_OK)
			continue;
		class = space_where_of(space, a);
		if (space->first_address[class] == ADDRESS_V4_FIRST || !space->first_address[class])
			space->first_address[class] = a;
	}
}

static int make_where(struct flow_space *space)
{
	struct compiler *c = &space->compiler;
	int r = compile_ranges(c);
	uint32_t n = c->address_sets.n;
	address *first;
	bool *found;

	if (r)
		return r;
	first = arena_array(&space->arena, n, sizeof(*first));
	found = arena_array(&space->arena, n, sizeof(*found));
	space->where_of_set = arena_array(&space->arena, n, sizeof(uint32_t));
	space->first_address = arena_array(&space->arena, (size_t)n + 1, sizeof(address));
	if (space->arena.out_of_memory)
		return -ENOMEM;
	find_addresses(&c->addr4, true, first, found);
	find_addresses(&c->addr6, false, first, found);
	space->n_where = 1;
	for (uint32_t i = 0; i < n; i++)
		if (found[i]) {
			space->first_address[space->n_where] = first[i];
			space->where_of_set[i] = space->n_where++;
		}
	choose_examples(space);
	return 0;
}

static int where_of_networks(struct flow_space *space, struct list *lists)
{
	const struct intern *sets = &space->compiler.address_sets;

	for (uint32_t i = 0; i < sets->n; i++) {
		size_t n;
		const uint32_t *networks = intern_get(sets, i, &n);

		for (size_t j = 0; j < n && space->where_of_set[i]; j++)
			if (list_push(&lists[networks[j]], space->where_of_set[i]) < 0)
				return -ENOMEM;
	}
	return 0;
}

static int name_where(struct flow_space *space)
{
	size_t n = space->joint.n_networks, at = 0;
	struct list *lists = calloc(n + 1, sizeof(*lists));
	int r = lists ? where_of_networks(space, lists) : -ENOMEM;

	for (size_t p = 0; p < space->n_policies && r == 0; p++) {
		struct space_policy *policy = &space->policies[p];

		policy->networks = arena_array(&space->arena, policy->policy->n_networks, sizeof(struct spans));
		for (size_t i = 0; i < policy->policy->n_networks && r == 0; i++, at++)
			if (!policy->networks || !spans_of_list(space, &lists[at], &policy->networks[i]))
				r = -ENOMEM;
	}
	for (size_t i = 0; lists && i < n; i++)
		list_free(&lists[i]);
	free(lists);
	return r;
}

/* ---- the space ---- */

/* Nobody asks for port 0, and what has ports or types is never seen by its protocol number alone. */
static bool flow_services(struct flow_space *space)
{
	static const struct span unreal[] = {
		{SERVICE_TCP, SERVICE_TCP},
		{SERVICE_UDP, SERVICE_UDP},
		{SERVICE_SCTP, SERVICE_SCTP},
		{SERVICE_PROTO + IPPROTO_ICMP, SERVICE_PROTO + IPPROTO_ICMP},
		{SERVICE_PROTO + IPPROTO_TCP, SERVICE_PROTO + IPPROTO_TCP},
		{SERVICE_PROTO + IPPROTO_UDP, SERVICE_PROTO + IPPROTO_UDP},
		{SERVICE_PROTO + IPPROTO_ICMPV6, SERVICE_PROTO + IPPROTO_ICMPV6},
		{SERVICE_PROTO + IPPROTO_SCTP, SERVICE_PROTO + IPPROTO_SCTP},
	};
	const struct spans none = {(struct span *)(uintptr_t)unreal, sizeof(unreal) / sizeof(unreal[0])};

	return spans_subtract(space, &space->flows, &space->all[FLOW_SERVICE], &none);
}

static int make_whole(struct flow_space *space)
{
	struct spans who = one_span(space, 0, space->n_who), where = one_span(space, 0, space->n_where);
	struct spans unmanaged = one_span(space, WHO_HOST, WHO_WORLD - WHO_HOST + 1);

	space->all[FLOW_FROM_WHO] = space->all[FLOW_TO_WHO] = who;
	space->all[FLOW_FROM_WHERE] = space->all[FLOW_TO_WHERE] = where;
	space->all[FLOW_SERVICE] = one_span(space, 0, SERVICE_END);
	space->real = one_span(space, 1, space->n_where - 1);
	space->unmanaged = unmanaged;
	if (space->arena.out_of_memory || !spans_subtract(space, &space->managed, &who, &unmanaged) ||
	    !flow_services(space))
		return -ENOMEM;
	return 0;
}

static int make_space(struct flow_space *space, char **errorp)
{
	struct joining joining = {.space = space};
	int r = space_join_places(&joining);

	if (r == 0)
		r = join_policies(&joining);
	if (r == 0)
		r = make_who(&joining);
	if (r == 0)
		r = make_where(space);
	if (r == 0)
		r = name_where(space);
	if (r == 0)
		r = make_whole(space);
	if (r == 1) {
		*errorp = space->compiler.error;
		space->compiler.error = NULL;
	}
	for (size_t p = 0; p < space->n_policies && r == 0; p++)
		r = space_prepare_rules(space, &space->policies[p], errorp);
	intern_free(&joining.keys);
	return r;
}

int flow_space_new(struct flow_space **spacep, const struct policy *const *policies, size_t n, int64_t now,
		   char **errorp)
{
	struct flow_space *space = calloc(1, sizeof(*space));
	int r;

	*spacep = NULL;
	*errorp = NULL;
	if (!space)
		return -ENOMEM;
	space->now = now;
	space->max_work = MAX_WORK;
	space->n_policies = n;
	space->compiler.policy = &space->joint;
	space->compiler.split = true; /* there is no second try: what is too much is too much, with the reason */
	for (size_t i = 0; i < n; i++)
		space->policies[i].policy = policies[i];
	r = make_space(space, errorp);
	if (r == 0)
		*spacep = space;
	else
		flow_space_freep(&space);
	return r;
}

/* ---- terms ---- */

/* The union of some sets of classes. Memory: scratch. */
static bool unite_sets(struct flow_space *space, struct spans *out, const struct spans *(*get)(const void *, uint32_t),
		       const void *context, const uint32_t *items, uint32_t n)
{
	uint32_t n_classes = space->n_who > space->n_where ? space->n_who : space->n_where;
	struct fold fold;

	*out = *get(context, items[0]);
	if (n == 1)
		return true;
	if (!fold_begin(space, &fold, n_classes, out))
		return false;
	for (uint32_t i = 1; i < n; i++)
		fold_set(space, &fold, spans_unite_to, get(context, items[i]));
	*out = fold.result;
	return true;
}

static const struct spans *get_who(const void *context, uint32_t atom)
{
	const struct space_policy *policy = context;

	return atom < WHO_IDENTITY ? &policy->atoms[atom] : &policy->identities[atom - WHO_IDENTITY];
}

static const struct spans *get_where(const void *context, uint32_t network)
{
	const struct space_policy *policy = context;

	return &policy->networks[network];
}

bool space_term_who(struct flow_space *space, const struct space_policy *policy, const struct selector_term *term,
		    struct spans *out)
{
	*out = space->all[FLOW_FROM_WHO];
	return !term->n_who || unite_sets(space, out, get_who, policy, term->who, term->n_who);
}

bool space_term_where(struct flow_space *space, const struct space_policy *policy, const struct selector_term *term,
		      struct spans *out)
{
	*out = space->all[FLOW_FROM_WHERE];
	return !term->n_networks || unite_sets(space, out, get_where, policy, term->networks, term->n_networks);
}

bool space_services(struct flow_space *space, const struct service_range *ranges, uint32_t n, struct spans *out)
{
	struct span *items = scratch_alloc(&space->scratch, n, sizeof(*items));

	*out = (struct spans){items, 0};
	for (uint32_t i = 0; i < n && items; i++) {
		/* The end of one protocol and the start of the next are neighbours here. */
		if (out->n && items[out->n - 1].last + 1 == ranges[i].first)
			items[out->n - 1].last = ranges[i].last;
		else
			items[out->n++] = (struct span){ranges[i].first, ranges[i].last};
	}
	return items;
}
