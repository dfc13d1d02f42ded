/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/metrics.h"
#include "daemon/metrics_listen.h"
#include "daemon/metrics_text.h"

#define WEB 20
#define ODD 21

static const char *name_of(void *ctx, uint32_t identity)
{
	(void)ctx;
	return identity == WEB ? "spiffe://a.example/web" : identity == ODD ? "a\"b\\c\nd\xff" : "";
}

static struct metrics *snapshot(size_t n_pairs)
{
	struct pair pairs[] = {
		{{.subject = BH_ID_OTHER, .peer = BH_ID_OTHER}, {.flows = 0}},
		{{.subject = ODD, .peer = WEB, .direction = BH_INGRESS, .proto = 6},
		 {.flows = 3,
		  .denied = 1,
		  .sent = 10,
		  .received = 20,
		  .retransmits = 2,
		  .rtt_us = 1500000,
		  .rtt_samples = 4}},
		{{.subject = WEB, .peer = BH_ID_WORLD, .direction = BH_EGRESS, .proto = 17}, {.flows = 7, .sent = 30}},
		{{.subject = 22, .peer = BH_ID_HOST, .direction = BH_EGRESS, .proto = 89}, {.denied = 5}},
	};
	struct metrics head = {.version = "1.2", .instance = "blue", .revision = 9, .enforcing = 1, .audit_writing = 1};
	struct metrics *m;

	head.n_programs = 1;
	strcpy(head.programs[0].name, "bh_egress");
	head.programs[0].attached = 1;
	head.n_maps = 1;
	head.maps[0] = (struct metrics_map){.name = "tags", .entries = 2, .max = 5};
	head.nearest_deadline = 1700000000;
	head.nearest_identity = WEB;
	head.counters.denied[BH_REASON_NO_IDENTITY] = 11;
	m = metrics_new(&head, pairs, n_pairs, name_of, NULL);
	assert_non_null(m);
	return m;
}

static char *text_of(enum metrics_format format)
{
	struct metrics *m = snapshot(4);
	char *text;
	size_t len;

	assert_int_equal(metrics_text(m, format, &text, &len), 0);
	assert_int_equal(strlen(text), len);
	free(m);
	return text;
}

static void has(const char *text, const char *line)
{
	if (!strstr(text, line))
		fail_msg("no line %s in:\n%s", line, text);
}

static void pairs_are_told_by_name_from_source_to_destination(void **state)
{
	char *text = text_of(METRICS_OPENMETRICS);

	(void)state;
	has(text, "\nbulkhead_pair_flows_total{source=\"spiffe://a.example/web\",destination=\"world\","
		  "direction=\"egress\",protocol=\"udp\"} 7\n");
	has(text,
	    "\nbulkhead_pair_tcp_sent_bytes_total{source=\"spiffe://a.example/web\",destination=\"a\\\"b\\\\c\\nd?\","
	    "direction=\"ingress\",protocol=\"tcp\"} 10\n");
	has(text, "direction=\"ingress\",protocol=\"tcp\"} 1.500000\n");
	has(text, "\nbulkhead_pair_denials_total{source=\"?\",destination=\"host\",direction=\"egress\",protocol="
		  "\"89\"} 5\n");
	has(text, "\nbulkhead_denied_total{reason=\"NO_IDENTITY\"} 11\n");
	has(text, "\nbulkhead_denied_total{reason=\"POLICY\"} 0\n");
	has(text, "\nbulkhead_audit_writing 1\n");
	has(text, "\nbulkhead_map_entries{map=\"tags\"} 2\n");
	has(text, "\nbulkhead_nearest_deadline_timestamp_seconds{identity=\"spiffe://a.example/web\"} 1700000000\n");
	has(text, "\nbulkhead_pair_udp_sent_bytes_total{source=\"spiffe://a.example/web\",destination=\"world\","
		  "direction=\"egress\",protocol=\"udp\"} 30\n");
	assert_null(strstr(
		text, "bulkhead_pair_tcp_sent_bytes_total{source=\"spiffe://a.example/web\",destination=\"world\""));
	/* Of a pair that never had a TCP connection. */
	assert_null(strstr(text, "bulkhead_pair_tcp_sent_bytes_total{source=\"?\""));
	free(text);
}

static void the_two_formats_differ_where_they_must(void **state)
{
	char *open = text_of(METRICS_OPENMETRICS), *plain = text_of(METRICS_PROMETHEUS);

	(void)state;
	has(open, "# TYPE bulkhead_pair_flows counter\n");
	has(open, "# UNIT bulkhead_pair_tcp_sent_bytes bytes\n");
	has(open, "# TYPE bulkhead_build info\n");
	assert_string_equal(open + strlen(open) - 6, "# EOF\n");
	has(plain, "# TYPE bulkhead_pair_flows_total counter\n");
	has(plain, "# TYPE bulkhead_build_info gauge\n");
	assert_null(strstr(plain, "# UNIT"));
	assert_null(strstr(plain, "# EOF"));
	free(open);
	free(plain);
}

static void a_snapshot_without_pairs_is_whole(void **state)
{
	struct metrics *m = snapshot(0);
	char *json = metrics_top_json(m);

	(void)state;
	assert_true(metrics_check(m, m->size));
	has(json, "\"pairs_counted\":0,");
	has(json, "\"pairs\":[]");
	free(json);
	free(m);
}

static void who_found_no_room_is_shown_only_where_there_is_one(void **state)
{
	struct metrics *m = snapshot(4);
	char *json = metrics_top_json(m);

	(void)state;
	assert_null(strstr(json, "other"));
	has(json, "\"pairs_counted\":3,");
	free(json);
	for (size_t i = 0; i < m->n_pairs; i++)
		if (metrics_pairs(m)[i].key.subject == BH_ID_OTHER)
			((struct pair *)metrics_pairs(m))[i].value.denied = 1;
	json = metrics_top_json(m);
	has(json, "{\"from\":\"other\",\"to\":\"other\",\"direction\":\"egress\",\"protocol\":\"any\",\"flows\":0,"
		  "\"denied\":1");
	free(json);
	free(m);
}

/* The enforcer is believed, but a mistake of ours is not to become a read beyond the end. */
static void a_damaged_snapshot_is_not_taken(void **state)
{
	struct metrics *m = snapshot(4), *damaged;
	size_t size = m->size;

	(void)state;
	assert_true(metrics_check(m, size));
	for (size_t len = 0; len < size; len += 8)
		assert_false(metrics_check(m, len));
	damaged = malloc(size);
	assert_non_null(damaged);
#define DAMAGE(change)                                                                                                 \
	memcpy(damaged, m, size);                                                                                      \
	damaged->change;                                                                                               \
	assert_false(metrics_check(damaged, size))
	DAMAGE(magic++);
	DAMAGE(size++);
	DAMAGE(n_pairs++);
	DAMAGE(n_pairs = UINT64_MAX / 8);
	DAMAGE(n_names = UINT64_MAX / 4);
	DAMAGE(text_len++);
	DAMAGE(n_programs = METRICS_MAX_PROGRAMS + 1);
	DAMAGE(n_maps = METRICS_MAX_MAPS + 1);
	memcpy(damaged, m, size);
	memset(damaged->version, 'x', sizeof(damaged->version));
	assert_false(metrics_check(damaged, size));
	memcpy(damaged, m, size);
	((char *)damaged)[size - 1] = 'x';
	assert_false(metrics_check(damaged, size));
	free(damaged);
	free(m);
}

static void pairs_of_identities_that_have_gone_are_kept_for_a_while_where_there_is_room(void **state)
{
	uint8_t present[BH_MAX_IDENTITIES / 8] = {0};
	struct pair pair = {{.subject = WEB, .peer = BH_ID_WORLD}, {.seen_ns = 1000}};
	uint64_t later = 1000 + PAIRS_KEEP_NS + 1;

	(void)state;
	assert_false(pair_is_over(&pair, present, 2000, false));
	assert_true(pair_is_over(&pair, present, 2000, true));
	assert_true(pair_is_over(&pair, present, later, false));
	pair.value.seen_ns = UINT64_MAX;
	assert_false(pair_is_over(&pair, present, later, false));
	pair.value.seen_ns = 1000;
	present[WEB / 8] |= 1U << WEB % 8;
	assert_false(pair_is_over(&pair, present, later, true));
	pair.key.peer = ODD;
	assert_true(pair_is_over(&pair, present, later, true));
	pair.key.subject = pair.key.peer = BH_ID_OTHER;
	assert_false(pair_is_over(&pair, present, later, true));
	pair.key.subject = BH_ID_UNIDENTIFIED;
	pair.key.peer = BH_ID_HOST;
	assert_false(pair_is_over(&pair, present, later, true));
}

static void only_addresses_that_no_other_host_reaches_are_taken(void **state)
{
	static const char *const bad[] = {"0.0.0.0:9470",
					  "10.0.0.1:9470",
					  "[::]:9470",
					  "[::2]:9470",
					  "localhost:9470",
					  "127.0.0.1",
					  "127.0.0.1:",
					  "127.0.0.1:0",
					  "127.0.0.1:65536",
					  "127.0.0.1:9x",
					  "127.1:9470",
					  ":9470",
					  "9470",
					  "on",
					  "",
					  "run/x.sock",
					  "::1:9470",
					  "[::1]",
					  "127.0.0.1:+9"};
	union metrics_address address;
	char path[200] = "/";

	(void)state;
	assert_int_equal(metrics_address_read("off", &address), 0);
	assert_true(metrics_address_read("127.0.0.1:9470", &address) > 0);
	assert_int_equal(address.in.sin_port, htons(9470));
	assert_true(metrics_address_read("127.200.0.1:65535", &address) > 0);
	assert_true(metrics_address_read("[::1]:1", &address) > 0);
	assert_true(metrics_address_read("/run/x.sock", &address) > 0);
	assert_string_equal(address.un.sun_path, "/run/x.sock");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (metrics_address_read(bad[i], &address) >= 0)
			fail_msg("taken: %s", bad[i]);
	memset(path + 1, 'a', sizeof(path) - 2);
	assert_int_equal(metrics_address_read(path, &address), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pairs_are_told_by_name_from_source_to_destination),
		cmocka_unit_test(the_two_formats_differ_where_they_must),
		cmocka_unit_test(a_snapshot_without_pairs_is_whole),
		cmocka_unit_test(who_found_no_room_is_shown_only_where_there_is_one),
		cmocka_unit_test(a_damaged_snapshot_is_not_taken),
		cmocka_unit_test(pairs_of_identities_that_have_gone_are_kept_for_a_while_where_there_is_room),
		cmocka_unit_test(only_addresses_that_no_other_host_reaches_are_taken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
