/* SPDX-License-Identifier: Apache-2.0 */
#include "attest_session.h"

#include <errno.h>
#include <openssl/rand.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "attest_message.h"
#include "chains.h"
#include "identity/process.h"
#include "log.h"
#include "tag_request.h"

#define NS_PER_S 1000000000ULL
#define STEP_USEC 5000000ULL

enum session_state {
	WAIT_PEER, /* for the enforcer, where only it can tell who connected */
	WAIT_HELLO,
	WAIT_PROOF,
	WAIT_TAG, /* for the enforcer */
	DONE,	  /* open as a sign of life only */
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
	sd_event_source *io;
	sd_event_source *timer;
};

static void attempt_freep(struct attempt **attemptp)
{
	struct attempt *attempt = *attemptp;

	if (attempt == NULL)
		return;
	free(attempt->hello);
	svid_chain_freep(&attempt->chain);
	free(attempt);
	*attemptp = NULL;
}

static void session_end_attempt(struct attest_session *session)
{
	attempt_freep(&session->attempt);
	if (session->pidfd >= 0)
		close(session->pidfd);
	session->pidfd = -1;
	session->timer = sd_event_source_disable_unref(session->timer);
}

static void session_free(struct attest_session *session)
{
	struct attest_server *server = session->server;

	if (session->state == DONE)
		server->idle--;
	else
		server->pending--;
	if (session->previous != NULL)
		session->previous->next = session->next;
	else
		server->sessions = session->next;
	if (session->next != NULL)
		session->next->previous = session->previous;
	session_end_attempt(session);
	sd_event_source_disable_unref(session->io);
	close(session->fd);
	free(session);
}

void attest_server_close(struct attest_server *server)
{
	while (server->sessions != NULL)
		session_free(server->sessions);
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* ---- telling the outcome ---- */

static int session_send(struct attest_session *session, const uint8_t *packet, size_t len)
{
	if (len == 0)
		return -EMSGSIZE;
	return send(session->fd, packet, len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static int session_send_result(struct attest_session *session, const struct attest_result *result)
{
	uint8_t packet[1024];

	return session_send(session, packet, attest_result_encode(packet, sizeof(packet), result));
}

/* Closing with unread packets in the queue would make the peer read ECONNRESET before the RESULT. */
static void session_drain(struct attest_session *session)
{
	shutdown(session->fd, SHUT_RD);
	for (int i = 0; i < 16; i++) {
		if (recv(session->fd, session->server->buffer, sizeof(session->server->buffer), MSG_DONTWAIT) <= 0)
			return;
	}
}

static void session_answer_no(struct attest_session *session, unsigned code, const char *text)
{
	struct attest_result result = {.code = code};

	snprintf(result.text, sizeof(result.text), "%s", text);
	session_drain(session);
	session_send_result(session, &result);
	session_free(session);
}

void attest_vouchers(const struct svid_verdict *verdict, struct ipc_voucher vouchers[IPC_VOUCHERS])
{
	for (unsigned i = 0; i < verdict->n_anchors && i < IPC_VOUCHERS; i++) {
		memcpy(vouchers[i].authority, verdict->anchors[i].id, sizeof(vouchers[i].authority));
		vouchers[i].not_after = verdict->anchors[i].not_after;
	}
}

static void fill_request(const struct attest_session *session, struct ipc_tag_request *request, uint32_t type)
{
	tag_request_begin(request, type, &session->attempt->verdict);
	request->request = session->attempt->request;
	request->cgroup_id = session->peer.cgroup_id;
	request->pid = (uint32_t)session->peer.pid;
	request->uid = session->uid;
	memcpy(request->device, session->attempt->device.name, sizeof(request->device));
	request->n_addresses = session->attempt->device.n_addresses;
	memcpy(request->addresses, session->attempt->device.addresses, sizeof(request->addresses));
	attest_vouchers(&session->attempt->verdict, request->vouchers);
}

/* Tells the peer and, for the audit log, the enforcer; ends the session. The queue to the enforcer may be full of such
 * notices: attestation must not wait for that, so they are counted instead. Returns 0, for event handlers. */
__attribute__((format(printf, 3, 4))) static int session_refuse(struct attest_session *session, unsigned code,
								const char *format, ...)
{
	struct ipc_tag_request notice;
	va_list args;

	fill_request(session, &notice, IPC_ATTEST_REFUSED);
	notice.code = code;
	va_start(args, format);
	vsnprintf(notice.text, sizeof(notice.text), format, args);
	va_end(args);
	if (ipc_send(session->server->ipc_fd, &notice, -1) < 0) {
		session->server->refusals_untold++;
		log_warning("identity: refusal not told to the enforcer (%llu so far): %s",
			    (unsigned long long)session->server->refusals_untold, notice.text);
	}
	session_answer_no(session, code, notice.text);
	return 0;
}

static int session_refuse_svid(struct attest_session *session)
{
	char text[512];

	svid_verdict_text(&session->attempt->verdict, text, sizeof(text));
	return session_refuse(session, ATTEST_E_SVID + (unsigned)session->attempt->verdict.rule, "%s", text);
}

static int session_refuse_fault(struct attest_session *session, const char *what, int error)
{
	log_error("identity: %s: %s", what, strerror(-error));
	return session_refuse(session, ATTEST_E_INTERNAL, "%s: %s", what, strerror(-error));
}

static int session_refuse_peer(struct attest_session *session, int error)
{
	if (error == -ESRCH)
		return session_refuse(session, ATTEST_E_PEER_GONE, "the connecting process has ended");
	if (error == -EAGAIN)
		return session_refuse(session, ATTEST_E_FULL,
				      "bulkheadd has too many attestations under way; try again");
	if (error == -EXDEV)
		return session_refuse(session, ATTEST_E_CGROUP_UNMANAGED,
				      "the connecting process is in a cgroup outside of what bulkheadd sees");
	return session_refuse(session, ATTEST_E_NO_PIDFD,
			      "the kernel does not tell the cgroup of the connecting process: %s (Linux 6.13 does; on "
			      "an older one set allow_proc_fallback: true, see docs/attestation.md)",
			      strerror(-error));
}

/* ---- receiving ---- */

/* Is the sender the process that connected? Where pidfds have no inode of their own, its pid, which is nobody else's as long
 * as the process lives: that is asked when the message is here. A HELLO may be of a process that had the pid before;
 * the PROOF answers a challenge that was made while this one lived. */
static bool is_sender(const struct attest_session *session, const struct attest_message *message)
{
	struct stat st;

	if (session->by_proc)
		return message->pid == session->peer.pid;
	return fstat(message->pidfd, &st) == 0 && st.st_ino == session->peer.inode;
}

/* 0: the message is from the process that connected. Else the session is gone, and 1. */
static int session_check_sender(struct attest_session *session, const struct attest_message *message)
{
	bool same;

	if (message->pidfd < 0 && message->pidfd != -ENOPROTOOPT) {
		session_refuse(session, ATTEST_E_PEER_GONE, "the sender of a message has ended");
		return 1;
	}
	if (message->pidfd < 0 && !session->by_proc) {
		session_refuse(session, ATTEST_E_NO_PIDFD,
			       "the kernel does not name the sender of messages (Linux 6.5 does)");
		return 1;
	}
	same = is_sender(session, message);
	if (message->pidfd >= 0)
		close(message->pidfd);
	if (!same) {
		session_refuse(session, ATTEST_E_PEER_DIFFERS,
			       "the message was sent by another process than the one that connected (pid %d)",
			       session->peer.pid);
		return 1;
	}
	if (message->rights || message->truncated) {
		session_refuse(session, ATTEST_E_PROTOCOL, "the message is too long or carries descriptors");
		return 1;
	}
	return 0;
}

/* ---- steps ---- */

/* The enforcer has its own time: what the peer took is not counted there. */
static int session_await_tag(struct attest_session *session)
{
	int r = sd_event_source_set_time_relative(session->timer, STEP_USEC);

	session->state = WAIT_TAG;
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

static int on_proof(struct attest_session *session, size_t len)
{
	struct attempt *attempt = session->attempt;
	struct process_facts now;
	struct ipc_tag_request request;
	int r;

	if (check_proof(session, len) != 0)
		return 0;
	r = attempt->bundle_changes != session->server->bundle_changes ? verify_chain(session) : 0;
	if (r == 1)
		return session_refuse_svid(session);
	if (r < 0)
		return session_refuse_fault(session, "cannot verify the chain", r);
	r = session_query_peer(session, &now);
	if (r < 0)
		return session_refuse_peer(session, r);
	if (now.cgroup_id != attempt->challenge.cgroup_id)
		return session_refuse(
			session, ATTEST_E_CGROUP_MOVED, "the process moved from cgroup %llu to %llu meanwhile",
			(unsigned long long)attempt->challenge.cgroup_id, (unsigned long long)now.cgroup_id);

	attempt->request = ++session->server->requests;
	fill_request(session, &request, IPC_TAG_REQUEST);
	request.deadline_ns = tag_request_deadline(request.not_after);
	if (request.deadline_ns == 0) {
		char text[512];

		svid_refusal_text(62, "the path expired during the attestation", text, sizeof(text));
		return session_refuse(session, ATTEST_E_SVID + 62, "%s", text);
	}
	memcpy(request.text, attempt->verdict.note, sizeof(attempt->verdict.note));
	r = ipc_send(session->server->ipc_fd, &request, session->pidfd);
	if (r == -EAGAIN)
		return session_refuse(session, ATTEST_E_FULL,
				      "bulkheadd has too many attestations under way; try again");
	if (r == 0)
		r = session_await_tag(session);
	return r < 0 ? session_refuse_fault(session, "cannot ask the enforcer for the tag", r) : 0;
}

static void keep_chain(struct attest_session *session, uint64_t key)
{
	struct attest_server *server = session->server;
	int r = chains_keep(server->chains, key, session->attempt->chain, &session->attempt->verdict);

	if (r < 0 && !server->chains_full)
		log_warning(
			"identity: the chain of %s is not kept (%s), nor may others be: where an authority is issued "
			"anew, such workloads have to attest again",
			session->attempt->verdict.spiffe_id, r == -ENOSPC ? "there is no room" : strerror(-r));
	server->chains_full = r < 0;
}

static void session_answer_ok(struct attest_session *session, const struct ipc_tag_reply *reply)
{
	struct attest_server *server = session->server;
	struct attest_result result = {
		.code = ATTEST_OK,
		.valid_until = (uint64_t)reply->not_after,
		.cgroup_id = reply->cgroup_id,
	};
	uint64_t now = (uint64_t)time(NULL);

	keep_chain(session, reply->key);
	result.renew_after = result.valid_until > now ? now + (result.valid_until - now) / 2 : now;
	memcpy(result.text, reply->text, sizeof(result.text));
	if (session_send_result(session, &result) < 0 || server->idle >= server->idle_max) {
		session_free(session);
		return;
	}
	server->pending--;
	server->idle++;
	session->state = DONE;
	session_end_attempt(session);
}

/* The enforcer has put its own refusals into the audit log already. */
void attest_session_reply(struct attest_server *server, const struct ipc_tag_reply *reply)
{
	for (struct attest_session *session = server->sessions; session != NULL; session = session->next) {
		if (session->state != WAIT_TAG || session->attempt->request != reply->request)
			continue;
		if (reply->code == ATTEST_OK)
			session_answer_ok(session, reply);
		else
			session_answer_no(session, reply->code, reply->text);
		return;
	}
}

/* ---- events ---- */

static int on_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct attest_session *session = userdata;
	struct attest_message message;
	int r;

	(void)source;
	(void)fd;
	if (session->state == DONE || !(events & EPOLLIN)) {
		session_free(session);
		return 0;
	}
	r = attest_message_receive(session->fd, session->server->buffer, sizeof(session->server->buffer), &message);
	if (r == -EAGAIN || r == -EINTR)
		return 0;
	if (r <= 0) {
		session_free(session);
		return 0;
	}
	if (session_check_sender(session, &message) != 0)
		return 0;
	if (session->state == WAIT_HELLO)
		return on_hello(session, message.len);
	if (session->state == WAIT_PROOF)
		return on_proof(session, message.len);
	return session_refuse(session, ATTEST_E_PROTOCOL, "a message came while the tag was being written");
}

static int on_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct attest_session *session = userdata;

	(void)source;
	(void)usec;
	if (session->state == WAIT_HELLO)
		return session_refuse(session, ATTEST_E_PROTOCOL, "no HELLO came within 5 s");
	if (session->state == WAIT_PROOF)
		return session_refuse(session, ATTEST_E_EXPIRED, "no PROOF came within 5 s of the connection");
	return session_refuse(session, ATTEST_E_INTERNAL, "the enforcer did not answer within 5 s");
}

int attest_socket_prepare(int sock)
{
	int on = 1;

	if (setsockopt(sock, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0)
		return -errno;
	if (setsockopt(sock, SOL_SOCKET, PROCESS_SO_PASSPIDFD, &on, sizeof(on)) < 0)
		return errno == ENOPROTOOPT ? -EOPNOTSUPP : -errno;
	return 0;
}

static int session_identify(struct attest_session *session)
{
	socklen_t len = sizeof(session->pidfd);
	int r = attest_socket_prepare(session->fd);

	if (r < 0)
		return r;
	if (getsockopt(session->fd, SOL_SOCKET, PROCESS_SO_PEERPIDFD, &session->pidfd, &len) < 0) {
		session->pidfd = -1;
		return errno == ENOPROTOOPT ? -EOPNOTSUPP : -ESRCH;
	}
	return process_query(session->pidfd, &session->peer);
}

/* A bare pid may name another process by the time it is looked at, and there is no /proc here: the enforcer may look, if it
 * is allowed to. */
static int session_ask_peer(struct attest_session *session)
{
	struct ipc_peer_query query = {.h = {.type = IPC_PEER_QUERY, .len = sizeof(query)}};

	if (session->pidfd >= 0)
		close(session->pidfd);
	session->pidfd = -1;
	session->by_proc = true;
	session->state = WAIT_PEER;
	session->attempt->request = ++session->server->requests;
	query.request = session->attempt->request;
	query.accepted_ns = session->accepted_ns;
	return ipc_send(session->server->ipc_fd, &query, session->fd);
}

static unsigned pending_of_uid(const struct attest_server *server, uid_t uid)
{
	unsigned count = 0;

	for (const struct attest_session *session = server->sessions; session != NULL; session = session->next)
		count += session->state != DONE && session->uid == uid;
	return count;
}

static unsigned pending_of_cgroup(const struct attest_server *server, uint64_t cgroup_id)
{
	unsigned count = 0;

	for (const struct attest_session *session = server->sessions; session != NULL; session = session->next)
		count += session->state != DONE && session->peer.cgroup_id == cgroup_id;
	return count;
}

/* 0: there is room. Else the session is gone, and 1. */
static int session_check_cgroup(struct attest_session *session)
{
	if (pending_of_cgroup(session->server, session->peer.cgroup_id) <= ATTEST_MAX_PENDING_CGROUP)
		return 0;
	session_refuse(session, ATTEST_E_FULL, "%d attestations of this cgroup are under way; try again",
		       ATTEST_MAX_PENDING_CGROUP);
	return 1;
}

static int session_add_sources(struct attest_session *session)
{
	sd_event *event = session->server->event;
	int r = sd_event_add_time_relative(event, &session->timer, CLOCK_MONOTONIC, STEP_USEC, 0, on_timeout, session);

	if (r < 0)
		return r;
	r = sd_event_add_io(event, &session->io, session->fd, EPOLLIN, on_io, session);
	return r < 0 || session->state != WAIT_PEER ? r : sd_event_source_set_enabled(session->io, SD_EVENT_OFF);
}

void attest_session_peer(struct attest_server *server, const struct ipc_peer_facts *facts, int pidfd)
{
	struct attest_session *session = server->sessions;
	int r;

	while (session != NULL && (session->state != WAIT_PEER || session->attempt->request != facts->request))
		session = session->next;
	if (session == NULL) {
		if (pidfd >= 0)
			close(pidfd);
		return;
	}
	session->pidfd = pidfd;
	session->state = WAIT_HELLO;
	if (facts->error < 0 || pidfd < 0) {
		session_refuse_peer(session, facts->error < 0 ? facts->error : -EOPNOTSUPP);
		return;
	}
	session->peer = (struct process_facts){
		.cgroup_id = facts->cgroup_id, .pid = (pid_t)facts->pid, .uid = (uid_t)facts->uid};
	if (session_check_cgroup(session) != 0)
		return;
	r = sd_event_source_set_enabled(session->io, SD_EVENT_ON);
	if (r < 0)
		session_refuse_fault(session, "cannot watch the connection", r);
}

static struct attest_session *session_link(struct attest_server *server, int fd)
{
	struct attest_session *session = calloc(1, sizeof(*session));

	if (session == NULL)
		return NULL;
	session->attempt = calloc(1, sizeof(*session->attempt));
	if (session->attempt == NULL) {
		free(session);
		return NULL;
	}
	session->attempt->verdict.depth = -1;
	session->server = server;
	session->fd = fd;
	session->pidfd = -1;
	session->state = WAIT_HELLO;
	session->next = server->sessions;
	if (session->next != NULL)
		session->next->previous = session;
	server->sessions = session;
	server->pending++;
	return session;
}

void attest_session_new(struct attest_server *server, int fd)
{
	struct attest_session *session = session_link(server, fd);
	struct ucred credentials;
	socklen_t len = sizeof(credentials);
	int r;

	if (session == NULL) {
		log_error("identity: out of memory for a connection");
		close(fd);
		return;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &len) < 0) {
		session_refuse_fault(session, "cannot tell the peer's uid", -errno);
		return;
	}
	session->uid = credentials.uid;
	if (server->pending > ATTEST_MAX_PENDING) {
		session_refuse(session, ATTEST_E_FULL, "%d attestations are under way; try again", ATTEST_MAX_PENDING);
		return;
	}
	if (session->uid != 0 && pending_of_uid(server, session->uid) > ATTEST_MAX_PENDING_UID) {
		session_refuse(session, ATTEST_E_FULL, "%d attestations of uid %u are under way; try again",
			       ATTEST_MAX_PENDING_UID, session->uid);
		return;
	}
	session->accepted_ns = clock_ns(CLOCK_BOOTTIME);
	r = session_identify(session);
	if (r == -EOPNOTSUPP)
		r = session_ask_peer(session);
	if (r < 0) {
		session_refuse_peer(session, r);
		return;
	}
	if (!session->by_proc && session_check_cgroup(session) != 0)
		return;
	r = session_add_sources(session);
	if (r < 0)
		session_refuse_fault(session, "cannot watch the connection", r);
}
