/* SPDX-License-Identifier: Apache-2.0 */
#include "metrics_text.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reasons.h"

struct writer {
	FILE *out;
	enum metrics_format format;
	const struct metrics *m;
};

const char *metrics_content_type(enum metrics_format format)
{
	return format == METRICS_OPENMETRICS ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
					     : "text/plain; version=0.0.4; charset=utf-8";
}

/* ---- lines ---- */

/*
 * The head of a family. OpenMetrics names a family of counters without the suffix that its samples have, knows the type
 * `info`, and tells the unit.
 */
static void family(const struct writer *w, const char *name, const char *type, const char *unit, const char *help)
{
	bool counter = strcmp(type, "counter") == 0, info = strcmp(type, "info") == 0;
	const char *suffix = "";

	if (w->format == METRICS_PROMETHEUS) {
		suffix = counter ? "_total" : info ? "_info" : "";
		type = info ? "gauge" : type;
	}
	fprintf(w->out, "# TYPE %s%s %s\n", name, suffix, type);
	if (*unit && w->format == METRICS_OPENMETRICS)
		fprintf(w->out, "# UNIT %s %s\n", name, unit);
	fprintf(w->out, "# HELP %s%s %s\n", name, suffix, help);
}

/* A label value: backslash, quote and line feed are escaped; what is no UTF-8 must not stand in the text, and identities are
 * ASCII, so anything else becomes '?'. */
static void label(const struct writer *w, bool first, const char *name, const char *value)
{
	fprintf(w->out, "%s%s=\"", first ? "{" : ",", name);
	for (const unsigned char *p = (const unsigned char *)value; *p; p++) {
		if (*p == '\\' || *p == '"')
			fprintf(w->out, "\\%c", *p);
		else if (*p == '\n')
			fputs("\\n", w->out);
		else
			fputc(*p < 0x20 || *p >= 0x7f ? '?' : *p, w->out);
	}
	fputc('"', w->out);
}

static void value(const struct writer *w, uint64_t number)
{
	fprintf(w->out, " %" PRIu64 "\n", number);
}

static void seconds(const struct writer *w, uint64_t usec)
{
	fprintf(w->out, " %" PRIu64 ".%06" PRIu64 "\n", usec / 1000000, usec % 1000000);
}

static void sample(const struct writer *w, const char *name, uint64_t number)
{
	fputs(name, w->out);
	value(w, number);
}

static void labelled(const struct writer *w, const char *name, const char *key, const char *text, uint64_t number)
{
	fputs(name, w->out);
	label(w, true, key, text);
	fputc('}', w->out);
	value(w, number);
}

/* ---- pairs ---- */

static void pair_labels(const struct writer *w, const char *name, const struct pair *pair)
{
	const char *subject = metrics_identity(w->m, pair->key.subject);
	const char *peer = metrics_identity(w->m, pair->key.peer);
	bool egress = pair->key.direction == BH_EGRESS;
	char number[8];

	fputs(name, w->out);
	label(w, true, "source", egress ? subject : peer);
	label(w, false, "destination", egress ? peer : subject);
	label(w, false, "direction", egress ? "egress" : "ingress");
	label(w, false, "protocol", metrics_protocol(pair->key.proto, number));
	fputc('}', w->out);
}

/* Of TCP: a pair that had no connection has nothing to tell, but those that found no room may have sent datagrams. */
static bool tells_tcp(const struct pair *pair)
{
	return pair->value.rtt_samples || (!pair->key.proto && (pair->value.sent || pair->value.received));
}

static bool tells_udp(const struct pair *pair)
{
	return pair->key.proto == IPPROTO_UDP && pair->value.flows;
}

/* Of those that `tells` says it of; NULL: of all. */
static void pair_counters(const struct writer *w, const char *name, size_t offset,
			  bool (*tells)(const struct pair *pair))
{
	const struct pair *pairs = metrics_pairs(w->m);

	for (size_t i = 0; i < w->m->n_pairs; i++) {
		if (tells && !tells(&pairs[i]))
			continue;
		pair_labels(w, name, &pairs[i]);
		value(w, *(const uint64_t *)((const char *)&pairs[i].value + offset));
	}
}

static void pairs_text(const struct writer *w)
{
	const struct pair *pairs = metrics_pairs(w->m);

	family(w, "bulkhead_pair_flows", "counter", "", "Flows that were judged and allowed, at this end of the flow.");
	pair_counters(w, "bulkhead_pair_flows_total", offsetof(struct bh_pair, flows), NULL);
	family(w, "bulkhead_pair_denials", "counter", "", "Packets and calls that were denied, at this end.");
	pair_counters(w, "bulkhead_pair_denials_total", offsetof(struct bh_pair, denied), NULL);
	family(w, "bulkhead_pair_tcp_sent_bytes", "counter", "bytes",
	       "Payload that this end sent over TCP and the other end acknowledged.");
	pair_counters(w, "bulkhead_pair_tcp_sent_bytes_total", offsetof(struct bh_pair, sent), tells_tcp);
	family(w, "bulkhead_pair_tcp_received_bytes", "counter", "bytes", "Payload that this end received over TCP.");
	pair_counters(w, "bulkhead_pair_tcp_received_bytes_total", offsetof(struct bh_pair, received), tells_tcp);
	family(w, "bulkhead_pair_udp_sent_bytes", "counter", "bytes",
	       "Payload of datagrams that this end sent and was allowed to send.");
	pair_counters(w, "bulkhead_pair_udp_sent_bytes_total", offsetof(struct bh_pair, sent), tells_udp);
	family(w, "bulkhead_pair_udp_received_bytes", "counter", "bytes",
	       "Payload of datagrams that this end was allowed to receive.");
	pair_counters(w, "bulkhead_pair_udp_received_bytes_total", offsetof(struct bh_pair, received), tells_udp);
	family(w, "bulkhead_pair_tcp_retransmits", "counter", "", "TCP segments that this end sent again.");
	pair_counters(w, "bulkhead_pair_tcp_retransmits_total", offsetof(struct bh_pair, retransmits), tells_tcp);
	family(w, "bulkhead_pair_tcp_rtt_seconds", "summary", "seconds",
	       "Smoothed round-trip time: one sample of each connection at its end, and one at each look while it "
	       "lives.");
	for (size_t i = 0; i < w->m->n_pairs; i++) {
		if (!pairs[i].value.rtt_samples)
			continue;
		pair_labels(w, "bulkhead_pair_tcp_rtt_seconds_sum", &pairs[i]);
		seconds(w, pairs[i].value.rtt_us);
		pair_labels(w, "bulkhead_pair_tcp_rtt_seconds_count", &pairs[i]);
		value(w, pairs[i].value.rtt_samples);
	}
}

/* ---- the rest ---- */

/* The code of a reason; the policy's own has several in the audit log, by what decided. */
static const char *reason_label(unsigned reason)
{
	return reason == BH_REASON_POLICY ? "POLICY" : reason_code(reason, BH_VERDICT_DENY, 0);
}

static void verdicts_text(const struct writer *w)
{
	const struct bh_counters *c = &w->m->counters;

	family(w, "bulkhead_flows_allowed", "counter", "", "Flows that were judged and allowed.");
	sample(w, "bulkhead_flows_allowed_total", c->flows_allowed);
	family(w, "bulkhead_denied", "counter", "", "Packets and calls that were denied, by reason.");
	for (unsigned i = 0; i < BH_REASON_MAX; i++)
		labelled(w, "bulkhead_denied_total", "reason", reason_label(i), c->denied[i]);
	family(w, "bulkhead_handshakes", "counter", "", "Identities shown in TCP handshakes, by what came of it.");
	labelled(w, "bulkhead_handshakes_total", "result", "verified", c->handshakes_verified);
	labelled(w, "bulkhead_handshakes_total", "result", "forged", c->handshakes_forged);
	labelled(w, "bulkhead_handshakes_total", "result", "replayed", c->handshakes_replayed);
	labelled(w, "bulkhead_handshakes_total", "result", "stripped", c->handshakes_stripped);
}

static void event_lines(const struct writer *w, const char *name, uint64_t flow, uint64_t notice)
{
	labelled(w, name, "kind", "flow", flow);
	labelled(w, name, "kind", "notice", notice);
}

static void events_text(const struct writer *w)
{
	const struct bh_counters *c = &w->m->counters;

	family(w, "bulkhead_events_made", "counter", "",
	       "Audit events made: flow verdicts by the kernel programs, notices by the daemon.");
	event_lines(w, "bulkhead_events_made_total", c->events_made, c->notices_made);
	family(w, "bulkhead_events_written", "counter", "", "Audit events written to the log.");
	event_lines(w, "bulkhead_events_written_total", c->events_written, c->notices_written);
	family(w, "bulkhead_events_lost", "counter", "", "Audit events that could not be written.");
	event_lines(w, "bulkhead_events_lost_total", c->events_lost, c->notices_lost);
	family(w, "bulkhead_audit_writing", "gauge", "",
	       "1: the audit log is written; 0: it is not, or not the file that it should be.");
	sample(w, "bulkhead_audit_writing", !!w->m->audit_writing);
	family(w, "bulkhead_denials_folded", "counter", "", "Denials counted into a later event of the same kind.");
	sample(w, "bulkhead_denials_folded_total", c->denials_folded);
}

static void identities_text(const struct writer *w)
{
	const struct metrics *m = w->m;

	family(w, "bulkhead_tags", "gauge", "", "Workloads that carry an identity, by how it was proved.");
	labelled(w, "bulkhead_tags", "kind", "verified", m->tags_verified);
	labelled(w, "bulkhead_tags", "kind", "local", m->tags_local);
	family(w, "bulkhead_nearest_deadline_timestamp_seconds", "gauge", "seconds",
	       "When the identity that ends soonest does.");
	if (m->nearest_deadline)
		labelled(w, "bulkhead_nearest_deadline_timestamp_seconds", "identity",
			 metrics_identity(m, m->nearest_identity), m->nearest_deadline);
}

static void policy_text(const struct writer *w)
{
	const struct metrics *m = w->m;

	family(w, "bulkhead_policy_revision", "gauge", "", "Revision of the policy in force; 0: none, all is denied.");
	sample(w, "bulkhead_policy_revision", m->revision);
	family(w, "bulkhead_policy_rules", "gauge", "", "Rules of the policy in force.");
	sample(w, "bulkhead_policy_rules", m->rules);
	family(w, "bulkhead_policy_applied_timestamp_seconds", "gauge", "seconds", "When it came into force.");
	fputs("bulkhead_policy_applied_timestamp_seconds", w->out);
	seconds(w, m->applied_usec);
}

static void kernel_text(const struct writer *w)
{
	const struct metrics *m = w->m;

	family(w, "bulkhead_enforcing", "gauge", "", "1: all programs are attached; 0: one is missing.");
	sample(w, "bulkhead_enforcing", !!m->enforcing);
	family(w, "bulkhead_program_attached", "gauge", "", "Is this kernel program attached to the managed subtree?");
	for (uint32_t i = 0; i < m->n_programs; i++)
		labelled(w, "bulkhead_program_attached", "program", m->programs[i].name, !!m->programs[i].attached);
	family(w, "bulkhead_map_entries", "gauge", "", "Entries in a kernel map.");
	for (uint32_t i = 0; i < m->n_maps; i++)
		labelled(w, "bulkhead_map_entries", "map", m->maps[i].name, m->maps[i].entries);
	family(w, "bulkhead_map_capacity", "gauge", "", "Entries that a kernel map has room for.");
	for (uint32_t i = 0; i < m->n_maps; i++)
		labelled(w, "bulkhead_map_capacity", "map", m->maps[i].name, m->maps[i].max);
	family(w, "bulkhead_map_full", "counter", "", "Times that a full kernel map denied something.");
	sample(w, "bulkhead_map_full_total", m->counters.map_full);
}

static void build_text(const struct writer *w)
{
	family(w, "bulkhead_build", "info", "", "Version and instance of the daemon.");
	fputs("bulkhead_build_info", w->out);
	label(w, true, "version", w->m->version);
	label(w, false, "daemon", w->m->instance); /* "instance" is the scraper's own label */
	fputs("} 1\n", w->out);
	family(w, "bulkhead_start_timestamp_seconds", "gauge", "seconds", "When the daemon was started.");
	fputs("bulkhead_start_timestamp_seconds", w->out);
	seconds(w, w->m->started_usec);
}

int metrics_text(const struct metrics *metrics, enum metrics_format format, char **textp, size_t *lenp)
{
	struct writer w = {.format = format, .m = metrics};
	bool failed;

	w.out = open_memstream(textp, lenp);
	if (!w.out)
		return -ENOMEM;
	build_text(&w);
	kernel_text(&w);
	policy_text(&w);
	identities_text(&w);
	verdicts_text(&w);
	events_text(&w);
	pairs_text(&w);
	if (format == METRICS_OPENMETRICS)
		fputs("# EOF\n", w.out);
	failed = ferror(w.out);
	failed |= fclose(w.out) != 0;
	if (!failed)
		return 0;
	free(*textp);
	*textp = NULL;
	return -ENOMEM;
}
