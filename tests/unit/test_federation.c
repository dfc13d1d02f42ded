/* SPDX-License-Identifier: Apache-2.0 */
/* What a configuration may say of bundle endpoints (rules 108 to 119), and how it is told what is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config.h"
#include "daemon/endpoint_url.h"
#include "daemon/federation.h"

static char why[1024];

static int parse(const char *text, struct daemon_config_file *out)
{
	return config_parse_yaml(text, strlen(text), "b.yaml", out, why, sizeof(why));
}

static void refused(const char *text, const char *expected)
{
	struct daemon_config_file *file = malloc(sizeof(*file));

	why[0] = '\0';
	assert_int_equal(parse(text, file), 1);
	if (strstr(why, expected) == NULL)
		fail_msg("\"%s\" is not in \"%s\"", expected, why);
	free(file);
}

#define WEB "trust_domain: a.example, url: \"https://a/b\", profile: https_web"
#define SPIFFE "trust_domain: a.example, url: \"https://a/b\", profile: https_spiffe"
#define ONE(entry) "federation:\n  - {" entry "}\n"

static void a_federation_is_read_as_it_is_written(void **state)
{
	static const char text[] = "federation_ca: /etc/ca.pem\n"
				   "federation:\n"
				   "  - trust_domain: web.example\n"
				   "    url: https://bundles.web.example:8443/spiffe?x=1\n"
				   "    profile: https_web\n"
				   "  - trust_domain: own.example\n"
				   "    url: https://[2001:db8::1]/bundle\n"
				   "    profile: https_spiffe\n"
				   "    endpoint_spiffe_id: spiffe://own.example/endpoint\n"
				   "    bundle: /etc/bulkhead/own.json\n"
				   "  - trust_domain: served.example\n"
				   "    url: https://own.example/served\n"
				   "    profile: https_spiffe\n"
				   "    endpoint_spiffe_id: spiffe://own.example/endpoint\n"
				   "    endpoint_trust_domain: own.example\n"
				   "metrics: off\n";
	struct daemon_config_file *file = malloc(sizeof(*file));
	struct daemon_config *config = malloc(sizeof(*config));

	(void)state;
	if (parse(text, file) != 0)
		fail_msg("%s", why);
	assert_int_equal(config_merge(config, file, NULL, why, sizeof(why)), 0);
	assert_int_equal(config->n_federation, 3);
	assert_string_equal(config->federation_ca, "/etc/ca.pem");
	assert_string_equal(config->federation[0].trust_domain, "web.example");
	assert_int_equal(config->federation[0].profile, FEDERATION_HTTPS_WEB);
	assert_string_equal(config->federation[1].endpoint_spiffe_id, "spiffe://own.example/endpoint");
	assert_string_equal(config->federation[1].bundle, "/etc/bulkhead/own.json");
	assert_string_equal(config->federation[2].endpoint_trust_domain, "own.example");
	assert_int_equal(parse("metrics: off\n", file), 0);
	assert_int_equal(config_merge(config, file, NULL, why, sizeof(why)), 0);
	assert_int_equal(config->n_federation, 0);
	assert_string_equal(config->federation_ca, "");
	free(file);
	free(config);
}

static void nothing_is_inferred_and_everything_wrong_has_a_place(void **state)
{
	(void)state;
	refused("federation: x\n", "b.yaml:1:13: error: federation must be a list");
	refused("federation: [x]\n", "b.yaml:1:14: error: a federation is `trust_domain:`");
	refused(ONE("url: \"https://a.example/b\", profile: https_web"),
		"b.yaml:2:5: error: a federation has no trust_domain; it is never taken from the URL");
	refused(ONE("trust_domain: a.example, profile: https_web"), "the federation with a.example has no url");
	refused(ONE("trust_domain: a.example, url: \"https://a/b\""), "has no profile (https_web or https_spiffe)");
	refused("federation:\n  - trust_domain: a.example\n    url: https://a/b\n    profil: https_web\n",
		"b.yaml:4:5: error: unknown key \"profil\" of a federation; did you mean \"profile\"?");
	refused(ONE(WEB ", x: y"), "known: trust_domain, url, profile,");
	refused(ONE("trust_domain: a.example, profile: https"), "profile \"https\" is neither");
	refused(ONE(WEB ", profile: https_web"), "profile is set twice");
	refused(ONE(WEB ", url: \"https://b\""), "url is set twice");
	refused(ONE(WEB ", bundle: \"\""), "bundle is empty");
	refused(ONE("trust_domain: A.example, url: \"https://a/b\", profile: https_web"),
		"\"A.example\" is no trust domain");
	refused(ONE("trust_domain: \"spiffe://a.example\", url: \"https://a/b\", profile: https_web"),
		"without spiffe://");
	refused("federation:\n  - {" WEB "}\n  - {" WEB "}\n",
		"b.yaml:3:5: error: there are two federations with a.example");
	refused(ONE(WEB) ONE(WEB), "b.yaml:3:1: error: federation is set twice");
	refused(ONE(WEB ", bundle: b.json"), "bundle \"b.json\" is not an absolute path");
	refused(ONE(WEB ", bundle: /b.txt"), "is neither a .pem nor a .json");
	refused("federation_ca: ca.pem\n", "federation_ca \"ca.pem\" is not an absolute path");
}

static void each_profile_has_its_parameters_and_no_others(void **state)
{
	(void)state;
	refused(ONE(WEB ", endpoint_spiffe_id: \"spiffe://a.example/e\""),
		"endpoint_spiffe_id belongs to profile https_spiffe");
	refused(ONE(WEB ", endpoint_trust_domain: a.example"), "endpoint_trust_domain belongs to profile");
	refused(ONE(SPIFFE), "https_spiffe needs endpoint_spiffe_id");
	refused(ONE(SPIFFE ", endpoint_spiffe_id: \"spiffe://a.example\""), "is no SPIFFE ID");
	refused(ONE(SPIFFE ", endpoint_spiffe_id: \"spiffe://a.example/e\""), "`bundle` has to name a file");
	refused(ONE(SPIFFE ", endpoint_spiffe_id: \"spiffe://b.example/e\""),
		"write `endpoint_trust_domain: b.example`, and configure a bundle for it");
	refused(ONE(SPIFFE ", endpoint_spiffe_id: \"spiffe://b.example/e\", endpoint_trust_domain: c.example"),
		"write `endpoint_trust_domain: b.example`");
	refused(ONE(SPIFFE ", endpoint_spiffe_id: \"spiffe://a.example/e\", bundle: /b.pem, endpoint_trust_domain: "
			   "c.example"),
		"endpoint_trust_domain \"c.example\" is not that of endpoint_spiffe_id");
}

static void more_federations_than_there_is_room_for_are_refused(void **state)
{
	struct daemon_config_file *file = malloc(sizeof(*file));
	char text[8192] = "federation:\n";
	size_t len = strlen(text);

	(void)state;
	for (int i = 0; i < FEDERATION_MAX; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len,
					"- {trust_domain: d%d, url: \"https://a/\", profile: https_web}\n", i);
	assert_int_equal(parse(text, file), 0);
	assert_int_equal(file->values.n_federation, FEDERATION_MAX);
	snprintf(text + len, sizeof(text) - len, "- {trust_domain: e, url: \"https://a/\", profile: https_web}\n");
	refused(text, "more than 32 federations");
	free(file);
}

/* The child that read the file may have been taken over by it. */
static void what_the_reader_hands_over_is_checked_again(void **state)
{
	struct daemon_config_file *file = malloc(sizeof(*file));
	struct daemon_config *config = malloc(sizeof(*config));

	(void)state;
	assert_int_equal(parse(ONE(WEB), file), 0);
	file->values.n_federation = FEDERATION_MAX + 1;
	assert_int_equal(config_merge(config, file, NULL, why, sizeof(why)), 1);
	file->values.n_federation = 1;
	strcpy(file->values.federation[0].url, "http://a/");
	assert_int_equal(config_merge(config, file, NULL, why, sizeof(why)), 1);
	memset(file->values.federation[0].url, 'a', sizeof(file->values.federation[0].url));
	assert_int_equal(config_merge(config, file, NULL, why, sizeof(why)), 1);
	assert_int_equal(parse(ONE(WEB), file), 0);
	file->values.federation[0].profile = 3;
	assert_int_equal(config_merge(config, file, NULL, why, sizeof(why)), 1);
	free(file);
	free(config);
}

static void only_what_can_be_an_endpoint_is_a_url(void **state)
{
	static const char *const good[] = {
		"https://a",
		"https://a.example/",
		"https://a.example:443/b?c=d&e=%20",
		"https://192.0.2.1/x",
		"https://[::1]:8443/x",
		"https://a_b-c.example?x",
		"https://a.example/@user:x",
	};
	static const char *const bad[] = {
		"",
		"a.example",
		"http://a.example/",
		"HTTPS://a.example/",
		"https:/a",
		"https://",
		"https:///a",
		"https://?x",
		"https://user@a.example/",
		"https://user:pw@a.example/",
		"https://a.example@b.example/",
		"https://@a/",
		"https://a.example:/",
		"https://a.example:0/",
		"https://a.example:65536/",
		"https://a.example:4430000000/",
		"https://a.example:x/",
		"https://a.example:443x/",
		"https://:443/",
		"https://.a/",
		"https://-a/",
		"https://a b/",
		"https://a/b c",
		"https://a/\n",
		"https://a\\@b/",
		"https://a/\\b",
		"https://a/<b>",
		"https://a/\xc3\xa9",
		"https://\xc3\xa9/",
		"https://a/#b",
		"https://a#b",
		"https://[]/",
		"https://[::1/",
		"https://[::1]x/",
		"https://[g::1]/",
		"https://%61/",
		"https://a;b/",
	};
	char url[ENDPOINT_URL_MAX + 1];

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		if (endpoint_url_flaw(good[i]))
			fail_msg("%s %s", good[i], endpoint_url_flaw(good[i]));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (!endpoint_url_flaw(bad[i]))
			fail_msg("\"%s\" is taken for an endpoint", bad[i]);
	memset(url, 'a', sizeof(url));
	memcpy(url, "https://a/", 10);
	url[ENDPOINT_URL_MAX - 1] = '\0';
	assert_null(endpoint_url_flaw(url));
	url[ENDPOINT_URL_MAX - 1] = 'a';
	url[ENDPOINT_URL_MAX] = '\0';
	assert_non_null(endpoint_url_flaw(url));
}

static void no_byte_but_those_of_a_url_is_in_one(void **state)
{
	(void)state;
	for (int c = 1; c < 256; c++) {
		char host[] = "https://aXb/", path[] = "https://a/X";
		bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');

		host[9] = (char)c;
		path[10] = (char)c;
		assert_int_equal(endpoint_url_flaw(host) == NULL, letter || strchr("-._/?", c) != NULL);
		assert_int_equal(endpoint_url_flaw(path) == NULL, letter || strchr("-._~/?:@!$&'()*+,;=%", c) != NULL);
	}
}

static void a_poll_is_at_most_a_tenth_early(void **state)
{
	(void)state;
	assert_int_equal(federation_wait_usec(300, 0), 300000000);
	for (uint32_t random = 0; random < 5000; random++) {
		uint64_t usec = federation_wait_usec(300, random * 2654435761U);

		assert_true(usec > 270000000 && usec <= 300000000);
	}
	assert_true(federation_wait_usec(86400, 1023) > 77000000000ULL);
}

static void a_poll_that_was_interrupted_is_made_up_for_soon_and_not_in_a_hurry(void **state)
{
	(void)state;
	assert_int_equal(federation_again_usec(1, 300, 0), 1000000);
	assert_int_equal(federation_again_usec(4, 300, 0), 8000000);
	for (uint32_t random = 0; random < 5000; random++) {
		uint64_t usec = federation_again_usec(3, 300, random * 2654435761U);

		assert_true(usec >= 4000000 && usec < 8000000);
	}
	/* Never later than without. */
	for (unsigned failures = 1; failures < 100; failures++) {
		assert_true(federation_again_usec(failures, 30, 0) <= federation_wait_usec(30, 0));
		assert_true(federation_again_usec(failures, 86400, 1023) <= federation_wait_usec(86400, 1023));
	}
	assert_int_equal(federation_again_usec(UINT32_MAX, 86400, 5), federation_wait_usec(86400, 5));
}

static void the_workload_api_is_a_socket_of_this_host(void **state)
{
	struct daemon_config_file *file = malloc(sizeof(*file));
	struct daemon_config *config = malloc(sizeof(*config));

	(void)state;
	assert_int_equal(parse("workload_api: unix:///run/spire/sockets/agent.sock\n", file), 0);
	assert_int_equal(config_merge(config, file, NULL, why, sizeof(why)), 0);
	assert_string_equal(config_workload_socket(config), "/run/spire/sockets/agent.sock");
	assert_int_equal(parse("workload_api: off\n", file), 0);
	assert_int_equal(config_merge(config, file, NULL, why, sizeof(why)), 0);
	assert_null(config_workload_socket(config));
	refused("workload_api: /run/agent.sock\n", "b.yaml:1:15: error: workload_api \"/run/agent.sock\" is neither");
	refused("workload_api: tcp://127.0.0.1:8000\n", "is neither off nor unix:///PATH");
	refused("workload_api: unix://run/agent.sock\n", "is neither off nor unix:///PATH");
	refused("workload_api: unix://\n", "is neither off nor unix:///PATH");
	refused("workload_api: \"unix:///a?b\"\n", "a socket's URI cannot have");
	refused("workload_api: "
		"unix:///"
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		"aaaaaaaaaaaa\n",
		"too long for a socket");
	free(file);
	free(config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_federation_is_read_as_it_is_written),
		cmocka_unit_test(nothing_is_inferred_and_everything_wrong_has_a_place),
		cmocka_unit_test(each_profile_has_its_parameters_and_no_others),
		cmocka_unit_test(more_federations_than_there_is_room_for_are_refused),
		cmocka_unit_test(what_the_reader_hands_over_is_checked_again),
		cmocka_unit_test(only_what_can_be_an_endpoint_is_a_url),
		cmocka_unit_test(no_byte_but_those_of_a_url_is_in_one),
		cmocka_unit_test(a_poll_is_at_most_a_tenth_early),
		cmocka_unit_test(a_poll_that_was_interrupted_is_made_up_for_soon_and_not_in_a_hurry),
		cmocka_unit_test(the_workload_api_is_a_socket_of_this_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
