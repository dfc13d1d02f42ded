/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compile_image.c - the bytes of tables (abi.h) and image (image_format.h).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/compiler.h"

struct output {
	unsigned char *bytes;
	size_t n, capacity;
	bool out_of_memory;
};

static void output_free(struct output *out)
{
	free(out->bytes);
}

/* Appends `size` bytes and returns their offset. NULL appends zeros. */
static size_t put(struct output *out, const void *bytes, size_t size)
{
	size_t at = out->n;

	if (out->out_of_memory)
		return 0;
	if (size > out->capacity - out->n) {
		size_t capacity = (out->n + size) * 2;
		void *grown = realloc(out->bytes, capacity);

		if (!grown) {
			out->out_of_memory = true;
			return 0;
		}
		out->bytes = grown;
		out->capacity = capacity;
	}
	if (bytes && size)
		memcpy(out->bytes + at, bytes, size);
	else
		memset(out->bytes + at, 0, size);
	out->n += size;
	return at;
}

static size_t align(struct output *out)
{
	put(out, NULL, -out->n & 7);
	return out->n;
}

/* ---- tables ---- */

static void put_u16(struct output *out, const uint32_t *items, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint16_t item = (uint16_t)items[i];

		put(out, &item, sizeof(item));
	}
}

static void put_ports(struct output *out, const struct range_classes *ranges, uint32_t base)
{
	for (size_t i = 0; i < ranges->n; i++) {
		struct bh_range_port range = {(uint16_t)(ranges->items[i].first - base),
					      (uint16_t)ranges->items[i].class};

		put(out, &range, sizeof(range));
	}
}

static void put_types(struct output *out, const struct range_classes *ranges, uint32_t base)
{
	size_t at = 0;

	for (uint32_t type = 0; type < 256; type++) {
		uint16_t class;

		while (at + 1 < ranges->n && ranges->items[at + 1].first <= base + type)
			at++;
		class = (uint16_t)ranges->items[at].class;
		put(out, &class, sizeof(class));
	}
}

static void put_addresses(struct output *out, struct bh_tables *head, const struct compiler *c)
{
	head->addr6_off = (uint32_t)align(out);
	head->addr6_count = (uint32_t)c->addr6.n;
	for (size_t i = 0; i < c->addr6.n; i++) {
		address first = c->addr6.items[i].first;
		struct bh_range6 range = {
			.hi = (uint64_t)(first >> 64), .lo = (uint64_t)first, .class = c->addr6.items[i].class};

		put(out, &range, sizeof(range));
	}
	head->addr4_off = (uint32_t)align(out);
	head->addr4_count = (uint32_t)c->addr4.n;
	for (size_t i = 0; i < c->addr4.n; i++) {
		struct bh_range4 range = {(uint32_t)c->addr4.items[i].first, c->addr4.items[i].class};

		put(out, &range, sizeof(range));
	}
}

/* Without rules for one direction only, both judgements are the same, and so is their table: usually the largest. */
static bool one_judgement(const struct compiler *c)
{
	size_t pairs = (size_t)c->from.n * c->to.n;

	return memcmp(c->row_of[BH_EGRESS], c->row_of[BH_INGRESS], pairs * sizeof(uint32_t)) == 0;
}

static void put_verdicts(struct output *out, struct bh_tables *head, const struct compiler *c)
{
	size_t peers = (size_t)c->n_who * c->address_sets.n, pairs = (size_t)c->from.n * c->to.n;

	head->from_off = (uint32_t)align(out);
	put_u16(out, c->from.class_of, peers);
	head->to_off = (uint32_t)align(out);
	put_u16(out, c->to.class_of, peers);
	head->row_off[BH_EGRESS] = head->row_off[BH_INGRESS] = (uint32_t)align(out);
	put(out, c->row_of[BH_EGRESS], pairs * sizeof(uint32_t));
	if (!one_judgement(c)) {
		head->row_off[BH_INGRESS] = (uint32_t)align(out);
		put(out, c->row_of[BH_INGRESS], pairs * sizeof(uint32_t));
	}
	head->cell_off = (uint32_t)align(out);
	for (uint32_t i = 0; i < c->rows.n; i++)
		put(out, intern_get(&c->rows, i, NULL), c->n_svc * sizeof(uint32_t));
	head->poss_off = (uint32_t)align(out);
	put(out, c->poss_row, peers * sizeof(uint32_t));
	head->poss_cell_off = (uint32_t)align(out);
	for (uint32_t i = 0; i < c->poss_rows.n; i++) {
		const uint32_t *bits = intern_get(&c->poss_rows, i, NULL);

		for (uint32_t s = 0; s < c->n_svc; s++) {
			uint8_t possible = bits[s / 32] >> s % 32 & 1;

			put(out, &possible, 1);
		}
	}
}

static int check_size(struct compiler *c)
{
	uint64_t peers = (uint64_t)c->n_who * c->address_sets.n, pairs = (uint64_t)c->from.n * c->to.n;
	uint64_t size = sizeof(struct bh_tables) + c->addr4.n * sizeof(struct bh_range4) +
			c->addr6.n * sizeof(struct bh_range6) + (c->tcp.n + c->udp.n) * sizeof(struct bh_range_port) +
			2 * 256 * 2 + peers * 8 + pairs * (one_judgement(c) ? 4 : 8) +
			(uint64_t)c->rows.n * c->n_svc * 4 + (uint64_t)c->poss_rows.n * c->n_svc + 16 * 8;

	if (size > BH_TABLES_BYTES)
		return compiler_too_large(
			c,
			"the compiled policy needs %.1f MiB of tables, the limit is %u MiB: %u classes of identities x "
			"%u of addresses, %u sources x %u destinations, %u kinds of verdicts x %u classes of services",
			(double)size / (1 << 20), BH_TABLES_BYTES >> 20, c->n_who, c->address_sets.n, c->from.n,
			c->to.n, c->rows.n, c->n_svc);
	if (c->from.n > UINT16_MAX || c->to.n > UINT16_MAX || c->n_svc > UINT16_MAX)
		return compiler_too_large(c,
					  "the policy tells %u sources, %u destinations and %u services apart, the "
					  "limit of each is %u",
					  c->from.n, c->to.n, c->n_svc, UINT16_MAX);
	if (c->addr4.n > 1U << 18 || c->addr6.n > 1U << 18)
		return compiler_too_large(c, "the networks make %zu IPv4 and %zu IPv6 ranges, the limit of each is %u",
					  c->addr4.n, c->addr6.n, 1U << 18);
	if (c->n_who >= BH_MAX_IDENTITIES)
		return compiler_too_large(c, "the policy tells %u identities apart, the limit is %u", c->n_who,
					  BH_MAX_IDENTITIES - 1);
	return 0;
}

static void put_tables(struct output *out, const struct compiler *c)
{
	struct bh_tables head = {
		.magic = BH_TABLES_MAGIC,
		.n_who = c->n_who,
		.n_addr = c->address_sets.n,
		.n_from = c->from.n,
		.n_to = c->to.n,
		.n_svc = c->n_svc,
		.n_rows = c->rows.n,
		.n_poss_rows = c->poss_rows.n,
		.n_rules = (uint32_t)c->policy->n_rules + 1,
	};

	put(out, &head, sizeof(head));
	put_addresses(out, &head, c);
	head.tcp_off = (uint32_t)align(out);
	head.tcp_count = (uint32_t)c->tcp.n;
	put_ports(out, &c->tcp, SERVICE_TCP);
	head.udp_off = (uint32_t)align(out);
	head.udp_count = (uint32_t)c->udp.n;
	put_ports(out, &c->udp, SERVICE_UDP);
	head.icmp_off = (uint32_t)align(out);
	put_types(out, &c->icmp, SERVICE_ICMP);
	head.icmp6_off = (uint32_t)align(out);
	put_types(out, &c->icmp6, SERVICE_ICMP6);
	put_verdicts(out, &head, c);
	head.size = (uint32_t)align(out);
	if (!out->out_of_memory)
		memcpy(out->bytes, &head, sizeof(head));
}

/* ---- image ---- */

struct writer {
	struct compiler *compiler;
	struct output sections[IMAGE_SECTIONS];
	struct intern strings;
	uint32_t *string_at;
	size_t n_strings, strings_capacity;
};

static void writer_free(struct writer *w)
{
	for (size_t i = 0; i < IMAGE_SECTIONS; i++)
		output_free(&w->sections[i]);
	intern_free(&w->strings);
	free(w->string_at);
}

/* Offset of a string; equal strings are stored once. */
static uint32_t string_of(struct writer *w, const char *text, size_t len)
{
	struct output *out = &w->sections[IMAGE_STRINGS];
	uint32_t number;
	int r;

	if (!text)
		return IMAGE_NO_STRING;
	r = intern_bytes(&w->strings, text, len, &number);
	if (r < 0 || array_grow(&w->string_at, &w->strings_capacity, number, sizeof(*w->string_at)) < 0) {
		out->out_of_memory = true;
		return 0;
	}
	if (r == 1) {
		w->string_at[number] = (uint32_t)put(out, text, len);
		put(out, "", 1);
	}
	return w->string_at[number];
}

static uint32_t string_at(struct writer *w, const char *text)
{
	return string_of(w, text, text ? strlen(text) : 0);
}

static void put_rules(struct writer *w)
{
	const struct policy *policy = w->compiler->policy;
	struct image_rule rule = {
		.name = string_at(w, "default"),
		.file = policy->has_defaults ? string_at(w, policy->source_names[policy->defaults_at.source])
					     : IMAGE_NO_STRING,
		.line = policy->has_defaults ? policy->defaults_at.line : 0,
	};

	put(&w->sections[IMAGE_RULES], &rule, sizeof(rule));
	for (size_t i = 0; i < policy->n_rules; i++) {
		rule = (struct image_rule){
			.name = string_at(w, policy->rules[i].name),
			.file = string_at(w, policy->source_names[policy->rules[i].at.source]),
			.line = policy->rules[i].at.line,
		};
		put(&w->sections[IMAGE_RULES], &rule, sizeof(rule));
	}
}

static int compare_identities(const void *a, const void *b, void *context)
{
	const struct policy *policy = context;

	return strcmp(policy->identities[*(const uint32_t *)a].name, policy->identities[*(const uint32_t *)b].name);
}

static void put_locals(struct writer *w)
{
	const struct policy *policy = w->compiler->policy;
	uint32_t *order = arena_array(&w->compiler->arena, policy->n_identities, sizeof(*order));

	for (uint32_t i = 0; i < policy->n_identities && order; i++)
		order[i] = i;
	if (!order)
		return;
	qsort_r(order, policy->n_identities, sizeof(*order), compare_identities, (void *)policy);
	for (size_t i = 0; i < policy->n_identities; i++) {
		const struct identity *identity = &policy->identities[order[i]];

		for (uint32_t j = 0; j < identity->n_places; j++) {
			struct image_local local = {
				.name = string_at(w, identity->name),
				.path = string_at(w, identity->places[j].path),
				.kind = identity->places[j].kind,
				.who = w->compiler->local_who[order[i]],
			};

			put(&w->sections[IMAGE_LOCALS], &local, sizeof(local));
		}
	}
}

/* Which identities bind the IDs of each class, and to what. */
static void put_bindings(struct writer *w)
{
	const struct compiler *c = w->compiler;
	const struct policy *policy = c->policy;
	struct output *bindings = &w->sections[IMAGE_BINDINGS], *places = &w->sections[IMAGE_PLACES];
	struct output *refs = &w->sections[IMAGE_CLASS_BINDINGS];
	uint32_t *number = arena_array(&w->compiler->arena, policy->n_identities, sizeof(*number));

	for (size_t i = 0; i < policy->n_identities && number; i++) {
		const struct identity *identity = &policy->identities[i];
		struct image_binding binding = {
			.first_place = (uint32_t)(places->n / sizeof(struct image_place)),
			.n_places = identity->n_only,
		};

		if (!identity->n_only)
			continue;
		binding.identity = string_at(w, identity->name);
		number[i] = (uint32_t)(put(bindings, &binding, sizeof(binding)) / sizeof(binding));
		for (uint32_t j = 0; j < identity->n_only; j++) {
			struct image_place place = {identity->only[j].kind, string_at(w, identity->only[j].path)};

			put(places, &place, sizeof(place));
		}
	}
	for (uint32_t i = 0; i < c->spiffe_classes.n && number; i++) {
		struct image_class class = {.first_binding = (uint32_t)(refs->n / sizeof(uint32_t))};
		size_t n;
		const uint32_t *set = intern_get(&c->spiffe_classes, i, &n);

		for (size_t j = 0; j < n; j++)
			if (policy->identities[set[j]].n_only)
				put(refs, &number[set[j]], sizeof(uint32_t));
		class.n_bindings = (uint32_t)(refs->n / sizeof(uint32_t)) - class.first_binding;
		put(&w->sections[IMAGE_CLASSES], &class, sizeof(class));
	}
}

static int compare_segments(const void *a, const void *b, void *context)
{
	const struct intern *segments = context;
	const struct intern_entry *x = &segments->entries[((const struct image_edge *)a)->segment];
	const struct intern_entry *y = &segments->entries[((const struct image_edge *)b)->segment];
	int order = memcmp(x->bytes, y->bytes, x->len < y->len ? x->len : y->len);

	return order ? order : (x->len > y->len) - (x->len < y->len);
}

static void put_automaton(struct writer *w)
{
	struct compiler *c = w->compiler;

	for (size_t i = 0; i < c->n_states; i++) {
		struct image_state state = c->states[i];

		state.who += c->first_spiffe;
		put(&w->sections[IMAGE_STATES], &state, sizeof(state));
		if (state.n_edges)
			qsort_r(&c->edges[state.first_edge], state.n_edges, sizeof(*c->edges), compare_segments,
				&c->segments);
	}
	for (size_t i = 0; i < c->n_edges; i++) {
		const struct intern_entry *segment = &c->segments.entries[c->edges[i].segment];
		struct image_edge edge = {string_of(w, segment->bytes, segment->len), c->edges[i].state};

		put(&w->sections[IMAGE_EDGES], &edge, sizeof(edge));
	}
}

static const size_t item_sizes[IMAGE_SECTIONS] = {
	[IMAGE_TABLES] = 1,
	[IMAGE_STRINGS] = 1,
	[IMAGE_RULES] = sizeof(struct image_rule),
	[IMAGE_LOCALS] = sizeof(struct image_local),
	[IMAGE_STATES] = sizeof(struct image_state),
	[IMAGE_EDGES] = sizeof(struct image_edge),
	[IMAGE_CLASSES] = sizeof(struct image_class),
	[IMAGE_CLASS_BINDINGS] = sizeof(uint32_t),
	[IMAGE_BINDINGS] = sizeof(struct image_binding),
	[IMAGE_PLACES] = sizeof(struct image_place),
};

static int join_sections(struct writer *w, struct output *out)
{
	struct image_header head = {.magic = IMAGE_MAGIC, .first_spiffe = w->compiler->first_spiffe};

	memcpy(head.digest, w->compiler->policy->digest, sizeof(w->compiler->policy->digest));
	put(out, &head, sizeof(head));
	for (size_t i = 0; i < IMAGE_SECTIONS; i++) {
		const struct output *section = &w->sections[i];

		if (section->out_of_memory)
			return -ENOMEM;
		head.sections[i].offset = (uint32_t)align(out);
		head.sections[i].count = (uint32_t)(section->n / item_sizes[i]);
		put(out, section->bytes, section->n);
		if (out->n > POLICY_IMAGE_MAX_BYTES)
			return compiler_too_large(w->compiler, "the compiled policy needs more than %u MiB",
						  POLICY_IMAGE_MAX_BYTES >> 20);
	}
	head.size = (uint32_t)align(out);
	if (out->out_of_memory)
		return -ENOMEM;
	memcpy(out->bytes, &head, sizeof(head));
	return 0;
}

int compile_image(struct compiler *c, void **imagep, size_t *lenp)
{
	_cleanup_(writer_free) struct writer w = {.compiler = c};
	_cleanup_(output_free) struct output out = {};
	int r = check_size(c);

	if (r)
		return r;
	put_tables(&w.sections[IMAGE_TABLES], c);
	put_rules(&w);
	put_locals(&w);
	put_bindings(&w);
	put_automaton(&w);
	if (c->arena.out_of_memory)
		return -ENOMEM;
	r = join_sections(&w, &out);
	if (r)
		return r;
	*imagep = out.bytes;
	*lenp = out.n;
	out.bytes = NULL;
	return 0;
}
