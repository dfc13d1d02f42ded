/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/top_pairs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bus.h"
#include "cli/cli.h"

static const char *const keys[TOP_NUMBERS] = {"flows",	     "denied", "sent_bytes", "received_bytes",
					      "retransmits", "rtt_us", "rtt_samples"};

void top_pairs_clear(struct top_pairs *pairs)
{
	for (size_t i = 0; i < pairs->n; i++) {
		free(pairs->rows[i].from);
		free(pairs->rows[i].to);
		free(pairs->rows[i].direction);
		free(pairs->rows[i].protocol);
	}
	free(pairs->rows);
	*pairs = (struct top_pairs){0};
}

/* ---- reading ---- */

static int row_read(struct top_row *row, const json_t *item)
{
	*row = (struct top_row){
		.from = cli_printable(cli_json_string(item, "from")),
		.to = cli_printable(cli_json_string(item, "to")),
		.direction = cli_printable(cli_json_string(item, "direction")),
		.protocol = cli_printable(cli_json_string(item, "protocol")),
		.rtt_us = -1,
	};
	for (size_t i = 0; i < TOP_NUMBERS; i++) {
		if (!json_is_integer(json_object_get(item, keys[i])))
			return -EBADMSG;
		row->total[i] = (uint64_t)cli_json_int(item, keys[i]);
		row->shown[i] = (double)row->total[i];
	}
	if (row->total[TOP_RTT_SAMPLES])
		row->rtt_us = row->shown[TOP_RTT_US] / row->shown[TOP_RTT_SAMPLES];
	return *row->from && *row->to && *row->direction && *row->protocol ? 0 : -EBADMSG;
}

int top_pairs_read(struct top_pairs *out, const json_t *answer)
{
	const json_t *list = json_object_get(answer, "pairs"), *item;
	size_t i;
	int r = 0;

	*out = (struct top_pairs){
		.taken_usec = (uint64_t)cli_json_int(answer, "taken_usec"),
		.pairs_counted = (uint64_t)cli_json_int(answer, "pairs_counted"),
		.pairs_max = (uint64_t)cli_json_int(answer, "pairs_max"),
	};
	if (!json_is_array(list) || !out->taken_usec)
		return -EBADMSG;
	out->rows = calloc(json_array_size(list) + 1, sizeof(*out->rows));
	if (!out->rows)
		return -ENOMEM;
	json_array_foreach((json_t *)list, i, item)
	{
		r = row_read(&out->rows[out->n++], item);
		if (r)
			break;
	}
	if (r)
		top_pairs_clear(out);
	return r;
}

/* ---- comparing ---- */

static int name_order(const void *a, const void *b)
{
	const struct top_row *x = a, *y = b;
	int order = strcmp(x->from, y->from);

	if (!order)
		order = strcmp(x->to, y->to);
	if (!order)
		order = strcmp(x->direction, y->direction);
	return order ? order : strcmp(x->protocol, y->protocol);
}

static void row_since(struct top_row *row, const struct top_row *before, double seconds)
{
	uint64_t delta[TOP_NUMBERS];

	for (size_t i = 0; i < TOP_NUMBERS; i++) {
		uint64_t base = before && before->total[i] <= row->total[i] ? before->total[i] : 0;

		delta[i] = row->total[i] - base;
		row->shown[i] = (double)delta[i] / seconds;
	}
	row->rtt_us = delta[TOP_RTT_SAMPLES] ? (double)delta[TOP_RTT_US] / (double)delta[TOP_RTT_SAMPLES] : -1;
}

void top_pairs_since(struct top_pairs *pairs, const struct top_pairs *before)
{
	struct top_row *sorted = calloc(before->n + 1, sizeof(*sorted));

	pairs->seconds = pairs->taken_usec > before->taken_usec ? (double)(pairs->taken_usec - before->taken_usec) / 1e6
								: 1e-6; /* the clock was set back */
	if (!sorted)
		return;
	if (before->n) {
		memcpy(sorted, before->rows, before->n * sizeof(*sorted));
		qsort(sorted, before->n, sizeof(*sorted), name_order);
	}
	for (size_t i = 0; i < pairs->n; i++)
		row_since(&pairs->rows[i],
			  before->n ? bsearch(&pairs->rows[i], sorted, before->n, sizeof(*sorted), name_order) : NULL,
			  pairs->seconds);
	free(sorted);
}

/* ---- order ---- */

int top_sort_parse(const char *word, enum top_sort *out)
{
	static const char *const words[] = {[TOP_BY_FLOWS] = "flows",
					    [TOP_BY_BYTES] = "bytes",
					    [TOP_BY_DENIED] = "denied",
					    [TOP_BY_RTT] = "rtt",
					    [TOP_BY_RETRANSMITS] = "retrans"};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcmp(words[i], word) != 0)
			continue;
		*out = (enum top_sort)i;
		return 0;
	}
	return -1;
}

static double weight(const struct top_row *row, enum top_sort sort)
{
	switch (sort) {
	case TOP_BY_FLOWS:
		return row->shown[TOP_FLOWS];
	case TOP_BY_BYTES:
		return row->shown[TOP_SENT] + row->shown[TOP_RECEIVED];
	case TOP_BY_DENIED:
		return row->shown[TOP_DENIED];
	case TOP_BY_RTT:
		return row->rtt_us;
	case TOP_BY_RETRANSMITS:
		return row->shown[TOP_RETRANSMITS];
	}
	return 0;
}

/* In all, for those that do equally much now, which is mostly nothing. */
static uint64_t judged(const struct top_row *row)
{
	return row->total[TOP_FLOWS] + row->total[TOP_DENIED];
}

static int weight_order(const void *a, const void *b, void *ctx)
{
	enum top_sort sort = *(enum top_sort *)ctx;
	double x = weight(a, sort), y = weight(b, sort);
	uint64_t all_x = judged(a), all_y = judged(b);

	if (x != y)
		return (x < y) - (x > y);
	return all_x != all_y ? (all_x < all_y) - (all_x > all_y) : name_order(a, b);
}

void top_pairs_sort(struct top_pairs *pairs, enum top_sort sort)
{
	if (pairs->n)
		qsort_r(pairs->rows, pairs->n, sizeof(*pairs->rows), weight_order, &sort);
}

/* ---- JSON ---- */

static json_t *row_json(const struct top_row *row, double seconds)
{
	json_t *item = json_pack("{s:s, s:s, s:s, s:s}", "from", row->from, "to", row->to, "direction", row->direction,
				 "protocol", row->protocol);
	json_t *rates = json_object();

	for (size_t i = 0; i < TOP_RTT_US; i++) {
		json_object_set_new(item, keys[i], json_integer((json_int_t)row->total[i]));
		json_object_set_new(rates, keys[i], json_real(row->shown[i]));
	}
	json_object_set_new(item, "rtt_us", row->rtt_us < 0 ? json_null() : json_real(row->rtt_us));
	if (seconds > 0)
		json_object_set(item, "per_second", rates);
	json_decref(rates);
	return item;
}

json_t *top_pairs_json(const struct top_pairs *pairs)
{
	json_t *list = json_array();

	for (size_t i = 0; i < pairs->n; i++)
		json_array_append_new(list, row_json(&pairs->rows[i], pairs->seconds));
	return json_pack("{s:o, s:I, s:I, s:o}", "seconds",
			 pairs->seconds > 0 ? json_real(pairs->seconds) : json_null(), "pairs_counted",
			 (json_int_t)pairs->pairs_counted, "pairs_max", (json_int_t)pairs->pairs_max, "pairs", list);
}
