/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.h - configuration of bulkheadd: defaults, then the file, then options; the later wins.
 *
 * The file is YAML, and the process that holds CAP_BPF parses none: config_parse_yaml is pure and runs in a child
 * without privileges, which hands back struct daemon_config_file through a pipe. That structure has no pointers and is
 * not believed: config_merge checks every value again, whoever it came from.
 */
#ifndef BULKHEAD_DAEMON_CONFIG_H
#define BULKHEAD_DAEMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "federation.h"

#define CONFIG_FILE "/etc/bulkhead/bulkhead.yaml"
#define CONFIG_MAX_BYTES 65536U
#define CONFIG_INSTANCE "default" /* name of the instance that has the plain default paths */
#define CONFIG_INSTANCE_MAX 32	  /* with the NUL */
#define CONFIG_PATH_MAX 1024	  /* with the NUL */
#define CONFIG_KEY_HOURS_MAX 720
#define CONFIG_METRICS_MAX 128	    /* with the NUL */
#define CONFIG_DEVICES_MAX 1024	    /* with the NUL */
#define CONFIG_WORKLOAD_API_MAX 128 /* with the NUL */
#define CONFIG_FIPS_REQUIRE "require"
#define CONFIG_SVIDS_MAX 4096 /* with the NUL */
#define CONFIG_LIFETIME_MAX_S (100ULL * 365 * 86400)
#define CONFIG_RUN_DIR_MAX 92 /* leaves room for "/control.sock" in sockaddr_un */

/* Settings in effect. Strings are never empty, but for pin_dir, devices, fips_config and federation_ca. */
struct daemon_config {
	char instance[CONFIG_INSTANCE_MAX];
	char subtree[CONFIG_PATH_MAX]; /* managed subtree, below the cgroup2 mount; "/" is all of it */
	char run_dir[CONFIG_PATH_MAX];
	char state_dir[CONFIG_PATH_MAX];
	char audit_log[CONFIG_PATH_MAX];
	char bundle_dir[CONFIG_PATH_MAX];
	char policy_dir[CONFIG_PATH_MAX];
	char pin_dir[CONFIG_PATH_MAX];	  /* "": config_pin_dir() below the bpffs that is found */
	char key_hours[8];		  /* as written; config_key_hours() */
	char metrics[CONFIG_METRICS_MAX]; /* metrics_listen.h */
	char devices[CONFIG_DEVICES_MAX]; /* names of managed devices, with * and ?, separated by commas; "": none */
	char fips[16];			  /* "off" or "require" */
	char fips_config
		[CONFIG_PATH_MAX];  /* what `openssl fipsinstall` wrote; "": where OpenSSL looks (identity/crypto.h) */
	char device_hook[8];	    /* "auto", "tcx" or "clsact" */
	char file[CONFIG_PATH_MAX]; /* whose list of federations is read again; "": there is none */
	char federation_ca[CONFIG_PATH_MAX];	    /* authorities for https_web; "": the system's */
	char workload_api[CONFIG_WORKLOAD_API_MAX]; /* unix:///PATH of a SPIFFE Workload API, or "off" */
	uint32_t n_federation;
	uint32_t pad;
	struct federation federation[FEDERATION_MAX]; /* only in the file */
	char allow_proc_fallback[8];		      /* as written: true or false; config_is_true() */
	char allow_delegated[8];
	char max_lifetime[16]; /* as written; config_max_lifetime_s() */
	char svids
		[CONFIG_SVIDS_MAX]; /* DIR=unit:NAME or DIR=cgroup:PATH, separated by commas; config_svid(); "": none */
};

enum config_key {
	CONFIG_KEY_INSTANCE,
	CONFIG_KEY_SUBTREE,
	CONFIG_KEY_RUN_DIR,
	CONFIG_KEY_STATE_DIR,
	CONFIG_KEY_AUDIT_LOG,
	CONFIG_KEY_BUNDLE_DIR,
	CONFIG_KEY_POLICY_DIR,
	CONFIG_KEY_PIN_DIR,
	CONFIG_KEY_KEY_HOURS,
	CONFIG_KEY_METRICS,
	CONFIG_KEY_DEVICES,
	CONFIG_KEY_FIPS,
	CONFIG_KEY_FIPS_CONFIG,
	CONFIG_KEY_DEVICE_HOOK,
	CONFIG_KEY_FEDERATION_CA,
	CONFIG_KEY_WORKLOAD_API,
	CONFIG_KEY_ALLOW_PROC_FALLBACK,
	CONFIG_KEY_ALLOW_DELEGATED,
	CONFIG_KEY_MAX_LIFETIME,
	CONFIG_KEY_SVIDS,
	CONFIG_KEYS,
};

/* What one place sets: bit `1 << key` of `present` for each value given. */
struct daemon_config_file {
	uint32_t present;
	struct daemon_config values;
};

/*
 * Reads the text of a config file; `name` is for messages. Pure. Returns 0; 1 with `why` saying
 * "FILE:LINE:COL: error: TEXT"; or -ENOMEM.
 */
int config_parse_yaml(const char *text, size_t len, const char *name, struct daemon_config_file *out, char *why,
		      size_t why_size);

enum config_action {
	CONFIG_RUN,
	CONFIG_SHOW_HELP,
	CONFIG_SHOW_VERSION,
	CONFIG_USAGE_ERROR, /* `why` says which */
};

struct daemon_options {
	const char *config; /* --config, or CONFIG_FILE; borrowed from argv */
	int config_given;   /* a file that was asked for must exist; the default one need not */
	struct daemon_config_file set;
};

enum config_action config_parse_options(int argc, char **argv, struct daemon_options *out, char *why, size_t why_size);
void config_print_help(FILE *out);

/*
 * The settings in effect: defaults for the instance, `file` (may be NULL) over them, `options` (may be NULL) over both.
 * Returns 0, or 1 with `why` if a value is not valid.
 */
int config_merge(struct daemon_config *out, const struct daemon_config_file *file,
		 const struct daemon_config_file *options, char *why, size_t why_size);
/* After how many hours the key of the handshake is replaced: 1 to CONFIG_KEY_HOURS_MAX. */
unsigned config_key_hours(const struct daemon_config *config);
/* The path of the Workload API's socket; NULL: there is none. */
const char *config_workload_socket(const struct daemon_config *config);
/* Of a setting that is true or false. */
bool config_is_true(const char *value);
/* The longest that one proof gives an identity for, in seconds; 0: as long as its certificates say. */
uint64_t config_max_lifetime_s(const struct daemon_config *config);

/* A directory with svid.pem and svid_key.pem that are proved for a cgroup. */
struct config_svid {
	char dir[CONFIG_PATH_MAX];
	char place[CONFIG_PATH_MAX]; /* name of a unit, or path of a cgroup below the managed subtree */
	bool unit;
};

/* Number `i` of those configured; false: there are not so many. */
bool config_svid(const struct daemon_config *config, size_t i, struct config_svid *out);
/* Directory of the pins: the one configured, or BPFFS/bulkhead (BPFFS/bulkhead-NAME). Returns 0 or -ENAMETOOLONG. */
int config_pin_dir(const struct daemon_config *config, const char *bpffs, char *out, size_t size);

#endif
