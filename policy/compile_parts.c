/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compile_parts.c - the verdicts: for each pair of views, and each source class, the destination classes that some rule is
 * about, and the row of each. Then classes that behave alike are made one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/compiler.h"

struct part_builder {
	struct compiler *compiler;
	struct judgements *judgements;
	struct row_maker *rows;
	struct list *candidates_of[BH_VIEWS]; /* by view and selector of the source */
	uint64_t *marked;		      /* candidates of one source class */
	struct list candidates;		      /* likewise, in order */
	/* of one part and judgement */
	struct intern rule_lists;
	struct list row_of_list;
	struct list *matching; /* ranks, by destination class */
	struct list touched;   /* destination classes */
	struct list line;
};

static void builder_free(struct part_builder *b)
{
	for (uint32_t view = 0; view < BH_VIEWS; view++)
		for (size_t i = 0; b->candidates_of[view] && i < b->judgements->from->view[view].n_selectors; i++)
			list_free(&b->candidates_of[view][i]);
	row_maker_free(b->rows);
	intern_free(&b->rule_lists);
	list_free(&b->row_of_list);
	list_free(&b->candidates);
	list_free(&b->touched);
	list_free(&b->line);
}

static const struct ranked_rule *rule_of(const struct part_builder *b, uint32_t rank)
{
	return &b->compiler->ranked[rank];
}

static bool takes_part(const struct part_builder *b, uint32_t rank, uint32_t judgement)
{
	return rule_of(b, rank)->directions & (judgement == BH_EGRESS ? RULE_EGRESS : RULE_INGRESS);
}

/* ---- parts ---- */

/* Which passes does a judgement have outside a part, and is the part the same in both judgements? */
static int look_at_passes(struct part_builder *b, struct part *part)
{
	struct judgements *j = b->judgements;
	uint32_t n_tiers = b->compiler->policy->n_tiers + 1;

	part->open_until = arena_array(&b->compiler->arena, (size_t)2 * n_tiers, sizeof(uint32_t));
	if (!part->open_until)
		return -ENOMEM;
	memset(part->open_until, 0xff, 2 * n_tiers * sizeof(uint32_t));
	part->one_line = true;
	for (size_t i = j->n_candidates; i-- > 0;) {
		const struct candidate *x = &j->candidates[i];
		const struct ranked_rule *rule = rule_of(b, x->rank);
		bool here = x->from[part->from_view] != NO_PART && x->to[part->to_view] != NO_PART;
		bool elsewhere = false;

		if (here && rule->directions != (RULE_EGRESS | RULE_INGRESS))
			part->one_line = false;
		for (uint32_t v = 0; v < BH_VIEWS * BH_VIEWS; v++)
			elsewhere |= (v / BH_VIEWS != part->from_view || v % BH_VIEWS != part->to_view) &&
				     x->from[v / BH_VIEWS] != NO_PART && x->to[v % BH_VIEWS] != NO_PART;
		for (uint32_t d = 0; d < j->n && rule->action == RULE_PASS && elsewhere; d++)
			if (takes_part(b, x->rank, d))
				part->open_until[d * n_tiers + rule->tier] = x->rank;
	}
	if (memcmp(part->open_until, part->open_until + n_tiers, n_tiers * sizeof(uint32_t)) != 0)
		part->one_line = false;
	return 0;
}

static int find_parts(struct part_builder *b)
{
	struct judgements *j = b->judgements;
	bool used[BH_VIEWS * BH_VIEWS] = {};
	int r = 0;

	for (size_t i = 0; i < j->n_candidates; i++)
		for (uint32_t v = 0; v < BH_VIEWS * BH_VIEWS; v++)
			used[v] |= j->candidates[i].from[v / BH_VIEWS] != NO_PART &&
				   j->candidates[i].to[v % BH_VIEWS] != NO_PART;
	for (uint32_t v = 0; v < BH_VIEWS * BH_VIEWS && r == 0; v++) {
		struct part *part = &j->parts[j->n_parts];

		if (!used[v])
			continue;
		part->from_view = v / BH_VIEWS;
		part->to_view = v % BH_VIEWS;
		j->n_parts++;
		r = look_at_passes(b, part);
		if (j->n == 1)
			part->one_line = true;
	}
	return r;
}

static int list_candidates(struct part_builder *b)
{
	struct judgements *j = b->judgements;

	for (uint32_t view = 0; view < BH_VIEWS; view++) {
		b->candidates_of[view] =
			arena_array(&b->compiler->arena, j->from->view[view].n_selectors, sizeof(struct list));
		if (!b->candidates_of[view])
			return -ENOMEM;
		for (uint32_t i = 0; i < j->n_candidates; i++) {
			uint32_t selector = j->candidates[i].from[view];

			if (selector != NO_PART && list_push(&b->candidates_of[view][selector], i) < 0)
				return -ENOMEM;
		}
	}
	b->marked = arena_array(&b->compiler->arena, j->n_candidates / 64 + 1, sizeof(uint64_t));
	return b->marked ? 0 : -ENOMEM;
}

/* ---- lines ---- */

/* The candidates of a source class, in order. */
static int gather(struct part_builder *b, const struct part *part, uint32_t class)
{
	struct judgements *j = b->judgements;
	size_t n, words = j->n_candidates / 64 + 1;
	const uint32_t *selectors = intern_get(&j->from->view[part->from_view].classes, class, &n);
	uint64_t work = words;

	for (size_t i = 0; i < n; i++) {
		const struct list *candidates = &b->candidates_of[part->from_view][selectors[i]];

		for (size_t k = 0; k < candidates->n; k++)
			b->marked[candidates->items[k] / 64] |= 1ULL << candidates->items[k] % 64;
		work += candidates->n;
	}
	b->candidates.n = 0;
	for (size_t w = 0; w < words && n; w++) {
		for (uint64_t bits = b->marked[w]; bits; bits &= bits - 1)
			if (list_push(&b->candidates, (uint32_t)(w * 64 + (unsigned)__builtin_ctzll(bits))) < 0)
				return -ENOMEM;
		b->marked[w] = 0;
	}
	return compiler_spend(b->compiler, work);
}

/* Sorts them to the destinations that they are about. */
static int match(struct part_builder *b, const struct part *part, uint32_t judgement)
{
	struct judgements *j = b->judgements;
	const struct view *to = &j->to->view[part->to_view];
	uint64_t work = b->candidates.n;

	b->touched.n = 0;
	for (size_t i = 0; i < b->candidates.n; i++) {
		const struct candidate *x = &j->candidates[b->candidates.items[i]];
		uint32_t selector = x->to[part->to_view];
		const struct list *classes;

		if (selector == NO_PART || !takes_part(b, x->rank, judgement))
			continue;
		classes = &to->classes_of_selector[selector];
		for (size_t k = 0; k < classes->n; k++) {
			struct list *ranks = &b->matching[classes->items[k]];

			if ((!ranks->n && list_push(&b->touched, classes->items[k]) < 0) ||
			    list_push(ranks, x->rank) < 0)
				return -ENOMEM;
		}
		work += 2 * classes->n;
	}
	list_sort_unique(&b->touched);
	return compiler_spend(b->compiler, work + 8 * b->touched.n);
}

static int row_of(struct part_builder *b, const struct list *ranks, const uint32_t *open_until, uint32_t *rowp)
{
	uint32_t list;
	int r = intern_list(&b->rule_lists, ranks, &list);

	if (r < 0)
		return r;
	if (r == 1) {
		r = row_make(b->rows, ranks->items, ranks->n, open_until, rowp);
		if (r)
			return r;
		if (list_push(&b->row_of_list, *rowp) < 0)
			return -ENOMEM;
	}
	*rowp = b->row_of_list.items[list];
	if (b->rule_lists.bytes > COMPILER_MAX_SET_BYTES)
		return compiler_spend(b->compiler, COMPILER_MAX_WORK);
	return compiler_spend(b->compiler, ranks->n);
}

static int make_line(struct part_builder *b, struct part *part, uint32_t judgement, uint32_t class)
{
	struct compiler *c = b->compiler;
	const uint32_t *open_until = part->open_until + (size_t)judgement * (c->policy->n_tiers + 1);
	int r = gather(b, part, class);

	if (r == 0)
		r = match(b, part, judgement);
	b->line.n = 0;
	for (size_t i = 0; i < b->touched.n; i++) {
		uint32_t to = b->touched.items[i], row = 0;

		if (r == 0)
			r = row_of(b, &b->matching[to], b->judgements->first_only ? NULL : open_until, &row);
		b->matching[to].n = 0;
		if (r == 0 && row && (list_push(&b->line, to) < 0 || list_push(&b->line, row) < 0))
			r = -ENOMEM;
	}
	if (r)
		return r;
	if (intern_list(&part->lines[judgement], &b->line, &part->line_of[judgement][class]) < 0)
		return -ENOMEM;
	if (!c->split && part->lines[judgement].bytes > COMPILER_JOINED_BYTES)
		return 2;
	if (part->lines[judgement].bytes > COMPILER_MAX_SET_BYTES)
		return compiler_too_large(c,
					  "the rules are about too many pairs of sources and destinations: more "
					  "than %zu million",
					  COMPILER_MAX_SET_BYTES / 8000000);
	return 0;
}

static int make_lines(struct part_builder *b, struct part *part, uint32_t judgement)
{
	const struct view *from = &b->judgements->from->view[part->from_view];
	const struct view *to = &b->judgements->to->view[part->to_view];
	int r = 0;

	b->matching = calloc(to->classes.n, sizeof(*b->matching));
	part->line_of[judgement] = arena_array(&b->compiler->arena, from->classes.n, sizeof(uint32_t));
	if (!b->matching || !part->line_of[judgement])
		r = -ENOMEM;
	for (uint32_t class = 0; class < from->classes.n && r == 0; class ++)
		r = make_line(b, part, judgement, class);
	for (uint32_t i = 0; b->matching && i < to->classes.n; i++)
		list_free(&b->matching[i]);
	free(b->matching);
	b->matching = NULL;
	intern_free(&b->rule_lists);
	b->row_of_list.n = 0;
	return r;
}

/* ---- classes that behave alike ---- */

static void intern_drop(struct intern *intern)
{
	intern_free(intern);
}

static void list_drop(struct list *list)
{
	list_free(list);
}

static void renumber_view(struct view *view, size_t n, const uint32_t *class, uint32_t n_classes)
{
	for (size_t i = 0; i < n; i++)
		view->class_of[i] = class[view->class_of[i]];
	view->n = n_classes;
}

/* How many entries has class_of? */
static size_t view_peers(const struct compiler *c, const struct side *side, uint32_t view)
{
	return view == BH_VIEW_ADDR ? (size_t)side->who_keys.n * c->n_addr : side->n_who;
}

/* Has a part lines of its own for a judgement? */
static bool has_lines(const struct part *part, uint32_t judgement)
{
	return part->line_of[judgement] && !(judgement == 1 && part->one_line);
}

/* Source classes with the same lines in every part; the lines are moved to where the class is then. */
static int merge_sources(struct compiler *c, struct judgements *j, uint32_t view_number)
{
	_cleanup_(intern_drop) struct intern alike = {};
	struct view *view = &j->from->view[view_number];
	uint32_t *class = arena_array(&c->arena, view->n, sizeof(*class));

	if (!class)
		return -ENOMEM;
	for (uint32_t i = 0; i < view->n; i++) {
		uint32_t key[2 * BH_MAX_PARTS], n = 0;
		int r;

		for (uint32_t p = 0; p < j->n_parts; p++)
			for (uint32_t d = 0; d < j->n && j->parts[p].from_view == view_number; d++)
				if (has_lines(&j->parts[p], d))
					key[n++] = j->parts[p].line_of[d][i];
		r = intern_bytes(&alike, key, n * sizeof(*key), &class[i]);
		if (r < 0)
			return r;
		for (uint32_t p = 0; p < j->n_parts; p++)
			for (uint32_t d = 0; d < j->n && j->parts[p].from_view == view_number; d++)
				if (has_lines(&j->parts[p], d))
					j->parts[p].line_of[d][class[i]] = j->parts[p].line_of[d][i];
	}
	renumber_view(view, view_peers(c, j->from, view_number), class, alike.n);
	return 0;
}

/* Adds to each destination class what stands in its column, in the lines of a part. */
static int add_columns(struct list *columns, const struct intern *lines, uint32_t tag)
{
	for (uint32_t i = 0; i < lines->n; i++) {
		size_t n;
		const uint32_t *items = intern_get(lines, i, &n);

		for (size_t k = 0; k < n; k += 2)
			if (list_push(&columns[items[k]], tag) < 0 || list_push(&columns[items[k]], i) < 0 ||
			    list_push(&columns[items[k]], items[k + 1]) < 0)
				return -ENOMEM;
	}
	return 0;
}

/* Keeps of each line the columns that stand for others, under their new numbers. */
static int renumber_lines(struct intern *lines, const uint32_t *class, const uint32_t *first, uint32_t *line_of,
			  uint32_t n_classes)
{
	_cleanup_(intern_drop) struct intern old = *lines;
	_cleanup_(list_drop) struct list line = {};
	uint32_t *number = calloc(old.n + 1, sizeof(*number));
	int r = number ? 0 : -ENOMEM;

	*lines = (struct intern){};
	for (uint32_t i = 0; i < old.n && r >= 0; i++) {
		size_t n;
		const uint32_t *items = intern_get(&old, i, &n);

		line.n = 0;
		for (size_t k = 0; k < n && r >= 0; k += 2)
			if (first[class[items[k]]] == items[k] &&
			    (list_push(&line, class[items[k]]) < 0 || list_push(&line, items[k + 1]) < 0))
				r = -ENOMEM;
		if (r >= 0)
			r = intern_list(lines, &line, &number[i]);
	}
	for (uint32_t i = 0; i < n_classes && r >= 0; i++)
		line_of[i] = number[line_of[i]];
	free(number);
	return r < 0 ? r : 0;
}

/* Destination classes with the same rows in every line of every part. */
static int merge_destinations(struct compiler *c, struct judgements *j, uint32_t view_number)
{
	struct view *view = &j->to->view[view_number];
	_cleanup_(intern_drop) struct intern alike = {};
	struct list *columns = calloc(view->n, sizeof(*columns));
	uint32_t *class = arena_array(&c->arena, view->n, sizeof(*class));
	uint32_t *first = arena_array(&c->arena, view->n, sizeof(*first));
	int r = columns && class && first ? 0 : -ENOMEM;

	for (uint32_t p = 0; p < j->n_parts && r == 0; p++)
		for (uint32_t d = 0; d < j->n && j->parts[p].to_view == view_number && r == 0; d++)
			if (has_lines(&j->parts[p], d))
				r = add_columns(columns, &j->parts[p].lines[d], 2 * p + d);
	for (uint32_t i = 0; i < view->n && r >= 0; i++) {
		r = intern_list(&alike, &columns[i], &class[i]);
		if (r == 1)
			first[class[i]] = i;
	}
	for (uint32_t i = 0; columns && i < view->n; i++)
		list_free(&columns[i]);
	free(columns);
	if (r < 0)
		return r;
	r = 0;
	for (uint32_t p = 0; p < j->n_parts && r == 0 && alike.n < view->n; p++)
		for (uint32_t d = 0; d < j->n && j->parts[p].to_view == view_number && r == 0; d++)
			if (has_lines(&j->parts[p], d))
				r = renumber_lines(&j->parts[p].lines[d], class, first, j->parts[p].line_of[d],
						   j->from->view[j->parts[p].from_view].n);
	renumber_view(view, view_peers(c, j->to, view_number), class, alike.n);
	return r;
}

static size_t line_bytes(const struct judgements *j)
{
	size_t bytes = 0;

	for (uint32_t p = 0; p < j->n_parts; p++)
		for (uint32_t d = 0; d < j->n; d++)
			bytes += j->parts[p].lines[d].bytes;
	return bytes;
}

static int merge(struct compiler *c, struct judgements *j)
{
	int r = 0;

	for (uint32_t view = 0; view < BH_VIEWS && r == 0; view++)
		r = merge_sources(c, j, view);
	/* Columns are turned into lists, so very many are left as they are: that is larger, not wrong. */
	for (uint32_t view = 0; view < BH_VIEWS && r == 0 && line_bytes(j) <= COMPILER_MAX_SET_BYTES / 8; view++)
		r = merge_destinations(c, j, view);
	return r;
}

/* ---- grids ---- */

static int make_grids(struct compiler *c, struct judgements *j)
{
	int r = 0;

	for (uint32_t p = 0; p < j->n_parts; p++)
		for (uint32_t d = 0; d < j->n && r == 0; d++) {
			struct part *part = &j->parts[p];
			struct matrix matrix = {
				.rows = j->from->view[part->from_view].n,
				.columns = j->to->view[part->to_view].n,
				.line_of_row = part->line_of[d],
				.lines = &part->lines[d],
			};

			if (d == 1 && part->one_line)
				part->grid[1] = part->grid[0];
			else
				r = grid_make(c, &part->grid[d], &matrix);
		}
	return r;
}

/* The address classes of a side, by who. */
static int make_side_grid(struct compiler *c, struct side *side, struct grid *grid)
{
	_cleanup_(intern_drop) struct intern lines = {};
	_cleanup_(list_drop) struct list line = {};
	const struct view *view = &side->view[BH_VIEW_ADDR];
	uint32_t *line_of_key = arena_array(&c->arena, side->who_keys.n, sizeof(uint32_t));
	uint32_t *line_of_who = arena_array(&c->arena, side->n_who, sizeof(uint32_t));
	struct matrix matrix = {side->n_who, c->n_addr, line_of_who, &lines};

	if (!view->n_selectors)
		return 0;
	if (!line_of_key || !line_of_who)
		return -ENOMEM;
	for (uint32_t key = 0; key < side->who_keys.n; key++) {
		line.n = 0;
		for (uint32_t addr = 0; addr < c->n_addr; addr++) {
			uint32_t class = view->class_of[(size_t)key * c->n_addr + addr];

			if (class && (list_push(&line, addr) < 0 || list_push(&line, class) < 0))
				return -ENOMEM;
		}
		if (intern_list(&lines, &line, &line_of_key[key]) < 0)
			return -ENOMEM;
	}
	for (uint32_t who = 0; who < side->n_who; who++)
		line_of_who[who] = line_of_key[side->who_key[who]];
	return grid_make(c, grid, &matrix);
}

static int compile_judgements(struct compiler *c, struct judgements *j)
{
	_cleanup_(builder_free) struct part_builder b = {.compiler = c, .judgements = j};
	int r = row_maker_new(&b.rows, c);

	if (r == 0)
		r = find_parts(&b);
	if (r == 0)
		r = list_candidates(&b);
	for (uint32_t p = 0; p < j->n_parts && r == 0; p++)
		for (uint32_t d = 0; d < j->n && r == 0; d++) {
			struct part *part = &j->parts[p];

			if (d == 1 && part->one_line)
				part->line_of[1] = part->line_of[0];
			else
				r = make_lines(&b, part, d);
		}
	if (r == 0)
		r = merge(c, j);
	return r == 0 ? make_grids(c, j) : r;
}

int compile_parts(struct compiler *c)
{
	int r = compile_judgements(c, &c->verdicts);

	if (r == 0)
		r = compile_judgements(c, &c->possible);
	for (uint32_t s = 0; s < BH_SIDES && r == 0; s++)
		r = make_side_grid(c, &c->sides[s], &c->side_grids[s]);
	return r;
}
