// SPDX-License-Identifier: Apache-2.0
#include "fips.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "files.h"
#include "identity/crypto.h"
#include "log.h"
#include "role_identity.h"

/* In the child: writes what is missing, or nothing. */
static void try_module(const char *config, int out)
{
	struct crypto *crypto = NULL;
	char why[1024];
	int r = crypto_fips_new(&crypto, *config ? config : NULL, why, sizeof(why));

	if (r < 0)
		snprintf(why, sizeof(why), "fips: %s", strerror(-r));
	if (r)
		file_write_all(out, why, strlen(why));
	crypto_freep(&crypto);
	_exit(r ? EXIT_FAILURE : EXIT_SUCCESS);
}

static int module_works(const char *config)
{
	__attribute__((cleanup(closep))) int in = -1;
	char why[1024] = "fips: OpenSSL's FIPS module ended the process that tried it";
	int pair[2], status;
	size_t len = 0;
	pid_t pid;

	if (pipe(pair) < 0 || (pid = fork()) < 0) {
		fprintf(stderr, "bulkheadd: cannot try OpenSSL's FIPS module: %s\n", strerror(errno));
		return 1;
	}
	if (pid == 0)
		try_module(config, pair[1]);
	in = pair[0];
	close(pair[1]);
	for (;;) {
		ssize_t n = read(in, why + len, sizeof(why) - 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += (size_t)n;
		why[len] = '\0';
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS)
		return 0;
	fprintf(stderr, "bulkheadd: %s\nbulkheadd: not started: the configuration says fips: " CONFIG_FIPS_REQUIRE "\n",
		why);
	return 1;
}

int fips_prepare(const struct daemon_config *config)
{
	if (strcmp(config->fips, CONFIG_FIPS_REQUIRE) != 0)
		return unsetenv(ROLE_FIPS) < 0;
	if (module_works(config->fips_config))
		return 1;
	return setenv(ROLE_FIPS, config->fips_config, 1) < 0;
}

int fips_use(struct crypto **cryptop, const char *role)
{
	const char *config = getenv(ROLE_FIPS);
	char why[1024];
	int r;

	if (config == NULL)
		return 0;
	r = crypto_fips_new(cryptop, config[0] != '\0' ? config : NULL, why, sizeof(why));
	if (r == 1) {
		log_error("%s: %s", role, why);
		return -ENOPKG;
	}
	if (r == 0)
		crypto_use(*cryptop);
	return r;
}
