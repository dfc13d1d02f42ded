// SPDX-License-Identifier: Apache-2.0
/*
 * Stale UDP endpoints: inet_diag (sock_diag(7)) lists the UDP sockets of a namespace with address, port and cookie; what
 * the map says beyond that is nobody's any more.
 */
#include "netns.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "log.h"
#include "netlink.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

/* More than the map can hold: what is deleted while we walk makes the walk begin again. */
#define WALK_MAX 200000

/* A place in the map, or a socket, as a key to sort by: struct bh_endpoint_key has no padding of its own. */
struct netns_stale_item {
	struct bh_endpoint_key key;
	uint64_t cookie;
	uint64_t cgroup; /* of a socket */
};

struct list {
	struct netns_stale_item *items;
	size_t n, room;
	uint64_t netns; /* being read */
};

static int list_add(struct list *list, const struct netns_stale_item *item)
{
	if (list->n == list->room) {
		size_t room = list->room ? list->room * 2 : 64;
		struct netns_stale_item *items = reallocarray(list->items, room, sizeof(*items));

		if (!items)
			return -ENOMEM;
		list->items = items;
		list->room = room;
	}
	list->items[list->n++] = *item;
	return 0;
}

static int key_order(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct bh_endpoint_key));
}

static int item_order(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct netns_stale_item));
}

static void list_sort(struct list *list, int (*order)(const void *, const void *))
{
	if (list->n)
		qsort(list->items, list->n, sizeof(*list->items), order);
}

static const struct netns_stale_item *list_find(const struct netns_stale_item *items, size_t n,
						const struct netns_stale_item *item,
						int (*order)(const void *, const void *))
{
	return n ? bsearch(item, items, n, sizeof(*items), order) : NULL;
}

/* ---- sockets ---- */

/* A socket stands twice in the list: by its place, and (netns 0) by cookie and port, which says whether who registered
 * still holds the port, also where it has connected since and so has another address. */
static struct netns_stale_item by_cookie(uint64_t cookie, uint16_t port)
{
	return (struct netns_stale_item){
		.key = {.addr = {.w = {(uint32_t)cookie, (uint32_t)(cookie >> 32)}}, .port = port}};
}

static int socket_message(const struct nlmsghdr *nlh, void *data)
{
	const struct inet_diag_msg *msg = mnl_nlmsg_get_payload(nlh);
	struct list *list = data;
	struct netns_stale_item place = {.key = {.netns = list->netns}}, other;
	const struct nlattr *attr;

	if (nlh->nlmsg_len < mnl_nlmsg_size(sizeof(*msg)) || !msg->id.idiag_sport)
		return MNL_CB_OK;
	place.key.port = ntohs(msg->id.idiag_sport);
	place.cookie = (uint64_t)msg->id.idiag_cookie[1] << 32 | msg->id.idiag_cookie[0];
	if (msg->idiag_family == AF_INET)
		place.key.addr = (struct bh_addr){.w = {0, 0, htonl(0xffff), msg->id.idiag_src[0]}};
	else
		memcpy(&place.key.addr, msg->id.idiag_src, sizeof(place.key.addr));
	mnl_attr_for_each(attr, nlh, sizeof(*msg))
	{
		if (mnl_attr_get_type(attr) == INET_DIAG_CGROUP_ID && mnl_attr_get_payload_len(attr) == 8)
			place.cgroup = mnl_attr_get_u64(attr);
	}
	other = by_cookie(place.cookie, place.key.port);
	if (list_add(list, &place) == 0 && list_add(list, &other) == 0)
		return MNL_CB_OK;
	errno = ENOMEM;
	return MNL_CB_ERROR;
}

static int namespace_list(void *ctx)
{
	__attribute__((cleanup(netlink_closep))) struct mnl_socket *nl = netlink_open(NETLINK_SOCK_DIAG);
	struct list *list = ctx;
	socklen_t len = sizeof(list->netns);

	if (!nl || getsockopt(mnl_socket_get_fd(nl), SOL_SOCKET, SO_NETNS_COOKIE, &list->netns, &len) < 0)
		return -errno;
	return netlink_sockets_list(nl, IPPROTO_UDP, ~0U, socket_message, list);
}

/* ---- endpoints ---- */

static int endpoints_read(const struct datapath *dp, struct list *list)
{
	const struct bh_endpoint_key *at = NULL;
	struct bh_endpoint_key key, next;
	uint64_t cookie;
	int r = 0;

	for (unsigned i = 0; i < WALK_MAX && r == 0 && datapath_endpoint_next(dp, at, &next, &cookie) == 0; i++) {
		if (cookie)
			r = list_add(list, &(struct netns_stale_item){.key = next, .cookie = cookie});
		key = next;
		at = &key;
	}
	return r;
}

static bool is_held(const struct list *sockets, const struct netns_stale_item *endpoint)
{
	struct netns_stale_item other = by_cookie(endpoint->cookie, endpoint->key.port);

	return list_find(sockets->items, sockets->n, &other, key_order);
}

/* The cgroups that a socket belongs to, from below the managed subtree downwards. Returns whether there are any. */
static bool levels_of(const struct cgroup_tree *tree, uint64_t cgroup, uint64_t levels[BH_MAX_DEPTH])
{
	const struct cgroup_node *node = cgroup_tree_find(tree, cgroup);

	memset(levels, 0, BH_MAX_DEPTH * sizeof(*levels));
	for (; node && node->depth > 0; node = cgroup_tree_find(tree, node->parent))
		if (node->depth <= BH_MAX_DEPTH)
			levels[node->depth - 1] = node->id;
	return levels[0];
}

/* Another socket may have come to a stale place, and been taken for one that shares it with who left: it gets the place
 * for itself. It would not do that by itself before it has sent something. */
static struct bh_endpoint endpoint_of(const struct list *sockets, const struct cgroup_tree *tree,
				      const struct netns_stale_item *place)
{
	const struct netns_stale_item *socket = list_find(sockets->items, sockets->n, place, key_order);
	const struct netns_stale_item *end = sockets->items + sockets->n;
	struct bh_endpoint endpoint = {};

	while (socket && socket > sockets->items && key_order(socket - 1, place) == 0)
		socket--;
	for (; socket && socket < end && key_order(socket, place) == 0; socket++) {
		uint64_t levels[BH_MAX_DEPTH];

		if (!levels_of(tree, socket->cgroup, levels))
			continue;
		if (endpoint.refs++ == 0) {
			endpoint.cookie = socket->cookie;
			memcpy(endpoint.levels, levels, sizeof(levels));
		} else if (memcmp(endpoint.levels, levels, sizeof(levels)) != 0) {
			endpoint.shared = 1;
		}
	}
	return endpoint;
}

/* Puts right what was stale before; what is stale for the first time takes its place in the list. */
static int stale_remove(struct datapath *dp, const struct cgroup_tree *tree, const struct list *sockets,
			const struct list *endpoints, struct netns_stale *stale)
{
	struct list fresh = {};
	int removed = 0;

	for (size_t i = 0; i < endpoints->n; i++) {
		const struct netns_stale_item *item = &endpoints->items[i];
		struct bh_endpoint endpoint;

		if (is_held(sockets, item))
			continue;
		if (!list_find(stale->items, stale->n, item, item_order)) {
			if (list_add(&fresh, item) < 0)
				break; /* the rest is found at the next call */
			continue;
		}
		endpoint = endpoint_of(sockets, tree, item);
		if (endpoint.refs)
			removed += datapath_endpoint_set(dp, &item->key, &endpoint) == 0;
		else
			removed += datapath_endpoint_delete(dp, &item->key) == 0;
	}
	list_sort(&fresh, item_order);
	free(stale->items);
	stale->items = fresh.items;
	stale->n = fresh.n;
	return removed;
}

int netns_endpoints_clean(struct datapath *dp, const struct cgroup_tree *tree, struct netns_stale *stale)
{
	struct list endpoints = {}, sockets = {};
	int r = endpoints_read(dp, &endpoints);

	if (r == 0 && endpoints.n)
		r = netns_each(tree, namespace_list, &sockets);
	if (r == 0) {
		list_sort(&sockets, key_order);
		r = stale_remove(dp, tree, &sockets, &endpoints, stale);
	} else {
		netns_stale_clear(stale); /* of what was not seen, nothing is said */
		if (!stale->warned && r != -EAGAIN)
			log_warning("cannot list the UDP sockets of every namespace: %s: endpoints of sockets that are "
				    "gone stay",
				    strerror(-r));
		stale->warned |= r != -EAGAIN;
	}
	free(endpoints.items);
	free(sockets.items);
	return r;
}

void netns_stale_clear(struct netns_stale *stale)
{
	free(stale->items);
	stale->items = NULL;
	stale->n = 0;
}
