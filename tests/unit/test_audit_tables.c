/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What audit lines are made from: reasons, community ids, names of revisions.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>

#include "audit_json.h"
#include "bpf/abi.h"
#include "daemon/audit_names.h"
#include "daemon/community_id.h"
#include "daemon/reasons.h"

#define DIGEST "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void every_reason_has_a_code_and_a_sentence_of_its_own(void **state)
{
	(void)state;
	for (unsigned a = 0; a < BH_REASON_MAX; a++) {
		assert_true(strlen(reason_text(a)) > 10);
		assert_non_null(reason_code(a, false, 0));
		for (unsigned b = 0; b < a; b++) {
			assert_string_not_equal(reason_text(a), reason_text(b));
			assert_string_not_equal(reason_code(a, false, 0), reason_code(b, false, 0));
		}
	}
	assert_string_equal(reason_code(BH_REASON_POLICY, true, 1), "POLICY_ALLOW");
	assert_string_equal(reason_code(BH_REASON_POLICY, false, 1), "POLICY_DENY");
	assert_string_equal(reason_code(BH_REASON_POLICY, BH_VERDICT_WOULD_DENY, 1), "POLICY_WOULD_DENY");
	assert_string_equal(reason_code(BH_REASON_POLICY, true, 0), "DEFAULT_ALLOW");
	assert_string_equal(reason_code(BH_REASON_POLICY, false, 0), "DEFAULT_DENY");
	assert_string_equal(reason_code(BH_REASON_MAX, false, 0), "UNKNOWN");
	assert_true(strlen(reason_text(BH_REASON_MAX)) > 10);
}

/* Values as published with the specification and by Zeek and Elastic. */
static void community_ids_are_those_of_other_tools(void **state)
{
	static const struct {
		const char *src, *dst;
		uint8_t proto;
		uint16_t sport, dport;
		const char *expected;
	} cases[] = {
		{"128.232.110.120", "66.35.250.204", 6, 34855, 80, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="},
		{"66.35.250.204", "128.232.110.120", 6, 80, 34855, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="},
		{"192.168.1.52", "8.8.8.8", 17, 54585, 53, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="},
		{"1.2.3.4", "5.6.7.8", 6, 1122, 3344, "1:wCb3OG7yAFWelaUydu0D+125CLM="},
		{"1.2.3.4", "5.6.7.8", 17, 1122, 3344, "1:0Mu9InQx6z4ZiCZM/7HXi2WMhOg="},
		{"1.2.3.4", "5.6.7.8", 1, 8, 0, "1:crodRHL2FEsHjbv3UkRrfbs4bZ0="},
		{"2001:470:e5bf:dead:4957:2174:e82c:4887", "2607:f8b0:400c:c03::1a", 6, 63943, 25,
		 "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4="},
	};
	char out[COMMUNITY_ID_SIZE];
	struct community_id *cid;
	struct bh_addr src, dst;

	(void)state;
	assert_int_equal(community_id_new(&cid), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		src = addr(cases[i].src);
		dst = addr(cases[i].dst);
		assert_true(community_id_format(cid, out, &src, &dst, cases[i].proto, cases[i].sport, cases[i].dport));
		assert_string_equal(out, cases[i].expected);
	}
	assert_false(community_id_format(cid, out, &src, &dst, IPPROTO_ICMPV6, 1, 0)); /* unreachable: code not known */
	community_id_freep(&cid);
}

static void the_names_of_the_last_64_revisions_are_kept(void **state)
{
	struct audit_names *names;
	struct policy_rule_name rule, rules[] = {{"default", NULL, 0, NULL}, {"r", "f.yaml", 1, NULL}};

	(void)state;
	assert_int_equal(audit_names_new(&names), 0);
	assert_int_equal(audit_names_set_rules(names, 3, DIGEST, rules, 2), 0);
	for (uint32_t revision = 4; revision <= 3 + AUDIT_NAMES_REVISIONS; revision++)
		assert_int_equal(audit_names_set_rules(names, revision, DIGEST, rules, 2), 0);
	assert_false(audit_names_rule(names, 3, 1, &rule));
	assert_true(audit_names_rule(names, 4, 1, &rule));
	assert_string_equal(rule.file, "f.yaml");
	assert_false(audit_names_rule(names, 4, 2, &rule));
	rules[1].name = "other";
	assert_int_equal(audit_names_set_rules(names, 4, DIGEST, rules, 2), 0);
	assert_true(audit_names_rule(names, 4, 1, &rule));
	assert_string_equal(rule.name, "other");
	assert_int_equal(audit_names_set_identity(names, BH_ID_WORLD, false, "x"), -EINVAL);
	assert_int_equal(audit_names_set_identity(names, BH_MAX_IDENTITIES, false, "x"), -EINVAL);
	audit_names_freep(&names);
}
int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_reason_has_a_code_and_a_sentence_of_its_own),
		cmocka_unit_test(community_ids_are_those_of_other_tools),
		cmocka_unit_test(the_names_of_the_last_64_revisions_are_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
