/* SPDX-License-Identifier: Apache-2.0 */
/*
 * enforcer.h - the process that holds CAP_BPF: it owns the kernel objects, the tags and the revisions, supervises the
 * other roles and answers the operator. It parses no certificate, no YAML, no TLS.
 */
#ifndef BULKHEAD_DAEMON_ENFORCER_H
#define BULKHEAD_DAEMON_ENFORCER_H

#include "config.h"

/* Runs until SIGTERM or SIGINT. Returns the exit status. Enforcement goes on after it. */
int enforcer_run(const struct daemon_config *config);

#endif
