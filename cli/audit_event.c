/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/audit_event.h"

#include <stdio.h>
#include <string.h>

#include "cli/bus.h"

static const char *const side_names[] = {"source", "destination"};

bool audit_event_is_flow(const json_t *event)
{
	return !strncmp(cli_json_string(event, "event.action"), "flow-", 5);
}

bool audit_event_is_denial(const json_t *event)
{
	const char *action = cli_json_string(event, "event.action");

	return !strcmp(action, "flow-denied") || !strcmp(action, "flow-would-deny");
}

bool audit_event_concerns(const json_t *event, const char *identity)
{
	static const char *const places[] = {"zt.source.spiffe_id",	 "zt.source.local",
					     "zt.destination.spiffe_id", "zt.destination.local",
					     "zt.identity.spiffe_id",	 "zt.identity.local"};

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		if (!strcmp(cli_json_string(event, places[i]), identity))
			return true;
	return false;
}

/* Control characters, those of C1 too (U+0080 to U+009F), become '?'. */
static void make_printable(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p; p++) {
		if (*p < 0x20 || *p == 0x7f)
			*p = '?';
		else if (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0)
			p[0] = p[1] = '?';
	}
}

const char *audit_event_text(const json_t *event, const char *path, char *out, size_t size)
{
	snprintf(out, size, "%s", cli_json_string(event, path));
	make_printable(out);
	return out;
}

void audit_event_time(const json_t *event, char *out, size_t size)
{
	char text[64];

	audit_event_text(event, "@timestamp", text, sizeof(text));
	/* Always UTC; parts of a second are for programs. */
	if (strlen(text) > 19)
		snprintf(out, size, "%.19sZ", text);
	else
		snprintf(out, size, "%s", *text ? text : "?");
}

/* Who is at an end: a SPIFFE ID, the name of a local identity, or a built-in name; "" if the log does not say. */
static const char *end_identity(const json_t *event, enum audit_side side, char *out, size_t size)
{
	static const char *const keys[] = {"spiffe_id", "local", "kind"};
	char path[64];

	*out = '\0';
	for (size_t i = 0; !*out && i < 3; i++) {
		snprintf(path, sizeof(path), "zt.%s.%s", side_names[side], keys[i]);
		audit_event_text(event, path, out, size);
	}
	return out;
}

/* The end where the verdict was made: the source on the way out, the destination on the way in. */
static bool is_local(const json_t *event, enum audit_side side)
{
	bool egress = !strcmp(cli_json_string(event, "network.direction"), "egress");

	return egress == (side == AUDIT_SOURCE);
}

static void end_address(const json_t *event, enum audit_side side, char *out, size_t size)
{
	char path[64], ip[128];
	json_int_t port;

	snprintf(path, sizeof(path), "%s.ip", side_names[side]);
	audit_event_text(event, path, ip, sizeof(ip));
	snprintf(path, sizeof(path), "%s.port", side_names[side]);
	port = cli_json_int(event, path);
	if (!port)
		snprintf(out, size, "%s", ip);
	else if (strchr(ip, ':'))
		snprintf(out, size, "[%s]:%" JSON_INTEGER_FORMAT, ip, port);
	else
		snprintf(out, size, "%s:%" JSON_INTEGER_FORMAT, ip, port);
}

void audit_event_end(const json_t *event, enum audit_side side, char *out, size_t size)
{
	char identity[2100], address[160], cgroup[1100] = "";

	end_identity(event, side, identity, sizeof(identity));
	end_address(event, side, address, sizeof(address));
	if (is_local(event, side) && !strcmp(identity, "unidentified"))
		audit_event_text(event, "zt.cgroup.path", cgroup, sizeof(cgroup));
	if (!*address)
		snprintf(out, size, "%s%s%s", *identity ? identity : "?", *cgroup ? " " : "", cgroup);
	else if (!*identity || !strcmp(identity, "world"))
		snprintf(out, size, "%s", address);
	else
		snprintf(out, size, "%s%s%s (%s)", identity, *cgroup ? " " : "", cgroup, address);
}

void audit_event_explain_end(const json_t *event, enum audit_side side, char *out, size_t size)
{
	char identity[2100], path[64], ip[128];

	end_identity(event, side, identity, sizeof(identity));
	snprintf(path, sizeof(path), "%s.ip", side_names[side]);
	audit_event_text(event, path, ip, sizeof(ip));
	/* `world` is what an address alone means. */
	if (*identity && strcmp(identity, "world") && strcmp(identity, "unknown"))
		snprintf(out, size, "%s%s%s", identity, *ip ? "@" : "", ip);
	else
		snprintf(out, size, "%s", *ip ? ip : "world");
}

void audit_event_service(const json_t *event, char *out, size_t size)
{
	static const char *const named[] = {"tcp", "udp", "sctp", "icmp", "icmpv6"};
	char transport[40], number[16];
	const json_t *port = cli_json_get(event, "destination.port"), *type = cli_json_get(event, "zt.icmp.type");
	bool has_name = false;

	audit_event_text(event, "network.transport", transport, sizeof(transport));
	audit_event_text(event, "network.iana_number", number, sizeof(number));
	if (!strcmp(transport, "ipv6-icmp"))
		snprintf(transport, sizeof(transport), "icmpv6");
	for (size_t i = 0; i < sizeof(named) / sizeof(named[0]); i++)
		has_name |= !strcmp(transport, named[i]);
	/* The names of a policy, which calls GRE proto/47. */
	if (!has_name && *number)
		snprintf(out, size, "proto/%s", number);
	else if (json_is_integer(port) || json_is_integer(type))
		snprintf(out, size, "%s/%" JSON_INTEGER_FORMAT, transport,
			 json_integer_value(json_is_integer(port) ? port : type));
	else
		snprintf(out, size, "%s", transport);
}

void audit_event_reason(const json_t *event, char *out, size_t size)
{
	char reason[1024], rule[256], file[512], code[64], where[600] = "";
	json_int_t line = cli_json_int(event, "zt.rule.line");

	audit_event_text(event, "event.reason", reason, sizeof(reason));
	audit_event_text(event, "rule.name", rule, sizeof(rule));
	audit_event_text(event, "zt.rule.file", file, sizeof(file));
	audit_event_text(event, "event.code", code, sizeof(code));
	if (*file)
		snprintf(where, sizeof(where), "%s:%" JSON_INTEGER_FORMAT, file, line);
	if (!*reason && *rule)
		snprintf(reason, sizeof(reason), "rule \"%s\"", rule);
	/* The sentence of a rule has its place in it already. */
	if (*where && !strstr(reason, where))
		snprintf(out, size, "%s (%s)%s%s%s", reason, where, *code ? " [" : "", code, *code ? "]" : "");
	else
		snprintf(out, size, "%s%s%s%s", reason, *code ? " [" : "", code, *code ? "]" : "");
}

json_int_t audit_event_count(const json_t *event)
{
	json_int_t count = cli_json_int(event, "zt.count");

	return count > 1 ? count : 1;
}
