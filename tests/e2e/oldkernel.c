// SPDX-License-Identifier: Apache-2.0
/*
 * oldkernel VERSION CMD [ARGUMENT]... - runs CMD as if the kernel were older, as far as attestation and devices are concerned: a
 * seccomp filter answers as a kernel that has never heard of the request does.
 *
 *   6.12   no PIDFD_GET_INFO (Linux 6.13): ENOTTY
 *   6.5    nor tcx links (Linux 6.6): EINVAL
 *   6.4    nor SO_PEERPIDFD and SO_PASSPIDFD (Linux 6.5): ENOPROTOOPT
 *
 * A filter does not see what a pointer leads to: a tcx link is known by the size of its request, which daemon/device_link.c makes,
 * and which is shorter than that of libbpf for other links.
 */
#include <errno.h>
#include <linux/bpf.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "identity/process.h"

#define IOCTL_PIDFD_GET_INFO 0xff0bU /* type and number; the size in it grew over time */
#define TCX_REQUEST_BYTES 32

static const char *const versions[] = {"6.12", "6.5", "6.4"};

/* How many of the versions, from the newest, the one asked for is below; 0: it is none of them. */
static size_t steps_down(const char *version)
{
	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++)
		if (strcmp(versions[i], version) == 0)
			return i + 1;
	return 0;
}

static int refuse_option(scmp_filter_ctx filter, int call, unsigned option)
{
	return seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOPROTOOPT), call, 2, SCMP_A1(SCMP_CMP_EQ, SOL_SOCKET),
				SCMP_A2(SCMP_CMP_EQ, option));
}

int main(int argc, char **argv)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	size_t steps = argc < 3 ? 0 : steps_down(argv[1]);
	int r = -EINVAL;

	if (!steps) {
		fprintf(stderr, "usage: oldkernel 6.12|6.5|6.4 CMD [ARGUMENT]...\n");
		return 2;
	}
	/* Privileges stay: the daemon needs its own. */
	if (filter)
		r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0);
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOTTY), SCMP_SYS(ioctl), 1,
				     SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffff, IOCTL_PIDFD_GET_INFO));
	if (r == 0 && steps > 1)
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(bpf), 2,
				     SCMP_A0(SCMP_CMP_EQ, BPF_LINK_CREATE), SCMP_A2(SCMP_CMP_EQ, TCX_REQUEST_BYTES));
	if (r == 0 && steps > 2) {
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
