/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compile_image.c - the bytes of tables (abi_policy.h) and image (image_format.h).
 */
#include <errno.h>
#include <stdio.h>
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

static uint32_t put_array(struct output *out, const void *bytes, size_t n, size_t item_size)
{
	uint32_t at = (uint32_t)align(out);

	put(out, bytes, n * item_size);
	return at;
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

static struct bh_grid put_grid(struct output *out, const struct grid *grid)
{
	if (!grid->width)
		return (struct bh_grid){};
	return (struct bh_grid){
		.index_off = put_array(out, grid->index, (size_t)grid->rows * grid->width, sizeof(uint32_t)),
		.rows = grid->rows,
		.width = grid->width,
		.shift = grid->shift,
		.block_off = put_array(out, grid->blocks, (size_t)grid->n_blocks << grid->shift, sizeof(uint32_t)),
		.n_blocks = grid->n_blocks,
	};
}

static struct bh_side put_side(struct output *out, const struct compiler *c, uint32_t number)
{
	const struct side *side = &c->sides[number];
	struct bh_side result = {.n_who = side->n_who};

	for (uint32_t view = 0; view < BH_VIEWS; view++)
		result.n_class[view] = side->view[view].n;
	for (uint32_t view = 0; view < BH_VIEW_ADDR; view++) {
		result.who_off[view] = (uint32_t)align(out);
		for (uint32_t who = 0; who < side->n_who; who++) {
			uint16_t class = (uint16_t)side->view[view].class_of[who];

			put(out, &class, sizeof(class));
		}
	}
	result.addr = put_grid(out, &c->side_grids[number]);
	return result;
}

static void put_parts(struct output *out, struct bh_parts *parts, const struct judgements *j, uint32_t judgement,
		      const struct bh_parts *other)
{
	for (uint32_t p = 0; p < j->n_parts; p++) {
		const struct part *part = &j->parts[p];

		parts->part[parts->n++] = (struct bh_part){
			.from_view = part->from_view,
			.to_view = part->to_view,
			.grid = judgement == 1 && part->one_line ? other->part[p].grid
								 : put_grid(out, &part->grid[judgement]),
		};
	}
}

static void put_verdicts(struct output *out, struct bh_tables *head, const struct compiler *c)
{
	for (uint32_t i = 0; i < BH_SIDES; i++)
		head->side[i] = put_side(out, c, i);
	put_parts(out, &head->parts[BH_EGRESS], &c->verdicts, 0, NULL);
	put_parts(out, &head->parts[BH_INGRESS], &c->verdicts, 1, &head->parts[BH_EGRESS]);
	put_parts(out, &head->parts[BH_POSSIBLE], &c->possible, 0, NULL);
	head->row_off = (uint32_t)align(out);
	head->row_count = (uint32_t)(c->rows.bytes / sizeof(struct bh_span));
	for (uint32_t i = 0; i < c->rows.n; i++)
		put(out, c->rows.entries[i].bytes, c->rows.entries[i].len);
	head->chain_off = (uint32_t)align(out);
	head->chain_count = c->links.n;
	for (uint32_t i = 0; i < c->links.n; i++)
		put(out, c->links.entries[i].bytes, sizeof(struct bh_link));
	head->rank_count = (uint32_t)c->policy->n_rules;
	head->rank_off = put_array(out, c->ranks, head->rank_count, sizeof(struct bh_rank));
	head->until_count = c->n_untils;
	head->until_off = put_array(out, c->untils, c->n_untils, sizeof(uint64_t));
}

/* ---- size ---- */

struct size {
	const char *what;
	uint64_t bytes;
	uint64_t n;
};

static uint64_t parts_bytes(const struct judgements *j)
{
	uint64_t bytes = 0;

	for (uint32_t p = 0; p < j->n_parts; p++)
		for (uint32_t d = 0; d < j->n; d++)
			if (d == 0 || !j->parts[p].one_line)
				bytes += grid_bytes(&j->parts[p].grid[d]);
	return bytes;
}

static uint64_t sides_bytes(const struct compiler *c)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < BH_SIDES; i++)
		bytes += c->sides[i].n_who * 4ULL + grid_bytes(&c->side_grids[i]);
	return bytes;
}

static int check_fit(struct compiler *c)
{
	const struct size sizes[] = {
		{"address ranges of its networks",
		 c->addr4.n * sizeof(struct bh_range4) + c->addr6.n * sizeof(struct bh_range6),
		 c->addr4.n + c->addr6.n},
		{"classes of identities and addresses", sides_bytes(c), (uint64_t)c->n_who + c->n_addr},
		{"pairs of sources and destinations", parts_bytes(&c->verdicts) + parts_bytes(&c->possible),
		 c->verdicts.n_parts},
		{"different sets of services and rules between pairs", c->rows.bytes, c->rows.n},
		{"chains of rules with `until` or behind tiers that can be passed", c->links.bytes, c->links.n},
		{"rules", c->policy->n_rules * sizeof(struct bh_rank) + c->n_untils * 8ULL, c->policy->n_rules},
	};
	uint64_t size = sizeof(struct bh_tables) + 1024;
	size_t largest = 0;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		size += sizes[i].bytes;
		if (sizes[i].bytes > sizes[largest].bytes)
			largest = i;
	}
	if (size <= BH_TABLES_BYTES)
		return 0;
	return compiler_too_large(c,
				  "the compiled policy needs %.1f MiB of tables, the limit is %u MiB; the largest "
				  "part, %.1f MiB, are the %lu %s",
				  (double)size / (1 << 20), BH_TABLES_BYTES >> 20,
				  (double)sizes[largest].bytes / (1 << 20), (unsigned long)sizes[largest].n,
				  sizes[largest].what);
}

static int check_size(struct compiler *c)
{
	for (uint32_t i = 0; i < BH_SIDES; i++)
		for (uint32_t view = 0; view < BH_VIEW_ADDR; view++)
			if (c->sides[i].view[view].n > UINT16_MAX)
				return compiler_too_large(c, "the policy tells %u identities apart, the limit is %u",
							  c->sides[i].view[view].n, UINT16_MAX);
	if (c->addr4.n > 1U << 18 || c->addr6.n > 1U << 18)
		return compiler_too_large(c, "the networks make %zu IPv4 and %zu IPv6 ranges, the limit of each is %u",
					  c->addr4.n, c->addr6.n, 1U << 18);
	if (c->n_who >= BH_MAX_IDENTITIES)
		return compiler_too_large(c, "the policy tells %u identities apart, the limit is %u", c->n_who,
					  BH_MAX_IDENTITIES - 1);
	return check_fit(c);
}

static void put_tables(struct output *out, const struct compiler *c)
{
	struct bh_tables head = {
		.magic = BH_TABLES_MAGIC,
		.n_who = c->n_who,
		.n_addr = c->n_addr,
		.n_rules = (uint32_t)c->policy->n_rules + 1,
		.default_cell =
			compile_log_bits(c->policy->default_log) | (c->policy->default_allow ? BH_CELL_ALLOW : 0),
	};

	put(out, &head, sizeof(head));
	put_addresses(out, &head, c);
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
		.tier = IMAGE_NO_STRING,
	};

	put(&w->sections[IMAGE_RULES], &rule, sizeof(rule));
	for (size_t i = 0; i < policy->n_rules; i++) {
		rule = (struct image_rule){
			.name = string_at(w, policy->rules[i].name),
			.file = string_at(w, policy->source_names[policy->rules[i].at.source]),
			.line = policy->rules[i].at.line,
			.tier = policy->rules[i].tier < policy->n_tiers
					? string_at(w, policy->tiers[policy->rules[i].tier].name)
					: IMAGE_NO_STRING,
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
			struct image_place place = {identity->only[j].kind, string_at(w, identity->only[j].path),
						    identity->only[j].uid};

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

	snprintf(head.digest, sizeof(head.digest), "%.64s", w->compiler->policy->digest);
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
