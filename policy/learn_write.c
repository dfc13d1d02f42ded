/* SPDX-License-Identifier: Apache-2.0 */
/*
 * learn_write.c - what was learned, as rules, and as text that a person reads.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "policy/instant.h"
#include "policy/learner.h"
#include "policy/text.h"

#define LINE_WIDTH 100U

/* ---- lists ---- */

struct words {
	const char **items;
	uint32_t n;
};

/* May it stand without quotes, also for readers that see numbers and truth values in words? */
static bool is_plain_word(const char *text)
{
	static const char *const reserved[] = {"yes", "no", "on", "off", "true", "false", "null", "y", "n"};

	if (!((*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z') || *text == '/') ||
	    strpbrk(text, ":#,[]{}\"'\\ \t\n\r"))
		return false;
	for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
		if (strcasecmp(text, reserved[i]) == 0)
			return false;
	return true;
}

/* A double-quoted scalar, where one is needed. Bytes that are no text at all are for the reader to refuse. */
static char *quoted(struct arena *arena, const char *text)
{
	char *out = arena_alloc(arena, 4 * strlen(text) + 3), *at = out;

	if (!out)
		return NULL;
	*at++ = '"';
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			at += sprintf(at, "\\%c", *text);
		else if ((unsigned char)*text < 0x20 || *text == 0x7f)
			at += sprintf(at, "\\x%02x", *text);
		else
			*at++ = *text;
	}
	strcpy(at, "\"");
	return out;
}

static const char *word(struct arena *arena, const char *text)
{
	return is_plain_word(text) ? text : quoted(arena, text);
}

/* "a", "[a, b]", or NULL when out of memory. */
static const char *flow_list(struct arena *arena, const struct words *words)
{
	size_t size = 3, len = 0;
	char *text;

	if (words->n == 1)
		return words->items[0];
	for (uint32_t i = 0; i < words->n; i++)
		size += strlen(words->items[i]) + 2;
	text = arena_alloc(arena, size);
	if (!text)
		return NULL;
	text[len++] = '[';
	for (uint32_t i = 0; i < words->n; i++)
		len += (size_t)sprintf(text + len, "%s%s", i ? ", " : "", words->items[i]);
	strcpy(text + len, "]");
	return text;
}

/* ---- rules ---- */

static bool range_of_service(const struct service *service, const struct service_range *ranges, uint32_t n)
{
	return service->n_ranges == n && memcmp(service->ranges, ranges, n * sizeof(*ranges)) == 0;
}

/* The name that the policy `against` has for exactly these, or the ports themselves. */
static const char *service_text(struct learn *learn, const struct cover_box *box)
{
	struct service_range *ranges = arena_array(&learn->arena, box->n[2], sizeof(*ranges));
	struct words words = {arena_array(&learn->arena, box->n[2], sizeof(char *)), 0};
	const struct policy *against = learn->options.against;
	char text[64];

	if (!ranges || !words.items)
		return NULL;
	for (uint32_t i = 0; i < box->n[2]; i++)
		ranges[i] = (struct service_range){box->items[2][i], box->items[2][i]};
	words.n = service_normalise(ranges, box->n[2]);
	for (size_t i = 0; against && i < against->n_services; i++)
		if (range_of_service(&against->services[i], ranges, words.n))
			return word(&learn->arena, against->services[i].name);
	for (uint32_t i = 0; i < words.n; i++) {
		service_format(text, sizeof(text), ranges[i]);
		words.items[i] = arena_copy(&learn->arena, text, strlen(text));
		if (!words.items[i])
			return NULL;
	}
	return flow_list(&learn->arena, &words);
}

/* One side of a rule: the atoms that can stand in one list. */
struct side {
	const uint32_t *atoms;
	uint32_t n;
	bool world_only;
};

/* Whoever is there and the world there cannot stand in one list: two sides. Returns how many there are. */
static int split_side(struct learn *learn, const uint32_t *atoms, uint32_t n, struct side sides[2])
{
	unsigned used = 0;

	for (unsigned world = 0; world < 2; world++) {
		uint32_t *kept = arena_array(&learn->arena, n, sizeof(*kept)), m = 0;

		if (!kept)
			return -ENOMEM;
		for (uint32_t i = 0; i < n; i++)
			if (learn->atoms[atoms[i]].world_only == (world == 1))
				kept[m++] = atoms[i];
		if (m)
			sides[used++] = (struct side){kept, m, world == 1};
	}
	return (int)used;
}

static const char *side_text(struct learn *learn, const struct side *side)
{
	struct words words = {arena_array(&learn->arena, side->n, sizeof(char *)), side->n};
	const char *list;

	if (!words.items)
		return NULL;
	for (uint32_t i = 0; i < side->n; i++) {
		words.items[i] = word(&learn->arena, learn->atoms[side->atoms[i]].name);
		if (!words.items[i])
			return NULL;
	}
	list = flow_list(&learn->arena, &words);
	if (!list || !side->world_only)
		return list;
	return arena_printf(&learn->arena, "{identity: world, network: %s}", list);
}

static void gather_evidence(const struct learn *learn, const struct side *from, const struct side *to,
			    const struct cover_box *box, struct evidence *evidence)
{
	for (uint32_t i = 0; i < from->n; i++)
		for (uint32_t j = 0; j < to->n; j++)
			for (uint32_t k = 0; k < box->n[2]; k++) {
				struct cover_cell key = {{from->atoms[i], to->atoms[j], box->items[2][k]}};
				const struct cover_cell *cell =
					bsearch(&key, learn->cells, learn->n_cells, sizeof(key), cover_cell_compare);

				if (cell) {
					const struct evidence *seen = &learn->evidence[cell - learn->cells];

					evidence_add(evidence, seen->count, seen->first, seen->last);
				}
			}
}

static int make_rule(struct learn *learn, const struct side *from, const struct side *to, const struct cover_box *box)
{
	struct evidence evidence = {};
	struct learn_rule *rule;

	if (array_grow(&learn->rules, &learn->rules_capacity, learn->n_rules, sizeof(*learn->rules)) < 0)
		return -ENOMEM;
	gather_evidence(learn, from, to, box, &evidence);
	rule = &learn->rules[learn->n_rules++];
	*rule = (struct learn_rule){
		.name = learn_name_rule(learn, from->atoms, from->n, to->atoms, to->n),
		.from = side_text(learn, from),
		.to = side_text(learn, to),
		.service = service_text(learn, box),
		.count = evidence.count,
		.first = evidence.first,
		.last = evidence.last,
	};
	return rule->name && rule->from && rule->to && rule->service ? 0 : -ENOMEM;
}

int learn_make_rules(struct learn *learn, const struct cover_box *boxes, size_t n)
{
	const struct policy *against = learn->options.against;
	uint32_t number;

	for (size_t i = 0; against && i < against->n_rules; i++)
		if (intern_bytes(&learn->rule_names, against->rules[i].name, strlen(against->rules[i].name), &number) <
		    0)
			return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		struct side from[2], to[2];
		int n_from = split_side(learn, boxes[i].items[0], boxes[i].n[0], from);
		int n_to = split_side(learn, boxes[i].items[1], boxes[i].n[1], to);

		if (n_from < 0 || n_to < 0)
			return -ENOMEM;
		for (int j = 0; j < n_from * n_to; j++)
			if (make_rule(learn, &from[j / n_to], &to[j % n_to], &boxes[i]) < 0)
				return -ENOMEM;
	}
	return 0;
}

/* ---- text ---- */

static void write_evidence(FILE *out, uint64_t count, int64_t first, int64_t last)
{
	char begin[INSTANT_TEXT_BYTES], end[INSTANT_TEXT_BYTES];

	instant_format(begin, first);
	instant_format(end, last);
	if (count == 1)
		fprintf(out, "once, %s", begin);
	else
		fprintf(out, "%" PRIu64 " times, first %s, last %s", count, begin, end);
}

static void arena_cleanup(struct arena *arena)
{
	arena_free(arena);
}

/* The values of a definition on its line, or as a list below it. */
static void write_values(FILE *out, const char *name, const char *const *values, size_t n)
{
	size_t len = strlen(name) + 6;

	for (size_t i = 0; i < n; i++)
		len += strlen(values[i]) + 2;
	if (n == 1) {
		fprintf(out, " %s\n", values[0]);
		return;
	}
	if (len > LINE_WIDTH) {
		fputc('\n', out);
		for (size_t i = 0; i < n; i++)
			fprintf(out, "    - %s\n", values[i]);
		return;
	}
	for (size_t i = 0; i < n; i++)
		fprintf(out, "%s%s", i ? ", " : " [", values[i]);
	fputs("]\n", out);
}

static void write_ids(const struct learn *learn, const struct atom *atom, struct arena *arena, FILE *out)
{
	const char **values = arena_array(arena, atom->members.n, sizeof(*values));

	for (size_t i = 0; values && i < atom->members.n; i++)
		values[i] = learn->peers[atom->members.items[i]].text;
	if (values && atom->pattern)
		fprintf(out, " %s # %zu IDs were recorded; this stands for more\n", atom->pattern, atom->members.n);
	else if (values)
		write_values(out, atom->name, values, atom->members.n);
}

static void write_places(const struct learn *learn, const struct atom *atom, struct arena *arena, FILE *out)
{
	const char *name = learn->peers[atom->members.items[0]].text;
	const char **values = arena_array(arena, learn->place_keys.n, sizeof(*values));
	size_t n = 0;

	for (uint32_t i = 0; values && i < learn->place_keys.n; i++) {
		const char *path = word(arena, learn->places[i].cgroup);

		if (path && strcmp(learn->places[i].name, name) == 0)
			values[n++] = arena_printf(arena, "{cgroup: %s}", path);
	}
	if (values && !arena->out_of_memory)
		write_values(out, atom->name, values, n);
}

/* The blocks that hold these addresses (sorted) and no other: as large as can be. */
static size_t find_blocks(const struct learn *learn, const struct atom *atom, struct arena *arena, char **blocks)
{
	size_t n = 0;

	for (size_t i = 0; i < atom->members.n;) {
		address first = learn->peers[atom->members.items[i]].address;
		unsigned bits = address_is_v4(first) ? 32 : 128, prefix = bits;
		size_t run = 1;

		while (i + run < atom->members.n && learn->peers[atom->members.items[i + run]].address == first + run &&
		       address_is_v4(first + run) == address_is_v4(first))
			run++;
		while (prefix && bits - prefix < 31 && !(first & ((address)1 << (bits - prefix))) &&
		       (size_t)2 << (bits - prefix) <= run)
			prefix--;
		i += (size_t)1 << (bits - prefix);
		blocks[n] = arena_alloc(arena, ADDRESS_TEXT_BYTES + 2);
		if (!blocks[n])
			return 0;
		address_format(blocks[n], first, bits == 32, prefix);
		if (prefix == bits) /* one address */
			*strchr(blocks[n], '/') = 0;
		if (bits == 128)
			blocks[n] = quoted(arena, blocks[n]);
		n += blocks[n] != NULL;
	}
	return n;
}

static void write_blocks(const struct learn *learn, const struct atom *atom, struct arena *arena, FILE *out)
{
	char **blocks = arena_array(arena, atom->members.n, sizeof(*blocks));

	if (blocks)
		write_values(out, atom->name, (const char *const *)blocks, find_blocks(learn, atom, arena, blocks));
}

static void write_definitions(const struct learn *learn, bool networks, FILE *out)
{
	_cleanup_(arena_cleanup) struct arena arena = {};
	bool head = false;

	for (uint32_t i = 0; i < learn->n_atoms; i++) {
		const struct atom *atom = &learn->atoms[i];

		if (atom->defined || atom->kind == PEER_HOST || (atom->kind == PEER_ADDRESS) != networks)
			continue;
		if (!head)
			fputs(networks ? "networks:\n" : "identities:\n", out);
		head = true;
		fprintf(out, "  %s:", word(&arena, atom->name));
		if (atom->kind == PEER_SPIFFE)
			write_ids(learn, atom, &arena, out);
		else if (atom->kind == PEER_LOCAL)
			write_places(learn, atom, &arena, out);
		else
			write_blocks(learn, atom, &arena, out);
	}
}

/* The policy has no tier of the usual name: its last one gives way to all it says already. */
static const char *tier_to_name(const struct learn *learn)
{
	const struct policy *against = learn->options.against;

	for (uint32_t i = 0; against && i < against->n_tiers; i++)
		if (strcmp(against->tiers[i].name, "app") == 0)
			return NULL;
	return against && against->n_tiers ? against->tiers[against->n_tiers - 1].name : NULL;
}

static void write_rules(const struct learn *learn, FILE *out)
{
	const char *tier = tier_to_name(learn);

	if (learn->n_rules)
		fputs("rules:\n", out);
	for (size_t i = 0; i < learn->n_rules; i++) {
		const struct learn_rule *rule = &learn->rules[i];

		fputs("  # ", out);
		write_evidence(out, rule->count, rule->first, rule->last);
		fprintf(out, "\n  - name: %s\n", rule->name);
		if (tier)
			fprintf(out, "    tier: %s\n", tier);
		fprintf(out, "    action: allow\n    from: %s\n    to: %s\n    service: %s\n", rule->from, rule->to,
			rule->service);
	}
}

static void write_wide(const struct learn *learn, FILE *out)
{
	for (uint32_t i = 0; i < learn->n_atoms; i++) {
		const struct atom *atom = &learn->atoms[i];

		if (atom->defined && atom->wide)
			fprintf(out, "# %s, of that policy, stands for more than the %zu recorded.\n", atom->name,
				atom->members.n);
	}
}

static void write_printable(FILE *out, struct arena *arena, const char *text)
{
	const char *printable = text_printable(arena, text, strlen(text));

	fputs(printable ? printable : "?", out);
}

void learn_write(const struct learn *learn, const char *origin, FILE *out)
{
	_cleanup_(arena_cleanup) struct arena arena = {};
	const struct learn_summary *summary = &learn->summary;

	fputs("# Learned from ", out);
	write_printable(out, &arena, origin);
	fprintf(out, ": %zu different flow%s", summary->n_flows, summary->n_flows == 1 ? "" : "s");
	if (summary->n_flows) {
		fputs(", ", out);
		write_evidence(out, summary->count, summary->first, summary->last);
	}
	fputs(".\n", out);
	if (learn->options.against)
		fprintf(out, "# %zu of them %s not allowed by the policy that this is against.\n", summary->n_missing,
			summary->n_missing == 1 ? "is" : "are");
	write_wide(learn, out);
	fputs("bulkhead: 1\n", out);
	write_definitions(learn, false, out);
	write_definitions(learn, true, out);
	if (!learn->options.against)
		fputs("defaults: {action: deny, log: denied}\n", out);
	write_rules(learn, out);
	for (uint32_t i = 0; i < learn->note_keys.n; i++) {
		fputs("# Not learned: ", out);
		write_printable(out, &arena, learn->notes[i].text);
		fputs(" (", out);
		write_evidence(out, learn->notes[i].count, learn->notes[i].first, learn->notes[i].last);
		fputs(")\n", out);
	}
}
