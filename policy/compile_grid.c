/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compile_grid.c - a matrix as blocks, each stored once. Which size of block makes it smallest depends on how the items
 * lie, so some are tried.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/compiler.h"

struct blocks {
	struct compiler *compiler;
	const struct matrix *matrix;
	uint32_t shift, width;
	struct intern items;	 /* blocks */
	uint32_t *block;	 /* the one that is being filled */
	struct list of_line;	 /* block by line and place; for the lines that rows use */
	uint32_t *first_of_line; /* in of_line, plus 1; 0: not used by a row */
	bool too_large;		 /* for any tables: not filled to the end */
};

static void blocks_free(struct blocks *b)
{
	intern_free(&b->items);
	list_free(&b->of_line);
	free(b->first_of_line);
	free(b->block);
}

static int end_block(struct blocks *b, size_t at)
{
	uint32_t number;

	while (b->of_line.n < at)
		if (list_push(&b->of_line, NO_PART) < 0)
			return -ENOMEM;
	if (intern_bytes(&b->items, b->block, sizeof(uint32_t) << b->shift, &number) < 0)
		return -ENOMEM;
	memset(b->block, 0, sizeof(uint32_t) << b->shift);
	return list_push(&b->of_line, number);
}

/* Takes a line apart. Blocks of zeros are left open: there is one for all, if any. */
static int add_line(struct blocks *b, uint32_t line)
{
	size_t n, start = b->of_line.n;
	const uint32_t *items = intern_get(b->matrix->lines, line, &n);
	uint32_t mask = (1U << b->shift) - 1;

	b->first_of_line[line] = (uint32_t)start + 1;
	for (size_t i = 0; i < n; i += 2) {
		b->block[items[i] & mask] = items[i + 1];
		if ((i + 2 == n || items[i + 2] >> b->shift != items[i] >> b->shift) &&
		    end_block(b, start + (items[i] >> b->shift)) < 0)
			return -ENOMEM;
	}
	while (b->of_line.n < start + b->width)
		if (list_push(&b->of_line, NO_PART) < 0)
			return -ENOMEM;
	return compiler_spend(b->compiler, 2 * n + ((uint64_t)b->width << b->shift) / 4 + 8);
}

static uint64_t blocks_size(const struct blocks *b)
{
	return (uint64_t)b->matrix->rows * b->width * 4 + ((uint64_t)b->items.n << b->shift) * 4;
}

/* Goes no further than what can be used, so that the memory is that of the tables, not that of the matrix. */
static int fill_blocks(struct blocks *b, const struct matrix *matrix, uint32_t shift)
{
	int r = 0;

	b->matrix = matrix;
	b->shift = shift;
	b->width = (matrix->columns + (1U << shift) - 1) >> shift;
	b->block = calloc(1U << shift, sizeof(uint32_t));
	b->first_of_line = calloc(matrix->lines->n + 1, sizeof(uint32_t));
	if (!b->block || !b->first_of_line)
		return -ENOMEM;
	b->too_large = blocks_size(b) > BH_TABLES_BYTES;
	for (uint32_t i = 0; i < matrix->rows && r == 0 && !b->too_large; i++) {
		if (!b->first_of_line[matrix->line_of_row[i]])
			r = add_line(b, matrix->line_of_row[i]);
		b->too_large = blocks_size(b) > BH_TABLES_BYTES;
	}
	if (r || b->too_large)
		return r;
	for (size_t i = 0; i < b->of_line.n; i++) {
		uint32_t zeros;

		if (b->of_line.items[i] != NO_PART)
			continue;
		if (intern_bytes(&b->items, b->block, sizeof(uint32_t) << shift, &zeros) < 0)
			return -ENOMEM;
		b->of_line.items[i] = zeros;
	}
	return 0;
}

static int try_shift(struct compiler *c, const struct matrix *matrix, uint32_t shift, uint64_t *sizes)
{
	_cleanup_(blocks_free) struct blocks b = {.compiler = c};
	int r;

	if (sizes[shift] != UINT64_MAX)
		return 0;
	r = fill_blocks(&b, matrix, shift);
	if (r == 0)
		sizes[shift] = b.too_large ? UINT64_MAX - 1 : blocks_size(&b);
	return r;
}

static int choose_shift(struct compiler *c, const struct matrix *matrix, uint32_t *shiftp)
{
	uint32_t all = 0, best;
	uint64_t sizes[33];
	int r = 0;

	while (1ULL << all < matrix->columns)
		all++;
	*shiftp = all;
	/* Where it is small whatever one does, one block for each kind of row is the quickest to find. */
	if ((uint64_t)matrix->rows * matrix->columns <= 4096)
		return 0;
	memset(sizes, 0xff, sizeof(sizes));
	for (uint32_t shift = 1; shift < all && shift <= 9 && r == 0; shift += 2)
		r = try_shift(c, matrix, shift, sizes);
	if (r == 0 && ((uint64_t)matrix->lines->n << all <= COMPILER_MAX_ITEMS || all <= 9))
		r = try_shift(c, matrix, all, sizes);
	best = all;
	for (uint32_t shift = all; shift-- > 1;)
		if (sizes[shift] < sizes[best])
			best = shift;
	if (r == 0 && best > 1)
		r = try_shift(c, matrix, best - 1, sizes);
	if (r == 0 && best < all && best < 10)
		r = try_shift(c, matrix, best + 1, sizes);
	for (uint32_t shift = all; shift-- > 1;)
		if (sizes[shift] < sizes[best])
			best = shift;
	*shiftp = best;
	return r;
}

int grid_make(struct compiler *c, struct grid *grid, const struct matrix *matrix)
{
	_cleanup_(blocks_free) struct blocks b = {.compiler = c};
	uint32_t shift;
	int r = choose_shift(c, matrix, &shift);

	if (r == 0)
		r = fill_blocks(&b, matrix, shift);
	if (r)
		return r;
	if (b.too_large)
		return compiler_too_large(c,
					  "the compiled policy needs more than %u MiB of tables: a matrix of %u by %u "
					  "classes of ends alone takes more",
					  BH_TABLES_BYTES >> 20, matrix->rows, matrix->columns);
	*grid = (struct grid){
		.index = arena_array(&c->arena, (size_t)matrix->rows * b.width, sizeof(uint32_t)),
		.rows = matrix->rows,
		.width = b.width,
		.shift = shift,
		.blocks = arena_array(&c->arena, (size_t)b.items.n << shift, sizeof(uint32_t)),
		.n_blocks = b.items.n,
	};
	if (!grid->index || !grid->blocks)
		return -ENOMEM;
	for (uint32_t i = 0; i < matrix->rows; i++)
		memcpy(grid->index + (size_t)i * b.width, b.of_line.items + b.first_of_line[matrix->line_of_row[i]] - 1,
		       b.width * sizeof(uint32_t));
	for (uint32_t i = 0; i < b.items.n; i++)
		memcpy(grid->blocks + ((size_t)i << shift), intern_get(&b.items, i, NULL), sizeof(uint32_t) << shift);
	return 0;
}

size_t grid_bytes(const struct grid *grid)
{
	return ((size_t)grid->rows * grid->width + ((size_t)grid->n_blocks << grid->shift)) * sizeof(uint32_t);
}
