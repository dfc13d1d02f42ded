// SPDX-License-Identifier: Apache-2.0
#include "netns.h"

#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/nsfs.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "netlink.h"
#include "privileges.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

#define NAMESPACE_MAX_ADDRESSES 1024

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

		if (other <
		    0) { /* its process ended meanwhile: the next snapshot finds another, or the namespace is gone */
			r = r ? r : -EAGAIN;
			continue;
		}
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
	bool is_there;	 /* in the map, with this cookie */
};

struct collection {
	struct address *items;
	size_t n, room;
	size_t n_before; /* items of the namespaces read before */
	uint64_t cookie; /* of the namespace being read */
};

static int collection_add(struct collection *c, const struct bh_addr *addr, uint64_t cookie)
{
	if (c->n == c->room) {
		size_t room = c->room ? c->room * 2 : 64;
		struct address *items = reallocarray(c->items, room, sizeof(*items));

		if (!items)
			return -ENOMEM;
		c->items = items;
		c->room = room;
	}
	c->items[c->n++] = (struct address){.addr = *addr, .cookie = cookie};
	return 0;
}

static int address_order(const void *a, const void *b)
{
	return memcmp(&((const struct address *)a)->addr, &((const struct address *)b)->addr, sizeof(struct bh_addr));
}

/* Whose an address is that two have: the namespace's where the other is the device that leads to it. */
static uint64_t one_of(uint64_t a, uint64_t b)
{
	if (a == b || (b & BH_DEVICE_BIT))
		return a;
	return a & BH_DEVICE_BIT ? b : 0;
}

/* One item for each address, in order; of several namespaces', cookie 0. */
static void collection_sort(struct collection *c)
{
	size_t n = 0;

	if (c->n)
		qsort(c->items, c->n, sizeof(*c->items), address_order);
	for (size_t i = 0; i < c->n; i++) {
		if (n && address_order(&c->items[n - 1], &c->items[i]) == 0) {
			c->items[n - 1].cookie = one_of(c->items[n - 1].cookie, c->items[i].cookie);
			continue;
		}
		c->items[n++] = c->items[i];
	}
	c->n = n;
}

/* Loopback addresses are everybody's own; they are never looked up by address. */
static int is_loopback(const struct bh_addr *a)
{
	static const struct bh_addr v6 = {.w = {0, 0, 0, 0x01000000}};

	if (a->w[0] == 0 && a->w[1] == 0 && ntohl(a->w[2]) == 0xffff)
		return ntohl(a->w[3]) >> 24 == 127;
	return memcmp(a, &v6, sizeof(v6)) == 0;
}

bool netns_address_read(const struct nlmsghdr *nlh, struct bh_addr *addr, uint32_t *ifindex)
{
	const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *attr;
	bool have = false;

	if (nlh->nlmsg_type != RTM_NEWADDR || nlh->nlmsg_len < mnl_nlmsg_size(sizeof(*ifa)))
		return false;
	mnl_attr_for_each(attr, nlh, sizeof(*ifa))
	{
		/* IFA_LOCAL is this host's end; IFA_ADDRESS is the peer's on point-to-point links. */
		int wanted = mnl_attr_get_type(attr) == IFA_LOCAL || (mnl_attr_get_type(attr) == IFA_ADDRESS && !have);

		if (!wanted)
			continue;
		if (ifa->ifa_family == AF_INET && mnl_attr_get_payload_len(attr) == 4) {
			*addr = (struct bh_addr){.w = {0, 0, htonl(0xffff), mnl_attr_get_u32(attr)}};
			have = true;
		} else if (ifa->ifa_family == AF_INET6 && mnl_attr_get_payload_len(attr) == 16) {
			memcpy(addr, mnl_attr_get_payload(attr), sizeof(*addr));
			have = true;
		}
	}
	*ifindex = ifa->ifa_index;
	return have && !is_loopback(addr);
}

static int address_message(const struct nlmsghdr *nlh, void *data)
{
	struct collection *c = data;
	struct bh_addr addr;
	uint32_t ifindex;

	if (!netns_address_read(nlh, &addr, &ifindex))
		return MNL_CB_OK;
	if (c->n - c->n_before >= NAMESPACE_MAX_ADDRESSES) {
		log_warning(
			"a network namespace has more than %d addresses: the rest is not known by its workloads' names",
			NAMESPACE_MAX_ADDRESSES);
		return MNL_CB_STOP;
	}
	if (collection_add(c, &addr, c->cookie) < 0) {
		errno = ENOMEM;
		return MNL_CB_ERROR;
	}
	return MNL_CB_OK;
}

bool netns_is_trusted(void)
{
	int net = netns_open(0), user = net < 0 ? -1 : ioctl(net, NS_GET_USERNS);
	struct stat own, st;
	bool ours = user >= 0 && fstat(user, &st) == 0 && stat("/proc/self/ns/user", &own) == 0 &&
		    st.st_dev == own.st_dev && st.st_ino == own.st_ino;

	if (user >= 0)
		close(user);
	if (net >= 0)
		close(net);
	return ours;
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
	if (!netns_is_trusted())
		return 0;
	c->n_before = c->n;
	nlh = mnl_nlmsg_put_header(buf);
	nlh->nlmsg_type = RTM_GETADDR;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	mnl_nlmsg_put_extra_header(nlh, sizeof(struct ifaddrmsg));
	return netlink_exchange(nl, nlh, address_message, c);
}

static int unlisted_add(uint64_t **bitsp, const struct bh_addr *address)
{
	uint32_t bit = bh_unlisted_bit(address);

	if (!*bitsp)
		*bitsp = calloc(BH_UNLISTED_BITS / 64, sizeof(**bitsp));
	if (!*bitsp)
		return -ENOMEM;
	(*bitsp)[bit / 64] |= 1ULL << (bit % 64);
	return 0;
}

/* `complete`: every namespace was read; only then is what was not seen known to be gone. */
static int addresses_write(struct datapath *dp, struct collection *c, bool complete)
{
	const struct bh_addr *at = NULL;
	struct address key, next = {};
	uint64_t *unlisted = NULL;
	int r = 0;

	/* Gone ones first: their room may be needed. The next key is read before this one is deleted. */
	while (datapath_address_next(dp, at, &next.addr, &next.cookie) == 0) {
		struct address *item = c->n ? bsearch(&next, c->items, c->n, sizeof(next), address_order) : NULL;

		if (!item && complete) {
			datapath_address_delete(dp, &next.addr);
			continue; /* from the key before, which is still there */
		}
		if (item)
			item->is_there = item->cookie == next.cookie;
		key = next;
		at = &key.addr;
	}
	for (size_t i = 0; i < c->n && (r == 0 || r == -E2BIG); i++) {
		if (c->items[i].is_there)
			continue;
		if (r == 0)
			r = datapath_address_set(dp, &c->items[i].addr, c->items[i].cookie);
		if (r == -E2BIG && unlisted_add(&unlisted, &c->items[i].addr) < 0)
			r = -ENOMEM;
	}
	datapath_unlisted_set(dp, unlisted, !complete || (r && r != -E2BIG));
	free(unlisted);
	return r;
}

int netns_addresses_refresh(struct datapath *dp, const struct cgroup_tree *tree, const struct netns_address *bound,
			    size_t n_bound)
{
	struct collection c = {};
	int r, r2;

	r = netns_each(tree, addresses_read, &c);
	for (size_t i = 0; i < n_bound; i++)
		if (collection_add(&c, &bound[i].addr, bound[i].device) < 0)
			r = -ENOMEM;
	collection_sort(&c);
	r2 = addresses_write(dp, &c, r == 0);
	free(c.items);
	return r ? r : r2;
}
