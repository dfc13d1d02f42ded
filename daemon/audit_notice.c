/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of what the daemon itself reports: identities, policies, bundles, its own life, and losses. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "audit_line.h"
#include "identity/attest.h"

/* Index: enum notice_kind. */
static const struct audit_classing notices[] = {
	[NOTICE_IDENTITY_ATTESTED] = {"identity-attested",
				      "bulkhead.identity",
				      "authentication",
				      {"start"},
				      "success",
				      SEVERITY_INFO,
				      "the workload proved its SVID and now carries its identity"},
	[NOTICE_IDENTITY_RENEWED] = {"identity-renewed",
				     "bulkhead.identity",
				     "authentication",
				     {"info"},
				     "success",
				     SEVERITY_INFO,
				     "the workload proved a renewed SVID of the identity it carries"},
	[NOTICE_IDENTITY_REFUSED] = {"identity-refused",
				     "bulkhead.identity",
				     "authentication",
				     {"start"},
				     "failure",
				     SEVERITY_ERROR,
				     "the SVID or its proof was refused"},
	[NOTICE_IDENTITY_EXPIRED] = {"identity-expired",
				     "bulkhead.identity",
				     "iam",
				     {"change"},
				     "success",
				     SEVERITY_WARNING,
				     "the identity's certificates expired and no renewed SVID came"},
	[NOTICE_IDENTITY_REVOKED] = {"identity-revoked",
				     "bulkhead.identity",
				     "iam",
				     {"change", "deletion"},
				     "success",
				     SEVERITY_NOTICE,
				     "an operator took the identity away"},
	[NOTICE_IDENTITY_REMOVED] = {"identity-removed",
				     "bulkhead.identity",
				     "iam",
				     {"change", "deletion"},
				     "success",
				     SEVERITY_INFO,
				     "the cgroup that carried the identity is gone"},
	[NOTICE_IDENTITY_LOCAL] = {"identity-local",
				   "bulkhead.identity",
				   "iam",
				   {"change", "creation"},
				   "success",
				   SEVERITY_INFO,
				   "the policy gives the cgroup a local identity"},
	[NOTICE_POLICY_APPLIED] = {"policy-applied",
				   "bulkhead.policy",
				   "configuration",
				   {"change"},
				   "success",
				   SEVERITY_NOTICE,
				   "the policy is in force"},
	[NOTICE_POLICY_REFUSED] = {"policy-refused",
				   "bulkhead.policy",
				   "configuration",
				   {"change"},
				   "failure",
				   SEVERITY_WARNING,
				   "the policy was refused, the one in force stays"},
	[NOTICE_POLICY_CONFIRMED] = {"policy-confirmed",
				     "bulkhead.policy",
				     "configuration",
				     {"change"},
				     "success",
				     SEVERITY_NOTICE,
				     "the policy on trial was confirmed and stays"},
	[NOTICE_POLICY_ROLLED_BACK] = {"policy-rolled-back",
				       "bulkhead.policy",
				       "configuration",
				       {"change"},
				       "success",
				       SEVERITY_NOTICE,
				       "an earlier policy is in force again"},
	[NOTICE_POLICY_REVERTED] = {"policy-not-confirmed",
				    "bulkhead.policy",
				    "configuration",
				    {"change"},
				    "success",
				    SEVERITY_WARNING,
				    "nobody confirmed the policy in time, the one before it is in force again"},
	[NOTICE_BUNDLE_LOADED] = {"bundle-loaded",
				  "bulkhead.identity",
				  "configuration",
				  {"change"},
				  "success",
				  SEVERITY_NOTICE,
				  "the trust bundle is in use"},
	[NOTICE_BUNDLE_REFUSED] = {"bundle-refused",
				   "bulkhead.identity",
				   "configuration",
				   {"change"},
				   "failure",
				   SEVERITY_ERROR,
				   "the trust bundle was refused, the former one stays"},
	[NOTICE_BUNDLE_REMOVED] = {"bundle-removed",
				   "bulkhead.identity",
				   "configuration",
				   {"deletion"},
				   "success",
				   SEVERITY_NOTICE,
				   "the trust bundle is gone, nobody of its trust domain is verified any more"},
	[NOTICE_IDENTITY_ENDING] = {"identity-ending",
				    "bulkhead.identity",
				    "iam",
				    {"info"},
				    "unknown",
				    SEVERITY_WARNING,
				    "the identity ends soon, and nobody has proved a renewed SVID yet"},
	[NOTICE_IDENTITY_SHARED] = {"identity-shared",
				    "bulkhead.identity",
				    "iam",
				    {"info"},
				    "success",
				    SEVERITY_NOTICE,
				    "the same SVID is in force in another place too"},
	[NOTICE_KEY_ROTATED] = {"key-rotated",
				"bulkhead.identity",
				"configuration",
				{"change"},
				"success",
				SEVERITY_INFO,
				"identities in handshakes are signed by a new key"},
	[NOTICE_DAEMON_STARTED] = {"daemon-started",
				   "bulkhead.daemon",
				   "process",
				   {"start"},
				   "success",
				   SEVERITY_NOTICE,
				   "the daemon started"},
	[NOTICE_DAEMON_STOPPED] = {"daemon-stopped",
				   "bulkhead.daemon",
				   "process",
				   {"end"},
				   "success",
				   SEVERITY_NOTICE,
				   "the daemon stopped, what is in the kernel goes on enforcing"},
	[NOTICE_ROLE_RESTARTED] = {"role-restarted",
				   "bulkhead.daemon",
				   "process",
				   {"change"},
				   "success",
				   SEVERITY_ERROR,
				   "a role of the daemon ended and was started again"},
	[NOTICE_SOCKETS_CUT] = {"sockets-cut",
				"bulkhead.policy",
				"network",
				{"connection", "end"},
				"success",
				SEVERITY_NOTICE,
				"sockets whose flow is no longer allowed were destroyed"},
	[NOTICE_ENFORCEMENT_LOST] = {"enforcement-lost",
				     "bulkhead.daemon",
				     "host",
				     {"change"},
				     "failure",
				     SEVERITY_CRITICAL,
				     "the kernel no longer enforces on the managed subtree"},
	[NOTICE_ENFORCEMENT_RESTORED] = {"enforcement-restored",
					 "bulkhead.daemon",
					 "host",
					 {"change", "info"},
					 "success",
					 SEVERITY_NOTICE,
					 "the kernel enforces on the managed subtree again"},
};

static const struct audit_classing unknown_notice = {
	"notice", "bulkhead.daemon", "host", {"info"}, "unknown", SEVERITY_NOTICE, "notice of an unknown kind",
};

/* A refusal that no mistake explains: somebody shows an SVID where it does not belong, or speaks for another process. */
static const struct audit_classing alarm_notice = {
	"identity-refused",
	"bulkhead.identity",
	"authentication",
	{"start"},
	"failure",
	SEVERITY_CRITICAL,
	"an SVID was shown from where it does not belong",
};

static bool is_alarm(const struct ipc_notice *notice)
{
	return notice->kind == NOTICE_IDENTITY_REFUSED &&
	       (notice->code == ATTEST_E_BINDING || notice->code == ATTEST_E_PEER_DIFFERS ||
		notice->code == ATTEST_E_CGROUP_MOVED);
}

static const struct audit_classing *notice_classing(unsigned kind)
{
	if (kind >= sizeof(notices) / sizeof(*notices) || !notices[kind].action)
		return &unknown_notice;
	return &notices[kind];
}

const char *audit_notice_action(unsigned kind)
{
	const struct audit_classing *class = notice_classing(kind);

	return class == &unknown_notice ? NULL : class->action;
}

static const char *date_text(char out[AUDIT_TIME_SIZE], int64_t seconds)
{
	time_t t = (time_t)seconds;
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !strftime(out, AUDIT_TIME_SIZE, "%Y-%m-%dT%H:%M:%SZ", &tm))
		out[0] = '\0';
	return out;
}

static bool is_identity_notice(unsigned kind)
{
	return (kind >= NOTICE_IDENTITY_ATTESTED && kind <= NOTICE_IDENTITY_LOCAL) || kind == NOTICE_IDENTITY_ENDING ||
	       kind == NOTICE_IDENTITY_SHARED;
}

static bool is_policy_notice(unsigned kind)
{
	return kind == NOTICE_POLICY_APPLIED || kind == NOTICE_POLICY_REFUSED || kind == NOTICE_POLICY_CONFIRMED ||
	       kind == NOTICE_POLICY_ROLLED_BACK || kind == NOTICE_POLICY_REVERTED;
}

static bool is_bundle_notice(unsigned kind)
{
	return kind == NOTICE_BUNDLE_LOADED || kind == NOTICE_BUNDLE_REFUSED || kind == NOTICE_BUNDLE_REMOVED;
}

static bool is_spiffe_id(const char *name)
{
	return !strncmp(name, "spiffe://", 9);
}

/* The workload as a user: its ID, last path segment and trust domain, which is how SIEMs pivot. */
static void put_workload_user(struct json_line *line, const char *id)
{
	const char *domain = id + 9, *slash = strrchr(domain, '/');

	json_line_object(line, "user");
	json_line_string(line, "id", id);
	if (slash && slash[1])
		json_line_string(line, "name", slash + 1);
	json_line_bytes(line, "domain", domain, strcspn(domain, "/"));
	json_line_object_end(line);
	json_line_object(line, "related");
	json_line_array(line, "user");
	json_line_string(line, NULL, id);
	json_line_array_end(line);
	json_line_object_end(line);
}

/* ECS: serial numbers and hashes in upper case, without colons. */
static void put_upper_hex(struct json_line *line, const char *key, const char *hex)
{
	char text[65];
	size_t n = 0;

	for (; *hex && n < sizeof(text) - 1; hex++)
		if (*hex != ':')
			text[n++] = (char)toupper((unsigned char)*hex);
	text[n] = '\0';
	json_line_string(line, key, text);
}

static void put_certificate(struct json_line *line, const struct ipc_notice *notice)
{
	static const uint8_t no_leaf[sizeof(notice->leaf_sha256)];
	bool hash = memcmp(notice->leaf_sha256, no_leaf, sizeof(no_leaf));
	char text[AUDIT_TIME_SIZE], hex[2 * sizeof(no_leaf) + 1];

	if (!hash && !notice->serial[0])
		return;
	json_line_object(line, "tls");
	json_line_object(line, "client");
	if (hash) {
		for (size_t i = 0; i < sizeof(no_leaf); i++)
			snprintf(hex + 2 * i, 3, "%02X", notice->leaf_sha256[i]);
		json_line_object(line, "hash");
		json_line_string(line, "sha256", hex);
		json_line_object_end(line);
	}
	json_line_object(line, "x509");
	if (notice->serial[0])
		put_upper_hex(line, "serial_number", notice->serial);
	if (notice->issuer[0]) {
		json_line_object(line, "issuer");
		json_line_string(line, "distinguished_name", notice->issuer);
		json_line_object_end(line);
	}
	if (notice->not_before)
		json_line_string(line, "not_before", date_text(text, notice->not_before));
	if (notice->not_after)
		json_line_string(line, "not_after", date_text(text, notice->not_after));
	if (is_spiffe_id(notice->spiffe_id)) {
		json_line_array(line, "alternative_names");
		json_line_string(line, NULL, notice->spiffe_id);
		json_line_array_end(line);
	}
	json_line_object_end(line);
	json_line_object_end(line);
	json_line_object_end(line);
}

static void put_policy_rule(struct json_line *line, const struct ipc_notice *notice)
{
	char number[16];

	json_line_object(line, "rule");
	if (notice->digest[0])
		json_line_bytes(line, "ruleset", notice->digest, AUDIT_DIGEST_SHORT);
	snprintf(number, sizeof(number), "%u", notice->revision);
	json_line_string(line, "version", number);
	json_line_object_end(line);
}

/* Beyond the uid: as whom they logged in, and how they came. */
static void put_operator(struct json_line *line, const struct ipc_notice *notice)
{
	json_line_object(line, "operator");
	if (notice->login_uid != UINT32_MAX)
		json_line_number(line, "login_uid", notice->login_uid);
	json_line_string(line, "via", notice->via);
	if (notice->from[0])
		json_line_string(line, "from", notice->from);
	json_line_object_end(line);
}

static void put_policy_zt(struct json_line *line, const struct ipc_notice *notice)
{
	char deadline[AUDIT_TIME_SIZE];

	json_line_object(line, "policy");
	if (notice->digest[0])
		json_line_string(line, "digest", notice->digest);
	json_line_number(line, "revision", notice->revision);
	if (notice->previous_revision)
		json_line_number(line, "previous_revision", notice->previous_revision);
	if (notice->not_after)
		json_line_string(line, "confirm_by", date_text(deadline, notice->not_after));
	json_line_object_end(line);
}

static void put_identity_zt(struct json_line *line, const struct ipc_notice *notice)
{
	if (notice->spiffe_id[0] || notice->identity) {
		json_line_object(line, "identity");
		if (notice->identity)
			json_line_number(line, "number", notice->identity);
		if (is_spiffe_id(notice->spiffe_id))
			json_line_string(line, "spiffe_id", notice->spiffe_id);
		else if (notice->spiffe_id[0])
			json_line_string(line, "local", notice->spiffe_id);
		json_line_object_end(line);
	}
	if (notice->kind == NOTICE_IDENTITY_REFUSED && notice->code >= ATTEST_E_SVID) {
		json_line_object(line, "svid");
		json_line_number(line, "rule", notice->code - ATTEST_E_SVID);
		json_line_string(line, "rule_name", attest_code_name(notice->code));
		json_line_object_end(line);
	}
}

static void put_notice_zt(struct audit_record *record, struct json_line *line, const struct ipc_notice *notice,
			  const struct audit_classing *class)
{
	json_line_object(line, "zt");
	if (is_identity_notice(notice->kind))
		put_identity_zt(line, notice);
	if (notice->cgroup_id || notice->cgroup_path[0])
		audit_put_carrier(line, notice->cgroup_id, notice->cgroup_path[0] ? notice->cgroup_path : NULL);
	if (notice->other_id) {
		json_line_object(line, "other");
		audit_put_carrier(line, notice->other_id, notice->other_path[0] ? notice->other_path : NULL);
		json_line_object_end(line);
	}
	if (is_policy_notice(notice->kind))
		put_policy_zt(line, notice);
	if (is_policy_notice(notice->kind) && notice->via[0])
		put_operator(line, notice);
	if (is_bundle_notice(notice->kind)) {
		json_line_object(line, "bundle");
		json_line_string(line, "trust_domain", notice->spiffe_id);
		json_line_number(line, "authorities", notice->count);
		json_line_object_end(line);
	} else if (notice->count || notice->kind == NOTICE_SOCKETS_CUT) {
		json_line_number(line, "count", notice->count);
	}
	if (!strcmp(class->dataset, "bulkhead.daemon"))
		json_line_bytes(line, "subtree", record->config.subtree, sizeof(record->config.subtree));
}

static size_t put_notice(struct audit_record *record, struct json_line *line, const struct ipc_notice *notice,
			 const struct audit_stamp *stamp)
{
	const struct audit_classing *class = is_alarm(notice) ? &alarm_notice : notice_classing(notice->kind);
	bool policy = is_policy_notice(notice->kind);
	char uid[16];

	audit_line_head(record, line, stamp, class);
	json_line_string(line, "kind", is_alarm(notice) ? "alert" : "event");
	if (notice->kind == NOTICE_IDENTITY_REFUSED)
		json_line_string(line, "code", attest_code_name(notice->code));
	json_line_string(line, "reason", notice->text[0] ? notice->text : class->text);
	json_line_object_end(line);
	if (policy)
		put_policy_rule(line, notice);
	if (notice->pid) {
		json_line_object(line, "process");
		json_line_number(line, "pid", notice->pid);
		json_line_object_end(line);
	}
	if (is_identity_notice(notice->kind) && is_spiffe_id(notice->spiffe_id)) {
		put_workload_user(line, notice->spiffe_id);
	} else if ((policy && notice->kind != NOTICE_POLICY_REVERTED) ||
		   (notice->kind == NOTICE_IDENTITY_REFUSED && notice->code != ATTEST_E_MANY)) {
		snprintf(uid, sizeof(uid), "%u", notice->uid);
		json_line_object(line, "user");
		json_line_string(line, "id", uid);
		json_line_object_end(line);
	}
	if (is_identity_notice(notice->kind))
		put_certificate(line, notice);
	put_notice_zt(record, line, notice, class);
	return audit_line_tail(line);
}

size_t audit_record_notice(struct audit_record *record, char *out, const struct ipc_notice *notice,
			   const struct audit_stamp *stamp)
{
	struct json_line line;
	size_t len = 0;

	for (size_t i = 0; !len && i < AUDIT_STRING_LIMITS; i++) {
		json_line_begin(&line, out, AUDIT_LINE_MAX, audit_string_limits[i]);
		len = put_notice(record, &line, notice, stamp);
	}
	return len;
}

/* ---- losses ---- */

size_t audit_record_lost(struct audit_record *record, char *out, const char *what, enum audit_loss_stage stage,
			 uint64_t count, uint64_t total, const struct audit_stamp *stamp)
{
	static const struct audit_classing class = {
		"events-lost", "bulkhead.daemon", "host", {"info"}, "failure", SEVERITY_ERROR, NULL,
	};
	static const struct {
		const char *name;
		const char *text;
	} stages[AUDIT_LOSS_STAGES] = {
		[AUDIT_LOSS_KERNEL_RING] = {"kernel-ring", "the event ring was full"},
		[AUDIT_LOSS_DAEMON] = {"daemon", "notices did not reach the auditor"},
		[AUDIT_LOSS_LOG_FILE] = {"log-file", "the audit log could not be written"},
		[AUDIT_LOSS_BEFORE_START] = {"before-start", "lost before this auditor started"},
	};
	struct json_line line;

	json_line_begin(&line, out, AUDIT_LINE_MAX, audit_string_limits[0]);
	audit_line_head(record, &line, stamp, &class);
	json_line_string(&line, "kind", "metric");
	json_line_string(&line, "code", "EVENTS_LOST");
	json_line_string(&line, "reason", stages[stage].text);
	json_line_object_end(&line);
	json_line_object(&line, "zt");
	json_line_object(&line, "lost");
	json_line_string(&line, "what", what);
	json_line_string(&line, "stage", stages[stage].name);
	json_line_number(&line, "count", count);
	json_line_number(&line, "total", total);
	json_line_object_end(&line);
	return audit_line_tail(&line);
}
