/* SPDX-License-Identifier: Apache-2.0 */
#include "attest_internal.h"

#include <errno.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tag_request.h"

#define NS_PER_S 1000000000ULL

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* The enforcer has its own time: what the peer took is not counted there. */
static int session_await_enforcer(struct attest_session *session)
{
	int r = sd_event_source_set_time_relative(session->timer, ATTEST_STEP_USEC);

	session->state = WAIT_ROOM;
	session->place->kept = true;
	session->attempt->request = ++session->server->requests;
	return r < 0 ? r : sd_event_source_set_enabled(session->timer, SD_EVENT_ONESHOT);
}

/* The peer as it is now. Read from /proc, only that it lives: the enforcer looks again where it is. */
static int session_query_peer(const struct attest_session *session, struct process_facts *facts)
{
	if (!session->by_proc)
		return process_query(session->pidfd, facts);
	*facts = session->peer;
	return process_alive(session->pidfd);
}

static int send_challenge(struct attest_session *session)
{
	struct attempt *attempt = session->attempt;
	struct attest_challenge *challenge = &attempt->challenge;

	challenge->cgroup_id = session->peer.cgroup_id;
	challenge->pidfd_inode = session->peer.inode;
	challenge->issued_ns = clock_ns(CLOCK_BOOTTIME);
	challenge->ttl_ms = ATTEST_TTL_MS;
	memcpy(challenge->boot_id, session->server->boot_id, sizeof(challenge->boot_id));
	memcpy(challenge->leaf_sha256, attempt->verdict.leaf_sha256, sizeof(challenge->leaf_sha256));
	if (RAND_bytes(challenge->nonce, sizeof(challenge->nonce)) != 1)
		return -EIO;
	attempt->challenge_len =
		attest_challenge_encode(attempt->challenge_packet, sizeof(attempt->challenge_packet), challenge);
	return session_send(session, attempt->challenge_packet, attempt->challenge_len);
}

static int verify_chain(struct attest_session *session)
{
	struct attempt *attempt = session->attempt;

	attempt->bundle_changes = session->server->bundle_changes;
	return svid_verify(attempt->chain, session->server->bundles, time(NULL), &attempt->verdict);
}

static int on_hello(struct attest_session *session, size_t len)
{
	const uint8_t *der[SVID_MAX_CERTIFICATES];
	size_t der_len[SVID_MAX_CERTIFICATES], n;
	struct attempt *attempt = session->attempt;
	int r;

	if (attest_hello_decode_device(session->server->buffer, len, der, der_len, &n, &attempt->device) < 0)
		return session_refuse(session, ATTEST_E_PROTOCOL, "the first message is no HELLO of version %d or %d",
				      ATTEST_VERSION, ATTEST_VERSION_DEVICE);
	r = svid_chain_parse_der(&attempt->chain, der, der_len, n, &attempt->verdict);
	if (r == 0)
		r = verify_chain(session);
	if (r == 1)
		return session_refuse_svid(session);
	if (r < 0)
		return session_refuse_fault(session, "cannot verify the chain", r);
	attempt->challenge.sigalg = attest_sigalg_for(svid_chain_leaf_key(attempt->chain));
	if (attempt->challenge.sigalg == 0)
		return session_refuse(session, ATTEST_E_SIGNATURE,
				      "the leaf's key is none of P-256, P-384, P-521, RSA and Ed25519");
	attempt->hello = malloc(len);
	if (attempt->hello == NULL)
		return session_refuse_fault(session, "cannot keep the HELLO", -ENOMEM);
	memcpy(attempt->hello, session->server->buffer, len);
	attempt->hello_len = len;

	r = session_query_peer(session, &session->peer);
	if (r < 0)
		return session_refuse_peer(session, r);
	r = send_challenge(session);
	session->state = WAIT_PROOF;
	if (r == -EPIPE || r == -ECONNRESET) { /* it wants no answer: nothing to tell anybody */
		session_free(session);
		return 0;
	}
	return r < 0 ? session_refuse_fault(session, "cannot send the challenge", r) : 0;
}

/* 0: the proof holds. Else the session is gone, and 1. */
static int check_proof(struct attest_session *session, size_t len)
{
	struct attempt *attempt = session->attempt;
	const uint8_t *sig;
	uint16_t sigalg;
	size_t sig_len;

	if (attest_proof_decode(session->server->buffer, len, &sigalg, &sig, &sig_len) < 0)
		return session_refuse(session, ATTEST_E_PROTOCOL, "the second message is no PROOF"), 1;
	if (clock_ns(CLOCK_BOOTTIME) - attempt->challenge.issued_ns > ATTEST_TTL_MS * 1000000ULL)
		return session_refuse(session, ATTEST_E_EXPIRED, "the proof came more than %d ms after its challenge",
				      ATTEST_TTL_MS),
		       1;
	if (sigalg != attempt->challenge.sigalg)
		return session_refuse(session, ATTEST_E_SIGNATURE,
				      "the proof uses algorithm 0x%04x, not 0x%04x as challenged", sigalg,
				      attempt->challenge.sigalg),
		       1;
	if (attest_verify(svid_chain_leaf_key(attempt->chain), sigalg, attempt->hello, attempt->hello_len,
			  attempt->challenge_packet, attempt->challenge_len, sig, sig_len) < 0)
		return session_refuse(session, ATTEST_E_SIGNATURE, "the proof does not verify with the leaf's key"), 1;
	return 0;
}

/* 0: what was found before the challenge still holds. Else the session is gone, and 1. */
static int check_again(struct attest_session *session)
{
	struct attempt *attempt = session->attempt;
	struct process_facts now;
	int r = attempt->bundle_changes != session->server->bundle_changes ? verify_chain(session) : 0;

	if (r == 1)
		return session_refuse_svid(session), 1;
	if (r < 0)
		return session_refuse_fault(session, "cannot verify the chain", r), 1;
	r = session_query_peer(session, &now);
	if (r < 0)
		return session_refuse_peer(session, r), 1;
	if (now.cgroup_id != attempt->challenge.cgroup_id)
		return session_refuse(
			       session, ATTEST_E_CGROUP_MOVED, "the process moved from cgroup %llu to %llu meanwhile",
			       (unsigned long long)attempt->challenge.cgroup_id, (unsigned long long)now.cgroup_id),
		       1;
	return 0;
}

int session_ask_tag(struct attest_session *session)
{
	struct attempt *attempt = session->attempt;
	struct ipc_tag_request request;
	int r;

	if (check_again(session) != 0)
		return 0;
	session_fill_request(session, &request, IPC_TAG_REQUEST);
	request.deadline_ns = tag_request_deadline(request.not_after);
	if (request.deadline_ns == 0) {
		char text[512];

		svid_refusal_text(62, "the path expired during the attestation", text, sizeof(text));
		return session_refuse(session, ATTEST_E_SVID + 62, "%s", text);
	}
	memcpy(request.text, attempt->verdict.note, sizeof(attempt->verdict.note));
	r = ipc_send(session->server->ipc_fd, &request, session->pidfd);
	if (r == -EAGAIN)
		r = attest_server_await_room(session->server);
	else if (r == 0)
		session->state = WAIT_TAG;
	return r < 0 ? session_refuse_fault(session, "cannot ask the enforcer for the tag", r) : 0;
}

static int on_proof(struct attest_session *session, size_t len)
{
	int r;

	if (check_proof(session, len) != 0)
		return 0;
	r = session_await_enforcer(session);
	if (r < 0)
		return session_refuse_fault(session, "cannot wait for the enforcer", r);
	return session->server->is_full ? 0 : session_ask_tag(session);
}

int session_on_message(struct attest_session *session, size_t len)
{
	if (session->state == WAIT_HELLO)
		return on_hello(session, len);
	if (session->state == WAIT_PROOF)
		return on_proof(session, len);
	return session_refuse(session, ATTEST_E_PROTOCOL, "a message came while the tag was being written");
}
