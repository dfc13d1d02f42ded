/* SPDX-License-Identifier: Apache-2.0 */
/*
 * privileges.h - the capabilities of the enforcer: what it keeps, and what it raises for a moment only.
 */
#ifndef BULKHEAD_DAEMON_PRIVILEGES_H
#define BULKHEAD_DAEMON_PRIVILEGES_H

/*
 * Keeps what the enforcer needs and drops everything else for good, from the bounding set too:
 *   effective: BPF, NET_ADMIN (links, maps, sock_diag), PERFMON (loading without the unprivileged verifier's rewrites),
 *              SETUID, SETGID, SETPCAP (starting the roles as nobody), KILL (ending them)
 *   permitted only, raised by privileges_raise(): SYS_ADMIN, SYS_PTRACE (entering a workload's network namespace),
 *              DAC_OVERRIDE (making the managed subtree again: the hierarchy's root is writable by nobody)
 * Returns 0 or -EPERM.
 */
int privileges_drop(void);
/* Raises and lowers the permitted-only ones. Failure leaves them low; what needs them then fails with EPERM. */
void privileges_raise(void);
void privileges_lower(void);

#endif
