/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attest_internal.h - a session as its three files see it: attest_session.c (its life: the place, the peer, events),
 * attest_exchange.c (what is said) and attest_outcome.c (how it ends, and who is told).
 */
#ifndef BULKHEAD_DAEMON_ATTEST_INTERNAL_H
#define BULKHEAD_DAEMON_ATTEST_INTERNAL_H

#include "attest_session.h"

#include "identity/process.h"

#define ATTEST_STEP_USEC 5000000ULL

enum session_state {
	WAIT_PEER, /* for the enforcer, where only it can tell who connected */
	WAIT_HELLO,
	WAIT_PROOF,
	WAIT_ROOM, /* proved; for the enforcer to take the request */
	WAIT_TAG,  /* for the enforcer */
	DONE,	   /* open as a sign of life only */
};

/* What is needed until the RESULT; an idle connection holds none of it. */
struct attempt {
	uint8_t *hello;
	size_t hello_len;
	struct attest_challenge challenge;
	uint8_t challenge_packet[160];
	size_t challenge_len;
	struct attest_device device; /* asked for, or "" */
	struct svid_chain *chain;
	struct svid_verdict verdict;
	unsigned bundle_changes; /* when `chain` was verified */
	uint64_t request;
};

struct attest_session {
	struct attest_server *server;
	struct attest_session *next, *previous;
	enum session_state state;
	int fd;
	int pidfd;
	uid_t uid;
	bool by_proc; /* who it is was read from /proc */
	uint64_t accepted_ns;
	struct process_facts peer;
	struct attempt *attempt;
	struct attest_place *place; /* while it is under way */
	sd_event_source *io;
	sd_event_source *timer;
};

/* ---- attest_session.c ---- */

void session_free(struct attest_session *session);
/* It has its RESULT and stays open; or, if there are enough such connections, does not. */
void session_rest(struct attest_session *session);

/* ---- attest_exchange.c ---- */

/* The next message of the peer, `len` bytes in the server's buffer. For event handlers: returns 0. */
int session_on_message(struct attest_session *session, size_t len);
/* Asks the enforcer for the tag, or waits until it takes the request. The session may be gone after it. */
int session_ask_tag(struct attest_session *session);

/* ---- attest_outcome.c ---- */

int session_send(struct attest_session *session, const uint8_t *packet, size_t len);
void session_fill_request(const struct attest_session *session, struct ipc_tag_request *request, uint32_t type);
/* Each tells the peer and, for the audit log, the enforcer; ends the session. They return 0, for event handlers. */
__attribute__((format(printf, 3, 4))) int session_refuse(struct attest_session *session, unsigned code,
							 const char *format, ...);
int session_refuse_svid(struct attest_session *session);
int session_refuse_fault(struct attest_session *session, const char *what, int error);
int session_refuse_peer(struct attest_session *session, int error);
/* Sends what is held of refusals, as far as there is room. */
void attest_server_tell_refusals(struct attest_server *server);

#endif
