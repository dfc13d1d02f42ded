/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "policy/suggestion.h"

#define MAX_SUGGEST_BYTES 64U

/* Edits (insert, delete, replace, swap of neighbours) from one word to another, both at most MAX_SUGGEST_BYTES; more than
 * `limit` is just more. Only the diagonal where at most `limit` edits can lead is looked at: names are many. */
static unsigned edit_distance(const char *a, size_t n, const char *b, size_t m, unsigned limit)
{
	unsigned rows[3][MAX_SUGGEST_BYTES + 1];
	unsigned *before = rows[0], *last = rows[1], *row = rows[2];

	for (size_t j = 0; j <= m; j++) {
		last[j] = (unsigned)j;
		before[j] = row[j] = limit + 1;
	}
	for (size_t i = 1; i <= n; i++) {
		size_t from = i > limit ? i - limit : 1, to = i + limit < m ? i + limit : m;
		unsigned *spare = before, least = limit + 1;

		row[from - 1] = from == 1 ? (unsigned)i : limit + 1;
		if (from == 1)
			least = (unsigned)i;
		if (to < m)
			row[to + 1] = limit + 1;
		for (size_t j = from; j <= to; j++) {
			unsigned best = last[j - 1] + (a[i - 1] != b[j - 1]);

			if (last[j] + 1 < best)
				best = last[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
				best = before[j - 2] + 1;
			row[j] = best;
			if (best < least)
				least = best;
		}
		if (least > limit)
			return limit + 1;
		before = last;
		last = row;
		row = spare;
	}
	return last[m];
}

void suggestion_offer(struct suggestion *suggestion, const char *name)
{
	size_t n = strlen(suggestion->wrong), m = strlen(name);
	unsigned limit = n < 5 ? 1 : n < 9 ? 2 : 3;
	unsigned distance;

	if (n > MAX_SUGGEST_BYTES || m > MAX_SUGGEST_BYTES || (n > m ? n - m : m - n) > limit)
		return;
	distance = edit_distance(suggestion->wrong, n, name, m, limit);
	/* A word of which nothing is left is no correction. */
	if (distance > limit || distance >= n)
		return;
	if (!suggestion->best || distance < suggestion->distance) {
		suggestion->best = name;
		suggestion->distance = distance;
	}
}
