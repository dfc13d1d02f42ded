/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/config.h"

static char why[512];

static int parse(const char *text, struct daemon_config_file *out)
{
	why[0] = '\0';
	return config_parse_yaml(text, strlen(text), "b.yaml", out, why, sizeof(why));
}

static void refused(const char *text, const char *message)
{
	struct daemon_config_file file;

	assert_int_equal(parse(text, &file), 1);
	if (!strstr(why, message))
		fail_msg("\"%s\" does not contain \"%s\"", why, message);
}

static void a_file_sets_what_it_names_and_nothing_else(void **state)
{
	struct daemon_config_file file;
	struct daemon_config config;

	(void)state;
	assert_int_equal(parse("# comment\nsubtree: /shop\nrun_dir: \"/run/shop/\"\n", &file), 0);
	assert_int_equal(file.present, 1U << CONFIG_KEY_SUBTREE | 1U << CONFIG_KEY_RUN_DIR);
	assert_int_equal(config_merge(&config, &file, NULL, why, sizeof(why)), 0);
	assert_string_equal(config.subtree, "/shop");
	assert_string_equal(config.run_dir, "/run/shop");
	assert_string_equal(config.state_dir, "/var/lib/bulkhead");
	assert_string_equal(config.audit_log, "/var/log/bulkhead/audit.jsonl");
	assert_string_equal(config.bundle_dir, "/etc/bulkhead/bundles");
	assert_string_equal(config.policy_dir, "/etc/bulkhead/policy.d");
	assert_string_equal(config.pin_dir, "");
	assert_int_equal(config_key_hours(&config), 24);
	assert_string_equal(config.metrics, "off");
}

static void svids_are_bound_to_units_and_cgroups(void **state)
{
	char *argv[] = {"bulkheadd", "--svids", "/s/one/=unit:a.service,/s/two=cgroup:/b/c", NULL};
	struct daemon_config_file file;
	struct daemon_options options;
	struct daemon_config config;
	struct config_svid svid;

	(void)state;
	assert_int_equal(parse("svids:\n- {dir: /s/web, unit: web.service}\n- {cgroup: /batch, dir: /s/b}\n", &file),
			 0);
	assert_int_equal(config_merge(&config, &file, NULL, why, sizeof(why)), 0);
	assert_true(config_svid(&config, 0, &svid));
	assert_string_equal(svid.dir, "/s/web");
	assert_string_equal(svid.place, "web.service");
	assert_true(svid.unit);
	assert_true(config_svid(&config, 1, &svid));
	assert_string_equal(svid.dir, "/s/b");
	assert_string_equal(svid.place, "/batch");
	assert_false(svid.unit);
	assert_false(config_svid(&config, 2, &svid));
	assert_int_equal(config_parse_options(3, argv, &options, why, sizeof(why)), CONFIG_USAGE_ERROR);
	argv[2] = "/s/one=unit:a.service,/s/two=cgroup:/b/c";
	assert_int_equal(config_parse_options(3, argv, &options, why, sizeof(why)), CONFIG_RUN);
	assert_int_equal(config_merge(&config, NULL, &options.set, why, sizeof(why)), 0);
	assert_true(config_svid(&config, 1, &svid));
	assert_string_equal(svid.place, "/b/c");
	refused("svids: [{dir: /s}]", "b.yaml:1:9: error: an item of svids has `dir` and one of `unit` and `cgroup`");
	refused("svids: [{dir: /s, unit: a.service, cgroup: /a}]", "\"cgroup\": an item of svids has `dir` and one of");
	refused("svids: [{dir: s, unit: a.service}]", "a directory is not an absolute path");
	refused("svids: [{dir: /s/../t, unit: a.service}]", "a directory is not an absolute path");
	refused("svids: [{dir: \"/s,/t\", unit: a.service}]", "has a comma");
	refused("svids: [{dir: /s, cgroup: a}]", "a place is neither");
	refused("svids: [{dir: /s, unit: a/b.service}]", "a place is neither");
	refused("subtree: /x\nsvids:\n- {dir: /s, cgroup: /a}\n- {dir: s, cgroup: /b}\n\ninstance: a\n",
		"b.yaml:3:1: error: svids");
	refused("svids: [web]", "an item of svids must be {dir: DIR, unit: NAME}");
	refused("svids: /s", "not DIR=unit:NAME");
}

static void lives_and_leaves_are_said_in_few_words(void **state)
{
	static const struct {
		const char *text;
		uint64_t seconds;
	} cases[] = {{"max_lifetime: 90s", 90},	   {"max_lifetime: 30m", 1800}, {"max_lifetime: 12h", 43200},
		     {"max_lifetime: 7d", 604800}, {"max_lifetime: none", 0},	{"", 0}};
	struct daemon_config_file file;
	struct daemon_config config;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(parse(cases[i].text, &file), 0);
		assert_int_equal(config_merge(&config, &file, NULL, why, sizeof(why)), 0);
		assert_int_equal(config_max_lifetime_s(&config), cases[i].seconds);
		assert_false(config_is_true(config.allow_proc_fallback) || config_is_true(config.allow_delegated));
	}
	refused("max_lifetime: 0h", "no time like");
	refused("max_lifetime: 12", "no time like");
	refused("max_lifetime: 12h3", "no time like");
	refused("max_lifetime: 99999999999d", "no time like");
	refused("allow_proc_fallback: yes", "neither true nor false");
	assert_int_equal(parse("allow_proc_fallback: true\nallow_delegated: true\n", &file), 0);
	assert_int_equal(config_merge(&config, &file, NULL, why, sizeof(why)), 0);
	assert_true(config_is_true(config.allow_proc_fallback) && config_is_true(config.allow_delegated));
}

static void metrics_are_told_where_the_file_or_an_option_says(void **state)
{
	struct daemon_config_file file;
	struct daemon_config config;

	(void)state;
	assert_int_equal(parse("metrics: 127.0.0.1:9470\n", &file), 0);
	assert_int_equal(config_merge(&config, &file, NULL, why, sizeof(why)), 0);
	assert_string_equal(config.metrics, "127.0.0.1:9470");
	assert_int_equal(parse("metrics: /run/bulkhead/metrics.sock\n", &file), 0);
	assert_int_equal(config_merge(&config, &file, NULL, why, sizeof(why)), 0);
	assert_string_equal(config.metrics, "/run/bulkhead/metrics.sock");
	assert_int_equal(parse("metrics: off\n", &file), 0);
	assert_int_equal(config_merge(&config, &file, NULL, why, sizeof(why)), 0);
	assert_string_equal(config.metrics, "off");
}

static void a_fips_module_is_required_by_that_word_only(void **state)
{
	struct daemon_config_file file;
	struct daemon_config config;

	(void)state;
	assert_int_equal(config_merge(&config, NULL, NULL, why, sizeof(why)), 0);
	assert_string_equal(config.fips, "off");
	assert_string_equal(config.fips_config, "");
	assert_int_equal(parse("fips: require\nfips_config: /etc/ssl/fipsmodule.cnf\n", &file), 0);
	assert_int_equal(config_merge(&config, &file, NULL, why, sizeof(why)), 0);
	assert_string_equal(config.fips, CONFIG_FIPS_REQUIRE);
	assert_string_equal(config.fips_config, "/etc/ssl/fipsmodule.cnf");
	refused("fips: on\n", "b.yaml:1:7: error: fips \"on\": off or require");
	refused("fips: required\n", "fips \"required\": off or require");
	refused("fips_config: fipsmodule.cnf\n", "is not an absolute path");
}

static void an_empty_file_is_all_defaults(void **state)
{
	static const char *const texts[] = {"", "\n", "# only a comment\n", "---\n", "{}\n"};
	struct daemon_config_file file;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		assert_int_equal(parse(texts[i], &file), 0);
		assert_int_equal(file.present, 0);
	}
}

static void errors_name_file_line_and_column(void **state)
{
	(void)state;
	refused("subtree: /x\nrun_dri: /run/x\n",
		"b.yaml:2:1: error: unknown key \"run_dri\"; did you mean \"run_dir\"?");
	refused("frobnicate: 1\n", "b.yaml:1:1: error: unknown key \"frobnicate\"; known:");
	refused("run_dir: run/x\n", "b.yaml:1:10: error: run_dir \"run/x\" is not an absolute path");
	refused("run_dir: /run/../etc\n", "has a component");
	refused("run_dir: /run//etc\n", "has an empty component");
	refused("run_dir: /\n", "must not be the root directory");
	refused("run_dir:\n", "run_dir is empty");
	refused("run_dir: [/a]\n", "b.yaml:1:10: error: run_dir must be a plain text");
	refused("run_dir: /a\nrun_dir: /b\n", "b.yaml:2:1: error: run_dir is set twice");
	refused("run_dir: &a /a\n", "anchors and tags");
	refused("run_dir: \"/a\\0b\"\n", "contains a NUL byte");
	refused("run_dir: \"/a\\nb\"\n", "contains a control character");
	refused("- a\n", "b.yaml:1:1: error: the file must be a list of");
	refused("subtree: /x\n---\nsubtree: /y\n", "one document per file");
	refused("subtree: {\n", "b.yaml:");
	refused("instance: ../etc\n", "instance \"../etc\"");
	refused("instance: abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz\n", "longer than 31 bytes");
	refused("metrics: 0.0.0.0:9470\n", "metrics \"0.0.0.0:9470\": off, the absolute path of a socket, or a port");
	refused("metrics: /run/../x\n", "has a component");
	refused("run_dir: "
		"/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n",
		"too long for the names of the sockets");
}

static void devices_are_a_list_or_a_text(void **state)
{
	struct daemon_config_file file;
	struct daemon_config config;

	(void)state;
	assert_int_equal(parse("devices: [veth*, \"tap?\"]\n", &file), 0);
	assert_int_equal(config_merge(&config, &file, NULL, why, sizeof(why)), 0);
	assert_string_equal(config.devices, "veth*,tap?");
	assert_int_equal(parse("devices: veth*, tap0\nsubtree: /x\n", &file), 0);
	assert_string_equal(file.values.devices, "veth*,tap0");
	assert_string_equal(file.values.subtree, "/x");
	assert_int_equal(parse("devices: []\n", &file), 0);
	assert_int_equal(file.present, 0);
	refused("devices: [veth*, abcdefghijklmnop]\n",
		"devices \"veth*,abcdefghijklmnop\" has a name of more than 15 bytes");
	refused("devices:\n- veth*\n- a/b\n\ninstance: a\n", "b.yaml:2:1: error: devices");
	refused("devices: [a/b]\n", "has a name with a character that no name has");
	refused("devices: \"a,,b\"\n", "has an empty name");
	refused("devices: [\"a,b\"]\n", "a name has no comma");
	refused("devices: [[a]]\n", "b.yaml:1:11: error: devices must be a plain text");
	assert_int_equal(parse("device_hook: clsact\n", &file), 0);
	assert_int_equal(config_merge(&config, &file, NULL, why, sizeof(why)), 0);
	assert_string_equal(config.device_hook, "clsact");
	refused("device_hook: xdp\n", "device_hook \"xdp\": auto, tcx or clsact");
	refused("devices: {a: b}\n", "devices must be a plain text");
	refused("devices: [a]\ndevices: [b]\n", "b.yaml:2:1: error: devices is set twice");
}

static void a_cut_file_never_crashes_the_parser(void **state)
{
	static const char text[] = "instance: a\nsubtree: \"/x\"\nrun_dir: '/run/b'\ndevices: [veth*, tap?]\n# "
				   "end\npin_dir: /sys/fs/bpf/b\n";
	struct daemon_config_file file;

	(void)state;
	for (size_t len = 0; len < sizeof(text); len++)
		assert_in_range(config_parse_yaml(text, len, "b.yaml", &file, why, sizeof(why)), 0, 1);
}

static void an_instance_has_paths_of_its_own(void **state)
{
	struct daemon_config_file file = {0};
	struct daemon_config config;
	char pins[CONFIG_PATH_MAX];

	(void)state;
	assert_int_equal(parse("instance: blue\nstate_dir: /srv/blue\n", &file), 0);
	assert_int_equal(config_merge(&config, &file, NULL, why, sizeof(why)), 0);
	assert_string_equal(config.run_dir, "/run/bulkhead-blue");
	assert_string_equal(config.state_dir, "/srv/blue");
	assert_string_equal(config.audit_log, "/var/log/bulkhead-blue/audit.jsonl");
	assert_int_equal(config_pin_dir(&config, "/sys/fs/bpf", pins, sizeof(pins)), 0);
	assert_string_equal(pins, "/sys/fs/bpf/bulkhead-blue");
	assert_int_equal(config_merge(&config, NULL, NULL, why, sizeof(why)), 0);
	assert_int_equal(config_pin_dir(&config, "/bpf", pins, sizeof(pins)), 0);
	assert_string_equal(pins, "/bpf/bulkhead");
	assert_int_equal(config_pin_dir(&config, "/bpf", pins, 5), -ENAMETOOLONG);
}

static enum config_action options(struct daemon_options *out, char **argv)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	return config_parse_options(argc, argv, out, why, sizeof(why));
}

static void options_win_over_the_file(void **state)
{
	struct daemon_config_file file;
	struct daemon_options opts;
	struct daemon_config config;

	(void)state;
	assert_int_equal(parse("instance: blue\nrun_dir: /run/f\nsubtree: /f\n", &file), 0);
	assert_int_equal(options(&opts, (char *[]){"bulkheadd", "--config", "/etc/x.yaml", "--instance=red",
						   "--run-dir", "/run/o", NULL}),
			 CONFIG_RUN);
	assert_string_equal(opts.config, "/etc/x.yaml");
	assert_true(opts.config_given);
	assert_int_equal(config_merge(&config, &file, &opts.set, why, sizeof(why)), 0);
	assert_string_equal(config.instance, "red");
	assert_string_equal(config.run_dir, "/run/o");
	assert_string_equal(config.subtree, "/f");
	assert_string_equal(config.state_dir, "/var/lib/bulkhead-red");
}

static void bad_options_are_usage_errors(void **state)
{
	struct daemon_options opts;

	(void)state;
	assert_int_equal(options(&opts, (char *[]){"bulkheadd", NULL}), CONFIG_RUN);
	assert_string_equal(opts.config, CONFIG_FILE);
	assert_false(opts.config_given);
	assert_int_equal(options(&opts, (char *[]){"bulkheadd", "--help", NULL}), CONFIG_SHOW_HELP);
	assert_int_equal(options(&opts, (char *[]){"bulkheadd", "--version", NULL}), CONFIG_SHOW_VERSION);
	assert_int_equal(options(&opts, (char *[]){"bulkheadd", "--frob", NULL}), CONFIG_USAGE_ERROR);
	assert_string_equal(why, "unknown option --frob");
	assert_int_equal(options(&opts, (char *[]){"bulkheadd", "--run-dir", NULL}), CONFIG_USAGE_ERROR);
	assert_string_equal(why, "option --run-dir needs a value");
	assert_int_equal(options(&opts, (char *[]){"bulkheadd", "--run-dir", "x", NULL}), CONFIG_USAGE_ERROR);
	assert_int_equal(options(&opts, (char *[]){"bulkheadd", "x", NULL}), CONFIG_USAGE_ERROR);
	assert_string_equal(why, "unexpected argument x");
}

/* The child that parsed the file may have been taken over. */
static void a_key_lives_for_a_sane_number_of_hours(void **state)
{
	static const char *const bad[] = {"0", "-1", "721", "1h", "0x10", "99999999999", "4294967297", "1.5", "/1"};
	struct daemon_config_file file;
	struct daemon_config config;
	char text[64];

	(void)state;
	for (unsigned hours = 1; hours <= CONFIG_KEY_HOURS_MAX; hours += 719) {
		snprintf(text, sizeof(text), "key_hours: %u\n", hours);
		assert_int_equal(parse(text, &file), 0);
		assert_int_equal(config_merge(&config, &file, NULL, why, sizeof(why)), 0);
		assert_int_equal(config_key_hours(&config), hours);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(text, sizeof(text), "key_hours: %s\n", bad[i]);
		assert_int_equal(parse(text, &file), 1);
		assert_non_null(strstr(why, "key_hours"));
	}
}

static void what_came_through_a_pipe_is_not_believed(void **state)
{
	struct daemon_config_file file = {0};
	struct daemon_config config;

	(void)state;
	file.present = 1U << CONFIG_KEY_STATE_DIR;
	memset(file.values.state_dir, '/', sizeof(file.values.state_dir));
	assert_int_equal(config_merge(&config, &file, NULL, why, sizeof(why)), 1);
	strcpy(file.values.state_dir, "/var/../etc");
	assert_int_equal(config_merge(&config, &file, NULL, why, sizeof(why)), 1);
	strcpy(file.values.state_dir, "/var/ok");
	assert_int_equal(config_merge(&config, &file, NULL, why, sizeof(why)), 0);
	file.present |= 1U << CONFIG_KEYS;
	assert_int_equal(config_merge(&config, &file, NULL, why, sizeof(why)), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_file_sets_what_it_names_and_nothing_else),
		cmocka_unit_test(svids_are_bound_to_units_and_cgroups),
		cmocka_unit_test(lives_and_leaves_are_said_in_few_words),
		cmocka_unit_test(metrics_are_told_where_the_file_or_an_option_says),
		cmocka_unit_test(a_fips_module_is_required_by_that_word_only),
		cmocka_unit_test(an_empty_file_is_all_defaults),
		cmocka_unit_test(errors_name_file_line_and_column),
		cmocka_unit_test(devices_are_a_list_or_a_text),
		cmocka_unit_test(a_cut_file_never_crashes_the_parser),
		cmocka_unit_test(an_instance_has_paths_of_its_own),
		cmocka_unit_test(options_win_over_the_file),
		cmocka_unit_test(bad_options_are_usage_errors),
		cmocka_unit_test(a_key_lives_for_a_sane_number_of_hours),
		cmocka_unit_test(what_came_through_a_pipe_is_not_believed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
