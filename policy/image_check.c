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

static bool classes32(const struct bh_tables *head, uint32_t off, uint64_t n, uint32_t limit)
{
	const uint32_t *items = at(head, off);

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

static bool check_ports(const struct bh_tables *head, uint32_t off, uint32_t count)
{
	const struct bh_range_port *ranges;

	if (!count || count > 65536 || !holds(head, off, count, sizeof(*ranges), 4))
		return false;
	ranges = at(head, off);
	for (uint32_t i = 0; i < count; i++)
		if (ranges[i].class >= head->n_svc ||
		    (i ? ranges[i].first <= ranges[i - 1].first : ranges[i].first != 0))
			return false;
	return true;
}

static const char *check_services(const struct bh_tables *head)
{
	if (!check_ports(head, head->tcp_off, head->tcp_count) || !check_ports(head, head->udp_off, head->udp_count))
		return "port ranges out of bounds or order";
	if (!holds(head, head->icmp_off, 256, 2, 2) || !holds(head, head->icmp6_off, 256, 2, 2) ||
	    !classes16(head, head->icmp_off, 256, head->n_svc) || !classes16(head, head->icmp6_off, 256, head->n_svc))
		return "ICMP types out of bounds";
	return NULL;
}

static const char *check_verdicts(const struct bh_tables *head)
{
	uint64_t peers = (uint64_t)head->n_who * head->n_addr, pairs = (uint64_t)head->n_from * head->n_to;
	uint64_t cells = (uint64_t)head->n_rows * head->n_svc, possible = (uint64_t)head->n_poss_rows * head->n_svc;

	if (!holds(head, head->from_off, peers, 2, 2) || !holds(head, head->to_off, peers, 2, 2) ||
	    !holds(head, head->poss_off, peers, 4, 4))
		return "peer classes out of bounds";
	if (!classes16(head, head->from_off, peers, head->n_from) ||
	    !classes16(head, head->to_off, peers, head->n_to) ||
	    !classes32(head, head->poss_off, peers, head->n_poss_rows))
		return "peer class out of range";
	for (int d = 0; d < 2; d++)
		if (!holds(head, head->row_off[d], pairs, 4, 4) ||
		    !classes32(head, head->row_off[d], pairs, head->n_rows))
			return "rows out of bounds";
	if (!holds(head, head->cell_off, cells, 4, 4) || !holds(head, head->poss_cell_off, possible, 1, 1))
		return "cells out of bounds";
	for (uint64_t i = 0; i < cells; i++) {
		uint32_t cell = ((const uint32_t *)at(head, head->cell_off))[i];

		if (BH_CELL_RULE(cell) >= head->n_rules)
			return "cell names no rule";
	}
	for (uint64_t i = 0; i < possible; i++)
		if (((const uint8_t *)at(head, head->poss_cell_off))[i] > 1)
			return "possible cell out of range";
	return NULL;
}

const char *image_check_tables(const void *bytes, size_t len)
{
	const struct bh_tables *head = bytes;
	const char *why;

	if (len < sizeof(*head) || len > BH_TABLES_BYTES || head->magic != BH_TABLES_MAGIC || head->size != len)
		return "not tables of this version";
	if (!head->n_addr || !head->n_from || !head->n_to || !head->n_svc || !head->n_rows || !head->n_poss_rows)
		return "empty tables";
	if (head->n_who <= BH_ID_WORLD || head->n_who >= BH_MAX_IDENTITIES || !head->n_rules ||
	    head->n_rules > BH_MAX_RULES)
		return "too many or too few identities or rules";
	why = check_addresses(head);
	if (!why)
		why = check_services(head);
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
		    (view->rules[i].file != IMAGE_NO_STRING && !is_string(view, view->rules[i].file)))
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
