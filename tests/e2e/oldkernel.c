// SPDX-License-Identifier: Apache-2.0
/*
 * oldkernel VERSION CMD [ARGUMENT]... - runs CMD as if the kernel were older, as far as attestation is concerned: a seccomp
 * filter answers as a kernel that has never heard of the request does.
 *
 *   6.12   no PIDFD_GET_INFO (Linux 6.13): ENOTTY
 *   6.4    nor SO_PEERPIDFD and SO_PASSPIDFD (Linux 6.5): ENOPROTOOPT
 */
#include <errno.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "identity/process.h"

#define IOCTL_PIDFD_GET_INFO 0xff0bU /* type and number; the size in it grew over time */

static int refuse_option(scmp_filter_ctx filter, int call, unsigned option)
{
	return seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOPROTOOPT), call, 2, SCMP_A1(SCMP_CMP_EQ, SOL_SOCKET),
				SCMP_A2(SCMP_CMP_EQ, option));
}

int main(int argc, char **argv)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	int r = -EINVAL;

	if (argc < 3 || (strcmp(argv[1], "6.12") != 0 && strcmp(argv[1], "6.4") != 0)) {
		fprintf(stderr, "usage: oldkernel 6.12|6.4 CMD [ARGUMENT]...\n");
		return 2;
	}
	/* Privileges stay: the daemon needs its own. */
	if (filter)
		r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0);
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOTTY), SCMP_SYS(ioctl), 1,
				     SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffff, IOCTL_PIDFD_GET_INFO));
	if (r == 0 && strcmp(argv[1], "6.4") == 0) {
		r = refuse_option(filter, SCMP_SYS(getsockopt), PROCESS_SO_PEERPIDFD);
		if (r == 0)
			r = refuse_option(filter, SCMP_SYS(setsockopt), PROCESS_SO_PASSPIDFD);
	}
	if (r == 0)
		r = seccomp_load(filter);
	seccomp_release(filter);
	if (r < 0) {
		fprintf(stderr, "oldkernel: %s\n", strerror(-r));
		return 1;
	}
	execvp(argv[2], argv + 2);
	fprintf(stderr, "oldkernel: cannot execute %s: %s\n", argv[2], strerror(errno));
	return 127;
}
