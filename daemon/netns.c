// SPDX-License-Identifier: Apache-2.0
#include "netns.h"

#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"
#include "netlink.h"
#include "privileges.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

static int netns_open(pid_t pid)
{
	char path[64];

	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	else
		snprintf(path, sizeof(path), "/proc/self/ns/net");
	return open(path, O_RDONLY | O_CLOEXEC);
}

int netns_each(const struct cgroup_tree *tree, int (*work)(void *ctx), void *ctx)
{
	int own, r = work(ctx);

	if (tree->n_pids == 0)
		return r;
	own = netns_open(0);
	if (own < 0)
		return -errno;
	privileges_raise();
	for (size_t i = 0; i < tree->n_pids; i++) {
		int other = netns_open(tree->pids[i]), r2;

		if (other < 0)
			continue;
		if (setns(other, CLONE_NEWNET) == 0) {
			r2 = work(ctx);
			r = r ? r : r2;
		} else {
			log_warning("cannot enter the network namespace of process %d: %s", (int)tree->pids[i],
				    strerror(errno));
		}
		close(other);
	}
	if (setns(own, CLONE_NEWNET) < 0) {
		log_error("cannot return to the own network namespace: %s", strerror(errno));
		abort();
	}
	privileges_lower();
	close(own);
	return r;
}

/* ---- addresses ---- */

struct address {
	struct bh_addr addr;
	uint64_t cookie; /* 0: in several namespaces */
};

struct collection {
	struct address *items;
	size_t n, room;
	uint64_t cookie; /* of the namespace being read */
};

static int collection_add(struct collection *c, const struct bh_addr *addr)
{
	for (size_t i = 0; i < c->n; i++) {
		if (memcmp(&c->items[i].addr, addr, sizeof(*addr)) != 0)
			continue;
		if (c->items[i].cookie != c->cookie)
			c->items[i].cookie = 0;
		return 0;
	}
	if (c->n == c->room) {
		size_t room = c->room ? c->room * 2 : 64;
		struct address *items = reallocarray(c->items, room, sizeof(*items));

		if (!items)
			return -ENOMEM;
		c->items = items;
		c->room = room;
	}
	c->items[c->n++] = (struct address){.addr = *addr, .cookie = c->cookie};
	return 0;
}

/* Loopback addresses are everybody's own; they are never looked up by address. */
static int is_loopback(const struct bh_addr *a)
{
	static const struct bh_addr v6 = {.w = {0, 0, 0, 0x01000000}};

	if (a->w[0] == 0 && a->w[1] == 0 && ntohl(a->w[2]) == 0xffff)
		return ntohl(a->w[3]) >> 24 == 127;
	return memcmp(a, &v6, sizeof(v6)) == 0;
}

static int address_message(const struct nlmsghdr *nlh, void *data)
{
	const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *attr;
	struct collection *c = data;
	struct bh_addr addr = {};
	int have = 0;

	if (nlh->nlmsg_type != RTM_NEWADDR || nlh->nlmsg_len < mnl_nlmsg_size(sizeof(*ifa)))
		return MNL_CB_OK;
	mnl_attr_for_each(attr, nlh, sizeof(*ifa))
	{
		/* IFA_LOCAL is this host's end; IFA_ADDRESS is the peer's on point-to-point links. */
		int wanted = mnl_attr_get_type(attr) == IFA_LOCAL || (mnl_attr_get_type(attr) == IFA_ADDRESS && !have);

		if (!wanted)
			continue;
		if (ifa->ifa_family == AF_INET && mnl_attr_get_payload_len(attr) == 4) {
			addr = (struct bh_addr){.w = {0, 0, htonl(0xffff), mnl_attr_get_u32(attr)}};
			have = 1;
		} else if (ifa->ifa_family == AF_INET6 && mnl_attr_get_payload_len(attr) == 16) {
			memcpy(&addr, mnl_attr_get_payload(attr), sizeof(addr));
			have = 1;
		}
	}
	if (have && !is_loopback(&addr) && collection_add(c, &addr) < 0)
		return MNL_CB_ERROR;
	return MNL_CB_OK;
}

static int addresses_read(void *ctx)
{
	__attribute__((cleanup(netlink_closep))) struct mnl_socket *nl = netlink_open(NETLINK_ROUTE);
	char buf[MNL_NLMSG_HDRLEN + MNL_ALIGN(sizeof(struct ifaddrmsg))];
	struct collection *c = ctx;
	socklen_t len = sizeof(c->cookie);
	struct nlmsghdr *nlh;

	if (!nl || getsockopt(mnl_socket_get_fd(nl), SOL_SOCKET, SO_NETNS_COOKIE, &c->cookie, &len) < 0)
		return -errno;
	nlh = mnl_nlmsg_put_header(buf);
	nlh->nlmsg_type = RTM_GETADDR;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	mnl_nlmsg_put_extra_header(nlh, sizeof(struct ifaddrmsg));
	return netlink_exchange(nl, nlh, address_message, c);
}

static int addresses_write(struct datapath *dp, const struct collection *c)
{
	struct bh_addr key, next;
	const struct bh_addr *at = NULL;
	uint64_t cookie;
	int r = 0;

	/* Gone ones first: their room may be needed. The next key is read before this one is deleted. */
	while (datapath_address_next(dp, at, &next, &cookie) == 0) {
		size_t i = 0;

		while (i < c->n && memcmp(&c->items[i].addr, &next, sizeof(next)) != 0)
			i++;
		if (i == c->n) {
			datapath_address_delete(dp, &next);
			continue; /* from the key before, which is still there */
		}
		key = next;
		at = &key;
	}
	for (size_t i = 0; i < c->n && r == 0; i++)
		r = datapath_address_set(dp, &c->items[i].addr, c->items[i].cookie);
	return r;
}

int netns_addresses_refresh(struct datapath *dp, const struct cgroup_tree *tree)
{
	struct collection c = {};
	int r = netns_each(tree, addresses_read, &c);

	/* Also after a fault: an address that is not there only denies. */
	int r2 = addresses_write(dp, &c);

	free(c.items);
	return r ? r : r2;
}
