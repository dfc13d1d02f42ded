/* SPDX-License-Identifier: Apache-2.0 */
/*
 * role_fetcher.h - the role that gets trust bundles from outside: bundle endpoints of foreign trust domains, and the SPIFFE
 * Workload API of this host.
 *
 * It hands bytes to the enforcer, which has the identity role read them; it decides nothing and keeps nothing. Each fetch is
 * a process of its own that holds one end of a pipe and no other descriptor: what an endpoint does to it, it does to this one
 * fetch. Who speaks for which trust domain is never the endpoint's to say: an answer goes by the number of its request.
 */
#ifndef BULKHEAD_DAEMON_ROLE_FETCHER_H
#define BULKHEAD_DAEMON_ROLE_FETCHER_H

/* Runs until the enforcer closes its end. Returns the exit status. */
int role_fetcher_main(int ipc_fd);

#endif
