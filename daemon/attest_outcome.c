/* SPDX-License-Identifier: Apache-2.0 */
#include "attest_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "chains.h"
#include "log.h"
#include "tag_request.h"

#define NS_PER_S 1000000000ULL
#define TELL_USEC 1000000ULL

int session_send(struct attest_session *session, const uint8_t *packet, size_t len)
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

/* `again`: it may go better at another time. */
static void session_answer_no(struct attest_session *session, unsigned code, const char *text, bool again)
{
	struct attest_result result = {.code = code, .renew_after = again ? (uint64_t)time(NULL) : 0};

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

void session_fill_request(const struct attest_session *session, struct ipc_tag_request *request, uint32_t type)
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

static uint64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

void attest_server_tell_refusals(struct attest_server *server)
{
	struct ipc_tag_request refusal;

	while (!server->is_full && refusals_next(server->refusals, &refusal)) {
		int r = ipc_send(server->ipc_fd, &refusal, -1);

		if (r == -EAGAIN)
			attest_server_await_room(server);
		if (r < 0)
			return;
		refusals_told(server->refusals);
	}
}

static int on_tell(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	attest_server_tell_refusals(userdata);
	return 0;
}

/* No refusal takes room from a tag request that waits for it. What is not told now is told within a second, or when there is
 * room. */
static void tell_refusal(struct attest_server *server, const struct ipc_tag_request *refusal)
{
	int r = -EAGAIN, armed = SD_EVENT_OFF;

	if (!server->is_full &&
	    refusals_take_turn(server->refusals, refusal->uid, refusal->cgroup_id, monotonic_ns())) {
		r = ipc_send(server->ipc_fd, refusal, -1);
		if (r == -EAGAIN)
			attest_server_await_room(server);
	}
	if (r == 0)
		return;
	refusals_hold(server->refusals, refusal);
	if (server->tell_timer != NULL)
		sd_event_source_get_enabled(server->tell_timer, &armed);
	if (armed != SD_EVENT_OFF)
		return;
	if (server->tell_timer == NULL)
		r = sd_event_add_time_relative(server->event, &server->tell_timer, CLOCK_MONOTONIC, TELL_USEC, 0,
					       on_tell, server);
	else
		r = sd_event_source_set_time_relative(server->tell_timer, TELL_USEC);
	if (r >= 0)
		r = sd_event_source_set_enabled(server->tell_timer, SD_EVENT_ONESHOT);
	if (r < 0)
		log_warning("identity: refusals are not told in time: %s", strerror(-r));
}

int session_refuse(struct attest_session *session, unsigned code, const char *format, ...)
{
	struct ipc_tag_request notice;
	va_list args;

	session_fill_request(session, &notice, IPC_ATTEST_REFUSED);
	notice.code = code;
	va_start(args, format);
	vsnprintf(notice.text, sizeof(notice.text), format, args);
	va_end(args);
	tell_refusal(session->server, &notice);
	session_answer_no(session, code, notice.text, code == ATTEST_E_FULL);
	return 0;
}

int session_refuse_svid(struct attest_session *session)
{
	char text[512];

	svid_verdict_text(&session->attempt->verdict, text, sizeof(text));
	return session_refuse(session, ATTEST_E_SVID + (unsigned)session->attempt->verdict.rule, "%s", text);
}

int session_refuse_fault(struct attest_session *session, const char *what, int error)
{
	log_error("identity: %s: %s", what, strerror(-error));
	return session_refuse(session, ATTEST_E_INTERNAL, "%s: %s", what, strerror(-error));
}

int session_refuse_peer(struct attest_session *session, int error)
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
	struct attest_result result = {
		.code = ATTEST_OK,
		.valid_until = (uint64_t)reply->not_after,
		.cgroup_id = reply->cgroup_id,
	};
	uint64_t now = (uint64_t)time(NULL);

	keep_chain(session, reply->key);
	result.renew_after = result.valid_until > now ? now + (result.valid_until - now) / 2 : now;
	memcpy(result.text, reply->text, sizeof(result.text));
	if (session_send_result(session, &result) < 0)
		session_free(session);
	else
		session_rest(session);
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
			session_answer_no(session, reply->code, reply->text, false);
		return;
	}
}
