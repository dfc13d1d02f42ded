/* SPDX-License-Identifier: Apache-2.0 */
#include "metrics.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_line.h"

#define NAME_MAX_BYTES BH_NAME_BYTES

static const struct metrics_name *names_of(const struct metrics *m)
{
	return (const struct metrics_name *)(metrics_pairs(m) + m->n_pairs);
}

static const char *text_of(const struct metrics *m)
{
	return (const char *)(names_of(m) + m->n_names);
}

const struct pair *metrics_pairs(const struct metrics *m)
{
	return (const struct pair *)(m + 1);
}

static int name_order(const void *a, const void *b)
{
	uint32_t x = ((const struct metrics_name *)a)->identity, y = ((const struct metrics_name *)b)->identity;

	return (x > y) - (x < y);
}

const char *metrics_identity(const struct metrics *m, uint32_t identity)
{
	struct metrics_name key = {.identity = identity};
	const struct metrics_name *found;

	switch (identity) {
	case BH_ID_UNIDENTIFIED:
		return "unidentified";
	case BH_ID_HOST:
		return "host";
	case BH_ID_WORLD:
		return "world";
	case BH_ID_OTHER:
		return "other";
	}
	found = m->n_names ? bsearch(&key, names_of(m), m->n_names, sizeof(key), name_order) : NULL;
	return found ? text_of(m) + found->at : "?";
}

const char *metrics_protocol(uint8_t proto, char number[8])
{
	switch (proto) {
	case 0: /* of those without a place of their own */
		return "any";
	case IPPROTO_ICMP:
		return "icmp";
	case IPPROTO_TCP:
		return "tcp";
	case IPPROTO_UDP:
		return "udp";
	case IPPROTO_ICMPV6:
		return "icmpv6";
	case IPPROTO_SCTP:
		return "sctp";
	}
	snprintf(number, 8, "%u", proto);
	return number;
}

/* ---- making ---- */

/* By its ends, so that an output of the same pairs is the same. */
static int pair_order(const void *a, const void *b)
{
	const struct bh_pair_key *x = &((const struct pair *)a)->key, *y = &((const struct pair *)b)->key;

	if (x->subject != y->subject)
		return x->subject < y->subject ? -1 : 1;
	if (x->peer != y->peer)
		return x->peer < y->peer ? -1 : 1;
	return x->direction != y->direction ? x->direction - y->direction : x->proto - y->proto;
}

/* Which numbers have to have a name, one bit each. */
static void identities_collect(const struct metrics *head, const struct pair *pairs, size_t n, uint8_t *wanted)
{
	for (size_t i = 0; i < n; i++) {
		const uint32_t ends[] = {pairs[i].key.subject, pairs[i].key.peer};

		for (int k = 0; k < 2; k++)
			if (ends[k] < BH_MAX_IDENTITIES)
				wanted[ends[k] / 8] |= (uint8_t)(1U << ends[k] % 8);
	}
	if (head->nearest_identity < BH_MAX_IDENTITIES)
		wanted[head->nearest_identity / 8] |= (uint8_t)(1U << head->nearest_identity % 8);
}

struct metrics *metrics_new(const struct metrics *head, struct pair *pairs, size_t n_pairs,
			    const char *(*name_of)(void *ctx, uint32_t identity), void *ctx)
{
	uint8_t wanted[BH_MAX_IDENTITIES / 8] = {0};
	size_t n_names = 0, text_len = 0, at = 0, size;
	struct metrics_name *names;
	struct metrics *m;
	char *text;

	if (n_pairs)
		qsort(pairs, n_pairs, sizeof(*pairs), pair_order);
	identities_collect(head, pairs, n_pairs, wanted);
	for (uint32_t i = BH_ID_FIRST; i < BH_MAX_IDENTITIES; i++) {
		if (!(wanted[i / 8] & 1U << i % 8) || !*name_of(ctx, i))
			continue;
		n_names++;
		text_len += strlen(name_of(ctx, i)) + 1;
	}
	size = sizeof(*m) + n_pairs * sizeof(*pairs) + n_names * sizeof(*names) + text_len;
	m = calloc(1, size);
	if (!m)
		return NULL;
	*m = *head;
	m->magic = METRICS_MAGIC;
	m->size = size;
	m->n_pairs = n_pairs;
	m->n_names = n_names;
	m->text_len = text_len;
	if (n_pairs)
		memcpy((void *)metrics_pairs(m), pairs, n_pairs * sizeof(*pairs));
	names = (struct metrics_name *)names_of(m);
	text = (char *)text_of(m);
	for (uint32_t i = BH_ID_FIRST; i < BH_MAX_IDENTITIES; i++) {
		const char *name = wanted[i / 8] & 1U << i % 8 ? name_of(ctx, i) : "";

		if (!*name)
			continue;
		*names++ = (struct metrics_name){.identity = i, .at = (uint32_t)at};
		memcpy(text + at, name, strlen(name) + 1);
		at += strlen(name) + 1;
	}
	return m;
}

/* ---- checking ---- */

static bool terminated(const char *text, size_t size)
{
	return memchr(text, '\0', size);
}

bool metrics_check(const void *bytes, size_t len)
{
	const struct metrics *m = bytes;
	size_t rest;

	if (len < sizeof(*m) || m->magic != METRICS_MAGIC || m->size != len || len > METRICS_MAX_BYTES ||
	    m->n_programs > METRICS_MAX_PROGRAMS || m->n_maps > METRICS_MAX_MAPS ||
	    !terminated(m->version, sizeof(m->version)) || !terminated(m->instance, sizeof(m->instance)))
		return false;
	for (uint32_t i = 0; i < m->n_programs; i++)
		if (!terminated(m->programs[i].name, sizeof(m->programs[i].name)))
			return false;
	for (uint32_t i = 0; i < m->n_maps; i++)
		if (!terminated(m->maps[i].name, sizeof(m->maps[i].name)))
			return false;
	rest = len - sizeof(*m);
	if (m->n_pairs > rest / sizeof(struct pair))
		return false;
	rest -= m->n_pairs * sizeof(struct pair);
	if (m->n_names > rest / sizeof(struct metrics_name))
		return false;
	rest -= m->n_names * sizeof(struct metrics_name);
	if (m->text_len != rest || (rest && text_of(m)[rest - 1] != '\0'))
		return false;
	for (size_t i = 0; i < m->n_names; i++)
		if (names_of(m)[i].at >= rest)
			return false;
	return true;
}

/* ---- JSON ---- */

/* Room that one pair may take: two names in which every byte is escaped, and the numbers. */
static size_t pair_json_max(const struct metrics *m, const struct pair *pair)
{
	return 6 * (strlen(metrics_identity(m, pair->key.subject)) + strlen(metrics_identity(m, pair->key.peer))) + 512;
}

static void pair_json(struct json_line *line, const struct metrics *m, const struct pair *pair)
{
	const char *subject = metrics_identity(m, pair->key.subject), *peer = metrics_identity(m, pair->key.peer);
	bool egress = pair->key.direction == BH_EGRESS;
	char number[8];

	json_line_object(line, NULL);
	json_line_string(line, "from", egress ? subject : peer);
	json_line_string(line, "to", egress ? peer : subject);
	json_line_string(line, "direction", egress ? "egress" : "ingress");
	json_line_string(line, "protocol", metrics_protocol(pair->key.proto, number));
	json_line_number(line, "flows", pair->value.flows);
	json_line_number(line, "denied", pair->value.denied);
	json_line_number(line, "sent_bytes", pair->value.sent);
	json_line_number(line, "received_bytes", pair->value.received);
	json_line_number(line, "retransmits", pair->value.retransmits);
	json_line_number(line, "rtt_us", pair->value.rtt_us);
	json_line_number(line, "rtt_samples", pair->value.rtt_samples);
	json_line_object_end(line);
}

/* The places for those without one are shown only where they were needed. */
static bool is_unused(const struct pair *pair)
{
	const struct bh_pair *v = &pair->value;

	return pair->key.subject == BH_ID_OTHER && !v->flows && !v->denied && !v->rtt_samples;
}

char *metrics_top_json(const struct metrics *m)
{
	const struct pair *pairs = metrics_pairs(m);
	struct json_line line;
	size_t size = 512, counted = 0, len;
	char *text;

	for (size_t i = 0; i < m->n_pairs; i++) {
		size += pair_json_max(m, &pairs[i]);
		counted += pairs[i].key.subject != BH_ID_OTHER;
	}
	text = malloc(size);
	if (!text)
		return NULL;
	json_line_begin(&line, text, size - 1, 6 * NAME_MAX_BYTES);
	json_line_number(&line, "taken_usec", m->taken_usec);
	json_line_number(&line, "pairs_counted", counted);
	json_line_number(&line, "pairs_max", BH_MAX_PAIRS);
	json_line_array(&line, "pairs");
	for (size_t i = 0; i < m->n_pairs; i++)
		if (!is_unused(&pairs[i]))
			pair_json(&line, m, &pairs[i]);
	json_line_array_end(&line);
	len = json_line_end(&line);
	text[len] = '\0';
	if (len)
		return text;
	free(text);
	return NULL;
}
