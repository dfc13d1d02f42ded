// SPDX-License-Identifier: Apache-2.0
/*
 * Cutting sockets: inet_diag (sock_diag(7)) lists the TCP sockets of a namespace by cookie, under which the kernel
 * programs keep what they know of each, so that the enforcer judges from that, by the function that they use. Of the UDP
 * sockets, those that are connected have one flow, which is found in the kernel's map; the others just get EPERM.
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
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

struct victim {
	struct inet_diag_sockid id;
	uint8_t family;
	uint8_t protocol;
};

/* By what sockets are judged. */
struct judge {
	uint8_t protocol; /* of the sockets being listed */
	uint64_t netns;	  /* cookie of their namespace */
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

/* What the kernel programs know of a socket's one flow. */
struct known {
	uint8_t kind; /* BH_SOCK_ACTIVE, BH_SOCK_PASSIVE; else there is nothing to judge */
	uint16_t lport;
	uint16_t rport;
	struct bh_addr local;
	struct bh_addr remote;
	uint32_t peer;
	uint64_t peer_tag;
	uint64_t peer_cookie; /* UDP: of the socket that answered; 0: none of this host */
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
static uint32_t peer_of(const struct judge *judge, const struct known *known)
{
	struct bh_tag tag;

	if (known->peer < BH_ID_FIRST)
		return known->peer;
	if (tag_get(judge, known->peer_tag, &tag) < 0 || tag.identity != known->peer ||
	    tag.deadline_ns <= boottime_ns())
		return BH_ID_UNIDENTIFIED;
	return known->peer;
}

/* Would the kernel let the next packet of this socket pass? */
static struct verdict judge_socket(const struct judge *judge, const struct known *known, uint64_t cgroup_id)
{
	const uint8_t *t = judge->view ? judge->view->tables : datapath_tables(judge->datapath);
	struct verdict verdict = {.allow = true};

	/* A cgroup made since the snapshot, or removed while its socket lives on: the kernel still judges each packet. */
	if (!cgroup_tree_find(judge->tree, cgroup_id))
		return verdict;

	uint16_t self = (uint16_t)who_of(judge, subject_of(judge, cgroup_id));
	uint16_t peer = (uint16_t)who_of(judge, peer_of(judge, known));
	uint32_t local = bh_addr_class(t, &known->local), remote = bh_addr_class(t, &known->remote);
	__u64 now = judge->view ? judge->view->now : boottime_ns(), valid_until = BH_FOREVER;
	struct bh_flow flow;

	switch (known->kind) {
	case BH_SOCK_ACTIVE:
		flow = (struct bh_flow){self, peer, local, remote, bh_service_point(judge->protocol, known->rport)};
		verdict.cell = bh_decide(t, BH_EGRESS, &flow, now, &valid_until);
		break;
	case BH_SOCK_PASSIVE:
	case BH_SOCK_EARLY:
		flow = (struct bh_flow){peer, self, remote, local, bh_service_point(judge->protocol, known->lport)};
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
	cut->victims[cut->n++] =
		(struct victim){.id = msg->id, .family = msg->idiag_family, .protocol = cut->judge.protocol};
	return 0;
}

static struct bh_addr diag_address(uint8_t family, const uint32_t *words)
{
	struct bh_addr addr = {.w = {0, 0, htonl(0xffff), words[0]}};

	if (family != AF_INET)
		memcpy(&addr, words, sizeof(addr));
	return addr;
}

/* A connected socket's flow in the kernel's map. */
static struct bh_udp_key udp_key(uint8_t family, const struct inet_diag_sockid *id)
{
	return (struct bh_udp_key){
		.cookie = (uint64_t)id->idiag_cookie[1] << 32 | id->idiag_cookie[0],
		.local = diag_address(family, id->idiag_src),
		.remote = diag_address(family, id->idiag_dst),
		.lport = ntohs(id->idiag_sport),
		.rport = ntohs(id->idiag_dport),
		.proto = IPPROTO_UDP,
	};
}

/* Is the socket that answered still the one that stands there? Where it is not (a service that was started again), the kernel
 * asks anew who is there, and so nothing is known. */
static bool peer_stays(const struct judge *judge, const struct known *known)
{
	struct bh_addr any4 = {.w = {0, 0, htonl(0xffff), 0}}, any6 = {};
	const struct bh_addr *places[] = {&known->remote, &any4, &any6};
	struct bh_endpoint_key key = {.port = known->rport};
	struct bh_endpoint endpoint;
	uint64_t netns[2] = {judge->netns};

	if (known->kind != BH_SOCK_ACTIVE || !known->peer_cookie)
		return true;
	datapath_address_get(judge->datapath, &known->remote, &netns[1]);
	for (size_t i = 0; i < 2; i++) {
		for (size_t j = 0; netns[i] && j < 3; j++) {
			key.addr = *places[j];
			key.netns = netns[i];
			if (datapath_endpoint_get(judge->datapath, &key, &endpoint) == 0 &&
			    endpoint.cookie == known->peer_cookie)
				return true;
		}
	}
	return false;
}

static bool udp_read(const struct judge *judge, const struct inet_diag_msg *msg, struct known *known)
{
	struct bh_udp_key key = udp_key(msg->idiag_family, &msg->id);
	struct bh_udp_flow flow;

	if (datapath_udp_flow_get(judge->datapath, &key, &flow) < 0)
		return false;
	*known = (struct known){.kind = flow.initiator ? BH_SOCK_ACTIVE : BH_SOCK_PASSIVE,
				.lport = key.lport,
				.rport = key.rport,
				.local = key.local,
				.remote = key.remote,
				.peer = flow.peer,
				.peer_tag = flow.peer_tag,
				.peer_cookie = flow.peer_cookie};
	return peer_stays(judge, known);
}

static bool tcp_read(const struct judge *judge, const struct inet_diag_msg *msg, struct known *known)
{
	uint64_t cookie = (uint64_t)msg->id.idiag_cookie[1] << 32 | msg->id.idiag_cookie[0];
	struct bh_tcp tcp;

	if (datapath_tcp_get(judge->datapath, cookie, &tcp) < 0)
		return false;
	*known = (struct known){.kind = tcp.kind,
				.lport = tcp.lport,
				.rport = tcp.rport,
				.local = tcp.local,
				.remote = tcp.remote,
				.peer = tcp.peer,
				.peer_tag = tcp.peer_tag};
	return true;
}

/* Returns whether the kernel programs know a flow of this socket. */
static bool socket_read(const struct judge *judge, const struct nlmsghdr *nlh, struct known *known, uint64_t *cgroup_id)
{
	const struct inet_diag_msg *msg = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *attr;

	*cgroup_id = 0;
	mnl_attr_for_each(attr, nlh, sizeof(*msg))
	{
		if (mnl_attr_get_type(attr) == INET_DIAG_CGROUP_ID && mnl_attr_get_payload_len(attr) == 8)
			*cgroup_id = mnl_attr_get_u64(attr);
	}
	if (judge->protocol == IPPROTO_UDP)
		return udp_read(judge, msg, known);
	return tcp_read(judge, msg, known);
}

static int socket_message(const struct nlmsghdr *nlh, void *data)
{
	const struct inet_diag_msg *msg = mnl_nlmsg_get_payload(nlh);
	struct cut *cut = data;
	struct known known;
	uint64_t cgroup_id;

	if (nlh->nlmsg_len < mnl_nlmsg_size(sizeof(*msg)) || !socket_read(&cut->judge, nlh, &known, &cgroup_id))
		return MNL_CB_OK;
	if (!judge_socket(&cut->judge, &known, cgroup_id).allow && victim_add(cut, msg) < 0) {
		errno = ENOMEM;
		return MNL_CB_ERROR;
	}
	return MNL_CB_OK;
}

/* A UDP socket's state is TCP_ESTABLISHED while it is connected. */
static uint32_t states_of(uint8_t protocol)
{
	if (protocol == IPPROTO_UDP)
		return 1U << TCP_ESTABLISHED;
	return 1U << TCP_ESTABLISHED | 1U << TCP_FIN_WAIT1 | 1U << TCP_FIN_WAIT2 | 1U << TCP_CLOSE_WAIT |
	       1U << TCP_LAST_ACK | 1U << TCP_CLOSING;
}

/* Of both protocols. `judge` is the one that `message` judges by. */
static int sockets_list(struct mnl_socket *nl, struct judge *judge, mnl_cb_t message, void *data)
{
	static const uint8_t protocols[] = {IPPROTO_TCP, IPPROTO_UDP};
	socklen_t len = sizeof(judge->netns);
	int r = 0;

	if (getsockopt(mnl_socket_get_fd(nl), SOL_SOCKET, SO_NETNS_COOKIE, &judge->netns, &len) < 0)
		return -errno;
	for (size_t i = 0; i < 2 && r == 0; i++) {
		judge->protocol = protocols[i];
		r = netlink_sockets_list(nl, protocols[i], states_of(protocols[i]), message, data);
	}
	return r;
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
	req->sdiag_protocol = victim->protocol;
	req->idiag_states = ~0U;
	req->id = victim->id;
	return netlink_exchange(nl, nlh, NULL, NULL);
}

static void victim_cut(struct cut *cut, struct mnl_socket *nl, const struct victim *victim)
{
	int r = socket_destroy(nl, victim);

	if (r == 0)
		cut->destroyed++;
	else if (r != -ENOENT && r != -ESTALE) /* closed meanwhile */
		log_warning("cannot destroy a socket that is no longer allowed (its packets are dropped): %s",
			    strerror(-r));
	/* The socket may go on and connect again: what it had is over. */
	if (r == 0 && victim->protocol == IPPROTO_UDP) {
		struct bh_udp_key key = udp_key(victim->family, &victim->id);

		datapath_udp_flow_delete(cut->judge.datapath, &key);
	}
}

static int namespace_cut(void *ctx)
{
	__attribute__((cleanup(netlink_closep))) struct mnl_socket *nl = netlink_open(NETLINK_SOCK_DIAG);
	struct cut *cut = ctx;
	int r;

	if (!nl)
		return -errno;
	cut->n = 0;
	r = sockets_list(nl, &cut->judge, socket_message, cut);
	for (size_t i = 0; i < cut->n; i++)
		victim_cut(cut, nl, &cut->victims[i]);
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
	struct known known;
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
	if (r == 0 && socket_read(&look->judge, nlh, &known, &victim.cgroup_id)) {
		verdict = judge_socket(&look->judge, &known, victim.cgroup_id);
		victim.cell = verdict.cell;
		victim.kind = known.kind;
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

	return nl ? sockets_list(nl, &look->judge, look_message, look) : -errno;
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
