// SPDX-License-Identifier: Apache-2.0
/*
 * Cutting sockets: inet_diag (sock_diag(7)) lists the TCP sockets of a namespace by cookie, under which the kernel
 * programs keep what they know of each, so that the enforcer judges from that, by the function that they use.
 */
#include "netns.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
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

/* By what sockets are judged. */
struct judge {
	struct datapath *datapath;
	const struct cgroup_tree *tree;
	const struct netns_view *view; /* NULL: what is in force */
};

struct cut {
	struct judge judge;
	struct victim *victims; /* of the namespace being read */
	size_t n, room;
	int destroyed;
};

/* Of one socket. */
struct verdict {
	bool judged; /* no: nothing was ever allowed here, or there is nothing to judge by */
	bool allow;
	uint32_t cell;
};

static uint64_t boottime_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

static int tag_order(const void *a, const void *b)
{
	uint64_t x = ((const struct netns_tag *)a)->cgroup_id, y = ((const struct netns_tag *)b)->cgroup_id;

	return (x > y) - (x < y);
}

static int tag_get(const struct judge *judge, uint64_t cgroup_id, struct bh_tag *tag)
{
	const struct netns_view *view = judge->view;
	struct netns_tag key = {.cgroup_id = cgroup_id};
	const struct netns_tag *found =
		view && view->n_tags ? bsearch(&key, view->tags, view->n_tags, sizeof(key), tag_order) : NULL;

	if (!found)
		return datapath_tag_get(judge->datapath, cgroup_id, tag);
	*tag = found->tag;
	return 0;
}

static uint32_t who_of(const struct judge *judge, uint32_t identity)
{
	return judge->view ? judge->view->who[identity % BH_MAX_IDENTITIES] : datapath_who(judge->datapath, identity);
}

/* As bh_subject_of_skb(): the nearest tagged group decides, also when its tag has expired. */
static uint32_t subject_of(const struct judge *judge, uint64_t cgroup_id)
{
	const struct cgroup_node *node = cgroup_tree_find(judge->tree, cgroup_id);
	struct bh_tag tag;

	while (node && node->depth > 0) {
		if (tag_get(judge, node->id, &tag) == 0)
			return tag.deadline_ns > boottime_ns() ? tag.identity : BH_ID_UNIDENTIFIED;
		node = cgroup_tree_find(judge->tree, node->parent);
	}
	return BH_ID_UNIDENTIFIED;
}

/* As bh_peer_alive(): the peer counts as long as the tag that gave it its identity does. */
static uint32_t peer_of(const struct judge *judge, const struct bh_tcp *tcp)
{
	struct bh_tag tag;

	if (tcp->peer < BH_ID_FIRST)
		return tcp->peer;
	if (tag_get(judge, tcp->peer_tag, &tag) < 0 || tag.identity != tcp->peer || tag.deadline_ns <= boottime_ns())
		return BH_ID_UNIDENTIFIED;
	return tcp->peer;
}

/* Would the kernel let the next packet of this socket pass? */
static struct verdict judge_socket(const struct judge *judge, const struct bh_tcp *tcp, uint64_t cgroup_id)
{
	const uint8_t *t = judge->view ? judge->view->tables : datapath_tables(judge->datapath);
	struct verdict verdict = {.allow = true};

	/* A cgroup made since the snapshot, or removed while its socket lives on: the kernel still judges each packet. */
	if (!cgroup_tree_find(judge->tree, cgroup_id))
		return verdict;

	uint16_t self = (uint16_t)who_of(judge, subject_of(judge, cgroup_id));
	uint16_t peer = (uint16_t)who_of(judge, peer_of(judge, tcp));
	uint32_t local = bh_addr_class(t, &tcp->local), remote = bh_addr_class(t, &tcp->remote);
	__u64 now = judge->view ? judge->view->now : boottime_ns(), valid_until = BH_FOREVER;
	struct bh_flow flow;

	switch (tcp->kind) {
	case BH_SOCK_ACTIVE:
		flow = (struct bh_flow){self, peer, local, remote, bh_service_point(IPPROTO_TCP, tcp->rport)};
		verdict.cell = bh_decide(t, BH_EGRESS, &flow, now, &valid_until);
		break;
	case BH_SOCK_PASSIVE:
		flow = (struct bh_flow){peer, self, remote, local, bh_service_point(IPPROTO_TCP, tcp->lport)};
		verdict.cell = bh_decide(t, BH_INGRESS, &flow, now, &valid_until);
		break;
	default:
		/* Nothing was ever allowed here, or nothing to judge by yet: no flow to cut. */
		return verdict;
	}
	verdict.judged = true;
	verdict.allow = verdict.cell & BH_CELL_ALLOW;
	return verdict;
}

static void *list_grow(void *items, size_t n, size_t *room, size_t item)
{
	if (n < *room)
		return items;
	*room = *room ? 2 * *room : 64;
	return reallocarray(items, *room, item);
}

static int victim_add(struct cut *cut, const struct inet_diag_msg *msg)
{
	size_t room = cut->room;
	struct victim *victims = list_grow(cut->victims, cut->n, &room, sizeof(*victims));

	if (!victims)
		return -ENOMEM;
	cut->victims = victims;
	cut->room = room;
	cut->victims[cut->n++] = (struct victim){.id = msg->id, .family = msg->idiag_family};
	return 0;
}

/* Returns whether the kernel programs keep something of this socket. */
static bool socket_read(const struct datapath *datapath, const struct nlmsghdr *nlh, struct bh_tcp *tcp,
			uint64_t *cgroup_id)
{
	const struct inet_diag_msg *msg = mnl_nlmsg_get_payload(nlh);
	uint64_t cookie = (uint64_t)msg->id.idiag_cookie[1] << 32 | msg->id.idiag_cookie[0];
	const struct nlattr *attr;

	*cgroup_id = 0;
	mnl_attr_for_each(attr, nlh, sizeof(*msg))
	{
		if (mnl_attr_get_type(attr) == INET_DIAG_CGROUP_ID && mnl_attr_get_payload_len(attr) == 8)
			*cgroup_id = mnl_attr_get_u64(attr);
	}
	return datapath_tcp_get(datapath, cookie, tcp) == 0;
}

static int socket_message(const struct nlmsghdr *nlh, void *data)
{
	const struct inet_diag_msg *msg = mnl_nlmsg_get_payload(nlh);
	struct cut *cut = data;
	uint64_t cgroup_id;
	struct bh_tcp tcp;

	if (nlh->nlmsg_len < mnl_nlmsg_size(sizeof(*msg)) || !socket_read(cut->judge.datapath, nlh, &tcp, &cgroup_id))
		return MNL_CB_OK;
	if (!judge_socket(&cut->judge, &tcp, cgroup_id).allow && victim_add(cut, msg) < 0) {
		errno = ENOMEM;
		return MNL_CB_ERROR;
	}
	return MNL_CB_OK;
}

static int family_list(struct mnl_socket *nl, uint8_t family, mnl_cb_t message, void *data)
{
	char buf[MNL_NLMSG_HDRLEN + sizeof(struct inet_diag_req_v2) + 64];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct inet_diag_req_v2 *req;

	nlh->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	req = mnl_nlmsg_put_extra_header(nlh, sizeof(*req));
	req->sdiag_family = family;
	req->sdiag_protocol = IPPROTO_TCP;
	req->idiag_states = 1U << TCP_ESTABLISHED | 1U << TCP_FIN_WAIT1 | 1U << TCP_FIN_WAIT2 | 1U << TCP_CLOSE_WAIT |
			    1U << TCP_LAST_ACK | 1U << TCP_CLOSING;
	return netlink_exchange(nl, nlh, message, data);
}

static int sockets_list(struct mnl_socket *nl, mnl_cb_t message, void *data)
{
	int r = family_list(nl, AF_INET, message, data);

	return r ? r : family_list(nl, AF_INET6, message, data);
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
	r = sockets_list(nl, socket_message, cut);
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
	struct cut cut = {.judge = {.datapath = datapath, .tree = tree}};
	int r = netns_each(tree, namespace_cut, &cut);

	free(cut.victims);
	return r < 0 ? r : cut.destroyed;
}

/* ---- looking ahead ---- */

struct look {
	struct judge judge;
	struct netns_preview *preview;
	struct netns_victim *victims;
	size_t n_victims, victims_room;
	struct netns_connection *own; /* of the session that asks */
	size_t n_own, own_room;
};

_Static_assert(sizeof(struct netns_connection) == 36, "connections are compared as bytes");

static int inode_order(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static struct bh_addr diag_address(uint8_t family, const uint32_t *words)
{
	struct bh_addr addr = {.w = {0, 0, htonl(0xffff), words[0]}};

	if (family != AF_INET)
		memcpy(&addr, words, sizeof(addr));
	return addr;
}

static int own_add(struct look *look, const struct netns_connection *connection)
{
	size_t room = look->own_room;
	struct netns_connection *own = list_grow(look->own, look->n_own, &room, sizeof(*own));

	if (!own)
		return -ENOMEM;
	look->own = own;
	look->own_room = room;
	look->own[look->n_own++] = *connection;
	return 0;
}

static int look_add(struct look *look, const struct netns_victim *victim)
{
	size_t room = look->victims_room;
	struct netns_victim *victims = list_grow(look->victims, look->n_victims, &room, sizeof(*victims));

	if (!victims)
		return -ENOMEM;
	look->victims = victims;
	look->victims_room = room;
	look->victims[look->n_victims++] = *victim;
	return 0;
}

static int look_message(const struct nlmsghdr *nlh, void *data)
{
	const struct inet_diag_msg *msg = mnl_nlmsg_get_payload(nlh);
	struct netns_victim victim = {};
	struct look *look = data;
	uint64_t inode;
	struct verdict verdict;
	struct bh_tcp tcp;
	int r = 0;

	if (nlh->nlmsg_len < mnl_nlmsg_size(sizeof(*msg)))
		return MNL_CB_OK;
	victim.connection = (struct netns_connection){
		.local = diag_address(msg->idiag_family, msg->id.idiag_src),
		.remote = diag_address(msg->idiag_family, msg->id.idiag_dst),
		.lport = ntohs(msg->id.idiag_sport),
		.rport = ntohs(msg->id.idiag_dport),
	};
	inode = msg->idiag_inode;
	if (inode && look->preview->n_sockets &&
	    bsearch(&inode, look->preview->sockets, look->preview->n_sockets, sizeof(inode), inode_order))
		r = own_add(look, &victim.connection);
	if (r == 0 && socket_read(look->judge.datapath, nlh, &tcp, &victim.cgroup_id)) {
		verdict = judge_socket(&look->judge, &tcp, victim.cgroup_id);
		victim.cell = verdict.cell;
		victim.kind = tcp.kind;
		if (verdict.judged && !verdict.allow)
			r = look_add(look, &victim);
	}
	if (r == 0)
		return MNL_CB_OK;
	errno = ENOMEM;
	return MNL_CB_ERROR;
}

static int namespace_look(void *ctx)
{
	__attribute__((cleanup(netlink_closep))) struct mnl_socket *nl = netlink_open(NETLINK_SOCK_DIAG);
	struct look *look = ctx;

	return nl ? sockets_list(nl, look_message, look) : -errno;
}

static int connection_order(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct netns_connection));
}

/* Is it one of the session's, from the same end or from the other one? */
static bool is_own(const struct look *look, const struct netns_connection *c)
{
	struct netns_connection other = {.local = c->remote, .remote = c->local, .lport = c->rport, .rport = c->lport};

	return bsearch(c, look->own, look->n_own, sizeof(*c), connection_order) ||
	       bsearch(&other, look->own, look->n_own, sizeof(other), connection_order);
}

int netns_sockets_preview(struct datapath *datapath, const struct cgroup_tree *tree, const struct netns_view *view,
			  struct netns_preview *preview)
{
	struct look look = {.judge = {.datapath = datapath, .tree = tree, .view = view}, .preview = preview};
	int r = netns_each(tree, namespace_look, &look);

	preview->n_cut = (uint32_t)look.n_victims;
	preview->session_known = look.n_own;
	if (look.n_own)
		preview->session = look.own[0];
	if (preview->hint.lport && own_add(&look, &preview->hint) < 0)
		r = -ENOMEM;
	if (look.n_own)
		qsort(look.own, look.n_own, sizeof(*look.own), connection_order);
	preview->session_cut = false;
	for (size_t i = 0; look.n_own && i < look.n_victims && !preview->session_cut; i++) {
		preview->session_cut = is_own(&look, &look.victims[i].connection);
		preview->victim = look.victims[i];
	}
	free(look.victims);
	free(look.own);
	return r;
}
