/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attester.h - proves an SVID for the cgroup of the calling process, once or for as long as it runs.
 *
 * The files are read again for each proof, and looked at once a second: an SVID that was rotated in place is proved a second
 * after it settled. While it stays, it renews at between 40 and 50 % of the remaining life, so that not all do at once, and at once
 * when the daemon has made its socket anew: a daemon that did not take over what was enforced has no tags. Whatever fails is tried again with growing pauses.
 */
#ifndef BULKHEAD_CLI_ATTESTER_H
#define BULKHEAD_CLI_ATTESTER_H

#include <signal.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "identity/attest.h"

struct attester {
	struct cli *cli;
	const char *svid_path;
	const char *key_path;
	struct attest_device device; /* for the workload behind it; name "": for the own cgroup */
	bool quiet;		     /* renewals are not printed */
	/* of the last proof */
	char spiffe_id[SPIFFE_ID_MAX + 1];
	const char *chain_hint; /* what is odd in the file of the chain, or NULL */
	struct attest_result result;
	struct stat socket; /* st_ino 0: not there */
	char problem[1024]; /* last one told, so that a repeated one is not told again */
	int code;	    /* of the last attester_prove */
	bool hopeless;	    /* no later proof can do better */
	int64_t proved_s;   /* CLOCK_BOOTTIME of it */
	int64_t backoff_s;
	int64_t renew_s;		 /* CLOCK_BOOTTIME */
	struct stat svid_file, key_file; /* as they were when they were last looked at */
	bool files_changed;		 /* at the last look */
};

/* Attests once; while the daemon has no place for it, asks again for up to 10 s. Returns CLI_OK; CLI_NO (refused, or the SVID
 * cannot be used), CLI_USAGE (a file cannot be read) or CLI_UNREACHABLE, having said why. */
int attester_prove(struct attester *attester);
/* Prints the last proof: "attested ID until TIME (cgroup N)" or "(device NAME)", or as JSON on one line. */
void attester_print(const struct attester *attester);

/*
 * Waits for a signal of `signals` (blocked by the caller), and proves again whenever that is due. Comes after a first
 * attester_prove, and may be called again after each signal.
 */
void attester_wait(struct attester *attester, const sigset_t *signals, siginfo_t *info);

#endif
