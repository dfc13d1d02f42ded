// SPDX-License-Identifier: Apache-2.0
#include "netns.h"

#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/net_namespace.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "netlink.h"

/* Of one namespace: who may add devices there could add any number. */
#define NAMESPACE_MAX_VETHS 1024

struct reading {
	struct netns_veth *items;
	size_t n, room;
	size_t n_before; /* items of the namespaces read before */
	int own;	 /* descriptor of the enforcer's own namespace */
	ino_t own_inode;
	ino_t netns;  /* being read */
	int32_t nsid; /* of the enforcer's own namespace, as the one being read calls it */
};

/* ---- links ---- */

struct veth_attributes {
	uint32_t other;
	int32_t nsid;
	bool is_veth, has_nsid;
};

static int kind_attribute(const struct nlattr *attr, void *data)
{
	struct veth_attributes *link = data;

	if (mnl_attr_get_type(attr) == IFLA_INFO_KIND && mnl_attr_validate(attr, MNL_TYPE_STRING) >= 0)
		link->is_veth = mnl_attr_get_payload_len(attr) >= 4 && strncmp(mnl_attr_get_str(attr), "veth", 5) == 0;
	return MNL_CB_OK;
}

static int link_attribute(const struct nlattr *attr, void *data)
{
	struct veth_attributes *link = data;

	switch (mnl_attr_get_type(attr)) {
	case IFLA_LINK:
		if (mnl_attr_validate(attr, MNL_TYPE_U32) >= 0)
			link->other = mnl_attr_get_u32(attr);
		break;
	case IFLA_LINK_NETNSID:
		if (mnl_attr_validate(attr, MNL_TYPE_U32) >= 0) {
			link->nsid = (int32_t)mnl_attr_get_u32(attr);
			link->has_nsid = true;
		}
		break;
	case IFLA_LINKINFO:
		mnl_attr_parse_nested(attr, kind_attribute, link);
		break;
	}
	return MNL_CB_OK;
}

/* Where the other end is, is what the kernel says of a veth; of other kinds the same attributes name what they stand on. */
static int link_message(const struct nlmsghdr *nlh, void *data)
{
	const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(nlh);
	struct veth_attributes link = {};
	struct reading *r = data;

	if (nlh->nlmsg_type != RTM_NEWLINK || nlh->nlmsg_len < mnl_nlmsg_size(sizeof(*ifi)))
		return MNL_CB_OK;
	mnl_attr_parse(nlh, sizeof(*ifi), link_attribute, &link);
	if (!link.is_veth || !link.has_nsid || link.nsid != r->nsid || !link.other)
		return MNL_CB_OK;
	if (r->n - r->n_before >= NAMESPACE_MAX_VETHS)
		return MNL_CB_STOP;
	if (r->n == r->room) {
		size_t room = r->room ? 2 * r->room : 64;
		struct netns_veth *items = reallocarray(r->items, room, sizeof(*items));

		if (!items) {
			errno = ENOMEM;
			return MNL_CB_ERROR;
		}
		r->items = items;
		r->room = room;
	}
	r->items[r->n++] = (struct netns_veth){
		.netns = r->netns,
		.ifindex = link.other,
		.inside = (uint32_t)ifi->ifi_index,
	};
	return MNL_CB_OK;
}

/* ---- the number of the enforcer's own namespace ---- */

static int nsid_attribute(const struct nlattr *attr, void *data)
{
	int32_t *nsid = data;

	if (mnl_attr_get_type(attr) == NETNSA_NSID && mnl_attr_validate(attr, MNL_TYPE_U32) >= 0)
		*nsid = (int32_t)mnl_attr_get_u32(attr);
	return MNL_CB_OK;
}

static int nsid_message(const struct nlmsghdr *nlh, void *data)
{
	if (nlh->nlmsg_type == RTM_NEWNSID && nlh->nlmsg_len >= mnl_nlmsg_size(sizeof(struct rtgenmsg)))
		mnl_attr_parse(nlh, sizeof(struct rtgenmsg), nsid_attribute, data);
	return MNL_CB_OK;
}

/* -1: it has none, so no device there leads to us. */
static int nsid_read(struct mnl_socket *nl, struct reading *r)
{
	char buf[MNL_NLMSG_HDRLEN + MNL_ALIGN(sizeof(struct rtgenmsg)) + 64];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);

	nlh->nlmsg_type = RTM_GETNSID;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	mnl_nlmsg_put_extra_header(nlh, sizeof(struct rtgenmsg));
	mnl_attr_put_u32(nlh, NETNSA_FD, (uint32_t)r->own);
	r->nsid = NETNSA_NSID_NOT_ASSIGNED;
	return netlink_exchange(nl, nlh, nsid_message, &r->nsid);
}

/* ---- addresses ---- */

static int address_message(const struct nlmsghdr *nlh, void *data)
{
	struct reading *r = data;
	struct bh_addr address;
	uint32_t inside;

	if (!netns_address_read(nlh, &address, &inside))
		return MNL_CB_OK;
	for (size_t i = r->n_before; i < r->n; i++) {
		struct netns_veth *veth = &r->items[i];

		if (veth->inside == inside && veth->n_addresses < NETNS_VETH_ADDRESSES)
			veth->addresses[veth->n_addresses++] = address;
	}
	return MNL_CB_OK;
}

/* ---- one namespace ---- */

static int dump(struct mnl_socket *nl, uint16_t type, size_t header, mnl_cb_t callback, void *data)
{
	char buf[MNL_NLMSG_HDRLEN + MNL_ALIGN(sizeof(struct ifinfomsg))];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);

	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	mnl_nlmsg_put_extra_header(nlh, header);
	return netlink_exchange(nl, nlh, callback, data);
}

static int veths_read(void *ctx)
{
	__attribute__((cleanup(netlink_closep))) struct mnl_socket *nl = NULL;
	struct reading *r = ctx;
	struct stat st;
	int err;

	if (stat("/proc/self/ns/net", &st) < 0)
		return -errno;
	if (st.st_ino == r->own_inode || !netns_is_trusted())
		return 0;
	nl = netlink_open(NETLINK_ROUTE);
	if (!nl)
		return -errno;
	r->netns = st.st_ino;
	r->n_before = r->n;
	err = nsid_read(nl, r);
	/* Numbers are given when somebody asks for a device that leads there. */
	if (err == 0 && r->nsid < 0) {
		err = dump(nl, RTM_GETLINK, sizeof(struct ifinfomsg), NULL, NULL);
		if (err == 0)
			err = nsid_read(nl, r);
	}
	if (err < 0 || r->nsid < 0)
		return err;
	err = dump(nl, RTM_GETLINK, sizeof(struct ifinfomsg), link_message, r);
	if (err < 0 || r->n == r->n_before)
		return err;
	return dump(nl, RTM_GETADDR, sizeof(struct ifaddrmsg), address_message, r);
}

int netns_veths_read(const struct cgroup_tree *tree, struct netns_veth **vethsp, size_t *np)
{
	struct reading r = {.own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)};
	struct stat st;
	int err = 0;

	if (r.own < 0)
		return -errno;
	if (fstat(r.own, &st) < 0)
		err = -errno;
	r.own_inode = st.st_ino;
	if (!err)
		err = netns_each(tree, veths_read, &r);
	close(r.own);
	*vethsp = r.items;
	*np = r.n;
	return err;
}
