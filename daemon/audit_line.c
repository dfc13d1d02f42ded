/* SPDX-License-Identifier: Apache-2.0 */
#include "audit_line.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ECS_VERSION "8.11.0"
#define NS_PER_S 1000000000ULL

const size_t audit_string_limits[AUDIT_STRING_LIMITS] = {4096, 1024, 256};

int audit_record_new(struct audit_record **recordp, const struct auditor_config *config)
{
	struct audit_record *record = calloc(1, sizeof(*record));
	struct json_line line;
	size_t len;

	if (!record)
		return -ENOMEM;
	record->config = *config;
	record->second = UINT64_MAX;
	if (community_id_new(&record->cid) < 0)
		record->cid = NULL;
	json_line_begin(&line, record->common, sizeof(record->common), audit_string_limits[AUDIT_STRING_LIMITS - 1]);
	json_line_object(&line, "ecs");
	json_line_string(&line, "version", ECS_VERSION);
	json_line_object_end(&line);
	json_line_object(&line, "observer");
	json_line_string(&line, "vendor", "Bulkhead");
	json_line_string(&line, "product", "bulkhead");
	json_line_string(&line, "type", "firewall");
	json_line_bytes(&line, "version", config->version, sizeof(config->version));
	if (config->instance[0])
		json_line_bytes(&line, "name", config->instance, sizeof(config->instance));
	json_line_object_end(&line);
	json_line_object(&line, "host");
	json_line_bytes(&line, "id", config->host_id, sizeof(config->host_id));
	json_line_bytes(&line, "name", config->host_name, sizeof(config->host_name));
	json_line_object_end(&line);
	len = json_line_end(&line);
	/* Without the braces and the newline: members to be put into an object. */
	record->common_len = len - 3;
	memmove(record->common, record->common + 1, record->common_len);
	*recordp = record;
	return 0;
}

void audit_record_freep(struct audit_record **recordp)
{
	if (!*recordp)
		return;
	community_id_freep(&(*recordp)->cid);
	free(*recordp);
	*recordp = NULL;
}

/* Most events fall into the second of the one before. */
const char *audit_time_text(struct audit_record *record, char out[AUDIT_TIME_SIZE], uint64_t time_ns)
{
	time_t second = (time_t)(time_ns / NS_PER_S);
	uint64_t ns = time_ns % NS_PER_S;
	size_t len = sizeof("2026-11-21T00:00:00") - 1;
	struct tm tm;

	if (record->second != (uint64_t)second) {
		if (!gmtime_r(&second, &tm) ||
		    strftime(record->second_text, sizeof(record->second_text), "%Y-%m-%dT%H:%M:%S", &tm) != len)
			memcpy(record->second_text, "1970-01-01T00:00:00", len + 1);
		record->second = (uint64_t)second;
	}
	memcpy(out, record->second_text, len);
	out[len] = '.';
	for (size_t i = 9; i; i--, ns /= 10)
		out[len + i] = (char)('0' + ns % 10);
	memcpy(out + len + 10, "Z", 2);
	return out;
}

static const char *level_name(enum audit_severity severity)
{
	switch (severity) {
	case SEVERITY_CRITICAL:
		return "critical";
	case SEVERITY_ERROR:
		return "error";
	case SEVERITY_WARNING:
		return "warning";
	case SEVERITY_NOTICE:
		return "notice";
	default:
		return "info";
	}
}

void audit_line_head(struct audit_record *record, struct json_line *line, const struct audit_stamp *stamp,
		     const struct audit_classing *class)
{
	char text[AUDIT_TIME_SIZE], id[64];

	json_line_string(line, "@timestamp", audit_time_text(record, text, stamp->time_ns));
	json_line_members(line, record->common, record->common_len);
	json_line_object(line, "log");
	json_line_string(line, "level", level_name(class->severity));
	json_line_object_end(line);
	json_line_object(line, "event");
	snprintf(id, sizeof(id), "%.8s-%llu-%llu", record->config.host_id, (unsigned long long)record->config.epoch,
		 (unsigned long long)stamp->sequence);
	json_line_string(line, "id", id);
	json_line_number(line, "sequence", stamp->sequence);
	json_line_string(line, "module", "bulkhead");
	json_line_string(line, "dataset", class->dataset);
	json_line_string(line, "provider", "bulkheadd");
	json_line_array(line, "category");
	json_line_string(line, NULL, class->category);
	json_line_array_end(line);
	json_line_array(line, "type");
	for (size_t i = 0; i < 2 && class->types[i]; i++)
		json_line_string(line, NULL, class->types[i]);
	json_line_array_end(line);
	json_line_string(line, "action", class->action);
	json_line_string(line, "outcome", class->outcome);
	json_line_number(line, "severity", class->severity);
}

void audit_put_carrier(struct json_line *line, uint64_t id, const char *path)
{
	static const char prefix[] = "device:";

	if (path && strncmp(path, prefix, sizeof(prefix) - 1) == 0)
		path += sizeof(prefix) - 1;
	json_line_object(line, id & BH_DEVICE_BIT ? "device" : "cgroup");
	if (id & ~BH_DEVICE_BIT)
		json_line_number(line, id & BH_DEVICE_BIT ? "index" : "id", id & ~BH_DEVICE_BIT);
	if (path)
		json_line_string(line, id & BH_DEVICE_BIT ? "name" : "path", path);
	json_line_object_end(line);
}

size_t audit_line_tail(struct json_line *line)
{
	if (line->shortened)
		json_line_bool(line, "shortened", true);
	json_line_object_end(line);
	return json_line_end(line);
}
