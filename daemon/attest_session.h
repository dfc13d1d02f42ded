/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attest_session.h - the daemon's side of one attestation, from accept() to RESULT.
 *
 * Who the peer is comes from the kernel alone: SO_PEERPIDFD names the process that connected, SCM_PIDFD the one that sent
 * each message, and both must be one process, alive, in the cgroup that was challenged, at every step. Nothing a message
 * says about its sender is used. A kernel that cannot tell (before 6.13) is no reason to believe less: the connection is
 * refused, unless the operator allowed the enforcer to look into /proc (`allow_proc_fallback`); then SCM_CREDENTIALS stands in
 * for SCM_PIDFD, and the proof must come from the pid that the pidfd holds.
 *
 * A connection has 5 s in all until its PROOF is there, so one that stalls, or trickles, holds its place no longer. After a
 * RESULT that is ok the connection stays open, so that the workload notices when the daemon goes; after any other it is
 * closed.
 *
 * The enforcer's queue is shared by all. A proof that finds it full waits, before any refusal; refusals are told in part and in
 * sum (refusals.h).
 */
#ifndef BULKHEAD_DAEMON_ATTEST_SESSION_H
#define BULKHEAD_DAEMON_ATTEST_SESSION_H

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "identity/attest.h"
#include "identity/svid.h"
#include "attest_places.h"
#include "ipc.h"
#include "refusals.h"

#define ATTEST_MAX_IDLE 4096 /* connections that stay open after their RESULT */

struct attest_session;

/* What the sessions of one socket share. The role owns it and everything in it. */
struct attest_server {
	sd_event *event;	     /* borrowed */
	int ipc_fd;		     /* to the enforcer, non-blocking; borrowed */
	sd_event_source *ipc_source; /* of it; borrowed */
	bool is_full;		     /* it takes no more: what has to be told waits for room */
	struct bundle_set *bundles;
	struct chains *chains;	 /* of identities in force */
	bool chains_full;	 /* and that was told */
	unsigned bundle_changes; /* counts; a chain verified before the last one is verified again */
	uint8_t boot_id[16];
	struct attest_session *sessions;
	struct attest_places places;
	struct refusals *refusals;
	sd_event_source *tell_timer; /* while refusals are held */
	unsigned idle;
	unsigned idle_max;
	uint64_t requests; /* number of the last tag request */
	uint8_t buffer[ATTEST_MAX_PACKET];
};

/* Asks the kernel to name the sender of each message. Returns 0, or -errno where it cannot. */
int attest_socket_prepare(int sock);
/* Serves a connection; takes `fd`. */
void attest_session_new(struct attest_server *server, int fd);
/* Who vouches for a verified chain. `vouchers` is all 0. */
void attest_vouchers(const struct svid_verdict *verdict, struct ipc_voucher vouchers[IPC_VOUCHERS]);
/* Passes what the enforcer found out about a peer to the session that asked; takes `pidfd` (-1: none). */
void attest_session_peer(struct attest_server *server, const struct ipc_peer_facts *facts, int pidfd);
/* Passes the enforcer's answer to the session that waits for it, if it still does. */
void attest_session_reply(struct attest_server *server, const struct ipc_tag_reply *reply);
/* The enforcer takes packets again: proofs that waited first. Returns 0 or -errno. */
int attest_server_on_room(struct attest_server *server);
/* Has attest_server_on_room() called when there is room. Returns 0 or -errno. */
int attest_server_await_room(struct attest_server *server);
void attest_server_close(struct attest_server *server);

#endif
