/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of flow verdicts. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "audit_line.h"
#include "reasons.h"

/* What is known of one end of a flow. */
struct flow_end {
	const char *key; /* "source", "destination" */
	const char *spiffe_id;
	const char *local;
	const char *kind; /* where there is no name */
	bool has_ip;
	bool has_port;
	uint16_t port;
	char ip[INET6_ADDRSTRLEN];
};

struct flow {
	const struct bh_event *event;
	const char *cgroup_path;
	const char *digest;
	const char *transport;
	uint64_t time_ns;
	uint64_t first_ns;
	uint64_t sequence;
	bool ipv4;
	bool icmp;
	bool has_rule;
	struct policy_rule_name rule;
	struct flow_end source;
	struct flow_end destination;
	const struct flow_end *subject;
	char community_id[COMMUNITY_ID_SIZE]; /* "" if there is none */
	char reason[512];
};

static bool is_mapped(const struct bh_addr *addr)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

	return !memcmp(addr, mapped, sizeof(mapped));
}

static const char *transport_name(uint8_t proto)
{
	switch (proto) {
	case IPPROTO_ICMP:
		return "icmp";
	case IPPROTO_IGMP:
		return "igmp";
	case IPPROTO_TCP:
		return "tcp";
	case IPPROTO_UDP:
		return "udp";
	case IPPROTO_GRE:
		return "gre";
	case IPPROTO_ESP:
		return "esp";
	case IPPROTO_AH:
		return "ah";
	case IPPROTO_ICMPV6:
		return "ipv6-icmp";
	case IPPROTO_SCTP:
		return "sctp";
	case IPPROTO_UDPLITE:
		return "udplite";
	default:
		return NULL;
	}
}

static bool has_ports(uint8_t proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP;
}

static const char *proof_name(unsigned proof)
{
	static const char *const names[] = {
		[BH_PROOF_NONE] = "none",	  [BH_PROOF_VERIFIED] = "verified",   [BH_PROOF_FORGED] = "forged",
		[BH_PROOF_REPLAYED] = "replayed", [BH_PROOF_MALFORMED] = "malformed", [BH_PROOF_UNASKED] = "unasked",
		[BH_PROOF_STRIPPED] = "stripped",
	};

	return proof < sizeof(names) / sizeof(*names) ? names[proof] : "unknown";
}

static void name_end(struct flow_end *end, const struct audit_names *names, uint32_t identity)
{
	const char *name;
	bool local;

	if (identity == BH_ID_UNIDENTIFIED)
		end->kind = "unidentified";
	else if (identity == BH_ID_HOST)
		end->kind = "host";
	else if (identity == BH_ID_WORLD)
		end->kind = "world";
	else if (!audit_names_identity(names, identity, &name, &local))
		end->kind = "unknown";
	else if (local)
		end->local = name;
	else
		end->spiffe_id = name;
}

/* An event of a packet that could not be parsed has no addresses: all zero. */
static void address_end(struct flow_end *end, const struct bh_addr *addr, uint16_t port, bool ports)
{
	static const struct bh_addr none;

	end->has_ip = memcmp(addr, &none, sizeof(none));
	end->has_port = end->has_ip && ports;
	end->port = port;
	if (!end->has_ip)
		return;
	if (is_mapped(addr))
		inet_ntop(AF_INET, &addr->w[3], end->ip, sizeof(end->ip));
	else
		inet_ntop(AF_INET6, addr, end->ip, sizeof(end->ip));
}

static void flow_resolve(struct flow *flow, struct audit_record *record, const struct audit_names *names)
{
	const struct bh_event *event = flow->event;
	bool egress = event->direction == BH_EGRESS;
	const char *proof;
	size_t len;

	flow->source.key = "source";
	flow->destination.key = "destination";
	flow->subject = egress ? &flow->source : &flow->destination;
	name_end(&flow->source, names, egress ? event->subject : event->peer);
	name_end(&flow->destination, names, egress ? event->peer : event->subject);
	if (event->proof == BH_PROOF_UNASKED)
		*(egress ? &flow->destination : &flow->source) =
			(struct flow_end){.key = egress ? "destination" : "source", .kind = "unknown"};
	flow->transport = transport_name(event->proto);
	flow->icmp = event->proto == IPPROTO_ICMP || event->proto == IPPROTO_ICMPV6;
	/* A source address is not chosen yet when a connect() is refused: the destination tells. */
	flow->ipv4 = is_mapped(&event->dst);
	address_end(&flow->source, &event->src, event->sport, has_ports(event->proto));
	address_end(&flow->destination, &event->dst, event->dport, has_ports(event->proto));
	if (!record->cid || !flow->source.has_ip || !flow->destination.has_ip ||
	    !community_id_format(record->cid, flow->community_id, &event->src, &event->dst, event->proto,
				 flow->icmp ? event->dport : event->sport, event->dport))
		flow->community_id[0] = '\0';
	flow->digest = audit_names_digest(names, event->revision);
	flow->has_rule = audit_names_rule(names, event->revision, event->rule, &flow->rule);
	reason_sentence(flow->reason, sizeof(flow->reason), event->reason, event->verdict, event->rule,
			flow->has_rule ? &flow->rule : NULL);
	proof = event->verdict == BH_VERDICT_ALLOW ? NULL : proof_text(event->proof);
	len = strlen(flow->reason);
	if (proof)
		snprintf(flow->reason + len, sizeof(flow->reason) - len, "; %s", proof);
}

static void put_address(struct json_line *line, const struct flow_end *end)
{
	if (!end->has_ip)
		return;
	json_line_object(line, end->key);
	json_line_string(line, "ip", end->ip);
	if (end->has_port)
		json_line_number(line, "port", end->port);
	json_line_object_end(line);
}

static void put_identity(struct json_line *line, const struct flow_end *end)
{
	json_line_object(line, end->key);
	if (end->spiffe_id)
		json_line_string(line, "spiffe_id", end->spiffe_id);
	else if (end->local)
		json_line_string(line, "local", end->local);
	else
		json_line_string(line, "kind", end->kind);
	json_line_object_end(line);
}

static void put_network(struct json_line *line, const struct flow *flow)
{
	char number[8];

	json_line_object(line, "network");
	if (flow->transport)
		json_line_string(line, "transport", flow->transport);
	snprintf(number, sizeof(number), "%u", flow->event->proto);
	json_line_string(line, "iana_number", number);
	if (flow->source.has_ip || flow->destination.has_ip)
		json_line_string(line, "type", flow->ipv4 ? "ipv4" : "ipv6");
	json_line_string(line, "direction", flow->event->direction == BH_EGRESS ? "egress" : "ingress");
	if (flow->community_id[0])
		json_line_string(line, "community_id", flow->community_id);
	json_line_object_end(line);
}

/* The rule that decided, where one did; the policy that was in force, always. */
static void put_rule(struct json_line *line, const struct flow *flow)
{
	const struct bh_event *event = flow->event;
	char number[16];

	json_line_object(line, "rule");
	if (event->reason == BH_REASON_POLICY || event->rule) {
		snprintf(number, sizeof(number), "%u", event->rule);
		json_line_string(line, "id", number);
		json_line_string(line, "name", flow->has_rule ? flow->rule.name : event->rule ? "?" : "default");
	}
	if (flow->digest)
		json_line_bytes(line, "ruleset", flow->digest, AUDIT_DIGEST_SHORT);
	snprintf(number, sizeof(number), "%u", event->revision);
	json_line_string(line, "version", number);
	json_line_object_end(line);
}

static void put_related(struct json_line *line, const struct flow *flow)
{
	const struct flow_end *source = &flow->source, *destination = &flow->destination;

	if (!source->spiffe_id && !destination->spiffe_id && !source->has_ip && !destination->has_ip)
		return;
	json_line_object(line, "related");
	if (source->spiffe_id || destination->spiffe_id) {
		json_line_array(line, "user");
		if (source->spiffe_id)
			json_line_string(line, NULL, source->spiffe_id);
		if (destination->spiffe_id && destination->spiffe_id != source->spiffe_id)
			json_line_string(line, NULL, destination->spiffe_id);
		json_line_array_end(line);
	}
	if (source->has_ip || destination->has_ip) {
		json_line_array(line, "ip");
		if (source->has_ip)
			json_line_string(line, NULL, source->ip);
		if (destination->has_ip && strcmp(source->ip, destination->ip) != 0)
			json_line_string(line, NULL, destination->ip);
		json_line_array_end(line);
	}
	json_line_object_end(line);
}

static void put_flow_zt(struct audit_record *record, struct json_line *line, const struct flow *flow)
{
	const struct bh_event *event = flow->event;
	char text[AUDIT_TIME_SIZE];

	json_line_object(line, "zt");
	put_identity(line, &flow->source);
	put_identity(line, &flow->destination);
	json_line_string(line, "proof", proof_name(event->proof));
	json_line_bool(line, "again", event->again);
	json_line_number(line, "count", event->count);
	if (event->count > 1)
		json_line_string(line, "first", audit_time_text(record, text, flow->first_ns));
	if (flow->has_rule && flow->rule.file && (event->reason == BH_REASON_POLICY || event->rule)) {
		json_line_object(line, "rule");
		json_line_string(line, "file", flow->rule.file);
		json_line_number(line, "line", flow->rule.line);
		json_line_object_end(line);
	}
	if (flow->icmp) {
		json_line_object(line, "icmp");
		json_line_number(line, "type", event->dport);
		json_line_object_end(line);
	}
	audit_put_carrier(line, event->cgroup, flow->cgroup_path);
	if (event->cookie && !(event->cookie & BH_DEVICE_BIT))
		json_line_number(line, "socket_cookie", event->cookie);
}

static size_t put_flow(struct audit_record *record, struct json_line *line, const struct flow *flow)
{
	static const struct audit_classing allowed = {
		"flow-allowed", "bulkhead.flow", "network", {"connection", "allowed"}, "success", SEVERITY_INFO, NULL,
	};
	static const struct audit_classing denied = {
		"flow-denied", "bulkhead.flow", "network", {"connection", "denied"}, "success", SEVERITY_WARNING, NULL,
	};
	static const struct audit_classing would_deny = {
		"flow-would-deny", "bulkhead.flow",  "network", {"connection", "allowed"},
		"success",	   SEVERITY_WARNING, NULL,
	};
	const struct bh_event *event = flow->event;
	struct audit_stamp stamp = {flow->time_ns, flow->sequence};
	char text[AUDIT_TIME_SIZE];

	audit_line_head(record, line, &stamp,
			event->verdict == BH_VERDICT_WOULD_DENY ? &would_deny
			: event->verdict			? &allowed
								: &denied);
	json_line_string(line, "kind", "event");
	json_line_string(line, "code", reason_code(event->reason, event->verdict, event->rule));
	json_line_string(line, "reason", flow->reason);
	if (event->count > 1) {
		json_line_string(line, "start", audit_time_text(record, text, flow->first_ns));
		json_line_string(line, "end", audit_time_text(record, text, flow->time_ns));
	}
	json_line_object_end(line);
	put_address(line, &flow->source);
	put_address(line, &flow->destination);
	put_network(line, flow);
	put_rule(line, flow);
	if (event->pid) {
		json_line_object(line, "process");
		json_line_number(line, "pid", event->pid);
		if (event->comm[0])
			json_line_bytes(line, "name", event->comm, sizeof(event->comm));
		json_line_object_end(line);
	}
	if (flow->subject->spiffe_id) {
		json_line_object(line, "user");
		json_line_string(line, "id", flow->subject->spiffe_id);
		json_line_object_end(line);
	}
	put_related(line, flow);
	put_flow_zt(record, line, flow);
	return audit_line_tail(line);
}

size_t audit_record_flow(struct audit_record *record, char *out, const struct bh_event *event,
			 const struct audit_names *names, const char *cgroup_path, uint64_t boot_to_real_ns,
			 uint64_t sequence)
{
	struct flow flow = {
		.event = event,
		.cgroup_path = cgroup_path,
		.time_ns = event->time_ns + boot_to_real_ns,
		.first_ns = (event->first_ns ? event->first_ns : event->time_ns) + boot_to_real_ns,
		.sequence = sequence,
	};
	struct json_line line;
	size_t len = 0;

	flow_resolve(&flow, record, names);
	for (size_t i = 0; !len && i < AUDIT_STRING_LIMITS; i++) {
		json_line_begin(&line, out, AUDIT_LINE_MAX, audit_string_limits[i]);
		len = put_flow(record, &line, &flow);
	}
	return len;
}
