/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli/attester.h"
#include "cli/cli.h"

static int run(struct cli *cli, int argc, char **argv)
{
	struct attester attester = {.cli = cli};
	bool watch = false;
	sigset_t signals;
	siginfo_t info;
	int code;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--watch"))
			watch = true;
		else if (!strcmp(argv[i], "--svid") && i + 1 < argc)
			attester.svid_path = argv[++i];
		else if (!strcmp(argv[i], "--key") && i + 1 < argc)
			attester.key_path = argv[++i];
		else
			return cli_usage_error(&cmd_attest, "unexpected argument %s, or its value is missing", argv[i]);
	}
	if (!attester.svid_path || !attester.key_path)
		return cli_usage_error(&cmd_attest, "--svid FILE and --key FILE are needed");
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	if (watch)
		sigprocmask(SIG_BLOCK, &signals, NULL);
	code = attester_prove(&attester);
	if (code == CLI_OK)
		attester_print(&attester);
	if (!watch || code == CLI_USAGE)
		return code;
	attester_wait(&attester, &signals, &info);
	return CLI_OK;
}

const struct cli_command cmd_attest = {
	.name = "attest",
	.summary = "Proves an SVID for the cgroup that it is called in",
	.usage = "--svid FILE --key FILE [--watch]",
	.help = "  --svid FILE   certificates in PEM, leaf first\n"
		"  --key FILE    private key of the leaf in PEM\n"
		"  --watch       stay, and renew at half of the remaining life; the files are read again each time. "
		"What\n"
		"                fails is tried again with growing pauses. Ends on SIGTERM or SIGINT with 0\n\n"
		"Exit codes: 0 attested; 1 refused, or the files cannot be used; 3 no daemon.\n",
	.run = run,
	.streams = true,
};
