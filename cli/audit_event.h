/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit_event.h - an event of the audit log as people read it. Fields that are missing are left out. Texts in the log
 * come from workloads too: what would move the cursor of a terminal is replaced.
 */
#ifndef BULKHEAD_CLI_AUDIT_EVENT_H
#define BULKHEAD_CLI_AUDIT_EVENT_H

#include "cli/cli.h"

enum audit_side {
	AUDIT_SOURCE,
	AUDIT_DESTINATION,
};

#define AUDIT_TEXT_MAX 3072

bool audit_event_is_flow(const json_t *event);
bool audit_event_is_denial(const json_t *event);
/* Whether the identity takes part: an end of a flow, or the subject of another event. */
bool audit_event_concerns(const json_t *event, const char *identity);

/* A text of the event that is safe to print. Returns `out`. */
const char *audit_event_text(const json_t *event, const char *path, char *out, size_t size);
/* "2026-11-21T10:00:00Z" */
void audit_event_time(const json_t *event, char *out, size_t size);
/* "spiffe://... (10.0.0.1:443)", "unidentified /some/cgroup (10.0.0.1:443)"; of the world the address alone */
void audit_event_end(const json_t *event, enum audit_side side, char *out, size_t size);
/* The same as an end for `explain`: "spiffe://...@10.0.0.1", "unidentified@10.0.0.1"; of the world the address alone */
void audit_event_explain_end(const json_t *event, enum audit_side side, char *out, size_t size);
/* "tcp/443", "icmp/8", "proto/47" */
void audit_event_service(const json_t *event, char *out, size_t size);
/* What decided, as a sentence, with file:line where a rule did. */
void audit_event_reason(const json_t *event, char *out, size_t size);
/* How many times; 1 if it does not say. */
json_int_t audit_event_count(const json_t *event);

#endif
