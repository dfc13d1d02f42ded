/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli/attester.h"
#include "cli/cli.h"

/* Adds an address of the workload behind the device. Returns whether it is one that fits. */
static bool address_add(struct attest_device *device, const char *text)
{
	uint8_t *to;

	if (device->n_addresses == ATTEST_MAX_ADDRESSES)
		return false;
	to = device->addresses[device->n_addresses];
	memset(to, 0, 16);
	if (inet_pton(AF_INET, text, to + 12) == 1)
		memset(to + 10, 0xff, 2);
	else if (inet_pton(AF_INET6, text, to) != 1)
		return false;
	device->n_addresses++;
	return true;
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct attester attester = {.cli = cli};
	struct attest_device *device = &attester.device;
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
		else if (!strcmp(argv[i], "--device") && i + 1 < argc && strlen(argv[i + 1]) < sizeof(device->name))
			strcpy(device->name, argv[++i]);
		else if (!strcmp(argv[i], "--address") && i + 1 < argc) {
			if (!address_add(device, argv[++i]))
				return cli_usage_error(&cmd_attest,
						       "--address %s: no IPv4 or IPv6 address, or more than %d of them",
						       argv[i], ATTEST_MAX_ADDRESSES);
		} else
			return cli_usage_error(&cmd_attest, "unexpected argument %s, or its value is missing", argv[i]);
	}
	if (!attester.svid_path || !attester.key_path)
		return cli_usage_error(&cmd_attest, "--svid FILE and --key FILE are needed");
	if (!device->name[0] != !device->n_addresses)
		return cli_usage_error(
			&cmd_attest,
			"--device NAME and --address ADDRESS belong together: the workload behind the device "
			"sends from these addresses only");
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	if (watch)
		sigprocmask(SIG_BLOCK, &signals, NULL);
	code = attester_prove(&attester);
	if (code == CLI_OK)
		attester_print(&attester);
	if (!watch || attester.hopeless)
		return code;
	attester_wait(&attester, &signals, &info);
	return CLI_OK;
}

const struct cli_command cmd_attest = {
	.name = "attest",
	.summary = "Proves an SVID for the cgroup that it is called in, or for a device",
	.usage = "--svid FILE --key FILE [--device NAME --address ADDRESS...] [--watch]",
	.help = "  --svid FILE   certificates in PEM, leaf first\n"
		"  --key FILE    private key of the leaf in PEM\n"
		"  --device NAME for the workload behind this managed device (a container's veth, a VM's tap) instead "
		"of the own\n"
		"                cgroup. For root of the host only\n"
		"  --address ADDRESS  with --device: an address that the workload has, up to 8 times\n"
		"  --watch       stay, and renew at between 40 and 50 % of the remaining life, or a second after the "
		"files "
		"were\n"
		"                replaced. What fails is tried again with growing pauses. Ends on SIGTERM or SIGINT "
		"with 0\n\n"
		"Exit codes: 0 attested; 1 refused, or no SVID and its key; 2 usage, or a file that cannot be read; 3 "
		"no\n"
		"daemon.\n",
	.run = run,
};
