/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fips.h - a daemon that is bound to OpenSSL's FIPS module does not start without it.
 *
 * The identity role loads the module and uses nothing else (identity/crypto.h); it is the only role that verifies and draws
 * challenges. Whether it can is found out beforehand, in a child, so that the daemon has not touched anything yet when it
 * refuses, and the process that holds CAP_BPF never has the module in it.
 */
#ifndef BULKHEAD_DAEMON_FIPS_H
#define BULKHEAD_DAEMON_FIPS_H

#include "config.h"

/* Tells the identity role, which is started later, what the configuration asks for. Returns 0, or 1 after saying on
 * stderr what the module lacks. */
int fips_prepare(const struct daemon_config *config);

#endif
