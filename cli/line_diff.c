/* SPDX-License-Identifier: Apache-2.0 */
/*
 * line_diff.c - Myers' algorithm (E. Myers, "An O(ND) Difference Algorithm and Its Variations", 1986), stopped where texts
 * differ too much for it: then what is between the first and the last difference is one change.
 */
#include "cli/line_diff.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_EDITS 2000 /* memory is its square: 16 MB */
#define CONTEXT 3

struct text_line {
	const char *text;
	size_t len; /* with its end, if it has one */
};

struct lines {
	struct text_line *items;
	size_t n;
};

struct diff {
	struct lines old, new;
	bool *removed, *added; /* by line */
};

static bool split(struct lines *lines, const char *text, size_t len)
{
	size_t n = 1;

	for (size_t i = 0; i < len; i++)
		n += text[i] == '\n';
	lines->items = calloc(n, sizeof(*lines->items));
	for (size_t at = 0; lines->items && at < len;) {
		const char *end = memchr(text + at, '\n', len - at);
		size_t line_len = end ? (size_t)(end + 1 - (text + at)) : len - at;

		lines->items[lines->n++] = (struct text_line){text + at, line_len};
		at += line_len;
	}
	return lines->items;
}

static bool same_line(const struct text_line *a, const struct text_line *b)
{
	return a->len == b->len && !memcmp(a->text, b->text, a->len);
}

/* How far one gets along diagonal k (old - new) with d edits, and from where. */
static long step(const int *reach, long k, long d, bool *downp)
{
	*downp = k == -d || (k != d && reach[k - 1] < reach[k + 1]);
	return *downp ? reach[k + 1] : reach[k - 1] + 1;
}

/* Goes back through the reaches of each number of edits, marking them. */
static void mark(struct diff *diff, int **reaches, long edits, long first, long x, long y)
{
	for (long d = edits; d > 0; d--) {
		const int *reach = reaches[d - 1] + MAX_EDITS + 1;
		bool down;
		long k = x - y, from_x;

		step(reach, k, d, &down);
		from_x = reach[down ? k + 1 : k - 1];
		y = from_x - (down ? k + 1 : k - 1);
		x = from_x;
		if (down)
			diff->added[first + y] = true;
		else
			diff->removed[first + x] = true;
	}
}

/* Marks the fewest edits between the lines `first` and the last `tail`. Returns false where there are too many. */
static bool compare(struct diff *diff, size_t first, size_t tail)
{
	const struct text_line *a = diff->old.items + first, *b = diff->new.items + first;
	long n = (long)(diff->old.n - first - tail), m = (long)(diff->new.n - first - tail);
	size_t width = 2 * MAX_EDITS + 3;
	int **reaches = calloc(MAX_EDITS + 1, sizeof(*reaches));
	bool found = false;

	for (long d = 0; reaches && d <= MAX_EDITS && !found; d++) {
		int *reach;

		/* Only the diagonals -d-1 .. d+1 are looked at, but a fixed middle keeps the arithmetic plain. */
		reaches[d] = calloc(width, sizeof(*reaches[d]));
		if (!reaches[d])
			break;
		if (d)
			memcpy(reaches[d], reaches[d - 1], width * sizeof(*reaches[d]));
		reach = reaches[d] + MAX_EDITS + 1;
		for (long k = -d; k <= d && !found; k += 2) {
			bool down;
			long x = d ? step(reaches[d - 1] + MAX_EDITS + 1, k, d, &down) : 0, y = x - k;

			while (x < n && y < m && x >= 0 && y >= 0 && same_line(&a[x], &b[y]))
				x++, y++;
			reach[k] = (int)x;
			found = x == n && y == m;
			if (found)
				mark(diff, reaches, d, (long)first, x, y);
		}
	}
	for (long d = 0; reaches && d <= MAX_EDITS; d++)
		free(reaches[d]);
	free(reaches);
	return found;
}

static void find_edits(struct diff *diff)
{
	size_t first = 0, tail = 0;
	size_t most = diff->old.n < diff->new.n ? diff->old.n : diff->new.n;

	while (first < most && same_line(&diff->old.items[first], &diff->new.items[first]))
		first++;
	while (tail < most - first &&
	       same_line(&diff->old.items[diff->old.n - 1 - tail], &diff->new.items[diff->new.n - 1 - tail]))
		tail++;
	if (compare(diff, first, tail))
		return;
	for (size_t i = first; i < diff->old.n - tail; i++)
		diff->removed[i] = true;
	for (size_t i = first; i < diff->new.n - tail; i++)
		diff->added[i] = true;
}

static void print_line(const struct cli *cli, const char *colour, char sign, const struct text_line *line)
{
	bool ends = line->len && line->text[line->len - 1] == '\n';

	printf("%s%c", *colour ? cli_colour(cli, colour) : "", sign);
	fwrite(line->text, 1, line->len - ends, stdout);
	printf("%s\n", *colour ? cli_colour(cli, "reset") : "");
	if (!ends)
		puts("\\ No newline at end of file");
}

/* Where a hunk that begins at line x of the old text and y of the new one ends: after CONTEXT equal lines twice over, or
 * at the end of both. */
static void hunk_end(const struct diff *diff, size_t x, size_t y, size_t *end_xp, size_t *end_yp)
{
	size_t equal = 0, last_x = x, last_y = y;

	while ((x < diff->old.n || y < diff->new.n) && equal <= 2 * CONTEXT) {
		if (x < diff->old.n && diff->removed[x]) {
			x++;
		} else if (y < diff->new.n && diff->added[y]) {
			y++;
		} else {
			x++, y++, equal++;
			continue;
		}
		equal = 0;
		last_x = x;
		last_y = y;
	}
	for (size_t i = 0; i < CONTEXT && last_x < diff->old.n && last_y < diff->new.n; i++)
		last_x++, last_y++;
	*end_xp = last_x;
	*end_yp = last_y;
}

static void print_hunk(const struct cli *cli, const struct diff *diff, size_t x, size_t y, size_t end_x, size_t end_y)
{
	printf("@@ -%zu,%zu +%zu,%zu @@\n", x + (x < end_x), end_x - x, y + (y < end_y), end_y - y);
	while (x < end_x || y < end_y) {
		if (x < end_x && diff->removed[x])
			print_line(cli, "red", '-', &diff->old.items[x++]);
		else if (y < end_y && diff->added[y])
			print_line(cli, "green", '+', &diff->new.items[y++]);
		else
			print_line(cli, "", ' ', &diff->old.items[x++]), y++;
	}
}

static void print_hunks(const struct cli *cli, const struct diff *diff)
{
	size_t x = 0, y = 0;

	while (x < diff->old.n || y < diff->new.n) {
		bool edit = (x < diff->old.n && diff->removed[x]) || (y < diff->new.n && diff->added[y]);
		size_t back = 0, end_x, end_y;

		if (!edit) {
			x++, y++;
			continue;
		}
		while (back < CONTEXT && back < x && back < y && !diff->removed[x - back - 1] &&
		       !diff->added[y - back - 1])
			back++;
		hunk_end(diff, x, y, &end_x, &end_y);
		print_hunk(cli, diff, x - back, y - back, end_x, end_y);
		x = end_x;
		y = end_y;
	}
}

void line_diff_print(const struct cli *cli, const char *name, const char *old, size_t old_len, const char *new,
		     size_t new_len)
{
	struct diff diff = {};

	if (split(&diff.old, old, old_len) && split(&diff.new, new, new_len)) {
		diff.removed = calloc(diff.old.n + 1, sizeof(bool));
		diff.added = calloc(diff.new.n + 1, sizeof(bool));
	}
	if (diff.removed && diff.added) {
		find_edits(&diff);
		printf("%s--- %s\n+++ %s%s\n", cli_colour(cli, "bold"), name, name, cli_colour(cli, "reset"));
		print_hunks(cli, &diff);
	} else {
		cli_error("out of memory");
	}
	free(diff.old.items);
	free(diff.new.items);
	free(diff.removed);
	free(diff.added);
}
