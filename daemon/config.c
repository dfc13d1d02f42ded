/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/config_internal.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <string.h>

#include "daemon/metrics_listen.h"

#define SETTING(field, arg, text)                                                                                      \
	{                                                                                                              \
#field, arg, text, offsetof(struct daemon_config, field),                                              \
			sizeof(((struct daemon_config *)NULL)->field)                                                  \
	}

const struct config_setting config_settings[CONFIG_KEYS] = {
	SETTING(instance, "NAME", "name of this instance; default paths contain it (" CONFIG_INSTANCE ")"),
	SETTING(subtree, "PATH", "managed subtree, below the cgroup2 mount (/)"),
	SETTING(run_dir, "DIR", "sockets (/run/bulkhead)"),
	SETTING(state_dir, "DIR", "revisions (/var/lib/bulkhead)"),
	SETTING(audit_log, "FILE", "audit log (/var/log/bulkhead/audit.jsonl)"),
	SETTING(bundle_dir, "DIR", "trust bundles, TRUSTDOMAIN.pem or .json (/etc/bulkhead/bundles)"),
	SETTING(policy_dir, "DIR", "policy files, *.yaml (/etc/bulkhead/policy.d)"),
	SETTING(pin_dir, "DIR", "pinned BPF objects (BPFFS/bulkhead)"),
	SETTING(key_hours, "HOURS", "how long one key signs identities in handshakes (24)"),
	SETTING(metrics, "WHERE", "tell metrics on a socket PATH, or 127.0.0.1:PORT (off)"),
	SETTING(devices, "NAMES", "managed devices, as veth*,tap* (none)"),
	SETTING(fips, "MODE", "require: cryptography of OpenSSL's FIPS module only (off)"),
	SETTING(fips_config, "FILE", "what `openssl fipsinstall` wrote (OpenSSL's fipsmodule.cnf)"),
	SETTING(device_hook, "KIND", "how devices are covered: tcx, clsact, or auto (auto)"),
	SETTING(federation_ca, "FILE", "authorities of https_web bundle endpoints, PEM (the system's)"),
	SETTING(workload_api, "SOCKET", "unix:///PATH of a SPIFFE Workload API to take bundles from (off)"),
	SETTING(allow_proc_fallback, "true", "before Linux 6.13, attest by /proc (false: not at all)"),
	SETTING(allow_delegated, "true", "give identities to cgroups that others than root can enter (false)"),
	SETTING(max_lifetime, "TIME", "longest life of an identity by one proof, as 12h (none)"),
	SETTING(svids, "LIST", "SVIDs to prove, as DIR=unit:NAME,DIR=cgroup:PATH (none)"),
};

void config_say(char *why, size_t size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, size, format, args);
	va_end(args);
}

/* ---- options ---- */

enum {
	OPTION_CONFIG = 256,
	OPTION_HELP,
	OPTION_VERSION,
	OPTION_SETTING, /* + enum config_key */
};

enum config_action config_parse_options(int argc, char **argv, struct daemon_options *out, char *why, size_t why_size)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, OPTION_CONFIG},
		{"help", no_argument, NULL, OPTION_HELP},
		{"version", no_argument, NULL, OPTION_VERSION},
		{"instance", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_INSTANCE},
		{"subtree", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_SUBTREE},
		{"run-dir", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_RUN_DIR},
		{"state-dir", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_STATE_DIR},
		{"audit-log", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_AUDIT_LOG},
		{"bundle-dir", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_BUNDLE_DIR},
		{"policy-dir", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_POLICY_DIR},
		{"pin-dir", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_PIN_DIR},
		{"key-hours", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_KEY_HOURS},
		{"metrics", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_METRICS},
		{"devices", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_DEVICES},
		{"fips", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_FIPS},
		{"fips-config", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_FIPS_CONFIG},
		{"device-hook", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_DEVICE_HOOK},
		{"federation-ca", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_FEDERATION_CA},
		{"workload-api", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_WORKLOAD_API},
		{"allow-proc-fallback", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_ALLOW_PROC_FALLBACK},
		{"allow-delegated", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_ALLOW_DELEGATED},
		{"max-lifetime", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_MAX_LIFETIME},
		{"svids", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_SVIDS},
		{NULL, 0, NULL, 0},
	};
	int option;

	memset(out, 0, sizeof(*out));
	out->config = CONFIG_FILE;
	optind = 0;
	opterr = 0;
	while ((option = getopt_long(argc, argv, "+:h", options, NULL)) != -1) {
		switch (option) {
		case OPTION_CONFIG:
			out->config = optarg;
			out->config_given = 1;
			break;
		case 'h':
		case OPTION_HELP:
			return CONFIG_SHOW_HELP;
		case OPTION_VERSION:
			return CONFIG_SHOW_VERSION;
		case ':':
			config_say(why, why_size, "option %s needs a value", argv[optind - 1]);
			return CONFIG_USAGE_ERROR;
		case '?':
			config_say(why, why_size, "unknown option %s", argv[optind - 1]);
			return CONFIG_USAGE_ERROR;
		default:
			if (config_set(&out->set, (enum config_key)(option - OPTION_SETTING), optarg, why, why_size))
				return CONFIG_USAGE_ERROR;
		}
	}
	if (optind < argc) {
		config_say(why, why_size, "unexpected argument %s", argv[optind]);
		return CONFIG_USAGE_ERROR;
	}
	return CONFIG_RUN;
}

void config_print_help(FILE *out)
{
	fputs("Usage: bulkheadd [OPTION]...\n"
	      "Decides by verified identity which workloads may talk to each other, and enforces it in the kernel.\n\n",
	      out);
	fprintf(out, "  --%-22s %s\n", "config FILE", "configuration (" CONFIG_FILE ")");
	for (size_t i = 0; i < CONFIG_KEYS; i++) {
		char option[40];

		snprintf(option, sizeof(option), "%s %s", config_settings[i].key, config_settings[i].argument);
		for (char *p = option; *p; p++)
			if (*p == '_')
				*p = '-';
		fprintf(out, "  --%-22s %s\n", option, config_settings[i].help);
	}
	fputs("  --help                   this text\n"
	      "  --version                version\n\n"
	      "The keys of the configuration file are the same words with '_'. Options win over the file.\n"
	      "An instance NAME other than \"" CONFIG_INSTANCE "\" has bulkhead-NAME for bulkhead in the defaults of\n"
	      "--run-dir, --state-dir, --audit-log and --pin-dir.\n",
	      out);
}

/* ---- result ---- */

static void config_defaults(struct daemon_config *out, const char *instance)
{
	const char *dash = strcmp(instance, CONFIG_INSTANCE) ? "-" : "";
	const char *suffix = *dash ? instance : "";

	memset(out, 0, sizeof(*out));
	snprintf(out->instance, sizeof(out->instance), "%s", instance);
	strcpy(out->subtree, "/");
	snprintf(out->run_dir, sizeof(out->run_dir), "/run/bulkhead%s%s", dash, suffix);
	snprintf(out->state_dir, sizeof(out->state_dir), "/var/lib/bulkhead%s%s", dash, suffix);
	snprintf(out->audit_log, sizeof(out->audit_log), "/var/log/bulkhead%s%s/audit.jsonl", dash, suffix);
	strcpy(out->bundle_dir, "/etc/bulkhead/bundles");
	strcpy(out->policy_dir, "/etc/bulkhead/policy.d");
	strcpy(out->key_hours, "24");
	strcpy(out->metrics, METRICS_OFF);
	strcpy(out->fips, "off");
	strcpy(out->device_hook, "auto");
	strcpy(out->workload_api, CONFIG_WORKLOAD_OFF);
	strcpy(out->allow_proc_fallback, "false");
	strcpy(out->allow_delegated, "false");
	strcpy(out->max_lifetime, "none");
}

/* A set that came through a pipe may be anything: every string is checked again as if it were typed. */
static int set_check(struct daemon_config_file *out, const struct daemon_config_file *in, char *why, size_t size)
{
	memset(out, 0, sizeof(*out));
	if (!in)
		return 0;
	if (in->present >> CONFIG_KEYS) {
		config_say(why, size, "configuration: unknown settings %#x", in->present);
		return 1;
	}
	for (size_t key = 0; key < CONFIG_KEYS; key++) {
		const char *value = (const char *)&in->values + config_settings[key].offset;

		if (!(in->present & 1U << key))
			continue;
		if (!memchr(value, '\0', config_settings[key].size)) {
			config_say(why, size, "configuration: %s is not terminated", config_settings[key].key);
			return 1;
		}
		if (config_set(out, (enum config_key)key, value, why, size))
			return 1;
	}
	if (federation_check_all(in->values.federation, in->values.n_federation, why, size))
		return 1;
	out->values.n_federation = in->values.n_federation;
	memcpy(out->values.federation, in->values.federation, sizeof(out->values.federation));
	return 0;
}

static void set_overlay(struct daemon_config *config, const struct daemon_config_file *set)
{
	for (size_t key = 0; key < CONFIG_KEYS; key++)
		if (set->present & 1U << key)
			memcpy(config_value(config, (enum config_key)key),
			       (const char *)&set->values + config_settings[key].offset, config_settings[key].size);
	if (set->values.n_federation) {
		config->n_federation = set->values.n_federation;
		memcpy(config->federation, set->values.federation, sizeof(config->federation));
	}
}

int config_merge(struct daemon_config *out, const struct daemon_config_file *file,
		 const struct daemon_config_file *options, char *why, size_t why_size)
{
	struct daemon_config_file from_file, from_options;
	const char *instance = CONFIG_INSTANCE;

	if (set_check(&from_file, file, why, why_size) || set_check(&from_options, options, why, why_size))
		return 1;
	if (from_options.present & 1U << CONFIG_KEY_INSTANCE)
		instance = from_options.values.instance;
	else if (from_file.present & 1U << CONFIG_KEY_INSTANCE)
		instance = from_file.values.instance;
	config_defaults(out, instance);
	set_overlay(out, &from_file);
	set_overlay(out, &from_options);
	return 0;
}

int config_pin_dir(const struct daemon_config *config, const char *bpffs, char *out, size_t size)
{
	bool plain = !strcmp(config->instance, CONFIG_INSTANCE);
	int len;

	if (config->pin_dir[0])
		len = snprintf(out, size, "%s", config->pin_dir);
	else
		len = snprintf(out, size, "%s/bulkhead%s%s", bpffs, plain ? "" : "-", plain ? "" : config->instance);
	return len >= 0 && (size_t)len < size ? 0 : -ENAMETOOLONG;
}
