/* SPDX-License-Identifier: Apache-2.0 */
/*
 * role_metrics.h - the role that answers who scrapes: HTTP on a listening socket that it was given.
 *
 * It has no rights and no numbers of its own: for each answer it asks the enforcer for a snapshot, at most once a second, and
 * makes text of it. What others send meets narrow bounds: the size of a request, the time for it, the number of
 * connections; when all places are taken, the connection that has been there longest gives way.
 */
#ifndef BULKHEAD_DAEMON_ROLE_METRICS_H
#define BULKHEAD_DAEMON_ROLE_METRICS_H

/* Runs until the enforcer closes its end. Returns the exit status. */
int role_metrics_main(int ipc_fd, int listen_fd);

#endif
