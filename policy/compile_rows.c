/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compile_rows.c - what the rules that match one pair of ends say of every service.
 *
 * The rules are laid over the line of services one after the other, lowest rank first, and each adds itself to the chain
 * of every interval that is still open. An interval is closed for the rest of a tier by a rule without `until`, and for
 * good if nothing can leave that tier before the rule decides. What is closed is skipped, so the cost is that of the
 * chains that come out.
 *
 * Where rules begin and end is marked in a bitmap of the line: that sorts, takes out what is there twice, and tells the
 * number of an interval by its point, all without comparing.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/compiler.h"

#define NO_NODE 0xffffffffU
#define WORDS (SERVICE_END / 64 + 1)
#define OUTER_WORDS (WORDS / 64 + 1)

struct node {
	uint32_t rank;
	uint32_t before; /* node of the rank before it in the chain, or NO_NODE */
};

struct interval {
	uint32_t open; /* itself, or one nearer to the next that is open in this tier */
	uint32_t last; /* node */
	uint32_t length;
	uint32_t passed; /* tier + 1 of the last pass in the chain */
	bool closed;	 /* for good */
};

struct row_maker {
	struct compiler *compiler;
	struct list bounds; /* where intervals begin */
	uint64_t marks[WORDS];
	uint64_t words[OUTER_WORDS]; /* which of the former are not 0 */
	uint32_t below[WORDS];	     /* bounds before those in this word; only where there is one */
	struct interval *intervals;
	size_t capacity;
	struct node *nodes;
	size_t n_nodes, nodes_capacity;
	struct bh_span *spans;
	size_t n_spans, spans_capacity;
};

int row_maker_new(struct row_maker **makerp, struct compiler *c)
{
	static const struct bh_span nothing = {.first = BH_ROW | 1};
	struct row_maker *maker = calloc(1, sizeof(*maker));
	uint32_t row, link;
	static const struct bh_link unused = {};

	if (!maker)
		return -ENOMEM;
	maker->compiler = c;
	*makerp = maker;
	/* Row 0 and link 0 come first. */
	if (c->rows.n)
		return 0;
	if (intern_bytes(&c->rows, &nothing, sizeof(nothing), &row) < 0 || list_push(&c->row_at, 0) < 0 ||
	    intern_bytes(&c->links, &unused, sizeof(unused), &link) < 0)
		return -ENOMEM;
	return 0;
}

void row_maker_free(struct row_maker *maker)
{
	if (!maker)
		return;
	list_free(&maker->bounds);
	free(maker->intervals);
	free(maker->nodes);
	free(maker->spans);
	free(maker);
}

static const struct ranked_rule *rule_of(const struct row_maker *m, uint32_t rank)
{
	return &m->compiler->ranked[rank];
}

static void mark(struct row_maker *m, uint32_t point)
{
	m->marks[point / 64] |= 1ULL << point % 64;
	m->words[point / 64 / 64] |= 1ULL << point / 64 % 64;
}

/* What the row before left. */
static void clear_marks(struct row_maker *m)
{
	for (uint32_t i = 0; i < OUTER_WORDS; i++) {
		for (uint64_t words = m->words[i]; words; words &= words - 1)
			m->marks[i * 64 + (unsigned)__builtin_ctzll(words)] = 0;
		m->words[i] = 0;
	}
}

/* The bounds, in order. There is room for them. */
static void list_marks(struct row_maker *m)
{
	size_t n = 0;

	for (uint32_t i = 0; i < OUTER_WORDS; i++)
		for (uint64_t words = m->words[i]; words; words &= words - 1) {
			uint32_t word = i * 64 + (unsigned)__builtin_ctzll(words);

			m->below[word] = (uint32_t)n;
			for (uint64_t bits = m->marks[word]; bits; bits &= bits - 1)
				m->bounds.items[n++] = word * 64 + (unsigned)__builtin_ctzll(bits);
		}
	m->bounds.n = n;
}

/* Cuts the line wherever a rule begins or ends; the last interval ends with the line. */
static int cut_line(struct row_maker *m, const uint32_t *ranks, size_t n)
{
	struct list *bounds = &m->bounds;
	uint64_t n_marks = 1;

	clear_marks(m);
	mark(m, 0);
	mark(m, SERVICE_END);
	for (size_t i = 0; i < n; i++) {
		const struct ranked_rule *rule = rule_of(m, ranks[i]);

		for (uint32_t j = 0; j < rule->n_services; j++) {
			mark(m, rule->services[j].first);
			mark(m, rule->services[j].last + 1);
		}
		n_marks += 2 * (uint64_t)rule->n_services;
	}
	/* No more than there are points, but most rows have few. */
	while (bounds->capacity < (n_marks < SERVICE_END ? n_marks : SERVICE_END) + 1) {
		bounds->n = bounds->capacity;
		if (list_reserve(bounds) < 0)
			return -ENOMEM;
	}
	list_marks(m);
	while (m->capacity < bounds->n)
		if (array_grow(&m->intervals, &m->capacity, m->capacity, sizeof(*m->intervals)) < 0)
			return -ENOMEM;
	for (uint32_t i = 0; i < bounds->n; i++)
		m->intervals[i] = (struct interval){.open = i, .last = NO_NODE};
	m->n_nodes = 0;
	/* What is marked, and looked for again when the rules are laid, is more than what is left. */
	return compiler_spend(m->compiler, 8 * n_marks);
}

/* The first interval from `i` on that is open. The last bound always is. */
static uint32_t next_open(struct row_maker *m, uint32_t i)
{
	while (m->intervals[i].open != i) {
		m->intervals[i].open = m->intervals[m->intervals[i].open].open;
		i = m->intervals[i].open;
	}
	return i;
}

/* What was closed for the rest of a tier is open in the next. */
static void enter_tier(struct row_maker *m)
{
	for (uint32_t i = 0; i < m->bounds.n; i++)
		m->intervals[i].open = m->intervals[i].closed ? i + 1 : i;
}

static int append(struct row_maker *m, uint32_t i, uint32_t rank, const uint32_t *open_until)
{
	const struct ranked_rule *rule = rule_of(m, rank);
	struct interval *interval = &m->intervals[i];

	if (array_grow(&m->nodes, &m->nodes_capacity, m->n_nodes, sizeof(*m->nodes)) < 0)
		return -ENOMEM;
	m->nodes[m->n_nodes] = (struct node){rank, interval->last};
	interval->last = (uint32_t)m->n_nodes++;
	if (++interval->length > BH_MAX_CHAIN)
		return compiler_too_large(
			m->compiler,
			"more than %u rules in a row can each step aside for the same flow, by `until` "
			"or because a tier can be passed; '%s' is the first too many",
			BH_MAX_CHAIN, m->compiler->policy->rules[m->compiler->rule_of_rank[rank]].name);
	if (!open_until) {
		interval->closed = true;
	} else {
		if (rule->action == RULE_PASS)
			interval->passed = rule->tier + 1;
		if (rule->until)
			return 0;
		interval->closed = rule->action != RULE_PASS && interval->passed != rule->tier + 1 &&
				   open_until[rule->tier] > rank;
	}
	interval->open = i + 1;
	return 0;
}

/* The one that begins at a bound. */
static uint32_t interval_at(const struct row_maker *m, uint32_t bound)
{
	uint64_t before = m->marks[bound / 64] & ((1ULL << bound % 64) - 1);

	return m->below[bound / 64] + (uint32_t)__builtin_popcountll(before);
}

static int lay_rule(struct row_maker *m, uint32_t rank, const uint32_t *open_until)
{
	const struct ranked_rule *rule = rule_of(m, rank);
	int r = 0;

	for (uint32_t j = 0; j < rule->n_services && r == 0; j++) {
		uint32_t i = next_open(m, interval_at(m, rule->services[j].first));

		for (; m->bounds.items[i] <= rule->services[j].last && r == 0; i = next_open(m, i + 1))
			r = append(m, i, rank, open_until);
	}
	return r;
}

/* A chain, from its last rank to its first. */
static int make_chain(struct row_maker *m, uint32_t node, uint32_t *chainp)
{
	struct compiler *c = m->compiler;
	uint32_t chain = 0, number;

	for (; node != NO_NODE; node = m->nodes[node].before) {
		struct bh_link link = {m->nodes[node].rank, chain};

		if (!chain) {
			chain = BH_CHAIN_RANK | link.rank;
			continue;
		}
		if (intern_bytes(&c->links, &link, sizeof(link), &number) < 0)
			return -ENOMEM;
		chain = number;
	}
	*chainp = chain;
	return 0;
}

static int add_span(struct row_maker *m, uint32_t first, uint32_t chain)
{
	if (m->n_spans && m->spans[m->n_spans - 1].chain == chain)
		return 0;
	if (array_grow(&m->spans, &m->spans_capacity, m->n_spans, sizeof(*m->spans)) < 0)
		return -ENOMEM;
	m->spans[m->n_spans++] = (struct bh_span){first, chain};
	return 0;
}

static int make_spans(struct row_maker *m)
{
	uint32_t chain;

	m->n_spans = 0;
	for (size_t i = 0; i + 1 < m->bounds.n; i++)
		if (make_chain(m, m->intervals[i].last, &chain) < 0 || add_span(m, m->bounds.items[i], chain) < 0)
			return -ENOMEM;
	m->spans[0].first = BH_ROW | (uint32_t)m->n_spans;
	return 0;
}

static int intern_row(struct row_maker *m, uint32_t *rowp)
{
	struct compiler *c = m->compiler;
	uint32_t row, at = (uint32_t)(c->rows.bytes / sizeof(struct bh_span));
	int r = intern_bytes(&c->rows, m->spans, m->n_spans * sizeof(*m->spans), &row);

	if (r < 0 || (r == 1 && list_push(&c->row_at, at) < 0))
		return -ENOMEM;
	*rowp = c->row_at.items[row];
	if (!c->split && c->rows.bytes > COMPILER_JOINED_BYTES)
		return 2;
	if (c->rows.bytes > BH_TABLES_BYTES)
		return compiler_too_large(
			c,
			"the compiled policy needs more than %u MiB of tables: there are %u different "
			"sets of services and rules between pairs of ends, which alone take %.1f MiB",
			BH_TABLES_BYTES >> 20, c->rows.n, (double)c->rows.bytes / (1 << 20));
	return compiler_spend(c, m->n_nodes + 20 * m->bounds.n);
}

int row_make(struct row_maker *m, const uint32_t *ranks, size_t n, const uint32_t *open_until, uint32_t *rowp)
{
	uint32_t tier = 0;
	int r = cut_line(m, ranks, n);

	if (r)
		return r;
	for (size_t i = 0; i < n; i++) {
		if (rule_of(m, ranks[i])->tier != tier && open_until)
			enter_tier(m);
		tier = rule_of(m, ranks[i])->tier;
		r = lay_rule(m, ranks[i], open_until);
		if (r)
			return r;
	}
	if (make_spans(m) < 0)
		return -ENOMEM;
	return intern_row(m, rowp);
}
