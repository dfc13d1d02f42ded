/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit_line.h - what every line of the audit log has in common. Internal to audit_record.c and audit_notice.c.
 *
 * A line is: time, host and observer, log level, the object `event`, what its kind adds, and as the last object `zt`
 * with the fields that ECS has no name for.
 */
#ifndef BULKHEAD_DAEMON_AUDIT_LINE_H
#define BULKHEAD_DAEMON_AUDIT_LINE_H

#include <stddef.h>
#include <stdint.h>

#include "audit_record.h"
#include "community_id.h"
#include "json_line.h"

#define AUDIT_TIME_SIZE sizeof("2026-11-21T00:00:00.000000000Z")
#define AUDIT_DIGEST_SHORT 16 /* hex digits of the policy's digest that name it in rule.ruleset */

struct audit_record {
	struct auditor_config config;
	struct community_id *cid; /* NULL: no SHA-1 in this OpenSSL, then no community ID */
	uint64_t second;	  /* that `second_text` stands for */
	char second_text[AUDIT_TIME_SIZE];
	size_t common_len;
	char common[2048]; /* members that are the same in every line */
};

/* Syslog severities (RFC 5424) and their names in ECS log.level. */
enum audit_severity {
	SEVERITY_CRITICAL = 2,
	SEVERITY_ERROR = 3,
	SEVERITY_WARNING = 4,
	SEVERITY_NOTICE = 5,
	SEVERITY_INFO = 6,
};

/* How an event is classed (ECS categorization fields). */
struct audit_classing {
	const char *action;
	const char *dataset;
	const char *category;
	const char *types[2];
	const char *outcome;
	enum audit_severity severity;
	const char *text; /* of event.reason where the event brings none */
};

/* Limits of each string in a line, in the order in which they are tried: the next one only where the line does not fit, by
 * hostile strings. With the last, all strings of any line together stay below AUDIT_LINE_MAX. */
#define AUDIT_STRING_LIMITS 3
extern const size_t audit_string_limits[AUDIT_STRING_LIMITS];

/* RFC 3339 in UTC, with nanoseconds. Returns `out`. */
const char *audit_time_text(struct audit_record *record, char out[AUDIT_TIME_SIZE], uint64_t time_ns);
/* Writes the members that every line has. Leaves the object `event` open for more. */
void audit_line_head(struct audit_record *record, struct json_line *line, const struct audit_stamp *stamp,
		     const struct audit_classing *class);
/* The object that says what carries the identity: `cgroup`, or `device` where the id is one's (BH_DEVICE_BIT). `path`: the
 * cgroup's path or the device's name, also as device:NAME; NULL if it is not known. */
void audit_put_carrier(struct json_line *line, uint64_t id, const char *path);
/* Ends the object `zt` and the line. Returns its length, or 0 if it did not fit. */
size_t audit_line_tail(struct json_line *line);

#endif
