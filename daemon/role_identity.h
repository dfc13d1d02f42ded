/* SPDX-License-Identifier: Apache-2.0 */
/*
 * role_identity.h - the identity role: attestation socket, certificates, trust bundles.
 *
 * It reads what any local process may send, so it has no rights of its own: it can only ask the enforcer to tag a cgroup,
 * and passes the peer's pidfd along so that the enforcer asks the kernel again. Certificates and bundles are parsed here
 * and nowhere else in the daemon.
 */
#ifndef BULKHEAD_DAEMON_ROLE_IDENTITY_H
#define BULKHEAD_DAEMON_ROLE_IDENTITY_H

/* In the environment of a role that is to use the FIPS module only (identity/crypto.h): the file of its configuration, or
 * "". Without the module the role does not start. */
#define ROLE_FIPS "BULKHEAD_ROLE_FIPS"

/* Runs the role in this process until the enforcer closes its end of `ipc_fd`. `listen_fd` is the listening SOCK_SEQPACKET
 * attestation socket. Answers IPC_BUNDLE by IPC_BUNDLE_LOADED (a removed trust domain by 0 authorities). Returns the exit
 * status. */
int role_identity_main(int ipc_fd, int listen_fd);

#endif
