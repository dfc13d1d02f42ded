/* SPDX-License-Identifier: Apache-2.0 */
#include "attest_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "attest_message.h"
#include "log.h"

#define NS_PER_S 1000000000ULL

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

static void session_give_back(struct attest_session *session)
{
	if (session->place != NULL)
		attest_place_give_back(&session->server->places, session->place);
	session->place = NULL;
}

void session_free(struct attest_session *session)
{
	struct attest_server *server = session->server;

	if (session->state == DONE)
		server->idle--;
	session_give_back(session);
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

void session_rest(struct attest_session *session)
{
	struct attest_server *server = session->server;

	if (server->idle >= server->idle_max) {
		session_free(session);
		return;
	}
	server->idle++;
	session->state = DONE;
	session_give_back(session);
	session_end_attempt(session);
}

void attest_server_close(struct attest_server *server)
{
	uint64_t untold = server->refusals != NULL ? refusals_held(server->refusals) : 0;

	while (server->sessions != NULL)
		session_free(server->sessions);
	if (untold > 0)
		log_warning("identity: %llu refusals were not told to the enforcer any more",
			    (unsigned long long)untold);
	sd_event_source_disable_unref(server->tell_timer);
	refusals_freep(&server->refusals);
}

/* ---- the queue to the enforcer ---- */

int attest_server_await_room(struct attest_server *server)
{
	if (server->is_full)
		return 0;
	server->is_full = true;
	return sd_event_source_set_io_events(server->ipc_source, EPOLLIN | EPOLLOUT);
}

static struct attest_session *find_first_waiting(const struct attest_server *server)
{
	struct attest_session *first = NULL;

	for (struct attest_session *session = server->sessions; session != NULL; session = session->next) {
		if (session->state == WAIT_ROOM &&
		    (first == NULL || session->attempt->request < first->attempt->request))
			first = session;
	}
	return first;
}

int attest_server_on_room(struct attest_server *server)
{
	struct attest_session *session;

	server->is_full = false;
	while (!server->is_full && (session = find_first_waiting(server)) != NULL)
		session_ask_tag(session);
	attest_server_tell_refusals(server);
	return server->is_full ? 0 : sd_event_source_set_io_events(server->ipc_source, EPOLLIN);
}

static uint64_t boottime_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
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
	return session_on_message(session, message.len);
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
	if (session->state == WAIT_ROOM) /* nothing was asked yet: asking again is safe */
		return session_refuse(session, ATTEST_E_FULL, "the enforcer took no request within 5 s; try again");
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

/* 0: there is room. Else the session is gone, and 1. */
static int session_check_place(struct attest_session *session, enum attest_place_answer answer)
{
	switch (answer) {
	case ATTEST_PLACE_TAKEN:
		return 0;
	case ATTEST_PLACE_CGROUP_FULL:
		session_refuse(session, ATTEST_E_FULL, "%d attestations of this cgroup are under way; try again",
			       ATTEST_PLACES_CGROUP);
		return 1;
	case ATTEST_PLACE_UID_FULL:
		session_refuse(session, ATTEST_E_FULL, "%d attestations of uid %u are under way; try again",
			       ATTEST_PLACES_UID, session->uid);
		return 1;
	case ATTEST_PLACE_ALL_FULL:
		session_refuse(session, ATTEST_E_FULL, "%d attestations are under way; try again", ATTEST_PLACES);
	}
	return 1;
}

/* The same. Somebody else's session may end instead. */
static int session_take_place(struct attest_session *session)
{
	void *evicted;
	enum attest_place_answer answer = attest_place_take(
		&session->server->places, session->uid, session->peer.cgroup_id, session, &session->place, &evicted);

	if (evicted != NULL) {
		struct attest_session *other = evicted;

		other->place = NULL;
		session_refuse(other, ATTEST_E_FULL,
			       "there is no place left, and another workload has fewer than this one; try again");
	}
	return session_check_place(session, answer);
}

static int session_add_sources(struct attest_session *session)
{
	sd_event *event = session->server->event;
	int r = sd_event_add_time_relative(event, &session->timer, CLOCK_MONOTONIC, ATTEST_STEP_USEC, 0, on_timeout,
					   session);

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
	if (session_check_place(session,
				attest_place_settle(&server->places, session->place, session->peer.cgroup_id)) != 0)
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
	session->accepted_ns = boottime_ns();
	r = session_identify(session);
	if (r < 0 && r != -EOPNOTSUPP) {
		session_refuse_peer(session, r);
		return;
	}
	if (session_take_place(session) != 0)
		return;
	if (r < 0)
		r = session_ask_peer(session);
	if (r < 0) {
		session_refuse_peer(session, r);
		return;
	}
	r = session_add_sources(session);
	if (r < 0)
		session_refuse_fault(session, "cannot watch the connection", r);
}
