/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fips.h - a daemon that is bound to OpenSSL's FIPS module does not start without it.
 *
 * The identity role, which verifies and draws challenges, and the fetcher role, which speaks TLS, load the module and use nothing
 * else (identity/crypto.h). Whether it can is found out beforehand, in a child, so that the daemon has not touched anything yet when it
 * refuses, and the process that holds CAP_BPF never has the module in it.
 */
#ifndef BULKHEAD_DAEMON_FIPS_H
#define BULKHEAD_DAEMON_FIPS_H

#include "config.h"

/* Tells the roles, which are started later, what the configuration asks for. Returns 0, or 1 after saying on
 * stderr what the module lacks. */
int fips_prepare(const struct daemon_config *config);

struct crypto;

/* In a role that was told so: the module is what this thread uses until *cryptop is freed; else *cryptop stays NULL. Before
 * anything else is done with OpenSSL. Returns 0, -ENOPKG after logging what the module lacks, or -ENOMEM. */
int fips_use(struct crypto **cryptop, const char *role);

#endif
