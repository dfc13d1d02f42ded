// SPDX-License-Identifier: Apache-2.0
/* bulkheadd: reads options and configuration, then becomes the enforcer; or, executed by the enforcer, another role. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compile.h"
#include "config.h"
#include "enforcer.h"
#include "files.h"
#include "fips.h"
#include "log.h"
#include "roles.h"

/* As every client of the Workload API does (SPIFFE_Workload_Endpoint.md 4), where the configuration does not say. */
static int workload_api_from_environment(struct daemon_config_file *file)
{
	const char *socket = getenv("SPIFFE_ENDPOINT_SOCKET");

	if (!socket || !*socket || file->present & 1U << CONFIG_KEY_WORKLOAD_API)
		return 0;
	if (strlen(socket) >= sizeof(file->values.workload_api)) {
		fprintf(stderr, "bulkheadd: SPIFFE_ENDPOINT_SOCKET is too long for a socket\n");
		return 1;
	}
	snprintf(file->values.workload_api, sizeof(file->values.workload_api), "%s", socket);
	file->present |= 1U << CONFIG_KEY_WORKLOAD_API;
	return 0;
}

/* The file's settings, and whether there is one. Returns 0, or 1 after saying what is wrong. */
static int config_read(const struct daemon_options *options, struct daemon_config_file *file, bool *therep)
{
	char *text = NULL, *why = NULL;
	size_t len;
	int r;

	r = file_read(AT_FDCWD, options->config, CONFIG_MAX_BYTES, &text, &len);
	if (r == -ENOENT && !options->config_given)
		return 0;
	if (r < 0) {
		fprintf(stderr, "bulkheadd: cannot read %s: %s\n", options->config, strerror(-r));
		return 1;
	}
	*therep = true;
	r = compile_config(text, len, options->config, file, &why);
	if (r)
		fprintf(stderr, "%s\n", why ? why : strerror(-r));
	free(text);
	free(why);
	return r ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct daemon_config_file file = {};
	struct daemon_options options;
	struct daemon_config config;
	char why[1024] = "";
	bool there = false;
	int status;

	if (role_dispatch(argc, argv, &status))
		return status;
	log_start();
	switch (config_parse_options(argc, argv, &options, why, sizeof(why))) {
	case CONFIG_SHOW_HELP:
		config_print_help(stdout);
		return EXIT_SUCCESS;
	case CONFIG_SHOW_VERSION:
		printf("bulkheadd " BULKHEAD_VERSION "\n");
		return EXIT_SUCCESS;
	case CONFIG_USAGE_ERROR:
		fprintf(stderr, "bulkheadd: %s\nSee bulkheadd --help.\n", why);
		return 2;
	case CONFIG_RUN:
		break;
	}
	if (geteuid() != 0) {
		fprintf(stderr,
			"bulkheadd: needs root, to load programs into the kernel; it gives up what it does not need\n");
		return EXIT_FAILURE;
	}
	if (config_read(&options, &file, &there) || workload_api_from_environment(&file))
		return EXIT_FAILURE;
	if (config_merge(&config, &file, &options.set, why, sizeof(why))) {
		fprintf(stderr, "bulkheadd: %s\n", why);
		return EXIT_FAILURE;
	}
	if (fips_prepare(&config))
		return EXIT_FAILURE;
	if (there)
		snprintf(config.file, sizeof(config.file), "%s", options.config);
	return enforcer_run(&config);
}
