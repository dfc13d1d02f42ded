// SPDX-License-Identifier: Apache-2.0
#include "role_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-id128.h>
#include <unistd.h>

#include "ipc.h"
#include "log.h"

#define PING_MS 1000

/* ECONNRESET: it left something unread. */
static bool is_end(int r)
{
	return r == -EPIPE || r == -ECONNRESET;
}

static int enforcer_gone(struct role_process *process)
{
	process->over = true;
	return sd_event_exit(process->event, EXIT_SUCCESS);
}

/* Where the answer finds no room in this time, the enforcer does without, and ends us. */
static void ping_answer(struct role_process *process, const void *packet)
{
	struct pollfd room = {.fd = process->ipc_fd, .events = POLLOUT};
	int r = ipc_send(process->ipc_fd, packet, -1);

	if (r == -EAGAIN && poll(&room, 1, PING_MS) == 1)
		r = ipc_send(process->ipc_fd, packet, -1);
	if (is_end(r))
		enforcer_gone(process);
	else if (r < 0)
		log_error("%s: cannot answer the enforcer: %s", process->name, strerror(-r));
}

static int on_ipc(sd_event_source *source, int ipc_fd, uint32_t events, void *context)
{
	_Alignas(8) char packet[IPC_MAX_PACKET];
	struct role_process *process = context;
	int fd, type;

	(void)source;
	if ((events & EPOLLOUT) && process->room)
		process->room(process->ctx);
	type = ipc_receive(ipc_fd, packet, &fd);
	switch (type) {
	case 0:
	case -ECONNRESET:
		return enforcer_gone(process);
	case -EAGAIN:
		return 0;
	case -EBADMSG:
		/* What it said is lost, for want of a descriptor for what was beside it. The next role is told all anew. */
		log_error("%s: a packet of the enforcer could not be received as a whole: the role starts anew",
			  process->name);
		return sd_event_exit(process->event, EXIT_FAILURE);
	case IPC_PING:
		ping_answer(process, packet);
		break;
	default:
		if (type < 0 || !process->packet(process->ctx, type, packet, &fd))
			log_error("%s: unexpected packet of the enforcer (%d)", process->name, type);
	}
	if (fd >= 0)
		close(fd);
	return 0;
}

int role_process_open(struct role_process *process)
{
	int r, flags = fcntl(process->ipc_fd, F_GETFL);
	sd_id128_t boot;

	signal(SIGINT, SIG_IGN); /* a terminal's Ctrl-C goes to every role */
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	if (flags < 0 || fcntl(process->ipc_fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	r = sd_id128_get_boot(&boot); /* which sd-event opens a file for when first used */
	if (r >= 0)
		r = sd_event_new(&process->event);
	if (r >= 0)
		r = sd_event_add_io(process->event, &process->ipc, process->ipc_fd, EPOLLIN, on_ipc, process);
	if (r >= 0)
		r = sd_event_source_set_priority(process->ipc, SD_EVENT_PRIORITY_IMPORTANT);
	return r < 0 ? r : 0;
}

int role_process_run(struct role_process *process, int set_up)
{
	struct ipc_header ready = {.type = IPC_READY, .len = sizeof(ready)};
	int r = set_up < 0 ? set_up : ipc_send(process->ipc_fd, &ready, -1);

	if (set_up >= 0 && is_end(r))
		return EXIT_SUCCESS;
	if (r < 0) {
		log_error("%s: cannot start: %s", process->name, strerror(-r));
		return EXIT_FAILURE;
	}
	r = sd_event_loop(process->event);
	if (r < 0)
		log_error("%s: event loop: %s", process->name, strerror(-r));
	return r < 0 ? EXIT_FAILURE : r;
}

int role_process_tell(struct role_process *process, const void *packet, int fd)
{
	int r = ipc_send_wait(process->ipc_fd, packet, fd);

	if (is_end(r))
		enforcer_gone(process);
	else if (r < 0)
		log_error("%s: cannot tell the enforcer: %s", process->name, strerror(-r));
	return r;
}

void role_process_close(struct role_process *process)
{
	process->ipc = sd_event_source_disable_unref(process->ipc);
	process->event = sd_event_unref(process->event);
}
