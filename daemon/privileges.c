// SPDX-License-Identifier: Apache-2.0
#include "privileges.h"

#include <cap-ng.h>
#include <errno.h>
#include <sys/prctl.h>

static const unsigned kept[] = {CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SETUID, CAP_SETGID, CAP_SETPCAP, CAP_KILL};
static const unsigned raised[] = {CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_DAC_OVERRIDE};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

int privileges_drop(void)
{
	capng_clear(CAPNG_SELECT_BOTH);
	for (unsigned i = 0; i < COUNT(kept); i++)
		capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_BOUNDING_SET, kept[i]);
	for (unsigned i = 0; i < COUNT(raised); i++)
		capng_update(CAPNG_ADD, CAPNG_PERMITTED | CAPNG_BOUNDING_SET, raised[i]);
	if (capng_apply(CAPNG_SELECT_BOTH) != 0)
		return -EPERM;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

static void switch_raised(capng_act_t action)
{
	capng_get_caps_process();
	for (unsigned i = 0; i < COUNT(raised); i++)
		capng_update(action, CAPNG_EFFECTIVE, raised[i]);
	capng_apply(CAPNG_SELECT_CAPS);
}

void privileges_raise(void)
{
	switch_raised(CAPNG_ADD);
}

void privileges_lower(void)
{
	switch_raised(CAPNG_DROP);
}
