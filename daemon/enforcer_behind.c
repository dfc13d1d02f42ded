// SPDX-License-Identifier: Apache-2.0
/*
 * Managed devices by the cgroup of who is behind them: a container that has an identity needs nobody to bind its device.
 *
 * What counts is the kernel's word, not the workload's: which namespace the other end of a veth is in, which cgroups the
 * processes there are in, and which tags these carry. Only namespaces of the enforcer's own user namespace count, so who is
 * in one was put there by root of this host. Where those who are there carry different identities the device gets none; who
 * carries none does not count: what it sends through sockets is judged by its own cgroup.
 *
 * Addresses are what a workload with CAP_NET_ADMIN could lie about. So only those are bound that this host would itself send
 * to that device, or to the bridge that it is a port of, and that no other device is bound with.
 *
 * It is looked for at every sweep and at every attestation. A device that was bound by hand is left alone.
 */
#include "enforcer_internal.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "netlink.h"

/* ---- who ---- */

/* Copies: tags move when another is added. */
struct owner {
	uint32_t identity; /* 0: nobody */
	bool local;
	bool shared; /* by different identities */
	uint64_t deadline_ns;
	int64_t not_after;
	uint64_t cgroup_id;
	uint32_t pid;
	char path[1024];
	char serial[64];
};

/* The tag that decides for a cgroup: of the nearest that has one, also one that ended. */
static const struct tag *tag_of_node(struct enforcer *e, const struct cgroup_tree *tree, const struct cgroup_node *node)
{
	while (node && node->depth) {
		const struct tag *tag = enforcer_tag_find(e, node->id);

		if (tag)
			return tag;
		node = cgroup_tree_find(tree, node->parent);
	}
	return NULL;
}

/* The tag of the next cgroup with a process in the namespace that has one, from *nextp on; NULL: there is none left. */
static const struct tag *tag_in_netns(struct enforcer *e, const struct cgroup_tree *tree, ino_t netns, size_t *nextp)
{
	while (*nextp < tree->n_presences) {
		const struct cgroup_presence *presence = &tree->presences[(*nextp)++];
		const struct tag *tag = NULL;

		if (presence->netns == netns)
			tag = tag_of_node(e, tree, cgroup_tree_find(tree, presence->cgroup_id));
		if (tag)
			return tag;
	}
	return NULL;
}

/* Is there somebody whose identity ended, and was another? What such a process makes by hand must not go under the name that the
 * others have. */
static bool is_shared_with_ended(struct enforcer *e, const struct cgroup_tree *tree, ino_t netns, uint32_t identity)
{
	uint64_t now = enforcer_boottime_ns();
	const struct tag *tag;
	size_t next = 0;

	while ((tag = tag_in_netns(e, tree, netns, &next)))
		if (tag->deadline_ns <= now && tag->identity != identity)
			return true;
	return false;
}

static void owner_find(struct enforcer *e, const struct cgroup_tree *tree, ino_t netns, struct owner *owner)
{
	uint64_t now = enforcer_boottime_ns();
	const struct tag *tag;
	size_t next = 0;

	*owner = (struct owner){};
	while ((tag = tag_in_netns(e, tree, netns, &next))) {
		if (tag->deadline_ns <= now)
			continue;
		if (owner->identity && owner->identity != tag->identity) {
			owner->shared = true;
			return;
		}
		/* Of several with the same identity, the one that ends first. */
		if (owner->identity && owner->deadline_ns <= tag->deadline_ns)
			continue;
		owner->identity = tag->identity;
		owner->local = tag->local;
		owner->deadline_ns = tag->deadline_ns;
		owner->not_after = tag->not_after;
		owner->cgroup_id = tag->cgroup_id;
		owner->pid = tag->pid;
		memcpy(owner->path, tag->path, sizeof(owner->path));
		memcpy(owner->serial, tag->serial, sizeof(owner->serial));
	}
	if (owner->identity && is_shared_with_ended(e, tree, netns, owner->identity))
		owner->shared = true;
}

/* ---- addresses ---- */

struct route {
	uint32_t ifindex;
	uint8_t type;
};

static int route_attribute(const struct nlattr *attr, void *data)
{
	struct route *route = data;

	if (mnl_attr_get_type(attr) == RTA_OIF && mnl_attr_validate(attr, MNL_TYPE_U32) >= 0)
		route->ifindex = mnl_attr_get_u32(attr);
	return MNL_CB_OK;
}

static int route_message(const struct nlmsghdr *nlh, void *data)
{
	const struct rtmsg *rtm = mnl_nlmsg_get_payload(nlh);
	struct route *route = data;

	if (nlh->nlmsg_type != RTM_NEWROUTE || nlh->nlmsg_len < mnl_nlmsg_size(sizeof(*rtm)))
		return MNL_CB_OK;
	route->type = rtm->rtm_type;
	mnl_attr_parse(nlh, sizeof(*rtm), route_attribute, route);
	return MNL_CB_OK;
}

/* Would this host send what is for the address to the device? Of link-local ones every link may have the same. */
static bool is_reached(struct mnl_socket *nl, const struct device *device, const struct bh_addr *a)
{
	bool v4 = a->w[0] == 0 && a->w[1] == 0 && ntohl(a->w[2]) == 0xffff;
	char buf[MNL_NLMSG_HDRLEN + MNL_ALIGN(sizeof(struct rtmsg)) + 64];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct route route = {};
	struct rtmsg *rtm;

	if (!v4 && ntohl(a->w[0]) >> 22 == 0xfe80 >> 6)
		return true;
	nlh->nlmsg_type = RTM_GETROUTE;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	rtm = mnl_nlmsg_put_extra_header(nlh, sizeof(*rtm));
	rtm->rtm_family = v4 ? AF_INET : AF_INET6;
	rtm->rtm_dst_len = v4 ? 32 : 128;
	if (v4)
		mnl_attr_put(nlh, RTA_DST, sizeof(a->w[3]), &a->w[3]);
	else
		mnl_attr_put(nlh, RTA_DST, sizeof(*a), a);
	return netlink_exchange(nl, nlh, route_message, &route) == 0 && route.type == RTN_UNICAST && route.ifindex &&
	       (route.ifindex == device->ifindex || route.ifindex == device->master);
}

static bool is_bound_elsewhere(const struct enforcer *e, const struct device *device, const struct bh_addr *address)
{
	const struct device *other = devices_with_address(e->devices, address);

	return other && other != device;
}

/* Those of the namespace's that can be bound. Returns how many; *left: the others. */
static uint32_t addresses_choose(const struct enforcer *e, struct mnl_socket *nl, const struct device *device,
				 const struct netns_veth *veth, struct bh_addr *out, uint32_t *left)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < veth->n_addresses; i++) {
		const struct bh_addr *a = &veth->addresses[i];

		if (n < BH_DEVICE_ADDRESSES && enforcer_address_can_be_bound(a) && !is_bound_elsewhere(e, device, a) &&
		    is_reached(nl, device, a))
			out[n++] = *a;
	}
	*left = veth->n_addresses - n;
	return n;
}

/* ---- giving and taking ---- */

static void removed(struct enforcer *e, const struct device *device, struct tag *tag, const char *why)
{
	devices_bind(e->devices, device->ifindex, NULL, 0);
	enforcer_tag_remove(e, tag, why);
}

static bool is_as_found(const struct tag *tag, const struct owner *owner)
{
	return tag->identity == owner->identity && tag->deadline_ns == owner->deadline_ns &&
	       tag->source == owner->cgroup_id;
}

/* Returns whether it got an identity that it had not. */
static bool given(struct enforcer *e, const struct device *device, struct tag *tag, const struct owner *owner)
{
	bool fresh = !tag || !tag->deadline_ns;
	struct ipc_notice notice;
	struct tag before = {};

	if (tag)
		before = *tag;
	else
		tag = enforcer_tag_add(e, BH_DEVICE_BIT | device->ifindex);
	if (!tag)
		return false;
	tag->identity = owner->identity;
	tag->local = owner->local;
	tag->derived = true;
	tag->source = owner->cgroup_id;
	tag->deadline_ns = owner->deadline_ns;
	tag->not_after = owner->not_after;
	tag->pid = owner->pid;
	snprintf(tag->path, sizeof(tag->path), BH_DEVICE_PLACE "%s", device->name);
	memcpy(tag->serial, owner->serial, sizeof(tag->serial));
	if (enforcer_tag_write(e, tag) < 0) {
		enforcer_tag_restore(e, tag, &before);
		return false;
	}
	if (!fresh)
		return false;
	notice = enforcer_tag_notice(e, tag->local ? NOTICE_IDENTITY_LOCAL : NOTICE_IDENTITY_ATTESTED, tag);
	snprintf(notice.text, sizeof(notice.text), "the workload behind it is cgroup %.400s", owner->path);
	enforcer_notice_post(e, &notice);
	return true;
}

static void told(struct device *device, const struct owner *owner, uint32_t n, uint32_t left)
{
	if (owner->shared && !device->shared)
		log_warning("the device %s gets no identity by the cgroup behind it: workloads of different identities "
			    "share its network namespace; bind it by hand (policyctl attest --device %s)",
			    device->name, device->name);
	device->shared = owner->shared;
	if (!owner->identity)
		return;
	if (left && left != device->n_left)
		log_warning(
			"the device %s: %u address%s of the namespace behind it %s not bound: this host would not send "
			"to the device what is for %s, another device is bound with %s, or there are more than %u%s",
			device->name, left, left == 1 ? "" : "es", left == 1 ? "is" : "are", left == 1 ? "it" : "them",
			left == 1 ? "it" : "them", BH_DEVICE_ADDRESSES, n ? "" : "; the device carries nothing");
	device->n_left = left;
}

/* One device, with what leads to it; `veth` NULL: nothing was found. Returns whether anything changed. */
static bool derive(struct enforcer *e, const struct cgroup_tree *tree, struct mnl_socket *nl, struct device *device,
		   const struct netns_veth *veth)
{
	struct tag *tag = enforcer_tag_find(e, BH_DEVICE_BIT | device->ifindex);
	struct bh_addr addresses[BH_DEVICE_ADDRESSES];
	struct owner owner = {};
	uint32_t n = 0, left = 0;
	bool changed = false;

	if (tag && !tag->derived)
		return false;
	if (veth)
		owner_find(e, tree, veth->netns, &owner);
	if (owner.shared)
		owner.identity = 0;
	if (owner.identity)
		n = addresses_choose(e, nl, device, veth, addresses, &left);
	told(device, &owner, n, left);
	if (tag && tag->deadline_ns && (!n || tag->identity != owner.identity)) {
		removed(e, device, tag,
			owner.shared ? "workloads of different identities share the network namespace behind it"
			: n	     ? "another workload is behind it"
				     : "no workload with an identity and an address is behind it");
		tag = NULL;
		changed = true;
	}
	device->behind = n ? veth->netns : 0;
	if (!n)
		return changed;
	if (device->kernel.n_addresses != n || memcmp(device->kernel.addresses, addresses, n * sizeof(addresses[0]))) {
		if (devices_bind(e->devices, device->ifindex, addresses, n) < 0)
			return changed;
		changed = true;
	}
	if (tag && is_as_found(tag, &owner))
		return changed;
	return given(e, device, tag, &owner) || changed;
}

static bool is_inhabited(const struct cgroup_tree *tree, ino_t netns)
{
	for (size_t i = 0; i < tree->n_presences; i++)
		if (tree->presences[i].netns == netns)
			return true;
	return false;
}

bool enforcer_devices_derive(struct enforcer *e, const struct cgroup_tree *tree)
{
	__attribute__((cleanup(netlink_closep))) struct mnl_socket *nl = NULL;
	size_t count = devices_count(e->devices), n = 0;
	struct netns_veth *veths = NULL;
	bool changed = false;
	int r;

	if (!count)
		return false;
	nl = netlink_open(NETLINK_ROUTE);
	if (!nl)
		return false;
	r = netns_veths_read(tree, &veths, &n);
	for (size_t i = 0; i < count; i++) {
		struct device *device = devices_edit(e->devices, i);
		const struct netns_veth *veth = NULL;

		if (!device->covered)
			continue;
		for (size_t j = 0; j < n && !veth; j++)
			if (veths[j].ifindex == device->ifindex)
				veth = &veths[j];
		/* Its namespace was not read this time: its process had just ended, and another is there. */
		if (!veth && r < 0 && device->behind && is_inhabited(tree, device->behind))
			continue;
		changed |= derive(e, tree, nl, device, veth);
	}
	free(veths);
	return changed;
}
