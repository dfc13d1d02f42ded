/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>

#include "audit_json.h"
#include "daemon/audit_record.h"
#include "daemon/reasons.h"
#include "identity/attest.h"

#define WEB "spiffe://prod.example/ns/shop/sa/web"
#define DB "spiffe://prod.example/ns/shop/sa/postgres"
#define DIGEST "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define T0 1795248000000000000ULL /* 2026-11-21T08:00:00Z */

static const struct auditor_config config = {
	.epoch = 7,
	.host_id = "deadbeef",
	.host_name = "host1.example",
	.instance = "main",
	.subtree = "/workloads",
	.version = "0.1.0",
};

struct fixture {
	struct audit_record *record;
	struct audit_names *names;
	json_t *root;
	size_t len;
	char line[AUDIT_LINE_MAX];
};

static int set_up(void **state)
{
	static const struct policy_rule_name rules[] = {
		{"default", NULL, 0, NULL}, {"web-to-db", "shop.yaml", 12, "app"}, {"no-ssh", "shop.yaml", 20, "app"}};
	struct fixture *f = calloc(1, sizeof(*f));

	assert_int_equal(audit_record_new(&f->record, &config), 0);
	assert_int_equal(audit_names_new(&f->names), 0);
	assert_int_equal(audit_names_set_identity(f->names, 16, false, WEB), 0);
	assert_int_equal(audit_names_set_identity(f->names, 17, false, DB), 0);
	assert_int_equal(audit_names_set_identity(f->names, 18, true, "backup"), 0);
	assert_int_equal(audit_names_set_rules(f->names, 3, DIGEST, rules, 3), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	json_decref(f->root);
	audit_record_freep(&f->record);
	audit_names_freep(&f->names);
	free(f);
	return 0;
}

static struct bh_event tcp_event(void)
{
	return (struct bh_event){
		.time_ns = 5000000123ULL,
		.first_ns = 5000000123ULL,
		.cgroup = 4242,
		.cookie = 99,
		.subject = 16,
		.peer = 17,
		.revision = 3,
		.rule = 1,
		.count = 1,
		.pid = 1234,
		.src = addr("128.232.110.120"),
		.dst = addr("66.35.250.204"),
		.sport = 34855,
		.dport = 80,
		.proto = IPPROTO_TCP,
		.direction = BH_EGRESS,
		.verdict = 1,
		.proof = BH_PROOF_VERIFIED,
		.comm = "psql",
	};
}

static json_t *flow(struct fixture *f, const struct bh_event *event)
{
	f->len = audit_record_flow(f->record, f->line, event, f->names, "/shop/web", T0, 41);
	json_decref(f->root);
	f->root = NULL;
	f->root = audit_parse(f->line, f->len);
	return f->root;
}

static json_t *notice(struct fixture *f, const struct ipc_notice *n)
{
	struct audit_stamp stamp = {T0 + 5, 42};

	f->len = audit_record_notice(f->record, f->line, n, &stamp);
	json_decref(f->root);
	f->root = NULL;
	f->root = audit_parse(f->line, f->len);
	return f->root;
}

/* ---- flows ---- */

static void an_allowed_flow_names_both_ends_and_the_rule(void **state)
{
	struct bh_event event = tcp_event();
	json_t *r = flow(*state, &event);

	assert_text(r, "@timestamp", "2026-11-21T08:00:05.000000123Z");
	assert_text(r, "ecs.version", "8.11.0");
	assert_text(r, "event.id", "deadbeef-7-41");
	assert_number(r, "event.sequence", 41);
	assert_text(r, "event.kind", "event");
	assert_text(r, "event.category.0", "network");
	assert_text(r, "event.type.0", "connection");
	assert_text(r, "event.type.1", "allowed");
	assert_text(r, "event.action", "flow-allowed");
	assert_text(r, "event.outcome", "success");
	assert_text(r, "event.code", "POLICY_ALLOW");
	assert_text(r, "event.reason", "rule \"web-to-db\" (shop.yaml:12) allows");
	assert_text(r, "event.module", "bulkhead");
	assert_text(r, "event.dataset", "bulkhead.flow");
	assert_text(r, "event.provider", "bulkheadd");
	assert_number(r, "event.severity", 6);
	assert_text(r, "log.level", "info");
	assert_text(r, "observer.version", "0.1.0");
	assert_text(r, "observer.type", "firewall");
	assert_text(r, "host.id", "deadbeef");
	assert_text(r, "host.name", "host1.example");
	assert_text(r, "source.ip", "128.232.110.120");
	assert_number(r, "source.port", 34855);
	assert_text(r, "destination.ip", "66.35.250.204");
	assert_number(r, "destination.port", 80);
	assert_text(r, "network.transport", "tcp");
	assert_text(r, "network.iana_number", "6");
	assert_text(r, "network.type", "ipv4");
	assert_text(r, "network.direction", "egress");
	assert_text(r, "network.community_id", "1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
	assert_text(r, "rule.id", "1");
	assert_text(r, "rule.name", "web-to-db");
	assert_text(r, "rule.ruleset", "0123456789abcdef");
	assert_text(r, "rule.version", "3");
	assert_text(r, "zt.source.spiffe_id", WEB);
	assert_text(r, "zt.destination.spiffe_id", DB);
	assert_text(r, "zt.rule.file", "shop.yaml");
	assert_number(r, "zt.rule.line", 12);
	assert_number(r, "zt.cgroup.id", 4242);
	assert_text(r, "zt.cgroup.path", "/shop/web");
	assert_number(r, "zt.count", 1);
	assert_text(r, "zt.proof", "verified");
	assert_true(json_is_false(audit_get(r, "zt.again")));
	assert_number(r, "process.pid", 1234);
	assert_text(r, "process.name", "psql");
	assert_text(r, "user.id", WEB);
	assert_text(r, "related.user.0", WEB);
	assert_text(r, "related.user.1", DB);
	assert_text(r, "related.ip.1", "66.35.250.204");
	assert_absent(r, "zt.first");
	assert_absent(r, "event.start");
	assert_absent(r, "zt.shortened");
}

static void a_deny_in_audit_mode_is_logged_as_would_deny(void **state)
{
	struct bh_event event = tcp_event();
	json_t *r;

	event.verdict = BH_VERDICT_WOULD_DENY;
	r = flow(*state, &event);
	assert_text(r, "event.action", "flow-would-deny");
	assert_text(r, "event.type.1", "allowed");
	assert_text(r, "event.code", "POLICY_WOULD_DENY");
	assert_text(r, "log.level", "warning");
}

static void an_ingress_denial_has_the_destination_as_subject(void **state)
{
	struct bh_event event = tcp_event();
	json_t *r;

	event.direction = BH_INGRESS;
	event.subject = 17;
	event.peer = BH_ID_WORLD;
	event.rule = 0;
	event.verdict = 0;
	event.proof = BH_PROOF_FORGED;
	event.count = 250;
	event.first_ns = 4000000000ULL;
	event.pid = 0;
	r = flow(*state, &event);
	assert_text(r, "event.action", "flow-denied");
	assert_text(r, "event.type.1", "denied");
	assert_text(r, "event.outcome", "success");
	assert_text(r, "event.code", "DEFAULT_DENY");
	assert_text(r, "event.reason",
		    "no rule matched, the default denies; the peer showed an identity that this host did not sign, or "
		    "signed too long ago");
	assert_number(r, "event.severity", 4);
	assert_text(r, "log.level", "warning");
	assert_text(r, "event.start", "2026-11-21T08:00:04.000000000Z");
	assert_text(r, "event.end", "2026-11-21T08:00:05.000000123Z");
	assert_text(r, "zt.first", "2026-11-21T08:00:04.000000000Z");
	assert_number(r, "zt.count", 250);
	assert_text(r, "zt.proof", "forged");
	assert_text(r, "zt.source.kind", "world");
	assert_absent(r, "zt.source.spiffe_id");
	assert_text(r, "zt.destination.spiffe_id", DB);
	assert_text(r, "user.id", DB);
	assert_text(r, "network.direction", "ingress");
	assert_text(r, "rule.id", "0");
	assert_text(r, "rule.name", "default");
	assert_absent(r, "zt.rule");
	assert_absent(r, "process");
}

static void reserved_local_and_unknown_identities_are_no_spiffe_ids(void **state)
{
	static const struct {
		uint32_t identity;
		const char *path, *text;
	} cases[] = {
		{BH_ID_UNIDENTIFIED, "zt.source.kind", "unidentified"},
		{BH_ID_HOST, "zt.source.kind", "host"},
		{BH_ID_WORLD, "zt.source.kind", "world"},
		{18, "zt.source.local", "backup"},
		{19, "zt.source.kind", "unknown"},
		{UINT32_MAX, "zt.source.kind", "unknown"},
	};
	struct bh_event event = tcp_event();
	json_t *r;

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		event.subject = cases[i].identity;
		r = flow(*state, &event);
		assert_text(r, cases[i].path, cases[i].text);
		assert_absent(r, "zt.source.spiffe_id");
		assert_absent(r, "user");
	}
}

static void icmp_has_a_type_and_no_ports(void **state)
{
	struct bh_event event = tcp_event();
	json_t *r;

	event.src = addr("2001:db8::1");
	event.dst = addr("2001:db8::2");
	event.proto = IPPROTO_ICMPV6;
	event.sport = 77;
	event.dport = 128;
	r = flow(*state, &event);
	assert_text(r, "network.transport", "ipv6-icmp");
	assert_text(r, "network.type", "ipv6");
	assert_text(r, "source.ip", "2001:db8::1");
	assert_number(r, "zt.icmp.type", 128);
	assert_absent(r, "source.port");
	assert_absent(r, "destination.port");
}

static void a_packet_without_addresses_makes_a_line_without_them(void **state)
{
	struct bh_event event = {
		.reason = BH_REASON_PARSE, .count = 1, .proto = 253, .subject = 16, .peer = BH_ID_WORLD};
	json_t *r = flow(*state, &event);

	assert_text(r, "event.code", "PARSE");
	assert_text(r, "network.iana_number", "253");
	assert_absent(r, "network.transport");
	assert_absent(r, "network.community_id");
	assert_absent(r, "source");
	assert_absent(r, "destination");
	assert_absent(r, "rule.name");
	assert_absent(r, "related.ip");
}

static void a_rule_of_a_forgotten_revision_keeps_its_number(void **state)
{
	struct bh_event event = tcp_event();
	json_t *r;

	event.revision = 2;
	event.rule = 17;
	r = flow(*state, &event);
	assert_text(r, "rule.id", "17");
	assert_text(r, "rule.name", "?");
	assert_text(r, "rule.version", "2");
	assert_text(r, "event.reason", "rule number 17 allows");
	assert_absent(r, "rule.ruleset");
	assert_absent(r, "zt.rule");
}

static void every_number_an_event_can_hold_makes_a_valid_line(void **state)
{
	struct bh_event event = tcp_event();

	for (unsigned i = 0; i < 256; i++) {
		event.proto = event.reason = event.proof = event.verdict = event.direction = event.again = (uint8_t)i;
		event.subject = event.peer = event.rule = event.revision = event.count = i * 0x01010101U;
		event.time_ns = event.first_ns = event.cgroup = event.cookie = i * 0x0101010101010101ULL;
		memset(event.comm, (int)i, sizeof(event.comm));
		flow(*state, &event);
	}
}

/* ---- hostile strings ---- */

static void hostile_names_make_one_valid_line(void **state)
{
	struct fixture *f = *state;
	struct bh_event event = tcp_event();
	struct policy_rule_name rules[] = {
		{"default", NULL, 0, NULL},
		{"a\"},\"x\":{\"\\\n\r\t\x1b[2J\xff\xc0\xaf", "\xed\xa0\x80\xe2\x80\xa8", 1, NULL}};
	json_t *r;

	assert_int_equal(audit_names_set_identity(f->names, 16, false, "spiffe://a/\x01\x7f\xc2\x9b\xf5\x80\xe2\x82"),
			 0);
	assert_int_equal(audit_names_set_rules(f->names, 3, DIGEST, rules, 2), 0);
	memcpy(event.comm, "\xff\"\\\n0123456789ab", 16);
	r = flow(f, &event);
	assert_text(r, "rule.name", "a\"},\"x\":{\"\\\n\r\t\x1b[2J\ufffd\ufffd\ufffd");
	assert_text(r, "zt.rule.file", "\ufffd\ufffd\ufffd\u2028");
	assert_text(r, "zt.source.spiffe_id", "spiffe://a/\x01\x7f\xc2\x9b\ufffd\ufffd\ufffd\ufffd");
	assert_text(r, "process.name", "\ufffd\"\\\n0123456789ab");
	/* Nothing in the raw line moves a terminal's cursor. */
	for (size_t i = 0; i < f->len - 1; i++)
		assert_true((unsigned char)f->line[i] >= 0x20 && f->line[i] != 0x7f &&
			    memcmp(f->line + i, "\xc2\x9b", 2) != 0);
}

static void random_bytes_make_valid_lines(void **state)
{
	struct fixture *f = *state;
	struct bh_event event = tcp_event();
	char name[300];

	srand(1);
	for (int round = 0; round < 20000; round++) {
		size_t len = (size_t)rand() % sizeof(name);

		for (size_t i = 0; i < len; i++)
			name[i] = (char)(rand() % 4 ? 0x80 + rand() % 0x80 : 1 + rand() % 255);
		name[len] = '\0';
		assert_int_equal(audit_names_set_identity(f->names, 16, rand() % 2, name), 0);
		flow(f, &event);
	}
}

static void the_longest_strings_still_fit_the_line(void **state)
{
	struct fixture *f = *state;
	struct bh_event event = tcp_event();
	struct ipc_notice n = {.kind = NOTICE_IDENTITY_REFUSED, .cgroup_id = UINT64_MAX, .code = ATTEST_E_BINDING};
	char name[2049], file[4096];
	struct policy_rule_name rules[] = {{"default", NULL, 0, NULL}, {file, file, UINT32_MAX, NULL}};
	json_t *r;

	memset(name, 1, sizeof(name) - 1); /* each takes six bytes */
	name[sizeof(name) - 1] = '\0';
	memset(file, 0xff, sizeof(file) - 1);
	file[sizeof(file) - 1] = '\0';
	audit_names_set_identity(f->names, 16, false, name);
	audit_names_set_identity(f->names, 17, false, name);
	audit_names_set_rules(f->names, 3, DIGEST, rules, 2);
	r = flow(f, &event);
	assert_true(json_is_true(audit_get(r, "zt.shortened")));

	memset(n.spiffe_id, 1, sizeof(n.spiffe_id) - 1);
	memcpy(n.spiffe_id, "spiffe://", 9);
	memset(n.cgroup_path, 1, sizeof(n.cgroup_path) - 1);
	memset(n.serial, 1, sizeof(n.serial) - 1);
	memset(n.issuer, 1, sizeof(n.issuer) - 1);
	memset(n.digest, 1, sizeof(n.digest) - 1);
	memset(n.text, 1, sizeof(n.text) - 1);
	memset(n.leaf_sha256, 1, sizeof(n.leaf_sha256));
	for (unsigned kind = 0; kind < 32; kind++) {
		n.kind = kind;
		notice(f, &n);
	}
}

static void the_longest_lawful_ids_are_not_cut(void **state)
{
	struct fixture *f = *state;
	struct bh_event event = tcp_event();
	char name[2049];
	json_t *r;

	memset(name, 'a', sizeof(name) - 1);
	memcpy(name, "spiffe://", 9);
	name[sizeof(name) - 1] = '\0';
	audit_names_set_identity(f->names, 16, false, name);
	name[2047] = 'b';
	audit_names_set_identity(f->names, 17, false, name);
	r = flow(f, &event);
	assert_text(r, "zt.destination.spiffe_id", name);
	assert_absent(r, "zt.shortened");
}

/* ---- notices ---- */

static struct ipc_notice identity_notice(unsigned kind)
{
	struct ipc_notice n = {
		.kind = kind,
		.cgroup_id = 4242,
		.not_before = 1795248000,
		.not_after = 1795251600,
		.identity = 16,
		.pid = 77,
		.uid = 1000,
		.spiffe_id = WEB,
		.cgroup_path = "/shop/web",
		.serial = "0a:ff",
		.issuer = "CN=Test \"CA\"",
	};

	memset(n.leaf_sha256, 0xab, sizeof(n.leaf_sha256));
	return n;
}

static void an_attested_identity_comes_with_its_certificate(void **state)
{
	struct ipc_notice n = identity_notice(NOTICE_IDENTITY_ATTESTED);
	json_t *r = notice(*state, &n);

	assert_text(r, "@timestamp", "2026-11-21T08:00:00.000000005Z");
	assert_text(r, "event.id", "deadbeef-7-42");
	assert_text(r, "event.action", "identity-attested");
	assert_text(r, "event.kind", "event");
	assert_text(r, "event.category.0", "authentication");
	assert_text(r, "event.type.0", "start");
	assert_text(r, "event.outcome", "success");
	assert_text(r, "event.dataset", "bulkhead.identity");
	assert_text(r, "user.id", WEB);
	assert_text(r, "user.name", "web");
	assert_text(r, "user.domain", "prod.example");
	assert_text(r, "related.user.0", WEB);
	assert_number(r, "process.pid", 77);
	assert_text(r, "zt.identity.spiffe_id", WEB);
	assert_number(r, "zt.identity.number", 16);
	assert_number(r, "zt.cgroup.id", 4242);
	assert_text(r, "zt.cgroup.path", "/shop/web");
	assert_text(r, "tls.client.x509.serial_number", "0AFF");
	assert_text(r, "tls.client.x509.issuer.distinguished_name", "CN=Test \"CA\"");
	assert_text(r, "tls.client.x509.not_before", "2026-11-21T08:00:00Z");
	assert_text(r, "tls.client.x509.not_after", "2026-11-21T09:00:00Z");
	assert_text(r, "tls.client.x509.alternative_names.0", WEB);
	assert_text(r, "tls.client.hash.sha256", "ABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABAB");
}

static void a_refusal_names_code_sentence_and_broken_rule(void **state)
{
	struct ipc_notice n = identity_notice(NOTICE_IDENTITY_REFUSED);
	json_t *r;

	n.code = ATTEST_E_BINDING;
	snprintf(n.text, sizeof(n.text), "identity \"web\" is bound to /shop/web");
	r = notice(*state, &n);
	assert_text(r, "event.action", "identity-refused");
	assert_text(r, "event.outcome", "failure");
	assert_text(r, "event.code", attest_code_name(ATTEST_E_BINDING));
	assert_text(r, "event.reason", "identity \"web\" is bound to /shop/web");
	/* Shown from elsewhere: an alarm. A broken rule is more likely a mistake. */
	assert_text(r, "event.kind", "alert");
	assert_text(r, "log.level", "critical");
	assert_absent(r, "zt.svid");

	n.code = ATTEST_E_SVID + 29;
	n.spiffe_id[0] = '\0';
	r = notice(*state, &n);
	assert_number(r, "zt.svid.rule", 29);
	assert_text(r, "event.kind", "event");
	assert_text(r, "log.level", "error");
	assert_text(r, "zt.svid.rule_name", attest_code_name(ATTEST_E_SVID + 29));
	assert_absent(r, "zt.identity.spiffe_id");
	assert_text(r, "user.id", "1000");
}

static void each_notice_has_its_classing(void **state)
{
	static const struct {
		unsigned kind;
		const char *action, *dataset, *category, *type, *outcome;
	} cases[] = {
		{NOTICE_IDENTITY_ATTESTED, "identity-attested", "bulkhead.identity", "authentication", "start",
		 "success"},
		{NOTICE_IDENTITY_RENEWED, "identity-renewed", "bulkhead.identity", "authentication", "info", "success"},
		{NOTICE_IDENTITY_REFUSED, "identity-refused", "bulkhead.identity", "authentication", "start",
		 "failure"},
		{NOTICE_IDENTITY_EXPIRED, "identity-expired", "bulkhead.identity", "iam", "change", "success"},
		{NOTICE_IDENTITY_REVOKED, "identity-revoked", "bulkhead.identity", "iam", "change", "success"},
		{NOTICE_IDENTITY_REMOVED, "identity-removed", "bulkhead.identity", "iam", "change", "success"},
		{NOTICE_IDENTITY_LOCAL, "identity-local", "bulkhead.identity", "iam", "change", "success"},
		{NOTICE_POLICY_APPLIED, "policy-applied", "bulkhead.policy", "configuration", "change", "success"},
		{NOTICE_POLICY_REFUSED, "policy-refused", "bulkhead.policy", "configuration", "change", "failure"},
		{NOTICE_BUNDLE_LOADED, "bundle-loaded", "bulkhead.identity", "configuration", "change", "success"},
		{NOTICE_BUNDLE_REFUSED, "bundle-refused", "bulkhead.identity", "configuration", "change", "failure"},
		{NOTICE_DAEMON_STARTED, "daemon-started", "bulkhead.daemon", "process", "start", "success"},
		{NOTICE_DAEMON_STOPPED, "daemon-stopped", "bulkhead.daemon", "process", "end", "success"},
		{NOTICE_ROLE_RESTARTED, "role-restarted", "bulkhead.daemon", "process", "change", "success"},
		{NOTICE_SOCKETS_CUT, "sockets-cut", "bulkhead.policy", "network", "connection", "success"},
		{NOTICE_ENFORCEMENT_LOST, "enforcement-lost", "bulkhead.daemon", "host", "change", "failure"},
		{NOTICE_ENFORCEMENT_RESTORED, "enforcement-restored", "bulkhead.daemon", "host", "change", "success"},
		{NOTICE_POLICY_CONFIRMED, "policy-confirmed", "bulkhead.policy", "configuration", "change", "success"},
		{NOTICE_POLICY_ROLLED_BACK, "policy-rolled-back", "bulkhead.policy", "configuration", "change",
		 "success"},
		{NOTICE_POLICY_REVERTED, "policy-not-confirmed", "bulkhead.policy", "configuration", "change",
		 "success"},
		{NOTICE_KEY_ROTATED, "key-rotated", "bulkhead.identity", "configuration", "change", "success"},
		{NOTICE_BUNDLE_REMOVED, "bundle-removed", "bulkhead.identity", "configuration", "deletion", "success"},
		{NOTICE_IDENTITY_ENDING, "identity-ending", "bulkhead.identity", "iam", "info", "unknown"},
		{NOTICE_IDENTITY_SHARED, "identity-shared", "bulkhead.identity", "iam", "info", "success"},
	};
	struct ipc_notice n = {0};
	json_t *r;

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		n.kind = cases[i].kind;
		r = notice(*state, &n);
		assert_string_equal(audit_notice_action(n.kind), cases[i].action);
		assert_text(r, "event.action", cases[i].action);
		assert_text(r, "event.dataset", cases[i].dataset);
		assert_text(r, "event.category.0", cases[i].category);
		assert_text(r, "event.type.0", cases[i].type);
		assert_text(r, "event.outcome", cases[i].outcome);
		assert_true(strlen(json_string_value(audit_get(r, "event.reason"))) > 10);
	}
	assert_int_equal(sizeof(cases) / sizeof(*cases), NOTICE_IDENTITY_SHARED);
	assert_null(audit_notice_action(0));
	assert_null(audit_notice_action(NOTICE_IDENTITY_SHARED + 1));
}

static void an_applied_policy_names_revision_digest_and_operator(void **state)
{
	struct ipc_notice n = {.kind = NOTICE_POLICY_APPLIED,
			       .revision = 4,
			       .previous_revision = 3,
			       .uid = 0,
			       .pid = 55,
			       .digest = DIGEST,
			       .text = "open port 5432"};
	json_t *r = notice(*state, &n);

	assert_text(r, "rule.version", "4");
	assert_text(r, "rule.ruleset", "0123456789abcdef");
	assert_text(r, "zt.policy.digest", DIGEST);
	assert_number(r, "zt.policy.revision", 4);
	assert_number(r, "zt.policy.previous_revision", 3);
	assert_text(r, "user.id", "0");
	assert_text(r, "event.reason", "open port 5432");
	assert_absent(r, "zt.cgroup");
	assert_absent(r, "zt.policy.confirm_by");
	assert_absent(r, "zt.operator");
}

static void an_operator_is_told_by_login_way_and_connection(void **state)
{
	struct ipc_notice n = {.kind = NOTICE_POLICY_ROLLED_BACK,
			       .revision = 5,
			       .previous_revision = 4,
			       .login_uid = 1000,
			       .not_after = 1795248060,
			       .via = "policyctl < sudo < bash < sshd",
			       .from = "192.0.2.7:51022"};
	json_t *r = notice(*state, &n);

	assert_text(r, "user.id", "0");
	assert_number(r, "zt.operator.login_uid", 1000);
	assert_text(r, "zt.operator.via", "policyctl < sudo < bash < sshd");
	assert_text(r, "zt.operator.from", "192.0.2.7:51022");
	assert_text(r, "zt.policy.confirm_by", "2026-11-21T08:01:00Z");
	n.login_uid = UINT32_MAX;
	n.from[0] = '\0';
	r = notice(*state, &n);
	assert_absent(r, "zt.operator.login_uid");
	assert_absent(r, "zt.operator.from");
	n = (struct ipc_notice){.kind = NOTICE_POLICY_REVERTED, .revision = 6, .previous_revision = 5};
	r = notice(*state, &n);
	assert_absent(r, "user"); /* nobody did it */
	assert_absent(r, "zt.operator");
}

static void bundles_sockets_and_the_daemon_have_their_fields(void **state)
{
	struct ipc_notice n = {.kind = NOTICE_BUNDLE_LOADED, .count = 2, .spiffe_id = "prod.example"};
	json_t *r = notice(*state, &n);

	assert_text(r, "zt.bundle.trust_domain", "prod.example");
	assert_number(r, "zt.bundle.authorities", 2);
	n = (struct ipc_notice){.kind = NOTICE_SOCKETS_CUT, .count = 3, .text = "policy changed"};
	r = notice(*state, &n);
	assert_number(r, "zt.count", 3);
	n = (struct ipc_notice){.kind = NOTICE_DAEMON_STARTED, .pid = 9, .text = "adopted"};
	r = notice(*state, &n);
	assert_text(r, "zt.subtree", "/workloads");
	n = (struct ipc_notice){.kind = NOTICE_IDENTITY_LOCAL, .identity = 18, .spiffe_id = "backup", .cgroup_id = 1};
	r = notice(*state, &n);
	assert_text(r, "zt.identity.local", "backup");
	assert_absent(r, "user");
	assert_absent(r, "tls");
}

static void a_loss_is_a_metric_with_stage_and_sum(void **state)
{
	static const char *const stages[] = {"kernel-ring", "daemon", "log-file", "before-start"};
	struct fixture *f = *state;
	struct audit_stamp stamp = {T0, 43};

	for (unsigned i = 0; i < AUDIT_LOSS_STAGES; i++) {
		f->len = audit_record_lost(f->record, f->line, "flow", i, 12, 34, &stamp);
		json_decref(f->root);
		f->root = NULL;
		f->root = audit_parse(f->line, f->len);
		assert_text(f->root, "event.kind", "metric");
		assert_text(f->root, "event.action", "events-lost");
		assert_text(f->root, "zt.lost.stage", stages[i]);
		assert_text(f->root, "zt.lost.what", "flow");
		assert_number(f->root, "zt.lost.count", 12);
		assert_number(f->root, "zt.lost.total", 34);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_allowed_flow_names_both_ends_and_the_rule),
		TEST(a_deny_in_audit_mode_is_logged_as_would_deny),
		TEST(an_ingress_denial_has_the_destination_as_subject),
		TEST(reserved_local_and_unknown_identities_are_no_spiffe_ids),
		TEST(icmp_has_a_type_and_no_ports),
		TEST(a_packet_without_addresses_makes_a_line_without_them),
		TEST(a_rule_of_a_forgotten_revision_keeps_its_number),
		TEST(every_number_an_event_can_hold_makes_a_valid_line),
		TEST(hostile_names_make_one_valid_line),
		TEST(random_bytes_make_valid_lines),
		TEST(the_longest_strings_still_fit_the_line),
		TEST(the_longest_lawful_ids_are_not_cut),
		TEST(an_attested_identity_comes_with_its_certificate),
		TEST(a_refusal_names_code_sentence_and_broken_rule),
		TEST(each_notice_has_its_classing),
		TEST(an_applied_policy_names_revision_digest_and_operator),
		TEST(an_operator_is_told_by_login_way_and_connection),
		TEST(bundles_sockets_and_the_daemon_have_their_fields),
		TEST(a_loss_is_a_metric_with_stage_and_sum),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
