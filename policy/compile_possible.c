/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compile_possible.c - can any egress rule allow this subject to reach that address and service, whoever answers there?
 * The connect hooks answer EPERM at once where this says no, so it must never say no to what a packet might be allowed.
 */
#include <errno.h>
#include <string.h>

#include "policy/compiler.h"

struct possible {
	struct compiler *compiler;
	size_t words;				     /* of a set of service classes */
	uint32_t *allowed;			     /* by row: service classes that the row allows */
	struct intern source_sets, destination_sets; /* of classes: by who, by address class */
	uint32_t *source_set, *destination_set;
	struct intern service_sets;
	uint32_t *reach; /* by source class and destination set: in service_sets */
	uint32_t *stamp; /* by row */
	struct list scratch;
	uint32_t *bits;
};

static void possible_free(struct possible *p)
{
	intern_free(&p->source_sets);
	intern_free(&p->destination_sets);
	intern_free(&p->service_sets);
	list_free(&p->scratch);
}

static int find_allowed(struct possible *p)
{
	struct compiler *c = p->compiler;

	for (uint32_t row = 0; row < c->rows.n; row++) {
		const uint32_t *cells = intern_get(&c->rows, row, NULL);

		for (uint32_t s = 0; s < c->n_svc; s++)
			if (cells[s] & BH_CELL_ALLOW)
				p->allowed[row * p->words + s / 32] |= 1U << s % 32;
	}
	return 0;
}

/* Which classes can a peer be of, when only its identity is known, or only its address? */
static int find_sets(struct possible *p)
{
	struct compiler *c = p->compiler;
	uint32_t n_addr = c->address_sets.n;

	for (uint32_t w = 0; w < c->n_who; w++) {
		p->scratch.n = 0;
		for (uint32_t a = 0; a < n_addr; a++)
			if (list_push(&p->scratch, c->from.class_of[(size_t)w * n_addr + a]) < 0)
				return -ENOMEM;
		list_sort_unique(&p->scratch);
		if (intern_list(&p->source_sets, &p->scratch, &p->source_set[w]) < 0)
			return -ENOMEM;
	}
	for (uint32_t a = 0; a < n_addr; a++) {
		p->scratch.n = 0;
		for (uint32_t w = 0; w < c->n_who; w++)
			if (list_push(&p->scratch, c->to.class_of[(size_t)w * n_addr + a]) < 0)
				return -ENOMEM;
		list_sort_unique(&p->scratch);
		if (intern_list(&p->destination_sets, &p->scratch, &p->destination_set[a]) < 0)
			return -ENOMEM;
	}
	return 0;
}

static int find_reach(struct possible *p, uint32_t from, uint32_t destinations)
{
	struct compiler *c = p->compiler;
	uint32_t mark = from * p->destination_sets.n + destinations + 1;
	size_t n;
	const uint32_t *classes = intern_get(&p->destination_sets, destinations, &n);
	uint64_t work = n;

	memset(p->bits, 0, p->words * sizeof(*p->bits));
	for (size_t i = 0; i < n; i++) {
		uint32_t row = c->row_of[BH_EGRESS][(size_t)from * c->to.n + classes[i]];

		if (p->stamp[row] == mark)
			continue;
		p->stamp[row] = mark;
		work += p->words;
		for (size_t j = 0; j < p->words; j++)
			p->bits[j] |= p->allowed[row * p->words + j];
	}
	if (intern_bytes(&p->service_sets, p->bits, p->words * sizeof(*p->bits), &p->reach[mark - 1]) < 0)
		return -ENOMEM;
	return compiler_spend(c, work);
}

static int find_row(struct possible *p, uint32_t sources, uint32_t destinations, uint32_t *rowp)
{
	struct compiler *c = p->compiler;
	size_t n;
	const uint32_t *classes = intern_get(&p->source_sets, sources, &n);

	memset(p->bits, 0, p->words * sizeof(*p->bits));
	for (size_t i = 0; i < n; i++) {
		uint32_t set = p->reach[(size_t)classes[i] * p->destination_sets.n + destinations];
		const uint32_t *bits = intern_get(&p->service_sets, set, NULL);

		for (size_t j = 0; j < p->words; j++)
			p->bits[j] |= bits[j];
	}
	if (intern_bytes(&c->poss_rows, p->bits, p->words * sizeof(*p->bits), rowp) < 0)
		return -ENOMEM;
	return compiler_spend(c, n * p->words);
}

static int fill_rows(struct possible *p)
{
	struct compiler *c = p->compiler;
	uint32_t n_addr = c->address_sets.n, n_dst = p->destination_sets.n;
	uint32_t *by_sets = arena_array(&c->arena, (size_t)p->source_sets.n * n_dst, sizeof(uint32_t));
	int r = 0;

	if (!by_sets)
		return -ENOMEM;
	for (uint32_t f = 0; f < c->from.n; f++)
		for (uint32_t t = 0; t < n_dst && r == 0; t++)
			r = find_reach(p, f, t);
	for (uint32_t f = 0; f < p->source_sets.n; f++)
		for (uint32_t t = 0; t < n_dst && r == 0; t++)
			r = find_row(p, f, t, &by_sets[(size_t)f * n_dst + t]);
	for (uint32_t w = 0; w < c->n_who; w++)
		for (uint32_t a = 0; a < n_addr; a++)
			c->poss_row[(size_t)w * n_addr + a] =
				by_sets[(size_t)p->source_set[w] * n_dst + p->destination_set[a]];
	return r;
}

int compile_possible(struct compiler *c)
{
	_cleanup_(possible_free) struct possible p = {.compiler = c, .words = (c->n_svc + 31) / 32};
	struct arena *arena = &c->arena;

	p.allowed = arena_array(arena, c->rows.n * p.words, sizeof(uint32_t));
	p.source_set = arena_array(arena, c->n_who, sizeof(uint32_t));
	p.destination_set = arena_array(arena, c->address_sets.n, sizeof(uint32_t));
	p.stamp = arena_array(arena, c->rows.n, sizeof(uint32_t));
	p.bits = arena_array(arena, p.words, sizeof(uint32_t));
	c->poss_row = arena_array(arena, (size_t)c->n_who * c->address_sets.n, sizeof(uint32_t));
	if (arena->out_of_memory || find_allowed(&p) < 0 || find_sets(&p) < 0)
		return -ENOMEM;
	p.reach = arena_array(arena, (size_t)c->from.n * p.destination_sets.n, sizeof(uint32_t));
	return p.reach ? fill_rows(&p) : -ENOMEM;
}
