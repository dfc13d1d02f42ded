// SPDX-License-Identifier: Apache-2.0
/*
 * What the kernel programs keep of TCP sockets that are gone: the end of a socket is told to a program, which may have been away
 * for a moment, because another process removed its pin while no daemon ran; and the kernel does not tell of some ends while somebody
 * else attaches to the same tracepoint or leaves it (seen with 6.18: tens of them, at thousands of connections a second). inet_diag (sock_diag(7)) lists the sockets of a
 * namespace by cookie; of what no process can use any more, and is not in that list, nothing will come.
 */
#include "netns.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <limits.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "log.h"
#include "netlink.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

/* Calls after which the kernel has given up sending what a closed socket has left: 10 minutes (tcp_orphan_retries). */
#define PATIENT_LOOKS BH_CAPACITY(60U, 3U)
#define NEVER UINT_MAX

struct cookies {
	uint64_t *items;
	size_t n, room;
};

struct kept {
	uint64_t cookie;
	uint64_t netns;
	bool released; /* no process can use it */
};

struct look {
	struct cookies sockets;	   /* of all namespaces */
	struct cookies namespaces; /* that were read */
	struct kept *kept;
	size_t n_kept, kept_room;
};

static int cookies_add(struct cookies *list, uint64_t cookie)
{
	if (list->n == list->room) {
		size_t room = list->room ? list->room * 2 : 64;
		uint64_t *items = reallocarray(list->items, room, sizeof(*items));

		if (!items)
			return -ENOMEM;
		list->items = items;
		list->room = room;
	}
	list->items[list->n++] = cookie;
	return 0;
}

static int cookie_order(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void cookies_sort(struct cookies *list)
{
	if (list->n)
		qsort(list->items, list->n, sizeof(*list->items), cookie_order);
}

static bool cookies_have(const uint64_t *items, size_t n, uint64_t cookie)
{
	return n && bsearch(&cookie, items, n, sizeof(*items), cookie_order);
}

/* ---- what is kept ---- */

/* One that a process has open may be in no list of the kernel's, and be used again: it is not gone. Of one that was made by a
 * listener it cannot be told whether a process has it: those that no process took are never released. If it should be used
 * again, it gets another entry. */
static bool may_be_gone(const struct bh_tcp *tcp)
{
	return tcp->cookie && (tcp->released || tcp->kind == BH_SOCK_PASSIVE || tcp->kind == BH_SOCK_EARLY);
}

static int kept_add(struct look *look, const struct bh_tcp *tcp)
{
	if (look->n_kept == look->kept_room) {
		size_t room = look->kept_room ? look->kept_room * 2 : 64;
		struct kept *kept = reallocarray(look->kept, room, sizeof(*kept));

		if (!kept)
			return -ENOMEM;
		look->kept = kept;
		look->kept_room = room;
	}
	look->kept[look->n_kept++] =
		(struct kept){.cookie = tcp->cookie, .netns = tcp->netns, .released = tcp->released};
	return 0;
}

static int kept_read(const struct datapath *dp, struct look *look)
{
	uint64_t at, next, *from = NULL;
	struct bh_tcp tcp;
	int r = 0;

	for (uint32_t i = 0; i < BH_TCP_SLOTS && r == 0; i++) {
		datapath_tcp_slot(dp, i, &tcp);
		if (may_be_gone(&tcp))
			r = kept_add(look, &tcp);
	}
	/* What is deleted while we walk makes the walk begin again: never more steps than there can be. */
	for (uint32_t i = 0; i < 2 * BH_TCP_MORE && r == 0 && datapath_tcp_more_next(dp, from, &next) == 0; i++) {
		if (datapath_tcp_get(dp, next, &tcp) == 0 && may_be_gone(&tcp))
			r = kept_add(look, &tcp);
		at = next;
		from = &at;
	}
	return r;
}

/* ---- sockets ---- */

static int socket_message(const struct nlmsghdr *nlh, void *data)
{
	const struct inet_diag_msg *msg = mnl_nlmsg_get_payload(nlh);
	struct look *look = data;

	if (nlh->nlmsg_len < mnl_nlmsg_size(sizeof(*msg)))
		return MNL_CB_OK;
	if (cookies_add(&look->sockets, (uint64_t)msg->id.idiag_cookie[1] << 32 | msg->id.idiag_cookie[0]) == 0)
		return MNL_CB_OK;
	errno = ENOMEM;
	return MNL_CB_ERROR;
}

static int namespace_look(void *ctx)
{
	__attribute__((cleanup(netlink_closep))) struct mnl_socket *nl = netlink_open(NETLINK_SOCK_DIAG);
	struct look *look = ctx;
	uint64_t netns = 0;
	socklen_t len = sizeof(netns);
	int r;

	if (!nl || getsockopt(mnl_socket_get_fd(nl), SOL_SOCKET, SO_NETNS_COOKIE, &netns, &len) < 0)
		return -errno;
	/* One in TIME_WAIT has the cookie of the socket that it was, which is gone. */
	r = netlink_sockets_list(nl, IPPROTO_TCP, ~(1U << TCP_TIME_WAIT), socket_message, look);
	return r ? r : cookies_add(&look->namespaces, netns);
}

/* ---- */

/* The cookie comes first in both. */
static unsigned gone_looks(const struct netns_gone *gone, uint64_t cookie)
{
	const struct netns_gone_socket *found =
		gone->n ? bsearch(&cookie, gone->sockets, gone->n, sizeof(*gone->sockets), cookie_order) : NULL;

	return found ? found->looks : 0;
}

/* In how many looks before this one must it have been gone? */
static unsigned looks_enough(const struct look *look, const struct kept *kept)
{
	bool seen = cookies_have(look->namespaces.items, look->namespaces.n, kept->netns);

	if (kept->released)
		return seen ? 1 : PATIENT_LOOKS;
	/* A process may have it, and live in another namespace: that is no sign of anything. */
	return seen ? PATIENT_LOOKS : NEVER;
}

/* Lets go of what was gone before, too; the rest is the list for the next call. */
static int gone_remove(struct datapath *dp, const struct look *look, struct netns_gone *gone)
{
	struct netns_gone_socket *still = calloc(look->n_kept ? look->n_kept : 1, sizeof(*still));
	int removed = 0;
	size_t n = 0;

	if (!still)
		return -ENOMEM;
	for (size_t i = 0; i < look->n_kept; i++) {
		const struct kept *kept = &look->kept[i];
		unsigned looks = gone_looks(gone, kept->cookie), enough = looks_enough(look, kept);

		if (enough == NEVER || cookies_have(look->sockets.items, look->sockets.n, kept->cookie))
			continue;
		if (looks >= enough)
			removed += datapath_tcp_forget(dp, kept->cookie) == 0;
		else
			still[n++] = (struct netns_gone_socket){.cookie = kept->cookie, .looks = looks + 1};
	}
	qsort(still, n, sizeof(*still), cookie_order);
	free(gone->sockets);
	gone->sockets = still;
	gone->n = n;
	return removed;
}

int netns_connections_clean(struct datapath *dp, const struct cgroup_tree *tree, struct netns_gone *gone)
{
	struct look look = {};
	int r = kept_read(dp, &look);

	if (r == 0 && look.n_kept) {
		r = netns_each(tree, namespace_look, &look);
		if (r == -EAGAIN) /* of a namespace that was not seen, nothing is said */
			r = 0;
	}
	if (r == 0) {
		cookies_sort(&look.sockets);
		cookies_sort(&look.namespaces);
		r = gone_remove(dp, &look, gone);
	} else {
		if (!gone->warned)
			log_warning(
				"cannot list the TCP sockets of every namespace: %s: what is kept of sockets that are "
				"gone stays",
				strerror(-r));
		netns_gone_clear(gone);
		gone->warned = true;
	}
	free(look.kept);
	free(look.sockets.items);
	free(look.namespaces.items);
	return r;
}

void netns_gone_clear(struct netns_gone *gone)
{
	free(gone->sockets);
	gone->sockets = NULL;
	gone->n = 0;
}
