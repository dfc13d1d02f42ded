// SPDX-License-Identifier: Apache-2.0
/*
 * Cutting sockets: inet_diag (sock_diag(7)) lists the TCP sockets of a namespace with the storage that the kernel
 * programs keep with each, so that the enforcer judges from what they know, by the function that they use.
 */
#include "netns.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "bpf/decide.h"
#include "log.h"
#include "netlink.h"

#ifndef SOCK_DESTROY
#define SOCK_DESTROY 21
#endif

struct victim {
	struct inet_diag_sockid id;
	uint8_t family;
};

struct cut {
	struct datapath *datapath;
	const struct cgroup_tree *tree;
	struct victim *victims; /* of the namespace being read */
	size_t n, room;
	int destroyed;
};

static uint64_t boottime_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

/* As bh_subject_of_skb(): the nearest tagged group decides, also when its tag has expired. */
static uint32_t subject_of(const struct cut *cut, uint64_t cgroup_id)
{
	const struct cgroup_node *node = cgroup_tree_find(cut->tree, cgroup_id);
	struct bh_tag tag;

	while (node && node->depth > 0) {
		if (datapath_tag_get(cut->datapath, node->id, &tag) == 0)
			return tag.deadline_ns > boottime_ns() ? tag.identity : BH_ID_UNIDENTIFIED;
		node = cgroup_tree_find(cut->tree, node->parent);
	}
	return BH_ID_UNIDENTIFIED;
}

/* As bh_peer_alive(): the peer counts as long as the tag that gave it its identity does. */
static uint32_t peer_of(const struct cut *cut, const struct bh_sock *ss)
{
	struct bh_tag tag;

	if (ss->peer < BH_ID_FIRST)
		return ss->peer;
	if (datapath_tag_get(cut->datapath, ss->peer_tag, &tag) < 0 || tag.identity != ss->peer ||
	    tag.deadline_ns <= boottime_ns())
		return BH_ID_UNIDENTIFIED;
	return ss->peer;
}

/* Would the kernel let the next packet of this socket pass? */
static int is_allowed(const struct cut *cut, const struct bh_sock *ss, uint64_t cgroup_id)
{
	const uint8_t *t = datapath_tables(cut->datapath);

	/* A cgroup made since the snapshot, or removed while its socket lives on: the kernel still judges each packet. */
	if (!cgroup_tree_find(cut->tree, cgroup_id))
		return 1;

	uint16_t self = datapath_who(cut->datapath, subject_of(cut, cgroup_id));
	uint16_t peer = datapath_who(cut->datapath, peer_of(cut, ss));
	uint32_t local = bh_addr_class(t, &ss->local), remote = bh_addr_class(t, &ss->remote);
	__u64 valid_until = BH_FOREVER;
	struct bh_flow flow;

	switch (ss->kind) {
	case BH_SOCK_ACTIVE:
		flow = (struct bh_flow){self, peer, local, remote, bh_service_point(IPPROTO_TCP, ss->rport)};
		return !!(bh_decide(t, BH_EGRESS, &flow, boottime_ns(), &valid_until) & BH_CELL_ALLOW);
	case BH_SOCK_PASSIVE:
		flow = (struct bh_flow){peer, self, remote, local, bh_service_point(IPPROTO_TCP, ss->lport)};
		return !!(bh_decide(t, BH_INGRESS, &flow, boottime_ns(), &valid_until) & BH_CELL_ALLOW);
	default:
		/* Nothing was ever allowed here, or nothing to judge by yet: no flow to cut. */
		return 1;
	}
}

static int storage_attribute(const struct nlattr *attr, void *data)
{
	const struct nlattr **value = data;

	if (mnl_attr_get_type(attr) == SK_DIAG_BPF_STORAGE_MAP_VALUE &&
	    mnl_attr_get_payload_len(attr) >= sizeof(struct bh_sock))
		*value = attr;
	return MNL_CB_OK;
}

static int storages_attribute(const struct nlattr *attr, void *data)
{
	if (mnl_attr_get_type(attr) == SK_DIAG_BPF_STORAGE)
		return mnl_attr_parse_nested(attr, storage_attribute, data);
	return MNL_CB_OK;
}

static int victim_add(struct cut *cut, const struct inet_diag_msg *msg)
{
	if (cut->n == cut->room) {
		size_t room = cut->room ? cut->room * 2 : 64;
		struct victim *victims = reallocarray(cut->victims, room, sizeof(*victims));

		if (!victims)
			return -ENOMEM;
		cut->victims = victims;
		cut->room = room;
	}
	cut->victims[cut->n++] = (struct victim){.id = msg->id, .family = msg->idiag_family};
	return 0;
}

static int socket_message(const struct nlmsghdr *nlh, void *data)
{
	const struct inet_diag_msg *msg = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *attr, *value = NULL;
	struct cut *cut = data;
	uint64_t cgroup_id = 0;
	struct bh_sock ss;

	if (nlh->nlmsg_len < mnl_nlmsg_size(sizeof(*msg)))
		return MNL_CB_OK;
	mnl_attr_for_each(attr, nlh, sizeof(*msg))
	{
		if (mnl_attr_get_type(attr) == INET_DIAG_SK_BPF_STORAGES)
			mnl_attr_parse_nested(attr, storages_attribute, (void *)&value);
		else if (mnl_attr_get_type(attr) == INET_DIAG_CGROUP_ID && mnl_attr_get_payload_len(attr) == 8)
			cgroup_id = mnl_attr_get_u64(attr);
	}
	if (!value)
		return MNL_CB_OK;
	memcpy(&ss, mnl_attr_get_payload(value), sizeof(ss));
	if (!is_allowed(cut, &ss, cgroup_id) && victim_add(cut, msg) < 0)
		return MNL_CB_ERROR;
	return MNL_CB_OK;
}

static int sockets_list(struct mnl_socket *nl, struct cut *cut, uint8_t family)
{
	char buf[MNL_NLMSG_HDRLEN + sizeof(struct inet_diag_req_v2) + 64];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct inet_diag_req_v2 *req;
	struct nlattr *nest;

	nlh->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	req = mnl_nlmsg_put_extra_header(nlh, sizeof(*req));
	req->sdiag_family = family;
	req->sdiag_protocol = IPPROTO_TCP;
	req->idiag_states = 1U << TCP_ESTABLISHED | 1U << TCP_FIN_WAIT1 | 1U << TCP_FIN_WAIT2 | 1U << TCP_CLOSE_WAIT |
			    1U << TCP_LAST_ACK | 1U << TCP_CLOSING;
	nest = mnl_attr_nest_start(nlh, INET_DIAG_REQ_SK_BPF_STORAGES);
	mnl_attr_put_u32(nlh, SK_DIAG_BPF_STORAGE_REQ_MAP_FD, (uint32_t)datapath_sockets_fd(cut->datapath));
	mnl_attr_nest_end(nlh, nest);
	return netlink_exchange(nl, nlh, socket_message, cut);
}

static int socket_destroy(struct mnl_socket *nl, const struct victim *victim)
{
	char buf[MNL_NLMSG_HDRLEN + sizeof(struct inet_diag_req_v2) + 16];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct inet_diag_req_v2 *req;

	nlh->nlmsg_type = SOCK_DESTROY;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	req = mnl_nlmsg_put_extra_header(nlh, sizeof(*req));
	req->sdiag_family = victim->family;
	req->sdiag_protocol = IPPROTO_TCP;
	req->idiag_states = ~0U;
	req->id = victim->id;
	return netlink_exchange(nl, nlh, NULL, NULL);
}

static int namespace_cut(void *ctx)
{
	__attribute__((cleanup(netlink_closep))) struct mnl_socket *nl = netlink_open(NETLINK_SOCK_DIAG);
	struct cut *cut = ctx;
	int r;

	if (!nl)
		return -errno;
	cut->n = 0;
	r = sockets_list(nl, cut, AF_INET);
	if (!r)
		r = sockets_list(nl, cut, AF_INET6);
	for (size_t i = 0; i < cut->n; i++) {
		int r2 = socket_destroy(nl, &cut->victims[i]);

		if (r2 == 0)
			cut->destroyed++;
		else if (r2 != -ENOENT) /* closed meanwhile */
			log_warning("cannot destroy a socket that is no longer allowed (its packets are dropped): %s",
				    strerror(-r2));
	}
	return r;
}

int netns_sockets_cut(struct datapath *datapath, const struct cgroup_tree *tree)
{
	struct cut cut = {.datapath = datapath, .tree = tree};
	int r = netns_each(tree, namespace_cut, &cut);

	free(cut.victims);
	return r < 0 ? r : cut.destroyed;
}
