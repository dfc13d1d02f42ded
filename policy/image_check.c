/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "bpf/abi.h"
#include "policy/image_check.h"

#define MAX_RANGES (1U << 18) /* bh_addr_class() finds among so many */

/* ---- tables ---- */

/* Do `n` items of `size` bytes stand at `off`, aligned to `alignment`, between the header and the end? */
static bool holds(const struct bh_tables *head, uint32_t off, uint64_t n, uint32_t size, uint32_t alignment)
{
	return off >= sizeof(*head) && off % alignment == 0 && off <= head->size && n <= (head->size - off) / size;
}

static const void *at(const struct bh_tables *head, uint32_t off)
{
	return (const unsigned char *)head + off;
}

static bool classes16(const struct bh_tables *head, uint32_t off, uint64_t n, uint32_t limit)
{
	const uint16_t *items = at(head, off);

	for (uint64_t i = 0; i < n; i++)
		if (items[i] >= limit)
			return false;
	return true;
}

static const char *check_addresses(const struct bh_tables *head)
{
	const struct bh_range4 *four;
	const struct bh_range6 *six;

	if (!head->addr4_count || head->addr4_count > MAX_RANGES || !head->addr6_count ||
	    head->addr6_count > MAX_RANGES || !holds(head, head->addr4_off, head->addr4_count, sizeof(*four), 4) ||
	    !holds(head, head->addr6_off, head->addr6_count, sizeof(*six), 8))
		return "address ranges out of bounds";
	four = at(head, head->addr4_off);
	for (uint32_t i = 0; i < head->addr4_count; i++)
		if (four[i].class >= head->n_addr || (i ? four[i].first <= four[i - 1].first : four[i].first != 0))
			return "IPv4 ranges out of order";
	six = at(head, head->addr6_off);
	for (uint32_t i = 0; i < head->addr6_count; i++) {
		bool ordered =
			i ? six[i].hi > six[i - 1].hi || (six[i].hi == six[i - 1].hi && six[i].lo > six[i - 1].lo)
			  : !six[i].hi && !six[i].lo;

		if (six[i].class >= head->n_addr || !ordered)
			return "IPv6 ranges out of order";
	}
	return NULL;
}

/* ---- grids ---- */

/* Can the item be what a grid holds? */
typedef bool (*item_check)(const struct bh_tables *head, uint32_t item, uint32_t limit);

static bool is_class(const struct bh_tables *head, uint32_t item, uint32_t limit)
{
	(void)head;
	return item < limit;
}

static const struct bh_span *spans(const struct bh_tables *head)
{
	return at(head, head->row_off);
}

/* Rows themselves have been checked. */
static bool is_row(const struct bh_tables *head, uint32_t item, uint32_t limit)
{
	(void)limit;
	return item < head->row_count && spans(head)[item].first & BH_ROW;
}

static bool check_grid(const struct bh_tables *head, const struct bh_grid *grid, uint32_t rows, uint32_t columns,
		       item_check is_item, uint32_t limit)
{
	const uint32_t *index, *blocks;
	uint64_t n_index = (uint64_t)grid->rows * grid->width, n_items;

	if (grid->rows < rows || grid->shift > 24 || !columns)
		return false;
	n_items = (uint64_t)grid->n_blocks << grid->shift;
	if (!grid->n_blocks || (columns - 1) >> grid->shift >= grid->width ||
	    !holds(head, grid->index_off, n_index, 4, 4) || !holds(head, grid->block_off, n_items, 4, 4))
		return false;
	index = at(head, grid->index_off);
	for (uint64_t i = 0; i < n_index; i++)
		if (index[i] >= grid->n_blocks)
			return false;
	blocks = at(head, grid->block_off);
	for (uint64_t i = 0; i < n_items; i++)
		if (!is_item(head, blocks[i], limit))
			return false;
	return true;
}

/* ---- verdicts ---- */

static const char *check_ranks(const struct bh_tables *head)
{
	const struct bh_rank *ranks;
	const uint64_t *untils;
	uint32_t n_tiers = 0;

	if (!holds(head, head->rank_off, head->rank_count, sizeof(*ranks), 4) || !head->until_count ||
	    !holds(head, head->until_off, head->until_count, 8, 8) || head->rank_count >= head->n_rules)
		return "ranks out of bounds";
	ranks = at(head, head->rank_off);
	for (uint32_t i = 0; i < head->rank_count; i++) {
		if (BH_CELL_RULE(ranks[i].cell) >= head->n_rules)
			return "cell names no rule";
		/* A pass goes on behind itself, or a walk would not end. */
		if (ranks[i].until >= head->until_count || ranks[i].end <= i || ranks[i].end > head->rank_count)
			return "rank out of bounds";
		/* Each tier ends where its last rank says, and a packet cannot be made to pass more than so many. */
		if (ranks[i].end == i + 1)
			n_tiers++;
		else if (ranks[i].end != ranks[i + 1].end)
			return "tiers out of order";
	}
	if (n_tiers > BH_MAX_TIERS)
		return "too many tiers";
	untils = at(head, head->until_off);
	for (uint32_t i = 0; i < head->until_count; i++)
		if ((i == 0) != (untils[i] == BH_FOREVER))
			return "moments out of bounds";
	if (BH_CELL_RULE(head->default_cell) || head->default_cell & BH_CELL_PASS)
		return "the default is a rule";
	return NULL;
}

/* Is it nothing, a rank, or a link below `limit`? Ranks ascend: the next lies behind `above`. */
static bool is_chain(const struct bh_tables *head, uint32_t chain, uint32_t limit, int64_t above)
{
	const struct bh_link *links = at(head, head->chain_off);

	if (!chain)
		return true;
	if (chain & BH_CHAIN_RANK)
		return (chain & ~BH_CHAIN_RANK) < head->rank_count && (chain & ~BH_CHAIN_RANK) > above;
	return chain < limit && links[chain].rank > above;
}

/* What a packet may have to go down. A link's next has a lower number, so every chain ends. */
static bool is_short(const struct bh_link *links, uint32_t chain)
{
	uint32_t n = 1;

	for (; !(chain & BH_CHAIN_RANK) && chain && n <= BH_MAX_CHAIN; n++)
		chain = links[chain].next;
	return n <= BH_MAX_CHAIN;
}

static const char *check_chains(const struct bh_tables *head)
{
	const struct bh_link *links;

	if (!head->chain_count || !holds(head, head->chain_off, head->chain_count, sizeof(*links), 4))
		return "chains out of bounds";
	links = at(head, head->chain_off);
	for (uint32_t i = 1; i < head->chain_count; i++)
		if (links[i].rank >= head->rank_count || !is_chain(head, links[i].next, i, links[i].rank))
			return "chain out of bounds or order";
	for (uint32_t i = 1; i < head->chain_count; i++)
		if (!is_short(links, i))
			return "chain too long";
	return NULL;
}

static const char *check_rows(const struct bh_tables *head)
{
	const struct bh_span *span;
	uint32_t left = 0;

	if (!head->row_count || !holds(head, head->row_off, head->row_count, sizeof(*span), 4))
		return "rows out of bounds";
	span = spans(head);
	if (span[0].first != (BH_ROW | 1) || span[0].chain)
		return "row 0 is not empty";
	for (uint32_t i = 0; i < head->row_count; i++) {
		bool starts = left == 0;

		if (starts) {
			left = span[i].first & ~BH_ROW;
			if (!(span[i].first & BH_ROW) || !left || left > BH_MAX_SPANS || left > head->row_count - i)
				return "row out of bounds";
		} else if (span[i].first >= BH_POINT_END || !span[i].first ||
			   (!(span[i - 1].first & BH_ROW) && span[i].first <= span[i - 1].first)) {
			return "row out of order";
		}
		if (!is_chain(head, span[i].chain, head->chain_count, -1))
			return "row names no chain";
		left--;
	}
	return NULL;
}

static const char *check_side(const struct bh_tables *head, uint32_t number)
{
	const struct bh_side *side = &head->side[number];
	uint32_t n_who = number == BH_SIDE_POSSIBLE_TO ? 1 : head->n_who;

	if (side->n_who != n_who)
		return "a side knows others";
	for (uint32_t view = 0; view < BH_VIEW_ADDR; view++)
		if (!holds(head, side->who_off[view], n_who, 2, 2) ||
		    !classes16(head, side->who_off[view], n_who, side->n_class[view]))
			return "peer classes out of bounds";
	if (!side->n_class[BH_VIEW_ADDR] || (side->addr.width && !check_grid(head, &side->addr, n_who, head->n_addr,
									     is_class, side->n_class[BH_VIEW_ADDR])))
		return "address classes out of bounds";
	return NULL;
}

/* A side that has no grid of addresses has no classes to ask for. */
static bool has_view(const struct bh_side *side, uint32_t view)
{
	return view < BH_VIEW_ADDR || (view == BH_VIEW_ADDR && side->addr.width);
}

static const char *check_parts(const struct bh_tables *head, uint32_t judgement)
{
	const struct bh_parts *parts = &head->parts[judgement];
	const struct bh_side *from = &head->side[judgement == BH_POSSIBLE ? BH_SIDE_POSSIBLE_FROM : BH_SIDE_FROM];

	if (parts->n > BH_MAX_PARTS)
		return "too many parts";
	for (uint32_t i = 0; i < parts->n; i++) {
		const struct bh_part *part = &parts->part[i];

		if (!has_view(&from[0], part->from_view) || !has_view(&from[1], part->to_view) ||
		    !check_grid(head, &part->grid, from->n_class[part->from_view], from[1].n_class[part->to_view],
				is_row, 0))
			return "part out of bounds";
	}
	return NULL;
}

static const char *check_verdicts(const struct bh_tables *head)
{
	const char *why = check_ranks(head);

	if (!why)
		why = check_chains(head);
	if (!why)
		why = check_rows(head);
	for (uint32_t i = 0; i < BH_SIDES && !why; i++)
		why = check_side(head, i);
	for (uint32_t i = 0; i < BH_JUDGEMENTS && !why; i++)
		why = check_parts(head, i);
	return why;
}

const char *image_check_tables(const void *bytes, size_t len)
{
	const struct bh_tables *head = bytes;
	const char *why;

	if (len < sizeof(*head) || len > BH_TABLES_BYTES || head->magic != BH_TABLES_MAGIC || head->size != len)
		return "not tables of this version";
	if (!head->n_addr)
		return "empty tables";
	if (head->n_who <= BH_ID_WORLD || head->n_who >= BH_MAX_IDENTITIES || !head->n_rules ||
	    head->n_rules > BH_MAX_RULES)
		return "too many or too few identities or rules";
	why = check_addresses(head);
	return why ? why : check_verdicts(head);
}

/* ---- the rest ---- */

static const void *section(const struct image_header *head, enum image_section number, size_t item_size)
{
	uint32_t offset = head->sections[number].offset, count = head->sections[number].count;

	if (offset < sizeof(*head) || offset % 8 || offset > head->size || count > (head->size - offset) / item_size)
		return NULL;
	return (const unsigned char *)head + offset;
}

static bool is_string(const struct image_view *view, uint32_t offset)
{
	return offset < view->head->sections[IMAGE_STRINGS].count;
}

/* Does a part of a section lie within it? */
static bool is_part(const struct image_view *view, enum image_section number, uint32_t first, uint32_t n)
{
	uint32_t count = view->head->sections[number].count;

	return first <= count && n <= count - first;
}

static const char *check_names(const struct image_view *view, const struct bh_tables *tables)
{
	const struct image_header *head = view->head;

	if (head->sections[IMAGE_RULES].count != tables->n_rules)
		return "names and rules differ in number";
	for (uint32_t i = 0; i < tables->n_rules; i++)
		if (!is_string(view, view->rules[i].name) ||
		    (view->rules[i].file != IMAGE_NO_STRING && !is_string(view, view->rules[i].file)) ||
		    (view->rules[i].tier != IMAGE_NO_STRING && !is_string(view, view->rules[i].tier)))
			return "name of a rule out of bounds";
	for (uint32_t i = 0; i < head->sections[IMAGE_LOCALS].count; i++) {
		const struct image_local *local = &view->locals[i];

		if (!is_string(view, local->name) || !is_string(view, local->path) ||
		    local->kind > POLICY_LOCAL_CGROUP || local->who <= BH_ID_WORLD || local->who >= head->first_spiffe)
			return "local identity out of bounds";
	}
	return NULL;
}

static const char *check_automaton(const struct image_view *view, const struct bh_tables *tables)
{
	const struct image_header *head = view->head;
	uint32_t n_states = head->sections[IMAGE_STATES].count;

	if (n_states <= IMAGE_START_STATE)
		return "no automaton";
	for (uint32_t i = 0; i < n_states; i++) {
		const struct image_state *state = &view->states[i];

		if (!is_part(view, IMAGE_EDGES, state->first_edge, state->n_edges) || state->otherwise >= n_states ||
		    state->who < head->first_spiffe || state->who >= tables->n_who)
			return "automaton out of bounds";
	}
	for (uint32_t i = 0; i < head->sections[IMAGE_EDGES].count; i++)
		if (!is_string(view, view->edges[i].segment) || view->edges[i].state >= n_states)
			return "automaton out of bounds";
	return NULL;
}

static const char *check_bindings(const struct image_view *view, const struct bh_tables *tables)
{
	const struct image_header *head = view->head;
	uint32_t n_bindings = head->sections[IMAGE_BINDINGS].count;

	if (head->sections[IMAGE_CLASSES].count != tables->n_who - head->first_spiffe)
		return "classes and bindings differ in number";
	for (uint32_t i = 0; i < head->sections[IMAGE_CLASSES].count; i++)
		if (!is_part(view, IMAGE_CLASS_BINDINGS, view->classes[i].first_binding, view->classes[i].n_bindings))
			return "bindings out of bounds";
	for (uint32_t i = 0; i < head->sections[IMAGE_CLASS_BINDINGS].count; i++)
		if (view->class_bindings[i] >= n_bindings)
			return "bindings out of bounds";
	for (uint32_t i = 0; i < n_bindings; i++)
		if (!is_string(view, view->bindings[i].identity) ||
		    !is_part(view, IMAGE_PLACES, view->bindings[i].first_place, view->bindings[i].n_places))
			return "bindings out of bounds";
	for (uint32_t i = 0; i < head->sections[IMAGE_PLACES].count; i++)
		if (view->places[i].kind > POLICY_LOCAL_CGROUP || !is_string(view, view->places[i].path))
			return "bindings out of bounds";
	return NULL;
}

static bool is_digest(const char *digest)
{
	return strnlen(digest, 65) == 64 && strspn(digest, "0123456789abcdef") == 64;
}

const char *image_check(struct image_view *view, const void *bytes, size_t len)
{
	const struct image_header *head = bytes;
	const struct bh_tables *tables;
	const char *why;

	if (len < sizeof(*head) || head->magic != IMAGE_MAGIC || head->size != len)
		return "not an image of this version";
	*view = (struct image_view){
		.head = head,
		.tables = section(head, IMAGE_TABLES, 1),
		.strings = section(head, IMAGE_STRINGS, 1),
		.rules = section(head, IMAGE_RULES, sizeof(struct image_rule)),
		.locals = section(head, IMAGE_LOCALS, sizeof(struct image_local)),
		.states = section(head, IMAGE_STATES, sizeof(struct image_state)),
		.edges = section(head, IMAGE_EDGES, sizeof(struct image_edge)),
		.classes = section(head, IMAGE_CLASSES, sizeof(struct image_class)),
		.class_bindings = section(head, IMAGE_CLASS_BINDINGS, sizeof(uint32_t)),
		.bindings = section(head, IMAGE_BINDINGS, sizeof(struct image_binding)),
		.places = section(head, IMAGE_PLACES, sizeof(struct image_place)),
	};
	if (!view->tables || !view->strings || !view->rules || !view->locals || !view->states || !view->edges ||
	    !view->classes || !view->class_bindings || !view->bindings || !view->places)
		return "a section is out of bounds";
	if (!is_digest(head->digest))
		return "no digest";
	/* The last string ends, so every one does. */
	if (!head->sections[IMAGE_STRINGS].count || view->strings[head->sections[IMAGE_STRINGS].count - 1])
		return "strings without end";
	why = image_check_tables(view->tables, head->sections[IMAGE_TABLES].count);
	if (why)
		return why;
	tables = view->tables;
	if (head->first_spiffe <= BH_ID_WORLD || head->first_spiffe >= tables->n_who)
		return "no class of SPIFFE IDs";
	why = check_names(view, tables);
	if (!why)
		why = check_automaton(view, tables);
	return why ? why : check_bindings(view, tables);
}
